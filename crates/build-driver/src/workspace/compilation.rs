//! The compilation of one unit outside kbuild: the command of kbuild's record, redirected to another place, and the
//! commands that follow the compilation.

use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Failure, Result, codes};

use crate::files::create_parent;
use crate::kbuild::make::{MakeResult, MakeSettings};
use crate::kbuild::recorded::RecordedCommands;
use crate::kbuild::{ObjtoolRule, objtool};
use crate::kernel::{SECTION_FLAGS, SectionOrigin};
use crate::process::{Call, CallOutcome};
use crate::workspace::Workspace;
use crate::workspace::touched::TouchedUnit;

/// A unit and kbuild's record of the unit.
pub(super) struct UnitCompilation<'a> {
    workspace: &'a Workspace,
    unit: &'a TouchedUnit,
    record: &'a RecordedCommands,
}

impl UnitCompilation<'_> {
    /// Compiles the unit from the current source to another place, by kbuild's record. `source` may name another source
    /// instead.
    pub(super) fn compile(
        &self,
        to: &Path,
        source: Option<&Path>,
        failure: fn(&MakeSettings<'_>, &MakeResult) -> Failure,
    ) -> Result<()> {
        let mut words = self.words(to)?;
        if let (Some(source), Some(last)) = (source, words.last_mut()) {
            *last = source.display().to_string();
        }
        let outcome = self.workspace.run_in_build(&words)?;
        if !outcome.success {
            return self.workspace.with_make(|make| {
                Err(failure(make, &MakeResult { success: false, units: 0, lines: outcome.lines }))
            });
        }
        self.finish(to)
    }

    /// The command that compiles the unit to another place. The source is the last word.
    fn words(&self, to: &Path) -> Result<Vec<String>> {
        create_parent(to)?;
        let words = self.record.compilation().unwrap_or_default();
        let mut words = redirected(words, self.unit.unit.target(), to);
        if self.workspace.kernel.sections() == SectionOrigin::WhereCompared {
            let source = words.len().saturating_sub(1);
            words.splice(source..source, SECTION_FLAGS.split(' ').map(str::to_owned));
        }
        Ok(words)
    }

    /// Runs the commands that follow a compilation: the rest of the record, and objtool as in the kernel's final link.
    pub(super) fn finish(&self, object: &Path) -> Result<()> {
        for words in &self.record.commands[1..] {
            self.run(&redirected(words, self.unit.unit.target(), object))?;
        }
        self.run_objtool(object)
    }

    /// Runs objtool as in the kernel's final link, for an object that kbuild made.
    pub(super) fn run_objtool(&self, object: &Path) -> Result<()> {
        let ObjtoolRule::Run(options) = &self.unit.objtool else { return Ok(()) };
        let mut words = vec![self.workspace.build_dir().join("tools/objtool/objtool").display().to_string()];
        words.extend(options.iter().cloned());
        words.push(object.display().to_string());
        self.run(&words)
    }

    /// Runs a command that changes the unit's object.
    fn run(&self, words: &[String]) -> Result<()> {
        let outcome = self.workspace.run_in_build(words)?;
        if outcome.success {
            return Ok(());
        }
        let program = words.first().map_or("a command", String::as_str);
        Err(objtool::failure(program, self.unit.object(), outcome.lines).into())
    }
}

