//! Compares the two builds a second time, in a plain and pessimistic way: bytes and references, by names. Whatever is
//! not found equal differs.
//!
//! Only these equivalences are granted, each of which changes nothing that runs:
//!
//! 1. Bytes under a relocation, or under the distance of a branch that the assembler resolved. The targets are
//!    compared.
//! 2. `PC32` and `PLT32` of x86_64; relocations that do nothing.
//! 3. Two names of one thing ([`crate::pair`]).
//! 4. Constants without identity that have the same contents.
//! 5. `.text.unlikely` and `.text.hot` for `.text`.
//! 6. The line in an allocation tag (include/linux/codetag.h); line and column of a sanitizer's check (lib/ubsan.h);
//!    the place of a type without a name in the sanitizer's description.
//! 7. Special sections that do not affect what the function does ([`TableKind::compared`]).

use std::collections::{BTreeMap, BTreeSet};

use klpx_normalize::elf::SectionId;
use klpx_normalize::lifetime::Lifetime;
use klpx_normalize::special::TableKind;
use object::elf;
use rayon::prelude::*;

use crate::VMLINUX;
use crate::entries::{self, EntryRow};
use crate::file::{Body, IndexedFile, Reference, ReferenceTarget};
use crate::pair::{BuildPair, plain};
use crate::sanitizer;

/// The depth at which constants that refer to constants count as different.
const MAX_DEPTH: u8 = 16;

/// The differing things, by unit.
pub(crate) struct DifferingThings {
    /// Functions of the patched build that differ from their originals, each with the reason.
    pub(crate) functions: Vec<BTreeMap<Body, String>>,
    /// Named variables and constants of the patched build that differ, each with the reason.
    pub(crate) data: Vec<BTreeMap<Body, String>>,
    /// The number of compared things.
    pub(crate) compared: usize,
}

impl DifferingThings {
    pub(crate) fn count(&self) -> usize {
        self.functions.iter().chain(&self.data).map(BTreeMap::len).sum()
    }
}

/// Compares all things that both builds of each unit have.
pub(crate) fn compare(pairs: &[BuildPair<'_, '_>]) -> DifferingThings {
    let moved = moved_names(pairs);
    let mut differing = DifferingThings { functions: Vec::new(), data: Vec::new(), compared: 0 };
    for pair in pairs {
        let differ = Differ { pair, moved: &moved };
        let mut bodies: Vec<Body> = pair.patched.defined().map(|id| pair.patched.body(id)).collect();
        bodies.sort_unstable();
        bodies.dedup();
        bodies.retain(|&body| differ.counts(body));
        let found: Vec<(Body, Option<String>)> = bodies
            .par_iter()
            .filter_map(|&body| Some((body, differ.why(pair.original_of(body)?, body))))
            .collect();
        differing.compared += found.len();
        let all = found.into_iter().filter_map(|(body, why)| Some((body, why?)));
        let (functions, data) = all.partition(|(body, _)| pair.patched.is_code(body.section));
        differing.functions.push(functions);
        differing.data.push(data);
    }
    differing
}

/// Returns the names that one unit defined in the original and a different unit defines now: users of such a name use
/// something else.
fn moved_names(pairs: &[BuildPair<'_, '_>]) -> BTreeSet<Vec<u8>> {
    let mut found = BTreeSet::new();
    for (n, pair) in pairs.iter().enumerate() {
        for id in pair.patched.defined() {
            let name = pair.patched.elf.symbol_name(id);
            let global = pair.patched.elf.symbol_binding(id) != elf::STB_LOCAL.0;
            let others =
                || pairs.iter().enumerate().filter(|&(m, other)| m != n && other.object == pair.object);
            if global && !pair.had_global(name) && others().any(|(_, other)| other.had_global(name)) {
                found.insert(name.to_vec());
            }
        }
    }
    found
}

/// The comparison of one unit.
struct Differ<'p, 'e, 'd> {
    pair: &'p BuildPair<'e, 'd>,
    moved: &'p BTreeSet<Vec<u8>>,
}

impl<'d> Differ<'_, '_, 'd> {
    /// Returns true for a thing that a running kernel has and that has an identity.
    fn counts(&self, body: Body) -> bool {
        let patched = &self.pair.patched;
        let name = patched.section_name(body.section);
        let loaded = patched.elf.section_flags(body.section) & elf::SHF_ALLOC.0 != 0;
        let gone = Lifetime::of(name).is_gone(self.pair.object == VMLINUX);
        let data = [&b".data"[..], b".bss", b".rodata"].iter().any(|start| name.starts_with(start));
        loaded
            && !gone
            && (data || patched.is_code(body.section))
            && TableKind::of(patched.arch, name).is_none()
            && !patched.is_anonymous(body)
    }

