//! Maps of large files. If a mapped file is cut short, the next access to the lost pages raises SIGBUS. klpx then ends
//! with a message that names the file and with the exit code of a bad file, rather than with a bare signal.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Once, OnceLock};

use klpx_diagnosis::codes;
use memmap2::{Mmap, UncheckedAdvice};

/// A file that is mapped, read-only.
#[derive(Debug)]
pub struct MappedFile {
    map: Mmap,
    entry: &'static MappedRange,
}

impl MappedFile {
    /// Maps a file that was opened by `path`. An empty file gives an empty map.
    ///
    /// # Errors
    /// The error of the system.
    pub fn new(file: &File, path: &Path) -> io::Result<MappedFile> {
        static HANDLER: Once = Once::new();
        HANDLER.call_once(install);
        // SAFETY: the map is private and read-only. If another process changes the file, readers see other bytes, which
        // they treat like any bytes, or the access raises SIGBUS, which this module handles.
        let map = unsafe { Mmap::map(file) }?;
        let entry = MappedRange::add(&map, path);
        Ok(MappedFile { map, entry })
    }

    /// Tells the system that a part of the map is not needed for now. A later access reads the part from the file
    /// again.
    pub fn release(&self, offset: usize, length: usize) {
        // SAFETY: the map is of a file and read-only, so that nothing is lost.
        let _ = unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, offset, length) };
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        self.entry.end.store(0, Ordering::Release);
    }
}

/// Opens a regular file. Does not wait if `path` is a pipe.
///
/// # Errors
/// The error of the system, or an error if the file is not a regular file.
pub fn open(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no regular file")),
    }
}

/// The address range of one mapped file. An entry is never freed, because the signal may arrive at any moment.
#[derive(Debug)]
struct MappedRange {
    start: AtomicUsize,
    /// 0 if the file is no longer mapped.
    end: AtomicUsize,
    /// The file's name, as the message shows it.
    path: &'static [u8],
    next: *const MappedRange,
}

// SAFETY: every field but `next` and `path` is atomic. `next` and `path` are written before the entry is published.
unsafe impl Sync for MappedRange {}

static ENTRIES: AtomicPtr<MappedRange> = AtomicPtr::new(std::ptr::null_mut());

impl MappedRange {
    fn add(map: &Mmap, path: &Path) -> &'static MappedRange {
        let path = Box::leak(path.as_os_str().as_bytes().to_owned().into_boxed_slice());
        let start = map.as_ptr() as usize;
        let mut head = ENTRIES.load(Ordering::Acquire);
        let entry = Box::leak(Box::new(MappedRange {
            start: AtomicUsize::new(start),
            end: AtomicUsize::new(start + map.len()),
            path,
            next: head,
        }));
        loop {
            entry.next = head;
            match ENTRIES.compare_exchange(head, entry, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return entry,
                Err(now) => head = now,
            }
        }
    }
}

/// The earlier action for SIGBUS: Rust's runtime has a handler that reports a stack overflow.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// Installs the SIGBUS handler.
fn install() {
    // SAFETY: plain system calls on values that outlive them. The handler makes only calls that are async-signal-safe.
    unsafe {
        let mut old: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(libc::SIGBUS, std::ptr::null(), &raw mut old) != 0 {
            return;
        }
        let _ = BEFORE.set(old);
        let mut new: libc::sigaction = std::mem::zeroed();
        new.sa_sigaction = bus_error as *const () as usize;
        new.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigaction(libc::SIGBUS, &raw const new, std::ptr::null_mut());
    }
}

extern "C" fn bus_error(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let say = |text: &[u8]| {
        // SAFETY: write reads the slice.
        unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
    };
    // SAFETY: SA_SIGINFO makes the system pass the information.
    let address = unsafe { (*info).si_addr() } as usize;
    let mut at: *const MappedRange = ENTRIES.load(Ordering::Acquire);
    // SAFETY: entries are never freed.
    while let Some(entry) = unsafe { at.as_ref() } {
        if (entry.start.load(Ordering::Acquire)..entry.end.load(Ordering::Acquire)).contains(&address) {
            say(b"error: a file became shorter while it was read [");
            say(codes::FILE_CHANGED.name.as_bytes());
            say(b"]\n  where  ");
            say(entry.path);
            say(b"\n  hint   run klpx again when nothing writes to the file\n");
            // SAFETY: `_exit` ends the process at once.
            unsafe { libc::_exit(i32::from(codes::FILE_CHANGED.class.exit_code())) };
        }
        at = entry.next;
    }
    // The address is in no map: the instruction runs again under the earlier action.
    if let Some(before) = BEFORE.get() {
        // SAFETY: a plain system call on a value that is never freed.
        unsafe { libc::sigaction(libc::SIGBUS, before, std::ptr::null_mut()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The half of the test below that runs in its own process.
    #[test]
    #[ignore = "ends the process"]
    fn read_a_file_that_was_cut_short() {
        let Some(path) = std::env::var_os("KLPX_TEST_MAP") else { return };
        let file = File::options().read(true).write(true).open(&path).expect("opened");
        let other = MappedFile::new(&File::open("/proc/self/exe").expect("opened"), Path::new("other"))
            .expect("mapped");
        let map = MappedFile::new(&file, Path::new(&path)).expect("mapped");
        drop(other);
        assert_eq!(map[100_000], b'x');
        file.set_len(10).expect("cut");
        std::process::exit(i32::from(map[100_000]));
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("fifo");
        klpx_testkit::run(klpx_testkit::command("mkfifo").arg(&path));
        for path in [path.as_path(), dir.path(), Path::new("/dev/zero")] {
            assert!(open(path).is_err(), "{}", path.display());
        }
    }

    #[test]
    fn a_file_that_is_cut_short_is_named() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("vmlinux");
        std::fs::write(&path, vec![b'x'; 200_000]).expect("write");
        let output = std::process::Command::new(std::env::current_exe().expect("this program"))
            .args(["--ignored", "--exact", "map::tests::read_a_file_that_was_cut_short", "--nocapture"])
            .env("KLPX_TEST_MAP", &path)
            .output()
            .expect("run");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(i32::from(codes::FILE_CHANGED.class.exit_code())), "{stderr}");
        assert!(
            stderr.contains("klpx::file-changed") && stderr.contains(path.to_str().expect("text")),
            "{stderr}"
        );
    }
}
