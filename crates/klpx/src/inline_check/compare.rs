//! Compares two files for people: the totals, the functions that became half-inlined, and those that no longer are.

use klpx_inline_check::survey::{CopyState, StateChange, compare};

use super::{Surveyed, about, place};
use crate::render::{self, count};

/// The comparison.
pub(super) fn text(before: &Surveyed, after: &Surveyed) -> String {
    let mut text = String::new();
    for (label, surveyed) in [("A", before), ("B", after)] {
        text.push_str(&format!("  {label}  {}  {}\n", surveyed.path.display(), about(surveyed)));
    }
    text.push('\n');
    text.push_str(&render::numbers(&totals(before, after)));
    let changes = compare(&before.survey, &after.survey);
    let parts: [(&str, bool); 2] = [("became half-inlined", true), ("no longer half-inlined", false)];
    for (title, became) in parts {
        let some: Vec<&StateChange> =
            changes.iter().filter(|change| (change.is == CopyState::Both) == became).collect();
        if !some.is_empty() {
            text.push_str(&format!("\n  {title}: {}\n", render::plural(some.len(), "function")));
            text.push_str(&list(before, after, &some, became));
        }
    }
    text
}

fn totals(before: &Surveyed, after: &Surveyed) -> Vec<Vec<String>> {
    let [a, b] = [before, after].map(|surveyed| (surveyed.summary.all(), &surveyed.summary));
    let rows = [
        ("out of line", a.0.out_of_line, b.0.out_of_line),
        ("half-inlined", a.0.half_inlined, b.0.half_inlined),
        ("half-inlined across files", a.0.half_inlined_across, b.0.half_inlined_across),
        ("their inlined copies", a.0.inlined, b.0.inlined),
        ("only inlined", a.1.only_inlined, b.1.only_inlined),
    ];
    let mut table = vec![["functions", "A", "B"].map(str::to_owned).to_vec()];
    table.extend(rows.map(|(what, a, b)| vec![what.to_owned(), count(a), count(b)]));
    table.push(vec!["bytes of code".to_owned(), render::bytes(before.code), render::bytes(after.code)]);
    table
}

fn list(before: &Surveyed, after: &Surveyed, changes: &[&StateChange], became: bool) -> String {
    let mut rows =
        vec![["function", "declared at", "in A", "in B", "call sites"].map(str::to_owned).to_vec()];
    for change in changes {
        // The file in which the function is half-inlined has all the facts.
        let (surveyed, id) = if became { (after, change.after) } else { (before, change.before) };
        let Some(id) = id else { continue };
        let function = surveyed.survey.function(id);
        rows.push(vec![
            surveyed.survey.text(function.name).to_owned(),
            place(&surveyed.survey, Some(function.file), function.line),
            change.was.name().to_owned(),
            change.is.name().to_owned(),
            count(surveyed.survey.call_sites(function)),
        ]);
    }
    render::table(&rows)
}