impl Workspace {
    /// The compilation of a unit by kbuild's record.
    pub(super) fn compilation<'a>(
        &'a self,
        unit: &'a TouchedUnit,
        record: &'a RecordedCommands,
    ) -> UnitCompilation<'a> {
        UnitCompilation { workspace: self, unit, record }
    }

    /// The lines of kbuild's record with genksyms' checksums for the exports of a unit.
    ///
    /// # Errors
    /// If kbuild's record can't be read.
    pub fn exports(&self, unit: &TouchedUnit) -> Result<String> {
        let command = command_file(&self.build_dir().join(unit.object()));
        let text =
            std::fs::read_to_string(&command).map_err(|error| Diagnosis::io("read", &command, &error))?;
        Ok(exports(&text))
    }

    /// kbuild's record of a unit's compilation.
    ///
    /// # Errors
    /// If there is no record, or it has no compilation.
    pub fn record(&self, unit: &TouchedUnit) -> Result<RecordedCommands> {
        let found = RecordedCommands::read(&self.build_dir(), Path::new(unit.object()));
        let found = found.filter(|record| record.compilation().is_some());
        found.ok_or_else(|| {
            Diagnosis::new(
                &codes::NO_COMMAND,
                "kbuild's record of a compilation can't be understood",
                "klpx compiles the patched unit with the command of the original one",
                "report this file and the kernel's version",
            )
            .place(DiagnosisPlace::file(unit.object(), None))
            .into()
        })
    }

    /// Compiles a unit again from the current source, to another place, by kbuild's record with further compiler
    /// arguments. As for the comparison, the object has sections, and objtool has run. Returns the lines of the
    /// compiler's output, or `None` if the compilation fails.
    ///
    /// # Errors
    /// If there is no record, objtool fails, or klpx is interrupted.
    pub fn compile_again(
        &self,
        unit: &TouchedUnit,
        to: &Path,
        more: &[String],
    ) -> Result<Option<Vec<String>>> {
        let record = self.record(unit)?;
        let compilation = self.compilation(unit, &record);
        let mut words = compilation.words(to)?;
        words.extend(more.iter().cloned());
        let outcome = self.run_in_build(&words)?;
        if !outcome.success {
            return Ok(None);
        }
        compilation.finish(to)?;
        Ok(Some(outcome.lines))
    }

    fn run_in_build(&self, words: &[String]) -> Result<CallOutcome> {
        self.run_in(&self.build_dir(), words)
    }

    /// Runs one of kbuild's commands as kbuild runs it in a folder.
    pub(crate) fn run_in(&self, dir: &Path, words: &[String]) -> Result<CallOutcome> {
        let (program, rest) =
            words.split_first().map_or(("false", words), |(first, rest)| (first.as_str(), rest));
        // kbuild names the tree's own programs by relative paths. A bare name is looked up in PATH.
        let program = if program.contains('/') { dir.join(program) } else { program.into() };
        self.runner.run(&Call::new(program).args(rest).dir(dir))
    }
}

/// The command that makes or changes `target`, redirected to another place. Leaves out the dependency file that
/// compilers write.
pub(crate) fn redirected(words: &[String], target: &str, to: &Path) -> Vec<String> {
    let to = to.display().to_string();
    let is_dependencies = |word: &String| word.starts_with("-Wp,-MMD,") || word.starts_with("-Wp,-MD,");
    let place = |word: &String| if word == target { to.clone() } else { word.clone() };
    words.iter().filter(|word| !is_dependencies(word)).map(place).collect()
}

/// The lines `#SYMVER NAME CHECKSUM` in the record of a unit with exports (scripts/Makefile.build,
/// cmd_gen_symversions_c).
pub(crate) fn exports(record: &str) -> String {
    record.lines().filter(|line| line.starts_with("#SYMVER ")).map(|line| format!("{line}\n")).collect()
}

fn command_file(object: &Path) -> PathBuf {
    let name = object.file_name().unwrap_or_default().to_string_lossy();
    object.with_file_name(format!(".{name}.cmd"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_led_to_another_place() {
        let words = ["gcc", "-Wp,-MMD,fs/.a.o.d", "-DX=fs/a.o", "-c", "-o", "fs/a.o", "/ws/src/fs/a.c"];
        let words: Vec<String> = words.map(str::to_owned).into();
        let wanted = ["gcc", "-DX=fs/a.o", "-c", "-o", "/w/a.o", "/ws/src/fs/a.c"];
        assert_eq!(redirected(&words, "fs/a.o", Path::new("/w/a.o")), wanted);
    }

    #[test]
    fn checksums_of_exports_stand_in_the_record() {
        let text = "savedcmd_fs/a.o := gcc\n\n#SYMVER putname 0x95cb3de8\nother\n";
        assert_eq!(exports(text), "#SYMVER putname 0x95cb3de8\n");
    }
}
