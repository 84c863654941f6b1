//! Which symbol of the kernel to be patched each symbol of klpx's own original build is.
//!
//! Owns the matching and its evidence. Binds nothing by guess: what no evidence settles stays unbound, and asking for
//! it is an error. Never compares code, but to settle a tie.
//!
//! The two builds have the same source, configuration and compiler, but not the same directory: names that ThinLTO
//! promoted carry other hashes, a local may be promoted in one build only, numbered names may have other numbers, and
//! the final link made hidden globals local.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use hashbrown::{HashMap, HashSet};
use klpx_diagnosis::{Class, Diagnosis, Place};
use klpx_normalize::align::best_in_order;
use klpx_normalize::elf::{Definition, Elf, SymbolId};
use klpx_normalize::name::{Suffixes, canonical, promotion, without_promotion};
use klpx_normalize::object::{FileId, Item, ItemId, Object};
use object::elf;

use crate::contents;
use crate::image::{Image, Location};

/// Why two symbols are held to be the same. The order is that of the steps; an earlier one is stronger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Evidence {
    /// A global of the same name: there is only one in a link.
    Global,
    /// The only local of that name in the same file.
    FileAndName,
    /// One of several locals of that name in the same file, by their order; their sizes agree one by one.
    FileAndOrder,
    /// Promoted from the same file: the other promoted names of the file have the same two hashes.
    PromotedTogether,
    /// The only one left of that name without the compiler's suffixes, in the same file where the file is known.
    CanonicalName,
    /// As before, and the only one of that size.
    Size,
    /// As before, and the only one with those contents.
    Contents,
    /// As before, and code that is the same in both builds refers to it.
    Reference,
}

/// A symbol of the kernel to be patched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundSymbol {
    /// The symbol, in the image's file.
    pub symbol: SymbolId,
    /// The name that the running kernel compares with, its `.llvm.<hash>` included where the kernel compares it.
    pub name: String,
    /// Its address in the linked image (for a module see [`Image`]).
    pub address: u64,
    /// Its size in bytes, 0 when the image gives none.
    pub size: u64,
    /// 0 when the name is unique in its object, else which of them, from 1.
    pub sympos: u32,
    /// Why it is this one.
    pub evidence: Evidence,
}

/// The symbols of one object of klpx's original build, bound to those of the kernel to be patched.
pub struct Binding<'a> {
    witness: &'a Object<'a>,
    image: &'a Image<'a>,
    bound: Vec<Option<(SymbolId, Evidence)>>,
    tied: BTreeMap<SymbolId, Vec<SymbolId>>,
}

