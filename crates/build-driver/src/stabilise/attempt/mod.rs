//! One object of the kernel whose units the patch touches: compiles them from both sources, runs their backends, and
//! where LLVM's inliner decides otherwise, lets it decide again as for the original.
//!
//! The inliner runs twice, in the compilation and in the backend. Where their remarks tell of calls that are inlined in
//! one build only, [`klpx_stabilise::replay`] says which decisions can be taken over, and the step runs again with
//! them. A result is taken when what differs from the original's native objects is a proper subset of what differs
//! without it. Decisions of a backend concern its own unit only. Those of a compilation can concern units that import
//! from it, so they are taken only when what others can import stays as near to the original as it was.

mod compile;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, Result};
use klpx_stabilise::ir::Identity;
use klpx_stabilise::replay::{self, Sameness};
use klpx_stabilise::{native, remarks};

use super::freeze::{Freezer, Near};
use super::link::{Backend, Swap};
use super::originals::{self, Original};
use super::touched::Touched;
use super::unit::{Compiler, Unit};
use super::{Differing, Judge, Level, Outcome};
use crate::parallel::each;
use crate::progress::Progress;
use crate::workspace::Workspace;
use compile::{OriginalSide, Unlinked};

/// What kbuild is to link.
pub(crate) struct Chosen {
    /// In the order of the object's units.
    pub(crate) units: Vec<ChosenUnit>,
    /// What came of the inlining, when there was something to undo.
    pub(crate) outcome: Option<Outcome>,
}

pub(crate) struct ChosenUnit {
    pub(crate) bitcode: PathBuf,
    pub(crate) near: Near,
    /// What its backend gives, where that was run.
    pub(crate) native: Option<Native>,
}

/// A unit's native object, and its name in the ThinLTO cache.
#[derive(Clone)]
pub(crate) struct Native {
    pub(crate) object: PathBuf,
    pub(crate) key: OsString,
}

pub(crate) struct Attempt<'a> {
    workspace: &'a Workspace,
    touched: &'a Touched,
    compiler: Compiler<'a>,
    freezer: Freezer<'a>,
    judge: &'a dyn Judge,
    progress: &'a dyn Progress,
}

/// The patched units as they would be linked.
#[derive(Clone)]
struct Build {
    bitcode: Vec<PathBuf>,
    near: Vec<Near>,
    backends: Vec<Backend>,
    /// How each differs from its original.
    differing: Vec<Differing>,
}

/// Why an attempt is given up.
type Why = String;

