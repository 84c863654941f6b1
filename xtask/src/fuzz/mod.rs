//! `cargo xtask fuzz`: gives random inputs to all code that reads files of other programs, guided by the code that they
//! reach.
//!
//! The targets are programs of `tests/fuzz`, built with libFuzzer. Each target runs for some time, beginning with a few
//! small inputs (`seeds`) and with inputs that earlier runs found worth keeping (`target/fuzz/corpus`). If an input
//! makes a target panic, take long or take much memory, it is a finding. Findings are kept in `target/fuzz/findings`,
//! and each later run tries them again.

mod build;
mod seeds;
mod session;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};

use crate::fuzz::build::Profile;
use crate::fuzz::seeds::SeedKind;
use crate::fuzz::session::FuzzOutcome;
use crate::packages::{self, Need};
use crate::ui;
use crate::workspace::CargoWorkspace;

/// What to run.
#[derive(clap::Args)]
pub(crate) struct FuzzArgs {
    /// Only this target, such as `elf`; may be repeated [default: all]
    #[arg(long, value_name = "NAME")]
    target: Vec<String>,
    /// How long each target runs
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u64,
    /// Build the targets and run none
    #[arg(long)]
    build_only: bool,
}

/// A program of `tests/fuzz`.
struct FuzzTarget {
    name: &'static str,
    seeds: SeedKind,
}

/// Every target, and the kind of its first inputs.
const TARGETS: &[FuzzTarget] = &[
    FuzzTarget { name: "elf", seeds: SeedKind::Objects },
    FuzzTarget { name: "dwarf", seeds: SeedKind::Objects },
    FuzzTarget { name: "verify", seeds: SeedKind::Modules },
    FuzzTarget { name: "kallsyms", seeds: SeedKind::Images },
    FuzzTarget { name: "bitcode", seeds: SeedKind::Bitcode },
    FuzzTarget { name: "remarks", seeds: SeedKind::Remarks },
    FuzzTarget { name: "patch", seeds: SeedKind::Patches },
    FuzzTarget { name: "compressed", seeds: SeedKind::Compressed },
    FuzzTarget { name: "texts", seeds: SeedKind::Texts },
];

/// The needs for building the fuzz targets: a compiler for libFuzzer.
pub(crate) const NEEDS: &[Need] = &[Need::Fuzz];

/// Builds the targets and runs them. Returns `Ok(false)` if there is a finding.
pub(crate) fn run(workspace: &CargoWorkspace, args: &FuzzArgs) -> Result<bool> {
    let targets = select(&args.target)?;
    packages::ensure(NEEDS)?;
    let step = ui::step("build");
    let profile = if args.build_only { Profile::Quick } else { Profile::Fast };
    let programs = build::run(&workspace.root, profile)?;
    step.done(&ui::plural(TARGETS.len(), "target"));
    if args.build_only {
        return Ok(true);
    }
    packages::ensure(seeds::NEEDS)?;
    let home = build::home(&workspace.root);
    let step = ui::step("seeds");
    seeds::write(workspace, &home)?;
    step.done("");
    ui::heading(&format!("fuzz, {} s a target", args.seconds));
    let time = Duration::from_secs(args.seconds);
    let outcomes = in_parallel(&targets, workspace.jobs, |target| {
        let folders = Folders::new(&home, target.name, target.seeds)?;
        let program = programs.join(target.name);
        let mut step = ui::step(target.name);
        let outcome = session::run(&program, &folders, time, &mut step)?;
        step.done(&outcome.line());
        Ok(outcome)
    })?;
    Ok(report(&targets, &outcomes, &programs))
}

/// Builds the targets, for the lints of `cargo xtask test`.
pub(crate) fn build_only(workspace: &CargoWorkspace) -> Result<()> {
    build::run(&workspace.root, Profile::Quick).map(drop)
}

