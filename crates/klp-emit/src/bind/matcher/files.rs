//! Which file of the image is which file of the witness, and the locals of paired files.

use hashbrown::{HashMap, HashSet};
use klpx_normalize::align::best_in_order;
use klpx_normalize::elf::SymbolId;

use super::{Matcher, SymbolEvidence};
use crate::locals::Locals;

/// Locals of a unit, each with the local of the same name in one file of the image.
type SymbolPairs = Vec<(SymbolId, SymbolId)>;

/// The files with the highest count.
fn with_most<C: Ord>(
    files: Vec<(usize, SymbolPairs)>,
    count: impl Fn(&SymbolPairs) -> C,
) -> Vec<(usize, SymbolPairs)> {
    let Some(most) = files.iter().map(|(_, pairs)| count(pairs)).max() else { return Vec::new() };
    files.into_iter().filter(|(_, pairs)| count(pairs) == most).collect()
}

impl Matcher<'_> {
    /// Binds locals by file and name.
    pub(super) fn files(&mut self, witness: &Locals) {
        for (mine, theirs) in self.align_files(witness) {
            self.file[mine] = Some(theirs);
            let theirs = self.image_locals.of(theirs);
            self.match_names(
                witness.of(mine),
                theirs,
                [SymbolEvidence::FileAndName, SymbolEvidence::FileAndOrder],
            );
        }
    }

    /// Pairs of groups that are the same file. Names are base names, so several files can share a name. The files of
    /// two links have the same order; if one link has more files of a name than the other, the names inside decide. A
    /// single unit is one of the image's files of its name, and only its contents can tell which.
    fn align_files(&mut self, witness: &Locals) -> Vec<(usize, usize)> {
        let mut pairs = Vec::new();
        for (name, mine) in witness.by_name() {
            let Some(candidates) = self.image_locals.by_name().get(name) else { continue };
            match (&mine[..], &candidates[..]) {
                (&[unit], &[_, _, ..]) if witness.count() == 2 => {
                    let chosen = self.choose(witness.of(unit), candidates);
                    pairs.extend(chosen.map(|group| (unit, group)));
                }
                _ if mine.len() == candidates.len() => {
                    pairs.extend(mine.iter().copied().zip(candidates.iter().copied()));
                }
                _ => pairs.extend(self.align_by_content(witness, mine, candidates)),
            }
        }
        pairs.sort_unstable();
        pairs
    }

    /// Chooses which of several files of one name a unit is: the only file that has most of the names of the unit's
    /// locals, with most of the sizes. Among files that are equal so far, the only one with most of the contents is
    /// chosen. If there is none, the locals are tied.
    fn choose(&mut self, mine: &[SymbolId], candidates: &[usize]) -> Option<usize> {
        let pairs_of = |&group: &usize| {
            let rest = self.by_name(mine, self.image_locals.of(group)).into_iter();
            let pairs = rest.flat_map(|(_, (mine, candidates))| mine.into_iter().zip(candidates));
            (group, pairs.filter(|&(a, b)| self.same_kind(a, b)).collect::<SymbolPairs>())
        };
        let named = candidates.iter().map(pairs_of).filter(|(_, pairs)| !pairs.is_empty()).collect();
        let sized = |pairs: &SymbolPairs| pairs.iter().filter(|&&(a, b)| self.sizes_agree(a, b)).count();
        let mut best = with_most(named, |pairs| (pairs.len(), sized(pairs)));
        if best.len() > 1 {
            best = with_most(best, |pairs| pairs.iter().filter(|&&(a, b)| self.contents_agree(a, b)).count());
        }
        if let [(only, _)] = best[..] {
            return Some(only);
        }
        for (a, b) in best.into_iter().flat_map(|(_, pairs)| pairs) {
            self.tied.entry(a).or_default().push(b);
        }
        None
    }

    /// The order-preserving pairing that shares the most names.
    fn align_by_content(
        &self,
        witness: &Locals,
        mine: &[usize],
        candidates: &[usize],
    ) -> Vec<(usize, usize)> {
        let names_of = |&group: &usize| -> (usize, HashSet<&[u8]>) {
            (group, self.image_locals.of(group).iter().map(|&id| self.image_name(id)).collect())
        };
        let names: HashMap<usize, HashSet<&[u8]>> = candidates.iter().map(names_of).collect();
        let shared = |n: usize, m: usize| {
            witness.of(n).iter().filter(|&&id| names[&m].contains(self.witness_name(id))).count()
        };
        best_in_order(mine, candidates, shared)
    }
}
