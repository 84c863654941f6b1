//! The source file that each item comes from.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use object::elf;

use super::{FileId, ItemId, Object};
use crate::elf::SymbolId;
use crate::name;

impl<'d> Object<'d> {
    /// Finds the FILE of each item, as far as the symbol table tells.
    ///
    /// A local stands behind its FILE. Globals stand at the end of the table, but a linker leaves the symbol of a
    /// global's section behind the FILE; in an LTO link the item has the section for itself. The hash in ThinLTO's
    /// promoted names also tells the file.
    pub(super) fn read_units(&mut self) {
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
}

/// The names of the FILE of code that was made at link time: by LLVM, by GCC, and by GNU ld, which drops GCC's name.
const LINK_TIME: [&[u8]; 3] = [b"ld-temp.o", b"<artificial>", b""];
