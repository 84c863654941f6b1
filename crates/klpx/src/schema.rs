//! `klpx schema`: the JSON schemas of everything that klpx prints and writes for programs.

use std::io::Write;
use std::path::Path;

use clap::ValueEnum;
use klpx_diagnosis::{Diagnosis, Result};

use crate::render;

/// What has a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Schema {
    /// klpx build --report
    Report,
    /// klpx build --progress json: one line
    Progress,
    /// klpx doctor --json
    Doctor,
    /// klpx diff --json
    Diff,
    /// klpx inspect --json
    Inspect,
    /// klpx test --json
    Test,
    /// klpx package --json
    Package,
    /// klpx normalize --json
    Normalize,
    /// klpx inline-check --json
    InlineCheck,
    /// klpx load --json
    Load,
    /// klpx unload --json
    Unload,
    /// klpx status --json
    Status,
    /// klpx check --json
    Check,
    /// klpx list --json
    List,
    /// klpx install --json
    Install,
    /// klpx uninstall --json
    Uninstall,
}

impl Schema {
    fn text(self) -> &'static str {
        match self {
            Schema::Report => include_str!("schema/report.json"),
            Schema::Progress => include_str!("schema/progress.json"),
            Schema::Doctor => include_str!("schema/doctor.json"),
            Schema::Diff => include_str!("schema/diff.json"),
            Schema::Inspect => include_str!("schema/inspect.json"),
            Schema::Test => include_str!("schema/test.json"),
            Schema::Package => include_str!("schema/package.json"),
            Schema::Normalize => include_str!("schema/normalize.json"),
            Schema::InlineCheck => include_str!("schema/inline-check.json"),
            Schema::Load => on_host("load"),
            Schema::Unload => on_host("unload"),
            Schema::Status => on_host("status"),
            Schema::Check => on_host("check"),
            Schema::List => on_host("list"),
            Schema::Install => on_host("install"),
            Schema::Uninstall => on_host("uninstall"),
        }
    }
}

/// The schema of a command that klpx-host has as well.
fn on_host(command: &str) -> &'static str {
    klpx_host::SCHEMAS.iter().find(|(name, _)| *name == command).map_or("", |(_, text)| text)
}

/// Prints a schema, or the list of all schemas.
pub(crate) fn run(schema: Option<Schema>, out: &mut impl Write) -> Result<()> {
    let text = match schema {
        Some(schema) => schema.text().to_owned(),
        None => list(),
    };
    out.write_all(text.as_bytes())
        .map_err(|error| Diagnosis::io("write", Path::new("standard output"), &error).into())
}

fn list() -> String {
    let values = Schema::value_variants().iter().filter_map(ValueEnum::to_possible_value);
    let rows = values.map(|value| {
        let help = value.get_help().map(ToString::to_string).unwrap_or_default();
        vec![value.get_name().to_owned(), help]
    });
    let head = ["schema", "of"].map(str::to_owned).to_vec();
    render::table(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}
