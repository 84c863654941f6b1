//! What a user's machine does to klpx: it is killed, stopped, run twice, out of disk space, given damaged files. After
//! each of these the user's trees are as they were, nothing is left in the output folder, and the next run is none the
//! worse.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::fingerprint::Fingerprint;
use crate::kernel::{Built, Kernel};
use crate::klpx::{Build, Klpx, Report, Work};
use crate::process;
use crate::tried::Tried;
use crate::ui;
use crate::workspace::Workspace;

/// The line that klpx says when the patched build begins.
const BUILDING: &str = "building the patched kernel";
/// The line that it says when make has ended, before the source is the original again.
const TAKING: &str = "taking what differs";
/// How far into the patched build a signal comes: the compilers are at work then.
const INTO_BUILD: Duration = Duration::from_secs(2);
/// A klpx that says nothing new for so long hangs.
const PATIENCE: Duration = Duration::from_secs(1800);
/// What the scripts of this file exit with when the machine does not let them mount.
const NO_MOUNT: i32 = 99;

/// The patch whose builds meet trouble, and the one that is built afterwards.
const PATCHES: [&str; 2] = ["01-proc-string/version.patch", "02-md-run/md-run.patch"];

/// The line that it says when it links by itself what kbuild need not look at.
const LINKING: &str = "linking";
/// How far into that a signal comes: the linker is at work then.
const INTO_LINK: Duration = Duration::from_secs(1);

