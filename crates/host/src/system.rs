//! System calls and the clock. Tests replace the running kernel.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How many lines of the kernel's log are kept for one call.
const LINES: usize = 12;

/// The requests to a kernel.
pub(crate) trait KernelInterface {
    /// Loads a module from its file, or from its bytes if the file is compressed. If the kernel refuses, `log_lines` gets
    /// the lines that the kernel logged during the call.
    fn load(&self, file: &File, unpacked: Option<&[u8]>, log_lines: &mut Vec<String>) -> io::Result<()>;
    /// Removes a module that is not in use.
    fn remove(&self, module: &str) -> io::Result<()>;
    /// Waits.
    fn sleep(&self, time: Duration);
    /// The time since an arbitrary start.
    fn clock(&self) -> Duration;
    /// Seconds since 1970.
    fn date(&self) -> u64;
}

/// The running kernel.
pub(crate) struct RunningKernel {
    start: Instant,
}

impl Default for RunningKernel {
    fn default() -> RunningKernel {
        RunningKernel { start: Instant::now() }
    }
}

impl KernelInterface for RunningKernel {
    fn load(&self, file: &File, unpacked: Option<&[u8]>, log_lines: &mut Vec<String>) -> io::Result<()> {
        let log = Log::open();
        // SAFETY: the descriptor, the bytes and the empty parameter string outlive the call.
        let result = unsafe {
            match unpacked {
                Some(image) => {
                    libc::syscall(libc::SYS_init_module, image.as_ptr(), image.len(), c"".as_ptr())
                }
                None => libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0),
            }
        };
        let result = succeeded(result);
        if result.is_err() {
            log_lines.extend(log.map(Log::lines).unwrap_or_default());
        }
        result
    }

    fn remove(&self, module: &str) -> io::Result<()> {
        let name = CString::new(module)?;
        // SAFETY: the name outlives the call.
        succeeded(unsafe { libc::syscall(libc::SYS_delete_module, name.as_ptr(), libc::O_NONBLOCK) })
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }

    fn clock(&self) -> Duration {
        self.start.elapsed()
    }

    fn date(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
    }
}

fn succeeded(result: libc::c_long) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The kernel's log from now on (Documentation/ABI/testing/dev-kmsg). Each read returns one record, `numbers;text`.
struct Log(File);

impl Log {
    fn open() -> Option<Log> {
        let mut file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg").ok()?;
        file.seek(SeekFrom::End(0)).ok()?;
        Some(Log(file))
    }

    fn lines(mut self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut record = [0; 8192];
        while let Ok(length) = self.0.read(&mut record) {
            if length == 0 || lines.len() == LINES {
                break;
            }
            lines.extend(message(&String::from_utf8_lossy(&record[..length])));
        }
        lines
    }
}

/// The first line of a record's text.
fn message(record: &str) -> Option<String> {
    let (_, text) = record.split_once(';')?;
    Some(text.lines().next()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_the_log_has_numbers_a_text_and_more() {
        assert_eq!(
            message("4,123,456,-;livepatch: x; y\n SUBSYSTEM=z\n").as_deref(),
            Some("livepatch: x; y")
        );
        assert_eq!(message("4,1"), None);
    }

    #[test]
    fn what_is_not_there_is_not_removed() {
        assert!(RunningKernel::default().remove("klpx_no_such_module").is_err());
        assert!(RunningKernel::default().remove("a\0b").is_err());
    }
}
