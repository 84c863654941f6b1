//! The names that the running kernel knows, and the addresses to which they lead.

use crate::names::NameIndex;

/// The kernel's symbols, in the order in which it finds equal names.
pub(crate) struct Kallsyms {
    pub(super) text: Vec<u8>,
    pub(super) entries: Vec<KallsymsEntry>,
    names: NameIndex,
    pub(super) strips_promoted: bool,
}

#[derive(Clone, Copy)]
pub(super) struct KallsymsEntry {
    pub(super) address: u64,
    start: u32,
    length: u32,
}

/// The suffix that ThinLTO puts on a promoted name.
const PROMOTED: &[u8] = b".llvm.";

/// A name up to `.llvm.`, as kernels of about 6.2 to 6.10 compare it (cleanup_symbol_name in kernel/kallsyms.c).
fn stripped(name: &[u8]) -> &[u8] {
    name.windows(PROMOTED.len()).position(|w| w == PROMOTED).map_or(name, |end| &name[..end])
}

impl Kallsyms {
    pub(super) fn empty() -> Kallsyms {
        Kallsyms {
            text: Vec::new(),
            entries: Vec::new(),
            names: NameIndex::default(),
            strips_promoted: false,
        }
    }

    pub(super) fn push(&mut self, address: u64, name: &[u8]) {
        let start = self.text.len() as u32;
        self.text.extend_from_slice(name);
        self.entries.push(KallsymsEntry { address, start, length: name.len() as u32 });
    }

    pub(super) fn raw_name(&self, n: usize) -> &[u8] {
        let entry = self.entries[n];
        &self.text[entry.start as usize..][..entry.length as usize]
    }

    pub(super) fn index(&mut self) {
        let mut names = NameIndex::with_capacity(self.entries.len());
        for n in 0..self.entries.len() {
            names.insert(n as u32, |n| self.seen_name(self.raw_name(n as usize)));
        }
        self.names = names;
    }

    /// The part of a name that the kernel compares with a livepatch's name.
    pub(crate) fn seen_name<'n>(&self, name: &'n [u8]) -> &'n [u8] {
        if self.strips_promoted { stripped(name) } else { name }
    }

    /// The addresses of all symbols with this (seen) name, in the order in which the kernel finds them.
    pub(crate) fn addresses<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = u64> + 'a {
        self.names
            .get(name, |n| self.seen_name(self.raw_name(n as usize)))
            .map(|n| self.entries[n as usize].address)
    }
}
