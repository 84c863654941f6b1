//! Measures other tools at the same work in the same run: the kernel's own comparison of objects, and tools that read
//! the same DWARF.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use super::BenchRow;
use super::measure::{Usage, best, measure, measure_any};
use crate::klpx::Klpx;
use crate::process;
use crate::ui;

/// Tools that count inlined functions, or at least read the same DWARF to its end, beside `klpx inline-check`.
const SURVEYORS: [(&str, &[&str]); 2] =
    [("pfunct", &["--total_inline_stats"]), ("llvm-dwarfdump-22", &["--statistics"])];

/// The most time that a peer may take, in seconds.
const PATIENCE: u32 = 120;

/// Measures the survey of a file, and each peer on the same file in the same run.
pub(super) fn inlining(runs: u32, klpx: &Klpx, file: &Path) -> Result<Vec<BenchRow>> {
    let mut step = ui::step("inlining");
    step.at("klpx inline-check");
    let klpx_best = best(runs, || {
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
        rows.push(BenchRow { what, ours: klpx_best, peer: Some((tool, peer)), goal: None });
    }
    step.done(&format!("best of {runs}"));
    Ok(rows)
}

fn file_name(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Measures klpx's comparison of two objects, and the kernel's own comparison if the build tree's objtool can do it.
pub(super) fn analysis(
    runs: u32,
    klpx: &Klpx,
    tree: &Path,
    original: &Path,
    patched: &Path,
) -> Result<BenchRow> {
    let mut step = ui::step("analysis");
    let klpx_best = best(runs, || {
        step.at("klpx diff");
        let mut command = klpx.command();
        command.arg("diff").arg("--json").arg(original).arg(patched);
        command
    })?;
    step.at("peer");
    let peer = peer(tree, original, patched)?;
    step.done(&format!("best of {runs}"));
    if let Some((_, Some(refusal))) = &peer {
        ui::say(&format!("  the peer's time is up to its refusal: {refusal}"));
    }
    let peer = peer.map(|(usage, _)| ("objtool klp", usage));
    let size = std::fs::metadata(original)?.len() / 1_000_000;
    Ok(BenchRow { what: format!("analysis of two objects ({size} MB)"), ours: klpx_best, peer, goal: None })
}

/// Measures the kernel's own comparison: two checksum runs and one diff by objtool, if the build tree's objtool can do
/// them. If objtool refuses the pair, its message is returned as well.
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
    let mut total = Usage::default();
    let mut add = |usage: Usage| {
        total.elapsed += usage.elapsed;
        total.memory = total.memory.max(usage.memory);
    };
    for (object, copy) in &pair {
        // objtool writes into its input.
        std::fs::copy(object, copy)?;
        add(measure(Command::new(&objtool).args(["klp", "checksum"]).arg(copy))?);
    }
    let mut diff = Command::new(&objtool);
    // objtool reads Module.symvers from its working directory.
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
