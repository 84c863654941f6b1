//! `klpx explain`: each code that klpx has is explained once, and nothing else is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

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

/// The files below a folder whose names end so.
fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => found.extend(files(&path, end)),
            false if path.to_string_lossy().ends_with(end) => found.push(path),
            false => {}
        }
    }
    found
}

/// The part of a source that is not for tests, and the modules that it declares for tests.
fn without_tests(source: &str) -> (&str, Vec<&str>) {
    let mut end = source.len();
    let mut modules = Vec::new();
    for (at, attribute) in source.match_indices("#[cfg(test)]\n") {
        let line = source[at + attribute.len()..].lines().next().unwrap_or_default();
        let Some((_, module)) = line.split_once("mod ") else { continue };
        match module.split_once(';') {
            Some((name, _)) => modules.push(name),
            None => end = end.min(at),
        }
    }
    (&source[..end], modules)
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
fn made() -> BTreeMap<String, PathBuf> {
    let crates =
        fs::read_dir(root().join("crates")).expect("crates").map(|entry| entry.expect("a crate").path());
    let paths: Vec<PathBuf> = crates.flat_map(|path| files(&path.join("src"), ".rs")).collect();
    let sources: Vec<(&PathBuf, String)> =
        paths.iter().map(|path| (path, fs::read_to_string(path).expect("a source"))).collect();
    let mut for_tests = BTreeSet::new();
    for (path, source) in &sources {
        let is_root =
            matches!(path.file_name().and_then(|name| name.to_str()), Some("mod.rs" | "lib.rs" | "main.rs"));
        let folder = if is_root { path.with_file_name("") } else { path.with_extension("") };
        for module in without_tests(source).1 {
            for_tests.extend([folder.join(module), folder.join(format!("{module}.rs"))]);
        }
    }
    let mut found = BTreeMap::new();
    for (path, source) in &sources {
        if path.ancestors().all(|part| !for_tests.contains(part)) {
            found.extend(codes(without_tests(source).0).map(|name| (name.to_owned(), (*path).clone())));
        }
    }
    found
}

#[test]
fn each_code_has_one_section_and_each_section_a_code() {
    let made = made();
    assert!(made.len() > 150, "the codes are found: {}", made.len());
    let mut sections: BTreeMap<String, usize> = BTreeMap::new();
    for page in files(&root().join("docs/refusals"), ".md") {
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
