//! The meaning of references: what a relocation leads to after the link.

use object::elf;
use object::endian::LittleEndian as LE;

use super::{Item, ItemId, Object, Role, Target};
use crate::arch::FieldInCode;
use crate::elf::{Definition, Rela, SectionId, SymbolId};

/// More bytes than any instruction has behind the first byte of a field.
pub(super) const MAX_INSTRUCTION: u64 = 16;

/// Longest padding between two items, in bytes.
const MAX_PADDING: u64 = 64;

/// A reference to a section of the same object.
struct SectionReference<'r> {
    /// The section with the relocation.
    from: SectionId,
    /// The relocation.
    rela: &'r Rela,
    /// The relocation's symbol, and the section in which the symbol is defined.
    symbol: SymbolId,
    target: SectionId,
    /// Counted from the place from which the processor counts.
    addend: i64,
}

impl Object<'_> {
    pub(super) fn is_weak(&self, symbol: SymbolId) -> bool {
        self.elf.symbol_binding(symbol) == elf::STB_WEAK.0
    }

    /// Returns true for a weak symbol that is a second name of an item or of a place in an item. If another object has a
    /// strong definition of this name, the link chooses that definition for every reference through the name, and the
    /// item keeps its first name. An item whose only names are weak has one of them as its own name, which is no alias.
    pub fn is_weak_alias(&self, symbol: SymbolId) -> bool {
        self.is_weak(symbol) && self.symbol_item(symbol).is_some_and(|item| self.item(item).symbol != symbol)
    }

    /// Returns the meaning of a relocation on `section`: what the reference leads to after the link.
    pub fn resolve(&self, section: SectionId, rela: &Rela) -> Target {
        match self.elf.rela_symbol(rela).filter(|&symbol| self.is_weak_alias(symbol)) {
            Some(symbol) => Target::External { symbol, offset: self.biased_addend(section, rela) },
            None => self.locate(section, rela),
        }
    }

    /// Returns a relocation's addend, counted from the place from which the processor counts.
    pub(super) fn biased_addend(&self, section: SectionId, rela: &Rela) -> i64 {
        let bias = match self.relocation_kind(rela) {
            Some(kind) if self.role(section) == Role::Code => self.arch.pc_bias(kind),
            _ => 0,
        };
        rela.r_addend.get(LE).wrapping_add(bias)
    }

    /// Returns the place in this object to which a relocation on `section` leads.
    pub(super) fn locate(&self, section: SectionId, rela: &Rela) -> Target {
        let addend = self.biased_addend(section, rela);
        let Some(symbol) = self.elf.rela_symbol(rela).filter(|&s| s != SymbolId::NONE) else {
            return Target::Absolute(addend);
        };
        match self.elf.definition(symbol) {
            Definition::Section(target) => {
                self.resolve_in(&SectionReference { from: section, rela, symbol, target, addend })
            }
            Definition::Absolute => {
                Target::Absolute(addend.wrapping_add(self.elf.symbol_value(symbol) as i64))
            }
            _ => Target::External { symbol, offset: addend },
        }
    }

    fn resolve_in(&self, reference: &SectionReference<'_>) -> Target {
        let &SectionReference { symbol, target, addend, .. } = reference;
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
            _ => place.wrapping_add(self.trailing_bytes(reference.from, reference.rela)),
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
        if item.code && self.arch.has_code_outside_symbols() && self.is_filled(section, item.end, end) {
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
            Role::Code => (at, at + self.arch.unnamed_code_length(self.range(section, at, size))),
            _ if self.items_of(section).len() == 0 => (0, size),
            _ => {
                let next = self.items_of(section).map(|id| self.item(id).start).find(|&start| start > at);
                (at, next.unwrap_or(size))
            }
        }
    }

    /// Returns the number of immediate bytes behind a displacement that is relative to the end of the instruction.
    pub(super) fn trailing_bytes(&self, section: SectionId, rela: &Rela) -> i64 {
        let Some(kind) = self.relocation_kind(rela) else { return 0 };
        let data = !kind.pc_relative || kind.branch || self.role(section) != Role::Code;
        if data || !self.arch.counts_from_end() {
            return 0;
        }
        let at = rela.r_offset.get(LE);
        let items = &self.items
            [self.section_items[section.index()].0 as usize..self.section_items[section.index()].1 as usize];
        let n = items.partition_point(|item| item.start <= at);
        let start = n.checked_sub(1).map_or(0, |n| items[n].entry.min(at));
        let code = self.range(section, start, at.saturating_add(MAX_INSTRUCTION));
        self.arch.bytes_behind(FieldInCode { code, start, field: at })
    }
}
