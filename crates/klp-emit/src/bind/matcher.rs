//! The steps of the matching, in order: globals, files, neighbours, promoted names, the remaining symbols.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::{HashMap, HashSet};
use klpx_normalize::align::best_in_order;
use klpx_normalize::elf::{Definition, Elf, Rela, SymbolId};
use klpx_normalize::name::{Suffixes, canonical, promotion};
use klpx_normalize::object::{FileId, Item, ItemId, Object, Target};
use object::elf;

use super::SymbolEvidence;
use super::promoted::{pair_hashes, promoted_by_hash};
use crate::contents;
use crate::field::FieldValue;
use crate::image::Image;
use crate::locals::{Locals, takes_part};

/// The symbols of one name that are not matched yet: (witness symbols, kernel symbols).
type Rest = (Vec<SymbolId>, Vec<SymbolId>);

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

pub(super) struct Matcher<'a> {
    witness: &'a Object<'a>,
    image: &'a Image<'a>,
    pub(super) bound: Vec<Option<(SymbolId, SymbolEvidence)>>,
    claimed: Vec<bool>,
    pub(super) tied: BTreeMap<SymbolId, Vec<SymbolId>>,
    /// For each FILE group of the witness, the group of the image that is the same file; both are group numbers.
    file: Vec<Option<usize>>,
    image_locals: &'a Locals,
}

