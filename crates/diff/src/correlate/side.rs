//! One of the two objects, with the facts about each item that the correlation often needs.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use klpx_normalize::name::{self, Canonical, Suffixes};
use klpx_normalize::object::{FileId, ItemId, Object};
use object::elf;

use crate::purpose::is_allocation_tag;

pub(super) type Map<K, V> = HashMap<K, V, FixedState>;

/// One value for the original and one for the patched object.
pub(super) type OnBothSides<T> = (T, T);

/// The unit of items whose file only the patched object has.
pub(super) const NEW_FILE: FileId = FileId(u32::MAX - 1);

/// The key that the names of two builds must share to stand for the same thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct NameKey<'d> {
    pub(super) base: &'d [u8],
    meaning: Suffixes,
    code: bool,
}

/// One object.
pub(super) struct ObjectSide<'a, 'd> {
    pub(super) object: &'a Object<'d>,
    canonical: Vec<Canonical<'d>>,
    anonymous: Vec<bool>,
    /// The file of each item, in the original's numbering; [`FileId::NONE`] where the file is not known.
    units: Vec<FileId>,
    /// For each base name and file, how many names with a number have this base in the file.
    numbered: Map<(NameKey<'d>, FileId), u32>,
}

impl<'a, 'd> ObjectSide<'a, 'd> {
    pub(super) fn new(object: &'a Object<'d>) -> ObjectSide<'a, 'd> {
        let canonical: Vec<Canonical<'d>> =
            object.item_ids().map(|item| name::canonical(object.item_name(item))).collect();
        let anonymous =
            |(item, &canonical): (ItemId, &Canonical<'d>)| object.anonymous_as(item, canonical).is_some();
        ObjectSide {
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

    /// Returns the items that have an identity.
    pub(super) fn named(&self) -> impl Iterator<Item = ItemId> + '_ {
        self.object.item_ids().filter(|&item| !self.is_anonymous(item))
    }

    pub(super) fn is_anonymous(&self, item: ItemId) -> bool {
        self.anonymous[item.index()]
    }

    pub(super) fn key(&self, item: ItemId) -> NameKey<'d> {
        let (base, meaning) = self.canonical[item.index()].key();
        NameKey { base, meaning, code: self.object.item(item).code }
    }

    /// Returns the key without the function that Clang writes before the name of a variable.
    pub(super) fn bare_key(&self, item: ItemId) -> NameKey<'d> {
        let key = self.key(item);
        let bare = key.base.rsplit(|&byte| byte == b'.').next().filter(|_| self.is_of_function(item));
        NameKey { base: bare.unwrap_or(key.base), ..key }
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

    /// Returns true if an item's contents may change while the kernel runs.
    pub(super) fn is_writable(&self, item: ItemId) -> bool {
        let section = self.object.item(item).section;
        let name = self.object.elf.section_name(section);
        self.object.elf.section_flags(section) & elf::SHF_WRITE.0 != 0 && !name.starts_with(b".data.rel.ro")
    }

    /// Returns true if an item's full name can't belong to a different item in another build: a global's name, or a
    /// local's name that depends only on its file's text. A number depends on other names, as does every local's name
    /// in a full LTO link.
    pub(super) fn has_steady_name(&self, item: ItemId) -> bool {
        let numbered = self.suffixes(item).unsteady() || self.suffixes(item).is_version();
        !numbered && !self.is_local(item) || self.has_steady_base(item)
    }

    /// Returns true if an item's name without its suffixes depends only on its file's text. Clang's `f.n` is the first
    /// static `n` of `f`; if there is also `f.n.1`, either may be the first in another build. GCC numbers each static
    /// of a function, so a name without a dot is that of a static of the file. The numbers of a function's versions
    /// (`f.constprop.0`) tell nothing, but a version without siblings is unambiguous.
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

    /// Returns true for a variable of a function. Another function of the file, or another block of the same function,
    /// may have a variable of that name, which may get this name in another build. GCC numbers each such variable;
    /// Clang writes the function before the name. An allocation tag does not count: a wrong tag is only a wrong line in
    /// a list for people.
    pub(super) fn is_of_function(&self, item: ItemId) -> bool {
        let numbered = self.suffixes(item).contains(Suffixes::NUMBER) && !self.is_link_time(item);
        !self.key(item).code
            && self.is_writable(item)
            && (numbered || self.key(item).base.contains(&b'.'))
            && !is_allocation_tag(self.object, item)
    }

    /// Returns true if an item is a local of a link that compiles all files at once.
    pub(super) fn is_link_time(&self, item: ItemId) -> bool {
        self.is_local(item)
            && self.object.is_link_time(self.object.symbol_file(self.object.item(item).symbol))
    }
}
