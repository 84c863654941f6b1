use std::collections::BTreeMap;

use crate::Level;
use crate::testing::{Toy, functions};

const LIBRARY: &str = "extern int sink(int);
static __attribute__((noinline)) int helper(int n) { return sink(n) + sink(n + 1); }
int small(int n) { return helper(n + 1); }
int large(int n) { for (int i = 0; i < n; i++) n += sink(i) * sink(n - i) - sink(7); return n + helper(2); }
";
const USER: &str = "int small(int);
int user(int n) { return small(n) * 2; }
";
const OTHER: &str = "extern int sink(int);
int large(int);
int other(int n) { return sink(large(n)) * 2; }
";

fn toy() -> Toy {
    Toy::new(&[("a", LIBRARY), ("b", USER), ("c", OTHER)], 5)
}

fn wanted(units: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    units.iter().map(|(unit, functions)| ((*unit).to_owned(), names(functions))).collect()
}

#[test]
fn a_change_that_nobody_imports_is_one_units() {
    let patched = LIBRARY.replace("sink(7)", "sink(8)");
    for (level, frozen) in [(Level::Off, 0), (Level::Names, 1), (Level::Inlining, 1)] {
        let toy = toy();
        let made = toy.made(&[("a", &patched)], level);
        let found = functions(&made).get("fs/a.o").cloned();
        assert_eq!(found, Some(vec!["large".to_owned()]), "{level:?}");
        assert_eq!(made.frozen.len(), frozen, "{level:?}");
        // Whoever imports from the unit sees another hash, and another name of the helper, unless that is frozen.
        let units: Vec<&str> = made.pairs.iter().map(|pair| pair.unit.as_str()).collect();
        let all: &[&str] = if level == Level::Off { &["fs/a.o", "fs/b.o"] } else { &["fs/a.o"] };
        assert_eq!(units, all, "{level:?}");
    }
}

#[test]
fn whoever_holds_a_copy_of_what_changes_has_other_code_too() {
    let patched = LIBRARY.replace("helper(n + 1)", "helper(n + 2)");
    for level in [Level::Off, Level::Names, Level::Imports, Level::Inlining] {
        let found = toy().differing(&[("a", &patched)], level);
        assert_eq!(found, wanted(&[("fs/a.o", &["small"]), ("fs/b.o", &["user"])]), "{level:?}");
    }
}

#[test]
fn what_is_known_of_originals_is_taken_the_second_time() {
    let (toy, patched) = (toy(), LIBRARY.replace("helper(n + 1)", "helper(n + 2)"));
    let first = toy.made(&[("a", &patched)], Level::Inlining);
    // A compiler that is gone would be missed now.
    for pair in &first.pairs {
        assert!(pair.original.starts_with(toy.path("store")));
        std::fs::write(&pair.original, "kept").expect("a file");
    }
    let again = toy.made(&[("a", &patched)], Level::Inlining);
    assert_eq!(first.pairs, again.pairs);
    for pair in &again.pairs {
        assert_eq!(std::fs::read(&pair.original).expect("an original"), b"kept");
    }
}

#[test]
fn a_source_that_does_not_compile_is_told_with_the_compilers_words() {
    let toy = toy();
    let touched = toy.touched(&[("a", "int f(void) { return undeclared; }")]);
    let failure = toy.try_made(&touched, Level::Inlining).expect_err("it does not compile");
    let diagnosis = failure.diagnoses().next().expect("one");
    assert_eq!(diagnosis.code, "klpx::patched-source-does-not-compile");
    assert!(diagnosis.detail.iter().any(|line| line.contains("undeclared")), "{diagnosis:?}");
}
