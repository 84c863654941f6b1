//! The alternatives of one file, by the code that they replace.
//!
//! Reads `.altinstructions` on its own: an entry has two relocations, the first at its start, and ends with the length
//! of the replacement, in every kernel version and on every architecture (`struct alt_instr`).

use klpx_normalize::elf::{Elf, Rela, SectionId, SymbolId};
use object::endian::LittleEndian as LE;

use super::meaning::Body;

/// An entry.
pub(super) struct Alternative {
    section: SectionId,
    /// Where the code that it replaces stands, in its section.
    pub(super) at: u64,
    /// The symbol that says where the code comes from.
    pub(super) symbol: SymbolId,
    from: Option<(SectionId, u64)>,
    /// What follows the two distances: the capability or feature, and the lengths.
    pub(super) rest: Vec<u8>,
}

impl Alternative {
    /// The code that comes instead. `None` when it is another file's: a callback of the kernel makes it then (arm64).
    pub(super) fn replacement(&self) -> Option<Body> {
        let (section, start) = self.from?;
        Some(Body { section, start, size: self.rest.last().copied().unwrap_or(0).into(), lead: 0 })
    }
}

/// Every entry of a file, sorted by place; those of one place in the order of the table.
#[derive(Default)]
pub(super) struct Alternatives(Vec<Alternative>);

impl Alternatives {
    pub(super) fn of(elf: &Elf<'_>) -> Alternatives {
        let mut found = Alternatives::default();
        let tables = elf.section_ids().filter(|&id| elf.section_name(id) == b".altinstructions");
        for table in tables {
            found.read(elf, table);
        }
        found.0.sort_by_key(|entry| (entry.section, entry.at));
        found
    }

    fn read(&mut self, elf: &Elf<'_>, table: SectionId) {
        let relocations = elf.relocations(table);
        let count = (relocations.len() / 2) as u64;
        let Some(size) = elf.section_size(table).checked_div(count) else { return };
        for pair in relocations.chunks_exact(2) {
            let start = pair[0].r_offset.get(LE);
            let rest = start.saturating_add(8) as usize..start.saturating_add(size) as usize;
            let rest = elf.section_bytes(table).get(rest).unwrap_or(&[]).to_vec();
            if let (Some((section, at)), Some(symbol)) = (place(elf, &pair[0]), elf.rela_symbol(&pair[1])) {
                self.0.push(Alternative { section, at, symbol, from: place(elf, &pair[1]), rest });
            }
        }
    }

    /// The entries for a range of code.
    pub(super) fn within(&self, code: Body) -> &[Alternative] {
        let end = code.start.saturating_add(code.size);
        let first = self.0.partition_point(|entry| (entry.section, entry.at) < (code.section, code.start));
        let last = self.0.partition_point(|entry| (entry.section, entry.at) < (code.section, end));
        self.0.get(first..last).unwrap_or(&[])
    }
}

fn place(elf: &Elf<'_>, rela: &Rela) -> Option<(SectionId, u64)> {
    let symbol = elf.rela_symbol(rela)?;
    let section = elf.symbol_section(symbol)?;
    Some((section, elf.symbol_value(symbol).wrapping_add_signed(rela.r_addend.get(LE))))
}
