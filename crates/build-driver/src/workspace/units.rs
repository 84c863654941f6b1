//! Translation units before any link. Touched units are compiled from the original and from the patched source, at the
//! same paths, with a section for each function and datum, and with objtool's changes as in the kernel's final link.
//! Decides nothing about changes.
//!
//! ```text
//! <workspace>/units/<object>            the original unit, compared and bound to the kernel
//! <workspace>/units/<object>.witness    the same unit with the kernel's own flags, if section flags change the code
//! <workspace>/work/<run>/patched/<object>   the patched unit
//! <workspace>/work/<run>/empty/<object>     stands for the original of a unit that the patch adds
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Failure, Result, codes};

use crate::files;
use crate::files::create_parent;
use crate::kbuild::environment::Environment;
use crate::kbuild::make::{MakeResult, MakeSettings, original_does_not_build, patched_fails};
use crate::kbuild::recorded::RecordedCommands;
use crate::kbuild::{ObjtoolRule, objtool};
use crate::kernel::{SECTION_FLAGS, SectionOrigin};
use crate::parallel::each;
use crate::patch::AppliedPatch;
use crate::process::{Call, CallOutcome};
use crate::progress::{ObjectCounter, Progress};
use crate::workspace::Workspace;
use crate::workspace::ahead::Ahead;
use crate::workspace::touched::{TouchedUnit, TouchedUnits};
use crate::workspace::work_dir::WorkDir;

/// One touched unit, before and after the patch.
#[derive(Clone, Debug)]
pub struct UnitPair {
    /// The unit.
    pub unit: TouchedUnit,
    /// The original unit, compiled with the kernel's own flags, if this object differs from `original`.
    pub witness: Option<PathBuf>,
    /// The original unit for the comparison. For a unit that the patch adds, the object of an empty file.
    pub original: PathBuf,
    /// The patched unit.
    pub patched: PathBuf,
    /// The lines of kbuild's record with genksyms' checksums for the exports of the original unit.
    pub exports: String,
    /// True if the patch adds the unit.
    pub is_new: bool,
}

/// The pairs of a patch. Patched units lie in a folder that is removed when this value is dropped, unless it is kept.
#[derive(Debug)]
pub struct UnitPairs {
    /// Every touched unit, sorted by object path.
    pub pairs: Vec<UnitPair>,
    work: WorkDir,
}

impl UnitPairs {
    /// Makes the set from pairs and the folder of the patched units.
    pub fn new(mut pairs: Vec<UnitPair>, work: WorkDir) -> UnitPairs {
        pairs.sort_by(|a, b| a.unit.object().cmp(b.unit.object()));
        UnitPairs { pairs, work }
    }

    /// The folder of the patched units, for further files that are made from them.
    pub fn work_dir(&self) -> &Path {
        &self.work.path
    }

    /// Keeps the folder when this value is dropped and when the workspace is used again. Returns its path.
    pub fn keep(&mut self) -> &Path {
        self.work.keep = true;
        &self.work.path
    }
}

/// The original units, in the order of the touched units.
#[derive(Debug)]
pub struct OriginalUnits(Vec<OriginalUnit>);

/// An original unit in the workspace.
#[derive(Debug)]
struct OriginalUnit {
    object: PathBuf,
    witness: Option<PathBuf>,
    record: RecordedCommands,
    exports: String,
    /// The patched unit, if it was compiled at the same time.
    ahead: Option<Ahead>,
}

impl Workspace {
    /// Compiles the touched units from the patched source, into `work`. The source is original again when this returns,
    /// even after a failure.
    ///
    /// # Errors
    /// `klpx::patched-source-does-not-compile` with the compiler's lines, a full disk, an interrupt.
    pub fn pairs(
        &self,
        prepared: &AppliedPatch,
        touched: &TouchedUnits,
        originals: OriginalUnits,
        work: WorkDir,
        progress: &dyn Progress,
    ) -> Result<UnitPairs> {
        progress.step("compiling the patched units");
        let from_source = originals.0.iter().any(|original| original.ahead.is_none());
        let compile = || {
            let pairs = self.patched_units(&touched.units, originals.0, &work.path, progress)?;
            let added = self.added_units(&touched.added, &work.path)?;
            Ok(pairs.into_iter().chain(added).collect::<Vec<_>>())
        };
        let pairs = match from_source || !touched.added.is_empty() {
            true => self.while_patched(prepared, |_| compile())?,
            false => compile()?,
        };
        Ok(UnitPairs::new(pairs, work))
    }

