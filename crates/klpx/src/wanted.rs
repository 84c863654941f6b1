//! Finds out which kernel a command line means, for every command that takes one.

use std::path::{Path, PathBuf};

use klpx_build_driver::packages::{Selector, WantedKernel};
use klpx_diagnosis::{Diagnosis, Result};

use crate::args::KernelArgs;
use crate::cache;

/// The wanted kernel, and where to look for it. The caller adds the files that its own arguments name.
pub(crate) fn wanted(which: &KernelArgs, cache_dir: Option<&Path>) -> Result<WantedKernel> {
    let absolute = |path: &PathBuf| std::path::absolute(path).map_err(|e| Diagnosis::io("find", path, &e));
    Ok(WantedKernel {
        kernel: which.kernel.as_deref().map(Selector::parse),
        sysroots: which.sysroot.iter().map(absolute).collect::<Result<_, _>>()?,
        here: std::env::current_dir().ok(),
        fetch: which.fetch.then(|| cache::directory_or(cache_dir)).transpose()?,
        ..WantedKernel::default()
    })
}
