//! Full LTO: link order numbers the equal names of statics, and no FILE tells them apart.

mod support;

use klpx_diff::ItemEvidence;
use klpx_testkit::project::{CLANGS, Mode};
use support::{Builds, item, used_one};

/// A file with a static `helper` and a static `state`, both used by globals of the file.
fn file(name: &str, add: u32) -> String {
    format!(
        "static int state;
        __attribute__((noinline)) static int helper(int x) {{ asm volatile(\"\"); state += x; return x + {add}; }}
        int use_{name}(int x) {{ return helper(x) + helper(x + 1); }}
        int read_{name}(void) {{ return state; }}"
    )
}

fn builds(original: &[(&str, &str)], patched: &[(&str, &str)]) -> Vec<Builds> {
    CLANGS.map(|tools| Builds::new((tools, Mode::Full, &[]), original, patched)).into()
}

#[test]
fn a_sibling_before_them_renumbers_the_rest_and_changes_nothing() {
    let (a, b, z) = (file("a", 1), file("b", 2), file("z", 9));
    let original = [("a.c", a.as_str()), ("b.c", &b)];
    let patched = [("z.c", z.as_str()), ("a.c", &a), ("b.c", &b)];
    for builds in builds(&original, &patched) {
        let pair = builds.pair();
        assert_eq!(used_one(&pair.patched, "use_z", "helper"), item(&pair.patched, "helper"), "renumbered");
        for user in ["use_a", "use_b"] {
            assert_eq!(pair.same(user, user, "helper"), Some(ItemEvidence::Reference), "{user}");
            let read = user.replace("use", "read");
            assert_eq!(pair.same(&read, &read, "state"), Some(ItemEvidence::Reference), "{read}");
        }
        let new = used_one(&pair.patched, "use_z", "helper");
        assert_eq!(pair.of(new), None);
        assert_eq!(pair.unsettled(), [""; 0]);
        let (changed, removed) = pair.changes();
        assert_eq!(
            (changed, removed),
            (vec!["helper".into(), "read_z".into(), "state".into(), "use_z".into()], vec![])
        );
    }
}

#[test]
fn a_sibling_before_them_goes_away() {
    let (a, b, z) = (file("a", 1), file("b", 2), file("z", 9));
    let original = [("z.c", z.as_str()), ("a.c", &a), ("b.c", &b)];
    let patched = [("a.c", a.as_str()), ("b.c", &b)];
    for builds in builds(&original, &patched) {
        let pair = builds.pair();
        for user in ["use_a", "use_b"] {
            assert_eq!(pair.same(user, user, "helper"), Some(ItemEvidence::Reference), "{user}");
        }
        let (changed, removed) = pair.changes();
        assert_eq!(
            (changed, removed),
            (vec![], vec!["helper".into(), "read_z".into(), "state".into(), "use_z".into()])
        );
    }
}

#[test]
fn the_order_of_the_files_does_not_matter() {
    let (a, b) = (file("a", 1), file("b", 2));
    let original = [("a.c", a.as_str()), ("b.c", &b)];
    let patched = [("b.c", b.as_str()), ("a.c", &a)];
    for builds in builds(&original, &patched) {
        let pair = builds.pair();
        assert_eq!(pair.same("use_a", "use_a", "helper"), Some(ItemEvidence::Reference));
        assert_eq!(pair.changes(), (vec![], vec![]));
    }
}

#[test]
fn a_function_that_got_the_contents_of_another_stays_itself() {
    // The bodies of the two helpers change places: both helpers changed, and neither moved.
    let original = [("a.c", &*file("a", 1)), ("b.c", &*file("b", 2))];
    let patched = [("a.c", &*file("a", 2)), ("b.c", &*file("b", 1))];
    for builds in builds(&original, &patched) {
        let pair = builds.pair();
        for user in ["use_a", "use_b"] {
            assert_eq!(pair.same(user, user, "helper"), Some(ItemEvidence::Reference), "{user}");
        }
        assert_eq!(pair.changes(), (vec!["helper".into(), "helper.1".into()], vec![]));
    }
}

#[test]
fn a_function_that_changed_together_with_its_caller_is_known_by_it() {
    let (a, b, z) = (file("a", 1), file("b", 2), file("z", 9));
    let edited = file("a", 7).replace("helper(x) + helper(x + 1)", "helper(x * x + 3) ^ 0x55");
    let original = [("a.c", a.as_str()), ("b.c", &b)];
    let patched = [("z.c", z.as_str()), ("a.c", &edited), ("b.c", &b)];
    for builds in builds(&original, &patched) {
        let pair = builds.pair();
        assert_eq!(pair.same("use_a", "use_a", "helper"), Some(ItemEvidence::User));
        assert_eq!(pair.same("use_b", "use_b", "helper"), Some(ItemEvidence::Reference));
    }
}

#[test]
fn equal_names_of_files_that_came_and_went_are_not_the_same() {
    // a.c goes and z.c comes. Each has the only `helper` and the only `state` of its build, equal to the byte.
    let (a, z, rest) = (file("a", 1), file("z", 1), "int rest(int x) { return x; }");
    let original = [("rest.c", rest), ("a.c", a.as_str())];
    let patched = [("rest.c", rest), ("z.c", z.as_str())];
    for builds in builds(&original, &patched) {
        let pair = builds.pair();
        for name in ["helper", "state"] {
            assert_eq!(pair.of(item(&pair.patched, name)), None, "{name}");
        }
    }
}

#[test]
fn copies_that_are_the_same_in_all_are_each_their_own_users() {
    let (a, b) = (file("a", 1), file("b", 1));
    let original = [("a.c", a.as_str()), ("b.c", &b)];
    let patched = [("b.c", b.as_str()), ("a.c", &a)];
    for builds in builds(&original, &patched) {
        let pair = builds.pair();
        for user in ["use_a", "use_b"] {
            assert_eq!(pair.same(user, user, "helper"), Some(ItemEvidence::Reference), "{user}");
        }
        assert_eq!(pair.changes(), (vec![], vec![]));
    }
}
