//! Functions that ftrace can't reach can still be replaced when all that use them are known: the callers are replaced,
//! and take a copy of the callee along. `static inline` functions that a compiler left out of line are the usual case
//! (`inline` implies notrace, include/linux/compiler_types.h).
//!
//! Owns finding every use of a function. Never decides what is replaced.

use std::collections::BTreeSet;

use klpx_inline_check::reach::Unreachable;
use klpx_normalize::name::canonical;
use klpx_normalize::object::{ItemId, Object, Role, Target};
use object::elf;
use object::endian::LittleEndian as LE;

use crate::closure::is_branch;

/// Every function that calls or jumps to `callee`, itself left out.
///
/// # Errors
/// Why the callers can't stand in for it.
pub(crate) fn callers(
    object: &Object<'_>,
    callee: ItemId,
    unreachable: Unreachable,
) -> Result<BTreeSet<ItemId>, String> {
    if unreachable != Unreachable::NoSite {
        return Err(unreachable.to_string());
    }
    let symbol = object.item(callee).symbol;
    // A promoted local has its callers in the files of its link: all of them are in sight when the object is that link.
    let in_sight = canonical(object.item_name(callee)).suffixes.promoted() && object.file_count() > 1;
    if object.elf.symbol_binding(symbol) != elf::STB_LOCAL.0 && !in_sight {
        return Err(format!("{unreachable}, and as a global function it may have callers anywhere"));
    }
    if object.items_of(object.item(callee).section).len() > 1 {
        return Err(format!("{unreachable}, and functions of its section may call it without a relocation"));
    }
    direct_callers(object, callee).ok_or_else(|| format!("{unreachable}, and its address is kept somewhere"))
}

/// Every function that calls or jumps to `callee`, itself left out; `None` when something keeps its address.
pub(crate) fn direct_callers(object: &Object<'_>, callee: ItemId) -> Option<BTreeSet<ItemId>> {
    let mut found = BTreeSet::new();
    for section in object.elf.section_ids() {
        if matches!(object.role(section), Role::Unloaded | Role::BuildOnly) {
            continue;
        }
        for rela in object.elf.relocations(section) {
            if !matches!(object.resolve(section, rela), Target::Item { item, .. } if item == callee) {
                continue;
            }
            match holder(object, section, rela.r_offset.get(LE)) {
                Some(item) if item == callee => {}
                Some(item) if object.item(item).code && is_branch(object, section, rela) => {
                    found.insert(item);
                }
                _ => return None,
            }
        }
    }
    Some(found)
}

/// The item that a place belongs to; for a special-section entry the function that it describes.
fn holder(object: &Object<'_>, section: klpx_normalize::elf::SectionId, place: u64) -> Option<ItemId> {
    if let Role::Table(table) = object.role(section) {
        let index = (place / u64::from(object.tables[table.index()].entry_size)) as u32;
        let describes =
            |item: &ItemId| object.entries(*item).iter().any(|e| e.table == table && e.index == index);
        return object.item_ids().find(describes);
    }
    object.items_of(section).find(|&id| object.item(id).start <= place && place < object.item(id).end)
}
