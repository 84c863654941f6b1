//! Files that come and go, and files that share a name.

mod support;

use klpx_diff::ItemEvidence;
use klpx_testkit::project::{CLANG_22, CLANGS, File, GCC_12, Mode, Tools};
use support::{Builds, item, named, used_one};

/// A file with a static function and a static variable. Files of several folders have the same names.
fn core(name: &str, add: u32) -> String {
    format!(
        "static int state;
        static __attribute__((noinline)) int helper(int x) {{ asm volatile(\"\"); return x + state + {add}; }}
        int use_{name}(int x) {{ return helper(x) * 2; }}
        void set_{name}(int x) {{ state = x; }}
        static int own_{name};
        int *get_{name}(void) {{ return &own_{name}; }}"
    )
}

const EVERY: [(Tools, Mode); 5] = [
    (GCC_12, Mode::Plain),
    (CLANG_22, Mode::Plain),
    (CLANGS[0], Mode::Thin),
    (CLANGS[1], Mode::Thin),
    (CLANGS[2], Mode::Thin),
];

fn each(original: &[File<'_>], patched: &[File<'_>], check: impl Fn(&support::Pair<'_>, (Tools, Mode))) {
    for (tools, mode) in EVERY {
        let builds = Builds::new((tools, mode, &[]), original, patched);
        check(&builds.pair(), (tools, mode));
    }
}

#[test]
fn a_new_file_of_a_name_that_others_have_moves_none_of_them() {
    let (a, b, new) = (core("a", 1), core("b", 2), core("new", 1));
    let original = [("a/core.c", a.as_str()), ("b/core.c", &b)];
    for at in 0..3 {
        let mut patched = original.to_vec();
        patched.insert(at, ("new/core.c", &new));
        each(&original, &patched, |pair, how| {
            for user in ["a", "b"] {
                let (calls, sets) = (format!("use_{user}"), format!("set_{user}"));
                assert_eq!(pair.same(&calls, &calls, "helper"), Some(ItemEvidence::FileAndName), "{how:?}");
                assert_eq!(pair.same(&sets, &sets, "state"), Some(ItemEvidence::FileAndName), "{how:?}");
            }
            for (user, base) in [("use_new", "helper"), ("set_new", "state")] {
                assert_eq!(pair.of(used_one(&pair.patched, user, base)), None, "{how:?}");
            }
            assert_eq!(pair.unsettled(), [""; 0], "{how:?}");
            assert_eq!(pair.changes().1, [""; 0], "{how:?}");
        });
    }
}

#[test]
fn a_file_that_went_leaves_its_statics_to_no_other() {
    let (a, b, gone) = (core("a", 1), core("b", 2), core("gone", 1));
    let original = [("gone/core.c", gone.as_str()), ("a/core.c", &a), ("b/core.c", &b)];
    let patched = [("a/core.c", a.as_str()), ("b/core.c", &b)];
    each(&original, &patched, |pair, how| {
        for user in ["use_a", "use_b"] {
            assert_eq!(pair.same(user, user, "helper"), Some(ItemEvidence::FileAndName), "{how:?}");
        }
        let gone = ["get_gone", "helper", "own_gone", "set_gone", "state", "use_gone"];
        assert_eq!(pair.changes(), (vec![], gone.map(str::to_owned).to_vec()), "{how:?}");
    });
}

#[test]
fn files_that_nothing_but_their_users_tells_apart_are_told_by_them() {
    // Both builds have the same names; the patched build has one of the files twice.
    let plain = |name: &str| {
        format!(
            "static int state;
            static __attribute__((noinline)) int helper(int x) {{ asm volatile(\"\"); return x + state; }}
            int use_{name}(int x) {{ return helper(x) * 2; }}
            void set_{name}(int x) {{ state = x; }}"
        )
    };
    let (a, new) = (plain("a"), plain("new"));
    let original = [("a/core.c", a.as_str())];
    let patched = [("new/core.c", new.as_str()), ("a/core.c", &a)];
    each(&original, &patched, |pair, how| {
        assert!(pair.same("use_a", "use_a", "helper").is_some(), "{how:?}");
        assert!(pair.same("set_a", "set_a", "state").is_some(), "{how:?}");
        for (user, base) in [("use_new", "helper"), ("set_new", "state")] {
            assert_eq!(pair.of(used_one(&pair.patched, user, base)), None, "{how:?}");
        }
    });
}

#[test]
fn a_static_of_one_file_is_not_one_of_another() {
    // `helper` leaves a.c, and b.c gets a `helper`.
    let with = core("x", 1);
    let without = "int use_x(int x) { return x; } void set_x(int x) {}";
    let other = "int use_y(int x) { return x; }";
    let gets = core("y", 1);
    let original = [("a.c", with.as_str()), ("b.c", other)];
    let patched = [("a.c", without), ("b.c", gets.as_str())];
    each(&original, &patched, |pair, how| {
        for name in ["helper", "state"] {
            assert_eq!(pair.of(item(&pair.patched, name)), None, "{name} {how:?}");
        }
        assert_eq!(pair.unsettled(), [""; 0], "{how:?}");
    });
}

#[test]
fn a_static_that_became_global_is_the_same() {
    let text = |scope: &str| {
        format!(
            "{scope} __attribute__((noinline)) int helper(int x) {{ asm volatile(\"\"); return x + 1; }}
            int user(int x) {{ return helper(x) * 2; }}"
        )
    };
    for (from, to) in [("static", ""), ("", "static")] {
        let (from, to) = (text(from), text(to));
        each(&[("a.c", &from)], &[("a.c", &to)], |pair, how| {
            assert!(pair.same("user", "user", "helper").is_some(), "{how:?}");
            assert_eq!(pair.changes(), (vec![], vec![]), "{how:?}");
        });
    }
}

/// Like usr/initramfs_data.S: labels of an assembled file, which has no FILE symbol.
const ASSEMBLED: &str = "
.section .init.ramfs,\"a\"
__irf_start:
.long 1, 2, 3
__irf_end:
.section .init.ramfs.info,\"a\"
.globl __initramfs_size
__initramfs_size:
.quad __irf_end - __irf_start
";

#[test]
fn labels_of_assembled_files_are_found_again() {
    let (a, edited) = (core("a", 1), core("a", 3));
    let original = [("a.c", a.as_str()), ("ramfs.S", ASSEMBLED)];
    let patched = [("a.c", edited.as_str()), ("ramfs.S", ASSEMBLED)];
    let mut how = EVERY.to_vec();
    how.extend(CLANGS.map(|tools| (tools, Mode::Full)));
    for (tools, mode) in how {
        let builds = Builds::new((tools, mode, &[]), &original, &patched);
        let pair = builds.pair();
        assert_eq!(named(&pair.patched, "__irf_start").len(), 1, "{tools:?} {mode:?}");
        assert!(pair.of(item(&pair.patched, "__irf_start")).is_some(), "{tools:?} {mode:?}");
        assert_eq!(pair.changes(), (vec!["helper".into()], vec![]), "{tools:?} {mode:?}");
        assert_eq!(pair.unsettled(), [""; 0], "{tools:?} {mode:?}");
    }
}
