//! The invariants of ARCHITECTURE.md that the source itself shows.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use klpx_testkit::sources;

/// The top of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The files of all crates that hold one of these texts outside of comments and tests.
fn holding(texts: &[&str]) -> BTreeSet<String> {
    let code = |text: &str| {
        let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        lines.collect::<Vec<_>>().join("\n")
    };
    let all = sources::of_crates(&root());
    assert!(all.len() > 250, "the sources are found: {}", all.len());
    let holds = |(_, source): &(String, String)| {
        let code = code(source);
        texts.iter().any(|text| code.contains(text))
    };
    // testkit is never a part of klpx.
    let product = all.into_iter().filter(|(path, _)| !path.starts_with("testkit/"));
    product.filter(holds).map(|(path, _)| path).collect()
}

fn set(paths: &[&str]) -> BTreeSet<String> {
    paths.iter().map(|path| (*path).to_owned()).collect()
}

/// The crates of the workspace that a crate depends on.
fn dependencies(krate: &str) -> BTreeSet<String> {
    let manifest = root().join("crates").join(krate).join("Cargo.toml");
    let manifest = std::fs::read_to_string(&manifest).expect("a manifest");
    let (_, rest) = manifest.split_once("[dependencies]\n").expect("dependencies");
    let lines = rest.lines().take_while(|line| !line.starts_with('['));
    lines.filter_map(|line| Some(line.split_once('.')?.0.to_owned())).collect()
}

#[test]
fn only_three_places_start_processes() {
    let wanted = set(&["build-driver/src/process/mod.rs", "guest/src/qemu.rs", "package/src/deb.rs"]);
    assert_eq!(holding(&["process::Command", "Command::new("]), wanted);
}

#[test]
fn the_command_line_does_no_work_on_objects() {
    let dependencies = dependencies("klpx");
    for of_objects in ["object", "gimli"] {
        assert!(!dependencies.contains(of_objects), "klpx depends on {of_objects}");
    }
}

#[test]
fn the_comparison_is_a_pure_function() {
    let impure = ["std::fs", "std::process", "std::env", "std::net", "std::time", "print!(", "println!("];
    let found: Vec<String> = holding(&impure).into_iter().filter(|path| path.starts_with("diff/")).collect();
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn verification_takes_no_decision_of_what_it_checks() {
    let dependencies = dependencies("verify");
    for checked in ["klpx-diff", "klpx-klp-emit", "klpx-engine", "klpx-thinlto"] {
        assert!(!dependencies.contains(checked), "verify depends on {checked}");
    }
}

/// A third architecture is no second case of one of the two.
#[test]
fn nothing_asks_whether_it_is_one_architecture() {
    let compared = holding(&["== Arch::", "!= Arch::", "== KernelArch::", "!= KernelArch::"]);
    assert!(compared.is_empty(), "a fact of each architecture's table instead: {compared:?}");
}

#[test]
fn only_the_programs_print() {
    let printing = holding(&["println!(", "print!(", "std::io::stdout", "io::stdout()"]);
    let outside: Vec<&String> = printing
        .iter()
        .filter(|path| !["klpx/", "host/", "terminal/"].iter().any(|krate| path.starts_with(krate)))
        .collect();
    assert!(outside.is_empty(), "{outside:?}");
}

/// The type at the end of a path in backticks, such as `Closure` of `klpx_klp_emit::closure::Closure`.
fn named_type(quoted: &str) -> Option<&str> {
    let name = quoted.rsplit("::").next().unwrap_or(quoted);
    let is_type = name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.contains(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_type.then_some(name)
}

#[test]
fn documents_name_types_that_exist() {
    let mut words = BTreeSet::new();
    let folders = ["crates", "xtask/src"].map(|folder| sources::files(&root().join(folder), ".rs"));
    for path in folders.into_iter().flatten() {
        let source = std::fs::read_to_string(&path).expect("a source");
        let names = source.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words.extend(names.map(str::to_owned));
    }
    let mut documents = sources::files(&root().join("docs"), ".md");
    documents.extend(["ARCHITECTURE.md", "CONTRIBUTING.md"].map(|name| root().join(name)));
    let mut named = 0;
    for path in documents {
        let text = std::fs::read_to_string(&path).expect("a document");
        for name in text.lines().flat_map(|line| line.split('`').skip(1).step_by(2)).filter_map(named_type) {
            assert!(words.contains(name), "{}: nothing is called {name}", path.display());
            named += 1;
        }
    }
    assert!(named > 50, "the documents name {named} types");
}
