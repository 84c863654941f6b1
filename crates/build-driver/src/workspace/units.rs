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

use klpx_diagnosis::{Diagnosis, Failure, Result, codes};

use crate::files;
use crate::files::create_parent;
use crate::kbuild::environment::Environment;
use crate::kbuild::make::{MakeResult, MakeSettings, original_does_not_build, patched_fails};
use crate::kbuild::recorded::RecordedCommands;
use crate::kernel::SectionOrigin;
use crate::parallel::each;
use crate::patch::AppliedPatch;
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

/// The original units of the touched units.
#[derive(Debug)]
pub struct OriginalUnits<'t> {
    touched: &'t TouchedUnits,
    /// In the order of the touched units.
    units: Vec<OriginalUnit>,
}

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
        originals: OriginalUnits<'_>,
        work: WorkDir,
        progress: &dyn Progress,
    ) -> Result<UnitPairs> {
        progress.step("compiling the patched units");
        let OriginalUnits { touched, units: originals } = originals;
        let from_source = originals.iter().any(|original| original.ahead.is_none());
        let compile = || {
            let pairs = self.patched_units(&touched.units, originals, &work.path, progress)?;
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
    pub fn originals<'t>(
        &self,
        prepared: &AppliedPatch,
        touched: &'t TouchedUnits,
        work: &WorkDir,
        progress: &dyn Progress,
    ) -> Result<OriginalUnits<'t>> {
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
            .map(|units| OriginalUnits { touched, units })
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
        let made = ObjectCounter::new(Some(units.len()));
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
        let compilation = self.compilation(unit, &record);
        create_parent(&kept)?;
        let unfinished = with_ending(&kept, ".new");
        if self.kernel.sections() == SectionOrigin::WhereCompared {
            let witness = self.witness_path(unit);
            copy_object(&made, &witness)?;
            compilation.run_objtool(&witness)?;
            compilation.compile(&unfinished, None, original_fails)?;
        } else {
            copy_object(&made, &unfinished)?;
            compilation.run_objtool(&unfinished)?;
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

    fn patched_units(
        &self,
        units: &[TouchedUnit],
        originals: Vec<OriginalUnit>,
        work: &Path,
        progress: &dyn Progress,
    ) -> Result<Vec<UnitPair>> {
        let made = ObjectCounter::new(Some(units.len()));
        let pairs: Vec<(&TouchedUnit, OriginalUnit)> = units.iter().zip(originals).collect();
        let compiled = each(self.kernel.jobs(), pairs.len(), |at| {
            let (unit, original) = &pairs[at];
            let patched = work.join("patched").join(unit.object());
            let compilation = self.compilation(unit, &original.record);
            match &original.ahead {
                Some(ahead) => compilation.finish(&ahead.object)?,
                None => compilation.compile(&patched, None, patched_fails)?,
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
            let compilation = self.compilation(unit, &record);
            compilation.compile(&patched, None, patched_fails)?;
            compilation.compile(&empty, Some(&nothing), original_fails)?;
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
}

fn original_fails(make: &MakeSettings<'_>, built: &MakeResult) -> Failure {
    original_does_not_build(make, built)
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

pub(crate) fn copy_object(from: &Path, to: &Path) -> Result<()> {
    files::copy(from, to, false).map_err(|error| Diagnosis::io("copy", from, &error).into())
}
