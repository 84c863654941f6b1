//! Tries the trouble that a user's machine gives klpx: klpx is killed, stopped, run twice, out of disk space, or given
//! damaged files. Afterwards the user's trees are unchanged, nothing is left in the output folder, and the next run
//! works as usual.

mod damage;
mod disk;
mod running;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::fingerprint::Fingerprint;
use crate::kernel::{BuiltKernel, FixtureKernel};
use crate::klpx::{BuildCall, BuildReport, Klpx};
use crate::tried::Tried;
use crate::ui;
use crate::workspace::CargoWorkspace;
use damage::{damaged_modules, damaged_objects};
use disk::{disk_fills_in_build, disk_fills_in_copy, small_disk};
use running::{Ended, RunningKlpx};

/// The line that klpx prints when it prepares the headers and tools of a kernel's units.
const PREPARING: &str = "making headers and tools";
/// The line that klpx prints when it compiles patched units: the workspace's source is patched then.
const BUILDING: &str = "compiling the patched units";
/// The line that klpx prints when it compiles patched bitcode of a ThinLTO kernel.
const BUILDING_BITCODE: &str = "compiling what the patch touches";
/// The time from the first of these lines to a signal. The step takes ten times as long.
const INTO_PREPARING: Duration = Duration::from_millis(700);
/// Interval between checks whether a compiler is at work. The shortest compilation takes a hundred times as long.
const GLANCE: Duration = Duration::from_millis(2);

/// The patch whose builds are disturbed, and the patch that is built afterwards.
const PATCHES: [&str; 2] = ["01-proc-string/version.patch", "02-md-run/md-run.patch"];

/// A check: its name, its purpose, and its function.
type RobustCheck = (&'static str, &'static str, fn(&Setting<'_>) -> Result<Vec<String>>);

/// Checks that run on one kernel, in this order: a later check also sees what an earlier one left.
const CHECKS: [RobustCheck; 9] = [
    ("sigkill", "klpx is killed in the patched build, then builds another patch", killed),
    (
        "sigkill-preparing",
        "klpx is killed before a new kernel is ready, then builds a patch",
        killed_preparing,
    ),
    ("ctrl-c", "klpx gets Ctrl-C in the patched build", interrupted),
    ("two-at-once", "a second klpx waits for the first, both succeed", two_at_once),
    ("small-disk", "the cache's disk is too small from the start", small_disk),
    ("disk-fills-in-copy", "the disk is full while the source is copied", disk_fills_in_copy),
    (
        "disk-fills-in-build",
        "the disk is full in the patched build, then has space again",
        disk_fills_in_build,
    ),
    ("damaged-object", "truncated and damaged objects of a kernel", damaged_objects),
    ("damaged-module", "truncated and damaged livepatch modules", damaged_modules),
];

/// Checks that run on every ThinLTO kernel.
const LTO_CHECKS: [RobustCheck; 1] = [(
    "sigkill-bitcode",
    "klpx is killed while it compiles bitcode, then builds another patch",
    killed_in_bitcode,
)];

fn wanted(name: &str, filters: &[String]) -> bool {
    filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()))
}

/// The checks to run.
pub(crate) struct WantedChecks<'a> {
    /// The kernel for the checks that need only one.
    pub(crate) once_on: Option<&'static str>,
    /// Parts of names; all checks if empty.
    pub(crate) filters: &'a [String],
}

impl WantedChecks<'_> {
    fn on(&self, kernel: &FixtureKernel) -> Vec<&'static RobustCheck> {
        let of_lto = if kernel.is_thin_lto() { &LTO_CHECKS[..] } else { &[] };
        let of_one = if self.once_on == Some(kernel.name) { &CHECKS[..] } else { &[] };
        of_lto.iter().chain(of_one).filter(|(name, _, _)| wanted(name, self.filters)).collect()
    }

    /// Returns true if there is a check to run on a kernel.
    pub(crate) fn any_on(&self, kernel: &FixtureKernel) -> bool {
        !self.on(kernel).is_empty()
    }
}

