//! DWARF sections of a relocatable object, read in place: relocations are applied as values are read.
//!
//! A place in a section is represented as [`address`], because all sections of an object begin at 0 and plain offsets
//! would look alike.

use gimli::{LittleEndian, RelocateReader};
use klpx_normalize::elf::{Definition, Elf, Rela, SectionId};
use object::endian::LittleEndian as LE;

/// A reader over one debug section.
pub type Reader<'d> = RelocateReader<gimli::EndianSlice<'d, LittleEndian>, Relocations<'d>>;

/// The bits of an address that count bytes in a section.
const OFFSET_BITS: u32 = 40;

/// Returns the address that stands for an offset in a section.
pub fn address(section: SectionId, offset: u64) -> u64 {
    (u64::from(section.0) + 1) << OFFSET_BITS | offset & ((1 << OFFSET_BITS) - 1)
}

/// Returns the section and offset that an [`address`] stands for; `None` for a number that is no such address.
pub fn place(address: u64) -> Option<(SectionId, u64)> {
    let section = u32::try_from((address >> OFFSET_BITS).checked_sub(1)?).ok()?;
    Some((SectionId(section), address & ((1 << OFFSET_BITS) - 1)))
}

/// The relocations of one debug section, sorted by place.
#[derive(Clone, Copy)]
pub struct Relocations<'d> {
    elf: &'d Elf<'d>,
    table: &'d [Rela],
}

impl std::fmt::Debug for Relocations<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} relocations", self.table.len())
    }
}

impl Relocations<'_> {
    fn value(&self, place: usize, found: u64) -> u64 {
        let place = place as u64;
        let Ok(n) = self.table.binary_search_by_key(&place, |rela| rela.r_offset.get(LE)) else {
            return found;
        };
        let rela = &self.table[n];
        let Some(symbol) = self.elf.rela_symbol(rela) else { return found };
        let addend = rela.r_addend.get(LE);
        let value = self.elf.symbol_value(symbol).wrapping_add_signed(addend);
        match self.elf.definition(symbol) {
            Definition::Section(section) if self.elf.section_flags(section) & 2 != 0 => {
                address(section, value)
            }
            _ => value,
        }
    }
}

impl gimli::read::Relocate<usize> for Relocations<'_> {
    fn relocate_address(&self, offset: usize, value: u64) -> gimli::Result<u64> {
        Ok(self.value(offset, value))
    }

    fn relocate_offset(&self, offset: usize, value: usize) -> gimli::Result<usize> {
        Ok(self.value(offset, value as u64) as usize)
    }
}

/// Returns a reader over the bytes of a debug section, with its relocations sorted by place.
pub(crate) fn reader<'d>(elf: &'d Elf<'d>, bytes: &'d [u8], table: &'d [Rela]) -> Reader<'d> {
    RelocateReader::new(gimli::EndianSlice::new(bytes, LittleEndian), Relocations { elf, table })
}
