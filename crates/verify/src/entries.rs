//! Reads special sections as rows that describe places. `klpx_normalize::special` provides the entry sizes; this module
//! reads the rows.

use klpx_normalize::elf::SectionId;
use klpx_normalize::special::TableKind;
use object::endian::LittleEndian as LE;

use crate::file::{Body, IndexedFile, Reference, ReferenceTarget};

/// One row of a special section.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EntryRow {
    pub(crate) kind: &'static TableKind,
    pub(crate) section: SectionId,
    pub(crate) start: u64,
    pub(crate) size: u64,
    /// The described place.
    pub(crate) place: (SectionId, u64),
}

impl EntryRow {
    /// Returns the row's bytes.
    pub(crate) fn body(&self) -> Body {
        Body { section: self.section, entry: self.start, end: self.start + self.size, lead: 0 }
    }

    /// Returns the replacement of an alternative, to which the row's second reference leads. The row's last byte is the
    /// replacement's length (`struct alt_instr`).
    pub(crate) fn replacement(&self, file: &IndexedFile<'_, '_>, reference: &Reference) -> Option<Body> {
        if self.kind.name != ".altinstructions" || reference.at == 0 {
            return None;
        }
        let length = file.bytes(self.body()).last().copied().unwrap_or(0);
        let (section, at) = match reference.target {
            ReferenceTarget::Bytes { section, at } => (section, at),
            ReferenceTarget::Thing { body, delta } => (body.section, body.entry.wrapping_add_signed(delta)),
            _ => return None,
        };
        Some(Body { section, entry: at, end: at.saturating_add(length.into()), lead: 0 })
    }
}

/// Returns every row of every special section of a file, sorted by place, then by table.
pub(crate) fn rows(file: &IndexedFile<'_, '_>) -> Vec<EntryRow> {
    let mut found = Vec::new();
    for section in file.elf.section_ids() {
        let Some(kind) = TableKind::of(file.arch, file.section_name(section)) else { continue };
        let (Some(size), first) = (kind.entry_size(file.elf, section), u64::from(kind.forms[0].1[0])) else {
            continue;
        };
        let size = u64::from(size);
        for rela in file.relocations(section) {
            let at = rela.r_offset.get(LE);
            if at % size == first
                && let Some(place) = file.place(rela)
            {
                found.push(EntryRow { kind, section, start: at - first, size, place });
            }
        }
    }
    let key = |row: &EntryRow| (row.place, file.section_name(row.section), row.section, row.start);
    found.sort_by(|a, b| key(a).cmp(&key(b)));
    found
}

/// Returns the rows that describe places of a thing.
pub(crate) fn within(rows: &[EntryRow], body: Body) -> impl Iterator<Item = &EntryRow> {
    let from = rows.partition_point(|row| row.place < (body.section, body.start()));
    rows[from..].iter().take_while(move |row| row.place < (body.section, body.end))
}
