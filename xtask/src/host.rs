//! Tries `klpx-host` in a guest of a stock kernel: which livepatches it loads, refuses, unloads and loads at boot.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use klpx_guest::{Clock, Guest, Task};

use crate::kernel::BuiltKernel;
use crate::kernel_run::KernelRun;
use crate::klpx::{BuildCall, Klpx};
use crate::tried::Tried;
use crate::workspace::CargoWorkspace;
use crate::{busybox, dist, process, trials, ui};

/// A livepatch of the tests.
pub(crate) struct TestLivepatch {
    pub(crate) name: &'static str,
    /// The patches to build from, below `kernel-fixtures`.
    patches: &'static [&'static str],
    /// Further options of `klpx build`.
    options: &'static [&'static str],
}

/// A livepatch with one fix.
pub(crate) const ONE: TestLivepatch = TestLivepatch {
    name: "one",
    patches: &[VERSION],
    options: &[
        "--cve=CVE-2026-0001",
        "--cve=CVE-2026-0002",
        "--module-version=1",
        "--description=one of the tests",
    ],
};
/// The fix together with a second fix, so that this livepatch can replace the first.
pub(crate) const TWO: TestLivepatch =
    TestLivepatch { name: "two", patches: &[VERSION, SLEEP], options: &["--module-version=2"] };
/// Livepatches that are not cumulative, for the same function.
const MORE: TestLivepatch = TestLivepatch { name: "more", patches: &[VERSION], options: &["--no-replace"] };
const AGAIN: TestLivepatch = TestLivepatch { name: "again", ..MORE };
const VERSION: &str = "scenarios/01-proc-string/version.patch";
/// Changes a function in which a task sleeps.
const SLEEP: &str = "scenarios/26-shared-names/nanosleep.patch";
/// The kernel's complaint about a missing function.
const COMPLAINTS: &[&str] = &["not found in symbol table"];

/// Returns true for the kernel on which klpx-host is tried. One is enough, because klpx-host does not depend on how a
/// kernel was built.
pub(crate) fn is_for(built: &BuiltKernel) -> bool {
    trials::is_for(built) && built.kernel.name == "debian-6.12"
}

/// Runs the tasks on a kernel.
pub(crate) fn run(
    workspace: &CargoWorkspace,
    klpx: &Klpx,
    built: &BuiltKernel,
    results: &Path,
) -> Result<Vec<Tried>> {
    let run = KernelRun::begin(workspace, klpx, built, results, "host")?;
    let files = files(&run)?;
    let elapsed = run.start.elapsed();
    let tasks = tasks(workspace, &files)?;
    let mut step = ui::step(&format!("{} klpx-host", built.kernel.name));
    step.at(&format!("{} tasks in a guest", tasks.len()));
    let guest = Guest {
        machine: built.kernel.machine.guest,
        image: built.image(),
        busybox: busybox::ensure(workspace, built.kernel.machine)?,
        modules: Vec::new(),
        programs: vec![("klpx-host".to_owned(), dist::host_binary(workspace)?)],
        disk: None,
        arguments: String::new(),
        clock: Clock::Host,
    };
    let verdicts = guest.run(&tasks, &run.output.join("console.log"))?;
    let tried: Vec<Tried> = tasks
        .iter()
        .map(|task| {
            let elapsed = if task.name == tasks[0].name { elapsed } else { Duration::ZERO };
            let name = format!("host-{}", task.name);
            run.tried(name, "klpx-host on a stock kernel", verdicts.get(&task.name), elapsed)
        })
        .collect();
    let good = tried.iter().filter(|tried| tried.good()).count();
    step.done(&format!("{good} of {} tasks as they should be", tried.len()));
    Ok(tried)
}

