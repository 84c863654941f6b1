//! A relocatable ELF64 file as plain values, read from a checked view and written back as bytes.
//!
//! Owns the file layout: header, sections, symbol order, string tables, relocation sections (several for one target, as
//! in livepatch modules). The same values always give the same bytes. Knows nothing about the meaning of a section.

use hashbrown::HashMap;
use klpx_diagnosis::{Diagnosis, Result, codes};
use klpx_normalize::elf::{Definition, Elf, SHF_RELA_LIVEPATCH, SHN_LIVEPATCH};
use object::elf;
use object::endian::LittleEndian as LE;

/// Index of a section in [`Relocatable::sections`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sec(pub usize);

/// Index of a symbol in [`Relocatable::symbols`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SymbolIndex(pub usize);

/// The place of a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SymbolPlace {
    /// Undefined: the linker or loader of the file finds the symbol.
    Undefined,
    /// A plain number.
    Absolute,
    /// In a section, at the offset in `value`.
    In(Sec),
    /// Resolved by the livepatch core (`SHN_LIVEPATCH`).
    Livepatch,
}

/// A symbol.
#[derive(Clone, Debug)]
pub struct Symbol {
    /// The symbol's name; empty for a section symbol.
    pub name: Vec<u8>,
    /// `STB_*`.
    pub binding: u8,
    /// `STT_*`.
    pub kind: u8,
    /// `st_other`.
    pub other: u8,
    /// The symbol's place.
    pub place: SymbolPlace,
    /// The offset in the section.
    pub value: u64,
    /// The size in bytes.
    pub size: u64,
}

/// A relocation with addend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// The byte offset in the section to which the relocation applies.
    pub offset: u64,
    /// `R_*`.
    pub kind: u32,
    /// The symbol; `None` for a plain number.
    pub symbol: Option<SymbolIndex>,
    /// The number that is added to the symbol's address.
    pub addend: i64,
}

/// A relocation section.
#[derive(Clone, Debug)]
pub struct RelaTable {
    /// The section's name, such as `.rela.text` or `.klp.rela.vmlinux..text`.
    pub name: Vec<u8>,
    /// The flags, without `SHF_INFO_LINK`.
    pub flags: u64,
    /// The relocations in the section.
    pub relocations: Vec<Relocation>,
}

/// A section that is not a symbol, string or relocation table.
#[derive(Clone, Debug)]
pub struct OutputSection {
    /// The section's name.
    pub name: Vec<u8>,
    /// `SHT_*`.
    pub kind: u32,
    /// `SHF_*`.
    pub flags: u64,
    /// The alignment in bytes, a power of two.
    pub align: u64,
    /// The size of an entry, or 0.
    pub entsize: u64,
    /// The section to which `SHF_LINK_ORDER` refers.
    pub link: Option<Sec>,
    /// The section's bytes; empty for `SHT_NOBITS`.
    pub data: Vec<u8>,
    /// The section's size if it is `SHT_NOBITS`.
    pub nobits: u64,
    /// The relocations of the section, by relocation section.
    pub relas: Vec<RelaTable>,
}

impl OutputSection {
    /// A section without contents.
    pub fn new(name: &[u8], kind: u32, flags: u64, align: u64) -> OutputSection {
        OutputSection {
            name: name.to_vec(),
            kind,
            flags,
            align: align.max(1),
            entsize: 0,
            link: None,
            data: Vec::new(),
            nobits: 0,
            relas: Vec::new(),
        }
    }

    /// The number of bytes that the section takes in memory.
    pub fn size(&self) -> u64 {
        if self.kind == elf::SHT_NOBITS.0 { self.nobits } else { self.data.len() as u64 }
    }

    /// Pads the section to an offset that is `residue` modulo `align`, and returns the offset.
    pub fn pad(&mut self, align: u64, residue: u64, fill: u8) -> u64 {
        let align = align.max(1);
        self.align = self.align.max(align);
        let gap = (residue % align + align - self.size() % align) % align;
        if self.kind == elf::SHT_NOBITS.0 {
            self.nobits += gap;
        } else {
            self.data.resize(self.data.len() + gap as usize, fill);
        }
        self.size()
    }

    /// Adds a relocation to the ordinary relocation section.
    pub fn relocate(&mut self, relocation: Relocation) {
        let name = [b".rela", self.name.as_slice()].concat();
        self.rela_table(name, 0).relocations.push(relocation);
    }

