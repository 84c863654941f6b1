//! The object model: a relocatable file as items (functions, data objects), the targets of their relocations, and the
//! special-section entries that belong to each item.
//!
//! An item is a range of one section with a name. Bytes that no symbol names are reached through references to them, as
//! [`Target::Literal`].

mod borders;
mod checks;
mod direct;
mod entries;
mod gaps;
mod items;
mod meaning;
mod range;
mod roles;
mod sanitizer;
mod source_folder;
mod type_ids;
mod units;

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Result, codes};
use object::elf;
use object::endian::LittleEndian as LE;

use crate::arch::{Arch, RelocationKind};
use crate::elf::{Elf, ElfFile, Rela, SectionId, SymbolId};
use crate::name::{self, Anonymous, Canonical};
use crate::special::SpecialTable;
pub use direct::DirectBranch;
pub use gaps::Outlier;
pub use range::SectionRange;
pub use sanitizer::{LINE_AND_COLUMN, places_in_type, type_description, without_places};

/// Index of an item in its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemId(pub u32);

impl ItemId {
    const NONE: ItemId = ItemId(u32::MAX);

    /// As an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Index of a FILE symbol among the FILE symbols of its object, in symbol table order; [`FileId::NONE`] for no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u32);

impl FileId {
    /// No single file: a global symbol, or an object without FILE symbols.
    pub const NONE: FileId = FileId(u32::MAX);
}

/// Index of a special section in [`Object::tables`]. An arm64 kernel has one table of trace sites for each function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(pub u32);

impl TableId {
    /// For indexing.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a section is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Not loaded: debug information, symbol tables, relocations, notes.
    Unloaded,
    /// Code.
    Code,
    /// Writable data, or a constant with a name.
    Data,
    /// NUL-terminated strings (`SHF_MERGE | SHF_STRINGS`).
    Strings,
    /// Constants of this size that a linker may merge.
    Constants(u32),
    /// A special section: index into [`Object::tables`].
    Table(TableId),
    /// A section that is read with another table, or only while the kernel is built (`.discard.*`, `.export_symbol`,
    /// `.orc_unwind`).
    BuildOnly,
    /// Tables that the kernel reads once, when it boots or a module is loaded: initcalls, parameters, exports.
    Registry,
}

/// A function or data object.
#[derive(Clone, Copy, Debug)]
pub struct Item {
    /// The section of the item.
    pub section: SectionId,
    /// First byte in the section, including a prefix before the entry.
    pub start: u64,
    /// The place that the item's symbol points at.
    pub entry: u64,
    /// One past the last byte, including a tail after the symbol's size.
    pub end: u64,
    /// The item's symbol. [`Object::aliases`] finds its aliases.
    pub symbol: SymbolId,
    /// The symbol of the prefix function: `__pfx_` (objtool --prefix) or `__cfi_` (kCFI), then the name.
    pub prefix: Option<SymbolId>,
    /// True for code.
    pub code: bool,
}

/// The target of a relocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A place in an item, in bytes from the entry. The place may lie outside the item.
    Item {
        /// The item.
        item: ItemId,
        /// Bytes from the item's entry.
        offset: i64,
    },
    /// Bytes without a name: a string, a merged constant, an alternative's replacement.
    Literal {
        /// The section.
        section: SectionId,
        /// Where the literal begins.
        start: u64,
        /// The end, as far as it can be known.
        end: u64,
        /// The referenced place, in bytes from `start`.
        offset: i64,
    },
    /// An entry of a special section.
    Entry {
        /// Index into [`Object::tables`].
        table: TableId,
        /// The entry.
        entry: u32,
        /// Bytes from the start of the entry.
        offset: i64,
    },
    /// A symbol whose definition the link chooses, with the addend: an undefined symbol, or a weak alias
    /// ([`Object::is_weak_alias`]).
    External {
        /// The symbol.
        symbol: SymbolId,
        /// Bytes from the symbol.
        offset: i64,
    },
    /// A plain number.
    Absolute(i64),
}

/// A special-section entry with the item that it describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The item that the entry's place lies in.
    pub owner: ItemId,
    /// Index into [`Object::tables`].
    pub table: TableId,
    /// The place, in bytes from the owner's entry.
    pub place: i64,
    /// Index of the entry in its table.
    pub index: u32,
}

