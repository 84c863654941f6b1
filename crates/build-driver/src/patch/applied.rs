//! A patch set that applies: the text of every file before and after, and the lines that the patches edit. Works on text
//! only, without IO.

use std::ops::Range;

use klpx_diagnosis::{Note, codes};

use super::kind::classify;
use super::lines;
use super::placed::PlacedHunk;
use crate::arch::KernelArch;

/// A patch set that applies, with the text of every file before and after.
#[derive(Clone, Debug)]
pub struct AppliedPatch {
    pub(crate) changes: Vec<FileEdit>,
    pub(super) files: usize,
    pub(super) hunks: usize,
    pub(super) placed: Vec<PlacedHunk>,
    pub(super) notes: Vec<Note>,
}

/// One file before and after the patches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileEdit {
    pub(crate) path: String,
    pub(crate) original: Option<Vec<u8>>,
    pub(crate) patched: Option<Vec<u8>>,
    /// The edited lines, as the compiler numbers them. Empty for a file that is new or not C.
    pub(crate) edited: Vec<Range<u32>>,
    /// The replaced lines of the original. An empty range marks a place where lines are added before its line.
    pub(crate) replaced: Vec<Range<u32>>,
    /// The removed lines of the original.
    removed: Vec<Range<u32>>,
    /// The new lines, as the compiler numbers them.
    added: Vec<(u32, String)>,
    /// The first line whose number differs from the original's.
    unplaced: Option<u32>,
}

/// How a patch affects one line of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEdit {
    /// Both sources have the line, and no other line reads the same.
    Kept,
    /// Both sources have the line, and other lines read the same.
    KeptOneOfSeveral,
    /// Only one source has the line.
    Edited,
    /// Kept and edited lines share this number.
    Unknown,
}

impl AppliedPatch {
    /// The number of files that the patches touch, even if they are not compiled.
    pub fn files(&self) -> usize {
        self.files
    }

    /// The files that the patch changes or adds, as paths in the source tree, with their patched contents.
    pub fn patched_files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.changes.iter().filter_map(|change| Some((change.path.as_str(), change.patched.as_deref()?)))
    }

    /// The number of hunks in all patches.
    pub fn hunks(&self) -> usize {
        self.hunks
    }

    /// Paths of the files that change, sorted.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.changes.iter().map(|change| change.path.as_str())
    }

    /// Notes for the user: files that were passed over, hunks that applied at another line, line numbers that moved.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// The lines of a file that the patches edit, as the compiler numbers them. For a new file, all lines.
    pub fn edits(&self, path: &str) -> Vec<Range<u32>> {
        match self.changes.iter().find(|change| change.path == path) {
            Some(change) if change.original.is_none() => std::iter::once(1..u32::MAX).collect(),
            Some(change) => change.edited.clone(),
            None => Vec::new(),
        }
    }

    /// Returns true if the patches edit the function that the original of the file declares in line `first`. `next` is
    /// the line that declares the next function.
    pub fn edits_function(&self, path: &str, first: u32, next: Option<u32>) -> bool {
        let Some(change) = self.changes.iter().find(|change| change.path == path) else { return false };
        let Some(original) = change.kept() else { return true };
        // The search for the end of the function is only needed if its lines may be edited.
        change.replaced.iter().any(|lines| within(lines, first, next.unwrap_or(u32::MAX)))
            && edits_of(change, original, first, next).next().is_some()
    }

    /// How the patch affects a line of the original.
    pub fn original_line(&self, path: &str, line: u32) -> LineEdit {
        let Some(change) = self.changes.iter().find(|change| change.path == path) else {
            return LineEdit::Kept;
        };
        let Some(text) = change.original_text(line) else { return LineEdit::Unknown };
        if change.patched.is_none() || change.removed.iter().any(|lines| lines.contains(&line)) {
            return LineEdit::Edited;
        }
        let original = decode(change.original.as_deref().unwrap_or_default());
        let same = original.lines().chain(change.added.iter().map(|(_, text)| text.trim_end_matches('\n')));
        match same.filter(|other| *other == text).nth(1) {
            Some(_) => LineEdit::KeptOneOfSeveral,
            None => LineEdit::Kept,
        }
    }

    /// How the patch affects the line with `word` that the compiler numbers `line` in the patched source.
    pub fn patched_line(&self, path: &str, line: u32, word: &str) -> LineEdit {
        let Some(change) = self.changes.iter().find(|change| change.path == path) else {
            return LineEdit::Kept;
        };
        if change.original.is_none() {
            return LineEdit::Edited;
        }
        if change.unplaced.is_some_and(|first| first <= line) {
            return LineEdit::Unknown;
        }
        let has = |text: &str| words(text).any(|other| other == word);
        let mut added = change.added.iter().filter(|(number, _)| *number == line).peekable();
        let original = self.original_line(path, line);
        if added.peek().is_none() || original == LineEdit::Edited {
            return original;
        }
        match (change.original_text(line).is_some_and(|text| has(&text)), added.any(|(_, text)| has(text))) {
            (true, false) => original,
            (false, true) => LineEdit::Edited,
            _ => LineEdit::Unknown,
        }
    }

    /// The patched text of a file, with the `#line` directives for the build. `None` for a deleted file.
    pub fn patched_text(&self, path: &str) -> Option<&[u8]> {
        self.changes.iter().find(|change| change.path == path)?.patched.as_deref()
    }
}

