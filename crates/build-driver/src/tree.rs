//! The user's source tree: is it a kernel, which version, which files are sources, and its identity. Only reads.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use klpx_diagnosis::{Class, Diagnosis, Failure, Result};

/// A kernel version, from the top of the kernel's Makefile.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// VERSION.
    pub major: u32,
    /// PATCHLEVEL.
    pub minor: u32,
    /// SUBLEVEL.
    pub patch: u32,
    /// EXTRAVERSION, such as `-rc3`, mostly empty.
    pub extra: String,
}

impl Version {
    /// Reads what [`Version`] prints: `6.12.115`, `7.3.0-rc1`.
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

/// A kernel source tree that is there and looks like one.
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
    /// The folder is missing or is not a kernel source tree.
    pub fn open(root: &Path) -> Result<SourceTree> {
        let root = root.canonicalize().map_err(|error| {
            Diagnosis::new(
                "klpx::source-missing",
                Class::Build,
                format!("can't open the kernel source {}", root.display()),
            )
            .why(error.to_string())
            .remedy("name the kernel source tree with --source")
        })?;
        let refuse = |why: String| {
            let what = format!("{} is not a kernel source tree", root.display());
            Diagnosis::new("klpx::not-a-kernel-tree", Class::Build, what)
                .why(why)
                .remedy("name the kernel source tree with --source")
        };
        if let Some(missing) = LANDMARKS.iter().find(|name| !root.join(name).is_file()) {
            return Err(refuse(format!("it has no {missing}")).into());
        }
        let makefile = root.join("Makefile");
        let text = std::fs::read(&makefile).map_err(|error| Diagnosis::io("read", &makefile, &error))?;
        let Some(version) = parse_version(&String::from_utf8_lossy(&text)) else {
            return Err(refuse("its Makefile sets no VERSION and PATCHLEVEL".to_owned()).into());
        };
        Ok(SourceTree { root, version })
    }

    /// The tree's folder, absolute and without symbolic links.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The version its Makefile states.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// Every source file, sorted by path: no `.git`, no product of a build made inside the tree.
    pub fn files(&self) -> Result<Vec<Entry>> {
        files(&self.root)
    }
}

/// Every source file below a folder, as [`SourceTree::files`] has them.
pub(crate) fn files(root: &Path) -> Result<Vec<Entry>> {
    let mut files = walk(root)?;
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
pub struct Entry {
    /// Path relative to the tree.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
}

impl Entry {
    /// Bytes; 0 for a link.
    pub fn size(&self) -> u64 {
        match self.kind {
            Kind::File { size, .. } => size,
            Kind::Link(_) => 0,
        }
    }
}

/// What a source file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File {
        /// Bytes.
        size: u64,
        /// Modification time, nanoseconds since the epoch.
        mtime: i128,
        /// True when its owner may run it.
        executable: bool,
    },
    /// A symbolic link and where it points.
    Link(PathBuf),
}

/// The identity of a tree: paths, sizes, modification times, link targets. Contents are not read, so that a tree of
/// 95,000 files takes a fraction of a second; a file changed with its size and time kept is not noticed, as with make.
pub fn identity(files: &[Entry]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for entry in files {
        hasher.update(entry.path.as_os_str().as_bytes());
        match &entry.kind {
            Kind::File { size, mtime, executable } => {
                hasher.update(&[0, u8::from(*executable)]);
                hasher.update(&size.to_le_bytes());
                hasher.update(&mtime.to_le_bytes());
            }
            Kind::Link(target) => {
                hasher.update(&[0, 2]);
                hasher.update(target.as_os_str().as_bytes());
                hasher.update(&[0]);
            }
        }
    }
    hasher.finalize()
}

/// Folders, relative to the tree, that only a build makes.
fn is_generated_dir(path: &Path) -> bool {
    let Some(path) = path.to_str() else { return false };
    path == "include/config"
        || path == "include/generated"
        || path == ".tmp_versions"
        || (path.starts_with("arch/") && path.ends_with("/include/generated"))
}

