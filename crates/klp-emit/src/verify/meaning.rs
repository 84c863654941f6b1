//! Whether each copied function still means what the patched build meant: its bytes, and each reference by name.
//!
//! Works on the two files' symbols and relocations as they are, not on the object model that the copy was made from.

use std::collections::{BTreeMap, BTreeSet};

use klpx_diagnosis::{Diagnosis, Offset, Place};
use klpx_normalize::arch::{Arch, Field};
use klpx_normalize::elf::{Definition, Elf, Rela, SectionId, SymbolId};
use klpx_normalize::lifetime::Lifetime;
use klpx_normalize::name::{Suffixes, canonical, is_mapping_symbol, type_id, without_promotion};
use klpx_normalize::object::{ItemId, Object};
use object::elf;
use object::endian::LittleEndian as LE;

use super::alternatives::Alternatives;
use super::twins::{Copies, file_name};
use super::{Check, LoadTarget, fault};
use crate::plan::{Unit, VMLINUX};
use crate::{arch, inspect};

/// How far unnamed data that refers to unnamed data is followed.
const DEPTH: u8 = 4;

/// A function in one file, with what stands before its entry and behind its last byte; or other bytes.
#[derive(Clone, Copy)]
pub(super) struct Body {
    pub(super) section: SectionId,
    pub(super) start: u64,
    pub(super) size: u64,
    /// Bytes before the entry.
    pub(super) lead: u64,
}

impl Body {
    fn of(object: &Object<'_>, item: ItemId) -> Body {
        let item = object.item(item);
        Body {
            section: item.section,
            start: item.start,
            size: item.end - item.start,
            lead: item.entry - item.start,
        }
    }
}

/// What a reference names in one file.
enum Named {
    /// One of these names with bytes from it: aliases, and what lies a few bytes on, because the immediate that
    /// follows an x86 displacement counts in it.
    Symbol(Vec<(String, i64)>),
    /// A place in a section without a symbol.
    Bytes(SectionId, u64),
    /// A plain number.
    Number(i64),
}

/// Symbols with a size by place, for one file.
struct Names<'e, 'd> {
    elf: &'e Elf<'d>,
    arch: Arch,
    sorted: Vec<(SectionId, u64, SymbolId)>,
}

impl<'e, 'd> Names<'e, 'd> {
    fn new(elf: &'e Elf<'d>, arch: Arch) -> Names<'e, 'd> {
        let is_named = |&id: &SymbolId| {
            let name = elf.symbol_name(id);
            !matches!(elf.symbol_type(id), t if t == elf::STT_SECTION.0 || t == elf::STT_FILE.0)
                && !name.is_empty()
                && !name.starts_with(b".L")
                && !is_mapping_symbol(name)
        };
        let mut sorted: Vec<_> = elf
            .symbol_ids()
            .filter(is_named)
            .filter_map(|id| Some((elf.symbol_section(id)?, elf.symbol_value(id), id)))
            .collect();
        sorted.sort_unstable();
        Names { elf, arch, sorted }
    }

    /// Every name at the start of whatever covers a place.
    fn covering(&self, section: SectionId, at: u64) -> Option<(Vec<String>, u64)> {
        let after = self.sorted.partition_point(|&(s, value, _)| (s, value) <= (section, at));
        let (of, start, _) = *self.sorted[..after].iter().rev().find(|&&(s, value, id)| {
            s != section || at < value.saturating_add(self.elf.symbol_size(id)) || at == value
        })?;
        if of != section {
            return None;
        }
        let from = self.sorted.partition_point(|&(s, value, _)| (s, value) < (section, start));
        let here = self.sorted[from..].iter().take_while(|&&(s, value, _)| (s, value) == (section, start));
        Some((here.map(|&(_, _, id)| self.text(id)).collect(), start))
    }

    /// Where the next name of a section stands, or the section ends.
    fn next_name(&self, section: SectionId, at: u64) -> u64 {
        let next = self.sorted.partition_point(|&(s, value, _)| (s, value) <= (section, at));
        let next = self.sorted.get(next).filter(|&&(of, ..)| of == section);
        next.map_or(self.elf.section_size(section), |&(_, value, _)| value)
    }

