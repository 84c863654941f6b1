//! The kernel to be patched: where its vmlinux, exports and modules lie.

use std::path::PathBuf;

use klpx_build_driver::PatchableKernel;
use klpx_build_driver::packages::KernelFiles;
use klpx_diagnosis::Result;
use klpx_klp_emit::{banner, image};

use crate::results::TargetFiles;

/// The files of the kernel to be patched.
#[derive(Clone, Debug)]
pub(crate) struct TargetKernelFiles {
    pub(crate) vmlinux: PathBuf,
    pub(crate) symvers: PathBuf,
    /// Folders in which to look for modules, the shipped ones first.
    pub(crate) modules: Vec<PathBuf>,
    /// Folders with the debug package's copies of modules.
    pub(crate) debug_modules: Vec<PathBuf>,
    /// The external module to be patched.
    pub(crate) external: Option<TargetModule>,
    /// The kernel's release and compiler, according to the configuration.
    pub(crate) release: String,
    pub(crate) compiler: String,
    /// The kernel's machine, as in an ELF header.
    pub(crate) machine: u16,
}

/// An external module of the kernel to be patched.
#[derive(Clone, Debug)]
pub(crate) struct TargetModule {
    pub(crate) file: PathBuf,
    /// The text of the Module.symvers with the module's exports.
    pub(crate) symvers: String,
}

impl TargetKernelFiles {
    pub(crate) fn new(files: &KernelFiles, kernel: &PatchableKernel) -> TargetKernelFiles {
        let modules = [&files.modules, &files.headers].into_iter().flatten();
        TargetKernelFiles {
            vmlinux: files.vmlinux.path.clone(),
            symvers: files.symvers.path.clone(),
            modules: modules.map(|folder| folder.path.clone()).collect(),
            debug_modules: files.debug_modules.iter().map(|folder| folder.path.clone()).collect(),
            external: None,
            release: kernel.release().to_owned(),
            compiler: kernel.toolchain().version_text.clone(),
            machine: kernel.arch().machine(),
        }
    }

    /// The kernel's files, as a report lists them.
    pub(crate) fn files(&self) -> TargetFiles {
        TargetFiles {
            vmlinux: self.vmlinux.clone(),
            symvers: self.symvers.clone(),
            modules: self.modules.clone(),
            debug_modules: self.debug_modules.clone(),
        }
    }

    /// Opens the kernel's image and its list of exports, and runs all checks that take no time.
    pub(crate) fn check(&self) -> Result<()> {
        let kernel = image::TargetKernel::open(&self.vmlinux, &self.symvers, &self.modules)?;
        banner::check(&kernel, self.machine, &self.release, &self.compiler)
    }
}
