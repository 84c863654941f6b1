//! `klpx test`: tries a livepatch module in a guest of the kernel that it is for.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use klpx_build_driver::Progress as _;
use klpx_build_driver::packages::{self, KernelPiece, KernelSearch, Selector, WantedKernel};
use klpx_build_driver::process::Runner;
use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Failure, Result, codes};
use klpx_guest::{Accelerator, Clock, Guest, KernelModules, Machine, Trial};
use klpx_normalize::arch::Arch;
use klpx_normalize::elf::ElfFile;
use klpx_verify::inspect::{self, Module};

use crate::args::TestArgs;
use crate::outcome::{TrialOutcome, TrialResult};
use crate::progress::{ProgressForm, ShownSteps};
use crate::render;
use crate::wanted::wanted;

/// Runs the command.
pub(crate) fn run(args: &TestArgs, out: &mut impl Write) -> Result<()> {
    let (outcome, name) = tried(args)?;
    let text = if args.json { outcome.json(&name)? } else { outcome.text() };
    out.write_all(text.as_bytes())
        .map_err(|e| Failure::from(Diagnosis::io("write", Path::new("standard output"), &e)))?;
    outcome.failure(&args.module).map_or(Ok(()), |failure| Err(failure.into()))
}

/// Tries the module. Returns the outcome and the module's name.
///
/// # Errors
/// Fails if the module can't be tried.
pub(crate) fn tried(args: &TestArgs) -> Result<(TrialOutcome, String)> {
    let file = ElfFile::open(&args.module)?;
    let module = inspect::inspect(&file)?;
    let release = module.info("vermagic").and_then(|vermagic| vermagic.split(' ').next());
    let release = release.ok_or_else(|| not_a_livepatch(&file, "its modinfo has no vermagic"))?.to_owned();
    let trial = trial(args, &file, &module)?;
    let arch = Arch::of_machine(file.parse()?.machine())?;

    let steps = ShownSteps::new(ProgressForm::Text);
    steps.step("looking for the kernel");
    let survey = survey(args, &release, &steps)?;
    let (guest, missing) = guest(args, Machine::of(arch), &trial, &survey)?;
    let slow = Accelerator::find(guest.machine, &guest.image)?.is_emulation();
    let tasks = trial.tasks();
    steps.step(&format!(
        "{} in a guest{}",
        render::plural(tasks.len(), "trial"),
        if slow { ", emulated: no KVM works here, so each takes longer" } else { "" }
    ));
    let started = Instant::now();
    let scratch =
        tempfile::tempdir().map_err(|e| Diagnosis::io("make a folder in", &std::env::temp_dir(), &e))?;
    let log = args.log.clone().unwrap_or_else(|| scratch.path().join("console"));
    let verdicts = guest.run(&tasks, &log)?;
    steps.abandon();

    let trials =
        tasks.iter().filter_map(|task| Some(TrialResult::new(&task.name, verdicts.get(&task.name)?)));
    let outcome = TrialOutcome {
        release: survey.release.clone(),
        emulated: slow,
        seconds: started.elapsed().as_secs_f64(),
        missing_modules: missing,
        trials: trials.collect(),
    };
    Ok((outcome, trial.name))
}

/// The kernel object that is no module.
const VMLINUX: &str = "vmlinux";

fn not_a_livepatch(file: &ElfFile, why: &str) -> Diagnosis {
    Diagnosis::new(
        &codes::NOT_A_LIVEPATCH,
        "the module is no livepatch that can be tried",
        why,
        "name a livepatch module, as klpx build makes it",
    )
    .place(DiagnosisPlace::file(file.path().display().to_string(), None))
}

fn name_of(file: &ElfFile, module: &Module) -> Result<String> {
    let name = module.info("name").ok_or_else(|| not_a_livepatch(file, "its modinfo has no name"))?;
    // The name is put into scripts.
    match !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        true => Ok(name.to_owned()),
        false => Err(not_a_livepatch(file, "its name is none of a module").into()),
    }
}