/// A check: its name, what it shows, what it does.
type Check = (&'static str, &'static str, fn(&Setting<'_>) -> Result<Vec<String>>);

/// On one kernel. In this order: a later check also sees what an earlier one left.
const CHECKS: [Check; 9] = [
    ("sigkill", "klpx is killed in the patched build, then builds another patch", killed),
    ("sigkill-late", "klpx is killed right after the patched build, then builds another patch", killed_late),
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

/// On every ThinLTO kernel: klpx links it by itself.
const LINK_CHECKS: [Check; 2] = [
    (
        "links-as-kbuild",
        "vmlinux.o and the module by klpx's link and by kbuild's, which orders initcalls with new names",
        links_as_kbuild,
    ),
    ("sigkill-linking", "klpx is killed while it links, then builds another patch", killed_linking),
];

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
        let of_links = if kernel.is_thin_lto() { &LINK_CHECKS[..] } else { &[] };
        let of_one = if self.once_on == Some(kernel.name) { &CHECKS[..] } else { &[] };
        of_links.iter().chain(of_one).filter(|(name, _, _)| wanted(name, self.filters)).collect()
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
    /// A patch that renames the initcalls of vmlinux.
    unique_names: PathBuf,
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
        let unique_names = workspace.fixtures("links/unique-names.patch");
        let (kernel_dir, module) = (PathBuf::new(), PathBuf::new());
        let mut setting = Setting { klpx, built, patches, unique_names, dir, kernel_dir, module };
        let job = setting.job("reference", 1)?;
        let ended = Running::start(job.command())?.wait()?;
        ensure!(ended.code() == Some(0), "the build that nothing happens to fails\n{}", ended.tail());
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
        files.extend(["vmlinux", ".config", "Module.symvers"].map(|file| tree.join(file)));
        for file in files {
            prints.push(Fingerprint::of(&file, true)?);
        }
        Ok(prints)
    }

    /// What a build of the patch that renames initcalls gives. The link must be klpx's own, or kbuild's.
    fn link(&self, name: &str, by_klpx: bool) -> Result<[(&'static str, Vec<u8>); 2]> {
        let output = self.dir.join(name);
        fs::create_dir_all(&output).with_context(|| format!("can't create {}", output.display()))?;
        let ended = Running::start(self.klpx.build_command(&Build {
            built: self.built,
            patches: std::slice::from_ref(&self.unique_names),
            name: NAME,
            options: &["--keep-work".to_owned()],
            vmlinux: None,
            output: &output,
        }))?
        .wait()?;
        ensure!(ended.code() == Some(0), "{name}: the build fails\n{}", ended.tail());
        ensure!(ended.text.contains(LINKING) == by_klpx, "{name}: another linked\n{}", ended.tail());
        let work = Work::kept(&ended.text).context("klpx build --keep-work named no pair of vmlinux.o")?;
        let object = output.join("vmlinux.o");
        // The order in this section is that of addresses in the linker's memory.
        process::output(
            Command::new("llvm-objcopy-22")
                .arg("--remove-section=.llvm_addrsig")
                .arg(&work.objects()[1])
                .arg(&object),
        )?;
        fs::remove_dir_all(&work.dir).with_context(|| format!("can't remove {}", work.dir.display()))?;
        let linked = fs::read(&object)?;
        fs::remove_file(&object)?;
        Ok([("vmlinux.o", linked), ("module", fs::read(output.join(format!("livepatch-{NAME}.ko")))?)])
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
}

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

/// A klpx at work. Dropping it ends it.
struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
    text: String,
}

/// A klpx that ended.
struct Ended {
    status: ExitStatus,
    text: String,
}

impl Running {
    /// In a process group of its own, as a shell starts it.
    fn start(mut command: Command) -> Result<Running> {
        let (reader, writer) = std::io::pipe()?;
        let child = command
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .process_group(0)
            .spawn()
            .with_context(|| format!("can't run {}", process::shown(&command)))?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    break;
                }
            }
        });
        // `command` holds the writing ends, and goes here; a reader would wait for them for ever.
        drop(command);
        Ok(Running { child, lines, text: String::new() })
    }

    /// Reads on until a line that holds `text`.
    fn until(&mut self, text: &str) -> Result<()> {
        while let Some(line) = self.line()? {
            if line.contains(text) {
                return Ok(());
            }
        }
        bail!("klpx ended without '{text}'\n{}", process::tail(&self.text))
    }

    /// The next line; none at the end.
    fn line(&mut self) -> Result<Option<String>> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => {
                self.text.push_str(&line);
                self.text.push('\n');
                Ok(Some(line))
            }
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => bail!("klpx hangs\n{}", process::tail(&self.text)),
        }
    }

    /// Sends a signal as a terminal does: to the process group. klpx must still be at work.
    fn signal(&mut self, signal: i32) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("klpx ended before the signal ({status})\n{}", process::tail(&self.text));
        }
        // SAFETY: a plain system call on the group that the child leads; it was not waited for, so the number is its
        // own.
        let sent = unsafe { libc::killpg(self.child.id().cast_signed(), signal) };
        ensure!(sent == 0, "can't send a signal: {}", std::io::Error::last_os_error());
        Ok(())
    }

    /// Waits for the end.
    fn wait(mut self) -> Result<Ended> {
        while self.line()?.is_some() {}
        let status = self.child.wait()?;
        Ok(Ended { status, text: std::mem::take(&mut self.text) })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only for a process that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    fn code(&self) -> Option<i32> {
        self.status.code()
    }

    fn tail(&self) -> String {
        process::tail(&self.text)
    }

    fn judge(&self, exit: i32, code: &str, mentions: &[&str]) -> Vec<String> {
        let mut failures = Vec::new();
        if self.code() != Some(exit) {
            failures.push(format!("{} instead of exit code {exit}\n{}", self.status, self.tail()));
        }
        for text in std::iter::once(&code).chain(mentions) {
            if !self.text.contains(text) {
                failures.push(format!("the message does not say '{text}'\n{}", self.tail()));
            }
        }
        if self.text.contains("panicked") {
            failures.push(format!("klpx panics\n{}", self.tail()));
        }
        failures
    }
}

/// While compilers are at work.
fn killed(setting: &Setting<'_>) -> Result<Vec<String>> {
    killed_at(setting, "killed", BUILDING, INTO_BUILD)
}

/// While objects of the patched kernel are moved out of the build tree.
fn killed_late(setting: &Setting<'_>) -> Result<Vec<String>> {
    killed_at(setting, "killed-late", TAKING, Duration::ZERO)
}

/// While the linker is at work.
fn killed_linking(setting: &Setting<'_>) -> Result<Vec<String>> {
    killed_at(setting, "killed-linking", LINKING, INTO_LINK)
}

/// Without the knowledge that the original's link repeats, klpx leaves the link to kbuild.
fn links_as_kbuild(setting: &Setting<'_>) -> Result<Vec<String>> {
    let links = setting.kernel_dir.join("links.json");
    let text = fs::read_to_string(&links).with_context(|| format!("can't read {}", links.display()))?;
    let by_klpx = setting.link("by-klpx", true)?;
    fs::write(&links, text.replace("\"repeats\":true", "\"repeats\":false"))?;
    let by_kbuild = setting.link("by-kbuild", false);
    fs::write(&links, text)?;
    let by_kbuild = by_kbuild?;
    let mut failures = Vec::new();
    for (what, ours, theirs) in by_klpx.iter().zip(&by_kbuild).map(|(a, b)| (a.0, &a.1, &b.1)) {
        if ours != theirs {
            failures.push(format!("kbuild links another {what}"));
        }
    }
    Ok(failures)
}

