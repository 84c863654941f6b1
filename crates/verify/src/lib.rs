//! Checks a finished module against the two builds of its units and the kernel to be patched. The check simulates the
//! loader, the livepatch core and ftrace. It compares the meaning of everything in the module with the patched build,
//! and checks that the module has everything that differs between the builds.
//!
//! Shares no decision with the code under test: this crate depends neither on the comparison that chose the functions
//! nor on the code that wrote the module. It reads files by [`klpx_normalize::elf`], and takes facts about
//! architectures, names and special sections from the tables of that crate. All other inputs are claims that may be
//! wrong ([`VerifiedUnit::claims`], [`VerifiedUnit::gave_way`]). Never changes the module.
//!
//! # Reading order
//!
//! [`verify()`] runs all checks. [`inspect`] reads the form of a livepatch module: objects, functions, livepatch symbols.
//! [`LoadTarget`] is the kernel as the loader sees it. A graph of the module's copies is walked from the new functions, and each
//! copy is compared with its thing of the patched build, reference by reference. [`Verified`] counts what was checked.

mod code;
mod complete;
mod differ;
mod entries;
mod file;
mod format;
mod frames;
mod graph;
pub mod inspect;
mod kernel;
mod loader;
mod pair;
mod reference;
mod sanitizer;
mod unwind;

use std::collections::{BTreeMap, BTreeSet};

use klpx_diagnosis::{Code, Diagnosis, Failure, Result};
use klpx_normalize::arch::Arch;
use klpx_normalize::elf::{Elf, ElfFile, SymbolId};
use rayon::prelude::*;

use crate::file::IndexedFile;
use crate::graph::Graph;
use crate::inspect::Module;
use crate::pair::BuildPair;
pub use kernel::{KernelFilesTarget, KernelObject, LoadTarget};

/// The object name of the kernel proper in a livepatch.
pub const VMLINUX: &str = "vmlinux";

/// Code that was built twice: a translation unit, or a whole linked object.
pub struct VerifiedUnit<'u, 'd> {
    /// `vmlinux`, or the module's name with underscores.
    pub object: &'u str,
    /// The build of the unpatched kernel.
    pub original: &'u Elf<'d>,
    /// The build of the patched kernel.
    pub patched: &'u Elf<'d>,
    /// Symbols of the patched build that can't be identified by name alone: the original's symbol for each, `None` for
    /// a new symbol.
    pub claims: BTreeMap<SymbolId, Option<SymbolId>>,
    /// Weak symbols of the original, in whose place the kernel has another unit's symbol.
    pub gave_way: BTreeSet<SymbolId>,
}

/// The numbers of checked things, for the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Livepatch symbols that the kernel to be patched resolves.
    pub symbols: usize,
    /// Relocations that the loader accepts.
    pub relocations: usize,
    /// Replaced functions that ftrace reaches.
    pub reachable: usize,
    /// Replaced functions.
    pub functions: usize,
    /// Functions and data of both builds that were compared.
    pub compared: usize,
    /// Compared functions and data that differ. Each is in the module, or need not be.
    pub differing: usize,
    /// Functions, data and constants of the module that mean the same as their counterparts in the patched build.
    pub copies: usize,
}

/// Checks a finished module. `glue` are the objects that kbuild compiled for the module itself.
///
/// # Errors
/// All faults of the module, with codes that begin with `klpx::verify-`.
pub fn verify(
    module: &ElfFile,
    target: &dyn LoadTarget,
    units: &[VerifiedUnit<'_, '_>],
    glue: &[Elf<'_>],
) -> Result<Verified> {
    verify_prepared(module, target, &prepare(units, glue))
}

/// The units, read and compared: the part of the work that does not depend on the module.
pub struct PreparedUnits<'e, 'd> {
    pairs: Vec<BuildPair<'e, 'd>>,
    differing: differ::DifferingThings,
}

/// Reads and compares units for several calls of [`verify_prepared`].
pub fn prepare<'e, 'd>(units: &'e [VerifiedUnit<'e, 'd>], glue: &'e [Elf<'d>]) -> PreparedUnits<'e, 'd> {
    let mut pairs: Vec<BuildPair<'_, '_>> = units.par_iter().filter_map(BuildPair::read).collect();
    pairs.extend(glue.iter().filter_map(BuildPair::glue));
    PreparedUnits { differing: differ::compare(&pairs), pairs }
}

/// Does the same as [`verify`] with prepared units.
///
/// # Errors
/// The same as for [`verify`].
pub fn verify_prepared(
    module: &ElfFile,
    target: &dyn LoadTarget,
    units: &PreparedUnits<'_, '_>,
) -> Result<Verified> {
    let elf = module.parse()?;
    let arch = Arch::of_machine(elf.machine())?;
    let mut check = LoadCheck {
        module: inspect::read(&elf),
        elf: &elf,
        arch,
        target,
        faults: Vec::new(),
        verified: Verified::default(),
    };
    check.load();
    let file = IndexedFile::read(&elf, arch);
    let mut graph = Graph::new(&file, &check.module, target, units);
    graph.walk();
    let (faults, copies) = graph.finish();
    check.faults.extend(faults);
    check.verified.copies = copies;
    check.verified.compared = units.differing.compared;
    check.verified.differing = units.differing.count();
    let LoadCheck { faults, verified, .. } = check;
    Failure::all(faults)?;
    Ok(verified)
}

/// Makes a finding. The cause is a fault of klpx itself or of its input files, so the remedy is always the same.
pub(crate) fn fault(code: &Code, what: impl Into<String>, why: impl Into<String>) -> Diagnosis {
    let remedy = "do not load this module; check that the kernel files belong together, and report this";
    Diagnosis::new(code, what, why, remedy)
}

/// The checks that simulate the loading of the module.
pub(crate) struct LoadCheck<'c, 'd> {
    pub(crate) elf: &'c Elf<'d>,
    pub(crate) arch: Arch,
    pub(crate) module: Module,
    pub(crate) target: &'c dyn LoadTarget,
    pub(crate) faults: Vec<Diagnosis>,
    pub(crate) verified: Verified,
}