impl<'a> Matcher<'a> {
    pub(super) fn new(witness: &'a Object<'a>, image: &'a Image<'a>) -> Matcher<'a> {
        Matcher {
            witness,
            image,
            bound: vec![None; witness.elf.symbol_count()],
            claimed: vec![false; image.elf.symbol_count()],
            tied: BTreeMap::new(),
            file: Vec::new(),
            image_locals: image.locals(),
        }
    }

    /// Runs all steps in order.
    pub(super) fn run(&mut self) {
        self.globals();
        let witness = Locals::read(&self.witness.elf, |id| !self.is_local(id));
        self.file = vec![None; witness.count()];
        match self.image_locals.has_files() {
            true => self.files(&witness),
            false => self.neighbours(&witness),
        }
        if self.witness.has_promoted() || self.image.has_promoted() {
            self.promoted();
        }
        self.leftovers();
    }

    fn bind(&mut self, from: SymbolId, to: SymbolId, evidence: SymbolEvidence) {
        self.bound[from.index()] = Some((to, evidence));
        self.claimed[to.index()] = true;
    }

    fn is_local(&self, id: SymbolId) -> bool {
        self.witness.elf.symbol_binding(id) == elf::STB_LOCAL.0
    }

    fn witness_name(&self, id: SymbolId) -> &'a [u8] {
        self.witness.elf.symbol_name(id)
    }

    fn image_name(&self, id: SymbolId) -> &'a [u8] {
        self.image.elf.symbol_name(id)
    }

    /// Binds globals by name, whether defined here or not.
    fn globals(&mut self) {
        for id in self.witness.elf.symbol_ids() {
            if self.is_local(id) || !takes_part(&self.witness.elf, id) {
                continue;
            }
            let found = self.image.global(self.witness_name(id));
            if let Some(found) = found.filter(|&f| !self.claimed[f.index()]) {
                self.bind(id, found, SymbolEvidence::Global);
            }
        }
    }

    /// Binds locals by file and name.
    fn files(&mut self, witness: &Locals) {
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
        let names = |group: usize| -> HashSet<&[u8]> {
            self.image_locals.of(group).iter().map(|&id| self.image_name(id)).collect()
        };
        let sets: Vec<HashSet<&[u8]>> = candidates.iter().map(|&group| names(group)).collect();
        let shared = |n: usize, m: usize| {
            witness.of(mine[n]).iter().filter(|&&id| sets[m].contains(self.witness_name(id))).count()
        };
        let pairs = best_in_order(mine.len(), candidates.len(), shared);
        pairs.into_iter().map(|(n, m)| (mine[n], candidates[m])).collect()
    }

    /// Binds locals of a symbol table that lost its FILE symbols. Names that occur equally often on both sides come
    /// first, then names among the neighbours of the symbols that were found, because the locals of a unit are
    /// adjacent.
    fn neighbours(&mut self, witness: &Locals) {
        for group in 0..witness.count() {
            let (mine, all) = (witness.of(group), self.image_locals.of(0));
            self.match_names(mine, all, [SymbolEvidence::Name, SymbolEvidence::Name]);
            let found = || mine.iter().filter_map(|id| Some(self.bound[id.index()]?.0));
            let (Some(first), Some(last)) = (found().min(), found().max()) else { continue };
            let near: Vec<SymbolId> = all.iter().copied().filter(|id| (first..=last).contains(id)).collect();
            self.match_names(mine, &near, [SymbolEvidence::Neighbours, SymbolEvidence::Neighbours]);
        }
    }

    /// The symbols that are not bound yet, by name.
    fn by_name(&self, mine: &[SymbolId], candidates: &[SymbolId]) -> HashMap<&'a [u8], Rest> {
        let mut by_name: HashMap<&[u8], Rest> = HashMap::new();
        for &id in mine.iter().filter(|id| self.bound[id.index()].is_none()) {
            by_name.entry(self.witness_name(id)).or_default().0.push(id);
        }
        for &id in candidates.iter().filter(|id| !self.claimed[id.index()]) {
            if let Some(entry) = by_name.get_mut(self.image_name(id)) {
                entry.1.push(id);
            }
        }
        by_name
    }

    /// Binds the symbols of each name in their order if both sides have equally many. The second kind of evidence is
    /// for several symbols of a name.
    fn match_names(&mut self, mine: &[SymbolId], candidates: &[SymbolId], evidence: [SymbolEvidence; 2]) {
        let mut pairs = Vec::new();
        for (name, (mine, candidates)) in self.by_name(mine, candidates) {
            let numbered = canonical(name).suffixes.contains(Suffixes::NUMBER);
            let agree = |test: &dyn Fn(SymbolId, SymbolId) -> bool| {
                mine.iter().zip(&candidates).all(|(&a, &b)| test(a, b))
            };
            let sized = || agree(&|a, b| self.sizes_agree(a, b));
            if mine.len() != candidates.len()
                || !agree(&|a, b| self.same_kind(a, b))
                || (mine.len() > 1 || numbered) && !sized()
            {
                continue;
            }
            let evidence = evidence[usize::from(mine.len() > 1)];
            pairs.extend(mine.into_iter().zip(candidates).map(|(a, b)| (a, b, evidence)));
        }
        for (a, b, evidence) in pairs {
            self.bind(a, b, evidence);
        }
    }

    /// Returns true if both symbols are code or both are data.
    fn same_kind(&self, mine: SymbolId, candidate: SymbolId) -> bool {
        let code = |elf: &Elf<'_>, id| {
            elf.symbol_section(id).is_some_and(|s| elf.section_flags(s) & elf::SHF_EXECINSTR.0 != 0)
        };
        code(&self.witness.elf, mine) == code(&self.image.elf, candidate)
    }

    fn sizes_agree(&self, mine: SymbolId, candidate: SymbolId) -> bool {
        self.witness.elf.symbol_size(mine) == self.image.elf.symbol_size(candidate)
    }

    /// Matches promoted names: the hash of a file in one build corresponds to one hash in the other. A unit also has
    /// undefined names of other units. If several hashes have all names of one hash, the code that refers to the names
    /// decides.
    fn promoted(&mut self) {
        let mine = promoted_by_hash(&self.witness.elf, |id| {
            self.bound[id.index()].is_none() && takes_part(&self.witness.elf, id)
        });
        let image_symbols = promoted_by_hash(&self.image.elf, |id| {
            !self.claimed[id.index()] && takes_part(&self.image.elf, id)
        });
        let pairs = pair_hashes(&mine, &image_symbols);
        for (hash, other) in &pairs {
            let (Some(mine), Some(image_symbols)) = (mine.get(hash), image_symbols.get(other)) else {
                continue;
            };
            for (name, &from) in mine {
                if let Some(&to) = image_symbols.get(name) {
                    self.bind(from, to, SymbolEvidence::PromotedTogether);
                }
            }
        }
        let (done, taken): (HashSet<&[u8]>, HashSet<&[u8]>) = pairs.into_iter().unzip();
        for (_, names) in mine.iter().filter(|(hash, _)| !done.contains(**hash)) {
            let fitting = |(hash, has): &(&&[u8], &BTreeMap<&[u8], SymbolId>)| {
                !taken.contains(**hash) && names.keys().all(|name| has.contains_key(name))
            };
            let fitting: Vec<_> = image_symbols.iter().filter(fitting).map(|(_, has)| has).collect();
            for (name, &id) in names {
                if self.is_undefined(id) && !fitting.is_empty() {
                    self.tied.insert(id, fitting.iter().map(|has| has[name]).collect());
                }
            }
        }
    }

    /// Matches the remaining symbols by canonical name, then by size, contents and references.
    fn leftovers(&mut self) {
        let mut open: BTreeMap<(&[u8], Suffixes), Rest> = BTreeMap::new();
        for id in self.witness.elf.symbol_ids() {
            if self.bound[id.index()].is_none() && !self.is_undefined(id) && takes_part(&self.witness.elf, id)
            {
                open.entry(canonical(self.witness_name(id)).key()).or_default().0.push(id);
            }
        }
        for id in self.candidates() {
            if !self.claimed[id.index()]
                && let Some(rest) = open.get_mut(&canonical(self.image_name(id)).key())
            {
                rest.1.push(id);
            }
        }
        open.retain(|_, (_, candidates)| !candidates.is_empty());
        for (_, (mine, candidates)) in open {
            self.settle(&mine, &candidates);
        }
        let tied = std::mem::take(&mut self.tied);
        self.settle_by_reference(tied);
    }

    /// The image's symbols that may match a symbol of the witness: those of the witness's files, or all if names were
    /// promoted.
    fn candidates(&self) -> Vec<SymbolId> {
        if self.witness.has_promoted() || self.image.has_promoted() {
            return self.image.elf.symbol_ids().filter(|&id| takes_part(&self.image.elf, id)).collect();
        }
        let groups: BTreeSet<usize> = match self.image_locals.has_files() {
            true => self.file.iter().copied().flatten().collect(),
            false => BTreeSet::from([0]),
        };
        groups.into_iter().flat_map(|group| self.image_locals.of(group)).copied().collect()
    }

    /// Applies one kind of evidence after another to symbols of one canonical name.
    fn settle(&mut self, mine: &[SymbolId], candidates: &[SymbolId]) {
        type EvidenceTest<'t> = &'t dyn Fn(&Matcher<'_>, SymbolId, SymbolId) -> bool;
        let steps: [(SymbolEvidence, EvidenceTest<'_>); 3] = [
            (SymbolEvidence::CanonicalName, &|_, _, _| true),
            (SymbolEvidence::Size, &|m, a, b| m.sizes_agree(a, b)),
            (SymbolEvidence::Contents, &|m, a, b| m.sizes_agree(a, b) && m.contents_agree(a, b)),
        ];
        for (evidence, test) in steps {
            while self.settle_once(mine, candidates, evidence, test) {}
        }
        for &id in mine.iter().filter(|id| self.bound[id.index()].is_none()) {
            let fitting = self.fitting(id, candidates, &|m, a, b| m.sizes_agree(a, b));
            if !fitting.is_empty() {
                self.tied.insert(id, fitting);
            }
        }
    }

    /// The unclaimed symbols that may match this one.
    fn fitting(
        &self,
        id: SymbolId,
        candidates: &[SymbolId],
        test: &dyn Fn(&Matcher<'_>, SymbolId, SymbolId) -> bool,
    ) -> Vec<SymbolId> {
        let free = |&other: &SymbolId| !self.claimed[other.index()];
        candidates
            .iter()
            .copied()
            .filter(free)
            .filter(|&other| self.may_be(id, other) && test(self, id, other))
            .collect()
    }

    /// Binds every pair in which each symbol is the only fit for the other. Returns true if a pair was bound.
    fn settle_once(
        &mut self,
        mine: &[SymbolId],
        image_symbols: &[SymbolId],
        evidence: SymbolEvidence,
        test: &dyn Fn(&Matcher<'_>, SymbolId, SymbolId) -> bool,
    ) -> bool {
        let open: Vec<SymbolId> =
            mine.iter().copied().filter(|id| self.bound[id.index()].is_none()).collect();
        let candidates: Vec<Vec<SymbolId>> =
            open.iter().map(|&id| self.fitting(id, image_symbols, test)).collect();
        let mut wanted: HashMap<SymbolId, usize> = HashMap::new();
        for id in candidates.iter().flatten() {
            *wanted.entry(*id).or_insert(0) += 1;
        }
        let mut any = false;
        for (&id, found) in open.iter().zip(&candidates) {
            if let [only] = found[..]
                && wanted.get(&only) == Some(&1)
            {
                self.bind(id, only, evidence);
                any = true;
            }
        }
        any
    }

    /// Whether scope and kind allow a match: code matches only code, and two locals must be of the same file.
    fn may_be(&self, mine: SymbolId, candidate: SymbolId) -> bool {
        if !self.same_kind(mine, candidate) {
            return false;
        }
        let promoted = |name| canonical(name).suffixes.promoted();
        match (self.is_local(mine), !self.image.is_global(candidate)) {
            (true, true) if !self.image_locals.has_files() => true,
            (true, true) => {
                let file = self.witness.symbol_file(mine);
                let group = if file == FileId::NONE { 0 } else { file.0 as usize + 1 };
                let group = self.file.get(group).copied().flatten();
                group.is_some() && group == self.image_locals.group_of(candidate)
            }
            (true, false) => promoted(self.image_name(candidate)),
            (false, true) => promoted(self.witness_name(mine)) && self.may_share_a_file(mine, candidate),
            (false, false) => promoted(self.witness_name(mine)) && promoted(self.image_name(candidate)),
        }
    }

    /// Returns false if a promoted symbol is known to come from another file than a local of the image.
    fn may_share_a_file(&self, mine: SymbolId, candidate: SymbolId) -> bool {
        let unit = self.witness.symbol_item(mine).map_or(FileId::NONE, |item| self.witness.unit(item));
        let group =
            if unit == FileId::NONE { None } else { self.file.get(unit.0 as usize + 1).copied().flatten() };
        group.is_none_or(|group| Some(group) == self.image_locals.group_of(candidate))
    }

    fn witness_item(&self, id: SymbolId) -> Option<&Item> {
        self.witness.symbol_item(id).map(|item| self.witness.item(item))
    }

    fn contents_agree(&self, mine: SymbolId, candidate: SymbolId) -> bool {
        let (Some(item), Some(address)) = (self.witness_item(mine), self.image.address(candidate)) else {
            return false;
        };
        contents::unrelocated_bytes_agree(self.witness, item, self.image, address)
    }

    /// Settles ties by the references of bound code with the same bytes.
    fn settle_by_reference(&mut self, mut tied: BTreeMap<SymbolId, Vec<SymbolId>>) {
        while !tied.is_empty() {
            let seen = self.references_to(&tied);
            let mut settled = Vec::new();
            for (&id, candidates) in &tied {
                let fits = |address: u64, found: &(FieldValue, i64)| {
                    found.0.is(address.wrapping_add_signed(found.1))
                };
                let hit = |&&c: &&SymbolId| {
                    let Some(address) = self.image.address(c) else { return false };
                    !self.claimed[c.index()]
                        && seen.get(&id).is_some_and(|all| all.iter().all(|f| fits(address, f)))
                };
                let hits: Vec<SymbolId> = candidates.iter().filter(hit).copied().collect();
                match hits[..] {
                    [only] => settled.push((id, only, true)),
                    // Strings that the linker merged have one address but several names.
                    [first, ..] if self.is_undefined(id) && self.is_one_place(&hits) => {
                        settled.push((id, first, false))
                    }
                    _ => {}
                }
            }
            if settled.is_empty() {
                break;
            }
            for (id, found, alone) in settled {
                tied.remove(&id);
                if self.claimed[found.index()] {
                    continue;
                }
                self.bind(id, found, SymbolEvidence::Reference);
                if let Some((mine, image_symbols)) = self.hashes(id, found).filter(|_| alone) {
                    self.settle_hash(&mut tied, mine, image_symbols);
                }
            }
            for candidates in tied.values_mut() {
                candidates.retain(|c| !self.claimed[c.index()]);
            }
            tied.retain(|_, candidates| !candidates.is_empty());
        }
        self.tied = tied;
    }

    fn is_undefined(&self, id: SymbolId) -> bool {
        self.witness.elf.definition(id) == Definition::Undefined
    }

    /// Returns true if all symbols have the same address.
    fn is_one_place(&self, candidates: &[SymbolId]) -> bool {
        let mut places = candidates.iter().map(|&id| self.image.address(id));
        let first = places.next().flatten();
        first.is_some() && places.all(|place| place == first)
    }

    /// The hashes in the names of two symbols.
    fn hashes(&self, mine: SymbolId, candidate: SymbolId) -> Option<(&'a [u8], &'a [u8])> {
        Some((promotion(self.witness_name(mine))?, promotion(self.image_name(candidate))?))
    }

    /// Binds the tied names of one hash to the names of the corresponding hash in the image.
    fn settle_hash(&mut self, tied: &mut BTreeMap<SymbolId, Vec<SymbolId>>, mine: &[u8], image_hash: &[u8]) {
        let of_hash: Vec<SymbolId> =
            tied.keys().copied().filter(|&id| promotion(self.witness_name(id)) == Some(mine)).collect();
        for id in of_hash {
            let candidates = tied.remove(&id).unwrap_or_default();
            let free = |c: &&SymbolId| {
                !self.claimed[c.index()] && promotion(self.image_name(**c)) == Some(image_hash)
            };
            if let Some(&found) = candidates.iter().find(free) {
                self.bind(id, found, SymbolEvidence::PromotedTogether);
            }
        }
    }

    /// For each tied symbol: the values of fields of bound items where the witness refers to the symbol, and the offset
    /// from it.
    fn references_to(
        &self,
        tied: &BTreeMap<SymbolId, Vec<SymbolId>>,
    ) -> HashMap<SymbolId, Vec<(FieldValue, i64)>> {
        let items: HashMap<ItemId, SymbolId> =
            tied.keys().filter_map(|&id| Some((self.witness.symbol_item(id)?, id))).collect();
        let wanted = |target| match target {
            Target::Item { item, offset } => Some((*items.get(&item)?, offset)),
            Target::External { symbol, offset } => tied.contains_key(&symbol).then_some((symbol, offset)),
            _ => None,
        };
        let mut seen: HashMap<SymbolId, Vec<(FieldValue, i64)>> = HashMap::new();
        for owner in self.witness.item_ids() {
            let item = self.witness.item(owner);
            let Some((to, _)) = self.bound[item.symbol.index()] else { continue };
            let Some(address) = self.image.address(to) else { continue };
            let leads = |rela: &Rela| wanted(self.witness.resolve(item.section, rela));
            if !self.witness.item_relocations(owner).iter().any(|rela| leads(rela).is_some()) {
                continue;
            }
            for site in contents::sites(self.witness, owner, self.image, address).unwrap_or_default() {
                if let Some((id, offset)) = leads(site.relocation.rela)
                    && let Some(value) = site.value(self.witness, self.image)
                {
                    seen.entry(id).or_default().push((value, offset));
                }
            }
        }
        seen
    }
}
