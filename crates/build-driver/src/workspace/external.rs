//! Out-of-tree modules, as far as kbuild and the linker make them. Writes only to folders that the caller names, and to
//! the workspace.

use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, Failure, Result, codes};

use crate::files;
use crate::files::remove_file;
use crate::kbuild::make::{MakeResult, MakeSettings};
use crate::process::Call;
use crate::workspace::{Workspace, journal};

impl Workspace {
    /// Prepares the build tree for out-of-tree modules. `symvers` lists the kernel's exports.
    pub(crate) fn prepare_modules(&self, symvers: &Path) -> Result<()> {
        let target = self.build_dir().join("Module.symvers");
        files::copy(symvers, &target, false).map_err(|error| Diagnosis::io("copy", symvers, &error))?;
        let unprepared = journal::unprepared(&self.dir);
        if !unprepared.exists() {
            return Ok(());
        }
        self.with_make(|make| {
            let built = make.run(&["modules_prepare"], &(), None)?;
            if !built.success {
                let what = "the build tree can't be made ready for modules";
                return Err(make.failure(&built, &codes::GLUE_DOES_NOT_BUILD, what, "run klpx again"));
            }
            remove_file(&unprepared)
        })
    }

    /// Builds the modules of a folder with kbuild, in a prepared build tree.
    pub(crate) fn make_modules(
        &self,
        dir: &Path,
        failure: impl Fn(&MakeSettings<'_>, &MakeResult) -> Failure,
    ) -> Result<()> {
        self.with_make(|make| {
            let built = make.run(&[&format!("M={}", dir.display()), "modules"], &(), None)?;
            if built.success { Ok(()) } else { Err(failure(make, &built)) }
        })
    }

    /// The final link of a module: `objects` in order, with kbuild's flags for the linker.
    ///
    /// # Errors
    /// `klpx::link-failed` with the linker's lines, or an interrupt.
    pub fn link_module(&self, flags: &[String], objects: &[PathBuf], output: &Path) -> Result<()> {
        let ld = &self.kernel.toolchain().ld;
        let call = Call::new(ld).args(flags).arg("-o").arg(output).args(objects);
        let outcome = self.runner.run(&call)?;
        if outcome.success {
            return Ok(());
        }
        Err(Diagnosis::new(
            &codes::LINK_FAILED,
            "the livepatch module can't be linked",
            "the linker refuses the objects of the module",
            "check that the linker is the kernel's and that the disk has room; if both are \
             right, report this",
        )
        .detail(outcome.lines)
        .into())
    }
}
