//! The contents of a source tree: the hash of every file, and one hash of all files together. Two copies of the same
//! source are one kernel. The cache keeps the hashes by the tree's times and sizes, so that klpx reads only new trees.
//!
//! ```text
//! <cache>/sources/<stat>          identity of the contents of a tree with these times and sizes (tree::identity)
//! <cache>/sources/<identity>.files  path, NUL, 32 bytes of hash for each file, in the tree's order
//! ```

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, Failure, Result};
use rayon::prelude::*;

use crate::files;
use crate::files::remove_file;
use crate::own;
use crate::process;
use crate::tree::{self, SourceFile, SourceFileKind};

/// Bytes of one hash.
const HASH: usize = 32;

/// The contents of a source tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Contents {
    identity: String,
}

/// The hashes of a tree's files, by path.
pub(crate) type Hashes = hashbrown::HashMap<PathBuf, [u8; HASH]>;

impl Contents {
    /// The contents of the tree's files. Reads all files if the cache does not know the tree.
    pub(crate) fn identify(cache: &Path, root: &Path, files: &[SourceFile]) -> Result<Contents> {
        let sources = own::folder(&cache.join("sources"))?;
        let known = sources.join(tree::identity(files).to_hex().as_str());
        if let Ok(identity) = std::fs::read_to_string(&known)
            && is_identity(&identity)
            && list(&sources, &identity).is_file()
        {
            return Ok(Contents { identity });
        }
        let hashes: Vec<[u8; HASH]> =
            files.par_iter().map(|entry| hash(root, entry)).collect::<Result<_>>()?;
        let mut text = Vec::with_capacity(files.len() * 80);
        for (entry, hash) in files.iter().zip(&hashes) {
            text.extend_from_slice(entry.path.as_os_str().as_bytes());
            text.push(0);
            text.extend_from_slice(hash);
        }
        let identity = blake3::hash(&text).to_hex().to_string();
        files::write_durably(&list(&sources, &identity), &text)?;
        files::write_durably(&known, identity.as_bytes())?;
        Ok(Contents { identity })
    }

    /// The identity of the contents. Equal for trees with the same files, whatever the files' times.
    pub(crate) fn identity(&self) -> &str {
        &self.identity
    }

    /// The file hashes that an earlier run left in the cache. Empty if there are none.
    pub(crate) fn hashes(cache: &Path, identity: &str) -> Hashes {
        let text = std::fs::read(list(&cache.join("sources"), identity)).unwrap_or_default();
        let mut hashes = Hashes::new();
        let mut rest = text.as_slice();
        while let Some(end) = rest.iter().position(|&byte| byte == 0) {
            let Some((hash, after)) = rest[end + 1..].split_first_chunk::<HASH>() else { break };
            hashes.insert(PathBuf::from(std::ffi::OsStr::from_bytes(&rest[..end])), *hash);
            rest = after;
        }
        hashes
    }
}

/// Removes the cached hashes of sources that no workspace uses.
pub(crate) fn forget_unused(cache: &Path, used: &BTreeSet<String>) -> Result<()> {
    let unused = |name: &str| {
        let identity = name.strip_suffix(".files").filter(|identity| is_identity(identity));
        identity.is_some_and(|identity| !used.contains(identity))
    };
    let Ok(listing) = std::fs::read_dir(cache.join("sources")) else { return Ok(()) };
    for entry in listing.flatten() {
        let name = entry.file_name();
        // A tree whose list of hashes is gone is read again.
        if name.to_str().is_some_and(unused) {
            remove_file(&entry.path())?;
        }
    }
    Ok(())
}

/// Returns true for a name in the form of [`Contents::identity`]. Any other name does not belong to klpx.
fn is_identity(name: &str) -> bool {
    name.len() == 2 * HASH && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn list(sources: &Path, identity: &str) -> PathBuf {
    sources.join(format!("{identity}.files"))
}

/// The hash of a file: its bytes and executable bit, or the target of a link.
fn hash(root: &Path, entry: &SourceFile) -> Result<[u8; HASH]> {
    process::check_interrupt()?;
    let mut hasher = blake3::Hasher::new();
    match &entry.kind {
        SourceFileKind::Link(target) => {
            hasher.update(b"l");
            hasher.update(target.as_os_str().as_bytes());
        }
        SourceFileKind::File { executable, .. } => {
            hasher.update(if *executable { b"x" } else { b"f" });
            let path = root.join(&entry.path);
            let text =
                std::fs::read(&path).map_err(|error| Failure::from(Diagnosis::io("read", &path, &error)))?;
            hasher.update(&text);
        }
    }
    Ok(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    fn files(root: &Path) -> Vec<SourceFile> {
        let mut files: Vec<SourceFile> = ["a.c", "b.h"]
            .map(|name| {
                let meta = root.join(name).metadata().expect("a file");
                let mtime = meta.modified().expect("a time").duration_since(SystemTime::UNIX_EPOCH);
                let mtime = mtime.expect("after the epoch").as_nanos() as i128;
                SourceFile {
                    path: name.into(),
                    kind: SourceFileKind::File { size: meta.len(), mtime, executable: false },
                }
            })
            .into();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files
    }

    #[test]
    fn the_same_source_unpacked_twice_is_one_source() {
        let cache = tempfile::tempdir().expect("dir");
        let trees = [0, 1].map(|_| tempfile::tempdir().expect("dir"));
        for (n, tree) in trees.iter().enumerate() {
            for name in ["a.c", "b.h"] {
                let path = tree.path().join(name);
                std::fs::write(&path, name).expect("write");
                let file = std::fs::File::options().write(true).open(&path).expect("open");
                file.set_modified(SystemTime::now() - Duration::from_secs(1000 * n as u64)).expect("times");
            }
        }
        let of = |tree: &Path| Contents::identify(cache.path(), tree, &files(tree)).expect("contents");
        let first = of(trees[0].path());
        assert_eq!(first, of(trees[1].path()));
        let hashes = Contents::hashes(cache.path(), first.identity());
        assert_eq!(hashes.len(), 2);
        assert_ne!(hashes[Path::new("a.c")], hashes[Path::new("b.h")]);
        std::fs::write(trees[1].path().join("a.c"), "another").expect("write");
        assert_ne!(first, of(trees[1].path()));
    }

    #[test]
    fn a_known_tree_is_not_read_again() {
        let (cache, tree) = (tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir"));
        for name in ["a.c", "b.h"] {
            std::fs::write(tree.path().join(name), name).expect("write");
        }
        let files = files(tree.path());
        let first = Contents::identify(cache.path(), tree.path(), &files).expect("contents");
        std::fs::remove_file(tree.path().join("a.c")).expect("removed");
        assert_eq!(Contents::identify(cache.path(), tree.path(), &files).expect("contents"), first);
        std::fs::remove_file(list(&cache.path().join("sources"), first.identity())).expect("removed");
        assert!(Contents::identify(cache.path(), tree.path(), &files).is_err(), "the list of files is gone");
    }
}
