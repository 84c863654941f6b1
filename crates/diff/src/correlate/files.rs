//! Pairs the FILEs of the patched object with the FILEs of the original.
//!
//! A FILE symbol has no directory, so names repeat. Both builds link the same files in the same order, except files
//! that the patch adds or removes. Anchors are files that are identified by their name, the names of their items and,
//! where needed, the contents of the items. Files between anchors are paired by name and by the order that shares the
//! most names of items.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;
use klpx_normalize::align::best_in_order;
use klpx_normalize::object::{FileId, ItemId};

use super::alike::contents;
use super::side::{Map, NEW_FILE, ObjectSide, OnBothSides};

/// A FILE.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct FileItems<'d> {
    name: &'d [u8],
    /// The canonical names of the file's items, sorted.
    items: Vec<&'d [u8]>,
    /// A hash of the items' contents if several files have the same names of items; else 0.
    contents: u64,
}

/// Renumbers the patched object's units to match the original. A file that only the patched object has becomes
/// [`NEW_FILE`]. A file that can't be told from others becomes [`FileId::NONE`].
pub(super) fn align(original: &ObjectSide<'_, '_>, patched: &mut ObjectSide<'_, '_>) {
    let (mut original_files, mut patched_files) = (read(original), read(patched));
    let alike = files_alike(&original_files, &patched_files);
    hash_contents(original, &mut original_files, &alike);
    hash_contents(patched, &mut patched_files, &alike);
    let mut pairs = anchors(&original_files, &patched_files);
    let mut result = vec![NEW_FILE; patched_files.len()];
    for (n, m) in between(&original_files, &patched_files, &pairs).into_values() {
        let twins = |files: &[FileItems<'_>], of: &[usize]| {
            of.iter().any(|&a| of.iter().any(|&b| a != b && files[a].items == files[b].items))
        };
        match (&n[..], &m[..]) {
            ([], _) | (_, []) => {}
            ([one], [other]) => pairs.push((*one, *other)),
            _ if twins(&original_files, &n) || twins(&patched_files, &m) => {
                m.iter().for_each(|&m| result[m] = FileId::NONE)
            }
            _ => pairs.extend(most_shared(&original_files, &patched_files, &n, &m)),
        }
    }
    for (n, m) in pairs {
        result[m] = FileId(n as u32);
    }
    patched.renumber(&result);
}

fn read<'d>(side: &ObjectSide<'_, 'd>) -> Vec<FileItems<'d>> {
    let object = side.object;
    let mut files: Vec<FileItems<'d>> = (0..object.file_count() as u32)
        .map(|n| FileItems { name: object.file_name(FileId(n)), items: Vec::new(), contents: 0 })
        .collect();
    for item in side.named() {
        if let Some(file) = files.get_mut(side.unit(item).0 as usize) {
            file.items.push(side.key(item).base);
        }
    }
    for file in &mut files {
        file.items.sort_unstable();
        file.items.dedup();
    }
    files
}

/// Returns the files with items whose name and names of items another file of the same object shares.
fn files_alike<'d>(
    original_files: &[FileItems<'d>],
    patched_files: &[FileItems<'d>],
) -> Map<FileItems<'d>, ()> {
    let mut counts: Map<&FileItems<'d>, u32> = Map::default();
    for files in [original_files, patched_files] {
        let mut here: Map<&FileItems<'d>, u32> = Map::default();
        files.iter().for_each(|file| *here.entry(file).or_insert(0) += 1);
        for (file, count) in here {
            counts.entry(file).and_modify(|most| *most = count.max(*most)).or_insert(count);
        }
    }
    let several = counts.into_iter().filter(|(file, count)| *count > 1 && !file.items.is_empty());
    several.map(|(file, _)| (file.clone(), ())).collect()
}

