//! File operations: copies that share blocks if the file system has reflinks, writes that survive a crash, removals.
//! Never makes hard links to the user's files and never opens them for writing. klpx's own copies of a source share
//! equal files by hard links.

use std::fs::{File, FileTimes, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use klpx_diagnosis::{Diagnosis, Failure, Result};

use crate::process;
use crate::tree::{SourceFile, SourceFileKind, file_threads};

/// `_IOW(0x94, 9, int)`, include/uapi/linux/fs.h.
const FICLONE: libc::Ioctl = 0x4004_9409;

/// Copies one regular file. Shares its blocks if the file system can. The copy has new times.
pub(crate) fn copy(from: &Path, to: &Path, executable: bool) -> io::Result<()> {
    let mut source = File::open(from)?;
    let mode = if executable { 0o755 } else { 0o644 };
    let mut target = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(to)?;
    // SAFETY: both descriptors are open for the whole call.
    if unsafe { libc::ioctl(target.as_raw_fd(), FICLONE, source.as_raw_fd()) } == 0 {
        return Ok(());
    }
    io::copy(&mut source, &mut target)?;
    Ok(())
}

/// Returns true if the file is LLVM bitcode.
pub fn is_bitcode(path: &Path) -> bool {
    let mut start = [0; 4];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start == *b"BC\xc0\xde"
}

/// Finds a file with the same contents and mode in another copy of the source. The new copy may share the file.
pub(crate) type FileDonor<'a> = &'a (dyn Fn(&SourceFile) -> Option<PathBuf> + Sync);

/// Copies source files into `to`, with their modification times. No time is later than now, so that make sees objects
/// as newer. A file that the donor has becomes a hard link to the donor's file.
pub(crate) fn copy_tree(from: &Path, files: &[SourceFile], to: &Path, donor: FileDonor<'_>) -> Result<()> {
    make_dirs(files, to)?;
    let now = SystemTime::now();
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let worker = || -> Result<()> {
        loop {
            let start = next.fetch_add(64, Ordering::Relaxed);
            if start >= files.len() || failed.load(Ordering::Relaxed) {
                return Ok(());
            }
            let chunk = &files[start..files.len().min(start + 64)];
            let copied = process::check_interrupt().and_then(|()| {
                chunk.iter().try_for_each(|entry| {
                    copy_file(from, entry, to, now, donor).map_err(|error| {
                        Failure::from(Diagnosis::io("copy", &from.join(&entry.path), &error))
                    })
                })
            });
            if copied.is_err() {
                failed.store(true, Ordering::Relaxed);
                return copied;
            }
        }
    };
    let results: Vec<Result<()>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..file_threads()).map(|_| scope.spawn(worker)).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    results.into_iter().collect()
}

fn make_dirs(files: &[SourceFile], to: &Path) -> Result<()> {
    let mut last: Option<PathBuf> = None;
    for entry in files {
        let dir = to.join(entry.path.parent().unwrap_or(Path::new("")));
        if last.as_ref() != Some(&dir) {
            std::fs::create_dir_all(&dir).map_err(|error| Diagnosis::io("create", &dir, &error))?;
            last = Some(dir);
        }
    }
    Ok(())
}

fn copy_file(
    from: &Path,
    entry: &SourceFile,
    to: &Path,
    now: SystemTime,
    donor: FileDonor<'_>,
) -> io::Result<()> {
    let target = to.join(&entry.path);
    // A link can fail, for instance if the file has too many links. A copy is as good.
    if donor(entry).is_some_and(|donor| std::fs::hard_link(donor, &target).is_ok()) {
        return Ok(());
    }
    match &entry.kind {
        SourceFileKind::Link(link) => std::os::unix::fs::symlink(link, &target),
        SourceFileKind::File { mtime, executable, .. } => {
            copy(&from.join(&entry.path), &target, *executable)?;
            let nanos = u64::try_from(*mtime).unwrap_or(0);
            let time = (SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)).min(now);
            File::options().write(true).open(&target)?.set_times(FileTimes::new().set_modified(time))
        }
    }
}

/// Returns true if two files have the same bytes.
pub(crate) fn same(a: &Path, b: &Path) -> io::Result<bool> {
    let (mut a, mut b) = (File::open(a)?, File::open(b)?);
    if a.metadata()?.len() != b.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let n = read_full(&mut a, &mut left)?;
        let m = read_full(&mut b, &mut right)?;
        if n != m || left[..n] != right[..m] {
            return Ok(false);
        }
        if n == 0 {
            return Ok(true);
        }
    }
}

