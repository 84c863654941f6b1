//! Raw ELF64 little-endian files by mmap: sections, symbols and relocations. All tables are checked once, when the file
//! is parsed.
//!
//! Owns the checks of bounds and indices, `SHN_XINDEX` and extended section counts. Does not interpret sections.

mod tables;

use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Result, codes};
use klpx_input::MappedFile;
use object::elf;
use object::endian::{LittleEndian as LE, U32};
use object::pod;

use crate::{compressed, name};
pub use tables::{Rela, Shdr, Sym};
use tables::{section_headers, section_string_table, string_at, table};

/// Section flag of a livepatch relocation section (include/linux/livepatch_external.h).
pub const SHF_RELA_LIVEPATCH: u64 = 0x0010_0000;
/// Section index of a livepatch symbol (include/linux/livepatch_external.h).
pub const SHN_LIVEPATCH: u16 = 0xff20;

/// Index of a section in its file. 0 is the null section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SectionId(pub u32);

/// Index of a symbol in its file's symbol table. 0 is the null symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SymbolId(pub u32);

impl SectionId {
    /// As an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl SymbolId {
    /// The null symbol.
    pub const NONE: SymbolId = SymbolId(0);

    /// As an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Where a symbol is defined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Definition {
    /// Not in this file.
    Undefined,
    /// An absolute value, or an index that means no section.
    Absolute,
    /// Common storage that a linker allots.
    Common,
    /// Resolved by the livepatch core when the module is loaded.
    Livepatch,
    /// At an offset of a section.
    Section(SectionId),
}

/// A file's bytes and the path that messages name.
pub struct ElfFile {
    path: PathBuf,
    bytes: Bytes,
}

enum Bytes {
    Map(MappedFile),
    Owned(Vec<u8>),
}

impl ElfFile {
    /// Maps a file, and unpacks a compressed file into memory.
    ///
    /// # Errors
    /// If the file can't be read or unpacked.
    pub fn open(path: &Path) -> Result<ElfFile> {
        let io = |e: &std::io::Error| Diagnosis::io("read", path, e);
        let file = klpx_input::open(path).map_err(|e| io(&e))?;
        let length = file.metadata().map_err(|e| io(&e))?.len();
        let bytes = if length == 0 {
            Bytes::Owned(Vec::new())
        } else {
            let map = MappedFile::new(&file, path).map_err(|e| io(&e))?;
            match compressed::unpack(path, &map)? {
                Some(unpacked) => Bytes::Owned(unpacked),
                None => Bytes::Map(map),
            }
        };
        Ok(ElfFile { path: path.to_owned(), bytes })
    }

    /// Takes bytes that are already in memory.
    pub fn from_bytes(name: impl Into<PathBuf>, bytes: Vec<u8>) -> ElfFile {
        ElfFile { path: name.into(), bytes: Bytes::Owned(bytes) }
    }

    /// Returns the path that the file was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the whole file.
    pub fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Map(map) => map,
            Bytes::Owned(bytes) => bytes,
        }
    }

    /// Checks the file's tables.
    pub fn parse(&self) -> Result<Elf<'_>> {
        let map = match &self.bytes {
            Bytes::Map(map) => Some(map),
            Bytes::Owned(_) => None,
        };
        Elf::parse(self.bytes(), map).map_err(|why| {
            Diagnosis::new(
                &codes::BAD_ELF,
                "not a usable ELF file",
                why,
                "build the file again; if it came from a package, check its integrity",
            )
            .place(DiagnosisPlace::file(self.path.display().to_string(), None))
            .into()
        })
    }
}

/// A checked view of an ELF64 little-endian file. Every accessor below is total, because `parse` checked the ranges.
pub struct Elf<'d> {
    data: &'d [u8],
    /// The mapping that holds `data`; `None` for memory of klpx's own.
    map: Option<&'d MappedFile>,
    header: &'d elf::FileHeader64<LE>,
    sections: &'d [Shdr],
    section_names: &'d [u8],
    symbols: &'d [Sym],
    symbol_names: &'d [u8],
    symbol_table: SectionId,
    extended: &'d [U32<LE>],
    relocations: Vec<u32>,
    /// Sorted copies of the relocations of loaded sections that do not lie in the order of their places.
    sorted: Vec<(SectionId, Vec<Rela>)>,
}

