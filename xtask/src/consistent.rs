//! Tries `klpx inline-check --consistent` on whole kernels: builds with its lists, the calls that ftrace sees before
//! and after, and the calls of a function that a livepatch replaces.

mod livepatch;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use klpx_guest::Clock;
use serde::Deserialize;

use crate::guest::{self, ScenarioTask};
use crate::kernel::{self, BuiltKernel, FixtureKernel};
use crate::kernel_run::fresh_folder;
use crate::klpx::Klpx;
use crate::packages;
use crate::process;
use crate::tried::Tried;
use crate::ui;
use crate::workspace::CargoWorkspace;

/// A function that compilers inline into one of its callers, and the file of the function and the caller.
const FUNCTION: &str = "do_prlimit";
const UNIT: &str = "kernel/sys.c";
/// The same for a module. This function is livepatched, because klpx compiles all units of one link of a ThinLTO
/// kernel, and a module has few.
const PATCHED: [&str; 2] = ["raid1_size", "drivers/md/raid1.c"];
/// The number of the workload's calls of the function from where it is inlined (getrlimit), and from elsewhere
/// (prlimit64).
const INLINED_CALLS: u32 = 300;
const CALLS: u32 = 40;
/// More builds than any kernel needs.
const MOST_BUILDS: usize = 8;

/// Counts the workload's calls with ftrace. Calls that the start of the program makes do not count.
const COUNT: &str = r#"
cd /sys/kernel/tracing
echo do_prlimit >set_ftrace_filter
echo function >current_tracer
calls() {
    echo >trace
    rlimits "$1" "$2" || fail "rlimits: status $?"
    grep -c 'rlimits-.* do_prlimit' trace
}
own=$(calls 0 0)
seen=$(calls INLINED CALLS)
echo nop >current_tracer
echo >set_ftrace_filter
say shown "calls $((seen - own))"
check "calls that ftrace sees" EXPECTED "$((seen - own))"
"#;

/// Counts the instructions of small loops: the guest's clock counts them.
const LOOPS: &str = r#"
loops >/tmp/loops || fail "loops: status $?"
while read -r name time; do say shown "$name $time"; done </tmp/loops
check "loops that were timed" 3 "$(wc -l </tmp/loops)"
"#;

/// Shows the functions that each turn of a loop calls.
const PROFILE: &str = r#"
cd /sys/kernel/tracing
profiled=0
for loop in syscall open pipe; do
    echo function >current_tracer
    echo 1 >tracing_on
    loops $loop TURNS >/dev/null || fail "loops $loop: status $?"
    echo 0 >tracing_on
    cat trace >/tmp/trace
    echo nop >current_tracer
    sed -n 's/^ *loops-.*: \([^ ]*\) <-.*/\1/p' /tmp/trace | sort | uniq -c | while read -r n name; do
        [ "$n" -lt TURNS ] || say shown "$name"
    done
    profiled=$((profiled + 1))
done
check "loops that were profiled" 3 "$profiled"
"#;
/// The turns of a loop that is profiled, which fit into ftrace's buffer.
const PROFILED_TURNS: u32 = 30;
/// The least part of the half-inlined functions that has to go although hot functions are left alone, in percent.
const GONE_DESPITE_HOT: usize = 90;

/// The parts of the JSON of `klpx inline-check --consistent` (schema 1) that the checks read.
#[derive(Debug, Deserialize)]
struct ConsistentReport {
    builds: Vec<Figures>,
    never_inlined: usize,
    inlined_everywhere: usize,
    kept: usize,
    estimated_bytes: i64,
    explained: Vec<ReportedLeft>,
    unexplained: Vec<ReportedLeft>,
    done: bool,
}

#[derive(Debug, Deserialize)]
struct Figures {
    half_inlined: usize,
    inlined_copies: usize,
    code_bytes: u64,
}

#[derive(Debug, Deserialize)]
struct ReportedLeft {
    function: String,
    file: String,
    #[serde(default)]
    why: String,
}

