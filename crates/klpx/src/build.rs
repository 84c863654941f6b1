//! `klpx build`: the order of the stages, from patches to a verified module.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use klpx_build_driver::{Baseline, Kernel, Options, PatchSet, Patched, Remade, Workspace};
use klpx_diagnosis::{Class, Diagnosis, Place, Result};

use crate::analysis::{Finding, Kind};
use crate::args::Build;
use crate::change_set::{self, Analysis};
use crate::holders::{self, LeftOut, Unaffected};
use crate::inlining::Originals;
use crate::module::{self, Made};
use crate::progress::Steps;
use crate::render;
use crate::report::{self, Report};
use crate::stabilise;
use crate::target::Target;

/// Runs the command. The report is written whether it succeeds or not.
pub(crate) fn run(args: &Build, out: &mut impl Write) -> Result<()> {
    let steps = Steps::new();
    let patches = args.patches.iter().map(|p| p.display().to_string()).collect();
    let mut report =
        Report { schema: report::SCHEMA, klpx: env!("CARGO_PKG_VERSION"), patches, ..Report::default() };
    let result = build(args, &steps, &mut report, out);
    steps.abandon();
    if let Err(failure) = &result {
        report.fail(failure);
    }
    match &args.report {
        Some(path) => report.write(path).and(result),
        None => result,
    }
}

fn build(args: &Build, steps: &Steps, report: &mut Report, out: &mut impl Write) -> Result<()> {
    let name = livepatch_name(args)?;
    let output = output_path(args, &name)?;

    steps.begin("preflight");
    let kernel = Kernel::open(&options(args)?)?;
    let patches = PatchSet::read(&args.patches)?;
    let prepared = patches.preflight(&kernel, fuzz(args)?)?;
    let target = Target::find(args, &kernel)?;
    report.kernel = Some(report::Kernel {
        release: kernel.release().to_owned(),
        arch: kernel.arch().name().to_owned(),
        compiler: kernel.toolchain().describe(),
        baseline: kernel.key().to_owned(),
    });
    steps.end(&format!(
        "{}, {} · {}",
        render::plural(prepared.files(), "file"),
        render::plural(prepared.hunks(), "hunk"),
        kernel.describe()
    ));
    note(steps, report, prepared.notes());

    steps.begin("baseline");
    let workspace = Workspace::open(&kernel, steps)?;
    let baseline = workspace.baseline(steps)?;
    steps.end(&match baseline.cached {
        true => format!("cached ({})", short(kernel.key())),
        false => format!("{} ({})", render::plural(baseline.units as usize, "unit"), short(kernel.key())),
    });
    let target = target.or_baseline(&baseline, steps, report);

    steps.begin("patched build");
    let mut originals = Originals::begin(&prepared, workspace.source_dir(), &baseline.vmlinux_o);
    let judge = stabilise::Judge(Mutex::new(&mut originals));
    let mut patched = workspace.patched(&prepared, &baseline, (args.stabilise.into(), &judge), steps)?;
    stabilise::tell(&patched, steps, report);
    steps.end(&format!("{} recompiled", render::plural(patched.units as usize, "unit")));

    if args.keep_work {
        let kept = patched.keep();
        steps.remark(&format!("the objects of this run are in {}", kept.display()));
        report.objects = patched.pairs.iter().map(report::Objects::of).collect();
    }

    let built = (&workspace, &baseline, &patched);
    let made = analyse_and_make(args, &name, built, &mut originals, &target, steps, report)?;
    place(&made.bytes, &output)?;
    report.module = Some(report::Module::new(&output, module::kernel_name(&name), &made));
    show(args, report, &output, out)
}

/// Analysis, emission and verification: everything that reads the pairs of objects.
fn analyse_and_make(
    args: &Build,
    name: &str,
    (workspace, baseline, patched): (&Workspace, &Baseline, &Patched),
    originals: &mut Originals<'_>,
    target: &Target,
    steps: &Steps,
    report: &mut Report,
) -> Result<Made> {
    steps.begin("analysis");
    let mut left_out = holders::uncompared(patched, baseline, originals);
    if patched.pairs.is_empty() {
        holders::check(&left_out)?;
    }
    let pairs = change_set::open(patched)?;
    let objects = change_set::read(&pairs)?;
    let analysis = Analysis::new(&objects, &workspace.source_dir(), &patched.remade, originals);
    steps.end(&analysis.summary());
    report.changes = analysis.findings.concat();
    left_out.extend(analysis.others.iter().flat_map(|others| others.left_out.iter().cloned()));
    let unaffected = analysis.others.iter().flat_map(|others| others.unaffected.iter().cloned());
    tell_holders(unaffected.collect(), &left_out, (&patched.remade, originals), steps, report)?;
    analysis.check()?;
    let work_dir = patched.work_dir();
    let source = module::Source { workspace, work_dir, target, analysis: &analysis, objects: &objects };
    source.make(name, !args.no_replace, steps, report)
}

