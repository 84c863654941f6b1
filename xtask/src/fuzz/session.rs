//! One target's run, and libFuzzer's output about it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::fuzz::Folders;
use crate::process;
use crate::ui::Step;

/// The most memory of a target, in megabytes.
const MEMORY: u32 = 2048;
/// The most time that a target may take for one input, in seconds.
const SLOW: u32 = 10;
/// The least limit of an input's size, in bytes.
const SIZE: u64 = 4096;

/// The outcome of a run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct FuzzOutcome {
    /// Number of tried inputs.
    pub(crate) executions: u64,
    /// Tried inputs in a second.
    rate: u64,
    /// Number of edges of the code that some input reached.
    coverage: u64,
    /// The input that ended the run, if any.
    pub(crate) finding: Option<FuzzFinding>,
}

/// An input on which a target failed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct FuzzFinding {
    /// The input's file.
    pub(crate) input: PathBuf,
    /// What happened, in a line.
    pub(crate) why: String,
}

impl FuzzOutcome {
    /// Returns the aligned figures.
    pub(crate) fn line(&self) -> String {
        let findings = usize::from(self.finding.is_some());
        let (executions, rate, edges) = (self.executions, self.rate, self.coverage);
        format!("{executions:>10} runs {rate:>6}/s {edges:>6} edges, findings: {findings}")
    }
}

/// Runs a target until the time is over or there is a finding.
pub(crate) fn run(program: &Path, folders: &Folders, time: Duration, step: &mut Step) -> Result<FuzzOutcome> {
    let _ = fs::remove_file(&folders.log);
    let mut command = Command::new(program);
    command.args([&folders.corpus, &folders.seeds, &folders.findings]);
    command.args([
        format!("-max_total_time={}", time.as_secs()),
        format!("-max_len={}", SIZE.max(2 * largest(&folders.seeds)?)),
        format!("-rss_limit_mb={MEMORY}"),
        format!("-timeout={SLOW}"),
        format!("-report_slow_units={SLOW}"),
        "-print_final_stats=1".to_owned(),
    ]);
    let mut prefix = OsString::from("-artifact_prefix=");
    prefix.push(folders.findings.join(""));
    command.arg(prefix);
    // With more threads, the code that one input reaches would depend on the other inputs.
    command.env("RAYON_NUM_THREADS", "1").env("RUST_BACKTRACE", "1");
    let mut output = FuzzOutput::default();
    let ended = process::logged(&mut command, &folders.log, |line| {
        output.take(line);
        step.at(&output.outcome.line());
    });
    match (ended, &output.outcome.finding) {
        (Err(error), None) => Err(error),
        _ => Ok(output.outcome),
    }
}

/// Returns the size of the largest file of a folder.
fn largest(folder: &Path) -> Result<u64> {
    let entries = fs::read_dir(folder).with_context(|| format!("can't read {}", folder.display()))?;
    let sizes = entries.map(|entry| Ok(entry?.metadata()?.len()));
    Ok(sizes.collect::<Result<Vec<_>>>()?.into_iter().max().unwrap_or_default())
}

/// libFuzzer's output so far.
#[derive(Default)]
struct FuzzOutput {
    outcome: FuzzOutcome,
    why: Option<String>,
    /// The place of a panic that the previous line told.
    panicked: Option<String>,
}

impl FuzzOutput {
    fn take(&mut self, line: &str) {
        if let Some(place) = self.panicked.take() {
            self.why.get_or_insert(format!("{line} ({place})"));
        }
        if let Some((_, place)) = line.split_once(" panicked at ") {
            self.panicked = Some(place.trim_end_matches(':').to_owned());
        } else if let Some((_, error)) = line.split_once("ERROR: libFuzzer: ") {
            self.why.get_or_insert(error.to_owned());
        } else if let Some((_, input)) = line.split_once("Test unit written to ") {
            let why = self.why.clone().unwrap_or_else(|| "it takes long".to_owned());
            self.outcome.finding = Some(FuzzFinding { input: PathBuf::from(input), why });
        } else if let Some(count) = line.strip_prefix("stat::number_of_executed_units: ") {
            self.outcome.executions = count.trim().parse().unwrap_or_default();
        } else if let Some(counted) = line.strip_prefix('#') {
            let mut words = line.split_whitespace();
            let mut after = |name: &str| words.by_ref().skip_while(|word| *word != name).nth(1)?.parse().ok();
            self.outcome.coverage = after("cov:").unwrap_or(self.outcome.coverage);
            self.outcome.rate = after("exec/s:").unwrap_or(self.outcome.rate);
            let count = counted.split_whitespace().next().and_then(|count| count.parse().ok());
            self.outcome.executions = count.unwrap_or(self.outcome.executions);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> FuzzOutcome {
        let mut said = FuzzOutput::default();
        text.lines().for_each(|line| said.take(line));
        said.outcome
    }

    #[test]
    fn a_quiet_run_has_figures_and_no_finding() {
        let outcome = said(
            "INFO: Seed: 1\n\
             #2\tINITED cov: 12 ft: 13 corp: 1/1b exec/s: 0 rss: 30Mb\n\
             #4096\tpulse  cov: 120 ft: 300 corp: 9/1Kb lim: 4096 exec/s: 2048 rss: 40Mb\n\
             #5000\tDONE   cov: 121 ft: 301 corp: 9/1Kb lim: 4096 exec/s: 2500 rss: 40Mb\n\
             Done 5000 runs in 2 second(s)\n\
             stat::number_of_executed_units: 5000\n",
        );
        let expected = FuzzOutcome { executions: 5000, rate: 2500, coverage: 121, finding: None };
        assert_eq!(outcome, expected);
    }

    #[test]
    fn a_finding_has_its_input_and_its_reason() {
        let panic = "thread '<unnamed>' (7) panicked at crates/diff/src/compare.rs:114:39:\n\
             attempt to subtract with overflow\n\
             ==7== ERROR: libFuzzer: deadly signal\n\
             artifact_prefix='f/'; Test unit written to f/crash-01\n";
        let slow = "==7== ERROR: libFuzzer: timeout after 11 seconds\n\
             artifact_prefix='f/'; Test unit written to f/timeout-01\n";
        for (text, input, why) in [
            (panic, "f/crash-01", "attempt to subtract with overflow (crates/diff/src/compare.rs:114:39)"),
            (slow, "f/timeout-01", "timeout after 11 seconds"),
            ("artifact_prefix='f/'; Test unit written to f/slow-unit-01", "f/slow-unit-01", "it takes long"),
        ] {
            let finding = FuzzFinding { input: PathBuf::from(input), why: why.to_owned() };
            assert_eq!(said(text).finding, Some(finding));
        }
    }
}
