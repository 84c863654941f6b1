//! What runs in a guest and what it said: the initramfs of a set of scenarios, the protocol on the console, the
//! verdicts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::busybox;
use crate::initramfs::Initramfs;
use crate::kernel::{self, Built};
use crate::machine::Machine;
use crate::modules::{Module, Modules};
use crate::packages;
use crate::process;
use crate::qemu::{self, End};
use crate::ui;
use crate::workspace::Workspace;

/// Before every line of the protocol.
const PREFIX: &str = "KLPX-GUEST: ";
/// Console lines that no healthy kernel writes. A scenario that provokes one says so in its data.
const COMPLAINTS: &[&str] = &[
    "WARNING:",
    "BUG:",
    "Oops",
    "general protection fault",
    "Kernel panic",
    "unable to handle",
    "rcu_preempt detected stalls",
    "blocked for more than",
    "not found in symbol table",
    "unresolvable ambiguity",
    "livepatch: failed",
    "failed to apply patch",
    "Invalid relocation",
    "Unknown symbol",
    "unknown relocation",
];

/// One scenario's part of a guest.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    /// The name of its directory in the guest.
    pub(crate) name: String,
    /// The script.
    pub(crate) script: PathBuf,
    /// Further files beside the script: name and content.
    pub(crate) files: Vec<(String, Vec<u8>)>,
    /// Modules of the kernel that it loads.
    pub(crate) modules: Vec<String>,
    /// C programs of `kernel-fixtures/helpers` that it calls.
    pub(crate) helpers: Vec<String>,
    /// Pieces of console lines that are complaints elsewhere and expected here.
    pub(crate) console: Vec<String>,
}

/// What a guest said about one task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Checks that passed.
    pub(crate) passed: Vec<String>,
    /// What went wrong; empty is success if the task also finished.
    pub(crate) failures: Vec<String>,
    /// Lines that the script wants a person to see.
    pub(crate) shown: Vec<String>,
    /// The task came to its end.
    pub(crate) finished: bool,
}

impl Verdict {
    /// True when the task ran to its end and nothing went wrong.
    pub(crate) fn good(&self) -> bool {
        self.finished && self.failures.is_empty() && !self.passed.is_empty()
    }

    /// What went wrong; empty when it is good.
    pub(crate) fn problems(&self) -> Vec<String> {
        match self.good() {
            false if self.failures.is_empty() => vec!["the guest did not come to its end".to_owned()],
            _ => self.failures.clone(),
        }
    }
}

/// Runs the tasks in one guest; boots again without the one that took the guest down, so that it hides no other.
pub(crate) fn run(
    workspace: &Workspace,
    built: &Built,
    tasks: &[Task],
    log: &Path,
) -> Result<BTreeMap<String, Verdict>> {
    let mut verdicts = BTreeMap::new();
    let mut left: Vec<&Task> = tasks.iter().collect();
    while !left.is_empty() {
        let boot = boot_once(workspace, built, &left, log)?;
        let before = left.len();
        let reached = |task: &&Task| boot.verdicts.contains_key(&task.name);
        left.retain(|task| !reached(task));
        if left.len() == before {
            bail!(
                "the guest reached no scenario; console in {}\n{}",
                log.display(),
                process::tail(&boot.console)
            );
        }
        verdicts.extend(boot.verdicts);
    }
    Ok(verdicts)
}

struct Boot {
    verdicts: BTreeMap<String, Verdict>,
    console: String,
}

fn boot_once(workspace: &Workspace, built: &Built, tasks: &[&Task], log: &Path) -> Result<Boot> {
    let scratch = tempfile::tempdir()?;
    let archive = scratch.path().join("initramfs");
    initramfs(workspace, built, tasks, scratch.path())?.write(&archive)?;
    let mut console = String::new();
    let mut protocol = Protocol::new(tasks);
    // Each task has two minutes in the guest; most take seconds.
    let limit = Duration::from_secs(60 + 150 * tasks.len() as u64);
    let end = qemu::run(built.kernel.machine, &built.image(), &archive, "", limit, |line| {
        console.push_str(line);
        console.push('\n');
        protocol.line(line);
    });
    std::fs::write(log, &console).with_context(|| format!("can't write {}", log.display()))?;
    let end = end.with_context(|| format!("console in {}", log.display()))?;
    Ok(Boot { verdicts: protocol.finish(end), console })
}

