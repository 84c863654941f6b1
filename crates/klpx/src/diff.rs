//! `klpx diff`: two builds of one object, their differences, and the reasons.

use std::io::Write;
use std::path::Path;

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Result, codes};
use klpx_diff::{Difference, ItemChange, ItemEvidence};
use klpx_engine::analysis;
use klpx_engine::finding::{ChangeKind, Finding};
use klpx_inline_check::lines::Lines;
use klpx_inline_check::sections::DebugSections;
use klpx_normalize::arch::Arch;
use klpx_normalize::elf::ElfFile;
use klpx_normalize::object::{ItemId, Object};
use serde::Serialize;

use crate::against;
use crate::args::Diff;
use crate::disassembly::{DisassembledInstruction, instructions};
use crate::render;

/// Schema version of the JSON.
const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct DiffJson {
    schema: u32,
    original: String,
    patched: String,
    functions: Vec<Finding>,
    data: Vec<Finding>,
    registries: Vec<Finding>,
    /// Sections whose contents have no names.
    tables: Vec<String>,
    removed: Vec<Finding>,
    unsettled: Vec<Open>,
    matched: Vec<Matched>,
}

/// An item that may be one of several of the original, without evidence for one.
#[derive(Serialize)]
struct Open {
    name: String,
    candidates: Vec<String>,
}

/// An item that was matched by evidence other than its own name.
#[derive(Serialize)]
struct Matched {
    name: String,
    original: String,
    evidence: &'static str,
}

/// Runs the command.
pub(crate) fn run(args: &Diff, out: &mut impl Write) -> Result<()> {
    let Some(patched_path) = &args.patched else { return against::run(args, out) };
    let files = (ElfFile::open(&args.original)?, ElfFile::open(patched_path)?);
    let (original, patched) = rayon::join(|| Object::read(&files.0), || Object::read(&files.1));
    let (original, patched) = (original?, patched?);
    if original.arch != patched.arch {
        return Err(Diagnosis::new(
            &codes::DIFFERENT_MACHINES,
            "the two objects are for different machines",
            format!("{} and {}", original.arch.name(), patched.arch.name()),
            "compare two builds of one object",
        )
        .into());
    }
    let difference = klpx_diff::compare(&original, &patched);
    let text = match &args.explain {
        Some(function) => explain(&original, &patched, &difference, function)?,
        None if args.json => json(&original, &patched, &difference)?,
        None => {
            let mut text = summary(&original, &patched, &difference, &object_name(patched_path));
            if args.verbose {
                text.push_str(&evidence(&difference));
            }
            text
        }
    };
    out.write_all(text.as_bytes())
        .map_err(|e| Diagnosis::io("write", Path::new("standard output"), &e).into())
}

/// `vmlinux` for `vmlinux.o`.
fn object_name(path: &Path) -> String {
    path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
}

fn json(original: &Object<'_>, patched: &Object<'_>, d: &Difference) -> Result<String> {
    let name = object_name(Path::new(patched.name()));
    let sections = DebugSections::of_lines(&patched.elf);
    let lines = Lines::read(&sections);
    let list = |changes: &[ItemChange]| analysis::findings(&name, "", patched, &lines, changes);
    let json = DiffJson {
        schema: SCHEMA,
        original: original.name().to_owned(),
        patched: patched.name().to_owned(),
        functions: list(&d.functions),
        data: list(&d.data),
        registries: list(&d.registries),
        tables: d.tables.clone(),
        removed: analysis::removed(&name, original, d),
        unsettled: open(original, patched, d),
        matched: matched(original, patched, d),
    };
    crate::json::to_text(&json)
}

/// An item's name as the file has it, with all suffixes.
fn full_name(object: &Object<'_>, item: ItemId) -> String {
    String::from_utf8_lossy(object.item_name(item)).into_owned()
}

fn open(original: &Object<'_>, patched: &Object<'_>, d: &Difference) -> Vec<Open> {
    let as_open = |open: &klpx_diff::Unsettled| Open {
        name: full_name(patched, open.patched),
        candidates: open.candidates.iter().map(|&item| full_name(original, item)).collect(),
    };
    d.correlation.unsettled.iter().map(as_open).collect()
}

fn matched(original: &Object<'_>, patched: &Object<'_>, d: &Difference) -> Vec<Matched> {
    let pairs = patched.item_ids().zip(&d.correlation.original_of);
    let pairs = pairs
        .filter_map(|(item, pair)| pair.map(|(original_item, evidence)| (item, original_item, evidence)));
    pairs
        .filter(|(_, _, evidence)| !matches!(evidence, ItemEvidence::Name | ItemEvidence::FileAndName))
        .map(|(item, original_item, evidence)| Matched {
            name: full_name(patched, item),
            original: full_name(original, original_item),
            evidence: evidence.word(),
        })
        .collect()
}