fn killed_at(setting: &Setting<'_>, name: &str, line: &str, later: Duration) -> Result<Vec<String>> {
    let job = setting.job(name, 0)?;
    let mut running = Running::start(job.command())?;
    running.until(line)?;
    std::thread::sleep(later);
    running.signal(libc::SIGKILL)?;
    let ended = running.wait()?;
    let mut failures = job.left();
    if ended.status.signal() != Some(libc::SIGKILL) {
        failures.push(format!("klpx was not killed ({})", ended.status));
    }
    if !setting.kernel_dir.join("patch.journal").exists() {
        failures.push("the signal came too late or too early: the workspace is not patched".to_owned());
    }
    let note = "a run that was killed had left the workspace patched; it is restored";
    failures.extend(setting.next_build(&format!("after-{name}"), &[note])?);
    failures.extend(setting.at_work()?.iter().map(|process| format!("a child is left: {process}")));
    Ok(failures)
}

fn interrupted(setting: &Setting<'_>) -> Result<Vec<String>> {
    let job = setting.job("interrupted", 0)?;
    let mut running = Running::start(job.command())?;
    running.until(BUILDING)?;
    std::thread::sleep(INTO_BUILD);
    running.signal(libc::SIGINT)?;
    let ended = running.wait()?;
    let mut failures = job.judge(&ended, 130, "klpx::interrupted", &[]);
    failures.extend(setting.at_work()?.iter().map(|process| format!("a child is left: {process}")));
    if setting.kernel_dir.join("patch.journal").exists() {
        failures.push("the workspace is still patched".to_owned());
    }
    failures.extend(setting.next_build("after-ctrl-c", &[])?);
    Ok(failures)
}

