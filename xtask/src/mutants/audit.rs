//! Runs each mutant against the tests that reach it.

use std::cmp::Reverse;
use std::fmt;
use std::process::Child;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::mutants::tests::Test;
use crate::mutants::tree::SWITCH;
use crate::ui;

/// The number of tests of one executable that run in one process. It is small because the process does not stop at the
/// first failure.
const BATCH: usize = 6;

/// If a mutant makes a test run this many times longer than usual, the mutant counts as seen: the test would never end.
const PATIENCE: u32 = 20;

/// The outcome for a mutant.
pub(crate) enum MutantOutcome {
    /// This test, or a test that ran with it, fails or does not end.
    Caught(String),
    /// All of this many tests that reach the mutant pass.
    Missed(usize),
}

impl fmt::Display for MutantOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MutantOutcome::Caught(test) => write!(f, "caught by {test}"),
            MutantOutcome::Missed(0) => write!(f, "no test reaches it"),
            MutantOutcome::Missed(1) => write!(f, "1 test reaches it and passes"),
            MutantOutcome::Missed(tests) => write!(f, "{tests} tests reach it and pass"),
        }
    }
}

/// A mutant and its outcome.
pub(crate) struct MutantVerdict {
    /// The mutant's number.
    pub(crate) mutant: usize,
    /// The mutant's outcome.
    pub(crate) outcome: MutantOutcome,
}

/// Tries mutants, `jobs` at a time. Returns the verdicts in the order of `mutants`.
pub(crate) fn run(tests: &[Test], mutants: &[usize], jobs: usize) -> Result<Vec<MutantVerdict>> {
    let mut step = ui::step("mutants");
    let next = AtomicUsize::new(0);
    let seen: Vec<AtomicUsize> = tests.iter().map(|_| AtomicUsize::new(0)).collect();
    let done = Mutex::new(Vec::new());
    let shown = Mutex::new(&mut step);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let n = next.fetch_add(1, Ordering::Relaxed)
                    && let Some(&mutant) = mutants.get(n)
                {
                    let outcome = outcome(tests, &seen, mutant);
                    shown
                        .lock()
                        .unwrap_or_else(|lock| lock.into_inner())
                        .at(&format!("{n} of {}", mutants.len()));
                    done.lock()
                        .unwrap_or_else(|lock| lock.into_inner())
                        .push((n, outcome.map(|outcome| MutantVerdict { mutant, outcome })));
                }
            });
        }
    });
    step.done("");
    let mut done = done.into_inner().unwrap_or_else(|lock| lock.into_inner());
    done.sort_by_key(|(n, _)| *n);
    done.into_iter().map(|(_, verdict)| verdict).collect()
}

/// Runs the tests that reach a mutant until one fails. `seen` counts the mutants that each test saw before. Similar
/// mutants stand together, so the test that saw the most comes first, then the fastest.
fn outcome(tests: &[Test], seen: &[AtomicUsize], mutant: usize) -> Result<MutantOutcome> {
    let reaches = |&n: &usize| tests[n].reaches.contains(&mutant);
    let mut reaching: Vec<usize> = (0..tests.len()).filter(reaches).collect();
    reaching.sort_by_key(|&n| (Reverse(seen[n].load(Ordering::Relaxed)), tests[n].takes));
    let count = reaching.len();
    while let Some(&first) = reaching.first() {
        let program = &tests[first].program;
        let batch: Vec<usize> =
            reaching.iter().copied().filter(|&n| tests[n].program == *program).take(BATCH).collect();
        reaching.retain(|n| !batch.contains(n));
        let batch: Vec<&Test> = batch.iter().map(|&n| &tests[n]).collect();
        if fails(&batch, mutant)? {
            seen[first].fetch_add(1, Ordering::Relaxed);
            return Ok(match batch.as_slice() {
                [test] => MutantOutcome::Caught(test.name.clone()),
                several => {
                    MutantOutcome::Caught(format!("{} or {} more", several[0].name, several.len() - 1))
                }
            });
        }
    }
    Ok(MutantOutcome::Missed(count))
}

/// Returns true if not all tests pass in time with the mutant on.
fn fails(batch: &[&Test], mutant: usize) -> Result<bool> {
    let usual: Duration = batch.iter().map(|test| test.takes).sum();
    let limit = usual * PATIENCE + Duration::from_secs(10);
    let child = Test::command(batch).env(SWITCH, mutant.to_string()).spawn().context("can't run a test")?;
    Ok(!passes(child, limit)?)
}

fn passes(mut child: Child, limit: Duration) -> Result<bool> {
    let start = Instant::now();
    loop {
        match child.try_wait()? {
            Some(status) => return Ok(status.success()),
            None if start.elapsed() < limit => std::thread::sleep(Duration::from_millis(5)),
            None => {
                child.kill()?;
                child.wait()?;
                return Ok(false);
            }
        }
    }
}