impl<'a> Attempt<'a> {
    pub(crate) fn new(
        workspace: &'a Workspace,
        (touched, build): (&'a Touched, &'a Path),
        (overlay, work): (&'a Path, &'a Path),
        judge: &'a dyn Judge,
        progress: &'a dyn Progress,
    ) -> Attempt<'a> {
        let compiler = Compiler { runner: &workspace.runner, build, overlay, work };
        let freezer = Freezer::new(workspace, &touched.object);
        Attempt { workspace, touched, compiler, freezer, judge, progress }
    }

    /// What to link. `None` leaves all of it to kbuild.
    pub(crate) fn run(&self, level: Level) -> Result<Option<Chosen>> {
        self.progress.step("compiling what the patch touches");
        if level < Level::Inlining {
            if self.touched.units.iter().any(|unit| unit.is_whole) {
                return Ok(None);
            }
            let Some(patched) = self.compile_patched()? else { return Ok(None) };
            let near = self.bring_near(level, &patched)?;
            return Ok(Some(self.plain(patched, near, None)));
        }
        let Some(compiled) = self.compile()? else {
            let Some(patched) = self.compile_patched()? else { return Ok(None) };
            let near = self.bring_near(level, &patched)?;
            return Ok(Some(self.plain(
                patched,
                near,
                Some((0, 0, "a unit does not compile apart from kbuild".to_owned())),
            )));
        };
        let bitcode: Vec<PathBuf> = compiled.iter().map(|unit| unit.patched.file.clone()).collect();
        let near = self.bring_near(level, &bitcode)?;
        match self.decide(compiled, (&bitcode, &near))? {
            Ok(chosen) => Ok(Some(chosen)),
            Err(why) => {
                tracing::debug!(why, "the inlining is left as it is");
                Ok(Some(self.plain(bitcode, near, Some((0, 0, why)))))
            }
        }
    }

    /// The patched units without native objects.
    fn plain(&self, bitcode: Vec<PathBuf>, near: Vec<Near>, outcome: Option<(usize, usize, Why)>) -> Chosen {
        let units = bitcode.into_iter().zip(near);
        let units = units.map(|(bitcode, near)| ChosenUnit { bitcode, near, native: None }).collect();
        Chosen { units, outcome: outcome.map(|found| self.outcome(found)) }
    }

    fn outcome(&self, (plain, taken, why): (usize, usize, Why)) -> Outcome {
        let given_up = (!why.is_empty()).then_some(why);
        Outcome { object: self.touched.object.clone(), plain, taken, given_up }
    }

    /// Freezes names and holds back imports, in place.
    fn bring_near(&self, level: Level, bitcode: &[PathBuf]) -> Result<Vec<Near>> {
        self.progress.step("freezing names");
        let near = |at: usize| self.bring_unit_near(level, at, &bitcode[at]);
        each(self.jobs(), bitcode.len(), near).into_iter().collect()
    }

    /// A unit that is the only one of its link has no original: nobody else sees its names, and it imports nothing.
    fn bring_unit_near(&self, level: Level, at: usize, bitcode: &Path) -> Result<Near> {
        let unit = &self.touched.units[at];
        match &unit.original {
            Some(original) => {
                self.freezer.bring_near(level, original, bitcode, &self.folder("freeze", unit)?)
            }
            None => Ok(Near::default()),
        }
    }

    /// Runs the backends; chooses between them and what they give with the original's inlining. The inner error says
    /// why the plain build must be left to kbuild.
    fn decide(
        &self,
        compiled: Vec<Unlinked>,
        (bitcode, near): (&[PathBuf], &[Near]),
    ) -> Result<std::result::Result<Chosen, Why>> {
        self.progress.step("compiling to machine code");
        let sameness = sameness(&compiled);
        let records: Vec<Option<String>> = compiled
            .iter()
            .map(|unit| {
                let theirs = remarks::parse(unit.original.remarks());
                replay::records(&theirs, &remarks::parse(&unit.patched.output), &sameness)
            })
            .collect();
        let Some(runs) = self.run_all(&compiled, (bitcode, near), &records)? else {
            return Ok(Err("a backend does not run apart from the link".to_owned()));
        };
        let Some(original) = self.originals(compiled, runs.original)? else {
            return Ok(Err("a unit of the original does not come out as in the baseline".to_owned()));
        };
        let differing = self.differing(&original, &runs.patched)?;
        let (bitcode, near) = (bitcode.to_vec(), near.to_vec());
        let plain = Build { bitcode, near, backends: runs.patched, differing };
        // One function is the least that a change can be.
        if functions(&plain.differing) < 2 {
            return Ok(Ok(self.chosen(plain, None)));
        }
        self.progress.step("undoing what the inliner decides otherwise");
        let again = self.with_recompiled(&original, &plain, runs.recompiled)?;
        let mut tried = again.is_some();
        let mut best = match again {
            Some(again) if nearer(&again.differing, &plain.differing) => again,
            _ => plain.clone(),
        };
        tried |= self.replay_backends(&original, &mut best, &sameness)?;
        if !tried {
            return Ok(Ok(self.chosen(plain, None)));
        }
        let (before, after) = (functions(&plain.differing), functions(&best.differing));
        let is_same = |name: &str| sameness(name) == Sameness::Same;
        let refused = match after < before {
            true => self.judge.refuses(&self.original(), &left_out(&plain, &best), &is_same),
            false => Some("the original's inlining brings it no nearer".to_owned()),
        };
        Ok(Ok(match refused {
            Some(why) => self.chosen(plain, Some((before, before, why))),
            None => self.chosen(best, Some((before, after, String::new()))),
        }))
    }

    /// The original of the object.
    fn original(&self) -> PathBuf {
        self.workspace.baseline_dir().join(&self.touched.object)
    }

    /// Runs the backends of both sides, and beside them the compilations with records. `None` when a backend fails.
    fn run_all(
        &self,
        compiled: &[Unlinked],
        (bitcode, near): (&[PathBuf], &[Near]),
        records: &[Option<String>],
    ) -> Result<Option<Runs>> {
        let units = self.touched.units.iter().zip(compiled).zip(bitcode);
        let inputs: Vec<PathBuf> = units
            .map(|((unit, compiled), patched)| match &compiled.original {
                OriginalSide::New { compiled, .. } => compiled.file.clone(),
                // A unit without an original is the only one of its link, and is not run when it is kept.
                OriginalSide::Kept(_) => unit.original.as_ref().unwrap_or(patched).clone(),
            })
            .collect();
        let count = compiled.len();
        // More to do than can be done at once: then the longest way begins first, and goes on to its end.
        let at_once = match compiled {
            [Unlinked { original: OriginalSide::New { .. }, .. }] => self.jobs() < STEPS,
            _ => false,
        };
        let run = |at: usize| -> Result<Run> {
            let (step, at) = (at / count, at % count);
            Ok(match (step, &compiled[at].original, &records[at]) {
                (0, _, Some(records)) => Run::Recompiled(self.recompiled(at, records, &near[at], at_once)?),
                (1, OriginalSide::New { .. }, _) => {
                    Run::backend(self.backend("original", at, &inputs, &[])?)
                }
                (2, ..) => Run::backend(self.backend("patched", at, bitcode, &[])?),
                _ => Run::Nothing,
            })
        };
        let mut runs = Runs::default();
        for (at, run) in each(self.jobs(), STEPS * count, run).into_iter().enumerate() {
            match (at / count, run?) {
                (_, Run::Failed) => return Ok(None),
                (0, Run::Recompiled(again)) => runs.recompiled.push(Some(again)),
                (0, _) => runs.recompiled.push(None),
                (1, Run::Backend(backend)) => runs.original.push(Some(backend)),
                (1, _) => runs.original.push(None),
                (_, Run::Backend(backend)) => runs.patched.push(backend),
                (_, _) => {}
            }
        }
        Ok(Some(runs))
    }

    /// Compiles a unit with the original's decisions; `at_once` runs its backend too. `None` when that fails, or when
    /// others could import less of what the original offers than from the plain build.
    fn recompiled(&self, at: usize, records: &str, plain: &Near, at_once: bool) -> Result<Option<Again>> {
        let Some(compiled) = self.recompile(at, records)? else { return Ok(None) };
        let near = self.bring_unit_near(Level::Inlining, at, &compiled.file)?;
        if plain.frozen.is_some() && near.frozen.is_none() {
            return Ok(None);
        }
        let bitcode = compiled.file;
        let backend = match at_once {
            true => self.backend(RECOMPILED, at, std::slice::from_ref(&bitcode), &[])?,
            false => None,
        };
        Ok(Some(Again { bitcode, near, backend }))
    }

    /// What is known of the originals, kept for the next patch. `None` when one is not as in the baseline.
    fn originals(
        &self,
        compiled: Vec<Unlinked>,
        backends: Vec<Option<Backend>>,
    ) -> Result<Option<Vec<Original>>> {
        let mut found = Vec::new();
        for ((unit, compiled), backend) in self.touched.units.iter().zip(compiled).zip(backends) {
            let original = match (compiled.original, backend) {
                (OriginalSide::Kept(kept), _) => kept,
                (OriginalSide::New { compiled, functions }, Some(backend)) => {
                    let Some(native) = self.in_baseline(&backend) else { return Ok(None) };
                    let original =
                        Original { functions, compiled: compiled.output, native, linked: backend.remarks };
                    originals::write(self.workspace, &unit.object, &original)?;
                    original
                }
                (OriginalSide::New { .. }, None) => return Ok(None),
            };
            found.push(original);
        }
        Ok(Some(found))
    }

    fn chosen(&self, build: Build, outcome: Option<(usize, usize, Why)>) -> Chosen {
        let units = build.bitcode.into_iter().zip(build.near).zip(build.backends);
        let units = units.map(|((bitcode, near), backend)| {
            let native = Some(Native { object: backend.object, key: backend.key });
            ChosenUnit { bitcode, near, native }
        });
        Chosen { units: units.collect(), outcome: outcome.map(|found| self.outcome(found)) }
    }

    /// The patched units with those that were compiled with the original's decisions. `None` when there are none, or
    /// one of them failed.
    fn with_recompiled(
        &self,
        original: &[Original],
        plain: &Build,
        recompiled: Vec<Option<Option<Again>>>,
    ) -> Result<Option<Build>> {
        let (mut bitcode, mut near) = (plain.bitcode.clone(), plain.near.clone());
        let mut done = vec![None; bitcode.len()];
        for (at, again) in recompiled.into_iter().enumerate() {
            let Some(again) = again else { continue };
            let Some(again) = again else { return Ok(None) };
            (bitcode[at], near[at], done[at]) = (again.bitcode, again.near, again.backend);
        }
        if bitcode == plain.bitcode {
            return Ok(None);
        }
        let backends = each(self.jobs(), bitcode.len(), |at| match &done[at] {
            Some(backend) => Ok(Some(Backend::clone(backend))),
            None => self.backend(RECOMPILED, at, &bitcode, &[]),
        });
        let backends: Result<Option<Vec<Backend>>> = backends.into_iter().collect();
        let Some(backends) = backends? else { return Ok(None) };
        let differing = self.differing(original, &backends)?;
        Ok(Some(Build { bitcode, near, backends, differing }))
    }

    /// Runs backends once more with the original's decisions, and takes each object that is nearer. False when there is
    /// nothing to take over.
    fn replay_backends(
        &self,
        original: &[Original],
        build: &mut Build,
        sameness: &(dyn Fn(&str) -> Sameness + Sync),
    ) -> Result<bool> {
        let replayed = each(self.jobs(), original.len(), |at| -> Result<Option<Backend>> {
            let ours = &build.backends[at].remarks;
            let theirs = replay::with_hashes_of(&original[at].linked, ours);
            let records = replay::records(&remarks::parse(&theirs), &remarks::parse(ours), sameness);
            let Some(records) = records else { return Ok(None) };
            let options = self.options("backend", &self.touched.units[at], &records)?;
            self.backend("replayed", at, &build.bitcode, &options)
        });
        let mut tried = false;
        for (at, replayed) in replayed.into_iter().enumerate() {
            let Some(replayed) = replayed? else { continue };
            tried = true;
            let found = self.judge.differing(&original[at].native, &replayed.object)?;
            if found.is_nearer_than(&build.differing[at]) {
                build.backends[at].object = replayed.object;
                build.differing[at] = found;
            }
        }
        Ok(tried)
    }

    /// Runs the backend of one unit, with `bitcode` in the places of all touched ones.
    fn backend(
        &self,
        name: &str,
        at: usize,
        bitcode: &[PathBuf],
        llvm: &[String],
    ) -> Result<Option<Backend>> {
        let units = &self.touched.units;
        let swaps: Vec<Swap<'_>> =
            units.iter().zip(bitcode).map(|(unit, with)| Swap { unit: &unit.object, with }).collect();
        let folder = self.folder(&format!("backend-{name}"), &units[at])?;
        let ld = &self.workspace.kernel().toolchain().ld;
        let tools = (ld.as_str(), self.compiler.runner, self.compiler.build);
        self.touched.link.backend(tools, &units[at].object, &swaps, llvm, &folder)
    }

    /// The entry of the baseline's cache, when a backend's object is the one that the baseline was linked from.
    fn in_baseline(&self, backend: &Backend) -> Option<PathBuf> {
        let entry = self.workspace.lto_cache().join(&backend.key);
        let (kept, made) = (std::fs::read(&entry).ok()?, std::fs::read(&backend.object).ok()?);
        native::same(&kept, &made).then_some(entry)
    }

    fn differing(&self, original: &[Original], patched: &[Backend]) -> Result<Vec<Differing>> {
        let pairs = original.iter().zip(patched);
        pairs.map(|(original, patched)| self.judge.differing(&original.native, &patched.object)).collect()
    }

    /// Writes records down; LLVM's options that make it read them.
    fn options(&self, step: &str, unit: &Unit, records: &str) -> Result<[String; 3]> {
        let path = self.folder(&format!("{step}-records"), unit)?.join("records.txt");
        std::fs::write(&path, records).map_err(|error| Diagnosis::io("write", &path, &error))?;
        Ok(replay::options(&path.display().to_string()))
    }

    /// A folder for what one step makes of one unit.
    fn folder(&self, step: &str, unit: &Unit) -> Result<PathBuf> {
        let folder = self.compiler.work.join(step).join(&unit.object);
        std::fs::create_dir_all(&folder).map_err(|error| Diagnosis::io("create", &folder, &error))?;
        Ok(folder)
    }

    fn jobs(&self) -> usize {
        self.workspace.kernel().jobs()
    }
}

