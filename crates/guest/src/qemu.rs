//! A small QEMU runner: kernel, initramfs, serial console. Passes on console lines until the guest ends or a deadline
//! passes.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use klpx_diagnosis::{Diagnosis, codes};

use crate::Clock;
use crate::host::which;
use crate::machine::Machine;

/// Accelerators. TCG runs all processors in one thread: with a thread for each, TCG may run a breakpoint that the
/// kernel has already removed from its text, and the guest oopses.
const KVM: &str = "kvm";
const TCG: &str = "tcg,thread=single";
/// How long a test of KVM may take. A kernel that runs panics much earlier, for lack of a root file system.
const PROBE: Duration = Duration::from_secs(10);

/// How a guest's run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GuestEnd {
    /// The guest rebooted or switched itself off.
    Exited,
    /// The deadline passed; the guest was killed.
    TimedOut,
}

/// The accelerator that runs guests of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accelerator(&'static str);

impl Accelerator {
    /// Returns true if the guest's instructions are emulated, which is slow.
    pub fn is_emulation(self) -> bool {
        self.0 == TCG
    }

    /// Finds the accelerator for guests of the machine. For this host's own architecture, klpx boots a kernel without a
    /// root once, since only a trial shows that KVM works. Other architectures are emulated.
    ///
    /// # Errors
    /// `klpx::missing-tool` if the emulator is not installed.
    pub fn find(machine: &Machine, image: &Path) -> Result<Accelerator, Diagnosis> {
        static NATIVE: OnceLock<&str> = OnceLock::new();
        if which(machine.qemu).is_none() {
            let what = format!("a guest needs {}", machine.qemu);
            return Err(Diagnosis::new(
                &codes::MISSING_TOOL,
                what,
                format!("{} is not installed", machine.qemu),
                format!("install {}", machine.package),
            ));
        }
        if !machine.is_native() || !Path::new("/dev/kvm").exists() {
            return Ok(Accelerator(TCG));
        }
        Ok(Accelerator(NATIVE.get_or_init(|| {
            let mut ran = false;
            let seen = |line: &str| ran |= line.contains("Kernel panic") || line.contains("end Kernel");
            // A broken KVM reports an error on standard error, or prints nothing until the deadline.
            let _ = watch(&mut command(machine, Accelerator(KVM), image, ""), PROBE, seen);
            if ran { KVM } else { TCG }
        })))
    }
}

/// The settings of one run.
pub(crate) struct Run<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) image: &'a Path,
    pub(crate) initramfs: &'a Path,
    pub(crate) disk: Option<&'a Path>,
    /// Further words for the kernel's command line.
    pub(crate) arguments: &'a str,
    pub(crate) clock: Clock,
    pub(crate) limit: Duration,
}

impl Run<'_> {
    /// Boots and passes every line of the serial console to `line` until the guest ends or the deadline passes.
    ///
    /// # Errors
    /// If the emulator is missing or fails.
    pub(crate) fn watch(&self, line: impl FnMut(&str)) -> Result<GuestEnd, Diagnosis> {
        let mut command = match self.clock {
            Clock::Host => {
                let accelerator = Accelerator::find(self.machine, self.image)?;
                command(self.machine, accelerator, self.image, self.arguments)
            }
            Clock::Instructions => {
                // A second processor's instructions and idle time would move the clock as well.
                let arguments = format!("{} maxcpus=1", self.arguments);
                let mut command = command(self.machine, Accelerator(TCG), self.image, &arguments);
                command.args(["-icount", "shift=0,sleep=off"]);
                command
            }
        };
        command.arg("-initrd").arg(self.initramfs);
        if let Some(disk) = self.disk {
            // A comma in a file name is doubled (qemu(1), -drive).
            let file = disk.to_string_lossy().replace(',', ",,");
            command.arg("-drive").arg(format!("file={file},format=raw,if=virtio"));
        }
        watch(&mut command, self.limit, line)
    }
}

fn command(machine: &Machine, accelerator: Accelerator, image: &Path, arguments: &str) -> Command {
    let processor = if accelerator.is_emulation() { machine.emulated } else { "host" };
    let mut command = Command::new(machine.qemu);
    command
        .args(machine.board)
        .args(["-accel", accelerator.0, "-cpu", processor, "-m", "1G"])
        .args(["-no-reboot", "-nodefaults", "-display", "none", "-serial", "stdio"])
        .arg("-kernel")
        .arg(image)
        .arg("-append")
        .arg(format!("console={} panic=-1 printk.devkmsg=on {arguments}", machine.console).trim_end());
    command
}

/// A guest process. Dropping the value kills the guest.
struct GuestProcess(Child);

impl Drop for GuestProcess {
    fn drop(&mut self) {
        // The guest may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn watch(command: &mut Command, limit: Duration, mut line: impl FnMut(&str)) -> Result<GuestEnd, Diagnosis> {
    let deadline = Instant::now() + limit;
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(command, &error.to_string()))?;
    let mut guest = GuestProcess(child);
    let (sender, receiver) = channel();
    let stdout = guest.0.stdout.take().ok_or_else(|| Diagnosis::internal("the console is piped"))?;
    let console = std::thread::spawn(move || {
        let mut reader = BufReader::new(stdout);
        let mut bytes = Vec::new();
        while reader.read_until(b'\n', &mut bytes).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            bytes.clear();
            if sender.send(text).is_err() {
                return;
            }
        }
    });
    let mut stderr = guest.0.stderr.take().ok_or_else(|| Diagnosis::internal("the errors are piped"))?;
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        // Only QEMU's own messages. After a read error, `text` has the part that was read.
        let _ = std::io::Read::read_to_string(&mut stderr, &mut text);
        text
    });
    let end = loop {
        match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(text) => line(&text),
            Err(RecvTimeoutError::Disconnected) => break GuestEnd::Exited,
            Err(RecvTimeoutError::Timeout) => break GuestEnd::TimedOut,
        }
    };
    if end == GuestEnd::TimedOut {
        let _ = guest.0.kill();
    }
    let status = guest.0.wait().map_err(|error| failed(command, &error.to_string()))?;
    let _ = console.join();
    let errors = errors.join().unwrap_or_default();
    if end == GuestEnd::Exited && !status.success() {
        return Err(failed(command, &format!("it ended with {status}: {}", errors.trim())));
    }
    Ok(end)
}

fn failed(command: &Command, why: &str) -> Diagnosis {
    let program = command.get_program().to_string_lossy();
    Diagnosis::new(
        &codes::GUEST_FAILED,
        format!("{program} does not run a guest"),
        why,
        "run the emulator by hand; a guest needs 1 GiB of memory",
    )
}
