//! The patched files as the compiler sees them: overlays over the source tree, which stays as it is.

use std::path::Path;

use klpx_build_driver::{AppliedPatch, Workspace};
use klpx_diagnosis::{Diagnosis, Result};
use klpx_thinlto::{Overlays, write_overlay};

/// Makes overlays that show the patched files to the compiler.
pub(crate) fn overlays(workspace: &Workspace, prepared: &AppliedPatch, work: &Path) -> Result<Overlays> {
    let (folder, source) = (work.join("source"), workspace.source_dir());
    let mut shown = Vec::new();
    for (path, text) in prepared.patched_files() {
        let file = folder.join(path);
        let parent = file.parent().unwrap_or(&folder);
        std::fs::create_dir_all(parent).map_err(|error| Diagnosis::io("create", parent, &error))?;
        std::fs::write(&file, text).map_err(|error| Diagnosis::io("write", &file, &error))?;
        shown.push((source.join(path), file));
    }
    let patched = work.join("patched.yaml");
    write_overlay(&patched, &shown)?;
    Ok(Overlays { original: None, patched: Some(patched) })
}
