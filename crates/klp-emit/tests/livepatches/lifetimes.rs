//! Items that a running kernel has freed, and that a livepatch can't change or refer to.

use std::collections::BTreeSet;

use klpx_klp_emit::callers::Elsewhere;
use klpx_klp_emit::plan::ComparedUnit;
use klpx_klp_emit::{closure, emit};
use klpx_testkit::builds::Builds;
use klpx_testkit::kernel::Kernel;

const INIT: &str = "__attribute__((section(\".init.text\"), cold, noinline))";
const EXIT: &str = "__attribute__((section(\".exit.text\"), used, cold, no_instrument_function))";

fn kernel() -> Kernel {
    Kernel { exports: vec!["__fentry__"], defined: vec!["out"], ..Kernel::default() }
}

#[test]
fn a_removal_function_of_what_is_built_in_is_left_out() {
    let text = |way: &str, more: &str| {
        format!(
            "extern int out(int); int probe(int x) {{ {more} return out(x); }} {EXIT} void leave(void) {{ out({way}); }}"
        )
    };
    let builds = Builds::new(&text("1", ""), &text("2", "out(x + 1);"));
    assert_eq!(builds.changed(), ["leave", "probe"]);
    assert_eq!(builds.codes("vmlinux", &kernel()), [""; 0]);
    let module = builds.emit("vmlinux", &kernel()).expect("a livepatch");
    let replaced: Vec<_> = module.plan.objects[0].functions.iter().map(|one| one.old.name.as_str()).collect();
    assert_eq!(replaced, ["probe"]);
    // A module has the function until the module is removed, and ftrace can't reach it.
    assert_eq!(builds.codes("raid1", &kernel()), ["klpx::not-traceable"]);
    // Without another change, there is nothing to do.
    let alone = Builds::new(&text("1", ""), &text("2", ""));
    assert_eq!(alone.codes("vmlinux", &kernel()).len(), 1);
}

#[test]
fn a_function_that_is_kept_from_now_on_is_new() {
    let text = |init: &str, used: &str| {
        format!(
            "extern int out(int); {init} int setup(int x) {{ return out(x) + 1; }}
             {INIT} int boot(void) {{ return setup(3) + setup(4); }} int resume(int x) {{ return {used}(x); }}"
        )
    };
    let builds = Builds::new(&text(INIT, "out"), &text("__attribute__((noinline))", "setup"));
    // `boot` now calls another function, although the patch does not edit it: `boot` has run.
    let edited = BTreeSet::new();
    let made = builds.with("vmlinux", |units| {
        let units = [ComparedUnit { edited: Some(&edited), ..units[0] }];
        emit::emit(&closure::select(&units, &Elsewhere::new())?, &kernel())
    });
    let plan = made.expect("a livepatch").plan;
    let replaced: Vec<_> = plan.objects[0].functions.iter().map(|one| one.old.name.as_str()).collect();
    assert_eq!((replaced, plan.objects[0].added.clone()), (vec!["resume"], vec!["setup".to_owned()]));
}

#[test]
fn a_weak_function_that_gave_way_is_left_out_and_still_called_where_it_is() {
    let text = |weak: &str, caller: &str| {
        format!(
            "extern int out(int); __attribute__((weak, noinline)) int arch(int x) {{ return out({weak}); }}
             int show(int x) {{ return arch(x) + {caller}; }}"
        )
    };
    let overridden = |builds: &Builds| {
        builds.with("vmlinux", |units| {
            let weak = units[0].original;
            let gave_way: BTreeSet<_> =
                weak.item_ids().filter(|&item| weak.item_name(item) == b"arch").collect();
            let units = [ComparedUnit { overridden: Some(&gave_way), ..units[0] }];
            emit::emit(&closure::select(&units, &Elsewhere::new())?, &kernel()).map(|emitted| emitted.plan)
        })
    };
    let plan = overridden(&Builds::new(&text("1", "1"), &text("2", "2"))).expect("a livepatch");
    let replaced: Vec<_> = plan.objects[0].functions.iter().map(|one| one.old.name.as_str()).collect();
    assert_eq!(replaced, ["show"]);
    assert!(
        plan.livepatch_symbols.iter().any(|symbol| symbol.contains("arch")),
        "{:?}",
        plan.livepatch_symbols
    );
    let failure = overridden(&Builds::new(&text("1", "1"), &text("2", "1"))).expect_err("nothing to do");
    assert_eq!(failure.diagnoses().map(|said| said.code).collect::<Vec<_>>(), ["klpx::nothing-changed"]);
}
