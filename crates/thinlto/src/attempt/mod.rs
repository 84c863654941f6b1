//! Handles the units of one kernel object that the patch touches: compiles them from the patched source, runs their
//! backends, and where LLVM's inliner decides differently from the original, makes it decide again as for the original.
//!
//! The inliner runs twice, in the compilation and in the backend. Only units whose native code differs are examined,
//! and only if more than one function differs in all. Their originals are compiled with remarks. Where the remarks show
//! calls that only one build inlines, [`crate::llvm::replay`] says which decisions can be taken over, and the step runs
//! again with these decisions. A result is taken if its differences from the original's native objects are a proper
//! subset of the plain build's differences. Decisions of a backend concern only its own unit. Decisions of a
//! compilation can concern units that import from this one, so they are taken only if what others can import stays as
//! near to the original as before.

mod compile;
mod examine;
pub(crate) mod run;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::llvm::{remarks, replay};
use klpx_build_driver::Progress;
use klpx_diagnosis::Result;

use crate::context::Context;
use crate::differing::{self, DifferingNames};
use crate::files;
use crate::freeze::{Freezer, Near};
use crate::linker::{Backend, Slices};
use crate::originals::OriginalsFolder;
use crate::sameness::KnownSameness;
use crate::sides::LinkSides;
use crate::unit::{Compilation, SourceSide, UnitCommands, UnitCompiler};
use crate::{Level, ReplayOutcome};
use examine::Examined;
use klpx_build_driver::each;

/// The compilation that was chosen for each touched unit.
pub(crate) struct Chosen {
    /// The units, in their order in the attempt.
    pub(crate) units: Vec<ChosenUnit>,
    /// What the thin link tells each unit of the link, given the chosen bitcode.
    pub(crate) slices: Slices,
    /// The outcome of replaying the inlining, if there was something to undo.
    pub(crate) outcome: Option<ReplayOutcome>,
    /// How each unit differs if the inliner is left to itself. Empty below [`Level::Inlining`].
    pub(crate) differing: Vec<DifferingNames>,
}

pub(crate) struct ChosenUnit {
    /// Bitcode of the original.
    pub(crate) original_bitcode: PathBuf,
    /// Bitcode of the patched source.
    pub(crate) bitcode: PathBuf,
    pub(crate) near: Near,
    /// Native code of the original.
    pub(crate) original: PathBuf,
    /// Native code of the patched source.
    pub(crate) patched: PathBuf,
}

pub(crate) struct Attempt<'a> {
    pub(crate) context: &'a Context<'a>,
    pub(crate) sides: &'a LinkSides,
    pub(crate) units: &'a [UnitCommands],
    pub(crate) compiler: UnitCompiler<'a>,
    pub(crate) originals: &'a OriginalsFolder,
    /// A folder for everything that belongs to the patch.
    pub(crate) work: &'a Path,
    pub(crate) level: Level,
    pub(crate) progress: &'a dyn Progress,
    /// What is known of the units, once they have been examined.
    pub(crate) examined: OnceLock<Examined>,
}

/// The originals of the units.
#[derive(Clone)]
struct Before {
    bitcode: Vec<PathBuf>,
    backends: Vec<Backend>,
}

/// The patched units as they would be linked.
#[derive(Clone)]
struct PatchedBuild {
    bitcode: Vec<PathBuf>,
    near: Vec<Near>,
    backends: Vec<Backend>,
    slices: Slices,
    /// How each unit differs from its original.
    differing: Vec<DifferingNames>,
}

impl PatchedBuild {
    /// Takes another object for one unit if this object is nearer to the original than the present one.
    fn take_if_nearer(&mut self, at: usize, object: PathBuf, differing: DifferingNames) {
        if differing.is_nearer_than(&self.differing[at]) {
            self.backends[at].object = object;
            self.differing[at] = differing;
        }
    }
}

