//! Walks through the module from the functions that it replaces. Each thing that the walk reaches is compared with its
//! counterpart in the patched build, and the two must be the same.
//!
//! Owns the order of the walk (`walk`) and the comparison of two runs of bytes (`compare`). [`crate::reference`] compares
//! the meaning of references.

mod compare;
mod walk;

use std::collections::{BTreeMap, BTreeSet};

use klpx_diagnosis::Diagnosis;
use klpx_normalize::elf::{Elf, SectionId};
use klpx_normalize::special::Policy;

use crate::PreparedUnits;
use crate::complete::Held;
use crate::entries::{self, EntryRow};
use crate::file::{Body, IndexedFile};
use crate::inspect::Module;
use crate::kernel::LoadTarget;
use crate::pair::BuildPair;
use crate::unwind::Unwind;

/// The start of the names by which the glue calls new functions. The arrays tell which function is which.
const ALIAS: &str = "klpx_new_";

/// A thing of a unit's patched build, and the place of its entry in the module.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Node {
    pub(crate) unit: usize,
    pub(crate) body: Body,
    pub(crate) section: SectionId,
    pub(crate) at: u64,
}

/// The module and the units that it is compared with.
pub(crate) struct Graph<'g, 'e, 'd, 'm> {
    pub(crate) copy: &'g IndexedFile<'g, 'm>,
    pub(crate) module: &'g Module,
    pub(crate) target: &'g dyn LoadTarget,
    pub(crate) pairs: &'g [BuildPair<'e, 'd>],
    prepared: &'g PreparedUnits<'e, 'd>,
    rows: Vec<EntryRow>,
    unwind: Unwind<'m>,
    /// For each unit: the places of its runtime constants in code, and their names.
    constants: Vec<BTreeMap<(SectionId, u64), String>>,
    seen: BTreeSet<Node>,
    /// The place in the module of each thing with an identity.
    places: BTreeMap<(usize, Body), (SectionId, u64)>,
    waiting: Vec<Node>,
    held: Held,
    faults: Vec<Diagnosis>,
}

impl<'g, 'e, 'd, 'm> Graph<'g, 'e, 'd, 'm> {
    pub(crate) fn new(
        copy: &'g IndexedFile<'g, 'm>,
        module: &'g Module,
        target: &'g dyn LoadTarget,
        prepared: &'g PreparedUnits<'e, 'd>,
    ) -> Graph<'g, 'e, 'd, 'm> {
        let pairs = &prepared.pairs[..];
        let none = || vec![BTreeSet::new(); pairs.len()];
        Graph {
            copy,
            module,
            target,
            pairs,
            prepared,
            rows: entries::rows(copy),
            unwind: Unwind::read(copy),
            constants: pairs.iter().map(|pair| runtime_constants(pair.patched.elf, &pair.rows.1)).collect(),
            seen: BTreeSet::new(),
            places: BTreeMap::new(),
            waiting: Vec::new(),
            held: Held { replaced: none(), copied: none() },
            faults: Vec::new(),
        }
    }

    /// Returns true for the first byte of a function that the arrays name, of a callback, or of another part of the
    /// glue named `name`.
    pub(crate) fn is_for_glue(&self, name: &str, section: SectionId, at: i64) -> bool {
        let is_it = |&&(of, entry): &&(SectionId, u64)| of == section && entry as i64 == at;
        let functions = self.module.objects.iter().flat_map(|object| &object.functions);
        let callbacks = self.module.objects.iter().flat_map(|object| &object.callbacks);
        let here = Body { section, entry: at as u64, end: at as u64, lead: 0 };
        if !name.starts_with(ALIAS) {
            return self.copy.symbols(here).any(|id| self.copy.elf.symbol_name(id) == name.as_bytes());
        }
        functions.map(|function| &function.new_at).any(|place| is_it(&place))
            || callbacks.map(|(_, name)| name).any(|name| {
                self.copy.symbols(here).any(|id| self.copy.elf.symbol_name(id) == name.as_bytes())
            })
    }

    /// Returns true for data that the patch changes, so that the kernel's own data will not do.
    pub(crate) fn is_changed_data(&self, unit: usize, body: Body) -> bool {
        self.prepared.differing.data[unit].contains_key(&body)
    }
}

/// Returns the places in a unit's code that have runtime constants (`runtime_ptr_*`,
/// include/asm-generic/runtime-const.h).
fn runtime_constants(elf: &Elf<'_>, rows: &[EntryRow]) -> BTreeMap<(SectionId, u64), String> {
    let constants = rows.iter().filter(|row| row.kind.policy == Policy::RuntimeConstant);
    let name = |row: &EntryRow| elf.section_name(row.section).strip_prefix(b"runtime_ptr_");
    constants.filter_map(|row| Some((row.place, String::from_utf8_lossy(name(row)?).into_owned()))).collect()
}
