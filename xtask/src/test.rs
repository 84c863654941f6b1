//! `cargo xtask test`: every check of the project in order, each phase timed, one verdict.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::kernel::{BuiltKernel, FixtureKernel, Tier};
use crate::klpx::Klpx;
use crate::packages::{self, Need};
use crate::process;
use crate::refusal::RefusalCase;
use crate::scenario::Scenario;
use crate::tools::DENY;
use crate::tried::Tried;
use crate::workspace::CargoWorkspace;
use crate::{
    consistent, fuzz, host, inlining, kernel, pipeline, refusal, robust, room, scenario, trials, ui,
};

/// What to run.
#[derive(clap::Args)]
pub(crate) struct TestArgs {
    /// Only scenarios, refusals and robustness checks whose name contains this; may be repeated
    #[arg(long, value_name = "NAME")]
    scenario: Vec<String>,
    /// Only on this fixture kernel; may be repeated
    #[arg(long, value_name = "NAME")]
    kernel: Vec<String>,
    /// Only this part; may be repeated
    #[arg(long, value_enum)]
    only: Vec<TestPart>,
    /// Try this klpx instead of building it
    #[arg(long, value_name = "FILE")]
    klpx: Option<PathBuf>,
}

/// What to run on which kernels of the matrix.
#[derive(clap::Args)]
pub(crate) struct MatrixArgs {
    /// Only scenarios whose name contains this; may be repeated [default: 01 and 03; all with --distro]
    #[arg(long, value_name = "NAME")]
    scenario: Vec<String>,
    /// Only on this kernel; may be repeated [default: all that the tests leave out]
    #[arg(long, value_name = "NAME")]
    kernel: Vec<String>,
    /// Only kernels of other releases of Debian, klpx running in the root directory of one
    #[arg(long, conflicts_with_all = ["kernel", "consistent"])]
    distro: bool,
    /// Only the kernel with a distribution's configuration and thousands of units, which takes an hour to make
    #[arg(long, conflicts_with_all = ["kernel", "consistent", "distro"])]
    large: bool,
    /// Instead of scenarios, make kernels without half-inlined functions: several whole builds of each [default: of
    /// thinlto and gcc]
    #[arg(long)]
    consistent: bool,
    /// Try this klpx instead of building it
    #[arg(long, value_name = "FILE")]
    klpx: Option<PathBuf>,
}

/// Runs scenarios on the kernels that the tests leave out. Returns `Ok(false)` if something failed.
pub(crate) fn matrix(workspace: &CargoWorkspace, args: &MatrixArgs) -> Result<bool> {
    if args.consistent {
        return consistent::matrix(workspace, args.klpx.as_deref(), &args.kernel);
    }
    let tier = if args.large { Tier::Large } else { Tier::Matrix };
    let wanted = |kernel: &&FixtureKernel| kernel.tier == tier && kernel.distro().is_some() == args.distro;
    let all = || kernel::KERNELS.iter().filter(wanted).map(|kernel| kernel.name.to_owned());
    let kernel = if args.kernel.is_empty() { all().collect() } else { args.kernel.clone() };
    let few = || ["01", "03"].map(str::to_owned).to_vec();
    let scenario = if args.scenario.is_empty() && !args.distro { few() } else { args.scenario.clone() };
    let klpx = args.klpx.clone();
    run(workspace, &TestArgs { scenario, kernel, only: vec![TestPart::Scenarios], klpx })
}

/// A part of the tests.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TestPart {
    /// rustfmt, clippy, documentation, and that the fuzz targets build
    Lint,
    /// The workspace's own tests
    Unit,
    /// Livepatches that are tried in a guest
    Scenarios,
    /// `klpx test` on what the scenarios built
    Trials,
    /// `klpx-host` on a stock kernel
    Host,
    /// From a patch to a host: packages on a Debian that boots
    Packages,
    /// What klpx must refuse
    Refusals,
    /// Signals, full disks, damaged files, two klpx at once
    Robustness,
    /// Who inlined what in a whole kernel, counted twice, and the page about it
    Inlining,
}

/// Counts, times and failures of a whole run.
#[derive(Default)]
struct RunTally {
    passed: usize,
    failed: Vec<Failed>,
    times: Vec<(String, Duration)>,
    results: Vec<Tried>,
}

