//! `klpx build`: passes the command line to the engine, and the results to the terminal, the report and the module.

use std::io::Write;
use std::path::{Path, PathBuf};

use klpx_build_driver::Given;
use klpx_build_driver::packages::WantedKernel;
use klpx_diagnosis::{Diagnosis, Failure, Result, codes};
use klpx_engine::finding::{ChangeKind, Finding};
use klpx_engine::{ExternalModule, FinishedModule, ModuleInfo, Request, Results, code};
use klpx_normalize::elf::ElfFile;
use klpx_verify::inspect;

use crate::args::{BuildArgs, TestArgs};
use crate::json;
use crate::output::OutputFile;
use crate::page;
use crate::progress::ShownSteps;
use crate::render;
use crate::report::{self, Report};
use crate::signer::Signed;
use crate::trial;

/// Runs the command. The report is written on success and on failure.
pub(crate) fn run(args: &BuildArgs, out: &mut impl Write) -> Result<()> {
    let steps = ShownSteps::new(args.progress);
    let mut report = Report::new(&args.patches);
    let place = args.report.as_deref().map(|path| claim(args, path)).transpose()?;
    let result = build(args, &steps, &mut report, out);
    steps.abandon();
    report.stages = steps.ended();
    if let Err(failure) = &result {
        report.fail(failure);
    }
    let written = place.map(|place| place.write(json::to_text(&report)?.as_bytes()));
    Failure::both(result, written.unwrap_or(Ok(())))
}

/// Claims a file that the build will write. Refuses a file that the build reads.
fn claim(args: &BuildArgs, path: &Path) -> Result<OutputFile> {
    let output = OutputFile::claim(path, 0o666)?;
    let named = [&args.source, &args.config, &args.vmlinux, &args.module].into_iter().flatten();
    output.is_none_of(args.patches.iter().chain(named).map(PathBuf::as_path))?;
    Ok(output)
}

fn build(args: &BuildArgs, steps: &ShownSteps, report: &mut Report, out: &mut impl Write) -> Result<()> {
    let request = request(args)?;
    let output = output_path(args, &request.name);
    let place = claim(args, &output)?;
    let page = args.page.as_deref().map(|path| claim(args, path)).transpose()?;
    let made = klpx_engine::build(&request, steps, &mut report.results)?;
    place.write(&made.bytes)?;
    report.module = Some(report::ModuleReport::new(&output, klpx_engine::kernel_name(&request.name), &made)?);
    show(args, &report.results, &output, out)?;
    let tried = if args.test { tried(args, output, report, out) } else { Ok(()) };
    let page = page.map(|place| place.write(sign_off(report, &made, tried.as_ref().err())?.as_bytes()));
    Failure::both(tried, page.unwrap_or(Ok(())))
}

/// Tries the module in a guest. The report holds the outcome even if the trial fails.
fn tried(args: &BuildArgs, module: PathBuf, report: &mut Report, out: &mut impl Write) -> Result<()> {
    let args = TestArgs::of_built(args, module);
    let (outcome, _) = trial::tried(&args)?;
    out.write_all(outcome.text().as_bytes())
        .map_err(|e| Diagnosis::io("write", Path::new("standard output"), &e))?;
    let failure = outcome.failure(&args.module);
    report.test = Some(outcome);
    failure.map_or(Ok(()), |failure| Err(failure.into()))
}

/// The page for the person who approves the livepatch.
fn sign_off(report: &Report, made: &FinishedModule, not_tried: Option<&Failure>) -> Result<String> {
    let file = ElfFile::from_bytes("livepatch.ko", made.bytes.clone());
    let not_tried = not_tried.and_then(|failure| failure.diagnoses().next());
    Ok(page::built(&page::BuildResults {
        report,
        verified: &made.verified,
        module: &inspect::inspect(&file)?,
        functions: &code::of_module(&file)?,
        signed: &Signed::read(&made.bytes, None)?,
        not_tried: not_tried.map(|diagnosis| diagnosis.what.as_str()),
    }))
}

fn request(args: &BuildArgs) -> Result<Request> {
    Ok(Request {
        patches: args.patches.clone(),
        name: livepatch_name(args)?,
        wanted: wanted(args)?,
        external: external(args)?,
        jobs: args.jobs.map(usize::from),
        llvm: args.llvm.clone(),
        cross_compile: args.cross_compile.clone(),
        given: Given::read(&args.make)?,
        lists: args.consistent.clone(),
        cache_dir: crate::cache::directory(&args.common)?,
        fuzz: fuzz(args)?,
        level: args.stabilise.into(),
        allow_layouts: args.allow_layout.clone(),
        info: ModuleInfo {
            description: args.description.clone(),
            version: args.module_version.clone(),
            cves: args.cve.clone(),
        },
        signing: args.signing.read()?,
        replace: !args.no_replace,
        with_code: args.page.is_some(),
        keep_work: args.keep_work,
    })
}

