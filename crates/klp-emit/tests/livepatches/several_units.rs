//! Several units of one kernel object in one livepatch.

use klpx_klp_emit::callers::{Elsewhere, KernelFunction};
use klpx_klp_emit::plan::ComparedUnit;
use klpx_klp_emit::{callers, closure, emit};
use klpx_normalize::elf::ElfFile;
use klpx_testkit::builds::Builds;
use klpx_testkit::kernel::Kernel;
use klpx_verify::inspect::{Module, inspect};

/// The finished module of a patch that passed verification.
fn livepatch(builds: &Builds, object: &str, kernel: &Kernel) -> Module {
    let file = ElfFile::from_bytes("livepatch.ko", builds.module(object, kernel));
    let said = builds.verify(object, kernel, &file);
    let said = said.map_err(|f| f.diagnoses().map(ToString::to_string).collect::<Vec<_>>());
    assert!(said.is_ok(), "{said:?}");
    inspect(&file).expect("a livepatch")
}

fn functions(livepatch: &Module) -> Vec<(&str, Vec<(&str, u64)>)> {
    let each = livepatch.objects.iter();
    each.map(|object| {
        let functions = object.functions.iter().map(|f| (f.old_name.as_str(), f.sympos)).collect();
        (object.name.as_str(), functions)
    })
    .collect()
}

const ONE: &str = "extern int other(int); int f(int x) { return other(x) + 1; }";
const ONE_PATCHED: &str =
    "extern int other(int), fresh(int); int f(int x) { return fresh(x) + other(x) + 1; }";
const TWO: &str = "int g(int x) { return x * 3; }";
const TWO_PATCHED: &str = "extern int count; int count = 5; int fresh(int x) { return x + count++; }
    int g(int x) { return fresh(x) * 3; }";

#[test]
fn the_object_stands_once_and_new_globals_of_one_unit_serve_the_others() {
    let builds = Builds::files(&[("one", ONE, ONE_PATCHED), ("two", TWO, TWO_PATCHED)]);
    let made = livepatch(&builds, "vmlinux", &Kernel::default());
    assert_eq!(functions(&made), [("vmlinux", vec![("f", 0), ("g", 0)])]);
    let symbols: Vec<&str> = made.symbols.iter().map(|symbol| symbol.name.as_str()).collect();
    assert_eq!(symbols, ["__fentry__", "other"], "what is new is in the module");
}

#[test]
fn what_another_unit_of_a_module_defines_is_found_in_the_module() {
    let builds = Builds::files(&[("one", ONE, &ONE.replace("+ 1", "+ 2"))]);
    let kernel = Kernel { exports: vec!["__fentry__"], ..Kernel::default() };
    assert_eq!(builds.codes("raid1", &kernel), ["klpx::unresolved-symbol"]);
    let kernel = Kernel { defined: vec!["other"], ..kernel };
    let made = livepatch(&builds, "raid1", &kernel);
    assert_eq!(made.symbols.iter().map(|s| s.object.as_str()).collect::<Vec<_>>(), ["raid1"]);
}

#[test]
fn a_global_that_the_kernel_has_from_another_file_is_not_new() {
    let builds = Builds::files(&[("one", ONE, ONE_PATCHED), ("two", TWO, TWO_PATCHED)]);
    let kernel = Kernel { defined: vec!["fresh"], ..Kernel::default() };
    assert_eq!(builds.codes("vmlinux", &kernel), ["klpx::not-new"]);
}

#[test]
fn a_global_that_ftrace_cant_reach_has_callers_that_no_unit_shows() {
    let text = |number: &str| {
        format!("__attribute__((no_instrument_function)) int fresh(int x) {{ return x + {number}; }}")
    };
    let builds = Builds::files(&[
        ("one", ONE_PATCHED, &ONE_PATCHED.replace("+ 1", "+ 2")),
        ("two", &text("1"), &text("2")),
    ]);
    assert_eq!(builds.codes("vmlinux", &Kernel::default()), ["klpx::not-traceable"]);
}

