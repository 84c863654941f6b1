//! Notes: information for the user that does not stop a command.

use std::fmt;
use std::ops::Deref;

use serde::Serialize;

use crate::{Code, DiagnosisPlace, NoteCode};

/// A note: information for the user that does not stop a command.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Note {
    /// Stable code, such as `klpx::hunk-moved`.
    pub code: &'static str,
    /// The note itself.
    pub text: String,
}

impl Note {
    /// A note with its code.
    pub fn new(code: &NoteCode, text: impl Into<String>) -> Note {
        Note { code: code.name, text: text.into() }
    }

    /// A note on a place, with the reason.
    pub fn at(code: &NoteCode, what: &str, place: &DiagnosisPlace, why: &str) -> Note {
        Note::new(code, format!("{what} ({place}): {why}"))
    }

    /// A note with the code of a refusal: what would be refused elsewhere is left out here.
    pub fn instead_of(refusal: &Code, what: &str, place: &DiagnosisPlace, why: &str) -> Note {
        Note { code: refusal.name, text: format!("{what} ({place}): {why}") }
    }
}

impl Deref for Note {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
