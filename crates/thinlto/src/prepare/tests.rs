use std::collections::{BTreeMap, BTreeSet};

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
        assert_eq!(made.frozen, frozen, "{level:?}");
        // Units that import from this one have the same code.
        let units: Vec<&str> = made.pairs.iter().map(|pair| pair.unit.as_str()).collect();
        assert_eq!(units, ["fs/a.o"], "{level:?}");
        let compiled = toy.path("work/backends/others").exists();
        assert_eq!(compiled, frozen == 0, "{level:?}: who imports from a frozen unit is not compiled again");
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
fn a_function_that_became_small_goes_on_being_called_by_other_units() {
    let large = LIBRARY.lines().find(|line| line.starts_with("int large")).expect("a line");
    let patched = LIBRARY.replace(large, "int large(int n) { return helper(n + 2); }");
    // Left to itself, the inliner copies `large` into `other`.
    let toy = toy();
    let found = toy.differing(&[("a", &patched)], Level::Imports);
    assert_eq!(found, wanted(&[("fs/a.o", &["large"]), ("fs/c.o", &["other"])]));
    for again in [false, true] {
        let made = toy.made(&[("a", &patched)], Level::Inlining);
        // The unit's symbols differ from the original's, but no function differs.
        assert_eq!(functions(&made), wanted(&[("fs/a.o", &["large"]), ("fs/c.o", &[])]), "again: {again}");
        assert_eq!(made.spared, 1);
    }
}

#[test]
fn a_unit_that_holds_a_copy_of_what_is_edited_is_not_spared() {
    // `user` held `small`, and would newly hold `large`: its copy of `small` keeps it in the set.
    let user = "int small(int);
int large(int);
int user(int n) { return small(n) * 2 + large(n); }
int caller(int n) { return large(n) * 3; }
";
    let large = LIBRARY.lines().find(|line| line.starts_with("int large")).expect("a line");
    let patched = LIBRARY
        .replace(large, "int large(int n) { return helper(n + 2); }")
        .replace("helper(n + 1)", "helper(n + 3)");
    let toy = Toy::new(&[("a", LIBRARY), ("b", user)], 5);
    let made = toy.made(&[("a", &patched)], Level::Inlining);
    assert_eq!(functions(&made), wanted(&[("fs/a.o", &["large", "small"]), ("fs/b.o", &["user"])]));
    assert_eq!(made.spared, 1, "caller");
}

#[test]
fn what_is_known_of_originals_is_taken_the_second_time() {
    let (toy, patched) = (toy(), LIBRARY.replace("helper(n + 1)", "helper(n + 2)"));
    let first = toy.made(&[("a", &patched)], Level::Inlining);
    // With the kept originals overwritten, a second compilation would show.
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

#[test]
fn a_unit_that_the_patch_adds_is_new() {
    let toy = toy();
    let user = "int small(int);\nint fresh(int);\nint user(int n) { return small(n) * fresh(n); }\n";
    let mut touched = toy.touched(&[("b", user)]);
    touched.added.push(toy.added("d", "extern int sink(int);\nint fresh(int n) { return sink(n) * 7; }\n"));
    let made = toy.try_made(&touched, Level::Inlining).expect("pairs");
    let pairs: Vec<(&str, bool)> = made.pairs.iter().map(|pair| (pair.unit.as_str(), pair.is_new)).collect();
    assert_eq!(pairs, [("fs/b.o", false), ("fs/d.o", true)]);
    assert_eq!(functions(&made), wanted(&[("fs/b.o", &["user"]), ("fs/d.o", &["fresh"])]));
    assert_eq!(made.held_back, 0, "nothing of the original is asked for newly");
}

#[test]
fn imports_of_functions_that_only_the_patch_has_are_not_held_back() {
    let user = |callee: &str| format!("int {callee}(int);\nint user(int n) {{ return {callee}(n) * 2; }}\n");
    let library = LIBRARY.replace("int large", "int fresh(int n) { return n + 3; }\nint large");
    for (callee, held_back) in [("fresh", 0), ("large", 1)] {
        let made = toy().made(&[("a", &library), ("b", &user(callee))], Level::Inlining);
        assert_eq!(made.held_back, held_back, "{callee}");
    }
}

#[test]
fn a_variable_that_one_touched_unit_renumbers_and_another_one_names_is_refused() {
    let counting = |more: &str| {
        format!("int count(int n) {{ {more}{{ static int total; total += n; n ^= total; }} return n; }}\n")
    };
    let one = "{ static int total; total -= n; n *= total; } ";
    let user = |factor: u32| format!("int count(int);\nint user(int n) {{ return count(n) * {factor}; }}\n");
    let toy = Toy::new(&[("a", &counting(one)), ("b", &user(2))], 100);
    let patched = counting(&format!("{{ static int total; total |= n; n -= total; }} {one}"));
    let touched = toy.touched(&[("a", &patched), ("b", &user(3))]);
    let failure = toy.try_made(&touched, Level::Inlining).expect_err("a variable means another one");
    let codes: Vec<&str> = failure.diagnoses().map(|diagnosis| diagnosis.code).collect();
    assert_eq!(codes, ["klpx::renumbered-static"]);
}

#[test]
fn a_unit_whose_replayed_code_is_the_originals_is_no_pair() {
    // Debug information would show the import.
    let library = LIBRARY.replace("int large", "__attribute__((nodebug)) int large");
    let large = LIBRARY.lines().find(|line| line.starts_with("int large")).expect("a line");
    let patched = library.replace(large, "int large(int n) { return sink(n + 2); }");
    let other = OTHER.replace("int large", "__attribute__((nodebug)) int large");
    let toy = Toy::new(&[("a", &library), ("b", USER), ("c", &other)], 5);
    let made = toy.made(&[("a", &patched)], Level::Inlining);
    let units: Vec<&str> = made.pairs.iter().map(|pair| pair.unit.as_str()).collect();
    assert_eq!((units, made.spared), (vec!["fs/a.o"], 1));
}

/// The units of a case; `None` for a case with headers.
fn units(files: &[(String, String)]) -> Option<Vec<(&str, &str)>> {
    let each = files.iter();
    each.map(|(path, text)| Some((path.strip_prefix("fs/")?.strip_suffix(".c")?, text.as_str()))).collect()
}

#[test]
fn the_pairs_hold_all_that_a_whole_link_has_otherwise_and_stabilised_no_more_than_must_be() {
    let mut count = 0;
    for case in klpx_testkit::lto::cases() {
        let patched = case.patched();
        let (Some(originals), Some(patched)) = (units(&case.files), units(&patched)) else { continue };
        let toy = Toy::new(&originals, case.import_limit);
        let whole = toy.whole_difference(&patched);
        let mut pairs: Vec<String> = toy.differing(&patched, Level::Off).into_values().flatten().collect();
        pairs.sort();
        assert_eq!(pairs, whole, "{}: whole", case.name);
        let made = toy.differing(&patched, Level::Inlining);
        let stabilised: Vec<String> = made.into_values().flatten().collect();
        assert_eq!(stabilised.len(), case.expect.changed.len(), "{}: stabilised", case.name);
        assert_eq!(BTreeSet::from_iter(stabilised), case.expect.changed, "{}: stabilised", case.name);
        count += 1;
    }
    assert!(count > 8, "{count} cases");
}
