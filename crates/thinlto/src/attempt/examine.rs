//! Finds out what must be known of units so that the inliner can decide as for the original: which functions are the
//! same in both sources, and what the original's compilation inlined. This takes three compilations per unit, so only
//! units that differ are examined, and facts about the original are kept.

use std::collections::BTreeMap;

use crate::llvm::summary;
use klpx_diagnosis::Result;

use super::Attempt;
use crate::differing::DifferingNames;
use crate::files;
use crate::originals::{Functions, OriginalCompilation, functions_of};
use crate::sameness::KnownSameness;
use crate::unit::{Compilation, OutputForm, SourceSide};
use klpx_build_driver::{each, is_bitcode};

/// What is known of the units.
pub(crate) struct Examined {
    /// The examined units, by their place among the touched units.
    pub(super) units: BTreeMap<usize, ExaminedUnit>,
    /// Which functions are the same in both sources. `None` if an original does not come out as kbuild made it: the
    /// remarks then belong to another compilation.
    pub(crate) known: Option<KnownSameness>,
}

/// What is known of one unit.
pub(super) struct ExaminedUnit {
    pub(super) original: OriginalCompilation,
    patched: Functions,
}

/// The result of a task.
enum ExamineResult {
    Bitcode(Compilation),
    Functions(Functions),
    /// The task was not run.
    Nothing,
}

impl Attempt<'_> {
    /// Examines the units that differ, once.
    pub(crate) fn examine(&self, differing: &[DifferingNames]) -> Result<&Examined> {
        if let Some(examined) = self.examined.get() {
            return Ok(examined);
        }
        let differs = |&at: &usize| !differing[at].functions.is_empty();
        let which: Vec<usize> = (0..differing.len()).filter(differs).collect();
        let examined = self.look_at(&which)?;
        Ok(self.examined.get_or_init(|| examined))
    }

    fn look_at(&self, which: &[usize]) -> Result<Examined> {
        let kept: Vec<Option<OriginalCompilation>> =
            which.iter().map(|&at| self.originals.read(&self.units[at].object)).collect();
        // The longest tasks first.
        const TASKS: [(OutputForm, SourceSide); 3] = [
            (OutputForm::Bitcode, SourceSide::Original),
            (OutputForm::Text, SourceSide::Patched),
            (OutputForm::Text, SourceSide::Original),
        ];
        let count = which.len();
        let done = each(self.context.jobs, TASKS.len() * count, |task| -> Result<ExamineResult> {
            let ((form, side), n) = (TASKS[task / count], task % count);
            if side == SourceSide::Original && kept[n].is_some() {
                return Ok(ExamineResult::Nothing);
            }
            let compiled = self.compiler.compile(&self.units[which[n]], side, form, side.name())?;
            Ok(match form {
                OutputForm::Bitcode | OutputForm::Nothing => ExamineResult::Bitcode(compiled),
                OutputForm::Text => ExamineResult::Functions(functions_of(&compiled.file)?),
            })
        });
        let mut done = done.into_iter().collect::<Result<Vec<ExamineResult>>>()?;
        let mut take =
            |task: usize, n: usize| std::mem::replace(&mut done[task * count + n], ExamineResult::Nothing);
        let mut units = BTreeMap::new();
        for (n, (&at, kept)) in which.iter().zip(kept).enumerate() {
            let original = match (kept, take(0, n), take(2, n)) {
                (Some(kept), ..) => kept,
                (None, ExamineResult::Bitcode(compiled), ExamineResult::Functions(functions)) => {
                    if !self.is_as_kbuild_made_it(at, &compiled)? {
                        return Ok(Examined { units: BTreeMap::new(), known: None });
                    }
                    let original = OriginalCompilation { functions, compiled: compiled.output };
                    self.originals.keep(&self.units[at].object, &original)?;
                    original
                }
                _ => continue,
            };
            if let ExamineResult::Functions(patched) = take(1, n) {
                units.insert(at, ExaminedUnit { original, patched });
            }
        }
        let both = units.values().map(|unit| (&unit.original.functions, &unit.patched));
        let mut known = KnownSameness::compare(both);
        for at in (0..self.units.len()).filter(|at| !units.contains_key(at)) {
            self.distrust(at, &mut known)?;
        }
        Ok(Examined { units, known: Some(known) })
    }

    /// Marks all functions of a touched unit that was not examined as unknown.
    fn distrust(&self, at: usize, known: &mut KnownSameness) -> Result<()> {
        let file =
            files::read(&self.compiler.work.join(SourceSide::Patched.name()).join(&self.units[at].object))?;
        for name in summary::functions(&file).unwrap_or_default() {
            known.distrust(&String::from_utf8_lossy(name));
        }
        Ok(())
    }

    /// Returns true if kbuild's bitcode equals what was compiled here. An object that is no bitcode is not compared.
    fn is_as_kbuild_made_it(&self, at: usize, compiled: &Compilation) -> Result<bool> {
        let built = self.context.build.join(&self.units[at].object);
        let same = !is_bitcode(&built) || files::read(&built)? == files::read(&compiled.file)?;
        if !same {
            tracing::debug!(unit = self.units[at].object, "does not repeat");
        }
        Ok(same)
    }
}
