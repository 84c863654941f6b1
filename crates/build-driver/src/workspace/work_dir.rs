//! Folders for the results of one patch. They are removed at the end of the run.

use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, Result};

use crate::files::remove_dir;

/// The file that marks a work folder that the user asked to keep.
const KEPT: &str = ".kept";

/// A folder for the results of a patch, which is removed when this value is dropped.
#[derive(Debug)]
pub struct WorkDir {
    pub(crate) path: PathBuf,
    pub(crate) keep: bool,
}

impl WorkDir {
    /// The path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn create(workspace: &Path) -> Result<WorkDir> {
        let parent = workspace.join("work");
        std::fs::create_dir_all(&parent).map_err(|error| Diagnosis::io("create", &parent, &error))?;
        let name = format!("{}-{}", super::cache::unix_time(), std::process::id());
        for n in 0.. {
            let path = parent.join(format!("{name}-{n}"));
            match std::fs::create_dir(&path) {
                Ok(()) => return Ok(WorkDir { path, keep: false }),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Diagnosis::io("create", &path, &error).into()),
            }
        }
        Err(Diagnosis::internal("no free name for a work folder").into())
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if self.keep {
            // The presence of this file keeps the folder when the workspace is opened again.
            let _ = std::fs::write(self.path.join(KEPT), "");
        } else {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Removes the work folders of runs that ended without a cleanup.
pub(crate) fn sweep_work(workspace: &Path) -> Result<()> {
    let Ok(listing) = std::fs::read_dir(workspace.join("work")) else { return Ok(()) };
    for entry in listing.flatten().filter(|entry| !entry.path().join(KEPT).exists()) {
        remove_dir(&entry.path())?;
    }
    Ok(())
}
