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
    /// The reason, or the code's meaning if the reason is empty.
    pub(crate) fn reason_or(&self, why: String) -> String {
        match is_blank(&why) {
            true => self.summary.trim_end_matches('.').to_owned(),
            false => why,
        }
    }

    /// The remedy, or the command that shows the code's page if the remedy is empty.
    pub(crate) fn remedy_or(&self, remedy: String) -> String {
        match is_blank(&remedy) {
            true => format!("read klpx explain {}", self.short_name()),
            false => remedy,
        }
    }

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

/// Returns true if a text says nothing.
pub(crate) fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

pub use crate::codes::Page;

#[cfg(test)]
mod tests {
    use crate::codes;

    /// `Diagnosis::new` uses both, and a debug build also stops at an empty remedy.
    #[test]
    fn each_code_has_a_reason_and_a_remedy_for_users() {
        let all = codes::ALL.iter().filter_map(|row| {
            let class = row.class?;
            Some(super::Code { name: row.name, class, summary: row.summary, page: row.page })
        });
        for code in all {
            for empty in ["", " \n"] {
                assert!(!super::is_blank(&code.reason_or(empty.to_owned())), "{}", code.name);
                let remedy = code.remedy_or(empty.to_owned());
                assert_eq!(remedy, format!("read klpx explain {}", code.short_name()));
            }
            assert_eq!([code.reason_or("why".to_owned()), code.remedy_or("do".to_owned())], ["why", "do"]);
        }
    }
}
