//! A livepatch for a kernel that was built with lists: the livepatch replaces a function while ftrace counts its calls.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use super::{PATCHED, tried};
use crate::compare;
use crate::guest::{self, ScenarioTask};
use crate::kernel::BuiltKernel;
use crate::klpx::{BuildCall, Klpx, KlpxOutput};
use crate::scenario;
use crate::tried::Tried;
use crate::ui;
use crate::workspace::CargoWorkspace;

/// The name of the livepatch and of its patch in the fixtures.
const NAME: &str = "raid1-size";
/// klpx's code for a function that differs from the kernel's.
const DIFFERS: &str = "klpx::kernel-differs";

/// Checks that klpx refuses a unit that it compiled without the kernel's lists: nothing told klpx about the lists, so
/// the unit differs from the kernel's.
pub(super) fn refused_without_lists(
    workspace: &CargoWorkspace,
    klpx: &Klpx,
    built: &BuiltKernel,
    folder: &Path,
) -> Result<Tried> {
    let start = Instant::now();
    let outcome = build(workspace, klpx, built, None, &folder.join("without"))?;
    let errors = outcome.report.iter().flat_map(|report| &report.errors);
    let codes: Vec<&str> = errors.map(|error| error.code.as_str()).collect();
    let failures = match !codes.is_empty() && codes.iter().all(|code| *code == DIFFERS) {
        true => Vec::new(),
        false => {
            vec![format!("without lists the unit should not be the kernel's: {codes:?}\n{}", outcome.text)]
        }
    };
    let title = "without the kernel's lists no livepatch is made";
    Ok(tried(built, "consistent-without", title, failures, start))
}

/// Checks that a livepatch replaces one function without its callers, and that ftrace sees every call of it before,
/// during and after. `lists` is needed if the build tree does not name its lists.
pub(super) fn seen_by_ftrace(
    workspace: &CargoWorkspace,
    klpx: &Klpx,
    built: &BuiltKernel,
    lists: Option<&Path>,
    folder: &Path,
) -> Result<Tried> {
    let start = Instant::now();
    let mut step = ui::step(&format!("{} consistent livepatch", built.kernel.name));
    step.at(&format!("klpx build: {NAME}"));
    let output = folder.join("livepatch");
    let outcome = build(workspace, klpx, built, lists, &output)?;
    let expected = BTreeSet::from([compare::item("raid1", PATCHED[0], "changed")]);
    let mut failures = scenario::judge(&outcome, &expected);
    let mut passed = 0;
    if failures.is_empty() {
        step.at("ftrace counts its calls");
        let file = format!("livepatch-{NAME}.ko");
        let module = fs::read(output.join(&file))?;
        let replaced = compare::replaces(&expected).into_bytes();
        let name = "consistent-livepatch";
        let task = ScenarioTask {
            name: name.to_owned(),
            script: workspace.fixtures("consistent").join("guest.sh"),
            files: vec![(file, module), (format!("replaces-{NAME}"), replaced)],
            modules: ["loop", "raid1"].map(str::to_owned).into(),
            helpers: vec!["mdtool".to_owned()],
            console: Vec::new(),
        };
        let console = folder.join(format!("{name}.console"));
        let verdict = guest::run(workspace, built, &[task], &console)?.remove(name).unwrap_or_default();
        passed = verdict.passed.len();
        failures = verdict.problems();
    }
    match failures.is_empty() {
        true => step.done(&format!("{NAME}, seen by ftrace")),
        false => step.failed(NAME),
    };
    let title = "ftrace sees all calls of a function that is livepatched";
    Ok(Tried { passed, ..tried(built, "consistent-livepatch", title, failures, start) })
}

fn build(
    workspace: &CargoWorkspace,
    klpx: &Klpx,
    built: &BuiltKernel,
    lists: Option<&Path>,
    output: &Path,
) -> Result<KlpxOutput> {
    let options: Vec<String> =
        lists.iter().flat_map(|lists| ["--consistent".to_owned(), lists.display().to_string()]).collect();
    let patch = workspace.fixtures("consistent").join(format!("{NAME}.patch"));
    klpx.run(&BuildCall { built, patches: &[patch], name: NAME, options: &options, vmlinux: None, output })
}
