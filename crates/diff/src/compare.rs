//! Compares two correlated items: bytes outside relocated fields, references by their meaning, and the special-section
//! entries that describe the items.
//!
//! [`EQUIVALENCES`](crate::EQUIVALENCES) lists every difference that is not a change, with its reason. Every other difference is a change.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use klpx_normalize::arch::FieldKind;
use klpx_normalize::elf::{Rela, SectionId};
use klpx_normalize::object::{
    DirectBranch, ItemId, LINE_AND_COLUMN, Object, Outlier, SectionRange, TableId, Target, type_description,
    without_places,
};
use object::endian::LittleEndian as LE;

use crate::correlate::{Correlation, is_anonymous};
use crate::purpose::{is_allocation_tag, purpose};
use crate::reason::{Reason, describe};

/// The bytes of the line in `struct codetag`.
const LINE: Range<u64> = 4..8;

/// The size of a direct branch's distance in bytes. On arm64 it is the whole instruction, whose kind is compared
/// separately.
const BRANCH_BYTES: u64 = 4;

/// The depth at which the comparison of literals that refer to literals stops and calls them different.
const MAX_DEPTH: u8 = 16;

/// The two objects, their correlation, and the moved names.
pub(crate) struct Comparer<'a, 'd> {
    pub(crate) original: &'a Object<'d>,
    pub(crate) patched: &'a Object<'d>,
    pub(crate) correlation: &'a Correlation,
    /// Undefined names that stand for something else in the patched build.
    pub(crate) moved: &'a BTreeSet<Vec<u8>>,
}

/// A range of one section, with offsets counted from `base`.
#[derive(Clone, Copy)]
struct Span {
    section: SectionId,
    start: u64,
    end: u64,
    base: u64,
}

/// An entry of a special section.
#[derive(Clone, Copy)]
struct TableRow {
    /// The described place, in bytes from the described code's entry.
    place: i64,
    table: TableId,
    index: u32,
}

/// The direct branches out of a range.
struct Direct<'b> {
    span: Span,
    branches: &'b [DirectBranch],
}

