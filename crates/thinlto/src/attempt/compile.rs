//! The compilation of the touched units, before anything is linked: from both sources, and with the original's
//! decisions.

use std::path::{Path, PathBuf};

use crate::llvm::ir::Module;
use klpx_diagnosis::Result;

use super::Attempt;
use crate::files;
use crate::originals::{Functions, Original};
use crate::unit::{Compiled, Form, Side};
use klpx_build_driver::each;

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

/// What a task of a compilation made.
enum Made {
    Bitcode(Compiled),
    Functions(Functions),
    /// It was not run.
    Known,
}

impl Attempt<'_> {
    /// Compiles the units from their patched source.
    pub(super) fn compile_patched(&self) -> Result<Vec<PathBuf>> {
        let compiled = each(self.context.jobs, self.units.len(), |at| {
            let name = Side::Patched.name();
            let compiled = self.compiler.compile(&self.units[at], Side::Patched, Form::Bitcode, name)?;
            Ok(compiled.file)
        });
        compiled.into_iter().collect()
    }

    /// The bitcode of the units' originals: kbuild's own, but for a module of one unit, whose object has taken its
    /// place.
    pub(super) fn original_bitcode(&self) -> Result<Vec<PathBuf>> {
        let found = each(self.context.jobs, self.units.len(), |at| {
            let unit = &self.units[at];
            let built = self.context.build.join(&unit.object);
            if files::is_bitcode(&built) {
                return Ok(built);
            }
            let name = Side::Original.name();
            // A compilation with remarks may have made it.
            let made = self.compiler.work.join(name).join(&unit.object);
            if made.is_file() {
                return Ok(made);
            }
            Ok(self.compiler.compile(unit, Side::Original, Form::Bitcode, name)?.file)
        });
        found.into_iter().collect()
    }

    /// Compiles the units from both sources, and finds their functions.
    pub(super) fn compile(&self) -> Result<Vec<Unlinked>> {
        let units = self.units;
        let kept: Vec<Option<Original>> =
            units.iter().map(|unit| self.originals.read(&unit.object)).collect();
        // The long ones first.
        const TASKS: [(Form, Side); 4] = [
            (Form::Bitcode, Side::Patched),
            (Form::Bitcode, Side::Original),
            (Form::Text, Side::Patched),
            (Form::Text, Side::Original),
        ];
        let count = units.len();
        let done = each(self.context.jobs, TASKS.len() * count, |at| -> Result<Made> {
            let ((form, side), at) = (TASKS[at / count], at % count);
            if side == Side::Original && kept[at].is_some() {
                return Ok(Made::Known);
            }
            let compiled = self.compiler.compile(&units[at], side, form, side.name())?;
            Ok(match form {
                Form::Bitcode | Form::Nothing => Made::Bitcode(compiled),
                Form::Text => Made::Functions(functions_of(&compiled.file)?),
            })
        });
        let mut done = done.into_iter().collect::<Result<Vec<Made>>>()?;
        let mut take = |task: usize, at: usize| std::mem::replace(&mut done[task * count + at], Made::Known);
        let mut found = Vec::new();
        for (at, kept) in kept.into_iter().enumerate() {
            let original = match (kept, take(1, at), take(3, at)) {
                (Some(kept), ..) => OriginalSide::Kept(kept),
                (None, Made::Bitcode(compiled), Made::Functions(functions)) => {
                    OriginalSide::New { compiled, functions }
                }
                _ => continue,
            };
            if let (Made::Bitcode(patched), Made::Functions(functions)) = (take(0, at), take(2, at)) {
                found.push(Unlinked { patched, functions, original });
            }
        }
        Ok(found)
    }

    /// Compiles a unit with the original's decisions. `None` when that fails: LLVM may not survive them.
    pub(super) fn recompile(&self, at: usize, records: &str) -> Result<Option<Compiled>> {
        let unit = &self.units[at];
        let options = self.options("compile", unit, records)?;
        let what = (unit, Side::Patched, Form::Bitcode);
        Ok(self.compiler.try_compile(what, "replayed", &options)?.ok())
    }
}

/// The functions of a file of IR.
fn functions_of(file: &Path) -> Result<Functions> {
    let text = files::read(file)?;
    let text = String::from_utf8_lossy(&text);
    let module = Module::parse(&text);
    let names = module.names().map(str::to_owned);
    Ok(names.filter_map(|name| Some((name.clone(), module.identity(&name)?))).collect())
}
