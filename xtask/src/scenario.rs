//! Scenarios: klpx builds livepatches from `kernel-fixtures/scenarios`, and a guest tries them. Data tells what is
//! right.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::compare::{self, ChangeItem};
use crate::external;
use crate::guest::{self, ScenarioTask};
use crate::kernel::{BuiltKernel, FixtureKernel};
use crate::klpx::{BuildCall, Klpx, KlpxOutput, ReportChange, SCHEMA};
use crate::process;
use crate::refusal;
use crate::tried::Tried;
use crate::ui;
use crate::workspace::CargoWorkspace;

/// `scenario.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    /// What the scenario shows.
    title: String,
    /// Fixture kernels, origins or architectures of the scenario; all if empty.
    #[serde(default)]
    kernels: Vec<String>,
    /// Modules that the guest loads.
    #[serde(default)]
    modules: Vec<String>,
    /// Further modules on one fixture kernel, on the kernels of an origin, or on one architecture.
    #[serde(default)]
    more_modules: BTreeMap<String, Vec<String>>,
    /// A folder beside `scenario.toml` with the source of external modules. The guest has the modules beside the
    /// script.
    #[serde(default)]
    external: Option<String>,
    /// C programs that the guest calls.
    #[serde(default)]
    helpers: Vec<String>,
    /// Kernel complaints that the scenario expects.
    #[serde(default)]
    console: Vec<String>,
    livepatch: Vec<ScenarioLivepatch>,
    #[serde(default)]
    refused: Vec<refusal::RefusalCase>,
}

/// One livepatch that klpx builds, and its change set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScenarioLivepatch {
    /// The name in its module's file name, `livepatch-NAME.ko`.
    name: String,
    /// Files beside `scenario.toml`, in order.
    patches: Vec<String>,
    /// The external module that the livepatch patches.
    #[serde(default)]
    external: Option<String>,
    /// Further options of `klpx build`.
    #[serde(default)]
    options: Vec<String>,
    /// Replaced functions on every kernel, as `object:function`.
    #[serde(default)]
    changed: Vec<String>,
    /// Added functions on every kernel.
    #[serde(default)]
    new: Vec<String>,
    /// The reasons why some functions are in the change set, in klpx's words, by `object:function`.
    #[serde(default)]
    why: BTreeMap<String, String>,
    /// The causes of some functions, in the report's words, by `object:function`.
    #[serde(default)]
    cause: BTreeMap<String, String>,
    /// Additions to all lists on one fixture kernel, on the kernels of an origin (`made`, `stock`), or on one
    /// architecture.
    #[serde(default)]
    on: BTreeMap<String, More>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct More {
    /// Patches that replace the others.
    patches: Option<Vec<String>>,
    #[serde(default)]
    changed: Vec<String>,
    #[serde(default)]
    new: Vec<String>,
    #[serde(default)]
    why: BTreeMap<String, String>,
}

/// A scenario as read from its directory.
#[derive(Debug)]
pub(crate) struct Scenario {
    /// The name of the directory.
    pub(crate) name: String,
    directory: PathBuf,
    data: Data,
}

/// Returns every scenario whose name contains one of the filters; all without filters.
pub(crate) fn select(workspace: &CargoWorkspace, filters: &[String]) -> Result<Vec<Scenario>> {
    let root = workspace.fixtures("scenarios");
    let mut directories: Vec<PathBuf> = fs::read_dir(&root)
        .with_context(|| format!("can't read {}", root.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("scenario.toml").is_file())
        .collect();
    directories.sort();
    let mut scenarios = Vec::new();
    for directory in directories {
        let name = directory.file_name().context("a directory has a name")?.to_string_lossy().into_owned();
        if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter.as_str())) {
            continue;
        }
        let file = directory.join("scenario.toml");
        let text = fs::read_to_string(&file)?;
        let data = toml::from_str(&text).with_context(|| format!("{}", file.display()))?;
        scenarios.push(Scenario { name, directory, data });
    }
    if scenarios.is_empty() && !filters.is_empty() {
        bail!("no scenario matches {}", filters.join(" or "));
    }
    Ok(scenarios)
}

impl Scenario {
    fn is_for(&self, kernel: &FixtureKernel) -> bool {
        self.data.kernels.is_empty() || self.data.kernels.iter().any(|word| kernel.is(word))
    }

