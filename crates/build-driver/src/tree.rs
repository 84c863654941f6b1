//! The user's source tree: whether it is a kernel, its version, its source files, and its identity. Only reads.

mod kinds;
mod walk;

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, Result, codes};

pub(crate) use walk::file_threads;

/// A kernel version, from the top of the kernel's Makefile.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// VERSION.
    pub major: u32,
    /// PATCHLEVEL.
    pub minor: u32,
    /// SUBLEVEL.
    pub patch: u32,
    /// EXTRAVERSION, such as `-rc3`. Usually empty.
    pub extra: String,
}

impl Version {
    /// Parses the printed form of [`Version`]: `6.12.115`, `7.3.0-rc1`.
    pub fn parse(text: &str) -> Option<Version> {
        let (major, rest) = text.split_once('.')?;
        let (minor, rest) = rest.split_once('.')?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (patch, extra) = rest.split_at(end);
        Some(Version {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            patch: patch.parse().ok()?,
            extra: extra.to_owned(),
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}{}", self.major, self.minor, self.patch, self.extra)
    }
}

/// An existing kernel source tree.
#[derive(Clone, Debug)]
pub struct SourceTree {
    root: PathBuf,
    version: Version,
}

/// Files that every kernel source tree has.
const LANDMARKS: [&str; 5] =
    ["Kconfig", "Makefile", "scripts/Kbuild.include", "init/main.c", "include/linux/kernel.h"];

impl SourceTree {
    /// Opens a source tree.
    ///
    /// # Errors
    /// If the folder is missing or is not a kernel source tree.
    pub fn open(root: &Path) -> Result<SourceTree> {
        let root = root.canonicalize().map_err(|error| {
            Diagnosis::new(
                &codes::SOURCE_MISSING,
                format!("can't open the kernel source {}", root.display()),
                error.to_string(),
                "name the kernel source tree with --source",
            )
        })?;
        let refuse = |why: String| {
            let what = format!("{} is not a kernel source tree", root.display());
            Diagnosis::new(&codes::NOT_A_KERNEL_TREE, what, why, "name the kernel source tree with --source")
        };
        if let Some(missing) = LANDMARKS.iter().find(|name| !root.join(name).is_file()) {
            return Err(refuse(format!("it has no {missing}")).into());
        }
        let makefile = root.join("Makefile");
        let Some(version) = parse_version(&klpx_input::text(&makefile)?) else {
            return Err(refuse("its Makefile sets no VERSION and PATCHLEVEL".to_owned()).into());
        };
        Ok(SourceTree { root, version })
    }

    /// The tree's folder, absolute and without symbolic links.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The version in the tree's Makefile.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// Every file that kbuild can read, sorted by path. Leaves out products of a build inside the tree, and files of
    /// git and editors. The private copy has exactly these files, so the omitted files have no effect.
    pub fn files(&self) -> Result<Vec<SourceFile>> {
        files(&self.root)
    }
}

/// Returns true if no makefile, compiler or script of the kernel reads the path.
pub(crate) fn is_of_no_build(path: &str) -> bool {
    path.split('/').any(kinds::is_of_no_build)
}

/// Returns true for the name of a file that only a build makes.
pub(crate) fn is_product(name: &str) -> bool {
    kinds::is_generated_name(name)
}

/// Every source file below a folder, like [`SourceTree::files`].
pub(crate) fn files(root: &Path) -> Result<Vec<SourceFile>> {
    let mut files = walk::files(root)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn parse_version(makefile: &str) -> Option<Version> {
    let field = |name: &str| {
        makefile.lines().take(30).find_map(|line| {
            let (key, value) = line.split_once('=')?;
            (key.trim() == name).then(|| value.trim().to_owned())
        })
    };
    Some(Version {
        major: field("VERSION")?.parse().ok()?,
        minor: field("PATCHLEVEL")?.parse().ok()?,
        patch: field("SUBLEVEL").and_then(|text| text.parse().ok()).unwrap_or(0),
        extra: field("EXTRAVERSION").unwrap_or_default(),
    })
}

/// One source file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// The path, relative to the tree.
    pub path: PathBuf,
    /// The kind of file.
    pub kind: SourceFileKind,
}

impl SourceFile {
    /// The size in bytes. 0 for a link.
    pub fn size(&self) -> u64 {
        match self.kind {
            SourceFileKind::File { size, .. } => size,
            SourceFileKind::Link(_) => 0,
        }
    }
}

/// The kind of a source file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceFileKind {
    /// A regular file.
    File {
        /// Bytes.
        size: u64,
        /// Modification time, nanoseconds since the epoch.
        mtime: i128,
        /// True if its owner may execute it.
        executable: bool,
    },
    /// A symbolic link with its target, which is relative and within the tree. A link that leads out of the tree counts
    /// as the file at its target.
    Link(PathBuf),
}

