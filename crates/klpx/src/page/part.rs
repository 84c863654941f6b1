//! The building blocks of sections: texts, links, tables. Any text from a file goes through [`word`] or [`line()`], and
//! maud escapes it.

use maud::{Markup, html};

use crate::terminal;

/// How many characters of a file's text are shown. Symbol names have up to 511.
const LONGEST: usize = 160;

/// A text from a file, limited in length and without characters that affect the surrounding text.
pub(super) fn word(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        None => terminal::word(text).into_owned(),
        Some((end, _)) => format!("{}… ({} characters)", terminal::word(&text[..end]), text.chars().count()),
    }
}

/// A line of text from a file, with its tabs kept.
pub(super) fn line(text: &str) -> String {
    text.split('\t').map(terminal::word).collect::<Vec<_>>().join("\t")
}

/// A text from a file, marked up as code.
pub(super) fn code(text: &str) -> Markup {
    html! { code { (word(text)) } }
}

/// The anchor of a function's heading, from its number on the page.
pub(super) fn anchor(number: usize) -> String {
    format!("function-{number}")
}

/// A list of names and values.
pub(super) fn facts(rows: Vec<(&str, Markup)>) -> Markup {
    html! {
        dl { @for (name, value) in rows { div { dt { (name) } dd { (value) } } } }
    }
}

/// A table whose first column heads the rows. A table that is too wide can be scrolled sideways.
pub(super) fn table(caption: &str, heads: &[&str], rows: &[Vec<Markup>]) -> Markup {
    html! {
        div.wide role="region" tabindex="0" aria-label=(caption) {
            table {
                caption { (caption) }
                thead { tr { @for head in heads { th scope="col" { (head) } } } }
                tbody {
                    @for row in rows {
                        tr {
                            @for (n, cell) in row.iter().enumerate() {
                                @if n == 0 { th scope="row" { (cell) } } @else { td { (cell) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// How much each of several lists may show if together they may show `total`: short lists are shown in full, and long
/// lists share the rest equally.
pub(super) fn share(lengths: &[usize], total: usize) -> usize {
    let mut sorted = lengths.to_vec();
    sorted.sort_unstable();
    let mut left = total;
    for (n, length) in sorted.iter().enumerate() {
        let each = left / (sorted.len() - n);
        if *length > each {
            return each;
        }
        left -= length;
    }
    usize::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_from_files_are_only_text() {
        let shown = code("<script>&\"\u{202e}\n").into_string();
        assert_eq!(shown, "<code>&lt;script&gt;&amp;&quot;\\u{202e}\\u{a}</code>");
        let long = word(&"é".repeat(500));
        assert!(long.ends_with("é… (500 characters)") && long.chars().count() < 200, "{long}");
        assert_eq!(line("\ta\u{1b}\tb"), "\ta\\u{1b}\tb");
    }

    #[test]
    fn what_is_left_of_short_lists_goes_to_long_ones() {
        for (lengths, total, wanted) in [
            (&[][..], 10, usize::MAX),
            (&[3, 4], 10, usize::MAX),
            (&[1, 100, 100], 21, 10),
            (&[100, 100], 0, 0),
        ] {
            assert_eq!(share(lengths, total), wanted, "{lengths:?}");
        }
    }
}
