//! Code that no symbol covers, and the functions that own it.
//!
//! Before an entry lie the words that ftrace writes its operations to, and the type hash of kCFI. Behind a function's
//! end lie the replacements of its alternatives (`.subsection 1`) and its literal pool. A function that has a section
//! for itself owns the whole section. Where functions share a section, bytes behind the last function belong to the
//! function that refers to them. Owns ranges only.

use object::endian::LittleEndian as LE;

use super::{ItemId, Object, Role};
use crate::elf::SectionId;
use crate::name;

/// Bytes outside every symbol that belong to the code of one function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Outlier {
    /// The section of the bytes and of their owner.
    pub section: SectionId,
    /// First byte.
    pub start: u64,
    /// One past the last.
    pub end: u64,
    /// The function that owns the bytes.
    pub owner: ItemId,
    /// True for a literal that the owner's code loads without a relocation.
    pub literal: bool,
}

/// A mapping symbol of arm64: here code becomes data, or data becomes code.
#[derive(Clone, Copy, Debug)]
pub(super) struct MappingSymbol {
    section: SectionId,
    at: u64,
    data: bool,
}

impl Object<'_> {
    /// Returns the literals that a function loads from outside its symbol without a relocation, by place. Only
    /// functions that share a section have such literals; otherwise the literals are part of the function.
    pub fn outlying_literals(&self, owner: ItemId) -> impl Iterator<Item = &Outlier> {
        self.outliers_in(self.item(owner).section, 0, u64::MAX)
            .iter()
            .filter(move |o| o.literal && o.owner == owner)
    }

    /// Returns true if the assembler marked this place of a code section as data.
    pub fn is_data_in_code(&self, section: SectionId, at: u64) -> bool {
        let after = self.marks.partition_point(|mark| (mark.section, mark.at) <= (section, at));
        let mark = after.checked_sub(1).map(|n| self.marks[n]);
        mark.is_some_and(|mark| mark.section == section && mark.data)
    }

    /// Assigns code that no symbol covers to functions.
    pub(super) fn claim_gaps(&mut self) {
        let sections: Vec<SectionId> =
            self.elf.section_ids().filter(|&id| self.role(id) == Role::Code).collect();
        if !self.arch.has_code_outside_symbols() {
            return sections.into_iter().for_each(|id| self.claim_padding(id));
        }
        self.read_marks();
        let leads = self.leads();
        self.find_outliers();
        for id in sections {
            let (first, last) = self.section_items[id.index()];
            match last - first {
                0 => {}
                1 => self.claim_section(id, first as usize),
                _ => self.claim_shared(id, first as usize..last as usize, &leads),
            }
        }
    }

    /// Claims the padding that calls are patched into. Nothing else of a function lies outside its symbol on this
    /// architecture; other uncovered code is a weak function that lost its name.
    fn claim_padding(&mut self, section: SectionId) {
        let (first, last) = self.section_items[section.index()];
        if last - first == 1 {
            let item = &mut self.items[first as usize];
            let before = self.elf.section_bytes(section).get(..item.start as usize).unwrap_or(&[]);
            item.start = if self.arch.is_padding(before) { 0 } else { item.start };
        }
    }

    fn claim_section(&mut self, section: SectionId, only: usize) {
        let size = self.elf.section_size(section);
        let filled = self.is_filled(section, self.items[only].end, size);
        let item = &mut self.items[only];
        item.start = 0;
        item.end = if filled { size } else { item.end };
    }

    fn claim_shared(&mut self, section: SectionId, items: std::ops::Range<usize>, leads: &[(ItemId, i64)]) {
        for n in items.clone() {
            let lead = leads.binary_search_by_key(&n, |(item, _)| item.index()).map_or(0, |at| leads[at].1);
            let item = &self.items[n];
            let floor = n.checked_sub(1).filter(|_| n > items.start).map_or(0, |n| self.items[n].end);
            let mut start = item.start.min(item.entry.saturating_add_signed(lead)).max(floor);
            if let Some(hash) = start.checked_sub(HASH).filter(|&hash| hash >= floor)
                && self.is_word_of_data(section, hash)
            {
                start = hash;
            }
            self.items[n].start = start;
        }
        for n in items.clone() {
            let end = self.items[n].end;
            let next =
                if n + 1 < items.end { self.items[n + 1].start } else { self.elf.section_size(section) };
            let others = self.outliers_in(section, end, next);
            let limit = others.iter().find(|o| o.owner.index() != n).map_or(next, |other| other.start);
            if self.is_filled(section, end, limit) {
                self.items[n].end = limit;
            }
        }
    }

    /// Returns true if a range of code holds more than padding.
    pub(super) fn is_filled(&self, section: SectionId, from: u64, to: u64) -> bool {
        // A literal may be all zeroes until its relocation is applied; a replacement may be all no-operations.
        from < to
            && (!self.arch.is_padding(self.range(section, from, to))
                || !self.relocations_in(section, from, to).is_empty()
                || !self.outliers_in(section, from, to).is_empty())
    }

    fn outliers_in(&self, section: SectionId, from: u64, to: u64) -> &[Outlier] {
        let first = self.outliers.partition_point(|o| (o.section, o.start) < (section, from));
        let last = self.outliers.partition_point(|o| (o.section, o.start) < (section, to));
        self.outliers.get(first..last).unwrap_or(&[])
    }

    /// Returns true if the assembler marked exactly one word at `at` as data: the type hash of kCFI. LLVM writes the
    /// hash right before an entry, or before the words that ftrace takes there.
    fn is_word_of_data(&self, section: SectionId, at: u64) -> bool {
        let marked =
            |at: u64| self.marks.binary_search_by_key(&(section, at), |mark| (mark.section, mark.at)).is_ok();
        marked(at)
            && marked(at + HASH)
            && self.is_data_in_code(section, at)
            && !self.is_data_in_code(section, at + HASH)
    }

    fn read_marks(&mut self) {
        for id in self.elf.symbol_ids() {
            let name = self.elf.symbol_name(id);
            if name::is_mapping_symbol(name)
                && let Some(section) = self.elf.symbol_section(id)
                && self.role(section) == Role::Code
            {
                self.marks.push(MappingSymbol {
                    section,
                    at: self.elf.symbol_value(id),
                    data: name[1] == b'd',
                });
            }
        }
        // Of several marks at one place the last one counts: the earlier ones mark nothing.
        self.marks.sort_by_key(|mark| (mark.section, mark.at));
    }

    /// Returns the functions whose trace site lies before their entry, with its distance, sorted.
    fn leads(&self) -> Vec<(ItemId, i64)> {
        let mut found: Vec<_> = self
            .tables
            .iter()
            .flat_map(|table| self.elf.relocations(table.section).iter().map(move |rela| (table, rela)))
            .filter_map(|(table, rela)| self.led_by(table, rela))
            .collect();
        found.sort_unstable();
        found
    }

    /// Finds the bytes outside their symbols that functions of shared sections use.
    fn find_outliers(&mut self) {
        let mut found = self.replacements();
        for section in self.elf.section_ids().filter(|&id| self.role(id) == Role::Code) {
            if self.items_of(section).len() > 1 {
                self.literals(section, &mut found);
            }
        }
        found.sort_unstable();
        found.dedup();
        self.outliers = found;
    }

    /// Returns the replacements of alternatives that lie in the section of the replaced code (`struct alt_instr`: the
    /// distances to both, a capability, both lengths; arch/arm64/include/asm/alternative.h).
    fn replacements(&self) -> Vec<Outlier> {
        let mut found = Vec::new();
        for table in self.tables.iter().filter(|table| table.kind.name == ".altinstructions") {
            let size = u64::from(table.entry_size);
            for pair in self.elf.relocations(table.section).windows(2) {
                let [at, from] = pair else { continue };
                let entry = at.r_offset.get(LE);
                if entry % size != 0 || from.r_offset.get(LE) != entry + 4 {
                    continue;
                }
                let length = self.range(table.section, entry + size - 1, entry + size).first().copied();
                let (Some((place, at)), Some((section, start)), Some(length)) =
                    (self.raw_place(at), self.raw_place(from), length.filter(|&length| length > 0))
                else {
                    continue;
                };
                let end = start.saturating_add(u64::from(length));
                if let Some(owner) = self.covering(place, at).filter(|_| place == section)
                    && self.covering(section, start).is_none()
                {
                    found.push(Outlier { section, start, end, owner, literal: false });
                }
            }
        }
        found
    }

    /// Finds the literals of a section that its functions load from outside their symbols.
    fn literals(&self, section: SectionId, found: &mut Vec<Outlier>) {
        for owner in self.items_of(section) {
            let item = *self.item(owner);
            let code = self.range(section, item.entry, item.end);
            for (word, at) in code.chunks_exact(4).zip((item.entry..).step_by(4)) {
                let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
                let Some((distance, size)) = self.arch.literal_load(word) else { continue };
                let start = at.wrapping_add_signed(distance);
                if start < self.elf.section_size(section)
                    && self.covering(section, start).is_none()
                    && !self.is_data_in_code(section, at)
                    && self.relocations_in(section, at, at + 4).is_empty()
                {
                    found.push(Outlier { section, start, end: start + size, owner, literal: true });
                }
            }
        }
    }

    /// Returns the section and the offset that a relocation leads to.
    fn raw_place(&self, rela: &crate::elf::Rela) -> Option<(SectionId, u64)> {
        let symbol = self.elf.rela_symbol(rela)?;
        let section = self.elf.symbol_section(symbol)?;
        Some((section, self.elf.symbol_value(symbol).wrapping_add_signed(rela.r_addend.get(LE))))
    }

    /// The item whose symbol covers a place.
    fn covering(&self, section: SectionId, at: u64) -> Option<ItemId> {
        let &(first, last) = self.section_items.get(section.index())?;
        let items = self.items.get(first as usize..last as usize)?;
        let n = items.partition_point(|item| item.entry <= at).checked_sub(1)?;
        (at < items[n].end).then_some(ItemId(first + n as u32))
    }
}

/// Size of kCFI's type hash, in bytes.
const HASH: u64 = 4;
