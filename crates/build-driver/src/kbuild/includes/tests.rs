//! An artificial tree that finds headers in the ways of kernel sources.

use std::path::PathBuf;

use super::*;

/// Path and text. Paths that begin with `+` lie in the build tree.
const FILES: [(&str, &str); 37] = [
    ("include/linux/k.h", "#include <asm/g.h>\n"),
    ("include/linux/types.h", "#include \"lone.h\"\n"),
    ("include/linux/lone.h", ""),
    ("include/linux/forced.h", "#include <linux/types.h>\n"),
    ("include/asm-generic/g.h", ""),
    (
        "include/trace/define_trace.h",
        "#define TRACE_INCLUDE_FILE TRACE_SYSTEM\n#include TRACE_INCLUDE(TRACE_INCLUDE_FILE)\n#include <trace/perf.h>\n",
    ),
    ("include/trace/perf.h", "#include TRACE_INCLUDE(TRACE_INCLUDE_FILE)\n"),
    ("include/trace/events/a.h", "#define TRACE_INCLUDE_FILE a\n#include <trace/define_trace.h>\n"),
    ("include/trace/events/s.h", "#define TRACE_SYSTEM other\n#include <trace/define_trace.h>\n"),
    ("include/trace/events/other.h", ""),
    ("mm/s.c", "#include <trace/events/s.h>\n"),
    ("fs/pair.c", "#include \"pair.h\"\n"),
    ("arch/arm64/include/asm/g.h", ""),
    ("+arch/x86/include/generated/asm/g.h", "#include <asm-generic/g.h>\n"),
    ("fs/a.c", "#include <linux/k.h>\n#include \"internal.h\"\n"),
    ("fs/internal.h", ""),
    ("mm/internal.h", ""),
    ("mm/b.c", "#if 0\n#include \"internal.h\"\n#endif\n#include \"part.c\"\n"),
    ("mm/part.c", ""),
    ("mm/t.c", "#define CREATE_TRACE_POINTS\n#include <trace/events/a.h>\n"),
    ("drivers/m.c", "#define PART_FILE <linux/named.h>\n#include \"m.h\"\n"),
    ("drivers/m.h", "#include PART_FILE\n"),
    ("include/linux/named.h", ""),
    ("drivers/o.c", "#include \"o.h\"\n"),
    ("drivers/o.h", "#define FMT_H __stringify(FMT.h)\n#include FMT_H\n"),
    ("drivers/c.c", "#include CONFIG_TABLE\n"),
    ("drivers/gen.c", "#include \"table.h\"\n"),
    ("drivers/names.h", ""),
    ("drivers/sub/n.c", "#include <beside_a_table.h>\n"),
    ("kernel/lost.c", "#include \"nowhere.h\"\n"),
    ("drivers/plain.c", ""),
    ("drivers/unbuilt.c", "#include <linux/k.h>\n"),
    ("rust/bindings/bindings_helper.h", "#include <linux/types.h>\n#include <linux/rust_only.h>\n"),
    ("include/linux/rust_only.h", ""),
    ("rust/exports.c", "#include <linux/export.h>\n#include \"exports_core_generated.h\"\n"),
    ("rust/helpers/helpers.c", "#include <linux/export.h>\n"),
    ("include/linux/export.h", ""),
];

const RECORD: &str = "folder .\narch x86\n\
    builtin fs/a.o mm/b.o mm/t.o drivers/m.o drivers/o.o drivers/c.o drivers/gen.o kernel/lost.o drivers/sub/n.o drivers/plain.o mm/s.o fs/pair.o rust/exports.o rust/helpers/helpers.o\n\
    made fs/a.o cc_o_c source:SRC/fs/a.c traced\n\
    made mm/b.o cc_o_c source:SRC/mm/b.c include:SRC/include/linux/forced.h traced\n\
    made mm/t.o cc_o_c source:SRC/mm/t.c traced\n\
    made drivers/m.o cc_o_c source:SRC/drivers/m.c traced\n\
    made drivers/o.o cc_o_c source:SRC/drivers/o.c traced\n\
    made drivers/c.o cc_o_c source:SRC/drivers/c.c traced\n\
    made drivers/gen.o cc_o_c source:SRC/drivers/gen.c traced\n\
    made kernel/lost.o cc_o_c source:SRC/kernel/lost.c traced\n\
    made drivers/plain.o cc_o_c source:SRC/drivers/plain.c traced\n\
    made drivers/sub/n.o cc_o_c source:SRC/drivers/sub/n.c traced\n\
    made mm/s.o cc_o_c source:SRC/mm/s.c traced\n\
    made fs/pair.o cc_o_c source:SRC/fs/pair.c traced\n\
    made fs/made/pair.c gen source:\n\
    made rust/exports.o cc_o_c source:SRC/rust/exports.c traced\n\
    made rust/helpers/helpers.o rust_cc_library source:SRC/rust/helpers/helpers.c traced\n\
    made rust/exports_core_generated.h exports source:\n\
    made drivers/table.h mktable source:SRC/drivers/names.h from:SRC/drivers/names.h from:drivers/mktable\n";

