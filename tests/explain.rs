//! `klpx explain`: each code that klpx has is explained once, and nothing else is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use klpx_diagnosis::{Class, code::PREFIX, codes};
use klpx_testkit::sources;

/// The top of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn explain(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_klpx")).arg("explain").args(args).output().expect("klpx runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// The codes that a text has: as literals, or in the brackets of a message.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("klpx::").filter_map(|(at, prefix)| {
        let rest = &text[at + prefix.len()..];
        let end = rest.find(|c: char| c != '-' && !c.is_ascii_alphanumeric())?;
        let around = (text[..at].chars().next_back()?, rest[end..].chars().next()?);
        (end > 0 && matches!(around, ('"', '"') | ('[', ']'))).then_some(&rest[..end])
    })
}

/// The codes of all crates, each with a file that makes it.
fn made() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (path, source) in sources::of_crates(&root()) {
        found.extend(quoted(&source).map(|name| (name.to_owned(), path.clone())));
    }
    found
}

#[test]
fn each_code_has_one_section_and_each_section_a_code() {
    let made = made();
    assert!(made.len() > 150, "the codes are found: {}", made.len());
    let mut sections: BTreeMap<String, usize> = BTreeMap::new();
    for page in sources::files(&root().join("docs/refusals"), ".md") {
        let page = fs::read_to_string(&page).expect("a page");
        for name in page.lines().filter_map(|line| line.strip_prefix("## klpx::")) {
            *sections.entry(name.to_owned()).or_default() += 1;
        }
    }
    let missing: Vec<_> = made.iter().filter(|(name, _)| !sections.contains_key(*name)).collect();
    assert!(missing.is_empty(), "write a section in docs/refusals for: {missing:#?}");
    let nobodys: Vec<_> = sections.keys().filter(|name| !made.contains_key(*name)).collect();
    assert!(nobodys.is_empty(), "klpx has no such codes: {nobodys:?}");
    let twice: Vec<_> = sections.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "explained more than once: {twice:?}");
    // A page that is not compiled in is read by nobody.
    let listed = text(&explain(&[]).stdout);
    let listed: BTreeSet<&str> =
        listed.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
    assert_eq!(listed, sections.keys().map(String::as_str).collect());
}

/// The source of the table, by its path below `crates`.
const TABLE: &str = "diagnosis/src/codes.rs";

#[test]
fn codes_stand_in_the_table_only_and_each_is_in_use() {
    let mut used = BTreeSet::new();
    for (path, source) in sources::of_crates(&root()) {
        for (n, line) in source.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            let after =
                line.split(PREFIX).skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
            assert!(!after || path == TABLE, "{path}:{}: name the code by its constant: {line}", n + 1);
        }
        let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        let names = source.split("codes::").skip(1).filter_map(|rest| rest.split(|c| !is_name(c)).next());
        used.extend(names.map(str::to_owned));
    }
    for row in codes::ALL {
        let constant = row.short_name().to_uppercase().replace('-', "_");
        assert!(used.contains(&constant), "nothing makes {}", row.name);
    }
}

/// Diagnosis::new demands a reason and a remedy. An empty text would be neither.
#[test]
fn no_diagnosis_has_an_empty_text() {
    for (path, source) in sources::of_crates(&root()) {
        for rest in source.split("Diagnosis::new(").skip(1) {
            let mut call = rest.lines().take_while(|line| !line.contains(';'));
            let is_empty = |line: &str| matches!(line.trim(), "\"\"," | "\"\"") || line.contains(", \"\")");
            assert!(
                !call.any(is_empty),
                "{path}: an empty text in Diagnosis::new({}",
                &rest[..rest.len().min(200)]
            );
        }
    }
}

/// The lines of README around the lists.
const BEGIN: &str = "<!-- The lists of exit codes and diagnosis codes: KLPX_WRITE_README=1 cargo test --test explain readme -->\n";
const END: &str = "<!-- The end of the lists. -->\n";

/// The lists of exit codes and diagnosis codes, for README.
fn lists() -> String {
    let mut text = "| exit code | meaning |\n|---|---|\n| 0 | success |\n".to_owned();
    for class in Class::ALL {
        text.push_str(&format!("| {} | {} |\n", class.exit_code(), class.meaning()));
    }
    text.push_str(
        "\nIf a command fails in several ways, the gravest one gives the exit code, in this order: ",
    );
    let order = Class::GRAVEST_FIRST.map(|(class, _)| class.exit_code().to_string());
    text.push_str(&format!("{}.\n\n<details>\n<summary>All codes</summary>\n\n", order.join(", ")));
    for page in codes::Page::ALL {
        let file = format!("docs/refusals/{}.md", page.file());
        let subject = fs::read_to_string(root().join(&file)).expect("a page");
        let subject = subject.lines().next().expect("a subject").trim_start_matches("# ").to_owned();
        let of_page = codes::ALL.iter().filter(|row| row.page == *page);
        let names: Vec<_> = of_page.map(|row| format!("`{}`", row.short_name())).collect();
        text.push_str(&format!("- [{subject}]({file}): {}\n", names.join(", ")));
    }
    text.push_str("\n</details>\n");
    text
}

#[test]
fn readme_has_the_lists_of_the_table() {
    let path = root().join("README.md");
    let readme = fs::read_to_string(&path).expect("README");
    let (before, rest) = readme.split_once(BEGIN).expect("the begin of the lists");
    let (found, after) = rest.split_once(END).expect("the end of the lists");
    if std::env::var_os("KLPX_WRITE_README").is_some() {
        fs::write(&path, [before, BEGIN, &lists(), END, after].concat()).expect("written");
        return;
    }
    assert_eq!(
        found,
        lists(),
        "README's lists are old: KLPX_WRITE_README=1 cargo test --test explain readme"
    );
}

#[test]
fn a_code_is_explained_with_or_without_its_prefix() {
    let short = explain(&["changed-data"]);
    assert!(short.status.success());
    let output = text(&short.stdout);
    assert!(output.starts_with("klpx::changed-data\n\nThe patch changes "), "{output}");
    assert!(output.contains("KLP_PRE_PATCH_CALLBACK") && output.ends_with(".\n"), "{output}");
    assert!(!output.contains("klpx::layout"), "another section is not printed: {output}");
    assert_eq!(explain(&["klpx::changed-data"]).stdout, short.stdout);
}

#[test]
fn an_unknown_code_is_refused_with_those_that_were_meant() {
    let refused = explain(&["chaged-data"]);
    assert_eq!(refused.status.code(), Some(2));
    let output = text(&refused.stderr);
    assert!(
        output.contains("[klpx::no-such-code]") && output.contains("did you mean klpx::changed-data"),
        "{output}"
    );
    assert!(text(&explain(&["\u{1b}[2J"]).stderr).contains("klpx explain lists all codes"));
}
