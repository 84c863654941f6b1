//! Names that ThinLTO promoted: which hash of one build corresponds to which hash of the other.

use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};
use klpx_normalize::elf::{Elf, SymbolId};
use klpx_normalize::name::{promotion, without_promotion};

/// For each hash, its promoted symbols by the name before the hash. A name that occurs twice is left out.
pub(super) type Promoted<'d> = BTreeMap<&'d [u8], BTreeMap<&'d [u8], SymbolId>>;

pub(super) fn promoted_by_hash<'d>(elf: &Elf<'d>, take: impl Fn(SymbolId) -> bool) -> Promoted<'d> {
    let mut map: Promoted<'d> = BTreeMap::new();
    for id in elf.symbol_ids() {
        if let Some((base, hash)) = split_hash(elf.symbol_name(id))
            && take(id)
        {
            map.entry(hash).or_default().insert(base, id);
        }
    }
    map
}

/// `f` and `77` for `f.llvm.77`. A suffix after the hash (`f.llvm.77.cold`) is not shared by two builds.
fn split_hash(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let hash = promotion(name)?;
    let base = without_promotion(name);
    (base.len() < name.len()).then_some((base, hash))
}

/// Pairs the hashes of two builds: first by names that only one hash of each build has, then by equal sets of names,
/// then by sets of which exactly one contains the other. A hash with conflicting votes is left out.
pub(super) fn pair_hashes<'d>(
    mine: &Promoted<'d>,
    image_promoted: &Promoted<'d>,
) -> Vec<(&'d [u8], &'d [u8])> {
    let owners = |side: &Promoted<'d>| {
        let mut owner: BTreeMap<&'d [u8], Option<&'d [u8]>> = BTreeMap::new();
        for (&hash, names) in side {
            for &name in names.keys() {
                owner.entry(name).and_modify(|o| *o = None).or_insert(Some(hash));
            }
        }
        owner
    };
    let (witness_owners, other) = (owners(mine), owners(image_promoted));
    let mut votes: BTreeMap<&'d [u8], BTreeMap<&'d [u8], usize>> = BTreeMap::new();
    for (name, hash) in &witness_owners {
        if let (Some(hash), Some(Some(to))) = (hash, other.get(name)) {
            *votes.entry(hash).or_default().entry(to).or_insert(0) += 1;
        }
    }
    let mut pairs: Vec<(&[u8], &[u8])> = Vec::new();
    for (hash, votes) in &votes {
        if let Some((to, _)) = votes.first_key_value().filter(|_| votes.len() == 1) {
            pairs.push((hash, to));
        }
    }
    let mut taken: HashMap<&[u8], usize> = HashMap::new();
    for (_, to) in &pairs {
        *taken.entry(*to).or_insert(0) += 1;
    }
    pairs.retain(|(_, to)| taken[to] == 1);
    pair_by_sets(mine, image_promoted, &mut pairs);
    pair_by_subsets(mine, image_promoted, &mut pairs);
    pairs
}

/// Pairs a remaining hash with the only remaining one that has all its names: a unit has only some of the names of
/// another unit.
fn pair_by_subsets<'d>(
    mine: &Promoted<'d>,
    image_promoted: &Promoted<'d>,
    pairs: &mut Vec<(&'d [u8], &'d [u8])>,
) {
    let done: HashSet<&[u8]> = pairs.iter().flat_map(|&(a, b)| [a, b]).collect();
    let mut found: BTreeMap<&[u8], Vec<&[u8]>> = BTreeMap::new();
    for (&hash, names) in mine.iter().filter(|(hash, _)| !done.contains(**hash)) {
        let holds = |(other, all): &(&&[u8], &BTreeMap<&[u8], SymbolId>)| {
            !done.contains(**other) && names.keys().all(|name| all.contains_key(name))
        };
        let mut holding = image_promoted.iter().filter(holds);
        if let (Some((&only, _)), None) = (holding.next(), holding.next()) {
            found.entry(only).or_default().push(hash);
        }
    }
    pairs.extend(found.into_iter().filter(|(_, from)| from.len() == 1).map(|(to, from)| (from[0], to)));
}

/// Pairs remaining hashes if exactly one on each side has the same set of names.
fn pair_by_sets<'d>(
    mine: &Promoted<'d>,
    image_promoted: &Promoted<'d>,
    pairs: &mut Vec<(&'d [u8], &'d [u8])>,
) {
    let done: HashSet<&[u8]> = pairs.iter().flat_map(|&(a, b)| [a, b]).collect();
    type NameSides<'d> = (Vec<&'d [u8]>, Vec<&'d [u8]>);
    let mut sets: BTreeMap<Vec<&[u8]>, NameSides<'d>> = BTreeMap::new();
    for (&hash, names) in mine.iter().filter(|(hash, _)| !done.contains(**hash)) {
        sets.entry(names.keys().copied().collect()).or_default().0.push(hash);
    }
    for (&hash, names) in image_promoted.iter().filter(|(hash, _)| !done.contains(**hash)) {
        sets.entry(names.keys().copied().collect()).or_default().1.push(hash);
    }
    for (witness_hashes, other) in sets.values() {
        if let ([a], [b]) = (&witness_hashes[..], &other[..]) {
            pairs.push((a, b));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `1: a b; 2: c` as names by hash.
    fn promoted(text: &'static str) -> Promoted<'static> {
        let hashes = text.split(';').filter_map(|part| part.split_once(':'));
        let names = |names: &'static str| {
            names.split_whitespace().map(|name| (name.as_bytes(), SymbolId(0))).collect()
        };
        hashes.map(|(hash, of_hash)| (hash.trim().as_bytes(), names(of_hash))).collect()
    }

    #[test]
    fn hashes_are_paired_by_the_names_that_they_stand_with() {
        for (mine, theirs, wanted) in [
            ("1: a; 2: b", "7: b; 8: a", "1=8 2=7"),
            // Names of one hash belong to two hashes.
            ("1: a b", "7: a; 8: b", ""),
            // `a` belongs to several hashes, and decides nothing.
            ("1: a b x; 2: a c", "7: a c; 8: a b", "1=8 2=7"),
            // Two hashes of one build can't match one hash of the other.
            ("1: a; 2: b", "7: a b", ""),
            // Only the whole set decides.
            ("1: a; 2: a b; 3: a b", "7: a; 8: a b; 9: a b", "1=7"),
            // A unit has some of the names of another unit.
            ("1: a b", "7: a b c; 8: a; 9: b", "1=7"),
            ("1: a", "7: a b; 8: a c", ""),
            ("1: a b", "7: a; 8: b; 9: c", ""),
        ] {
            let (mine, theirs) = (promoted(mine), promoted(theirs));
            let mut pairs: Vec<String> = pair_hashes(&mine, &theirs)
                .into_iter()
                .map(|(a, b)| format!("{}={}", String::from_utf8_lossy(a), String::from_utf8_lossy(b)))
                .collect();
            pairs.sort();
            assert_eq!(pairs.join(" "), wanted, "{mine:?} {theirs:?}");
        }
    }
}
