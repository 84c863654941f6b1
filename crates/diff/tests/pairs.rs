//! Pairs of small objects, written in assembly, and the expected result of each comparison: `pairs/*.txt`.
//!
//! A case begins with `## TITLE`. Lines without a mark are in both builds, lines with `< ` only in the original, lines
//! with `> ` only in the patched build; `= ` begins a line of the answer. An empty answer is `= nothing`. A line of a
//! build is one item, whose statements `;` separates:
//!
//! | line | item |
//! |---|---|
//! | `fn f: nop; ret` | a global function in a section of its own |
//! | `fn f .noinstr.text: ret` | the same in a named section |
//! | `data x .data: .quad 1` | a global variable |
//! | `static fn f: ...`, `static data x .bss: ...` | a local one |
//! | `file a.c` | what follows comes from another file: the files are linked with `ld -r` |
//! | `table .altinstructions: ...` | bytes of an allocated section; `table .s "aw":` gives flags |
//! | `asm ...` | anything |

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use klpx_diff::{Difference, Sources, compare_unit};
use klpx_normalize::elf::ElfFile;
use klpx_normalize::object::{ItemId, Object};
use klpx_testkit::{command, run};
use rayon::prelude::*;

/// One pair and the expected answer.
struct Case {
    title: String,
    tools: Tools,
    original: Vec<String>,
    patched: Vec<String>,
    answer: Vec<String>,
    /// Names that mean something else in the patched build of another unit.
    moved: Vec<Vec<u8>>,
    sources: Sources<'static>,
}

/// The assembler and the linker for a file of cases.
#[derive(Clone, Copy)]
struct Tools {
    assembler: &'static [&'static str],
    linker: &'static str,
}

const X86_64: Tools = Tools { assembler: &["as", "--64"], linker: "ld" };
const ARM64: Tools = Tools { assembler: &["aarch64-linux-gnu-as"], linker: "aarch64-linux-gnu-ld" };

fn read(name: &str, tools: Tools) -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pairs").join(name);
    let text = fs::read_to_string(&path).expect("cases");
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with("# ")) {
        if let Some(title) = line.strip_prefix("## ") {
            cases.push(Case {
                title: title.to_owned(),
                tools,
                original: Vec::new(),
                patched: Vec::new(),
                answer: Vec::new(),
                moved: Vec::new(),
                sources: Sources::Unknown,
            });
            continue;
        }
        let case = cases.last_mut().expect("a title comes first");
        match line.split_at_checked(2) {
            Some(("< ", item)) => case.original.push(item.to_owned()),
            Some(("> ", item)) => case.patched.push(item.to_owned()),
            Some(("= ", "nothing")) => {}
            Some(("= ", answer)) => case.answer.push(answer.to_owned()),
            Some(("! ", "same sources")) => case.sources = Sources::Same,
            Some(("! ", name)) => case.moved.push(name.as_bytes().to_vec()),
            _ => {
                case.original.push(line.to_owned());
                case.patched.push(line.to_owned());
            }
        }
    }
    cases
}

/// Returns the assembly of each file of a build.
fn assembly(items: &[String]) -> Vec<String> {
    let mut files = vec![String::from(".file \"unit.c\"\n")];
    for item in items {
        if let Some(name) = item.strip_prefix("file ") {
            files.push(format!(".file \"{name}\"\n"));
        } else {
            let file = files.last_mut().expect("a file");
            write!(file, "{}", item_text(item)).expect("memory");
        }
    }
    files.retain(|text| text.lines().count() > 1);
    files
}

fn item_text(line: &str) -> String {
    if let Some(text) = line.strip_prefix("asm ") {
        return format!("{}\n", text.replace("; ", "\n"));
    }
    let (head, body) = line.split_once(": ").expect("an item has a body");
    let body = body.replace("; ", "\n");
    let words: Vec<&str> = head.split(' ').collect();
    if let ["table", section, flags @ ..] = words.as_slice() {
        let flags = flags.first().copied().unwrap_or("\"a\"");
        return format!(".section {section},{flags}\n{body}\n");
    }
    let (local, words) = match words.as_slice() {
        ["static", rest @ ..] => (true, rest),
        all => (false, all),
    };
    assert!(words.len() >= 2, "no item: {line}");
    let (kind, name, section) = (words[0], words[1], &words[2..]);
    let code = kind == "fn";
    let section = section
        .first()
        .map_or_else(|| format!(".{}.{name}", if code { "text" } else { "data" }), |s| (*s).to_owned());
    let flags = match () {
        () if code => "\"ax\"",
        () if section.starts_with(".rodata") => "\"a\"",
        () => "\"aw\"",
    };
    let nobits = if section.starts_with(".bss") { ",@nobits" } else { "" };
    let scope = if local { ".local" } else { ".globl" };
    let what = if code { "function" } else { "object" };
    format!(
        ".section {section},{flags}{nobits}\n{scope} {name}\n.type {name},%{what}\n{name}:\n{body}\n.size {name},.-{name}\n"
    )
}

