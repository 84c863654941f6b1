//! Puts the differences of a pair of objects into the words of the report: function, kind, reason, source line.

use klpx_diagnosis::Offset;
use klpx_diff::{Difference, ItemChange, Reason};
use klpx_inline_check::lines::{Lines, SourcePosition};
use klpx_normalize::object::{ItemId, Object};
use rayon::prelude::*;

use crate::finding::{ChangeKind, Finding, name};

/// The findings of one list of changes.
pub fn findings(
    object_name: &str,
    strip: &str,
    patched: &Object<'_>,
    lines: &Lines<'_>,
    changes: &[ItemChange],
) -> Vec<Finding> {
    changes.par_iter().map(|change| finding(object_name, strip, patched, lines, change)).collect()
}

/// Items of the original that are gone.
pub fn removed(object_name: &str, original: &Object<'_>, difference: &Difference) -> Vec<Finding> {
    difference
        .removed
        .iter()
        .map(|&item| Finding {
            object: object_name.to_owned(),
            function: name(original, item),
            kind: ChangeKind::Removed,
            cause: None,
            inlines: Vec::new(),
            hunks: Vec::new(),
            why: "not in the patched build".to_owned(),
            file: None,
            line: None,
            reasons: Vec::new(),
        })
        .collect()
}

fn finding(
    object_name: &str,
    strip: &str,
    patched: &Object<'_>,
    lines: &Lines<'_>,
    change: &ItemChange,
) -> Finding {
    let at = change.reasons.iter().filter_map(offset).min().unwrap_or(0);
    let position = position(patched, lines, change.patched, at, strip);
    let place = position.as_ref().map(|p| format!("{}:{}", p.file, p.line));
    let (kind, why) = match (&change.original, change.reasons.first()) {
        (None, _) => (ChangeKind::New, "new".to_owned()),
        (Some(_), Some(reason)) => {
            let what = match reason {
                Reason::Section { .. } => in_words(reason),
                _ if patched.item(change.patched).code => "code differs".to_owned(),
                other => in_words(other),
            };
            (ChangeKind::Changed, place.map_or(what.clone(), |place| format!("{what} from {place} on")))
        }
        (Some(_), None) => (ChangeKind::Changed, String::new()),
    };
    Finding {
        object: object_name.to_owned(),
        function: name(patched, change.patched),
        kind,
        cause: None,
        inlines: Vec::new(),
        hunks: Vec::new(),
        why,
        file: position.as_ref().map(|p| p.file.clone()),
        line: position.map(|p| p.line),
        reasons: change.reasons.iter().map(in_words).collect(),
    }
}

/// The source position of a place in a function, without the source tree's folder.
pub fn position(
    object: &Object<'_>,
    lines: &Lines<'_>,
    item: ItemId,
    offset: i64,
    strip: &str,
) -> Option<SourcePosition> {
    let item = object.item(item);
    if !item.code {
        return None;
    }
    let at = item.entry.saturating_add_signed(offset).min(item.end.saturating_sub(1));
    let mut position = lines.position_in_function(item.section, item.entry, at)?;
    if let Some(rest) = position.file.strip_prefix(strip).filter(|_| !strip.is_empty()) {
        position.file = rest.trim_start_matches('/').to_owned();
    }
    while let Some(rest) = position.file.strip_prefix("./").or_else(|| position.file.strip_prefix("../")) {
        position.file = rest.to_owned();
    }
    Some(position)
}

/// The first place at which a reason shows, in bytes from the entry.
pub fn offset(reason: &Reason) -> Option<i64> {
    match reason {
        Reason::Bytes { offset }
        | Reason::Reference { offset, .. }
        | Reason::Literal { offset }
        | Reason::SpecialSection { offset, .. } => Some(*offset),
        Reason::Size { .. } | Reason::Section { .. } | Reason::TypeIds => None,
    }
}

/// A reason as a phrase.
pub fn in_words(reason: &Reason) -> String {
    match reason {
        Reason::Size { from, to } => format!("size was {from} bytes, is {to}"),
        Reason::Bytes { offset } => format!("other bytes from {} on", Offset(*offset)),
        Reason::Reference { offset, from, to } if from.is_empty() => {
            format!("new reference to {to} at {}", Offset(*offset))
        }
        Reason::Reference { offset, from, to } if to.is_empty() => {
            format!("no reference to {from} at {}", Offset(*offset))
        }
        Reason::Reference { offset, from, to } => {
            format!("refers to {to} at {}, did to {from}", Offset(*offset))
        }
        Reason::Literal { offset } => format!("a string or constant used at {} differs", Offset(*offset)),
        Reason::SpecialSection { table, offset } => {
            format!("its entries in {table} differ from {} on", Offset(*offset))
        }
        Reason::Section { from, to } => format!("moved from {from} to {to}"),
        Reason::TypeIds => "names other types, or in another order".to_owned(),
    }
}
