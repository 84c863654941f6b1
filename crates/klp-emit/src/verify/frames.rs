//! Frames by which a kernel patches code: every copied function that the patched build has one for has the same one.

use klpx_diagnosis::{Diagnosis, Place};
use klpx_normalize::elf::{Elf, Rela, SectionId};
use klpx_normalize::frames::{Frame, frames};
use object::endian::LittleEndian as LE;

use super::{Check, fault};
use crate::plan::Unit;

/// What the linker script of a module makes of the table where the kernel reads it (scripts/module.lds).
const READ_BY_KERNEL: &[u8] = b".init.eh_frame";

impl Check<'_, '_> {
    pub(super) fn check_frames(&mut self, units: &[Unit<'_, '_>]) {
        let Some(table) = self.elf.section_by_name(READ_BY_KERNEL) else { return };
        let mut copies: Vec<_> = frames(self.elf, table)
            .into_iter()
            .filter_map(|frame| Some((place(self.elf, frame.code)?, frame)))
            .collect();
        copies.sort_by_key(|(place, _)| *place);
        let functions: Vec<_> = self
            .module
            .objects
            .iter()
            .flat_map(|object| object.functions.iter().map(move |f| (object, f)))
            .collect();
        let mut faults: Vec<Diagnosis> = Vec::new();
        for unit in units {
            let Some(name) = unit.patched.arch.frame_table() else { continue };
            let elf = &unit.patched.elf;
            let Some(table) = elf.section_by_name(name) else { continue };
            for frame in frames(elf, table) {
                let Some((section, at)) = place(elf, frame.code) else { continue };
                let item = unit.patched.items_of(section).find(|&item| {
                    let item = unit.patched.item(item);
                    (item.entry..item.end).contains(&at)
                });
                let Some((item, original)) = item.and_then(|item| Some((item, unit.counterpart(item)?)))
                else {
                    continue;
                };
                let name = klpx_normalize::name::without_promotion(unit.original.item_name(original));
                let behind = at - unit.patched.item(item).entry;
                let has_frame = |function: &crate::inspect::Function| {
                    let (copy, entry) = function.new_at;
                    let found = copies.binary_search_by_key(&(copy, entry + behind), |(place, _)| *place);
                    found.is_ok_and(|n| alike(&frame, &copies[n].1))
                };
                // Units of one object may have functions of one name.
                let mut named = functions.iter().filter(|(object, function)| {
                    object.name == unit.object_name && function.new_symbol.as_bytes() == name
                });
                let Some((_, function)) = named.clone().next() else { continue };
                if !named.any(|(_, function)| has_frame(function)) {
                    let why = "the kernel finds by it where the function signs its return address";
                    faults.push(
                        fault("klpx::verify-frame", "a function without its frame", why)
                            .place(Place::symbol(function.new_symbol.clone())),
                    );
                }
            }
        }
        self.faults.extend(faults);
    }
}

fn place(elf: &Elf<'_>, rela: &Rela) -> Option<(SectionId, u64)> {
    let symbol = elf.rela_symbol(rela)?;
    let section = elf.symbol_section(symbol)?;
    Some((section, elf.symbol_value(symbol).wrapping_add_signed(rela.r_addend.get(LE))))
}

/// The same but for lengths, the distance to the common information, the code's address and no-operations at the end.
fn alike(one: &Frame<'_>, other: &Frame<'_>) -> bool {
    fn rest(bytes: &[u8], from: usize) -> &[u8] {
        let bytes = bytes.get(from..).unwrap_or(&[]);
        let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |n| n + 1);
        &bytes[..end]
    }
    rest(one.common, 4) == rest(other.common, 4) && rest(one.bytes, 12) == rest(other.bytes, 12)
}