    fn modules(&self, kernel: &FixtureKernel) -> Vec<String> {
        let more = self.data.more_modules.iter().filter(|(word, _)| kernel.is(word));
        self.data.modules.iter().chain(more.flat_map(|(_, modules)| modules)).cloned().collect()
    }
}

impl ScenarioLivepatch {
    /// Returns the patch files for a kernel. Of several words that name the kernel, the most exact one counts.
    fn patches(&self, kernel: &FixtureKernel) -> &[String] {
        let other = kernel.words().iter().find_map(|word| self.on.get(word)?.patches.as_ref());
        other.unwrap_or(&self.patches)
    }

    /// Returns the change set expected on a kernel.
    fn expected(&self, built: &BuiltKernel) -> Result<BTreeSet<ChangeItem>> {
        let mut items = BTreeSet::new();
        let mut add = |list: &[String], kind: &str| -> Result<()> {
            for entry in list {
                let (object, function) =
                    entry.split_once(':').with_context(|| format!("'{entry}': object:function"))?;
                items.insert(compare::item(object, function, kind));
            }
            Ok(())
        };
        add(&self.changed, "changed")?;
        add(&self.new, "new")?;
        for (name, more) in &self.on {
            if built.kernel.is(name) {
                add(&more.changed, "changed")?;
                add(&more.new, "new")?;
            }
        }
        Ok(items)
    }

    /// Returns the reasons and causes that differ from those expected on a kernel.
    fn wrong_reasons(&self, built: &BuiltKernel, changes: &[ReportChange]) -> Vec<String> {
        let more = self.on.iter().filter(|(name, _)| built.kernel.is(name)).flat_map(|(_, more)| &more.why);
        let why = self.why.iter().chain(more).map(|expected| ("why", expected));
        let expected = why.chain(self.cause.iter().map(|expected| ("cause", expected)));
        let wrong = expected.filter_map(|(field, (function, wanted))| {
            let named =
                |change: &&ReportChange| format!("{}:{}", change.object, change.function) == *function;
            let told = changes.iter().find(named).map_or("nothing", |change| match field {
                "why" => change.why.as_str(),
                _ => change.cause.as_deref().unwrap_or("nothing"),
            });
            (told != wanted).then(|| format!("{field} {function}: '{told}' instead of '{wanted}'"))
        });
        wrong.collect()
    }
}

/// Runs the scenarios on one kernel: klpx for each scenario, then all scenarios in one guest.
pub(crate) fn run(
    workspace: &CargoWorkspace,
    klpx: &Klpx,
    built: &BuiltKernel,
    scenarios: &[Scenario],
    results_dir: &Path,
) -> Result<Vec<Tried>> {
    let mut results = Vec::new();
    let mut tasks = Vec::new();
    for scenario in scenarios.iter().filter(|scenario| scenario.is_for(built.kernel)) {
        let output = results_dir.join(built.kernel.name).join(&scenario.name);
        let (result, task) = build(klpx, built, scenario, &output)?;
        results.push(result);
        tasks.extend(task);
    }
    if !tasks.is_empty() {
        in_guest(workspace, built, &tasks, results_dir, &mut results)?;
    }
    Ok(results)
}

