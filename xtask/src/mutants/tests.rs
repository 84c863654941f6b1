//! Builds and lists the tests of the mutated copy, and runs each once by itself to find the mutants that it reaches.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::mutants::tree::{SWITCH, TRACE, Tree};
use crate::process;
use crate::ui;

/// The variable with the number of pairs that a random test tries. The number is small, because the test runs once for
/// each mutant.
const PAIRS: &str = "KLPX_PAIRS";

/// The tests that read the product's source and run none of its code. The copy's source is another one.
const READS_SOURCE: &str = "promises";

/// One test function.
pub(crate) struct Test {
    /// The executable that contains the test.
    pub(crate) program: PathBuf,
    /// The folder in which the test runs: the package's.
    pub(crate) folder: PathBuf,
    /// The test's path in the executable.
    pub(crate) name: String,
    /// The test's run time with no mutant on.
    pub(crate) takes: Duration,
    /// The mutants that the test reaches.
    pub(crate) reaches: BTreeSet<usize>,
}

impl Test {
    /// Returns a command that runs tests of one executable, one after the other, with cargo's variable of the package.
    pub(crate) fn command(tests: &[&Test]) -> Command {
        let mut command = Command::new(&tests[0].program);
        command.current_dir(&tests[0].folder).args(["--exact", "--test-threads=1"]);
        command.args(tests.iter().map(|test| &test.name)).env_remove(SWITCH).env_remove(TRACE);
        command.env("CARGO_MANIFEST_DIR", &tests[0].folder).env(PAIRS, "100");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }
}

/// Builds the copy's tests and lists them.
pub(crate) fn build(tree: &Tree, crates: &[String]) -> Result<Vec<Test>> {
    let mut command = Command::new("cargo");
    command.current_dir(&tree.root).args(["test", "--no-run", "--message-format=json-render-diagnostics"]);
    match crates {
        [] => drop(command.args(["--workspace", "--exclude", "xtask"])),
        crates => drop(command.args(crates.iter().map(|krate| format!("--package=klpx-{krate}")))),
    }
    command.env("CARGO_TARGET_DIR", &tree.target).env("RUSTFLAGS", "--cap-lints=allow");
    command.env("CARGO_INCREMENTAL", "0").stderr(Stdio::inherit());
    let step = ui::step("build with all mutants");
    let built = command.stdin(Stdio::null()).output().context("can't run cargo")?;
    let messages = String::from_utf8(built.stdout).context("cargo's messages")?;
    if !built.status.success() {
        step.failed("");
        bail!("the copy with all mutants does not build: each `find` and `with` must fit where it stands");
    }
    step.done("");
    let mut tests = Vec::new();
    for message in messages.lines() {
        let message: serde_json::Value = serde_json::from_str(message).context("cargo's messages")?;
        let Some(program) = message["executable"].as_str() else { continue };
        if message["profile"]["test"] != true || message["target"]["name"] == READS_SOURCE {
            continue;
        }
        let manifest = message["manifest_path"].as_str().context("cargo names the package's manifest")?;
        let folder = Path::new(manifest).parent().context("a manifest has a folder")?;
        let listed =
            process::output(Command::new(program).args(["--list", "--format=terse"]).current_dir(folder))?;
        tests.extend(listed.lines().filter_map(|line| line.strip_suffix(": test")).map(|name| Test {
            program: PathBuf::from(program),
            folder: folder.to_path_buf(),
            name: name.to_owned(),
            takes: Duration::ZERO,
            reaches: BTreeSet::new(),
        }));
    }
    Ok(tests)
}

/// Runs each test by itself with no mutant on. Every test must pass.
pub(crate) fn trace(tree: &Tree, tests: Vec<Test>, jobs: usize) -> Result<Vec<Test>> {
    let traces = tree.target.join("traces");
    fs::create_dir_all(&traces).with_context(|| format!("can't create {}", traces.display()))?;
    let mut step = ui::step("which test reaches which mutant");
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let shown = Mutex::new(&mut step);
    std::thread::scope(|scope| {
        for worker in 0..jobs {
            let (next, done, shown, tests, traces) = (&next, &done, &shown, &tests, &traces);
            scope.spawn(move || {
                while let n = next.fetch_add(1, Ordering::Relaxed)
                    && let Some(test) = tests.get(n)
                {
                    let result = reached(test, &traces.join(worker.to_string()));
                    shown
                        .lock()
                        .unwrap_or_else(|lock| lock.into_inner())
                        .at(&format!("{n} of {}", tests.len()));
                    done.lock().unwrap_or_else(|lock| lock.into_inner()).push((n, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(|lock| lock.into_inner());
    done.sort_by_key(|(n, _)| *n);
    let mut tests = tests;
    let mut failing = Vec::new();
    for (test, (_, result)) in tests.iter_mut().zip(done) {
        match result? {
            Some((takes, reaches)) => (test.takes, test.reaches) = (takes, reaches),
            None => failing.push(format!("{} in {}", test.name, test.program.display())),
        }
    }
    if !failing.is_empty() {
        step.failed("");
        bail!("fails with no mutant on: {}", failing.join(", "));
    }
    step.done(&ui::plural(tests.len(), "test"));
    Ok(tests)
}

/// Returns the test's time and the mutants that the test reaches; `None` if the test fails.
fn reached(test: &Test, trace: &Path) -> Result<Option<(Duration, BTreeSet<usize>)>> {
    let _ = fs::remove_file(trace);
    let start = Instant::now();
    let status = Test::command(&[test]).env(TRACE, trace).status().context("can't run a test")?;
    let takes = start.elapsed();
    if !status.success() {
        return Ok(None);
    }
    let text = fs::read_to_string(trace).unwrap_or_default();
    Ok(Some((takes, text.lines().filter_map(|line| line.parse().ok()).collect())))
}
