//! Functions to which a compiler gave one common body.

use klpx_testkit::builds::Builds;
use klpx_testkit::fixture::X86_64;
use klpx_testkit::kernel::Kernel;

fn kernel() -> Kernel {
    let defined = vec!["out", "log_it", "register_cb"];
    Kernel { exports: vec!["__fentry__"], defined, ..Kernel::default() }
}

const BODY: &str = "{ if (x > 9) log_it(x); return out(x, NUMBER) + log_it(x * 9); }";

/// GCC folds functions only if it may reorder them.
fn two(original: &str, patched: &str) -> Builds {
    let flags = [X86_64.traced, &["-ftoplevel-reorder"]].concat();
    Builds::of(&X86_64, &flags, original, patched)
}

/// Two functions and their users; `number` is in the body of the second.
fn unit(kind: &str, number: u32, users: &str) -> String {
    let body = |number: u32| BODY.replace("NUMBER", &number.to_string());
    format!(
        "extern int out(int, int), log_it(int); extern void register_cb(int (*)(int));
         {kind} __attribute__((noinline)) int first(int x) {}
         {kind} __attribute__((noinline)) int second(int x) {}
         int a(int x) {{ return first(x) + 1; }} int b(int x) {{ return second(x) + 2; }} {users}",
        body(6),
        body(number)
    )
}

fn replaced(builds: &Builds) -> Vec<String> {
    let plan = builds.emit("vmlinux", &kernel()).expect("a livepatch").plan;
    let mut names: Vec<String> = plan.objects[0].functions.iter().map(|one| one.old.name.clone()).collect();
    names.sort();
    names
}

#[test]
fn one_of_two_locals_is_changed_for_its_own_callers() {
    let builds = two(&unit("static", 6, ""), &unit("static", 8, ""));
    assert_eq!(replaced(&builds), ["b"], "not first, whose body second has had");
    // The other function changes: the body stays that of the second.
    let swapped =
        |text: String| text.replace("first", "other").replace("second", "first").replace("other", "second");
    let builds = two(&swapped(unit("static", 6, "")), &swapped(unit("static", 8, "")));
    assert_eq!(replaced(&builds), ["b"]);
}

#[test]
fn where_others_may_have_the_address_it_is_refused() {
    let callback = "int probe(int dev) { register_cb(second); return 0; }";
    for users in [callback, &callback.replace("second", "first")] {
        let builds = two(&unit("static", 6, users), &unit("static", 8, users));
        assert_eq!(builds.codes("vmlinux", &kernel()), ["klpx::folded-functions"], "{users}");
        let builds = two(&unit("static", 8, users), &unit("static", 6, users));
        let refused = if users == callback { vec!["klpx::folded-functions"] } else { Vec::new() };
        assert_eq!(builds.codes("vmlinux", &kernel()), refused, "{users}");
    }
    let alias = |number: u32| {
        let second = match number {
            6 => "int second(int x) __attribute__((alias(\"first\")));".to_owned(),
            _ => format!("int second(int x) {}", BODY.replace("NUMBER", &number.to_string())),
        };
        let first = BODY.replace("NUMBER", "6");
        format!("extern int out(int, int), log_it(int); int first(int x) {first} {second}")
    };
    assert_eq!(two(&alias(6), &alias(8)).codes("vmlinux", &kernel()), ["klpx::folded-functions"]);
}

#[test]
fn functions_that_come_together_leave_the_old_body_to_nobody() {
    let builds = two(&unit("static", 8, ""), &unit("static", 6, ""));
    assert_eq!(replaced(&builds), ["b"]);
}

#[test]
fn an_edit_elsewhere_leaves_them_one() {
    let text = unit("", 6, "");
    let builds = two(&text, &text.replace("first(x) + 1", "first(x) + 3"));
    assert_eq!(replaced(&builds), ["a"]);
}
