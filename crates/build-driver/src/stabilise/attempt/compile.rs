//! The compilation of the touched units, before anything is linked: from both sources, and with the original's
//! decisions.

use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, Result};
use klpx_stabilise::ir::Module;

use super::Attempt;
use crate::parallel::each;
use crate::stabilise::originals::{self, Functions, Original};
use crate::stabilise::unit::{Compiled, Form, Side};

/// What the compiler makes of one unit's patched source, and of its original where that is not known yet.
pub(super) struct Unlinked {
    pub(super) patched: Compiled,
    pub(super) functions: Functions,
    pub(super) original: OriginalSide,
}

pub(super) enum OriginalSide {
    Kept(Original),
    New { compiled: Compiled, functions: Functions },
}

impl OriginalSide {
    pub(super) fn functions(&self) -> &Functions {
        match self {
            OriginalSide::Kept(kept) => &kept.functions,
            OriginalSide::New { functions, .. } => functions,
        }
    }

    /// The inliner's remarks of the compilation.
    pub(super) fn remarks(&self) -> &str {
        match self {
            OriginalSide::Kept(kept) => &kept.compiled,
            OriginalSide::New { compiled, .. } => &compiled.output,
        }
    }
}

impl Attempt<'_> {
    /// Compiles the units from their patched source. `None` when one fails.
    pub(super) fn compile_patched(&self) -> Result<Option<Vec<PathBuf>>> {
        let units = &self.touched.units;
        let compiled = each(self.jobs(), units.len(), |at| {
            let compiled =
                self.compiler.compile(&units[at], Side::Patched, Form::Bitcode, Side::Patched.name(), &[])?;
            Ok(compiled.map(|compiled| compiled.file))
        });
        compiled.into_iter().collect()
    }

    /// Compiles the units from both sources, and finds their functions. `None` when anything fails.
    pub(super) fn compile(&self) -> Result<Option<Vec<Unlinked>>> {
        let units = &self.touched.units;
        let kept: Vec<Option<Original>> =
            units.iter().map(|unit| originals::read(self.workspace, &unit.object)).collect();
        // The long ones first.
        const TASKS: [(Form, Side); 4] = [
            (Form::Bitcode, Side::Patched),
            (Form::Bitcode, Side::Original),
            (Form::Text, Side::Patched),
            (Form::Text, Side::Original),
        ];
        let count = units.len();
        let done = each(self.jobs(), TASKS.len() * count, |at| -> Result<Made> {
            let ((form, side), at) = (TASKS[at / count], at % count);
            if side == Side::Original && kept[at].is_some() {
                return Ok(Made::Known);
            }
            let compiled = self.compiler.compile(&units[at], side, form, side.name(), &[])?;
            Ok(match (compiled, form) {
                (None, _) => Made::Failed,
                (Some(compiled), Form::Bitcode) => Made::Bitcode(compiled),
                (Some(compiled), Form::Text) => Made::Functions(functions_of(&compiled.file)?),
            })
        });
        let mut done = done.into_iter().collect::<Result<Vec<Made>>>()?;
        let mut take = |task: usize, at: usize| std::mem::replace(&mut done[task * count + at], Made::Known);
        let mut found = Vec::new();
        for (at, kept) in kept.into_iter().enumerate() {
            let (Made::Bitcode(patched), Made::Functions(functions)) = (take(0, at), take(2, at)) else {
                return Ok(None);
            };
            let original = match (kept, take(1, at), take(3, at)) {
                (Some(kept), ..) => OriginalSide::Kept(kept),
                (None, Made::Bitcode(compiled), Made::Functions(functions)) => {
                    OriginalSide::New { compiled, functions }
                }
                _ => return Ok(None),
            };
            found.push(Unlinked { patched, functions, original });
        }
        Ok(Some(found))
    }

    /// Compiles a unit with the original's decisions. `None` when that fails.
    pub(super) fn recompile(&self, at: usize, records: &str) -> Result<Option<Compiled>> {
        let unit = &self.touched.units[at];
        let options = self.options("compile", unit, records)?;
        self.compiler.compile(unit, Side::Patched, Form::Bitcode, "replayed", &options)
    }
}

/// What a task of a compilation made.
enum Made {
    Bitcode(Compiled),
    Functions(Functions),
    /// It was not run.
    Known,
    Failed,
}

/// The functions of a file of IR.
fn functions_of(file: &Path) -> Result<Functions> {
    let text = std::fs::read_to_string(file).map_err(|error| Diagnosis::io("read", file, &error))?;
    let module = Module::parse(&text);
    let names = module.names().map(str::to_owned);
    Ok(names.filter_map(|name| Some((name.clone(), module.identity(&name)?))).collect())
}
