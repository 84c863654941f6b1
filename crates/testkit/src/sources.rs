//! The source of klpx's crates without the parts that are for tests only. Tests of promises about the source read it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The files below a folder whose names end with `ending`.
///
/// # Panics
/// The folder can't be read.
pub fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.unwrap_or_else(|error| panic!("{}: {error}", folder.display())).path();
        match path.is_dir() {
            true => found.extend(files(&path, ending)),
            false if path.to_string_lossy().ends_with(ending) => found.push(path),
            false => {}
        }
    }
    found.sort();
    found
}

/// Each source file of the crates below `root/crates`, by its path from `root/crates`, without the parts for tests.
/// Files of modules that are declared for tests only are left out.
///
/// # Panics
/// A file can't be read.
pub fn of_crates(root: &Path) -> Vec<(String, String)> {
    let crates = root.join("crates");
    let is_source = |path: &PathBuf| path.components().any(|part| part.as_os_str() == "src");
    let read = |path: PathBuf| match std::fs::read_to_string(&path) {
        Ok(text) => (path, text),
        Err(error) => panic!("{}: {error}", path.display()),
    };
    let sources: Vec<(PathBuf, String)> =
        files(&crates, ".rs").into_iter().filter(is_source).map(read).collect();
    let mut for_tests = BTreeSet::new();
    for (path, text) in &sources {
        let name = path.file_name().and_then(|name| name.to_str());
        let is_root = matches!(name, Some("mod.rs" | "lib.rs" | "main.rs"));
        let folder = if is_root { path.with_file_name("") } else { path.with_extension("") };
        for module in without_tests(text).1 {
            for_tests.extend([folder.join(module), folder.join(format!("{module}.rs"))]);
        }
    }
    let kept = sources.iter().filter(|(path, _)| path.ancestors().all(|part| !for_tests.contains(part)));
    let shown = |path: &Path| path.strip_prefix(&crates).unwrap_or(path).display().to_string();
    kept.map(|(path, text)| (shown(path), without_tests(text).0.to_owned())).collect()
}

/// The part of a source that is not for tests, and the modules that the source declares for tests.
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
