//! A relocatable file as verification reads it: its symbols and relocations, and the target of each reference.
//!
//! Owns a separate reading of the file. Does not use the object model of `klpx_normalize::object`, by which functions
//! are compared and copied.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use klpx_normalize::arch::{Arch, FieldKind};
use klpx_normalize::elf::{Definition, Elf, Rela, SectionId, SymbolId};
use klpx_normalize::name::{anonymous, is_mapping_symbol, prefix_mark};
use object::elf;
use object::endian::LittleEndian as LE;

use crate::code;

/// The distance of a trace site before the function's entry, in bytes (arm64, DYNAMIC_FTRACE_WITH_CALL_OPS).
const SITE_BEFORE: u64 = 8;

/// A thing, which has a name, or a run of bytes without a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Body {
    pub(crate) section: SectionId,
    /// The place that the symbol points at.
    pub(crate) entry: u64,
    /// One past the last byte.
    pub(crate) end: u64,
    /// Bytes before the entry that belong to the body.
    pub(crate) lead: u64,
}

impl Body {
    /// Sorts before every other body.
    pub(crate) const FIRST: Body = Body { section: SectionId(0), entry: 0, end: 0, lead: 0 };

    pub(crate) fn start(self) -> u64 {
        self.entry - self.lead
    }

    pub(crate) fn size(self) -> u64 {
        self.end - self.start()
    }
}

/// The target of a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReferenceTarget {
    /// A place in a thing, in bytes from the thing's entry.
    Thing { body: Body, delta: i64 },
    /// A place without a name.
    Bytes { section: SectionId, at: u64 },
    /// A place before the section.
    Before(SectionId),
    /// A symbol that the file does not define, or whose definition may give way, with bytes from it.
    Outside { symbol: SymbolId, delta: i64 },
    /// A plain number.
    Number(i64),
}

/// A reference of a run of bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reference {
    /// Bytes from the start of the run.
    pub(crate) at: u64,
    /// The number of bytes of the file that the value overwrites. The bits of an arm64 immediate are zero in the file.
    pub(crate) width: u64,
    /// The relocation's type. For a direct branch, the type for its field.
    pub(crate) kind: u32,
    /// True for calls and jumps, which do not keep the address.
    pub(crate) branch: bool,
    /// True for a branch without a relocation, which the assembler resolved.
    pub(crate) direct: bool,
    /// The relocation's symbol; `None` for a direct branch.
    pub(crate) symbol: Option<SymbolId>,
    pub(crate) target: ReferenceTarget,
}

/// A named symbol: section, place, the complement of its size, and the symbol.
type Named = (SectionId, u64, Reverse<u64>, SymbolId);

/// One file.
pub(crate) struct IndexedFile<'e, 'd> {
    pub(crate) elf: &'e Elf<'d>,
    pub(crate) arch: Arch,
    named: Vec<Named>,
    relocations: Vec<Vec<Rela>>,
    /// Places to which references lead, sorted: unnamed runs of bytes begin there.
    borders: BTreeSet<(SectionId, u64)>,
    sites: BTreeSet<(SectionId, u64)>,
    /// The start of call padding and type hashes, by the entry at which they end.
    prefixes: BTreeMap<(SectionId, u64), u64>,
    /// True where data begins in code, false where code begins again (arm64 mapping symbols).
    marks: BTreeMap<(SectionId, u64), bool>,
}

impl<'e, 'd> IndexedFile<'e, 'd> {
    pub(crate) fn read(elf: &'e Elf<'d>, arch: Arch) -> IndexedFile<'e, 'd> {
        let is_named = |id: SymbolId| {
            let kind = elf.symbol_type(id);
            let name = elf.symbol_name(id);
            kind != elf::STT_SECTION.0
                && kind != elf::STT_FILE.0
                && !name.is_empty()
                && !name.starts_with(b".L")
                && !is_mapping_symbol(name)
                && prefix_mark(name).is_none()
        };
        let named = |id: SymbolId| {
            let place = (elf.symbol_section(id)?, elf.symbol_value(id));
            is_named(id).then_some((place.0, place.1, Reverse(elf.symbol_size(id)), id))
        };
        let mut named: Vec<Named> = elf.symbol_ids().filter_map(named).collect();
        named.sort_unstable();
        let mut file = IndexedFile {
            elf,
            arch,
            named,
            relocations: relocations(elf),
            borders: BTreeSet::new(),
            sites: BTreeSet::new(),
            prefixes: prefixes(elf),
            marks: marks(elf),
        };
        file.sites = file.trace_sites();
        file.borders = file.read_borders();
        file
    }

