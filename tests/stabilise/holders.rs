//! Functions that hold copies of what the patch edits, where the kernel's Makefile does not know that a unit depends on a
//! header. klpx finds and compiles such a unit by itself; where make decides (FullLTO), the build stops.

use serde_json::Value;

use crate::toy::{Lto, Source, Toy, changed};

const SHARED: &str = "\
extern int sink(int);
static inline int shared(int n)
{
	return sink(n + 1);
}
";

/// A kernel whose Makefile does not know that a unit depends on a header. The patch edits that, and more.
fn toy(full: bool, edits: &[(&str, &str, &str)]) -> Toy {
    let file = |path: &str, text: &str| (path.to_owned(), text.to_owned());
    let edit = |&(path, from, to): &(&str, &str, &str)| (path.to_owned(), from.to_owned(), to.to_owned());
    let source = Source {
        files: vec![
            file("fs/shared.h", SHARED),
            file("fs/a.c", "#include \"shared.h\"\nint holder(int n)\n{\n\treturn shared(n) * 2;\n}\n"),
            file("fs/b.c", "extern int sink(int);\nint other(int n)\n{\n\treturn sink(n) * 2;\n}\n"),
        ],
        edits: edits.iter().map(edit).collect(),
        limit: 5,
        lto: if full { Lto::Full } else { Lto::Thin },
    };
    Toy::new(&source, "-22")
}

const IN_HEADER: (&str, &str, &str) = ("fs/shared.h", "\treturn sink(n + 1);\n", "\treturn sink(n + 2);\n");
const IN_OTHER: (&str, &str, &str) = ("fs/b.c", "\treturn sink(n) * 2;\n", "\treturn sink(n) * 3;\n");

fn left_out(report: &Value) -> Vec<&str> {
    let error = &report["errors"][0];
    assert_eq!(error["code"], "klpx::holder-left-out", "{report:#}");
    assert_eq!(error["place"]["symbol"], "holder");
    assert_eq!((&error["place"]["file"], &error["place"]["line"]), (&"fs/a.c".into(), &4.into()));
    let detail = error["detail"].as_array().expect("the list");
    detail.iter().map(|line| line.as_str().expect("text")).collect()
}

#[test]
fn a_holder_whose_unit_was_not_compiled_again_stops_the_build() {
    let wanted = ["holder (vmlinux) inlines shared at fs/a.c:4: fs/a.c was not compiled again"];
    assert_eq!(left_out(&toy(true, &[IN_HEADER, IN_OTHER]).outcome("off")), wanted);
    // Nothing at all differs, because nothing was compiled.
    assert_eq!(left_out(&toy(true, &[IN_HEADER]).outcome("off")), wanted);
}

#[test]
fn a_unit_that_depends_on_the_patch_is_compiled_even_if_make_would_not() {
    for level in ["off", "names", "inlining"] {
        let report = toy(false, &[IN_HEADER, IN_OTHER]).report(level);
        assert_eq!(changed(&report), ["holder", "other"].map(str::to_owned).into(), "{level}");
    }
}

#[test]
fn objects_that_make_left_alone_are_told() {
    let report = toy(true, &[IN_HEADER, IN_OTHER]).outcome("off");
    let notes = report["notes"].as_array().expect("notes");
    let wanted = "make did not compile again what depends on the patch: fs/a.o";
    assert!(notes.iter().any(|note| note["text"] == wanted), "{notes:#?}");
    let quiet = toy(true, &[IN_OTHER]).report("off");
    assert!(quiet["notes"].as_array().expect("notes").iter().all(|note| note["text"] != wanted), "{quiet:#}");
    assert_eq!(quiet["changes"][0]["function"], "other");
}
