//! The special-section entries of each item, and those of code without a name.

use object::endian::LittleEndian as LE;

use super::{Entry, ItemId, NamelessEntry, Object, SectionRange, TableId, Target};
use crate::elf::{Rela, SectionId};
use crate::special::SpecialTable;

impl<'d> Object<'d> {
    /// Returns the function whose trace site lies before its entry, for the relocation that names this site in the
    /// table of sites.
    pub(super) fn led_by(&self, table: &SpecialTable, rela: &Rela) -> Option<(ItemId, i64)> {
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

    pub(super) fn read_entries(&mut self) {
        let (mut entries, mut nameless) = (Vec::new(), Vec::new());
        for (n, table) in self.tables.iter().enumerate() {
            let first = table.kind.forms[0].1[0];
            let id = TableId(n as u32);
            for rela in self.elf.relocations(table.section) {
                let at = rela.r_offset.get(LE);
                if at % u64::from(table.entry_size) != u64::from(first) {
                    continue;
                }
                let index = (at / u64::from(table.entry_size)) as u32;
                if let Some((owner, lead)) = self.led_by(table, rela) {
                    entries.push(Entry { owner, table: id, place: lead, index });
                    continue;
                }
                match self.locate(table.section, rela) {
                    Target::Item { item: owner, offset } => {
                        let item = self.item(owner);
                        let place = item.entry.wrapping_add_signed(offset);
                        // A place one past the end is not in the function, because unnamed code begins there. In unwind
                        // tables, which have a companion, an entry one past the end closes a block.
                        if place < item.end || table.companion.is_some() {
                            entries.push(Entry { owner, table: id, place: offset, index });
                        } else {
                            nameless.push(NamelessEntry { section: item.section, place, table: id, index });
                        }
                    }
                    Target::Literal { section, start, offset, .. } => {
                        let place = start.wrapping_add_signed(offset);
                        nameless.push(NamelessEntry { section, place, table: id, index });
                    }
                    _ => {}
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
        nameless.sort_unstable();
        self.nameless_entries = nameless;
        self.entries = entries;
        self.item_entries = starts;
    }

    /// Returns an item's special-section entries, by table and place.
    pub fn entries(&self, id: ItemId) -> &[Entry] {
        &self.entries[self.item_entries[id.index()] as usize..self.item_entries[id.index() + 1] as usize]
    }

    /// Returns the special-section entries that describe places without a name in a range of a section, by place and
    /// table.
    pub fn nameless_entries(&self, range: SectionRange) -> &[NamelessEntry] {
        let before = |place: u64| {
            self.nameless_entries
                .partition_point(|entry| (entry.section, entry.place) < (range.section, place))
        };
        self.nameless_entries.get(before(range.start)..before(range.end)).unwrap_or(&[])
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
}