fn trial(args: &TestArgs, file: &ElfFile, module: &Module) -> Result<Trial> {
    let functions = module.objects.iter().flat_map(|object| {
        // The kernel shows a unique name with position 1 (kernel/livepatch/core.c, klp_init_object_loaded).
        object.functions.iter().map(|f| (object.name.clone(), format!("{},{}", f.old_name, f.sympos.max(1))))
    });
    let functions: Vec<(String, String)> = functions.collect();
    // A livepatch may have only callbacks.
    if module.objects.is_empty() {
        return Err(not_a_livepatch(file, "its arrays name no kernel object").into());
    }
    let objects = module.objects.iter().map(|object| object.name.clone());
    let previous = |path: &PathBuf| {
        let file = ElfFile::open(path)?;
        let name = name_of(&file, &inspect::inspect(&file)?)?;
        Ok::<_, Failure>((name, file.bytes().to_vec()))
    };
    let script = |path: &PathBuf| std::fs::read_to_string(path).map_err(|e| Diagnosis::io("read", path, &e));
    Ok(Trial {
        name: name_of(file, module)?,
        module: file.bytes().to_vec(),
        functions,
        targets: objects.filter(|name| name != VMLINUX).collect(),
        previous: args.previous.as_ref().map(previous).transpose()?,
        before: args.before.clone(),
        after: args.after.clone(),
        script: args.script.as_ref().map(script).transpose()?,
    })
}

/// The kernel that the module's vermagic names. If the user names a kernel, it must be this one.
fn survey(args: &TestArgs, release: &str, steps: &ShownSteps) -> Result<KernelSearch> {
    let mut wanted = WantedKernel {
        build_dir: args.build_dir.clone(),
        modules: args.modules.clone(),
        ..wanted(&args.which, args.cache_dir.as_deref())?
    };
    if wanted.kernel.is_none() && wanted.build_dir.is_none() {
        wanted.kernel = Some(Selector::parse(release));
    }
    let survey = packages::survey(&wanted, &Runner::new(), steps)?;
    if survey.release != release {
        let what = format!("the module is for Linux {release}, not {}", survey.release);
        return Err(Diagnosis::new(
            &codes::RELEASE_MISMATCH,
            what,
            "its vermagic says so, and the kernel would refuse to load it",
            "name the kernel that the module was built for",
        )
        .place(DiagnosisPlace::file(args.module.display().to_string(), None))
        .into());
    }
    Ok(survey)
}

/// The guest, and the modules that the livepatch patches but that are missing.
fn guest(
    args: &TestArgs,
    machine: &'static Machine,
    trial: &Trial,
    survey: &KernelSearch,
) -> Result<(Guest, Vec<String>)> {
    let found = |piece| survey.found.get(&piece).map(|located| located.path.clone());
    let image = args.image.clone().or_else(|| found(KernelPiece::BootImage)).ok_or_else(|| {
        Diagnosis::new(
            &codes::NO_BOOT_IMAGE,
            "the kernel's boot image is not there",
            format!("no vmlinuz of Linux {} is in its usual places", survey.release),
            "install the package with the kernel's image, or name the file with --image",
        )
    })?;
    let busybox = match (&args.busybox, machine.is_native()) {
        (Some(path), _) => path.clone(),
        (None, true) => klpx_guest::busybox()?,
        (None, false) => {
            let what = "a guest of another architecture needs a busybox of its own";
            return Err(Diagnosis::new(
                &codes::MISSING_TOOL,
                what,
                "the busybox that is installed runs on this machine only",
                "name a static busybox of the guest's architecture with --busybox",
            )
            .into());
        }
    };
    let targets: Vec<String> = trial.targets.iter().cloned().collect();
    let modules = found(KernelPiece::Modules).map(|folder| KernelModules::read(&folder)).transpose()?;
    let (there, missing) = match &modules {
        Some(modules) => targets.into_iter().partition(|name| modules.has(name)),
        None => (Vec::new(), targets),
    };
    let modules = modules.map(|modules| modules.loading(&there)).transpose()?.unwrap_or_default();
    let (programs, disk, arguments) = (Vec::new(), None, String::new());
    Ok((Guest { machine, image, busybox, modules, programs, disk, arguments, clock: Clock::Host }, missing))
}
