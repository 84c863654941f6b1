//! The steps of the matching, in order: globals, files, neighbours, promoted names, the remaining symbols.

mod files;
mod ties;

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::{HashMap, HashSet};
use klpx_normalize::align::mutual;
use klpx_normalize::elf::{Definition, Elf, SymbolId};
use klpx_normalize::name::{Suffixes, canonical};
use klpx_normalize::object::{FileId, Item, Object};
use object::elf;

use super::promoted::{pair_hashes, promoted_by_hash};
use super::symbol_evidence::SymbolEvidence;
use crate::contents;
use crate::image::Image;
use crate::locals::{Locals, takes_part};

/// The symbols of one name that are not matched yet: (witness symbols, kernel symbols).
type Rest = (Vec<SymbolId>, Vec<SymbolId>);

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
        match (is_code(&self.witness.elf, mine), is_code(&self.image.elf, candidate)) {
            (Some(mine), Some(candidate)) => mine == candidate,
            _ => true,
        }
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
        self.unclaimed(candidates).filter(|&other| self.may_be(id, other) && test(self, id, other)).collect()
    }

    /// The symbols to which nothing is bound yet.
    fn unclaimed<'c>(&'c self, candidates: &'c [SymbolId]) -> impl Iterator<Item = SymbolId> + 'c {
        candidates.iter().copied().filter(|other| !self.claimed[other.index()])
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
        let free: Vec<SymbolId> = self.unclaimed(image_symbols).collect();
        let pairs = mutual(&open, &free, |&id, &other| self.may_be(id, other) && test(self, id, other));
        for &(n, m) in &pairs {
            self.bind(open[n], free[m], evidence);
        }
        !pairs.is_empty()
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

    fn is_undefined(&self, id: SymbolId) -> bool {
        self.witness.elf.definition(id) == Definition::Undefined
    }
}

/// Returns true for code and false for data. The final link of x86_64 puts `relocate_kernel` into `.data`
/// (arch/x86/kernel/vmlinux.lds.S; Linux 7.2 does, 6.12 does not), which then has the flags of both. There,
/// only a symbol's type tells.
fn is_code(elf: &Elf<'_>, id: SymbolId) -> Option<bool> {
    let Some(section) = elf.symbol_section(id) else { return Some(false) };
    let flags = elf.section_flags(section);
    let (runs, writable) = (flags & elf::SHF_EXECINSTR.0 != 0, flags & elf::SHF_WRITE.0 != 0);
    match elf.symbol_type(id) {
        _ if !(runs && writable) => Some(runs),
        kind if kind == elf::STT_FUNC.0 => Some(true),
        kind if kind == elf::STT_OBJECT.0 => Some(false),
        _ => None,
    }
}