/// Builds the modules of a scenario and compares their change sets with the expected ones.
fn build(
    klpx: &Klpx,
    built: &BuiltKernel,
    scenario: &Scenario,
    output: &Path,
) -> Result<(Tried, Option<ScenarioTask>)> {
    let mut result = Tried {
        name: scenario.name.clone(),
        title: scenario.data.title.clone(),
        kernel: built.kernel.name,
        passed: 0,
        failures: Vec::new(),
        elapsed: Duration::ZERO,
    };
    let mut files = Vec::new();
    let mut complete = true;
    if output.exists() {
        fs::remove_dir_all(output)?;
    }
    let source = scenario.data.external.as_ref().map(|source| scenario.directory.join(source));
    let external = source.as_ref().map(|source| external::build(built, source, output)).transpose()?;
    if let Some(folder) = &external {
        files.extend(external::modules(folder)?);
    }
    for livepatch in &scenario.data.livepatch {
        let mut step = ui::step(&format!("{} {}", built.kernel.name, &scenario.name));
        step.at(&format!("klpx build: {}", livepatch.name));
        let patches: Vec<PathBuf> =
            livepatch.patches(built.kernel).iter().map(|patch| scenario.directory.join(patch)).collect();
        let mut options = livepatch.options.clone();
        if let (Some(source), Some(folder), Some(module)) = (&source, &external, &livepatch.external) {
            let file = folder.join(format!("{module}.ko"));
            let words = [("--module-source", source), ("--module", &file)];
            options.extend(words.map(|(option, path)| format!("{option}={}", path.display())));
        }
        let outcome = klpx.run(&BuildCall {
            built,
            patches: &patches,
            name: &livepatch.name,
            options: &options,
            vmlinux: None,
            output,
        })?;
        result.elapsed += outcome.elapsed;
        let expected = livepatch.expected(built)?;
        let mut failures = judge(&outcome, &expected);
        let changes = outcome.report.as_ref().map_or(&[][..], |report| &report.changes);
        failures.extend(livepatch.wrong_reasons(built, changes));
        let file = format!("livepatch-{}.ko", livepatch.name);
        match fs::read(output.join(&file)) {
            Ok(module) => files.push((file, module)),
            Err(_) => complete = false,
        }
        files.push((format!("replaces-{}", livepatch.name), compare::replaces(&expected).into_bytes()));
        if failures.is_empty() {
            result.passed += 1;
            step.done(&format!("{} built, {}", livepatch.name, ui::plural(expected.len(), "function")));
        } else {
            step.failed(&livepatch.name);
            result.failures.extend(failures);
        }
    }
    for case in scenario.data.refused.iter().filter(|case| case.is_for(built.kernel)) {
        let failures = refusal::check(klpx, built, case, &scenario.directory, output)?;
        result.passed += usize::from(failures.is_empty());
        result.failures.extend(failures);
    }
    let task = complete.then(|| ScenarioTask {
        name: scenario.name.clone(),
        script: scenario.directory.join("guest.sh"),
        files,
        modules: scenario.modules(built.kernel),
        helpers: scenario.data.helpers.clone(),
        console: scenario.data.console.clone(),
    });
    Ok((result, task))
}

/// Returns everything that is wrong with a build that should have succeeded.
pub(crate) fn judge(outcome: &KlpxOutput, expected: &BTreeSet<ChangeItem>) -> Vec<String> {
    if outcome.exit != Some(0) {
        let exit = outcome.exit.map_or("a signal".to_owned(), |code| format!("exit code {code}"));
        return vec![format!("klpx build ended with {exit}\n{}", process::tail(&outcome.text))];
    }
    match &outcome.report {
        None => vec!["klpx wrote no readable report".to_owned()],
        Some(report) if report.schema != SCHEMA => {
            vec![format!("report of unknown schema {}", report.schema)]
        }
        Some(report) => compare::differences(expected, &compare::items(&report.changes)),
    }
}

fn in_guest(
    workspace: &CargoWorkspace,
    built: &BuiltKernel,
    tasks: &[ScenarioTask],
    results_dir: &Path,
    results: &mut [Tried],
) -> Result<()> {
    let mut step = ui::step(&format!("{} guest", built.kernel.name));
    step.at(&format!("{} scenarios", tasks.len()));
    let console = results_dir.join(built.kernel.name).join("console.log");
    let verdicts = guest::run(workspace, built, tasks, &console)?;
    let mut good = 0;
    for result in results {
        let Some(verdict) = verdicts.get(&result.name) else { continue };
        good += usize::from(verdict.good());
        result.passed += verdict.passed.len();
        result.failures.extend(verdict.failures.iter().map(|failure| format!("guest: {failure}")));
        if !verdict.good() && verdict.failures.is_empty() {
            result.failures.push("guest: it checked nothing or did not finish".to_owned());
        }
    }
    step.done(&format!("{good} of {} scenarios as they should be", tasks.len()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FixtureOptions;

    fn all() -> Vec<Scenario> {
        let workspace = CargoWorkspace::new(&FixtureOptions::default()).expect("defaults");
        select(&workspace, &[]).expect("data")
    }

    #[test]
    fn every_scenario_has_its_files() {
        let scenarios = all();
        assert!(scenarios.len() >= 16);
        for scenario in &scenarios {
            assert!(scenario.directory.join("guest.sh").is_file(), "{}", scenario.name);
            for livepatch in &scenario.data.livepatch {
                let named = !livepatch.changed.is_empty() || !livepatch.new.is_empty();
                assert!(named || !livepatch.on.is_empty(), "{}", scenario.name);
                let others = livepatch.on.values().filter_map(|more| more.patches.as_ref());
                for patch in others.flatten().chain(&livepatch.patches) {
                    assert!(scenario.directory.join(patch).is_file(), "{}: {patch}", scenario.name);
                }
            }
        }
    }
}