    /// Returns why two things differ; `None` if they are equal.
    fn why(&self, original_body: Body, patched_body: Body) -> Option<String> {
        let (original, patched) = (&self.pair.original, &self.pair.patched);
        if original.is_code(original_body.section) != patched.is_code(patched_body.section) {
            return Some("one is code, the other is not".to_owned());
        }
        if purpose(original, original_body) != purpose(patched, patched_body) {
            return Some("it lies in another section".to_owned());
        }
        if original_body.lead != patched_body.lead {
            return Some("what stands before its entry has another size".to_owned());
        }
        if let Some(why) = self.contents(original_body, patched_body, 0) {
            return Some(why);
        }
        if !patched.is_code(patched_body.section) {
            return None;
        }
        if self.pair.unwind.0.of(original_body) != self.pair.unwind.1.of(patched_body) {
            return Some("its unwind data differs".to_owned());
        }
        self.special_sections(original_body, patched_body)
    }

    /// Compares the bytes and references of two runs.
    fn contents(&self, original_body: Body, patched_body: Body, depth: u8) -> Option<String> {
        let (original, patched) = (&self.pair.original, &self.pair.patched);
        if sanitizer::describe_one_type((original, original_body), (patched, patched_body)) {
            return None;
        }
        if original_body.size() != patched_body.size() {
            return Some(format!("it has {} bytes, not {}", patched_body.size(), original_body.size()));
        }
        let (a, b) = (original.references(original_body), patched.references(patched_body));
        let place = |at: u64| at.wrapping_sub(patched_body.lead) as i64;
        let mut covered = lines(patched, patched_body);
        for (n, y) in b.iter().enumerate() {
            let same = a.get(n).is_some_and(|x| {
                x.at == y.at
                    && x.direct == y.direct
                    && patched.arch.loads_alike(x.kind, y.kind)
                    && self.same_target(x, y, depth)
            });
            if !same {
                return Some(format!("the reference at {:+#x} differs", place(y.at)));
            }
            covered.extend(y.at..y.at + y.width);
        }
        if let Some(x) = a.get(b.len()) {
            return Some(format!("the reference at {:+#x} is gone", place(x.at)));
        }
        let (left, right) = (original.bytes(original_body), patched.bytes(patched_body));
        if left.len() != right.len() {
            return Some("one has its bytes in the file, the other has not".to_owned());
        }
        let other = (0..left.len()).find(|&n| left[n] != right[n] && !covered.contains(&(n as u64)))?;
        Some(format!("the byte at {:+#x} differs", place(other as u64)))
    }

    /// Returns true if two references lead to the same thing.
    fn same_target(&self, original_reference: &Reference, patched_reference: &Reference, depth: u8) -> bool {
        let (original, patched) = (&self.pair.original, &self.pair.patched);
        match (original_reference.target, patched_reference.target) {
            (ReferenceTarget::Number(x), ReferenceTarget::Number(y)) => x == y,
            (
                ReferenceTarget::Outside { symbol: x, delta: i },
                ReferenceTarget::Outside { symbol: y, delta: j },
            ) => {
                let (x, y) = (original.elf.symbol_name(x), patched.elf.symbol_name(y));
                i == j && plain(x) == plain(y) && !self.moved.contains(y)
            }
            (ReferenceTarget::Thing { body: x, delta: i }, ReferenceTarget::Thing { body: y, delta: j })
                if !patched.is_anonymous(y) =>
            {
                i == j && self.pair.original_of(y) == Some(x)
            }
            (x, y) => {
                let (Some((x, i)), Some((y, j))) = (constant(original, x), constant(patched, y)) else {
                    return false;
                };
                i == j
                    && depth < MAX_DEPTH
                    && merged(original, x.section) == merged(patched, y.section)
                    && self.contents(x, y, depth + 1).is_none()
            }
        }
    }

    /// Compares the rows of special sections that describe two functions.
    fn special_sections(&self, original_body: Body, patched_body: Body) -> Option<String> {
        let (original, patched) = (&self.pair.original, &self.pair.patched);
        let compared = |row: &&EntryRow| row.kind.compared && row.kind.companion.is_none();
        let a: Vec<&EntryRow> = entries::within(&self.pair.rows.0, original_body).filter(compared).collect();
        let b: Vec<&EntryRow> = entries::within(&self.pair.rows.1, patched_body).filter(compared).collect();
        let names = |file: &IndexedFile<'_, 'd>, rows: &[&EntryRow], body: Body| -> Vec<(&'d [u8], u64)> {
            rows.iter().map(|row| (file.section_name(row.section), row.place.1 - body.start())).collect()
        };
        let (x, y) = (names(original, &a, original_body), names(patched, &b, patched_body));
        if x != y {
            return Some("it has other entries in special sections".to_owned());
        }
        let unlike = a.iter().zip(&b).find(|(x, y)| !self.same_row(x, y))?;
        Some(format!("its entry in {} differs", unlike.1.kind.name))
    }

