//! Texts: patches, configurations, lists. A device or a wrong file does not fill the memory, and the caller can give up
//! on a pipe without a writer.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Result, codes};

/// The longest text that klpx reads, in bytes. Module.symvers, the longest text of a kernel, is a twentieth of the
/// limit.
pub const LIMIT: usize = 64 << 20;
/// How often a waiting read asks whether to stop, in milliseconds.
const POLL: i32 = 100;

/// The text of a file. Invalid UTF-8 is replaced.
///
/// # Errors
/// The errors of [`bytes`], and `klpx::io`.
pub fn text(path: &Path) -> Result<String> {
    Ok(String::from_utf8_lossy(&bytes(path).map_err(|error| Diagnosis::io("read", path, &error))??)
        .into_owned())
}

/// The bytes of a file. The outer error comes from the system.
///
/// # Errors
/// `klpx::too-long` for more than [`LIMIT`] bytes.
pub fn bytes(path: &Path) -> io::Result<Result<Vec<u8>>> {
    bytes_until(path, &|| false)
}

/// The bytes of a file that may be a pipe. Ends with [`ErrorKind::Interrupted`] when `stopped` returns true.
///
/// # Errors
/// The errors of [`bytes`].
pub fn bytes_until(path: &Path, stopped: &dyn Fn() -> bool) -> io::Result<Result<Vec<u8>>> {
    // O_NONBLOCK: the open succeeds even if nobody has opened the pipe for writing.
    let mut file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 1 << 16];
    loop {
        if !is_ready(&file)? {
            if stopped() {
                return Err(ErrorKind::Interrupted.into());
            }
            continue;
        }
        match file.read(&mut chunk) {
            Ok(0) => return Ok(Ok(bytes)),
            Ok(length) => bytes.extend_from_slice(&chunk[..length]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
        if bytes.len() > LIMIT {
            return Ok(Err(too_long(path).into()));
        }
    }
}

/// Returns true if a read does not block: data has arrived, or the end of the file.
fn is_ready(file: &File) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, which lives through the call.
    match unsafe { libc::poll(&raw mut poll, 1, POLL) } {
        -1 => match io::Error::last_os_error() {
            error if error.kind() == ErrorKind::Interrupted => Ok(false),
            error => Err(error),
        },
        ready => Ok(ready > 0),
    }
}

fn too_long(path: &Path) -> Diagnosis {
    let what = format!("{} is too long", path.display());
    Diagnosis::new(
        &codes::TOO_LONG,
        what,
        format!("klpx reads texts of at most {} MiB", LIMIT >> 20),
        "look whether it is the file that was meant",
    )
    .place(DiagnosisPlace::file(path.display().to_string(), None))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn a_text_is_read_and_what_has_no_end_is_refused() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("a");
        std::fs::write(&path, b"a\xff\xc3\xa4").expect("write");
        assert_eq!(text(&path).expect("read"), "a\u{fffd}\u{e4}");
        let failure = text(Path::new("/dev/zero")).expect_err("refused");
        assert_eq!(failure.diagnoses().next().expect("one").code, "klpx::too-long");
        assert!(text(&dir.path().join("none")).is_err());
        assert!(bytes(dir.path()).is_err(), "a folder");
    }

    #[test]
    fn a_pipe_is_read_to_its_end_and_one_without_a_writer_is_given_up() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("fifo");
        klpx_testkit::run(klpx_testkit::command("mkfifo").arg(&path));
        let asked = AtomicU32::new(0);
        let stopped = || asked.fetch_add(1, Ordering::Relaxed) > 2;
        assert_eq!(bytes_until(&path, &stopped).expect_err("given up").kind(), ErrorKind::Interrupted);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(std::time::Duration::from_millis(300));
                std::fs::write(&path, vec![b'x'; 200_000]).expect("written");
            });
            assert_eq!(bytes(&path).expect("read").expect("short enough").len(), 200_000);
        });
    }
}
