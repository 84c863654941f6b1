//! The needs of the host, as tables of tools and Debian packages. Installs missing packages, or names them.

use std::collections::BTreeSet;
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
    /// To build kernels as Debian 12 does.
    Gcc12,
    /// To build a kernel with Clang.
    Clang,
    /// To build a kernel with an older Clang.
    Clang19,
    /// To fetch and unpack a kernel source.
    Source,
    /// To make a root directory of another release of Debian.
    Root,
    /// To make a disk that a guest boots from.
    Disk,
    /// To make packages and to examine them.
    Packages,
    /// To run an x86_64 guest.
    Guest,
    /// To build an arm64 kernel, whatever the compiler, and to run an arm64 guest.
    Arm64,
    /// For the unit tests, which compile small objects with every compiler that klpx knows. The table is
    /// `klpx_testkit`.
    Objects,
    /// To build libFuzzer.
    Fuzz,
    /// To see a page as a user does.
    Browser,
    /// To measure other tools for comparison.
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
        Need::Disk,
        Need::Packages,
        Need::Guest,
        Need::Arm64,
        Need::Objects,
        Need::Fuzz,
        Need::Browser,
    ];
}

/// A part of a package whose presence shows that the package is installed.
#[derive(Clone, Copy)]
enum PackagePart {
    /// A program, and its package.
    Program(&'static str, &'static str),
    /// A program that the unit tests also start, so their table has its package.
    Shared(&'static str),
    /// A file, in any of these places, and its package.
    File(&'static [&'static str], &'static str),
}

use Need::{
    Arm64, Bench, Browser, Clang, Clang19, Disk, Fuzz, Gcc, Gcc12, Guest, Objects, Packages, Root, Source,
};
use PackagePart::{File, Program, Shared};

/// Every host dependency and the needs for it. The unit tests' programs have a separate table.
const ITEMS: &[(PackagePart, &[Need])] = &[
    (Shared("gcc"), &[Gcc, Clang, Clang19, Guest]),
    (File(&["/usr/include/stdio.h"], "libc6-dev"), &[Gcc, Clang, Clang19, Guest]),
    (Shared("make"), &[Gcc, Clang, Clang19]),
    (Program("flex", "flex"), &[Gcc, Clang, Clang19]),
    (Program("bison", "bison"), &[Gcc, Clang, Clang19]),
    (Program("bc", "bc"), &[Gcc, Clang, Clang19]),
    (Program("perl", "perl"), &[Gcc, Clang, Clang19]),
    (Shared("ld"), &[Gcc, Clang, Clang19]),
    (File(&["/usr/include/libelf.h", "/usr/include/gelf.h"], "libelf-dev"), &[Gcc, Clang, Clang19]),
    (File(&["/usr/include/openssl/opensslv.h"], "libssl-dev"), &[Gcc, Clang, Clang19]),
    // makes BTF
    (Program("pahole", "pahole"), &[Gcc, Clang, Clang19]),
    // with it the tree's objtool can do the comparison of `cargo xtask bench`
    (File(&["/usr/include/xxhash.h"], "libxxhash-dev"), &[Gcc, Clang, Clang19]),
    (Shared("clang-22"), &[Clang]),
    (Shared("ld.lld-22"), &[Clang]),
    (Shared("llvm-nm-22"), &[Clang]),
    (Shared("clang-19"), &[Clang19]),
    (Shared("ld.lld-19"), &[Clang19]),
    (Shared("llvm-nm-19"), &[Clang19]),
    (Shared("gcc-12"), &[Gcc12]),
    (Shared("git"), &[Gcc, Clang, Clang19]),
    (Program("xz", "xz-utils"), &[Source]),
    (Program("zstd", "zstd"), &[Source]),
    (Program("tar", "tar"), &[Source]),
    (Program("mmdebstrap", "mmdebstrap"), &[Root, Disk]),
    (Program("genext2fs", "genext2fs"), &[Disk]),
    (Program("resize2fs", "e2fsprogs"), &[Disk]),
    (Program("lintian", "lintian"), &[Packages]),
    (Program("rpmlint", "rpmlint"), &[Packages]),
    (Program("rpm", "rpm"), &[Packages]),
    (Program("dpkg-shlibdeps", "dpkg-dev"), &[Packages]),
    (Program("unshare", "util-linux"), &[Root]),
    (Program("busybox", "busybox-static"), &[Guest]),
    (Program("qemu-system-x86_64", "qemu-system-x86"), &[Guest]),
    (Shared("aarch64-linux-gnu-gcc"), &[Arm64]),
    (File(&["/usr/aarch64-linux-gnu/include/stdio.h"], "libc6-dev-arm64-cross"), &[Arm64]),
    (Program("qemu-system-aarch64", "qemu-system-arm"), &[Arm64]),
    (Program("c++", "g++"), &[Fuzz]),
    (Shared("chromium"), &[Browser]),
    (Program("pfunct", "pahole"), &[Bench]),
];

impl PackagePart {
    fn package(&self) -> &'static str {
        match self {
            Program(_, package) | File(_, package) => package,
            Shared(program) => klpx_testkit::package(program).unwrap_or(program),
        }
    }

