//! Branches between functions of one section that the assembler resolved, as relocations.
//!
//! Functions that the kernel puts into a section by name (`.sched.text`, `.spinlock.text`, `.ref.text`, ...) call local
//! functions beside them without a relocation. A copy needs one. Owns finding them; never changes bytes.

use klpx_normalize::elf::Rela;
use klpx_normalize::object::{ItemId, Object};
use object::elf;
use object::endian::{I64, LittleEndian as LE, U64};

use crate::arch;

/// The relocations that the branches out of an item would have, sorted by place; or the first byte, from the entry, of
/// a branch that can't have one.
pub(crate) fn branches(object: &Object<'_>, item: ItemId) -> Result<Vec<Rela>, u64> {
    let own = object.item(item);
    if !own.code || object.items_of(own.section).len() < 2 {
        return Ok(Vec::new());
    }
    let relocations = object.item_relocations(item);
    let relocated = |at: usize| {
        let place = own.entry + at as u64;
        relocations.binary_search_by_key(&place, |rela| rela.r_offset.get(LE)).is_ok()
    };
    let code = object.range(own.section, own.entry, own.end);
    let mut found = Vec::new();
    for branch in arch::escaping_branches(object.arch, code, &relocated) {
        let Some(field) = branch.field else { return Err(branch.at as u64) };
        let target = own.entry.wrapping_add_signed(branch.target);
        let to = object.items_of(own.section).find(|&to| {
            let to = object.item(to);
            (to.entry..to.end.max(to.entry + 1)).contains(&target)
        });
        let Some(to) = to else { return Err(branch.at as u64) };
        let to = object.item(to);
        let addend = target.wrapping_sub(to.entry) as i64 + field.addend;
        found.push(Rela {
            r_offset: U64::new(LE, own.entry + field.at as u64),
            r_info: U64::new(LE, u64::from(to.symbol.0) << 32 | u64::from(field.kind)),
            r_addend: I64::new(LE, addend),
        });
    }
    Ok(found)
}

/// `R_X86_64_PLT32`, and the distance from its field to where the processor counts from.
pub(crate) const X86_BRANCH: (u32, i64) = (elf::R_X86_64_PLT32.0, -4);