/// Everything that the tasks need in the guest.
fn initramfs(workspace: &Workspace, built: &Built, tasks: &[&Task], scratch: &Path) -> Result<Initramfs> {
    let init =
        std::fs::read_to_string(workspace.fixtures("guest/init")).context("no kernel-fixtures/guest/init")?;
    let machine = built.kernel.machine;
    let mut archive = Initramfs::new(&init, &busybox::of(workspace, machine)?)?;
    archive.file("lib/guest.sh", &workspace.fixtures("guest/guest.sh"), 0o644)?;
    let mut modules: Vec<String> = tasks.iter().flat_map(|task| &task.modules).cloned().collect();
    modules.sort();
    modules.dedup();
    for module in Modules::read(&built.modules_root())?.loading(&modules)? {
        let data = stripped(&module, built, scratch)?;
        archive.bytes(&format!("modules/{}.ko", module.name), data, 0o644);
        let chain = module.chain.join("\n") + "\n";
        archive.bytes(&format!("modules/{}.chain", module.name), chain.into_bytes(), 0o644);
    }
    let mut helpers: Vec<&String> = tasks.iter().flat_map(|task| &task.helpers).collect();
    helpers.sort();
    helpers.dedup();
    for helper in helpers {
        archive.file(&format!("bin/{helper}"), &compiled(workspace, helper, machine, scratch)?, 0o755)?;
    }
    for task in tasks {
        archive.file(&format!("scenarios/{}/guest.sh", task.name), &task.script, 0o644)?;
        for (name, data) in &task.files {
            archive.bytes(&format!("scenarios/{}/{name}", task.name), data.clone(), 0o644);
        }
    }
    Ok(archive)
}

/// A module of the kernel without its debug sections: the guest's memory is small. Shipped modules have none.
fn stripped(module: &Module, built: &Built, scratch: &Path) -> Result<Vec<u8>> {
    if built.release.is_some() {
        return Ok(module.data.clone());
    }
    let file = scratch.join(format!("{}.ko", module.name));
    std::fs::write(&file, &module.data)?;
    let objcopy = built.kernel.machine.tool("objcopy");
    process::output(Command::new(objcopy).arg("--strip-debug").arg(&file))?;
    Ok(std::fs::read(&file)?)
}

/// A helper program that needs nothing in the guest.
fn compiled(workspace: &Workspace, helper: &str, machine: &Machine, scratch: &Path) -> Result<PathBuf> {
    let source = workspace.fixtures("helpers").join(format!("{helper}.c"));
    let output = scratch.join(helper);
    let mut command = Command::new(machine.tool("gcc"));
    command.args(["-static", "-O1", "-Wall", "-Werror", "-s", "-o"]).arg(&output).arg(&source);
    process::output(&mut command)?;
    Ok(output)
}

/// Reads the console and keeps the verdicts.
struct Protocol<'a> {
    tasks: &'a [&'a Task],
    verdicts: BTreeMap<String, Verdict>,
    /// The task that runs, and which of its expected complaints have come.
    current: Option<(&'a Task, Vec<bool>)>,
    /// The task that ended last: what the kernel says between two tasks, or after all, is its doing.
    last: Option<&'a Task>,
    done: bool,
}