fn two_at_once(setting: &Setting<'_>) -> Result<Vec<String>> {
    let (first_job, second_job) = (setting.job("first", 0)?, setting.job("second", 1)?);
    let mut first = Running::start(first_job.command())?;
    first.until(BUILDING)?;
    let mut second = Running::start(second_job.command())?;
    second.until("waiting for another klpx")?;
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

fn is_root() -> bool {
    // SAFETY: a plain system call.
    unsafe { libc::geteuid() == 0 }
}

/// A call in a mount namespace of its own, so that nothing stays mounted whatever happens. In `script`, `"$@"` is the
/// call.
fn in_namespace(script: &str, call: &Command, variables: &[(&str, &Path)]) -> Result<Ended> {
    let mut command = Command::new("unshare");
    command.arg("--mount");
    if !is_root() {
        command.arg("--map-root-user");
    }
    command.args(["sh", "-c", script, "sh"]).arg(call.get_program()).args(call.get_args());
    for (name, value) in call.get_envs() {
        command.env(name, value.unwrap_or(&OsString::new()));
    }
    command.envs(variables.iter().copied());
    let ended = Running::start(command)?.wait()?;
    if ended.code() == Some(NO_MOUNT) || ended.text.starts_with("unshare:") {
        bail!(
            "a full disk can't be tried here: this needs root or user namespaces, to mount\n{}",
            ended.tail()
        );
    }
    Ok(ended)
}

fn small_disk(setting: &Setting<'_>) -> Result<Vec<String>> {
    full_cache(setting, "small-disk", "size=64m", &["are free, about", "--cache-dir"])
}

/// The check of free space finds plenty, yet no file can be created after some thousands.
fn disk_fills_in_copy(setting: &Setting<'_>) -> Result<Vec<String>> {
    full_cache(setting, "disk-fills-in-copy", "size=256g,nr_inodes=3000", &["No space left on device"])
}

/// Builds with an empty cache on a small disk.
fn full_cache(setting: &Setting<'_>, name: &str, options: &str, mentions: &[&str]) -> Result<Vec<String>> {
    let job = setting.job(name, 0)?;
    let cache = tempfile::tempdir()?;
    let mut call = job.command();
    call.env("KLPX_CACHE_DIR", cache.path());
    let script =
        format!("mount -t tmpfs -o {options} tmpfs \"$KLPX_CACHE_DIR\" || exit {NO_MOUNT}; exec \"$@\"");
    let ended = in_namespace(&script, &call, &[])?;
    let mut failures = job.judge(&ended, 8, "klpx::disk-full", mentions);
    failures.extend(
        fs::read_dir(cache.path())?
            .flatten()
            .map(|entry| format!("written below the mount: {}", entry.path().display())),
    );
    Ok(failures)
}

/// klpx's cache with a small disk laid over it takes no vmlinux.o. Then the disk grows, and the same workspace serves.
fn disk_fills_in_build(setting: &Setting<'_>) -> Result<Vec<String>> {
    let job = setting.job("disk-fills-in-build", 1)?;
    let disk = tempfile::tempdir()?;
    let first = setting.dir.join("disk-fills-in-build.first");
    fs::create_dir_all(&first)?;
    let variables = [
        ("ROBUST_CACHE", setting.klpx.cache()),
        ("ROBUST_DISK", disk.path()),
        ("ROBUST_OUTPUT", &job.output),
        ("ROBUST_FIRST", &first),
    ];
    // A user namespace may not keep overlayfs' notes where root keeps them.
    let notes = if is_root() { "" } else { ",userxattr" };
    let script = format!(
        "mount -t tmpfs -o size=96m tmpfs \"$ROBUST_DISK\" || exit {NO_MOUNT}
         mkdir \"$ROBUST_DISK/upper\" \"$ROBUST_DISK/work\"
         mount -t overlay -o \"lowerdir=$ROBUST_CACHE,upperdir=$ROBUST_DISK/upper,workdir=$ROBUST_DISK/work{notes}\" \\
             overlay \"$ROBUST_CACHE\" || exit {NO_MOUNT}
         \"$@\" > \"$ROBUST_FIRST/log\" 2>&1
         echo $? > \"$ROBUST_FIRST/exit\"
         mv \"$ROBUST_OUTPUT/{NAME}.json\" \"$ROBUST_FIRST\"
         ls -A \"$ROBUST_OUTPUT\" > \"$ROBUST_FIRST/left\"
         mount -t tmpfs -o remount,size=8g tmpfs \"$ROBUST_DISK\" || exit {NO_MOUNT}
         exec \"$@\""
    );
    let second = in_namespace(&script, &job.command(), &variables)?;
    let code: i32 = fs::read_to_string(first.join("exit"))?.trim().parse()?;
    let text = fs::read_to_string(first.join("log"))?;
    let full = Ended { status: ExitStatus::from_raw(code << 8), text };
    let mut failures = full.judge(8, "klpx::disk-full", &[BUILDING, "No space left on device"]);
    let left = fs::read_to_string(first.join("left"))?;
    failures.extend(left.lines().map(|file| format!("left in the output folder: {file}")));
    failures.extend(setting.same_module(&job, &second));
    Ok(failures)
}

/// What is done to a copy of a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// Only so many bytes stay.
    Length(u64),
    /// A part in 256 of the length stays.
    Part(u64),
    /// The last bytes are gone: the section headers stand at the end.
    End(u64),
    /// The section headers say nonsense.
    SectionHeaders,
    /// A byte in so many is another one.
    Scattered(u64),
}

/// Makes a damaged copy of `file`.
fn damage(file: &Path, damage: Damage, output: &Path) -> Result<()> {
    fs::copy(file, output).with_context(|| format!("can't copy {}", file.display()))?;
    let mut copy = fs::File::options().read(true).write(true).open(output)?;
    let length = copy.metadata()?.len();
    match damage {
        Damage::Length(length) => copy.set_len(length)?,
        Damage::Part(part) => copy.set_len(length / 256 * part)?,
        Damage::End(bytes) => copy.set_len(length - bytes)?,
        Damage::SectionHeaders => {
            // e_shoff of ELF64
            copy.seek(SeekFrom::Start(0x28))?;
            let mut offset = [0; 8];
            copy.read_exact(&mut offset)?;
            let offset = u64::from_le_bytes(offset);
            copy.seek(SeekFrom::Start(offset))?;
            let size = usize::try_from(length.saturating_sub(offset))?;
            copy.write_all(&vec![0xa5; size])?;
        }
        Damage::Scattered(step) => {
            let mut bytes = fs::read(output)?;
            // Not the ELF identification: with it gone everything is refused at once.
            let places = (16..bytes.len()).step_by(usize::try_from(step)?);
            for (n, place) in places.enumerate() {
                bytes[place] ^= u8::try_from(n % 255)? + 1;
            }
            fs::write(output, bytes)?;
        }
    }
    Ok(())
}