/// A special-section entry that describes code without a name, such as a call in an alternative's replacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamelessEntry {
    /// The section of the code.
    pub section: SectionId,
    /// The described place in this section.
    pub place: u64,
    /// Index into [`Object::tables`].
    pub table: TableId,
    /// Index of the entry in its table.
    pub index: u32,
}

/// A named symbol: section, value, the complement of its size, 1 for a label, and the symbol.
type Sorted = (u32, u64, u64, u8, SymbolId);

/// A relocatable object, read once.
pub struct Object<'d> {
    /// The file's tables.
    pub elf: Elf<'d>,
    /// The object's architecture.
    pub arch: Arch,
    /// Special sections.
    pub tables: Vec<SpecialTable>,
    name: String,
    roles: Vec<Role>,
    items: Vec<Item>,
    section_items: Vec<(u32, u32)>,
    symbol_item: Vec<ItemId>,
    symbol_file: Vec<FileId>,
    files: Vec<SymbolId>,
    units: Vec<FileId>,
    entries: Vec<Entry>,
    item_entries: Vec<u32>,
    nameless_entries: Vec<NamelessEntry>,
    marks: Vec<gaps::MappingSymbol>,
    outliers: Vec<Outlier>,
    type_ids: Vec<type_ids::TypeId>,
    /// The folders, each with a `/` at the end.
    source_folders: Vec<Vec<u8>>,
}

impl<'d> Object<'d> {
    /// Reads an object. Debug sections are not touched.
    ///
    /// # Errors
    /// If the file is not a relocatable object of a known architecture, if a relocation or a symbol is invalid, or if a
    /// special section has an unknown form.
    pub fn read(file: &'d ElfFile) -> Result<Object<'d>> {
        let elf = file.parse()?;
        let name = file.path().display().to_string();
        if elf.file_type() != elf::ET_REL.0 {
            return Err(Diagnosis::new(
                &codes::NOT_RELOCATABLE,
                "not a relocatable object",
                "only .o and .ko files, and vmlinux.o, have the relocations that klpx compares",
                "name the object; to compare with a linked kernel, use klpx build",
            )
            .place(DiagnosisPlace::file(name, None))
            .into());
        }
        let arch = Arch::of_machine(elf.machine())?;
        let mut object = Object {
            arch,
            tables: Vec::new(),
            name,
            roles: Vec::new(),
            items: Vec::new(),
            section_items: Vec::new(),
            symbol_item: vec![ItemId::NONE; elf.symbol_count()],
            symbol_file: vec![FileId::NONE; elf.symbol_count()],
            files: Vec::new(),
            units: Vec::new(),
            entries: Vec::new(),
            item_entries: Vec::new(),
            nameless_entries: Vec::new(),
            marks: Vec::new(),
            outliers: Vec::new(),
            type_ids: Vec::new(),
            source_folders: Vec::new(),
            elf,
        };
        object.read_roles()?;
        object.check_relocations()?;
        object.check_symbols()?;
        object.read_items();
        object.read_units();
        object.claim_gaps();
        object.read_entries();
        Ok(object)
    }

    /// Returns the path that the object was read from.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns what a section is for.
    pub fn role(&self, section: SectionId) -> Role {
        self.roles[section.index()]
    }

    /// Returns every item, sorted by section and start.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// Returns every item's index.
    pub fn item_ids(&self) -> impl ExactSizeIterator<Item = ItemId> + use<> {
        (0..self.items.len() as u32).map(ItemId)
    }

    /// Returns an item.
    pub fn item(&self, id: ItemId) -> &Item {
        &self.items[id.index()]
    }

    /// Returns the items of a section.
    pub fn items_of(&self, section: SectionId) -> impl ExactSizeIterator<Item = ItemId> + use<> {
        let (start, end) = self.section_items[section.index()];
        (start..end).map(ItemId)
    }

    /// Returns an item's name, which is its symbol's name as the file has it.
    pub fn item_name(&self, id: ItemId) -> &'d [u8] {
        self.elf.symbol_name(self.item(id).symbol)
    }

