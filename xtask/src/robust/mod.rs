//! What a user's machine does to klpx: it is killed, stopped, run twice, out of disk space, given damaged files. After
//! each of these the user's trees are as they were, nothing is left in the output folder, and the next run is none the
//! worse.

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
use crate::kernel::{Built, Kernel};
use crate::klpx::{Build, Klpx, Report};
use crate::tried::Tried;
use crate::ui;
use crate::workspace::Workspace;
use damage::{damaged_modules, damaged_objects};
use disk::{disk_fills_in_build, disk_fills_in_copy, small_disk};
use running::{Ended, Running};

/// The line that klpx says when it makes what the units of a kernel need.
const PREPARING: &str = "making headers and tools";
/// The line that it says when it compiles patched units: the workspace's source is patched.
const BUILDING: &str = "compiling the patched units";
/// The same for the bitcode of a ThinLTO kernel.
const BUILDING_BITCODE: &str = "compiling what the patch touches";
/// How far into the first of these a signal comes. The step takes ten times as long.
const INTO_PREPARING: Duration = Duration::from_millis(700);
/// How often this looks whether a compiler is at work. The shortest compilation takes a hundred times as long.
const GLANCE: Duration = Duration::from_millis(2);

/// The patch whose builds meet trouble, and the one that is built afterwards.
const PATCHES: [&str; 2] = ["01-proc-string/version.patch", "02-md-run/md-run.patch"];

/// A check: its name, what it shows, what it does.
type Check = (&'static str, &'static str, fn(&Setting<'_>) -> Result<Vec<String>>);

/// On one kernel. In this order: a later check also sees what an earlier one left.
const CHECKS: [Check; 9] = [
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

/// On every ThinLTO kernel.
const LTO_CHECKS: [Check; 1] = [(
    "sigkill-bitcode",
    "klpx is killed while it compiles bitcode, then builds another patch",
    killed_in_bitcode,
)];

fn wanted(name: &str, filters: &[String]) -> bool {
    filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()))
}

/// Which checks are to run.
pub(crate) struct Wanted<'a> {
    /// The kernel for the checks that one will do for.
    pub(crate) once_on: Option<&'static str>,
    /// Parts of names; all checks when there are none.
    pub(crate) filters: &'a [String],
}

impl Wanted<'_> {
    fn on(&self, kernel: &Kernel) -> Vec<&'static Check> {
        let of_lto = if kernel.is_thin_lto() { &LTO_CHECKS[..] } else { &[] };
        let of_one = if self.once_on == Some(kernel.name) { &CHECKS[..] } else { &[] };
        of_lto.iter().chain(of_one).filter(|(name, _, _)| wanted(name, self.filters)).collect()
    }

    /// True when there is something to run on a kernel.
    pub(crate) fn any_on(&self, kernel: &Kernel) -> bool {
        !self.on(kernel).is_empty()
    }
}

/// Runs the checks of a kernel.
pub(crate) fn run(
    workspace: &Workspace,
    klpx: &Klpx,
    built: &Built,
    wanted: &Wanted<'_>,
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

/// What the checks share.
struct Setting<'a> {
    klpx: &'a Klpx,
    built: &'a Built,
    patches: [PathBuf; 2],
    /// Where the outputs of the checks go.
    dir: PathBuf,
    /// klpx's folder of this kernel.
    kernel_dir: PathBuf,
    /// The second patch's module, from a build that nothing happened to.
    module: PathBuf,
}

