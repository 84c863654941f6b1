//! The period in which a workspace's source is patched: the touched files, and the way back to the original, even after
//! a SIGKILL at any moment. Never touches the baseline.
//!
//! make relies on one rule: at rest, every file in `src/` is original, and every object in `build/` is either made from
//! the original source or missing. Before a file is touched, klpx saves the touched source files and the objects that
//! depend on them, and writes the journal. The journal's own modification time is the border: everything in `build/`
//! that is not older was made while the source was patched. A rollback restores the source files, removes everything in
//! `build/` that is not older than the journal, and puts the saved objects back, in this order and with fresh times, so
//! that make finds the objects newer than their sources.

use std::fs::{File, FileTimes};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use klpx_diagnosis::{Diagnosis, Result, codes};
use serde::{Deserialize, Serialize};

use crate::files;
use crate::files::{remove_dir, remove_file};
use crate::own;
use crate::patch::FileEdit;
use crate::workspace::cache::{corrupt, removal};

/// The format of `patch.journal`.
#[derive(Debug, Serialize, Deserialize)]
struct Journal {
    files: Vec<TouchedFile>,
    saved: Vec<Saved>,
}

/// A source file that the patch touches.
#[derive(Debug, Serialize, Deserialize)]
struct TouchedFile {
    path: String,
    /// False for a file that the patch adds.
    existed: bool,
    executable: bool,
}

/// A file of the build tree with a saved original.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    path: PathBuf,
    size: u64,
}

/// The patched state of the workspace's source.
pub(crate) struct Patching<'a> {
    dir: &'a Path,
    /// Everything in the build tree that is not older was made from the patched source.
    since: SystemTime,
    /// Objects that depend on files that the patch touches, as paths in the build tree.
    pub(crate) units: Vec<PathBuf>,
}

fn journal_path(dir: &Path) -> PathBuf {
    dir.join("patch.journal")
}

/// Patches the workspace's source. The workspace then needs `recover`.
pub(crate) fn begin<'a>(dir: &'a Path, changes: &[FileEdit]) -> Result<Patching<'a>> {
    let saved_dir = dir.join("saved");
    remove_dir(&saved_dir)?;
    let mut files = Vec::new();
    for change in changes {
        files.push(save_source(dir, &saved_dir, change)?);
    }
    let paths: Vec<&str> = changes.iter().map(|change| change.path.as_str()).collect();
    let mut saved = Vec::new();
    let units = dependents(&dir.join("build"), &paths)?;
    for unit in &units {
        for path in [unit.clone(), command_file(unit)] {
            let size = save(&dir.join("build").join(&path), &saved_dir.join("build").join(&path))?;
            saved.push(Saved { path, size });
        }
    }
    let text = serde_json::to_vec_pretty(&Journal { files, saved })
        .map_err(|error| Diagnosis::internal(&error.to_string()))?;
    files::write_durably(&journal_path(dir), &text)?;
    let since = modified(&journal_path(dir))?;
    // File times have a resolution of some milliseconds. A patched file must be newer than the objects that were
    // restored just before.
    std::thread::sleep(Duration::from_millis(20));
    for change in changes {
        install(dir, change)?;
    }
    Ok(Patching { dir, since, units })
}

impl Patching<'_> {
    /// Returns true if the file of the build tree was made after the source was patched.
    pub(crate) fn is_new(&self, path: &Path) -> bool {
        modified(path).is_ok_and(|time| time >= self.since)
    }

    /// Restores the original state.
    pub(crate) fn end(self) -> Result<()> {
        recover(self.dir).map(|_| ())
    }
}

