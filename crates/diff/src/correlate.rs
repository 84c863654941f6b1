//! Correlation: which item of the patched object is which item of the original.
//!
//! Works by name, then by canonical name, file and content; never by position unless all else is equal. Objects
//! without an identity (`klpx_normalize::name::anonymous`) are not correlated: they are compared where they are used.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use klpx_normalize::name::{self, Suffixes};
use klpx_normalize::object::{FileId, ItemId, Object, Target};
use object::elf;

/// By what two items were found to be the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Evidence {
    /// The same global name.
    Name,
    /// The same name in the same file.
    FileAndName,
    /// The same canonical name in the same file, and only one such on both sides.
    FileAndBase,
    /// The same canonical name, only one such left on both sides, though the file or scope differs.
    Base,
    /// Several share a canonical name; only these two are used by the same function.
    User,
    /// Several share a canonical name; only these two have the same contents.
    Content,
    /// Several share a canonical name, and all else is equal: the order of the symbol table.
    Order,
}

/// The counterparts of each item, both ways.
#[derive(Clone, Debug, Default)]
pub struct Correlation {
    /// For each item of the patched object, its counterpart in the original.
    pub original_of: Vec<Option<(ItemId, Evidence)>>,
    /// For each item of the original, its counterpart in the patched object.
    pub patched_of: Vec<Option<ItemId>>,
}

type Map<K, V> = HashMap<K, V, FixedState>;

/// What items must share to be the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key<'d> {
    base: &'d [u8],
    meaning: Suffixes,
    code: bool,
    file: FileId,
}

/// Correlates two builds of one object.
pub fn correlate(original: &Object<'_>, patched: &Object<'_>) -> Correlation {
    let mut work = Correlator {
        original,
        patched,
        files: align_files(original, patched),
        result: Correlation {
            original_of: vec![None; patched.items().len()],
            patched_of: vec![None; original.items().len()],
        },
    };
    work.by_name();
    work.by_key(Evidence::FileAndBase, true);
    work.by_key(Evidence::Base, false);
    work.result
}

/// True for items that are compared where they are used, and have no counterpart.
pub fn is_anonymous(object: &Object<'_>, item: ItemId) -> bool {
    !object.item(item).code && name::anonymous(object.item_name(item)).is_some()
}

struct Correlator<'a, 'd> {
    original: &'a Object<'d>,
    patched: &'a Object<'d>,
    /// For each FILE of the patched object, that of the original.
    files: Vec<FileId>,
    result: Correlation,
}