/// Returns true for the kernels to try: lists and wrapper depend on compilers, not on architectures, so one kernel made
/// here by each compiler is enough.
pub(crate) fn is_for(kernel: &FixtureKernel) -> bool {
    kernel.recipe().is_some_and(|recipe| recipe.llvm.is_none() || kernel.machine.is_native())
}

/// Makes one function of a kernel and one function of a module whole: compiles their units again in a copy of the build
/// tree, and links the kernel.
pub(crate) fn one_function(
    workspace: &CargoWorkspace,
    klpx: &Klpx,
    built: &BuiltKernel,
    results_dir: &Path,
) -> Result<Vec<Tried>> {
    let start = Instant::now();
    let folder = fresh_folder(results_dir, built, "consistent")?;
    let mut step = ui::step(&format!("{} consistent", built.kernel.name));
    step.at("copying the build tree");
    let copy = BuiltKernel { tree: folder.join("build"), ..built.clone() };
    process::output(Command::new("cp").args(["-a", "--reflink=auto"]).arg(&built.tree).arg(&copy.tree))?;
    let lists = folder.join("lists");
    let only = ["--only", FUNCTION, "--only", PATCHED[0]];
    let report = look(klpx, &copy.tree, &lists, &only)?;
    let mut failures = Vec::new();
    if (report.never_inlined, report.kept, report.explained.len()) != (2, 0, 0) {
        failures.push(format!(
            "{FUNCTION} and {} should be the only functions with a list: {report:?}",
            PATCHED[0]
        ));
    }
    // Under the compiler's own name the wrapper changes no command, so make compiles nothing else again.
    let bin = lists.join("bin");
    fs::create_dir_all(&bin)?;
    std::os::unix::fs::symlink("../cc", bin.join(built.kernel.compiler().context("its compiler")?))?;
    for unit in [UNIT, PATCHED[1]] {
        fs::remove_file(copy.tree.join(unit).with_extension("o"))?;
    }
    let mut make = copy.make_with(&copy.tree, Some(&bin))?;
    make.arg(format!("-j{}", workspace.jobs));
    make.args(["vmlinux", "modules", copy.kernel.machine.image_target]);
    let objects = build(&mut make, &folder.join("build.log"), &mut step)?;
    let figures = look(klpx, &copy.tree, &lists, &only)?;
    if !figures.done || !figures.unexplained.is_empty() {
        failures.push(format!("a function is still inlined somewhere: {figures:?}"));
    }
    if figures.builds.len() != 2 {
        failures.push("the build with the list is the build without".to_owned());
    }
    step.done(&format!("{objects} objects, {FUNCTION} and {} are never inlined", PATCHED[0]));
    let mut results = vec![tried(built, "consistent-one", "one function made whole", failures, start)];
    results.extend(counted(workspace, built, &copy, &folder)?);
    results.push(livepatch::refused_without_lists(workspace, klpx, &copy, &folder)?);
    results.push(livepatch::seen_by_ftrace(workspace, klpx, &copy, Some(&lists), &folder)?);
    Ok(results)
}

/// Checks ftrace's count of calls: the plain kernel misses some, the consistent kernel none.
fn counted(
    workspace: &CargoWorkspace,
    plain: &BuiltKernel,
    consistent: &BuiltKernel,
    folder: &Path,
) -> Result<Vec<Tried>> {
    let mut results = Vec::new();
    let sides = [
        ("consistent-misses", "ftrace misses inlined calls on the plain kernel", plain, CALLS),
        (
            "consistent-counts",
            "ftrace counts all calls on the consistent one",
            consistent,
            INLINED_CALLS + CALLS,
        ),
    ];
    for (name, title, built, expected) in sides {
        let start = Instant::now();
        let words = [("INLINED", INLINED_CALLS), ("CALLS", CALLS), ("EXPECTED", expected)];
        let script =
            words.iter().fold(COUNT.to_owned(), |text, (word, n)| text.replace(word, &n.to_string()));
        let script = GuestScript { name, text: &script, helper: "rlimits", clock: Clock::Host };
        let verdict = in_guest(workspace, built, folder, &script)?;
        let failures = verdict.problems();
        results.push(Tried { passed: verdict.passed.len(), ..tried(plain, name, title, failures, start) });
    }
    Ok(results)
}

