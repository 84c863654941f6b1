//! `cargo xtask faults`: puts single faults into finished modules of real patches, and checks that verification finds
//! each.
//!
//! klpx builds every module for a fixture kernel and keeps the objects that the module was verified against. Then the
//! same verification runs on copies of the module that each differ in one place. A fault that is not found is shown.
//! Changes that can't matter are recognised by kind before the verification runs.

mod kinds;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use klpx_klp_emit::image::{Image, TargetKernel};
use klpx_klp_emit::writer::Relocatable;
use klpx_normalize::elf::{Elf, ElfFile, SymbolId};
use klpx_verify::{KernelFilesTarget, KernelObject, VMLINUX, VerifiedUnit, inspect};

use crate::faults::kinds::{FaultAttempt, KINDS};
use crate::kernel::{self, BuiltKernel};
use crate::klpx::{BuildCall, BuildReport, Klpx};
use crate::workspace::CargoWorkspace;
use crate::{packages, process, ui};

/// What to try.
#[derive(clap::Args)]
pub(crate) struct FaultsArgs {
    /// Patches to make modules from [default: those of the scenarios that one livepatch has]
    #[arg(long, value_name = "FILE")]
    patch: Vec<PathBuf>,
    /// For this fixture kernel
    #[arg(long, value_name = "NAME", default_value = "debian-6.12")]
    kernel: String,
    /// Faults in all
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    count: usize,
    /// Where the sequence of faults begins
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Try this klpx instead of building it
    #[arg(long, value_name = "FILE")]
    klpx: Option<PathBuf>,
}

/// Patches of scenarios of different kinds: many functions, a module, special sections, names, constants, callers.
const SCENARIOS: [&str; 6] = [
    "02-md-run",
    "03-module-function",
    "06-special-sections",
    "10-duplicate-names",
    "24-constant",
    "25-without-ftrace",
];

/// Counts for a kind of fault: found, harmless and missed faults.
#[derive(Default)]
struct FaultTally {
    found: usize,
    harmless: usize,
    missed: Vec<String>,
}

/// Tries faults. Returns `Ok(false)` if a fault that matters was not found.
pub(crate) fn run(workspace: &CargoWorkspace, args: &FaultsArgs) -> Result<bool> {
    let [kernel] = kernel::select(std::slice::from_ref(&args.kernel))?[..] else { bail!("one kernel") };
    packages::ensure(kernel.needs)?;
    let built = kernel::ensure(workspace, kernel)?;
    let klpx = Klpx::at_or_build(args.klpx.as_deref(), workspace)?;
    let patches = patches(workspace, &args.patch)?;
    let mut tallies: BTreeMap<&str, FaultTally> = BTreeMap::new();
    for (n, patch) in patches.iter().enumerate() {
        let name = patch.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut step = ui::step(&name);
        let output = workspace.cache_dir("results/faults")?;
        let report = module(&klpx, &built, patch, &name, &output)?;
        let count = args.count * (n + 1) / patches.len() - args.count * n / patches.len();
        let module = output.join(format!("livepatch-{name}.ko"));
        let faults = FaultSequence { count, seed: args.seed + n as u64 };
        try_faults(&report, &module, faults, &mut tallies, &mut step)?;
        step.done(&ui::plural(count, "fault"));
    }
    Ok(show(&tallies))
}

fn patches(workspace: &CargoWorkspace, named: &[PathBuf]) -> Result<Vec<PathBuf>> {
    if !named.is_empty() {
        return Ok(named.to_vec());
    }
    let mut found = Vec::new();
    for scenario in SCENARIOS {
        let folder = workspace.fixtures("scenarios").join(scenario);
        let entries =
            std::fs::read_dir(&folder).with_context(|| format!("can't read {}", folder.display()))?;
        let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let mut patches: Vec<PathBuf> =
            files.filter(|file| file.extension().is_some_and(|kind| kind == "patch")).collect();
        patches.sort();
        found.extend(patches.into_iter().next());
    }
    Ok(found)
}

/// Builds a module, and keeps the objects that it was verified against.
fn module(klpx: &Klpx, built: &BuiltKernel, patch: &Path, name: &str, output: &Path) -> Result<BuildReport> {
    let outcome = klpx.run(&BuildCall {
        built,
        patches: &[patch.to_owned()],
        name,
        options: &["--keep-work".to_owned()],
        vmlinux: None,
        output,
    })?;
    match outcome.report.filter(|_| outcome.exit == Some(0)) {
        Some(report) => Ok(report),
        None => bail!("{name}: {}", process::tail(&outcome.text)),
    }
}

/// A sequence of faults.
#[derive(Clone, Copy)]
struct FaultSequence {
    count: usize,
    seed: u64,
}

