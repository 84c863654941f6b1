//! Detects whether a tree was touched, by every file's path, type, size, mode, time and inode, and for small trees its
//! content.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};
use walkdir::WalkDir;

/// A tree's state; equal states mean that nothing was written in between.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Fingerprint(Vec<(String, [u8; 32])>);

impl Fingerprint {
    /// Reads a tree. `content` adds every byte of it.
    pub(crate) fn read(tree: &Path, content: bool) -> Result<Fingerprint> {
        let mut entries = Vec::new();
        for entry in WalkDir::new(tree).sort_by_file_name() {
            let entry = entry.with_context(|| format!("can't walk {}", tree.display()))?;
            let metadata = entry.metadata()?;
            let mut hash = blake3::Hasher::new();
            for value in [metadata.mode().into(), metadata.ino(), metadata.size()] {
                hash.update(&u64::to_le_bytes(value));
            }
            for value in [metadata.mtime(), metadata.mtime_nsec()] {
                hash.update(&i64::to_le_bytes(value));
            }
            if content && metadata.is_file() {
                hash.update_reader(fs::File::open(entry.path())?)?;
            }
            let inside = entry.path().strip_prefix(tree).ok().filter(|path| !path.as_os_str().is_empty());
            let path = inside.unwrap_or(entry.path());
            entries.push((path.to_string_lossy().into_owned(), *hash.finalize().as_bytes()));
        }
        Ok(Fingerprint(entries))
    }

    /// Returns the paths that differ from an earlier state.
    pub(crate) fn changed_since(&self, before: &Fingerprint) -> Vec<String> {
        let of = |side: &Fingerprint| side.0.iter().cloned().collect::<std::collections::BTreeSet<_>>();
        let mut paths: Vec<String> =
            of(self).symmetric_difference(&of(before)).map(|(path, _)| path.clone()).collect();
        paths.dedup();
        paths
    }
}