    /// The relocation section with this name; creates it if it does not exist.
    pub fn rela_table(&mut self, name: Vec<u8>, flags: u64) -> &mut RelaTable {
        let at = match self.relas.iter().position(|table| table.name == name) {
            Some(at) => at,
            None => {
                self.relas.push(RelaTable { name, flags, relocations: Vec::new() });
                self.relas.len() - 1
            }
        };
        &mut self.relas[at]
    }
}

/// A relocatable file.
#[derive(Clone, Debug)]
pub struct Relocatable {
    /// `e_machine`.
    pub machine: u16,
    /// `e_flags`.
    pub flags: u32,
    /// The sections, in file order.
    pub sections: Vec<OutputSection>,
    /// The symbols; locals need not come first.
    pub symbols: Vec<Symbol>,
}

impl Relocatable {
    /// An empty file.
    pub fn new(machine: u16) -> Relocatable {
        Relocatable { machine, flags: 0, sections: Vec::new(), symbols: Vec::new() }
    }

    /// Adds a section.
    pub fn add_section(&mut self, section: OutputSection) -> Sec {
        self.sections.push(section);
        Sec(self.sections.len() - 1)
    }

    /// Adds a symbol.
    pub fn add_symbol(&mut self, symbol: Symbol) -> SymbolIndex {
        self.symbols.push(symbol);
        SymbolIndex(self.symbols.len() - 1)
    }

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

    /// Drops the sections for which `keep` is false, with their relocations and symbols.
    ///
    /// # Errors
    /// Fails if a section that stays refers to one that is dropped.
    pub fn retain_sections(&mut self, keep: impl Fn(&OutputSection) -> bool) -> Result<()> {
        let mut map = Vec::with_capacity(self.sections.len());
        let mut next = 0;
        for section in &self.sections {
            let stays = keep(section);
            map.push(stays.then_some(Sec(next)));
            next += usize::from(stays);
        }
        let mut stays = map.iter().map(Option::is_some);
        self.sections.retain(|_| stays.next().unwrap_or(true));
        for section in &mut self.sections {
            section.link = section.link.and_then(|link| map[link.0]);
        }
        let dropped: Vec<bool> = self
            .symbols
            .iter_mut()
            .map(|symbol| match symbol.place {
                SymbolPlace::In(at) => match map[at.0] {
                    Some(new) => {
                        symbol.place = SymbolPlace::In(new);
                        false
                    }
                    None => true,
                },
                _ => false,
            })
            .collect();
        self.retain_symbols(|index, _| !dropped[index])
    }

    /// Drops the symbols for which `keep` is false.
    ///
    /// # Errors
    /// Fails if a relocation still refers to a dropped symbol.
    pub fn retain_symbols(&mut self, keep: impl Fn(usize, &Symbol) -> bool) -> Result<()> {
        let mut map = Vec::with_capacity(self.symbols.len());
        let mut kept = Vec::with_capacity(self.symbols.len());
        for (index, symbol) in std::mem::take(&mut self.symbols).into_iter().enumerate() {
            if keep(index, &symbol) {
                map.push(Ok(SymbolIndex(kept.len())));
                kept.push(symbol);
            } else {
                map.push(Err(String::from_utf8_lossy(&symbol.name).into_owned()));
            }
        }
        self.symbols = kept;
        for section in &mut self.sections {
            let name = &section.name;
            for relocation in section.relas.iter_mut().flat_map(|table| &mut table.relocations) {
                let Some(symbol) = &mut relocation.symbol else { continue };
                match map.get(symbol.0) {
                    Some(Ok(new)) => *symbol = *new,
                    other => {
                        let gone = other.and_then(|r| r.as_ref().err()).map_or("", String::as_str);
                        let name = String::from_utf8_lossy(name);
                        return Err(unsupported(&format!("a reference from {name} to dropped {gone}")).into());
                    }
                }
            }
        }
        Ok(())
    }

    /// The bytes of the file.
    pub fn write(&self) -> Vec<u8> {
        FileLayout::new(self).write()
    }
}

/// The types of sections that are generated when a file is written.
const TABLES: [elf::SectionType; 4] =
    [elf::SHT_SYMTAB, elf::SHT_STRTAB, elf::SHT_RELA, elf::SHT_SYMTAB_SHNDX];