impl<'d> Comparer<'_, 'd> {
    /// Returns why a pair of items differs, with the first difference of each kind; empty if the items are the same.
    pub(crate) fn items(&self, original: ItemId, patched: ItemId) -> Vec<Reason> {
        let mut reasons = Vec::new();
        self.sections(original, patched, &mut reasons);
        let original_span = span(self.original, original);
        let patched_span = span(self.patched, patched);
        let (their_size, our_size) =
            (original_span.end - original_span.base, patched_span.end - patched_span.base);
        if their_size != our_size
            || original_span.base - original_span.start != patched_span.base - patched_span.start
        {
            reasons.push(Reason::Size { from: their_size, to: our_size });
        }
        let branches = |object: &Object<'d>, item: ItemId, span: Span| match object.item(item).code {
            true => object.direct_branches(span.section, (span.base, span.end)),
            false => Vec::new(),
        };
        let (a, b) =
            (branches(self.original, original, original_span), branches(self.patched, patched, patched_span));
        let differs =
            match is_allocation_tag(self.original, original) && is_allocation_tag(self.patched, patched) {
                true => self.bytes_but(LINE, original_span, patched_span),
                false => self.bytes_around(&b, original_span, patched_span),
            };
        reasons.extend(differs.map(|offset| Reason::Bytes { offset }));
        reasons.extend(self.references(original_span, patched_span, 0));
        let direct =
            (Direct { span: original_span, branches: &a }, Direct { span: patched_span, branches: &b });
        reasons.extend(self.direct_branches(&direct.0, &direct.1));
        if !self.original.type_ids(original).eq(self.patched.type_ids(patched)) {
            reasons.push(Reason::TypeIds);
        }
        if self.patched.item(patched).code {
            reasons.extend(self.outlying_literals(original, patched));
            reasons.extend(self.entries(original, patched));
        }
        reasons
    }

    /// Compares branches to other items of the section that the assembler resolved. The bytes of a branch hold only a
    /// distance.
    fn direct_branches(&self, original_direct: &Direct<'_>, patched_direct: &Direct<'_>) -> Option<Reason> {
        let place =
            |direct: &Direct<'_>, branch: &DirectBranch| branch.at.wrapping_sub(direct.span.base) as i64;
        let mut pairs = original_direct.branches.iter().zip(patched_direct.branches);
        let same = |x: &DirectBranch, y: &DirectBranch| {
            let kind = |branch: &DirectBranch| branch.field.map(|(_, field)| field.kind);
            let offset = |object: &Object<'_>, branch: &DirectBranch, to: ItemId| {
                branch.target.wrapping_sub(object.item(to).entry)
            };
            place(original_direct, x) == place(patched_direct, y)
                && kind(x) == kind(y)
                && match (x.to, y.to) {
                    (Some(a), Some(b)) => {
                        self.correlation.original_of[b.index()].is_some_and(|(original, _)| original == a)
                            && offset(self.original, x, a) == offset(self.patched, y, b)
                    }
                    (None, None) => x.target.wrapping_sub(x.at) == y.target.wrapping_sub(y.at),
                    _ => false,
                }
        };
        let (from, to) = match pairs.find(|(x, y)| !same(x, y)) {
            Some((x, y)) => (Some(x), Some(y)),
            None => {
                let shared = original_direct.branches.len().min(patched_direct.branches.len());
                (original_direct.branches.get(shared), patched_direct.branches.get(shared))
            }
        };
        let offset = to.map(|y| place(patched_direct, y)).or(from.map(|x| place(original_direct, x)))?;
        let text = |object: &Object<'_>, branch: Option<&DirectBranch>| {
            let to = branch.and_then(|branch| branch.to);
            to.map_or(String::new(), |item| String::from_utf8_lossy(object.item_name(item)).into_owned())
        };
        Some(Reason::Reference { offset, from: text(self.original, from), to: text(self.patched, to) })
    }

    /// Compares the purposes of two items' sections: `.init.text`, `.noinstr.text`, read-only or not.
    fn sections(&self, original: ItemId, patched: ItemId, reasons: &mut Vec<Reason>) {
        let original_purpose = purpose(self.original, original);
        let patched_purpose = purpose(self.patched, patched);
        if original_purpose != patched_purpose {
            let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
            reasons.push(Reason::Section { from: text(original_purpose.0), to: text(patched_purpose.0) });
        }
    }

    /// Does the same as [`Comparer::bytes`], but leaves out a range of bytes, counted from the entry.
    fn bytes_but(&self, range: Range<u64>, original_span: Span, patched_span: Span) -> Option<i64> {
        let before = |span: Span| Span { end: span.end.min(span.base + range.start), ..span };
        let behind = |span: Span| Span { start: span.end.min(span.base + range.end), ..span };
        self.bytes(before(original_span), before(patched_span))
            .or_else(|| self.bytes(behind(original_span), behind(patched_span)))
    }

    /// Returns the first differing byte outside relocated fields, counted from the entry.
    fn bytes(&self, original_span: Span, patched_span: Span) -> Option<i64> {
        self.bytes_around(&[], original_span, patched_span)
    }

    /// Returns the first differing byte that lies outside relocated fields and outside the fields of direct branches.
    fn bytes_around(
        &self,
        branches: &[DirectBranch],
        original_span: Span,
        patched_span: Span,
    ) -> Option<i64> {
        let a = self.original.range(original_span.section, original_span.start, original_span.end);
        let b = self.patched.range(patched_span.section, patched_span.start, patched_span.end);
        if a == b {
            return None;
        }
        let mut fields = self
            .patched
            .relocations_in(patched_span.section, patched_span.start, patched_span.end)
            .iter()
            .peekable();
        let mut branches = branches.iter().filter_map(|branch| branch.field).map(|(at, _)| at).peekable();
        let mut masked = patched_span.start; // one past the last byte of the fields seen so far
        for n in 0..a.len().min(b.len()) {
            let place = patched_span.start + n as u64;
            while let Some(rela) = fields.next_if(|rela| rela.r_offset.get(LE) <= place) {
                masked = masked.max(rela.r_offset.get(LE) + field_bytes(self.patched, rela));
            }
            while let Some(at) = branches.next_if(|at| *at <= place) {
                masked = masked.max(at + BRANCH_BYTES);
            }
            if place >= masked && a[n] != b[n] {
                return Some(place.wrapping_sub(patched_span.base) as i64);
            }
        }
        (a.len() != b.len()).then(|| {
            (patched_span.start + a.len().min(b.len()) as u64).wrapping_sub(patched_span.base) as i64
        })
    }

    /// Returns the first reference that differs.
    fn references(&self, original_span: Span, patched_span: Span, depth: u8) -> Option<Reason> {
        let mut a = significant(self.original, original_span);
        let mut b = significant(self.patched, patched_span);
        loop {
            let (x, y) = match (a.next(), b.next()) {
                (None, None) => return None,
                (x, y) => (x, y),
            };
            let offset = match (x, y) {
                (_, Some(y)) => y.r_offset.get(LE).wrapping_sub(patched_span.base) as i64,
                (Some(x), None) => x.r_offset.get(LE).wrapping_sub(original_span.base) as i64,
                (None, None) => return None,
            };
            let same_place = match (x, y) {
                (Some(x), Some(y)) => {
                    x.r_offset.get(LE).wrapping_sub(original_span.base)
                        == y.r_offset.get(LE).wrapping_sub(patched_span.base)
                        && self.original.arch.loads_alike(x.r_type(LE, false).0, y.r_type(LE, false).0)
                }
                _ => false,
            };
            let from = x.map(|x| self.original.resolve(original_span.section, x));
            let to = y.map(|y| self.patched.resolve(patched_span.section, y));
            let difference = match (from, to) {
                (Some(from), Some(to)) if same_place => self.targets(from, to, depth),
                _ => Some(Unlike::Target),
            };
            let Some(unlike) = difference else { continue };
            return Some(match unlike {
                Unlike::Content => Reason::Literal { offset },
                Unlike::Target => Reason::Reference {
                    offset,
                    from: from.map_or(String::new(), |t| describe(self.original, t)),
                    to: to.map_or(String::new(), |t| describe(self.patched, t)),
                },
            });
        }
    }

    /// Returns how two references differ; `None` if they mean the same.
    fn targets(&self, from: Target, to: Target, depth: u8) -> Option<Unlike> {
        match (from, to) {
            (Target::Item { item: x, offset: i }, Target::Item { item: y, offset: j }) => {
                match self.correlation.original_of[y.index()] {
                    Some((original, _)) => (original != x || i != j).then_some(Unlike::Target),
                    None if is_anonymous(self.original, x) && is_anonymous(self.patched, y) => {
                        let (a, b) = (span(self.original, x), span(self.patched, y));
                        (i != j || !self.same_content(a, b, depth)).then_some(Unlike::Content)
                    }
                    None => Some(Unlike::Target),
                }
            }
            (
                Target::Literal { section: s, start: a, end: b, offset: i },
                Target::Literal { section: t, start: c, end: d, offset: j },
            ) => {
                let original_span = Span { section: s, start: a, end: b, base: a };
                let patched_span = Span { section: t, start: c, end: d, base: c };
                (i != j || !self.same_content(original_span, patched_span, depth)).then_some(Unlike::Content)
            }
            // One build gave the constant a name, the other did not.
            (Target::Literal { section, start, end, offset: i }, Target::Item { item, offset: j })
                if is_anonymous(self.patched, item) =>
            {
                let original_span = Span { section, start, end, base: start };
                (i != j || !self.same_content(original_span, span(self.patched, item), depth))
                    .then_some(Unlike::Content)
            }
            (Target::Item { item, offset: i }, Target::Literal { section, start, end, offset: j })
                if is_anonymous(self.original, item) =>
            {
                let patched_span = Span { section, start, end, base: start };
                (i != j || !self.same_content(span(self.original, item), patched_span, depth))
                    .then_some(Unlike::Content)
            }
            (
                Target::Entry { table: s, entry: x, offset: i },
                Target::Entry { table: t, entry: y, offset: j },
            ) => {
                let (x, y) =
                    (TableRow { place: i, table: s, index: x }, TableRow { place: j, table: t, index: y });
                let same = i == j
                    && std::ptr::eq(
                        self.original.tables[s.index()].kind,
                        self.patched.tables[t.index()].kind,
                    )
                    && self.same_entry_content(x, y, depth);
                (!same).then_some(Unlike::Content)
            }
            (Target::External { symbol: x, offset: i }, Target::External { symbol: y, offset: j }) => {
                let name = self.patched.elf.symbol_name(y);
                let same = i == j && self.original.elf.symbol_name(x) == name && !self.moved.contains(name);
                (!same).then_some(Unlike::Target)
            }
            (Target::Absolute(x), Target::Absolute(y)) => (x != y).then_some(Unlike::Target),
            _ => Some(Unlike::Target),
        }
    }

    /// Returns true if two ranges without an identity have the same contents and references.
    fn same_content(&self, original_span: Span, patched_span: Span, depth: u8) -> bool {
        if self.describe_one_type(original_span, patched_span) {
            return true;
        }
        let location = self.original.is_check_location(original_span.section)
            && self.patched.is_check_location(patched_span.section);
        let bytes = || match location {
            true => self.bytes_but(LINE_AND_COLUMN, original_span, patched_span),
            false => self.bytes(original_span, patched_span),
        };
        depth < MAX_DEPTH
            && original_span.end - original_span.start == patched_span.end - patched_span.start
            && self.original.role(original_span.section) == self.patched.role(patched_span.section)
            && bytes().is_none()
            && self.references(original_span, patched_span, depth + 1).is_none()
            && self.same_nameless_entries(original_span, patched_span, depth)
    }

    /// Returns true for the sanitizer's descriptions of one type. A type without a name also has a place in the source,
    /// with the line, in its description.
    fn describe_one_type(&self, original_span: Span, patched_span: Span) -> bool {
        let description = |object: &Object<'d>, Span { section, start, end, .. }: Span| {
            let bytes = object.is_type_description(section).then(|| object.range(section, start, end))?;
            type_description(bytes).map(without_places)
        };
        let ours = description(self.patched, patched_span);
        ours.is_some() && ours == description(self.original, original_span)
    }

    /// Returns the names of the unnamed tables that differ. Several sections may have one name.
    pub(crate) fn tables(&self) -> Vec<String> {
        let of = |object: &Object<'d>| {
            let mut by_name: BTreeMap<&'d [u8], Vec<Span>> = BTreeMap::new();
            for section in object.unnamed_tables() {
                let span = Span { section, start: 0, end: object.elf.section_size(section), base: 0 };
                by_name.entry(object.elf.section_name(section)).or_default().push(span);
            }
            by_name
        };
        let (original_tables, patched_tables) = (of(self.original), of(self.patched));
        let names: BTreeSet<&[u8]> = original_tables.keys().chain(patched_tables.keys()).copied().collect();
        let differs = |name: &&[u8]| match (original_tables.get(*name), patched_tables.get(*name)) {
            (Some(a), Some(b)) => {
                a.len() != b.len() || a.iter().zip(b).any(|(&a, &b)| !self.same_content(a, b, 0))
            }
            _ => true,
        };
        names.into_iter().filter(differs).map(|name| String::from_utf8_lossy(name).into_owned()).collect()
    }

    /// Compares the literals that two functions load from outside their symbols without a relocation.
    fn outlying_literals(&self, original: ItemId, patched: ItemId) -> Option<Reason> {
        let spans = |object: &Object<'d>, owner: ItemId| -> Vec<Span> {
            let span = |o: &Outlier| Span { section: o.section, start: o.start, end: o.end, base: o.start };
            object.outlying_literals(owner).map(span).collect()
        };
        let (originals, new) = (spans(self.original, original), spans(self.patched, patched));
        let same = originals.len() == new.len()
            && originals.iter().zip(&new).all(|(&one, &two)| self.same_content(one, two, 0));
        (!same).then_some(Reason::Literal { offset: 0 })
    }

    /// Compares the special-section entries that describe two functions: tables, places, contents and references.
    fn entries(&self, original: ItemId, patched: ItemId) -> Option<Reason> {
        let rows = |object: &Object<'d>, owner: ItemId| {
            let entries = object.entries(owner).iter();
            compared_rows(
                object,
                entries.map(|e| TableRow { place: e.place, table: e.table, index: e.index }),
            )
        };
        let (ours, theirs) = (rows(self.patched, patched), rows(self.original, original));
        self.rows(&theirs, &ours, |x, y| self.same_entry_content(x, y, 0))
    }

    /// Compares the special-section entries that describe code without a name. The described place was compared
    /// already: both entries have it at the same distance from the first byte.
    fn same_nameless_entries(&self, original_span: Span, patched_span: Span, depth: u8) -> bool {
        let rows = |object: &Object<'d>, Span { section, start, end, base }: Span| {
            let entries = object.nameless_entries(SectionRange { section, start, end }).iter();
            let place = |place: u64| place.wrapping_sub(base) as i64;
            compared_rows(
                object,
                entries.map(|e| TableRow { place: place(e.place), table: e.table, index: e.index }),
            )
        };
        let (theirs, ours) = (rows(self.original, original_span), rows(self.patched, patched_span));
        let same = |x: TableRow, y: TableRow| {
            let behind_place = |object: &Object<'d>, row: TableRow| {
                let (section, start, end) = object.entry_range(row.table, row.index);
                let place = object.relocations_in(section, start, end).first();
                let width = place.map_or(0, |rela| field_bytes(object, rela));
                Span { section, start: start + width, end, base: start }
            };
            let (a, b) = (behind_place(self.original, x), behind_place(self.patched, y));
            self.bytes(a, b).is_none() && self.references(a, b, depth + 1).is_none()
        };
        self.rows(&theirs, &ours, same).is_none()
    }

    /// Returns the first row in which two lists of special-section entries differ; `same` compares the contents.
    fn rows(
        &self,
        original: &[TableRow],
        patched: &[TableRow],
        same: impl Fn(TableRow, TableRow) -> bool,
    ) -> Option<Reason> {
        let (mut original, mut patched) = (original.iter(), patched.iter());
        loop {
            let (object, row) = match (original.next(), patched.next()) {
                (None, None) => return None,
                (Some(&x), None) => (self.original, x),
                (None, Some(&y)) => (self.patched, y),
                (Some(&x), Some(&y)) => {
                    let section = |object: &Object<'d>, row: TableRow| {
                        object.elf.section_name(object.tables[row.table.index()].section)
                    };
                    let alike = section(self.original, x) == section(self.patched, y)
                        && x.place == y.place
                        && self.original.entry_companion(x.table, x.index)
                            == self.patched.entry_companion(y.table, y.index)
                        && same(x, y);
                    if alike {
                        continue;
                    }
                    (self.patched, y)
                }
            };
            let table = object.tables[row.table.index()].kind.name;
            return Some(Reason::SpecialSection { table, offset: row.place });
        }
    }

    /// Returns true if two special-section entries have the same contents and references.
    fn same_entry_content(&self, original: TableRow, patched: TableRow, depth: u8) -> bool {
        let (their_section, a, b) = self.original.entry_range(original.table, original.index);
        let (our_section, c, d) = self.patched.entry_range(patched.table, patched.index);
        let original_span = Span { section: their_section, start: a, end: b, base: a };
        let patched_span = Span { section: our_section, start: c, end: d, base: c };
        if depth >= MAX_DEPTH || b - a != d - c || self.bytes(original_span, patched_span).is_some() {
            return false;
        }
        match self.patched.tables[patched.table.index()].kind.name {
            ".altinstructions" => self.same_alternative(original_span, patched_span, depth),
            _ => self.references(original_span, patched_span, depth + 1).is_none(),
        }
    }

    /// Compares two alternatives. A replacement has no name, and its end is known only from the length in the last byte
    /// of its entry (`struct alt_instr`, arch/x86/include/asm/alternative.h, arch/arm64/include/asm/alternative.h).
    fn same_alternative(&self, original_span: Span, patched_span: Span, depth: u8) -> bool {
        let part = |object: &Object<'d>, span: Span| -> Option<(Target, Target, u64)> {
            let length = u64::from(*object.range(span.section, span.start, span.end).last()?);
            let relocations = object.relocations_in(span.section, span.start, span.end);
            let [place, replacement] = relocations else { return None };
            Some((object.resolve(span.section, place), object.resolve(span.section, replacement), length))
        };
        let (Some((x, from, their_length)), Some((y, to, our_length))) =
            (part(self.original, original_span), part(self.patched, patched_span))
        else {
            return false;
        };
        if self.targets(x, y, depth + 1).is_some() || their_length != our_length {
            return false;
        }
        match (from, to) {
            (
                Target::Literal { section: s, start: a, offset: i, .. },
                Target::Literal { section: t, start: c, offset: j, .. },
            ) => {
                let (a, c) = (a.wrapping_add_signed(i), c.wrapping_add_signed(j));
                let original_span =
                    Span { section: s, start: a, end: a.saturating_add(their_length), base: a };
                let patched_span = Span { section: t, start: c, end: c.saturating_add(our_length), base: c };
                self.same_content(original_span, patched_span, depth)
            }
            _ => self.targets(from, to, depth + 1).is_none(),
        }
    }
}

