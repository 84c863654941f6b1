//! What a guest needs on this machine: an emulator and a static busybox.

use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, Result, codes};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, elf};

/// The path of a command, if PATH or one of the system directories has the command.
pub fn which(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(system)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
}

/// The installed busybox. A guest has no shared libraries, so the busybox must need none.
///
/// # Errors
/// `klpx::missing-tool` if there is no busybox, or if it needs shared libraries.
pub fn busybox() -> Result<PathBuf> {
    let missing = |why: &str| {
        Diagnosis::new(&codes::MISSING_TOOL, "a guest needs a static busybox", why, "install busybox-static")
    };
    let found = which("busybox").ok_or_else(|| missing("busybox is not installed"))?;
    match is_static(&found) {
        true => Ok(found),
        false => Err(missing(&format!("{} needs shared libraries", found.display())).into()),
    }
}

/// Returns true if the program needs no shared library.
pub fn is_static(path: &Path) -> bool {
    let Ok(data) = std::fs::read(path) else { return false };
    let Ok(header) = elf::FileHeader64::<Endianness>::parse(&*data) else { return false };
    let Ok(endian) = header.endian() else { return false };
    let Ok(segments) = header.program_headers(endian, &*data) else { return false };
    !segments.iter().any(|segment| segment.p_type(endian) == elf::PT_INTERP)
}
