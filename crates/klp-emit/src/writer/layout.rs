//! The bytes of a file: header, sections, relocation sections, symbols, string tables and section headers.

use hashbrown::HashMap;
use klpx_normalize::elf::SHN_LIVEPATCH;
use object::elf;

use super::relocatable::{RelaTable, Relocatable, Symbol, SymbolPlace};

impl Relocatable {
    /// The bytes of the file.
    pub fn write(&self) -> Vec<u8> {
        FileLayout::new(self).write()
    }
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
