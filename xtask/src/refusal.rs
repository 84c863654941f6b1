//! Refusals: what klpx must not build, with which code and exit code, naming what, and leaving nothing behind.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::fingerprint::Fingerprint;
use crate::kernel::{Built, Kernel};
use crate::klpx::{Build, Klpx, Outcome};
use crate::process;
use crate::tried::Tried;
use crate::ui;
use crate::workspace::Workspace;

/// One refusal, as in `kernel-fixtures/refusals/NAME.toml` or in a scenario's `[[refused]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    /// What it shows.
    #[serde(default)]
    pub(crate) title: String,
    /// Files beside the data.
    patches: Vec<String>,
    /// Fixture kernels or architectures it is for; all when empty.
    #[serde(default)]
    kernels: Vec<String>,
    /// Further options of `klpx build`.
    #[serde(default)]
    options: Vec<String>,
    /// Settings that replace those of the kernel's `.config`, given as `--config`.
    #[serde(default)]
    config: Vec<String>,
    /// Settings of another kernel whose `vmlinux` is given as the one to be patched.
    #[serde(default)]
    vmlinux_with: Vec<String>,
    /// A source tree that is none.
    source: Option<NoSource>,
    /// Host tools that klpx does not find.
    #[serde(default)]
    without: Vec<String>,
    /// A `vmlinux` that is none.
    vmlinux: Option<NoVmlinux>,
    /// The diagnosis' stable code.
    code: String,
    /// The exit code.
    exit: i32,
    /// What the message must say besides: a symbol, a place, a remedy.
    #[serde(default)]
    mentions: Vec<String>,
}

/// What stands in for a source tree.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum NoSource {
    /// Nothing.
    Missing,
    /// An empty directory.
    Empty,
}

/// What stands in for the kernel to be patched.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum NoVmlinux {
    /// The first half of the real one.
    Truncated,
}

impl Case {
    /// True when the case is for this fixture kernel.
    pub(crate) fn is_for(&self, kernel: &Kernel) -> bool {
        self.kernels.is_empty() || self.kernels.iter().any(|word| kernel.is(word))
    }
}

/// Every refusal of `kernel-fixtures/refusals`, by name.
pub(crate) fn select(workspace: &Workspace, filters: &[String]) -> Result<Vec<(String, Case)>> {
    let root = workspace.fixtures("refusals");
    let mut files: Vec<PathBuf> = fs::read_dir(&root)
        .with_context(|| format!("can't read {}", root.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let name = file.file_stem().context("a file has a name")?.to_string_lossy().into_owned();
        if filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str())) {
            let text = fs::read_to_string(&file)?;
            cases.push((name, toml::from_str(&text).with_context(|| format!("{}", file.display()))?));
        }
    }
    Ok(cases)
}

/// Runs the refusals on one kernel, and looks whether the user's trees are as they were.
pub(crate) fn run(
    workspace: &Workspace,
    klpx: &Klpx,
    built: &Built,
    cases: &[(String, Case)],
    results_dir: &Path,
) -> Result<Vec<Tried>> {
    let directory = workspace.fixtures("refusals");
    let before = trees(built)?;
    let mut results = Vec::new();
    for (name, case) in cases.iter().filter(|(_, case)| case.is_for(built.kernel)) {
        let mut step = ui::step(&format!("{} refusal", built.kernel.name));
        step.at(name);
        let output = results_dir.join(built.kernel.name).join("refusals").join(name);
        let failures = check(workspace, klpx, built, case, &directory, &output)?;
        let elapsed = if failures.is_empty() { step.done(name) } else { step.failed(name) };
        results.push(Tried {
            name: name.clone(),
            title: case.title.clone(),
            kernel: built.kernel.name,
            passed: 0,
            failures,
            elapsed,
        });
    }
    let written: Vec<String> =
        trees(built)?.iter().zip(&before).flat_map(|(after, before)| after.changed_since(before)).collect();
    if let (Some(last), false) = (results.last_mut(), written.is_empty()) {
        last.failures.push(format!("the user's trees were written to: {}", written.join(", ")));
    }
    Ok(results)
}

fn trees(built: &Built) -> Result<[Fingerprint; 2]> {
    Ok([Fingerprint::of(&built.source.tree, true)?, Fingerprint::of(&built.tree, false)?])
}

/// Runs one case; returns what was not as it should be.
pub(crate) fn check(
    workspace: &Workspace,
    klpx: &Klpx,
    built: &Built,
    case: &Case,
    directory: &Path,
    output: &Path,
) -> Result<Vec<String>> {
    let name = format!("refused-{}", case.code.rsplit(':').next().unwrap_or_default());
    let patches: Vec<PathBuf> = case.patches.iter().map(|patch| directory.join(patch)).collect();
    let mut options = case.options.clone();
    let scratch = tempfile::tempdir()?;
    if !case.config.is_empty() {
        let config = scratch.path().join("config");
        fs::write(&config, with_settings(&fs::read_to_string(built.config())?, &case.config))?;
        options.extend(["--config".to_owned(), config.display().to_string()]);
    }
    let vmlinux = match (case.vmlinux, case.vmlinux_with.as_slice()) {
        (Some(NoVmlinux::Truncated), _) => {
            Some(truncated(&built.vmlinux(), &scratch.path().join("vmlinux"))?)
        }
        (None, []) => None,
        (None, settings) => Some(other_vmlinux(workspace, built, settings)?),
    };
    let mut built = built.clone();
    if let Some(stand_in) = case.source {
        built.source.tree = scratch.path().join("source");
        match stand_in {
            NoSource::Missing => {}
            NoSource::Empty => fs::create_dir(&built.source.tree)?,
        }
    }
    let build = Build {
        built: &built,
        patches: &patches,
        name: &name,
        options: &options,
        vmlinux: vmlinux.as_deref(),
        output,
    };
    let path = match case.without.as_slice() {
        [] => None,
        tools => Some(path_without(tools, &scratch.path().join("bin"))?),
    };
    let outcome = klpx.run_in(&build, path.as_deref())?;
    let mut failures = judge(case, &outcome);
    if output.join(format!("livepatch-{name}.ko")).exists() {
        failures.push("a module was left behind".to_owned());
    }
    Ok(failures)
}

