//! The patches as they were read, with a name for each hunk.

use std::path::Path;

use klpx_engine::PlacedHunk;
use maud::{Markup, html};

use super::part::{line, word};
use crate::render::{count, plural};

/// How many bytes of all patches together are shown.
const MOST: usize = 200_000;

/// The section of the patches.
pub(super) fn section(names: &[String], texts: &[Vec<u8>]) -> Markup {
    let mut left = MOST;
    html! {
        h2 id="patch" { @if names.len() == 1 { "The patch" } @else { "The patches" } }
        @for (n, (name, text)) in names.iter().zip(texts).enumerate() {
            h3 { code { (word(&file_name(name))) } }
            (patch(n + 1, &String::from_utf8_lossy(text), &mut left))
        }
    }
}

/// A patch's file name without its folder.
fn file_name(path: &str) -> String {
    Path::new(path).file_name().map_or_else(|| path.to_owned(), |name| name.to_string_lossy().into())
}

/// The anchor of a hunk's heading.
fn anchor(patch: usize, hunk: usize) -> String {
    format!("hunk-{patch}-{hunk}")
}

/// A link to a hunk.
pub(super) fn link(hunk: &PlacedHunk, names: &[String]) -> Markup {
    let name = names.get(hunk.patch.saturating_sub(1)).map_or("", String::as_str);
    html! {
        a href=(format!("#{}", anchor(hunk.patch, hunk.hunk))) { "hunk " (hunk.hunk) }
        @if names.len() > 1 { " of " (word(&file_name(name))) }
        ", " span.mono { (word(&hunk.file)) ":" (hunk.line) }
    }
}

/// The kind of a patch's line.
#[derive(Debug, PartialEq, Eq)]
enum PatchLineKind {
    /// Text before the first file, or between two files.
    Text,
    /// A line that names a file.
    File,
    /// The first line of the hunk with this number.
    Hunk(usize),
    Kept,
    Removed,
    Added,
}

/// The lines of a patch with their kinds. A hunk's first line gives its number of lines.
fn kinds(text: &str) -> impl Iterator<Item = (PatchLineKind, &str)> {
    let (mut hunk, mut old, mut new) = (0, 0, 0);
    text.lines().map(move |text| {
        let kind = match text.as_bytes().first() {
            _ if old + new == 0 => match ranges(text) {
                Some(lengths) => {
                    hunk += 1;
                    (old, new) = lengths;
                    PatchLineKind::Hunk(hunk)
                }
                None if text.starts_with("--- ") || text.starts_with("+++ ") => PatchLineKind::File,
                None => PatchLineKind::Text,
            },
            Some(b'-') => {
                old = old.saturating_sub(1);
                PatchLineKind::Removed
            }
            Some(b'+') => {
                new = new.saturating_sub(1);
                PatchLineKind::Added
            }
            Some(b'\\') => PatchLineKind::Text,
            _ => {
                (old, new) = (old.saturating_sub(1), new.saturating_sub(1));
                PatchLineKind::Kept
            }
        };
        (kind, text)
    })
}

/// The numbers of old and new lines in a hunk: `@@ -A,B +C,D @@`.
fn ranges(text: &str) -> Option<(usize, usize)> {
    let (old, rest) = text.strip_prefix("@@ -")?.split_once(" +")?;
    let (new, _) = rest.split_once(" @@")?;
    let length = |range: &str| range.split_once(',').map_or(Some(1), |(_, length)| length.parse().ok());
    Some((length(old)?, length(new)?))
}

fn patch(number: usize, text: &str, left: &mut usize) -> Markup {
    let all: Vec<(PatchLineKind, &str)> = kinds(text).collect();
    let fits = |(_, text): &&(PatchLineKind, &str)| {
        let rest = left.checked_sub(text.len() + 1);
        *left = rest.unwrap_or(0);
        rest.is_some()
    };
    let shown: Vec<&(PatchLineKind, &str)> = all.iter().take_while(fits).collect();
    let cut = all.len() - shown.len();
    html! {
        pre.patch tabindex="0" { code {
            @for (kind, text) in shown {
                @match kind {
                    PatchLineKind::Text => span.t { (line(text)) "\n" },
                    PatchLineKind::File => span.f { (line(text)) "\n" },
                    PatchLineKind::Hunk(n) => span.h id=(anchor(number, *n)) { (line(text)) "\n" },
                    PatchLineKind::Kept => { (line(text)) "\n" },
                    PatchLineKind::Removed => del { (line(text)) "\n" },
                    PatchLineKind::Added => ins { (line(text)) "\n" },
                }
            }
        } }
        @if cut > 0 { p.soft { "cut here: " (plural(cut, "more line")) " of " (count(all.len())) } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATCH: &str = "\
From: someone
--- a/x.c
+++ b/x.c
@@ -1,3 +1,3 @@ f
 a
--- b
+++ <b>
 c
@@ -9 +9 @@
-d
+e
\\ No newline at end of file
--- a/y.c
";

    #[test]
    fn a_line_is_what_its_hunk_says() {
        use PatchLineKind::{Added, File, Hunk, Kept, Removed, Text};
        let kinds: Vec<PatchLineKind> = kinds(PATCH).map(|(kind, _)| kind).collect();
        let first = [Text, File, File, Hunk(1), Kept, Removed, Added, Kept];
        assert_eq!(kinds[..8], first);
        assert_eq!(kinds[8..], [Hunk(2), Removed, Added, Text, File]);
    }

    #[test]
    fn a_long_patch_is_cut_and_says_so() {
        let mut left = 40;
        let shown = patch(1, PATCH, &mut left).into_string();
        assert!(shown.contains("cut here: 10 more lines of 13"), "{shown}");
        let shown = patch(1, PATCH, &mut 4000).into_string();
        assert!(shown.contains("<ins>+++ &lt;b&gt;\n</ins>"), "{shown}");
        assert!(shown.contains("id=\"hunk-1-2\"") && !shown.contains("cut here"), "{shown}");
    }
}
