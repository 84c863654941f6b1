//! ThinLTO promotes a local when another module comes to need it. The new name has a hash of the local's own module.

mod support;

use klpx_diff::ItemEvidence;
use klpx_normalize::name::{Suffixes, canonical};
use klpx_normalize::object::Object;
use klpx_testkit::project::{CLANGS, Mode};
use support::{Builds, item, used_one};

/// `api_a` is small enough to be imported; the importing module must then be able to reach its helper.
const A: &str = "static int list[4];
    __attribute__((noinline)) static int helper(int x) { asm volatile(\"\"); return x + list[x & 3]; }
    int api_a(int x) { return helper(x) + ADD; }
    void set_a(int x) { list[x & 3] = x; }";
const B: &str = "static int list[4];
    __attribute__((noinline)) static int helper(int x) { asm volatile(\"\"); return x * list[x & 3]; }
    extern int api_a(int);
    int api_b(int x) { return helper(x) + CALL; }
    void set_b(int x) { list[x & 1] = x; }";

fn source(text: &str, add: u32, call: &str) -> String {
    text.replace("ADD", &add.to_string()).replace("CALL", call)
}

fn builds(original: (u32, &str), patched: (u32, &str)) -> Vec<Builds> {
    let files = |(add, call): (u32, &str)| [source(A, add, call), source(B, add, call)];
    let (original, patched) = (files(original), files(patched));
    let named = |files: &[String; 2]| -> Vec<(&'static str, String)> {
        vec![("one/core.c", files[0].clone()), ("two/core.c", files[1].clone())]
    };
    let (original, patched) = (named(&original), named(&patched));
    let borrow =
        |files: &[(&'static str, String)]| files.iter().map(|(n, t)| (*n, t.clone())).collect::<Vec<_>>();
    CLANGS
        .map(|tools| {
            let (original, patched) = (borrow(&original), borrow(&patched));
            let original: Vec<_> = original.iter().map(|(n, t)| (*n, t.as_str())).collect();
            let patched: Vec<_> = patched.iter().map(|(n, t)| (*n, t.as_str())).collect();
            Builds::new((tools, Mode::Thin, &[]), &original, &patched)
        })
        .into()
}

fn is_promoted(object: &Object<'_>, user: &str) -> bool {
    let helper = used_one(object, user, "helper");
    canonical(object.item_name(helper)).suffixes.contains(Suffixes::PROMOTED)
}

#[test]
fn another_hash_is_the_same_function() {
    for builds in builds((1, "api_a(x)"), (2, "api_a(x)")) {
        let pair = builds.pair();
        assert!(is_promoted(&pair.original, "api_a") && is_promoted(&pair.patched, "api_a"));
        assert_eq!(pair.same("api_a", "api_a", "helper"), Some(ItemEvidence::FileAndBase));
        assert_eq!(pair.same("set_b", "set_b", "list"), Some(ItemEvidence::FileAndName));
        assert_eq!(pair.changes(), (vec!["api_a".into(), "api_b".into()], vec![]));
    }
}

#[test]
fn promoted_on_one_side_only_is_the_same_function() {
    let calls = ["0", "api_a(x)"];
    for (from, to) in [(0, 1), (1, 0)] {
        for builds in builds((1, calls[from]), (1, calls[to])) {
            let pair = builds.pair();
            assert_eq!(
                [is_promoted(&pair.original, "api_a"), is_promoted(&pair.patched, "api_a")],
                [from == 1, to == 1]
            );
            assert_eq!(pair.same("api_a", "api_a", "helper"), Some(ItemEvidence::FileAndBase));
            assert_eq!(pair.of(item(&pair.patched, "set_a")).map(|of| of.1), Some(ItemEvidence::Name));
            assert_eq!(pair.changes(), (vec!["api_b".into()], vec![]));
            assert_eq!(pair.unsettled(), [""; 0]);
        }
    }
}

#[test]
fn the_same_base_name_in_several_files_of_one_name_is_told_apart() {
    // Both files are called core.c, both have a helper, and one of them is promoted.
    for builds in builds((1, "api_a(x)"), (1, "api_a(x + 1)")) {
        let pair = builds.pair();
        assert_eq!(
            pair.same("api_a", "api_a", "helper"),
            Some(ItemEvidence::Name),
            "its module did not change"
        );
        let of_b = item(&pair.patched, "helper");
        assert_eq!(pair.of(of_b), Some((item(&pair.original, "helper"), ItemEvidence::FileAndName)));
        assert_eq!(pair.changes(), (vec!["api_b".into()], vec![]));
    }
}
