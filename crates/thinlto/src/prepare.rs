//! Makes pairs of finished native objects from touched units: for the units that the patch touches, and for those to
//! which the thin link tells something else.

mod others;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use klpx_build_driver::Progress;
use klpx_build_driver::kbuild::{ObjtoolRule, UnitList, objtool};
use klpx_build_driver::process::Call;
use klpx_diagnosis::{Diagnosis, Result};

use crate::attempt::run::no_backend;
use crate::attempt::{Attempt, Chosen, ChosenUnit};
use crate::context::Context;
use crate::link::Link;
use crate::linker::{Backend, Slices};
use crate::moved::Moved;
use crate::originals::OriginalsFolder;
use crate::sides::LinkSides;
use crate::unit::{OutputForm, Overlays, SourceSide, UnitCommands, UnitCompiler};
use crate::view::View;
use crate::{Level, ReplayOutcome, declare, files};
use klpx_build_driver::each;
use others::OtherUnits;

/// A kernel object that is linked by ThinLTO, and its units that the patch touches.
#[derive(Clone, Debug)]
pub struct TouchedObject {
    /// The link of the object.
    pub link: Link,
    /// The inputs that the patch touches.
    pub units: Vec<UnitCommands>,
    /// The units that the patch adds to the link.
    pub added: Vec<Added>,
}

/// A unit that only the patched source has.
#[derive(Clone, Debug)]
pub struct Added {
    /// The unit.
    pub unit: UnitCommands,
    /// The unit's bitcode, as kbuild made it.
    pub bitcode: PathBuf,
    /// What objtool does to the unit.
    pub objtool: ObjtoolRule,
}

/// One unit's native code, after objtool, before and after the patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NativePair {
    /// The unit's object, as a path from the build tree.
    pub unit: String,
    /// The native code from the original source.
    pub original: PathBuf,
    /// The native code from the patched source.
    pub patched: PathBuf,
    /// True for a unit that the patch adds: the counterpart is compiled from an empty file.
    pub is_new: bool,
}

/// The result for one kernel object.
#[derive(Clone, Debug, Default)]
pub struct ObjectResult {
    /// The touched units in the order of [`TouchedObject::units`], then the other units whose native code differs, by name.
    pub pairs: Vec<NativePair>,
    /// The number of frozen units: touched units in which everything that others can import is the same to the letter.
    pub frozen: usize,
    /// The number of functions that touched units would newly import.
    pub held_back: usize,
    /// Names of constants that denote something else in the patched objects than in the originals.
    pub moved: BTreeSet<Vec<u8>>,
    /// The outcome of replaying the inlining, if there was something to undo.
    pub outcome: Option<ReplayOutcome>,
    /// The number of functions in untouched units that would differ without the original's inlining.
    pub spared: usize,
}

/// A kernel, and the patch for which native code is made.
#[derive(Clone, Copy)]
pub struct PatchContext<'a> {
    /// The kernel.
    pub context: &'a Context<'a>,
    /// The kernel's units. The list says what objtool does to each.
    pub list: &'a UnitList,
    /// How clang finds the original and the patched source.
    pub overlays: &'a Overlays,
    /// How far the patched build is brought nearer to the original.
    pub level: Level,
    /// Receives the steps.
    pub progress: &'a dyn Progress,
}

/// Makes the native code of one object's units that depends on the patch, from both sources. `work` is a folder that
/// belongs to the patch and holds what is made of the patched source.
///
/// # Errors
/// Fails if a unit does not compile, if the thin link or objtool fails, or on an interrupt.
pub fn prepare(patch: PatchContext<'_>, touched: &TouchedObject, work: &Path) -> Result<ObjectResult> {
    let PatchContext { context, list, overlays, level, progress } = patch;
    let originals = OriginalsFolder::of(&context.store_of(&touched.link.object));
    files::create_dir(work)?;
    let compiler = UnitCompiler { runner: context.runner, build: &context.build, overlays, work };
    let added =
        touched.added.iter().map(|added| (added.unit.object.clone(), added.bitcode.clone())).collect();
    let sides = LinkSides::new(&touched.link, added);
    let attempt = Attempt {
        context,
        sides: &sides,
        units: &touched.units,
        compiler,
        originals: &originals,
        work,
        level,
        progress,
        examined: OnceLock::new(),
    };
    let chosen = attempt.run()?;
    let preparation = Preparation {
        context,
        touched,
        list,
        attempt: &attempt,
        sides: &sides,
        compiler,
        originals: &originals,
        work,
        progress,
    };
    let moved = preparation.moved_names(&chosen)?;
    let OtherUnits { natives, spared } = preparation.others(&chosen, &moved)?;
    let added = preparation.added(&chosen)?;
    let made = preparation.finish(chosen, natives, added)?;
    Ok(ObjectResult { moved: moved.constants, spared, ..made })
}

struct Preparation<'a> {
    context: &'a Context<'a>,
    touched: &'a TouchedObject,
    list: &'a UnitList,
    attempt: &'a Attempt<'a>,
    sides: &'a LinkSides,
    compiler: UnitCompiler<'a>,
    originals: &'a OriginalsFolder,
    work: &'a Path,
    progress: &'a dyn Progress,
}

/// The native code of a unit from both sides.
struct Natives {
    unit: String,
    original: PathBuf,
    patched: PathBuf,
}