    fn text(&self, id: SymbolId) -> String {
        String::from_utf8_lossy(self.elf.symbol_name(id)).into_owned()
    }

    /// Every name of what ends at the end of a section: where a loop over an array stops. In the middle of a section, an
    /// unnamed constant may begin where something ends.
    fn ending(&self, section: SectionId, at: u64) -> Option<(Vec<String>, u64)> {
        if at != self.elf.section_size(section) {
            return None;
        }
        let before = self.sorted.partition_point(|&(s, value, _)| (s, value) < (section, at));
        let ends = |&&(s, value, id): &&(SectionId, u64, SymbolId)| {
            s == section && value.saturating_add(self.elf.symbol_size(id)) == at
        };
        let of = self.sorted[..before].iter().rev().take_while(|&&(s, ..)| s == section).find(ends)?;
        self.covering(section, of.1)
    }

    /// What lies at a place of a section, and a few bytes on; at the end of the section, what ends there.
    fn near(&self, section: SectionId, at: i64) -> Named {
        let mut found = Vec::new();
        for find in [Names::covering, Names::ending] {
            for &ahead in self.arch.trailing_bytes() {
                let place = u64::try_from(at.saturating_add(ahead)).ok();
                if let Some((names, start)) = place.and_then(|place| find(self, section, place)) {
                    found.extend(names.into_iter().map(|name| (name, at.wrapping_sub(start as i64))));
                }
            }
            if !found.is_empty() {
                break;
            }
        }
        // A compiler takes the lowest index of a table off its address, which may come before the section then.
        if let (true, Some((names, start))) = (found.is_empty() && at < 0, self.covering(section, 0)) {
            found.extend(names.into_iter().map(|name| (name, at.wrapping_sub(start as i64))));
        }
        found.dedup();
        if found.is_empty() { Named::Bytes(section, at.max(0) as u64) } else { Named::Symbol(found) }
    }

    /// What a relocation refers to. `bias` is what the instruction's own length adds.
    fn referent(&self, rela: &Rela, bias: i64) -> Named {
        let addend = rela.r_addend.get(LE).wrapping_add(bias);
        let Some(symbol) = self.elf.rela_symbol(rela).filter(|&s| s != SymbolId::NONE) else {
            return Named::Number(addend);
        };
        match self.elf.definition(symbol) {
            Definition::Section(section) => {
                let value = self.elf.symbol_value(symbol);
                let named = self.elf.symbol_type(symbol) != elf::STT_SECTION.0;
                match self.covering(section, value).filter(|_| named) {
                    Some((names, start)) => {
                        let delta = addend.wrapping_add(value.wrapping_sub(start) as i64);
                        Named::Symbol(names.into_iter().map(|name| (name, delta)).collect())
                    }
                    None => self.near(section, (value as i64).wrapping_add(addend)),
                }
            }
            Definition::Livepatch => {
                let name = inspect::parse_symbol(&self.text(symbol)).map(|parsed| parsed.name);
                Named::Symbol(name.into_iter().map(|name| (name, addend)).collect())
            }
            Definition::Absolute => Named::Number(addend.wrapping_add(self.elf.symbol_value(symbol) as i64)),
            _ => Named::Symbol(vec![(self.text(symbol), addend)]),
        }
    }
}

/// A copied function being compared.
struct Pair<'p, 'd, 'c> {
    arch: Arch,
    /// The unit's patched object.
    object: &'p Object<'d>,
    patched: &'p Names<'p, 'd>,
    copy: &'p Names<'p, 'c>,
    alternatives: (&'p Alternatives, &'p Alternatives),
    copied_relocations: &'p [(SectionId, Vec<Rela>)],
    target: &'p dyn LoadTarget,
    runtime: &'p BTreeMap<(SectionId, u64), String>,
    replaced: &'p BTreeSet<String>,
    origins: &'p Origins,
    /// The constants of the unit that the patch changes, by name.
    constants: &'p BTreeMap<String, Body>,
}

/// Where the things of a unit come from whose names alone do not tell.
struct Origins {
    /// For each name with a number, as the patched build has it: the original's name for that thing, or `None` for what
    /// is new. The number may have gone to another one.
    numbered: BTreeMap<String, Option<String>>,
    /// The file that the unit was compiled from.
    file: Option<String>,
}

