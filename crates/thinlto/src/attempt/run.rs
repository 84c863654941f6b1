//! Runs parts of the link for one choice of the touched units' bitcode: the thin link, and the units' backends.

use std::collections::BTreeMap;
use std::path::PathBuf;

use klpx_diagnosis::{Diagnosis, Failure, Result, codes};

use super::Attempt;
use crate::linker::{Backend, Slices};
use crate::unit::{SourceSide, UnitCommands};
use crate::view::View;

impl Attempt<'_> {
    /// A folder in which one side's link finds these files in place of the touched units.
    pub(super) fn view(&self, side: SourceSide, name: &str, bitcode: &[PathBuf]) -> Result<View<'_>> {
        let units = self.units.iter().map(|unit| unit.object.clone());
        let swaps: BTreeMap<String, PathBuf> = units.zip(bitcode.iter().cloned()).collect();
        self.sides.view(self.context, side, &self.work.join("views").join(name), swaps)
    }

    /// What the thin link tells each unit.
    pub(super) fn slices(&self, name: &str, view: &View<'_>) -> Result<Slices> {
        self.context.linker().slices(view, &self.work.join("slices").join(name))
    }

    /// Compiles some of the touched units to native code.
    pub(super) fn backends(&self, name: &str, view: &View<'_>, which: &[usize]) -> Result<Vec<Backend>> {
        let units: Vec<&str> = which.iter().map(|&at| self.units[at].object.as_str()).collect();
        if units.is_empty() {
            return Ok(Vec::new());
        }
        let scratch = self.work.join("backends").join(name);
        let made = self.context.linker().backends(view, &units, &[], &scratch)?;
        made.ok_or_else(|| no_backend(&units))
    }

    /// Compiles one unit to native code with further LLVM options. Returns `None` if the linker fails: LLVM may crash
    /// on the options.
    pub(super) fn backend_with(
        &self,
        unit: &UnitCommands,
        view: &View<'_>,
        options: &[String],
    ) -> Result<Option<Backend>> {
        let scratch = self.work.join("backends/replayed").join(&unit.object);
        let made = self.context.linker().backends(view, &[&unit.object], options, &scratch)?;
        Ok(made.and_then(|mut made| made.pop()))
    }
}

/// The failure for a linker that gives no native code for units among its inputs.
pub(crate) fn no_backend(units: &[&str]) -> Failure {
    let what = "the linker gives no native code for single units";
    Diagnosis::new(
        &codes::THIN_LINK,
        what,
        units.join(", "),
        "check that the linker is the ld.lld of the kernel's own LLVM release",
    )
    .into()
}
