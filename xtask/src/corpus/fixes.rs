//! Makes patches of real fixes: one for each `.c` file that differs between two sources of one stable series. Builds
//! nothing.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use diffy::DiffOptions;
use sha2::{Digest, Sha256};
use walkdir::WalkDir;

/// One file's part of a point release. The patch of one file may be only a part of a larger change.
#[derive(Clone, Debug)]
pub(super) struct Fix {
    /// The file in the source.
    pub(super) path: String,
    /// The name for the livepatch, short enough for a module.
    pub(super) name: String,
    /// The patch.
    pub(super) patch: PathBuf,
}

/// Writes the patches into a folder. `only` names the files to compare, such as those that a configuration compiles;
/// without it, all files of the source are compared.
pub(super) fn make(old: &Path, new: &Path, folder: &Path, only: Option<&[String]>) -> Result<Vec<Fix>> {
    fs::create_dir_all(folder)?;
    let mut paths = match only {
        Some(only) => only.to_vec(),
        None => sources(old)?,
    };
    paths.sort();
    paths.dedup();
    let mut fixes = Vec::new();
    for path in paths.into_iter().filter(|path| !left_out(path)) {
        let [before, after] = [old, new].map(|tree| tree.join(&path));
        // A file that was added or removed is not a fix of one file.
        if !before.is_file() || !after.is_file() {
            continue;
        }
        let [before, after] = [before, after]
            .map(|file| fs::read(&file).with_context(|| format!("can't read {}", file.display())));
        let (before, after) = (before?, after?);
        if before == after {
            continue;
        }
        let patch = folder.join(path.replace('/', "-")).with_extension("patch");
        fs::write(&patch, difference(&path, &before, &after))?;
        fixes.push(Fix { name: name_of(&path), path, patch });
    }
    Ok(fixes)
}

/// Returns every `.c` file of a source.
fn sources(tree: &Path) -> Result<Vec<String>> {
    let mut paths = Vec::new();
    for entry in WalkDir::new(tree) {
        let entry = entry.with_context(|| format!("can't walk {}", tree.display()))?;
        let path = entry.path();
        if entry.file_type().is_file() && path.extension().is_some_and(|kind| kind == "c") {
            paths.push(path.strip_prefix(tree)?.to_string_lossy().into_owned());
        }
    }
    Ok(paths)
}

/// Returns true for files that are kept back as unseen test data. The SHA-256 of such a file's path begins with an odd
/// byte, so half of the files are kept back.
fn left_out(path: &str) -> bool {
    Sha256::digest(path.as_bytes())[0] % 2 == 1
}

fn difference(path: &str, before: &[u8], after: &[u8]) -> Vec<u8> {
    let mut options = DiffOptions::new();
    options.set_original_filename(format!("a/{path}")).set_modified_filename(format!("b/{path}"));
    options.create_patch_bytes(before, after).to_bytes()
}

/// Returns the file's name with a few digits of its path's hash, because several files have one name.
fn name_of(path: &str) -> String {
    let stem = Path::new(path).file_stem().unwrap_or_default().to_string_lossy();
    let hash = blake3::hash(path.as_bytes()).to_hex();
    format!("{}-{}", stem.chars().take(24).collect::<String>().replace(['_', '.'], "-"), &hash[..6])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_files_are_kept_back_by_their_paths_hash() {
        assert!(!left_out("a/b.c"));
        assert!(left_out("fs/namei.c"));
    }

    #[test]
    fn a_fix_is_what_differs_in_a_file_of_both_sources() {
        let trees = ["old", "new"].map(|_| tempfile::tempdir().expect("a directory"));
        let paths = ["a/b.c", "a/same.c", "a/c.h", "d.c"];
        for (tree, text) in trees.iter().zip(["one\n", "two\n"]) {
            fs::create_dir(tree.path().join("a")).expect("created");
            for path in paths {
                let text = if path.contains("same") { "" } else { text };
                fs::write(tree.path().join(path), text).expect("written");
            }
        }
        let folder = tempfile::tempdir().expect("a directory");
        let all = make(trees[0].path(), trees[1].path(), folder.path(), None).expect("made");
        let found: Vec<&str> = all.iter().map(|fix| fix.path.as_str()).collect();
        let expected: Vec<&str> = ["a/b.c", "d.c"].into_iter().filter(|path| !left_out(path)).collect();
        assert_eq!(found, expected);
        let text = difference("a/b.c", b"one\n", b"two\n");
        assert_eq!(text, b"--- a/a/b.c\n+++ b/a/b.c\n@@ -1 +1 @@\n-one\n+two\n");
    }
}