fn read_full(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

/// Writes a file atomically. The file is on disk when this returns. Several processes may write the same file at once.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> Result<()> {
    write_whole(path, bytes, 0o666)
}

/// Writes a file atomically, with a mode reduced by the user's umask. The new file is made in the same folder, under an
/// unpredictable name. Links are not followed.
fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let fail = |error: io::Error| Diagnosis::io("write", path, &error);
    let (name, dir) = (path.file_name().unwrap_or_default(), path.parent().unwrap_or(Path::new(".")));
    let mut file = tempfile::Builder::new()
        .prefix(name)
        .suffix(".new")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(dir)
        .map_err(fail)?;
    file.write_all(bytes).map_err(fail)?;
    file.as_file().sync_all().map_err(fail)?;
    file.persist(path).map_err(|failure| fail(failure.error))?;
    // Some file systems can't sync a folder. klpx ignores the error.
    let _ = File::open(dir).and_then(|dir| dir.sync_all());
    Ok(())
}

pub(crate) fn create_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    std::fs::create_dir_all(parent).map_err(|error| Diagnosis::io("create", parent, &error).into())
}

/// Writes a script to a folder atomically, unless the script is there already.
pub(crate) fn script(dir: &Path, name: &str, text: &str) -> Result<PathBuf> {
    std::fs::create_dir_all(dir).map_err(|error| Diagnosis::io("create", dir, &error))?;
    let path = dir.join(name);
    if std::fs::read_to_string(&path).is_ok_and(|old| old == text) {
        return Ok(path);
    }
    write_whole(&path, text.as_bytes(), 0o777)?;
    Ok(path)
}

/// Removes a folder. A missing folder is no error.
pub(crate) fn remove_dir(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Diagnosis::io("remove", path, &error).into())
        }
        _ => Ok(()),
    }
}

/// Removes a file. A missing file is no error.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Diagnosis::io("remove", path, &error).into())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_copied_with_times_links_and_modes() {
        let from = tempfile::tempdir().expect("dir");
        let to = tempfile::tempdir().expect("dir");
        std::fs::create_dir(from.path().join("d")).expect("mkdir");
        std::fs::write(from.path().join("d/a"), "hello").expect("write");
        std::os::unix::fs::symlink("a", from.path().join("d/l")).expect("link");
        let hour = 1_000_000_000 * 3600;
        let files = [
            SourceFile {
                path: "d/a".into(),
                kind: SourceFileKind::File { size: 5, mtime: hour, executable: true },
            },
            SourceFile { path: "d/l".into(), kind: SourceFileKind::Link("a".into()) },
        ];
        copy_tree(from.path(), &files, to.path(), &|_| None).expect("copied");
        let copy = to.path().join("d/a");
        assert_eq!(std::fs::read_to_string(to.path().join("d/l")).expect("read"), "hello");
        let meta = copy.metadata().expect("meta");
        assert_eq!(meta.modified().expect("time"), SystemTime::UNIX_EPOCH + Duration::from_secs(3600));
        assert!(std::os::unix::fs::MetadataExt::mode(&meta) & 0o100 != 0);
        assert!(same(&copy, &from.path().join("d/a")).expect("compare"));
        std::fs::write(&copy, "hellO").expect("write");
        assert!(!same(&copy, &from.path().join("d/a")).expect("compare"));
        assert_eq!(std::fs::read_to_string(from.path().join("d/a")).expect("read"), "hello");
    }

    #[test]
    fn a_time_in_the_future_becomes_now() {
        let from = tempfile::tempdir().expect("dir");
        let to = tempfile::tempdir().expect("dir");
        std::fs::write(from.path().join("a"), "x").expect("write");
        let future = SystemTime::now() + Duration::from_secs(86_400);
        let mtime = future.duration_since(SystemTime::UNIX_EPOCH).expect("after").as_nanos();
        let kind =
            SourceFileKind::File { size: 1, mtime: i128::try_from(mtime).expect("fits"), executable: false };
        copy_tree(from.path(), &[SourceFile { path: "a".into(), kind }], to.path(), &|_| None)
            .expect("copied");
        assert!(to.path().join("a").metadata().expect("meta").modified().expect("time") <= SystemTime::now());
    }
}
