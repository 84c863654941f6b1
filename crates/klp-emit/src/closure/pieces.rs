//! What is copied from a patched object, and the place of an item for a diagnosis.

use klpx_diagnosis::DiagnosisPlace;
use klpx_normalize::elf::SectionId;
use klpx_normalize::lifetime::Lifetime;
use klpx_normalize::object::{Entry, Item, ItemId, Object, SectionRange, TableId};

use crate::plan::{CallbackKind, ComparedUnit};

/// Something that is copied from a patched object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Piece {
    /// A function or data object.
    Item(ItemId),
    /// Bytes without a name.
    Bytes {
        /// The section.
        section: SectionId,
        /// The first byte.
        start: u64,
        /// One past the last byte.
        end: u64,
    },
}

impl Piece {
    /// Returns the piece's bytes.
    pub(crate) fn range(self, object: &Object<'_>) -> SectionRange {
        match self {
            Piece::Item(item) => {
                let &Item { section, start, end, .. } = object.item(item);
                SectionRange { section, start, end }
            }
            Piece::Bytes { section, start, end } => SectionRange { section, start, end },
        }
    }

    /// Returns the place in the section from which offsets are counted: the item's entry, or the first byte.
    pub(crate) fn anchor(self, object: &Object<'_>) -> u64 {
        match self {
            Piece::Item(item) => object.item(item).entry,
            Piece::Bytes { start, .. } => start,
        }
    }

    /// Returns the special-section entries that describe places in the piece.
    pub(crate) fn entries(self, object: &Object<'_>) -> Vec<PieceEntry> {
        let piece = self;
        match piece {
            Piece::Item(item) => {
                let entries = object.entries(item).iter();
                entries
                    .map(|&Entry { table, index, place, .. }| PieceEntry { piece, table, index, place })
                    .collect()
            }
            Piece::Bytes { section, start, end } => {
                let entries = object.nameless_entries(SectionRange { section, start, end }).iter();
                let place = |place: u64| place.wrapping_sub(start) as i64;
                entries
                    .map(|e| PieceEntry { piece, table: e.table, index: e.index, place: place(e.place) })
                    .collect()
            }
        }
    }
}

/// A special-section entry that describes a place in a piece.
#[derive(Clone, Copy, Debug)]
pub struct PieceEntry {
    /// The piece.
    pub piece: Piece,
    /// Index into [`Object::tables`].
    pub table: TableId,
    /// Index of the entry in its table.
    pub index: u32,
    /// The place, in bytes from the item's entry or the first byte.
    pub place: i64,
}

/// A callback that the patch registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Callback {
    /// When the callback runs.
    pub kind: CallbackKind,
    /// The callback's function.
    pub item: ItemId,
}

/// A place for a diagnosis: the symbol and, where known, its file.
pub(crate) fn place_of(object: &Object<'_>, item: ItemId) -> DiagnosisPlace {
    let place = DiagnosisPlace::symbol(String::from_utf8_lossy(object.item_name(item)));
    match object.file_name(object.symbol_file(object.item(item).symbol)) {
        [] => place,
        file => place.at(String::from_utf8_lossy(file), None),
    }
}

/// A place for a diagnosis: that of an item; unnamed bytes have none.
pub(crate) fn place_of_piece(object: &Object<'_>, piece: Piece) -> DiagnosisPlace {
    match piece {
        Piece::Item(item) => place_of(object, item),
        Piece::Bytes { .. } => DiagnosisPlace::default(),
    }
}

/// Returns true for an item that the running kernel has freed by the time a livepatch is loaded.
pub(super) fn is_gone(builds: &ComparedUnit<'_, '_>, object: &Object<'_>, item: ItemId) -> bool {
    Lifetime::of(object.elf.section_name(object.item(item).section)).is_gone(builds.is_vmlinux())
}
