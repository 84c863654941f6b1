//! Reads a file into its parts.

use klpx_diagnosis::Result;
use klpx_normalize::elf::{Definition, Elf};
use object::elf;
use object::endian::LittleEndian as LE;

use super::relocatable::{
    OutputSection, RelaTable, Relocatable, Relocation, Sec, Symbol, SymbolIndex, SymbolPlace, unsupported,
};

/// The types of sections that are generated when a file is written.
const TABLES: [elf::SectionType; 4] =
    [elf::SHT_SYMTAB, elf::SHT_STRTAB, elf::SHT_RELA, elf::SHT_SYMTAB_SHNDX];

impl Relocatable {
    /// Reads a file into its parts.
    ///
    /// # Errors
    /// Fails if the file contains things that a kernel module never contains: section groups, common symbols.
    pub fn read(elf: &Elf<'_>) -> Result<Relocatable> {
        let mut image = Relocatable::new(elf.machine());
        let mut places: Vec<Option<Sec>> = vec![None; elf.section_count()];
        for id in elf.section_ids().skip(1) {
            let kind = elf.section_type(id);
            if kind == elf::SHT_GROUP.0 {
                return Err(unsupported("a section group").into());
            }
            if TABLES.iter().any(|table| table.0 == kind) {
                continue;
            }
            let header = elf.section(id);
            let mut section = OutputSection::new(
                elf.section_name(id),
                kind,
                elf.section_flags(id),
                header.sh_addralign.get(LE),
            );
            section.entsize = header.sh_entsize.get(LE);
            section.data = elf.section_bytes(id).to_vec();
            section.nobits = if kind == elf::SHT_NOBITS.0 { elf.section_size(id) } else { 0 };
            places[id.index()] = Some(image.add_section(section));
        }
        image.read_links(elf, &places);
        image.read_symbols(elf, &places)?;
        image.read_relocations(elf, &places)?;
        Ok(image)
    }

    fn read_links(&mut self, elf: &Elf<'_>, places: &[Option<Sec>]) {
        for id in elf.section_ids().skip(1) {
            if let Some(at) = places[id.index()]
                && elf.section_flags(id) & elf::SHF_LINK_ORDER.0 != 0
            {
                let link = elf.section(id).sh_link.get(LE) as usize;
                self.sections[at.0].link = places.get(link).copied().flatten();
            }
        }
    }

    fn read_symbols(&mut self, elf: &Elf<'_>, places: &[Option<Sec>]) -> Result<()> {
        for id in elf.symbol_ids() {
            let place = match elf.definition(id) {
                Definition::Undefined => SymbolPlace::Undefined,
                Definition::Absolute => SymbolPlace::Absolute,
                Definition::Livepatch => SymbolPlace::Livepatch,
                Definition::Common => return Err(unsupported("a common symbol").into()),
                Definition::Section(section) => match places[section.index()] {
                    Some(at) => SymbolPlace::In(at),
                    None => SymbolPlace::Absolute,
                },
            };
            self.symbols.push(Symbol {
                name: elf.symbol_name(id).to_vec(),
                binding: elf.symbol_binding(id),
                kind: elf.symbol_type(id),
                other: elf.symbol(id).st_other.0,
                place,
                value: elf.symbol_value(id),
                size: elf.symbol_size(id),
            });
        }
        Ok(())
    }

    fn read_relocations(&mut self, elf: &Elf<'_>, places: &[Option<Sec>]) -> Result<()> {
        for id in elf.section_ids().skip(1).filter(|&id| elf.section_type(id) == elf::SHT_RELA.0) {
            let target = elf.section(id).sh_info.get(LE) as usize;
            let Some(at) = places.get(target).copied().flatten() else {
                return Err(unsupported("a relocation section without a target").into());
            };
            let mut relocations = Vec::new();
            for rela in elf.rela_table(id) {
                let Some(symbol) = elf.rela_symbol(rela) else {
                    return Err(unsupported("a relocation that names a symbol that does not exist").into());
                };
                relocations.push(Relocation {
                    offset: rela.r_offset.get(LE),
                    kind: rela.r_type(LE, false).0,
                    symbol: symbol.index().checked_sub(1).map(SymbolIndex),
                    addend: rela.r_addend.get(LE),
                });
            }
            let flags = elf.section_flags(id) & !elf::SHF_INFO_LINK.0;
            self.sections[at.0].relas.push(RelaTable {
                name: elf.section_name(id).to_vec(),
                flags,
                relocations,
            });
        }
        Ok(())
    }
}
