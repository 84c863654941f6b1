//! Which lines of the source a patch touches, for the correlation of variables.

use std::path::Path;

use klpx_build_driver::{self as build_driver, AppliedPatch};
use klpx_diff::{Edits, LineState};

/// The edits of a patch set, by the paths that debug information has.
pub(crate) struct SourceEdits<'a> {
    prepared: &'a AppliedPatch,
    tree: &'a Path,
}

impl<'a> SourceEdits<'a> {
    /// `tree` is the source tree that was given to the compiler.
    pub(crate) fn new(prepared: &'a AppliedPatch, tree: &'a Path) -> SourceEdits<'a> {
        SourceEdits { prepared, tree }
    }

    /// A file's path within the source tree. Files outside the tree are the same in both builds.
    fn in_source<'p>(&self, file: &'p str) -> Option<&'p str> {
        Path::new(file).strip_prefix(self.tree).ok()?.to_str()
    }
}

fn line(known: build_driver::LineEdit) -> LineState {
    match known {
        build_driver::LineEdit::Kept => LineState::Kept,
        build_driver::LineEdit::KeptOneOfSeveral => LineState::KeptOneOfSeveral,
        build_driver::LineEdit::Edited => LineState::Edited,
        build_driver::LineEdit::Unknown => LineState::Unknown,
    }
}

impl Edits for SourceEdits<'_> {
    fn original(&self, file: &str, number: u32) -> LineState {
        self.in_source(file).map_or(LineState::Kept, |file| line(self.prepared.original_line(file, number)))
    }

    fn patched(&self, file: &str, number: u32, name: &str) -> LineState {
        self.in_source(file)
            .map_or(LineState::Kept, |file| line(self.prepared.patched_line(file, number, name)))
    }
}
