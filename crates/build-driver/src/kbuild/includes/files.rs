//! All files of a source tree and its build tree that can be included, and the files that an include directive can
//! mean. Never reads the contents of a file.

use std::collections::BTreeSet;
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::directives::Include;

/// Folders of the source that only take part in a build if a file of the same folder includes their files.
const ASIDE: [&str; 3] = ["Documentation", "tools", "LICENSES"];

/// The tree of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) enum FileTree {
    Source,
    Build,
}

/// A file: its tree and its path in the tree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct TreeFile {
    pub(super) tree: FileTree,
    pub(super) path: String,
}

/// All files, sorted. A file's number is its index.
pub(super) struct TreeFiles {
    files: Vec<TreeFile>,
    /// Numbers, sorted by the last part of the path.
    by_name: Vec<u32>,
    arch: String,
    /// Folders that compilers search. Empty if they are unknown.
    searched: BTreeSet<TreeFile>,
}

impl TreeFiles {
    /// Lists both trees. `further` are files that may not exist yet, `searched` the folders that compilers search.
    pub(super) fn list(
        src: &Path,
        build: &Path,
        arch: &str,
        further: impl Iterator<Item = TreeFile>,
        searched: BTreeSet<TreeFile>,
    ) -> TreeFiles {
        let of = |tree, root| walk(root).into_iter().map(move |path| TreeFile { tree, path });
        let (source, built) = rayon::join(|| of(FileTree::Source, src), || of(FileTree::Build, build));
        TreeFiles::new(source.chain(built).chain(further).collect(), arch, searched)
    }

    pub(super) fn new(mut files: Vec<TreeFile>, arch: &str, searched: BTreeSet<TreeFile>) -> TreeFiles {
        files.par_sort_unstable();
        files.dedup();
        let mut by_name: Vec<u32> = (0..files.len()).map(number).collect();
        by_name.par_sort_unstable_by_key(|at| (name(&files[*at as usize].path), *at));
        TreeFiles { files, by_name, arch: arch.to_owned(), searched }
    }

    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    pub(super) fn file(&self, at: u32) -> &TreeFile {
        &self.files[at as usize]
    }

    /// All files with their numbers.
    pub(super) fn all(&self) -> impl Iterator<Item = (u32, &str)> {
        self.files.iter().enumerate().map(|(at, file)| (number(at), file.path.as_str()))
    }

    /// The number of a file.
    pub(super) fn find(&self, tree: FileTree, path: &str) -> Option<u32> {
        let at = self.files.binary_search_by(|file| (file.tree, file.path.as_str()).cmp(&(tree, path)));
        at.ok().map(number)
    }

    /// The files that an include directive in `from` can mean.
    ///
    /// For a name in quotes, a file in the folder of the including file is the only candidate. In all other cases, the
    /// compiler searches the folders of its command line. The unit that includes `from` is unknown, so the folders of
    /// all command lines count.
    pub(super) fn meant(&self, from_at: u32, include: &Include) -> Vec<u32> {
        let from = self.file(from_at);
        if include.quoted
            && let Some(path) = beside(&from.path, &include.path)
            && let Some(at) = self.find(from.tree, &path)
        {
            return vec![at];
        }
        let can_be_found = |at: &u32| {
            self.searched.is_empty() || leaves_a_folder(include) || self.is_searched(*at, &include.path)
        };
        self.ending(from_at, include).filter(can_be_found).collect()
    }

    /// Returns true if `include` leads to the file from a folder that compilers search.
    fn is_searched(&self, at: u32, include: &str) -> bool {
        let file = self.file(at);
        let head = file.path.strip_suffix(&parts(include).join("/")).unwrap_or(&file.path);
        let path = head.strip_suffix('/').unwrap_or(head).to_owned();
        self.searched.contains(&TreeFile { tree: file.tree, path })
    }