#[test]
fn a_name_that_comes_from_elsewhere_is_nobody_elses_new_one() {
    let imported = "extern int fresh(int); int f(int x) { return fresh(x) + 1; }";
    let builds =
        Builds::files(&[("one", imported, &imported.replace("+ 1", "+ 2")), ("two", TWO, TWO_PATCHED)]);
    let kernel = Kernel { exports: vec!["__fentry__", "fresh"], ..Kernel::default() };
    let plan = builds.with("vmlinux", |units| {
        let units = [units[0], ComparedUnit { object_name: "raid1", ..units[1] }];
        emit::emit(&closure::select(&units, &Elsewhere::new())?, &kernel).map(|emitted| emitted.plan)
    });
    let plan = plan.expect("a livepatch");
    let imports: Vec<&str> = plan.imports.iter().map(|import| import.name.as_str()).collect();
    assert!(
        imports.contains(&"fresh"),
        "the kernel's, not the one that the patch adds to raid1: {imports:?}"
    );
}

#[test]
fn a_variable_that_moved_to_another_unit_would_begin_anew() {
    let with = "static int state; int NAME(int x) { state += x; return state; }";
    let without = "int NAME(int x) { return x; }";
    let text = |text: &str, name: &str| text.replace("NAME", name);
    let builds = Builds::files(&[
        ("one", &text(with, "f"), &text(without, "f")),
        ("two", &text(without, "g"), &text(with, "g")),
    ]);
    assert_eq!(builds.codes("vmlinux", &Kernel::default()), ["klpx::unsettled-item"]);
}

/// One source that is compiled into two units, like fs/binfmt_elf.c.
fn twins() -> Builds {
    let text = |number: u32, who: u32| {
        format!(
            "extern int other(int); static __attribute__((noinline)) int load(int x) {{ return other(x + {who}) + {number}; }}
            int (*hook{who})(int) = load;"
        )
    };
    Builds::files(&[("native", &text(1, 64), &text(2, 64)), ("compat", &text(1, 32), &text(2, 32))])
}

#[test]
fn functions_of_one_name_take_the_place_of_their_own() {
    let builds = twins();
    let kernel = |native, compat| Kernel {
        of_file: [(("load", "native.c"), native), (("load", "compat.c"), compat)].into(),
        ..Kernel::default()
    };
    let made = livepatch(&builds, "vmlinux", &kernel(1, 2));
    assert_eq!(functions(&made), [("vmlinux", vec![("load", 1), ("load", 2)])]);
    // A kernel in which the two lie in the other order.
    let file = ElfFile::from_bytes("livepatch.ko", builds.module("vmlinux", &kernel(1, 2)));
    let said = builds.verify("vmlinux", &kernel(2, 1), &file).expect_err("two functions in wrong places");
    let said: Vec<_> = said.diagnoses().map(ToString::to_string).collect();
    assert!(said.iter().any(|said| said.contains("take another one's place")), "{said:?}");
}

#[test]
fn two_functions_cant_take_the_place_of_one() {
    assert_eq!(twins().codes("vmlinux", &Kernel::default()), ["klpx::ambiguous-symbol"]);
}

#[test]
fn an_address_that_cant_be_called_is_not_taken() {
    let text =
        "extern int other(int); static __attribute__((noinline)) int near(int x) { return other(x) + 1; }
        int (*hook)(int); int f(int x) { HOOK return near(x) + other(x); }";
    let patched = |what: &str| text.replace("HOOK", what);
    let cases = [("hook = near;", 1), ("hook = other;", 1), ("x += other(x) + near(x);", 0)];
    for (what, refusals) in cases {
        let builds = Builds::files(&[("one", &patched(""), &patched(what))]);
        let kernel = Kernel { sealed: vec!["near", "other"], ..Kernel::default() };
        assert_eq!(builds.codes("vmlinux", &kernel), vec!["klpx::no-landing-pad"; refusals], "{what}");
        assert_eq!(builds.codes("vmlinux", &Kernel::default()), [""; 0], "{what}");
    }
}

/// A function without a trace site, and its caller in another unit.
fn helper_and_caller(more: &str) -> Builds {
    helper_and_caller_with("", more)
}

/// The same units with more text in each.
fn helper_and_caller_with(beside: &str, more: &str) -> Builds {
    let helper = |number: &str| {
        format!(
            "__attribute__((no_instrument_function)) int helper(int x) {{ return x + {number}; }} {beside}"
        )
    };
    let caller =
        format!("extern int helper(int), out(int); int caller(int x) {{ return helper(x) * 2; }} {more}");
    Builds::files(&[("one", &helper("1"), &helper("2")), ("two", &caller, &caller)])
}

