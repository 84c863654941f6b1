//! Runs `klpx test` on livepatches that the scenarios built: a good one, and others that must not pass.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::kernel::BuiltKernel;
use crate::klpx::Klpx;
use crate::tried::Tried;
use crate::ui;

/// A livepatch of vmlinux and two modules.
const LARGE: &str = "04-vmlinux-and-module/livepatch-md-note.ko";
/// A livepatch of vmlinux alone.
const SMALL: &str = "01-proc-string/livepatch-version.ko";
/// A livepatch with callbacks only.
const CALLBACKS: &str = "28-callbacks-alone/livepatch-nr-open.ko";
/// The function that the small livepatch replaces, and a name of the same length that the kernel does not have.
const FUNCTION: (&[u8], &[u8]) = (b"version_proc_show\0", b"version_proc_gone\0");
/// The exit code for a livepatch that does not do what it should.
const VERIFICATION: i32 = 7;

/// Returns true for kernels whose packages a user of this machine could have.
pub(crate) fn is_for(built: &BuiltKernel) -> bool {
    built.release.is_some() && built.root.is_none() && built.kernel.machine.is_native()
}

/// A call of `klpx test`, and its expected result.
struct TrialCase {
    name: &'static str,
    title: &'static str,
    module: PathBuf,
    options: Vec<String>,
    /// A part of the message about a livepatch that fails; `None` for a good livepatch.
    fails: Option<&'static str>,
}

/// Runs the cases on a kernel.
pub(crate) fn run(klpx: &Klpx, built: &BuiltKernel, results_dir: &Path) -> Result<Vec<Tried>> {
    let results = results_dir.join(built.kernel.name);
    let (large, small) = (results.join(LARGE), results.join(SMALL));
    let gone = results.join("livepatch-gone.ko");
    fs::write(&gone, renamed(&small)?).with_context(|| format!("can't write {}", gone.display()))?;
    let options = |options: &[&str]| options.iter().map(|&option| option.to_owned()).collect::<Vec<_>>();
    let previous = ["--previous".to_owned(), small.display().to_string()];
    let cases = [
        TrialCase {
            name: "test-good",
            title: "a livepatch of vmlinux and modules, in the place of another",
            module: large,
            options: [&previous[..], &options(&["--before", "uname -r => *.*"])].concat(),
            fails: None,
        },
        TrialCase {
            name: "test-callbacks",
            title: "a livepatch that replaces no function",
            module: results.join(CALLBACKS),
            options: options(&[
                "--before",
                "cat /proc/sys/fs/nr_open => 1048576",
                "--after",
                "cat /proc/sys/fs/nr_open => 524288",
            ]),
            fails: None,
        },
        TrialCase {
            name: "test-wrong-output",
            title: "a livepatch that does not bring what is expected",
            module: small,
            options: options(&["--before", "uname => Linux", "--after", "uname => Other"]),
            fails: Some("the fix: after: uname: expected something like 'Other', got 'Linux'"),
        },
        TrialCase {
            name: "test-refused",
            title: "a livepatch that the kernel refuses to load",
            module: gone,
            options: Vec::new(),
            fails: Some("insmod: the kernel refuses it"),
        },
    ];
    cases.iter().map(|case| tried(klpx, built, case)).collect()
}

/// Returns the small livepatch, changed to name a function that the kernel does not have.
pub(crate) fn renamed(module: &Path) -> Result<Vec<u8>> {
    let mut bytes = fs::read(module)
        .with_context(|| format!("can't read {}: run the scenarios first", module.display()))?;
    let (from, to) = FUNCTION;
    let places: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at..].starts_with(from)).collect();
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    Ok(bytes)
}

fn tried(klpx: &Klpx, built: &BuiltKernel, case: &TrialCase) -> Result<Tried> {
    let mut step = ui::step(&format!("{} test", built.kernel.name));
    step.at(case.name);
    let start = Instant::now();
    let mut command = klpx.command();
    command.arg("test").arg(&case.module).arg("--json").arg("--sysroot").arg(&built.tree).args(&case.options);
    let failures = failures(&mut command, case)?;
    let elapsed = start.elapsed();
    match failures.is_empty() {
        true => drop(step.done(case.name)),
        false => drop(step.failed(case.name)),
    }
    let (name, title, kernel) = (case.name.to_owned(), case.title.to_owned(), built.kernel.name);
    Ok(Tried { name, title, kernel, passed: 1, failures, elapsed })
}

fn failures(command: &mut Command, case: &TrialCase) -> Result<Vec<String>> {
    let result = command.output().context("can't run klpx")?;
    let stderr = String::from_utf8_lossy(&result.stderr);
    let Ok(json) = serde_json::from_slice::<Value>(&result.stdout) else {
        return Ok(vec![format!("klpx test wrote no JSON\n{stderr}")]);
    };
    let good = json["good"].as_bool();
    let problems: Vec<&str> = json["trials"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|trial| trial["problems"].as_array().into_iter().flatten())
        .filter_map(Value::as_str)
        .collect();
    let right = match case.fails {
        None => result.status.success() && good == Some(true) && problems.is_empty(),
        Some(text) => {
            result.status.code() == Some(VERIFICATION) && good == Some(false) && stderr.contains(text)
        }
    };
    Ok(if right { Vec::new() } else { vec![format!("{}: {}\n{stderr}", result.status, problems.join("\n"))] })
}