    fn same_row(&self, original_row: &EntryRow, patched_row: &EntryRow) -> bool {
        let (original, patched) = (&self.pair.original, &self.pair.patched);
        let (x, y) = (original_row.body(), patched_row.body());
        if x.size() != y.size() {
            return false;
        }
        let (a, b) = (original.references(x), patched.references(y));
        let same = |(n, (a, b)): (usize, (&Reference, &Reference))| {
            // The first reference leads to the described place, which was compared before.
            let replaced = || (original_row.replacement(original, a), patched_row.replacement(patched, b));
            let alike = || match replaced() {
                (Some(x), Some(y)) => {
                    self.contents(x, y, 1).is_none() && self.special_sections(x, y).is_none()
                }
                _ => self.same_target(a, b, 0),
            };
            a.at == b.at && a.kind == b.kind && (n == 0 || alike())
        };
        let mut covered = BTreeSet::new();
        b.iter().for_each(|reference| covered.extend(reference.at..reference.at + reference.width));
        let (left, right) = (original.bytes(x), patched.bytes(y));
        a.len() == b.len()
            && a.iter().zip(&b).enumerate().all(same)
            && left.len() == right.len()
            && (0..left.len()).all(|n| left[n] == right[n] || covered.contains(&(n as u64)))
    }
}

/// Returns a constant without identity and the distance from its start to the referenced place.
fn constant(file: &IndexedFile<'_, '_>, target: ReferenceTarget) -> Option<(Body, i64)> {
    match target {
        ReferenceTarget::Thing { body, delta } => file.is_anonymous(body).then_some((body, delta)),
        ReferenceTarget::Bytes { section, at } => Some((unnamed(file, section, at), 0)),
        _ => None,
    }
}

/// Returns the unnamed run of bytes that begins at a place: a string, a merged constant, or a row of a special section
/// (code hands its entry of `__bug_table` to the handler, arch/x86/include/asm/bug.h). Any other run ends at the next
/// place that has a name or to which something refers.
pub(crate) fn unnamed(file: &IndexedFile<'_, '_>, section: SectionId, at: u64) -> Body {
    let rest = file.elf.section_bytes(section).get(at as usize..).unwrap_or(&[]);
    let row = TableKind::of(file.arch, file.section_name(section));
    let end = match (row.and_then(|kind| kind.entry_size(file.elf, section)), merged(file, section)) {
        (Some(size), _) => at.saturating_add(size.into()),
        (None, (true, _)) => {
            at + rest.iter().position(|&byte| byte == 0).map_or(rest.len(), |n| n + 1) as u64
        }
        (None, (_, size)) if size > 0 => at + size,
        _ => file.end_of_bytes(section, at),
    };
    Body { section, entry: at, end: end.min(file.elf.section_size(section)).max(at), lead: 0 }
}

/// Returns whether a section holds strings, and the size of its constants that a linker may merge.
fn merged(file: &IndexedFile<'_, '_>, section: SectionId) -> (bool, u64) {
    use ::object::endian::LittleEndian as LE;
    let flags = file.elf.section_flags(section);
    let size = file.elf.section(section).sh_entsize.get(LE);
    match flags & elf::SHF_MERGE.0 != 0 {
        true if flags & elf::SHF_STRINGS.0 != 0 => (true, 0),
        true => (false, size),
        false => (false, 0),
    }
}

/// Returns the bytes that only tell a line of the source.
fn lines(file: &IndexedFile<'_, '_>, body: Body) -> BTreeSet<u64> {
    let name = file.section_name(body.section);
    if name == b"alloc_tags" || name == b".codetag.alloc_tags" {
        return (4..8).collect();
    }
    match sanitizer::holds_locations(file, body.section) {
        true => (8..16).collect(),
        false => BTreeSet::new(),
    }
}

/// Returns the purpose of a thing's section.
fn purpose<'d>(file: &IndexedFile<'_, 'd>, body: Body) -> (&'d [u8], u64) {
    let flags =
        file.elf.section_flags(body.section) & (elf::SHF_WRITE.0 | elf::SHF_ALLOC.0 | elf::SHF_EXECINSTR.0);
    let name = file.section_name(body.section);
    let kept_apart = name.windows(2).any(|part| part == b"..");
    for plain in [&b".text"[..], b".rodata", b".data.rel.ro", b".data", b".bss"] {
        let rest = name.strip_prefix(plain);
        if !kept_apart && rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'.') {
            return (plain, flags);
        }
    }
    // `.data..read_mostly.x` is the section of `x`, with -fdata-sections.
    let names = file.symbols(body).map(|id| file.elf.symbol_name(id));
    let own = names.filter_map(|own| name.strip_suffix(own)?.strip_suffix(b".")).next();
    (own.unwrap_or(name), flags)
}