impl<'a> Binding<'a> {
    /// Matches every symbol of an object that can be matched.
    pub fn new(witness: &'a Object<'a>, image: &'a Image<'a>) -> Binding<'a> {
        let mut matcher = Matcher::new(witness, image);
        matcher.globals();
        matcher.files();
        matcher.promoted();
        matcher.leftovers();
        Binding { witness, image, bound: matcher.bound, tied: matcher.tied }
    }

    /// The object of klpx's original build.
    pub fn witness(&self) -> &'a Object<'a> {
        self.witness
    }

    /// The kernel's object.
    pub fn image(&self) -> &'a Image<'a> {
        self.image
    }

    /// The symbol that this one is in the kernel's image, and why.
    pub fn counterpart(&self, symbol: SymbolId) -> Option<(SymbolId, Evidence)> {
        self.bound.get(symbol.index()).copied().flatten()
    }

    /// The address of an item's entry in the kernel's image, through its symbol or an alias of it.
    pub fn item_address(&self, item: ItemId) -> Option<u64> {
        let symbol = self.item_symbol(item)?;
        let address = self.image.address(self.counterpart(symbol)?.0)?;
        let ahead = self.witness.elf.symbol_value(symbol).wrapping_sub(self.witness.item(item).entry);
        Some(address.wrapping_sub(ahead))
    }

    /// A bound symbol of an item.
    fn item_symbol(&self, item: ItemId) -> Option<SymbolId> {
        let symbol = self.witness.item(item).symbol;
        if self.counterpart(symbol).is_some() {
            return Some(symbol);
        }
        self.witness.aliases(item).find(|&alias| self.counterpart(alias).is_some())
    }

    /// How the running kernel names an item.
    ///
    /// # Errors
    /// As [`Binding::symbol`].
    pub fn item(&self, item: ItemId) -> Result<BoundSymbol, Diagnosis> {
        self.symbol(self.item_symbol(item).unwrap_or(self.witness.item(item).symbol))
    }

    /// How the running kernel names a symbol.
    ///
    /// # Errors
    /// `klpx::not-in-kernel` when the kernel has no such symbol, `klpx::ambiguous-symbol` when no evidence settles
    /// which it is, or what [`Image::position`] says.
    pub fn symbol(&self, symbol: SymbolId) -> Result<BoundSymbol, Diagnosis> {
        let Some((found, evidence)) = self.counterpart(symbol) else { return Err(self.unbound(symbol)) };
        let address = self.image.address(found).ok_or_else(|| self.unbound(symbol))?;
        let position = self.image.position(found).map_err(first_diagnosis)?;
        Ok(BoundSymbol {
            symbol: found,
            name: position.name,
            address,
            size: self.image.elf.symbol_size(found),
            sympos: position.sympos,
            evidence,
        })
    }

    /// How many symbols each kind of evidence bound.
    pub fn tally(&self) -> BTreeMap<Evidence, usize> {
        let mut tally = BTreeMap::new();
        for (_, evidence) in self.bound.iter().flatten() {
            *tally.entry(*evidence).or_insert(0) += 1;
        }
        tally
    }

    fn unbound(&self, symbol: SymbolId) -> Diagnosis {
        let name = String::from_utf8_lossy(self.witness.elf.symbol_name(symbol)).into_owned();
        let file = self.witness.file_name(self.witness.symbol_file(symbol));
        let mut place = Place::symbol(name);
        if !file.is_empty() {
            place = place.at(String::from_utf8_lossy(file), None);
        }
        let object = self.image.object();
        match self.tied.get(&symbol) {
            Some(candidates) => Diagnosis::new(
                "klpx::ambiguous-symbol",
                Class::Verification,
                "several symbols fit",
            )
            .place(place)
            .why(format!(
                "{object} has {} symbols that this one could be, and nothing tells them apart",
                candidates.len()
            ))
            .remedy("build klpx's original with exactly the source, configuration and compiler of the kernel")
            .detail(
                candidates.iter().map(|&id| {
                    format!("{} at {:#x}", self.image.name(id), self.image.address(id).unwrap_or(0))
                }),
            ),
            None => Diagnosis::new(
                "klpx::not-in-kernel",
                Class::Verification,
                "the kernel to be patched has no such symbol",
            )
            .place(place)
            .why(format!("klpx's own build of the original source has it, {object} of the kernel does not"))
            .remedy("give klpx the source, configuration and compiler that the kernel was built with"),
        }
    }
}

fn first_diagnosis(failure: klpx_diagnosis::Failure) -> Diagnosis {
    let mut all = failure.diagnoses().cloned();
    all.next()
        .unwrap_or_else(|| Diagnosis::new("klpx::internal", Class::Internal, "a failure without a diagnosis"))
}

/// A file's local symbols, in symbol table order, and the file's name.
struct Group<'d> {
    name: &'d [u8],
    locals: Range<usize>,
}

/// Local symbols of a symbol table by FILE.
struct Locals<'d> {
    groups: Vec<Group<'d>>,
    symbols: Vec<SymbolId>,
}

/// True for a symbol that takes part in the matching.
fn takes_part(elf: &Elf<'_>, id: SymbolId) -> bool {
    let kind = elf.symbol_type(id);
    kind < elf::STT_SECTION.0 && !matches!(elf.symbol_name(id), [] | [b'$', ..])
}

