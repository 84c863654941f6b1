//! A relocatable file as plain values.

use klpx_diagnosis::{Diagnosis, Result, codes};
use klpx_normalize::elf::SHF_RELA_LIVEPATCH;
use object::elf;

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
}

/// The name of the livepatch relocation section for `section` whose relocations refer to `object`.
pub fn klp_rela_name(object: &str, section: &[u8]) -> Vec<u8> {
    [b".klp.rela.", object.as_bytes(), b".", section].concat()
}

/// Flags of a livepatch relocation section, besides `SHF_INFO_LINK`.
pub const KLP_RELA_FLAGS: u64 = elf::SHF_ALLOC.0 | SHF_RELA_LIVEPATCH;

/// The refusal for a file that no kernel module resembles.
pub(super) fn unsupported(what: &str) -> Diagnosis {
    Diagnosis::new(
        &codes::MODULE_FORM,
        format!("the linked module holds {what}"),
        "klpx writes kernel modules only, and none has that",
        "report this with the kernel's version and configuration",
    )
}