fn unsupported(what: &str) -> Diagnosis {
    Diagnosis::new(
        &codes::MODULE_FORM,
        format!("the linked module holds {what}"),
        "klpx writes kernel modules only, and none has that",
        "report this with the kernel's version and configuration",
    )
}

/// Names, each stored once, in the order in which they are added.
struct Strings {
    bytes: Vec<u8>,
    known: HashMap<Vec<u8>, u32, foldhash::fast::RandomState>,
}

impl Strings {
    fn new() -> Strings {
        Strings { bytes: vec![0], known: HashMap::default() }
    }

    fn add(&mut self, name: &[u8]) -> u32 {
        if name.is_empty() {
            return 0;
        }
        if let Some(&at) = self.known.get(name) {
            return at;
        }
        let at = self.bytes.len() as u32;
        self.bytes.extend_from_slice(name);
        self.bytes.push(0);
        self.known.insert(name.to_vec(), at);
        at
    }
}

/// One section header, as it is written to the file.
#[derive(Default)]
struct Header {
    name: u32,
    kind: u32,
    flags: u64,
    offset: u64,
    size: u64,
    link: u32,
    info: u32,
    align: u64,
    entsize: u64,
}

/// The layout of a file: section `n` of the image has header `n + 1`; relocation sections follow, then the tables.
struct FileLayout<'i> {
    image: &'i Relocatable,
    order: Vec<u32>,
    names: Strings,
    out: Vec<u8>,
    headers: Vec<Header>,
}

