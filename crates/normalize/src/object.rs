//! The object model: a relocatable file as items (functions, data objects), the targets of their relocations, and the
//! special-section entries that belong to each item.
//!
//! An item is a range of one section with a name. Bytes that no symbol names are reached through references to them, as
//! [`Target::Literal`].

mod borders;
mod direct;
mod gaps;
mod range;
mod source_folder;
mod type_ids;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Result, codes};
use object::elf;
use object::endian::LittleEndian as LE;

use crate::arch::{Arch, RelocationKind};
use crate::elf::{Definition, Elf, ElfFile, Rela, SectionId, SymbolId};
use crate::name::{self, Anonymous, Canonical};
use crate::special::{SpecialTable, TableKind};
pub use direct::DirectBranch;
pub use gaps::Outlier;
pub use range::SectionRange;
pub use source_folder::LINE_AND_COLUMN;

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

    fn read_roles(&mut self) -> Result<()> {
        self.roles.reserve(self.elf.section_count());
        for id in self.elf.section_ids() {
            let role = match TableKind::of(self.arch, self.elf.section_name(id)) {
                Some(kind) if self.elf.section_flags(id) & elf::SHF_ALLOC.0 != 0 => {
                    self.tables.push(SpecialTable::read(&self.elf, id, kind)?);
                    Role::Table(TableId((self.tables.len() - 1) as u32))
                }
                _ => self.role_of(id),
            };
            self.roles.push(role);
        }
        Ok(())
    }

    fn role_of(&self, id: SectionId) -> Role {
        let section = self.elf.section(id);
        let flags = self.elf.section_flags(id);
        let kind = self.elf.section_type(id);
        if flags & elf::SHF_ALLOC.0 == 0 || kind == elf::SHT_NOTE.0 {
            return Role::Unloaded;
        }
        let name = self.elf.section_name(id);
        if name.starts_with(b".discard")
            || BUILD_ONLY.contains(&name)
            || TableKind::is_companion(self.arch, name)
        {
            return Role::BuildOnly;
        }
        if REGISTRIES.iter().any(|start| name.starts_with(start)) {
            return Role::Registry;
        }
        if flags & elf::SHF_EXECINSTR.0 != 0 {
            return Role::Code;
        }
        let merged = flags & elf::SHF_MERGE.0 != 0;
        match section.sh_entsize.get(LE) {
            _ if merged && flags & elf::SHF_STRINGS.0 != 0 => Role::Strings,
            size @ 1..=4096 if merged => Role::Constants(size as u32),
            _ => Role::Data,
        }
    }

    /// Checks that every relocation of a loaded section has a symbol that exists, a place inside the section, and a target
    /// that is loaded too. The relocations of sections that are not loaded are neither checked nor sorted.
    fn check_relocations(&self) -> Result<()> {
        for id in self.elf.section_ids() {
            if self.role(id) == Role::Unloaded {
                continue;
            }
            let size = self.elf.section_size(id);
            for rela in self.elf.relocations(id) {
                let offset = rela.r_offset.get(LE);
                let section = || String::from_utf8_lossy(self.elf.section_name(id));
                let fault = match self.elf.rela_symbol(rela).map(|symbol| self.elf.definition(symbol)) {
                    None => {
                        self.bad(format!("a relocation of {} names a symbol that does not exist", section()))
                    }
                    Some(_) if offset >= size => {
                        self.bad(format!("a relocation of {} lies outside its section", section()))
                    }
                    Some(Definition::Section(target)) if self.role(target) == Role::Unloaded => self
                        .reference_to_unloaded(
                            &section(),
                            &String::from_utf8_lossy(self.elf.section_name(target)),
                        ),
                    Some(_) => continue,
                };
                return Err(fault.into());
            }
        }
        Ok(())
    }

    /// Checks that functions and data lie in their section: the contents would be unknown outside. Labels may lie
    /// anywhere.
    fn check_symbols(&self) -> Result<()> {
        for id in self.elf.symbol_ids() {
            let Definition::Section(section) = self.elf.definition(id) else { continue };
            let outside = self.elf.symbol_value(id) > self.elf.section_size(section);
            if outside && self.elf.symbol_size(id) > 0 && self.role(section) != Role::Unloaded {
                let name = String::from_utf8_lossy(self.elf.symbol_name(id)).into_owned();
                return Err(self.bad(format!("{name} lies outside its section")).into());
            }
        }
        Ok(())
    }

    fn bad(&self, what: String) -> Diagnosis {
        Diagnosis::new(
            &codes::BAD_ELF,
            what,
            "the object is damaged, or its tables contradict each other",
            "build the object again",
        )
        .place(DiagnosisPlace::file(self.name.clone(), None))
    }

    fn reference_to_unloaded(&self, section: &str, target: &str) -> Diagnosis {
        Diagnosis::new(
            &codes::UNKNOWN_SECTION,
            format!("{section} refers to {target}, a section that is not loaded"),
            "the kernel's memory does not hold the target of the reference",
            "look for a section attribute or inline assembly in the patch, and use a section that is loaded",
        )
        .place(DiagnosisPlace::file(self.name.clone(), None))
    }

    fn read_items(&mut self) {
        let by_section = self.symbols_by_section();
        self.section_items = vec![(0, 0); self.elf.section_count()];
        let mut next = 0;
        for id in self.elf.section_ids() {
            let start = next;
            while by_section.get(next).is_some_and(|&(section, ..)| section == id.0) {
                next += 1;
            }
            let first = self.items.len() as u32;
            match self.role(id) {
                Role::Unloaded | Role::BuildOnly | Role::Table(_) => {}
                _ if self.elf.section_name(id) == type_ids::SECTION => {
                    self.read_type_ids(id, &by_section[start..next]);
                }
                _ => self.read_section_items(id, &by_section[start..next]),
            }
            self.section_items[id.index()] = (first, self.items.len() as u32);
        }
    }

    /// Finds the FILE of each item, as far as the symbol table tells.
    ///
    /// A local stands behind its FILE. Globals stand at the end of the table, but a linker leaves the symbol of a
    /// global's section behind the FILE; in an LTO link the item has the section for itself. The hash in ThinLTO's
    /// promoted names also tells the file.
    fn read_units(&mut self) {
        let mut section_file = vec![FileId::NONE; self.elf.section_count()];
        for id in self.elf.symbol_ids() {
            if let (true, Some(section)) =
                (self.elf.symbol_type(id) == elf::STT_SECTION.0, self.elf.symbol_section(id))
            {
                section_file[section.index()] = self.symbol_file[id.index()];
            }
        }
        let mut modules: HashMap<&[u8], FileId, FixedState> = HashMap::default();
        let mut units = Vec::with_capacity(self.items.len());
        for item in &self.items {
            let (first, last) = self.section_items[item.section.index()];
            let local = self.elf.symbol_binding(item.symbol) == elf::STB_LOCAL.0;
            let file = match local {
                true => self.symbol_file[item.symbol.index()],
                false if last - first == 1 || self.files.len() == 1 => section_file[item.section.index()],
                false => FileId::NONE,
            };
            let unit = if self.is_link_time(file) { FileId::NONE } else { file };
            if !local
                && unit != FileId::NONE
                && let Some(module) = name::promotion(self.elf.symbol_name(item.symbol))
            {
                modules.insert(module, unit);
            }
            units.push(unit);
        }
        for (item, unit) in self.items.iter().zip(&mut units).filter(|(_, unit)| **unit == FileId::NONE) {
            let module = name::promotion(self.elf.symbol_name(item.symbol));
            *unit = module.and_then(|module| modules.get(module)).copied().unwrap_or(FileId::NONE);
        }
        self.units = units;
    }

    /// Returns the named symbols sorted by (section, value, larger first, functions and objects before labels, weak ones
    /// last, symbol index).
    fn symbols_by_section(&mut self) -> Vec<Sorted> {
        let mut sorted = Vec::with_capacity(self.elf.symbol_count());
        let mut file = FileId::NONE;
        for id in self.elf.symbol_ids() {
            let kind = self.elf.symbol_type(id);
            if kind == elf::STT_FILE.0 {
                file = FileId(self.files.len() as u32);
                self.files.push(id);
                continue;
            }
            if self.elf.symbol_binding(id) == elf::STB_LOCAL.0 {
                self.symbol_file[id.index()] = file;
            }
            let Definition::Section(section) = self.elf.definition(id) else { continue };
            if kind == elf::STT_SECTION.0 || name::is_mapping_symbol(self.elf.symbol_name(id)) {
                continue;
            }
            // GCC keeps some of its labels of merged strings and constants: such a label would stand for the whole
            // section.
            let merged = matches!(self.role(section), Role::Strings | Role::Constants(_));
            if merged && self.elf.symbol_name(id).starts_with(b".L") {
                continue;
            }
            let rank = u8::from(kind == elf::STT_NOTYPE.0);
            sorted.push((
                section.0,
                self.elf.symbol_value(id),
                u64::MAX - self.elf.symbol_size(id),
                rank,
                id,
            ));
        }
        sorted.sort_unstable_by_key(|&(section, value, not_size, rank, symbol)| {
            (section, value, not_size, rank, self.is_weak(symbol), symbol)
        });
        sorted
    }

    fn read_section_items(&mut self, section: SectionId, symbols: &[Sorted]) {
        let code = self.role(section) == Role::Code;
        let size = self.elf.section_size(section);
        let mut prefix: Option<SymbolId> = None;
        let mut open: Option<Item> = None; // an item whose symbol has no size: it reaches to the next one
        for (n, &(_, value, not_size, rank, symbol)) in symbols.iter().enumerate() {
            let name = self.elf.symbol_name(symbol);
            let symbol_size = u64::MAX - not_size;
            if code && name::prefix_mark(name).is_some() {
                prefix.get_or_insert(symbol);
                continue;
            }
            let covered = self.items.last().filter(|last| {
                last.section == section && (value < last.end || value == last.entry && open.is_none())
            });
            if let Some(last) =
                covered.filter(|last| value < last.end || last.end == last.entry && symbol_size == 0)
            {
                let _ = last;
                self.symbol_item[symbol.index()] = ItemId(self.items.len() as u32 - 1);
                continue;
            }
            if code && symbol_size == 0 && rank == 1 && name.starts_with(b".L") {
                continue;
            }
            if let Some(item) = open.take()
                && let Some(last) = self.items.last_mut()
            {
                last.end = value.max(item.entry);
            }
            let end = value.saturating_add(symbol_size).min(size).max(value);
            let prefix = prefix.take();
            let start = prefix.map_or(value, |prefix| self.elf.symbol_value(prefix)).min(value);
            let item = Item { section, start, entry: value, end, symbol, prefix, code };
            let sized_follows = symbols[n + 1..].first().is_some_and(|next| next.1 == value);
            if symbol_size == 0 && !sized_follows && rank == 1 {
                open = Some(item);
            }
            self.symbol_item[symbol.index()] = ItemId(self.items.len() as u32);
            self.items.push(item);
        }
        if open.is_some()
            && let Some(last) = self.items.last_mut()
        {
            last.end = size.max(last.entry);
        }
    }

    /// Returns the function whose trace site lies before its entry, for the relocation that names this site in the
    /// table of sites.
    fn led_by(&self, table: &SpecialTable, rela: &Rela) -> Option<(ItemId, i64)> {
        let (sites, places) = self.arch.trace_sites();
        let lead = places.iter().copied().find(|place| *place < 0 && table.kind.name == sites)?;
        let symbol = self.elf.rela_symbol(rela)?;
        let section = self.elf.symbol_section(symbol)?;
        let entry =
            self.elf.symbol_value(symbol).wrapping_add_signed(rela.r_addend.get(LE).wrapping_sub(lead));
        let n = self.items.partition_point(|item| (item.section, item.entry) < (section, entry));
        let item = self.items.get(n).filter(|item| (item.section, item.entry) == (section, entry))?;
        item.code.then_some((ItemId(n as u32), lead))
    }

    fn read_entries(&mut self) {
        let mut entries = Vec::new();
        for (n, table) in self.tables.iter().enumerate() {
            let first = table.kind.forms[0].1[0];
            for rela in self.elf.relocations(table.section) {
                let at = rela.r_offset.get(LE);
                if at % u64::from(table.entry_size) != u64::from(first) {
                    continue;
                }
                let index = (at / u64::from(table.entry_size)) as u32;
                if let Some((item, lead)) = self.led_by(table, rela) {
                    entries.push(Entry { owner: item, table: TableId(n as u32), place: lead, index });
                } else if let Target::Item { item, offset } = self.locate(table.section, rela) {
                    // A place one past the end is not in the function, because unnamed code begins there. In unwind
                    // tables, which have a companion, an entry one past the end closes a block.
                    let owner = self.item(item);
                    let inside =
                        owner.entry.wrapping_add_signed(offset) < owner.end || table.companion.is_some();
                    if inside {
                        entries.push(Entry { owner: item, table: TableId(n as u32), place: offset, index });
                    }
                }
            }
        }
        entries.sort_unstable();
        let mut starts = vec![0u32; self.items.len() + 1];
        for entry in &entries {
            starts[entry.owner.index() + 1] += 1;
        }
        for n in 1..starts.len() {
            starts[n] += starts[n - 1];
        }
        self.entries = entries;
        self.item_entries = starts;
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

    fn is_weak(&self, symbol: SymbolId) -> bool {
        self.elf.symbol_binding(symbol) == elf::STB_WEAK.0
    }

    /// Returns true for a weak symbol that is a second name of an item or of a place in an item. If another object has a
    /// strong definition of this name, the link chooses that definition for every reference through the name, and the
    /// item keeps its first name. An item whose only names are weak has one of them as its own name, which is no alias.
    pub fn is_weak_alias(&self, symbol: SymbolId) -> bool {
        self.is_weak(symbol) && self.symbol_item(symbol).is_some_and(|item| self.item(item).symbol != symbol)
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

    /// Returns the FILE that an item comes from; [`FileId::NONE`] when the symbol table does not tell, as in a full LTO
    /// link.
    pub fn unit(&self, id: ItemId) -> FileId {
        self.units[id.index()]
    }

    /// Returns true for a FILE that stands for code of several files and was made at link time: by LLVM's full LTO, or
    /// as one of GCC's partitions.
    pub fn is_link_time(&self, file: FileId) -> bool {
        self.files
            .get(file.0 as usize)
            .is_some_and(|&symbol| LINK_TIME.contains(&self.elf.symbol_name(symbol)))
    }

    /// Returns true if ThinLTO promoted a local of some file to a global.
    pub fn has_promoted(&self) -> bool {
        self.elf.any_name_contains(name::PROMOTED)
    }

    /// Returns the data sections in which nothing has a name and to which nothing in this object refers. The kernel
    /// finds such a table by its section; inline assembly fills some of them (`DECLARE_PCI_FIXUP_*` of
    /// include/linux/pci.h).
    pub fn unnamed_tables(&self) -> Vec<SectionId> {
        let is_table = |id: &SectionId| {
            matches!(self.role(*id), Role::Data | Role::Registry)
                && self.items_of(*id).len() == 0
                && self.elf.section_size(*id) > 0
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

    /// Returns the FILE that a local symbol belongs to.
    pub fn symbol_file(&self, symbol: SymbolId) -> FileId {
        self.symbol_file[symbol.index()]
    }

    /// Returns a FILE symbol's name: the source file without its directory. Empty for [`FileId::NONE`].
    pub fn file_name(&self, file: FileId) -> &'d [u8] {
        self.files.get(file.0 as usize).map_or(&[][..], |&symbol| self.elf.symbol_name(symbol))
    }

    /// Returns how many FILE symbols there are.
    pub fn file_count(&self) -> usize {
        self.files.len()
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

    /// Returns an item's special-section entries, by table and place.
    pub fn entries(&self, id: ItemId) -> &[Entry] {
        &self.entries[self.item_entries[id.index()] as usize..self.item_entries[id.index() + 1] as usize]
    }

    /// Returns the section of an entry, the entry's first byte, and one past its last byte.
    pub fn entry_range(&self, table: TableId, index: u32) -> (SectionId, u64, u64) {
        let table = &self.tables[table.index()];
        let start = u64::from(index) * u64::from(table.entry_size);
        (table.section, start, start + u64::from(table.entry_size))
    }

    /// Returns the companion bytes of an entry; empty if its table has no companion.
    pub fn entry_companion(&self, table: TableId, index: u32) -> &'d [u8] {
        let table = &self.tables[table.index()];
        match (table.companion, table.kind.companion) {
            (Some(section), Some((_, size))) => {
                let size = u64::from(size);
                self.range(section, u64::from(index) * size, (u64::from(index) + 1) * size)
            }
            _ => &[],
        }
    }

    /// Returns a relocation's type, if klpx knows it.
    pub fn relocation_kind(&self, rela: &Rela) -> Option<&'static RelocationKind> {
        self.arch.relocation(rela.r_type(LE, false).0)
    }

    /// Returns the meaning of a relocation on `section`: what the reference leads to after the link.
    pub fn resolve(&self, section: SectionId, rela: &Rela) -> Target {
        match self.elf.rela_symbol(rela).filter(|&symbol| self.is_weak_alias(symbol)) {
            Some(symbol) => Target::External { symbol, offset: self.biased_addend(section, rela) },
            None => self.locate(section, rela),
        }
    }

    /// Returns a relocation's addend, counted from the place from which the processor counts.
    fn biased_addend(&self, section: SectionId, rela: &Rela) -> i64 {
        let bias = match self.relocation_kind(rela) {
            Some(kind) if self.role(section) == Role::Code => self.arch.pc_bias(kind),
            _ => 0,
        };
        rela.r_addend.get(LE).wrapping_add(bias)
    }

    /// Returns the place in this object to which a relocation on `section` leads.
    fn locate(&self, section: SectionId, rela: &Rela) -> Target {
        let addend = self.biased_addend(section, rela);
        let Some(symbol) = self.elf.rela_symbol(rela).filter(|&s| s != SymbolId::NONE) else {
            return Target::Absolute(addend);
        };
        match self.elf.definition(symbol) {
            Definition::Section(target) => self.resolve_in(section, rela, symbol, target, addend),
            Definition::Absolute => {
                Target::Absolute(addend.wrapping_add(self.elf.symbol_value(symbol) as i64))
            }
            _ => Target::External { symbol, offset: addend },
        }
    }

    fn resolve_in(
        &self,
        from: SectionId,
        rela: &Rela,
        symbol: SymbolId,
        target: SectionId,
        addend: i64,
    ) -> Target {
        if let Some(item) = self.symbol_item(symbol) {
            let value = self.elf.symbol_value(symbol).wrapping_sub(self.item(item).entry) as i64;
            return Target::Item { item, offset: value.wrapping_add(addend) };
        }
        let place = (self.elf.symbol_value(symbol) as i64).wrapping_add(addend);
        let (first, last) = self.section_items[target.index()];
        if last - first == 1 && self.has_section_alone(target, ItemId(first)) {
            let item = ItemId(first);
            return Target::Item { item, offset: place.wrapping_sub(self.item(item).entry as i64) };
        }
        let label = self.elf.symbol_type(symbol) != elf::STT_SECTION.0;
        let exact = match self.role(target) {
            // A label in merged strings names the string. The addend may lead to the string's end, where the next
            // string begins.
            Role::Strings | Role::Constants(_) if label => self.elf.symbol_value(symbol) as i64,
            _ => place.wrapping_add(self.trailing_bytes(from, rela)),
        };
        if let Role::Table(table) = self.role(target) {
            let size = i64::from(self.tables[table.index()].entry_size);
            let entry = exact.div_euclid(size);
            return Target::Entry { table, entry: entry.max(0) as u32, offset: place - entry * size };
        }
        if last > first {
            let items = &self.items[first as usize..last as usize];
            let after = items.partition_point(|item| (item.start as i64) <= exact);
            if let Some(n) = after.checked_sub(1)
                && (exact < items[n].end as i64
                    || exact == items[n].end as i64
                        && self.nothing_follows(target, &items[n], items.get(n + 1)))
            {
                let offset = place.wrapping_sub(items[n].entry as i64);
                return Target::Item { item: ItemId(first + n as u32), offset };
            }
        }
        let (start, end) = self.literal_bounds(target, exact);
        Target::Literal { section: target, start, end, offset: place.wrapping_sub(start as i64) }
    }

    /// Returns true if a section holds nothing but the item and padding.
    fn has_section_alone(&self, section: SectionId, item: ItemId) -> bool {
        let item = self.item(item);
        item.start == 0 && self.nothing_follows(section, item, None)
    }

    /// Returns true if only padding lies between an item's end and the next item (or the section's end). Then a
    /// reference to one past the end belongs to the item: for example, a loop over an array stops there. Nothing
    /// unnamed starts at that place.
    fn nothing_follows(&self, section: SectionId, item: &Item, next: Option<&Item>) -> bool {
        if matches!(self.role(section), Role::Strings | Role::Constants(_)) {
            return false;
        }
        let end = next.map_or(self.elf.section_size(section), |next| next.start);
        if item.code && self.arch == Arch::Arm64 && self.is_filled(section, item.end, end) {
            return false;
        }
        let gap = self.range(section, item.end, end);
        // the contents of .bss can't be seen, but padding is never longer than a cache line
        end.saturating_sub(item.end) < MAX_PADDING
            && (self.arch.is_padding(gap) || gap.iter().all(|&b| b == 0))
    }

    /// Returns the bounds of the literal at a place that no symbol marks.
    fn literal_bounds(&self, section: SectionId, place: i64) -> (u64, u64) {
        let bytes = self.elf.section_bytes(section);
        let size = self.elf.section_size(section);
        let at = (place.max(0) as u64).min(size);
        match self.role(section) {
            Role::Strings => {
                let rest = bytes.get(at as usize..).unwrap_or(&[]);
                let length = rest.iter().position(|&b| b == 0).map_or(rest.len(), |n| n + 1);
                (at, at + length as u64)
            }
            Role::Constants(entry) => {
                let start = at - at % u64::from(entry);
                (start, (start + u64::from(entry)).min(size))
            }
            Role::Code => (at, at + self.unnamed_code_length(section, at)),
            _ if self.items_of(section).len() == 0 => (0, size),
            _ => {
                let next = self.items_of(section).map(|id| self.item(id).start).find(|&start| start > at);
                (at, next.unwrap_or(size))
            }
        }
    }

    /// Returns the length of unnamed code: `.altinstr_aux` (arch/x86/include/asm/cpufeature.h), a few instructions up
    /// to a jump back.
    fn unnamed_code_length(&self, section: SectionId, at: u64) -> u64 {
        let code = self.range(section, at, self.elf.section_size(section));
        if self.arch != Arch::X86_64 {
            return code.len() as u64;
        }
        let mut decoder = iced_x86::Decoder::new(64, code, iced_x86::DecoderOptions::NONE);
        while decoder.can_decode() {
            if matches!(decoder.decode().flow_control(), iced_x86::FlowControl::UnconditionalBranch) {
                break;
            }
        }
        decoder.position() as u64
    }

    /// Returns the number of immediate bytes behind an x86 displacement, which is relative to the end of the
    /// instruction.
    fn trailing_bytes(&self, section: SectionId, rela: &Rela) -> i64 {
        let Some(kind) = self.relocation_kind(rela) else { return 0 };
        if self.arch != Arch::X86_64 || !kind.pc_relative || kind.branch || self.role(section) != Role::Code {
            return 0;
        }
        let at = rela.r_offset.get(LE);
        let items = &self.items
            [self.section_items[section.index()].0 as usize..self.section_items[section.index()].1 as usize];
        let n = items.partition_point(|item| item.start <= at);
        let start = n.checked_sub(1).map_or(0, |n| items[n].entry.min(at));
        let code = self.range(section, start, at.saturating_add(16));
        let mut decoder = iced_x86::Decoder::with_ip(64, code, start, iced_x86::DecoderOptions::NONE);
        while decoder.can_decode() {
            let instruction = decoder.decode();
            if instruction.next_ip() > at {
                return instruction.next_ip() as i64 - (at as i64 + 4);
            }
        }
        0
    }
}

/// The names of the FILE of code that was made at link time: by LLVM, by GCC, and by GNU ld, which drops GCC's name.
const LINK_TIME: [&[u8]; 3] = [b"ld-temp.o", b"<artificial>", b""];

/// Longest padding between two items, in bytes.
const MAX_PADDING: u64 = 64;

/// Sections that matter only while the kernel is built, or that are read with another table.
const BUILD_ONLY: [&[u8]; 6] = [
    b".export_symbol",
    b".llvm_addrsig",
    b".orc_header",
    b".no_trim_symbol",
    b".eh_frame",
    b".static_call_tramp_key",
];

/// Tables that the kernel reads once, when it boots or when it loads a module (include/asm-generic/vmlinux.lds.h,
/// include/linux/init.h; kernel/module/main.c, find_module_sections, and the notifiers of kernel/rcu/srcutree.c,
/// kernel/tracepoint.c, kernel/trace/bpf_trace.c, lib/codetag.c, lib/kunit/test.c).
const REGISTRIES: [&[u8]; 23] = [
    b".initcall",
    b".con_initcall",
    b".init.setup",
    b"__param",
    b"__modver",
    b".modinfo",
    b"__ksymtab",
    b"___ksymtab",
    b"__kcrctab",
    b"___kcrctab",
    b"__tracepoints_ptrs",
    b"__tracepoints_strings",
    b"_ftrace_events",
    b"_ftrace_eval_map",
    b"___srcu_struct_ptrs",
    b"__bpf_raw_tp_map",
    b"__dyndbg_classes",
    b"__tracepoints",
    b".kunit_",
    b".init_array",
    b".fini_array",
    b".ctors",
    b".dtors",
];
