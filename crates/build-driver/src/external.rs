//! The livepatch module itself, as far as kbuild makes it: its glue as an external module, and the last link. Writes
//! only to folders that the caller names, and the workspace.

use std::path::{Path, PathBuf};

use klpx_diagnosis::{Class, Diagnosis, Failure, Result};

use crate::make::{Built, Make};
use crate::process::Call;
use crate::workspace::{Workspace, remove_file};
use crate::{copy, journal};

/// What kbuild made of an external module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalModule {
    /// The finished module.
    pub ko: PathBuf,
    /// The objects that kbuild linked into it, in its order: the module's code first, then modinfo and the like.
    pub objects: Vec<PathBuf>,
    /// The linker's words before `-o` in kbuild's own link: emulation, build-id, the linker script.
    pub link_flags: Vec<String>,
}

impl Workspace {
    /// Builds the external module in `dir` (a folder with a Kbuild file that sets `obj-m := NAME.o`) against the
    /// original kernel, whose exports and checksums `symvers` lists.
    ///
    /// # Errors
    /// `klpx::glue-does-not-build` with the compiler's lines; an interrupt.
    pub fn build_external_module(&self, dir: &Path, name: &str, symvers: &Path) -> Result<ExternalModule> {
        let dir = dir.canonicalize().map_err(|error| Diagnosis::io("open", dir, &error))?;
        self.make_modules(&dir, symvers, |make, built| {
            let what = "the livepatch's glue does not build";
            let remedy = "this is a fault in klpx, please report it with the lines below";
            make.failure(built, "klpx::glue-does-not-build", what, remedy)
        })?;
        let command = dir.join(format!(".{name}.ko.cmd"));
        let text =
            std::fs::read_to_string(&command).map_err(|error| Diagnosis::io("read", &command, &error))?;
        let Some((link_flags, objects)) = parse_link(&text) else {
            let what = "kbuild's record of the module's link can't be understood";
            return Err(Diagnosis::new("klpx::glue-does-not-build", Class::Build, what)
                .detail([text])
                .into());
        };
        // kbuild links in the build tree (older) or in the module's folder; names may be relative to either.
        let resolve = |word: &str| match Path::new(word) {
            path if path.is_absolute() => path.to_owned(),
            path if dir.join(path).exists() => dir.join(path),
            path => self.build_dir().join(path),
        };
        let objects = objects.iter().map(|word| resolve(word)).collect();
        let link_flags = link_flags
            .iter()
            .map(
                |word| {
                    if word.ends_with(".lds") { resolve(word).display().to_string() } else { word.clone() }
                },
            )
            .collect();
        Ok(ExternalModule { ko: dir.join(format!("{name}.ko")), objects, link_flags })
    }

    /// Lets kbuild build the external modules of a folder. `symvers` lists what the kernel exports.
    pub(crate) fn make_modules(
        &self,
        dir: &Path,
        symvers: &Path,
        failure: impl Fn(&Make<'_>, &Built) -> Failure,
    ) -> Result<()> {
        let target = self.build_dir().join("Module.symvers");
        copy::file(symvers, &target, false).map_err(|error| Diagnosis::io("copy", symvers, &error))?;
        let unprepared = journal::unprepared(&self.dir);
        self.with_make(|make| {
            if unprepared.exists() {
                let built = make.run(&["modules_prepare"], &(), None)?;
                if !built.success {
                    let what = "the build tree can't be made ready for modules";
                    return Err(make.failure(&built, "klpx::glue-does-not-build", what, "run klpx again"));
                }
                remove_file(&unprepared)?;
            }
            let built = make.run(&[&format!("M={}", dir.display()), "modules"], &(), None)?;
            if built.success { Ok(()) } else { Err(failure(make, &built)) }
        })
    }

    /// The last link of a module: `objects` in their order with the flags kbuild gives the linker.
    ///
    /// # Errors
    /// `klpx::link-failed` with the linker's lines; an interrupt.
    pub fn link_module(&self, flags: &[String], objects: &[PathBuf], output: &Path) -> Result<()> {
        let ld = &self.kernel.toolchain().ld;
        let call = Call::new(ld).args(flags).arg("-o").arg(output).args(objects);
        let outcome = self.runner.run(&call)?;
        if outcome.success {
            return Ok(());
        }
        Err(Diagnosis::new("klpx::link-failed", Class::Build, "the livepatch module can't be linked")
            .detail(outcome.lines)
            .into())
    }
}

/// The flags and the objects of the link that kbuild recorded in `.NAME.ko.cmd`:
/// `savedcmd_NAME.ko := LD FLAGS -o NAME.ko OBJECTS[; ...]` (scripts/Makefile.modfinal; `cmd_` up to 6.2).
fn parse_link(text: &str) -> Option<(Vec<String>, Vec<String>)> {
    let line = text.lines().find(|line| line.starts_with("savedcmd_") || line.starts_with("cmd_"))?;
    let (_, command) = line.split_once(" := ")?;
    let command = command.split(';').next()?;
    let words: Vec<&str> = command.split_whitespace().collect();
    let output = words.iter().position(|word| *word == "-o")?;
    let flags = words.get(1..output)?.iter().map(|word| (*word).to_owned()).collect();
    let objects: Vec<String> = words.get(output + 2..)?.iter().map(|word| (*word).to_owned()).collect();
    (!objects.is_empty() && objects.iter().all(|word| word.ends_with(".o"))).then_some((flags, objects))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kbuilds_link_is_read_from_its_record() {
        let new = "savedcmd_lp.ko := /ws/bin/ld.lld -r -m elf_x86_64 --build-id=sha1  -T /b/scripts/module.lds -o lp.ko lp.o lp.mod.o .module-common.o\n";
        let (flags, objects) = parse_link(new).expect("read");
        assert_eq!(flags, ["-r", "-m", "elf_x86_64", "--build-id=sha1", "-T", "/b/scripts/module.lds"]);
        assert_eq!(objects, ["lp.o", "lp.mod.o", ".module-common.o"]);
        let old = "cmd_/d/lp.ko := ld -r -m elf_x86_64 -T scripts/module.lds -o /d/lp.ko /d/lp.o /d/lp.mod.o;  true\n";
        assert_eq!(parse_link(old).expect("read").1, ["/d/lp.o", "/d/lp.mod.o"]);
        assert_eq!(parse_link("nothing"), None);
    }
}
