//! The units of one object of the kernel that the patch touches: compiles them from both sources, runs their backends,
//! and where LLVM's inliner decides otherwise, lets it decide again as for the original.
//!
//! The inliner runs twice, in the compilation and in the backend. Where their remarks tell of calls that are inlined in
//! one build only, [`crate::llvm::replay`] says which decisions can be taken over, and the step runs again with
//! them. A result is taken when what differs from the original's native objects is a proper subset of what differs
//! without it. Decisions of a backend concern its own unit only. Those of a compilation can concern units that import
//! from it, so they are taken only when what others can import stays as near to the original as it was.

mod compile;
pub(crate) mod run;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::llvm::replay::{self, Sameness};
use crate::llvm::{ir::Identity, remarks};
use klpx_build_driver::Progress;
use klpx_diagnosis::Result;

use crate::context::Context;
use crate::differing::{self, Differing};
use crate::files;
use crate::freeze::{Freezer, Near};
use crate::linker::{Backend, Slices};
use crate::originals::{Functions, Original, Originals};
use crate::sides::Sides;
use crate::unit::{Compiler, Side, Unit};
use crate::{Level, Outcome};
use compile::{OriginalSide, Unlinked};
use klpx_build_driver::each;

/// More touched units than this, such as those of a header that everything includes, are not compiled with the
/// original's decisions.
const MAX_UNITS: usize = 12;

/// What became of the touched units.
pub(crate) struct Chosen {
    /// In the order of the units.
    pub(crate) units: Vec<ChosenUnit>,
    /// What the thin link tells each unit of the link now.
    pub(crate) slices: Slices,
    /// What came of the inlining, when there was something to undo.
    pub(crate) outcome: Option<Outcome>,
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
    pub(crate) sides: &'a Sides,
    pub(crate) units: &'a [Unit],
    pub(crate) compiler: Compiler<'a>,
    pub(crate) originals: &'a Originals,
    /// A folder for everything that goes with the patch.
    pub(crate) work: &'a Path,
    pub(crate) level: Level,
    pub(crate) progress: &'a dyn Progress,
}

/// The patched units as they would be linked.
#[derive(Clone)]
struct Build {
    bitcode: Vec<PathBuf>,
    near: Vec<Near>,
    backends: Vec<Backend>,
    slices: Slices,
    /// How each differs from its original.
    differing: Vec<Differing>,
}

/// What is run before anything is compared.
enum Task {
    Recompile(usize),
    OriginalBackends,
    PatchedBackends,
    PatchedSlices,
}

/// What it gave.
enum Done {
    /// A compilation with records; `None` when it is not to be used.
    Recompiled(usize, Option<(PathBuf, Near)>),
    Original(Vec<Backend>),
    Patched(Vec<Backend>),
    Slices(Slices),
}