impl Origins {
    fn of(unit: &Unit<'_, '_>) -> Origins {
        let text = |name: &[u8]| String::from_utf8_lossy(without_promotion(name)).into_owned();
        let object = unit.patched;
        let is_numbered = |&item: &ItemId| {
            canonical(object.item_name(item)).suffixes.contains(Suffixes::NUMBER)
                && !klpx_diff::is_anonymous(object, item)
        };
        let origin = |item: ItemId| {
            let original = unit.counterpart(item).map(|original| text(unit.original.item_name(original)));
            (text(object.item_name(item)), original)
        };
        Origins {
            numbered: object.item_ids().filter(is_numbered).map(origin).collect(),
            file: file_name(unit.original).map(|name| String::from_utf8_lossy(name).into_owned()),
        }
    }
}

impl Check<'_, '_> {
    pub(super) fn check_meaning(&mut self, units: &[Unit<'_, '_>]) {
        let Ok(arch) = Arch::of_machine(self.elf.machine()) else { return };
        let copy = Names::new(self.elf, arch);
        let copied_relocations = all_relocations(self.elf);
        let copied_alternatives = Alternatives::of(self.elf);
        let replaced: BTreeSet<String> =
            self.module.objects.iter().flat_map(|o| &o.functions).map(|f| f.new_symbol.clone()).collect();
        let mut faults = Vec::new();
        let mut copies = Vec::new();
        for (number, unit) in units.iter().enumerate() {
            let patched = Names::new(&unit.patched.elf, arch);
            let runtime = runtime_constants(&unit.patched.elf);
            let alternatives = Alternatives::of(&unit.patched.elf);
            let origins = Origins::of(unit);
            let constants: BTreeMap<String, Body> = super::changed_constants(unit)
                .map(|item| (patched.text(unit.patched.item(item).symbol), Body::of(unit.patched, item)))
                .collect();
            let pair = Pair {
                arch,
                object: unit.patched,
                patched: &patched,
                copy: &copy,
                alternatives: (&alternatives, &copied_alternatives),
                copied_relocations: &copied_relocations,
                target: self.target,
                runtime: &runtime,
                replaced: &replaced,
                origins: &origins,
                constants: &constants,
            };
            for change in &unit.difference.functions {
                let body = Body::of(unit.patched, change.patched);
                let name = match change.original {
                    Some(original) => unit.original.item_name(original),
                    None => unit.patched.item_name(change.patched),
                };
                let name = String::from_utf8_lossy(without_promotion(name)).into_owned();
                let section = unit.patched.elf.section_name(body.section);
                let overridden = change.original.is_some_and(|original| unit.is_overridden(original));
                if overridden || Lifetime::of(section).is_gone(unit.is_vmlinux()) {
                    continue;
                }
                if change.original.is_none() && !pair.holds(&name) {
                    continue; // new, but nothing that was copied refers to it
                }
                match pair.check(&name, body) {
                    Ok(places) if change.original.is_some() => {
                        copies.push(Copies { unit: number, name, places })
                    }
                    Ok(_) => {}
                    Err(found) => faults.push(found.place(Place::symbol(name))),
                }
            }
            copies.extend(self.unchanged(number, unit, &pair));
        }
        self.faults.extend(faults);
        self.check_twins(units, &copies);
    }
}

impl Check<'_, '_> {
    /// The copies of functions that are replaced though they did not change: something that they call did. Another unit
    /// may have a function of such a name too, so that one that differs is no fault yet.
    fn unchanged(&self, number: usize, unit: &Unit<'_, '_>, pair: &Pair<'_, '_, '_>) -> Vec<Copies> {
        let objects = self.module.objects.iter().filter(|object| object.name == unit.object_name);
        let listed: BTreeSet<&str> =
            objects.flat_map(|object| &object.functions).map(|f| f.new_symbol.as_str()).collect();
        let changed: BTreeSet<ItemId> =
            unit.difference.functions.iter().map(|change| change.patched).collect();
        let items = unit.patched.item_ids().filter(|item| {
            unit.patched.item(*item).code && !changed.contains(item) && unit.counterpart(*item).is_some()
        });
        let copies = items.filter_map(|item| {
            let name = String::from_utf8_lossy(without_promotion(unit.patched.item_name(item))).into_owned();
            listed.contains(name.as_str()).then_some(())?;
            let places = pair.check(&name, Body::of(unit.patched, item)).ok()?;
            Some(Copies { unit: number, name, places })
        });
        copies.collect()
    }
}

