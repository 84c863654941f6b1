//! Reads the mutants from data: `tests/mutants/CRATE.toml`. If a mutant's place in the source is missing or not unique,
//! it is an error, so the table has to follow the code.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// One file of mutants.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MutantTable {
    mutant: Vec<MutantRow>,
}

/// One mutant as the table has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MutantRow {
    /// File below the crate's `src`.
    file: String,
    /// The effect of the fault, unique among all mutants.
    what: String,
    /// The expression, or the whole statements with the last `;` or `}`, that the fault replaces.
    find: String,
    /// A text before `find`, such as `fn items`, if `find` alone occurs more than once in the file.
    #[serde(default)]
    after: Option<String>,
    /// The replacement for `find`.
    with: String,
    /// The reason why no test can see the fault, if none can.
    #[serde(default)]
    equivalent: Option<String>,
}

/// One mutant and its place.
#[derive(Debug)]
pub(crate) struct Mutant {
    /// The crate's folder below `crates`.
    pub(crate) krate: String,
    /// The source file, below the repository.
    pub(crate) file: PathBuf,
    /// The effect of the fault.
    pub(crate) what: String,
    /// The range of replaced bytes in the file.
    pub(crate) place: Range<usize>,
    /// The line of the first replaced byte.
    line: usize,
    /// The replacement.
    pub(crate) with: String,
    /// The reason why no test can see the mutant, if none can.
    pub(crate) equivalent: Option<String>,
}

impl Mutant {
    /// Returns the mutant in words: `diff/src/compare.rs:79 items: purpose is not compared`.
    pub(crate) fn shown(&self) -> String {
        let file = self.file.strip_prefix("crates").unwrap_or(&self.file);
        format!("{}:{} {}", file.display(), self.line, self.what)
    }
}

/// Reads every table, in the order of file names.
pub(crate) fn load(root: &Path) -> Result<Vec<Mutant>> {
    let folder = root.join("tests/mutants");
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .with_context(|| format!("can't read {}", folder.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    let mut mutants = Vec::new();
    for file in files {
        let krate = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read_to_string(&file).with_context(|| format!("can't read {}", file.display()))?;
        let table: MutantTable = toml::from_str(&text).with_context(|| format!("in {}", file.display()))?;
        for row in table.mutant {
            let what = row.what.clone();
            let mutant = place(root, &krate, row).with_context(|| format!("{}: '{what}'", file.display()))?;
            mutants.push(mutant);
        }
    }
    let mut seen = BTreeSet::new();
    for mutant in &mutants {
        ensure!(seen.insert(&mutant.what), "two mutants say '{}'", mutant.what);
    }
    Ok(mutants)
}

fn place(root: &Path, krate: &str, row: MutantRow) -> Result<Mutant> {
    let file = Path::new("crates").join(krate).join("src").join(&row.file);
    let text =
        fs::read_to_string(root.join(&file)).with_context(|| format!("can't read {}", file.display()))?;
    let from = match &row.after {
        None => 0,
        Some(after) => {
            only(&text, after).with_context(|| format!("`after` in {}", file.display()))? + after.len()
        }
    };
    let start = match row.after {
        None => only(&text, &row.find).with_context(|| format!("`find` in {}", file.display()))?,
        Some(_) => match text[from..].find(&row.find) {
            Some(at) => from + at,
            None => bail!("`find` is not in {} behind `after`", file.display()),
        },
    };
    // The switch puts braces around the text, so names that the text defines would be unknown after it.
    let names = row.find.trim_start().strip_prefix("let ").is_some_and(|rest| !rest.starts_with("_ ="));
    ensure!(!names, "`find` is a `let`: take its value alone");
    Ok(Mutant {
        krate: krate.to_owned(),
        line: text[..start].matches('\n').count() + 1,
        place: start..start + row.find.len(),
        file,
        what: row.what,
        with: row.with,
        equivalent: row.equivalent,
    })
}

/// Returns the place of a text that must occur exactly once.
fn only(text: &str, wanted: &str) -> Result<usize> {
    ensure!(!wanted.is_empty(), "an empty text");
    let mut places = text.match_indices(wanted);
    match (places.next(), places.next()) {
        (Some((at, _)), None) => Ok(at),
        (None, _) => bail!("the text is not there: {wanted}"),
        (Some(_), Some(_)) => bail!("the text stands there more than once: {wanted}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutant_has_its_place_in_the_source() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mutants = load(root).unwrap();
        assert!(!mutants.is_empty());
        for (file, text) in super::super::tree::mutated(root, &mutants).unwrap() {
            // A `find` that is neither an expression nor statements breaks the whole copy.
            let parsed = syn::parse_file(&text);
            assert!(parsed.is_ok(), "{}: {:?}", file.display(), parsed.err());
        }
    }
}
