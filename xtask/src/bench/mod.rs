//! `cargo xtask bench`: measures a livepatch for a kernel that klpx has never seen, a livepatch for a known kernel, and
//! the survey of a kernel's inlining. Shows time, memory and disk use beside goals and peers.

mod measure;
mod peers;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use walkdir::WalkDir;

use crate::kernel::{self, BuiltKernel};
use crate::klpx::{BuildCall, Klpx};
use crate::packages::{self, Need};
use crate::process;
use crate::ui;
use crate::workspace::CargoWorkspace;
use measure::{Usage, measure_any};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct BenchArgs {
    /// Which fixture kernel
    #[arg(long, default_value = "debian-6.12")]
    kernel: String,
    /// Runs of each measurement that can be repeated; the fastest counts
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// Only compare these two objects
    #[arg(long, num_args = 2, value_names = ["ORIG.o", "PATCHED.o"])]
    objects: Vec<PathBuf>,
    /// Only survey who inlined what
    #[arg(long, conflicts_with = "objects")]
    inlining_only: bool,
    /// Survey this file instead of the kernel's vmlinux
    #[arg(long, value_name = "FILE")]
    inlining: Option<PathBuf>,
    /// For a kernel that is made here: also build it, to compare with
    #[arg(long)]
    against_build: bool,
}