/// A script for a guest.
struct GuestScript<'a> {
    name: &'a str,
    text: &'a str,
    /// The helper program beside the script.
    helper: &'a str,
    clock: Clock,
}

/// Runs one script in a guest. The script and the console's text are kept in the folder.
fn in_guest(
    workspace: &CargoWorkspace,
    built: &BuiltKernel,
    folder: &Path,
    script: &GuestScript<'_>,
) -> Result<guest::TaskVerdict> {
    let GuestScript { name, text, helper, clock } = *script;
    let path = folder.join(format!("{name}.sh"));
    fs::write(&path, text)?;
    let task = ScenarioTask {
        name: name.to_owned(),
        script: path,
        files: Vec::new(),
        modules: Vec::new(),
        helpers: vec![helper.to_owned()],
        console: Vec::new(),
    };
    let console = folder.join(format!("{name}.console"));
    Ok(guest::run_by(clock, workspace, built, &[task], &console)?.remove(name).unwrap_or_default())
}

/// Builds whole kernels until none of their functions is half-inlined. Returns `Ok(false)` if something failed.
pub(crate) fn matrix(workspace: &CargoWorkspace, klpx: Option<&Path>, kernels: &[String]) -> Result<bool> {
    let all = ["thinlto".to_owned(), "gcc".to_owned()];
    let kernels = kernel::select(if kernels.is_empty() { &all[..] } else { kernels })?;
    packages::ensure(&kernels.iter().flat_map(|kernel| kernel.needs).copied().collect::<Vec<_>>())?;
    let klpx = Klpx::at_or_build(klpx, workspace)?;
    let mut results = Vec::new();
    for kernel in kernels {
        ui::heading(&format!("{}: no half-inlined function", kernel.name));
        let built = kernel::ensure(workspace, kernel)?;
        results.extend(whole(workspace, &klpx, &built, &workspace.cache_dir("results")?)?);
    }
    ui::heading("results");
    let rows: Vec<_> = results.iter().map(Tried::row).collect();
    ui::table(&["kernel", "scenario", "verdict", "time", "what"], &rows);
    for failure in results.iter().flat_map(|tried| &tried.failures) {
        ui::say(&format!("    {failure}"));
    }
    Ok(results.iter().all(Tried::good))
}

fn whole(
    workspace: &CargoWorkspace,
    klpx: &Klpx,
    built: &BuiltKernel,
    results_dir: &Path,
) -> Result<Vec<Tried>> {
    let start = Instant::now();
    let folder = results_dir.join(built.kernel.name).join("consistent-whole");
    // A run with the same kernel and the same klpx is continued, because builds take long.
    let of = format!("{}\n{}\n", built.tree.display(), klpx.identity()?);
    if !fs::read_to_string(folder.join("of")).is_ok_and(|known| known == of) {
        fresh_folder(results_dir, built, "consistent-whole")?;
        fs::write(folder.join("of"), of)?;
    }
    let lists = folder.join("lists");
    let copy = BuiltKernel { tree: lists.join("build"), ..built.clone() };
    let sides = Sides { plain: built, consistent: &copy, lists: &lists, folder: &folder };
    let report = sides.settle(workspace, klpx, &[])?;
    let failures = settled(&report);
    let mut results = vec![tried(built, "consistent-whole", "no function is half-inlined", failures, start)];
    results.extend(counted(workspace, built, &copy, &folder)?);
    results.push(livepatch::seen_by_ftrace(workspace, klpx, &copy, None, &folder)?);
    results.extend(sides.costs(workspace, klpx)?);
    // The lists leave out the hot functions from now on, so the next run begins anew.
    fs::remove_file(folder.join("of"))?;
    Ok(results)
}