/// Runs the checks of a kernel.
pub(crate) fn run(
    workspace: &CargoWorkspace,
    klpx: &Klpx,
    built: &BuiltKernel,
    wanted: &WantedChecks<'_>,
    results_dir: &Path,
) -> Result<Vec<Tried>> {
    let checks = wanted.on(built.kernel);
    let label = format!("{} robustness", built.kernel.name);
    let mut step = ui::step(&label);
    step.at("a build that nothing happens to");
    let setting = Setting::new(workspace, klpx, built, results_dir)?;
    step.done("a build that nothing happens to");
    let mut results = Vec::new();
    let mut before = setting.trees()?;
    for &(name, title, check) in checks {
        let mut step = ui::step(&label);
        step.at(name);
        let mut failures = check(&setting).unwrap_or_else(|error| vec![format!("{error:#}")]);
        let after = setting.trees()?;
        let written = after.iter().zip(&before).flat_map(|(after, before)| after.changed_since(before));
        failures.extend(written.map(|path| format!("the user's trees were written to: {path}")));
        before = after;
        let elapsed = if failures.is_empty() { step.done(name) } else { step.failed(name) };
        results.push(Tried {
            name: name.to_owned(),
            title: title.to_owned(),
            kernel: built.kernel.name,
            passed: 0,
            failures,
            elapsed,
        });
    }
    Ok(results)
}

/// The values that the checks share.
struct Setting<'a> {
    klpx: &'a Klpx,
    built: &'a BuiltKernel,
    patches: [PathBuf; 2],
    /// The folder for the checks' outputs.
    dir: PathBuf,
    /// klpx's folder of this kernel.
    kernel_dir: PathBuf,
    /// The second patch's module, from an undisturbed build.
    module: PathBuf,
}

impl<'a> Setting<'a> {
    fn new(
        workspace: &CargoWorkspace,
        klpx: &'a Klpx,
        built: &'a BuiltKernel,
        results_dir: &Path,
    ) -> Result<Setting<'a>> {
        let dir = results_dir.join(built.kernel.name).join("robustness");
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| format!("can't remove {}", dir.display()))?;
        }
        let patches = PATCHES.map(|patch| workspace.fixtures("scenarios").join(patch));
        let (kernel_dir, module) = (PathBuf::new(), PathBuf::new());
        let mut setting = Setting { klpx, built, patches, dir, kernel_dir, module };
        // Both patches are built, so that the original units are there.
        for (name, patch) in [("first-reference", 0), ("reference", 1)] {
            let ended = RunningKlpx::start(setting.job(name, patch)?.command())?.wait()?;
            ensure!(ended.code() == Some(0), "the build that nothing happens to fails\n{}", ended.tail());
        }
        let job = setting.job("reference", 1)?;
        let key = job.report()?.kernel.context("the report names no kernel")?.key;
        let module = job.module();
        setting.kernel_dir = klpx.cache().join("kernels").join(key);
        setting.module = module;
        Ok(setting)
    }

    /// Returns a build of one of the patches with a separate output folder.
    fn job(&self, name: &str, patch: usize) -> Result<Job<'_>> {
        let output = self.dir.join(name);
        fs::create_dir_all(&output).with_context(|| format!("can't create {}", output.display()))?;
        Ok(Job { setting: self, patch: &self.patches[patch..=patch], output })
    }

    /// Checks that the second patch builds the same module as without trouble. `notes` are klpx's remarks about the
    /// previous run.
    fn next_build(&self, name: &str, notes: &[&str]) -> Result<Vec<String>> {
        let job = self.job(name, 1)?;
        let ended = RunningKlpx::start(job.command())?.wait()?;
        let mut failures = self.same_module(&job, &ended);
        let unsaid = notes.iter().filter(|note| !ended.text.contains(**note));
        failures.extend(unsaid.map(|note| format!("the next build does not say '{note}'\n{}", ended.tail())));
        Ok(failures)
    }

    fn same_module(&self, job: &Job<'_>, ended: &Ended) -> Vec<String> {
        if ended.code() != Some(0) {
            return vec![format!("the next build fails ({})\n{}", ended.status, ended.tail())];
        }
        match (fs::read(job.module()), fs::read(&self.module)) {
            (Ok(module), Ok(reference)) if module == reference => Vec::new(),
            (Ok(_), Ok(_)) => vec!["the next build gives other bytes than before".to_owned()],
            (Err(error), _) | (_, Err(error)) => vec![format!("a module can't be read: {error}")],
        }
    }

    /// Fingerprints the user's files that must not change: all of both trees by inode, size and time to the nanosecond,
    /// and every byte of the files that the patches edit.
    fn trees(&self) -> Result<Vec<Fingerprint>> {
        let (source, tree) = (&self.built.source.tree, &self.built.tree);
        let mut prints = vec![Fingerprint::read(source, false)?, Fingerprint::read(tree, false)?];
        let patches: Vec<String> = self.patches.iter().map(fs::read_to_string).collect::<Result<_, _>>()?;
        let patched =
            patches.iter().flat_map(|text| text.lines()).filter_map(|line| line.strip_prefix("+++ b/"));
        let mut files: Vec<PathBuf> = patched.map(|path| source.join(path)).collect();
        files.extend([self.built.vmlinux(), self.built.config()]);
        for file in files {
            prints.push(Fingerprint::read(&file, true)?);
        }
        Ok(prints)
    }

    /// Returns the processes that work in klpx's folder of this kernel.
    fn at_work(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")?.flatten() {
            if fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&self.kernel_dir)) {
                let command = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
                found.push(format!("{} {}", entry.file_name().to_string_lossy(), command.trim()));
            }
        }
        Ok(found)
    }

    /// Returns true if the workspace's source is patched.
    fn is_patched(&self) -> bool {
        self.kernel_dir.join("patch.journal").exists()
    }

    /// Waits until a compiler works on the patched source, or on the original.
    fn until_compiling(&self, running: &mut RunningKlpx, patched: bool) -> Result<()> {
        let is_compiler = |process: &String| {
            let command = process.split(' ').nth(1).unwrap_or_default();
            COMPILERS.iter().any(|name| command.starts_with(name))
        };
        loop {
            if self.is_patched() == patched && self.at_work()?.iter().any(is_compiler) {
                return Ok(());
            }
            running.still_at_work()?;
            std::thread::sleep(GLANCE);
        }
    }
}

