//! The pairs, with their evidence, and the steps that need only names, files and declarations.

use std::collections::BTreeMap;

use klpx_normalize::align::mutual;
use klpx_normalize::lifetime::Lifetime;
use klpx_normalize::object::{FileId, ItemId, Object};

use super::declared::{ObjectDeclarations, Says};
use super::side::{Map, NEW_FILE, NameKey, ObjectSide, OnBothSides};

/// The evidence that paired two items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ItemEvidence {
    /// The same global name.
    Name,
    /// The same name in the same file.
    FileAndName,
    /// The same name without the compiler's suffixes in the same file, unique on both sides.
    FileAndBase,
    /// Both sources declare the item in the same function and line, and no edit touches that line.
    Declaration,
    /// Paired items refer to the two items at the same place.
    Reference,
    /// Only these two items of one canonical name have the same contents and references.
    Content,
    /// Only these two items of one canonical name have the same users.
    User,
    /// The same canonical name, unique on both sides, though the file is unknown or the scope differs.
    Base,
    /// The order in the symbol table, for copies that are otherwise the same.
    Order,
}

impl ItemEvidence {
    /// Every kind, strongest first.
    pub const ALL: [ItemEvidence; 9] = [
        ItemEvidence::Name,
        ItemEvidence::FileAndName,
        ItemEvidence::FileAndBase,
        ItemEvidence::Declaration,
        ItemEvidence::Reference,
        ItemEvidence::Content,
        ItemEvidence::User,
        ItemEvidence::Base,
        ItemEvidence::Order,
    ];

    /// Returns the word that reports use.
    pub fn word(self) -> &'static str {
        match self {
            ItemEvidence::Name => "name",
            ItemEvidence::FileAndName => "file-and-name",
            ItemEvidence::FileAndBase => "file-and-base",
            ItemEvidence::Declaration => "declaration",
            ItemEvidence::Reference => "reference",
            ItemEvidence::Content => "content",
            ItemEvidence::User => "user",
            ItemEvidence::Base => "base",
            ItemEvidence::Order => "order",
        }
    }
}

/// An item of the patched object that may be one of several items of the original, without evidence for one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unsettled {
    /// The item in the patched object.
    pub patched: ItemId,
    /// The items of the original that the patched item may be, in their order.
    pub candidates: Vec<ItemId>,
}

/// The counterparts of each item, both ways.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Correlation {
    /// For each item of the patched object, its counterpart in the original.
    pub original_of: Vec<Option<(ItemId, ItemEvidence)>>,
    /// For each item of the original, its counterpart in the patched object.
    pub patched_of: Vec<Option<ItemId>>,
    /// Items without a counterpart that may have one, in the order of the patched object. Every other item without a
    /// counterpart is new, removed or anonymous.
    pub unsettled: Vec<Unsettled>,
}

impl Correlation {
    /// Returns the number of items that each kind of evidence paired.
    pub fn tally(&self) -> Vec<(ItemEvidence, usize)> {
        let count =
            |kind| self.original_of.iter().flatten().filter(|(_, evidence)| *evidence == kind).count();
        ItemEvidence::ALL.iter().map(|&kind| (kind, count(kind))).collect()
    }

    /// Returns true if a patched item without a counterpart may have one.
    pub fn is_unsettled(&self, patched: ItemId) -> bool {
        self.unsettled.binary_search_by_key(&patched, |unsettled| unsettled.patched).is_ok()
    }
}

/// The two sides and the pairs found so far.
pub(super) struct Pairing<'a, 'd> {
    pub(super) original: ObjectSide<'a, 'd>,
    pub(super) patched: ObjectSide<'a, 'd>,
    pub(super) declared: ObjectDeclarations<'a, 'd>,
    pub(super) result: Correlation,
}

