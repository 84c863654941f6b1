//! The private workspace of one kernel in the cache directory: its layout, its lock, its baseline. Never writes outside
//! the cache directory.
//!
//! ```text
//! <cache>/kernels/<key>.lock     held while a klpx (or a compiler it started) works in the workspace
//! <cache>/kernels/<key>/
//!     klpx.json       the description of the workspace, and the time of its last use
//!     given/          files that make variables of the kernel name, such as profiles
//!     src/            private copy of the source; original at rest
//!     build/          the O= tree of both builds; no object of a patched source at rest
//!     group           the process group of the last child
//!     building        exists during the original build, when files in build/ may be half-written
//!     baseline/       the results of the original build; complete or missing
//!     patch.journal   exists while src/ is patched (journal.rs)
//!     saved/          originals of the touched files while src/ is patched
//!     links/          how kbuild would link vmlinux.o and modules' objects (ThinLTO; links.rs)
//!     thinlto/        facts about these links and their units
//!     lists/          inlining lists, if the kernel was built with lists (compiler.rs)
//!     bin/            the wrappers of the linker and the compiler
//!     template/       a module that kbuild made, with the commands for it (template.rs)
//!     work/           results of patched builds
//! ```

mod ahead;
pub(crate) mod baseline;
pub mod cache;
mod compilation;
mod compiler;
mod external;
pub(crate) mod external_source;
mod journal;
mod linker;
pub(crate) mod links;
mod lock;
pub(crate) mod patched;
pub(crate) mod prepare;
mod preprocessed;
pub(crate) mod remade;
mod rust;
mod source;
pub(crate) mod template;
pub(crate) mod touched;
pub(crate) mod units;
pub(crate) mod work_dir;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use klpx_diagnosis::Result;

use crate::files::{remove_dir, remove_file};
use crate::kbuild::make::MakeSettings;
use crate::kernel::PatchableKernel;
use crate::language::MakeWord;
use crate::own;
use crate::patch::AppliedPatch;
use crate::process::Runner;
use crate::progress::Progress;
use cache::WorkspaceInfo;
use work_dir::{WorkDir, sweep_work};

/// A locked workspace. Dropping it releases the lock.
#[derive(Debug)]
pub struct Workspace {
    pub(crate) dir: PathBuf,
    pub(crate) kernel: PatchableKernel,
    pub(crate) runner: Runner,
}

impl Workspace {
    /// Takes the workspace of a kernel. If another klpx holds it, reports this and waits. Repairs what a killed klpx
    /// left behind.
    ///
    /// # Errors
    /// If the cache directory can't be written, others can write to it, or klpx is interrupted while it waits.
    pub fn open(kernel: &PatchableKernel, progress: &dyn Progress) -> Result<Workspace> {
        let kernels = kernel.cache_dir().join("kernels");
        let dir = own::folder(&kernels)?.join(kernel.key());
        // The workspace's paths become words for make and its shell.
        MakeWord::path(&dir)?;
        let lock = lock::take(&dir, kernel.runner(), progress)?;
        own::folder(&dir)?;
        let runner = kernel.runner().holding(Arc::new(lock), dir.join("group"));
        let workspace = Workspace { dir, kernel: kernel.clone(), runner };
        workspace.recover(progress)?;
        kernel.given().place(&workspace.dir)?;
        WorkspaceInfo::new(kernel).save(&workspace.dir)?;
        Ok(workspace)
    }

    /// The folder of the workspace.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The private source copy. Paths in debug information begin with this path.
    pub fn source_dir(&self) -> PathBuf {
        self.dir.join("src")
    }

    /// The private `O=` tree.
    pub fn build_dir(&self) -> PathBuf {
        self.dir.join("build")
    }

    /// Makes a new folder for the results of a patch.
    ///
    /// # Errors
    /// If the folder can't be made.
    pub fn work_dir(&self) -> Result<WorkDir> {
        WorkDir::create(&self.dir)
    }

    /// The runner of processes that hold the workspace's lock.
    pub fn runner(&self) -> &Runner {
        &self.runner
    }

    /// The kernel of the workspace.
    pub fn kernel(&self) -> &PatchableKernel {
        &self.kernel
    }

    /// Calls `work` with a make for this workspace.
    pub(crate) fn with_make<T>(&self, work: impl FnOnce(&MakeSettings<'_>) -> Result<T>) -> Result<T> {
        let (src, build) = (self.source_dir(), self.build_dir());
        let ld = match self.kernel.is_thin() {
            true => Some(linker::write_wrapper(&self.dir, &self.kernel.toolchain().ld)?),
            false => None,
        };
        let cc = compiler::write_wrapper(&self.dir, &self.kernel)?;
        work(&MakeSettings {
            kernel: &self.kernel,
            runner: &self.runner,
            workspace: &self.dir,
            src: &src,
            build: &build,
            ld: ld.as_deref(),
            cc: cc.as_deref(),
            record: None,
        })
    }

    /// Calls `work` while the workspace's source is patched.
    pub(crate) fn while_patched<T>(
        &self,
        prepared: &AppliedPatch,
        work: impl FnOnce(&journal::Patching<'_>) -> Result<T>,
    ) -> Result<T> {
        let patching = match journal::begin(&self.dir, &prepared.changes) {
            Ok(patching) => patching,
            Err(failure) => {
                journal::recover(&self.dir)?;
                return Err(failure);
            }
        };
        let result = work(&patching);
        patching.end()?;
        result
    }

    /// Repairs what a killed klpx left here.
    fn recover(&self, progress: &dyn Progress) -> Result<()> {
        for name in ["src.tmp", "baseline.tmp"] {
            remove_dir(&self.dir.join(name))?;
        }
        sweep_work(&self.dir)?;
        if journal::recover(&self.dir)? {
            progress.note("a run that was killed had left the workspace patched; it is restored");
        }
        if self.dir.join("building").exists() {
            progress.note("an original build that was killed is started anew");
            remove_file(&self.dir.join("prepared.json"))?;
            remove_dir(&self.dir.join("links"))?;
            remove_dir(&self.build_dir())?;
            remove_file(&self.dir.join("building"))?;
        }
        Ok(())
    }
}
