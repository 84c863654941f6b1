//! Files that are either complete or absent after a power cut.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use klpx_diagnosis::{Diagnosis, Result};

use crate::host::failed;

/// Writes a file in one step and syncs it to the disk. Creates a missing folder.
///
/// # Errors
/// The error of the system. The earlier file then stays.
pub(crate) fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().ok_or_else(|| Diagnosis::internal("a file is in a folder"))?;
    let written = fs::create_dir_all(folder).and_then(|()| {
        let permissions = Permissions::from_mode(0o644);
        let mut file =
            tempfile::Builder::new().prefix(".klpx-").permissions(permissions).tempfile_in(folder)?;
        file.write_all(bytes)?;
        // The umask reduced the permissions of the new file.
        file.as_file().set_permissions(Permissions::from_mode(0o644))?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        sync(folder)?;
        // The folder may be new, so its entry needs a sync, too.
        folder.parent().map_or(Ok(()), sync)
    });
    Ok(written.map_err(|error| failed("write", path, &error))?)
}

/// Removes a file and syncs the removal. A missing file is no error.
///
/// # Errors
/// The error of the system.
pub(crate) fn remove(path: &Path) -> Result<()> {
    // On a read-only file system, even the removal of a missing file fails.
    if fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    let removed = fs::remove_file(path).and_then(|()| path.parent().map_or(Ok(()), sync));
    Ok(removed.map_err(|error| failed("remove", path, &error))?)
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_put_whole_with_its_mode_and_nothing_else_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/file");
        for text in ["one", "another"] {
            put(&path, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(folder.path().join("new")).unwrap().count(), 1);
        remove(&path).unwrap();
        remove(&path).unwrap();
        let below_a_file = folder.path().join("a");
        fs::write(&below_a_file, "").unwrap();
        assert!(put(&below_a_file.join("b"), b"").is_err());
    }
}
