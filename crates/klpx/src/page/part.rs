//! The pieces that sections are made of: texts, links, tables. Whatever comes from a file goes through [`word`] or
//! [`line()`], and maud escapes it.

use maud::{Markup, html};

use crate::terminal;

/// How many characters of a text from a file are shown. Names of symbols have up to 511.
const LONGEST: usize = 160;

/// A text from a file: without characters that act on what is around it, and not endless.
pub(super) fn word(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        None => terminal::word(text).into_owned(),
        Some((end, _)) => format!("{}… ({} characters)", terminal::word(&text[..end]), text.chars().count()),
    }
}

/// A line of a text from a file, which keeps its tabs.
pub(super) fn line(text: &str) -> String {
    text.split('\t').map(terminal::word).collect::<Vec<_>>().join("\t")
}

/// A text from a file, as code.
pub(super) fn code(text: &str) -> Markup {
    html! { code { (word(text)) } }
}

/// The number of a function on the page, as what its heading is called.
pub(super) fn anchor(number: usize) -> String {
    format!("function-{number}")
}

/// Names and values.
pub(super) fn facts(rows: Vec<(&str, Markup)>) -> Markup {
    html! {
        dl { @for (name, value) in rows { div { dt { (name) } dd { (value) } } } }
    }
}

/// A table whose first cells are the heads of their rows. It can be moved sideways where it is too wide.
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

/// How much each of several lists may show when all together may show `total`: the short ones all, the long ones
/// equally much.
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