/// Hashes the items of each of these files and adds the hashes up. References to other items count by name.
fn hash_contents(side: &ObjectSide<'_, '_>, files: &mut [FileItems<'_>], alike: &Map<FileItems<'_>, ()>) {
    let wanted: Vec<bool> = files.iter().map(|file| alike.contains_key(file)).collect();
    let mut out = Vec::new();
    for item in side.named() {
        let n = side.unit(item).0 as usize;
        if wanted.get(n) == Some(&true) {
            out.clear();
            out.extend(side.key(item).base);
            contents(side, item, &|_: ItemId| None, &mut out);
            let mut hasher = FixedState::default().build_hasher();
            hasher.write(&out);
            files[n].contents = files[n].contents.wrapping_add(hasher.finish());
        }
    }
}

/// Groups the files that are not anchors by the anchor before them and by name: the original's and the patched
/// object's.
fn between<'d>(
    original_files: &[FileItems<'d>],
    patched_files: &[FileItems<'d>],
    anchors: &[(usize, usize)],
) -> BTreeMap<(u32, &'d [u8]), OnBothSides<Vec<usize>>> {
    let mut left: BTreeMap<(u32, &[u8]), OnBothSides<Vec<usize>>> = BTreeMap::new();
    for (n, segment) in segments(anchors.iter().map(|pair| pair.0), original_files.len()) {
        left.entry((segment, original_files[n].name)).or_default().0.push(n);
    }
    for (m, segment) in segments(anchors.iter().map(|pair| pair.1), patched_files.len()) {
        left.entry((segment, patched_files[m].name)).or_default().1.push(m);
    }
    left
}

/// Returns every file that is not an anchor, with the number of anchors before it.
fn segments(anchors: impl Iterator<Item = usize>, count: usize) -> Vec<(usize, u32)> {
    let mut anchors = anchors.peekable();
    let mut passed = 0;
    let mut others = Vec::new();
    for n in 0..count {
        match anchors.next_if_eq(&n) {
            Some(_) => passed += 1,
            None => others.push((n, passed)),
        }
    }
    others
}

/// Returns pairs of equal files that are unique on each side. Pairs that would cross are left out, so that both members
/// stand in rising order. Files without items pair by position if both sides have equally many.
fn anchors(original_files: &[FileItems<'_>], patched_files: &[FileItems<'_>]) -> Vec<(usize, usize)> {
    let mut alike: Map<&FileItems<'_>, OnBothSides<Vec<usize>>> = Map::default();
    for (n, file) in original_files.iter().enumerate() {
        alike.entry(file).or_default().0.push(n);
    }
    for (m, file) in patched_files.iter().enumerate() {
        alike.entry(file).or_default().1.push(m);
    }
    let mut pairs: Vec<(usize, usize)> = alike
        .into_iter()
        .filter(|(file, (n, m))| n.len() == m.len() && (n.len() == 1 || file.items.is_empty()))
        .flat_map(|(_, (n, m))| n.into_iter().zip(m))
        .collect();
    pairs.sort_unstable();
    rising(&pairs)
}

/// Returns the longest part of pairs, sorted by their first members, in which the second members also rise.
fn rising(pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
    let mut ends: Vec<usize> = Vec::new(); // by length: the pair that ends the best run of that length
    let mut before = vec![usize::MAX; pairs.len()];
    for (at, pair) in pairs.iter().enumerate() {
        let length = ends.partition_point(|&end| pairs[end].1 < pair.1);
        if length > 0 {
            before[at] = ends[length - 1];
        }
        if length == ends.len() {
            ends.push(at);
        } else {
            ends[length] = at;
        }
    }
    let mut run = Vec::with_capacity(ends.len());
    let mut at = ends.last().copied().unwrap_or(usize::MAX);
    while let Some(&pair) = pairs.get(at) {
        run.push(pair);
        at = before[at];
    }
    run.reverse();
    run
}

/// Returns the order-keeping pairing of files of one name that shares the most names of items. Files that share no name
/// stay unpaired.
fn most_shared(
    original_files: &[FileItems<'_>],
    patched_files: &[FileItems<'_>],
    mine: &[usize],
    others: &[usize],
) -> Vec<(usize, usize)> {
    let shared = |n: usize, m: usize| {
        let names = original_files[n].items.iter();
        names.filter(|name| patched_files[m].items.binary_search(name).is_ok()).count()
    };
    best_in_order(mine, others, shared)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file<'d>(text: &'d str) -> FileItems<'d> {
        let mut words = text.split(' ').map(str::as_bytes);
        FileItems { name: words.next().unwrap_or(b""), items: words.collect(), contents: 0 }
    }

    #[test]
    fn anchors_do_not_cross() {
        let original_files: Vec<_> = ["a.c f", "core.c g", "core.c h", "b.c i"].map(file).into();
        let patched_files: Vec<_> = ["core.c h", "a.c f", "new.c x", "core.c g", "b.c i"].map(file).into();
        assert_eq!(anchors(&original_files, &patched_files), [(0, 1), (1, 3), (3, 4)]);
    }

    #[test]
    fn the_longest_rising_run_is_taken() {
        assert_eq!(rising(&[(0, 3), (1, 0), (2, 1), (3, 2)]), [(1, 0), (2, 1), (3, 2)]);
        assert_eq!(rising(&[]), []);
    }

    #[test]
    fn files_of_one_name_are_paired_by_what_they_share() {
        let original_files: Vec<_> = ["core.c a b", "core.c c d"].map(file).into();
        let patched_files: Vec<_> = ["core.c x", "core.c a b e", "core.c c"].map(file).into();
        assert_eq!(most_shared(&original_files, &patched_files, &[0, 1], &[0, 1, 2]), [(0, 1), (1, 2)]);
    }
}