/// A failure of a phase, or of a check on a kernel.
struct Failed {
    name: String,
    reasons: Vec<String>,
}

impl RunTally {
    fn take(&mut self, tried: Vec<Tried>) {
        self.passed += tried.iter().filter(|tried| tried.good()).count();
        self.failed.extend(tried.iter().filter(|tried| !tried.good()).map(|tried| Failed {
            name: format!("{} {}", tried.kernel, tried.name),
            reasons: tried.failures.clone(),
        }));
        self.results.extend(tried);
    }

    fn fail(&mut self, name: &str, reason: String) {
        self.failed.push(Failed { name: name.to_owned(), reasons: vec![reason] });
    }

    fn merge(&mut self, other: RunTally) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        self.times.extend(other.times);
        self.results.extend(other.results);
    }

    fn phase(&mut self, name: &str, run: impl FnOnce(&mut RunTally) -> Result<()>) {
        let start = Instant::now();
        if let Err(error) = run(self) {
            self.fail(name, format!("{error:#}"));
        }
        self.times.push((name.to_owned(), start.elapsed()));
    }
}

/// Runs the requested parts. Returns `Ok(false)` if something failed.
pub(crate) fn run(workspace: &CargoWorkspace, args: &TestArgs) -> Result<bool> {
    let wants = |part: TestPart| match args.only.as_slice() {
        // A filter on scenarios leaves nothing to do for the other parts.
        [] if !args.scenario.is_empty() => {
            matches!(part, TestPart::Scenarios | TestPart::Refusals | TestPart::Robustness)
        }
        [] => true,
        only => only.contains(&part),
    };
    let start = Instant::now();
    let mut tally = RunTally::default();
    if wants(TestPart::Lint) {
        ui::heading("lint");
        tally.phase("lint", |tally| lint(workspace, tally));
    }
    if wants(TestPart::Unit) {
        ui::heading("unit tests");
        // The unit tests compile small objects and build toy kernels.
        packages::ensure(&[Need::Gcc, Need::Clang, Need::Objects])?;
        tally.phase("unit tests", |tally| unit(workspace, tally));
    }
    let of_livepatches = [
        TestPart::Scenarios,
        TestPart::Trials,
        TestPart::Host,
        TestPart::Packages,
        TestPart::Refusals,
        TestPart::Robustness,
        TestPart::Inlining,
    ];
    if of_livepatches.into_iter().any(wants) {
        ui::heading("livepatches");
        livepatches(workspace, args, &wants, &mut tally)?;
    }
    ui::heading("time");
    for (name, time) in &tally.times {
        ui::line(name, "", Some(*time));
    }
    ui::line("in all", "", Some(start.elapsed()));
    ui::say("");
    // The failures come at the very end, so that the last lines of a log name all of them with their reasons.
    for Failed { name, reasons } in &tally.failed {
        ui::say(&format!("{name}:"));
        for reason in reasons {
            ui::say(&format!("    {}", reason.replace('\n', "\n    ")));
        }
        ui::say("");
    }
    ui::say(&format!("{} passed, {} failed", tally.passed, tally.failed.len()));
    for Failed { name, .. } in &tally.failed {
        ui::say(&format!("    {name}"));
    }
    Ok(tally.failed.is_empty())
}

fn cargo(workspace: &CargoWorkspace, arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(&workspace.root).args(arguments);
    command
}

fn lint(workspace: &CargoWorkspace, tally: &mut RunTally) -> Result<()> {
    let checks: [(&str, &[&str]); 4] = [
        ("rustfmt", &["fmt", "--all", "--check"]),
        ("rustfmt, fuzz targets", &["fmt", "--manifest-path=tests/fuzz/Cargo.toml", "--check"]),
        ("clippy", &["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"]),
        ("documentation", &["doc", "--quiet", "--workspace", "--no-deps", "--document-private-items"]),
    ];
    for (name, arguments) in checks {
        let run =
            || process::output(cargo(workspace, arguments).env("RUSTDOCFLAGS", "--deny warnings")).map(drop);
        check(tally, (name, &arguments.join(" ")), run);
    }
    let denied = || {
        let mut command = DENY.command(workspace)?;
        // Advisories are left out: their database is not where the crates are.
        process::output(command.args(["check", "bans", "licenses", "sources"])).map(drop)
    };
    check(tally, ("crates", "cargo deny check"), denied);
    // The fuzz targets are a separate workspace, which nothing else compiles.
    packages::ensure(fuzz::NEEDS)?;
    check(tally, ("fuzz targets", "build"), || fuzz::build_only(workspace));
    Ok(())
}

