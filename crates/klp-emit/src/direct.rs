//! Branches between functions of one section that the assembler resolved, as relocations.
//!
//! Functions that the kernel puts into a section by name (`.sched.text`, `.spinlock.text`, `.ref.text`, ...) call local
//! functions beside them without a relocation, and on arm64 the replacements of their alternatives branch back into
//! them so. A copy needs one. Owns finding them; never changes bytes.

use klpx_normalize::elf::Rela;
use klpx_normalize::object::{Object, Role};
use object::elf;
use object::endian::{I64, LittleEndian as LE, U64};

use crate::arch;
use crate::closure::Piece;

/// The relocations that the branches out of a piece would have, sorted by place; or where in its section something
/// leads out that can't have one.
pub(crate) fn branches(object: &Object<'_>, piece: Piece) -> Result<Vec<Rela>, u64> {
    let (section, start, end) = match piece {
        Piece::Item(item) => {
            let item = object.item(item);
            (item.section, item.entry, item.end)
        }
        Piece::Bytes { section, start, end } => (section, start, end),
    };
    if object.role(section) != Role::Code || object.items_of(section).len() < 2 {
        return Ok(Vec::new());
    }
    let relocations = object.relocations_in(section, start, end);
    let settled = |at: usize| {
        let place = start + at as u64;
        relocations.binary_search_by_key(&place, |rela| rela.r_offset.get(LE)).is_ok()
            || object.is_data_in_code(section, place)
    };
    let code = object.range(section, start, end);
    let mut found = Vec::new();
    for escape in arch::escapes(object.arch, code, &settled) {
        let place = start + escape.at as u64;
        let Some(field) = escape.field else { return Err(place) };
        let target = start.wrapping_add_signed(escape.target);
        let mut items = object.items_of(section).map(|to| object.item(to));
        let Some(to) = items.find(|to| (to.entry..to.end.max(to.entry + 1)).contains(&target)) else {
            return Err(place);
        };
        let addend = target.wrapping_sub(to.entry) as i64 + field.addend;
        found.push(Rela {
            r_offset: U64::new(LE, start + field.at as u64),
            r_info: U64::new(LE, u64::from(to.symbol.0) << 32 | u64::from(field.kind)),
            r_addend: I64::new(LE, addend),
        });
    }
    Ok(found)
}

/// `R_X86_64_PLT32`, and the distance from its field to where the processor counts from.
pub(crate) const X86_BRANCH: (u32, i64) = (elf::R_X86_64_PLT32.0, -4);
