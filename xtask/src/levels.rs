//! `cargo xtask levels`: shows the change sets of small patches to core files (`kernel-fixtures/levels`) at each level
//! of the stabilised rebuild, as a table. A level that makes a change set larger, or loses the edited function, is a
//! failure.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::kernel::{self, BuiltKernel};
use crate::klpx::{BuildCall, Klpx, ReportChange};
use crate::workspace::CargoWorkspace;
use crate::{compare, packages, process, ui};

/// The levels. Each level includes the ones before.
const LEVELS: [&str; 4] = ["off", "names", "imports", "inlining"];

/// What to build.
#[derive(clap::Args)]
pub(crate) struct LevelsArgs {
    /// Only patches whose name contains this; may be repeated
    #[arg(long, value_name = "NAME")]
    patch: Vec<String>,
    /// On this fixture kernel
    #[arg(long, value_name = "NAME", default_value = "thinlto")]
    kernel: String,
    /// Try this klpx instead of building it
    #[arg(long, value_name = "FILE")]
    klpx: Option<PathBuf>,
}

/// Builds every patch at every level. Returns `Ok(false)` if a result is not as it must be.
pub(crate) fn run(workspace: &CargoWorkspace, args: &LevelsArgs) -> Result<bool> {
    let [kernel] = kernel::select(std::slice::from_ref(&args.kernel))?[..] else { bail!("one kernel") };
    packages::ensure(kernel.needs)?;
    let built = kernel::ensure(workspace, kernel)?;
    let klpx = Klpx::at_or_build(args.klpx.as_deref(), workspace)?;
    let mut good = true;
    let mut rows = Vec::new();
    for patch in patches(workspace, &args.patch)? {
        let tried = one(workspace, &klpx, &built, &patch)?;
        for failure in &tried.failures {
            ui::say(&format!("error: {}: {failure}", tried.row[0]));
        }
        good &= tried.failures.is_empty();
        rows.push(tried.row);
        rows.extend(tried.left);
    }
    let head = ["patch", "off", "names", "imports", "inlining", "seconds", "what is left, and why"];
    ui::table(&head, &rows);
    Ok(good)
}

/// Returns the patches whose name contains one of the filters; all without filters.
fn patches(workspace: &CargoWorkspace, filters: &[String]) -> Result<Vec<PathBuf>> {
    let folder = workspace.fixtures("levels");
    let entries = std::fs::read_dir(&folder).with_context(|| format!("can't read {}", folder.display()))?;
    let mut found: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let wanted = |path: &PathBuf| filters.is_empty() || filters.iter().any(|f| stem(path).contains(f));
    found.retain(|path| path.extension().is_some_and(|kind| kind == "patch") && wanted(path));
    found.sort();
    if found.is_empty() {
        bail!("no patch in {} matches", folder.display());
    }
    Ok(found)
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The result of one patch at all levels.
struct LevelsResult {
    /// The patch's line in the table.
    row: Vec<String>,
    /// A line for each further function that is left in the change set.
    left: Vec<Vec<String>>,
    failures: Vec<String>,
}

fn one(workspace: &CargoWorkspace, klpx: &Klpx, built: &BuiltKernel, patch: &Path) -> Result<LevelsResult> {
    let name = stem(patch);
    let mut step = ui::step(&name);
    let mut tried = LevelsResult { row: vec![name.clone()], left: Vec::new(), failures: Vec::new() };
    let mut before: Option<BTreeSet<String>> = None;
    let (mut last, mut seconds) = (Vec::new(), String::new());
    for level in LEVELS {
        step.at(level);
        let outcome = klpx.run(&BuildCall {
            built,
            patches: &[patch.to_owned()],
            name: &name,
            options: &["--stabilise".to_owned(), level.to_owned()],
            vmlinux: None,
            output: &workspace.cache_dir(&format!("results/levels/{level}"))?,
        })?;
        let report = outcome.report.filter(|_| outcome.exit == Some(0));
        let Some(report) = report else {
            tried.failures.push(format!("{level}: {}", process::tail(&outcome.text)));
            tried.row.push("-".to_owned());
            continue;
        };
        let set = compare::items(&report.changes);
        if before.as_ref().is_some_and(|before| !set.is_subset(before)) {
            tried.failures.push(format!("{level} adds to the change set: {set:?}"));
        }
        if report.changes.iter().all(|change| change.cause.as_deref() != Some("edited")) {
            tried.failures.push(format!("{level} loses the edited function: {set:?}"));
        }
        tried.row.push(set.len().to_string());
        seconds = format!("{:.1}", outcome.elapsed.as_secs_f64());
        (before, last) = (Some(set), report.changes);
    }
    tried.row.push(seconds);
    let mut lines = last.iter().map(|change| format!("{}: {}", change.function, why(change)));
    tried.row.push(lines.next().unwrap_or_default());
    tried.left.extend(lines.map(|line| [vec![String::new(); LEVELS.len() + 2], vec![line]].concat()));
    if tried.failures.is_empty() {
        step.done(&ui::plural(last.len(), "function"));
    } else {
        step.failed("");
    }
    Ok(tried)
}

fn why(change: &ReportChange) -> String {
    match &change.cause {
        Some(cause) => format!("{cause}; {}", change.why),
        None => change.why.clone(),
    }
}