impl<'d> Elf<'d> {
    fn parse(data: &'d [u8], map: Option<&'d MappedFile>) -> Result<Elf<'d>, String> {
        let (header, _) = pod::from_bytes::<elf::FileHeader64<LE>>(data).map_err(|()| "it is too short")?;
        if header.e_ident.magic != elf::ELFMAG {
            return Err("it does not begin as an ELF file does".into());
        }
        if header.e_ident.class != elf::ELFCLASS64 || header.e_ident.data != elf::ELFDATA2LSB {
            return Err("it is not 64-bit little-endian".into());
        }
        let sections = section_headers(data, header)?;
        let names = SectionId(section_string_table(header, sections)?);
        let mut elf = Elf {
            data,
            map,
            header,
            sections,
            section_names: &[],
            symbols: &[],
            symbol_names: &[],
            symbol_table: SectionId(0),
            extended: &[],
            relocations: vec![0; sections.len()],
            sorted: Vec::new(),
        };
        for (n, section) in sections.iter().enumerate() {
            if section.sh_type.get(LE) == elf::SHT_NOBITS {
                continue; // its offset may lie past the end of the file
            }
            let end = section.sh_offset.get(LE).checked_add(section.sh_size.get(LE));
            if end.is_none_or(|end| end > data.len() as u64) {
                return Err(format!("section {n} reaches past the end of the file"));
            }
        }
        elf.section_names = elf.strings(names, "section names")?;
        if sections.iter().any(|s| s.sh_name.get(LE) as usize >= elf.section_names.len().max(1)) {
            return Err("a section's name lies outside the section names".into());
        }
        elf.read_symbols()?;
        elf.index_relocations()?;
        elf.sort_relocations();
        Ok(elf)
    }

    fn strings(&self, id: SectionId, what: &str) -> Result<&'d [u8], String> {
        let bytes = self.section_bytes(id);
        if !bytes.is_empty() && bytes.last() != Some(&0) {
            return Err(format!("its {what} do not end with a NUL"));
        }
        Ok(bytes)
    }

    fn read_symbols(&mut self) -> Result<(), String> {
        let Some(index) = self.sections.iter().position(|s| s.sh_type.get(LE) == elf::SHT_SYMTAB) else {
            return Ok(());
        };
        let section = &self.sections[index];
        self.symbol_table = SectionId(index as u32);
        let count = section.sh_size.get(LE) / size_of::<Sym>() as u64;
        self.symbols = table(self.data, section.sh_offset.get(LE), count, "symbol table")?;
        let strings = section.sh_link.get(LE);
        if strings as usize >= self.sections.len() {
            return Err("its symbol table names no string table".into());
        }
        self.symbol_names = self.strings(SectionId(strings), "symbol names")?;
        if let Some(x) = self
            .sections
            .iter()
            .find(|s| s.sh_type.get(LE) == elf::SHT_SYMTAB_SHNDX && s.sh_link.get(LE) as usize == index)
        {
            self.extended =
                table(self.data, x.sh_offset.get(LE), x.sh_size.get(LE) / 4, "extended index table")?;
            if self.extended.len() < self.symbols.len() {
                return Err("its extended index table is shorter than its symbol table".into());
            }
        }
        for (n, symbol) in self.symbols.iter().enumerate() {
            if symbol.st_name.get(LE) as usize >= self.symbol_names.len().max(1) {
                return Err(format!("the name of symbol {n} lies outside the symbol names"));
            }
            if let Definition::Section(section) = self.definition(SymbolId(n as u32))
                && section.index() >= self.sections.len()
            {
                return Err(format!("symbol {n} is in section {}, which does not exist", section.0));
            }
        }
        Ok(())
    }

    fn index_relocations(&mut self) -> Result<(), String> {
        for (n, section) in self.sections.iter().enumerate() {
            let flags = section.sh_flags.get(LE).0;
            if section.sh_type.get(LE) != elf::SHT_RELA || flags & SHF_RELA_LIVEPATCH != 0 {
                continue;
            }
            let target = section.sh_info.get(LE) as usize;
            if self.symbol_table.0 == 0 || section.sh_link.get(LE) != self.symbol_table.0 || target == 0 {
                continue; // dynamic relocations of a linked image
            }
            let slot = self.relocations.get_mut(target).ok_or_else(|| {
                format!("relocation section {n} is for section {target}, which does not exist")
            })?;
            if *slot != 0 {
                return Err(format!("section {target} has two relocation sections"));
            }
            *slot = n as u32;
        }
        Ok(())
    }

    /// Sorts a copy of the relocations that do not lie in the order of their places; assemblers mostly write them in
    /// order. Debug sections are left as they are: they hold nine tenths of all relocations.
    fn sort_relocations(&mut self) {
        let unsorted: Vec<SectionId> = self
            .section_ids()
            .filter(|&id| self.section_flags(id) & elf::SHF_ALLOC.0 != 0)
            .filter(|&id| !self.relocations(id).is_sorted_by_key(|rela| rela.r_offset.get(LE)))
            .collect();
        for id in unsorted {
            let mut copy = self.relocations(id).to_vec();
            copy.sort_by_key(|rela| rela.r_offset.get(LE));
            self.sorted.push((id, copy));
        }
    }

    /// Returns the whole file.
    pub fn data(&self) -> &'d [u8] {
        self.data
    }

    /// Gives back the memory that a part of the mapped file takes up in this process, for a large part that was read
    /// once. The part may be read again: the system then takes it from the file, mostly from its cache. Bytes outside
    /// the mapped file stay.
    pub fn release(&self, part: &[u8]) {
        let Some(map) = self.map else { return };
        let start = (part.as_ptr() as usize).checked_sub(map.as_ptr() as usize);
        let Some(start) =
            start.filter(|start| start.checked_add(part.len()).is_some_and(|end| end <= map.len()))
        else {
            return;
        };
        map.release(start, part.len());
    }

    /// `e_type`: `ET_REL` for objects and modules, `ET_EXEC` or `ET_DYN` for a linked vmlinux.
    pub fn file_type(&self) -> u16 {
        self.header.e_type.get(LE).0
    }

    /// `e_machine`.
    pub fn machine(&self) -> u16 {
        self.header.e_machine.get(LE).0
    }

    /// Returns every section, the null section included.
    pub fn section_ids(&self) -> impl ExactSizeIterator<Item = SectionId> + use<> {
        (0..self.sections.len() as u32).map(SectionId)
    }

    /// Returns how many sections there are, the null section included.
    pub fn section_count(&self) -> usize {
        self.sections.len()
    }

    /// Returns a section's header.
    pub fn section(&self, id: SectionId) -> &'d Shdr {
        &self.sections[id.index()]
    }

    /// `sh_flags`.
    pub fn section_flags(&self, id: SectionId) -> u64 {
        self.section(id).sh_flags.get(LE).0
    }

    /// `sh_size`.
    pub fn section_size(&self, id: SectionId) -> u64 {
        self.section(id).sh_size.get(LE)
    }

    /// `sh_type`.
    pub fn section_type(&self, id: SectionId) -> u32 {
        self.section(id).sh_type.get(LE).0
    }

    /// Returns a section's name.
    pub fn section_name(&self, id: SectionId) -> &'d [u8] {
        string_at(self.section_names, self.section(id).sh_name.get(LE))
    }

    /// Returns a section's bytes; empty for `SHT_NOBITS`.
    pub fn section_bytes(&self, id: SectionId) -> &'d [u8] {
        let section = self.section(id);
        if section.sh_type.get(LE) == elf::SHT_NOBITS {
            return &[];
        }
        let start = section.sh_offset.get(LE) as usize;
        &self.data[start..start + section.sh_size.get(LE) as usize]
    }

    /// Returns the first section of that name.
    pub fn section_by_name(&self, name: &[u8]) -> Option<SectionId> {
        self.section_ids().find(|&id| self.section_name(id) == name)
    }

    /// Returns how many symbols there are, the null symbol included.
    pub fn symbol_count(&self) -> usize {
        self.symbols.len()
    }

    /// Returns every symbol but the null symbol.
    pub fn symbol_ids(&self) -> impl ExactSizeIterator<Item = SymbolId> + use<> {
        (1..self.symbols.len().max(1) as u32).map(SymbolId)
    }

    /// Returns a symbol.
    pub fn symbol(&self, id: SymbolId) -> &'d Sym {
        &self.symbols[id.index()]
    }

    /// Returns a symbol's name. Section symbols have an empty one.
    pub fn symbol_name(&self, id: SymbolId) -> &'d [u8] {
        string_at(self.symbol_names, self.symbol(id).st_name.get(LE))
    }

    /// Returns true if a symbol's name contains the text.
    pub fn any_name_contains(&self, text: &[u8]) -> bool {
        memchr::memmem::find(self.symbol_names, text).is_some()
    }

    /// `st_value`: an offset in an object, an address in a linked image.
    pub fn symbol_value(&self, id: SymbolId) -> u64 {
        self.symbol(id).st_value.get(LE)
    }

    /// `st_size` in bytes.
    pub fn symbol_size(&self, id: SymbolId) -> u64 {
        self.symbol(id).st_size.get(LE)
    }

    /// Returns the symbol's `STT_*`. Clang gives no type to the pieces of a function that it lays apart from its entry
    /// (llvm/lib/CodeGen/AsmPrinter/AsmPrinter.cpp, `emitBasicBlockStart`). Such pieces count as functions, as in
    /// objtool (tools/objtool/elf.c).
    pub fn symbol_type(&self, id: SymbolId) -> u8 {
        let kind = self.symbol(id).st_info.0 & 0xf;
        let is_piece = kind == elf::STT_NOTYPE.0
            && self.symbol_size(id) > 0
            && matches!(self.definition(id), Definition::Section(section)
                if self.section_flags(section) & elf::SHF_EXECINSTR.0 != 0)
            && name::is_apart(self.symbol_name(id));
        if is_piece { elf::STT_FUNC.0 } else { kind }
    }

    /// `STB_*`.
    pub fn symbol_binding(&self, id: SymbolId) -> u8 {
        self.symbol(id).st_info.0 >> 4
    }

    /// Returns where a symbol is defined.
    pub fn definition(&self, id: SymbolId) -> Definition {
        match self.symbol(id).st_shndx.get(LE) {
            elf::SHN_UNDEF => Definition::Undefined,
            elf::SHN_ABS => Definition::Absolute,
            elf::SHN_COMMON => Definition::Common,
            index if index.0 == SHN_LIVEPATCH => Definition::Livepatch,
            elf::SHN_XINDEX => match self.extended.get(id.index()) {
                Some(index) => Definition::Section(SectionId(index.get(LE))),
                None => Definition::Absolute,
            },
            index if index.0 >= elf::SHN_LORESERVE => Definition::Absolute,
            index => Definition::Section(SectionId(u32::from(index.0))),
        }
    }

    /// Returns the section that a symbol is defined in.
    pub fn symbol_section(&self, id: SymbolId) -> Option<SectionId> {
        match self.definition(id) {
            Definition::Section(section) => Some(section),
            _ => None,
        }
    }

    /// Returns the symbol table's section, if there is one.
    pub fn symbol_table(&self) -> Option<SectionId> {
        (self.symbol_table.0 != 0).then_some(self.symbol_table)
    }

    /// Returns the relocations on a section, sorted by place for a loaded section. Livepatch relocation sections are
    /// left out.
    ///
    /// The symbol indices of relocations are *not* checked here (7 million lie on debug sections); see
    /// [`Elf::rela_symbol`].
    pub fn relocations(&self, id: SectionId) -> &[Rela] {
        match self.relocations[id.index()] {
            0 => &[],
            n => match self.sorted.binary_search_by_key(&id, |(section, _)| *section) {
                Ok(copy) => &self.sorted[copy].1,
                Err(_) => self.rela_table(SectionId(n)),
            },
        }
    }

    /// Returns the relocations that a `SHT_RELA` section holds.
    pub fn rela_table(&self, id: SectionId) -> &'d [Rela] {
        let bytes = self.section_bytes(id);
        match pod::slice_from_bytes(bytes, bytes.len() / size_of::<Rela>()) {
            Ok((slice, _)) => slice,
            Err(()) => &[],
        }
    }

    /// Returns a relocation's symbol, if the index exists.
    pub fn rela_symbol(&self, rela: &Rela) -> Option<SymbolId> {
        let index = rela.r_sym(LE, false);
        ((index as usize) < self.symbols.len()).then_some(SymbolId(index))
    }
}
