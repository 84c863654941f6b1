//! The cases in `kernel-fixtures/lto`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::toy::{Lto, Source, Toy, changed, functions};

/// One case, as its file says.
#[derive(Default)]
struct Case {
    name: String,
    source: Source,
    /// What must be in the change set: changed and new functions.
    changed: BTreeSet<String>,
    /// The same without stabilising, where it is another set.
    plain: Option<BTreeSet<String>>,
    /// Units whose names are frozen.
    frozen: u64,
    /// Functions and why they are in the change set.
    causes: Vec<(String, String)>,
    /// The same without stabilising.
    plain_causes: Vec<(String, String)>,
    /// The causes in words.
    why: Vec<(String, String)>,
    /// Functions that hold copies of what the patch edits and have the same code, where it matters which.
    unaffected: Option<BTreeSet<String>>,
}

impl Case {
    /// Directives begin with `//#`: `file PATH` and its text; `edit PATH` and lines with `-` and `+`; `changed NAMES`;
    /// `plain NAMES`; `cause NAME CAUSE`; `plain-cause NAME CAUSE`; `why NAME TEXT`; `unaffected NAMES`; `frozen N`; `limit N` for the import
    /// limit, which is the kernel's 5 otherwise.
    fn read(path: &Path) -> Case {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let mut case = Case { name, source: Source { limit: 5, ..Source::default() }, ..Case::default() };
        let text = std::fs::read_to_string(path).expect("a case");
        let mut section = String::new();
        for line in text.lines() {
            let Some(directive) = line.strip_prefix("//#") else {
                case.line(&section, line);
                continue;
            };
            let (word, rest) = directive.split_once(' ').unwrap_or((directive, ""));
            section = word.to_owned();
            match word {
                "file" => case.source.files.push((rest.to_owned(), String::new())),
                "edit" => case.source.edits.push((rest.to_owned(), String::new(), String::new())),
                "changed" => case.changed = names(rest),
                "plain" => case.plain = Some(names(rest)),
                "cause" | "plain-cause" | "why" => {
                    let (name, cause) = rest.split_once(' ').expect("a function and its cause");
                    let list = match word {
                        "why" => &mut case.why,
                        "plain-cause" => &mut case.plain_causes,
                        _ => &mut case.causes,
                    };
                    list.push((name.to_owned(), cause.to_owned()));
                }
                "unaffected" => case.unaffected = Some(names(rest)),
                "frozen" => case.frozen = rest.parse().expect("a number"),
                "limit" => case.source.limit = rest.parse().expect("a number"),
                other => assert_eq!(other, "", "{}: a directive", case.name),
            }
        }
        case
    }

    fn line(&mut self, section: &str, line: &str) {
        let add = |text: &mut String, line: &str| {
            text.push_str(line);
            text.push('\n');
        };
        match (section, line.split_at_checked(1)) {
            ("file", _) => add(&mut self.source.files.last_mut().expect("a file").1, line),
            ("edit", Some(("-", old))) => add(&mut self.source.edits.last_mut().expect("an edit").1, old),
            ("edit", Some(("+", new))) => add(&mut self.source.edits.last_mut().expect("an edit").2, new),
            _ => {}
        }
    }
}

impl Case {
    /// Functions of a report that are there for another cause than they should be.
    fn wrong_causes(
        &self,
        report: &serde_json::Value,
        key: &str,
        causes: &[(String, String)],
    ) -> Vec<String> {
        let changes = report["changes"].as_array().expect("changes");
        let mut wrong = Vec::new();
        for (name, wanted) in causes {
            let change = changes.iter().find(|change| change["function"] == name.as_str());
            if change.is_none_or(|change| change[key] != wanted.as_str()) {
                wrong.push(format!("{}: {name} is there because of {change:?}", self.name));
            }
        }
        wrong
    }
}

fn names(list: &str) -> BTreeSet<String> {
    list.split_whitespace().map(str::to_owned).collect()
}

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kernel-fixtures/lto");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("cases").map(|entry| entry.expect("a case").path()).collect();
    paths.sort();
    paths.iter().map(|path| Case::read(path)).collect()
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
        let toy = Toy::new(&case.source, suffix);
        let off = toy.report("off");
        wrong.extend(case.wrong_causes(&off, "cause", &case.plain_causes));
        let plain = changed(&off);
        if &plain != case.plain.as_ref().unwrap_or(&case.changed) {
            wrong.push(format!("{} without stabilising: {plain:?}", case.name));
        }
        let report = toy.report("names");
        if changed(&report) != plain {
            wrong.push(format!("{} with frozen names: {:?}", case.name, changed(&report)));
        }
        let frozen = report["frozen"].as_u64().unwrap_or(0);
        if frozen != case.frozen {
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
        wrong.extend(case.wrong_causes(&report, "cause", &case.causes));
        wrong.extend(case.wrong_causes(&report, "why", &case.why));
        let unaffected = functions(&report["unaffected"]);
        if case.unaffected.as_ref().is_some_and(|wanted| *wanted != unaffected) {
            wrong.push(format!("{}: unaffected are {unaffected:?}", case.name));
        }
        let stabilised = changed(&report);
        if stabilised != case.changed {
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
    for mut case in cases().into_iter().filter(|case| case.source.files.len() == 1) {
        case.source.lto = Lto::None;
        let toy = Toy::new(&case.source, suffix);
        let plain = case.plain.as_ref().unwrap_or(&case.changed);
        for (level, wanted) in [("off", plain), ("imports", plain), ("inlining", &case.changed)] {
            let report = toy.report(level);
            let causes = if level == "inlining" { &case.causes } else { &case.plain_causes };
            wrong.extend(case.wrong_causes(&report, "cause", causes));
            if changed(&report) != *wanted {
                wrong.push(format!("{} at {level}: {:?}", case.name, changed(&report)));
            }
            let told = report["stabilised"].as_array().into_iter().flatten();
            let told = told.filter(|told| told["level"] == "inlining").count();
            if told != usize::from(level == "inlining" && wanted != plain) {
                wrong.push(format!("{} at {level}: {}", case.name, report["stabilised"]));
            }
            flips += told;
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