/// How many items each kind of evidence matched.
fn evidence(d: &Difference) -> String {
    let mut rows = vec![vec!["matched by".to_owned(), "items".into()]];
    rows.extend(
        d.correlation.tally().into_iter().map(|(kind, n)| vec![kind.word().into(), render::count(n)]),
    );
    format!("\n{}", render::table(&rows))
}

fn summary(original: &Object<'_>, patched: &Object<'_>, d: &Difference, name: &str) -> String {
    let functions = patched.items().iter().filter(|item| item.code).count();
    if d.is_empty() {
        return format!("no difference in {} functions\n", render::count(functions));
    }
    let mut rows = vec![vec!["kind".to_owned(), "name".into(), "why".into()]];
    let sections = DebugSections::of_lines(&patched.elf);
    let lines = Lines::read(&sections);
    let mut list = |changes: &[ItemChange], what: &str| {
        for f in analysis::findings(name, "", patched, &lines, changes) {
            let kind = format!("{} {what}", if f.kind == ChangeKind::New { "new" } else { "changed" });
            rows.push(vec![kind, f.function, f.why]);
        }
    };
    list(&d.functions, "function");
    list(&d.data, "object");
    list(&d.registries, "registry entry");
    for table in &d.tables {
        rows.push(vec!["changed table".into(), table.clone(), "its entries have no names".into()]);
    }
    for f in analysis::removed(name, original, d) {
        rows.push(vec!["removed".into(), f.function, f.why]);
    }
    for unsettled in open(original, patched, d) {
        let why = format!("may be {}, and nothing tells", unsettled.candidates.join(" or "));
        rows.push(vec!["unsettled".into(), unsettled.name, why]);
    }
    let changed = d.functions.iter().filter(|c| c.original.is_some()).count();
    format!(
        "{} functions: {} changed, {} new\n\n{}",
        render::count(functions),
        render::count(changed),
        render::count(d.functions.len() - changed),
        render::table(&rows)
    )
}

fn explain(original: &Object<'_>, patched: &Object<'_>, d: &Difference, function: &str) -> Result<String> {
    let find = |object: &Object<'_>| {
        object
            .item_ids()
            .find(|&item| object.item_name(item) == function.as_bytes() && object.item(item).code)
    };
    let Some(item) = find(patched).or_else(|| find(original)) else {
        return Err(Diagnosis::new(
            &codes::NO_SUCH_FUNCTION,
            "no such function",
            "neither object defines it",
            "give the name as it is in the source; a static function that was inlined everywhere \
             has no code of its own",
        )
        .place(DiagnosisPlace::symbol(function))
        .into());
    };
    let Some(change) = d.functions.iter().find(|c| c.patched == item && find(patched) == Some(item)) else {
        let gone = find(patched).is_none();
        return Ok(format!("{function}: {}\n", if gone { "removed" } else { "no difference" }));
    };
    let mut text = format!("{function}: {}\n", if change.original.is_some() { "changed" } else { "new" });
    for reason in &change.reasons {
        text.push_str(&format!("  {}\n", analysis::in_words(reason)));
    }
    let at = change.reasons.iter().filter_map(analysis::offset).min().unwrap_or(0);
    if let Some(original_item) = change.original {
        text.push_str(&listing("original", original, original_item, at));
    }
    text.push_str(&listing("patched", patched, item, at));
    Ok(text)
}

/// How many instructions a listing shows.
const SHOWN: usize = 6;

fn listing(title: &str, object: &Object<'_>, item: ItemId, at: i64) -> String {
    let sections = DebugSections::of_lines(&object.elf);
    let place = analysis::position(object, &Lines::read(&sections), item, at, "");
    let place = place.map_or(String::new(), |p| format!("  {}:{}", p.file, p.line));
    let mut text = format!("\n{title}{place}\n");
    let shape = object.item(item);
    let code = object.range(shape.section, shape.entry, shape.end);
    for DisassembledInstruction { offset, length, text: shown, .. } in
        shown(object.arch, code, at.max(0) as usize)
    {
        let bytes: Vec<String> = code.iter().skip(offset).take(length).map(|b| format!("{b:02x}")).collect();
        let start = shape.entry + offset as u64;
        let target = object
            .relocations_in(shape.section, start, start + length as u64)
            .iter()
            .map(|rela| klpx_diff::describe(object, object.resolve(shape.section, rela)))
            .collect::<Vec<_>>()
            .join(", ");
        let target = if target.is_empty() { target } else { format!("  -> {target}") };
        text.push_str(&format!("  +{offset:#06x}  {:30}  {shown}{target}\n", bytes.join(" ")));
    }
    text
}

/// A few instructions, starting with the one that contains `at`.
fn shown(arch: Arch, code: &[u8], at: usize) -> impl Iterator<Item = DisassembledInstruction> {
    instructions(arch, code).filter(move |one| one.offset + one.length > at).take(SHOWN)
}