fn graph() -> (IncludeGraph, UnitList) {
    let dir = tempfile::tempdir().expect("dir");
    let (src, build) = (dir.path().join("src"), dir.path().join("build"));
    let records = dir.path().join("records");
    let write = |path: PathBuf, text: &str| {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
        std::fs::write(path, text).expect("file");
    };
    for (path, text) in FILES {
        match path.strip_prefix('+') {
            Some(path) => write(build.join(path), text),
            None => write(src.join(path), text),
        }
    }
    let real = src.canonicalize().expect("a path").display().to_string();
    write(records.join("folder:."), &RECORD.replace("SRC", &real));
    let list = UnitList::read(&src, &build, &records).expect("a list");
    (IncludeGraph::scan(&src, &build, &list, RustSide::Bindings), list)
}

/// Units that are listed for every header, because the tree does not show all that they include.
const OPEN: [&str; 4] = ["drivers/gen.o", "drivers/o.o", "drivers/sub/n.o", "fs/pair.o"];

fn dependents(edited: &[&str], added: &[&str]) -> Vec<String> {
    let (graph, list) = graph();
    graph.dependents(edited, added, &list).into_iter().map(|id| list.unit(id).object.clone()).collect()
}

#[test]
fn the_units_that_can_include_a_file_are_named() {
    let cases: [(&str, &[&str]); 13] = [
        ("include/linux/k.h", &["fs/a.o"]),
        ("include/asm-generic/g.h", &["fs/a.o"]),
        ("fs/internal.h", &["fs/a.o"]),
        ("mm/internal.h", &["mm/b.o"]),
        ("mm/part.c", &["mm/b.o"]),
        ("include/linux/lone.h", &["mm/b.o"]),
        ("include/trace/perf.h", &["mm/s.o", "mm/t.o"]),
        ("include/trace/events/a.h", &["mm/t.o"]),
        ("include/trace/events/other.h", &["mm/s.o"]),
        ("include/linux/named.h", &["drivers/m.o"]),
        ("arch/arm64/include/asm/g.h", &[]),
        ("include/linux/absent.h", &[]),
        // Lists of what Rust code exports include nothing.
        ("include/linux/export.h", &["rust/exports.o", "rust/helpers/helpers.o"]),
    ];
    for (path, expected) in cases {
        let mut expected: Vec<&str> = expected.iter().chain(&OPEN).copied().collect();
        expected.sort_unstable();
        assert_eq!(dependents(&[path], &[]), expected, "{path}");
    }
}

#[test]
fn the_headers_that_rust_code_sees_are_known() {
    let (graph, list) = graph();
    let bindings = RustSide::Bindings.files()[0];
    for (header, expected) in [
        ("include/linux/lone.h", true),
        ("include/linux/rust_only.h", true),
        (bindings, true),
        ("mm/internal.h", false),
    ] {
        // An open file may include every header. The artificial tree has some.
        let closed = IncludeGraph { open: Vec::new(), ..graph.clone() };
        assert_eq!(closed.may_include(bindings, &[header], &[], &list), expected, "{header}");
    }
    let closed = IncludeGraph { open: Vec::new(), ..graph };
    assert!(
        closed.may_include(bindings, &[], &["arch/x86/include/asm/lone.h"], &list),
        "takes lone.h's place"
    );
    assert!(!closed.may_include(bindings, &[], &["arch/x86/include/asm/new.h"], &list));
    let of = |text: &str| RustSide::from_config(&Config::parse(text)).files().len();
    assert_eq!(of("CONFIG_RUSTC_VERSION=1\n# CONFIG_RUST is not set\n"), 0);
    assert_eq!(of("CONFIG_RUST=y\n"), 2);
    assert_eq!(of("CONFIG_RUST=y\nCONFIG_RUST_INLINE_HELPERS=y\n"), 3);
}

#[test]
fn a_source_that_nobody_includes_is_its_own_units() {
    assert_eq!(dependents(&["fs/a.c"], &[]), ["fs/a.o"]);
    assert_eq!(dependents(&["drivers/plain.c", "mm/t.c"], &[]), ["drivers/plain.o", "mm/t.o"]);
    assert!(dependents(&[], &[]).is_empty());
}

#[test]
fn what_the_command_line_includes_counts() {
    assert_eq!(
        dependents(&["include/linux/forced.h"], &[]),
        ["drivers/gen.o", "drivers/o.o", "drivers/sub/n.o", "fs/pair.o", "mm/b.o"]
    );
}

#[test]
fn a_header_that_a_table_is_made_from_counts() {
    assert_eq!(dependents(&["drivers/names.h"], &[]), OPEN);
}

#[test]
fn a_new_header_can_be_meant_by_who_asked_in_vain_and_by_who_found_another() {
    assert_eq!(
        dependents(&[], &["kernel/nowhere.h"]),
        ["drivers/gen.o", "drivers/o.o", "drivers/sub/n.o", "fs/pair.o", "kernel/lost.o"]
    );
    assert_eq!(
        dependents(&[], &["drivers/internal.h"]),
        ["drivers/gen.o", "drivers/o.o", "drivers/sub/n.o", "fs/a.o", "fs/pair.o", "mm/b.o"]
    );
}

#[test]
fn where_not_even_a_name_is_known_the_file_is_open() {
    let (graph, _) = graph();
    assert_eq!(
        graph.open_files().collect::<Vec<_>>(),
        ["drivers/o.h", "drivers/sub/n.c", "fs/pair.c", "drivers/table.h"]
    );
}

#[test]
fn a_graph_is_the_same_after_it_was_stored() {
    let (graph, _) = graph();
    let stored = serde_json::to_string(&graph).expect("stored");
    assert_eq!(serde_json::from_str::<IncludeGraph>(&stored).expect("read"), graph);
}
