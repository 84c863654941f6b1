//! A run of tests on one kernel: what each step of the run needs, and the folder of the results.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use klpx_guest::TaskVerdict;

use crate::kernel::BuiltKernel;
use crate::klpx::Klpx;
use crate::tried::Tried;
use crate::workspace::CargoWorkspace;

/// A run of tests on one kernel.
pub(crate) struct KernelRun<'a> {
    /// The workspace of klpx.
    pub(crate) workspace: &'a CargoWorkspace,
    /// The program under test.
    pub(crate) klpx: &'a Klpx,
    /// The kernel.
    pub(crate) built: &'a BuiltKernel,
    /// The folder of the run's results.
    pub(crate) output: PathBuf,
    /// When the run began.
    pub(crate) start: Instant,
}

impl<'a> KernelRun<'a> {
    /// Begins a run, in a fresh folder of this name below the kernel's results.
    pub(crate) fn begin(
        workspace: &'a CargoWorkspace,
        klpx: &'a Klpx,
        built: &'a BuiltKernel,
        results: &Path,
        name: &str,
    ) -> Result<KernelRun<'a>> {
        let output = fresh_folder(results, built, name)?;
        Ok(KernelRun { workspace, klpx, built, output, start: Instant::now() })
    }

    /// Returns the result of one task of a guest.
    pub(crate) fn tried(
        &self,
        name: String,
        title: &str,
        verdict: Option<&TaskVerdict>,
        elapsed: Duration,
    ) -> Tried {
        let verdict = verdict.cloned().unwrap_or_default();
        Tried {
            name,
            title: title.to_owned(),
            kernel: self.built.kernel.name,
            passed: verdict.passed.len(),
            failures: verdict.problems(),
            elapsed,
        }
    }
}

/// Returns a folder below a kernel's results, without the files of an earlier run.
pub(crate) fn fresh_folder(results: &Path, built: &BuiltKernel, name: &str) -> Result<PathBuf> {
    let folder = results.join(built.kernel.name).join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    Ok(folder)
}
