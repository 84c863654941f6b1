//! The half-inlined functions as a table and as CSV, and the totals over all functions.

use klpx_inline_check::survey::{Function, Linkage, Reach, Summary, Survey, Tally};

use super::{Surveyed, linkage, place};
use crate::render::{self, count};

/// The totals: a heading, and one row for each kind of function.
pub(super) fn totals(summary: &Summary) -> Vec<Vec<String>> {
    let heading =
        ["functions", "out of line", "half-inlined", "across files", "inlined copies", "across files"];
    let row = |name: &str, tally: &Tally| {
        let numbers = [
            tally.out_of_line,
            tally.half_inlined,
            tally.half_inlined_across,
            tally.inlined,
            tally.inlined_across,
        ];
        std::iter::once(name.to_owned()).chain(numbers.map(count)).collect::<Vec<String>>()
    };
    let kinds = Linkage::ALL.iter().zip(&summary.by_linkage).map(|(kind, tally)| row(kind.name(), tally));
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(kinds);
    rows.push(row("all", &summary.all()));
    rows
}

/// Whether ftrace reaches a function's copies, in a word.
pub(super) fn reached(survey: &Survey, function: &Function) -> &'static str {
    let copies = survey.copies(function);
    let reached = copies.iter().filter(|copy| matches!(copy.reach, Reach::Site(_))).count();
    match reached {
        0 if copies.iter().any(|copy| copy.reach == Reach::Unknown) => "unknown",
        0 => "no",
        n if n == copies.len() => "yes",
        _ => "some",
    }
}

/// The list for people.
pub(super) fn text(surveyed: &Surveyed) -> String {
    let survey = &surveyed.survey;
    let mut rows = vec![
        ["function", "declared at", "linkage", "call sites", "inlined", "across", "out of line", "ftrace"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for listed in surveyed.half_inlined() {
        let inlined = survey.inlined(listed.function);
        rows.push(vec![
            survey.text(listed.function.name).to_owned(),
            place(survey, Some(listed.function.file), listed.function.line),
            listed.function.linkage().name().to_owned(),
            count(listed.sites),
            count(inlined.len()),
            count(inlined.iter().filter(|call| call.across).count()),
            count(survey.copies(listed.function).len()),
            reached(survey, listed.function).to_owned(),
        ]);
    }
    render::table(&rows)
}

/// The list for spreadsheets (RFC 4180). Names come from other people's files, so a name that a spreadsheet would take
/// for a formula gets a leading `'`.
pub(super) fn csv(surveyed: &Surveyed) -> String {
    let survey = &surveyed.survey;
    let mut text = String::from(
        "function,file,line,linkage,call_sites,inlined_copies,inlined_copies_across_files,holders,out_of_line_copies,ftrace\r\n",
    );
    for listed in surveyed.half_inlined() {
        let inlined = survey.inlined(listed.function);
        let cells = [
            quoted(survey.text(listed.function.name)),
            quoted(survey.text(listed.function.file)),
            listed.function.line.to_string(),
            quoted(&linkage(listed.function)),
            listed.sites.to_string(),
            inlined.len().to_string(),
            inlined.iter().filter(|call| call.across).count().to_string(),
            survey.holders(listed.function).len().to_string(),
            survey.copies(listed.function).len().to_string(),
            reached(survey, listed.function).to_owned(),
        ];
        text.push_str(&cells.join(","));
        text.push_str("\r\n");
    }
    text
}

/// A cell that contains a text.
fn quoted(cell: &str) -> String {
    let is_formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']);
    let cell = if is_formula { format!("'{cell}") } else { cell.to_owned() };
    if cell.contains([',', '"', '\n', '\r']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_where_they_must_be() {
        assert_eq!(quoted("md_run"), "md_run");
        assert_eq!(quoted("static, declared inline"), "\"static, declared inline\"");
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
    }

    #[test]
    fn no_cell_is_a_formula() {
        for (cell, written) in [
            ("=HYPERLINK(\"x\")", "\"'=HYPERLINK(\"\"x\"\")\""),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "'\t=1"),
            ("\r=1", "\"'\r=1\""),
            ("\n=1", "\"'\n=1\""),
            ("=1,2", "\"'=1,2\""),
            ("a=b", "a=b"),
            ("'=1", "'=1"),
            ("", ""),
        ] {
            assert_eq!(quoted(cell), written, "{cell:?}");
        }
    }
}
