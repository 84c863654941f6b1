//! The frames of copied functions, on architectures whose kernel patches code by them. An arm64 kernel with
//! UNWIND_PATCH_PAC_INTO_SCS turns pointer authentication into a shadow call stack where the processor lacks pointer
//! authentication, and finds the instructions by `.eh_frame` (scs_patch in arch/arm64/kernel/pi/patch-scs.c).

use std::collections::BTreeMap;

use klpx_normalize::elf::SectionId;
use klpx_normalize::frames::{Frame, frames};
use klpx_normalize::object::{ItemId, Target};
use object::elf;

use super::{ALLOC, Emitter, OutputPlace};
use crate::closure::{Piece, Reference, ReferenceOrigin};

/// The alignment of a file's frames. If a file's frames did not end on it, a linker would put a terminator there.
const ALIGN: usize = 8;

impl Emitter<'_, '_, '_> {
    pub(super) fn place_frames(&mut self, unit: usize) {
        let object = self.unit(unit).patched;
        let Some(table) = object.arch.frame_table() else { return };
        for from in object.elf.section_ids().filter(|&id| object.elf.section_name(id) == table) {
            let all = frames(&object.elf, from);
            let mut wanted: BTreeMap<ItemId, &Frame<'_>> = BTreeMap::new();
            for frame in &all {
                // GCC lets the frame begin after the trace site.
                if let Target::Item { item, offset: 0.. } = object.resolve(from, frame.code)
                    && self.closure.has(unit, Piece::Item(item))
                {
                    wanted.insert(item, frame);
                }
            }
            for (item, frame) in wanted {
                self.place_frame(unit, item, from, frame);
            }
        }
    }

    /// Places a frame and, if needed, its common information. The kernel reads records in order, and applies the last
    /// common information before a frame to the frame.
    fn place_frame(&mut self, unit: usize, item: ItemId, from: SectionId, frame: &Frame<'_>) {
        let table = self.unit(unit).patched.elf.section_name(from);
        let section = self.section(table, elf::SHT_PROGBITS.0, ALLOC, ALIGN as u64);
        let out = &mut self.out.sections[section.0];
        let common = match &self.common {
            Some((at, bytes)) if bytes == frame.common => *at,
            _ => {
                let at = append(&mut out.data, frame.common);
                self.common = Some((at, frame.common.to_vec()));
                at
            }
        };
        let at = append(&mut out.data, frame.bytes);
        let back = (at + 4 - common) as u32;
        out.data[at + 4..at + 8].copy_from_slice(&back.to_le_bytes());
        let offset = at as u64 + klpx_normalize::frames::CODE;
        let reference =
            Reference { origin: ReferenceOrigin::Table(Piece::Item(item)), section: from, rela: frame.code };
        self.relocate(unit, Piece::Item(item), reference, OutputPlace { section, offset });
    }
}

/// Appends a record, padded with no-operations (DW_CFA_nop, 0) to a multiple of the alignment.
fn append(data: &mut Vec<u8>, record: &[u8]) -> usize {
    let at = data.len();
    data.extend_from_slice(record);
    data.resize(data.len().next_multiple_of(ALIGN), 0);
    let length = (data.len() - at - 4) as u32;
    data[at..at + 4].copy_from_slice(&length.to_le_bytes());
    at
}
