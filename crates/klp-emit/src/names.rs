//! A hash index from a name to all indices with this name, in the order of insertion. Holds no names itself.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

const END: u32 = u32::MAX;

/// Maps a name to indices. The caller supplies the function from an index to its name.
#[derive(Default)]
pub(crate) struct NameIndex {
    table: HashTable<(u32, u32)>,
    next: Vec<u32>,
}

fn hash(name: &[u8]) -> u64 {
    FixedState::default().hash_one(name)
}

impl NameIndex {
    pub(crate) fn with_capacity(count: usize) -> NameIndex {
        NameIndex { table: HashTable::with_capacity(count), next: vec![END; count] }
    }

    /// Adds index `n` under its name. Each index may be added only once.
    pub(crate) fn insert<'n>(&mut self, n: u32, name_of: impl Fn(u32) -> &'n [u8]) {
        let name = name_of(n);
        let hash_of = |&(first, _): &(u32, u32)| hash(name_of(first));
        let same = |&(first, _): &(u32, u32)| name_of(first) == name;
        match self.table.entry(hash(name), same, hash_of) {
            hashbrown::hash_table::Entry::Occupied(mut slot) => {
                let last = slot.get().1;
                slot.get_mut().1 = n;
                self.next[last as usize] = n;
            }
            hashbrown::hash_table::Entry::Vacant(slot) => {
                slot.insert((n, n));
            }
        }
    }

    /// All indices of a name, in the order of insertion.
    pub(crate) fn get<'n>(&self, name: &[u8], name_of: impl Fn(u32) -> &'n [u8]) -> Bearers<'_> {
        let found = self.table.find(hash(name), |&(first, _)| name_of(first) == name);
        Bearers { next: &self.next, at: found.map_or(END, |&(first, _)| first) }
    }
}

/// The indices of one name.
pub(crate) struct Bearers<'s> {
    next: &'s [u32],
    at: u32,
}

impl Iterator for Bearers<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let here = self.at;
        self.at = *self.next.get(here as usize)?;
        Some(here)
    }
}
