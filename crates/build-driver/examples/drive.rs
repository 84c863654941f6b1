//! Drives the build driver by hand: the original build, and with patches the patched one, each phase timed.
//!
//! `drive SOURCE BUILD_DIR CACHE_DIR [PATCH...]`, or with a folder of a module `lp` in place of the patches: builds that.
use std::path::PathBuf;
use std::time::Instant;

use klpx_build_driver::{Kernel, Options, PatchSet, Progress, Workspace};

struct Lines(Instant);

impl Progress for Lines {
    fn step(&self, message: &str) {
        eprintln!("{:8.1}  {message}", self.0.elapsed().as_secs_f64());
    }
    fn objects(&self, done: u64, total: Option<u64>) {
        if done.is_multiple_of(100) {
            eprintln!("{:8.1}  {done} of {total:?} units", self.0.elapsed().as_secs_f64());
        }
    }
    fn note(&self, message: &str) {
        self.step(&format!("note: {message}"));
    }
}

fn main() {
    let args: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let progress = Lines(Instant::now());
    if let Err(failure) = drive(&args, &progress) {
        for diagnosis in failure.diagnoses() {
            eprintln!("{}: {diagnosis}\n  {}", diagnosis.code, diagnosis.remedy);
            diagnosis.detail.iter().for_each(|line| eprintln!("    {line}"));
        }
        std::process::exit(i32::from(failure.exit_code()));
    }
}

fn drive(args: &[PathBuf], progress: &Lines) -> klpx_diagnosis::Result<()> {
    let options = Options {
        source: args[0].clone(),
        build_dir: Some(args[1].clone()),
        cache_dir: args[2].clone(),
        ..Options::default()
    };
    let kernel = Kernel::open(&options)?;
    progress.step(&format!("preflight: {} key {}", kernel.describe(), kernel.key()));
    let workspace = Workspace::open(&kernel, progress)?;
    progress.step("workspace open");
    let baseline = workspace.baseline(progress)?;
    progress.step(&format!(
        "baseline: cached {} units {} modules {} at {}",
        baseline.cached,
        baseline.units,
        baseline.modules.len(),
        baseline.dir.display()
    ));
    if args.get(3).is_some_and(|path| path.is_dir()) {
        let module = workspace.build_external_module(&args[3], "lp", &baseline.symvers)?;
        progress.step(&format!("external module {module:#?}"));
        let output = args[3].join("relinked.ko");
        workspace.link_module(&module.link_flags, &module.objects, &output)?;
        progress.step("linked again");
    } else if args.len() > 3 {
        let prepared = PatchSet::read(&args[3..])?.preflight(&kernel, 0)?;
        progress.step(&format!("{} files, {} hunks", prepared.files(), prepared.hunks()));
        prepared.notes().iter().for_each(|note| progress.note(note));
        let mut patched = workspace.patched(&prepared, &baseline, progress)?;
        progress.step(&format!("{} units, vmlinux {:?}", patched.units, patched.vmlinux_o));
        patched
            .modules
            .iter()
            .for_each(|module| progress.step(&format!("module {}", module.object.display())));
        progress.step(&format!("kept {}", patched.keep().display()));
    }
    Ok(())
}