impl Attempt<'_> {
    /// Compiles the units and chooses a compilation for each.
    pub(crate) fn run(&self) -> Result<Chosen> {
        self.progress.step("compiling what the patch touches");
        let compiled = self.compile_patched()?;
        let bitcode: Vec<PathBuf> = compiled.iter().map(|unit| unit.file.clone()).collect();
        let original_bitcode = self.original_bitcode()?;
        let near = self.bring_near(&original_bitcode, &bitcode)?;
        self.progress.step("compiling to machine code");
        let (before, mut plain) = self.backends_of_both(original_bitcode, bitcode, near)?;
        if self.level < Level::Inlining {
            return Ok(self.chosen(before, plain, None));
        }
        plain.differing = self.differing(&before, &plain.backends)?;
        let differing = plain.differing.clone();
        // A change affects at least one function, so one differing function leaves nothing to undo.
        let chosen = match functions(&differing) {
            0 | 1 => self.chosen(before, plain, None),
            _ => self.with_inlining(before, plain, &compiled)?,
        };
        Ok(Chosen { differing, ..chosen })
    }

    /// Freezes names and holds back imports, in place.
    fn bring_near(&self, original: &[PathBuf], patched: &[PathBuf]) -> Result<Vec<Near>> {
        self.progress.step("freezing names");
        let freezer = self.freezer(original, patched)?;
        let near = |at: usize| self.bring_unit_near(&freezer, at, &original[at], &patched[at]);
        each(self.context.jobs, patched.len(), near).into_iter().collect()
    }

    fn freezer(&self, original: &[PathBuf], patched: &[PathBuf]) -> Result<Freezer<'_>> {
        let pairs = original.iter().map(PathBuf::as_path).zip(patched.iter().map(PathBuf::as_path));
        Freezer::new(self.context, self.level, pairs, self.sides.added.values().map(PathBuf::as_path))
    }

    /// Brings one unit near to its original. A unit that is alone in its link is left as it is: it imports nothing, and
    /// nothing imports from it.
    fn bring_unit_near(
        &self,
        freezer: &Freezer<'_>,
        at: usize,
        original: &Path,
        patched: &Path,
    ) -> Result<Near> {
        match self.sides.original.inputs.len() {
            1 => Ok(Near::default()),
            _ => freezer.bring_near(original, patched, &self.folder("freeze", &self.units[at])?),
        }
    }

    /// Runs independent steps in parallel: the thin link of the patched side, its backends, and those backends of the
    /// original whose results are not kept yet.
    fn backends_of_both(
        &self,
        original: Vec<PathBuf>,
        patched: Vec<PathBuf>,
        near: Vec<Near>,
    ) -> Result<(Before, PatchedBuild)> {
        let all: Vec<usize> = (0..self.units.len()).collect();
        let unknown: Vec<usize> = all
            .iter()
            .copied()
            .filter(|&at| self.originals.backend(&self.units[at].object).is_none())
            .collect();
        let before = self.view(SourceSide::Original, "original", &original)?;
        let patched_view = self.view(SourceSide::Patched, "patched", &patched)?;
        let ((backends, slices), made) = rayon::join(
            || {
                rayon::join(
                    || self.backends("patched", &patched_view, &all),
                    || self.slices("patched", &patched_view),
                )
            },
            || self.backends("original", &before, &unknown),
        );
        for (&at, backend) in unknown.iter().zip(&made?) {
            self.originals.keep_backend(&self.units[at].object, backend)?;
        }
        let kept = |unit: &UnitCommands| {
            self.originals.backend(&unit.object).ok_or_else(|| run::no_backend(&[&unit.object]))
        };
        let originals = self.units.iter().map(kept).collect::<Result<_>>()?;
        let (backends, slices) = (backends?, slices?);
        let build = PatchedBuild { bitcode: patched, near, backends, slices, differing: Vec::new() };
        Ok((Before { bitcode: original, backends: originals }, build))
    }

    /// Chooses between the plain build and the build with the original's inlining.
    fn with_inlining(&self, before: Before, plain: PatchedBuild, compiled: &[Compilation]) -> Result<Chosen> {
        let same = |why: String, plain: PatchedBuild| {
            let count = functions(&plain.differing);
            self.chosen(before.clone(), plain, Some((count, count, why)))
        };
        self.progress.step("undoing what the inliner decides otherwise");
        let examined = self.examine(&plain.differing)?;
        let Some(known) = &examined.known else {
            return Ok(same("a unit of the original does not come out as kbuild made it".to_owned(), plain));
        };
        let again = self.recompiled(&before, &plain, examined, compiled)?;
        let mut tried = again.is_some();
        // If the compilation again leaves a call alone, the backend may inline it. So both steps are replayed before
        // the result is judged.
        let mut best = None;
        if let Some(mut again) = again {
            self.replay_backends(&before, &mut again, examined)?;
            best = Some(again).filter(|again| nearer(&again.differing, &plain.differing));
        }
        let best = match best {
            Some(best) => best,
            None => {
                let mut build = plain.clone();
                tried |= self.replay_backends(&before, &mut build, examined)?;
                build
            }
        };
        if !tried {
            return Ok(self.chosen(before, plain, None));
        }
        let (count, after) = (functions(&plain.differing), functions(&best.differing));
        if after >= count {
            return Ok(same("the original's inlining brings it no nearer".to_owned(), plain));
        }
        let compiled = examined.units.values().map(|unit| unit.original.compiled.as_str());
        let linked = before.backends.iter().map(|backend| backend.remarks.as_str());
        Ok(match refusal(compiled.chain(linked), &left_out(&plain, &best), known) {
            Some(why) => same(why, plain),
            None => self.chosen(before, best, Some((count, after, String::new()))),
        })
    }

    /// Builds the patched units with those that differ compiled with the original's decisions. Returns `None` if there
    /// are no decisions to take over, if a compilation fails, or if others could import less of what the original
    /// offers than from the plain build.
    fn recompiled(
        &self,
        before: &Before,
        plain: &PatchedBuild,
        examined: &Examined,
        compiled: &[Compilation],
    ) -> Result<Option<PatchedBuild>> {
        let Some(known) = &examined.known else { return Ok(None) };
        let records = |(&at, unit): (&usize, &examine::ExaminedUnit)| {
            let original_inlining = remarks::parse(&unit.original.compiled);
            Some((at, replay::records(&original_inlining, &remarks::parse(&compiled[at].output), known)?))
        };
        let records: Vec<(usize, String)> = examined.units.iter().filter_map(records).collect();
        if records.is_empty() {
            return Ok(None);
        }
        let freezer = self.freezer(&before.bitcode, &plain.bitcode)?;
        let again = each(self.context.jobs, records.len(), |n| -> Result<Option<(PathBuf, Near)>> {
            let (at, records) = &records[n];
            let Some(compiled) = self.recompile(*at, records)? else { return Ok(None) };
            let near = self.bring_unit_near(&freezer, *at, &before.bitcode[*at], &compiled.file)?;
            Ok((!near.offers_less_than(&plain.near[*at])).then_some((compiled.file, near)))
        });
        let (mut bitcode, mut near) = (plain.bitcode.clone(), plain.near.clone());
        for (&(at, _), again) in records.iter().zip(again) {
            let Some(again) = again? else { return Ok(None) };
            (bitcode[at], near[at]) = again;
        }
        let view = self.view(SourceSide::Patched, "recompiled", &bitcode)?;
        let all: Vec<usize> = (0..self.units.len()).collect();
        let (backends, slices) =
            rayon::join(|| self.backends("recompiled", &view, &all), || self.slices("recompiled", &view));
        let (backends, slices) = (backends?, slices?);
        let differing = self.differing(before, &backends)?;
        Ok(Some(PatchedBuild { bitcode, near, backends, slices, differing }))
    }

    /// Runs backends again with the original's decisions, and takes each object that is nearer. Returns false if there
    /// is nothing to take over.
    fn replay_backends(
        &self,
        before: &Before,
        build: &mut PatchedBuild,
        examined: &Examined,
    ) -> Result<bool> {
        let Some(known) = &examined.known else { return Ok(false) };
        let view = self.view(SourceSide::Patched, "replayed", &build.bitcode)?;
        let units: Vec<usize> = examined.units.keys().copied().collect();
        let replayed = each(self.context.jobs, units.len(), |n| -> Result<Option<Option<Backend>>> {
            let at = units[n];
            let patched_remarks = &build.backends[at].remarks;
            let original_remarks = replay::with_hashes_of(&before.backends[at].remarks, patched_remarks);
            let records =
                replay::records(&remarks::parse(&original_remarks), &remarks::parse(patched_remarks), known);
            let Some(records) = records else { return Ok(None) };
            let options = self.options("backend", &self.units[at], &records)?;
            Ok(Some(self.backend_with(&self.units[at], &view, &options)?))
        });
        let mut tried = false;
        for (&at, replayed) in units.iter().zip(replayed) {
            let Some(replayed) = replayed? else { continue };
            tried = true;
            let Some(replayed) = replayed else { continue };
            let found = DifferingNames::between(&before.backends[at].object, &replayed.object)?;
            build.take_if_nearer(at, replayed.object, found);
        }
        Ok(tried)
    }

    fn chosen(&self, before: Before, build: PatchedBuild, outcome: Option<(usize, usize, String)>) -> Chosen {
        let originals = before.bitcode.into_iter().zip(before.backends);
        let built = build.bitcode.into_iter().zip(build.near).zip(build.backends);
        let units = originals.zip(built).map(|((original_bitcode, original), ((bitcode, near), backend))| {
            let (original, patched) = (original.object, backend.object);
            ChosenUnit { original_bitcode, bitcode, near, original, patched }
        });
        let outcome = outcome.map(|(plain, taken, why)| ReplayOutcome {
            object: self.sides.original.object.clone(),
            plain,
            taken,
            given_up: (!why.is_empty()).then_some(why),
        });
        Chosen { units: units.collect(), slices: build.slices, outcome, differing: Vec::new() }
    }

    fn differing(&self, before: &Before, patched: &[Backend]) -> Result<Vec<DifferingNames>> {
        let pairs = before.backends.iter().zip(patched);
        pairs.map(|(original, patched)| DifferingNames::between(&original.object, &patched.object)).collect()
    }

    /// Writes records to a file. Returns the LLVM options that make LLVM read it.
    fn options(&self, step: &str, unit: &UnitCommands, records: &str) -> Result<[String; 3]> {
        let path = self.folder(&format!("{step}-records"), unit)?.join("records.txt");
        files::write(&path, records)?;
        Ok(replay::options(&path.display().to_string()))
    }

    /// Creates the folder for the results of one step for one unit.
    fn folder(&self, step: &str, unit: &UnitCommands) -> Result<PathBuf> {
        let folder = self.work.join(step).join(&unit.object);
        files::create_dir(&folder)?;
        Ok(folder)
    }
}

