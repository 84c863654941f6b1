//! Reads the items from the symbol table.

use object::elf;

use super::{FileId, Item, ItemId, Object, Role, Sorted, type_ids};
use crate::elf::{Definition, SectionId, SymbolId};
use crate::name;

impl Object<'_> {
    pub(super) fn read_items(&mut self) {
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
}
