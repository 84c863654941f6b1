//! File operations whose failures name the file.

use std::path::Path;

use klpx_diagnosis::{Diagnosis, Result};

pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| Diagnosis::io("read", path, &error).into())
}

pub(crate) fn write(path: &Path, bytes: impl AsRef<[u8]>) -> Result<()> {
    std::fs::write(path, bytes).map_err(|error| Diagnosis::io("write", path, &error).into())
}

pub(crate) fn create_dir(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(|error| Diagnosis::io("create", path, &error).into())
}

/// Creates an empty folder at this path.
pub(crate) fn fresh_dir(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Diagnosis::io("remove", path, &error).into())
        }
        _ => create_dir(path),
    }
}

/// Writes a file so that it exists as a whole or not at all.
pub(crate) fn keep(path: &Path, bytes: impl AsRef<[u8]>) -> Result<()> {
    create_dir(path.parent().unwrap_or(path))?;
    let unfinished = path.with_extension("unfinished");
    write(&unfinished, bytes)?;
    std::fs::rename(&unfinished, path).map_err(|error| Diagnosis::io("write", path, &error).into())
}
