//! Walks a source tree with several threads. Follows only links that lead out of the tree.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Failure, Result, codes};

use super::kinds::{is_generated_dir, is_generated_name, is_of_no_build};
use super::{SourceFile, SourceFileKind};

/// The most links to folders outside of the tree on one path.
const HOPS: u8 = 4;

/// A folder to read.
#[derive(Default)]
struct Folder {
    /// The path, relative to the tree.
    path: PathBuf,
    /// The number of links out of the tree on this path.
    hops: u8,
}

/// Folders that are still to be read, shared by the threads.
#[derive(Default)]
struct Queue {
    state: Mutex<(Vec<Folder>, usize)>,
    changed: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, (Vec<Folder>, usize)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A folder to read. `None` if all folders were read.
    fn take(&self) -> Option<Folder> {
        let mut state = self.lock();
        loop {
            if let Some(dir) = state.0.pop() {
                state.1 += 1;
                return Some(dir);
            }
            if state.1 == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn done(&self, found: Vec<Folder>) {
        let mut state = self.lock();
        state.0.extend(found);
        state.1 -= 1;
        self.changed.notify_all();
    }
}

/// The number of threads for work on many files.
pub(crate) fn file_threads() -> usize {
    std::thread::available_parallelism().map_or(2, |count| count.get().clamp(2, 8))
}

/// Every source file of a tree.
pub(super) fn files(root: &Path) -> Result<Vec<SourceFile>> {
    let queue = Queue::default();
    queue.lock().0.push(Folder::default());
    let real = root.canonicalize().map_err(|error| Diagnosis::io("open", root, &error))?;
    let worker = || {
        let mut files = Vec::new();
        let mut failure = None;
        while let Some(dir) = queue.take() {
            let mut subdirs = Vec::new();
            if failure.is_none()
                && let Err(error) = read_dir(root, &real, &dir, &mut files, &mut subdirs)
            {
                failure = Some(error);
                subdirs.clear();
            }
            queue.done(subdirs);
        }
        failure.map_or(Ok(files), Err)
    };
    let results: Vec<Result<Vec<SourceFile>>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..file_threads()).map(|_| scope.spawn(worker)).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let mut all = Vec::new();
    for files in results {
        all.extend(files?);
    }
    Ok(all)
}

/// Reads one folder. Its source files go to `files`, its folders to `subdirs`. `real` is the tree's path without links.
fn read_dir(
    root: &Path,
    real: &Path,
    dir: &Folder,
    files: &mut Vec<SourceFile>,
    subdirs: &mut Vec<Folder>,
) -> Result<()> {
    let full = root.join(&dir.path);
    let fail = |error: std::io::Error| Failure::from(Diagnosis::io("read", &full, &error));
    let listing = std::fs::read_dir(&full).map_err(fail)?;
    let names: HashSet<OsString> =
        listing.map(|entry| entry.map(|e| e.file_name())).collect::<std::io::Result<_>>().map_err(fail)?;
    for name in &names {
        let path = dir.path.join(name);
        let text = name.to_string_lossy();
        if is_generated_name(&text) || is_of_no_build(&text) {
            continue;
        }
        if names.contains(&OsString::from(format!(".{text}.cmd"))) {
            continue;
        }
        let target = full.join(name);
        let fail = |error: std::io::Error| Failure::from(Diagnosis::io("read", &target, &error));
        let mut meta = std::fs::symlink_metadata(&target).map_err(fail)?;
        let mut hops = dir.hops;
        if meta.is_symlink() {
            let link = std::fs::read_link(&target).map_err(fail)?;
            // A broken link is also broken in the copy.
            let end = target.canonicalize().ok();
            if stays(&dir.path, &link) && end.as_ref().is_none_or(|end| end.starts_with(real)) {
                files.push(SourceFile { path, kind: SourceFileKind::Link(link) });
                continue;
            }
            let Ok(behind) = std::fs::metadata(&target) else { continue };
            if behind.is_dir() && (hops == HOPS || end.is_none_or(|end| real.starts_with(end))) {
                return Err(endless(&path).into());
            }
            (meta, hops) = (behind, hops + 1);
        }
        if meta.is_dir() {
            if !is_generated_dir(&path) {
                subdirs.push(Folder { path, hops });
            }
        } else if meta.is_file() {
            let mtime = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
            let executable = meta.mode() & 0o100 != 0;
            files.push(SourceFile {
                path,
                kind: SourceFileKind::File { size: meta.size(), mtime, executable },
            });
        }
    }
    Ok(())
}

/// Returns true if a link's text leads from `folder` to a place in the tree, wherever the tree is.
fn stays(folder: &Path, link: &Path) -> bool {
    let mut depth = folder.components().count();
    for part in link.components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 => depth -= 1,
            _ => return false,
        }
    }
    true
}

fn endless(link: &Path) -> Diagnosis {
    Diagnosis::new(
        &codes::SOURCE_LINK,
        "a link in the source leads to a folder that holds it",
        "what is behind a link out of the source is a part of the source, and this one has no end",
        "remove the link",
    )
    .place(DiagnosisPlace::file(link.display().to_string(), None))
}
