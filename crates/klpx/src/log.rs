//! `KLPX_LOG`: klpx's own steps on standard error, for whoever works on klpx. Everybody else reads the report.

use klpx_diagnosis::{Diagnosis, Result, codes};
use tracing_subscriber::filter::LevelFilter;

/// The variable that names the level.
const VARIABLE: &str = "KLPX_LOG";

/// Prints the steps of the level that the variable names, and of the graver levels. Without the variable, prints none.
///
/// # Errors
/// `klpx::usage` if the variable names no level.
pub(crate) fn begin() -> Result<()> {
    let Some(value) = std::env::var_os(VARIABLE) else { return Ok(()) };
    let level = value.to_str().and_then(|value| value.parse::<LevelFilter>().ok());
    let level = level.ok_or_else(|| {
        Diagnosis::new(
            &codes::USAGE,
            format!("{VARIABLE} names no level: {}", value.display()),
            "klpx can't tell which of its steps to print",
            "set it to off, error, warn, info, debug or trace",
        )
    })?;
    let lines = tracing_subscriber::fmt().with_writer(std::io::stderr).without_time().with_ansi(false);
    lines.with_max_level(level).init();
    Ok(())
}
