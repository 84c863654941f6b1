//! klpx's own folders on disk: folders that nobody else may write to, and paths that stay in their folder. Decides
//! which users to trust with a folder, and changes nothing that klpx did not make.

use std::fs::{DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Result, codes};

/// The mode of new folders. Files in the cache are compiled and run, so only klpx's user has access.
const PRIVATE: u32 = 0o700;

/// Makes one of klpx's own folders, if it is missing, and returns its path without symbolic links.
///
/// # Errors
/// `klpx::untrusted-folder` if another user could write to the folder or replace it.
pub(crate) fn folder(path: &Path) -> Result<PathBuf> {
    let made = DirBuilder::new().recursive(true).mode(PRIVATE).create(path);
    made.map_err(|error| Diagnosis::io("create", path, &error))?;
    check(path)
}

/// As `folder`, for a folder that must exist.
pub(crate) fn check(path: &Path) -> Result<PathBuf> {
    let me = Owner::me();
    let given = std::path::absolute(path).map_err(|error| Diagnosis::io("open", path, &error))?;
    for link in given.ancestors() {
        let meta = link.symlink_metadata().map_err(|error| Diagnosis::io("open", link, &error))?;
        if meta.is_symlink() && !me.is_trusted(meta.uid()) {
            return Err(untrusted(path, link, "it is a link of another user's"));
        }
    }
    let real = given.canonicalize().map_err(|error| Diagnosis::io("open", &given, &error))?;
    for (n, dir) in real.ancestors().enumerate() {
        let meta = dir.metadata().map_err(|error| Diagnosis::io("open", dir, &error))?;
        if let Some(why) = me.fault(&Rights::of(&meta), n == 0) {
            return Err(untrusted(path, dir, why));
        }
    }
    Ok(real)
}

/// Joins `root` and a path that a file on the disk gives.
///
/// # Errors
/// `None` for a path that leads out of `root`: absolute, with `..`, or through a symbolic link.
pub(crate) fn below(root: &Path, path: &Path) -> Option<PathBuf> {
    let mut at = root.to_owned();
    for part in path.components() {
        let Component::Normal(name) = part else { return None };
        // The last part may be a link, because the link is replaced and not followed.
        if at != root && at.symlink_metadata().is_ok_and(|meta| meta.is_symlink()) {
            return None;
        }
        at.push(name);
    }
    (at != root).then_some(at)
}

fn untrusted(folder: &Path, at: &Path, why: &str) -> klpx_diagnosis::Failure {
    let what = format!("klpx does not work in {}", folder.display());
    Diagnosis::new(
        &codes::UNTRUSTED_FOLDER,
        what,
        format!("{why}, and what stands there is compiled and run"),
        "name a folder of your own (--cache-dir, --output), or take the right to write from \
         others (chmod go-w)",
    )
    .place(DiagnosisPlace::file(at.display().to_string(), None))
    .into()
}

/// The user that runs klpx.
struct Owner {
    user: u32,
    group: u32,
    /// The owner of the root folder, who has access to everything. In a user namespace, the owner need not be user 0.
    root: u32,
}

/// The metadata that decide who may write to a folder.
struct Rights {
    user: u32,
    group: u32,
    mode: u32,
}

impl Rights {
    fn of(meta: &Metadata) -> Rights {
        Rights { user: meta.uid(), group: meta.gid(), mode: meta.mode() }
    }
}

impl Owner {
    fn me() -> Owner {
        let root = Path::new("/").metadata().map_or(0, |meta| meta.uid());
        // SAFETY: plain system calls without side effects.
        unsafe { Owner { user: libc::geteuid(), group: libc::getegid(), root } }
    }

    fn is_trusted(&self, user: u32) -> bool {
        user == self.user || user == 0
    }

    /// Why others can change the contents of a folder. `last` is true for the folder itself, false for a parent folder.
    fn fault(&self, rights: &Rights, last: bool) -> Option<&'static str> {
        if !self.is_trusted(rights.user) && (last || rights.user != self.root) {
            return Some("another user owns it");
        }
        // In a folder with the sticky bit, nobody can rename the files of others.
        if !last && rights.mode & libc::S_ISVTX != 0 {
            return None;
        }
        if rights.mode & 0o002 != 0 {
            return Some("every user may write to it");
        }
        // A user's own group has no other members. By convention, its number is the user's number.
        let alone = rights.group == 0 || rights.group == self.group && self.group == self.user;
        (rights.mode & 0o020 != 0 && !alone).then_some("its group may write to it")
    }
}

