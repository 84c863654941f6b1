//! Handles units that the patch does not touch but whose native code depends on it: the thin link tells them something
//! else, or they import from a touched unit.
//!
//! If such a unit's inliner decides differently from the original, the unit's backend runs again with the original's
//! decisions, as the backends of touched units do (attempt).

use std::collections::BTreeMap;
use std::path::PathBuf;

use klpx_build_driver::each;
use klpx_diagnosis::Result;

use super::{Natives, Preparation};
use crate::attempt::Chosen;
use crate::attempt::run::no_backend;
use crate::differing::{self, DifferingNames};
use crate::files;
use crate::linker::{self, Backend};
use crate::llvm::{native, remarks, replay};
use crate::moved::Moved;
use crate::unit::SourceSide;

/// The result for the untouched units.
pub(super) struct OtherUnits {
    /// The units whose native code differs, or means something else, by name.
    pub(super) natives: Vec<Natives>,
    /// The number of functions that would differ without the original's inlining.
    pub(super) spared: usize,
}

/// A unit whose native code is not the original's.
struct Other<'a> {
    unit: &'a str,
    original: Backend,
    patched: Backend,
    /// True if the unit refers to a name that denotes something else now.
    moved: bool,
}

impl Preparation<'_> {
    /// Finds the untouched units whose native code depends on the patch.
    pub(super) fn others(&self, chosen: &Chosen, moved: &Moved) -> Result<OtherUnits> {
        let original_slices = self.original_slices(chosen)?;
        let touched = self.touched.units.iter().zip(&chosen.units);
        let changed: Vec<&str> =
            touched.filter(|(_, chosen)| !chosen.near.frozen).map(|(unit, _)| unit.object.as_str()).collect();
        let seeing = linker::seeing_otherwise(&original_slices, &chosen.slices, &changed);
        let known = || self.touched.units.iter().chain(self.touched.added.iter().map(|added| &added.unit));
        let untouched = |unit: &&String| known().all(|other| other.object != **unit);
        let units: Vec<&str> = seeing.iter().filter(untouched).map(String::as_str).collect();
        tracing::debug!(?units, "see something else than before");
        if units.is_empty() {
            return Ok(OtherUnits { natives: Vec::new(), spared: 0 });
        }
        self.progress.step(&format!("compiling {} more units to machine code", units.len()));
        let original = self.backends_of_originals(&units)?;
        let patched = self.backends("others", &units, chosen)?;
        let mut found = Vec::new();
        for ((unit, original), patched) in units.iter().zip(original).zip(patched) {
            let same = native::same(&files::read(&original.object)?, &files::read(&patched.object)?);
            let moved = moved.is_used_by(unit, &patched.object)?;
            if moved || !same {
                found.push(Other { unit, original, patched, moved });
            }
        }
        let mut spared = 0;
        if !found.is_empty() && !chosen.differing.is_empty() {
            let nearer = self.with_inlining(&found, chosen)?;
            for (other, nearer) in found.iter_mut().zip(nearer) {
                let Some((functions, object)) = nearer else { continue };
                spared += functions;
                other.patched.object = object;
            }
        }
        let mut natives = Vec::new();
        for Other { unit, original, patched, moved } in found {
            if moved || !native::same(&files::read(&original.object)?, &files::read(&patched.object)?) {
                let (original, patched) = (original.object, patched.object);
                natives.push(Natives { unit: unit.to_owned(), original, patched });
            }
        }
        Ok(OtherUnits { natives, spared })
    }

    /// For each unit, native code with the original's inlining if it is nearer to the original, and the number of
    /// functions that no longer differ.
    fn with_inlining(&self, others: &[Other<'_>], chosen: &Chosen) -> Result<Vec<Option<(usize, PathBuf)>>> {
        let Some(known) = &self.attempt.examine(&chosen.differing)?.known else { return Ok(Vec::new()) };
        let view = self.view(SourceSide::Patched, "others-replayed", |unit| unit.bitcode.clone(), chosen)?;
        let one = |at: usize| -> Result<Option<(usize, PathBuf)>> {
            let Other { unit, original, patched, .. } = &others[at];
            let original_inlining = replay::with_hashes_of(&original.remarks, &patched.remarks);
            let original_inlining = remarks::parse(&original_inlining);
            let records = replay::records(&original_inlining, &remarks::parse(&patched.remarks), known);
            let Some(records) = records else { return Ok(None) };
            let folder = self.work.join("others-records").join(unit);
            files::create_dir(&folder)?;
            let path = folder.join("records.txt");
            files::write(&path, records)?;
            let options = replay::options(&path.display().to_string());
            let scratch = self.work.join("backends/others-replayed").join(unit);
            let made = self.context.linker().backends(&view, &[unit], &options, &scratch)?;
            // LLVM may crash on the records.
            let Some(replayed) = made.and_then(|mut made| made.pop()) else { return Ok(None) };
            let plain = DifferingNames::between(&original.object, &patched.object)?;
            let nearer = DifferingNames::between(&original.object, &replayed.object)?;
            let holders = differing::holders(original_inlining, |name| known.is_same(name));
            let spared = differing::spared(&plain, &nearer, &holders);
            Ok(spared.map(|functions| (functions.len(), replayed.object)))
        };
        each(self.context.jobs, others.len(), one).into_iter().collect()
    }

    /// The results of the original's backends for untouched units. They are kept.
    fn backends_of_originals(&self, units: &[&str]) -> Result<Vec<Backend>> {
        let unknown: Vec<&str> =
            units.iter().copied().filter(|unit| self.originals.backend(unit).is_none()).collect();
        if !unknown.is_empty() {
            // A link of several units has the bitcode of all of them as kbuild made it.
            let folder = self.work.join("views/untouched");
            let view = self.sides.view(self.context, SourceSide::Original, &folder, BTreeMap::new())?;
            let scratch = self.work.join("backends/untouched");
            let made = self.context.linker().backends(&view, &unknown, &[], &scratch)?;
            let made = made.ok_or_else(|| no_backend(&unknown))?;
            for (unit, backend) in unknown.iter().zip(made) {
                self.originals.keep_backend(unit, &backend)?;
            }
        }
        let backend = |unit: &&str| self.originals.backend(unit).ok_or_else(|| no_backend(&[unit]));
        units.iter().map(backend).collect()
    }
}
