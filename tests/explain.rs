//! `klpx explain`: each code that klpx has is explained once, and nothing else is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

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
fn codes(text: &str) -> impl Iterator<Item = &str> {
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
        found.extend(codes(&source).map(|name| (name.to_owned(), path.clone())));
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

#[test]
fn a_code_is_explained_with_or_without_its_prefix() {
    let short = explain(&["changed-data"]);
    assert!(short.status.success());
    let said = text(&short.stdout);
    assert!(said.starts_with("klpx::changed-data\n\nThe patch changes "), "{said}");
    assert!(said.contains("KLP_PRE_PATCH_CALLBACK") && said.ends_with(".\n"), "{said}");
    assert!(!said.contains("klpx::layout"), "another section is not printed: {said}");
    assert_eq!(explain(&["klpx::changed-data"]).stdout, short.stdout);
}

#[test]
fn an_unknown_code_is_refused_with_those_that_were_meant() {
    let refused = explain(&["chaged-data"]);
    assert_eq!(refused.status.code(), Some(2));
    let said = text(&refused.stderr);
    assert!(
        said.contains("[klpx::no-such-code]") && said.contains("did you mean klpx::changed-data"),
        "{said}"
    );
    assert!(text(&explain(&["\u{1b}[2J"]).stderr).contains("klpx explain lists all codes"));
}