fn elsewhere(callers: &[&str]) -> Elsewhere {
    let function = |name: &&str| KernelFunction { object: "vmlinux".into(), names: vec![(*name).to_owned()] };
    [(("vmlinux".to_owned(), b"helper".to_vec()), Ok(callers.iter().map(function).collect()))].into()
}

/// The replaced functions and the copied helpers, or the reason for the refusal.
fn chosen(builds: &Builds, elsewhere: &Elsewhere) -> Result<Vec<String>, String> {
    builds.with("vmlinux", |units| {
        let closure = closure::select(units, elsewhere)
            .map_err(|failure| failure.diagnoses().map(|found| found.why.clone()).collect::<String>())?;
        let each = (0..units.len()).flat_map(|n| closure.replaced(n).into_iter().map(move |item| (n, item)));
        let names =
            each.map(|(n, item)| String::from_utf8_lossy(units[n].original.item_name(item)).into_owned());
        Ok(names.collect())
    })
}

#[test]
fn callers_in_other_units_are_replaced_for_a_function_that_ftrace_cant_reach() {
    // Up to Linux 6.3 an export is a reference to the function within the unit.
    let export =
        "asm(\".pushsection \\\"___ksymtab+helper\\\", \\\"a\\\"\\n.long helper - .\\n.popsection\");";
    let builds = helper_and_caller_with(export, "");
    let wanted = builds.with("vmlinux", |units| callers::unknown(units, &Elsewhere::new()));
    assert_eq!(wanted, [("vmlinux".to_owned(), b"helper".to_vec())].into());
    let known = elsewhere(&["caller"]);
    assert!(builds.with("vmlinux", |units| callers::unknown(units, &known)).is_empty());
    assert_eq!(chosen(&builds, &known), Ok(vec!["caller".to_owned()]));
    let kernel = Kernel { exports: vec!["__fentry__"], defined: vec!["helper", "out"], ..Kernel::default() };
    let plan = builds.with("vmlinux", |units| {
        emit::emit(&closure::select(units, &known)?, &kernel).map(|emitted| emitted.plan)
    });
    let symbols = plan.expect("a livepatch").livepatch_symbols;
    assert!(
        symbols.iter().all(|symbol| !symbol.contains(".helper,")),
        "the caller uses the copy: {symbols:?}"
    );
}

/// An export is a name for modules; until a module is loaded, nothing keeps the address.
#[test]
fn an_export_of_a_function_that_ftrace_cant_reach_is_no_address_that_data_holds() {
    let since_6_4 = "asm(\".pushsection .export_symbol, \\\"a\\\"\\n__export_symbol_helper: .asciz \\\"GPL\\\"\\n\
                     .balign 8\\n.quad helper\\n.popsection\");";
    let before = "asm(\".pushsection ___ksymtab+helper, \\\"a\\\"\\n__ksymtab_helper: .long helper - .\\n\
                  .popsection\");";
    let elsewhere = elsewhere(&["caller"]);
    let kernel = Kernel { exports: vec!["__fentry__"], defined: vec!["helper", "out"], ..Kernel::default() };
    let kept = "asm(\".pushsection .discard.addressable, \\\"a\\\"\\n__addressable_helper: .quad helper\\n.popsection\");";
    for export in [since_6_4, before, kept] {
        let builds = helper_and_caller_with(export, "");
        let emitted =
            builds.with("vmlinux", |units| emit::emit(&closure::select(units, &elsewhere)?, &kernel));
        let module = builds.module_of(&emitted.expect("a livepatch"));
        let said = builds.verify("vmlinux", &kernel, &ElfFile::from_bytes("livepatch.ko", module));
        let said = said.map_err(|f| f.diagnoses().map(ToString::to_string).collect::<Vec<_>>());
        assert!(said.is_ok(), "{export}: {said:?}");
    }
}