impl<'a> Setting<'a> {
    fn new(
        workspace: &Workspace,
        klpx: &'a Klpx,
        built: &'a Built,
        results_dir: &Path,
    ) -> Result<Setting<'a>> {
        let dir = results_dir.join(built.kernel.name).join("robustness");
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| format!("can't remove {}", dir.display()))?;
        }
        let patches = PATCHES.map(|patch| workspace.fixtures("scenarios").join(patch));
        let (kernel_dir, module) = (PathBuf::new(), PathBuf::new());
        let mut setting = Setting { klpx, built, patches, dir, kernel_dir, module };
        // Both, so that the original units are there.
        for (name, patch) in [("first-reference", 0), ("reference", 1)] {
            let ended = Running::start(setting.job(name, patch)?.command())?.wait()?;
            ensure!(ended.code() == Some(0), "the build that nothing happens to fails\n{}", ended.tail());
        }
        let job = setting.job("reference", 1)?;
        let key = job.report()?.kernel.context("the report names no kernel")?.key;
        let module = job.module();
        setting.kernel_dir = klpx.cache().join("kernels").join(key);
        setting.module = module;
        Ok(setting)
    }

    /// A build of one of the patches with an output folder of its own.
    fn job(&self, name: &str, patch: usize) -> Result<Job<'_>> {
        let output = self.dir.join(name);
        fs::create_dir_all(&output).with_context(|| format!("can't create {}", output.display()))?;
        Ok(Job { setting: self, patch: &self.patches[patch..=patch], output })
    }

    /// The second patch builds, and to the very module that it gave when nothing had happened. `notes` is what klpx
    /// says of the run before.
    fn next_build(&self, name: &str, notes: &[&str]) -> Result<Vec<String>> {
        let job = self.job(name, 1)?;
        let ended = Running::start(job.command())?.wait()?;
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

    /// What of the user's must stay as it is: all of both trees by inode, size and time to the nanosecond, and every
    /// byte of the files that the patches are about.
    fn trees(&self) -> Result<Vec<Fingerprint>> {
        let (source, tree) = (&self.built.source.tree, &self.built.tree);
        let mut prints = vec![Fingerprint::of(source, false)?, Fingerprint::of(tree, false)?];
        let patches: Vec<String> = self.patches.iter().map(fs::read_to_string).collect::<Result<_, _>>()?;
        let patched =
            patches.iter().flat_map(|text| text.lines()).filter_map(|line| line.strip_prefix("+++ b/"));
        let mut files: Vec<PathBuf> = patched.map(|path| source.join(path)).collect();
        files.extend([self.built.vmlinux(), self.built.config()]);
        for file in files {
            prints.push(Fingerprint::of(&file, true)?);
        }
        Ok(prints)
    }

    /// Processes that work in klpx's folder of this kernel.
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

    /// Whether the workspace's source is patched.
    fn is_patched(&self) -> bool {
        self.kernel_dir.join("patch.journal").exists()
    }

    /// Waits until a compiler is at work, on patched source or on the original.
    fn until_compiling(&self, running: &mut Running, patched: bool) -> Result<()> {
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

/// The name of every livepatch here: the modules are compared.
const NAME: &str = "robust";

impl Job<'_> {
    fn command(&self) -> Command {
        let built = self.setting.built;
        self.setting.klpx.build_command(&Build {
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

    fn report(&self) -> Result<Report> {
        let path = self.report_path();
        let bytes = fs::read(&path).with_context(|| format!("can't read {}", path.display()))?;
        serde_json::from_slice(&bytes).with_context(|| format!("{}", path.display()))
    }

    /// Whether klpx stopped with this exit code and diagnosis, and left nothing but the report that it was asked for.
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

    /// Files in the output folder that nobody asked for.
    fn left(&self) -> Vec<String> {
        let listing = fs::read_dir(&self.output).into_iter().flatten().flatten();
        let others = listing.map(|entry| entry.path()).filter(|path| *path != self.report_path());
        others.map(|path| format!("left in the output folder: {}", path.display())).collect()
    }
}

/// While compilers are at work.
fn killed(setting: &Setting<'_>) -> Result<Vec<String>> {
    killed_at(setting, "killed", BUILDING, true)
}

/// The same where there is no machine code yet. Clang is shown the patched files at the original's paths, so the source
/// stays as it is.
fn killed_in_bitcode(setting: &Setting<'_>) -> Result<Vec<String>> {
    killed_at(setting, "killed-in-bitcode", BUILDING_BITCODE, false)
}

/// With an empty cache. What the next run makes of it gives the module that every other cache gives.
fn killed_preparing(setting: &Setting<'_>) -> Result<Vec<String>> {
    let cache = tempfile::tempdir_in(&setting.dir)?;
    let start = |name: &str| -> Result<(Job<'_>, Running)> {
        let job = setting.job(name, 1)?;
        let mut command = job.command();
        command.env("KLPX_CACHE_DIR", cache.path());
        Ok((job, Running::start(command)?))
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
    let mut running = Running::start(job.command())?;
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
    let mut running = Running::start(job.command())?;
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
    let mut first = Running::start(first_job.command())?;
    first.until(BUILDING)?;
    // Stopped, or the first may be done before the second one looks.
    first.signal(libc::SIGSTOP)?;
    let mut second = Running::start(second_job.command())?;
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
