//! References that can mean two things. An assembler writes a reference to a local as section and offset. Where one
//! item ends and the next begins, the end of an array and the start of the next item have the same offset.

use object::elf;
use object::endian::LittleEndian as LE;

use super::meaning::MAX_INSTRUCTION;
use super::{ItemId, Object, Role};
use crate::arch::FieldInCode;
use crate::elf::{Definition, Rela, SectionId};
use crate::name::Anonymous;

/// Sections of allocation tags (include/linux/alloc_tag.h): up to Linux 6.14, and later.
const TAGS: [&[u8]; 2] = [b"alloc_tags", b".codetag.alloc_tags"];

impl Object<'_> {
    /// Returns the item that ends where another item begins, if a relocation on `from` may mean either: one past the
    /// end of the first, or the start of the second, which [`Object::resolve`] gives. Returns `None` if there is no
    /// doubt.
    pub fn ends_at(&self, from: SectionId, rela: &Rela) -> Option<ItemId> {
        let symbol = self.elf.rela_symbol(rela)?;
        let Definition::Section(section) = self.elf.definition(symbol) else { return None };
        if self.elf.symbol_type(symbol) != elf::STT_SECTION.0 || self.role(section) == Role::Code {
            return None;
        }
        let place = self.biased_addend(from, rela).wrapping_add(self.trailing_bytes(from, rela));
        let place = self.elf.symbol_value(symbol).checked_add_signed(place)?;
        let (first, last) = self.section_items[section.index()];
        let items = &self.items[first as usize..last as usize];
        let next = items.partition_point(|item| item.start < place);
        items.get(next).filter(|item| item.start == place)?;
        let before = next.checked_sub(1).filter(|&before| items[before].end == place)?;
        let before = ItemId(first + before as u32);
        if self.is_single(before) {
            return None;
        }
        (!self.is_plain_access(from, rela)).then_some(before)
    }

    /// Returns true for data that macros define one at a time and that code refers to only by its start: descriptors,
    /// flags, tags. Only the kernel walks over several of them, from the section's start to its end.
    fn is_single(&self, item: ItemId) -> bool {
        let section = self.item(item).section;
        let is_tag = TAGS.contains(&self.elf.section_name(section));
        let by_macro = self.anonymous(item).is_some_and(|why| why != Anonymous::CompilerConstant);
        by_macro || is_tag || self.role(section) == Role::Registry
    }

    /// Returns true if the instruction with this field only reads or writes the place: then the reference is not the
    /// end of an item.
    fn is_plain_access(&self, section: SectionId, rela: &Rela) -> bool {
        if !self.arch.counts_from_end() || self.role(section) != Role::Code {
            return false;
        }
        let at = rela.r_offset.get(LE);
        let Some(item) =
            self.items_of(section).find(|&id| (self.item(id).start..self.item(id).end).contains(&at))
        else {
            return false;
        };
        let start = self.item(item).entry.min(at);
        let code = self.range(section, start, at.saturating_add(MAX_INSTRUCTION));
        self.arch.is_plain_access(FieldInCode { code, start, field: at })
    }
}
