//! The links with which ThinLTO makes `vmlinux.o` and modules' objects. kbuild makes all inputs of a link and gives its
//! command. klpx does not perform the link, which would compile the whole kernel to machine code.
//!
//! ```text
//! <workspace>/bin/ld.lld         the linker wrapper: records such a link, performs every other link
//! <workspace>/links/<object>     the arguments of the link, one on each line
//! ```

use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, Result, codes};

use crate::files;
use crate::files::{create_parent, remove_file};
use crate::kbuild::UnitList;
use crate::kbuild::environment::Environment;
use crate::kbuild::make::{self, MakeSettings, original_does_not_build};
use crate::kbuild::recorded::RecordedCommands;
use crate::progress::{ObjectCounter, Progress};
use crate::space;
use crate::toolchain::host;
use crate::workspace::Workspace;

/// The relocatable object of vmlinux.
pub const VMLINUX: &str = "vmlinux.o";

/// Files of keys and of hashes that are part of vmlinux and may be missing on this machine. Their contents are
/// assembled, so they do not affect LLVM's decisions.
const KEYS: [&str; 4] = [
    "CONFIG_MODULE_SIG_KEY=",
    "CONFIG_SYSTEM_TRUSTED_KEYS=",
    "CONFIG_SYSTEM_REVOCATION_KEYS=",
    "CONFIG_SYSTEM_BLACKLIST_HASH_LIST=",
];

impl Workspace {
    /// The command with which kbuild links `vmlinux.o` or a module's object. Afterwards all inputs of the link are in
    /// the build tree, made from the original source. The first call for vmlinux takes minutes.
    ///
    /// # Errors
    /// If the source does not build, klpx does not find the link, or klpx is interrupted.
    pub fn link(&self, object: &str, list: &UnitList, progress: &dyn Progress) -> Result<RecordedCommands> {
        let path = self.dir.join("links").join(object);
        if !path.is_file() {
            match object {
                VMLINUX => self.record_vmlinux(&path, progress)?,
                _ => self.record_module(object, list, &path, progress)?,
            }
        }
        let text = std::fs::read_to_string(&path).map_err(|error| Diagnosis::io("read", &path, &error))?;
        Ok(RecordedCommands { commands: vec![text.lines().map(str::to_owned).collect()] })
    }

    fn record_vmlinux(&self, path: &Path, progress: &dyn Progress) -> Result<()> {
        let (config, toolchain) = (self.kernel.config(), self.kernel.toolchain());
        host::check(host::BuildKind::Kernel, config, toolchain, &self.runner)?;
        space::check(&self.dir, space::estimate(config) / 2)?;
        progress.step("compiling the units of vmlinux to bitcode");
        // The marker tells the next run if this run is killed while objects are half-written.
        let marker = self.dir.join("building");
        files::write_durably(&marker, b"")?;
        let words: Vec<&str> = std::iter::once("vmlinux_o").chain(KEYS).collect();
        let recorded = self.recording(VMLINUX, path, |make| {
            let built = make.run(&words, progress, None)?;
            Ok((!built.success).then(|| original_does_not_build(make, &built)))
        });
        if !self.runner.killed() {
            remove_file(&marker)?;
        }
        recorded
    }

    /// Records a module's link. A module of one unit is linked when its unit is compiled, and stopping make before this
    /// link is not worthwhile.
    fn record_module(
        &self,
        object: &str,
        list: &UnitList,
        path: &Path,
        progress: &dyn Progress,
    ) -> Result<()> {
        let module = list.module_by_object(object).map(|id| list.module(id));
        let Some((module, first)) = module.and_then(|module| Some((module, *module.units.first()?))) else {
            return Err(Diagnosis::internal(&format!("kbuild's list has no module {object}")).into());
        };
        progress.step(&format!("compiling the units of {} to bitcode", module.name()));
        let (environment, folder) = (Environment::read(&self.dir)?, &list.unit(first).folder);
        let expected = module.units.len();
        let make_it = |make: &MakeSettings<'_>| {
            let made = ObjectCounter::new(Some(expected));
            let built = environment.make(make, folder, &[PathBuf::from(object)], &mut |line| {
                if make::is_compiled_unit(line) {
                    made.add(1, progress);
                }
            })?;
            Ok((!built.success).then(|| original_does_not_build(make, &built)))
        };
        if !module.is_its_unit {
            return self.recording(object, path, make_it);
        }
        if let Some(failure) = self.with_make(make_it)? {
            return Err(failure);
        }
        let recorded = RecordedCommands::read(&self.build_dir(), Path::new(object));
        let words = recorded.as_ref().and_then(RecordedCommands::link).map(|(_, words)| words.join("\n"));
        keep(path, words.ok_or_else(|| not_found(object))?.as_bytes())
    }

    /// Calls make with a linker that records the link of an object and then fails. `make_it` returns make's failure.
    fn recording(
        &self,
        object: &str,
        path: &Path,
        make_it: impl FnOnce(&MakeSettings<'_>) -> Result<Option<klpx_diagnosis::Failure>>,
    ) -> Result<()> {
        let record = self.dir.join("links").join("unfinished");
        create_parent(&record)?;
        remove_file(&record)?;
        let failure =
            self.with_make(|make| make_it(&MakeSettings { record: Some((object, &record)), ..*make }))?;
        if !record.is_file() {
            return Err(failure.unwrap_or_else(|| not_found(object).into()));
        }
        create_parent(path)?;
        std::fs::rename(&record, path).map_err(|error| Diagnosis::io("write", path, &error).into())
    }
}

fn not_found(object: &str) -> Diagnosis {
    Diagnosis::new(
        &codes::NO_COMMAND,
        "kbuild does not link an object as klpx expects it to",
        "klpx repeats kbuild's link with the command that kbuild recorded",
        "report this object and the kernel's version",
    )
    .place(klpx_diagnosis::DiagnosisPlace::file(object, None))
}

fn keep(path: &Path, text: &[u8]) -> Result<()> {
    create_parent(path)?;
    files::write_durably(path, text)
}
