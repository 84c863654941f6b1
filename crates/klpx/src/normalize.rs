//! `klpx normalize`: which suffixes the compiler put on an object's names, and which names are not unique without them.

use std::io::Write;
use std::path::Path;

use klpx_diagnosis::{Diagnosis, Result};
use klpx_normalize::census::{self, Census, Uniqueness};
use klpx_normalize::elf::ElfFile;
use klpx_normalize::object::Object;
use serde_json::json;

use crate::args::Normalize;
use crate::render;

/// Schema version of the JSON.
const SCHEMA: u32 = 1;

/// Runs the command.
pub(crate) fn run(args: &Normalize, out: &mut impl Write) -> Result<()> {
    let file = ElfFile::open(&args.object)?;
    let census = census::census(&Object::read(&file)?);
    let text = if args.json { json(args, &census)? } else { text(&census) };
    out.write_all(text.as_bytes())
        .map_err(|e| Diagnosis::io("write", Path::new("standard output"), &e).into())
}

fn text(census: &Census) -> String {
    let unique = |counts: Uniqueness| {
        format!("{} of {} unique without it", render::count(counts.unique), render::count(counts.all))
    };
    let mut rows = vec![
        vec!["symbols".to_owned(), render::count(census.symbols)],
        vec!["with a suffix".into(), unique(census.suffixed)],
        vec!["promoted".into(), unique(census.promoted)],
        vec!["no identity".into(), format!("{} more with a suffix", render::count(census.anonymous))],
    ];
    rows.retain(|row| !row[1].starts_with("0 "));
    let mut text = render::table(&rows);
    let mut rows = vec![["suffix", "form", "symbols", "source"].map(str::to_owned).to_vec()];
    rows.extend(census.kinds.iter().map(|(kind, count)| {
        vec![kind.name.to_owned(), kind.form.to_owned(), render::count(*count), kind.source.to_owned()]
    }));
    render::section(&mut text, &rows);
    let mut rows = vec![["not unique", "symbol", "file"].map(str::to_owned).to_vec()];
    for shared in &census.ambiguous {
        for (n, (symbol, file)) in shared.members.iter().enumerate() {
            let base = if n == 0 { shared.base.clone() } else { String::new() };
            rows.push(vec![base, symbol.clone(), file.clone()]);
        }
    }
    render::section(&mut text, &rows);
    text
}

fn json(args: &Normalize, census: &Census) -> Result<String> {
    let kinds: Vec<_> = census
        .kinds
        .iter()
        .map(|(kind, count)| json!({"kind": kind.name, "form": kind.form, "symbols": count}))
        .collect();
    let unique = |counts: Uniqueness| json!({"symbols": counts.all, "unique": counts.unique});
    let ambiguous: Vec<_> = census
        .ambiguous
        .iter()
        .map(|shared| {
            let members: Vec<_> =
                shared.members.iter().map(|(name, file)| json!({"symbol": name, "file": file})).collect();
            json!({"name": shared.base, "promoted": shared.promoted, "symbols": members})
        })
        .collect();
    crate::json::to_text(&json!({
        "schema": SCHEMA,
        "object": args.object.display().to_string(),
        "symbols": census.symbols,
        "kinds": kinds,
        "suffixed": unique(census.suffixed),
        "promoted": unique(census.promoted),
        "without_identity": census.anonymous,
        "ambiguous": ambiguous,
    }))
}
