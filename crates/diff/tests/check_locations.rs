//! Locations of the undefined-behaviour sanitizer: a check names its line, and an edit moves the code below it.

use klpx_diff::compare;
use klpx_normalize::elf::ElfFile;
use klpx_normalize::object::Object;
use klpx_testkit::{command, run};

fn object(source: &str) -> ElfFile {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("a.c"), source).expect("a file");
    let mut gcc = command("gcc");
    gcc.args([
        "-O2",
        "-fno-pic",
        "-ffunction-sections",
        "-fdata-sections",
        "-fno-asynchronous-unwind-tables",
    ]);
    gcc.args(["-fsanitize=bounds-strict,shift", "-c", "a.c", "-o", "a.o"]);
    run(gcc.current_dir(folder.path()));
    ElfFile::from_bytes("a.o", std::fs::read(folder.path().join("a.o")).expect("an object"))
}

/// Returns the functions that differ.
fn changed(original: &str, patched: &str) -> Vec<String> {
    let files = (object(original), object(patched));
    let read = |file| Object::read(file).expect("an object");
    let (original, patched) = (read(&files.0), read(&files.1));
    let name = |item| String::from_utf8_lossy(patched.item_name(item)).into_owned();
    let difference = compare(&original, &patched);
    difference.functions.iter().map(|change| name(change.patched)).collect()
}

const ORIGINAL: &str = "extern int a[4], b[9];
int first(int i) { return a[i]; }
int second(int i) { return a[i] << i; }
";

#[test]
fn a_line_that_moved_is_no_change() {
    let none: [&str; 0] = [];
    assert_eq!(changed(ORIGINAL, &ORIGINAL.replace("int first", "\n\nint first")), none);
    assert_eq!(changed(ORIGINAL, &ORIGINAL.replace("int second(", "int   second(")), none);
    let edited = ORIGINAL.replace("return a[i]; }", "\n\nreturn a[i] + 7; }");
    assert_eq!(changed(ORIGINAL, &edited), ["first"]);
}

#[test]
fn what_else_a_check_says_is_compared() {
    assert_eq!(changed(ORIGINAL, &ORIGINAL.replace("return a[i] <<", "return b[i] <<")), ["second"]);
    // The same code, but the report names a different type.
    let typed = "enum one { X }; enum two { Y }; extern int a[4]; int f(enum one i) { return a[i]; }";
    assert_eq!(changed(typed, &typed.replace("f(enum one", "f(enum two")), ["f"]);
    assert_eq!(changed(typed, &format!("#line 1 \"other.c\"\n{typed}")), ["f"]);
}