/// What is run for each unit before the link: its compilation with records, the backends of both sides.
const STEPS: usize = 3;

/// The name of the backends' step for units that were compiled with records.
const RECOMPILED: &str = "recompiled";

/// A unit that was compiled with the original's decisions.
struct Again {
    bitcode: PathBuf,
    near: Near,
    /// Its backend, where that was run at once.
    backend: Option<Backend>,
}

/// What a task before the link made.
enum Run {
    Backend(Backend),
    /// A compilation with records; the outer option of [`Runs::recompiled`] says whether there was one.
    Recompiled(Option<Again>),
    /// It was not run.
    Nothing,
    Failed,
}

impl Run {
    fn backend(made: Option<Backend>) -> Run {
        made.map_or(Run::Failed, Run::Backend)
    }
}

/// All of them, in the order of the units.
#[derive(Default)]
struct Runs {
    original: Vec<Option<Backend>>,
    patched: Vec<Backend>,
    recompiled: Vec<Option<Option<Again>>>,
}

/// Which functions of the touched units are the same in both sources; those of other units are.
fn sameness(compiled: &[Unlinked]) -> impl Fn(&str) -> Sameness + Sync + use<> {
    let mut known = std::collections::BTreeMap::new();
    for unit in compiled {
        let (original, patched) = (unit.original.functions(), &unit.functions);
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