fn damaged_objects(setting: &Setting<'_>) -> Result<Vec<String>> {
    let original = setting.kernel_dir.join("baseline/vmlinux.o");
    let scratch = tempfile::tempdir_in(&setting.dir)?;
    let copy = scratch.path().join("vmlinux.o");
    let mut failures = Vec::new();
    for kind in [
        Damage::Length(0),
        Damage::Length(63),
        Damage::Part(64),
        Damage::Part(200),
        Damage::End(1),
        Damage::SectionHeaders,
    ] {
        damage(&original, kind, &copy)?;
        for pair in [[&original, &copy], [&copy, &original]] {
            let mut command = setting.klpx.command();
            command.arg("diff").args(pair);
            let ended = Running::start(command)?.wait()?;
            let judged = ended.judge(9, "klpx::", &["vmlinux.o"]);
            failures.extend(judged.into_iter().map(|failure| format!("klpx diff, {kind:?}: {failure}")));
        }
    }
    Ok(failures)
}

fn damaged_modules(setting: &Setting<'_>) -> Result<Vec<String>> {
    let scratch = tempfile::tempdir_in(&setting.dir)?;
    let copy = scratch.path().join("livepatch.ko");
    let truncated = (0..256).step_by(3).map(Damage::Part).chain([Damage::End(1), Damage::SectionHeaders]);
    // Primes: other places each time. Much of a module may change without it ceasing to be one.
    let scattered = [7, 31, 101, 499, 997, 2003, 4001, 8009, 16001].map(Damage::Scattered);
    let mut failures = Vec::new();
    for (kind, refused) in truncated.map(|kind| (kind, true)).chain(scattered.map(|kind| (kind, false))) {
        damage(&setting.module, kind, &copy)?;
        let mut command = setting.klpx.command();
        command.arg("inspect").arg(&copy);
        let ended = Running::start(command)?.wait()?;
        let judged = match (refused, ended.code()) {
            (false, Some(0)) => Vec::new(),
            (false, Some(7)) => ended.judge(7, "klpx::", &[]),
            _ => ended.judge(9, "klpx::", &["livepatch.ko"]),
        };
        failures.extend(judged.into_iter().map(|failure| format!("klpx inspect, {kind:?}: {failure}")));
    }
    Ok(failures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_as_it_says() {
        let scratch = tempfile::tempdir().expect("a folder");
        let (file, copy) = (scratch.path().join("a"), scratch.path().join("b"));
        let mut bytes = vec![0; 1024];
        bytes[0x28..0x30].copy_from_slice(&1000_u64.to_le_bytes());
        fs::write(&file, &bytes).expect("write");
        let damaged = |kind| {
            damage(&file, kind, &copy).expect("damage");
            fs::read(&copy).expect("read")
        };
        assert_eq!(damaged(Damage::Length(63)).len(), 63);
        assert_eq!(damaged(Damage::Part(64)).len(), 256);
        assert_eq!(damaged(Damage::End(1)).len(), 1023);
        let headers = damaged(Damage::SectionHeaders);
        assert_eq!((&headers[..1000], &headers[1000..]), (&bytes[..1000], &[0xa5; 24][..]));
        let scattered = damaged(Damage::Scattered(100));
        let other = scattered.iter().zip(&bytes).filter(|(a, b)| a != b).count();
        assert_eq!((scattered.len(), other), (1024, 11));
    }

    #[test]
    fn a_line_is_awaited_and_the_end_seen() {
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            Running::start(command).expect("a shell")
        };
        let mut running = shell("echo one; echo two >&2; exit 3");
        running.until("two").expect("said");
        let ended = running.wait().expect("an end");
        assert_eq!((ended.code(), ended.text.as_str()), (Some(3), "one\ntwo\n"));
        assert!(shell("echo one").until("two").is_err());
        let mut asleep = shell("echo one; exec sleep 1000");
        asleep.until("one").expect("said");
        asleep.signal(libc::SIGKILL).expect("sent");
        assert_eq!(asleep.wait().expect("an end").status.signal(), Some(libc::SIGKILL));
    }
}
