//! The hunk and the patch that edit a line of the source. Works on text only, without IO.

use std::ops::Range;

use serde::Serialize;

use super::PatchSet;
use super::parse::{file_change, file_patches, trim};

/// A hunk of a patch set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PlacedHunk {
    /// The number of the patch, from 1.
    pub patch: usize,
    /// The number of the hunk in the patch, from 1, counted over all files.
    pub hunk: usize,
    /// The file, relative to the source.
    pub file: String,
    /// The hunk's first line in the original, including context.
    pub line: u32,
    /// The line of the original after the hunk.
    #[serde(skip)]
    end: u32,
}

impl PlacedHunk {
    /// Returns true if the lines of the original lie within or next to the hunk. An empty range stands before its line.
    pub(super) fn has(&self, lines: &Range<u32>) -> bool {
        lines.start <= self.end && self.line <= lines.end
    }
}

impl PatchSet {
    /// Every hunk, in patch order. `original` gives the text of a file before all patches.
    pub(super) fn placed<'t>(&self, original: impl Fn(&str) -> Option<&'t [u8]>) -> Vec<PlacedHunk> {
        let mut placed = Vec::new();
        for (n, patch) in self.patches.iter().enumerate() {
            let mut number = 0;
            for file in file_patches(&patch.text).flatten() {
                let (Ok(change), Some(text)) = (file_change(&patch.name, &file), file.patch().as_text())
                else {
                    continue;
                };
                let lines = original(&change.path).map(String::from_utf8_lossy).unwrap_or_default();
                let lines: Vec<&str> = lines.lines().collect();
                for hunk in text.hunks() {
                    number += 1;
                    let old = hunk.lines().iter().filter_map(|line| match line {
                        diffy::Line::Insert(_) => None,
                        diffy::Line::Delete(text) | diffy::Line::Context(text) => Some(trim(text)),
                    });
                    let old: Vec<String> = old.collect();
                    // A hunk without old lines names the line before it.
                    let named = hunk.old_range().start() + usize::from(old.is_empty());
                    let first = place(&lines, &old, named.saturating_sub(1));
                    let line = |n: usize| u32::try_from(n + 1).unwrap_or(u32::MAX);
                    placed.push(PlacedHunk {
                        patch: n + 1,
                        hunk: number,
                        file: change.path.clone(),
                        line: line(first),
                        end: line(first + old.len()),
                    });
                }
            }
        }
        placed
    }
}

/// The index of a hunk's old lines: the named line, or the nearest line where all old lines match.
fn place(lines: &[&str], old: &[String], named: usize) -> usize {
    let fits = |at: usize| {
        let there = lines.get(at..at.saturating_add(old.len()));
        there.is_some_and(|there| there.iter().zip(old).all(|(line, old)| line.trim_end() == old.trim_end()))
    };
    let nearer =
        (0..=lines.len().max(named)).flat_map(|far| [named.checked_sub(far), named.checked_add(far)]);
    nearer.flatten().find(|&at| fits(at)).unwrap_or(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGINAL: &str = "a\nb\nc\nd\ne\nf\n";

    fn placed(patch: &str) -> Vec<(usize, usize, u32, u32)> {
        let set = PatchSet::from_text("x.patch", patch.as_bytes()).expect("a patch");
        let all = set.placed(|path| (path == "x.c").then_some(ORIGINAL.as_bytes()));
        all.into_iter().map(|hunk| (hunk.patch, hunk.hunk, hunk.line, hunk.end)).collect()
    }

    #[test]
    fn a_hunk_is_where_its_lines_are() {
        let head = "--- a/x.c\n+++ b/x.c\n";
        for (hunk, wanted) in [
            ("@@ -2,2 +2,3 @@\n b\n+new\n c\n", (1, 1, 2, 4)),
            // The hunk applies two lines below the stated line.
            ("@@ -2,2 +2,3 @@\n d\n+new\n e\n", (1, 1, 4, 6)),
            // The hunk's lines are nowhere in the original: an earlier patch made them.
            ("@@ -3,2 +3,3 @@\n x\n+new\n y\n", (1, 1, 3, 5)),
            ("@@ -2,0 +3 @@\n+new\n", (1, 1, 3, 3)),
        ] {
            assert_eq!(placed(&format!("{head}{hunk}")), [wanted], "{hunk}");
        }
    }

    #[test]
    fn lines_are_a_hunks_when_they_touch_it() {
        let hunk = PlacedHunk { patch: 1, hunk: 1, file: "x.c".into(), line: 10, end: 17 };
        for (lines, wanted) in
            [(13..14, true), (13..13, true), (17..17, true), (18..19, false), (1..9, false)]
        {
            assert_eq!(hunk.has(&lines), wanted, "{lines:?}");
        }
    }
}
