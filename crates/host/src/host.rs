//! The machine: its files below a root, read with limits, and the requests to its kernel.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use klpx_diagnosis::words::hexadecimal;
use klpx_diagnosis::{Diagnosis, Result, codes};

use crate::system::{KernelInterface, RunningKernel};

/// The most bytes that are read from a file of sysfs or proc. The kernel gives a page, and slightly more for a stack.
const LIMIT: u64 = 64 << 10;
/// The most entries that are read from a folder: the kernel's highest number of process IDs (`PID_MAX_LIMIT`).
const ENTRIES: usize = 4 << 20;

/// A machine.
pub struct Host {
    root: PathBuf,
    pub(crate) kernel: Box<dyn KernelInterface>,
}

impl Host {
    /// This machine.
    pub fn this() -> Host {
        Host::new("/", Box::new(RunningKernel::default()))
    }

    /// A machine whose files lie below a root.
    pub(crate) fn new(root: impl Into<PathBuf>, kernel: Box<dyn KernelInterface>) -> Host {
        Host { root: root.into(), kernel }
    }

    /// The path of a file of the machine.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The first bytes of a file. The limit exceeds the size of the kernel's own files.
    pub(crate) fn bytes(&self, path: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(self.at(path))?.take(LIMIT).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// The text of a file without white space at its end. Invalid UTF-8 is replaced.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        let bytes = self.bytes(path).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim_end().to_owned())
    }

    /// The names in a folder, sorted. Empty for a missing folder.
    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.at(path)).into_iter().flatten().flatten().take(ENTRIES);
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Returns true if the path exists.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.at(path).exists()
    }

    /// Writes to a file of sysfs.
    ///
    /// # Errors
    /// The error of the system.
    pub(crate) fn write(&self, path: &str, text: &str) -> Result<()> {
        let path = self.at(path);
        let written = File::options().write(true).open(&path).and_then(|mut f| f.write_all(text.as_bytes()));
        Ok(written.map_err(|error| failed("write", &path, &error))?)
    }

    /// The release of the running kernel, as `uname -r` prints it.
    ///
    /// # Errors
    /// `klpx::io` without proc.
    pub(crate) fn release(&self) -> Result<String> {
        self.of_proc("/proc/sys/kernel/osrelease")
    }

    /// The identifier of this boot.
    ///
    /// # Errors
    /// `klpx::io` without proc.
    pub(crate) fn boot_id(&self) -> Result<String> {
        self.of_proc("/proc/sys/kernel/random/boot_id")
    }

    fn of_proc(&self, path: &str) -> Result<String> {
        let bytes = self.bytes(path).map_err(|error| {
            Diagnosis::io("read", &self.at(path), &error).with_remedy("mount /proc and run the command again")
        })?;
        Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
    }

    /// The build ID of the running kernel, in hexadecimal. `None` if the kernel has none.
    pub(crate) fn build_id(&self) -> Option<String> {
        klpx_normalize::notes::in_notes(&self.bytes("/sys/kernel/notes").ok()?).map(hexadecimal)
    }

    /// The build ID of a loaded module.
    pub(crate) fn build_id_of(&self, module: &str) -> Option<String> {
        let notes = self.bytes(&format!("/sys/module/{module}/notes/.note.gnu.build-id")).ok()?;
        klpx_normalize::notes::in_notes(&notes).map(hexadecimal)
    }
}

/// A failed system call on a file of the machine.
pub(crate) fn failed(doing: &str, path: &Path, error: &io::Error) -> Diagnosis {
    let remedy = match error.kind() {
        io::ErrorKind::StorageFull => "free some space on its file system",
        io::ErrorKind::PermissionDenied => "run the command as root",
        io::ErrorKind::ReadOnlyFilesystem => "mount its file system for writing",
        _ => return Diagnosis::io(doing, path, error),
    };
    Diagnosis::io(doing, path, error).with_remedy(remedy)
}

/// Returns true for a valid name of a module. Names become parts of paths.
pub(crate) fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=55).contains(&text.len()) && text.bytes().all(plain)
}

/// Returns true for a valid release. Releases become parts of paths (`__NEW_UTS_LEN`, include/uapi/linux/utsname.h).
pub(crate) fn is_release(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-+~_".contains(&byte);
    (1..=64).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(plain)
}

/// The kernel's name of a livepatch, from the name that the user gave.
///
/// # Errors
/// `klpx::bad-name`.
pub(crate) fn name(text: &str) -> Result<String> {
    let name = text.replace('-', "_");
    match is_name(&name) {
        true => Ok(name),
        false => Err(Diagnosis::new(
            &codes::BAD_NAME,
            format!("'{text}' names no livepatch"),
            "a module's name has letters, digits and underscores, 55 at most",
            "klpx-host status and klpx-host list show the names",
        )
        .into()),
    }
}

/// Waits, then returns the time since the start of the clock.
pub(crate) fn pause(host: &Host, time: Duration) -> Duration {
    host.kernel.sleep(time);
    host.kernel.clock()
}
