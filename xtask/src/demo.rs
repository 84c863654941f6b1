//! `cargo xtask demo`: starts on a machine with Rust, and ends with a livepatch that changes a kernel in QEMU and is
//! unloaded again.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::guest::{self, ScenarioTask};
use crate::kernel::KERNELS;
use crate::klpx::{BuildCall, Klpx};
use crate::packages;
use crate::process;
use crate::workspace::CargoWorkspace;
use crate::{kernel, ui};

/// What the demo shows.
#[derive(clap::Args)]
pub(crate) struct DemoArgs {
    /// Architecture of the kernel
    #[arg(long, default_value = "x86_64", value_parser = ["x86_64", "arm64"])]
    arch: String,
    /// Which fixture kernel [default: the first of the architecture]
    #[arg(long)]
    kernel: Option<String>,
}

/// What the guest does; `shown` lines come back to the terminal.
const SCRIPT: &str = r#"
show() { say shown "$1|$(tail -n 1 /proc/version)"; }
show "before"
load version
show "livepatch loaded"
unload version
show "livepatch unloaded"
"#;

/// Runs the demo.
pub(crate) fn run(workspace: &CargoWorkspace, args: &DemoArgs) -> Result<bool> {
    ui::say("A livepatch, from the patch to the running kernel.");
    ui::heading("set-up");
    let kernel = match &args.kernel {
        Some(name) => kernel::select(std::slice::from_ref(name))?[0],
        None => {
            KERNELS.iter().find(|kernel| kernel.is(&args.arch)).context("an architecture has a kernel")?
        }
    };
    if !kernel.is(&args.arch) {
        bail!("the {} kernel is not for {}", kernel.name, args.arch);
    }
    packages::ensure(kernel.needs)?;
    let built = kernel::ensure(workspace, kernel)?;
    ui::line("kernel", &format!("Linux {} · {}", built.source.version, kernel.title), None);
    let klpx = Klpx::build(workspace)?;

    let patch = workspace.fixtures("scenarios/01-proc-string/version.patch");
    ui::heading(&format!("the patch: {}", shown_path(workspace, &patch)));
    for line in std::fs::read_to_string(&patch)?.lines() {
        ui::say(&format!("  {line}"));
    }

    ui::heading("klpx build version.patch");
    let output = workspace.cache_dir("demo")?;
    let build = BuildCall {
        built: &built,
        patches: std::slice::from_ref(&patch),
        name: "version",
        options: &[],
        vmlinux: None,
        output: &output,
    };
    process::inherit(&mut klpx.build_command(&build))?;
    let module = output.join("livepatch-version.ko");

    ui::heading("in QEMU");
    let scratch = tempfile::tempdir()?;
    let script = scratch.path().join("guest.sh");
    std::fs::write(&script, SCRIPT)?;
    let task = ScenarioTask {
        name: "demo".to_owned(),
        script,
        files: vec![
            ("livepatch-version.ko".to_owned(), std::fs::read(&module).context("klpx left no module")?),
            ("replaces-version".to_owned(), b"vmlinux/version_proc_show".to_vec()),
        ],
        modules: Vec::new(),
        helpers: Vec::new(),
        console: Vec::new(),
    };
    let console = output.join("console.log");
    let verdict = guest::run(workspace, &built, &[task], &console)?.remove("demo").unwrap_or_default();
    ui::say("  $ tail -n 1 /proc/version");
    for (when, text) in verdict.shown.iter().filter_map(|line| line.split_once('|')) {
        ui::say(&format!("  {when:<20} {text}"));
    }
    for failure in &verdict.failures {
        ui::say(&format!("  FAILED: {failure}"));
    }
    ui::say("");
    if verdict.good() {
        ui::say(&format!("The module is {}; the guest's console, {}.", module.display(), console.display()));
    }
    Ok(verdict.good())
}

/// Returns a path of the repository as one would type it there.
fn shown_path(workspace: &CargoWorkspace, path: &std::path::Path) -> String {
    path.strip_prefix(&workspace.root)
        .map(PathBuf::from)
        .unwrap_or_else(|_| path.to_path_buf())
        .display()
        .to_string()
}
