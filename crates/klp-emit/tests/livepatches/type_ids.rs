//! Lists of BTF type numbers (include/linux/btf_ids.h) in a livepatch: the kernel's own lists, which resolve_btfids
//! filled in.

use klpx_normalize::elf::ElfFile;
use klpx_testkit::builds::Builds;
use klpx_testkit::kernel::Kernel;
use klpx_verify::inspect::inspect;

/// A list of three types, each place named after a type, a counter and a line; a set with its count; two functions.
fn unit(counters: [u32; 4], names: [&str; 3], limit: &str) -> String {
    let place = |name: &str, counter: u32| {
        let symbol = format!("__BTF_ID__func__{name}__{counter}");
        format!(
            "asm(\".pushsection .BTF_ids,\\\"a\\\"\\n.local {symbol}\\n.type {symbol}, @object\\n.size {symbol}, 4\\n\
             {symbol}:\\n.zero 4\\n.popsection\");\n"
        )
    };
    let label = |name: &str, behind: &str| {
        format!(
            "asm(\".pushsection .BTF_ids,\\\"a\\\"\\n.local {name}\\n{name}:\\n{behind}.popsection\");\n\
             extern unsigned {name}[];\n"
        )
    };
    let mut text = label("calls", "");
    for (name, counter) in names.iter().zip(counters) {
        text += &place(name, counter);
    }
    text += &label("known", ".local __BTF_ID__set__known\\n__BTF_ID__set__known:\\n.zero 4\\n");
    text += &place("first", counters[3]);
    text += "int is_last(unsigned id) { return id == calls[2]; }\n\
             int is_first(unsigned id) { return id == calls[0]; }\n\
             unsigned count(void) { return known[0]; }\n";
    text + &format!("extern int limit; int check(unsigned n) {{ return (n == calls[1]) + ({limit} < n); }}\n")
}

const COUNTERS: [u32; 4] = [120_886, 121_887, 122_888, 123_889];
const NAMES: [&str; 3] = ["new", "drop", "push"];

fn builds(counters: [u32; 4], names: [&str; 3], limit: &str) -> Builds {
    Builds::new(&unit(COUNTERS, NAMES, "limit"), &unit(counters, names, limit))
}

#[test]
fn counters_and_lines_are_no_identity() {
    let builds = builds([130_896, 131_897, 132_898, 133_899], NAMES, "limit + 1");
    assert_eq!(builds.changed(), ["check"]);
    let module = builds.module("vmlinux", &kernel());
    let module = inspect(&ElfFile::from_bytes("livepatch.ko", module)).expect("a livepatch");
    let symbols: Vec<&str> = module.symbols.iter().map(|symbol| symbol.name.as_str()).collect();
    assert_eq!(symbols, ["calls", "limit"], "the kernel's list, none of the module's");
}

fn kernel() -> Kernel {
    Kernel { exports: vec!["__fentry__"], defined: vec!["limit"], ..Kernel::default() }
}

#[test]
fn a_list_that_the_patch_changes_is_refused() {
    for names in [["new", "push", "drop"], ["new", "drop", "pop"]] {
        assert_eq!(
            builds(COUNTERS, names, "limit").codes("vmlinux", &kernel()),
            ["klpx::btf-ids"],
            "{names:?}"
        );
    }
}

#[test]
fn a_list_that_the_patch_adds_is_refused_where_it_is_used() {
    let original = unit(COUNTERS, NAMES, "limit");
    let more = unit(COUNTERS, NAMES, "more[0]").replace("calls", "more").replace("known", "others");
    let declared = more.lines().take_while(|line| !line.starts_with("int")).collect::<Vec<_>>().join("\n");
    let declared = declared.replace("__BTF_ID__func__", "__BTF_ID__func__x_");
    let patched = format!("{declared}\n{}", unit(COUNTERS, NAMES, "more[0]"));
    let builds = Builds::new(&original, &patched);
    assert_eq!(builds.codes("vmlinux", &kernel()), ["klpx::btf-ids"]);
    let failure = builds.emit("vmlinux", &kernel()).err().expect("refused");
    assert!(failure.diagnoses().all(|found| found.to_string().contains("new list")), "{failure}");
}