    /// The original units: existing ones, or new ones made by kbuild. Patched units may be compiled at the same time,
    /// into `work`.
    ///
    /// # Errors
    /// `klpx::original-source-does-not-build` with the compiler's lines, a full disk, an interrupt.
    pub fn originals(
        &self,
        prepared: &AppliedPatch,
        touched: &TouchedUnits,
        work: &WorkDir,
        progress: &dyn Progress,
    ) -> Result<OriginalUnits> {
        let units = &touched.units;
        let missing: Vec<&TouchedUnit> =
            units.iter().filter(|unit| !self.original_path(unit).is_file()).collect();
        let mut ahead = BTreeMap::new();
        if !missing.is_empty() {
            progress.step("compiling the original units");
            let texts = self.texts_ahead(prepared, &missing, &work.path)?;
            let compiled = std::thread::scope(|scope| {
                let texts: Vec<_> = texts
                    .iter()
                    .map(|text| scope.spawn(|| text.as_ref().map(|text| self.compile_ahead(text))))
                    .collect();
                self.make_originals(&missing, progress)?;
                let done = texts.into_iter().map(|thread| thread.join().unwrap_or_default());
                done.map(|compiled| compiled.transpose().map(Option::flatten)).collect::<Result<Vec<_>>>()
            })?;
            ahead.extend(missing.iter().map(|unit| unit.object()).zip(compiled));
        }
        units
            .iter()
            .map(|unit| self.original(unit, ahead.remove(unit.object()).flatten()))
            .collect::<Result<_>>()
            .map(OriginalUnits)
    }

    /// Pairs for units that the patch does not touch. In each, the patched unit is the original unit.
    ///
    /// # Errors
    /// As [`Workspace::originals`].
    pub fn untouched_pairs(&self, units: &[TouchedUnit], progress: &dyn Progress) -> Result<Vec<UnitPair>> {
        let missing: Vec<&TouchedUnit> =
            units.iter().filter(|unit| !self.original_path(unit).is_file()).collect();
        if !missing.is_empty() {
            progress.step("compiling units with callers");
            self.make_originals(&missing, progress)?;
        }
        let pair = |unit: &TouchedUnit| {
            let original = self.original(unit, None)?;
            Ok(UnitPair {
                unit: unit.clone(),
                witness: original.witness,
                patched: original.object.clone(),
                original: original.object,
                exports: original.exports,
                is_new: false,
            })
        };
        units.iter().map(pair).collect()
    }

    fn make_originals(&self, units: &[&TouchedUnit], progress: &dyn Progress) -> Result<()> {
        self.make_units(units, progress, original_does_not_build)?;
        let finished = each(self.kernel.jobs(), units.len(), |at| self.keep_original(units[at]));
        finished.into_iter().collect()
    }