    /// The files whose path ends with the name in an include directive in `from`.
    pub(super) fn ending(&self, from: u32, include: &Include) -> impl Iterator<Item = u32> {
        let leaves_a_folder = leaves_a_folder(include);
        let ending: Vec<&str> = parts(&include.path).into_iter().skip_while(|part| *part == "..").collect();
        let ending = ending.join("/");
        let aside = self.aside(&self.file(from).path);
        let named: Vec<u32> = self.named(name(&ending)).collect();
        named.into_iter().filter(move |at| {
            let path = &self.file(*at).path;
            let there = self.aside(path);
            ends_with(path, &ending) && (there.is_none() || leaves_a_folder || there == aside)
        })
    }

    /// All files with this name.
    pub(super) fn named(&self, wanted: &str) -> impl Iterator<Item = u32> {
        let name_at = |at: &u32| name(&self.file(*at).path);
        let start = self.by_name.partition_point(|at| name_at(at) < wanted);
        let count = self.by_name[start..].partition_point(|at| name_at(at) == wanted);
        self.by_name[start..start + count].iter().copied()
    }

    /// The special part of the source that a file belongs to. `None` for a file of this kernel's own source.
    pub(super) fn aside<'p>(&self, path: &'p str) -> Option<&'p str> {
        let (first, rest) = path.split_once('/')?;
        if ASIDE.contains(&first) {
            return Some(first);
        }
        let second = rest.split('/').next()?;
        let is_other = first == "arch" && second != self.arch && rest.len() > second.len();
        is_other.then(|| &path[..first.len() + 1 + second.len()])
    }
}

/// The paths of all files below a folder, relative to the folder. Leaves out unreadable files, which a compiler can't
/// read either, and compiled and hidden files, which nobody includes.
pub(super) fn walk(root: &Path) -> Vec<String> {
    fn below(dir: &Path, prefix: &str) -> Vec<String> {
        let mut files = Vec::new();
        let mut folders = Vec::new();
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let file_name = entry.file_name();
            let (Some(name), Ok(kind)) = (file_name.to_str(), entry.file_type()) else { continue };
            if name.starts_with('.') || [".o", ".ko", ".a", ".mod"].iter().any(|end| name.ends_with(end)) {
                continue;
            }
            let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
            if kind.is_dir() {
                folders.push((entry.path(), path));
            } else if kind.is_file() || entry.path().is_file() {
                files.push(path);
            }
        }
        let deeper: Vec<Vec<String>> = folders.par_iter().map(|(dir, path)| below(dir, path)).collect();
        files.extend(deeper.into_iter().flatten());
        files
    }
    below(root, "")
}