fn build(tools: Tools, folder: &Path, name: &str, items: &[String]) -> ElfFile {
    let mut objects = Vec::new();
    for (n, text) in assembly(items).into_iter().enumerate() {
        let (source, object) = (format!("{name}{n}.s"), format!("{name}{n}.o"));
        fs::write(folder.join(&source), text).expect("a file");
        let (assembler, always) = tools.assembler.split_first().expect("a program");
        run(command(assembler).args(always).args(["-o", &object, &source]).current_dir(folder));
        objects.push(object);
    }
    let object = match objects.as_slice() {
        [one] => one.clone(),
        several => {
            let object = format!("{name}.o");
            let mut linker = command(tools.linker);
            run(linker.args(["-r", "--unique", "-o", &object]).args(several).current_dir(folder));
            object
        }
    };
    ElfFile::from_bytes(&object, fs::read(folder.join(&object)).expect("an object"))
}

/// Returns the answer in words: one line for each kind, names in the order of the patched object.
fn answer(difference: &Difference, original: &Object<'_>, patched: &Object<'_>) -> Vec<String> {
    let theirs = |item: ItemId| String::from_utf8_lossy(original.item_name(item)).into_owned();
    let ours = |item: ItemId| String::from_utf8_lossy(patched.item_name(item)).into_owned();
    let mut lines: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let kinds = [
        ("changed", "new", &difference.functions),
        ("changed data", "new data", &difference.data),
        ("changed registry", "new registry", &difference.registries),
    ];
    for (changed, new, changes) in kinds {
        for change in changes {
            let kind = if change.original.is_some() { changed } else { new };
            lines.entry(kind).or_default().push(ours(change.patched));
        }
    }
    lines.entry("gone").or_default().extend(difference.removed.iter().map(|&item| theirs(item)));
    lines.entry("tables").or_default().extend(difference.tables.iter().cloned());
    for unsettled in &difference.correlation.unsettled {
        lines.entry("unsettled").or_default().push(ours(unsettled.patched));
    }
    for folded in &difference.folded {
        lines.entry("folded").or_default().extend(folded.names.iter().cloned());
    }
    for item in patched.item_ids() {
        if let Some((other, _)) = difference.correlation.original_of[item.index()]
            && original.item_name(other) != patched.item_name(item)
        {
            lines.entry("is").or_default().push(format!("{}={}", ours(item), theirs(other)));
        }
    }
    let line = |(kind, names): (&str, Vec<String>)| format!("{kind} {}", names.join(" "));
    lines.into_iter().filter(|(_, names)| !names.is_empty()).map(line).collect()
}

/// Runs every case of a file, and shows a wrong answer beside the right one.
fn check(name: &str, tools: Tools) {
    let wrong: Vec<String> = read(name, tools).par_iter().filter_map(fault).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn fault(case: &Case) -> Option<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let original = build(case.tools, folder.path(), "original", &case.original);
    let patched = build(case.tools, folder.path(), "patched", &case.patched);
    let (original, patched) =
        (Object::read(&original).expect("an object"), Object::read(&patched).expect("an object"));
    let moved = case.moved.iter().cloned().collect();
    let difference = compare_unit(&original, &patched, &moved, case.sources);
    let mut got = answer(&difference, &original, &patched);
    let mut wanted = case.answer.clone();
    got.sort();
    wanted.sort();
    (got != wanted).then(|| format!("{}: wanted {wanted:?}, got {got:?}", case.title))
}

#[test]
fn each_difference_of_two_objects_is_told() {
    check("compare.txt", X86_64);
}

#[test]
fn each_difference_of_two_arm64_objects_is_told() {
    check("compare-arm64.txt", ARM64);
}

#[test]
fn items_are_paired_by_evidence_only() {
    check("correlate.txt", X86_64);
}

#[test]
fn what_is_no_evidence_pairs_nothing() {
    check("settle.txt", X86_64);
}
