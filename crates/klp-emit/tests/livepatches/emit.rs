//! What an emitted closure holds, and what makes `emit` refuse a change.

use std::collections::BTreeMap;

use klpx_klp_emit::callers::Elsewhere;
use klpx_klp_emit::closure;
use klpx_klp_emit::plan::ComparedUnit;
use klpx_normalize::elf::ElfFile;
use klpx_testkit::builds::{Builds, FOLDER};
use klpx_testkit::fixture::ARM64_CLANG;
use klpx_testkit::kernel::Kernel;

/// The codes of the refusals when one text changes to the other.
fn codes(original: &str, patched: &str) -> Vec<&'static str> {
    Builds::new(original, patched).codes("vmlinux", &Kernel::default())
}

#[test]
fn a_module_does_not_say_in_which_folder_it_was_made() {
    let text = |more: &str| {
        format!(
            "#line 1 \"{FOLDER}/drivers/a.c\"\nextern int out(const char *); int f(int x) {{ return out(__FILE__) + x {more}; }}"
        )
    };
    let builds = Builds::new(&text(""), &text("+ 1"));
    let kernel = Kernel { exports: vec!["__fentry__"], defined: vec!["out"], ..Kernel::default() };
    let module = builds.module("vmlinux", &kernel);
    let holds = |text: &str| module.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(holds("drivers/a.c\0") && !holds(FOLDER));
    let file = ElfFile::from_bytes("livepatch-test.ko", module.clone());
    builds.verify("vmlinux", &kernel, &file).expect("a sound module");
}

/// Clang's sanitizer says where a type without a name is declared.
#[test]
fn a_description_of_a_type_does_not_say_in_which_folder_a_module_was_made() {
    let text = |above: &str, more: &str| {
        format!(
            "#line 1 \"{FOLDER}/drivers/a.c\"\n{above}struct s {{ struct {{ int a; }} t[4], u[5]; int end; }};
             int f(struct s *s, int i) {{ return s->t[i].a; }}
             int g(struct s *s, int i) {{ return s->u[i].a {more}; }}"
        )
    };
    let flags = [ARM64_CLANG.traced, &["-fsanitize=array-bounds"]].concat();
    let builds = Builds::of(&ARM64_CLANG, &flags, &text("", ""), &text("\n\n", "+ 1"));
    assert_eq!(builds.changed(), ["g"], "a place that moved is no change");
    let kernel = Kernel { exports: vec!["__ubsan_handle_out_of_bounds"], ..Kernel::default() };
    let module = builds.module("vmlinux", &kernel);
    let holds = |text: &str| module.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(holds("'struct (unnamed at drivers/a.c:3:12)[5]'\0") && !holds(FOLDER));
    let file = ElfFile::from_bytes("livepatch-test.ko", module.clone());
    builds.verify("vmlinux", &kernel, &file).expect("a sound module");
    // Verification reads the description too.
    for (from, to) in [("'struct (un", "'strict (un"), ("drivers/a.c:3", "divers/a.cc:3"), (")[5]'", ")[6]'")]
    {
        let at = module.windows(from.len()).position(|part| part == from.as_bytes()).expect("the text");
        let mut damaged = module.clone();
        damaged[at..at + to.len()].copy_from_slice(to.as_bytes());
        let file = ElfFile::from_bytes("livepatch-test.ko", damaged);
        assert!(builds.verify("vmlinux", &kernel, &file).is_err(), "{to}");
    }
}

#[test]
fn what_a_livepatch_cant_do_is_refused_with_its_code() {
    let cases = [
        (
            "int limit = 3; int f(void) { return limit; }",
            "int limit = 4; int f(void) { return limit; }",
            "klpx::changed-data",
        ),
        (
            "__attribute__((section(\".init.text\"))) int setup(int x) { return x; }",
            "__attribute__((section(\".init.text\"))) int setup(int x) { return x + 1; }",
            "klpx::init-function",
        ),
        (
            "__attribute__((no_instrument_function)) int f(int x) { return x; }",
            "__attribute__((no_instrument_function)) int f(int x) { return x + 1; }",
            "klpx::not-traceable",
        ),
        (
            "int once __attribute__((section(\".init.data\"))); int f(void) { return 1; }",
            "int once __attribute__((section(\".init.data\"))); int f(void) { return once; }",
            "klpx::init-reference",
        ),
        (
            "int out(int); int gone(int x) { static int n; n += x; return out(n); }
            int stays(int x) { return out(x); }",
            "int out(int); int stays(int x) { static int n; n += x; return out(x + n); }",
            "klpx::unsettled-item",
        ),
    ];
    for (original, patched, code) in cases {
        assert_eq!(codes(original, patched), [code], "{patched}");
    }
}

#[test]
fn a_holder_out_of_ftraces_reach_is_refused_with_what_it_inlines() {
    let text = |number: u32| {
        format!(
            "static inline int part(int x) {{ return x + {number}; }}
            __attribute__((no_instrument_function)) int holder(int x) {{ return part(x); }}"
        )
    };
    Builds::new(&text(1), &text(2)).with("vmlinux", |units| {
        let holder = units[0].difference.functions[0].patched;
        let inlines = BTreeMap::from([(holder, "inlines part at file.c:2".to_owned())]);
        let refused = |unit: ComparedUnit<'_, '_>| {
            let failure = closure::select(&[unit], &Elsewhere::new()).err().expect("a refusal");
            let diagnosis = failure.diagnoses().next().expect("a diagnosis").clone();
            assert_eq!(diagnosis.code, "klpx::not-traceable");
            assert_eq!(diagnosis.place.symbol.as_deref(), Some("holder"));
            (diagnosis.why, diagnosis.remedy)
        };
        let (why, remedy) = refused(ComparedUnit { inlines: Some(&inlines), ..units[0] });
        let (plain_why, plain_remedy) = refused(units[0]);
        assert_eq!(why, format!("it inlines part at file.c:2, which the patch edits; {plain_why}"));
        assert!(remedy.contains("under another name") && remedy != plain_remedy, "{remedy}");
    });
}

#[test]
fn several_refusals_come_at_once() {
    let found = codes(
        "int a = 1, b = 1; int f(void) { return a + b; }",
        "int a = 2, b = 2; int f(void) { return a + b; }",
    );
    assert_eq!(found, ["klpx::changed-data", "klpx::changed-data"]);
}

#[test]
fn a_name_that_nothing_exports_is_refused_in_a_module_only() {
    let builds = Builds::new(
        "extern int away(int); int f(int x) { return away(x); }",
        "extern int away(int); int f(int x) { return away(x) + 1; }",
    );
    let kernel = Kernel { exports: vec!["__fentry__"], ..Kernel::default() };
    assert_eq!(builds.codes("raid1", &kernel), ["klpx::unresolved-symbol"]);
    assert!(builds.codes("vmlinux", &Kernel::default()).is_empty());
}

#[test]
fn a_cold_part_comes_with_its_function_and_is_not_replaced_by_itself() {
    let text = |number: u32| {
        format!(
            "extern int slow(int) __attribute__((cold)); extern int v; \
             int f(int x) {{ if (x == 7) {{ v = slow(x) + {number}; v += slow(v); }} return x + v; }}"
        )
    };
    let builds = Builds::new(&text(1), &text(2));
    let emitted = builds.emit("vmlinux", &Kernel::default()).expect("a livepatch");
    let names: Vec<&str> = emitted.plan.objects[0].functions.iter().map(|f| f.old.name.as_str()).collect();
    assert_eq!(names, ["f"]);
}
