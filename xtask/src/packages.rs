//! What the host must have: one table of tool and Debian package. Installs what is missing, or says so.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use klpx_guest::{is_static, which};

use crate::process;
use crate::ui;

/// What a package is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// To build a kernel with GCC.
    Gcc,
    /// To build as Debian 12's own kernels are built.
    Gcc12,
    /// To build a kernel with Clang.
    Clang,
    /// To build a kernel with an older Clang.
    Clang19,
    /// To fetch and unpack a kernel source.
    Source,
    /// To make a root directory of another release of Debian.
    Root,
    /// To run an x86_64 guest.
    Guest,
    /// To build an arm64 kernel, whatever the compiler, and to run an arm64 guest.
    Arm64,
    /// For the unit tests, which compile small objects with every compiler that klpx knows.
    Objects,
    /// To look at a page as a user does.
    Browser,
    /// To measure beside others.
    Bench,
}

impl Need {
    pub(crate) const ALL: &[Need] = &[
        Need::Gcc,
        Need::Gcc12,
        Need::Clang,
        Need::Clang19,
        Need::Source,
        Need::Root,
        Need::Guest,
        Need::Arm64,
        Need::Objects,
        Need::Browser,
    ];
}

/// How to see that a package is there.
enum Probe {
    /// A command.
    Command(&'static str),
    /// A file, in any of these places.
    File(&'static [&'static str]),
}

use Need::{Arm64, Bench, Browser, Clang, Clang19, Gcc, Gcc12, Guest, Objects, Root, Source};
use Probe::{Command as Tool, File};

/// Every host dependency: how to see it, the Debian package, what needs it.
const PACKAGES: &[(Probe, &str, &[Need])] = &[
    (Tool("gcc"), "gcc", &[Gcc, Clang, Clang19, Guest]),
    (File(&["/usr/include/stdio.h"]), "libc6-dev", &[Gcc, Clang, Clang19, Guest]),
    (Tool("make"), "make", &[Gcc, Clang, Clang19]),
    (Tool("flex"), "flex", &[Gcc, Clang, Clang19]),
    (Tool("bison"), "bison", &[Gcc, Clang, Clang19]),
    (Tool("bc"), "bc", &[Gcc, Clang, Clang19]),
    (Tool("perl"), "perl", &[Gcc, Clang, Clang19]),
    (Tool("ld"), "binutils", &[Gcc, Clang, Clang19]),
    (File(&["/usr/include/libelf.h", "/usr/include/gelf.h"]), "libelf-dev", &[Gcc, Clang, Clang19]),
    (File(&["/usr/include/openssl/opensslv.h"]), "libssl-dev", &[Gcc, Clang, Clang19]),
    // makes BTF
    (Tool("pahole"), "pahole", &[Gcc, Clang, Clang19]),
    // with it the tree's objtool can do what `cargo xtask bench` compares with
    (File(&["/usr/include/xxhash.h"]), "libxxhash-dev", &[Gcc, Clang, Clang19]),
    (Tool("clang-22"), "clang-22", &[Clang]),
    (Tool("ld.lld-22"), "lld-22", &[Clang]),
    (Tool("llvm-nm-22"), "llvm-22", &[Clang]),
    (Tool("clang-16"), "clang-16", &[Objects]),
    (Tool("ld.lld-16"), "lld-16", &[Objects]),
    (Tool("llvm-nm-16"), "llvm-16", &[Objects]),
    (Tool("clang-19"), "clang-19", &[Objects, Clang19]),
    (Tool("ld.lld-19"), "lld-19", &[Objects, Clang19]),
    (Tool("llvm-nm-19"), "llvm-19", &[Objects, Clang19]),
    (Tool("gcc-12"), "gcc-12", &[Gcc12, Objects]),
    (Tool("git"), "git", &[Gcc, Clang, Clang19]),
    (Tool("xz"), "xz-utils", &[Source]),
    (Tool("zstd"), "zstd", &[Source]),
    (Tool("tar"), "tar", &[Source]),
    (Tool("mmdebstrap"), "mmdebstrap", &[Root]),
    (Tool("unshare"), "util-linux", &[Root]),
    (Tool("busybox"), "busybox-static", &[Guest]),
    (Tool("qemu-system-x86_64"), "qemu-system-x86", &[Guest]),
    (Tool("aarch64-linux-gnu-gcc"), "gcc-aarch64-linux-gnu", &[Arm64]),
    (File(&["/usr/aarch64-linux-gnu/include/stdio.h"]), "libc6-dev-arm64-cross", &[Arm64]),
    (Tool("qemu-system-aarch64"), "qemu-system-arm", &[Arm64]),
    (Tool("chromium"), "chromium", &[Browser]),
    (Tool("pfunct"), "pahole", &[Bench]),
];

