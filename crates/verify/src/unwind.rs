//! Unwind data of x86_64 (`struct orc_entry`, arch/x86/include/asm/orc_types.h): the row in force at each byte of a
//! function.

use std::collections::BTreeMap;

use klpx_normalize::elf::SectionId;
use object::endian::LittleEndian as LE;

use crate::file::{Body, IndexedFile};

/// Bytes of a row.
const SIZE: usize = 6;

/// The rows of a file by section and place. If a place has several rows, the end row of the preceding code comes first,
/// as in the loader's order (orc_sort_cmp in arch/x86/kernel/unwind_orc.c).
pub(crate) struct Unwind<'d>(BTreeMap<SectionId, Vec<(u64, &'d [u8])>>);

impl<'d> Unwind<'d> {
    pub(crate) fn read(file: &IndexedFile<'_, 'd>) -> Unwind<'d> {
        let mut found: BTreeMap<SectionId, Vec<(u64, &[u8])>> = BTreeMap::new();
        let tables = (file.elf.section_by_name(b".orc_unwind_ip"), file.elf.section_by_name(b".orc_unwind"));
        let (Some(places), Some(rows)) = tables else { return Unwind(found) };
        for rela in file.relocations(places) {
            let n = rela.r_offset.get(LE) as usize / 4 * SIZE;
            let row = file.elf.section_bytes(rows).get(n..n + SIZE);
            if let (Some((section, at)), Some(row)) = (file.place(rela), row) {
                found.entry(section).or_default().push((at, row));
            }
        }
        found.values_mut().for_each(|rows| rows.sort_by_key(|(at, row)| (*at, !is_end(row))));
        Unwind(found)
    }

    /// Returns the rows of a section.
    pub(crate) fn rows(&self, section: SectionId) -> &[(u64, &'d [u8])] {
        self.0.get(&section).map_or(&[], Vec::as_slice)
    }

    /// Returns the rows in force in a function, by bytes from its start. Each row holds until the next row. A row that
    /// repeats the previous row is left out, as objtool does.
    pub(crate) fn of(&self, body: Body) -> Vec<(u64, &'d [u8])> {
        let rows = self.rows(body.section);
        let mut found: Vec<(u64, &[u8])> = Vec::new();
        let after = rows.partition_point(|(at, _)| *at <= body.start());
        found.extend(rows[..after].last().map(|(_, row)| (0, *row)));
        for &(at, row) in rows[after..].iter().take_while(|(at, _)| *at < body.end) {
            if found.last().is_none_or(|(_, before)| *before != row) {
                found.push((at - body.start(), row));
            }
        }
        found
    }
}

/// Returns true for a row that marks the end of known unwind data.
pub(crate) fn is_end(row: &[u8]) -> bool {
    row.iter().all(|&byte| byte == 0)
}
