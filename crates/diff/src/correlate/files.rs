//! Which FILE of the patched object is which of the original.
//!
//! A FILE symbol has no directory, so names repeat. Both builds link the same files in the same order; a patch may add
//! or remove some. A file is known by its name and the names of its items; between files that are known, by its name
//! and the order that shares the most names of items.

use klpx_normalize::object::FileId;

use super::Map;
use super::side::{NEW_FILE, Side};

/// A FILE: its name, and the canonical names of its items, sorted.
type File<'d> = (&'d [u8], Vec<&'d [u8]>);

/// Puts the patched object's units into the original's numbering. A file that only it has becomes [`NEW_FILE`]; one of
/// several that nothing tells apart becomes [`FileId::NONE`].
pub(super) fn align(original: &Side<'_, '_>, patched: &mut Side<'_, '_>) {
    let (theirs, ours) = (read(original), read(patched));
    let mut pairs = anchors(&theirs, &ours);
    let segments =
        (segments(&pairs, theirs.len(), |pair| pair.0), segments(&pairs, ours.len(), |pair| pair.1));
    let mut result = vec![NEW_FILE; ours.len()];
    // What is left between two anchors, by name.
    let mut left: std::collections::BTreeMap<(u32, &[u8]), (Vec<usize>, Vec<usize>)> = Default::default();
    let taken: Vec<bool> = {
        let mut taken = vec![false; theirs.len()];
        pairs.iter().for_each(|&(n, _)| taken[n] = true);
        taken
    };
    for (n, file) in theirs.iter().enumerate().filter(|&(n, _)| !taken[n]) {
        left.entry((segments.0[n], file.0)).or_default().0.push(n);
    }
    let mut aligned = vec![false; ours.len()];
    pairs.iter().for_each(|&(_, m)| aligned[m] = true);
    for (m, file) in ours.iter().enumerate().filter(|&(m, _)| !aligned[m]) {
        left.entry((segments.1[m], file.0)).or_default().1.push(m);
    }
    for (n, m) in left.values() {
        let twins = |files: &[File<'_>], of: &[usize]| {
            of.iter().any(|&a| of.iter().any(|&b| a != b && files[a].1 == files[b].1))
        };
        match (&n[..], &m[..]) {
            ([], _) | (_, []) => {}
            ([one], [other]) => pairs.push((*one, *other)),
            _ if n.len() != m.len() && (twins(&theirs, n) || twins(&ours, m)) => {
                m.iter().for_each(|&m| result[m] = FileId::NONE);
            }
            _ => pairs.extend(most_shared(&theirs, &ours, n, m)),
        }
    }
    for (n, m) in pairs {
        result[m] = FileId(n as u32);
    }
    patched.renumber(&result);
}

fn read<'d>(side: &Side<'_, 'd>) -> Vec<File<'d>> {
    let object = side.object;
    let mut files: Vec<File<'d>> =
        (0..object.file_count() as u32).map(|n| (object.file_name(FileId(n)), Vec::new())).collect();
    for item in side.named() {
        if let Some(file) = files.get_mut(side.unit(item).0 as usize) {
            file.1.push(side.key(item).base);
        }
    }
    for (_, names) in &mut files {
        names.sort_unstable();
        names.dedup();
    }
    files
}

/// Files of the same name with the same items, as many here as there: the first is the first, and so on. Those that
/// would cross others are left out, so that both members stand in rising order.
fn anchors(theirs: &[File<'_>], ours: &[File<'_>]) -> Vec<(usize, usize)> {
    let mut alike: Map<&File<'_>, (Vec<usize>, Vec<usize>)> = Map::default();
    for (n, file) in theirs.iter().enumerate() {
        alike.entry(file).or_default().0.push(n);
    }
    for (m, file) in ours.iter().enumerate() {
        alike.entry(file).or_default().1.push(m);
    }
    let mut pairs: Vec<(usize, usize)> = alike
        .into_values()
        .filter(|(n, m)| n.len() == m.len())
        .flat_map(|(n, m)| n.into_iter().zip(m))
        .collect();
    pairs.sort_unstable();
    rising(&pairs)
}

/// The longest part of pairs, sorted by their first members, whose second members rise too.
pub(super) fn rising(pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
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

/// For each file, how many anchors stand before it.
fn segments(anchors: &[(usize, usize)], count: usize, of: impl Fn(&(usize, usize)) -> usize) -> Vec<u32> {
    let mut segment = vec![0; count];
    let mut next = anchors.iter().map(of).peekable();
    let mut passed = 0;
    for (n, segment) in segment.iter_mut().enumerate() {
        *segment = passed;
        passed += u32::from(next.next_if_eq(&n).is_some());
    }
    segment
}

/// The order-keeping pairing of files of one name that shares the most names of items; none that share no name.
fn most_shared(
    theirs: &[File<'_>],
    ours: &[File<'_>],
    mine: &[usize],
    others: &[usize],
) -> Vec<(usize, usize)> {
    let shared = |n: usize, m: usize| {
        theirs[mine[n]].1.iter().filter(|name| ours[others[m]].1.binary_search(name).is_ok()).count()
    };
    let width = others.len() + 1;
    let scores: Vec<usize> = (0..mine.len())
        .flat_map(|n| (0..others.len()).map(move |m| (n, m)))
        .map(|(n, m)| shared(n, m))
        .collect();
    let mut best = vec![0usize; (mine.len() + 1) * width];
    for n in (0..mine.len()).rev() {
        for m in (0..others.len()).rev() {
            let pair = best[(n + 1) * width + m + 1] + scores[n * others.len() + m];
            best[n * width + m] = pair.max(best[(n + 1) * width + m]).max(best[n * width + m + 1]);
        }
    }
    let (mut n, mut m, mut pairs) = (0, 0, Vec::new());
    while n < mine.len() && m < others.len() {
        let score = scores[n * others.len() + m];
        let here = best[n * width + m];
        if score > 0 && here == best[(n + 1) * width + m + 1] + score {
            pairs.push((mine[n], others[m]));
            (n, m) = (n + 1, m + 1);
        } else if here == best[(n + 1) * width + m] {
            n += 1;
        } else {
            m += 1;
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file<'d>(text: &'d str) -> File<'d> {
        let mut words = text.split(' ').map(str::as_bytes);
        (words.next().unwrap_or(b""), words.collect())
    }

    #[test]
    fn anchors_do_not_cross() {
        let theirs: Vec<_> = ["a.c f", "core.c g", "core.c h", "b.c i"].map(file).into();
        let ours: Vec<_> = ["core.c h", "a.c f", "new.c x", "core.c g", "b.c i"].map(file).into();
        assert_eq!(anchors(&theirs, &ours), [(0, 1), (1, 3), (3, 4)]);
    }

    #[test]
    fn the_longest_rising_run_is_taken() {
        assert_eq!(rising(&[(0, 3), (1, 0), (2, 1), (3, 2)]), [(1, 0), (2, 1), (3, 2)]);
        assert_eq!(rising(&[]), []);
    }

    #[test]
    fn files_of_one_name_are_paired_by_what_they_share() {
        let theirs: Vec<_> = ["core.c a b", "core.c c d"].map(file).into();
        let ours: Vec<_> = ["core.c x", "core.c a b e", "core.c c"].map(file).into();
        assert_eq!(most_shared(&theirs, &ours, &[0, 1], &[0, 1, 2]), [(0, 1), (1, 2)]);
    }
}