/// Restores the original state if there is a journal. Returns true if there was one.
pub(crate) fn recover(dir: &Path) -> Result<bool> {
    let path = journal_path(dir);
    let Some(journal) = read(dir)? else {
        remove_dir(&dir.join("saved"))?;
        return Ok(false);
    };
    let since = modified(&path)?;
    for file in &journal.files {
        restore_source(dir, file)?;
    }
    // The mark is written before the sweep: an interrupted sweep leaves no trace of the files that it removed.
    let marked = unprepared(dir).exists();
    files::write_durably(&unprepared(dir), b"")?;
    if !sweep(&dir.join("build"), since)? && !marked {
        remove_file(&unprepared(dir))?;
    }
    for saved in &journal.saved {
        restore_object(dir, saved)?;
    }
    remove_file(&path)?;
    remove_dir(&dir.join("saved"))?;
    Ok(true)
}

/// The journal, if there is one. Its paths stay in the source and in the build tree.
fn read(dir: &Path) -> Result<Option<Journal>> {
    let path = journal_path(dir);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Diagnosis::io("read", &path, &error).into()),
    };
    let journal: Journal =
        serde_json::from_slice(&text).map_err(|error| corrupt(dir, &path, error.to_string()))?;
    let sources = journal.files.iter().map(|file| ("src", Path::new(&file.path)));
    let objects = journal.saved.iter().map(|saved| ("build", saved.path.as_path()));
    for (root, stated) in sources.chain(objects) {
        if own::below(&dir.join(root), stated).is_none() {
            let why = format!("it names {}, which leads out of {root}", stated.display());
            return Err(corrupt(dir, &path, why).into());
        }
    }
    Ok(Some(journal))
}

fn modified(path: &Path) -> Result<SystemTime> {
    path.metadata()
        .and_then(|meta| meta.modified())
        .map_err(|error| Diagnosis::io("read", path, &error).into())
}

fn save(from: &Path, to: &Path) -> Result<u64> {
    let parent = to.parent().unwrap_or(to);
    std::fs::create_dir_all(parent).map_err(|error| Diagnosis::io("create", parent, &error))?;
    files::copy(from, to, false).map_err(|error| Diagnosis::io("copy", from, &error))?;
    Ok(to.metadata().map_err(|error| Diagnosis::io("read", to, &error))?.len())
}

fn save_source(dir: &Path, saved: &Path, change: &FileEdit) -> Result<TouchedFile> {
    let path = dir.join("src").join(&change.path);
    let existing = match std::fs::read(&path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(Diagnosis::io("read", &path, &error).into()),
    };
    if existing != change.original {
        let what = format!("{} in the cache is not what the source tree has", change.path);
        return Err(Diagnosis::new(
            &codes::CACHE_STALE,
            what,
            "the source changed while klpx ran, or without a change of its size and time",
            format!("run klpx again; if that does not help, {}", removal(dir)),
        )
        .into());
    }
    let mut executable = false;
    if existing.is_some() {
        executable = path.metadata().is_ok_and(|meta| meta.mode() & 0o100 != 0);
        save(&path, &saved.join("src").join(&change.path))?;
    }
    Ok(TouchedFile { path: change.path.clone(), existed: existing.is_some(), executable })
}

fn install(dir: &Path, change: &FileEdit) -> Result<()> {
    let path = dir.join("src").join(&change.path);
    let Some(text) = &change.patched else { return remove_file(&path) };
    let parent = path.parent().unwrap_or(dir);
    std::fs::create_dir_all(parent).map_err(|error| Diagnosis::io("create", parent, &error))?;
    // The file may be shared with another workspace's source, so it is replaced and never written to.
    let temporary = path.with_file_name(".klpx-patched");
    std::fs::write(&temporary, text)
        .and_then(|()| std::fs::rename(&temporary, &path))
        .map_err(|error| Diagnosis::io("write", &path, &error).into())
}

fn restore_source(dir: &Path, file: &TouchedFile) -> Result<()> {
    let src = dir.join("src");
    let path = src.join(&file.path);
    if file.existed {
        let saved = dir.join("saved/src").join(&file.path);
        let temporary = path.with_file_name(".klpx-restore");
        let parent = path.parent().unwrap_or(&src);
        std::fs::create_dir_all(parent).map_err(|error| Diagnosis::io("create", parent, &error))?;
        files::copy(&saved, &temporary, file.executable)
            .and_then(|()| std::fs::rename(&temporary, &path))
            .map_err(|error| Diagnosis::io("restore", &path, &error))?;
        return Ok(());
    }
    remove_file(&path)?;
    // Folders that the patch added are empty now. The removal of any other folder fails.
    let mut parent = path.parent();
    while let Some(dir) = parent.filter(|dir| *dir != src && std::fs::remove_dir(dir).is_ok()) {
        parent = dir.parent();
    }
    Ok(())
}