    /// Returns the reason why a data object has no identity, by its name and its section; `None` for an object with an
    /// identity.
    pub fn anonymous(&self, id: ItemId) -> Option<Anonymous> {
        self.anonymous_as(id, name::canonical(self.item_name(id)))
    }

    /// Does the same as [`Object::anonymous`] for a name that is already split.
    pub fn anonymous_as(&self, id: ItemId, canonical: Canonical<'_>) -> Option<Anonymous> {
        let item = self.item(id);
        let why = name::anonymous_as(self.item_name(id), canonical).filter(|_| !item.code)?;
        let writable = self.elf.section_flags(item.section) & elf::SHF_WRITE.0 != 0;
        why.lies_in(self.elf.section_name(item.section), writable).then_some(why)
    }

    /// Returns the item that a symbol lies in, if there is one.
    pub fn symbol_item(&self, symbol: SymbolId) -> Option<ItemId> {
        let item = self.symbol_item[symbol.index()];
        (item != ItemId::NONE).then_some(item)
    }

    /// Returns every other symbol that points at an item's entry.
    pub fn aliases(&self, id: ItemId) -> impl Iterator<Item = SymbolId> + '_ {
        let item = *self.item(id);
        self.elf.symbol_ids().filter(move |&symbol| {
            self.symbol_item[symbol.index()] == id
                && symbol != item.symbol
                && self.elf.symbol_value(symbol) == item.entry
        })
    }

    /// Returns true if ThinLTO promoted a local of some file to a global.
    pub fn has_promoted(&self) -> bool {
        self.elf.any_name_contains(name::PROMOTED)
    }

    /// Returns the data sections in which nothing has a name and to which nothing in this object refers. The kernel
    /// finds such a table by its section; inline assembly fills some of them (`DECLARE_PCI_FIXUP_*` of
    /// include/linux/pci.h). What a compiler's local label marks is none: the final link puts the section into `.data` or
    /// `.rodata` (`.data..L*` in include/asm-generic/vmlinux.lds.h), and GCC leaves the data of a check that it removed.
    pub fn unnamed_tables(&self) -> Vec<SectionId> {
        let is_table = |id: &SectionId| {
            matches!(self.role(*id), Role::Data | Role::Registry)
                && self.items_of(*id).len() == 0
                && self.elf.section_size(*id) > 0
                && sanitizer::local_label(self.elf.section_name(*id)).is_none()
        };
        let mut found: Vec<SectionId> = self.elf.section_ids().filter(is_table).collect();
        if found.is_empty() {
            return found;
        }
        let loaded = self.elf.section_ids().filter(|&id| self.role(id) != Role::Unloaded);
        for rela in loaded.flat_map(|id| self.elf.relocations(id)) {
            let target = self.elf.rela_symbol(rela).and_then(|symbol| self.elf.symbol_section(symbol));
            found.retain(|&id| Some(id) != target);
        }
        found
    }

    /// Returns an item's bytes; empty for `.bss`.
    pub fn item_bytes(&self, id: ItemId) -> &'d [u8] {
        let item = self.item(id);
        self.range(item.section, item.start, item.end)
    }

    /// Returns bytes of a section, cut to the bytes that the file has.
    pub fn range(&self, section: SectionId, start: u64, end: u64) -> &'d [u8] {
        let bytes = self.elf.section_bytes(section);
        let end = (end as usize).min(bytes.len());
        bytes.get(start as usize..end).unwrap_or(&[])
    }

    /// Returns the relocations whose place lies in `start..end` of a section, in order.
    pub fn relocations_in(&self, section: SectionId, start: u64, end: u64) -> &[Rela] {
        let all = self.elf.relocations(section);
        let from = all.partition_point(|rela| rela.r_offset.get(LE) < start);
        let to = all.partition_point(|rela| rela.r_offset.get(LE) < end);
        all.get(from..to).unwrap_or(&[])
    }

    /// Returns an item's relocations.
    pub fn item_relocations(&self, id: ItemId) -> &[Rela] {
        let item = self.item(id);
        self.relocations_in(item.section, item.start, item.end)
    }

    /// Returns a relocation's type, if klpx knows it.
    pub fn relocation_kind(&self, rela: &Rela) -> Option<&'static RelocationKind> {
        self.arch.relocation(rela.r_type(LE, false).0)
    }
}
