//! Refusals: inputs from which klpx must not build a livepatch. Each has a code, an exit code and words of the message,
//! and must leave nothing behind.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::fingerprint::Fingerprint;
use crate::kernel::{BuiltKernel, FixtureKernel};
use crate::klpx::{BuildCall, Klpx, KlpxOutput};
use crate::process;
use crate::tried::Tried;
use crate::ui;
use crate::workspace::CargoWorkspace;

/// One refusal, as in `kernel-fixtures/refusals/NAME.toml` or in a scenario's `[[refused]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RefusalCase {
    /// What the case shows.
    #[serde(default)]
    pub(crate) title: String,
    /// Patch files beside the data.
    patches: Vec<String>,
    /// Fixture kernels or architectures of the case; all if empty.
    #[serde(default)]
    kernels: Vec<String>,
    /// Further options of `klpx build`.
    #[serde(default)]
    options: Vec<String>,
    /// Settings that replace those of the kernel's `.config`, given as `--config`.
    #[serde(default)]
    config: Vec<String>,
    /// Settings that replace those of the kernel's headers, in `.config` and in all files made from it, as if the
    /// headers belonged to another kernel.
    #[serde(default)]
    headers_with: Vec<String>,
    /// An invalid source tree.
    source: Option<NoSource>,
    /// Host tools that are hidden from klpx.
    #[serde(default)]
    without: Vec<String>,
    /// An invalid `vmlinux`.
    vmlinux: Option<NoVmlinux>,
    /// The diagnosis' stable code.
    code: String,
    /// The exit code.
    exit: i32,
    /// What the message must also say: a symbol, a place, a remedy.
    #[serde(default)]
    mentions: Vec<String>,
}

/// The stand-in for a source tree.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum NoSource {
    /// Nothing.
    Missing,
    /// An empty directory.
    Empty,
}

/// The stand-in for the kernel to be patched.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum NoVmlinux {
    /// The first half of the real one.
    Truncated,
}

impl RefusalCase {
    /// Returns true if the case is for this fixture kernel.
    pub(crate) fn is_for(&self, kernel: &FixtureKernel) -> bool {
        self.kernels.is_empty() || self.kernels.iter().any(|word| kernel.is(word))
    }
}

