use std::path::PathBuf;

use super::*;
use crate::llvm::ir::Identity;
use crate::originals::Functions;
use crate::sameness::Sameness;
use crate::testing::{Toy, WORK, functions};

/// A patch that makes the place of the only call unlikely.
fn flip() -> (String, String) {
    let original =
        format!("{WORK}int entry(int n) {{\n  if (n > 1000)\n    return -1;\n  return work(n);\n}}\n");
    let patched = original.replace("n > 1000", "n == 5 || __builtin_expect(n < 1000, 1)");
    (original, patched)
}

fn differing(names: &[&str]) -> DifferingNames {
    DifferingNames {
        functions: names.iter().map(|name| (*name).to_owned()).collect(),
        ..DifferingNames::default()
    }
}

#[test]
fn the_originals_inlining_is_taken_where_it_brings_the_unit_nearer() {
    let (original, patched) = flip();
    let toy = Toy::new(&[("a", &original)], 5);
    let outcome = toy.made(&[("a", &patched)], Level::Inlining).outcome.expect("a flip");
    assert_eq!((outcome.plain, outcome.taken, outcome.given_up), (2, 1, None));
}

#[test]
fn the_originals_inlining_is_given_up_where_nothing_comes_of_it() {
    // A small `work` is inlined into every likely caller. Both builds also have it out of line because `user` takes its
    // address, and both functions are edited.
    let small =
        |text: String| text.replace("STEPS(1) STEPS(6) STEPS(11) STEPS(16) STEPS(21) STEPS(26)", "STEP(1)");
    let (original, patched) = flip();
    let (original, patched) = (small(original), small(patched));
    let user = "void take(int (*)(int));\nvoid user(int n) { take(work); sink(n + 1); }\n";
    let toy = Toy::new(&[("a", &format!("{original}{user}"))], 5);
    let patched = format!("{patched}{}", user.replace("n + 1", "n + 2"));
    let outcome = toy.made(&[("a", &patched)], Level::Inlining).outcome;
    let outcome = outcome.expect("an attempt");
    assert_eq!((outcome.plain, outcome.taken), (2, 2));
    let why = outcome.given_up.expect("a reason");
    assert!(why.contains("brings it no nearer"), "{why}");
}

#[test]
fn an_original_that_does_not_come_out_as_it_was_built_gives_no_decisions() {
    let (original, patched) = flip();
    let toy = Toy::new(&[("a", &original)], 5);
    // More debug information changes the bitcode but not the code.
    toy.compile_otherwise("a", "-fdebug-info-for-profiling");
    let outcome = toy.made(&[("a", &patched)], Level::Inlining).outcome.expect("an attempt");
    assert_eq!((outcome.plain, outcome.taken), (2, 2));
    let why = outcome.given_up.expect("a reason");
    assert!(why.contains("does not come out as kbuild made it"), "{why}");
}

#[test]
fn nothing_is_known_of_functions_of_a_touched_unit_that_was_not_looked_at() {
    let (original, patched) = flip();
    let (other, renamed) = ("int mine(int n) { return n; }\n", "int mine(int m) { return m; }\n");
    let toy = Toy::new(&[("a", &original), ("b", other)], 5);
    toy.attempted(&[("a", &patched), ("b", renamed)], |attempt, chosen| {
        assert_eq!(chosen.differing[1], DifferingNames::default(), "b has the same code");
        let known = attempt.examined.get().and_then(|examined| examined.known.as_ref()).expect("a flip");
        let sameness = ["work", "entry", "mine"].map(|name| known.sameness(name));
        assert_eq!(sameness, [Sameness::Same, Sameness::Attributes, Sameness::Other]);
    });
}

#[test]
fn a_unit_alone_in_its_link_offers_nothing() {
    let original = "extern int sink(int); int f(int n) { return sink(n) + 1; }\n";
    let toy = Toy::new(&[("a", original)], 5);
    let made = toy.made(&[("a", &original.replace("+ 1", "+ 1 + 0"))], Level::Inlining);
    assert_eq!((made.frozen, made.held_back), (0, 0));
}

