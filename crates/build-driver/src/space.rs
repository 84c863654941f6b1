//! Space on the disk.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use klpx_diagnosis::{Diagnosis, Result, codes};

use crate::config::Config;

/// The estimated size of a baseline in bytes: at most twice the source, and objects by the number of set symbols. A
/// ThinLTO build of 790 symbols with DWARF took 3 GB.
pub(crate) fn estimate(config: &Config) -> u64 {
    const MIB: u64 = 1 << 20;
    let symbols = config.len() as u64;
    let debug = config.is("DEBUG_INFO");
    let each = if debug { 2 * MIB } else { MIB / 2 };
    2048 * MIB + symbols * each
}

/// The most bytes for headers, tools and some hundred units.
pub(crate) const UNITS: u64 = 1 << 30;

/// Refuses to start if the file system of `dir` has less than `needed` bytes free.
pub(crate) fn check(dir: &Path, needed: u64) -> Result<()> {
    let free = free(dir).unwrap_or(u64::MAX);
    if free >= needed {
        return Ok(());
    }
    let gib = |bytes: u64| format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64);
    let what = format!("not enough disk space for the kernel builds in {}", dir.display());
    Err(Diagnosis::new(
        &codes::DISK_FULL,
        what,
        format!("{} are free, about {} are needed", gib(free), gib(needed)),
        format!(
            "free some space (klpx cache prune --free {} removes the kernels used \
             longest ago), or name another cache directory with --cache-dir",
            needed.div_ceil(1_000_000_000)
        ),
    )
    .into())
}

/// The bytes that a file system has free for the user of this process.
pub(crate) fn free(dir: &Path) -> Option<u64> {
    let path = CString::new(dir.as_os_str().as_bytes()).ok()?;
    // SAFETY: `stat` is plain data that the call fills. `path` ends with a NUL.
    unsafe {
        let mut stat: libc::statvfs = std::mem::zeroed();
        (libc::statvfs(path.as_ptr(), &raw mut stat) == 0).then(|| stat.f_bavail * stat.f_frsize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_space_is_refused_with_numbers() {
        assert!(check(Path::new("/"), 1).is_ok());
        let failure = check(Path::new("/"), u64::MAX / 2).expect_err("refused");
        let diagnosis = failure.diagnoses().next().expect("one");
        assert_eq!(diagnosis.code, "klpx::disk-full");
        assert!(diagnosis.why.contains("GiB are free"));
        assert!(diagnosis.remedy.contains("klpx cache prune --free 9223372037 "), "{}", diagnosis.remedy);
    }
}
