//! What is copied from a patched object, and the place of an item for a diagnosis.

use klpx_diagnosis::DiagnosisPlace;
use klpx_normalize::elf::SectionId;
use klpx_normalize::lifetime::Lifetime;
use klpx_normalize::object::{ItemId, Object};

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

/// Returns true for an item that the running kernel has freed by the time a livepatch is loaded.
pub(super) fn is_gone(builds: &ComparedUnit<'_, '_>, object: &Object<'_>, item: ItemId) -> bool {
    Lifetime::of(object.elf.section_name(object.item(item).section)).is_gone(builds.is_vmlinux())
}
