//! Pairs items that share a canonical name and that no name tells apart: by references to them, their contents and
//! their users, until no new pair follows.

use std::collections::BTreeMap;

use klpx_normalize::align::mutual;
use klpx_normalize::object::{FileId, ItemId, Target};
use rayon::prelude::*;

use super::alike::{self, SamePlaces, contents};
use super::declared::Says;
use super::pairing::{ItemEvidence, Pairing, Unsettled};
use super::side::{Map, NEW_FILE, ObjectSide, OnBothSides};
use super::users::{UnpairedUsers, User, UserRoots, overlap};

/// Pairs the remaining items as far as possible.
pub(super) fn settle(pairing: &mut Pairing<'_, '_>) {
    let groups = groups(pairing);
    if groups.is_empty() {
        return;
    }
    let of_patched: Vec<Option<ItemId>> =
        pairing.result.original_of.iter().map(|pair| pair.map(|(item, _)| item)).collect();
    let users = (
        UnpairedUsers::read(&pairing.original, &pairing.result.patched_of),
        UnpairedUsers::read(&pairing.patched, &of_patched),
    );
    let open = (
        vec![false; pairing.original.object.items().len()],
        vec![false; pairing.patched.object.items().len()],
    );
    let mut work = Settling { pairing, groups, open, users, seen: Map::default() };
    work.drop_paired();
    while work.by_reference() || work.by_content() || work.by_user() || work.by_base() || work.by_order() {
        work.drop_paired();
    }
    work.part_contradicted();
    work.pairing.result.unsettled = work.unsettled();
}

/// Open items of one canonical name.
struct OpenGroup {
    original_items: Vec<ItemId>,
    patched_items: Vec<ItemId>,
}

impl OpenGroup {
    /// Drops the items that can't be any item of the other side.
    fn keep_possible(&mut self, pairing: &Pairing<'_, '_>) {
        self.original_items.retain(|&x| self.patched_items.iter().any(|&y| may_be(pairing, x, y)));
        self.patched_items.retain(|&y| self.original_items.iter().any(|&x| may_be(pairing, x, y)));
    }
}

struct Settling<'p, 'a, 'd> {
    pairing: &'p mut Pairing<'a, 'd>,
    groups: Vec<OpenGroup>,
    /// True for an item in a group. An item without a counterpart and without a group is gone or new.
    open: OnBothSides<Vec<bool>>,
    users: OnBothSides<UnpairedUsers>,
    /// For each paired user, by its original: the references that stand at the same place in both builds.
    seen: Map<ItemId, SamePlaces>,
}

/// Groups the open items of both sides by canonical name. A variable of a function goes by its own name.
fn groups(pairing: &Pairing<'_, '_>) -> Vec<OpenGroup> {
    let mut by_key: BTreeMap<_, OpenGroup> = BTreeMap::new();
    let empty = || OpenGroup { original_items: Vec::new(), patched_items: Vec::new() };
    for item in pairing.open_originals() {
        by_key.entry(pairing.original.bare_key(item)).or_insert_with(empty).original_items.push(item);
    }
    for item in pairing.open_patched() {
        if let Some(group) = by_key.get_mut(&pairing.patched.bare_key(item)) {
            group.patched_items.push(item);
        }
    }
    let mut groups: Vec<OpenGroup> =
        by_key.into_values().filter(|group| !group.patched_items.is_empty()).collect();
    groups.iter_mut().for_each(|group| group.keep_possible(pairing));
    groups.retain(|group| !group.patched_items.is_empty());
    groups
}

/// Returns false if the two items are known to come from different files.
fn may_be(pairing: &Pairing<'_, '_>, original: ItemId, patched: ItemId) -> bool {
    let (original_unit, patched_unit) = (pairing.original.unit(original), pairing.patched.unit(patched));
    patched_unit != NEW_FILE
        && (original_unit == patched_unit || original_unit == FileId::NONE || patched_unit == FileId::NONE)
}