impl<'a, 'd: 'a> Pairing<'a, 'd> {
    pub(super) fn pair(&mut self, original: ItemId, patched: ItemId, evidence: ItemEvidence) {
        self.result.original_of[patched.index()] = Some((original, evidence));
        self.result.patched_of[original.index()] = Some(patched);
    }

    pub(super) fn part(&mut self, original: ItemId, patched: ItemId) {
        self.result.original_of[patched.index()] = None;
        self.result.patched_of[original.index()] = None;
    }

    /// Parts a function of the original that the kernel frees after boot from a patched function that the kernel keeps.
    /// The patched function is then new.
    pub(super) fn part_what_is_gone(&mut self) {
        let lifetime = |object: &Object<'_>, item: ItemId| {
            Lifetime::of(object.elf.section_name(object.item(item).section))
        };
        for patched in self.patched.object.item_ids() {
            if let Some((original, _)) = self.result.original_of[patched.index()]
                && self.patched.object.item(patched).code
                && lifetime(self.original.object, original) == Lifetime::Boot
                && lifetime(self.patched.object, patched) == Lifetime::Kept
            {
                self.part(original, patched);
            }
        }
    }

    /// Returns the items of the original that still need a counterpart.
    pub(super) fn open_originals(&self) -> impl Iterator<Item = ItemId> + '_ {
        self.original.named().filter(|item| self.result.patched_of[item.index()].is_none())
    }

    /// Returns the items of the patched object that still need a counterpart.
    pub(super) fn open_patched(&self) -> impl Iterator<Item = ItemId> + '_ {
        self.patched.named().filter(|item| self.result.original_of[item.index()].is_none())
    }

    /// Pairs items by their full name if the name is unique: globals anywhere, locals in the same file.
    pub(super) fn by_name(&mut self) {
        type Whole<'d> = (&'d [u8], FileId, bool);
        let whole = |side: &ObjectSide<'a, 'd>, item: ItemId| -> Option<Whole<'d>> {
            let file = if side.is_local(item) { side.unit(item) } else { FileId::NONE };
            let steady = side.has_steady_name(item);
            (steady && file != NEW_FILE)
                .then(|| (side.object.item_name(item), file, side.object.item(item).code))
        };
        let mut pairs = self.single_pairs(whole);
        pairs.retain(|&(x, y)| !self.is_declared_anew(x, y));
        for (original, patched) in pairs {
            let local = self.original.is_local(original);
            // The same name, but local on one side and global on the other: paired by the file, if the file is known.
            if local == self.patched.is_local(patched) {
                self.pair(
                    original,
                    patched,
                    if local { ItemEvidence::FileAndName } else { ItemEvidence::Name },
                );
            }
        }
    }

    /// Pairs items of one file by the name without the compiler's suffixes.
    pub(super) fn by_file_and_base(&mut self) {
        let key = |side: &ObjectSide<'a, 'd>, item: ItemId| -> Option<(NameKey<'d>, FileId)> {
            let file = side.unit(item);
            let known = file != FileId::NONE && file != NEW_FILE;
            (known && side.has_steady_base(item)).then(|| (side.key(item), file))
        };
        let mut pairs = self.single_pairs(key);
        pairs.retain(|&(x, y)| !self.is_declared_anew(x, y));
        for (original, patched) in pairs {
            self.pair(original, patched, ItemEvidence::FileAndBase);
        }
    }

    /// Returns true for a static of a function whose declaration the patch touches: the new declaration may be of a
    /// different variable with that name.
    fn is_declared_anew(&self, original: ItemId, patched: ItemId) -> bool {
        self.original.is_of_function(original)
            && self.declared.says(original, patched, self.original.key(original).base) == Says::Edited
    }

    /// Pairs variables of functions whose declaration both sources have.
    pub(super) fn by_declaration(&mut self) {
        type Variables = Vec<ItemId>;
        let mut functions: BTreeMap<(NameKey<'d>, &str), OnBothSides<Variables>> = BTreeMap::new();
        for x in self.open_originals().filter(|&x| self.original.is_of_function(x)) {
            if let Some(at) = self.declared.of_original(x) {
                functions.entry((self.original.key(x), &at.function)).or_default().0.push(x);
            }
        }
        for y in self.open_patched().filter(|&y| self.patched.is_of_function(y)) {
            if let Some(at) = self.declared.of_patched(y) {
                functions.entry((self.patched.key(y), &at.function)).or_default().1.push(y);
            }
        }
        let mut pairs = Vec::new();
        for ((key, _), (original_items, patched_items)) in &functions {
            let only = original_items.len() == 1 && patched_items.len() == 1;
            let found =
                mutual(original_items, patched_items, |&x, &y| match self.declared.says(x, y, key.base) {
                    Says::Same => true,
                    Says::SameIfOnlyOne => only,
                    _ => false,
                });
            pairs.extend(found.into_iter().map(|(n, m)| (original_items[n], patched_items[m])));
        }
        for (original, patched) in pairs {
            self.pair(original, patched, ItemEvidence::Declaration);
        }
    }

    /// Returns pairs of open items that are unique in some trait on both sides, in the order of the patched object.
    fn single_pairs<T: std::hash::Hash + Eq>(
        &self,
        of: impl Fn(&ObjectSide<'a, 'd>, ItemId) -> Option<T>,
    ) -> Vec<(ItemId, ItemId)> {
        #[derive(Clone, Copy)]
        enum Seen {
            One(ItemId),
            Several,
        }
        let mut originals: Map<T, Seen> = Map::default();
        for item in self.open_originals() {
            if let Some(value) = of(&self.original, item) {
                originals.entry(value).and_modify(|seen| *seen = Seen::Several).or_insert(Seen::One(item));
            }
        }
        let mut patched: Map<T, Seen> = Map::default();
        for item in self.open_patched() {
            if let Some(value) = of(&self.patched, item) {
                patched.entry(value).and_modify(|seen| *seen = Seen::Several).or_insert(Seen::One(item));
            }
        }
        let mut pairs: Vec<(ItemId, ItemId)> = patched
            .iter()
            .filter_map(|(value, seen)| match (originals.get(value)?, seen) {
                (Seen::One(original), Seen::One(patched)) => Some((*original, *patched)),
                _ => None,
            })
            .collect();
        pairs.sort_unstable_by_key(|&(_, patched)| patched);
        pairs
    }
}
