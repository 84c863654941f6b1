//! One of the two objects, with what the correlation asks of each item again and again.

use klpx_normalize::name::{self, Canonical, Suffixes};
use klpx_normalize::object::{FileId, ItemId, Object};
use object::elf;

use super::Map;
use crate::compare::is_allocation_tag;

/// The unit of items of a file that only the patched object has.
pub(super) const NEW_FILE: FileId = FileId(u32::MAX - 1);

/// What the names of two builds must share to stand for the same thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key<'d> {
    pub(super) base: &'d [u8],
    meaning: Suffixes,
    code: bool,
}

/// One object.
pub(super) struct Side<'a, 'd> {
    pub(super) object: &'a Object<'d>,
    canonical: Vec<Canonical<'d>>,
    anonymous: Vec<bool>,
    /// The file of each item, in the original's numbering; [`FileId::NONE`] where it is not known.
    units: Vec<FileId>,
    /// For names with a number, how often their base stands in a file with one.
    numbered: Map<(Key<'d>, FileId), u32>,
}

impl<'a, 'd> Side<'a, 'd> {
    pub(super) fn new(object: &'a Object<'d>) -> Side<'a, 'd> {
        let canonical: Vec<Canonical<'d>> =
            object.item_ids().map(|item| name::canonical(object.item_name(item))).collect();
        let anonymous =
            |(item, &canonical): (ItemId, &Canonical<'d>)| object.anonymous_as(item, canonical).is_some();
        Side {
            object,
            anonymous: object.item_ids().zip(&canonical).map(anonymous).collect(),
            canonical,
            units: object.item_ids().map(|item| object.unit(item)).collect(),
            numbered: Map::default(),
        }
    }

    /// Puts the units into the original's numbering.
    pub(super) fn renumber(&mut self, files: &[FileId]) {
        for unit in &mut self.units {
            *unit = files.get(unit.0 as usize).copied().unwrap_or(FileId::NONE);
        }
    }

    pub(super) fn count_siblings(&mut self) {
        for item in self.object.item_ids() {
            if self.suffixes(item).unsteady() || self.suffixes(item).is_version() {
                *self.numbered.entry((self.key(item), self.unit(item))).or_insert(0) += 1;
            }
        }
    }

    /// Items that have an identity.
    pub(super) fn named(&self) -> impl Iterator<Item = ItemId> + '_ {
        self.object.item_ids().filter(|&item| !self.is_anonymous(item))
    }

    pub(super) fn is_anonymous(&self, item: ItemId) -> bool {
        self.anonymous[item.index()]
    }

    pub(super) fn key(&self, item: ItemId) -> Key<'d> {
        let (base, meaning) = self.canonical[item.index()].key();
        Key { base, meaning, code: self.object.item(item).code }
    }

    /// The same without the function that Clang writes before the name of a variable.
    pub(super) fn bare_key(&self, item: ItemId) -> Key<'d> {
        let key = self.key(item);
        let bare = key.base.rsplit(|&byte| byte == b'.').next().filter(|_| self.is_of_function(item));
        Key { base: bare.unwrap_or(key.base), ..key }
    }

    pub(super) fn suffixes(&self, item: ItemId) -> Suffixes {
        self.canonical[item.index()].suffixes
    }

    pub(super) fn unit(&self, item: ItemId) -> FileId {
        self.units[item.index()]
    }

    pub(super) fn is_local(&self, item: ItemId) -> bool {
        self.object.elf.symbol_binding(self.object.item(item).symbol) == elf::STB_LOCAL.0
    }

    /// True when what an item holds may change while the kernel runs.
    pub(super) fn is_writable(&self, item: ItemId) -> bool {
        let section = self.object.item(item).section;
        let name = self.object.elf.section_name(section);
        self.object.elf.section_flags(section) & elf::SHF_WRITE.0 != 0 && !name.starts_with(b".data.rel.ro")
    }

    /// True when an item's full name can't be another's in another build: a global's, or a local's that its file's
    /// text gave it. A number, and in a full LTO link every local's name, depends on what else there is.
    pub(super) fn has_steady_name(&self, item: ItemId) -> bool {
        let numbered = self.suffixes(item).unsteady() || self.suffixes(item).is_version();
        !numbered && !self.is_local(item) || self.has_steady_base(item)
    }

    /// True when an item's name without its suffixes is one that its file's text gave it alone. Clang's `f.n` is the
    /// first static `n` of `f`; with a second one, `f.n.1`, either may be the first in another build. GCC numbers
    /// each static of a function, and an undotted name is that of a static of the file. Of the versions of a function
    /// (`f.constprop.0`) the numbers tell nothing, but a single one is it.
    pub(super) fn has_steady_base(&self, item: ItemId) -> bool {
        let (suffixes, key) = (self.suffixes(item), self.key(item));
        let siblings = || self.numbered.get(&(key, self.unit(item))).copied().unwrap_or(0);
        !suffixes.unsteady()
            && !self.is_link_time(item)
            && match suffixes.is_version() {
                true => siblings() == 1,
                false => !key.base.contains(&b'.') || siblings() == 0,
            }
    }

    /// True for a variable of a function: another function of the file, or another block of the same one, may have one
    /// of that name, and in another build this name. GCC numbers each of them, Clang writes the function before the name.
    /// An allocation's tag is none of them: the wrong one is a wrong line in a list for people.
    pub(super) fn is_of_function(&self, item: ItemId) -> bool {
        let numbered = self.suffixes(item).contains(Suffixes::NUMBER) && !self.is_link_time(item);
        !self.key(item).code
            && self.is_writable(item)
            && (numbered || self.key(item).base.contains(&b'.'))
            && !is_allocation_tag(self.object, item)
    }

    /// True when an item is a local of a link of all files at once.
    pub(super) fn is_link_time(&self, item: ItemId) -> bool {
        self.is_local(item)
            && self.object.is_link_time(self.object.symbol_file(self.object.item(item).symbol))
    }
}