/// Files that only a build makes, by name. Products with a `.NAME.cmd` beside them need no entry here.
fn is_generated_name(name: &str) -> bool {
    const NAMES: [&str; 10] = [
        ".config",
        ".config.old",
        ".version",
        "modules.order",
        "Module.symvers",
        "System.map",
        "utsversion-tmp.h",
        ".missing-syscalls.d",
        "vmlinux",
        ".objdiff",
    ];
    const ENDS: [&str; 8] = [".o", ".a", ".ko", ".mod", ".mod.c", ".o.d", ".symvers", ".lex.d"];
    NAMES.contains(&name)
        || name.starts_with(".tmp_")
        || (name.starts_with('.') && name.ends_with(".cmd"))
        || ENDS.iter().any(|end| name.ends_with(end))
}

/// Folders still to be read, shared by the walking threads.
#[derive(Default)]
struct Queue {
    state: Mutex<(Vec<PathBuf>, usize)>,
    changed: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, (Vec<PathBuf>, usize)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A folder to read, or `None` when all are read.
    fn take(&self) -> Option<PathBuf> {
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

    fn done(&self, found: Vec<PathBuf>) {
        let mut state = self.lock();
        state.0.extend(found);
        state.1 -= 1;
        self.changed.notify_all();
    }
}

/// How many threads to use for work on many files.
pub(crate) fn file_threads() -> usize {
    std::thread::available_parallelism().map_or(2, |count| count.get().clamp(2, 8))
}

fn walk(root: &Path) -> Result<Vec<Entry>> {
    let queue = Queue::default();
    queue.lock().0.push(PathBuf::new());
    let worker = || {
        let mut files = Vec::new();
        let mut failure = None;
        while let Some(dir) = queue.take() {
            let mut subdirs = Vec::new();
            if failure.is_none()
                && let Err(error) = read_dir(root, &dir, &mut files, &mut subdirs)
            {
                failure = Some(error);
                subdirs.clear();
            }
            queue.done(subdirs);
        }
        failure.map_or(Ok(files), Err)
    };
    let results: Vec<Result<Vec<Entry>>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..file_threads()).map(|_| scope.spawn(worker)).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let mut all = Vec::new();
    for files in results {
        all.extend(files?);
    }
    Ok(all)
}

/// Reads one folder: its source files go to `files`, its folders to `subdirs`.
fn read_dir(
    root: &Path,
    dir: &Path,
    files: &mut Vec<Entry>,
    subdirs: &mut Vec<PathBuf>,
) -> std::result::Result<(), Failure> {
    let full = root.join(dir);
    let fail = |error: &std::io::Error| Failure::from(Diagnosis::io("read", &full, error));
    let listing = std::fs::read_dir(&full).map_err(|error| fail(&error))?;
    let names: HashSet<OsString> = listing
        .map(|entry| entry.map(|e| e.file_name()))
        .collect::<std::io::Result<_>>()
        .map_err(|e| fail(&e))?;
    for name in &names {
        let path = dir.join(name);
        let text = name.to_string_lossy();
        if (dir.as_os_str().is_empty() && text == ".git") || is_generated_name(&text) {
            continue;
        }
        if names.contains(&OsString::from(format!(".{text}.cmd"))) {
            continue;
        }
        let target = full.join(name);
        let meta =
            std::fs::symlink_metadata(&target).map_err(|error| Diagnosis::io("read", &target, &error))?;
        if meta.is_dir() {
            if !is_generated_dir(&path) {
                subdirs.push(path);
            }
        } else if meta.is_symlink() {
            let link = std::fs::read_link(&target).map_err(|error| Diagnosis::io("read", &target, &error))?;
            files.push(Entry { path, kind: Kind::Link(link) });
        } else if meta.is_file() {
            let mtime = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
            let executable = meta.mode() & 0o100 != 0;
            files.push(Entry { path, kind: Kind::File { size: meta.size(), mtime, executable } });
        }
    }
    Ok(())
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
    fn a_changed_file_changes_the_identity() {
        let dir = tree(&["fs/a.c"]);
        let id = |dir: &Path| identity(&SourceTree::open(dir).expect("tree").files().expect("files"));
        let before = id(dir.path());
        assert_eq!(before, id(dir.path()));
        std::fs::write(dir.path().join("fs/a.c"), "other text\n").expect("write");
        assert_ne!(before, id(dir.path()));
    }
}