impl<'d> Locals<'d> {
    fn read(elf: &Elf<'d>, is_global: impl Fn(SymbolId) -> bool) -> Locals<'d> {
        let mut groups = vec![Group { name: b"", locals: 0..0 }];
        let mut symbols = Vec::new();
        for id in elf.symbol_ids() {
            if elf.symbol_type(id) == elf::STT_FILE.0 {
                groups.push(Group { name: elf.symbol_name(id), locals: symbols.len()..symbols.len() });
            } else if takes_part(elf, id) && !is_global(id) {
                symbols.push(id);
                if let Some(last) = groups.last_mut() {
                    last.locals.end = symbols.len();
                }
            }
        }
        Locals { groups, symbols }
    }

    fn of(&self, group: usize) -> &[SymbolId] {
        &self.symbols[self.groups[group].locals.clone()]
    }

    /// Group numbers by file name, in order.
    fn by_name(&self) -> BTreeMap<&'d [u8], Vec<usize>> {
        let mut map: BTreeMap<&[u8], Vec<usize>> = BTreeMap::new();
        for (n, group) in self.groups.iter().enumerate() {
            map.entry(group.name).or_default().push(n);
        }
        map
    }
}

/// What is left to match under one canonical name: (witness symbols, kernel symbols).
type Rest = (Vec<SymbolId>, Vec<SymbolId>);

struct Matcher<'a> {
    witness: &'a Object<'a>,
    image: &'a Image<'a>,
    bound: Vec<Option<(SymbolId, Evidence)>>,
    claimed: Vec<bool>,
    tied: BTreeMap<SymbolId, Vec<SymbolId>>,
    /// For each FILE of the witness, the group of the image that is the same file; both by group number.
    file: Vec<Option<usize>>,
    image_locals: Locals<'a>,
    image_group: Vec<u32>,
}