/// The identity of a tree: paths, sizes, modification times, link targets. Contents are not read, so a tree of 95,000
/// files takes a fraction of a second. A change that keeps size and time goes unnoticed, as with make.
pub fn identity(files: &[SourceFile]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for entry in files {
        hasher.update(entry.path.as_os_str().as_bytes());
        match &entry.kind {
            SourceFileKind::File { size, mtime, executable } => {
                hasher.update(&[0, u8::from(*executable)]);
                hasher.update(&size.to_le_bytes());
                hasher.update(&mtime.to_le_bytes());
            }
            SourceFileKind::Link(target) => {
                hasher.update(&[0, 2]);
                hasher.update(target.as_os_str().as_bytes());
                hasher.update(&[0]);
            }
        }
    }
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("dir");
        for name in LANDMARKS.iter().chain(files) {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
            let text = if *name == "Makefile" {
                "VERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 117\nEXTRAVERSION = -rc1\nNAME = x\n"
            } else {
                "text\n"
            };
            std::fs::write(&path, text).expect("write");
        }
        dir
    }

    fn names(dir: &Path) -> Vec<String> {
        let tree = SourceTree::open(dir).expect("a tree");
        tree.files().expect("files").iter().map(|entry| entry.path.display().to_string()).collect()
    }

    #[test]
    fn a_version_is_read_as_it_is_printed() {
        for text in ["6.12.115", "7.3.0-rc1", "6.11.4-301.fc41.x86_64"] {
            assert_eq!(Version::parse(text).expect(text).to_string(), text);
        }
        for text in ["6", "6.12", "", "a.b.c", "6.12.x"] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_version_comes_from_the_makefile() {
        let dir = tree(&[]);
        assert_eq!(SourceTree::open(dir.path()).expect("a tree").version().to_string(), "6.12.117-rc1");
    }

    #[test]
    fn another_folder_is_refused() {
        let dir = tempfile::tempdir().expect("dir");
        let failure = SourceTree::open(dir.path()).expect_err("refused");
        assert_eq!(failure.diagnoses().next().expect("one").code, "klpx::not-a-kernel-tree");
        let failure = SourceTree::open(&dir.path().join("none")).expect_err("refused");
        assert_eq!(failure.diagnoses().next().expect("one").code, "klpx::source-missing");
    }

    #[test]
    fn products_of_a_build_in_the_tree_are_left_out() {
        let dir = tree(&[
            "fs/a.c",
            "fs/a.o",
            "fs/.a.o.cmd",
            "scripts/fixdep",
            "scripts/.fixdep.cmd",
            "scripts/fixdep.c",
            "include/config/auto.conf",
            "include/generated/x.h",
            "arch/x86/include/generated/y.h",
            "arch/x86/include/asm/z.h",
            ".config",
            ".git/HEAD",
            "fs/m.mod.c",
        ]);
        let found = names(dir.path());
        let mut expected: Vec<String> = LANDMARKS.iter().map(|name| (*name).to_owned()).collect();
        expected.extend(["fs/a.c", "scripts/fixdep.c", "arch/x86/include/asm/z.h"].map(str::to_owned));
        expected.sort_by_key(|name| PathBuf::from(name));
        assert_eq!(found, expected);
    }

    #[test]
    fn what_no_build_reads_changes_no_identity() {
        let dir = tree(&["fs/a.c"]);
        let before = names(dir.path());
        for name in [
            "fix.patch",
            "report.json",
            "tags",
            "cscope.out",
            "fs/.a.c.swp",
            "fs/a.c~",
            "fs/a.c.orig",
            "fs/#a.c#",
            ".vscode/settings",
            "scripts/__pycache__/x.pyc",
            "livepatch-fix.ko",
        ] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
            std::fs::write(&path, "text").expect("write");
        }
        std::os::unix::fs::symlink("me@host.1:2", dir.path().join("fs/.#a.c")).expect("an editor's lock");
        assert_eq!(names(dir.path()), before);
    }

    #[test]
    fn what_is_behind_a_link_out_of_the_tree_is_a_part_of_the_source() {
        let dir = tree(&["fs/a.c"]);
        let outside = tempfile::tempdir().expect("dir");
        std::fs::create_dir(outside.path().join("drv")).expect("mkdir");
        for name in ["x.c", "drv/y.c"] {
            std::fs::write(outside.path().join(name), "text").expect("write");
        }
        let link = |target: &Path, name: &str| {
            std::os::unix::fs::symlink(target, dir.path().join(name)).expect("link");
        };
        link(&outside.path().join("x.c"), "fs/x.c");
        link(&outside.path().join("drv"), "fs/drv");
        link(Path::new("a.c"), "fs/b.c");
        // An absolute link in the private copy would lead back into the user's tree.
        link(&dir.path().join("fs/a.c"), "fs/c.c");
        let id = || {
            let files = SourceTree::open(dir.path()).expect("tree").files().expect("files");
            let kind = |path: &str| {
                let entry = files.iter().find(|entry| entry.path == Path::new(path)).expect(path);
                matches!(entry.kind, SourceFileKind::Link(_))
            };
            assert_eq!(["fs/x.c", "fs/drv/y.c", "fs/b.c", "fs/c.c"].map(kind), [false, false, true, false]);
            identity(&files)
        };
        let mut before = id();
        for name in ["x.c", "drv/y.c"] {
            std::fs::write(outside.path().join(name), "another text").expect("write");
            let now = id();
            assert_ne!(now, before, "{name}");
            before = now;
        }
        link(dir.path().parent().expect("parent"), "fs/up");
        let failure = SourceTree::open(dir.path()).expect("tree").files().expect_err("endless");
        assert_eq!(failure.diagnoses().next().expect("one").code, "klpx::source-link");
    }

    #[test]
    fn a_changed_file_changes_the_identity() {
        let dir = tree(&["fs/a.c"]);
        let id = |dir: &Path| identity(&SourceTree::open(dir).expect("tree").files().expect("files"));
        let before = id(dir.path());
        assert_eq!(before, id(dir.path()));
        std::fs::write(dir.path().join("fs/a.c"), "other text\n").expect("write");
        assert_ne!(before, id(dir.path()));
    }
}