impl Attempt<'_> {
    /// Compiles the units, and chooses.
    pub(crate) fn run(&self) -> Result<Chosen> {
        self.progress.step("compiling what the patch touches");
        if self.level < Level::Inlining {
            return self.plain(None);
        }
        if self.units.len() > MAX_UNITS {
            return self.plain(Some(format!("the patch touches {} units", self.units.len())));
        }
        let compiled = self.compile()?;
        if self.are_as_kbuild_made_them(&compiled)? {
            return self.with_inlining(compiled);
        }
        self.plain(Some("a unit of the original does not come out as kbuild made it".to_owned()))
    }

    /// The units as they come, brought near by their names and imports only.
    fn plain(&self, why: Option<String>) -> Result<Chosen> {
        let (original, bitcode) = (self.original_bitcode()?, self.compile_patched()?);
        let near = self.bring_near(&original, &bitcode)?;
        let done = self.run_all((&original, &bitcode, &near), &self.unknown(), &[])?;
        let natives = self.keep_natives(&done.original)?;
        let build =
            Build { bitcode, near, backends: done.patched, slices: done.slices, differing: Vec::new() };
        Ok(self.chosen((original, natives), build, why.map(|why| (0, 0, why))))
    }

    /// The places of the units whose native code is not known yet.
    fn unknown(&self) -> Vec<usize> {
        (0..self.units.len()).filter(|&at| self.originals.native(&self.units[at].object).is_none()).collect()
    }

    /// Kbuild's bitcode and what was compiled here must be the same, or the remarks are of something else.
    fn are_as_kbuild_made_them(&self, compiled: &[Unlinked]) -> Result<bool> {
        for (unit, compiled) in self.units.iter().zip(compiled) {
            let OriginalSide::New { compiled, .. } = &compiled.original else { continue };
            let built = self.context.build.join(&unit.object);
            if files::is_bitcode(&built) && files::read(&built)? != files::read(&compiled.file)? {
                tracing::debug!(unit = unit.object, "does not repeat");
                return Ok(false);
            }
        }
        Ok(true)
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

    /// A unit that is the only one of its link imports nothing, and nobody imports from it.
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

    /// Runs the backends; chooses between them and what they give with the original's inlining.
    fn with_inlining(&self, compiled: Vec<Unlinked>) -> Result<Chosen> {
        let bitcode: Vec<PathBuf> = compiled.iter().map(|unit| unit.patched.file.clone()).collect();
        let original_bitcode = self.original_bitcode()?;
        let near = self.bring_near(&original_bitcode, &bitcode)?;
        self.progress.step("compiling to machine code");
        let sameness = sameness(&compiled);
        let records: Vec<Option<String>> = compiled
            .iter()
            .map(|unit| {
                let theirs = remarks::parse(unit.original.remarks());
                replay::records(&theirs, &remarks::parse(&unit.patched.output), &sameness)
            })
            .collect();
        let is_new = |unit: &Unlinked| matches!(unit.original, OriginalSide::New { .. });
        let new: Vec<usize> = (0..compiled.len()).filter(|&at| is_new(&compiled[at])).collect();
        let done = self.run_all((&original_bitcode, &bitcode, &near), &new, &records)?;
        let original = self.originals(compiled, done.original)?;
        let natives: Vec<PathBuf> = original.iter().map(|original| original.native.clone()).collect();
        let differing = self.differing(&natives, &done.patched)?;
        let plain = Build { bitcode, near, backends: done.patched, slices: done.slices, differing };
        // One function is the least that a change can be.
        if functions(&plain.differing) < 2 {
            return Ok(self.chosen((original_bitcode, natives), plain, None));
        }
        self.progress.step("undoing what the inliner decides otherwise");
        let again = self.with_recompiled(&natives, &plain, done.recompiled)?;
        let mut tried = again.is_some();
        let mut best = match again {
            Some(again) if nearer(&again.differing, &plain.differing) => again,
            _ => plain.clone(),
        };
        tried |= self.replay_backends(&original, &mut best, &sameness)?;
        if !tried {
            return Ok(self.chosen((original_bitcode, natives), plain, None));
        }
        let (before, after) = (functions(&plain.differing), functions(&best.differing));
        let is_same = |name: &str| sameness(name) == Sameness::Same;
        let refused = match after < before {
            true => refusal(&original, &left_out(&plain, &best), is_same),
            false => Some("the original's inlining brings it no nearer".to_owned()),
        };
        Ok(match refused {
            Some(why) => self.chosen((original_bitcode, natives), plain, Some((before, before, why))),
            None => self.chosen((original_bitcode, natives), best, Some((before, after, String::new()))),
        })
    }

    /// Runs what does not depend on each other: the thin link, the backends of the patched units and of the originals
    /// that are `unknown`, and the compilations with records.
    fn run_all(
        &self,
        (original, patched, near): (&[PathBuf], &[PathBuf], &[Near]),
        unknown: &[usize],
        records: &[Option<String>],
    ) -> Result<Runs> {
        let all: Vec<usize> = (0..self.units.len()).collect();
        let before = self.view(Side::Original, "original", original)?;
        let now = self.view(Side::Patched, "patched", patched)?;
        let freezer = self.freezer(original, patched)?;
        // The long ones first.
        let recompile = (0..records.len()).filter(|&at| records[at].is_some()).map(Task::Recompile);
        let original_backends = (!unknown.is_empty()).then_some(Task::OriginalBackends);
        let rest = [Task::PatchedBackends, Task::PatchedSlices];
        let tasks: Vec<Task> = recompile.chain(original_backends).chain(rest).collect();
        let run = |at: usize| -> Result<Done> {
            Ok(match tasks[at] {
                Task::Recompile(at) => {
                    let records = records[at].as_deref().unwrap_or_default();
                    Done::Recompiled(at, self.recompiled(at, (&original[at], records), &near[at], &freezer)?)
                }
                Task::OriginalBackends => Done::Original(self.backends("original", &before, unknown)?),
                Task::PatchedBackends => Done::Patched(self.backends("patched", &now, &all)?),
                Task::PatchedSlices => Done::Slices(self.slices("patched", &now)?),
            })
        };
        let mut runs = Runs::default();
        for done in each(self.context.jobs, tasks.len(), run) {
            match done? {
                Done::Recompiled(at, again) => runs.recompiled.push((at, again)),
                Done::Original(backends) => {
                    runs.original = unknown.iter().copied().zip(backends).collect();
                }
                Done::Patched(backends) => runs.patched = backends,
                Done::Slices(slices) => runs.slices = slices,
            }
        }
        Ok(runs)
    }

    /// Compiles a unit with the original's decisions. `None` when that fails, or when others could import less of what
    /// the original offers than from the plain build.
    fn recompiled(
        &self,
        at: usize,
        (original, records): (&Path, &str),
        plain: &Near,
        freezer: &Freezer<'_>,
    ) -> Result<Option<(PathBuf, Near)>> {
        let Some(compiled) = self.recompile(at, records)? else { return Ok(None) };
        let near = self.bring_unit_near(freezer, at, original, &compiled.file)?;
        let offers_less = plain.frozen && !near.frozen;
        Ok((!offers_less).then_some((compiled.file, near)))
    }

    /// What is known of the originals, kept for the next patch.
    fn originals(&self, compiled: Vec<Unlinked>, backends: Vec<(usize, Backend)>) -> Result<Vec<Original>> {
        let natives = self.keep_natives(&backends)?;
        let linked = |at: usize| backends.iter().find(|(made, _)| *made == at).map(|(_, made)| &made.remarks);
        let mut found = Vec::new();
        for (at, (compiled, native)) in compiled.into_iter().zip(natives).enumerate() {
            found.push(match compiled.original {
                OriginalSide::Kept(kept) => kept,
                OriginalSide::New { compiled, functions } => {
                    let linked = linked(at).cloned().unwrap_or_default();
                    let original = Original { functions, compiled: compiled.output, native, linked };
                    self.originals.keep(&self.units[at].object, &original)?;
                    original
                }
            });
        }
        Ok(found)
    }

    /// The native code of all originals; what is new is kept.
    fn keep_natives(&self, new: &[(usize, Backend)]) -> Result<Vec<PathBuf>> {
        let keep = |at: usize| {
            let unit = &self.units[at].object;
            match new.iter().find(|(made, _)| *made == at) {
                Some((_, backend)) => self.originals.keep_native(unit, &backend.object),
                None => self.originals.native(unit).ok_or_else(|| run::no_backend(&[unit])),
            }
        };
        (0..self.units.len()).map(keep).collect()
    }

    fn chosen(
        &self,
        (original_bitcode, originals): (Vec<PathBuf>, Vec<PathBuf>),
        build: Build,
        outcome: Option<(usize, usize, String)>,
    ) -> Chosen {
        let units = original_bitcode.into_iter().zip(originals);
        let built = build.bitcode.into_iter().zip(build.near).zip(build.backends);
        let units = units.zip(built).map(|((original_bitcode, original), ((bitcode, near), backend))| {
            ChosenUnit { original_bitcode, bitcode, near, original, patched: backend.object }
        });
        let outcome = outcome.map(|(plain, taken, why)| Outcome {
            object: self.sides.original.object.clone(),
            plain,
            taken,
            given_up: (!why.is_empty()).then_some(why),
        });
        Chosen { units: units.collect(), slices: build.slices, outcome }
    }

    /// The patched units with those that were compiled with the original's decisions. `None` when there are none, or
    /// one of them failed.
    fn with_recompiled(
        &self,
        natives: &[PathBuf],
        plain: &Build,
        recompiled: Vec<(usize, Option<(PathBuf, Near)>)>,
    ) -> Result<Option<Build>> {
        if recompiled.is_empty() {
            return Ok(None);
        }
        let (mut bitcode, mut near) = (plain.bitcode.clone(), plain.near.clone());
        for (at, again) in recompiled {
            let Some(again) = again else { return Ok(None) };
            (bitcode[at], near[at]) = again;
        }
        let view = self.view(Side::Patched, "recompiled", &bitcode)?;
        let all: Vec<usize> = (0..self.units.len()).collect();
        let (backends, slices) =
            rayon::join(|| self.backends("recompiled", &view, &all), || self.slices("recompiled", &view));
        let (backends, slices) = (backends?, slices?);
        let differing = self.differing(natives, &backends)?;
        Ok(Some(Build { bitcode, near, backends, slices, differing }))
    }

    /// Runs backends once more with the original's decisions, and takes each object that is nearer. False when there is
    /// nothing to take over.
    fn replay_backends(
        &self,
        original: &[Original],
        build: &mut Build,
        sameness: &(dyn Fn(&str) -> Sameness + Sync),
    ) -> Result<bool> {
        let view = self.view(Side::Patched, "replayed", &build.bitcode)?;
        let replayed = each(self.context.jobs, original.len(), |at| -> Result<Option<Option<Backend>>> {
            let ours = &build.backends[at].remarks;
            let theirs = replay::with_hashes_of(&original[at].linked, ours);
            let records = replay::records(&remarks::parse(&theirs), &remarks::parse(ours), sameness);
            let Some(records) = records else { return Ok(None) };
            let options = self.options("backend", &self.units[at], &records)?;
            Ok(Some(self.backend_with(&self.units[at], &view, &options)?))
        });
        let mut tried = false;
        for (at, replayed) in replayed.into_iter().enumerate() {
            let Some(replayed) = replayed? else { continue };
            let Some(replayed) = replayed else { continue };
            tried = true;
            let found = Differing::between(&original[at].native, &replayed.object)?;
            if found.is_nearer_than(&build.differing[at]) {
                build.backends[at].object = replayed.object;
                build.differing[at] = found;
            }
        }
        Ok(tried)
    }

    fn differing(&self, original: &[PathBuf], patched: &[Backend]) -> Result<Vec<Differing>> {
        let pairs = original.iter().zip(patched);
        pairs.map(|(original, patched)| Differing::between(original, &patched.object)).collect()
    }

    /// Writes records down; LLVM's options that make it read them.
    fn options(&self, step: &str, unit: &Unit, records: &str) -> Result<[String; 3]> {
        let path = self.folder(&format!("{step}-records"), unit)?.join("records.txt");
        files::write(&path, records)?;
        Ok(replay::options(&path.display().to_string()))
    }

    /// A folder for what one step makes of one unit.
    fn folder(&self, step: &str, unit: &Unit) -> Result<PathBuf> {
        let folder = self.work.join(step).join(&unit.object);
        files::create_dir(&folder)?;
        Ok(folder)
    }
}