/// Relocations of every section, livepatch ones among them, sorted by place.
fn all_relocations(elf: &Elf<'_>) -> Vec<(SectionId, Vec<Rela>)> {
    let mut all: Vec<(SectionId, Vec<Rela>)> = elf.section_ids().map(|id| (id, Vec::new())).collect();
    for id in elf.section_ids().filter(|&id| elf.section_type(id) == elf::SHT_RELA.0) {
        if let Some((_, list)) = all.get_mut(elf.section(id).sh_info.get(LE) as usize) {
            list.extend_from_slice(elf.rela_table(id));
        }
    }
    for (_, list) in &mut all {
        list.sort_by_key(|rela| rela.r_offset.get(LE));
    }
    all
}

/// The places that `runtime_ptr_*` sections name, with the constant's name: an immediate that the copy replaces by a
/// load.
fn runtime_constants(elf: &Elf<'_>) -> BTreeMap<(SectionId, u64), String> {
    let mut found = BTreeMap::new();
    for id in elf.section_ids() {
        let Some(name) = elf.section_name(id).strip_prefix(b"runtime_ptr_") else { continue };
        for rela in elf.relocations(id) {
            let symbol = elf.rela_symbol(rela);
            let Some((symbol, section)) = symbol.and_then(|s| Some((s, elf.symbol_section(s)?))) else {
                continue;
            };
            let at = elf.symbol_value(symbol).wrapping_add_signed(rela.r_addend.get(LE));
            found.insert((section, at), String::from_utf8_lossy(name).into_owned());
        }
    }
    found
}

/// True when one name with its offset is in both.
fn same(ours: &[(String, i64)], theirs: &[(String, i64)]) -> bool {
    ours.iter().any(|a| {
        theirs
            .iter()
            .any(|b| a.1 == b.1 && canonical(a.0.as_bytes()).key() == canonical(b.0.as_bytes()).key())
    })
}

/// What two builds' names must share.
fn unnumbered(name: &str) -> (&[u8], Suffixes) {
    canonical(type_id(name.as_bytes()).unwrap_or(name.as_bytes())).key()
}

/// A name without what ThinLTO's promotion put behind it.
fn plain(name: &str) -> &str {
    std::str::from_utf8(without_promotion(name.as_bytes())).unwrap_or(name)
}

fn list(names: &[(String, i64)]) -> String {
    names.iter().map(|(name, offset)| Offset(*offset).behind(name)).collect::<Vec<_>>().join("/")
}

