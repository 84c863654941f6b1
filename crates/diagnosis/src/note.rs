//! Notes: information for the user that does not stop a command.

use std::fmt;
use std::ops::Deref;

use serde::Serialize;

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
    pub fn new(code: &'static str, text: impl Into<String>) -> Note {
        Note { code, text: text.into() }
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