/// How two references differ.
#[derive(Clone, Copy)]
enum Unlike {
    Target,
    Content,
}

/// Returns the rows of the tables that are compared, by table and place: the order of the sections in the two files may
/// differ.
fn compared_rows(object: &Object<'_>, rows: impl Iterator<Item = TableRow>) -> Vec<TableRow> {
    let kind = |row: &TableRow| object.tables[row.table.index()].kind;
    let mut rows: Vec<TableRow> = rows.filter(|row| kind(row).compared).collect();
    rows.sort_by_key(|row| (kind(row).name, row.place, row.index));
    rows
}

fn span(object: &Object<'_>, item: ItemId) -> Span {
    let item = object.item(item);
    Span { section: item.section, start: item.start, end: item.end, base: item.entry }
}

/// Returns the relocations of a range, except those that do nothing.
fn significant<'o>(object: &'o Object<'_>, span: Span) -> impl Iterator<Item = &'o Rela> {
    object
        .relocations_in(span.section, span.start, span.end)
        .iter()
        .filter(|rela| rela.r_type(LE, false).0 != 0)
}

/// Returns the number of bytes that a relocation overwrites. Fields of instructions are compared as they stand: the
/// bits of an arm64 immediate are zero in the file, and the other bits matter.
fn field_bytes(object: &Object<'_>, rela: &Rela) -> u64 {
    match object.relocation_kind(rela).map(|kind| kind.field) {
        Some(FieldKind::Bytes(n)) => u64::from(n),
        _ => 0,
    }
}
