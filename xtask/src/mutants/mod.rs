//! Mutation audit: puts single faults into the code that decides what is in a livepatch, and finds those that the tests
//! without a kernel see.
//!
//! The faults are data (`tests/mutants/*.toml`). All of them are compiled into one copy of the workspace, where an
//! environment variable switches one of them on; the product's own source never has them. Each test first runs by
//! itself, to find the mutants whose code it reaches. Then each mutant runs against the tests that reach it until one
//! fails. The tests that saw the most mutants run first, then the fastest.

mod audit;
mod table;
mod tests;
mod tree;

use anyhow::{Result, bail};

use crate::mutants::audit::{MutantOutcome, MutantVerdict};
use crate::mutants::table::Mutant;
use crate::ui;
use crate::workspace::CargoWorkspace;

/// The least share of mutants that tests must see, in percent. Mutants that are explained as equivalent do not count.
const GOAL: usize = 95;

/// `cargo xtask mutants`.
#[derive(clap::Args)]
pub(crate) struct MutantsArgs {
    /// Mutants whose description contains this text [default: all]
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Mutants and tests of this crate only, such as `diff`; may be repeated [default: all crates]
    #[arg(long = "crate", value_name = "CRATE")]
    crates: Vec<String>,
    /// Print each mutant with its outcome and the test that saw it
    #[arg(long)]
    all: bool,
}

/// Runs the audit. Returns `Ok(false)` if fewer mutants are seen than [`GOAL`] demands.
pub(crate) fn run(workspace: &CargoWorkspace, args: &MutantsArgs) -> Result<bool> {
    let mutants = table::load(&workspace.root)?;
    let chosen: Vec<usize> = (0..mutants.len())
        .filter(|&n| args.only.as_ref().is_none_or(|text| mutants[n].what.contains(text)))
        .filter(|&n| args.crates.is_empty() || args.crates.contains(&mutants[n].krate))
        .collect();
    if chosen.is_empty() {
        bail!("no mutant's description contains '{}'", args.only.as_deref().unwrap_or_default());
    }
    let tree = tree::write(&workspace.root, &mutants)?;
    let tests = tests::build(&tree, &args.crates)?;
    let tests = tests::trace(&tree, tests, workspace.jobs)?;
    let verdicts = audit::run(&tests, &chosen, workspace.jobs)?;
    Ok(report(&mutants, &verdicts, args.all))
}

fn report(mutants: &[Mutant], verdicts: &[MutantVerdict], all: bool) -> bool {
    let mut rows = Vec::new();
    let mut missed = Vec::new();
    let mut explained = Vec::new();
    let mut crates: Vec<&str> =
        verdicts.iter().map(|verdict| mutants[verdict.mutant].krate.as_str()).collect();
    crates.dedup();
    let (mut seen, mut counted) = (0, 0);
    for krate in crates {
        let mut row = [0; 4];
        for verdict in verdicts.iter().filter(|verdict| mutants[verdict.mutant].krate == krate) {
            let mutant = &mutants[verdict.mutant];
            let caught = matches!(verdict.outcome, MutantOutcome::Caught(_));
            row[0] += 1;
            match (&mutant.equivalent, caught) {
                (_, true) => row[1] += 1,
                (None, false) => row[2] += 1,
                (Some(_), false) => row[3] += 1,
            }
            match &mutant.equivalent {
                Some(why) if !caught => explained.push(format!("{}  {}", mutant.shown(), why)),
                None if !caught => missed.push((mutant, verdict)),
                _ => {}
            }
            if all {
                ui::say(&format!("  {:<70} {}", mutant.shown(), verdict.outcome));
            }
        }
        seen += row[1];
        counted += row[0] - row[3];
        let mut cells = vec![krate.to_owned()];
        cells.extend(row.iter().map(usize::to_string));
        rows.push(cells);
    }
    if !missed.is_empty() {
        ui::heading("Missed");
    }
    for (mutant, verdict) in missed {
        ui::say(&format!("  {:<70} {}", mutant.shown(), verdict.outcome));
    }
    if !explained.is_empty() {
        ui::heading("Equivalent");
    }
    for line in explained {
        ui::say(&format!("  {line}"));
    }
    ui::heading("Mutants");
    ui::table(&["crate", "mutants", "caught", "missed", "equivalent"], &rows);
    let enough = seen * 100 >= counted * GOAL;
    ui::say(&format!(
        "\n{seen} of {counted} mutants are caught: {:.1} %, the goal is {GOAL} %",
        seen as f64 * 100.0 / counted.max(1) as f64
    ));
    enough
}
