//! Things that a livepatch can't do, and similar things that it can do, each with its code.

use std::collections::BTreeSet;

use klpx_klp_emit::callers::Elsewhere;
use klpx_klp_emit::plan::ComparedUnit;
use klpx_klp_emit::{closure, emit};
use klpx_testkit::builds::Builds;
use klpx_testkit::kernel::Kernel;

const DECLARATIONS: &str = "
#define SECTION(name) __attribute__((used, section(name)))
#define INIT SECTION(\".init.text\") __attribute__((noinline))
extern int out(int), keep(const void *);
";

fn kernel() -> Kernel {
    Kernel { exports: vec!["__fentry__"], defined: vec!["out", "keep"], ..Kernel::default() }
}

/// Builds of a text in which `LAST` stands for `one`, then for `other`.
fn builds(text: &str, one: &str, other: &str) -> Builds {
    assert!(text.contains("LAST"), "{text}");
    let text = [DECLARATIONS, text].concat();
    Builds::new(&text.replace("LAST", one), &text.replace("LAST", other))
}

/// Object, text, the two values of LAST, codes.
type Case = (&'static str, &'static str, (&'static str, &'static str), &'static [&'static str]);

#[test]
fn each_reason_has_its_code() {
    let cases: [Case; 30] = [
        (
            "vmlinux",
            "struct p { const char *name; int v; }; static const struct p known SECTION(\"__param\") = { 0, LAST };
             int f(int x) { return out(x); }",
            ("1", "2"),
            &["klpx::changed-registry"],
        ),
        (
            "vmlinux",
            "int f(int x) { LAST return out(x); }",
            ("", "static long fresh SECTION(\"__param\") = 5; keep(&fresh);"),
            &["klpx::changed-registry", "klpx::registry"],
        ),
        (
            "vmlinux",
            "int once SECTION(\".init.data\") = LAST; INIT int setup(int x) { return out(once); }",
            ("1", "2"),
            &["klpx::init-data"],
        ),
        ("vmlinux", "int limit = LAST; int f(void) { return out(limit); }", ("1", "2"), &["klpx::changed-data"]),
        ("vmlinux", "INIT int setup(int x) { return out(x) + LAST; }", ("1", "2"), &["klpx::init-function"]),
        ("raid1", "INIT int setup(int x) { return out(x) + LAST; }", ("1", "2"), &["klpx::init-function"]),
        ("vmlinux", "int f(int x) { return out(x); } LAST", ("", "INIT int setup(int x) { return out(x); }"), &["klpx::init-function"]),
        (
            "vmlinux",
            "INIT int setup(int x) { return out(x); } int f(int x) { return LAST; }",
            ("out(x)", "out(x) + setup(x)"),
            &["klpx::init-reference"],
        ),
        (
            "vmlinux",
            "int once SECTION(\".init.data\") = 1; int f(int x) { return LAST; }",
            ("out(x)", "out(x) + once"),
            &["klpx::init-reference"],
        ),
        (
            "vmlinux",
            "int f(int x) { return LAST; } ",
            ("out(x)", "({ static long fresh SECTION(\".init.data\") = 5; keep(&fresh); })"),
            &["klpx::init-reference"],
        ),
        (
            "vmlinux",
            "int f(int x) { LAST return out(x); }",
            ("", "asm volatile(\"mov 1f(%%rip), %0\\n.pushsection .data.hidden,\\\"aw\\\"\\n1: .long 5\\n.popsection\" : \"=r\"(x));"),
            &["klpx::unnamed-data"],
        ),
        // What compilers make for the sanitizer's checks: a copy serves as well.
        (
            "vmlinux",
            "int f(int x) { LAST return out(x); }",
            ("", "asm volatile(\"mov 1f(%%rip), %0\\n.pushsection .data..Lubsan_data4,\\\"aw\\\"\\n1: .quad out, 5\\n.popsection\" : \"=r\"(x));"),
            &[],
        ),
        (
            "vmlinux",
            "int f(int x) { LAST return out(x); }",
            ("", "asm volatile(\"mov 1f(%%rip), %0\\n.pushsection .data..Lubsan_type2,\\\"aw\\\"\\n1: .quad out, 5\\n.popsection\" : \"=r\"(x));"),
            &[],
        ),
        (
            "vmlinux",
            "int f(int x) { LAST return out(x); }",
            ("", "asm volatile(\"mov 1f(%%rip), %0\\n.pushsection .data..L__unnamed_1,\\\"aw\\\"\\n1: .quad out, 5\\n.popsection\" : \"=r\"(x));"),
            &[],
        ),
        (
            "vmlinux",
            "int f(int x) { LAST return out(x); }",
            ("", "asm volatile(\"mov 1f(%%rip), %0\\n.pushsection .data..Lanon.0123456789abcdef0123456789abcdef.2,\\\"aw\\\"\\n1: .quad out, 5\\n.popsection\" : \"=r\"(x));"),
            &[],
        ),
        (
            "vmlinux",
            "int f(int x) { LAST return out(x); }",
            ("", "asm volatile(\"mov 1f(%%rip), %0\\n.pushsection .rodata.hidden,\\\"a\\\"\\n1: .long 5\\n.popsection\" : \"=r\"(x));"),
            &[],
        ),
        (
            "vmlinux",
            "int f(int x) { LAST return out(x); }",
            ("", "asm volatile(\"mov out@GOTPCREL(%%rip), %0\" : \"=r\"(x));"),
            &["klpx::relocation-type"],
        ),
        ("vmlinux", "int f(int x) { return out(x) + LAST; }", ("1", "2"), &[]),
        // An item that a macro names has no identity: the new version is copied.
        (
            "vmlinux",
            "struct d { const char *text; int line; };
             int f(int x) { static struct d descriptor SECTION(\"__dyndbg\") = { \"m\", LAST }; keep(&descriptor); return out(x); }",
            ("1", "2"),
            &[],
        ),
        (
            "vmlinux",
            "asm(\".pushsection .discard.secret,\\\"a\\\"\\n.type thing,@object\\nthing: .long 1\\n.size thing,4\\n.popsection\"); extern char thing;
             int f(int x) { LAST return out(x); }",
            ("", "keep(&thing);"),
            &["klpx::unknown-section"],
        ),
        ("a_name_of_a_module_that_is_longer_than_livepatch_takes_it", "int f(int x) { return out(x) + LAST; }", ("1", "2"), &["klpx::object-name"]),
        ("name.with.dots", "int f(int x) { return out(x) + LAST; }", ("1", "2"), &["klpx::object-name"]),
        ("a_name_of_a_module_with_no_more_than_fifty_five_letters", "int f(int x) { return out(x) + LAST; }", ("1", "2"), &[]),
        // A section of untraceable code is not the same as a missing trace site, whoever calls.
        (
            "vmlinux",
            "static SECTION(\".noinstr.text\") __attribute__((noinline, no_instrument_function)) int g(int x) { return out(x) + LAST; }
             int f(int x) { return g(x) * 2; }",
            ("1", "2"),
            &["klpx::not-traceable"],
        ),
        // Functions in the same section may call it without a relocation.
        (
            "vmlinux",
            "static SECTION(\".text.shared\") __attribute__((noinline, no_instrument_function)) int g(int x) { return out(x) + LAST; }
             SECTION(\".text.shared\") int h(int x) { return g(x) * 3; } int f(int x) { return g(x) * 2; }",
            ("1", "2"),
            &["klpx::not-traceable"],
        ),
        // Code takes its address.
        (
            "vmlinux",
            "static __attribute__((noinline, no_instrument_function)) int g(int x) { return out(x) + LAST; }
             int f(int x) { return keep(g) + g(x); }",
            ("1", "2"),
            &["klpx::not-traceable"],
        ),
        // Callers of its weak name may mean another unit's function.
        (
            "vmlinux",
            "static __attribute__((noinline, no_instrument_function)) int g(int x) { return out(x) + LAST; }
             int w(int) __attribute__((weak, alias(\"g\"))); int f(int x) { return g(x) * 2; }",
            ("1", "2"),
            &["klpx::not-traceable"],
        ),
        // Data keeps its address.
        (
            "vmlinux",
            "static __attribute__((noinline, no_instrument_function)) int g(int x) { return out(x) + LAST; }
             int (*hook)(int) = g; int f(int x) { return g(x); }",
            ("1", "2"),
            &["klpx::not-traceable"],
        ),
        // An entry that describes the function itself does not keep the function's address.
        (
            "vmlinux",
            "static int g(int); int f(int x) { return g(x) * 2; }
             static __attribute__((noinline, no_instrument_function)) int g(int x) {
                 asm goto(\"1: nop\\n.pushsection __jump_table,\\\"aw\\\"\\n.long 1b - ., %l[yes] - .\\n.quad out - .\\n.popsection\" : : : : yes);
                 return out(x) + LAST; yes: return x; }",
            ("1", "2"),
            &[],
        ),
        // A function that calls itself is not its own caller.
        (
            "vmlinux",
            "static __attribute__((noinline, no_instrument_function)) int g(int x) { return x < 9 ? x : g(out(x)) * g(out(x - 1)) + LAST; }
             int f(int x) { return g(x) * 2; }",
            ("1", "2"),
            &[],
        ),
    ];
    for (object, text, (one, other), wanted) in cases {
        assert_eq!(builds(text, one, other).codes(object, &kernel()), wanted, "{object}: {text}");
    }
}

/// The codes of refusals and warnings, when the patch edits none of the functions, or none is known to be edited.
fn said(
    text: &str,
    object: &str,
    edited: Option<&BTreeSet<klpx_normalize::object::ItemId>>,
) -> Result<Vec<&'static str>, Vec<&'static str>> {
    builds(text, "1", "2").with(object, |units| {
        let units = [ComparedUnit { edited, ..units[0] }];
        let made =
            closure::select(&units, &Elsewhere::new()).and_then(|closure| emit::emit(&closure, &kernel()));
        match made {
            Ok(emitted) => Ok(emitted.plan.warnings.iter().map(|one| one.code).collect()),
            Err(failure) => Err(failure.diagnoses().map(|one| one.code).collect()),
        }
    })
}

#[test]
fn code_that_ran_is_left_out_where_nobody_edited_it_and_only_of_the_kernel_image() {
    let text = "INIT int setup(int x) { return out(x) + LAST; } int f(int x) { return out(x) * LAST; }";
    let nobody = BTreeSet::new();
    assert_eq!(said(text, "vmlinux", Some(&nobody)), Ok(vec!["klpx::init-function"]));
    assert_eq!(said(text, "raid1", Some(&nobody)), Err(vec!["klpx::init-function"]));
    assert_eq!(said(text, "vmlinux", None), Err(vec!["klpx::init-function"]));
    let alone = "INIT int setup(int x) { return out(x) + LAST; }";
    assert_eq!(said(alone, "vmlinux", Some(&nobody)), Err(vec!["klpx::nothing-to-replace"]));
}

/// New code that runs while the kernel boots.
#[test]
fn new_code_that_ran_is_refused_where_the_patch_has_it() {
    let text = "\n#if LAST == 2\nINIT int setup(int x) { return out(x); }\n#endif\nint f(int x) { return out(x) * LAST; }";
    assert_eq!(said(text, "vmlinux", Some(&BTreeSet::new())), Ok(vec![]));
    assert_eq!(said(text, "vmlinux", None), Err(vec!["klpx::init-function"]));
}

#[test]
fn a_function_that_cant_be_bound_is_told_and_a_variable_may_be_set() {
    let kernel = Kernel { unbound: vec!["f"], ..kernel() };
    let builds =
        builds("int g(int x) { return out(x) - LAST; } int f(int x) { return out(x) + LAST; }", "1", "2");
    assert_eq!(builds.codes("vmlinux", &kernel), ["klpx::not-in-kernel"]);
    let failure = self::builds("int limit = LAST; int f(void) { return out(limit); }", "1", "2")
        .emit("vmlinux", &kernel);
    let failure = failure.err().expect("a refusal");
    let remedy = &failure.diagnoses().next().expect("one").remedy;
    assert!(remedy.contains("pre-patch callback"), "{remedy}");
}

/// A weak definition that gave way may be changed.
#[test]
fn data_that_gave_way_to_another_units_may_change() {
    let text =
        "__attribute__((weak)) int level[2] = { 3, LAST }; int f(int x) { return out(level[x & 1]) + LAST; }";
    let codes = |gave_way: bool| {
        builds(text, "1", "2").with("vmlinux", |units| {
            let original = units[0].original;
            let items = original
                .item_ids()
                .filter(|&item| original.item_name(item) == b"level" && gave_way)
                .collect();
            let units = [ComparedUnit { overridden: Some(&items), ..units[0] }];
            closure::select(&units, &Elsewhere::new())
                .err()
                .map(|failure| failure.diagnoses().map(|found| found.code).collect::<Vec<_>>())
        })
    };
    assert_eq!(codes(true), None);
    assert_eq!(codes(false), Some(vec!["klpx::changed-data"]));
}

#[test]
fn a_helper_is_copied_for_its_callers_and_does_not_replace() {
    let text = "static __attribute__((noinline, no_instrument_function)) int g(int x) { return out(x) + LAST; }
        int f(int x) { return g(x) * 2; } int h(int x) { return g(x + 1); } int other(int x) { return out(x); }";
    let plan = builds(text, "1", "2").emit("vmlinux", &kernel()).expect("a livepatch").plan;
    let names: Vec<&str> =
        plan.objects[0].functions.iter().map(|function| function.old.name.as_str()).collect();
    assert_eq!(names, ["f", "h"]);
}
