//! Lists and sets of BTF type numbers (include/linux/btf_ids.h). A list is a label in `.BTF_ids`, followed by a place
//! for each number. A place's label names the type of its number. tools/bpf/resolve_btfids fills in the numbers after
//! the link, and sorts sets. So a list is one item, and the names of its places tell its contents.

use super::{Item, ItemId, Object, Sorted};
use crate::elf::{SectionId, SymbolId};
use crate::name;

/// The section of all lists.
pub(super) const SECTION: &[u8] = b".BTF_ids";

/// A place for a type's number.
#[derive(Clone, Copy, Debug)]
pub(super) struct TypeId {
    list: ItemId,
    symbol: SymbolId,
}

impl<'d> Object<'d> {
    /// Reads each list as one item.
    pub(super) fn read_type_ids(&mut self, section: SectionId, symbols: &[Sorted]) {
        let is_place = |object: &Object<'_>, symbol| name::type_id(object.elf.symbol_name(symbol)).is_some();
        // The label of the list comes before the labels of the places: both may stand at the list's first byte.
        let mut sorted = symbols.to_vec();
        sorted.sort_by_key(|&(_, value, _, _, symbol)| {
            let own = self.elf.symbol_name(symbol);
            (value, is_place(self, symbol), own.starts_with(b"__BTF_ID__"), symbol)
        });
        let first = self.items.len();
        for (_, value, _, _, symbol) in sorted {
            let open = self.items.len() > first;
            let starts = match self.items.last().filter(|_| open) {
                Some(last) => !is_place(self, symbol) && value > last.entry,
                None => true,
            };
            if starts {
                if let Some(last) = self.items.last_mut().filter(|_| open) {
                    last.end = value;
                }
                let (start, entry, end) = (value, value, self.elf.section_size(section));
                self.items.push(Item { section, start, entry, end, symbol, prefix: None, code: false });
            }
            let list = ItemId(self.items.len() as u32 - 1);
            self.symbol_item[symbol.index()] = list;
            if is_place(self, symbol) {
                self.type_ids.push(TypeId { list, symbol });
            }
        }
    }

    /// Returns true for a list of type numbers.
    pub fn is_type_ids(&self, item: ItemId) -> bool {
        self.elf.section_name(self.item(item).section) == SECTION
    }

    /// Returns the contents of a list of type numbers: each place in bytes from the list's start, and the type of its
    /// number.
    pub fn type_ids(&self, item: ItemId) -> impl Iterator<Item = (u64, &'d [u8])> + '_ {
        let first = self.type_ids.partition_point(|id| id.list < item);
        let all = self.type_ids[first..].iter().take_while(move |id| id.list == item);
        all.filter_map(move |id| {
            let place = self.elf.symbol_value(id.symbol) - self.item(item).entry;
            Some((place, name::type_id(self.elf.symbol_name(id.symbol))?))
        })
    }
}
