//! The cases in `kernel-fixtures/lto`.

use klpx_testkit::lto::{Case, cases};

use crate::toy::{Lto, Source, Toy, changed, functions};

fn source(case: &Case, lto: Lto) -> Source {
    Source { files: case.files.clone(), edits: case.edits.clone(), limit: case.import_limit, lto }
}

/// Functions of a report that are there for another cause than they should be.
fn wrong_causes(
    case: &Case,
    report: &serde_json::Value,
    key: &str,
    causes: &[(String, String)],
) -> Vec<String> {
    let changes = report["changes"].as_array().expect("changes");
    let mut wrong = Vec::new();
    for (name, wanted) in causes {
        let change = changes.iter().find(|change| change["function"] == name.as_str());
        if change.is_none_or(|change| change[key] != wanted.as_str()) {
            wrong.push(format!("{}: {name} is there because of {change:?}", case.name));
        }
    }
    wrong
}

/// The patched objects that a report tells of.
fn objects(report: &serde_json::Value) -> Vec<Vec<u8>> {
    let pairs = report["objects"].as_array().expect("kept");
    pairs
        .iter()
        .map(|pair| std::fs::read(pair["patched"].as_str().expect("a path")).expect("an object"))
        .collect()
}

fn check(suffix: &'static str) {
    let mut wrong = Vec::new();
    for case in cases() {
        let toy = Toy::new(&source(&case, Lto::Thin), suffix);
        let off = toy.report("off");
        wrong.extend(wrong_causes(&case, &off, "cause", &case.expect.causes_off));
        let plain = changed(&off);
        if &plain != case.changed_off() {
            wrong.push(format!("{} without stabilising: {plain:?}", case.name));
        }
        let report = toy.report("names");
        if changed(&report) != plain {
            wrong.push(format!("{} with frozen names: {:?}", case.name, changed(&report)));
        }
        let frozen = report["frozen"].as_u64().unwrap_or(0);
        if frozen != case.expect.frozen {
            wrong.push(format!("{}: {frozen} units with frozen names", case.name));
        }
        let report = toy.report("inlining");
        // The second time what is known of the originals is kept.
        let again = toy.report("inlining");
        if (changed(&again), &again["stabilised"]) != (changed(&report), &report["stabilised"])
            || objects(&again) != objects(&report)
        {
            wrong.push(format!("{}: another result the second time", case.name));
        }
        if objects(&toy.report_at_once("inlining")) != objects(&report) {
            wrong.push(format!("{}: another result with more jobs", case.name));
        }
        wrong.extend(wrong_causes(&case, &report, "cause", &case.expect.causes));
        wrong.extend(wrong_causes(&case, &report, "why", &case.expect.why));
        let unaffected = functions(&report["unaffected"]);
        if case.expect.unaffected.as_ref().is_some_and(|wanted| *wanted != unaffected) {
            wrong.push(format!("{}: unaffected are {unaffected:?}", case.name));
        }
        let stabilised = changed(&report);
        if stabilised != case.expect.changed {
            wrong.push(format!("{}: {stabilised:?}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn change_sets_hold_what_must_be_replaced_and_no_flips() {
    check("-22");
}

/// Cases of one unit, for what a link does is no part of them.
fn check_without_lto(suffix: &'static str) {
    let mut wrong = Vec::new();
    let mut flips = 0;
    for case in cases().into_iter().filter(|case| case.files.len() == 1) {
        let toy = Toy::new(&source(&case, Lto::None), suffix);
        let plain = case.changed_off();
        for (level, wanted) in [("off", plain), ("imports", plain), ("inlining", &case.expect.changed)] {
            let report = toy.report(level);
            let causes = if level == "inlining" { &case.expect.causes } else { &case.expect.causes_off };
            wrong.extend(wrong_causes(&case, &report, "cause", causes));
            if changed(&report) != *wanted {
                wrong.push(format!("{} at {level}: {:?}", case.name, changed(&report)));
            }
            let entries = report["stabilised"].as_array().into_iter().flatten();
            let entries = entries.filter(|entries| entries["level"] == "inlining").count();
            if entries != usize::from(level == "inlining" && wanted != plain) {
                wrong.push(format!("{} at {level}: {}", case.name, report["stabilised"]));
            }
            flips += entries;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(flips > 0, "the cases hold a flip");
}

#[test]
fn change_sets_hold_no_flips_without_lto() {
    check_without_lto("-22");
    check_without_lto("-19");
}

/// What Linux 6.12 is built with.
#[test]
fn change_sets_are_the_same_with_clang_19() {
    check("-19");
}
