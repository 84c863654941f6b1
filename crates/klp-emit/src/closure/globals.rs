//! The names by which units refer to one another: global things that the patch adds, names that a unit imports, and
//! exports.

use std::collections::{BTreeMap, BTreeSet};

use klpx_diff::is_anonymous;
use klpx_normalize::elf::Definition;
use klpx_normalize::name::promotion;
use klpx_normalize::object::{ItemId, Object};
use object::elf;

use crate::plan::ComparedUnit;

/// A global function or datum that the patch adds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NewGlobal {
    /// True if the definition gives way to another of its name.
    pub(super) weak: bool,
    /// The unit that defines the item.
    pub(super) unit: usize,
    /// The item.
    pub(super) item: ItemId,
    /// True if units of other kernel objects may refer to it.
    pub(super) exported: bool,
}

/// New global functions and data of every unit, by name, with weak ones last: other units may refer to them. Promoted
/// constants are included, new or not: other units know them by names that are numbered in sequence, and a copy serves
/// as well.
pub(super) fn new_globals<'d>(units: &[ComparedUnit<'_, 'd>]) -> BTreeMap<&'d [u8], Vec<NewGlobal>> {
    let mut globals: BTreeMap<&[u8], Vec<NewGlobal>> = BTreeMap::new();
    for (n, unit) in units.iter().enumerate() {
        let elf = &unit.patched.elf;
        let changes = unit.difference.functions.iter().chain(&unit.difference.data);
        let new = changes.filter(|change| change.original.is_none()).map(|change| change.patched);
        let constants = unit.patched.item_ids().filter(|&item| {
            promotion(unit.patched.item_name(item)).is_some() && is_anonymous(unit.patched, item)
        });
        for item in new.chain(constants) {
            let symbol = unit.patched.item(item).symbol;
            let (binding, name) = (elf.symbol_binding(symbol), elf.symbol_name(symbol));
            if binding != elf::STB_LOCAL.0 {
                globals.entry(name).or_default().push(NewGlobal {
                    weak: binding == elf::STB_WEAK.0,
                    unit: n,
                    item,
                    exported: is_exported(unit.patched, name),
                });
            }
        }
    }
    globals.values_mut().for_each(|list| list.sort_unstable());
    globals
}

/// The names whose definition the link chooses.
pub(super) fn undefined<'d>(object: &Object<'d>) -> BTreeSet<&'d [u8]> {
    let elf = &object.elf;
    let undefined = elf
        .symbol_ids()
        .filter(|&id| elf.definition(id) == Definition::Undefined || object.is_weak_alias(id));
    undefined.map(|id| elf.symbol_name(id)).collect()
}

/// Returns true if an object marks a name for export (include/linux/export.h: `__export_symbol_` since 6.4, before that
/// the entry of the export table itself).
pub(super) fn is_exported(object: &Object<'_>, name: &[u8]) -> bool {
    object.elf.symbol_ids().any(|id| {
        EXPORT_MARKS.iter().any(|mark| object.elf.symbol_name(id).strip_prefix(*mark) == Some(name))
    })
}

const EXPORT_MARKS: [&[u8]; 2] = [b"__export_symbol_", b"__ksymtab_"];
