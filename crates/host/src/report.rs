//! The output of a command: lines for people as they arise, or one JSON document at the end.

use std::io::Write;
use std::path::Path;

use klpx_diagnosis::{Diagnosis, Result};
use klpx_terminal::terminal;
use serde_json::{Value, json};

/// Schema version of the JSON.
const SCHEMA: u32 = 1;

/// The destination of a command's output.
pub(crate) struct CommandOutput<'a> {
    out: &'a mut dyn Write,
    json: bool,
    notes: Vec<String>,
}

impl<'a> CommandOutput<'a> {
    pub(crate) fn new(out: &'a mut dyn Write, json: bool) -> CommandOutput<'a> {
        CommandOutput { out, json, notes: Vec::new() }
    }

    /// Prints a line for people.
    pub(crate) fn line(&mut self, text: &str) -> Result<()> {
        self.text(&format!("{}\n", terminal::word(text)))
    }

    /// Prints formatted lines for people.
    pub(crate) fn text(&mut self, text: &str) -> Result<()> {
        if self.json { Ok(()) } else { self.put(text) }
    }

    /// Adds a note for people and programs.
    pub(crate) fn note(&mut self, text: impl Into<String>) -> Result<()> {
        let text = text.into();
        self.line(&format!("note: {text}"))?;
        self.notes.push(text);
        Ok(())
    }

    /// Prints the result for programs. `value` is an object.
    pub(crate) fn result(&mut self, mut value: Value) -> Result<()> {
        if !self.json {
            return Ok(());
        }
        value["schema"] = json!(SCHEMA);
        value["notes"] = json!(std::mem::take(&mut self.notes));
        let text = serde_json::to_string_pretty(&value);
        let text = text.map_err(|_| Diagnosis::internal("a value is JSON"))?;
        self.put(&format!("{}\n", terminal::json(&text)))
    }

    fn put(&mut self, text: &str) -> Result<()> {
        let written = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
        Ok(written.map_err(|error| Diagnosis::io("write", Path::new("standard output"), &error))?)
    }
}
