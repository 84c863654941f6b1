//! Guests of this project's kernels, in which scenarios run, and the helper programs that are compiled for them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use klpx_guest::{Clock, Guest, GuestModule, KernelModules};

pub(crate) use klpx_guest::TaskVerdict;

use crate::busybox;
use crate::kernel::{self, BootMode, BuiltKernel};
use crate::machine::Machine;
use crate::packages;
use crate::process;
use crate::ui;
use crate::workspace::CargoWorkspace;

/// One scenario's part of a guest.
#[derive(Clone, Debug)]
pub(crate) struct ScenarioTask {
    /// The name of the scenario's directory in the guest.
    pub(crate) name: String,
    /// The script.
    pub(crate) script: PathBuf,
    /// Further files beside the script: name and content.
    pub(crate) files: Vec<(String, Vec<u8>)>,
    /// Modules of the kernel that the scenario loads.
    pub(crate) modules: Vec<String>,
    /// C programs of `kernel-fixtures/helpers` that the scenario calls.
    pub(crate) helpers: Vec<String>,
    /// Parts of console lines that would be complaints elsewhere, but are expected here.
    pub(crate) console: Vec<String>,
}

impl ScenarioTask {
    fn of_guest(&self) -> Result<klpx_guest::Task> {
        let script = std::fs::read_to_string(&self.script)
            .with_context(|| format!("can't read {}", self.script.display()))?;
        let (name, files, console) = (self.name.clone(), self.files.clone(), self.console.clone());
        Ok(klpx_guest::Task { name, script, files, console })
    }
}

/// Runs the tasks in a guest of each of the kernel's boot modes. If a task takes the guest down, boots again without it,
/// so that the other tasks also run. The log is the console of the last boot mode; the consoles of the others are
/// beside it.
pub(crate) fn run(
    workspace: &CargoWorkspace,
    built: &BuiltKernel,
    tasks: &[ScenarioTask],
    log: &Path,
) -> Result<BTreeMap<String, TaskVerdict>> {
    run_by(Clock::Host, workspace, built, tasks, log)
}

/// Does the same in guests with a certain clock.
pub(crate) fn run_by(
    clock: Clock,
    workspace: &CargoWorkspace,
    built: &BuiltKernel,
    tasks: &[ScenarioTask],
    log: &Path,
) -> Result<BTreeMap<String, TaskVerdict>> {
    let scratch = tempfile::tempdir()?;
    let mut guest = Guest { clock, ..guest(workspace, built, tasks, scratch.path())? };
    let tasks: Vec<klpx_guest::Task> = tasks.iter().map(ScenarioTask::of_guest).collect::<Result<_>>()?;
    let modes = built.kernel.boot_modes;
    let mut verdicts = BTreeMap::new();
    for (n, mode) in modes.iter().enumerate() {
        mode.parameters.clone_into(&mut guest.arguments);
        let log = if n + 1 == modes.len() { log.to_owned() } else { log.with_extension(format!("{n}.log")) };
        let of_mode = guest.run(&tasks, &log)?;
        let console = std::fs::read_to_string(&log)?;
        if !console.contains(mode.confirmation) {
            bail!("with {}, the kernel does not say '{}'", mode.parameters, mode.confirmation);
        }
        add(&mut verdicts, of_mode, mode);
    }
    Ok(verdicts)
}

/// Adds the verdicts of one boot mode. A task is good if the task is good in each mode.
fn add(
    verdicts: &mut BTreeMap<String, TaskVerdict>,
    of_mode: BTreeMap<String, TaskVerdict>,
    mode: &BootMode,
) {
    let about = |text: String| match mode.parameters {
        "" => text,
        parameters => format!("{parameters}: {text}"),
    };
    for (name, verdict) in of_mode {
        let failures: Vec<String> = verdict.problems().into_iter().map(about).collect();
        let sum =
            verdicts.entry(name).or_insert_with(|| TaskVerdict { finished: true, ..TaskVerdict::default() });
        sum.passed.extend(verdict.passed.into_iter().map(about));
        sum.failures.extend(failures);
        sum.shown.extend(verdict.shown);
        sum.finished &= verdict.finished;
    }
}

