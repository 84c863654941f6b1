//! The form of a diagnosis code. The table of all codes is in `codes.rs`.

use crate::Class;

/// The beginning of every code's name.
pub const PREFIX: &str = "klpx::";

/// A stable code of diagnoses, or of notes if `C` is `()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code<C = Class> {
    /// The code as users see it, such as `klpx::changed-data`.
    pub name: &'static str,
    /// The kind of failure; a note has none.
    pub class: C,
    /// The code's meaning in one sentence: the first sentence of its section in the page.
    pub summary: &'static str,
    /// The page of `klpx explain` that has the code's section.
    pub page: Page,
}

/// The code of a note.
pub type NoteCode = Code<()>;

/// A row of the table: the code of diagnoses or of notes.
pub type Row = Code<Option<Class>>;

impl<C> Code<C> {
    /// The name without `klpx::`.
    pub fn short_name(&self) -> &'static str {
        self.name.strip_prefix(PREFIX).unwrap_or(self.name)
    }
}

impl Code {
    /// The code's row of the table.
    pub(crate) const fn row(&self) -> Row {
        Code { name: self.name, class: Some(self.class), summary: self.summary, page: self.page }
    }
}

impl NoteCode {
    /// The code's row of the table.
    pub(crate) const fn row(&self) -> Row {
        Code { name: self.name, class: None, summary: self.summary, page: self.page }
    }
}

pub use crate::codes::Page;
