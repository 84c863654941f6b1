//! The kernel to be patched: where its vmlinux, exports and modules lie.

use std::path::{Path, PathBuf};

use klpx_build_driver::{Baseline, Kernel};
use klpx_diagnosis::{Class, Diagnosis, Place, Result};

use crate::args::Build;
use crate::progress::Steps;
use crate::report::Report;

/// The files of the kernel to be patched.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) vmlinux: PathBuf,
    /// Empty until it is known that the baseline's has to serve.
    pub(crate) symvers: PathBuf,
    /// Folders to look for modules in.
    pub(crate) modules: Vec<PathBuf>,
    /// Its release and compiler, as the build tree has them.
    pub(crate) release: String,
    pub(crate) compiler: String,
}

impl Target {
    /// Finds the files; what is not named is looked for in the build tree.
    pub(crate) fn find(args: &Build, kernel: &Kernel) -> Result<Target> {
        let build = args.build_dir.as_deref().unwrap_or(&args.source);
        let vmlinux = args.vmlinux.clone().unwrap_or_else(|| build.join("vmlinux"));
        if !vmlinux.is_file() {
            return Err(Diagnosis::new("klpx::no-vmlinux", Class::Usage, "no vmlinux of the kernel to be patched")
                .place(Place::file(vmlinux.display().to_string(), None))
                .why("names and positions of symbols are taken from the kernel that will run, never from a rebuild of it")
                .remedy("name it with --vmlinux: the build tree's, or the one in the distribution's debug package")
                .into());
        }
        let beside = vmlinux.parent().unwrap_or(Path::new(".")).to_owned();
        let symvers =
            [beside.join("Module.symvers"), build.join("Module.symvers")].into_iter().find(|p| p.is_file());
        let mut modules: Vec<PathBuf> =
            args.modules.iter().cloned().chain([beside, build.to_owned()]).collect();
        modules.dedup();
        Ok(Target {
            vmlinux,
            symvers: symvers.unwrap_or_default(),
            modules,
            release: kernel.release().to_owned(),
            compiler: kernel.toolchain().version_text.clone(),
        })
    }

    /// Takes the baseline's exports where the kernel's own are not there.
    pub(crate) fn or_baseline(mut self, baseline: &Baseline, steps: &Steps, report: &mut Report) -> Target {
        if self.symvers.as_os_str().is_empty() {
            let note = "no Module.symvers beside vmlinux: the exports are the baseline's";
            steps.remark(note);
            report.notes.push(note.to_owned());
            self.symvers.clone_from(&baseline.symvers);
        }
        self
    }
}