/// The mark for a build tree without some host programs or generated headers, which a sweep removed. The next make of
/// the kernel restores them, but an external module relies on them.
pub(crate) fn unprepared(dir: &Path) -> PathBuf {
    dir.join("unprepared")
}

/// Removes every regular file below `build` that is not older than `since`. Returns true if an external module needs
/// one of the removed files.
fn sweep(build: &Path, since: SystemTime) -> Result<bool> {
    let mut needed = false;
    if !build.exists() {
        return Ok(needed);
    }
    for entry in walkdir::WalkDir::new(build) {
        let entry = entry.map_err(|error| Diagnosis::io("read", build, &error.into()))?;
        if !entry.file_type().is_file() {
            continue;
        }
        let meta = entry.metadata().map_err(|error| Diagnosis::io("read", entry.path(), &error.into()))?;
        if meta.modified().is_ok_and(|time| time >= since) {
            let rel = entry.path().strip_prefix(build).unwrap_or(entry.path());
            needed |= rel.starts_with("tools") || rel.starts_with("scripts") || rel.starts_with("include");
            needed |= rel.components().any(|part| part.as_os_str() == "generated");
            remove_file(entry.path())?;
        }
    }
    Ok(needed)
}

/// Puts one saved object back with a fresh time. If the copy is incomplete, make will build the object.
fn restore_object(dir: &Path, saved: &Saved) -> Result<()> {
    let from = dir.join("saved/build").join(&saved.path);
    let to = dir.join("build").join(&saved.path);
    if from.metadata().is_ok_and(|meta| meta.len() == saved.size) {
        File::options()
            .write(true)
            .open(&from)
            .and_then(|file| file.set_times(FileTimes::new().set_modified(SystemTime::now())))
            .and_then(|()| std::fs::rename(&from, &to))
            .map_err(|error| Diagnosis::io("restore", &to, &error))?;
    }
    Ok(())
}

/// kbuild's record of an object: the command that made it, and its dependencies.
fn command_file(object: &Path) -> PathBuf {
    let name = object.file_name().unwrap_or_default().to_string_lossy();
    object.with_file_name(format!(".{name}.cmd"))
}

/// The objects in the build tree that depend on one of the source files, by kbuild's records.
fn dependents(build: &Path, paths: &[&str]) -> Result<Vec<PathBuf>> {
    let needles: Vec<Vec<u8>> = paths.iter().map(|path| format!("/{path}").into_bytes()).collect();
    let mut found = Vec::new();
    for entry in walkdir::WalkDir::new(build).sort_by_file_name() {
        let Ok(entry) = entry else { continue };
        let name = entry.file_name().to_string_lossy();
        let Some(made) = name.strip_prefix('.').and_then(|name| name.strip_suffix(".cmd")) else { continue };
        let made = entry.path().with_file_name(made);
        if !made.is_file() {
            continue;
        }
        let text =
            std::fs::read(entry.path()).map_err(|error| Diagnosis::io("read", entry.path(), &error))?;
        if !needles.iter().any(|needle| mentions(&text, needle)) {
            continue;
        }
        if let Ok(made) = made.strip_prefix(build)
            && made.extension().is_some_and(|extension| extension == "o")
        {
            found.push(made.to_owned());
        }
    }
    Ok(found)
}