    fn is_present(&self) -> bool {
        match self {
            // A busybox that needs shared libraries can't run in the guest's initramfs.
            Program("busybox", _) => which("busybox").is_some_and(|path| is_static(&path)),
            Program(name, _) | Shared(name) => which(name).is_some(),
            File(places, _) => places.iter().any(|place| Path::new(place).exists() || in_multiarch(place)),
        }
    }
}

/// Returns the items for some needs.
fn asked(needs: &[Need]) -> impl Iterator<Item = PackagePart> {
    let own = ITEMS.iter().filter(|(_, for_what)| for_what.iter().any(|need| needs.contains(need)));
    let tests = if needs.contains(&Objects) { klpx_testkit::PROGRAMS } else { &[] };
    own.map(|(item, _)| *item).chain(tests.iter().map(|(name, _)| Shared(name)))
}

/// Returns the packages that are needed and missing, each once.
fn missing(needs: &[Need]) -> BTreeSet<&'static str> {
    asked(needs).filter(|item| !item.is_present()).map(|item| item.package()).collect()
}

/// Debian keeps some headers in an architecture's own directory.
fn in_multiarch(place: &str) -> bool {
    let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
    Path::new(&place.replace("/usr/include/", &format!("/usr/include/{triple}/"))).exists()
}

/// Makes sure that the host has everything for `needs`.
pub(crate) fn ensure(needs: &[Need]) -> Result<()> {
    let wanted = missing(needs);
    if wanted.is_empty() {
        ui::line("host packages", "all there", None);
        return Ok(());
    }
    let list = words(&wanted);
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
        step.failed(&words(&left));
        bail!("installed, but still not found: {}", words(&left));
    }
    step.done(&format!("installed {list}"));
    Ok(())
}

fn words(packages: &BTreeSet<&str>) -> String {
    packages.iter().copied().collect::<Vec<_>>().join(" ")
}

/// Returns `apt-get`, run as root.
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

/// Returns a value of /etc/os-release.
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
            assert!(asked(&[*need]).next().is_some());
        }
    }

    #[test]
    fn all_programs_of_the_unit_tests_are_installed_for_them_and_have_one_row() {
        let programs = |needs: &[Need]| -> BTreeSet<&str> {
            let shared = asked(needs).filter_map(|item| match item {
                Shared(name) => Some(name),
                _ => None,
            });
            shared.collect()
        };
        let tests: BTreeSet<&str> = klpx_testkit::PROGRAMS.iter().map(|(name, _)| *name).collect();
        assert_eq!(programs(&[Objects]), tests);
        // Items that the unit tests' table has are taken from it, and every item taken from the table is there.
        for (item, _) in ITEMS {
            match item {
                Program(name, _) => assert_eq!(klpx_testkit::package(name), None, "{name}"),
                Shared(name) => assert!(tests.contains(name), "{name}"),
                File(..) => {}
            }
        }
    }

    #[test]
    fn a_dynamic_program_and_a_text_are_not_static() {
        assert!(!is_static(Path::new("/bin/sh")));
        assert!(!is_static(Path::new("/etc/passwd")));
    }
}