/// Starts of the names of the processes that compile C.
const COMPILERS: [&str; 2] = ["cc1", "clang"];

/// One call of `klpx build`.
struct Job<'a> {
    setting: &'a Setting<'a>,
    patch: &'a [PathBuf],
    output: PathBuf,
}

/// The name of every livepatch here. The same name is needed to compare the modules.
const NAME: &str = "robust";

impl Job<'_> {
    fn command(&self) -> Command {
        let built = self.setting.built;
        self.setting.klpx.build_command(&BuildCall {
            built,
            patches: self.patch,
            name: NAME,
            options: &[],
            vmlinux: None,
            output: &self.output,
        })
    }

    fn module(&self) -> PathBuf {
        self.output.join(format!("livepatch-{NAME}.ko"))
    }

    fn report_path(&self) -> PathBuf {
        self.output.join(format!("{NAME}.json"))
    }

    fn report(&self) -> Result<BuildReport> {
        let path = self.report_path();
        let bytes = fs::read(&path).with_context(|| format!("can't read {}", path.display()))?;
        serde_json::from_slice(&bytes).with_context(|| format!("{}", path.display()))
    }

    /// Checks that klpx stopped with this exit code and diagnosis, and left only the requested report.
    fn judge(&self, ended: &Ended, exit: i32, code: &str, mentions: &[&str]) -> Vec<String> {
        let mut failures = ended.judge(exit, code, mentions);
        match self.report() {
            Ok(report) if report.errors.iter().any(|error| error.code == code) => {}
            Ok(_) => failures.push(format!("the report does not say {code}")),
            Err(error) => failures.push(format!("{error:#}")),
        }
        failures.extend(self.left());
        failures
    }

    /// Returns the files in the output folder that were not requested.
    fn left(&self) -> Vec<String> {
        let listing = fs::read_dir(&self.output).into_iter().flatten().flatten();
        let others = listing.map(|entry| entry.path()).filter(|path| *path != self.report_path());
        others.map(|path| format!("left in the output folder: {}", path.display())).collect()
    }
}

/// Kills klpx while compilers are at work.
fn killed(setting: &Setting<'_>) -> Result<Vec<String>> {
    killed_at(setting, "killed", BUILDING, true)
}

