//! Code as a table: two builds side by side, or one alone.

use klpx_diagnosis::Offset;
use klpx_engine::code::FunctionBody;
use maud::{Markup, html};

use super::compare::{self, ComparedRow, ListingLine, MOST};
use super::part::word;
use crate::render::{count, plural};

/// The code of a function, ready to be shown.
pub(super) struct Listing {
    /// The original's lines, if there is an original, and the lines of the other side.
    sides: (Option<Vec<ListingLine>>, Vec<ListingLine>),
    rows: Vec<ComparedRow>,
    /// True if the code continues after the last line.
    goes_on: bool,
}

impl Listing {
    /// A listing of both builds: the differences with their surroundings.
    pub(super) fn of_both(original: &FunctionBody, patched: &FunctionBody) -> Listing {
        let (old, new) = (compare::lines(original), compare::lines(patched));
        let rows = compare::fold(&compare::compare(&old, &new));
        let goes_on = old.len() == MOST || new.len() == MOST;
        Listing { sides: (Some(old), new), rows, goes_on }
    }

    /// A listing of one build.
    pub(super) fn of_one(body: &FunctionBody) -> Listing {
        let lines = compare::lines(body);
        let rows = (0..lines.len()).map(|n| ComparedRow::Same(n, n)).collect();
        Listing { goes_on: lines.len() == MOST, sides: (None, lines), rows }
    }

    /// The number of rows in the table.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// How many of the rows differ.
    fn differing(&self) -> usize {
        self.rows.iter().filter(|row| matches!(row, ComparedRow::Differ(..))).count()
    }

    /// The table, with at most `most` rows.
    pub(super) fn table(&self, caption: &str, most: usize) -> Markup {
        let two = self.sides.0.is_some();
        if two && self.differing() == 0 && !self.goes_on {
            return html! {
                p.soft { (caption) ": the " (plural(self.sides.1.len(), "instruction")) " of both builds are the same." }
            };
        }
        let rows = compare::cut(&self.rows, most);
        html! {
            table.listing.one[!two] {
                caption { (caption) @if two { " · " (plural(self.differing(), "row")) " of it " (if self.differing() == 1 { "differs" } else { "differ" }) } }
                colgroup { @for _ in 0..if two { 2 } else { 1 } { col.o; col; } }
                thead { tr {
                    @if two { th scope="col" colspan="2" { "original" } th scope="col" colspan="2" { "patched" } }
                    @else { th scope="col" colspan="2" { "code" } }
                } }
                tbody { @for row in &rows { (self.row(*row, two)) } }
            }
            @if self.goes_on {
                p.soft { "Only the first " (count(MOST)) " instructions were put beside each other." }
            }
        }
    }

    fn row(&self, row: ComparedRow, two: bool) -> Markup {
        let columns = if two { "4" } else { "2" };
        match row {
            ComparedRow::Same(old, new) => html! {
                tr { @if two { (place(self.old(old))) (text(self.old(old))) } (place(self.sides.1.get(new))) (text(self.sides.1.get(new))) }
            },
            ComparedRow::Differ(old, new) => {
                let (old, new) = (old.and_then(|n| self.old(n)), new.and_then(|n| self.sides.1.get(n)));
                html! {
                    tr.x {
                        (place(old)) td { @if let Some(line) = old { del { (word(&line.text)) } } }
                        (place(new)) td { @if let Some(line) = new { ins { (word(&line.text)) } } }
                    }
                }
            }
            ComparedRow::Equal(n) => html! {
                tr.gap { td colspan=(columns) { (plural(n, "instruction")) " not shown: the same in both" } }
            },
            ComparedRow::Cut(n, differ) => html! {
                tr.gap { td colspan=(columns) {
                    "cut here: " (plural(n, "more instruction")) @if two { ", " (count(differ)) " of them in rows that differ" }
                } }
            },
        }
    }

    fn old(&self, n: usize) -> Option<&ListingLine> {
        self.sides.0.as_ref()?.get(n)
    }
}

fn place(line: Option<&ListingLine>) -> Markup {
    html! { td { @if let Some(line) = line { (Offset(line.offset as i64)) } } }
}

fn text(line: Option<&ListingLine>) -> Markup {
    html! { td { @if let Some(line) = line { (word(&line.text)) } } }
}
