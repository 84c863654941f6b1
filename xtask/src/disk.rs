//! Makes a disk with Debian 12 and systemd, from which guests boot.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use klpx_guest::{Clock, DISK_MODULES, Guest, KernelModules};

use crate::apt;
use crate::busybox;
use crate::kernel::BuiltKernel;
use crate::packages::{self, Need};
use crate::process;
use crate::ui;
use crate::workspace::CargoWorkspace;

/// The needs for making the disk.
pub(crate) const NEEDS: [Need; 3] = [Need::Disk, Need::Guest, Need::Packages];

const SUITE: &str = "bookworm";
/// The packages on the disk besides those of every Debian.
const PACKAGES: &str = "kmod,rpm,systemd-sysv";
/// Free space on the disk, in bytes.
const ROOM: u64 = 256 << 20;

/// Copies the disk into a folder. The first call makes the disk itself, which is kept.
pub(crate) fn copy(workspace: &CargoWorkspace, folder: &Path) -> Result<PathBuf> {
    let disk = ensure(workspace)?;
    let copy = folder.join("disk");
    fs::copy(disk, &copy)?;
    Ok(copy)
}

/// Returns a guest of a kernel that boots from a disk and has further modules of the kernel at hand.
pub(crate) fn guest(
    workspace: &CargoWorkspace,
    built: &BuiltKernel,
    disk: PathBuf,
    modules: &[&str],
) -> Result<Guest> {
    let known = KernelModules::read(&built.modules_root())?;
    let wanted = DISK_MODULES.iter().chain(modules).map(|&name| name.to_owned());
    // A module without a file is built in.
    let wanted: Vec<String> = wanted.filter(|name| known.names().contains(name)).collect();
    Ok(Guest {
        machine: built.kernel.machine.guest,
        image: built.image(),
        busybox: busybox::ensure(workspace, built.kernel.machine)?,
        modules: known.loading(&wanted)?,
        programs: Vec::new(),
        disk: Some(disk),
        arguments: String::new(),
        clock: Clock::Host,
    })
}

fn ensure(workspace: &CargoWorkspace) -> Result<PathBuf> {
    let disks = workspace.cache_dir("disks")?;
    let disk = disks.join(SUITE);
    let _lock = workspace.lock("disk")?;
    if disk.is_file() {
        return Ok(disk);
    }
    packages::ensure(&[Need::Disk])?;
    let mut step = ui::step("Debian on a disk");
    step.at("mmdebstrap");
    let scratch = tempfile::Builder::new().prefix(".make-").tempdir_in(&disks)?;
    let sources = scratch.path().join("debian.sources");
    fs::write(&sources, apt::sources(&[SUITE])?)?;
    let made = scratch.path().join("disk.ext2");
    let mut command = Command::new("mmdebstrap");
    // A mirror that stands still for weeks is good enough, because signatures are still checked.
    command.arg("--aptopt=Acquire::Check-Valid-Until \"false\"");
    for pattern in ["/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/man/*"] {
        command.arg(format!("--dpkgopt=path-exclude={pattern}"));
    }
    command.args(["--variant=minbase", "--format=ext2", "--quiet"]).arg(format!("--include={PACKAGES}"));
    command.arg(SUITE).arg(&made).arg(&sources);
    process::output(&mut command)?;
    let file = fs::OpenOptions::new().write(true).open(&made)?;
    file.set_len(file.metadata()?.len() + ROOM)?;
    drop(file);
    // The disk needs a journal, because the guest goes down in the middle of its work.
    for (program, options) in [("e2fsck", &["-fp"][..]), ("resize2fs", &[]), ("tune2fs", &["-j"])] {
        step.at(program);
        process::output(Command::new(program).args(options).arg(&made))?;
    }
    fs::rename(&made, &disk)?;
    step.done(&format!("{SUITE} with {PACKAGES}"));
    Ok(disk)
}