/// Why a build that leaves these functions out must not be taken. `remarks` are the original's.
fn refusal<'t>(
    remarks: impl Iterator<Item = &'t str>,
    left_out: &BTreeSet<String>,
    known: &KnownSameness,
) -> Option<String> {
    let holders = differing::holders(remarks.flat_map(remarks::parse), |name| known.is_same(name));
    let holder = left_out.iter().find(|name| holders.contains(name.as_str()))?;
    Some(format!("it would leave out {holder}, which inlined what the patch changes"))
}

/// Functions that differ in the plain build but not in the best one.
fn left_out(plain: &PatchedBuild, best: &PatchedBuild) -> BTreeSet<String> {
    let pairs = plain.differing.iter().zip(&best.differing);
    pairs.flat_map(|(plain, best)| plain.functions.difference(&best.functions)).cloned().collect()
}

fn functions(differing: &[DifferingNames]) -> usize {
    differing.iter().map(|unit| unit.functions.len()).sum()
}

/// Returns true if at least one unit is nearer and none is farther.
fn nearer(again: &[DifferingNames], plain: &[DifferingNames]) -> bool {
    let mut pairs = again.iter().zip(plain);
    again != plain && pairs.all(|(again, plain)| again == plain || again.is_nearer_than(plain))
}

#[cfg(test)]
mod tests;
