//! Runs a klpx, watches its output as it comes, and sends it signals as a terminal does.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::process;

/// A klpx without new output for this long hangs.
const PATIENCE: Duration = Duration::from_secs(1800);

/// A running klpx. Dropping it ends the process.
pub(super) struct RunningKlpx {
    pub(super) child: Child,
    lines: mpsc::Receiver<String>,
    pub(super) text: String,
}

/// A klpx that has ended.
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) text: String,
}

impl RunningKlpx {
    /// Starts klpx in a separate process group, as a shell does.
    pub(super) fn start(mut command: Command) -> Result<RunningKlpx> {
        let (reader, writer) = std::io::pipe()?;
        let child = command
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .process_group(0)
            .spawn()
            .with_context(|| format!("can't run {}", process::shown(&command)))?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    break;
                }
            }
        });
        // `command` holds the writing ends and is dropped here; a reader would wait for them for ever.
        drop(command);
        Ok(RunningKlpx { child, lines, text: String::new() })
    }

    /// Reads up to a line that contains `text`.
    pub(super) fn until(&mut self, text: &str) -> Result<()> {
        while let Some(line) = self.line()? {
            if line.contains(text) {
                return Ok(());
            }
        }
        bail!("klpx ended without '{text}'\n{}", process::tail(&self.text))
    }

    /// Returns the next line; `None` at the end.
    fn line(&mut self) -> Result<Option<String>> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => {
                self.text.push_str(&line);
                self.text.push('\n');
                Ok(Some(line))
            }
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => bail!("klpx hangs\n{}", process::tail(&self.text)),
        }
    }

    /// Returns an error if klpx has ended.
    pub(super) fn still_at_work(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("klpx ended before the signal ({status})\n{}", process::tail(&self.text));
        }
        Ok(())
    }

    /// Sends a signal to the process group, as a terminal does. klpx must still be at work.
    pub(super) fn signal(&mut self, signal: i32) -> Result<()> {
        self.still_at_work()?;
        // SAFETY: a plain system call on the group that the child leads. The child was not waited for, so the number
        // still belongs to it.
        let sent = unsafe { libc::killpg(self.child.id().cast_signed(), signal) };
        ensure!(sent == 0, "can't send a signal: {}", std::io::Error::last_os_error());
        Ok(())
    }

    /// Waits for klpx to end.
    pub(super) fn wait(mut self) -> Result<Ended> {
        while self.line()?.is_some() {}
        let status = self.child.wait()?;
        Ok(Ended { status, text: std::mem::take(&mut self.text) })
    }
}

impl Drop for RunningKlpx {
    fn drop(&mut self) {
        // Both calls fail only for a process that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    pub(super) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    pub(super) fn tail(&self) -> String {
        process::tail(&self.text)
    }

    pub(super) fn judge(&self, exit: i32, code: &str, mentions: &[&str]) -> Vec<String> {
        let mut failures = Vec::new();
        if self.code() != Some(exit) {
            failures.push(format!("{} instead of exit code {exit}\n{}", self.status, self.tail()));
        }
        for text in std::iter::once(&code).chain(mentions) {
            if !self.text.contains(text) {
                failures.push(format!("the message does not say '{text}'\n{}", self.tail()));
            }
        }
        if self.text.contains("panicked") {
            failures.push(format!("klpx panics\n{}", self.tail()));
        }
        failures
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn a_line_is_awaited_and_the_end_seen() {
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            RunningKlpx::start(command).expect("a shell")
        };
        let mut running = shell("echo one; echo two >&2; exit 3");
        running.until("two").expect("said");
        let ended = running.wait().expect("an end");
        assert_eq!((ended.code(), ended.text.as_str()), (Some(3), "one\ntwo\n"));
        assert!(shell("echo one").until("two").is_err());
        let mut asleep = shell("echo one; exec sleep 1000");
        asleep.until("one").expect("said");
        asleep.signal(libc::SIGKILL).expect("sent");
        assert_eq!(asleep.wait().expect("an end").status.signal(), Some(libc::SIGKILL));
    }
}