/// Puts faults into a module, one at a time.
fn try_faults(
    report: &BuildReport,
    module: &Path,
    faults: FaultSequence,
    tallies: &mut BTreeMap<&'static str, FaultTally>,
    step: &mut ui::Step,
) -> Result<()> {
    let FaultSequence { count, seed } = faults;
    let open = |path: &Path| ElfFile::open(path).map_err(|failure| anyhow::anyhow!("{failure}"));
    let shown = |failure| anyhow::anyhow!("{failure}");
    let good = open(module)?;
    let files = report.kernel_files.as_ref().context("the report names the kernel's files")?;
    let kernel = TargetKernel::open(&files.vmlinux, &files.symvers, &files.modules)
        .map_err(shown)?
        .with_debug_modules(&files.debug_modules);
    let held = inspect::inspect(&good).map_err(shown)?;
    let mut names: Vec<String> = held.symbols.into_iter().map(|symbol| symbol.object).collect();
    names.extend(held.objects.into_iter().map(|object| object.name));
    names.push(VMLINUX.to_owned());
    names.sort();
    names.dedup();
    let images: Vec<Image<'_>> =
        names.iter().map(|name| kernel.image(name)).collect::<std::result::Result<_, _>>().map_err(shown)?;
    let file_of: Vec<_> = images.iter().map(|image| |id| image.file_of(id).map(<[u8]>::to_vec)).collect();
    let objects = images.iter().zip(&file_of);
    let objects =
        objects.map(|(image, file_of)| KernelObject { name: image.object(), elf: &image.elf, file_of });
    let symvers = std::fs::read_to_string(&files.symvers)?;
    let target = KernelFilesTarget::new(objects.collect(), &[&symvers]);

    let pairs: Vec<(ElfFile, ElfFile)> = (report.objects.iter())
        .map(|object| Ok((open(&object.original)?, open(&object.patched)?)))
        .collect::<Result<_>>()?;
    let elves: Vec<(Elf<'_>, Elf<'_>)> = (pairs.iter())
        .map(|(original, patched)| Ok((original.parse().map_err(shown)?, patched.parse().map_err(shown)?)))
        .collect::<Result<_>>()?;
    let units: Vec<VerifiedUnit<'_, '_>> = (report.objects.iter().zip(&elves))
        .map(|(object, (original, patched))| VerifiedUnit {
            object: &object.object,
            original,
            patched,
            claims: object.claims.iter().map(|(&id, of)| (SymbolId(id), of.map(SymbolId))).collect(),
            gave_way: object.gave_way.iter().map(|&id| SymbolId(id)).collect(),
        })
        .collect();
    let glue: Vec<ElfFile> = report.glue.iter().map(|path| open(path)).collect::<Result<_>>()?;
    let glue: Vec<Elf<'_>> =
        glue.iter().map(ElfFile::parse).collect::<std::result::Result<_, _>>().map_err(shown)?;
    let prepared = klpx_verify::prepare(&units, &glue);
    klpx_verify::verify_prepared(&good, &target, &prepared).map_err(shown).context("the good module")?;

    let elf = good.parse().map_err(shown)?;
    let whole = Relocatable::read(&elf).map_err(shown)?;
    let mut random = fastrand::Rng::with_seed(seed);
    for n in 0..count {
        step.at(&format!("{n} of {count} faults"));
        let (kind, put) = KINDS[random.usize(..KINDS.len())];
        let mut copy = whole.clone();
        let tally = tallies.entry(kind).or_default();
        match put(&mut copy, &mut random) {
            FaultAttempt::Nothing => {}
            FaultAttempt::Harmless => tally.harmless += 1,
            FaultAttempt::Fault(what) => {
                let bad = ElfFile::from_bytes(module, copy.write());
                match klpx_verify::verify_prepared(&bad, &target, &prepared) {
                    Err(_) => tally.found += 1,
                    Ok(_) => tally.missed.push(format!("{}: {what}", module.display())),
                }
            }
        }
    }
    Ok(())
}

fn show(tallies: &BTreeMap<&str, FaultTally>) -> bool {
    let rows: Vec<Vec<String>> = (tallies.iter())
        .map(|(kind, tally)| {
            let numbers = [tally.found, tally.missed.len(), tally.harmless];
            [vec![(*kind).to_owned()], numbers.iter().map(usize::to_string).collect()].concat()
        })
        .collect();
    ui::table(&["fault", "found", "missed", "can't matter"], &rows);
    let missed: usize = tallies.values().map(|tally| tally.missed.len()).sum();
    for (kind, tally) in tallies {
        for what in tally.missed.iter().take(10) {
            ui::say(&format!("missed: {kind}: {what}"));
        }
    }
    let found: usize = tallies.values().map(|tally| tally.found).sum();
    ui::say(&format!("\n{found} of {} faults are found", found + missed));
    missed == 0
}