fn select(names: &[String]) -> Result<Vec<&'static FuzzTarget>> {
    if let Some(unknown) = names.iter().find(|name| TARGETS.iter().all(|target| target.name != **name)) {
        let known: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        bail!("there is no target '{unknown}'; there are {}", known.join(", "));
    }
    let wanted = |target: &&FuzzTarget| names.is_empty() || names.iter().any(|name| name == target.name);
    Ok(TARGETS.iter().filter(wanted).collect())
}

/// The folders of a target's inputs.
pub(crate) struct Folders {
    /// Inputs that reach code that no other input reaches, kept between runs.
    pub(crate) corpus: PathBuf,
    /// The first inputs, which each run makes again.
    pub(crate) seeds: PathBuf,
    /// Inputs on which a target failed, in this run or an earlier one.
    pub(crate) findings: PathBuf,
    /// libFuzzer's output.
    pub(crate) log: PathBuf,
}

impl Folders {
    fn new(home: &Path, name: &str, kind: SeedKind) -> Result<Folders> {
        let folders = Folders {
            corpus: home.join("corpus").join(name),
            seeds: home.join("seeds").join(kind.name()),
            findings: home.join("findings").join(name),
            log: home.join("log").join(format!("{name}.log")),
        };
        for folder in [&folders.corpus, &folders.findings, &home.join("log")] {
            std::fs::create_dir_all(folder)?;
        }
        Ok(folders)
    }
}

/// Runs targets, `jobs` at a time. Returns the outcomes in the order of the targets.
fn in_parallel(
    targets: &[&'static FuzzTarget],
    jobs: usize,
    run: impl Fn(&FuzzTarget) -> Result<FuzzOutcome> + Sync,
) -> Result<Vec<FuzzOutcome>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let n = next.fetch_add(1, Ordering::Relaxed)
            && let Some(target) = targets.get(n)
        {
            done.push((n, run(target)));
        }
        done
    };
    let mut outcomes: Vec<(usize, Result<FuzzOutcome>)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        let join = |worker: std::thread::ScopedJoinHandle<'_, _>| {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        workers.into_iter().flat_map(join).collect()
    });
    outcomes.sort_by_key(|(n, _)| *n);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

/// Prints each finding and the command that repeats it; returns true if there is none.
fn report(targets: &[&FuzzTarget], outcomes: &[FuzzOutcome], programs: &Path) -> bool {
    let mut good = true;
    for (target, outcome) in targets.iter().zip(outcomes) {
        let Some(finding) = &outcome.finding else { continue };
        if good {
            ui::heading("findings");
        }
        good = false;
        ui::say(&format!("  {}: {}", target.name, finding.why));
        ui::say(&format!("      {} {}", programs.join(target.name).display(), finding.input.display()));
    }
    let executions: u64 = outcomes.iter().map(|outcome| outcome.executions).sum();
    let found = outcomes.iter().filter(|outcome| outcome.finding.is_some()).count();
    ui::say(&format!("\n{executions} executions, {}", ui::plural(found, "finding")));
    good
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_program_is_a_target() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz");
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).expect("a manifest");
        let manifest: toml::Table = toml::from_str(&manifest).expect("TOML");
        let programs = manifest["bin"].as_array().expect("programs");
        let built: BTreeSet<&str> = programs.iter().filter_map(|program| program["name"].as_str()).collect();
        let files: BTreeSet<String> = std::fs::read_dir(folder.join("fuzz_targets"))
            .expect("a folder")
            .map(|entry| entry.expect("an entry").path().file_stem().expect("a name").display().to_string())
            .collect();
        let known: BTreeSet<&str> = TARGETS.iter().map(|target| target.name).collect();
        assert_eq!(known, built);
        assert_eq!(known, files.iter().map(String::as_str).collect());
    }

    #[test]
    fn an_unknown_target_is_named() {
        let error = select(&["elf".to_owned(), "else".to_owned()]).err().expect("a refusal").to_string();
        assert!(error.contains("'else'"), "{error}");
        assert_eq!(select(&["patch".to_owned()]).expect("a target").len(), 1);
        assert_eq!(select(&[]).expect("targets").len(), TARGETS.len());
    }
}
