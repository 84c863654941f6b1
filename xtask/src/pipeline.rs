//! Follows a livepatch from a patch to a host. Livepatches of a stock kernel are built, signed and packaged, then
//! installed and removed on a Debian that boots from a disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use klpx_guest::Task;

use crate::dist::{self, PackageForm};
use crate::host::{self, ONE, TWO};
use crate::kernel::BuiltKernel;
use crate::kernel_run::KernelRun;
use crate::klpx::Klpx;
use crate::tried::Tried;
use crate::workspace::CargoWorkspace;
use crate::{disk, packages, process, ui};

/// Modules of the kernel that the tasks load.
const MODULES: &[&str] = &["overlay"];
/// Words of the kernel's command line, each with the boot that has it: the start of the names of the boot's tasks.
const ARGUMENTS: [(&str, &str); 2] = [("4-", "module.sig_enforce=1"), ("5-", "klpx.livepatch=off")];
const MAINTAINER: &str = "The tests of klpx <tests@klpx.invalid>";

/// Returns true for the kernel on which this is tried.
pub(crate) fn is_for(built: &BuiltKernel) -> bool {
    host::is_for(built)
}

/// Builds, packages, and boots once for each group of tasks.
pub(crate) fn run(
    workspace: &CargoWorkspace,
    klpx: &Klpx,
    built: &BuiltKernel,
    results: &Path,
) -> Result<Vec<Tried>> {
    packages::ensure(&disk::NEEDS)?;
    let run = KernelRun::begin(workspace, klpx, built, results, "packages")?;
    let files = files(&run)?;
    let disk = disk::copy(workspace, &run.output)?;
    let mut elapsed = run.start.elapsed();
    let mut guest = disk::guest(workspace, built, disk.clone(), MODULES)?;
    let mut tried = Vec::new();
    for (boot, tasks) in boots(workspace, &files)? {
        let mut step = ui::step(&format!("{} packages", built.kernel.name));
        step.at(&format!("boot {boot}: {} tasks", tasks.len()));
        let arguments = ARGUMENTS.iter().find(|(beginning, _)| tasks[0].name.starts_with(beginning));
        guest.arguments = arguments.map(|(_, word)| (*word).to_owned()).unwrap_or_default();
        let start = Instant::now();
        let console = run.output.join(format!("console-{boot}.log"));
        let ran = guest.boot(&tasks.iter().collect::<Vec<_>>(), &console)?;
        elapsed += start.elapsed();
        let of_boot: Vec<Tried> = tasks
            .iter()
            .map(|task| {
                let elapsed = std::mem::take(&mut elapsed);
                let name = format!("packages-{}", task.name);
                run.tried(name, "from a patch to a host", ran.verdicts.get(&task.name), elapsed)
            })
            .collect();
        let good = of_boot.iter().filter(|tried| tried.good()).count();
        step.done(&format!("boot {boot}: {good} of {} tasks as they should be", of_boot.len()));
        tried.extend(of_boot);
    }
    fs::remove_file(&disk)?;
    Ok(tried)
}

/// Returns the scripts of `kernel-fixtures/packages`, in the order of their names. The scripts of one boot begin with
/// its number.
fn boots(workspace: &CargoWorkspace, files: &[(String, Vec<u8>)]) -> Result<Vec<(usize, Vec<Task>)>> {
    let folder = workspace.fixtures("packages");
    let mut tasks: Vec<Task> = Vec::new();
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
        if name.starts_with(|c: char| c.is_ascii_digit()) {
            let script = fs::read_to_string(&path)?;
            tasks.push(Task { name, script, files: files.to_vec(), console: Vec::new() });
        }
    }
    tasks.sort_by(|a, b| a.name.cmp(&b.name));
    let mut boots: Vec<(usize, Vec<Task>)> = Vec::new();
    for task in tasks {
        let number = task.name.split('-').next().and_then(|number| number.parse().ok());
        let number = number.with_context(|| format!("{} begins with the number of no boot", task.name))?;
        match boots.last_mut() {
            Some((last, tasks)) if *last == number => tasks.push(task),
            _ => boots.push((number, vec![task])),
        }
    }
    Ok(boots)
}