    /// Makes units in the build tree with kbuild, from the current source.
    pub(crate) fn make_units(
        &self,
        units: &[&TouchedUnit],
        progress: &dyn Progress,
        failure: impl Fn(&MakeSettings<'_>, &MakeResult) -> Failure,
    ) -> Result<()> {
        let mut folders: BTreeMap<&str, Vec<PathBuf>> = BTreeMap::new();
        for unit in units {
            folders.entry(&unit.unit.folder).or_default().push(unit.unit.target().into());
        }
        let environment = Environment::read(&self.dir)?;
        let made = ObjectCounter::of(Some(units.len()));
        self.with_make(|make| {
            for (folder, targets) in &folders {
                let built = environment.make(make, folder, targets, &mut |line| {
                    if crate::kbuild::make::is_compiled_unit(line) {
                        made.add(1, progress);
                    }
                })?;
                if !built.success {
                    return Err(failure(make, &built));
                }
            }
            Ok(())
        })
    }

    fn original_path(&self, unit: &TouchedUnit) -> PathBuf {
        self.dir.join("units").join(unit.object())
    }

    fn witness_path(&self, unit: &TouchedUnit) -> PathBuf {
        with_ending(&self.original_path(unit), ".witness")
    }

    /// Keeps kbuild's object of an original unit for the comparison with the patched unit.
    fn keep_original(&self, unit: &TouchedUnit) -> Result<()> {
        let (made, kept) = (self.build_dir().join(unit.object()), self.original_path(unit));
        let record = self.record(unit)?;
        create_parent(&kept)?;
        let unfinished = with_ending(&kept, ".new");
        if self.kernel.sections() == SectionOrigin::WhereCompared {
            let witness = self.witness_path(unit);
            copy_object(&made, &witness)?;
            self.finish(unit, &record, &witness, true)?;
            self.compile(unit, &record, &unfinished, &[], original_fails)?;
        } else {
            copy_object(&made, &unfinished)?;
            self.finish(unit, &record, &unfinished, true)?;
        }
        std::fs::rename(&unfinished, &kept).map_err(|error| Diagnosis::io("write", &kept, &error).into())
    }

    fn original(&self, unit: &TouchedUnit, ahead: Option<Ahead>) -> Result<OriginalUnit> {
        let (witness, record) = (self.witness_path(unit), self.record(unit)?);
        Ok(OriginalUnit {
            object: self.original_path(unit),
            witness: witness.is_file().then_some(witness),
            ahead: ahead.filter(|ahead| ahead.is_by(&record)),
            record,
            exports: self.exports(unit)?,
        })
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

    fn patched_units(
        &self,
        units: &[TouchedUnit],
        originals: Vec<OriginalUnit>,
        work: &Path,
        progress: &dyn Progress,
    ) -> Result<Vec<UnitPair>> {
        let made = ObjectCounter::of(Some(units.len()));
        let pairs: Vec<(&TouchedUnit, OriginalUnit)> = units.iter().zip(originals).collect();
        let compiled = each(self.kernel.jobs(), pairs.len(), |at| {
            let (unit, original) = &pairs[at];
            let patched = work.join("patched").join(unit.object());
            match &original.ahead {
                Some(ahead) => self.finish(unit, &original.record, &ahead.object, false)?,
                None => self.compile(unit, &original.record, &patched, &[], patched_fails)?,
            }
            made.add(1, progress);
            Ok(patched)
        });
        let compiled = compiled.into_iter().collect::<Result<Vec<PathBuf>>>()?;
        let pair = |((unit, original), patched): ((&TouchedUnit, OriginalUnit), PathBuf)| UnitPair {
            unit: unit.clone(),
            witness: original.witness,
            original: original.object,
            patched,
            exports: original.exports,
            is_new: false,
        };
        Ok(pairs.into_iter().zip(compiled).map(pair).collect())
    }

    /// Makes units that only the patched source has with kbuild, and pairs each with the unit of an empty file.
    fn added_units(&self, units: &[TouchedUnit], work: &Path) -> Result<Vec<UnitPair>> {
        let all: Vec<&TouchedUnit> = units.iter().collect();
        self.make_units(&all, &(), |make, built| {
            let what = "the patched kernel source does not compile";
            make.failure(built, &codes::PATCHED_SOURCE_DOES_NOT_COMPILE, what, "correct the patch")
        })?;
        let nothing = work.join("empty.c");
        std::fs::write(&nothing, "").map_err(|error| Diagnosis::io("write", &nothing, &error))?;
        let pair = |unit: &TouchedUnit| -> Result<UnitPair> {
            let record = self.record(unit)?;
            let (patched, empty) =
                (work.join("patched").join(unit.object()), work.join("empty").join(unit.object()));
            self.compile(unit, &record, &patched, &[], patched_fails)?;
            self.compile(unit, &record, &empty, &[&nothing.display().to_string()], original_fails)?;
            Ok(UnitPair {
                unit: unit.clone(),
                witness: None,
                original: empty,
                patched,
                exports: String::new(),
                is_new: true,
            })
        };
        units.iter().map(pair).collect()
    }

    /// Makes units that only the patched source has with kbuild. Returns kbuild's records, and puts copies of the
    /// objects below `folder`.
    ///
    /// # Errors
    /// `klpx::patched-source-does-not-compile` with the compiler's lines, or an interrupt.
    pub fn make_added(
        &self,
        prepared: &AppliedPatch,
        units: &[TouchedUnit],
        folder: &Path,
    ) -> Result<Vec<RecordedCommands>> {
        if units.is_empty() {
            return Ok(Vec::new());
        }
        let all: Vec<&TouchedUnit> = units.iter().collect();
        let kept = |unit: &TouchedUnit| -> Result<RecordedCommands> {
            let copy = folder.join(unit.object());
            create_parent(&copy)?;
            copy_object(&self.build_dir().join(unit.object()), &copy)?;
            self.record(unit)
        };
        self.while_patched(prepared, |_| {
            self.make_units(&all, &(), patched_fails)?;
            units.iter().map(kept).collect()
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
        let mut words = self.compilation(unit, &record, to)?;
        words.extend(more.iter().cloned());
        let outcome = self.run_in_build(&words)?;
        if !outcome.success {
            return Ok(None);
        }
        self.finish(unit, &record, to, false)?;
        Ok(Some(outcome.lines))
    }

    /// Compiles a unit from the current source to another place, by kbuild's record. `source` may name another source
    /// instead.
    fn compile(
        &self,
        unit: &TouchedUnit,
        record: &RecordedCommands,
        to: &Path,
        source: &[&str],
        failure: fn(&MakeSettings<'_>, &MakeResult) -> Failure,
    ) -> Result<()> {
        let mut words = self.compilation(unit, record, to)?;
        if let ([source], Some(last)) = (source, words.last_mut()) {
            *last = (*source).to_owned();
        }
        let outcome = self.run_in_build(&words)?;
        if !outcome.success {
            return self.with_make(|make| {
                Err(failure(make, &MakeResult { success: false, units: 0, lines: outcome.lines }))
            });
        }
        self.finish(unit, record, to, false)
    }

    /// The command that compiles a unit to another place. The source is the last word.
    fn compilation(&self, unit: &TouchedUnit, record: &RecordedCommands, to: &Path) -> Result<Vec<String>> {
        create_parent(to)?;
        let words = record.compilation().unwrap_or_default();
        let mut words = redirected(words, unit.unit.target(), to);
        if self.kernel.sections() == SectionOrigin::WhereCompared {
            let source = words.len().saturating_sub(1);
            words.splice(source..source, SECTION_FLAGS.split(' ').map(str::to_owned));
        }
        Ok(words)
    }

    /// Runs the commands that follow a compilation: the rest of the record, unless kbuild made the object and ran them,
    /// and objtool as in the kernel's final link.
    fn finish(
        &self,
        unit: &TouchedUnit,
        record: &RecordedCommands,
        object: &Path,
        by_kbuild: bool,
    ) -> Result<()> {
        let mut commands: Vec<Vec<String>> = Vec::new();
        if !by_kbuild {
            commands.extend(
                record.commands[1..].iter().map(|words| redirected(words, unit.unit.target(), object)),
            );
        }
        if let ObjtoolRule::Run(options) = &unit.objtool {
            let mut words = vec![self.build_dir().join("tools/objtool/objtool").display().to_string()];
            words.extend(options.iter().cloned());
            words.push(object.display().to_string());
            commands.push(words);
        }
        for words in commands {
            let outcome = self.run_in_build(&words)?;
            if !outcome.success {
                let program = words.first().map_or("a command", String::as_str);
                return Err(objtool::failure(program, unit.object(), outcome.lines).into());
            }
        }
        Ok(())
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

fn original_fails(make: &MakeSettings<'_>, built: &MakeResult) -> Failure {
    original_does_not_build(make, built)
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

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

pub(crate) fn copy_object(from: &Path, to: &Path) -> Result<()> {
    files::copy(from, to, false).map_err(|error| Diagnosis::io("copy", from, &error).into())
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
