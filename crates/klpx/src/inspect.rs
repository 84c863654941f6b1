//! `klpx inspect`: the contents of a livepatch module.

use std::io::Write;
use std::path::Path;

use klpx_diagnosis::{Diagnosis, Result};
use klpx_engine::code;
use klpx_normalize::elf::ElfFile;
use klpx_verify::inspect::{self, Module};
use serde_json::json;

use crate::args::Inspect;
use crate::output::OutputFile;
use crate::signer::Signed;
use crate::{json, page, render, report};

/// Schema version of the JSON.
const SCHEMA: u32 = 1;

/// Runs the command. Shows the contents, and then fails if it was told to check the signature and the signature is not
/// right.
pub(crate) fn run(args: &Inspect, out: &mut impl Write) -> Result<()> {
    let place = args.page.as_deref().map(|path| claim(args, path)).transpose()?;
    let file = ElfFile::open(&args.module)?;
    let module = inspect::inspect(&file)?;
    let signed = Signed::read(file.bytes(), args.cert.as_deref())?;
    if let Some(place) = place {
        place.write(page(args, &file, &module, &signed)?.as_bytes())?;
    }
    let text = if args.json { json(&module, &signed)? } else { text(&module, &signed) };
    out.write_all(text.as_bytes()).map_err(|e| Diagnosis::io("write", Path::new("standard output"), &e))?;
    let failure = args.cert.as_ref().and_then(|_| signed.failure(&args.module));
    failure.map_or(Ok(()), |failure| Err(failure.into()))
}

/// Claims a file that the command will write. Refuses a file that the command reads.
fn claim(args: &Inspect, path: &Path) -> Result<OutputFile> {
    let output = OutputFile::claim(path, 0o666)?;
    output.is_none_of([Some(args.module.as_path()), args.cert.as_deref()].into_iter().flatten())?;
    Ok(output)
}

fn page(args: &Inspect, file: &ElfFile, module: &Module, signed: &Signed) -> Result<String> {
    Ok(page::inspected(&page::Inspected {
        path: &args.module,
        bytes: file.bytes().len(),
        sha256: &report::sha256(file.bytes()),
        module,
        functions: &code::of_module(file)?,
        signed,
    }))
}

fn text(module: &Module, signed: &Signed) -> String {
    let mut text = String::new();
    for key in ["name", "vermagic", "depends", "import_ns"] {
        if let Some(value) = module.info(key).filter(|value| !value.is_empty()) {
            text.push_str(&format!("  {key:10} {value}\n"));
        }
    }
    if let Some(replace) = module.replace {
        text.push_str(&format!("  {:10} {}\n", "replace", if replace { "yes" } else { "no" }));
    }
    for (key, value) in signed.rows() {
        text.push_str(&format!("  {key:10} {value}\n"));
    }
    let mut rows =
        vec![["object", "function", "sympos", "new function", "bytes"].map(str::to_owned).to_vec()];
    for object in &module.objects {
        for f in &object.functions {
            let (sympos, size) = (f.sympos.to_string(), render::count(f.new_size as usize));
            rows.push(vec![object.name.clone(), f.old_name.clone(), sympos, f.new_symbol.clone(), size]);
        }
        for (kind, function) in &object.callbacks {
            rows.push(vec![
                object.name.clone(),
                format!("({kind} callback)"),
                String::new(),
                function.clone(),
            ]);
        }
    }
    render::section(&mut text, &rows);
    let mut rows = vec![["livepatch symbol", "object", "sympos"].map(str::to_owned).to_vec()];
    rows.extend(module.symbols.iter().map(|s| vec![s.name.clone(), s.object.clone(), s.sympos.to_string()]));
    render::section(&mut text, &rows);
    let mut rows = vec![["livepatch relocations on", "object", "count"].map(str::to_owned).to_vec()];
    rows.extend(
        module.relocations.iter().map(|r| vec![r.target.clone(), r.object.clone(), render::count(r.count)]),
    );
    render::section(&mut text, &rows);
    let mut rows = vec![vec!["import".to_owned()]];
    rows.extend(module.imports.iter().map(|name| vec![name.clone()]));
    render::section(&mut text, &rows);
    text
}

fn json(module: &Module, signed: &Signed) -> Result<String> {
    let objects: Vec<_> = module
        .objects
        .iter()
        .map(|object| {
            let functions: Vec<_> = object
                .functions
                .iter()
                .map(|f| json!({"old": f.old_name, "sympos": f.sympos, "new": f.new_symbol, "size": f.new_size}))
                .collect();
            let callbacks: Vec<_> =
                object.callbacks.iter().map(|(kind, f)| json!({"kind": kind, "function": f})).collect();
            json!({"name": object.name, "functions": functions, "callbacks": callbacks})
        })
        .collect();
    let info: Vec<_> = module.info.iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
    let symbols: Vec<_> = module
        .symbols
        .iter()
        .map(|s| json!({"object": s.object, "name": s.name, "sympos": s.sympos}))
        .collect();
    let relocations: Vec<_> = module
        .relocations
        .iter()
        .map(|r| json!({"object": r.object, "section": r.target, "count": r.count}))
        .collect();
    json::to_text(&json!({
        "schema": SCHEMA,
        "info": info,
        "replace": module.replace,
        "objects": objects,
        "symbols": symbols,
        "relocations": relocations,
        "imports": module.imports,
        "signature": signed.json(),
    }))
}