/// Returns true if `text` contains `needle` at the end of a word.
fn mentions(text: &[u8], needle: &[u8]) -> bool {
    let Some((&first, _)) = needle.split_first() else { return false };
    let mut at = 0;
    while let Some(offset) = text[at..].iter().position(|&byte| byte == first) {
        at += offset;
        if text[at..].starts_with(needle)
            && text.get(at + needle.len()).is_none_or(|byte| byte.is_ascii_whitespace() || *byte == b'\\')
        {
            return true;
        }
        at += 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A workspace with two sources, one object for each source, and an archive.
    fn workspace() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("dir");
        let old = SystemTime::now() - Duration::from_secs(1000);
        let files = [
            ("src/fs/a.c", "a"),
            ("src/fs/b.c", "b"),
            ("build/fs/a.o", "object a"),
            ("build/fs/.a.o.cmd", "source_fs/a.o := /ws/src/fs/a.c\n"),
            ("build/fs/b.o", "object b"),
            ("build/fs/.b.o.cmd", "source_fs/b.o := /ws/src/fs/b.c\ndeps := /ws/src/fs/a.ch \\\n"),
            ("build/fs/built-in.a", "archive"),
        ];
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
            std::fs::write(&path, text).expect("write");
            let file = File::options().write(true).open(&path).expect("open");
            file.set_times(FileTimes::new().set_modified(old)).expect("times");
        }
        dir
    }

    fn changes() -> Vec<FileEdit> {
        vec![
            FileEdit::new("fs/a.c".into(), Some(b"a".into()), Some(b"patched".into())),
            FileEdit::new("fs/new/n.c".into(), None, Some(b"new".into())),
        ]
    }

    fn read(dir: &tempfile::TempDir, path: &str) -> Option<String> {
        std::fs::read_to_string(dir.path().join(path)).ok()
    }

    /// Simulates a compiler on the patched source.
    fn build(dir: &tempfile::TempDir) {
        for path in ["build/fs/a.o", "build/fs/.a.o.cmd", "build/fs/built-in.a", "build/fs/n.o"] {
            std::fs::write(dir.path().join(path), "of the patched source").expect("write");
        }
    }

    fn assert_at_rest(dir: &tempfile::TempDir) {
        assert_eq!(read(dir, "src/fs/a.c").as_deref(), Some("a"));
        assert_eq!(read(dir, "src/fs/b.c").as_deref(), Some("b"));
        assert!(!dir.path().join("src/fs/new").exists());
        assert!(!dir.path().join("patch.journal").exists() && !dir.path().join("saved").exists());
        for entry in walkdir::WalkDir::new(dir.path().join("build")) {
            let entry = entry.expect("entry");
            if entry.file_type().is_file() {
                assert_ne!(std::fs::read_to_string(entry.path()).expect("read"), "of the patched source");
            }
        }
    }

    #[test]
    fn a_patched_build_is_rolled_back() {
        let dir = workspace();
        let patching = begin(dir.path(), &changes()).expect("begun");
        assert_eq!(patching.units.len(), 1);
        assert_eq!(read(&dir, "src/fs/a.c").as_deref(), Some("patched"));
        assert_eq!(read(&dir, "src/fs/new/n.c").as_deref(), Some("new"));
        build(&dir);
        assert!(patching.is_new(&dir.path().join("build/fs/a.o")));
        assert!(!patching.is_new(&dir.path().join("build/fs/b.o")));
        patching.end().expect("ended");
        assert_at_rest(&dir);
        assert_eq!(read(&dir, "build/fs/a.o").as_deref(), Some("object a"));
        let time = |path: &str| modified(&dir.path().join(path)).expect("time");
        assert!(time("build/fs/a.o") >= time("src/fs/a.c"), "make would rebuild it");
        assert_eq!(read(&dir, "build/fs/built-in.a"), None, "what depends on patched objects is made anew");
        assert_eq!(read(&dir, "build/fs/b.o").as_deref(), Some("object b"));
    }

    #[test]
    fn a_kill_at_any_moment_is_put_right() {
        // Kills: after the patch was in and something was built; during the rollback; twice.
        for cut in 0..4 {
            let dir = workspace();
            let _ = begin(dir.path(), &changes()).expect("begun");
            build(&dir);
            if cut >= 1 {
                std::fs::remove_file(dir.path().join("src/fs/new/n.c")).expect("removed");
            }
            if cut >= 2 {
                std::fs::remove_file(dir.path().join("saved/build/fs/a.o")).expect("removed");
            }
            if cut >= 3 {
                std::fs::write(dir.path().join("saved/build/fs/.a.o.cmd"), "half").expect("write");
            }
            assert!(recover(dir.path()).expect("recovered"));
            assert_at_rest(&dir);
            assert!(!recover(dir.path()).expect("nothing left"));
        }
    }

    #[test]
    fn a_journal_that_leads_out_of_the_workspace_is_refused() {
        let outside = tempfile::tempdir().expect("dir");
        let victim = outside.path().join("victim");
        std::fs::write(&victim, "text").expect("write");
        let stated = |source: &str, object: &str| {
            let dir = workspace();
            std::os::unix::fs::symlink(outside.path(), dir.path().join("src/link")).expect("link");
            std::os::unix::fs::symlink(outside.path(), dir.path().join("build/link")).expect("link");
            std::fs::create_dir_all(dir.path().join("saved/build")).expect("mkdir");
            let touched = TouchedFile { path: source.to_owned(), existed: false, executable: false };
            let saved = Saved { path: object.into(), size: 0 };
            let journal = Journal { files: vec![touched], saved: vec![saved] };
            std::fs::write(journal_path(dir.path()), serde_json::to_vec(&journal).expect("JSON"))
                .expect("write");
            recover(dir.path())
        };
        stated("fs/new.c", "fs/a.o").expect("paths of a workspace");
        let absolute = victim.to_str().expect("text");
        for path in ["../../victim", "link/victim", absolute, ""] {
            for result in [stated(path, "fs/a.o"), stated("fs/new.c", path)] {
                let failure = result.expect_err(path);
                let diagnosis = failure.diagnoses().next().expect("one");
                assert_eq!(diagnosis.code, "klpx::cache-corrupt", "{path}");
                assert!(diagnosis.remedy.contains("klpx cache prune --key "), "{}", diagnosis.remedy);
            }
        }
        assert_eq!(std::fs::read_to_string(&victim).expect("read"), "text");
    }

    #[test]
    fn a_source_that_is_not_the_users_is_refused_before_anything_is_touched() {
        let dir = workspace();
        let mut changes = changes();
        changes[0].original = Some(b"other".into());
        let failure = begin(dir.path(), &changes).map(|_| ()).expect_err("refused");
        assert_eq!(failure.diagnoses().next().expect("one").code, "klpx::cache-stale");
        assert!(!recover(dir.path()).expect("nothing to do"));
        assert_at_rest(&dir);
    }

    #[test]
    fn what_is_made_from_a_source_besides_units_is_known() {
        let dir = workspace();
        let build = dir.path().join("build");
        let of_a = || dependents(&build, &["fs/a.c"]).expect("records");
        assert_eq!(of_a(), [PathBuf::from("fs/a.o")]);
        for (path, text) in [("fs/.gen.cmd", "source_fs/gen := /ws/src/fs/a.c\n"), ("fs/.a.s.cmd", "none")] {
            std::fs::write(build.join(path), text).expect("write");
        }
        assert_eq!(of_a(), [PathBuf::from("fs/a.o")], "it is not there");
        std::fs::write(build.join("fs/gen"), "a program for the build machine").expect("write");
        assert_eq!(of_a(), [PathBuf::from("fs/a.o")]);
        assert_eq!(dependents(&build, &["fs/b.c"]).expect("records"), [PathBuf::from("fs/b.o")]);
    }

    #[test]
    fn words_are_matched_to_their_end() {
        assert!(mentions(b"x := /s/fs/a.c\n", b"/fs/a.c"));
        assert!(mentions(b"/s/fs/a.c \\\n", b"/fs/a.c"));
        assert!(!mentions(b"/s/fs/a.ch \\\n", b"/fs/a.c"));
        assert!(!mentions(b"/s/xfs/a.c", b"/fs/a.c"));
    }
}