/// Returns every refusal of `kernel-fixtures/refusals`, by name.
pub(crate) fn select(workspace: &CargoWorkspace, filters: &[String]) -> Result<Vec<(String, RefusalCase)>> {
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

/// Runs the refusals on one kernel, and checks that the user's trees are unchanged.
pub(crate) fn run(
    workspace: &CargoWorkspace,
    klpx: &Klpx,
    built: &BuiltKernel,
    cases: &[(String, RefusalCase)],
    results_dir: &Path,
) -> Result<Vec<Tried>> {
    let directory = workspace.fixtures("refusals");
    let before = trees(built)?;
    let mut results = Vec::new();
    for (name, case) in cases.iter().filter(|(_, case)| case.is_for(built.kernel)) {
        let mut step = ui::step(&format!("{} refusal", built.kernel.name));
        step.at(name);
        let output = results_dir.join(built.kernel.name).join("refusals").join(name);
        let failures = check(klpx, built, case, &directory, &output)?;
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

fn trees(built: &BuiltKernel) -> Result<[Fingerprint; 2]> {
    Ok([Fingerprint::read(&built.source.tree, true)?, Fingerprint::read(&built.tree, false)?])
}

/// Runs one case; returns everything that is wrong.
pub(crate) fn check(
    klpx: &Klpx,
    built: &BuiltKernel,
    case: &RefusalCase,
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
    if !case.headers_with.is_empty() {
        let headers = headers_with(built, &case.headers_with, &scratch.path().join("headers"))?;
        options.extend(["--build-dir".to_owned(), headers.display().to_string()]);
    }
    if !case.without.is_empty() {
        // A kernel that klpx already knows may need few tools.
        let cache = scratch.path().join("cache");
        options.extend(["--cache-dir".to_owned(), cache.display().to_string()]);
    }
    let vmlinux = match case.vmlinux {
        Some(NoVmlinux::Truncated) => Some(truncated(&built.vmlinux(), &scratch.path().join("vmlinux"))?),
        None => None,
    };
    let mut built = built.clone();
    if let Some(stand_in) = case.source {
        built.source.tree = scratch.path().join("source");
        match stand_in {
            NoSource::Missing => {}
            NoSource::Empty => fs::create_dir(&built.source.tree)?,
        }
    }
    let build = BuildCall {
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
    let module = output.join(format!("livepatch-{name}.ko"));
    if module.exists() {
        fs::remove_file(&module)?; // of a run in which the case failed
    }
    let outcome = klpx.run_in(&build, path.as_deref())?;
    let mut failures = judge(case, &outcome);
    if module.exists() {
        failures.push("a module was left behind".to_owned());
    }
    Ok(failures)
}

/// Compares klpx's output with the case.
fn judge(case: &RefusalCase, outcome: &KlpxOutput) -> Vec<String> {
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

/// Returns a configuration with some settings replaced, in any of the forms of `.config`.
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

/// Copies a kernel's headers folder and changes settings in the copy.
fn headers_with(built: &BuiltKernel, settings: &[String], copy: &Path) -> Result<PathBuf> {
    let headers = built.headers().context("a kernel made here has no headers folder")?;
    process::output(std::process::Command::new("cp").arg("-a").arg(&headers).arg(copy))?;
    for file in [".config", "include/config/auto.conf"] {
        let file = copy.join(file);
        fs::write(&file, with_settings(&fs::read_to_string(&file)?, settings))?;
    }
    let seen_by_c = copy.join("include/generated/autoconf.h");
    fs::write(&seen_by_c, with_macros(&fs::read_to_string(&seen_by_c)?, settings))?;
    Ok(copy.to_path_buf())
}

/// Returns `autoconf.h` with some settings replaced.
fn with_macros(header: &str, settings: &[String]) -> String {
    let mut lines: Vec<String> = header.lines().map(str::to_owned).collect();
    for setting in settings {
        let (name, value) = setting.split_once('=').unwrap_or((setting, "n"));
        let of_setting = |line: &String| {
            let mut words = line.split_whitespace();
            let macros = [name.to_owned(), format!("{name}_MODULE")];
            words.next() == Some("#define")
                && words.next().is_some_and(|word| macros.iter().any(|m| m == word))
        };
        lines.retain(|line| !of_setting(line));
        match value {
            "n" => {}
            "y" => lines.push(format!("#define {name} 1")),
            "m" => lines.push(format!("#define {name}_MODULE 1")),
            value => lines.push(format!("#define {name} {value}")),
        }
    }
    lines.join("\n") + "\n"
}

/// Copies the first half of a file.
fn truncated(file: &Path, output: &Path) -> Result<PathBuf> {
    fs::copy(file, output)?;
    let half = fs::metadata(output)?.len() / 2;
    fs::File::options().write(true).open(output)?.set_len(half)?;
    Ok(output.to_path_buf())
}

/// Makes a directory with a link to every command of PATH except some.
fn path_without(tools: &[String], directory: &Path) -> Result<PathBuf> {
    fs::create_dir(directory)?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    for entry in std::env::split_paths(&path).filter_map(|part| fs::read_dir(part).ok()).flatten().flatten() {
        let name = entry.file_name();
        if !tools.iter().any(|tool| name == tool.as_str()) {
            // Only the first command of a name counts.
            let _ = std::os::unix::fs::symlink(entry.path(), directory.join(&name));
        }
    }
    Ok(directory.to_path_buf())
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
    fn macros_replace_every_form() {
        let header =
            "#define CONFIG_A 1\n#define CONFIG_AB 1\n#define CONFIG_B_MODULE 1\n#define CONFIG_C 5\n";
        let settings = ["CONFIG_A=n", "CONFIG_B=y", "CONFIG_C=4"].map(str::to_owned);
        assert_eq!(
            with_macros(header, &settings),
            "#define CONFIG_AB 1\n#define CONFIG_B 1\n#define CONFIG_C 4\n"
        );
    }

    #[test]
    fn every_refusal_has_its_patches() {
        let workspace = CargoWorkspace::new(&FixtureOptions::default()).expect("defaults");
        for (name, case) in select(&workspace, &[]).expect("data") {
            assert!(!case.title.is_empty(), "{name}");
            assert!(case.code.starts_with("klpx::"), "{name}");
            for patch in &case.patches {
                assert!(workspace.fixtures("refusals").join(patch).is_file(), "{name}: {patch}");
            }
        }
    }
}