/// Kills klpx while it compiles bitcode. Clang gets the patched files at the original's paths, so the source is not
/// patched.
fn killed_in_bitcode(setting: &Setting<'_>) -> Result<Vec<String>> {
    killed_at(setting, "killed-in-bitcode", BUILDING_BITCODE, false)
}

/// Kills klpx that starts with an empty cache. The next run must give the same module as with any other cache.
fn killed_preparing(setting: &Setting<'_>) -> Result<Vec<String>> {
    let cache = tempfile::tempdir_in(&setting.dir)?;
    let start = |name: &str| -> Result<(Job<'_>, RunningKlpx)> {
        let job = setting.job(name, 1)?;
        let mut command = job.command();
        command.env("KLPX_CACHE_DIR", cache.path());
        Ok((job, RunningKlpx::start(command)?))
    };
    let (job, mut running) = start("killed-preparing")?;
    running.until(PREPARING)?;
    std::thread::sleep(INTO_PREPARING);
    running.signal(libc::SIGKILL)?;
    let ended = running.wait()?;
    let mut failures = job.left();
    if ended.status.signal() != Some(libc::SIGKILL) {
        failures.push(format!("klpx was not killed ({})", ended.status));
    }
    let (job, running) = start("after-killed-preparing")?;
    failures.extend(setting.same_module(&job, &running.wait()?));
    Ok(failures)
}

fn killed_at(setting: &Setting<'_>, name: &str, line: &str, patched: bool) -> Result<Vec<String>> {
    let job = setting.job(name, 0)?;
    let mut running = RunningKlpx::start(job.command())?;
    running.until(line)?;
    setting.until_compiling(&mut running, patched)?;
    running.signal(libc::SIGKILL)?;
    let ended = running.wait()?;
    let mut failures = job.left();
    if ended.status.signal() != Some(libc::SIGKILL) {
        failures.push(format!("klpx was not killed ({})", ended.status));
    }
    if setting.is_patched() != patched {
        let not = if patched { "not " } else { "" };
        failures.push(format!("the signal came too late or too early: the workspace is {not}patched"));
    }
    let note = "a run that was killed had left the workspace patched; it is restored";
    let notes = if patched { &[note][..] } else { &[] };
    failures.extend(setting.next_build(&format!("after-{name}"), notes)?);
    failures.extend(setting.at_work()?.iter().map(|process| format!("a child is left: {process}")));
    Ok(failures)
}

fn interrupted(setting: &Setting<'_>) -> Result<Vec<String>> {
    let job = setting.job("interrupted", 0)?;
    let mut running = RunningKlpx::start(job.command())?;
    running.until(BUILDING)?;
    setting.until_compiling(&mut running, true)?;
    running.signal(libc::SIGINT)?;
    let ended = running.wait()?;
    let mut failures = job.judge(&ended, 130, "klpx::interrupted", &[]);
    failures.extend(setting.at_work()?.iter().map(|process| format!("a child is left: {process}")));
    if setting.is_patched() {
        failures.push("the workspace is still patched".to_owned());
    }
    failures.extend(setting.next_build("after-ctrl-c", &[])?);
    Ok(failures)
}

fn two_at_once(setting: &Setting<'_>) -> Result<Vec<String>> {
    let (first_job, second_job) = (setting.job("first", 0)?, setting.job("second", 1)?);
    let mut first = RunningKlpx::start(first_job.command())?;
    first.until(BUILDING)?;
    // The first klpx is stopped, because it could otherwise be done before the second one checks.
    first.signal(libc::SIGSTOP)?;
    let mut second = RunningKlpx::start(second_job.command())?;
    let waiting = second.until("waiting for another klpx");
    first.signal(libc::SIGCONT)?;
    waiting?;
    let mut failures = Vec::new();
    if !second.text.contains(&format!("(pid {})", first.child.id())) {
        failures.push(format!("the second klpx does not say for whom it waits\n{}", second.text));
    }
    let first = first.wait()?;
    if first.code() != Some(0) || !first_job.module().exists() {
        failures.push(format!("the first klpx fails ({})\n{}", first.status, first.tail()));
    }
    failures.extend(setting.same_module(&second_job, &second.wait()?));
    Ok(failures)
}