/// A tree has far fewer than 2^32 files.
pub(super) fn number(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// The last part of a path.
pub(super) fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn ends_with(path: &str, ending: &str) -> bool {
    path.strip_suffix(ending).is_some_and(|head| head.is_empty() || head.ends_with('/'))
}

/// The parts of a path without `.` and without `x/..`.
fn parts(path: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." && parts.last().is_some_and(|last| *last != "..") {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    parts
}

/// Returns true for `../x.h`, which leads out of the searched folder.
fn leaves_a_folder(include: &Include) -> bool {
    parts(&include.path).first() == Some(&"..")
}

/// The path of `include` relative to the folder of `from`. `None` if it leads out of the tree.
fn beside(from: &str, include: &str) -> Option<String> {
    let folder = from.rsplit_once('/').map_or("", |(folder, _)| folder);
    let joined = format!("{folder}/{include}");
    let parts = parts(&joined);
    (parts.first() != Some(&"..")).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: [&str; 14] = [
        "include/linux/a.h",
        "include/uapi/linux/a.h",
        "include/asm-generic/page.h",
        "arch/x86/include/asm/page.h",
        "arch/arm64/include/asm/page.h",
        "arch/arm/include/asm/opcodes.h",
        "tools/include/linux/a.h",
        "tools/lib/x.c",
        "tools/lib/x.h",
        "fs/internal.h",
        "fs/ext4/internal.h",
        "fs/ext4/super.c",
        "fs/xlinux/a.h",
        "mm/internal.h",
    ];

    fn in_tree(path: &str) -> TreeFile {
        TreeFile { tree: FileTree::Source, path: path.to_owned() }
    }

    fn meant(from: &str, include: &str) -> Vec<String> {
        meant_where(&[], from, include)
    }

    fn meant_where(searched: &[&str], from: &str, include: &str) -> Vec<String> {
        let mut files: Vec<TreeFile> = SOURCE.iter().map(|path| in_tree(path)).collect();
        let generated = "arch/x86/include/generated/asm/page.h";
        files.push(TreeFile { tree: FileTree::Build, path: generated.to_owned() });
        let searched = searched.iter().map(|path| in_tree(path)).collect();
        let files = TreeFiles::new(files, "x86", searched);
        let from = files.find(FileTree::Source, from).expect(from);
        let quoted = include.starts_with('"');
        let include = Include { path: include.trim_matches(['"', '<', '>']).to_owned(), quoted };
        files.meant(from, &include).into_iter().map(|at| files.file(at).path.clone()).collect()
    }

    #[test]
    fn an_include_means_every_file_whose_path_ends_so() {
        let cases: [(&str, &str, &[&str]); 9] = [
            ("fs/ext4/super.c", "<linux/a.h>", &["include/linux/a.h", "include/uapi/linux/a.h"]),
            (
                "fs/ext4/super.c",
                "<asm/page.h>",
                &["arch/x86/include/asm/page.h", "arch/x86/include/generated/asm/page.h"],
            ),
            ("fs/ext4/super.c", "<../../arm/include/asm/opcodes.h>", &["arch/arm/include/asm/opcodes.h"]),
            ("fs/ext4/super.c", "\"../x/../../mm/internal.h\"", &["mm/internal.h"]),
            ("fs/ext4/super.c", "\"internal.h\"", &["fs/ext4/internal.h"]),
            ("fs/ext4/super.c", "\"./../internal.h\"", &["fs/internal.h"]),
            ("fs/ext4/super.c", "<internal.h>", &["fs/ext4/internal.h", "fs/internal.h", "mm/internal.h"]),
            ("tools/lib/x.c", "\"x.h\"", &["tools/lib/x.h"]),
            ("fs/ext4/super.c", "\"none.h\"", &[]),
        ];
        for (from, include, expected) in cases {
            assert_eq!(meant(from, include), expected, "{include} in {from}");
        }
    }

    #[test]
    fn only_folders_that_are_searched_count_when_these_are_known() {
        let searched = ["include", "arch/x86/include", "fs"];
        let cases: [(&str, &[&str]); 6] = [
            ("<linux/a.h>", &["include/linux/a.h"]),
            ("<asm/page.h>", &["arch/x86/include/asm/page.h"]),
            ("<a.h>", &[]),
            ("<./x/../internal.h>", &["fs/internal.h"]),
            ("\"internal.h\"", &["fs/ext4/internal.h"]),
            ("\"../../mm/internal.h\"", &["mm/internal.h"]),
        ];
        for (include, expected) in cases {
            assert_eq!(meant_where(&searched, "fs/ext4/super.c", include), expected, "{include}");
        }
    }

    #[test]
    fn what_lies_aside_is_meant_only_from_there() {
        let own = ["include/linux/a.h", "include/uapi/linux/a.h", "tools/include/linux/a.h"];
        assert_eq!(meant("tools/lib/x.c", "<linux/a.h>"), own);
        assert!(!meant("arch/arm64/include/asm/page.h", "<asm/page.h>").is_empty());
        let arm = ["arch/arm64/include/asm/page.h", "arch/x86/include/asm/page.h"];
        assert_eq!(meant("arch/arm64/include/asm/page.h", "<asm/page.h>")[..2], arm);
    }
}
