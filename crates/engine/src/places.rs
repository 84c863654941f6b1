//! Adds source positions to failures: the stages that refuse a function or a variable know its name, and debug
//! information knows its file and line.

use std::path::Path;

use klpx_diagnosis::{DiagnosisPlace, Failure};
use klpx_inline_check::lines::Lines;
use klpx_inline_check::sections::DebugSections;
use klpx_layout::Declarations;
use klpx_normalize::object::{ItemId, Object};

use crate::analysis;
use crate::finding;
use crate::pairs::PairObjects;
use crate::trace_events::TraceEvents;

/// The failure with missing files and lines filled in, and with the trace events from whose definitions macros made
/// symbols. `tree` is the source tree that was compiled.
pub(crate) fn complete(failure: Failure, objects: &[PairObjects<'_>], tree: &Path) -> Failure {
    let events = TraceEvents::find(objects);
    failure.map(|diagnosis| {
        let place = completed(&diagnosis.place, objects, tree).unwrap_or_else(|| diagnosis.place.clone());
        let symbol = place.symbol.clone().unwrap_or_default();
        events.name_event(&symbol, diagnosis.place(place))
    })
}

/// Looks in the patched objects first: only they have new lines. A name that several symbols share gets no position.
fn completed(place: &DiagnosisPlace, objects: &[PairObjects<'_>], tree: &Path) -> Option<DiagnosisPlace> {
    let symbol = place.symbol.as_deref().filter(|_| place.line.is_none())?;
    let positions = |object: &Object<'_>| -> Vec<Option<(String, u32)>> {
        let named = object.item_ids().filter(|&item| is_meant(object, item, symbol, place.file.as_deref()));
        named.map(|item| position(object, item, place.offset.unwrap_or_default(), tree)).collect()
    };
    let mut found: Vec<_> = objects.iter().flat_map(|pair| positions(&pair.patched)).collect();
    if found.is_empty() {
        found = objects.iter().flat_map(|pair| positions(&pair.original)).collect();
    }
    // A unit of two modules occurs in two pairs.
    found.dedup();
    match found.as_slice() {
        [Some((file, line))] => Some(place.clone().at(file, Some(*line))),
        _ => None,
    }
}

/// Returns true for an item of this name and, if a file is given, of this source file. Only a local symbol has a source
/// file, known by its base name.
fn is_meant(object: &Object<'_>, item: ItemId, symbol: &str, file: Option<&str>) -> bool {
    let own = || object.file_name(object.symbol_file(object.item(item).symbol));
    finding::name(object, item) == symbol && file.is_none_or(|file| file.as_bytes() == own())
}

/// The source position of a function's code, or of a variable's declaration.
fn position(object: &Object<'_>, item: ItemId, offset: i64, tree: &Path) -> Option<(String, u32)> {
    let tree = tree.display().to_string();
    if object.item(item).code {
        let sections = DebugSections::of_lines(&object.elf);
        let found = analysis::position(object, &Lines::read(&sections), item, offset, &tree)?;
        return Some((found.file, found.line));
    }
    let declarations = Declarations::read(&object.elf).ok()?;
    let item = object.item(item);
    let declared = declarations.at(item.section, item.entry)?;
    let file = declared.file.strip_prefix(&tree).unwrap_or(&declared.file).trim_start_matches('/');
    Some((file.to_owned(), declared.line))
}

#[cfg(test)]
mod tests {
    use klpx_normalize::elf::ElfFile;
    use klpx_testkit::{command, run};

    use super::*;

    const ORIGINAL: &str = "\
extern int out(int);
static int limit = 3;
int plain(int x)
{
	int first = out(x);
	return out(first) + limit++;
}
int one(void) { static int twice; return twice++; }
int two(void) { static int twice; return twice++; }
";

    #[test]
    fn functions_and_variables_have_their_lines_and_a_name_of_several_has_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let object = |name: &str, text: &str| {
            let source = folder.path().join("fs").join(name);
            std::fs::create_dir_all(folder.path().join("fs")).expect("a folder");
            std::fs::write(&source, text).expect("a writable folder");
            let object = source.with_extension("o");
            let mut compiler = command("gcc");
            compiler.args(["-O1", "-g", "-c", "-ffunction-sections", "-fdata-sections"]);
            run(compiler.arg(&source).arg("-o").arg(&object));
            ElfFile::open(&object).expect("the object that was just made")
        };
        let original = object("a.c", ORIGINAL);
        let patched = object("a.c", &format!("{ORIGINAL}int fresh(int x) {{ return out(x); }}\n"));
        let read = |file| Object::read(file).expect("an object");
        let objects = [PairObjects {
            name: "vmlinux",
            unit: None,
            witness: None,
            original: read(&original),
            original_path: original.path(),
            patched: read(&patched),
        }];
        let place = |symbol: &str| DiagnosisPlace::symbol(symbol).at("a.c", None);
        let cases = [
            (DiagnosisPlace::symbol("plain"), "plain at fs/a.c:4"),
            (DiagnosisPlace::symbol("fresh"), "fresh at fs/a.c:10"),
            (place("limit"), "limit at fs/a.c:2"),
            (place("limit").at("b.c", None), "limit at b.c"),
            (place("plain"), "plain at a.c"),
            (place("limit").at("a.c", Some(9)), "limit at a.c:9"),
            (place("twice.0"), "twice.0 at fs/a.c:9"),
            (place("gone"), "gone at a.c"),
            (DiagnosisPlace::file("fs/a.c", None), "fs/a.c"),
        ];
        for (place, expected) in cases {
            let completed = completed(&place, &objects, folder.path()).unwrap_or(place);
            assert_eq!(completed.to_string(), expected);
        }
        let inside = completed(&DiagnosisPlace::symbol("plain").inside(0x10), &objects, folder.path())
            .expect("a line");
        assert!(inside.to_string().starts_with("plain+0x10 at fs/a.c:"), "{inside}");
        assert!(inside.line > Some(4), "{inside}");
    }
}
