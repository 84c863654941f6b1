//! Places in code, and what lies there.

use klpx_diagnosis::Offset;
use klpx_normalize::elf::SectionId;
use klpx_normalize::object::{ItemId, Object};

/// A place in code: its function, and the offset in the section.
pub(super) type Point = (ItemId, u64);

/// The item to which a place of a section belongs.
pub(super) fn holder(object: &Object<'_>, section: SectionId, at: u64) -> Option<ItemId> {
    let behind = object.items().partition_point(|item| (item.section, item.start) <= (section, at));
    let item = object.items().get(behind.checked_sub(1)?)?;
    (item.section == section && at < item.end).then_some(ItemId(behind as u32 - 1))
}

/// The name of an item.
pub(super) fn text(object: &Object<'_>, item: ItemId) -> String {
    String::from_utf8_lossy(object.item_name(item)).into_owned()
}

/// A place in words.
pub(super) fn place_of(object: &Object<'_>, (item, place): Point) -> String {
    Offset(place.wrapping_sub(object.item(item).entry) as i64).behind(text(object, item))
}