impl Pair<'_, '_, '_> {
    /// True when the module has a function of this name.
    fn holds(&self, name: &str) -> bool {
        let is_it = |id| {
            self.copy.elf.symbol_type(id) == elf::STT_FUNC.0
                && self.copy.elf.symbol_name(id) == name.as_bytes()
        };
        self.copy.sorted.iter().any(|&(_, _, id)| is_it(id))
    }

    /// The copies of a function of the patched build, of those that have its name; or the first difference.
    fn check(&self, name: &str, body: Body) -> Result<Vec<(SectionId, u64)>, Diagnosis> {
        let mut first = None;
        let mut equal = Vec::new();
        for &(section, start, id) in &self.copy.sorted {
            if self.copy.elf.symbol_type(id) != elf::STT_FUNC.0
                || self.copy.elf.symbol_name(id) != name.as_bytes()
            {
                continue;
            }
            let copy = Body { section, start: start.saturating_sub(body.lead), ..body };
            match self.compare(body, copy, 0).or_else(|| self.compare_alternatives(body, copy)) {
                None => equal.push((section, start)),
                Some(found) => first = first.or(Some(found)),
            }
        }
        match first {
            _ if !equal.is_empty() => Ok(equal),
            Some(found) => Err(found),
            None => {
                Err(fault("klpx::verify-meaning", "a changed function that the module does not hold", ""))
            }
        }
    }

    /// The alternatives of a function: what replaces what, and when.
    fn compare_alternatives(&self, from: Body, to: Body) -> Option<Diagnosis> {
        let (ours, theirs) = (self.alternatives.0.within(from), self.alternatives.1.within(to));
        let differs = |why: &str| {
            Some(fault("klpx::verify-meaning", "an alternative differs from the patched build", why))
        };
        if ours.len() != theirs.len() {
            return differs(&format!("{} became {}", ours.len(), theirs.len()));
        }
        for (our, their) in ours.iter().zip(theirs) {
            if our.at - from.start != their.at - to.start || our.rest != their.rest {
                return differs("it stands elsewhere, or is for another processor");
            }
            let name = |elf: &Elf<'_>, symbol| String::from_utf8_lossy(elf.symbol_name(symbol)).into_owned();
            let (mine, copied) = (name(self.patched.elf, our.symbol), name(self.copy.elf, their.symbol));
            match (our.replacement(), their.replacement()) {
                (Some(from), Some(to)) => {
                    if let Some(found) = self.compare(from, to, 0) {
                        return differs(&found.what);
                    }
                }
                (_, None) if mine == copied => {}
                _ => return differs(&format!("{mine} became {copied}")),
            }
        }
        None
    }

    /// Code, or data that has no name, in both files. `depth` counts how many references led here.
    fn compare(&self, from: Body, to: Body, depth: u8) -> Option<Diagnosis> {
        let differs = |what: &str, at: u64, why: String| {
            let at = at as i64 - from.lead as i64;
            Some(fault(
                "klpx::verify-meaning",
                format!("{what} at {} differs from the patched build", Offset(at)),
                why,
            ))
        };
        let size = from.size;
        let ours: Vec<&Rela> =
            self.relocations(self.patched.elf.relocations(from.section), from.start, size).collect();
        let list = self.copied_relocations.get(to.section.index()).map_or(&[][..], |(_, list)| list);
        let theirs: Vec<&Rela> = self.relocations(list, to.start, size).collect();
        let bytes = |elf: &Elf<'_>, body: Body| {
            let all = elf.section_bytes(body.section);
            all.get(body.start as usize..body.start.saturating_add(size) as usize).unwrap_or(&[]).to_vec()
        };
        let (left, right) = (bytes(self.patched.elf, from), bytes(self.copy.elf, to));
        let mut skip = BTreeSet::new();
        let mut constants = BTreeMap::new();
        let places = (from.section, from.start)..(from.section, from.start.saturating_add(size));
        for (&(_, place), name) in self.runtime.range(places) {
            let at = place - from.start;
            let load = usize::try_from(at).ok().and_then(|at| arch::runtime_load(self.arch, &left, at));
            let Some(load) = load else {
                return differs("a runtime constant", at, "it is not made as the kernel makes them".into());
            };
            let range = load.at..load.at + load.bytes.len();
            if right.get(range.clone()) != Some(&load.bytes[..]) {
                return differs("a runtime constant", at, "the module does not load it".into());
            }
            skip.extend(range.start as u64..range.end as u64);
            constants.extend(load.relocations.iter().map(|&(at, kind, _)| ((at as u64, kind), name)));
        }
        let mut ours = ours.into_iter().peekable();
        for other in theirs {
            let at = other.r_offset.get(LE) - to.start;
            if skip.contains(&at) {
                match constants.remove(&(at, other.r_type(LE, false).0)) {
                    Some(name) if self.reads_constant(other, name) => continue,
                    _ => return differs("a runtime constant", at, "the module reads something else".into()),
                }
            }
            let why = match ours.next_if(|rela| rela.r_offset.get(LE) - from.start == at) {
                Some(rela) => self.reference(rela, other, to.section, depth),
                None => self.direct_branch(from, at, other),
            };
            if let Some(why) = why {
                return differs("a reference", at, why);
            }
            let width = match self.arch.relocation(other.r_type(LE, false).0).map(|kind| kind.field) {
                Some(Field::Bytes(width)) => u64::from(width),
                _ => 4,
            };
            skip.extend(at..at + width);
        }
        if let Some(rela) = ours.next() {
            return differs(
                "a reference",
                rela.r_offset.get(LE) - from.start,
                "the module has none there".into(),
            );
        }
        if let Some((at, _)) = constants.keys().next() {
            return differs("a runtime constant", *at, "the module does not read it".into());
        }
        let at =
            (0..size).find(|at| !skip.contains(at) && left.get(*at as usize) != right.get(*at as usize))?;
        differs("the code", at, String::new())
    }

    fn relocations<'r>(
        &self,
        all: &'r [Rela],
        start: u64,
        size: u64,
    ) -> impl Iterator<Item = &'r Rela> + use<'r> {
        let from = all.partition_point(|rela| rela.r_offset.get(LE) < start);
        all[from..]
            .iter()
            .take_while(move |rela| rela.r_offset.get(LE) < start.saturating_add(size))
            .filter(|r| r.r_type(LE, false).0 != 0)
    }

    /// True when a load reads a runtime constant: its variable, or a place of the kernel's code that holds it.
    fn reads_constant(&self, load: &Rela, name: &str) -> bool {
        let bias = self.arch.relocation(load.r_type(LE, false).0).map_or(0, |kind| self.arch.pc_bias(kind));
        let Named::Symbol(places) = self.copy.referent(load, bias) else { return false };
        if places.iter().any(|(symbol, offset)| symbol == name && *offset == 0) {
            return true;
        }
        let symbol = self.copy.elf.rela_symbol(load).map(|symbol| self.copy.text(symbol));
        let Some(holder) = symbol.and_then(|name| inspect::parse_symbol(&name)) else { return false };
        let found = self.target.addresses(VMLINUX, &holder.name).unwrap_or_default();
        let Some(&start) = found.get(holder.sympos.saturating_sub(1) as usize) else { return false };
        let sites = self.target.runtime_sites(name);
        places.iter().any(|(_, offset)| sites.contains(&start.wrapping_add_signed(*offset)))
    }

    /// A branch that the patched build has without a relocation, because its target is in the same section.
    fn direct_branch(&self, from: Body, at: u64, copy: &Rela) -> Option<String> {
        let place = from.start + at;
        let bytes = self.patched.elf.section_bytes(from.section).get(place as usize..place as usize + 4);
        let word = bytes.and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
        let distance = arch::branch_distance(self.arch, word);
        let ours = self.patched.near(from.section, place as i64 + distance);
        let bias = self.arch.relocation(copy.r_type(LE, false).0).map_or(0, |kind| self.arch.pc_bias(kind));
        match (ours, self.copy.referent(copy, bias)) {
            (Named::Symbol(ours), Named::Symbol(theirs)) if same(&ours, &theirs) => None,
            _ => Some("the patched build has none there".into()),
        }
    }

    /// Why two references differ, if they do.
    fn reference(&self, patched: &Rela, copy: &Rela, section: SectionId, depth: u8) -> Option<String> {
        let code = patched.r_type(LE, false).0;
        if copy.r_type(LE, false).0 != code {
            return Some("it is of another type".into());
        }
        let kind = self.arch.relocation(code)?;
        // The instruction's length is the same in both, so that any bias will do for names with an offset.
        let bias = self.arch.pc_bias(kind);
        let theirs = if kind.branch { self.through_veneer(copy) } else { None };
        let theirs = theirs.unwrap_or_else(|| self.copy.referent(copy, bias));
        match (self.patched.referent(patched, bias), theirs) {
            (Named::Symbol(ours), Named::Symbol(theirs)) => {
                if !same(&ours, &theirs) && !self.is_there(&ours, copy, bias) {
                    return Some(format!("{} became {}", list(&ours), list(&theirs)));
                }
                if let Some(why) = self.another(&ours, &theirs, copy) {
                    return Some(why);
                }
                if let Some(why) = self.old_constant(&ours, copy, bias, depth) {
                    return Some(why);
                }
                let code = self.copy.elf.section_bytes(section);
                let branch = arch::is_branch(self.arch, kind, code, copy.r_offset.get(LE) as usize);
                self.dangling(copy, branch, &theirs)
            }
            (Named::Number(left), Named::Number(right)) => {
                (left != right).then(|| format!("{left:#x} became {right:#x}"))
            }
            (Named::Bytes(from, left), Named::Bytes(to, right)) => {
                self.contents((from, left), (to, right), depth)
            }
            // A constant without a symbol in one file only: its contents tell.
            (Named::Symbol(names), Named::Bytes(..)) | (Named::Bytes(..), Named::Symbol(names))
                if names
                    .iter()
                    .any(|(name, _)| klpx_normalize::name::anonymous(name.as_bytes()).is_some()) =>
            {
                None
            }
            _ => Some("one names a symbol, the other does not".into()),
        }
    }

    /// Why a reference leads to another thing of the right name, if it does. The number behind a name says which one, and
    /// the file from which the kernel has it.
    fn another(&self, ours: &[(String, i64)], theirs: &[(String, i64)], copy: &Rela) -> Option<String> {
        let symbol = self.copy.elf.rela_symbol(copy).map(|symbol| self.copy.text(symbol));
        let kernel = symbol.as_deref().and_then(inspect::parse_symbol);
        let of_kernel = kernel.as_ref().map(|symbol| plain(&symbol.name));
        let right = |(name, offset): &(String, i64)| match (self.origins.numbered.get(plain(name)), of_kernel)
        {
            (None, _) => true,
            (Some(origin), Some(symbol)) => origin.as_deref() == Some(symbol),
            (Some(_), None) => theirs.iter().any(|(copy, at)| at == offset && plain(copy) == plain(name)),
        };
        if !ours.iter().any(right) {
            return Some(format!("{} became another one of that name, {}", list(ours), list(theirs)));
        }
        let (kernel, file) = (kernel?, self.origins.file.as_deref()?);
        let local = ours.iter().any(|(name, _)| self.is_local(name));
        let found = self.target.addresses(&kernel.object, &kernel.name).unwrap_or_default();
        let address = found.get(kernel.sympos.saturating_sub(1) as usize).filter(|_| local)?;
        let other =
            self.target.file_of(&kernel.object, &kernel.name, *address).filter(|other| other != file)?;
        Some(format!("{} became that of {other}, not of {file}", list(ours)))
    }

    /// Why a reference to a constant that the patch changes does not lead to what the patched build has there, if it
    /// does not: the kernel has another one under the same name.
    fn old_constant(&self, ours: &[(String, i64)], copy: &Rela, bias: i64, depth: u8) -> Option<String> {
        let (name, offset, body) =
            ours.iter().find_map(|(name, offset)| Some((name, offset, *self.constants.get(name)?)))?;
        let symbol = self.copy.elf.rela_symbol(copy)?;
        let Definition::Section(section) = self.copy.elf.definition(symbol) else {
            return Some(format!("{name} became the kernel's own, which the patch does not change"));
        };
        let place = copy.r_addend.get(LE).wrapping_add(bias).wrapping_sub(*offset);
        let start = self.copy.elf.symbol_value(symbol).wrapping_add_signed(place);
        let found = match depth < DEPTH {
            true => self.compare(body, Body { section, start, ..body }, depth + 1)?.what,
            false => "it is too far away".to_owned(),
        };
        Some(format!("the module's {name} is another one: {found}"))
    }

    /// True for a local symbol of the patched build.
    fn is_local(&self, name: &str) -> bool {
        let is_it = |&&(_, _, id): &&(SectionId, u64, SymbolId)| {
            self.patched.elf.symbol_name(id) == name.as_bytes()
                && self.patched.elf.symbol_binding(id) == elf::STB_LOCAL.0
        };
        self.patched.sorted.iter().any(|symbol| is_it(&symbol))
    }

    /// True when the kernel has one of the names at the place to which a livepatch symbol leads by another name: a set
    /// of BTF numbers is a label and, behind it, numbers with labels of their own.
    fn is_there(&self, ours: &[(String, i64)], copy: &Rela, bias: i64) -> bool {
        let symbol = self.copy.elf.rela_symbol(copy).map(|symbol| self.copy.text(symbol));
        let Some(symbol) = symbol.and_then(|name| inspect::parse_symbol(&name)) else { return false };
        let found = self.target.addresses(&symbol.object, &symbol.name).unwrap_or_default();
        let Some(&start) = found.get(symbol.sympos.saturating_sub(1) as usize) else { return false };
        let place = start.wrapping_add_signed(copy.r_addend.get(LE).wrapping_add(bias));
        ours.iter().any(|(name, offset)| {
            let names = self.target.names_at(&symbol.object, place.wrapping_add_signed(-offset));
            names.iter().any(|there| unnumbered(there) == unnumbered(name))
        })
    }

    /// What a branch to a veneer leads to.
    fn through_veneer(&self, branch: &Rela) -> Option<Named> {
        let veneer = arch::veneer(self.arch)?;
        let symbol = self.copy.elf.rela_symbol(branch)?;
        if !self.copy.text(symbol).starts_with(arch::VENEER) || branch.r_addend.get(LE) != 0 {
            return None;
        }
        let section = self.copy.elf.symbol_section(symbol)?;
        let start = self.copy.elf.symbol_value(symbol);
        let code: Vec<u8> = veneer.code.iter().flat_map(|word| word.to_le_bytes()).collect();
        let (_, list) = self.copied_relocations.get(section.index())?;
        let found: Vec<&Rela> = self.relocations(list, start, code.len() as u64).collect();
        let at = found.iter().map(|rela| (rela.r_offset.get(LE) - start, rela.r_type(LE, false).0));
        let one = found.windows(2).all(|pair| {
            self.copy.elf.rela_symbol(pair[0]) == self.copy.elf.rela_symbol(pair[1])
                && pair[0].r_addend.get(LE) == pair[1].r_addend.get(LE)
        });
        let bytes = self.copy.elf.section_bytes(section).get(start as usize..)?.get(..code.len())?;
        let right = one && bytes == code && at.eq(veneer.relocations.iter().copied());
        right.then(|| self.copy.referent(found[0], 0))
    }

    /// An address of a replaced function that is kept must be the original's: the copy is freed with the module.
    fn dangling(&self, copy: &Rela, branch: bool, names: &[(String, i64)]) -> Option<String> {
        let symbol = self.copy.elf.rela_symbol(copy)?;
        let section = self.copy.elf.symbol_section(symbol)?;
        let code = self.copy.elf.section_flags(section) & elf::SHF_EXECINSTR.0 != 0;
        let kept = names.iter().find(|(name, offset)| *offset == 0 && self.replaced.contains(name));
        let (name, _) = kept.filter(|_| code && !branch)?;
        Some(format!("it keeps the address of the copy of {name}, which is freed with the module"))
    }

    /// Why two unnamed places hold something else: strings by their text, merged constants by their bytes, and the
    /// rest, such as jump tables, up to the next name.
    fn contents(
        &self,
        (from, left): (SectionId, u64),
        (to, right): (SectionId, u64),
        depth: u8,
    ) -> Option<String> {
        let kind = |elf: &Elf<'_>, section| String::from_utf8_lossy(elf.section_name(section)).into_owned();
        let (a, b) = (kind(self.patched.elf, from), kind(self.copy.elf, to));
        if a == b && a.starts_with("__") {
            return None; // an entry of the same special section; its own check compares those
        }
        let strings = self.patched.elf.section_flags(from) & elf::SHF_STRINGS.0 != 0;
        // Where an immediate may follow a displacement, the place is not known to the byte.
        let exact = self.arch.trailing_bytes().len() == 1;
        if exact && self.patched.elf.section(from).sh_entsize.get(LE) == 0 {
            let body = |section, start, size| Body { section, start, size, lead: 0 };
            let size = self.patched.next_name(from, left).saturating_sub(left);
            let found = (depth < DEPTH)
                .then(|| self.compare(body(from, left, size), body(to, right, size), depth + 1));
            return found.flatten().map(|found| found.what);
        }
        let length = if strings {
            usize::MAX
        } else {
            self.patched.elf.section(from).sh_entsize.get(LE).min(64) as usize
        };
        let take = |elf: &Elf<'_>, section, at: u64| -> Vec<u8> {
            let rest = elf.section_bytes(section).get(at as usize..).unwrap_or(&[]);
            let end = if strings {
                rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len())
            } else {
                rest.len()
            };
            rest[..end.min(length)].to_vec()
        };
        let (ours, theirs) = (take(self.patched.elf, from, left), take(self.copy.elf, to, right));
        let ours = self.object.without_source_folder(from, &ours);
        (ours != theirs).then(|| {
            format!("{:?} became {:?}", String::from_utf8_lossy(ours), String::from_utf8_lossy(&theirs))
        })
    }
}