/// A kernel without lists and the same kernel with lists.
struct Sides<'a> {
    plain: &'a BuiltKernel,
    consistent: &'a BuiltKernel,
    lists: &'a Path,
    folder: &'a Path,
}

impl Sides<'_> {
    /// Builds the kernel until klpx has nothing left to choose.
    fn settle(&self, workspace: &CargoWorkspace, klpx: &Klpx, options: &[&str]) -> Result<ConsistentReport> {
        let Sides { plain, consistent, lists, folder } = self;
        fs::create_dir_all(&consistent.tree)?;
        let first = if consistent.vmlinux().is_file() {
            consistent
        } else {
            fs::copy(plain.tree.join(".config"), consistent.tree.join(".config"))?;
            plain
        };
        let mut report = look(klpx, &first.tree, lists, options)?;
        while !report.done {
            if report.builds.len() > MOST_BUILDS {
                bail!("{} builds and no end: {report:?}", MOST_BUILDS);
            }
            let mut step = ui::step(&format!("{} build {}", plain.kernel.name, report.builds.len() + 1));
            for targets in [&["olddefconfig"][..], &["vmlinux", "modules", plain.kernel.machine.image_target]]
            {
                let mut make = consistent.make(&consistent.tree)?;
                make.arg(format!("CC={}/cc", lists.display()));
                make.arg(format!("-j{}", workspace.jobs)).args(targets);
                build(&mut make, &folder.join("build.log"), &mut step)?;
            }
            report = look(klpx, &consistent.tree, lists, options)?;
            let figures = report.builds.last().context("a build")?;
            step.done(&format!(
                "{} half-inlined, {} inlined copies, {} bytes of code",
                figures.half_inlined, figures.inlined_copies, figures.code_bytes
            ));
        }
        Ok(report)
    }

    /// Compares the instructions of the boot and of the loops of the plain kernel, of the consistent kernel, and of a
    /// kernel whose lists leave out the functions that the loops call.
    fn costs(&self, workspace: &CargoWorkspace, klpx: &Klpx) -> Result<Vec<Tried>> {
        let Sides { plain, consistent, folder, .. } = *self;
        let start = Instant::now();
        let mut times = Vec::new();
        let mut failures = Vec::new();
        for (name, built) in [("plain", plain), ("consistent", consistent)] {
            times.push(timed(workspace, built, folder, name, &mut failures)?);
        }
        let profile = folder.join("profile");
        let turns = PROFILED_TURNS.to_string();
        let text = PROFILE.replace("TURNS", &turns);
        let script = GuestScript { name: "profile", text: &text, helper: "loops", clock: Clock::Host };
        let verdict = in_guest(workspace, consistent, folder, &script)?;
        failures.extend(verdict.problems());
        if verdict.shown.is_empty() {
            failures.push("the profile names no function".to_owned());
        }
        fs::write(&profile, verdict.shown.join("\n"))?;
        let report = self.settle(workspace, klpx, &["--hot", &profile.display().to_string()])?;
        failures.extend(settled(&report));
        let half = |build: Option<&Figures>| build.map(|build| build.half_inlined).context("a build");
        let (before, after) = (half(report.builds.first())?, half(report.builds.last())?);
        ui::say(&format!("  hot functions left alone: {before} half-inlined, {after} at the end"));
        if before.saturating_sub(after) * 100 < before * GONE_DESPITE_HOT {
            failures.push(format!("of {before} half-inlined functions {after} are left"));
        }
        times.push(timed(workspace, consistent, folder, "hot", &mut failures)?);
        let row = |(name, plain): (&String, &String)| {
            let unit = if name == "boot" { ", billions" } else { "" };
            let beside = |other: &String| match (plain.parse::<f64>(), other.parse::<f64>()) {
                (Ok(plain), Ok(other)) => format!("{:+.1} %", (other / plain - 1.0) * 100.0),
                _ => String::new(),
            };
            let others = times[1..].iter().filter_map(|side| side.get(name));
            let others = others.map(|count| format!("{count}, {}", beside(count)));
            [format!("{name}{unit}"), plain.clone()].into_iter().chain(others).collect()
        };
        let rows: Vec<Vec<String>> = times[0].iter().map(row).collect();
        ui::table(&["instructions", "plain", "consistent", "hot functions left"], &rows);
        Ok(vec![tried(
            plain,
            "consistent-hot",
            "lists without hot functions, instructions of loops",
            failures,
            start,
        )])
    }
}