fn check(tally: &mut RunTally, (name, at): (&str, &str), run: impl FnOnce() -> Result<()>) {
    let mut step = ui::step(name);
    step.at(at);
    match run() {
        Ok(()) => {
            tally.passed += 1;
            step.done("clean");
        }
        Err(error) => {
            step.failed("");
            tally.fail(name, format!("{error:#}"));
        }
    }
}

fn unit(workspace: &CargoWorkspace, tally: &mut RunTally) -> Result<()> {
    let arguments: &[&str] = if klpx_guest::which("cargo-nextest").is_some() {
        &["nextest", "run", "--workspace", "--cargo-quiet", "--no-fail-fast", "--status-level", "fail"]
    } else {
        &["test", "--quiet", "--workspace", "--no-fail-fast"]
    };
    let mut step = ui::step("cargo");
    step.at(&arguments.join(" "));
    match process::output(&mut cargo(workspace, arguments)) {
        Ok(_) => {
            tally.passed += 1;
            step.done("passed");
        }
        Err(error) => {
            step.failed("");
            tally.fail("unit tests", format!("{error:#}"));
        }
    }
    Ok(())
}

fn livepatches(
    workspace: &CargoWorkspace,
    args: &TestArgs,
    wants: &dyn Fn(TestPart) -> bool,
    tally: &mut RunTally,
) -> Result<()> {
    let mut kernels = kernel::select(&args.kernel)?;
    // A filter may name a scenario or a refusal.
    let mut scenarios = scenario::select(workspace, &[])?;
    let mut refusals = refusal::select(workspace, &args.scenario)?;
    scenarios.retain(|scenario| {
        args.scenario.is_empty() || args.scenario.iter().any(|name| scenario.name.contains(name))
    });
    if !wants(TestPart::Scenarios) {
        scenarios.clear();
    }
    if !wants(TestPart::Refusals) {
        refusals.clear();
    }
    // The robustness checks do not depend on the compiler, so a kernel that need not be built is enough.
    let stock = kernels.iter().find(|kernel| kernel.recipe().is_none());
    let once_on = stock.or(kernels.first()).map(|kernel| kernel.name);
    let robust =
        wants(TestPart::Robustness).then_some(robust::WantedChecks { once_on, filters: &args.scenario });
    let (inlining, trials) = (wants(TestPart::Inlining), wants(TestPart::Trials));
    let (host, packages) = (wants(TestPart::Host), wants(TestPart::Packages));
    if scenarios.is_empty() && refusals.is_empty() && !inlining && !trials && !host && !packages {
        kernels.retain(|kernel| robust.as_ref().is_some_and(|wanted| wanted.any_on(kernel)));
    }
    if kernels.is_empty() {
        bail!("no scenario, refusal or robustness check matches {}", args.scenario.join(" or "));
    }
    let mut needs: Vec<Need> = kernels.iter().flat_map(|kernel| kernel.needs).copied().collect();
    if inlining {
        needs.extend(inlining::NEEDS);
    }
    packages::ensure(&needs)?;
    let start = Instant::now();
    let klpx = Klpx::at_or_build(args.klpx.as_deref(), workspace)?;
    tally.times.push(("klpx".to_owned(), start.elapsed()));
    let trial = KernelTrial {
        workspace,
        klpx: &klpx,
        names: kernels.iter().map(|kernel| kernel.name).collect(),
        scenarios: &scenarios,
        refusals: &refusals,
        robust,
        inlining,
        trials,
        host,
        packages,
        results_dir: results_dir(workspace)?,
    };
    // Much of a kernel's time goes to a single process: a link, kbuild checking files, a guest. So two kernels share
    // the processors; the next kernel begins when one of them is done.
    let waiting = Mutex::new(kernels.into_iter());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
    let outcomes: Vec<Result<RunTally>> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(|| trial.kernels(&next))).collect();
        running
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    for outcome in outcomes {
        tally.merge(outcome?);
    }
    ui::heading("results");
    let rows: Vec<_> = tally.results.iter().map(Tried::row).collect();
    ui::table(&["kernel", "scenario", "verdict", "klpx", "what"], &rows);
    Ok(())
}