    /// Returns the places of trace sites (`__mcount_loc`, `__patchable_function_entries`).
    fn trace_sites(&self) -> BTreeSet<(SectionId, u64)> {
        let (table, _) = self.arch.trace_sites();
        let tables = self.elf.section_ids().filter(|&id| self.elf.section_name(id) == table.as_bytes());
        let all = tables.flat_map(|id| self.relocations(id));
        all.filter_map(|rela| self.place(rela)).collect()
    }

    fn read_borders(&self) -> BTreeSet<(SectionId, u64)> {
        let mut found = BTreeSet::new();
        for section in self.elf.section_ids().filter(|&id| self.elf.section_flags(id) & elf::SHF_ALLOC.0 != 0)
        {
            let whole = Body { section, entry: 0, end: self.elf.section_size(section), lead: 0 };
            let bodies = self.bodies(section);
            let runs = if self.is_code(section) && !bodies.is_empty() { bodies } else { vec![whole] };
            for run in runs {
                for reference in self.references(run) {
                    match reference.target {
                        ReferenceTarget::Bytes { section, at } => drop(found.insert((section, at))),
                        ReferenceTarget::Thing { .. }
                        | ReferenceTarget::Before(_)
                        | ReferenceTarget::Outside { .. }
                        | ReferenceTarget::Number(_) => {}
                    }
                }
            }
        }
        found
    }

    /// Returns every named thing of a section that has a size.
    fn bodies(&self, section: SectionId) -> Vec<Body> {
        let from = self.named.partition_point(|named| named.0 < section);
        let here = self.named[from..].iter().take_while(|named| named.0 == section);
        let mut bodies: Vec<Body> =
            here.filter(|named| named.2.0 > 0).map(|&(.., id)| self.body(id)).collect();
        bodies.dedup();
        bodies
    }

    pub(crate) fn is_code(&self, section: SectionId) -> bool {
        self.elf.section_flags(section) & elf::SHF_EXECINSTR.0 != 0
    }

    pub(crate) fn is_writable(&self, section: SectionId) -> bool {
        self.elf.section_flags(section) & elf::SHF_WRITE.0 != 0
    }

