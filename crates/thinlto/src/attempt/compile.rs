//! Compiles the touched units, before anything is linked: from the patched source, and again with the original's
//! decisions.

use std::path::PathBuf;

use klpx_diagnosis::Result;

use super::Attempt;
use crate::unit::{Compilation, CompilationInput, OutputForm, SourceSide};
use klpx_build_driver::{each, is_bitcode};

impl Attempt<'_> {
    /// Compiles the units from their patched source, with remarks.
    pub(super) fn compile_patched(&self) -> Result<Vec<Compilation>> {
        let compile = |at: usize| {
            self.compiler.compile(
                &self.units[at],
                SourceSide::Patched,
                OutputForm::Bitcode,
                SourceSide::Patched.name(),
            )
        };
        each(self.context.jobs, self.units.len(), compile).into_iter().collect()
    }

    /// The bitcode of the units' originals. This is kbuild's own, except for a module of one unit: there the module's
    /// object has overwritten the bitcode.
    pub(super) fn original_bitcode(&self) -> Result<Vec<PathBuf>> {
        let found = each(self.context.jobs, self.units.len(), |at| {
            let unit = &self.units[at];
            let built = self.context.build.join(&unit.object);
            if is_bitcode(&built) {
                return Ok(built);
            }
            Ok(self
                .compiler
                .compile(unit, SourceSide::Original, OutputForm::Bitcode, SourceSide::Original.name())?
                .file)
        });
        found.into_iter().collect()
    }

    /// Compiles a unit with the original's decisions. Returns `None` if the compiler fails: LLVM may crash on these
    /// decisions.
    pub(super) fn recompile(&self, at: usize, records: &str) -> Result<Option<Compilation>> {
        let unit = &self.units[at];
        let options = self.options("compile", unit, records)?;
        let input = CompilationInput { unit, side: SourceSide::Patched, form: OutputForm::Bitcode };
        Ok(self.compiler.try_compile(input, "replayed", &options)?.ok())
    }
}