/// The number of kernels that are tried at a time.
const AT_ONCE: usize = 2;

/// The checks for each kernel.
struct KernelTrial<'a> {
    workspace: &'a CargoWorkspace,
    klpx: &'a Klpx,
    /// The kernels of this run.
    names: Vec<&'static str>,
    scenarios: &'a [Scenario],
    refusals: &'a [(String, RefusalCase)],
    robust: Option<robust::WantedChecks<'a>>,
    /// True to check the survey of inlining.
    inlining: bool,
    /// True to try the livepatches as a user does.
    trials: bool,
    /// True to try klpx-host.
    host: bool,
    /// True to try packages.
    packages: bool,
    results_dir: PathBuf,
}

impl KernelTrial<'_> {
    /// Tries kernels one after the other, as long as there is a next one.
    fn kernels(&self, next: &dyn Fn() -> Option<&'static FixtureKernel>) -> Result<RunTally> {
        let mut tally = RunTally::default();
        while let Some(kernel) = next() {
            room::make(self.workspace, self.klpx, &self.names)?;
            let start = Instant::now();
            let built = kernel::ensure(self.workspace, kernel)?;
            tally.times.push((format!("{} kernel", kernel.name), start.elapsed()));
            self.kernel(&built, &mut tally);
        }
        Ok(tally)
    }

    fn kernel(&self, built: &BuiltKernel, tally: &mut RunTally) {
        let (workspace, klpx, results) = (self.workspace, self.klpx, &self.results_dir);
        let name = built.kernel.name;
        if built.release.is_some() {
            tally.phase(&format!("{name} doctor"), |tally| {
                klpx.doctor(built)?;
                tally.passed += 1;
                Ok(())
            });
        }
        if self.inlining {
            tally.phase(&format!("{name} inlining"), |tally| {
                tally.take(inlining::run(klpx, built, results)?);
                Ok(())
            });
            if consistent::is_for(built.kernel) {
                tally.phase(&format!("{name} consistent inlining"), |tally| {
                    tally.take(consistent::one_function(workspace, klpx, built, results)?);
                    Ok(())
                });
            }
        }
        if !self.scenarios.is_empty() {
            tally.phase(&format!("{name} scenarios"), |tally| {
                tally.take(scenario::run(workspace, klpx, built, self.scenarios, results)?);
                Ok(())
            });
        }
        if self.trials && trials::is_for(built) {
            tally.phase(&format!("{name} trials"), |tally| {
                tally.take(trials::run(klpx, built, results)?);
                Ok(())
            });
        }
        if self.host && host::is_for(built) {
            tally.phase(&format!("{name} klpx-host"), |tally| {
                tally.take(host::run(workspace, klpx, built, results)?);
                Ok(())
            });
        }
        if self.packages && pipeline::is_for(built) {
            tally.phase(&format!("{name} packages"), |tally| {
                tally.take(pipeline::run(workspace, klpx, built, results)?);
                Ok(())
            });
        }
        if let Some(wanted) = self.robust.as_ref().filter(|wanted| wanted.any_on(built.kernel)) {
            tally.phase(&format!("{name} robustness"), |tally| {
                tally.take(robust::run(workspace, klpx, built, wanted, results)?);
                Ok(())
            });
        }
        if !self.refusals.is_empty() {
            tally.phase(&format!("{name} refusals"), |tally| {
                tally.take(refusal::run(workspace, klpx, built, self.refusals, results)?);
                Ok(())
            });
        }
    }
}

/// Returns the folder with modules, reports, logs and consoles of the last run.
fn results_dir(workspace: &CargoWorkspace) -> Result<PathBuf> {
    workspace.cache_dir("results")
}