#[test]
fn a_static_that_only_the_backend_inlines_is_called_again() {
    // The backend imports `zero`, finds that one of the calls of `work` is never made, and inlines the other call.
    let original = format!(
        "{WORK}int zero(int);
int entry(int n) {{ if (sink(n)) return work(n); return zero(n); }}
int user(int n) {{ return work(n) + 1; }}\n"
    );
    let patched = original
        .replace("sink(n)) return work(n); return zero(n)", "zero(n)) return work(n); return sink(n)");
    assert_ne!(original, patched);
    let library = "int zero(int n) { return 0; }\n";
    let toy = Toy::new(&[("a", &original), ("b", library)], 5);
    let found = |level| functions(&toy.made(&[("a", &patched)], level)).remove("fs/a.o").expect("a pair");
    assert_eq!(found(Level::Imports), ["entry", "user"]);
    assert_eq!(found(Level::Inlining), ["entry"]);
}

#[test]
fn a_backends_object_is_taken_only_when_it_is_nearer() {
    let backend = |name: &str| Backend { object: PathBuf::from(name), remarks: String::new() };
    let build = || PatchedBuild {
        bitcode: Vec::new(),
        near: Vec::new(),
        backends: vec![backend("first"), backend("second")],
        slices: Slices::new(),
        differing: vec![differing(&["a"]), differing(&["b", "c"])],
    };
    for (names, taken) in
        [(&["c"][..], true), (&[], true), (&["b", "c"], false), (&["d"], false), (&["b", "d"], false)]
    {
        let mut build = build();
        build.take_if_nearer(1, PathBuf::from("replayed"), differing(names));
        let wanted = if taken { ("replayed", differing(names)) } else { ("second", differing(&["b", "c"])) };
        assert_eq!(
            (build.backends[1].object.to_str(), &build.differing[1]),
            (Some(wanted.0), &wanted.1),
            "{names:?}"
        );
        assert_eq!(
            (build.backends[0].object.to_str(), &build.differing[0]),
            (Some("first"), &differing(&["a"]))
        );
    }
}

#[test]
fn no_unit_may_be_farther_and_one_must_be_nearer() {
    let plain = [differing(&["a", "b"]), differing(&["c"])];
    for (again, wanted) in [
        ([&["a"][..], &["c"][..]], true),
        ([&["a"], &[]], true),
        ([&["a", "b"], &["c"]], false),
        ([&["a"], &["c", "d"]], false),
        ([&["a"], &["d"]], false),
    ] {
        assert_eq!(nearer(&again.map(differing), &plain), wanted, "{again:?}");
    }
}

#[test]
fn others_must_not_be_able_to_import_less() {
    let near = |frozen| Near { frozen, held_back: 0 };
    for (again, plain, less) in
        [(true, true, false), (false, true, true), (true, false, false), (false, false, false)]
    {
        assert_eq!(near(again).offers_less_than(&near(plain)), less, "{again} {plain}");
    }
}

#[test]
fn a_build_that_leaves_a_holder_out_is_refused() {
    let functions =
        |body: u128| -> Functions { [("edited".to_owned(), Identity { body, attributes: 1 })].into() };
    let known = KnownSameness::compare([(&functions(1), &functions(2))].into_iter());
    let remarks = "a.c:1:1: 'edited' inlined into 'holder' with (cost=1, threshold=2) at callsite holder:1:1;\n\
                   a.c:1:1: 'leaf' inlined into 'bystander' with (cost=1, threshold=2) at callsite bystander:1:1;\n";
    let refused = |left_out: &[&str]| {
        refusal([remarks].into_iter(), &left_out.iter().map(|name| (*name).to_owned()).collect(), &known)
    };
    assert_eq!(refused(&["bystander"]), None);
    assert!(refused(&["bystander", "holder"]).is_some_and(|why| why.contains("holder")));
}
