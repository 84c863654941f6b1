//! What the source says of what a failure is about: debug information knows where a function or a variable stands, and
//! the stages that refuse one know its name.

use std::path::Path;

use klpx_diagnosis::{Failure, Place};
use klpx_inline_check::lines::Lines;
use klpx_inline_check::sections::Sections;
use klpx_layout::Declarations;
use klpx_normalize::object::{ItemId, Object};

use crate::analysis;
use crate::change_set::Objects;
use crate::trace_events::TraceEvents;

/// The failure, with file and line at the places where they were missing, and with the trace events that macros made
/// symbols from. `tree` is the source that was compiled.
pub(crate) fn complete(failure: Failure, objects: &[Objects<'_>], tree: &Path) -> Failure {
    let events = TraceEvents::of(objects);
    failure.map(|diagnosis| {
        let place = completed(&diagnosis.place, objects, tree).unwrap_or_else(|| diagnosis.place.clone());
        let symbol = place.symbol.clone().unwrap_or_default();
        events.tell(&symbol, diagnosis.place(place))
    })
}

/// Patched objects come first: they know new lines too. A symbol of a name that several have stays as it is.
fn completed(place: &Place, objects: &[Objects<'_>], tree: &Path) -> Option<Place> {
    let symbol = place.symbol.as_deref().filter(|_| place.line.is_none())?;
    let positions = |object: &Object<'_>| -> Vec<Option<(String, u32)>> {
        let named = object.item_ids().filter(|&item| is_meant(object, item, symbol, place.file.as_deref()));
        named.map(|item| position(object, item, place.offset.unwrap_or_default(), tree)).collect()
    };
    let mut found: Vec<_> = objects.iter().flat_map(|pair| positions(&pair.patched)).collect();
    if found.is_empty() {
        found = objects.iter().flat_map(|pair| positions(&pair.original)).collect();
    }
    // A unit of two modules is two pairs.
    found.dedup();
    match found.as_slice() {
        [Some((file, line))] => Some(place.clone().at(file, Some(*line))),
        _ => None,
    }
}

/// True for an item of this name; also of this file, where the file is known by its base name.
fn is_meant(object: &Object<'_>, item: ItemId, symbol: &str, file: Option<&str>) -> bool {
    let of_file = || match object.file_name(object.symbol_file(object.item(item).symbol)) {
        [] => true,
        own => file.is_none_or(|file| file.as_bytes() == own),
    };
    analysis::name(object, item) == symbol && of_file()
}

/// Where a function's code is from, or where a variable is declared.
fn position(object: &Object<'_>, item: ItemId, offset: i64, tree: &Path) -> Option<(String, u32)> {
    let tree = tree.display().to_string();
    if object.item(item).code {
        let sections = Sections::of_lines(&object.elf);
        let found = analysis::position(object, &Lines::read(&sections), item, offset, &tree)?;
        return Some((found.file, found.line));
    }
    let declarations = Declarations::read(&object.elf).ok()?;
    let item = object.item(item);
    let declared = declarations.at(item.section, item.entry)?;
    let file = declared.file.strip_prefix(&tree).unwrap_or(&declared.file).trim_start_matches('/');
    Some((file.to_owned(), declared.line))
}