impl<'a, 'd: 'a> Correlator<'a, 'd> {
    fn pair(&mut self, original: ItemId, patched: ItemId, evidence: Evidence) {
        self.result.original_of[patched.index()] = Some((original, evidence));
        self.result.patched_of[original.index()] = Some(patched);
    }

    /// The file of an item in the original's numbering.
    fn file(&self, side: Side, item: ItemId) -> FileId {
        match side {
            Side::Original => self.original.symbol_file(self.original.item(item).symbol),
            Side::Patched => {
                let file = self.patched.symbol_file(self.patched.item(item).symbol);
                self.files.get(file.0 as usize).copied().unwrap_or(if file == FileId::NONE {
                    FileId::NONE
                } else {
                    FileId(u32::MAX - 1) // a file that only the patched object has
                })
            }
        }
    }

    fn object(&self, side: Side) -> &'a Object<'d> {
        match side {
            Side::Original => self.original,
            Side::Patched => self.patched,
        }
    }

    /// Items that still need a counterpart.
    fn open(&self, side: Side) -> Vec<ItemId> {
        let object = self.object(side);
        object
            .item_ids()
            .filter(|&item| match side {
                Side::Original => self.result.patched_of[item.index()].is_none(),
                Side::Patched => self.result.original_of[item.index()].is_none(),
            })
            .filter(|&item| !is_anonymous(object, item))
            .collect()
    }

    /// The same full name: for globals anywhere, for locals in the same file, when there is just one.
    fn by_name(&mut self) {
        let whole = |side: Side, this: &Self, item: ItemId| {
            let object = this.object(side);
            let local = object.elf.symbol_binding(object.item(item).symbol) == elf::STB_LOCAL.0;
            let file = if local { this.file(side, item) } else { FileId::NONE };
            Key {
                base: object.item_name(item),
                meaning: Suffixes::default(),
                code: object.item(item).code,
                file,
            }
        };
        let originals = self.group(Side::Original, whole);
        let patched = self.group(Side::Patched, whole);
        for (key, ours) in &patched {
            let ([mine], Some([theirs])) = (&ours[..], originals.get(key).map(|v| &v[..])) else { continue };
            // `count.0` may be another variable in the other build.
            let numbered = name::canonical(key.base).suffixes.contains(Suffixes::NUMBER);
            if !numbered {
                let local = key.file != FileId::NONE;
                self.pair(*theirs, *mine, if local { Evidence::FileAndName } else { Evidence::Name });
            }
        }
    }

    fn group(&self, side: Side, key: impl Fn(Side, &Self, ItemId) -> Key<'d>) -> Map<Key<'d>, Vec<ItemId>> {
        let open = self.open(side);
        let mut groups: Map<Key<'d>, Vec<ItemId>> =
            Map::with_capacity_and_hasher(open.len(), FixedState::default());
        for item in open {
            groups.entry(key(side, self, item)).or_default().push(item);
        }
        groups
    }

    /// The same canonical name, in the same file or anywhere.
    fn by_key(&mut self, single: Evidence, within_file: bool) {
        let canonical = |side: Side, this: &Self, item: ItemId| {
            let object = this.object(side);
            let (base, meaning) = name::canonical(object.item_name(item)).key();
            let file = if within_file { this.file(side, item) } else { FileId::NONE };
            Key { base, meaning, code: object.item(item).code, file }
        };
        let originals = self.group(Side::Original, canonical);
        let patched = self.group(Side::Patched, canonical);
        let mut groups: Vec<(Vec<ItemId>, Vec<ItemId>)> = patched
            .into_iter()
            .filter_map(|(key, ours)| originals.get(&key).map(|theirs| (theirs.clone(), ours)))
            .collect();
        groups.sort_unstable();
        let (simple, hard): (Vec<_>, Vec<_>) =
            groups.into_iter().partition(|(theirs, ours)| theirs.len() == 1 && ours.len() == 1);
        for (theirs, ours) in simple {
            self.pair(theirs[0], ours[0], single);
        }
        if !hard.is_empty() {
            self.resolve_groups(hard, within_file);
        }
    }

    /// Several items share a canonical name: by who uses them, by content, then by order if nothing tells them apart.
    fn resolve_groups(&mut self, groups: Vec<(Vec<ItemId>, Vec<ItemId>)>, within_file: bool) {
        let their_users = users(self.original, groups.iter().flat_map(|g| g.0.iter().copied()));
        let our_users = users(self.patched, groups.iter().flat_map(|g| g.1.iter().copied()));
        for (theirs, ours) in groups {
            let by_user = |this: &mut Self| {
                this.pair_unique(&theirs, &ours, Evidence::User, |side, item| match side {
                    Side::Original => their_users.get(&item).cloned(),
                    Side::Patched => our_users.get(&item).cloned(),
                });
            };
            by_user(self);
            let (original, patched) = (self.original, self.patched);
            self.pair_unique(&theirs, &ours, Evidence::Content, |side, item| {
                let object = if side == Side::Original { original } else { patched };
                Some((object.item(item).end - object.item(item).entry, object.item_bytes(item).to_vec()))
            });
            self.pair_in_order(&theirs, &ours, within_file);
        }
    }

    /// Pairs those that are the only ones on both sides with some trait.
    fn pair_unique<T: std::hash::Hash + Eq>(
        &mut self,
        theirs: &[ItemId],
        ours: &[ItemId],
        evidence: Evidence,
        of: impl Fn(Side, ItemId) -> Option<T>,
    ) {
        let mut seen: Map<T, (Vec<ItemId>, Vec<ItemId>)> = Map::default();
        for &item in theirs.iter().filter(|i| self.result.patched_of[i.index()].is_none()) {
            if let Some(value) = of(Side::Original, item) {
                seen.entry(value).or_default().0.push(item);
            }
        }
        for &item in ours.iter().filter(|i| self.result.original_of[i.index()].is_none()) {
            if let Some(value) = of(Side::Patched, item) {
                seen.entry(value).or_default().1.push(item);
            }
        }
        for (theirs, ours) in seen.into_values() {
            if let ([original], [patched]) = (&theirs[..], &ours[..]) {
                self.pair(*original, *patched, evidence);
            }
        }
    }

    /// The last resort, and only where both sides have the same names in the same number, so that nothing was added.
    fn pair_in_order(&mut self, theirs: &[ItemId], ours: &[ItemId], within_file: bool) {
        let theirs: Vec<_> =
            theirs.iter().copied().filter(|i| self.result.patched_of[i.index()].is_none()).collect();
        let ours: Vec<_> =
            ours.iter().copied().filter(|i| self.result.original_of[i.index()].is_none()).collect();
        let shape = |object: &Object<'_>, item: ItemId| {
            let item = object.item(item);
            (item.end - item.entry, object.elf.section_flags(item.section))
        };
        let alike = theirs.len() == ours.len()
            && theirs.iter().zip(&ours).all(|(&o, &p)| {
                original_name_matches(self.original.item_name(o), self.patched.item_name(p))
                    && (self.original.item(o).code || shape(self.original, o) == shape(self.patched, p))
            });
        if alike && within_file {
            for (original, patched) in theirs.into_iter().zip(ours) {
                self.pair(original, patched, Evidence::Order);
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Original,
    Patched,
}

fn original_name_matches(original: &[u8], patched: &[u8]) -> bool {
    name::canonical(original).key() == name::canonical(patched).key()
}

/// For each wanted item, the canonical names of the functions and objects that refer to it, sorted.
fn users<'d>(
    object: &Object<'d>,
    wanted: impl Iterator<Item = ItemId>,
) -> Map<ItemId, Vec<(&'d [u8], Suffixes)>> {
    let mut result: Map<ItemId, Vec<(&'d [u8], Suffixes)>> = wanted.map(|item| (item, Vec::new())).collect();
    for user in object.item_ids() {
        for rela in object.item_relocations(user) {
            if let Target::Item { item, .. } = object.resolve(object.item(user).section, rela)
                && item != user
                && let Some(list) = result.get_mut(&item)
            {
                list.push(name::canonical(object.item_name(user)).key());
            }
        }
    }
    result.retain(|_, list| {
        list.sort_unstable();
        list.dedup();
        !list.is_empty()
    });
    result
}

/// For each FILE of the patched object, the FILE of the original that it is, or one past the last.
///
/// The symbols of a FILE come in link order in both builds; a patch may add or remove a few files. Equal runs at the
/// start and the end are paired as they stand, what is between them by name and ordinal.
fn align_files(original: &Object<'_>, patched: &Object<'_>) -> Vec<FileId> {
    let theirs: Vec<&[u8]> =
        (0..original.file_count() as u32).map(|n| original.file_name(FileId(n))).collect();
    let ours: Vec<&[u8]> = (0..patched.file_count() as u32).map(|n| patched.file_name(FileId(n))).collect();
    let head = theirs.iter().zip(&ours).take_while(|(a, b)| a == b).count();
    let rest = theirs.len().min(ours.len()) - head;
    let tail = theirs.iter().rev().zip(ours.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
    let mut result = vec![FileId(u32::MAX - 1); ours.len()];
    for (n, file) in result.iter_mut().enumerate().take(head) {
        *file = FileId(n as u32);
    }
    for n in 0..tail {
        result[ours.len() - 1 - n] = FileId((theirs.len() - 1 - n) as u32);
    }
    let mut between: Map<(&[u8], usize), usize> = Map::default();
    let mut count: Map<&[u8], usize> = Map::default();
    for (n, name) in theirs.iter().enumerate().take(theirs.len() - tail).skip(head) {
        let ordinal = count.entry(name).or_default();
        between.insert((name, *ordinal), n);
        *ordinal += 1;
    }
    count.clear();
    for n in head..ours.len() - tail {
        let ordinal = count.entry(ours[n]).or_default();
        if let Some(&match_) = between.get(&(ours[n], *ordinal)) {
            result[n] = FileId(match_ as u32);
        }
        *ordinal += 1;
    }
    result
}
