//! Finds what changed between the original and the patched build of one object, and why. The result depends only on the
//! two objects and on what is known of their sources.
//!
//! Owns correlation (which item of one build is which of the other), comparison, and the reasons for changes. No IO, no
//! processes, no printing.
//!
//! # Reading order
//!
//! [`compare_unit`] does everything. [`correlate()`] pairs the items and keeps the [`ItemEvidence`] for each pair. Paired items
//! are compared by bytes and references; [`EQUIVALENCES`] lists every difference that means nothing. The result is a
//! [`Difference`]: each [`ItemChange`] has its [`Reason`]s, [`Folded`] names functions that share a body in one build only.

mod compare;
mod correlate;
mod equivalence;
mod folded;
mod purpose;
mod reason;

use std::collections::BTreeSet;

use klpx_normalize::object::{ItemId, Object, Role};
use rayon::prelude::*;

use compare::Comparer;
pub use correlate::{
    Correlation, Edits, ItemEvidence, LineState, Sources, Unsettled, correlate, is_anonymous,
};
pub use equivalence::{EQUIVALENCES, Equivalence};
pub use folded::{FoldDirection, Folded};
pub use reason::{Reason, describe};

/// An item that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemChange {
    /// The item in the patched object.
    pub patched: ItemId,
    /// The counterpart in the original; `None` for a new item.
    pub original: Option<ItemId>,
    /// The reasons for the change; empty for a new item.
    pub reasons: Vec<Reason>,
}

/// The result of a comparison.
#[derive(Clone, Debug, Default)]
pub struct Difference {
    /// Changed and new functions, in the order of the patched object's items.
    pub functions: Vec<ItemChange>,
    /// Changed and new data objects that have an identity, in the same order.
    pub data: Vec<ItemChange>,
    /// Changed and new items of tables that the kernel reads once: initcalls, parameters, exports.
    pub registries: Vec<ItemChange>,
    /// Names of sections whose contents have no names ([`Object::unnamed_tables`]) and differ, sorted.
    pub tables: Vec<String>,
    /// Functions whose shared body splits, or that come to share a body.
    pub folded: Vec<Folded>,
    /// Items of the original that have an identity but no counterpart.
    pub removed: Vec<ItemId>,
    /// The pairs of items. Unsettled items are in none of the lists above.
    pub correlation: Correlation,
}

impl Difference {
    /// Returns the original's counterpart of a patched item.
    pub fn original_of(&self, patched: ItemId) -> Option<ItemId> {
        self.correlation.original_of.get(patched.index()).copied().flatten().map(|(item, _)| item)
    }

    /// Returns true if nothing differs.
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty()
            && self.data.is_empty()
            && self.registries.is_empty()
            && self.tables.is_empty()
            && self.removed.is_empty()
            && self.correlation.unsettled.is_empty()
    }
}

/// Compares two builds of one object. Items are compared in parallel; the result does not depend on the thread count.
pub fn compare(original: &Object<'_>, patched: &Object<'_>) -> Difference {
    compare_unit(original, patched, &BTreeSet::new(), Sources::Unknown)
}

/// Compares two builds of one of several units, with what is known of their sources. `moved` are names that mean
/// something else in the other units' patched builds.
pub fn compare_unit(
    original: &Object<'_>,
    patched: &Object<'_>,
    moved: &BTreeSet<Vec<u8>>,
    sources: Sources<'_>,
) -> Difference {
    let mut correlation = correlate(original, patched, sources);
    let folded = folded::find(original, patched, &mut correlation);
    let comparer = Comparer { original, patched, correlation: &correlation, moved };
    let changes: Vec<ItemChange> = patched
        .items()
        .par_iter()
        .enumerate()
        .with_min_len(256)
        .filter_map(|(n, _)| {
            let item = ItemId(n as u32);
            match correlation.original_of[n] {
                None if is_anonymous(patched, item) || correlation.is_unsettled(item) => None,
                None => Some(ItemChange { patched: item, original: None, reasons: Vec::new() }),
                Some((original, _)) => {
                    let reasons = comparer.items(original, item);
                    (!reasons.is_empty()).then_some(ItemChange {
                        patched: item,
                        original: Some(original),
                        reasons,
                    })
                }
            }
        })
        .collect();
    let candidates: BTreeSet<ItemId> =
        correlation.unsettled.iter().flat_map(|unsettled| unsettled.candidates.iter().copied()).collect();
    let removed = original
        .item_ids()
        .filter(|item| correlation.patched_of[item.index()].is_none() && !is_anonymous(original, *item))
        .filter(|item| !candidates.contains(item))
        .collect();
    let mut result = Difference { removed, folded, tables: comparer.tables(), ..Difference::default() };
    for change in changes {
        let section = patched.item(change.patched).section;
        match patched.role(section) {
            Role::Registry => result.registries.push(change),
            _ if patched.item(change.patched).code => result.functions.push(change),
            _ => result.data.push(change),
        }
    }
    result.correlation = correlation;
    result
}