impl<'a> Protocol<'a> {
    fn new(tasks: &'a [&'a Task]) -> Protocol<'a> {
        Protocol { tasks, verdicts: BTreeMap::new(), current: None, last: None, done: false }
    }

    fn line(&mut self, line: &str) {
        let Some((_, message)) = line.split_once(PREFIX) else {
            self.kernel_line(line);
            return;
        };
        let (word, rest) = message.split_once(' ').unwrap_or((message, ""));
        match word {
            "begin" => self.begin(rest),
            "end" => self.end(),
            "done" => self.done = true,
            "ok" => {
                if let Some(verdict) = self.verdict() {
                    verdict.passed.push(rest.to_owned());
                }
            }
            "shown" => {
                if let Some(verdict) = self.verdict() {
                    verdict.shown.push(rest.to_owned());
                }
            }
            "FAIL" => self.fail(rest.to_owned()),
            "note" => {
                if let Some(verdict) = self.verdict() {
                    verdict.failures.push(format!("  {rest}"));
                }
            }
            _ => {}
        }
    }

    fn begin(&mut self, name: &str) {
        if let Some(task) = self.tasks.iter().find(|task| task.name == name) {
            self.verdicts.insert(name.to_owned(), Verdict::default());
            self.current = Some((task, vec![false; task.console.len()]));
        }
    }

    fn end(&mut self) {
        let Some((task, seen)) = self.current.take() else { return };
        self.last = Some(task);
        let missing = task.console.iter().zip(&seen).filter(|(_, seen)| !**seen).map(|(text, _)| text);
        let missing: Vec<String> = missing.map(|text| format!("the console never said '{text}'")).collect();
        if let Some(verdict) = self.verdicts.get_mut(&task.name) {
            verdict.failures.extend(missing);
            verdict.finished = true;
        }
    }

    /// A line that is not the protocol's: the kernel speaks.
    fn kernel_line(&mut self, line: &str) {
        if self.current.is_none()
            && self.last.is_some_and(|task| task.console.iter().any(|text| line.contains(text)))
        {
            return;
        }
        if let Some((task, seen)) = &mut self.current {
            let mut expected = false;
            for (text, seen) in task.console.iter().zip(seen) {
                if line.contains(text) {
                    *seen = true;
                    expected = true;
                }
            }
            if expected {
                return;
            }
        }
        if COMPLAINTS.iter().any(|complaint| line.contains(complaint)) {
            self.fail(format!("kernel: {}", line.trim()));
        }
    }

    fn verdict(&mut self) -> Option<&mut Verdict> {
        let task = self.current.as_ref().map(|(task, _)| *task).or(self.last)?;
        self.verdicts.get_mut(&task.name)
    }

    fn fail(&mut self, what: String) {
        if let Some(verdict) = self.verdict() {
            verdict.failures.push(what);
        }
    }

    fn finish(mut self, end: End) -> BTreeMap<String, Verdict> {
        if !self.done {
            self.fail(match end {
                End::Exited => "the guest went down".to_owned(),
                End::TimedOut => "the guest did not come to an end in time".to_owned(),
            });
        }
        self.verdicts
    }
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
pub(crate) fn boot(workspace: &Workspace, args: &BootArgs) -> Result<bool> {
    let kernels = kernel::select(std::slice::from_ref(&args.kernel))?;
    packages::ensure(kernels[0].needs)?;
    let built = kernel::ensure(workspace, kernels[0])?;
    let files = args.files.iter().map(|path| {
        let name = path.file_name().context("a file has a name")?.to_string_lossy().into_owned();
        Ok((name, std::fs::read(path)?))
    });
    let helpers = std::fs::read_dir(workspace.fixtures("helpers"))?
        .filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_str()?.to_owned()));
    let task = Task {
        name: "script".to_owned(),
        script: args.script.clone(),
        files: files.collect::<Result<_>>()?,
        modules: Modules::read(&built.modules_root())?.names(),
        helpers: helpers.collect(),
        console: Vec::new(),
    };
    let scratch = tempfile::tempdir()?;
    let boot = boot_once(workspace, &built, &[&task], &scratch.path().join("console"))?;
    ui::say(&boot.console);
    let verdict = boot.verdicts.get("script").cloned().unwrap_or_default();
    for failure in &verdict.failures {
        ui::say(&format!("FAIL  {failure}"));
    }
    Ok(verdict.good())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict_of(console: &[&str], lines: &[&str]) -> Verdict {
        let task = Task {
            name: "01-a".to_owned(),
            script: PathBuf::new(),
            files: Vec::new(),
            modules: Vec::new(),
            helpers: Vec::new(),
            console: console.iter().map(|&text| text.to_owned()).collect(),
        };
        let tasks = [&task];
        let mut protocol = Protocol::new(&tasks);
        for line in lines {
            protocol.line(line);
        }
        protocol.finish(End::Exited).remove("01-a").unwrap_or_default()
    }

    const BEGIN: &str = "[    1.0] KLPX-GUEST: begin 01-a";
    const OK: &str = "[    1.0] KLPX-GUEST: ok loaded";
    const END: &str = "[    1.0] KLPX-GUEST: end 01-a";
    const DONE: &str = "[    1.0] KLPX-GUEST: done";
    const WARNING: &str = "[    1.0] WARNING: CPU: 0 PID: 1 at a.c:1 f+0x1/0x2";

    #[test]
    fn a_task_is_good_when_it_checked_something_and_ended() {
        assert!(verdict_of(&[], &[BEGIN, OK, END, DONE]).good());
        assert!(!verdict_of(&[], &[BEGIN, END, DONE]).good());
        assert!(!verdict_of(&[], &[BEGIN, OK]).good());
        assert!(!verdict_of(&[], &[]).good());
    }

    #[test]
    fn a_kernel_complaint_fails_the_task_that_runs() {
        assert!(!verdict_of(&[], &[BEGIN, OK, WARNING, END, DONE]).good());
        assert!(verdict_of(&[], &[WARNING, BEGIN, OK, END, DONE]).good());
    }

    #[test]
    fn a_complaint_after_the_end_of_a_task_is_its_own() {
        for lines in
            [&[BEGIN, OK, END, WARNING, DONE][..], &[BEGIN, OK, END, DONE, WARNING], &[BEGIN, OK, END]]
        {
            assert!(!verdict_of(&[], lines).good(), "{lines:?}");
        }
        assert!(verdict_of(&["at a.c:1"], &[BEGIN, OK, WARNING, END, WARNING, DONE]).good());
    }

    #[test]
    fn an_expected_complaint_must_come() {
        assert!(verdict_of(&["at a.c:1"], &[BEGIN, OK, WARNING, END, DONE]).good());
        assert!(!verdict_of(&["at a.c:1"], &[BEGIN, OK, END, DONE]).good());
    }

    #[test]
    fn a_guest_that_goes_down_fails_the_task_that_ran() {
        let verdict = verdict_of(&[], &[BEGIN, OK]);
        assert_eq!(verdict.failures, ["the guest went down"]);
    }
}