/// All that was run.
#[derive(Default)]
struct Runs {
    /// By the place of the unit.
    recompiled: Vec<(usize, Option<(PathBuf, Near)>)>,
    /// By the place of the unit.
    original: Vec<(usize, Backend)>,
    patched: Vec<Backend>,
    slices: Slices,
}

/// Which functions of the touched units are the same in both sources; those of other units are.
fn sameness(compiled: &[Unlinked]) -> impl Fn(&str) -> Sameness + Sync + use<> {
    let mut known = std::collections::BTreeMap::new();
    for unit in compiled {
        let (original, patched): (&Functions, &Functions) = (unit.original.functions(), &unit.functions);
        for name in original.keys().chain(patched.keys()) {
            let found = same(original.get(name), patched.get(name));
            // Statics of one name in two units: both must be the same.
            known.entry(name.clone()).and_modify(|old| *old = worse(*old, found)).or_insert(found);
        }
    }
    move |name: &str| {
        let base = name.split('.').next().unwrap_or(name);
        known.get(base).copied().unwrap_or(Sameness::Same)
    }
}

/// Why a build must not be taken that leaves these functions out.
fn refusal(
    original: &[Original],
    left_out: &BTreeSet<String>,
    is_same: impl Fn(&str) -> bool,
) -> Option<String> {
    let texts = original.iter().flat_map(|original| [&original.compiled, &original.linked]);
    let holders = differing::holders(texts.flat_map(|text| remarks::parse(text)), is_same);
    let holder = left_out.iter().find(|name| holders.contains(name.as_str()))?;
    Some(format!("it would leave out {holder}, which inlined what the patch changes"))
}