/// One row of the result.
struct BenchRow {
    what: String,
    ours: Usage,
    /// The name of a peer, and the peer's measurements.
    peer: Option<(&'static str, Usage)>,
    /// The most seconds that the row should take.
    goal: Option<f64>,
}

/// One livepatch of a series of builds: its name, its patch, and the most seconds for it on a stock kernel.
type BenchLivepatch = (&'static str, &'static str, f64);

/// The livepatch of a unit that klpx has compiled before.
const KNOWN_UNIT: &str = "the same unit again";
/// The livepatches in the order of the builds, beginning with an empty cache.
const LIVEPATCHES: [BenchLivepatch; 7] = [
    ("first patch, nothing cached", "01-proc-string/version.patch", 60.0),
    ("second patch, another unit", "14-syscall/sethostname.patch", 10.0),
    ("the first patch of a module", "03-module-function/loop-autoclear.patch", 10.0),
    ("another unit", "02-md-run/md-run.patch", 10.0),
    (KNOWN_UNIT, "02-md-run/md-run.patch", 6.0),
    ("another patch of a known unit", "05-static-data/md-unit.patch", 6.0),
    ("a header of several units", "08-header/HEADER", 90.0),
];
/// The goals: a kernel's disk use besides its source, in MB; klpx's own time for a known unit, in seconds; memory of
/// klpx and its children, in MB.
const GOALS: (u64, f64, u64) = (400, 1.5, 800);

/// Measures everything and prints a table.
pub(crate) fn run(workspace: &CargoWorkspace, args: &BenchArgs) -> Result<bool> {
    let kernel = kernel::select(std::slice::from_ref(&args.kernel))?[0];
    packages::ensure(kernel.needs)?;
    packages::ensure(&[Need::Clang, Need::Bench])?;
    let built = kernel::ensure(workspace, kernel)?;
    let klpx = Klpx::build(workspace)?;
    let mut rows = Vec::new();
    if let [original, patched] = args.objects.as_slice() {
        rows.push(peers::analysis(args.runs, &klpx, &built.tree, original, patched)?);
        show(&rows);
        return Ok(true);
    }
    if !args.inlining_only {
        rows.extend(livepatches(workspace, args, &built, &klpx)?);
    }
    let file = args.inlining.clone().unwrap_or_else(|| built.vmlinux());
    rows.extend(peers::inlining(args.runs, &klpx, &file)?);
    show(&rows);
    Ok(true)
}

/// Measures livepatches with a separate cache.
fn livepatches(
    workspace: &CargoWorkspace,
    args: &BenchArgs,
    built: &BuiltKernel,
    klpx: &Klpx,
) -> Result<Vec<BenchRow>> {
    let output = workspace.cache_dir("bench")?;
    let cache = tempfile::Builder::new().prefix(".cache-").tempdir_in(&workspace.cache)?;
    let stock = built.release.is_some();
    // Which of a header's two functions a kernel has.
    let namespaces = std::fs::read_to_string(built.config())?.contains("\nCONFIG_TIME_NS=y\n");
    let header = if namespaces { "boottime-namespaces.patch" } else { "boottime.patch" };
    let mut rows = Vec::new();
    for (what, patch, goal) in LIVEPATCHES {
        let patch = workspace.fixtures("scenarios").join(patch.replace("HEADER", header));
        let mut step = ui::step(what);
        let mut command = klpx.build_command(&BuildCall {
            built,
            patches: std::slice::from_ref(&patch),
            name: "bench",
            options: &[],
            vmlinux: None,
            output: &output,
        });
        let log = output.join("log");
        command.env("KLPX_CACHE_DIR", cache.path()).stderr(std::fs::File::create(&log)?);
        let (ours, status) = measure_any(&mut command)?;
        if !status.success() {
            step.failed("");
            bail!("{what}: {status}\n{}", process::tail(&std::fs::read_to_string(&log)?));
        }
        step.at("");
        step.done(&format!("of it klpx itself {:.2} s", ours.own.as_secs_f64()));
        rows.push(BenchRow { what: what.to_owned(), ours, peer: None, goal: Some(goal).filter(|_| stock) });
    }
    if args.against_build {
        rows[0].peer = Some(("the kernel's build", whole_build(workspace, built)?));
    }
    let (all, source) = (disk_use(cache.path())?, disk_use(&source_copies(cache.path())?)?);
    let (disk, own, memory) = GOALS;
    let megabytes = (all - source) / 1_000_000;
    // The goals are those of a stock kernel, of which klpx compiles only the units of the patch.
    let with_goal = |text: String, goal: String| if stock { format!("{text}, goal {goal}") } else { text };
    let disk = with_goal(format!("{megabytes} MB"), format!("{disk} MB"));
    ui::line("disk beside the source's copy", &disk, None);
    ui::line("disk of the source's copy", &format!("{} MB", source / 1_000_000), None);
    let known = rows.iter().find(|row| row.what == KNOWN_UNIT).context("a known unit was measured")?;
    let seconds = known.ours.own.as_secs_f64();
    let own = with_goal(format!("{seconds:.2} s"), format!("{own} s"));
    ui::line("klpx itself, a known unit", &own, None);
    let most = rows.iter().map(|row| row.ours.memory).max().unwrap_or_default() / 1_000_000;
    let memory = with_goal(format!("{most} MB"), format!("{memory} MB"));
    ui::line("most memory, with children", &memory, None);
    Ok(rows)
}

/// Measures the kernel's own build in a separate tree.
fn whole_build(workspace: &CargoWorkspace, built: &BuiltKernel) -> Result<Usage> {
    let mut step = ui::step("the kernel's build");
    let scratch = tempfile::Builder::new().prefix(".build-").tempdir_in(&workspace.cache)?;
    std::fs::copy(built.config(), scratch.path().join(".config"))?;
    let log = scratch.path().join("log");
    process::logged(built.make(scratch.path())?.arg("olddefconfig"), &log, |_| {})?;
    let mut command = built.make(scratch.path())?;
    command.arg(format!("-j{}", workspace.jobs)).args(["vmlinux", "modules"]);
    let usage = measure::measure(&mut command)?;
    step.at("");
    step.done("");
    Ok(usage)
}

/// Returns the copy of the source in the folder of the only kernel in a cache.
fn source_copies(cache: &Path) -> Result<PathBuf> {
    let kernels = std::fs::read_dir(cache.join("kernels"))?;
    let source = kernels.flatten().map(|entry| entry.path().join("src")).find(|path| path.is_dir());
    source.context("no copy of the source in klpx's cache")
}

/// Returns the bytes that a tree takes on the disk. A file with several names counts once.
fn disk_use(tree: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut seen = std::collections::BTreeSet::new();
    let mut bytes = 0;
    for entry in WalkDir::new(tree) {
        let metadata = entry?.metadata()?;
        if seen.insert(metadata.ino()) {
            bytes += metadata.blocks() * 512;
        }
    }
    Ok(bytes)
}

fn show(rows: &[BenchRow]) {
    ui::heading("bench");
    let seconds = |usage: &Usage| format!("{:.2} s", usage.elapsed.as_secs_f64());
    let own = |usage: &Usage| format!("{:.2} s", usage.own.as_secs_f64());
    let compiling = |usage: &Usage| format!("{:.2} s", usage.compiling.as_secs_f64());
    let megabytes = |usage: &Usage| format!("{} MB", usage.memory / 1_000_000);
    let ratio = |ours: f64, peer: f64| format!("{:.1} x", peer / ours);
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let name = row.peer.map_or("-", |(name, _)| name);
            let peer = row.peer.as_ref().map(|(_, usage)| usage);
            let none = || "-".to_owned();
            vec![
                row.what.clone(),
                seconds(&row.ours),
                own(&row.ours),
                compiling(&row.ours),
                row.goal.map_or_else(none, |goal| format!("{goal:.0} s")),
                megabytes(&row.ours),
                name.to_owned(),
                peer.map_or_else(none, seconds),
                peer.map_or_else(none, megabytes),
                peer.map_or_else(none, |peer| {
                    ratio(row.ours.elapsed.as_secs_f64(), peer.elapsed.as_secs_f64())
                }),
                peer.map_or_else(none, |peer| ratio(row.ours.memory as f64, peer.memory as f64)),
            ]
        })
        .collect();
    ui::table(
        &[
            "what",
            "klpx",
            "by itself",
            "compiler",
            "goal",
            "memory",
            "beside",
            "time",
            "memory",
            "faster",
            "smaller",
        ],
        &cells,
    );
}