/// Compares what klpx said with what the case wants.
fn judge(case: &Case, outcome: &Outcome) -> Vec<String> {
    let mut failures = Vec::new();
    if outcome.exit != Some(case.exit) {
        let exit = outcome.exit.map_or("a signal".to_owned(), |code| code.to_string());
        failures.push(format!("exit code {exit} instead of {}\n{}", case.exit, process::tail(&outcome.text)));
    }
    let codes: Vec<&str> = match &outcome.report {
        Some(report) => report.errors.iter().map(|problem| problem.code.as_str()).collect(),
        None => Vec::new(),
    };
    if !codes.contains(&case.code.as_str()) {
        failures.push(format!("the report says [{}] instead of {}", codes.join(", "), case.code));
    }
    for text in std::iter::once(&case.code).chain(&case.mentions) {
        if !outcome.text.contains(text) {
            failures.push(format!("the message does not say '{text}'"));
        }
    }
    failures
}

/// A configuration with some settings replaced, in any of the forms that `.config` has.
fn with_settings(config: &str, settings: &[String]) -> String {
    let key = |line: &str| -> Option<String> {
        let name = line.strip_prefix("# ").unwrap_or(line);
        let end = name.find(['=', ' '])?;
        name.starts_with("CONFIG_").then(|| name[..end].to_owned())
    };
    let replaced: Vec<Option<String>> = settings.iter().map(|setting| key(setting)).collect();
    let mut lines: Vec<&str> =
        config.lines().filter(|line| key(line).is_none_or(|key| !replaced.contains(&Some(key)))).collect();
    lines.extend(settings.iter().map(String::as_str));
    lines.join("\n") + "\n"
}

/// The first half of a file.
fn truncated(file: &Path, output: &Path) -> Result<PathBuf> {
    fs::copy(file, output)?;
    let half = fs::metadata(output)?.len() / 2;
    fs::File::options().write(true).open(output)?.set_len(half)?;
    Ok(output.to_path_buf())
}

/// A directory with a link to every command of PATH but some.
fn path_without(tools: &[String], directory: &Path) -> Result<PathBuf> {
    fs::create_dir(directory)?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    for entry in std::env::split_paths(&path).filter_map(|part| fs::read_dir(part).ok()).flatten().flatten() {
        let name = entry.file_name();
        if !tools.iter().any(|tool| name == tool.as_str()) {
            // The first of a name is the one that counts.
            let _ = std::os::unix::fs::symlink(entry.path(), directory.join(&name));
        }
    }
    Ok(directory.to_path_buf())
}

/// The `vmlinux` of the same source with other settings: a copy of the build tree, built again where the settings
/// matter.
fn other_vmlinux(workspace: &Workspace, built: &Built, settings: &[String]) -> Result<PathBuf> {
    let key = blake3::hash(format!("{}\n{}", built.tree.display(), settings.join("\n")).as_bytes()).to_hex();
    let kept = workspace.cache_dir("vmlinux")?.join(format!("{}-{}", built.kernel.name, &key.as_str()[..12]));
    if kept.exists() && fs::metadata(&kept)?.modified()? > fs::metadata(built.vmlinux())?.modified()? {
        return Ok(kept);
    }
    let mut step = ui::step("another kernel");
    step.at(&settings.join(" "));
    let scratch = tempfile::Builder::new().prefix(".other-").tempdir_in(&workspace.cache)?;
    let tree = scratch.path().join("tree");
    process::output(
        std::process::Command::new("cp").args(["-a", "--reflink=auto"]).arg(&built.tree).arg(&tree),
    )?;
    let config = tree.join(".config");
    fs::write(&config, with_settings(&fs::read_to_string(&config)?, settings))?;
    let log = workspace.cache_dir("vmlinux")?.join(format!("{}.log", built.kernel.name));
    process::logged(built.make(&tree)?.arg("olddefconfig"), &log, |_| {})?;
    let mut objects = 0;
    let mut command = built.make(&tree)?;
    command.arg(format!("-j{}", workspace.jobs)).arg("vmlinux");
    process::logged(&mut command, &log, |line| {
        objects += u32::from(line.starts_with("  CC "));
        step.at(&format!("{objects} objects"));
    })?;
    fs::copy(tree.join("vmlinux"), &kept)?;
    step.done(&format!("{} ({objects} objects)", settings.join(" ")));
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FixtureOptions;

    #[test]
    fn settings_replace_every_form() {
        let config = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_AB=3\n";
        assert_eq!(
            with_settings(config, &["CONFIG_A=n".to_owned(), "CONFIG_B=y".to_owned()]),
            "CONFIG_AB=3\nCONFIG_A=n\nCONFIG_B=y\n"
        );
    }

    #[test]
    fn every_refusal_has_its_patches() {
        let workspace = Workspace::new(&FixtureOptions::default()).expect("defaults");
        for (name, case) in select(&workspace, &[]).expect("data") {
            assert!(!case.title.is_empty(), "{name}");
            assert!(case.code.starts_with("klpx::"), "{name}");
            for patch in &case.patches {
                assert!(workspace.fixtures("refusals").join(patch).is_file(), "{name}: {patch}");
            }
        }
    }
}
