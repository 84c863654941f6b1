//! The places of a file's sections of code, functions and trace sites.

use klpx_normalize::arch::Arch;
use klpx_normalize::elf::{Elf, SectionId, SymbolId};
use klpx_normalize::name::canonical;
use object::elf::{ET_REL, SHF_EXECINSTR, STT_FUNC};
use object::endian::LittleEndian as LE;
use rayon::prelude::*;

use super::Reach;
use crate::dwarf;
use crate::reach::TraceSites;

/// The places of a file's sections of code, functions and trace sites.
pub(super) struct Places<'d> {
    elf: &'d Elf<'d>,
    pub(super) object: bool,
    /// Sections of code in a linked image, by address: begin, end.
    code: Vec<(u64, u64, SectionId)>,
    /// Functions, by address as in DWARF.
    symbols: Vec<(u64, SymbolId)>,
    sites: TraceSites,
    /// [`Arch::undescribed_entry`].
    undescribed: u64,
}

/// The place of an out-of-line copy.
pub(super) struct CopyPlace {
    pub(super) section: SectionId,
    /// The copy's first byte: an offset in the section in an object, an address in a linked image.
    pub(super) shown: u64,
    pub(super) reach: Reach,
    /// Index of the first symbol that begins at the entry or behind it.
    symbol: usize,
    entry: u64,
}

impl<'d> Places<'d> {
    pub(super) fn read(elf: &'d Elf<'d>, arch: Arch) -> Places<'d> {
        let object = elf.file_type() == ET_REL.0;
        let executable = |&id: &SectionId| elf.section_flags(id) & SHF_EXECINSTR.0 != 0;
        let span = |id: SectionId| {
            let begin = elf.section(id).sh_addr.get(LE);
            (begin, begin.saturating_add(elf.section_size(id)), id)
        };
        let mut code: Vec<_> = elf.section_ids().filter(executable).map(span).collect();
        code.sort_unstable_by_key(|&(begin, ..)| begin);
        let mut symbols: Vec<_> = elf
            .symbol_ids()
            .filter(|&id| elf.symbol_type(id) == STT_FUNC.0)
            .filter_map(|id| {
                let section = elf.symbol_section(id)?;
                let value = elf.symbol_value(id);
                Some((if object { dwarf::address(section, value) } else { value }, id))
            })
            .collect();
        symbols.par_sort_unstable();
        let undescribed = arch.undescribed_entry();
        Places { elf, object, code, symbols, sites: TraceSites::read(elf, arch), undescribed }
    }

    /// Returns the place of the function that begins at an address according to DWARF, which may lie behind the
    /// patchable entry. `None` if there is no code.
    pub(super) fn find(&self, address: u64) -> Option<CopyPlace> {
        let section = self.section(address)?;
        let after = self.symbols.partition_point(|&(at, _)| at <= address);
        let entry = match after.checked_sub(1).and_then(|n| self.symbols.get(n)) {
            Some(&(at, _)) if address - at <= self.undescribed => at,
            _ => address,
        };
        let before = self.symbols[..after].iter().rev().take_while(|&&(at, _)| at >= entry).count();
        let shown = match dwarf::place(entry) {
            Some((_, offset)) if self.object => offset,
            _ => entry,
        };
        let reach = match self.sites.reach(self.elf.section_name(section), entry) {
            None => Reach::Unknown,
            Some(Ok(offset)) => Reach::Site(offset),
            Some(Err(why)) => Reach::No(why),
        };
        Some(CopyPlace { section, shown, reach, symbol: after - before, entry })
    }

    /// Returns the section of code that holds an address.
    fn section(&self, address: u64) -> Option<SectionId> {
        if self.object {
            let (section, _) = dwarf::place(address)?;
            let exists = section.index() < self.elf.section_count();
            return (exists && self.elf.section_flags(section) & SHF_EXECINSTR.0 != 0).then_some(section);
        }
        let after = self.code.partition_point(|&(begin, ..)| begin <= address);
        let &(_, end, id) = self.code.get(after.checked_sub(1)?)?;
        (address < end).then_some(id)
    }

    /// Returns the symbol's name at a place. Of several names, the one most like the function's name is chosen.
    pub(super) fn symbol(&self, place: &CopyPlace, function: &[u8]) -> Option<&'d [u8]> {
        let here = self.symbols[place.symbol..].iter().take_while(|&&(at, _)| at == place.entry);
        let names = || here.clone().map(|&(_, id)| self.elf.symbol_name(id));
        names()
            .find(|&name| name == function)
            .or_else(|| names().find(|name| canonical(name).base == function))
            .or_else(|| names().next())
    }
}
