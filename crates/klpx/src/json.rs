//! JSON as text, for files and the terminal.

use klpx_diagnosis::{Diagnosis, Result, codes};
use klpx_terminal::terminal::json;
use serde::Serialize;

/// Pretty JSON with a newline at its end.
pub(crate) fn to_text(value: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(value).map_err(|e| {
        Diagnosis::new(&codes::INTERNAL, "can't write JSON", e.to_string(), klpx_diagnosis::REPORT)
    })?;
    let mut text = json(&text).into_owned();
    text.push('\n');
    Ok(text)
}