/// Returns the files that the tasks find beside them: packages, modules, and words.
fn files(run: &KernelRun<'_>) -> Result<Vec<(String, Vec<u8>)>> {
    let KernelRun { workspace, klpx, built, output, .. } = run;
    let (key, certificate) = key(output)?;
    let signed = [format!("--sign-key={}", key.display()), format!("--sign-cert={}", certificate.display())];
    let tested = [&signed[..], &["--test".to_owned()]].concat();
    let one = ONE.build(run, &tested)?;
    let report = output.join(format!("{}.json", ONE.name));
    let two = TWO.build(run, &signed)?;
    let write = |name: &str, bytes: &[u8]| -> Result<PathBuf> {
        // Each module lies in its own folder, because the module's name is also the file's.
        let folder = output.join(name);
        fs::create_dir_all(&folder)?;
        let path = folder.join("livepatch-one.ko");
        fs::write(&path, bytes)?;
        Ok(path)
    };
    let bytes = fs::read(&one)?;
    let changed = output.join("livepatch-changed.ko");
    fs::write(&changed, host::replaced(&bytes, b"one of the tests", b"two of the tests")?)?;
    for (module, verdict) in [(&one, "right"), (&changed, "wrong")] {
        signed_as(klpx, module, &certificate, verdict)?;
    }
    let other_build = write("other-build", &host::for_other_build(&bytes)?)?;
    let other_release = write("other-release", &host::for_other_release(&bytes, built)?)?;
    let mut files = Vec::new();
    for (name, module, version) in [
        ("one", &one, "1"),
        ("two", &two, "2"),
        ("three", &two, "3"),
        ("other-release", &other_release, "1"),
        ("other-build", &other_build, "0.9"),
    ] {
        for form in [PackageForm::Deb, PackageForm::Rpm] {
            let report = Some(&report).filter(|_| name == "one");
            let package = PackageCall { module, version, form, report }.run(run)?;
            dist::lint(workspace, &package, form)?;
            files.push((format!("{name}.{}", form.extension()), fs::read(package)?));
        }
    }
    files.push(("one.ko".to_owned(), bytes));
    files.push(("changed.ko".to_owned(), fs::read(&changed)?));
    files.push(("unsigned.ko".to_owned(), unsigned(&one)?));
    files.push(("klpx-host.deb".to_owned(), fs::read(dist::host(workspace, PackageForm::Deb)?)?));
    let mut words = fs::read(workspace.fixtures("host/words.sh"))?;
    words.extend(fs::read(workspace.fixtures("packages/words.sh"))?);
    files.push(("words.sh".to_owned(), words));
    Ok(files)
}

/// Makes a key and its certificate, which no kernel knows.
fn key(output: &Path) -> Result<(PathBuf, PathBuf)> {
    let (key, certificate) = (output.join("key.pem"), output.join("certificate.pem"));
    let mut command = Command::new("openssl");
    command.args(["req", "-new", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", "2"]);
    command.args(["-subj", "/CN=tests of klpx"]);
    command.arg("-keyout").arg(&key).arg("-out").arg(&certificate);
    process::output(&mut command)?;
    Ok((key, certificate))
}

/// Checks the verdict of `klpx inspect` on a signature.
fn signed_as(klpx: &Klpx, module: &Path, certificate: &Path, verdict: &str) -> Result<()> {
    let mut command = klpx.command();
    command.arg("inspect").arg(module).arg("--cert").arg(certificate).arg("--json");
    let output = command.output()?;
    let value: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let found = value["signature"]["verdict"].as_str().unwrap_or_default();
    if found != verdict {
        bail!("klpx inspect says of the signature of {}: {found:?}, not {verdict:?}", module.display());
    }
    Ok(())
}

/// Returns a module without the signature at its end.
fn unsigned(module: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(module)?;
    let (module, _) = klpx_signature::split(&bytes).context("the livepatch is signed")?;
    Ok(module.to_vec())
}

/// A call of `klpx package` on one module.
struct PackageCall<'a> {
    module: &'a Path,
    version: &'a str,
    form: PackageForm,
    report: Option<&'a PathBuf>,
}

impl PackageCall<'_> {
    /// Runs the call, and returns the package.
    fn run(&self, run: &KernelRun<'_>) -> Result<PathBuf> {
        let PackageCall { module, version, form, report } = *self;
        let folder = tempfile::Builder::new().prefix("package-").tempdir_in(&run.output)?.keep();
        let mut command = run.klpx.command();
        command.arg("package").arg(module).args(["--format", form.extension(), "--version", version]);
        command.args(["--maintainer", MAINTAINER, "--output"]).arg(&folder);
        if let Some(report) = report {
            command.arg("--report").arg(report);
        }
        process::output(&mut command)?;
        let file = fs::read_dir(&folder)?.next().context("klpx package wrote no package")??;
        Ok(file.path())
    }
}