impl Settling<'_, '_, '_> {
    fn drop_paired(&mut self) {
        let result = &self.pairing.result;
        for group in &mut self.groups {
            group.original_items.retain(|item| result.patched_of[item.index()].is_none());
            group.patched_items.retain(|item| result.original_of[item.index()].is_none());
            group.keep_possible(self.pairing);
        }
        self.groups.retain(|group| !group.original_items.is_empty() && !group.patched_items.is_empty());
        self.open.0.fill(false);
        self.open.1.fill(false);
        for group in &self.groups {
            group.original_items.iter().for_each(|x| self.open.0[x.index()] = true);
            group.patched_items.iter().for_each(|y| self.open.1[y.index()] = true);
        }
    }

    /// Adds pairs and returns whether there were any. If the pair of a function's variable is wrong, its state is lost
    /// or belongs to another variable. So only references to the variable count as evidence, not its contents or users.
    fn pair_all(&mut self, mut pairs: Vec<(ItemId, ItemId)>, evidence: ItemEvidence) -> bool {
        if evidence > ItemEvidence::Reference {
            pairs.retain(|&(original, _)| !self.pairing.original.is_of_function(original));
        }
        pairs.iter().for_each(|&(original, patched)| self.pairing.pair(original, patched, evidence));
        !pairs.is_empty()
    }

    /// Pairs items by the references of paired users at the same place. All such references to a pair must agree.
    fn by_reference(&mut self) -> bool {
        let users = self.paired_users(
            self.groups.iter().flat_map(|group| group.original_items.iter().copied()),
            self.groups.iter().flat_map(|group| group.patched_items.iter().copied()),
        );
        self.look_at(&users);
        let mut votes = Votes::default();
        for pair in users.iter().filter_map(|(user, _)| self.seen.get(user)).flat_map(|seen| &seen.pairs) {
            match *pair {
                (Target::Item { item: x, offset: i }, Target::Item { item: y, offset: j }) if i == j => {
                    votes.both(x, y);
                }
                (x, y) => votes.neither(x, y),
            }
        }
        let mut pairs = Vec::new();
        for group in &self.groups {
            for &x in &group.original_items {
                if let Some(&Vote::One(y)) = votes.of_original.get(&x)
                    && votes.of_patched.get(&y) == Some(&Vote::One(x))
                    && group.patched_items.binary_search(&y).is_ok()
                    && may_be(self.pairing, x, y)
                    && (!self.pairing.original.is_of_function(x) || self.same_code_uses(x, y))
                {
                    pairs.push((x, y));
                }
            }
        }
        self.pair_all(pairs, ItemEvidence::Reference)
    }

    /// Returns true for two variables of one function that are used by code that is the same in both builds. If the
    /// code differs, the edit may have put a different variable of that name in the place of the first.
    fn same_code_uses(&self, x: ItemId, y: ItemId) -> bool {
        let is = |target, wanted| matches!(target, Target::Item { item, .. } if item == wanted);
        let (original_key, patched_key) = (self.pairing.original.key(x), self.pairing.patched.key(y));
        let seen = self.users.0.of(x).filter_map(|user| self.seen.get(&user));
        original_key == patched_key
            && self.pairing.declared.says(x, y, original_key.base) != Says::Elsewhere
            && seen.filter(|seen| seen.alike).flat_map(|seen| &seen.pairs).any(|&(a, b)| is(a, x) && is(b, y))
    }

    /// Returns the pairs of items that use any of the given items.
    fn paired_users(
        &self,
        original_items: impl Iterator<Item = ItemId>,
        patched_items: impl Iterator<Item = ItemId>,
    ) -> Vec<(ItemId, ItemId)> {
        let result = &self.pairing.result;
        let of_theirs = original_items
            .flat_map(|x| self.users.0.of(x))
            .filter_map(|user| result.patched_of[user.index()].map(|patched| (user, patched)));
        let of_ours = patched_items
            .flat_map(|y| self.users.1.of(y))
            .filter_map(|user| result.original_of[user.index()].map(|(original, _)| (original, user)));
        let mut users: Vec<(ItemId, ItemId)> = of_theirs.chain(of_ours).collect();
        users.sort_unstable();
        users.dedup();
        users
    }

    /// Finds the references of pairs that stand at the same place, once for each pair.
    fn look_at(&mut self, users: &[(ItemId, ItemId)]) {
        let (original, patched) = (self.pairing.original.object, self.pairing.patched.object);
        let found: Vec<(ItemId, SamePlaces)> = users
            .par_iter()
            .filter(|(x, _)| !self.seen.contains_key(x))
            .map(|&(x, y)| {
                let mut seen = alike::same_places((original, x), (patched, y));
                seen.pairs.retain(|pair| matches!(pair, (Target::Item { .. }, _) | (_, Target::Item { .. })));
                (x, seen)
            })
            .collect();
        self.seen.extend(found);
    }

    /// Pairs items with the same size, bytes and references that are unique in their group. Equal contents do not prove
    /// that two variables are the same. Nor do they prove it for code that uses items of unknown identity. In both
    /// cases, a user of one item must also use the other.
    fn by_content(&mut self) -> bool {
        let mut pairs = Vec::new();
        for group in &self.groups {
            for (original_items, patched_items) in self.alike(group) {
                let single = self.only_fits(&original_items, &patched_items).into_iter();
                pairs.extend(single.filter(|&(x, y)| self.may_be_copied(x, y) || self.share_a_user(x, y)));
            }
        }
        self.pair_all(pairs, ItemEvidence::Content)
    }

    /// Groups the members of a group by their contents.
    fn alike(&self, group: &OpenGroup) -> Vec<OnBothSides<Vec<ItemId>>> {
        let mut alike: BTreeMap<Vec<u8>, OnBothSides<Vec<ItemId>>> = BTreeMap::new();
        for &x in &group.original_items {
            alike.entry(self.contents_of_original(x)).or_default().0.push(x);
        }
        for &y in &group.patched_items {
            alike.entry(self.contents_of_patched(y)).or_default().1.push(y);
        }
        alike.into_values().collect()
    }

    /// Returns the pairs in which each item is the only candidate for the other.
    fn only_fits(&self, original_items: &[ItemId], patched_items: &[ItemId]) -> Vec<(ItemId, ItemId)> {
        let found = mutual(original_items, patched_items, |&x, &y| may_be(self.pairing, x, y));
        found.into_iter().map(|(n, m)| (original_items[n], patched_items[m])).collect()
    }

    /// Returns true for code and constants that refer to nothing of unknown identity: any of several with the same
    /// contents serves.
    fn may_be_copied(&self, original: ItemId, patched: ItemId) -> bool {
        let result = &self.pairing.result;
        let is_open = |side: &ObjectSide<'_, '_>, item: ItemId, paired: &dyn Fn(ItemId) -> bool| {
            side.is_writable(item)
                || alike::referents(side.object, item)
                    .any(|to| to != item && !side.is_anonymous(to) && !paired(to))
        };
        !is_open(&self.pairing.original, original, &|x| result.patched_of[x.index()].is_some())
            && !is_open(&self.pairing.patched, patched, &|y| result.original_of[y.index()].is_some())
    }

    fn contents_of_original(&self, item: ItemId) -> Vec<u8> {
        let mut out = Vec::new();
        let counterpart = |item: ItemId| self.pairing.result.patched_of[item.index()].map(|_| item);
        contents(&self.pairing.original, item, &counterpart, &mut out);
        out
    }

    fn contents_of_patched(&self, item: ItemId) -> Vec<u8> {
        let mut out = Vec::new();
        let counterpart = |item: ItemId| self.pairing.result.original_of[item.index()].map(|(item, _)| item);
        contents(&self.pairing.patched, item, &counterpart, &mut out);
        out
    }

    fn roots_of_original(&self, item: ItemId) -> UserRoots {
        let side = &self.pairing.original;
        self.users.0.roots(item, |user| match self.pairing.result.patched_of[user.index()] {
            Some(_) => User::Paired(user),
            None if self.open.0[user.index()] || side.is_anonymous(user) => User::Open,
            None => User::Alone,
        })
    }

    fn roots_of_patched(&self, item: ItemId) -> UserRoots {
        let side = &self.pairing.patched;
        self.users.1.roots(item, |user| match self.pairing.result.original_of[user.index()] {
            Some((original, _)) => User::Paired(original),
            None if self.open.1[user.index()] || side.is_anonymous(user) => User::Open,
            None => User::Alone,
        })
    }

    /// Returns true if one paired item uses both, or if all users of either item are themselves of unknown identity.
    fn share_a_user(&self, original: ItemId, patched: ItemId) -> bool {
        let (original_roots, patched_roots) =
            (self.roots_of_original(original), self.roots_of_patched(patched));
        original_roots.is_unknown() && patched_roots.is_unknown()
            || overlap(&original_roots.paired, &patched_roots.paired)
    }

    /// Pairs items that have the same users, or that share users with no other item of the group.
    fn by_user(&mut self) -> bool {
        let mut pairs = Vec::new();
        for group in &self.groups {
            let original_items: Vec<_> =
                group.original_items.iter().map(|&x| (x, self.roots_of_original(x).paired)).collect();
            let patched_items: Vec<_> =
                group.patched_items.iter().map(|&y| (y, self.roots_of_patched(y).paired)).collect();
            let equal = |x: &[ItemId], y: &[ItemId]| !x.is_empty() && x == y;
            for fit in [&equal as &dyn Fn(&[ItemId], &[ItemId]) -> bool, &overlap] {
                let found = mutual(&original_items, &patched_items, |(x, a), (y, b)| {
                    fit(a, b) && may_be(self.pairing, *x, *y)
                });
                if !found.is_empty() {
                    let item_pair = |(n, m): (usize, usize)| (original_items[n].0, patched_items[m].0);
                    pairs.extend(found.into_iter().map(item_pair));
                    break;
                }
            }
        }
        self.pair_all(pairs, ItemEvidence::User)
    }

    /// Pairs items that are the only candidates left for each other, if they share a user or no user of either is
    /// known.
    fn by_base(&mut self) -> bool {
        let mut pairs = Vec::new();
        for group in &self.groups {
            let single = self.only_fits(&group.original_items, &group.patched_items).into_iter();
            pairs.extend(single.filter(|&(x, y)| self.share_a_user(x, y)));
        }
        self.pair_all(pairs, ItemEvidence::Base)
    }

    /// Pairs copies that are otherwise the same, by order. Any copy serves if the items may be copied. Other items need
    /// equally many copies on both sides and no paired user.
    fn by_order(&mut self) -> bool {
        let mut pairs = Vec::new();
        for (original_items, patched_items) in self.groups.iter().flat_map(|group| self.alike(group)) {
            let mut by_file: BTreeMap<FileId, OnBothSides<Vec<ItemId>>> = BTreeMap::new();
            for x in original_items {
                by_file.entry(self.pairing.original.unit(x)).or_default().0.push(x);
            }
            for y in patched_items {
                by_file.entry(self.pairing.patched.unit(y)).or_default().1.push(y);
            }
            for (mut original_items, mut patched_items) in by_file.into_values() {
                original_items.sort_by_key(|&x| self.pairing.original.object.item(x).symbol);
                patched_items.sort_by_key(|&y| self.pairing.patched.object.item(y).symbol);
                let copies = || original_items.iter().copied().zip(patched_items.iter().copied());
                let unknown = original_items.len() == patched_items.len()
                    && original_items.iter().all(|&x| self.roots_of_original(x).is_unknown())
                    && patched_items.iter().all(|&y| self.roots_of_patched(y).is_unknown());
                if unknown || copies().all(|(x, y)| self.may_be_copied(x, y)) {
                    pairs.extend(copies());
                }
            }
        }
        self.pair_all(pairs, ItemEvidence::Order)
    }

    /// Parts pairs that references at the same place in paired items contradict, and pairs whose supporting references
    /// belong to items that are no longer paired.
    fn part_contradicted(&mut self) {
        loop {
            let mut pairs: Vec<(ItemId, ItemId, ItemEvidence)> = Vec::new();
            for (n, pair) in self.pairing.result.original_of.iter().enumerate() {
                if let Some((original, evidence)) = *pair
                    && evidence >= ItemEvidence::Reference
                {
                    pairs.push((original, ItemId(n as u32), evidence));
                }
            }
            let users = self.paired_users(pairs.iter().map(|pair| pair.0), pairs.iter().map(|pair| pair.1));
            self.look_at(&users);
            let mut votes: Map<ItemId, (u32, u32)> = Map::default(); // by patched item: for its pair, against it
            let seen = users.iter().filter_map(|(user, _)| self.seen.get(user));
            for &(x, y) in seen.flat_map(|seen| &seen.pairs) {
                self.count(x, y, &mut votes);
            }
            let parted: Vec<_> = pairs
                .into_iter()
                .filter(|(_, patched, evidence)| {
                    let (backed, against) = votes.get(patched).copied().unwrap_or_default();
                    against > backed || *evidence == ItemEvidence::Reference && backed == 0
                })
                .collect();
            if parted.is_empty() {
                return;
            }
            parted.into_iter().for_each(|(original, patched, _)| self.pairing.part(original, patched));
        }
    }

    /// Counts the votes of two targets at the same place for and against the pairs that they are in.
    fn count(&self, x: Target, y: Target, votes: &mut Map<ItemId, (u32, u32)>) {
        let item = |target| match target {
            Target::Item { item, .. } => Some(item),
            _ => None,
        };
        let original_item = item(x).and_then(|x| self.pairing.result.patched_of[x.index()]);
        let patched_item = item(y);
        if original_item == patched_item {
            patched_item.into_iter().for_each(|y| votes.entry(y).or_default().0 += 1);
        } else {
            [original_item, patched_item]
                .into_iter()
                .flatten()
                .for_each(|y| votes.entry(y).or_default().1 += 1);
        }
    }

    /// Returns the items of the patched object that may still be one of the original's. An item that only removed items
    /// used is not an item that only new items use. Variables of functions are an exception, because the function may
    /// have a new name.
    fn unsettled(&self) -> Vec<Unsettled> {
        let (original, patched) = (&self.pairing.original, &self.pairing.patched);
        let mut candidates: BTreeMap<_, Vec<ItemId>> = BTreeMap::new();
        for x in self.pairing.open_originals() {
            candidates.entry(original.bare_key(x)).or_default().push(x);
        }
        let open = self.pairing.open_patched().filter_map(|y| {
            let of = candidates.get(&patched.bare_key(y))?.iter().copied();
            let new = self.roots_of_patched(y).is_alone();
            let in_the_file = |x| {
                let unit = original.unit(x);
                patched.is_of_function(y) && unit != FileId::NONE && unit == patched.unit(y)
            };
            let in_use =
                |x| original.key(x) == patched.key(y) && !(new && self.roots_of_original(x).is_alone());
            let candidates: Vec<ItemId> =
                of.filter(|&x| may_be(self.pairing, x, y) && (in_the_file(x) || in_use(x))).collect();
            (!candidates.is_empty()).then_some(Unsettled { patched: y, candidates })
        });
        open.collect()
    }
}

/// The counterpart that references give an item.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Vote {
    One(ItemId),
    Several,
}

#[derive(Default)]
struct Votes {
    of_original: Map<ItemId, Vote>,
    of_patched: Map<ItemId, Vote>,
}

impl Votes {
    fn both(&mut self, x: ItemId, y: ItemId) {
        let say = |map: &mut Map<ItemId, Vote>, item: ItemId, counterpart: ItemId| {
            let vote = map.entry(item).or_insert(Vote::One(counterpart));
            if *vote != Vote::One(counterpart) {
                *vote = Vote::Several;
            }
        };
        say(&mut self.of_original, x, y);
        say(&mut self.of_patched, y, x);
    }

    /// Records that the two builds refer to different things at this place.
    fn neither(&mut self, x: Target, y: Target) {
        if let Target::Item { item, .. } = x {
            self.of_original.insert(item, Vote::Several);
        }
        if let Target::Item { item, .. } = y {
            self.of_patched.insert(item, Vote::Several);
        }
    }
}
