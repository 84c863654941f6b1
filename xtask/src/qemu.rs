//! A small QEMU runner: kernel, initramfs, serial console. Streams lines, stops at a word, a deadline, or the guest's end.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::which;

/// The emulator for the only architecture that guests run on so far.
const PROGRAM: &str = "qemu-system-x86_64";
/// How to run guest code, the fastest first. Whether one works is only known by trying. With a thread for each of its
/// processors, TCG may run a breakpoint that the kernel has already taken out of its text again, and the guest oopses.
const ACCELERATORS: &[&[&str]] =
    &[&["-accel", "kvm", "-cpu", "host"], &["-accel", "tcg,thread=single", "-cpu", "max"]];
/// A kernel that runs at all panics for want of a root file system well before this.
const PROBE: Duration = Duration::from_secs(10);

/// How a guest's run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The guest rebooted or switched itself off.
    Exited,
    /// The deadline passed; the guest was killed.
    TimedOut,
}

/// Boots and gives every line of the serial console to `line` until the guest ends or `limit` passes.
pub(crate) fn run(
    image: &Path,
    initramfs: &Path,
    arguments: &str,
    limit: Duration,
    line: impl FnMut(&str),
) -> Result<End> {
    let mut command = command(accelerator(image)?, image, arguments);
    command.arg("-initrd").arg(initramfs);
    watch(&mut command, limit, line)
}

fn command(accelerator: &[&str], image: &Path, arguments: &str) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .args(accelerator)
        .args([
            "-m",
            "1G",
            "-smp",
            "2,sockets=2",
            "-no-reboot",
            "-nodefaults",
            "-display",
            "none",
            "-serial",
            "stdio",
        ])
        .arg("-kernel")
        .arg(image)
        .arg("-append")
        .arg(format!("console=ttyS0 panic=-1 printk.devkmsg=on {arguments}").trim_end());
    command
}

/// The accelerator that runs this host's guests, found once by booting a kernel without a root.
fn accelerator(image: &Path) -> Result<&'static [&'static str]> {
    static FOUND: OnceLock<&[&str]> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return Ok(found);
    }
    which(PROGRAM).with_context(|| format!("{PROGRAM} is not installed"))?;
    for accelerator in ACCELERATORS {
        if accelerator.contains(&"kvm") && !Path::new("/dev/kvm").exists() {
            continue;
        }
        let mut ran = false;
        let seen = |line: &str| ran |= line.contains("Kernel panic") || line.contains("end Kernel");
        let result = watch(&mut command(accelerator, image, ""), PROBE, seen);
        if ran || (result.is_ok() && accelerator[1].starts_with("tcg")) {
            return Ok(FOUND.get_or_init(|| accelerator));
        }
    }
    bail!("{PROGRAM} can run no guest on this host")
}

/// A guest that is killed when its watcher goes away.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn watch(command: &mut Command, limit: Duration, mut line: impl FnMut(&str)) -> Result<End> {
    let deadline = Instant::now() + limit;
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("can't run {PROGRAM}"))?;
    let mut guest = Guest(child);
    let (sender, receiver) = channel();
    let stdout = guest.0.stdout.take().context("the console is piped")?;
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
    let mut stderr = guest.0.stderr.take().context("the errors are piped")?;
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        // QEMU's own words only; a read error leaves what there is.
        let _ = std::io::Read::read_to_string(&mut stderr, &mut text);
        text
    });
    let end = loop {
        match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(text) => line(&text),
            Err(RecvTimeoutError::Disconnected) => break End::Exited,
            Err(RecvTimeoutError::Timeout) => break End::TimedOut,
        }
    };
    if end == End::TimedOut {
        let _ = guest.0.kill();
    }
    let status = guest.0.wait()?;
    let _ = console.join();
    let errors = errors.join().unwrap_or_default();
    if end == End::Exited && !status.success() {
        bail!("{PROGRAM} ended with {status}: {}", errors.trim());
    }
    Ok(end)
}
