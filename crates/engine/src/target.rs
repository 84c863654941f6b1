//! The kernel to be patched: where its vmlinux, exports and modules lie.

use std::path::{Path, PathBuf};

use klpx_build_driver::Kernel;
use klpx_diagnosis::{Class, Diagnosis, Place, Result};

use crate::build::Build;
use crate::request::Request;

/// The files of the kernel to be patched.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) vmlinux: PathBuf,
    /// Empty until it is known that those of klpx's own build have to serve.
    pub(crate) symvers: PathBuf,
    /// Folders to look for modules in.
    pub(crate) modules: Vec<PathBuf>,
    /// Its release and compiler, as the build tree has them.
    pub(crate) release: String,
    pub(crate) compiler: String,
}

impl Target {
    /// Finds the files; what is not named is looked for in the build tree.
    pub(crate) fn find(request: &Request, kernel: &Kernel) -> Result<Target> {
        let build = request.options.build_dir.as_deref().unwrap_or(&request.options.source);
        let vmlinux = request.vmlinux.clone().unwrap_or_else(|| build.join("vmlinux"));
        if !vmlinux.is_file() {
            return Err(Diagnosis::new("klpx::no-vmlinux", Class::Usage, "no vmlinux of the kernel to be patched")
                .place(Place::file(vmlinux.display().to_string(), None))
                .why("names and positions of symbols are taken from the kernel that will run, never from a rebuild of it")
                .remedy("name it with --vmlinux: the build tree's, or the one in the distribution's debug package")
                .into());
        }
        let beside = vmlinux.parent().unwrap_or(Path::new(".")).to_owned();
        let own = [beside.join("Module.symvers"), build.join("Module.symvers")];
        let symvers = request.symvers.clone().into_iter().chain(own).find(|path| path.is_file());
        let mut modules: Vec<PathBuf> =
            request.modules.iter().cloned().chain([beside, build.to_owned()]).collect();
        modules.dedup();
        Ok(Target {
            vmlinux,
            symvers: symvers.unwrap_or_default(),
            modules,
            release: kernel.release().to_owned(),
            compiler: kernel.toolchain().version_text.clone(),
        })
    }

    /// Takes the exports of klpx's own build where the kernel's are not there.
    ///
    /// # Errors
    /// `klpx::no-symvers` when there are none either.
    pub(crate) fn with_exports(mut self, own: Option<&Path>, build: &mut Build<'_>) -> Result<Target> {
        if self.symvers.as_os_str().is_empty() {
            let Some(own) = own else {
                return Err(Diagnosis::new(
                    "klpx::no-symvers",
                    Class::Usage,
                    "no Module.symvers of the kernel to be patched",
                )
                .place(Place::file(self.vmlinux.display().to_string(), None))
                .why("a module's imports carry the checksums of the kernel's exports")
                .remedy("name the build tree or the headers package that has it with --build-dir")
                .into());
            };
            build.note(&["no Module.symvers beside vmlinux: the exports are the baseline's".to_owned()]);
            self.symvers = own.to_owned();
        }
        Ok(self)
    }
}
