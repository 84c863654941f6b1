//! The shape of every refusal and failure of klpx: a stable code, what happened, where, why, and a remedy.
//!
//! Owns the form of the codes and the exit codes. Never prints: only the CLI knows the terminal.

mod note;
pub mod words;

use std::fmt;

use serde::Serialize;

pub use note::Note;

/// What kind of failure a diagnosis is; each kind has one documented exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// The command line asks for something that can't be done.
    Usage,
    /// The patch can't be read, leaves the tree, or does not apply.
    Patch,
    /// A build failed: the patched source does not compile, the tree is unusable.
    Build,
    /// The patch changes no code or data: there is nothing to livepatch.
    Unchanged,
    /// The change can't be made by a livepatch, or klpx does not support it.
    NotLivepatchable,
    /// The baseline or the finished module disagrees with the kernel to be patched.
    Verification,
    /// The host lacks something: a tool, disk space, a permission.
    Environment,
    /// A file is not what it should be: truncated, corrupt, another format.
    Input,
    /// A livepatch's transition did not end in time and was reversed.
    Reverted,
    /// A livepatch's transition ends in neither direction.
    Stuck,
    /// Stopped by a signal.
    Interrupted,
    /// A fault in klpx itself.
    Internal,
}

impl Class {
    /// Every class, in the order of the exit codes.
    pub const ALL: [Class; 12] = [
        Class::Usage,
        Class::Patch,
        Class::Build,
        Class::Unchanged,
        Class::NotLivepatchable,
        Class::Verification,
        Class::Environment,
        Class::Input,
        Class::Reverted,
        Class::Stuck,
        Class::Internal,
        Class::Interrupted,
    ];

    /// The process exit code, stable across versions. 0 is success, 1 is never used.
    pub fn exit_code(self) -> u8 {
        match self {
            Class::Usage => 2,
            Class::Patch => 3,
            Class::Build => 4,
            Class::Unchanged => 5,
            Class::NotLivepatchable => 6,
            Class::Verification => 7,
            Class::Environment => 8,
            Class::Input => 9,
            Class::Reverted => 10,
            Class::Stuck => 11,
            Class::Internal => 70,
            Class::Interrupted => 130,
        }
    }
}

/// Where in the source, or in which symbol, a diagnosis applies. Any part may be unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
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

impl Place {
    /// A place that is a symbol.
    pub fn symbol(name: impl Into<String>) -> Place {
        Place { symbol: Some(name.into()), ..Place::default() }
    }

    /// A place that is a file, with a line if one is known.
    pub fn file(name: impl Into<String>, line: Option<u32>) -> Place {
        Place { file: Some(name.into()), line, ..Place::default() }
    }

    /// The same place, moved to `offset` bytes from the symbol's entry.
    pub fn inside(mut self, offset: i64) -> Place {
        self.offset = Some(offset);
        self
    }

    /// The same place with a file and line.
    pub fn at(mut self, file: impl Into<String>, line: Option<u32>) -> Place {
        self.file = Some(file.into());
        self.line = line;
        self
    }

    /// Returns true if every part is unknown.
    pub fn is_empty(&self) -> bool {
        *self == Place::default()
    }
}

impl fmt::Display for Place {
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
    #[serde(skip_serializing_if = "Place::is_empty")]
    pub place: Place,
    /// Why it is a failure. May be empty if `what` says everything.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// What the user can do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remedy: String,
    /// Further lines, shown unchanged: the compiler's output, a list of symbols.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub detail: Vec<String>,
}

impl Diagnosis {
    /// A diagnosis with a code, a class and what happened.
    pub fn new(code: &'static str, class: Class, what: impl Into<String>) -> Diagnosis {
        Diagnosis {
            code,
            class,
            what: what.into(),
            place: Place::default(),
            why: String::new(),
            remedy: String::new(),
            detail: Vec::new(),
        }
    }

    /// Sets the place.
    pub fn place(mut self, place: Place) -> Diagnosis {
        self.place = place;
        self
    }

    /// Sets the reason.
    pub fn why(mut self, why: impl Into<String>) -> Diagnosis {
        self.why = why.into();
        self
    }

    /// Sets what the user can do.
    pub fn remedy(mut self, remedy: impl Into<String>) -> Diagnosis {
        self.remedy = remedy.into();
        self
    }

    /// Adds lines that are shown unchanged.
    pub fn detail(mut self, lines: impl IntoIterator<Item = String>) -> Diagnosis {
        self.detail.extend(lines);
        self
    }

    /// A fault in klpx itself.
    pub fn internal(why: &str) -> Diagnosis {
        Diagnosis::new("klpx::internal", Class::Internal, "a fault in klpx").why(why)
    }

    /// A failed system call on a file. A full disk has its own code.
    pub fn io(doing: &str, path: &std::path::Path, error: &std::io::Error) -> Diagnosis {
        let full = error.kind() == std::io::ErrorKind::StorageFull;
        let code = if full { "klpx::disk-full" } else { "klpx::io" };
        Diagnosis::new(code, Class::Environment, format!("can't {doing} {}", path.display()))
            .why(error.to_string())
            .remedy(if full {
                "free some space, or name another cache directory with --cache-dir"
            } else {
                ""
            })
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

/// Why a command stopped: one or more diagnoses. The first one decides the exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    first: Box<Diagnosis>,
    rest: Vec<Diagnosis>,
}

impl Failure {
    /// A failure with every diagnosis, sorted, or `Ok` if there is none.
    pub fn all(mut diagnoses: Vec<Diagnosis>) -> Result<(), Failure> {
        diagnoses.sort();
        diagnoses.dedup();
        let mut rest = diagnoses.into_iter();
        match rest.next() {
            None => Ok(()),
            Some(first) => Err(Failure { first: Box::new(first), rest: rest.collect() }),
        }
    }

    /// The failure with each diagnosis replaced by the result of `tell`.
    pub fn map(self, tell: impl FnMut(Diagnosis) -> Diagnosis) -> Failure {
        let mut told: Vec<Diagnosis> = std::iter::once(*self.first).chain(self.rest).map(tell).collect();
        Failure { first: Box::new(told.remove(0)), rest: told }
    }

    /// The diagnoses, in order.
    pub fn diagnoses(&self) -> impl Iterator<Item = &Diagnosis> {
        std::iter::once(&*self.first).chain(&self.rest)
    }

    /// The exit code of the first diagnosis.
    pub fn exit_code(&self) -> u8 {
        self.first.class.exit_code()
    }
}

impl From<Diagnosis> for Failure {
    fn from(diagnosis: Diagnosis) -> Failure {
        Failure { first: Box::new(diagnosis), rest: Vec::new() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, diagnosis) in self.diagnoses().enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            write!(f, "{diagnosis}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

/// The result of a fallible operation in klpx.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::Offset;

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