#[test]
fn a_caller_that_is_in_no_unit_is_told() {
    let why = chosen(&helper_and_caller(""), &elsewhere(&["caller", "unseen"])).expect_err("unseen");
    assert!(why.contains("unseen (vmlinux) calls it"), "{why}");
    let kept = helper_and_caller("int (*hook)(int) = helper;");
    let why = chosen(&kept, &elsewhere(&["caller"])).expect_err("kept");
    assert!(why.contains("its address is kept somewhere"), "{why}");
    let many = [(("vmlinux".to_owned(), b"helper".to_vec()), Err("213 functions call it".to_owned()))];
    let why = chosen(&helper_and_caller(""), &many.into()).expect_err("too many");
    assert!(why.contains("213 functions call it"), "{why}");
}

#[test]
fn a_function_may_call_itself_and_callers_are_of_their_object() {
    let chosen = |known: &Elsewhere| chosen(&helper_and_caller(""), known);
    assert_eq!(chosen(&elsewhere(&["caller", "helper"])), Ok(vec!["caller".to_owned()]));
    let mut known = elsewhere(&["caller"]);
    let other = KernelFunction { object: "raid1".into(), names: vec!["caller".to_owned()] };
    known.values_mut().for_each(|found| found.iter_mut().for_each(|callers| callers.push(other.clone())));
    let why = chosen(&known).expect_err("one of a module");
    assert!(why.contains("caller (raid1) calls it"), "{why}");
}

/// Other units may call a local that ThinLTO promoted. In a link of all units, its callers are known.
#[test]
fn callers_of_a_promoted_local_are_in_sight_of_its_whole_link_only() {
    let text = |number: u32| {
        format!(
            "int helper(int) __asm__(\"helper.llvm.77\");
             __attribute__((no_instrument_function, noinline, visibility(\"hidden\"))) int helper(int x) {{ return x + {number}; }}
             int caller(int x) {{ return helper(x) * 2; }}"
        )
    };
    assert_eq!(
        Builds::files(&[("one", &text(1), &text(2))]).codes("vmlinux", &Kernel::default()),
        ["klpx::not-traceable"]
    );
}

#[test]
fn a_variable_of_another_object_or_a_constant_did_not_move() {
    let with = |kind: &str, used: &str| {
        format!(
            "extern int out(int); static {kind} int state[4] = {{ 1, 2, 3 }}; int NAME(int x) {{ {used} return out(state[x & 3]); }}"
        )
    };
    let without = "extern int out(int); int NAME(int x) { return out(x); }";
    let text = |text: &str, name: &str| text.replace("NAME", name);
    for (kind, used, objects, wanted) in [
        ("", "state[x & 1] += x;", ["vmlinux", "vmlinux"], vec!["klpx::unsettled-item"]),
        ("", "state[x & 1] += x;", ["vmlinux", "raid1"], vec![]),
        ("const", "", ["vmlinux", "vmlinux"], vec![]),
    ] {
        let with = with(kind, used);
        let builds = Builds::files(&[
            ("one", &text(&with, "f"), &text(without, "f")),
            ("two", &text(without, "g"), &text(&with, "g")),
        ]);
        let kernel = Kernel { exports: vec!["__fentry__", "out"], ..Kernel::default() };
        let codes = builds.with("vmlinux", |units| {
            let units = [
                ComparedUnit { object_name: objects[0], ..units[0] },
                ComparedUnit { object_name: objects[1], ..units[1] },
            ];
            let made =
                closure::select(&units, &Elsewhere::new()).and_then(|closure| emit::emit(&closure, &kernel));
            made.err().map_or(Vec::new(), |failure| failure.diagnoses().map(|found| found.code).collect())
        });
        assert_eq!(codes, wanted, "{kind} {objects:?}");
    }
}

#[test]
fn callers_of_callers_without_a_trace_site_are_asked_for() {
    let untraced = "__attribute__((no_instrument_function))";
    let helper = |number: &str| format!("{untraced} int helper(int x) {{ return x + {number}; }}");
    let middle = format!("extern int helper(int); {untraced} int middle(int x) {{ return helper(x) * 2; }}");
    let builds = Builds::files(&[("one", &helper("1"), &helper("2")), ("two", &middle, &middle)]);
    let wanted = builds.with("vmlinux", |units| callers::unknown(units, &elsewhere(&["middle"])));
    assert_eq!(wanted, [("vmlinux".to_owned(), b"middle".to_vec())].into());
}