/// Functions that differ in one build and not in another.
fn left_out(plain: &Build, best: &Build) -> BTreeSet<String> {
    let pairs = plain.differing.iter().zip(&best.differing);
    pairs.flat_map(|(plain, best)| plain.functions.difference(&best.functions)).cloned().collect()
}

fn functions(differing: &[Differing]) -> usize {
    differing.iter().map(|unit| unit.functions.len()).sum()
}

/// True when some unit is nearer, and none is farther.
fn nearer(again: &[Differing], plain: &[Differing]) -> bool {
    let mut pairs = again.iter().zip(plain);
    again != plain && pairs.all(|(again, plain)| again == plain || again.is_nearer_than(plain))
}

fn same(original: Option<&Identity>, patched: Option<&Identity>) -> Sameness {
    match (original, patched) {
        (Some(a), Some(b)) if a == b => Sameness::Same,
        (Some(a), Some(b)) if a.attributes == b.attributes => Sameness::Attributes,
        _ => Sameness::Other,
    }
}

fn worse(a: Sameness, b: Sameness) -> Sameness {
    match (a, b) {
        (Sameness::Other, _) | (_, Sameness::Other) => Sameness::Other,
        (Sameness::Attributes, _) | (_, Sameness::Attributes) => Sameness::Attributes,
        _ => Sameness::Same,
    }
}
