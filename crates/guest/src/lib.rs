//! Guests in QEMU that try livepatches: the kernel's own image, an initramfs of busybox, modules and shell scripts, and
//! the console output.
//!
//! Owns the emulator, the protocol on the console and the shell functions that scripts use (`script/guest.sh`). Never
//! builds anything and needs no privileges.

mod console;
mod host;
mod initramfs;
mod machine;
mod modules;
mod qemu;
mod trial;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use klpx_diagnosis::{Diagnosis, Result, codes};

use crate::console::Protocol;
use crate::initramfs::Initramfs;

pub use crate::console::TaskVerdict;
pub use crate::host::{busybox, is_static, which};
pub use crate::machine::{ARM64, Machine, X86_64};
pub use crate::modules::{GuestModule, KernelModules};
pub use crate::qemu::Accelerator;
pub use crate::trial::{Expectation, Trial};

/// Process 1 of a guest, and the shell functions of scripts.
const INIT: &str = include_str!("script/init");
const WORDS: &str = include_str!("script/guest.sh");
const TASKS: &str = include_str!("script/tasks.sh");
/// The script that hands the tasks and the kernel's modules to the system on a disk, and the service that runs the
/// tasks there.
const DISK: &str = include_str!("script/disk.sh");
const DISK_SERVICE: &str = include_str!("script/disk.service");
/// Modules that a guest with a disk needs. Each may be built into the kernel instead.
pub const DISK_MODULES: [&str; 3] = ["virtio_pci", "virtio_blk", "ext4"];
/// Time limits: for a boot, for a boot with the system on a disk, and for each task. Most take seconds.
const BOOT: Duration = Duration::from_secs(60);
const BOOT_DISK: Duration = Duration::from_secs(240);
const TASK: Duration = Duration::from_secs(150);
/// How many of the last console lines an error shows.
const TAIL: usize = 25;

/// A script that runs in a guest, in its own directory.
#[derive(Clone, Debug)]
pub struct Task {
    /// The name of the task's directory. Tasks run in the order of their names.
    pub name: String,
    /// The script, for busybox's shell, with the functions of `guest.sh`.
    pub script: String,
    /// Files beside the script: name and content.
    pub files: Vec<(String, Vec<u8>)>,
    /// Pieces of console lines that are complaints for other tasks and expected for this task.
    pub console: Vec<String>,
}

/// A guest: its machine, and its contents besides the tasks.
#[derive(Debug)]
pub struct Guest {
    /// The machine.
    pub machine: &'static Machine,
    /// The kernel image that a boot loader starts.
    pub image: PathBuf,
    /// A static busybox of the guest's architecture.
    pub busybox: PathBuf,
    /// Modules that the tasks may load with the shell function `module`.
    pub modules: Vec<GuestModule>,
    /// Programs: name and file.
    pub programs: Vec<(String, PathBuf)>,
    /// A disk with a file system that ext4 reads and a system whose process 1 is systemd. The system runs the tasks.
    /// Files that tasks leave on the disk stay there. The modules include [`DISK_MODULES`].
    pub disk: Option<PathBuf>,
    /// Further words for the kernel's command line.
    pub arguments: String,
    /// The clock of the guest.
    pub clock: Clock,
}

/// What moves the clock of a guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clock {
    /// The host's clock.
    #[default]
    Host,
    /// The guest's instructions, one for each nanosecond. The guest is emulated, has one processor, and measures the
    /// same on any host.
    Instructions,
}

/// The result of one boot.
pub struct Boot {
    /// The verdicts of the tasks that the guest reached.
    pub verdicts: BTreeMap<String, TaskVerdict>,
    /// Every line of the console.
    pub console: String,
}

impl Guest {
    /// Runs tasks in one guest. If a task takes the guest down, boots again with the remaining tasks, so that no task
    /// hides another. Writes the console to `log`.
    ///
    /// # Errors
    /// If the emulator is missing or fails, or the guest does not reach its first task.
    pub fn run(&self, tasks: &[Task], log: &Path) -> Result<BTreeMap<String, TaskVerdict>> {
        let mut verdicts = BTreeMap::new();
        let mut left: Vec<&Task> = tasks.iter().collect();
        while !left.is_empty() {
            let boot = self.boot(&left, log)?;
            let before = left.len();
            left.retain(|task| !boot.verdicts.contains_key(&task.name));
            if left.len() == before {
                return Err(unreached(&boot.console, log).into());
            }
            verdicts.extend(boot.verdicts);
        }
        Ok(verdicts)
    }

    /// Boots once and runs tasks until a task takes the guest down.
    ///
    /// # Errors
    /// If the emulator is missing or fails.
    pub fn boot(&self, tasks: &[&Task], log: &Path) -> Result<Boot> {
        let scratch = tempfile::tempdir()
            .map_err(|error| Diagnosis::io("make a folder in", &std::env::temp_dir(), &error))?;
        let archive = scratch.path().join("initramfs");
        self.initramfs(tasks)?.write(&archive)?;
        let mut console = String::new();
        let mut protocol = Protocol::new(tasks);
        let boot = if self.disk.is_some() { BOOT_DISK } else { BOOT };
        let run = qemu::Run {
            machine: self.machine,
            image: &self.image,
            initramfs: &archive,
            disk: self.disk.as_deref(),
            arguments: &self.arguments,
            clock: self.clock,
            limit: boot + TASK * tasks.len() as u32,
        };
        let end = run.watch(|line| {
            console.push_str(line);
            console.push('\n');
            protocol.line(line);
        });
        std::fs::write(log, &console).map_err(|error| Diagnosis::io("write", log, &error))?;
        Ok(Boot { verdicts: protocol.finish(end?), console })
    }

    fn initramfs(&self, tasks: &[&Task]) -> Result<Initramfs> {
        let mut archive = Initramfs::new(INIT, &self.busybox)?;
        for (name, text) in [("lib/guest.sh", WORDS), ("lib/tasks.sh", TASKS)] {
            archive.bytes(name, text.as_bytes().to_vec(), 0o644);
        }
        if self.disk.is_some() {
            archive.bytes("lib/disk.sh", DISK.as_bytes().to_vec(), 0o644);
            archive.bytes("disk.service", DISK_SERVICE.as_bytes().to_vec(), 0o644);
        }
        for module in &self.modules {
            archive.bytes(&format!("modules/{}.ko", module.name), module.data.clone(), 0o644);
            let chain = module.chain.join("\n") + "\n";
            archive.bytes(&format!("modules/{}.chain", module.name), chain.into_bytes(), 0o644);
        }
        for (name, file) in &self.programs {
            archive.file(&format!("bin/{name}"), file, 0o755)?;
        }
        for task in tasks {
            let script = task.script.as_bytes().to_vec();
            archive.bytes(&format!("scenarios/{}/guest.sh", task.name), script, 0o644);
            for (name, data) in &task.files {
                archive.bytes(&format!("scenarios/{}/{name}", task.name), data.clone(), 0o644);
            }
        }
        Ok(archive)
    }
}

fn unreached(console: &str, log: &Path) -> Diagnosis {
    let lines: Vec<String> = console.trim_end().lines().map(str::to_owned).collect();
    let last = lines[lines.len().saturating_sub(TAIL)..].to_vec();
    Diagnosis::new(
        &codes::GUEST_FAILED,
        "the guest does not boot",
        format!("it came to no task; the whole console is in {}", log.display()),
        "check that the image is that of the kernel's own package or build tree, and has a serial console",
    )
    .detail(last)
}
