//! Functions that share one body. Compilers and linkers fold equal functions into one body with several names
//! (identical code folding). Each name is still a function of its own, and a patch may change only one of them. Then
//! one address stands for two different functions, and a livepatch can divert only the address.

use std::collections::{BTreeMap, BTreeSet};

use klpx_normalize::elf::SymbolId;
use klpx_normalize::name::{is_mapping_symbol, prefix_mark};
use klpx_normalize::object::{ItemId, Object};
use object::elf;

use crate::compare::Comparer;
use crate::correlate::{Correlation, ItemEvidence};

/// Functions that share one body in one build and have several bodies in the other build, at least one of which
/// differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folded {
    /// The names of the shared body.
    pub names: Vec<String>,
    /// The build that has the shared body.
    pub way: FoldDirection,
}

/// How functions that share a body change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoldDirection {
    /// The original has the shared body. These patched functions differ from it and count as new.
    Part {
        /// The shared body, in the original.
        body: ItemId,
        /// The differing functions, in the patched object.
        into: Vec<ItemId>,
    },
    /// The patched build has the shared body. These functions of the original differ from it.
    Join {
        /// The differing functions, in the original.
        from: Vec<ItemId>,
    },
}

/// A name; for a local, also its file.
type FoldedName<'d> = (&'d [u8], &'d [u8]);
/// The functions of an object, by name.
type FoldedNames<'d> = BTreeMap<FoldedName<'d>, ItemId>;

fn names<'d>(object: &Object<'d>) -> FoldedNames<'d> {
    let elf = &object.elf;
    let name = |id: SymbolId| {
        let (name, item) = (elf.symbol_name(id), object.symbol_item(id)?);
        let shape = object.item(item);
        let is_function = shape.code
            && shape.entry == elf.symbol_value(id)
            && elf.symbol_type(id) == elf::STT_FUNC.0
            && !is_mapping_symbol(name)
            && prefix_mark(name).is_none();
        let local = elf.symbol_binding(id) == elf::STB_LOCAL.0;
        let file = if local { object.file_name(object.symbol_file(id)) } else { &[] };
        is_function.then_some(((name, file), item))
    };
    elf.symbol_ids().filter_map(name).collect()
}

/// Returns the bodies that have several names.
fn bodies<'n, 'd>(names: &'n FoldedNames<'d>) -> BTreeMap<ItemId, Vec<&'n FoldedName<'d>>> {
    let mut bodies: BTreeMap<ItemId, Vec<_>> = BTreeMap::new();
    for (name, &item) in names {
        bodies.entry(item).or_default().push(name);
    }
    bodies.retain(|_, names| names.len() > 1);
    bodies
}

/// Finds functions whose shared body splits, and functions that come to share a body. The original's body is paired
/// with a function that stays the same; functions that differ from it are new.
pub(crate) fn find(
    original: &Object<'_>,
    patched: &Object<'_>,
    correlation: &mut Correlation,
) -> Vec<Folded> {
    let (original_names, patched_names) = (names(original), names(patched));
    let text = |names: &[&FoldedName<'_>]| -> Vec<String> {
        names.iter().map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect()
    };
    let others = |names: &[&FoldedName<'_>], other: &FoldedNames<'_>| -> BTreeSet<ItemId> {
        names.iter().filter_map(|name| other.get(*name)).copied().collect()
    };
    let nothing = BTreeSet::new();
    let mut found = Vec::new();
    for (body, bearers) in bodies(&original_names) {
        let all = others(&bearers, &patched_names);
        if all.len() < 2 {
            continue;
        }
        let is_same = |item: ItemId| {
            let comparer = Comparer { original, patched, correlation, moved: &nothing };
            comparer.items(body, item).is_empty()
        };
        let (same, parted): (Vec<ItemId>, Vec<ItemId>) = all.into_iter().partition(|&item| is_same(item));
        if parted.is_empty() {
            continue;
        }
        for &item in &parted {
            correlation.original_of[item.index()] = None;
        }
        correlation.patched_of[body.index()] = same.first().copied();
        if let Some(same) = same.first() {
            correlation.original_of[same.index()] = Some((body, ItemEvidence::Content));
        }
        found.push(Folded { names: text(&bearers), way: FoldDirection::Part { body, into: parted } });
    }
    for (body, bearers) in bodies(&patched_names) {
        let all = others(&bearers, &original_names);
        let comparer = Comparer { original, patched, correlation, moved: &nothing };
        let differs = |item: &ItemId| !comparer.items(*item, body).is_empty();
        let from: Vec<ItemId> = all.iter().copied().filter(differs).collect();
        if all.len() > 1 && !from.is_empty() {
            found.push(Folded { names: text(&bearers), way: FoldDirection::Join { from } });
        }
    }
    found
}