/// Makes a guest with everything that the tasks need.
fn guest(
    workspace: &CargoWorkspace,
    built: &BuiltKernel,
    tasks: &[ScenarioTask],
    scratch: &Path,
) -> Result<Guest> {
    let machine = built.kernel.machine;
    let mut names: Vec<String> = tasks.iter().flat_map(|task| &task.modules).cloned().collect();
    names.sort();
    names.dedup();
    let mut modules = KernelModules::read(&built.modules_root())?.loading(&names)?;
    for module in &mut modules {
        module.data = stripped(module, built, scratch)?;
    }
    let mut helpers: Vec<&String> = tasks.iter().flat_map(|task| &task.helpers).collect();
    helpers.sort();
    helpers.dedup();
    let program = |helper: &String| Ok((helper.clone(), compiled(workspace, helper, machine, scratch)?));
    let programs = helpers.into_iter().map(program).collect::<Result<_>>()?;
    let busybox = busybox::ensure(workspace, machine)?;
    Ok(Guest {
        machine: machine.guest,
        image: built.image(),
        busybox,
        modules,
        programs,
        disk: None,
        arguments: String::new(),
        clock: Clock::Host,
    })
}

/// Returns a module of the kernel without its debug sections, because the guest's memory is small. Shipped modules have
/// no debug sections.
fn stripped(module: &GuestModule, built: &BuiltKernel, scratch: &Path) -> Result<Vec<u8>> {
    if built.release.is_some() {
        return Ok(module.data.clone());
    }
    let file = scratch.join(format!("{}.ko", module.name));
    std::fs::write(&file, &module.data)?;
    let objcopy = built.kernel.machine.tool("objcopy");
    process::output(Command::new(objcopy).arg("--strip-debug").arg(&file))?;
    Ok(std::fs::read(&file)?)
}

/// Compiles a helper program that needs nothing in the guest.
fn compiled(workspace: &CargoWorkspace, helper: &str, machine: &Machine, scratch: &Path) -> Result<PathBuf> {
    let source = workspace.fixtures("helpers").join(format!("{helper}.c"));
    let output = scratch.join(helper);
    let mut command = Command::new(machine.tool("gcc"));
    command.args(["-static", "-O1", "-Wall", "-Werror", "-s", "-o"]).arg(&output).arg(&source);
    process::output(&mut command)?;
    Ok(output)
}

/// `cargo xtask boot`.
#[derive(clap::Args)]
pub(crate) struct BootArgs {
    /// Which fixture kernel
    #[arg(long, default_value = "debian-6.12")]
    kernel: String,
    /// A script to run as the only scenario, with all helpers and modules at hand
    script: PathBuf,
    /// Files to put beside the script
    files: Vec<PathBuf>,
}

/// Boots one script and shows the whole console.
pub(crate) fn boot(workspace: &CargoWorkspace, args: &BootArgs) -> Result<bool> {
    let kernels = kernel::select(std::slice::from_ref(&args.kernel))?;
    packages::ensure(kernels[0].needs)?;
    let built = kernel::ensure(workspace, kernels[0])?;
    let files = args.files.iter().map(|path| {
        let name = path.file_name().context("a file has a name")?.to_string_lossy().into_owned();
        Ok((name, std::fs::read(path)?))
    });
    let helpers = std::fs::read_dir(workspace.fixtures("helpers"))?
        .filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_str()?.to_owned()));
    let task = ScenarioTask {
        name: "script".to_owned(),
        script: args.script.clone(),
        files: files.collect::<Result<_>>()?,
        modules: KernelModules::read(&built.modules_root())?.names(),
        helpers: helpers.collect(),
        console: Vec::new(),
    };
    let scratch = tempfile::tempdir()?;
    let guest = guest(workspace, &built, std::slice::from_ref(&task), scratch.path())?;
    let boot = guest.boot(&[&task.of_guest()?], &scratch.path().join("console"))?;
    ui::say(&boot.console);
    let verdict = boot.verdicts.get("script").cloned().unwrap_or_default();
    for failure in &verdict.failures {
        ui::say(&format!("FAIL  {failure}"));
    }
    Ok(verdict.good())
}