    pub(crate) fn section_name(&self, section: SectionId) -> &'d [u8] {
        self.elf.section_name(section)
    }

    /// Returns the relocations of a section by place, including those of livepatch sections.
    pub(crate) fn relocations(&self, section: SectionId) -> &[Rela] {
        self.relocations.get(section.index()).map_or(&[], Vec::as_slice)
    }

    /// Returns the relocations of a range, except those that do nothing.
    pub(crate) fn relocations_in(
        &self,
        section: SectionId,
        start: u64,
        end: u64,
    ) -> impl Iterator<Item = &Rela> {
        let all = self.relocations(section);
        let from = all.partition_point(|rela| rela.r_offset.get(LE) < start);
        all[from..].iter().take_while(move |rela| rela.r_offset.get(LE) < end).filter(|rela| kind(rela) != 0)
    }

    pub(crate) fn bytes(&self, body: Body) -> &'d [u8] {
        let all = self.elf.section_bytes(body.section);
        let end = usize::try_from(body.end).unwrap_or(usize::MAX).min(all.len());
        usize::try_from(body.start()).ok().and_then(|start| all.get(start..end)).unwrap_or(&[])
    }

    /// Returns the place that a relocation leads to, without regard to the kind of its instruction.
    pub(crate) fn place(&self, rela: &Rela) -> Option<(SectionId, u64)> {
        let symbol = self.elf.rela_symbol(rela)?;
        let section = self.elf.symbol_section(symbol)?;
        Some((section, self.elf.symbol_value(symbol).wrapping_add_signed(rela.r_addend.get(LE))))
    }

    /// Returns the symbols at the entry of a body.
    pub(crate) fn symbols(&self, body: Body) -> impl Iterator<Item = SymbolId> + '_ {
        let place = (body.section, body.entry);
        let from = self.named.partition_point(|named| (named.0, named.1) < place);
        self.named[from..].iter().take_while(move |named| (named.0, named.1) == place).map(|named| named.3)
    }

    /// Returns every named symbol that the file defines, by place.
    pub(crate) fn defined(&self) -> impl Iterator<Item = SymbolId> + '_ {
        self.named.iter().map(|named| named.3)
    }

    /// Returns the thing that a symbol names. A label names the thing that begins at its place. If no thing begins
    /// there, the label's own thing ends at the next name, or has no bytes if the section has none. An array without
    /// elements is a label.
    pub(crate) fn body(&self, symbol: SymbolId) -> Body {
        let section = self.elf.symbol_section(symbol).unwrap_or(SectionId(0));
        let entry = self.elf.symbol_value(symbol);
        let limit = self.elf.section_size(section);
        let end = match self.size_at(section, entry) {
            0 if self.elf.section_type(section) == elf::SHT_NOBITS.0 => entry,
            0 => self.next_name(section, entry),
            size => entry.saturating_add(size),
        };
        Body { section, entry, end: end.min(limit).max(entry), lead: self.lead(section, entry) }
    }

    /// Returns the size of the largest thing that begins at a place; zero if only labels begin there.
    fn size_at(&self, section: SectionId, at: u64) -> u64 {
        let first = self.named.partition_point(|named| (named.0, named.1) < (section, at));
        let first = self.named.get(first).filter(|named| (named.0, named.1) == (section, at));
        first.map_or(0, |named| named.2.0)
    }

    /// Returns the size of the bytes before an entry that belong to it: call padding, a type hash, a trace site.
    fn lead(&self, section: SectionId, entry: u64) -> u64 {
        if !self.is_code(section) {
            return 0;
        }
        let prefix = self.prefixes.get(&(section, entry)).map_or(0, |start| entry - start);
        let from = (section, entry.saturating_sub(SITE_BEFORE));
        let site = self.sites.range(from..(section, entry)).next().map_or(0, |&(_, at)| entry - at);
        prefix.max(site)
    }

    /// Returns the place of the next name of a section, or the section's end.
    pub(crate) fn next_name(&self, section: SectionId, at: u64) -> u64 {
        let next = self.named.partition_point(|named| (named.0, named.1) <= (section, at));
        let next = self.named.get(next).filter(|named| named.0 == section);
        next.map_or(self.elf.section_size(section), |named| named.1)
    }

    /// Returns the thing that covers a place.
    fn covering(&self, section: SectionId, at: u64) -> Option<Body> {
        let after = self.named.partition_point(|named| (named.0, named.1) <= (section, at));
        let before = self.named[..after].iter().rev().take_while(|named| named.0 == section);
        let mut label = None;
        for &(_, start, Reverse(size), id) in before {
            if size > 0 {
                return match at < start.saturating_add(size) {
                    true => Some(self.body(id)),
                    false => label.map(|id| self.body(id)),
                };
            }
            if start == at {
                label = Some(id);
            }
        }
        label.map(|id| self.body(id))
    }

    /// Returns the thing that ends at a place that is also its section's end: a loop over an array stops there.
    fn ending(&self, section: SectionId, at: u64) -> Option<Body> {
        let before = self.named.partition_point(|named| (named.0, named.1) < (section, at));
        let &(owner, start, Reverse(size), id) = self.named[..before].iter().next_back()?;
        let ends = owner == section && size > 0 && start.saturating_add(size) == at;
        (ends && at == self.elf.section_size(section)).then(|| self.body(id))
    }

    /// Returns what lies at a place. A compiler subtracts the lowest index of a table from its address, so the place
    /// may lie before the section.
    fn at(&self, section: SectionId, at: i64) -> ReferenceTarget {
        let place = u64::try_from(at);
        let found = match place {
            Ok(place) => self.covering(section, place).or_else(|| self.ending(section, place)),
            Err(_) => self.covering(section, 0),
        };
        match (found, place) {
            (Some(body), _) => ReferenceTarget::Thing { body, delta: at.wrapping_sub(body.entry as i64) },
            (None, Ok(at)) => ReferenceTarget::Bytes { section, at },
            (None, Err(_)) => ReferenceTarget::Before(section),
        }
    }

    /// Returns the target of a relocation. `ahead` is the distance from the field to the place from which the processor
    /// counts.
    fn target(&self, rela: &Rela, ahead: i64) -> ReferenceTarget {
        let addend = rela.r_addend.get(LE).wrapping_add(ahead);
        let Some(symbol) = self.elf.rela_symbol(rela).filter(|&symbol| symbol != SymbolId::NONE) else {
            return ReferenceTarget::Number(addend);
        };
        let value = self.elf.symbol_value(symbol);
        match self.elf.definition(symbol) {
            Definition::Section(section) => {
                let name = self.elf.symbol_name(symbol);
                let section_symbol = self.elf.symbol_type(symbol) == elf::STT_SECTION.0;
                match self.covering(section, value).filter(|_| !section_symbol && !name.starts_with(b".L")) {
                    Some(body) if self.may_give_way(symbol, body) => {
                        ReferenceTarget::Outside { symbol, delta: addend }
                    }
                    Some(body) => {
                        let delta = (value as i64).wrapping_add(addend).wrapping_sub(body.entry as i64);
                        ReferenceTarget::Thing { body, delta }
                    }
                    None => self.at(section, (value as i64).wrapping_add(addend)),
                }
            }
            Definition::Absolute => ReferenceTarget::Number(addend.wrapping_add(value as i64)),
            _ => ReferenceTarget::Outside { symbol, delta: addend },
        }
    }

    /// Returns true for a weak name of a thing that has another name. The final link may take another file's thing for
    /// the weak name, and the thing stays under the other name.
    pub(crate) fn may_give_way(&self, symbol: SymbolId, body: Body) -> bool {
        let is_weak = |id: SymbolId| self.elf.symbol_binding(id) == elf::STB_WEAK.0;
        let inside = self.elf.symbol_value(symbol) != body.entry;
        is_weak(symbol) && (inside || self.symbols(body).any(|id| id < symbol || !is_weak(id)))
    }

    /// Returns every reference of a run of bytes, by place: those with relocations, and branches out of the run that
    /// the assembler resolved.
    pub(crate) fn references(&self, body: Body) -> Vec<Reference> {
        let (start, bytes) = (body.start(), self.bytes(body));
        let code = self.is_code(body.section);
        let instructions = match code {
            true => code::instructions(self.arch, bytes, body.lead as usize),
            false => Vec::new(),
        };
        let mut found: Vec<Reference> = Vec::new();
        for rela in self.relocations_in(body.section, start, body.end) {
            let at = rela.r_offset.get(LE) - start;
            let kind_of = self.arch.relocation(kind(rela));
            let relative = kind_of.is_some_and(|kind| kind.pc_relative);
            let behind = instructions.partition_point(|i| i.end <= at as usize);
            let holder = instructions.get(behind).filter(|i| i.start <= at as usize);
            let ahead = match code && relative {
                true => code::counted_from(self.arch, at as usize, holder.map(|i| i.end)),
                false => 0,
            };
            let branch = kind_of.is_some_and(|kind| kind.branch) || code && holder.is_some_and(|i| i.branch);
            let target = self.target(rela, ahead);
            let symbol = self.elf.rela_symbol(rela);
            let width = match kind_of.map(|kind| kind.field) {
                Some(FieldKind::Bytes(width)) => width.into(),
                _ => 0,
            };
            found.push(Reference { at, width, kind: kind(rela), branch, direct: false, symbol, target });
        }
        for instruction in &instructions {
            let Some(distance) = &instruction.distance else { continue };
            let relocated = |r: &Reference| (instruction.start..instruction.end).contains(&(r.at as usize));
            let has_relocation = found.iter().any(relocated);
            let to = (start + instruction.end as u64) as i64 + distance.bytes;
            let inside = (start as i64..body.end as i64).contains(&to);
            if has_relocation || inside || self.is_data(body.section, start + instruction.start as u64) {
                continue;
            }
            let target = self.at(body.section, to);
            let (at, width) = (distance.field as u64, distance.width as u64);
            found.push(Reference {
                at,
                width,
                kind: distance.kind,
                branch: true,
                direct: true,
                symbol: None,
                target,
            });
        }
        found.sort_by_key(|reference| reference.at);
        found
    }

    /// Returns true for data in a section of code.
    fn is_data(&self, section: SectionId, at: u64) -> bool {
        self.marks.range((section, 0)..=(section, at)).next_back().is_some_and(|(_, data)| *data)
    }

    /// Returns the end of an unnamed run of bytes: the next place to which something refers, or the next name.
    pub(crate) fn end_of_bytes(&self, section: SectionId, at: u64) -> u64 {
        let next = self.borders.range((section, at + 1)..).next().filter(|border| border.0 == section);
        let name = self.next_name(section, at);
        next.map_or(name, |&(_, border)| border.min(name))
    }

    /// Returns true for a thing without identity: two builds need not agree on its name, and a copy serves as well.
    pub(crate) fn is_anonymous(&self, body: Body) -> bool {
        let section = self.section_name(body.section);
        let writable = self.is_writable(body.section);
        !self.is_code(body.section)
            && self.symbols(body).any(|id| {
                anonymous(self.elf.symbol_name(id)).is_some_and(|why| why.lies_in(section, writable))
            })
    }

    /// Returns true for a function with a trace site, where ftrace can divert it.
    pub(crate) fn is_traced(&self, body: Body) -> bool {
        let (_, places) = self.arch.trace_sites();
        places.iter().any(|&at| self.sites.contains(&(body.section, body.entry.wrapping_add_signed(at))))
    }

    /// Returns the only FILE of a file; `None` for a linked file.
    pub(crate) fn source(&self) -> Option<&'d [u8]> {
        let mut files = self.elf.symbol_ids().filter(|&id| self.elf.symbol_type(id) == elf::STT_FILE.0);
        let first = files.next()?;
        files.next().is_none().then(|| self.elf.symbol_name(first))
    }

    pub(crate) fn text(&self, symbol: SymbolId) -> String {
        String::from_utf8_lossy(self.elf.symbol_name(symbol)).into_owned()
    }
}

