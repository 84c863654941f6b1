//! The product as a user has it: runs the release binary through its command line, and reads its reports.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jsonschema::Validator;
use serde::Deserialize;

use crate::distro;
use crate::kernel::BuiltKernel;
use crate::process;
use crate::ui;
use crate::workspace::CargoWorkspace;

/// The built `klpx`, and the cache that it uses here.
pub(crate) struct Klpx {
    binary: PathBuf,
    cache: PathBuf,
    /// True if the cache belongs to the fixtures, not to a user.
    owned: bool,
    jobs: usize,
    /// The schema that every report has to fit, once one was read.
    schema: OnceLock<Validator>,
    /// The repository and the fixtures.
    workspace: [PathBuf; 2],
}

/// The output of a run.
pub(crate) struct KlpxOutput {
    /// Exit code; `None` if a signal ended the run.
    pub(crate) exit: Option<i32>,
    /// Standard output and errors.
    pub(crate) text: String,
    /// The JSON report, if there is a readable one.
    pub(crate) report: Option<BuildReport>,
    /// Wall clock.
    pub(crate) elapsed: Duration,
}

/// Version of the report's schema that tests know.
pub(crate) const SCHEMA: u32 = 3;

/// The parts of klpx's report that tests look at.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct BuildReport {
    /// Version of the report's schema.
    pub(crate) schema: u32,
    /// The kernel of the livepatch.
    #[serde(default)]
    pub(crate) kernel: Option<ReportKernel>,
    /// Functions in the module.
    #[serde(default)]
    pub(crate) changes: Vec<ReportChange>,
    /// The compared objects, if they are kept.
    #[serde(default)]
    pub(crate) objects: Vec<ReportObjects>,
    /// The objects that kbuild compiled for the module itself, if they are kept.
    #[serde(default)]
    pub(crate) glue: Vec<PathBuf>,
    /// The kernel's files, if the objects are kept.
    #[serde(default)]
    pub(crate) kernel_files: Option<ReportKernelFiles>,
    /// Information that does not stop a build.
    #[serde(default)]
    pub(crate) notes: Vec<ReportNote>,
    /// The errors that ended the build.
    #[serde(default)]
    pub(crate) errors: Vec<Problem>,
}

/// A note of a report.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ReportNote {
    /// The note's code.
    pub(crate) code: String,
}

/// Files of the kernel that a module was verified against.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ReportKernelFiles {
    /// The image with symbols.
    pub(crate) vmlinux: PathBuf,
    /// The kernel's Module.symvers.
    pub(crate) symvers: PathBuf,
    /// Folders with the kernel's modules.
    pub(crate) modules: Vec<PathBuf>,
    /// Folders with unstripped copies of the modules.
    pub(crate) debug_modules: Vec<PathBuf>,
}

/// The two builds of an object, or of one unit of it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ReportObjects {
    /// `vmlinux` or a module's name.
    pub(crate) object: String,
    /// The build of the original source.
    pub(crate) original: PathBuf,
    /// The build of the patched source.
    pub(crate) patched: PathBuf,
    /// klpx's claims about symbols of the patched build, by index.
    #[serde(default)]
    pub(crate) claims: BTreeMap<u32, Option<u32>>,
    /// Symbols of the original in whose place the kernel has other symbols.
    #[serde(default)]
    pub(crate) gave_way: Vec<u32>,
}

/// The kernel of a report.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ReportKernel {
    /// The name of the kernel's folder in the cache.
    pub(crate) key: String,
}

/// A function in the module, with its cause.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ReportChange {
    /// `vmlinux` or a module.
    pub(crate) object: String,
    /// The function's name in the object.
    pub(crate) function: String,
    /// `changed` or `new`.
    pub(crate) kind: String,
    /// The cause of the difference, if debug information tells it.
    #[serde(default)]
    pub(crate) cause: Option<String>,
    /// The cause for people, with the place.
    #[serde(default)]
    pub(crate) why: String,
}

/// A diagnosis.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Problem {
    /// Stable code.
    pub(crate) code: String,
}

/// One call of `klpx build`.
pub(crate) struct BuildCall<'a> {
    /// The kernel.
    pub(crate) built: &'a BuiltKernel,
    /// Patches, in order.
    pub(crate) patches: &'a [PathBuf],
    /// The livepatch's name.
    pub(crate) name: &'a str,
    /// Further options.
    pub(crate) options: &'a [String],
    /// The kernel to be patched, if it differs from the build tree's.
    pub(crate) vmlinux: Option<&'a Path>,
    /// The folder for the module and the report.
    pub(crate) output: &'a Path,
}

impl Klpx {
    /// Uses a finished binary, or else the release build of this workspace.
    pub(crate) fn at_or_build(binary: Option<&Path>, workspace: &CargoWorkspace) -> Result<Klpx> {
        match binary {
            Some(binary) => Klpx::with(std::path::absolute(binary)?, workspace),
            None => Klpx::build(workspace),
        }
    }

    /// Builds the release binary.
    pub(crate) fn build(workspace: &CargoWorkspace) -> Result<Klpx> {
        let mut step = ui::step("klpx");
        step.at("cargo build --release");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.current_dir(&workspace.root).args([
            "build",
            "--release",
            "--package",
            "klpx",
            "--message-format=json-render-diagnostics",
            "--quiet",
        ]);
        let result = process::output(&mut command).context("can't build klpx")?;
        let binary = result.lines().filter_map(executable).next_back().context("cargo built no klpx")?;
        step.done("release build");
        Klpx::with(binary, workspace)
    }

