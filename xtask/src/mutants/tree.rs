//! Makes a copy of the workspace that has all mutants, each behind a switch.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::mutants::table::Mutant;
use crate::process;
use crate::ui;

/// The environment variable with the number of the mutant that is on.
pub(crate) const SWITCH: &str = "KLPX_MUTANT";

/// The environment variable with the file to which a process appends the numbers of the mutants that it reached.
pub(crate) const TRACE: &str = "KLPX_MUTANT_TRACE";

/// The module that mutated crates get: `crate::mutant::on(N)`.
const MODULE: &str = r#"
//! Written by `cargo xtask mutants`.
use std::collections::BTreeSet;
use std::io::Write;
use std::sync::{LazyLock, Mutex};

static ON: LazyLock<Option<u32>> = LazyLock::new(|| std::env::var("KLPX_MUTANT").ok()?.parse().ok());
static TRACE: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("KLPX_MUTANT_TRACE").ok());
static REACHED: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

pub(crate) fn on(number: u32) -> bool {
    if let Some(file) = &*TRACE
        && REACHED.lock().unwrap().insert(number)
    {
        let mut file = std::fs::File::options().append(true).create(true).open(file).unwrap();
        file.write_all(format!("{number}\n").as_bytes()).unwrap();
    }
    *ON == Some(number)
}
"#;

/// The place of the copy.
pub(crate) struct Tree {
    /// The copy's root.
    pub(crate) root: PathBuf,
    /// The copy's own target folder.
    pub(crate) target: PathBuf,
}

/// Writes the copy. Unchanged files keep their time, so that cargo builds little.
pub(crate) fn write(root: &Path, mutants: &[Mutant]) -> Result<Tree> {
    let home = root.join("target/mutants");
    let tree = Tree { root: home.join("tree"), target: home.join("target") };
    let step = ui::step("mutate");
    let mutated = mutated(root, mutants)?;
    let files = process::output(Command::new("git").current_dir(root).args([
        "ls-files",
        "-z",
        "-co",
        "--exclude-standard",
    ]))?;
    let files: Vec<&str> = files.split_terminator('\0').filter(|file| root.join(file).is_file()).collect();
    for file in &files {
        let text = match mutated.get(Path::new(file)) {
            Some(text) => text.clone().into_bytes(),
            None => fs::read(root.join(file)).with_context(|| format!("can't read {file}"))?,
        };
        put(&tree.root.join(file), &text)?;
    }
    for krate in crates(mutants) {
        put(&tree.root.join("crates").join(krate).join("src/mutant.rs"), MODULE.as_bytes())?;
    }
    forget(&tree.root, &files)?;
    step.done(&ui::plural(mutants.len(), "mutant"));
    Ok(tree)
}

/// Returns the crates that have mutants.
fn crates(mutants: &[Mutant]) -> Vec<&str> {
    let mut crates: Vec<&str> = mutants.iter().map(|mutant| mutant.krate.as_str()).collect();
    crates.dedup();
    crates
}

fn put(path: &Path, text: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let folder = path.parent().context("a file has a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("can't create {}", folder.display()))?;
    fs::write(path, text).with_context(|| format!("can't write {}", path.display()))
}

/// Removes source files of the copy that the repository no longer has.
fn forget(copy: &Path, files: &[&str]) -> Result<()> {
    for entry in walkdir::WalkDir::new(copy) {
        let entry = entry?;
        let below = entry.path().strip_prefix(copy)?;
        let kept = files.iter().any(|file| Path::new(file) == below) || below.ends_with("src/mutant.rs");
        if entry.file_type().is_file() && !kept {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Returns the mutated source files, by their path below the repository.
pub(crate) fn mutated(root: &Path, mutants: &[Mutant]) -> Result<BTreeMap<PathBuf, String>> {
    let mut by_file: BTreeMap<&Path, Vec<(usize, &Mutant)>> = BTreeMap::new();
    for (number, mutant) in mutants.iter().enumerate() {
        by_file.entry(&mutant.file).or_default().push((number, mutant));
    }
    let mut texts = BTreeMap::new();
    for (file, mut mutants) in by_file {
        let text =
            fs::read_to_string(root.join(file)).with_context(|| format!("can't read {}", file.display()))?;
        // Outer places come before those inside them.
        mutants.sort_by_key(|(_, mutant)| (mutant.place.start, std::cmp::Reverse(mutant.place.end)));
        let text = switched(&text, 0, text.len(), &mutants)
            .with_context(|| format!("mutants of {}", file.display()))?;
        texts.insert(file.to_path_buf(), text);
    }
    for krate in crates(mutants) {
        let file = Path::new("crates").join(krate).join("src/lib.rs");
        let text = match texts.remove(&file) {
            Some(text) => text,
            None => fs::read_to_string(root.join(&file))
                .with_context(|| format!("can't read {}", file.display()))?,
        };
        texts.insert(file, format!("{text}\nmod mutant;\n"));
    }
    Ok(texts)
}

/// Returns `text[start..end]` with its mutants inserted. The mutants are sorted by place, outer ones first.
fn switched(text: &str, start: usize, end: usize, mutants: &[(usize, &Mutant)]) -> Result<String> {
    let mut out = String::new();
    let (mut at, mut next) = (start, 0);
    while let Some(&(_, first)) = mutants.get(next) {
        let place = &first.place;
        let same = mutants[next..].iter().take_while(|(_, mutant)| mutant.place == *place).count();
        let inside =
            mutants[next + same..].iter().take_while(|(_, mutant)| mutant.place.start < place.end).count();
        let (here, rest) = mutants[next..].split_at(same);
        let inner = &rest[..inside];
        for (_, mutant) in inner {
            ensure!(mutant.place.end <= place.end, "'{}' and '{}' overlap", first.what, mutant.what);
        }
        out.push_str(&text[at..place.start]);
        let original = switched(text, place.start, place.end, inner)?;
        out.push_str(&choice(&original, here)?);
        at = place.end;
        next += same + inside;
    }
    out.push_str(&text[at..end]);
    Ok(out)
}

/// Returns an expression or statements, preceded by the mutants of the same place.
fn choice(original: &str, mutants: &[(usize, &Mutant)]) -> Result<String> {
    let mut out = String::new();
    for (number, mutant) in mutants {
        if mutant.with.trim() == original.trim() {
            bail!("'{}' changes nothing", mutant.what);
        }
        out.push_str(&format!("if crate::mutant::on({number}) {{ {} }} else ", mutant.with));
    }
    out.push_str(&format!("{{ {original} }}"));
    match original.trim_end().ends_with([';', '}']) {
        true => Ok(out),
        false => Ok(format!("({out})")),
    }
}