/// Packages of the table that are needed and not there.
fn missing(needs: &[Need]) -> Vec<&'static str> {
    PACKAGES
        .iter()
        .filter(|(_, _, for_what)| for_what.iter().any(|need| needs.contains(need)))
        .filter(|(probe, _, _)| !present(probe))
        .map(|(_, package, _)| *package)
        .collect()
}

fn present(probe: &Probe) -> bool {
    match probe {
        // A busybox that needs shared libraries can't run in the guest's initramfs.
        Tool("busybox") => which("busybox").is_some_and(|path| is_static(&path)),
        Tool(name) => which(name).is_some(),
        File(places) => places.iter().any(|place| Path::new(place).exists() || in_multiarch(place)),
    }
}

/// Debian keeps some headers in an architecture's own directory.
fn in_multiarch(place: &str) -> bool {
    let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
    Path::new(&place.replace("/usr/include/", &format!("/usr/include/{triple}/"))).exists()
}

/// Makes sure that the host has what `needs` asks for.
pub(crate) fn ensure(needs: &[Need]) -> Result<()> {
    let wanted = missing(needs);
    if wanted.is_empty() {
        ui::line("host packages", "all there", None);
        return Ok(());
    }
    let list = wanted.join(" ");
    if which("apt-get").is_none() || !is_debian() {
        bail!(
            "the host lacks tools; on Debian they are in: {list}\ninstall what provides them here, then run this again"
        );
    }
    let Some(mut apt) = as_root() else {
        bail!(
            "the host lacks packages and neither root nor sudo is at hand; run as root:\n  apt-get install {list}"
        );
    };
    let mut step = ui::step("host packages");
    step.at(&list);
    process::output(apt.arg("update")).context("can't refresh the package lists")?;
    let mut apt = as_root().context("sudo went away")?;
    apt.args(["install", "-y", "--no-install-recommends"]).args(&wanted);
    process::output(&mut apt).with_context(|| format!("can't install {list}"))?;
    let left = missing(needs);
    if !left.is_empty() {
        step.failed(&left.join(" "));
        bail!("installed, but still not found: {}", left.join(" "));
    }
    step.done(&format!("installed {list}"));
    Ok(())
}

/// `apt-get`, as root.
fn as_root() -> Option<Command> {
    // SAFETY: geteuid has no preconditions and always succeeds.
    let root = unsafe { libc::geteuid() } == 0;
    let mut command = if root {
        Command::new("apt-get")
    } else {
        which("sudo")?;
        let mut sudo = Command::new("sudo");
        sudo.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        sudo
    };
    command.env("DEBIAN_FRONTEND", "noninteractive");
    Some(command)
}

fn is_debian() -> bool {
    os_release("ID").is_some_and(|id| id == "debian")
}

/// A value of /etc/os-release.
pub(crate) fn os_release(key: &str) -> Option<String> {
    let text = std::fs::read_to_string("/etc/os-release").ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
    Some(value.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_need_has_packages() {
        for need in Need::ALL.iter().chain(&[Bench]) {
            assert!(PACKAGES.iter().any(|(_, _, needs)| needs.contains(need)));
        }
    }

    #[test]
    fn a_dynamic_program_and_a_text_are_not_static() {
        assert!(!is_static(Path::new("/bin/sh")));
        assert!(!is_static(Path::new("/etc/passwd")));
    }
}