/// Says who inlines what the patch edits and is not replaced; stops when one should be.
fn tell_holders(
    unaffected: Vec<Unaffected>,
    left_out: &[LeftOut],
    (remade, originals): (&Remade, &Originals<'_>),
    steps: &Steps,
    report: &mut Report,
) -> Result<()> {
    let own = [holders::remark(&unaffected), holders::stale(remade)].into_iter().flatten();
    let notes: Vec<String> = own.chain(originals.notes().iter().cloned()).collect();
    note(steps, report, &notes);
    report.unaffected = unaffected;
    holders::check(left_out)
}

fn options(args: &Build) -> Result<Options> {
    Ok(Options {
        source: args.source.clone(),
        build_dir: args.build_dir.clone(),
        config: args.config.clone(),
        jobs: args.jobs.map(usize::from),
        llvm: args.llvm.clone(),
        cross_compile: args.cross_compile.clone(),
        cache_dir: crate::cache::directory(&args.common)?,
    })
}

fn fuzz(args: &Build) -> Result<u8> {
    u8::try_from(args.fuzz).map_err(|_| {
        Diagnosis::new("klpx::fuzz", Class::Usage, format!("a fuzz of {} is too much", args.fuzz))
            .remedy("give 0, 1 or 2")
            .into()
    })
}

fn note(steps: &Steps, report: &mut Report, notes: &[String]) {
    for text in notes {
        steps.remark(text);
        report.notes.push(text.clone());
    }
}

/// The first digits of a key, enough to tell kernels apart in one cache.
fn short(key: &str) -> &str {
    key.get(..8).unwrap_or(key)
}

/// `md-run` of `0001-md-run.patch`; what a module name can't hold becomes a dash.
fn livepatch_name(args: &Build) -> Result<String> {
    let given = args.name.clone();
    let stem = || args.patches.first().and_then(|p| p.file_stem()).map(|s| s.to_string_lossy().into_owned());
    let raw = given.clone().or_else(stem).unwrap_or_default();
    let name: String = raw
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '-' })
        .collect();
    let name = name.trim_matches('-');
    let name = name.strip_prefix("livepatch-").or_else(|| name.strip_prefix("livepatch_")).unwrap_or(name);
    // MODULE_NAME_LEN is 64 - sizeof(long) on 64-bit (include/linux/module.h), its NUL included; "livepatch-" is 10.
    let fits = !name.is_empty() && name.len() + 10 < 56 && given.is_none_or(|given| given.ends_with(name));
    if fits {
        return Ok(name.to_owned());
    }
    Err(Diagnosis::new("klpx::bad-name", Class::Usage, format!("{raw:?} can't be the name of a livepatch"))
        .why("a module's name holds letters, digits, dashes and underscores, and at most 55 of them with \"livepatch-\"")
        .remedy("name it with --name")
        .into())
}

fn output_path(args: &Build, name: &str) -> Result<PathBuf> {
    let file = format!("livepatch-{name}.ko");
    let path = match &args.output {
        None => PathBuf::from(file),
        Some(path) if path.is_dir() || path.as_os_str().to_string_lossy().ends_with('/') => path.join(file),
        Some(path) => path.clone(),
    };
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    if let Some(parent) = parent.filter(|p| !p.is_dir()) {
        return Err(Diagnosis::new("klpx::no-such-folder", Class::Usage, "the output folder does not exist")
            .place(Place::file(parent.display().to_string(), None))
            .into());
    }
    Ok(path)
}

/// Writes the module beside its final name first, so that nobody ever sees half of it.
fn place(bytes: &[u8], output: &Path) -> Result<()> {
    let folder = output.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |e: &std::io::Error| Diagnosis::io("write", output, e);
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(|e| failed(&e))?;
    file.write_all(bytes).map_err(|e| failed(&e))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(mode).map_err(|e| failed(&e))?;
    file.persist(output).map_err(|e| failed(&e.error))?;
    Ok(())
}

/// The table of functions and how to load the module.
fn show(args: &Build, report: &Report, output: &Path, out: &mut impl Write) -> Result<()> {
    let mut rows = vec![["object", "function", "why"].map(str::to_owned).to_vec()];
    for finding in &report.changes {
        rows.push(row(finding));
        if args.common.verbose {
            rows.extend(finding.reasons.iter().map(|r| vec![String::new(), String::new(), format!("  {r}")]));
        }
    }
    let mut text = format!("\n{}", render::table(&rows));
    if !report.left_out.is_empty() {
        let mut left = vec![["left out", "", ""].map(str::to_owned).to_vec()];
        left.extend(report.left_out.iter().map(row));
        text.push_str(&format!("\n{}", render::table(&left)));
    }
    text.push_str(&format!("\n{}   load it with: insmod {}\n", output.display(), output.display()));
    out.write_all(text.as_bytes())
        .map_err(|e| Diagnosis::io("write", Path::new("standard output"), &e).into())
}

fn row(finding: &Finding) -> Vec<String> {
    let why = match finding.kind {
        Kind::Changed | Kind::New | Kind::Removed => finding.why.clone(),
    };
    vec![finding.object.clone(), finding.function.clone(), why]
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn name_of(args: &[&str]) -> Result<String> {
        let cli = Cli::parse_from(["klpx", "build"].iter().chain(args));
        let Command::Build(args) = cli.command else { unreachable!("build was asked for") };
        livepatch_name(&args)
    }

    #[test]
    fn the_name_comes_from_the_first_patch() {
        for (args, name) in [
            (&["dir/md-run.patch"][..], "md-run"),
            (&["0001-net fix.v2.patch", "b.patch"], "0001-net-fix-v2"),
            (&["livepatch-a.diff"], "a"),
            (&["--name", "x_1", "b.patch"], "x_1"),
        ] {
            assert_eq!(name_of(args).expect("a name"), name);
        }
        for args in [&["--name", "a/b", "x.patch"][..], &["--name", "", "x.patch"], &["...patch"]] {
            assert_eq!(name_of(args).expect_err("no name").exit_code(), 2);
        }
    }
}