impl<'i> FileLayout<'i> {
    fn new(image: &'i Relocatable) -> FileLayout<'i> {
        let locals = |local: bool| {
            let of = move |s: &&Symbol| (s.binding == elf::STB_LOCAL.0) == local;
            image.symbols.iter().enumerate().filter(move |(_, s)| of(s)).map(|(n, _)| n)
        };
        let mut order = vec![0; image.symbols.len()];
        for (new, old) in locals(true).chain(locals(false)).enumerate() {
            order[old] = new as u32 + 1;
        }
        FileLayout { image, order, names: Strings::new(), out: vec![0; 64], headers: vec![Header::default()] }
    }

    fn append(&mut self, align: u64, bytes: &[u8]) -> u64 {
        let at = self.out.len().next_multiple_of(align.max(1) as usize);
        self.out.resize(at, 0);
        self.out.extend_from_slice(bytes);
        at as u64
    }

    fn write(mut self) -> Vec<u8> {
        let image = self.image;
        let relas =
            image.sections.iter().map(|s| s.relas.iter().filter(|t| !t.relocations.is_empty()).count());
        let symtab = (1 + image.sections.len() + relas.sum::<usize>()) as u32;
        for section in &image.sections {
            let offset = self.append(section.align, &section.data);
            let name = self.names.add(&section.name);
            self.headers.push(Header {
                name,
                kind: section.kind,
                flags: section.flags,
                offset,
                size: section.size(),
                link: section.link.map_or(0, |at| at.0 as u32 + 1),
                info: 0,
                align: section.align,
                entsize: section.entsize,
            });
        }
        for (n, section) in image.sections.iter().enumerate() {
            for table in section.relas.iter().filter(|table| !table.relocations.is_empty()) {
                self.write_relas(n as u32 + 1, table, symtab);
            }
        }
        self.write_symbols(symtab);
        self.finish()
    }

    fn write_relas(&mut self, target: u32, table: &RelaTable, symtab: u32) {
        let mut bytes = Vec::with_capacity(table.relocations.len() * 24);
        for relocation in &table.relocations {
            let symbol = relocation.symbol.map_or(0, |symbol| self.order[symbol.0]);
            bytes.extend(relocation.offset.to_le_bytes());
            bytes.extend((u64::from(symbol) << 32 | u64::from(relocation.kind)).to_le_bytes());
            bytes.extend(relocation.addend.to_le_bytes());
        }
        let offset = self.append(8, &bytes);
        let name = self.names.add(&table.name);
        self.headers.push(Header {
            name,
            kind: elf::SHT_RELA.0,
            flags: table.flags | elf::SHF_INFO_LINK.0,
            offset,
            size: bytes.len() as u64,
            link: symtab,
            info: target,
            align: 8,
            entsize: 24,
        });
    }

    fn write_symbols(&mut self, symtab: u32) {
        let image = self.image;
        let mut strings = Strings::new();
        let mut rows = vec![[0u8; 24]; image.symbols.len() + 1];
        let mut sorted: Vec<(u32, &Symbol)> = self.order.iter().copied().zip(&image.symbols).collect();
        sorted.sort_unstable_by_key(|&(at, _)| at);
        for (at, symbol) in sorted {
            let index = match symbol.place {
                SymbolPlace::Undefined => 0,
                SymbolPlace::Absolute => elf::SHN_ABS.0,
                SymbolPlace::Livepatch => SHN_LIVEPATCH,
                SymbolPlace::In(at) => at.0 as u16 + 1,
            };
            let row = &mut rows[at as usize];
            row[0..4].copy_from_slice(&strings.add(&symbol.name).to_le_bytes());
            row[4] = symbol.binding << 4 | symbol.kind;
            row[5] = symbol.other;
            row[6..8].copy_from_slice(&index.to_le_bytes());
            row[8..16].copy_from_slice(&symbol.value.to_le_bytes());
            row[16..24].copy_from_slice(&symbol.size.to_le_bytes());
        }
        let locals = image.symbols.iter().filter(|s| s.binding == elf::STB_LOCAL.0).count() as u32;
        let bytes = rows.concat();
        let offset = self.append(8, &bytes);
        let name = self.names.add(b".symtab");
        self.headers.push(Header {
            name,
            kind: elf::SHT_SYMTAB.0,
            offset,
            size: bytes.len() as u64,
            link: symtab + 1,
            info: locals + 1,
            align: 8,
            entsize: 24,
            ..Header::default()
        });
        self.write_strings(b".strtab", &strings.bytes);
    }

    fn write_strings(&mut self, name: &[u8], bytes: &[u8]) {
        let name = self.names.add(name);
        let offset = self.append(1, bytes);
        let size = bytes.len() as u64;
        self.headers.push(Header {
            name,
            kind: elf::SHT_STRTAB.0,
            offset,
            size,
            align: 1,
            ..Header::default()
        });
    }

    fn finish(mut self) -> Vec<u8> {
        self.names.add(b".shstrtab");
        let names = std::mem::take(&mut self.names.bytes);
        self.write_strings(b".shstrtab", &names);
        self.names.bytes = names;
        let mut table = Vec::with_capacity(self.headers.len() * 64);
        for header in &self.headers {
            table.extend(header.name.to_le_bytes());
            table.extend(header.kind.to_le_bytes());
            table.extend(header.flags.to_le_bytes());
            table.extend(0u64.to_le_bytes());
            table.extend(header.offset.to_le_bytes());
            table.extend(header.size.to_le_bytes());
            table.extend(header.link.to_le_bytes());
            table.extend(header.info.to_le_bytes());
            table.extend(header.align.to_le_bytes());
            table.extend(header.entsize.to_le_bytes());
        }
        let offset = self.append(8, &table);
        let head = self.file_header(offset);
        self.out[..64].copy_from_slice(&head);
        self.out
    }

    fn file_header(&self, sections_at: u64) -> [u8; 64] {
        let mut head = [0u8; 64];
        head[..4].copy_from_slice(&elf::ELFMAG);
        head[4..7].copy_from_slice(&[2, 1, 1]); // 64-bit, little-endian, version 1
        head[16..18].copy_from_slice(&elf::ET_REL.0.to_le_bytes());
        head[18..20].copy_from_slice(&self.image.machine.to_le_bytes());
        head[20..24].copy_from_slice(&1u32.to_le_bytes());
        head[40..48].copy_from_slice(&sections_at.to_le_bytes());
        head[48..52].copy_from_slice(&self.image.flags.to_le_bytes());
        head[52..54].copy_from_slice(&64u16.to_le_bytes());
        head[58..60].copy_from_slice(&64u16.to_le_bytes());
        head[60..62].copy_from_slice(&(self.headers.len() as u16).to_le_bytes());
        head[62..64].copy_from_slice(&(self.headers.len() as u16 - 1).to_le_bytes());
        head
    }
}

/// The name of the livepatch relocation section for `section` whose relocations refer to `object`.
pub fn klp_rela_name(object: &str, section: &[u8]) -> Vec<u8> {
    [b".klp.rela.", object.as_bytes(), b".", section].concat()
}

/// Flags of a livepatch relocation section, besides `SHF_INFO_LINK`.
pub const KLP_RELA_FLAGS: u64 = elf::SHF_ALLOC.0 | SHF_RELA_LIVEPATCH;

#[cfg(test)]
mod tests;