    fn with(binary: PathBuf, workspace: &CargoWorkspace) -> Result<Klpx> {
        // On request, baselines that klpx has already built for its user are used here.
        let (cache, owned) = match std::env::var_os("KLPX_CACHE_DIR") {
            Some(directory) => (std::path::absolute(directory)?, false),
            None => (workspace.cache_dir("klpx")?, true),
        };
        let dirs = [workspace.root.clone(), workspace.cache.clone()];
        Ok(Klpx { binary, cache, owned, jobs: workspace.jobs, schema: OnceLock::new(), workspace: dirs })
    }

    /// Removes kernels from klpx's cache until so many gigabytes are free: each fixture kernel that was ever built
    /// leaves 2.5 there.
    pub(crate) fn make_room(&self, gigabytes: u64) -> Result<()> {
        if self.owned {
            let output =
                process::output(self.command().args(["cache", "prune", "--free", &gigabytes.to_string()]))?;
            ui::line("klpx's cache", output.trim(), None);
        }
        Ok(())
    }

    /// Returns the cache in use.
    pub(crate) fn cache(&self) -> &Path {
        &self.cache
    }

    /// Returns a hash that tells this binary from others.
    pub(crate) fn identity(&self) -> Result<String> {
        let bytes =
            std::fs::read(&self.binary).with_context(|| format!("can't read {}", self.binary.display()))?;
        Ok(blake3::hash(&bytes).to_hex().to_string())
    }

    /// Returns a command of the built binary, with this workspace's klpx cache.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.env("KLPX_CACHE_DIR", &self.cache).stdin(Stdio::null());
        command
    }

    /// Returns `klpx build` as a person would call it.
    pub(crate) fn build_command(&self, build: &BuildCall<'_>) -> Command {
        let mut command = self.command_for(build.built);
        command
            .arg("build")
            .args(build.built.options(build.vmlinux))
            .arg("--output")
            .arg(build.output.join(format!("livepatch-{}.ko", build.name)))
            .args(["--name", build.name, "--jobs", &self.jobs.to_string()])
            .arg("--report")
            .arg(report_path(build))
            .args(build.options)
            .args(build.patches);
        command
    }

    /// Checks that `klpx doctor` finds everything that a livepatch for a kernel needs.
    pub(crate) fn doctor(&self, built: &BuiltKernel) -> Result<()> {
        let mut command = self.command_for(built);
        process::output(command.arg("doctor").args(built.options(None))).map(drop)
    }

    /// Returns a command of the built binary that runs where a kernel's user runs it.
    fn command_for(&self, built: &BuiltKernel) -> Command {
        match &built.root {
            Some(root) => self.command_in(root, &built.tree),
            None => self.command(),
        }
    }

    /// Returns a command of the built binary that runs in another root, with a kernel's packages.
    fn command_in(&self, root: &Path, sysroot: &Path) -> Command {
        let [repository, fixtures] = &self.workspace;
        let own = self.binary.parent().unwrap_or(&self.cache);
        let mut command = distro::enter(root, sysroot, &[repository, fixtures, &self.cache, own]);
        command.arg(&self.binary).env("KLPX_CACHE_DIR", &self.cache).stdin(Stdio::null());
        command
    }

    /// Runs `klpx build` to its end, whether it succeeds or not.
    pub(crate) fn run(&self, build: &BuildCall<'_>) -> Result<KlpxOutput> {
        self.run_in(build, None)
    }

    /// Runs `klpx build` with only the commands of one directory at hand.
    pub(crate) fn run_in(&self, build: &BuildCall<'_>, path: Option<&Path>) -> Result<KlpxOutput> {
        std::fs::create_dir_all(build.output)?;
        // A report left by an earlier run would be read as this run's.
        if report_path(build).exists() {
            std::fs::remove_file(report_path(build))?;
        }
        let start = Instant::now();
        let mut command = self.build_command(build);
        if let Some(path) = path {
            command.env("PATH", path);
        }
        let result = command.output().with_context(|| format!("can't run {}", process::shown(&command)))?;
        let text =
            [result.stdout, result.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        std::fs::write(build.output.join(format!("{}.log", build.name)), &text)?;
        let report = std::fs::read(report_path(build)).ok().map(|bytes| self.report(&bytes)).transpose()?;
        Ok(KlpxOutput { exit: result.status.code(), text, report, elapsed: start.elapsed() })
    }
}

impl Klpx {
    /// Reads a report, which has to fit the schema that klpx prints.
    fn report(&self, bytes: &[u8]) -> Result<BuildReport> {
        let value: serde_json::Value = serde_json::from_slice(bytes).context("the report is no JSON")?;
        let schema = match self.schema.get() {
            Some(schema) => schema,
            None => {
                let text = process::output(self.command().args(["schema", "report"]))?;
                let schema = jsonschema::validator_for(&serde_json::from_str(&text)?)?;
                self.schema.get_or_init(|| schema)
            }
        };
        let faults: Vec<String> = schema
            .iter_errors(&value)
            .map(|fault| format!("{fault} at {}", fault.instance_path()))
            .take(3)
            .collect();
        ensure!(faults.is_empty(), "the report does not fit its schema: {}", faults.join("; "));
        Ok(serde_json::from_value(value)?)
    }
}

fn report_path(build: &BuildCall<'_>) -> PathBuf {
    build.output.join(format!("{}.json", build.name))
}

/// Returns the path in a `compiler-artifact` message of cargo.
pub(crate) fn executable(line: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    Some(PathBuf::from(message.get("executable")?.as_str()?))
}
