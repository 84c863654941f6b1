//! `cargo xtask bench`: analysis of a whole `vmlinux.o` pair, a whole `klpx build`, and the survey of a kernel's
//! inlining, in time and memory, against peers.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::kernel::{self, Built};
use crate::klpx::{Build, Klpx, Work};
use crate::packages::{self, Need};
use crate::process;
use crate::ui;
use crate::workspace::Workspace;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which fixture kernel
    #[arg(long, default_value = "thinlto")]
    kernel: String,
    /// Runs of each measurement; the fastest counts
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// Compare these two objects instead of those of a build
    #[arg(long, num_args = 2, value_names = ["ORIG.o", "PATCHED.o"])]
    objects: Vec<PathBuf>,
    /// Leave out the whole build
    #[arg(long)]
    analysis_only: bool,
    /// Only survey who inlined what
    #[arg(long, conflicts_with_all = ["objects", "analysis_only"])]
    inlining_only: bool,
    /// Survey this file instead of the kernel's vmlinux
    #[arg(long, value_name = "FILE")]
    inlining: Option<PathBuf>,
}

/// One run of a command.
#[derive(Clone, Copy)]
struct Usage {
    elapsed: Duration,
    /// Peak resident memory of the command's own process, in bytes.
    memory: u64,
}

/// One row of the result.
struct Row {
    what: String,
    ours: Usage,
    /// Whose time it is beside ours, and what it used.
    peer: Option<(&'static str, Usage)>,
}

/// Measures and prints a table.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<bool> {
    let kernel = kernel::select(std::slice::from_ref(&args.kernel))?[0];
    packages::ensure(kernel.needs)?;
    packages::ensure(&[Need::Clang, Need::Bench])?;
    let built = kernel::ensure(workspace, kernel)?;
    let klpx = Klpx::build(workspace)?;
    let mut rows = Vec::new();
    if !args.inlining_only {
        rows.extend(livepatch(workspace, args, &built, &klpx)?);
    }
    rows.extend(inlining(args, &klpx, &args.inlining.clone().unwrap_or_else(|| built.vmlinux()))?);
    show(&rows);
    Ok(true)
}

/// A build and the analysis in it.
fn livepatch(workspace: &Workspace, args: &Args, built: &Built, klpx: &Klpx) -> Result<Vec<Row>> {
    let patch = workspace.fixtures("scenarios/02-md-run/md-run.patch");
    let output = workspace.cache_dir("bench")?;
    let keep = ["--keep-work".to_owned()];
    let build = |options| Build {
        built,
        patches: std::slice::from_ref(&patch),
        name: "md-run",
        options,
        vmlinux: None,
        output: &output,
    };
    // What the first run keeps for the analysis to read.
    let mut work: Option<Work> = None;
    let mut rows: Vec<Row> = Vec::new();
    if !args.analysis_only || args.objects.is_empty() {
        let mut step = ui::step("klpx build");
        step.at("baseline");
        let first = klpx.run(&build(&keep))?;
        if first.exit != Some(0) {
            step.failed("");
            bail!("klpx build failed\n{}", process::tail(&first.text));
        }
        let kept = Work::kept(&first.text).context("klpx build --keep-work named no pair of vmlinux.o")?;
        let mut again = |what: &str| -> Result<()> {
            step.at(what);
            let ours = measure(&mut klpx.build_command(&build(&[])))?;
            rows.push(Row { what: format!("klpx build, {what}"), ours, peer: None });
            Ok(())
        };
        // The first run brought the baseline. What klpx keeps of a unit's original comes with the first patch for it.
        let originals = kept.kernel.join("originals");
        if originals.is_dir() {
            std::fs::remove_dir_all(&originals)?;
            again("first patch of a unit")?;
            again("further patch of a unit")?;
        } else {
            again("kernel known")?;
        }
        step.done(&format!("first {:.1} s", first.elapsed.as_secs_f64()));
        work = Some(kept);
    }
    let objects = match &work {
        Some(work) if args.objects.is_empty() => work.objects().to_vec(),
        _ => args.objects.clone(),
    };
    let [original, patched] = objects.as_slice() else { bail!("two objects are needed") };
    let mut step = ui::step("analysis");
    let ours = best(args.runs, || {
        step.at("klpx diff");
        let mut command = klpx.command();
        command.arg("diff").arg("--json").arg(original).arg(patched);
        command
    })?;
    step.at("peer");
    let peer = peer(&built.tree, original, patched)?;
    step.done(&format!("best of {}", args.runs));
    if let Some((_, Some(refusal))) = &peer {
        ui::say(&format!("  the peer's time is up to its refusal: {refusal}"));
    }
    let peer = peer.map(|(usage, _)| ("objtool klp", usage));
    let size = std::fs::metadata(original)?.len() / 1_000_000;
    rows.push(Row { what: format!("analysis of two vmlinux.o ({size} MB)"), ours, peer });
    if let Some(work) = work {
        std::fs::remove_dir_all(&work.dir).with_context(|| format!("can't remove {}", work.dir.display()))?;
    }
    Ok(rows)
}

