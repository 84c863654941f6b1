//! Tables that inline assembly fills: no symbol names an entry, and no reference leads to one.

use klpx_diff::{Difference, compare};
use klpx_normalize::elf::ElfFile;
use klpx_normalize::object::Object;
use klpx_testkit::{command, run};

fn object(source: &str) -> ElfFile {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("a.c"), source).expect("a file");
    let mut gcc = command("gcc");
    gcc.args(["-O2", "-fno-pic", "-ffunction-sections", "-fdata-sections", "-c", "a.c", "-o", "a.o"]);
    run(gcc.current_dir(folder.path()));
    ElfFile::from_bytes("a.o", std::fs::read(folder.path().join("a.o")).expect("an object"))
}

/// A function for each device, and a row of a table for the function.
fn source(devices: &[u16], factor: u32) -> String {
    let mut text = format!("extern void write(int, int); int other(int x) {{ return x * {factor}; }}\n");
    for device in devices {
        text += &format!(
            "__attribute__((used)) static void quirk_{device}(int d) {{ write(d, {device}); }}
             asm(\".section .quirks, \\\"a\\\"\\n.balign 8\\n.short {device}, 7\\n.long quirk_{device} - .\\n.previous\");\n"
        );
    }
    text
}

fn difference(original: &str, patched: &str) -> Difference {
    let files = (object(original), object(patched));
    let (original, patched) =
        (Object::read(&files.0).expect("an object"), Object::read(&files.1).expect("an object"));
    compare(&original, &patched)
}

#[test]
fn a_row_that_is_new_gone_or_other_is_a_difference() {
    let original = source(&[1, 2], 3);
    for patched in [source(&[1, 2, 4], 3), source(&[1], 3), source(&[1, 4], 3)] {
        assert_eq!(difference(&original, &patched).tables, [".quirks"], "{patched}");
    }
    let only_a_number = original.replace(".short 2, 7", ".short 2, 8");
    let found = difference(&original, &only_a_number);
    assert!(!found.is_empty() && found.functions.is_empty() && found.tables == [".quirks"]);
}

#[test]
fn the_same_rows_are_none() {
    let found = difference(&source(&[1, 2], 3), &source(&[1, 2], 5));
    assert_eq!((found.tables.len(), found.functions.len()), (0, 1));
}

#[test]
fn constants_that_code_refers_to_are_no_table() {
    let text = |number: &str| {
        format!(
            "int f(int x) {{ switch (x) {{ case 0: return 9; case 1: return {number}; case 2: return 8; case 3: return 1; case 4: return 77; }} return x; }} double g(double d) {{ return d * {number}.5; }}"
        )
    };
    assert_eq!(difference(&text("5"), &text("6")).tables, [""; 0]);
}

/// GCC 16 leaves the data of a check that it removed. An edited line above changes the data.
#[test]
fn data_behind_a_compilers_local_label_is_no_table() {
    for (section, tables) in [(".data..Lubsan_data7", &[][..]), (".data..registered", &[".data..registered"])]
    {
        let text = |line: u32| {
            format!(
                "asm(\".section {section}, \\\"aw\\\"\\n.long 0, 0, {line}, 5\\n.previous\"); int f(void) {{ return 1; }}"
            )
        };
        assert_eq!(difference(&text(7), &text(8)).tables, tables, "{section}");
    }
}