/// Returns the livepatches, by the names that the scripts use.
fn files(run: &KernelRun<'_>) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for livepatch in [ONE, TWO, MORE, AGAIN] {
        let module = livepatch.build(run, &[])?;
        files.push((format!("{}.ko", livepatch.name), fs::read(&module)?));
    }
    let one = files[0].1.clone();
    files.push(("other-release.ko".to_owned(), for_other_release(&one, run.built)?));
    files.push(("other-build.ko".to_owned(), for_other_build(&one)?));
    files.push(("gone.ko".to_owned(), trials::renamed(&run.output.join("livepatch-one.ko"))?));
    // A different module under the name of the first: its build ID tells the two apart.
    let again = &files.iter().find(|(name, _)| name == "again.ko").context("it was built")?.1;
    let renamed = replaced(again, b"name=livepatch_again\0", b"name=livepatch_one\0\0\0")?;
    files.push(("renamed.ko".to_owned(), renamed));
    Ok(files)
}

impl TestLivepatch {
    /// Builds the livepatch with further options, and returns the module.
    pub(crate) fn build(&self, run: &KernelRun<'_>, options: &[String]) -> Result<PathBuf> {
        let KernelRun { workspace, klpx, built, output, .. } = run;
        let name = self.name;
        let mut step = ui::step(&format!("{} klpx-host", built.kernel.name));
        step.at(&format!("klpx build: {name}"));
        let patches: Vec<PathBuf> = self.patches.iter().map(|patch| workspace.fixtures(patch)).collect();
        let mut all: Vec<String> = self.options.iter().map(|&option| option.to_owned()).collect();
        all.extend_from_slice(options);
        let build = BuildCall { built, patches: &patches, name, options: &all, vmlinux: None, output };
        let outcome = klpx.run(&build)?;
        if outcome.exit != Some(0) {
            step.failed(name);
            bail!("klpx build of {name}:\n{}", process::tail(&outcome.text));
        }
        step.done(&format!("{name} built"));
        Ok(output.join(format!("livepatch-{name}.ko")))
    }
}

/// Returns a livepatch's bytes, changed as if it had been built for a kernel of another release.
pub(crate) fn for_other_release(module: &[u8], built: &BuiltKernel) -> Result<Vec<u8>> {
    let release = built.release.as_deref().context("a stock kernel has a release")?;
    let vermagic = format!("vermagic={release} ");
    let other = vermagic.replacen(|c: char| c.is_ascii_digit(), "9", 1);
    replaced(module, vermagic.as_bytes(), other.as_bytes())
}

/// Returns a livepatch's bytes, changed as if it had been built for another build of the same release.
pub(crate) fn for_other_build(module: &[u8]) -> Result<Vec<u8>> {
    let at = module.windows(BUILD_ID.len()).position(|bytes| bytes == BUILD_ID.as_bytes());
    let at = at.context("the livepatch says which build it is for")? + BUILD_ID.len();
    let mut other = module.to_vec();
    other[at] = if other[at] == b'0' { b'1' } else { b'0' };
    Ok(other)
}

const BUILD_ID: &str = "kernel_build_id=";

/// Replaces every occurrence of a piece with another piece of the same length.
pub(crate) fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = bytes.to_vec();
    let places: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at..].starts_with(from)).collect();
    if places.is_empty() || from.len() != to.len() {
        bail!("a livepatch has no {}", String::from_utf8_lossy(from));
    }
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    Ok(bytes)
}

/// Returns the scripts of `kernel-fixtures/host`, in the order of their names.
fn tasks(workspace: &CargoWorkspace, livepatches: &[(String, Vec<u8>)]) -> Result<Vec<Task>> {
    let folder = workspace.fixtures("host");
    let words = fs::read(folder.join("words.sh"))?;
    let mut tasks = Vec::new();
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
        if name.starts_with(|c: char| c.is_ascii_digit()) {
            let mut files = livepatches.to_vec();
            files.push(("words.sh".to_owned(), words.clone()));
            files.push(("words.sh.ko".to_owned(), words.clone()));
            let console = COMPLAINTS.iter().filter(|_| name.ends_with("refused"));
            tasks.push(Task {
                script: fs::read_to_string(&path)?,
                console: console.map(|&text| text.to_owned()).collect(),
                files,
                name,
            });
        }
    }
    tasks.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tasks)
}