/// What counts inlined functions, or at least reads the same DWARF to its end, beside `klpx inline-check`.
const SURVEYORS: [(&str, &[&str]); 2] =
    [("pfunct", &["--total_inline_stats"]), ("llvm-dwarfdump-22", &["--statistics"])];

/// Seconds that a peer may take.
const PATIENCE: u32 = 120;

/// The survey of a file, and each peer on the same file in the same run.
fn inlining(args: &Args, klpx: &Klpx, file: &Path) -> Result<Vec<Row>> {
    let mut step = ui::step("inlining");
    step.at("klpx inline-check");
    let ours = best(args.runs, || {
        let mut command = klpx.command();
        command.arg("inline-check").arg(file);
        command
    })?;
    let mut rows = Vec::new();
    let size = std::fs::metadata(file)?.len() / 1_000_000;
    for (tool, options) in SURVEYORS {
        step.at(tool);
        let mut command = Command::new("timeout");
        command.arg(PATIENCE.to_string()).arg(tool).args(options).arg(file).stderr(Stdio::null());
        let (peer, status) = measure_any(&mut command)?;
        let stopped = match status.code() {
            Some(0) => String::new(),
            Some(124) => format!(", {tool} stopped after {PATIENCE} s"),
            _ => bail!("{} failed ({status})", process::shown(&command)),
        };
        let what = format!("who inlined what in {} ({size} MB{stopped})", file_name(file));
        rows.push(Row { what, ours, peer: Some((tool, peer)) });
    }
    step.done(&format!("best of {}", args.runs));
    Ok(rows)
}

fn file_name(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The kernel's own comparison: two checksum runs and one diff by objtool, where the build tree's objtool can. What it
/// says when it refuses the pair comes along.
fn peer(tree: &Path, original: &Path, patched: &Path) -> Result<Option<(Usage, Option<String>)>> {
    let objtool = tree.join("tools/objtool/objtool");
    if !Command::new(&objtool)
        .args(["klp", "diff", "--help"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| matches!(status.code(), Some(0 | 129)))
    {
        return Ok(None);
    }
    let scratch = tempfile::tempdir()?;
    let pair = [original, patched].map(|object| {
        let copy =
            scratch.path().join(format!("{}.o", if object == original { "original" } else { "patched" }));
        (object, copy)
    });
    let mut total = Usage { elapsed: Duration::ZERO, memory: 0 };
    let mut add = |usage: Usage| {
        total.elapsed += usage.elapsed;
        total.memory = total.memory.max(usage.memory);
    };
    for (object, copy) in &pair {
        // It writes into its input.
        std::fs::copy(object, copy)?;
        add(measure(Command::new(&objtool).args(["klp", "checksum"]).arg(copy))?);
    }
    let mut diff = Command::new(&objtool);
    // It reads Module.symvers where it is.
    diff.current_dir(tree)
        .args(["klp", "diff"])
        .arg(&pair[0].1)
        .arg(&pair[1].1)
        .arg(scratch.path().join("diff.o"));
    let said = scratch.path().join("said");
    let (usage, status) = measure_any(diff.stderr(std::fs::File::create(&said)?))?;
    add(usage);
    let refusal = std::fs::read_to_string(&said)?
        .lines()
        .find(|line| line.contains("error:"))
        .map(|line| line.rsplit_once("objtool: ").map_or(line, |(_, why)| why).trim().to_owned());
    Ok(Some((total, refusal.filter(|_| !status.success()))))
}

/// The fastest of some runs.
fn best(runs: u32, mut command: impl FnMut() -> Command) -> Result<Usage> {
    let mut best: Option<Usage> = None;
    for _ in 0..runs.max(1) {
        let usage = measure(&mut command())?;
        if best.is_none_or(|best| usage.elapsed < best.elapsed) {
            best = Some(usage);
        }
    }
    best.context("no run")
}

/// Runs a command that must succeed.
fn measure(command: &mut Command) -> Result<Usage> {
    let (usage, status) = measure_any(command.stderr(Stdio::null()))?;
    if !status.success() {
        bail!("{} failed ({status})", process::shown(command));
    }
    Ok(usage)
}

/// Runs a command to its end and asks the kernel what it used.
fn measure_any(command: &mut Command) -> Result<(Usage, ExitStatus)> {
    let start = Instant::now();
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("can't run {}", process::shown(command)))?;
    let mut status = 0;
    // SAFETY: an all-zero rusage is a valid one.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live locals; the child is ours and is not waited for elsewhere.
    let waited = unsafe { libc::wait4(child.id().cast_signed(), &raw mut status, 0, &raw mut usage) };
    if waited < 0 {
        return Err(io::Error::last_os_error()).context("wait4");
    }
    let status = ExitStatus::from_raw(status);
    let usage = Usage { elapsed: start.elapsed(), memory: usage.ru_maxrss.cast_unsigned() * 1024 };
    Ok((usage, status))
}

fn show(rows: &[Row]) {
    ui::heading("bench");
    let seconds = |usage: &Usage| format!("{:.2} s", usage.elapsed.as_secs_f64());
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
    ui::table(&["what", "klpx", "memory", "beside", "time", "memory", "faster", "smaller"], &cells);
}
