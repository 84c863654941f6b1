//! The shape of every refusal and failure of klpx: a stable code, what happened, where, why, and a remedy.
//!
//! Owns the table of the codes and the exit codes. Never prints: only the CLI knows the terminal.

mod class;
pub mod code;
pub mod codes;
mod failure;
mod note;
pub mod words;

use std::fmt;

use serde::Serialize;

pub use class::Class;
pub use code::{Code, NoteCode};
pub use failure::{Failure, Result};
pub use note::Note;

/// Where in the source, or in which symbol, a diagnosis applies. Any part may be unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct DiagnosisPlace {
    /// The function or object, by the kernel's name for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub symbol: Option<String>,
    /// The place in the symbol's code, in bytes from its entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<i64>,
    /// The file, relative to the kernel tree if it lies in the tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line in `file`, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
}

impl DiagnosisPlace {
    /// A place that is a symbol.
    pub fn symbol(name: impl Into<String>) -> DiagnosisPlace {
        DiagnosisPlace { symbol: Some(name.into()), ..DiagnosisPlace::default() }
    }

    /// A place that is a file, with a line if one is known.
    pub fn file(name: impl Into<String>, line: Option<u32>) -> DiagnosisPlace {
        DiagnosisPlace { file: Some(name.into()), line, ..DiagnosisPlace::default() }
    }

    /// The same place, moved to `offset` bytes from the symbol's entry.
    pub fn inside(mut self, offset: i64) -> DiagnosisPlace {
        self.offset = Some(offset);
        self
    }

    /// The same place with a file and line.
    pub fn at(mut self, file: impl Into<String>, line: Option<u32>) -> DiagnosisPlace {
        self.file = Some(file.into());
        self.line = line;
        self
    }

    /// Returns true if every part is unknown.
    pub fn is_empty(&self) -> bool {
        *self == DiagnosisPlace::default()
    }
}

impl fmt::Display for DiagnosisPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut gap = "";
        if let Some(symbol) = &self.symbol {
            write!(f, "{}", Offset(self.offset.unwrap_or_default()).behind(symbol))?;
            gap = " at ";
        }
        if let Some(file) = &self.file {
            write!(f, "{gap}{file}")?;
            if let Some(line) = self.line {
                write!(f, ":{line}")?;
            }
        }
        Ok(())
    }
}

/// Bytes from an entry, in the usual notation: `+0x10` after the entry, `-0x10` before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offset(pub i64);

impl Offset {
    /// The name followed by the offset. At the entry itself, the name alone.
    pub fn behind(self, name: impl fmt::Display) -> String {
        match self.0 {
            0 => name.to_string(),
            _ => format!("{name}{self}"),
        }
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { '-' } else { '+' };
        write!(f, "{sign}{:#x}", self.0.unsigned_abs())
    }
}

/// One thing that is wrong: what happened, where, why, and a remedy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Diagnosis {
    /// Stable code, such as `klpx::changed-data`.
    pub code: &'static str,
    /// The kind of failure.
    pub class: Class,
    /// What happened, as a lower-case fragment without a full stop.
    pub what: String,
    /// Where.
    #[serde(skip_serializing_if = "DiagnosisPlace::is_empty")]
    pub place: DiagnosisPlace,
    /// Why it is a failure.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// What the user can do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remedy: String,
    /// Further lines, shown unchanged: the compiler's output, a list of symbols.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub detail: Vec<String>,
}

/// The remedy of a fault in klpx itself.
pub const REPORT: &str = "report this fault with the whole message, the kernel's version and the patch";

impl Diagnosis {
    /// A diagnosis: its code, what happened, why it is a failure, and what the user can do. For an empty reason or
    /// remedy, the diagnosis has the code's meaning or the name of the code's page.
    pub fn new(
        code: &Code,
        what: impl Into<String>,
        why: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Diagnosis {
        let remedy = remedy.into();
        debug_assert!(!remedy.is_empty(), "a diagnosis without a remedy: {}", code.name);
        Diagnosis {
            code: code.name,
            class: code.class,
            what: what.into(),
            place: DiagnosisPlace::default(),
            why: code.reason_or(why.into()),
            remedy: code.remedy_or(remedy),
            detail: Vec::new(),
        }
    }

    /// Sets the place.
    pub fn place(mut self, place: DiagnosisPlace) -> Diagnosis {
        self.place = place;
        self
    }

    /// Replaces what the user can do, where a caller knows more than the constructor. An empty remedy replaces nothing.
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Diagnosis {
        let remedy = remedy.into();
        if !code::is_blank(&remedy) {
            self.remedy = remedy;
        }
        self
    }

    /// Adds lines that are shown unchanged.
    pub fn detail(mut self, lines: impl IntoIterator<Item = String>) -> Diagnosis {
        self.detail.extend(lines);
        self
    }

    /// A fault in klpx itself.
    pub fn internal(why: &str) -> Diagnosis {
        Diagnosis::new(&codes::INTERNAL, "a fault in klpx", why, REPORT)
    }

    /// A failed system call on a file. A full disk has its own code.
    pub fn io(doing: &str, path: &std::path::Path, error: &std::io::Error) -> Diagnosis {
        let (code, remedy) = match error.kind() {
            std::io::ErrorKind::StorageFull => {
                (&codes::DISK_FULL, "free some space, or name another cache directory with --cache-dir")
            }
            _ => (&codes::IO, "check the path, the rights and the disk"),
        };
        Diagnosis::new(code, format!("can't {doing} {}", path.display()), error.to_string(), remedy)
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        if !self.place.is_empty() {
            write!(f, " ({})", self.place)?;
        }
        if !self.why.is_empty() {
            write!(f, ": {}", self.why)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Diagnosis, Offset, codes};

    #[test]
    fn an_empty_remedy_replaces_none() {
        let diagnosis = Diagnosis::new(&codes::IO, "what", " ", "remedy").with_remedy("\n");
        let cause = "The system could not read, write or open a file";
        assert_eq!((diagnosis.why.as_str(), diagnosis.remedy.as_str()), (cause, "remedy"));
        assert_eq!(diagnosis.with_remedy("another").remedy, "another");
    }

    #[test]
    fn offsets_carry_their_sign() {
        for (offset, text) in [(0, "+0x0"), (0x10, "+0x10"), (-0x10, "-0x10")] {
            assert_eq!(Offset(offset).to_string(), text);
        }
        for (offset, text) in [(0, "f"), (8, "f+0x8"), (-0x10, "f-0x10")] {
            assert_eq!(Offset(offset).behind("f"), text);
        }
    }
}
