//! Another release of Debian as a root directory in which klpx runs, with a kernel's packages at that release's usual
//! places. Mounts exist only in the namespace of one command, so nothing is left behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::apt;
use crate::packages::{self, Need, os_release};
use crate::process;
use crate::ui;
use crate::workspace::CargoWorkspace;

/// A release of Debian.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Distro {
    /// The suite from which the root is made.
    suite: &'static str,
    /// The release's compiler for kernels.
    compiler: &'static str,
}

impl Distro {
    /// Returns true if this machine runs the release.
    pub(crate) fn is_here(&self) -> bool {
        os_release("VERSION_CODENAME").as_deref() == Some(self.suite)
    }
}

/// Debian 12.
pub(crate) static BOOKWORM: Distro = Distro { suite: "bookworm", compiler: "gcc-12" };
/// Debian 13.
pub(crate) static TRIXIE: Distro = Distro { suite: "trixie", compiler: "gcc-14" };
/// The next Debian.
pub(crate) static SID: Distro = Distro { suite: "sid", compiler: "gcc-16" };

/// The packages that a user of klpx installs besides the kernel's packages and its compiler.
const PACKAGES: &[&str] = &["bc", "bison", "flex", "git", "libelf-dev", "make", "pahole", "perl", "xz-utils"];
/// The directories of a kernel's packages.
const OF_KERNEL: &str = "boot usr/src usr/lib/debug usr/lib/modules";

/// Puts a kernel's packages and shared directories into a root, and runs a command there. Arguments: root, sysroot,
/// number of shared directories, the directories, the command.
const ENTER: &str = r#"
set -e
root=$1 sysroot=$2 shared=$3
shift 3
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
for place in OF_KERNEL; do
    [ -d "$sysroot/$place" ] || continue
    mkdir -p "$root/$place"
    mount --bind "$sysroot/$place" "$root/$place"
done
for place in "$sysroot"/usr/lib/linux-kbuild-*; do
    [ -d "$place" ] || continue
    mkdir -p "$root/usr/lib/${place##*/}"
    mount --bind "$place" "$root/usr/lib/${place##*/}"
done
while [ "$shared" -gt 0 ]; do
    mkdir -p "$root$1"
    mount --bind "$1" "$root$1"
    shift
    shared=$((shared - 1))
done
cd "$root"
exec chroot "$root" "$@"
"#;

/// Returns the root directory of a release, which the first call makes.
pub(crate) fn ensure(workspace: &CargoWorkspace, distro: &Distro) -> Result<PathBuf> {
    let roots = workspace.cache_dir("roots")?;
    let root = roots.join(distro.suite);
    let _lock = workspace.lock(&format!("root-{}", distro.suite))?;
    if root.is_dir() {
        return Ok(root);
    }
    // SAFETY: geteuid has no preconditions and always succeeds.
    if unsafe { libc::geteuid() } != 0 {
        bail!("a root directory of {} is made and entered as root only", distro.suite);
    }
    packages::ensure(&[Need::Root])?;
    let mut step = ui::step(distro.suite);
    step.at("mmdebstrap");
    let scratch = tempfile::Builder::new().prefix(".make-").tempdir_in(&roots)?;
    let sources = scratch.path().join("debian.sources");
    fs::write(&sources, apt::sources(&[distro.suite])?)?;
    let made = scratch.path().join("root");
    let include = [PACKAGES, &[distro.compiler]].concat().join(",");
    let mut command = Command::new("mmdebstrap");
    // A mirror that stands still for weeks is good enough, because signatures are still checked.
    command.arg("--aptopt=Acquire::Check-Valid-Until \"false\"");
    command.args(["--variant=minbase", "--mode=root", "--quiet"]).arg(format!("--include={include}"));
    command.arg(distro.suite).arg(&made).arg(&sources);
    process::output(&mut command)?;
    fs::rename(&made, &root)?;
    step.done(&format!("{} with {}", distro.suite, distro.compiler));
    Ok(root)
}

/// Returns a command that runs its further arguments inside a root. The root has a kernel's packages, and directories
/// of the host under the same names.
pub(crate) fn enter(root: &Path, sysroot: &Path, shared: &[&Path]) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &ENTER.replace("OF_KERNEL", OF_KERNEL), "enter"]);
    command.arg(root).arg(sysroot).arg(shared.len().to_string()).args(shared);
    command
}