impl<'a> Matcher<'a> {
    fn new(witness: &'a Object<'a>, image: &'a Image<'a>) -> Matcher<'a> {
        let image_locals = Locals::read(&image.elf, |id| image.is_global(id));
        let mut image_group = vec![u32::MAX; image.elf.symbol_count()];
        for n in 0..image_locals.groups.len() {
            for id in image_locals.of(n) {
                image_group[id.index()] = n as u32;
            }
        }
        Matcher {
            witness,
            image,
            bound: vec![None; witness.elf.symbol_count()],
            claimed: vec![false; image.elf.symbol_count()],
            tied: BTreeMap::new(),
            file: Vec::new(),
            image_locals,
            image_group,
        }
    }

    fn bind(&mut self, from: SymbolId, to: SymbolId, evidence: Evidence) {
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

    /// Globals, defined here or not, by name.
    fn globals(&mut self) {
        for id in self.witness.elf.symbol_ids() {
            if self.is_local(id) || !takes_part(&self.witness.elf, id) {
                continue;
            }
            let found = self.image.global(self.witness_name(id));
            if let Some(found) = found.filter(|&f| !self.claimed[f.index()]) {
                self.bind(id, found, Evidence::Global);
            }
        }
    }

    /// Locals by file and name.
    fn files(&mut self) {
        let witness = Locals::read(&self.witness.elf, |id| !self.is_local(id));
        let pairs = self.align_files(&witness);
        self.file = vec![None; witness.groups.len()];
        for (mine, theirs) in pairs {
            self.file[mine] = Some(theirs);
            self.match_file(witness.of(mine), theirs);
        }
    }

    /// Pairs of groups that are the same file. Names are base names, so several files share one; both links have
    /// them in the same order. Where one link has more of them than the other, the names inside decide.
    fn align_files(&self, witness: &Locals<'a>) -> Vec<(usize, usize)> {
        let theirs = self.image_locals.by_name();
        let mut pairs = Vec::new();
        for (name, mine) in witness.by_name() {
            let Some(theirs) = theirs.get(name) else { continue };
            if mine.len() == theirs.len() {
                pairs.extend(mine.iter().copied().zip(theirs.iter().copied()));
            } else {
                pairs.extend(self.align_by_content(witness, &mine, theirs));
            }
        }
        pairs.sort_unstable();
        pairs
    }

    /// The order-keeping pairing that shares the most names.
    fn align_by_content(
        &self,
        witness: &Locals<'a>,
        mine: &[usize],
        theirs: &[usize],
    ) -> Vec<(usize, usize)> {
        let names = |group: usize| -> HashSet<&[u8]> {
            self.image_locals.of(group).iter().map(|&id| self.image_name(id)).collect()
        };
        let sets: Vec<HashSet<&[u8]>> = theirs.iter().map(|&group| names(group)).collect();
        let shared = |n: usize, m: usize| {
            witness.of(mine[n]).iter().filter(|&&id| sets[m].contains(self.witness_name(id))).count()
        };
        let pairs = best_in_order(mine.len(), theirs.len(), shared);
        pairs.into_iter().map(|(n, m)| (mine[n], theirs[m])).collect()
    }

    fn match_file(&mut self, mine: &[SymbolId], group: usize) {
        let mut by_name: HashMap<&[u8], Rest> = HashMap::new();
        for &id in mine {
            by_name.entry(self.witness_name(id)).or_default().0.push(id);
        }
        for &id in self.image_locals.of(group) {
            if let Some(entry) = by_name.get_mut(self.image_name(id)) {
                entry.1.push(id);
            }
        }
        let mut pairs = Vec::new();
        for (name, (mine, theirs)) in &by_name {
            let numbered = canonical(name).suffixes.contains(Suffixes::NUMBER);
            let agree = || mine.iter().zip(theirs).all(|(&a, &b)| self.sizes_agree(a, b));
            if mine.len() != theirs.len() || (mine.len() > 1 || numbered) && !agree() {
                continue;
            }
            let evidence = if mine.len() == 1 { Evidence::FileAndName } else { Evidence::FileAndOrder };
            pairs.extend(mine.iter().zip(theirs).map(|(&a, &b)| (a, b, evidence)));
        }
        for (a, b, evidence) in pairs {
            self.bind(a, b, evidence);
        }
    }

    fn sizes_agree(&self, mine: SymbolId, theirs: SymbolId) -> bool {
        self.witness.elf.symbol_size(mine) == self.image.elf.symbol_size(theirs)
    }

    /// Promoted names: the hash of each file in one build stands for one hash in the other.
    fn promoted(&mut self) {
        let mine = promoted_by_hash(&self.witness.elf, |id| {
            self.bound[id.index()].is_none() && takes_part(&self.witness.elf, id)
        });
        let theirs = promoted_by_hash(&self.image.elf, |id| {
            !self.claimed[id.index()] && takes_part(&self.image.elf, id)
        });
        for (hash, other) in pair_hashes(&mine, &theirs) {
            let (Some(mine), Some(theirs)) = (mine.get(hash), theirs.get(other)) else { continue };
            for (name, &from) in mine {
                if let Some(&to) = theirs.get(name) {
                    self.bind(from, to, Evidence::PromotedTogether);
                }
            }
        }
    }

    /// What has no partner yet, by canonical name, then by size, contents and references.
    fn leftovers(&mut self) {
        let mut open: BTreeMap<(&[u8], Suffixes), Rest> = BTreeMap::new();
        for id in self.witness.elf.symbol_ids() {
            let defined = self.witness.elf.definition(id) != Definition::Undefined;
            if self.bound[id.index()].is_none() && defined && takes_part(&self.witness.elf, id) {
                open.entry(canonical(self.witness_name(id)).key()).or_default().0.push(id);
            }
        }
        for id in self.image.elf.symbol_ids() {
            if !self.claimed[id.index()]
                && takes_part(&self.image.elf, id)
                && let Some(rest) = open.get_mut(&canonical(self.image_name(id)).key())
            {
                rest.1.push(id);
            }
        }
        open.retain(|_, (_, theirs)| !theirs.is_empty());
        for (_, (mine, theirs)) in open {
            self.settle(&mine, &theirs);
        }
        let tied = std::mem::take(&mut self.tied);
        self.settle_by_reference(tied);
    }

    /// Applies one kind of evidence after the other to symbols of one canonical name.
    fn settle(&mut self, mine: &[SymbolId], theirs: &[SymbolId]) {
        type Test<'t> = &'t dyn Fn(&Matcher<'_>, SymbolId, SymbolId) -> bool;
        let steps: [(Evidence, Test<'_>); 3] = [
            (Evidence::CanonicalName, &|_, _, _| true),
            (Evidence::Size, &|m, a, b| m.sizes_agree(a, b)),
            (Evidence::Contents, &|m, a, b| m.sizes_agree(a, b) && m.contents_agree(a, b)),
        ];
        for (evidence, test) in steps {
            while self.settle_once(mine, theirs, evidence, test) {}
        }
        for &id in mine.iter().filter(|id| self.bound[id.index()].is_none()) {
            let fitting = self.fitting(id, theirs, &|m, a, b| m.sizes_agree(a, b));
            if !fitting.is_empty() {
                self.tied.insert(id, fitting);
            }
        }
    }

    /// The unclaimed symbols that could be this one.
    fn fitting(
        &self,
        id: SymbolId,
        theirs: &[SymbolId],
        test: &dyn Fn(&Matcher<'_>, SymbolId, SymbolId) -> bool,
    ) -> Vec<SymbolId> {
        let free = |&other: &SymbolId| !self.claimed[other.index()];
        theirs
            .iter()
            .copied()
            .filter(free)
            .filter(|&other| self.may_be(id, other) && test(self, id, other))
            .collect()
    }

    /// Binds every pair in which each is the only one that fits the other. True when something was bound.
    fn settle_once(
        &mut self,
        mine: &[SymbolId],
        theirs: &[SymbolId],
        evidence: Evidence,
        test: &dyn Fn(&Matcher<'_>, SymbolId, SymbolId) -> bool,
    ) -> bool {
        let open: Vec<SymbolId> =
            mine.iter().copied().filter(|id| self.bound[id.index()].is_none()).collect();
        let candidates: Vec<Vec<SymbolId>> = open.iter().map(|&id| self.fitting(id, theirs, test)).collect();
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

    /// Whether scope and kind allow that the two are the same: code is code, and two locals are of the same file.
    fn may_be(&self, mine: SymbolId, theirs: SymbolId) -> bool {
        let code = |elf: &Elf<'_>, id| {
            elf.symbol_section(id).is_some_and(|s| elf.section_flags(s) & elf::SHF_EXECINSTR.0 != 0)
        };
        if code(&self.witness.elf, mine) != code(&self.image.elf, theirs) {
            return false;
        }
        let promoted = |name| canonical(name).suffixes.promoted();
        match (self.is_local(mine), !self.image.is_global(theirs)) {
            (true, true) => {
                let file = self.witness.symbol_file(mine);
                let group = if file == FileId::NONE { 0 } else { file.0 as usize + 1 };
                let theirs = self.image_group[theirs.index()];
                self.file.get(group).copied().flatten().is_some_and(|g| g as u32 == theirs)
            }
            (true, false) => promoted(self.image_name(theirs)),
            (false, true) => promoted(self.witness_name(mine)) && self.may_share_a_file(mine, theirs),
            (false, false) => promoted(self.witness_name(mine)) && promoted(self.image_name(theirs)),
        }
    }

    /// False when a promoted symbol is known to come from another file than a local of the image.
    fn may_share_a_file(&self, mine: SymbolId, theirs: SymbolId) -> bool {
        let unit = self.witness.symbol_item(mine).map_or(FileId::NONE, |item| self.witness.unit(item));
        let group =
            if unit == FileId::NONE { None } else { self.file.get(unit.0 as usize + 1).copied().flatten() };
        group.is_none_or(|group| group as u32 == self.image_group[theirs.index()])
    }

    fn witness_item(&self, id: SymbolId) -> Option<&Item> {
        self.witness.symbol_item(id).map(|item| self.witness.item(item))
    }

    fn contents_agree(&self, mine: SymbolId, theirs: SymbolId) -> bool {
        let (Some(item), Some(address)) = (self.witness_item(mine), self.image.address(theirs)) else {
            return false;
        };
        contents::unrelocated_bytes_agree(self.witness, item, self.image, address)
    }

    /// Settles ties by what bound code of the same bytes refers to.
    fn settle_by_reference(&mut self, mut tied: BTreeMap<SymbolId, Vec<SymbolId>>) {
        while !tied.is_empty() {
            let seen = self.references_to(&tied);
            let mut settled = Vec::new();
            for (&id, candidates) in &tied {
                let Some(addresses) = seen.get(&id) else { continue };
                let hit = |&&c: &&SymbolId| self.image.address(c).is_some_and(|a| addresses.contains(&a));
                let hits: Vec<SymbolId> = candidates.iter().filter(hit).copied().collect();
                if let ([only], 1) = (&hits[..], addresses.len())
                    && !self.claimed[only.index()]
                {
                    settled.push((id, *only));
                }
            }
            if settled.is_empty() {
                break;
            }
            for (id, only) in settled {
                tied.remove(&id);
                if !self.claimed[only.index()] {
                    self.bind(id, only, Evidence::Reference);
                }
            }
            for candidates in tied.values_mut() {
                candidates.retain(|c| !self.claimed[c.index()]);
            }
            tied.retain(|_, candidates| !candidates.is_empty());
        }
        self.tied = tied;
    }

    /// For each tied symbol, the addresses that bound items refer to where the witness refers to its entry.
    fn references_to(&self, tied: &BTreeMap<SymbolId, Vec<SymbolId>>) -> HashMap<SymbolId, BTreeSet<u64>> {
        let items: HashMap<ItemId, SymbolId> =
            tied.keys().filter_map(|&id| Some((self.witness.symbol_item(id)?, id))).collect();
        let mut seen: HashMap<SymbolId, BTreeSet<u64>> = HashMap::new();
        for owner in self.witness.item_ids() {
            let Some((to, _)) = self.bound[self.witness.item(owner).symbol.index()] else { continue };
            let Some(address) = self.image.address(to) else { continue };
            let refers = contents::references(self.witness, owner, &|item| items.contains_key(&item));
            if refers.is_empty()
                || !contents::unrelocated_bytes_agree(
                    self.witness,
                    self.witness.item(owner),
                    self.image,
                    address,
                )
            {
                continue;
            }
            for (rela, item, offset) in refers {
                let found =
                    contents::location(self.witness, self.witness.item(owner), rela, self.image, address);
                if let (Some(Location::At(found)), Some(&id)) = (found, items.get(&item)) {
                    seen.entry(id).or_default().insert(found.wrapping_sub(offset as u64));
                }
            }
        }
        seen
    }
}

/// For each hash, the promoted symbols with it by the name before the hash; a name that stands twice is left out.
type Promoted<'d> = BTreeMap<&'d [u8], BTreeMap<&'d [u8], SymbolId>>;

fn promoted_by_hash<'d>(elf: &Elf<'d>, take: impl Fn(SymbolId) -> bool) -> Promoted<'d> {
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

/// `f` and `77` of `f.llvm.77`. A suffix after the hash (`f.llvm.77.cold`) is none that two builds share.
fn split_hash(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let hash = promotion(name)?;
    let base = without_promotion(name);
    (base.len() < name.len()).then_some((base, hash))
}

/// Which hash of one build is which of the other: first by names that only one hash of each build has, then by sets
/// of names that are the same. A hash with conflicting votes is left alone.
fn pair_hashes<'d>(mine: &Promoted<'d>, theirs: &Promoted<'d>) -> Vec<(&'d [u8], &'d [u8])> {
    let owners = |side: &Promoted<'d>| {
        let mut owner: BTreeMap<&'d [u8], Option<&'d [u8]>> = BTreeMap::new();
        for (&hash, names) in side {
            for &name in names.keys() {
                owner.entry(name).and_modify(|o| *o = None).or_insert(Some(hash));
            }
        }
        owner
    };
    let (ours, other) = (owners(mine), owners(theirs));
    let mut votes: BTreeMap<&'d [u8], BTreeMap<&'d [u8], usize>> = BTreeMap::new();
    for (name, hash) in &ours {
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
    pair_by_sets(mine, theirs, &mut pairs);
    pairs
}

/// Pairs hashes that are left when exactly one on each side has the same set of names.
fn pair_by_sets<'d>(mine: &Promoted<'d>, theirs: &Promoted<'d>, pairs: &mut Vec<(&'d [u8], &'d [u8])>) {
    let done: HashSet<&[u8]> = pairs.iter().flat_map(|&(a, b)| [a, b]).collect();
    type Sides<'d> = (Vec<&'d [u8]>, Vec<&'d [u8]>);
    let mut sets: BTreeMap<Vec<&[u8]>, Sides<'d>> = BTreeMap::new();
    for (&hash, names) in mine.iter().filter(|(hash, _)| !done.contains(**hash)) {
        sets.entry(names.keys().copied().collect()).or_default().0.push(hash);
    }
    for (&hash, names) in theirs.iter().filter(|(hash, _)| !done.contains(**hash)) {
        sets.entry(names.keys().copied().collect()).or_default().1.push(hash);
    }
    for (ours, other) in sets.values() {
        if let ([a], [b]) = (&ours[..], &other[..]) {
            pairs.push((a, b));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Fixture;
    use klpx_normalize::elf::ElfFile;

    const TWIN: &str = "static __attribute__((noinline)) int twin(int x) { asm(\"\"); return x + ADD; }
        int NAME(int x) { return twin(x) * 2; }";

    /// Binds every symbol and gives, for each of the named ones, what it is bound to, in symbol table order.
    fn bindings(witness: &ElfFile, image: &ElfFile, name: &str) -> Vec<Option<(String, u64, Evidence)>> {
        let object = Object::read(witness).expect("a sound object");
        let image = Image::read(image, "vmlinux").expect("a sound image");
        let binding = Binding::new(&object, &image);
        let symbols = object.elf.symbol_ids().filter(|&id| {
            canonical(object.elf.symbol_name(id)).base == name.as_bytes()
                && object.elf.symbol_type(id) != elf::STT_FILE.0
        });
        let bound =
            |id| binding.counterpart(id).map(|(to, e)| (image.name(to), image.address(to).unwrap_or(0), e));
        symbols.map(bound).collect()
    }

    #[test]
    fn equal_static_names_are_told_apart_by_file() {
        let f = Fixture::new();
        for (name, add) in [("alpha", 1), ("beta", 2)] {
            f.compile(
                name,
                TWIN,
                &format!("{name}.o"),
                &[&format!("-DNAME={name}"), &format!("-DADD={add}")],
            );
        }
        f.link(&["alpha.o", "beta.o"], "vmlinux");
        f.combine(&["alpha.o", "beta.o"], "same.o");
        f.combine(&["beta.o", "alpha.o"], "other.o");
        let addresses = |object: &str| -> Vec<u64> {
            let bound = bindings(&f.open(object), &f.open("vmlinux"), "twin");
            assert!(
                bound.iter().all(|b| b.as_ref().is_some_and(|b| b.2 == Evidence::FileAndName)),
                "{bound:?}"
            );
            bound.iter().flatten().map(|b| b.1).collect()
        };
        let (same, other) = (addresses("same.o"), addresses("other.o"));
        assert_eq!((same[0], same[1]), (other[1], other[0]));
        assert!(same[0] < same[1]);
    }

    /// A local that ThinLTO promoted is a hidden global with a hash in its name.
    const PROMOTED: &str = "#define QUOTE(x) #x
        #define TEXT(x) QUOTE(x)
        #define HIDDEN __attribute__((visibility(\"hidden\"), noinline))
        HIDDEN int helper(int x) __asm__(\"helper.llvm.\" TEXT(HASH));
        HIDDEN int only(int x) __asm__(TEXT(MARK) \".llvm.\" TEXT(HASH));
        int helper(int x) { asm(\"\"); return x + 1; }
        int only(int x) { asm(\"\"); return x * 3; }
        int NAME(int x) { return helper(x) + only(x); }";

    fn promoted(f: &Fixture, name: &str, hash: u32) -> String {
        let object = format!("{name}{hash}.o");
        let flags = [format!("-DNAME={name}"), format!("-DMARK=only_{name}"), format!("-DHASH={hash}")];
        f.compile(name, PROMOTED, &object, &flags.each_ref().map(String::as_str));
        object
    }

    #[test]
    fn promoted_names_are_matched_by_the_company_they_keep() {
        let f = Fixture::new();
        let kernel = [promoted(&f, "alpha", 111), promoted(&f, "beta", 222)];
        let ours = [promoted(&f, "alpha", 777), promoted(&f, "beta", 888)];
        f.link(&kernel.each_ref().map(String::as_str), "vmlinux");
        f.combine(&ours.each_ref().map(String::as_str), "witness.o");
        let bound = bindings(&f.open("witness.o"), &f.open("vmlinux"), "helper");
        let names: BTreeSet<_> = bound.iter().flatten().map(|b| (b.0.as_str(), b.2)).collect();
        let expected = [
            ("helper.llvm.111", Evidence::PromotedTogether),
            ("helper.llvm.222", Evidence::PromotedTogether),
        ];
        assert_eq!(names, BTreeSet::from(expected));
        let object = f.open("witness.o");
        let object = Object::read(&object).expect("a sound object");
        let image = f.open("vmlinux");
        let image = Image::read(&image, "vmlinux").expect("a sound image");
        let binding = Binding::new(&object, &image);
        let id = object.elf.symbol_ids().find(|&id| object.elf.symbol_name(id) == b"helper.llvm.888");
        let bound = binding.symbol(id.expect("a promoted symbol")).expect("a bound symbol");
        assert_eq!((bound.name.as_str(), bound.sympos), ("helper.llvm.222", 0));
    }

    #[test]
    fn a_local_of_one_build_may_be_promoted_in_the_other() {
        let f = Fixture::new();
        let local = "static __attribute__((noinline)) int helper(int x) { asm(\"\"); return x + 1; }
            int NAME(int x) { return helper(x); }";
        f.compile("gamma", local, "gamma.o", &["-DNAME=gamma"]);
        let object = promoted(&f, "gamma", 111);
        f.link(&[&object], "vmlinux");
        let bound = bindings(&f.open("gamma.o"), &f.open("vmlinux"), "helper");
        assert!(
            matches!(&bound[..], [Some((name, _, Evidence::CanonicalName))] if name == "helper.llvm.111"),
            "{bound:?}"
        );
        f.link(&["gamma.o"], "other");
        let bound = bindings(&f.open(&object), &f.open("other"), "helper");
        assert!(
            matches!(&bound[..], [Some((name, _, Evidence::CanonicalName))] if name == "helper"),
            "{bound:?}"
        );
    }

    #[test]
    fn numbered_statics_are_not_matched_by_their_number_when_the_sizes_disagree() {
        let f = Fixture::new();
        let source =
            "int NAME(int x) { static int A[SIZE_A]; A[x & 1] += x; { static int A[SIZE_B]; A[x & 3] += x;
            return A[x & 1]; } }";
        let first = ["-DNAME=f", "-DA=count", "-DSIZE_A=2", "-DSIZE_B=8"];
        let swapped = ["-DNAME=f", "-DA=count", "-DSIZE_A=8", "-DSIZE_B=2"];
        f.compile("delta", source, "first.o", &first);
        f.compile("delta", source, "swapped.o", &swapped);
        f.link(&["swapped.o"], "vmlinux");
        let bound = bindings(&f.open("first.o"), &f.open("vmlinux"), "count");
        assert_eq!(bound.len(), 2);
        assert!(bound.iter().flatten().all(|b| b.2 == Evidence::Size), "{bound:?}");
    }

    #[test]
    fn what_nothing_tells_apart_is_an_error() {
        let f = Fixture::new();
        // Two files of one name in the kernel, one of them in klpx's build under another name: no file, same size.
        let source = "static __attribute__((noinline)) int helper(int x) { asm(\"\"); return x + 1; }
            int NAME(int x) { return helper(x); }";
        let kernel = [promoted(&f, "alpha", 111), promoted(&f, "beta", 222)];
        f.compile("gamma", source, "gamma.o", &["-DNAME=gamma"]);
        f.link(&kernel.each_ref().map(String::as_str), "vmlinux");
        let (object, image) = (f.open("gamma.o"), f.open("vmlinux"));
        let object = Object::read(&object).expect("a sound object");
        let image = Image::read(&image, "vmlinux").expect("a sound image");
        let binding = Binding::new(&object, &image);
        let symbol = |name: &[u8]| object.elf.symbol_ids().find(|&id| object.elf.symbol_name(id) == name);
        let error = binding.symbol(symbol(b"helper").expect("a local")).expect_err("two fit");
        assert_eq!((error.code, error.detail.len()), ("klpx::ambiguous-symbol", 2));
        let error = binding.symbol(symbol(b"gamma").expect("a global")).expect_err("none fits");
        assert_eq!(error.code, "klpx::not-in-kernel");
    }
}