impl Preparation<'_> {
    /// The names of the touched units that denote something else.
    fn moved_names(&self, chosen: &Chosen) -> Result<Moved> {
        let between = |at: usize| Moved::between(&chosen.units[at].original, &chosen.units[at].patched);
        let mut all = Moved::default();
        for moved in each(self.context.jobs, chosen.units.len(), between) {
            all.extend(moved?);
        }
        for (unit, chosen) in self.touched.units.iter().zip(&chosen.units) {
            all.is_used_by(&unit.object, &chosen.patched)?;
        }
        Ok(all)
    }

    /// What the thin link tells the original's units. The result is kept.
    fn original_slices(&self, chosen: &Chosen) -> Result<Slices> {
        let path = self.context.store_of(&self.touched.link.object).join("slices.json");
        let kept = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        if let Some(slices) = kept {
            return Ok(slices);
        }
        self.progress.step("linking the original's decisions");
        let view =
            self.view(SourceSide::Original, "decisions", |unit| unit.original_bitcode.clone(), chosen)?;
        let slices = self.context.linker().slices(&view, &self.work.join("slices/original"))?;
        let text =
            serde_json::to_vec(&slices).map_err(|error| Diagnosis::io("write", &path, &error.into()))?;
        files::keep(&path, text)?;
        Ok(slices)
    }

    fn view(
        &self,
        side: SourceSide,
        name: &str,
        bitcode: impl Fn(&ChosenUnit) -> PathBuf,
        chosen: &Chosen,
    ) -> Result<View<'_>> {
        let units = self.touched.units.iter().zip(&chosen.units);
        let swaps: BTreeMap<String, PathBuf> =
            units.map(|(unit, chosen)| (unit.object.clone(), bitcode(chosen))).collect();
        self.sides.view(self.context, side, &self.work.join("views").join(name), swaps)
    }

    /// Compiles units of the patched link to native code.
    fn backends(&self, name: &str, units: &[&str], chosen: &Chosen) -> Result<Vec<Backend>> {
        let view = self.view(SourceSide::Patched, name, |unit| unit.bitcode.clone(), chosen)?;
        let scratch = self.work.join("backends").join(name);
        let made = self.context.linker().backends(&view, units, &[], &scratch)?;
        made.ok_or_else(|| no_backend(units))
    }

    /// The units that the patch adds, each paired with an object of an empty file.
    fn added(&self, chosen: &Chosen) -> Result<Vec<Natives>> {
        let units: Vec<&str> = self.touched.added.iter().map(|added| added.unit.object.as_str()).collect();
        if units.is_empty() {
            return Ok(Vec::new());
        }
        let patched = self.backends("added", &units, chosen)?;
        let pair = |(Added { unit, .. }, patched): (&Added, Backend)| {
            let empty = self.compiler.compile(unit, SourceSide::Patched, OutputForm::Nothing, "nothing")?;
            Ok(Natives { unit: unit.object.clone(), original: empty.file, patched: patched.object })
        };
        self.touched.added.iter().zip(patched).map(pair).collect()
    }

    /// Runs objtool over all objects, and makes the pairs.
    fn finish(&self, chosen: Chosen, others: Vec<Natives>, added: Vec<Natives>) -> Result<ObjectResult> {
        self.progress.step("running objtool");
        let mut made = ObjectResult { outcome: chosen.outcome, ..ObjectResult::default() };
        let mut natives = Vec::new();
        for (unit, chosen) in self.touched.units.iter().zip(chosen.units) {
            made.held_back += chosen.near.held_back;
            made.frozen += usize::from(chosen.near.frozen);
            let unit = unit.object.clone();
            natives.push(Natives { unit, original: chosen.original, patched: chosen.patched });
        }
        natives.extend(others);
        let known = natives.len();
        natives.extend(added);
        let pairs = each(self.context.jobs, natives.len(), |at| -> Result<NativePair> {
            let Natives { unit, original, patched } = &natives[at];
            Ok(NativePair {
                unit: unit.clone(),
                original: match at < known {
                    true => self.finished_original(unit, original)?,
                    false => self.finished(unit, original, &self.work.join("finished/nothing").join(unit))?,
                },
                patched: self.finished(unit, patched, &self.work.join("finished/patched").join(unit))?,
                is_new: at >= known,
            })
        });
        made.pairs = pairs.into_iter().collect::<Result<_>>()?;
        Ok(made)
    }

    /// An original after objtool. The result is kept.
    fn finished_original(&self, unit: &str, native: &Path) -> Result<PathBuf> {
        let path = self.context.store_of(&self.touched.link.object).join("finished").join(unit);
        if !path.is_file() {
            let made = self.finished(unit, native, &self.work.join("finished/original").join(unit))?;
            files::keep(&path, files::read(&made)?)?;
        }
        Ok(path)
    }

    /// Copies a unit's native object to `to` and runs objtool over it as the link of the kernel does.
    fn finished(&self, unit: &str, native: &Path, to: &Path) -> Result<PathBuf> {
        files::create_dir(to.parent().unwrap_or(to))?;
        let native = files::read(native)?;
        let known = self.list.by_object(unit).map(|id| self.list.objtool(id));
        let added = || self.touched.added.iter().find(|added| added.unit.object == unit);
        let rule = known.or_else(|| added().map(|added| &added.objtool));
        let options = rule.and_then(ObjtoolRule::options);
        let (Some(options), Some(program)) = (options, self.list.objtool_program()) else {
            files::write(to, native)?;
            return Ok(to.to_owned());
        };
        files::write(to, declare::for_objtool(&native, options).unwrap_or(native))?;
        let build = &self.context.build;
        let call = Call::new(build.join(program)).dir(build).args(options).arg(to);
        let outcome = self.context.runner.run(&call)?;
        match outcome.success {
            true => Ok(to.to_owned()),
            false => Err(objtool::failure("objtool", unit, outcome.lines).into()),
        }
    }
}

#[cfg(test)]
mod tests;