impl FileEdit {
    pub(crate) fn new(path: String, original: Option<Vec<u8>>, patched: Option<Vec<u8>>) -> FileEdit {
        let (edited, replaced, removed, added) = Default::default();
        FileEdit { path, original, patched, edited, replaced, removed, added, unplaced: None }
    }

    /// The text of the original, if both sources have the file.
    pub(super) fn kept(&self) -> Option<&[u8]> {
        self.patched.as_ref().and(self.original.as_deref())
    }

    /// One line of the original.
    fn original_text(&self, line: u32) -> Option<String> {
        let text = decode(self.original.as_deref()?);
        text.lines().nth(line.checked_sub(1)? as usize).map(str::to_owned)
    }

    /// Inserts `#line` directives into a patched C file.
    pub(super) fn number_lines(&mut self, arch: KernelArch, notes: &mut Vec<Note>) {
        let kind = classify(&self.path, arch);
        let (Some(original), Some(patched)) = (&self.original, &self.patched) else { return };
        if !kind.is_c() {
            return;
        }
        let numbered = lines::number(&decode(original), &decode(patched));
        for line in &numbered.unplaced {
            let text = format!("{}: line numbers move from line {line} on, up to the next hunk", self.path);
            notes.push(Note::new(&codes::LINES_MOVE, text));
        }
        self.patched = Some(encode(&numbered.text));
        self.edited = numbered.edited;
        self.replaced = numbered.replaced;
        self.removed = numbered.removed;
        self.added = numbered.added;
        self.unplaced = numbered.unplaced.first().copied();
    }
}

/// Returns true if replaced lines lie after line `first` and not after line `last`.
fn within(lines: &Range<u32>, first: u32, last: u32) -> bool {
    match lines.is_empty() {
        true => first < lines.start && lines.start <= last,
        false => first < lines.end && lines.start <= last,
    }
}

/// The edits in a function.
pub(super) fn edits_of<'c>(
    change: &'c FileEdit,
    original: &[u8],
    first: u32,
    next: Option<u32>,
) -> impl Iterator<Item = &'c Range<u32>> {
    let last = lines::end_of_function(&decode(original), first, next).min(next.unwrap_or(u32::MAX));
    change.replaced.iter().filter(move |lines| within(lines, first, last))
}

/// The C words of a line.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
}

/// Decodes bytes to text, one character for each byte. Some kernel files are not UTF-8, and no byte may change.
fn decode(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

fn encode(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect()
}