/// Returns true if the path is a folder. A link to a folder does not count.
pub(crate) fn is_folder(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|meta| meta.is_dir())
}

/// Removes a folder and its contents, and `last` after everything else: while anything is left, `last` identifies the
/// folder. A missing folder is no error.
pub(crate) fn remove_but_last(dir: &Path, last: &str) -> io::Result<()> {
    let listing = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        listing => listing?,
    };
    for entry in listing {
        let entry = entry?;
        if entry.file_name() == last {
            continue;
        }
        match entry.file_type()?.is_dir() {
            true => std::fs::remove_dir_all(entry.path())?,
            false => std::fs::remove_file(entry.path())?,
        }
    }
    std::fs::remove_dir_all(dir)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_folder_is_trusted_when_nobody_else_can_change_it() {
        let me = Owner { user: 1000, group: 1000, root: 0 };
        let in_group = Owner { user: 1000, group: 100, root: 0 };
        let contained = Owner { user: 0, group: 0, root: 65534 };
        let cases = [
            // who, owner, group, mode, result for the folder itself, result for a parent folder
            (&me, 1000, 1000, 0o755, true, true),
            (&me, 1000, 1000, 0o775, true, true),
            (&me, 0, 0, 0o755, true, true),
            (&me, 0, 0, 0o775, true, true),
            (&me, 0, 0, 0o1777, false, true),
            (&me, 0, 0, 0o777, false, false),
            (&me, 1001, 1001, 0o755, false, false),
            (&me, 1001, 1001, 0o1777, false, false),
            (&me, 0, 50, 0o2775, false, false),
            (&in_group, 1000, 100, 0o775, false, false),
            (&in_group, 1000, 100, 0o755, true, true),
            (&contained, 65534, 65534, 0o755, false, true),
            (&contained, 1000, 1000, 0o755, false, false),
        ];
        for (who, user, group, mode, itself, above) in cases {
            let fault = |last| who.fault(&Rights { user, group, mode }, last);
            assert_eq!(fault(true).is_none(), itself, "{user}:{group} {mode:o}");
            assert_eq!(fault(false).is_none(), above, "above: {user}:{group} {mode:o}");
        }
    }

    #[test]
    fn what_klpx_makes_is_for_its_user_alone() {
        let dir = tempfile::tempdir().expect("dir");
        let made = folder(&dir.path().join("a/b")).expect("made");
        for dir in [&made, made.parent().expect("parent")] {
            assert_eq!(dir.metadata().expect("meta").mode() & 0o777, 0o700, "{}", dir.display());
        }
        std::fs::set_permissions(&made, Permissions::from_mode(0o777)).expect("chmod");
        let below = made.join("c");
        for path in [&made, &below] {
            let failure = folder(path).expect_err("refused");
            let diagnosis = failure.diagnoses().next().expect("one");
            assert_eq!(diagnosis.code, "klpx::untrusted-folder");
            assert_eq!(diagnosis.place.file.as_deref(), made.to_str());
        }
    }

    #[test]
    fn a_stated_path_stays_in_its_folder() {
        let dir = tempfile::tempdir().expect("dir");
        std::fs::create_dir(dir.path().join("d")).expect("mkdir");
        std::os::unix::fs::symlink("/etc", dir.path().join("link")).expect("link");
        let cases = [
            ("d/a.c", true),
            ("new/a.c", true),
            ("link", true),
            ("link/passwd", false),
            ("d/../../x", false),
            ("/etc/passwd", false),
            ("", false),
            (".", false),
        ];
        for (path, inside) in cases {
            let found = below(dir.path(), Path::new(path));
            assert_eq!(found, inside.then(|| dir.path().join(path)), "{path}");
        }
    }

    #[test]
    fn a_folder_goes_with_all_that_is_in_it() {
        let dir = tempfile::tempdir().expect("dir");
        let folder = dir.path().join("f");
        std::fs::create_dir_all(folder.join("src")).expect("mkdir");
        for name in ["src/a", "b", "mark"] {
            std::fs::write(folder.join(name), "").expect("write");
        }
        remove_but_last(&folder, "mark").expect("removed");
        assert!(!folder.exists());
        remove_but_last(&folder, "mark").expect("gone already");
    }
}
