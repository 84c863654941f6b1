//! Functions of one named section branch to each other without relocations: the same bytes can lead to a different
//! function, and different bytes to the same function.

use klpx_diff::{Reason, compare};
use klpx_normalize::elf::ElfFile;
use klpx_normalize::object::Object;
use klpx_testkit::{command, run};

fn object(source: &str) -> ElfFile {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("a.c"), source).expect("a file");
    let flags = [
        "-O2",
        "-fno-pic",
        "-fcf-protection=none",
        "-fno-asynchronous-unwind-tables",
        "-c",
        "a.c",
        "-o",
        "a.o",
    ];
    run(command("gcc").args(flags).current_dir(folder.path()));
    let bytes = std::fs::read(folder.path().join("a.o")).expect("an object");
    ElfFile::from_bytes("a.o", bytes)
}

const SOURCE: &str = "
#define IN __attribute__((section(\".sched.text\"), noinline, noclone, noipa))
static int IN helper(int n) { return n + 1; }
int IN caller(int n) { return helper(n * 3) + 5; }
int IN bystander(int n) { return n ^ 9; }
";

fn changed(patched: &str) -> Vec<(String, bool)> {
    let files = (object(SOURCE), object(patched));
    let (original, patched) =
        (Object::read(&files.0).expect("an object"), Object::read(&files.1).expect("an object"));
    let difference = compare(&original, &patched);
    let of_change = |change: &klpx_diff::ItemChange| {
        let name = String::from_utf8_lossy(patched.item_name(change.patched)).into_owned();
        (
            name,
            change
                .reasons
                .iter()
                .any(|reason| matches!(reason, Reason::Reference { to, .. } if to == "renamed")),
        )
    };
    difference.functions.iter().map(of_change).collect()
}

#[test]
fn another_function_in_the_place_of_one_that_is_gone_changes_its_callers() {
    let other = SOURCE
        .replace("helper(int n) { return n + 1; }", "renamed(int n) { return n + 2; }")
        .replace("helper(n", "renamed(n");
    let found = changed(&other);
    assert!(found.contains(&("caller".to_owned(), true)), "{found:?}");
    assert!(found.iter().any(|(name, _)| name == "renamed"), "{found:?}");
}

#[test]
fn a_function_that_changed_where_it_is_changes_nobody_else() {
    let found = changed(&SOURCE.replace("n + 1", "n + 2"));
    assert_eq!(found, [("helper".to_owned(), false)]);
}

#[test]
fn a_function_that_only_lies_farther_away_changes_nobody_else() {
    let text = |body: &str| {
        format!(
            "#define IN __attribute__((section(\".sched.text\"), noinline, noclone, noipa))
             extern int out(int);
             int IN first(int n) {{ return out(n); }}
             int IN edited(int n) {{ {body} return out(n * 3) + 5; }}
             int IN calls_both(int n) {{ return first(n) + edited(n + 1); }}"
        )
    };
    let files = (object(&text("")), object(&text("out(7); out(n + 9);")));
    let read = |file| Object::read(file).expect("an object");
    let (original, patched) = (read(&files.0), read(&files.1));
    let name = |item| String::from_utf8_lossy(patched.item_name(item)).into_owned();
    let difference = compare(&original, &patched);
    let changed: Vec<String> = difference.functions.iter().map(|change| name(change.patched)).collect();
    assert_eq!(changed, ["edited"]);
}