/// Prints the size of the lists and returns the faults of the last build.
fn settled(report: &ConsistentReport) -> Vec<String> {
    ui::say(&format!(
        "  {} never inlined, {} inlined everywhere, {} kept; {} bytes by estimate",
        report.never_inlined, report.inlined_everywhere, report.kept, report.estimated_bytes
    ));
    for left in &report.explained {
        ui::say(&format!("  left: {} {}: {}", left.function, left.file, left.why));
    }
    let mut failures: Vec<String> = report
        .unexplained
        .iter()
        .map(|left| format!("{} of {} is half-inlined and nobody knows why", left.function, left.file))
        .collect();
    let half = report.builds.last().map_or(usize::MAX, |build| build.half_inlined);
    if half != report.explained.len() + report.unexplained.len() {
        failures.push(format!("{half} half-inlined functions, {} are explained", report.explained.len()));
    }
    failures
}

/// Returns the instructions of the loops and of the boot, by their names.
fn timed(
    workspace: &CargoWorkspace,
    built: &BuiltKernel,
    folder: &Path,
    name: &str,
    failures: &mut Vec<String>,
) -> Result<BTreeMap<String, String>> {
    let name = &format!("loops-{name}");
    let script = GuestScript { name, text: LOOPS, helper: "loops", clock: Clock::Instructions };
    let verdict = in_guest(workspace, built, folder, &script)?;
    failures.extend(verdict.problems());
    let pair = |line: &String| line.split_once(' ').map(|(name, time)| (name.to_owned(), time.to_owned()));
    let mut found: BTreeMap<String, String> = verdict.shown.iter().filter_map(pair).collect();
    let console = fs::read_to_string(folder.join(format!("{name}.console")))?;
    let boot = console.lines().find_map(|line| line.split_once("KLPX-GUEST: boot ")).map(|(_, time)| time);
    found.insert("boot".to_owned(), boot.unwrap_or_default().trim().to_owned());
    Ok(found)
}

/// Runs klpx on a build, which makes lists, and returns the JSON.
fn look(klpx: &Klpx, tree: &Path, lists: &Path, options: &[&str]) -> Result<ConsistentReport> {
    let mut command = klpx.command();
    command.args(["inline-check", "--consistent", "--json", "--build-dir"]).arg(tree);
    command.arg("--output").arg(lists).args(options);
    serde_json::from_str(&process::output(&mut command)?).context("the JSON of --consistent")
}

/// Runs make and returns the number of objects that it made.
fn build(make: &mut Command, log: &Path, step: &mut ui::Step) -> Result<u32> {
    let mut objects = 0;
    process::logged(make, log, |line| {
        if ["  CC ", "  AS ", "  LD "].iter().any(|kind| line.starts_with(kind)) {
            objects += 1;
        }
        step.at(&format!("{objects} objects · {}", line.trim()));
    })?;
    Ok(objects)
}

fn tried(built: &BuiltKernel, name: &str, title: &str, failures: Vec<String>, start: Instant) -> Tried {
    let elapsed: Duration = start.elapsed();
    let kernel = built.kernel.name;
    Tried { name: name.to_owned(), title: title.to_owned(), kernel, passed: 0, failures, elapsed }
}