fn external(args: &BuildArgs) -> Result<Option<ExternalModule>> {
    let (Some(source), Some(file)) = (&args.module_source, &args.module) else { return Ok(None) };
    let absolute = |path: &Path| path.canonicalize().map_err(|error| Diagnosis::io("open", path, &error));
    Ok(Some(ExternalModule { source: absolute(source)?, file: absolute(file)? }))
}

fn wanted(args: &BuildArgs) -> Result<WantedKernel> {
    Ok(WantedKernel {
        source: args.source.clone(),
        build_dir: args.build_dir.clone(),
        config: args.config.clone(),
        vmlinux: args.vmlinux.clone(),
        modules: args.modules.clone(),
        ..crate::wanted::wanted(&args.which, args.common.cache_dir.as_deref())?
    })
}

fn fuzz(args: &BuildArgs) -> Result<u8> {
    u8::try_from(args.fuzz).map_err(|_| {
        Diagnosis::new(
            &codes::FUZZ,
            format!("a fuzz of {} is too much", args.fuzz),
            "a hunk usually has three lines of context on each side; if all could differ, the \
             hunk could apply anywhere",
            "give 0, 1 or 2",
        )
        .into()
    })
}

/// The livepatch's name: `md-run` for `0001-md-run.patch`. Characters that a module name can't hold become dashes.
fn livepatch_name(args: &BuildArgs) -> Result<String> {
    let given = args.name.clone();
    let stem = || args.patches.first().and_then(|p| p.file_stem()).map(|s| s.to_string_lossy().into_owned());
    let raw = given.clone().or_else(stem).unwrap_or_default();
    let name: String = raw
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '-' })
        .collect();
    let name = name.trim_matches('-');
    let name = name.strip_prefix("livepatch-").or_else(|| name.strip_prefix("livepatch_")).unwrap_or(name);
    // MODULE_NAME_LEN is 64 - sizeof(long) on 64-bit (include/linux/module.h), including the NUL; "livepatch-" takes
    // 10.
    let fits = !name.is_empty() && name.len() + 10 < 56 && given.is_none_or(|given| given.ends_with(name));
    if fits {
        return Ok(name.to_owned());
    }
    Err(Diagnosis::new(
        &codes::BAD_NAME,
        format!("{raw:?} can't be the name of a livepatch"),
        "a module's name holds letters, digits, dashes and underscores, and at most 55 of \
         them with \"livepatch-\"",
        "name it with --name",
    )
    .into())
}

fn output_path(args: &BuildArgs, name: &str) -> PathBuf {
    let file = format!("livepatch-{name}.ko");
    match &args.output {
        None => PathBuf::from(file),
        Some(path) if path.is_dir() || path.as_os_str().to_string_lossy().ends_with('/') => path.join(file),
        Some(path) => path.clone(),
    }
}

/// Shows the table of functions and how to load the module.
fn show(args: &BuildArgs, results: &Results, output: &Path, out: &mut impl Write) -> Result<()> {
    let mut rows = vec![["object", "function", "why"].map(str::to_owned).to_vec()];
    for finding in &results.changes {
        rows.push(row(finding));
        if args.common.verbose {
            rows.extend(finding.reasons.iter().map(|r| vec![String::new(), String::new(), format!("  {r}")]));
        }
    }
    let mut text = format!("\n{}", render::table(&rows));
    if !results.left_out.is_empty() {
        let mut left = vec![["left out", "", ""].map(str::to_owned).to_vec()];
        left.extend(results.left_out.iter().map(row));
        text.push_str(&format!("\n{}", render::table(&left)));
    }
    text.push_str(&format!("\n{}   load it with: klpx load {}\n", output.display(), output.display()));
    out.write_all(text.as_bytes())
        .map_err(|e| Diagnosis::io("write", Path::new("standard output"), &e).into())
}

fn row(finding: &Finding) -> Vec<String> {
    let why = match finding.kind {
        ChangeKind::Changed | ChangeKind::New | ChangeKind::Removed => finding.why.clone(),
    };
    vec![finding.object.clone(), finding.function.clone(), why]
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{KlpxCli, KlpxCommand};

    fn name_of(args: &[&str]) -> Result<String> {
        let cli = KlpxCli::parse_from(["klpx", "build"].iter().chain(args));
        let KlpxCommand::Build(args) = cli.command else { unreachable!("build was asked for") };
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