pub(crate) fn kind(rela: &Rela) -> u32 {
    rela.r_type(LE, false).0
}

/// Returns the start of prefix functions (`__pfx_`, `__cfi_`), by the section and entry at which they end.
fn prefixes(elf: &Elf<'_>) -> BTreeMap<(SectionId, u64), u64> {
    let mut found: BTreeMap<(SectionId, u64), u64> = BTreeMap::new();
    for id in elf.symbol_ids().filter(|&id| prefix_mark(elf.symbol_name(id)).is_some()) {
        let Some(section) = elf.symbol_section(id) else { continue };
        let (start, size) = (elf.symbol_value(id), elf.symbol_size(id));
        let first = found.entry((section, start.saturating_add(size))).or_insert(start);
        *first = start.min(*first);
    }
    found
}

/// Returns the places of `$d` and `$x`, with true where data begins.
fn marks(elf: &Elf<'_>) -> BTreeMap<(SectionId, u64), bool> {
    let marks = elf.symbol_ids().filter(|&id| is_mapping_symbol(elf.symbol_name(id)));
    let mark = |id: SymbolId| {
        let data = elf.symbol_name(id).get(1) == Some(&b'd');
        Some(((elf.symbol_section(id)?, elf.symbol_value(id)), data))
    };
    marks.filter_map(mark).collect()
}

/// Returns the relocations by the section that they are for, sorted by place.
fn relocations(elf: &Elf<'_>) -> Vec<Vec<Rela>> {
    let mut all: Vec<Vec<Rela>> = elf.section_ids().map(|_| Vec::new()).collect();
    for id in elf.section_ids().filter(|&id| elf.section_type(id) == elf::SHT_RELA.0) {
        if let Some(list) = all.get_mut(elf.section(id).sh_info.get(LE) as usize) {
            list.extend_from_slice(elf.rela_table(id));
        }
    }
    all.iter_mut().for_each(|list| list.sort_by_key(|rela| rela.r_offset.get(LE)));
    all
}
