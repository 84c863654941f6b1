//! Diagnoses and tables as text, readable without colour.

pub use klpx_diagnosis::words::{count, plural};
use klpx_diagnosis::{Diagnosis, Failure};

use crate::terminal;

/// The most errors with one code that are told one by one.
const ALIKE: usize = 10;

/// A failure as text for people. Of many errors with one code, the first are told and the others are counted.
pub fn failure(failure: &Failure) -> String {
    let mut codes: Vec<(&str, usize)> = Vec::new();
    let mut told = Vec::new();
    for one in failure.diagnoses() {
        let known = codes.iter_mut().find(|(code, _)| *code == one.code);
        let seen = known.map_or(0, |(_, seen)| std::mem::replace(seen, *seen + 1));
        if seen == 0 {
            codes.push((one.code, 1));
        }
        if seen < ALIKE {
            told.push(diagnosis(one));
        }
    }
    for (code, seen) in codes.into_iter().filter(|&(_, seen)| seen > ALIKE) {
        told.push(format!("{} more errors [{code}], which --report or --json lists\n", count(seen - ALIKE)));
    }
    told.join("\n")
}

fn diagnosis(d: &Diagnosis) -> String {
    let mut text = format!("error: {} [{}]\n", terminal::word(&d.what), d.code);
    let mut line = |label: &str, value: &str| {
        if !value.is_empty() {
            text.push_str(&format!("  {label:6} {}\n", terminal::word(value)));
        }
    };
    line("where", &d.place.to_string());
    line("why", &d.why);
    for (n, detail) in d.detail.iter().enumerate() {
        // Tabs become spaces, so that a compiler's lines keep their columns.
        line(if n == 0 { "shown" } else { "" }, &detail.replace('\t', "        "));
    }
    line("hint", &d.remedy);
    text
}

/// Rows with aligned columns. The last column is not padded.
pub fn table(rows: &[Vec<String>]) -> String {
    let cells = |row: &Vec<String>| row.iter().map(|cell| terminal::word(cell).into_owned()).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(cells).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |n: usize| rows.iter().filter_map(|row| row.get(n)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::from(" ");
        for (cell, &width) in row.iter().zip(&widths) {
            line.push_str(&format!(" {cell:width$} "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A table whose cells are numbers, except the first of each row. Numbers are aligned on the right.
pub fn numbers(rows: &[Vec<String>]) -> String {
    let width =
        |n: usize| rows.iter().filter_map(|row| row.get(n)).map(|c| c.chars().count()).max().unwrap_or(0);
    let aligned = |row: &Vec<String>| {
        let cells = row.iter().enumerate();
        cells.map(|(n, cell)| if n == 0 { cell.clone() } else { format!("{cell:>0$}", width(n)) }).collect()
    };
    table(&rows.iter().map(aligned).collect::<Vec<_>>())
}

/// A size in bytes, with separated thousands.
pub fn bytes(n: u64) -> String {
    count(usize::try_from(n).unwrap_or(usize::MAX))
}

/// Appends a table, unless it has only its heading.
pub fn section(text: &mut String, rows: &[Vec<String>]) {
    if rows.len() > 1 {
        text.push('\n');
        text.push_str(&table(rows));
    }
}

#[cfg(test)]
mod tests {
    use klpx_diagnosis::codes;

    use super::*;

    #[test]
    fn names_make_no_lines_and_columns_of_their_own() {
        let rows = [vec!["object".into(), "function".into()], vec!["a\nb".into(), "\u{1b}[2Jf\tg".into()]];
        assert_eq!(table(&rows), "  object   function\n  a\\u{a}b  \\u{1b}[2Jf\\u{9}g\n");
        let text = failure(&Diagnosis::new(&codes::IO, "no \u{1b}c", "w\u{1b}", "r\u{1b}").into());
        assert_eq!(text, "error: no \\u{1b}c [klpx::io]\n  why    w\\u{1b}\n  hint   r\\u{1b}\n");
    }

    #[test]
    fn many_errors_with_one_code_are_counted() {
        let error = |code, n: usize| Diagnosis::new(code, format!("no {n}"), "why", "remedy");
        let mut all: Vec<Diagnosis> = (0..ALIKE + 2).map(|n| error(&codes::IO, n)).collect();
        all.push(error(&codes::ASSEMBLY, 0));
        let text = failure(&Failure::all(all).expect_err("errors"));
        assert_eq!(text.matches("error: ").count(), ALIKE + 1, "{text}");
        assert!(text.contains("[klpx::assembly]"), "{text}");
        assert!(text.ends_with("\n\n2 more errors [klpx::io], which --report or --json lists\n"), "{text}");
    }

    #[test]
    fn numbers_are_aligned_on_the_right() {
        let rows = [vec!["functions".into(), "inlined".into()], vec!["all".into(), "12".into()]];
        assert_eq!(numbers(&rows), "  functions  inlined\n  all             12\n");
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["object".into(), "function".into()], vec!["vmlinux".into(), "md_run".into()]];
        assert_eq!(table(&rows), "  object   function\n  vmlinux  md_run\n");
    }
}
