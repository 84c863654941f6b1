//! `klpx doctor`: what klpx finds of a kernel, what is missing, and how to get it, without a patch.

use std::io::Write;
use std::path::Path;

use klpx_build_driver::Config;
use klpx_build_driver::packages::{
    self, Capability, KernelPiece, KernelSearch, Lack, MissingPiece, NeededPackage, Shortage, ToolWishes,
    WantedKernel,
};
use klpx_build_driver::process::Runner;
use klpx_diagnosis::{Diagnosis, Failure, Note, Result};
use serde::Serialize;

use crate::args::Doctor;
use crate::progress::{ProgressForm, ShownSteps};
use crate::wanted::wanted;
use crate::{json, render};

/// Schema version of the JSON.
const SCHEMA: u32 = 1;

/// Runs the command.
pub(crate) fn run(args: &Doctor, out: &mut impl Write) -> Result<()> {
    let wanted = WantedKernel {
        source: args.source.clone(),
        build_dir: args.build_dir.clone(),
        config: args.config.clone(),
        vmlinux: args.vmlinux.clone(),
        modules: args.modules.clone(),
        ..wanted(&args.which, args.cache_dir.as_deref())?
    };
    let runner = Runner::new();
    let survey = packages::survey(&wanted, &runner, &ShownSteps::new(ProgressForm::Text))?;
    let shortage = Shortage::find(&survey, &runner)?;
    let capability = capability(args, &survey, &runner)?;
    let mut problems = Vec::new();
    if !survey.is_complete() {
        // The table already shows what was found and what is missing.
        problems.push(Diagnosis { detail: Vec::new(), ..shortage.diagnosis(&survey) });
    } else {
        problems.extend(shortage.tools_diagnosis());
    }
    problems.extend(capability.iter().flat_map(|capability| capability.problems.iter().cloned()));
    let text = if args.json {
        json::to_text(&DoctorJson::new(&survey, &shortage, capability.as_ref(), &problems))?
    } else {
        text(&survey, &shortage, capability.as_ref(), problems.is_empty())
    };
    out.write_all(text.as_bytes())
        .map_err(|e| Failure::from(Diagnosis::io("write", Path::new("standard output"), &e)))?;
    Failure::all(problems)
}

/// What the configuration and the tools allow, if there is a configuration.
fn capability(args: &Doctor, survey: &KernelSearch, runner: &Runner) -> Result<Option<Capability>> {
    let Some(located) = survey.found.get(&KernelPiece::Config) else { return Ok(None) };
    let wishes = ToolWishes { llvm: args.llvm.as_deref(), cross_compile: args.cross_compile.as_deref() };
    let config = Config::read(&located.path)?;
    let version = survey.version.as_deref();
    packages::capability(&config, version, survey.distribution, wishes, runner).map(Some)
}

fn text(survey: &KernelSearch, shortage: &Shortage, capability: Option<&Capability>, ready: bool) -> String {
    let mut text = format!("Linux {}", survey.release);
    if let Some(row) = survey.distribution {
        text.push_str(&format!(" · {}", row.name));
    }
    if let Some(version) = &survey.package {
        text.push_str(&format!(" {version}"));
    }
    text.push_str(&format!(" · {}\n\n", survey.release_from));
    let mut rows: Vec<Vec<String>> = Vec::new();
    for piece in KernelPiece::ALL {
        rows.extend(match survey.found.get(&piece) {
            Some(located) => {
                Some(vec![piece.to_string(), located.path.display().to_string(), located.from.to_string()])
            }
            None => missing_row(shortage, piece),
        });
    }
    rows.extend(capability.map(compiler_row));
    rows.push(tools_row(&shortage.tools));
    rows.extend(capability.map(livepatch_row));
    text.push_str(&render::table(&rows));
    let mut lines: Vec<String> = Vec::new();
    lines.extend(
        survey.passed_over.iter().map(|(path, why)| format!("{} is not used: {why}", path.display())),
    );
    lines.extend(survey.notes.iter().map(ToString::to_string));
    if ready {
        lines.extend(optional(shortage));
    }
    if !lines.is_empty() {
        text.push('\n');
        lines.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
    }
    text.push_str(if ready { "\n  ready: klpx build PATCH\n" } else { "\n  not ready\n" });
    text
}

/// The table row of a missing piece that is required or can be installed. No row if the piece is optional and comes
/// with a package that an earlier row names.
fn missing_row(shortage: &Shortage, piece: KernelPiece) -> Option<Vec<String>> {
    let at = shortage.missing.iter().position(|missing| missing.piece == piece)?;
    let missing = &shortage.missing[at];
    let package = missing.package.as_ref();
    let named = |package| shortage.missing[..at].iter().any(|other| other.package.as_ref() == Some(package));
    if !missing.required && package.is_none_or(named) {
        return None;
    }
    let state = if missing.required { "missing" } else { "not there" };
    Some(vec![piece.to_string(), state.to_owned(), package.cloned().unwrap_or_default()])
}

fn compiler_row(capability: &Capability) -> Vec<String> {
    let (found, why) = match &capability.toolchain {
        Some(toolchain) => (toolchain.version_text.clone(), "the same version as the kernel's"),
        None => ("missing".to_owned(), capability.wanted_compiler.as_str()),
    };
    vec!["compiler".to_owned(), found, why.to_owned()]
}

fn tools_row(tools: &[Lack]) -> Vec<String> {
    let names: Vec<&str> = tools.iter().map(|lack| lack.name.as_str()).collect();
    let state =
        if names.is_empty() { "all there".to_owned() } else { format!("missing: {}", names.join(", ")) };
    vec!["build tools".to_owned(), state, "what the kernel's makefiles run".to_owned()]
}

fn livepatch_row(capability: &Capability) -> Vec<String> {
    let refused: Vec<&str> = capability
        .problems
        .iter()
        .filter(|problem| problem.class == klpx_diagnosis::Class::NotLivepatchable)
        .map(|problem| problem.what.as_str())
        .collect();
    let state = if refused.is_empty() { "possible".to_owned() } else { refused.join(", ") };
    vec!["livepatch".to_owned(), state, "by the configuration".to_owned()]
}

/// The install line for pieces that only some patches need.
fn optional(shortage: &Shortage) -> Option<String> {
    let line = shortage.install.as_ref()?;
    Some(format!("for patches of modules: {line}"))
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct DoctorJson<'a> {
    /// Schema version.
    schema: u32,
    /// klpx's own version.
    klpx: &'static str,
    /// True if a livepatch can be made.
    ready: bool,
    kernel: KernelReport<'a>,
    found: Vec<FoundPiece<'a>>,
    missing: &'a [MissingPiece],
    /// Programs and headers that the kernel's makefiles need and that are missing.
    tools: &'a [Lack],
    packages: &'a [NeededPackage],
    /// A command line to paste that installs the packages.
    install: Option<&'a str>,
    hints: &'a [String],
    passed_over: Vec<PassedOver<'a>>,
    compiler: Option<CompilerReport<'a>>,
    notes: &'a [Note],
    errors: &'a [Diagnosis],
}

#[derive(Debug, Serialize)]
struct KernelReport<'a> {
    release: &'a str,
    from: &'a str,
    distribution: Option<&'static str>,
    /// True if klpx was tried on kernels of this distribution.
    tried: bool,
    package: Option<&'a str>,
    source_version: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct FoundPiece<'a> {
    piece: KernelPiece,
    path: &'a Path,
    from: String,
}

#[derive(Debug, Serialize)]
struct PassedOver<'a> {
    path: &'a Path,
    why: &'a str,
}

#[derive(Debug, Serialize)]
struct CompilerReport<'a> {
    /// The compiler as the configuration names it.
    wanted: &'a str,
    /// The compiler as found on this machine.
    found: Option<&'a str>,
    program: Option<&'a str>,
}

impl<'a> DoctorJson<'a> {
    fn new(
        survey: &'a KernelSearch,
        shortage: &'a Shortage,
        capability: Option<&'a Capability>,
        errors: &'a [Diagnosis],
    ) -> DoctorJson<'a> {
        let found = survey.found.iter();
        let passed_over = survey.passed_over.iter();
        DoctorJson {
            schema: SCHEMA,
            klpx: env!("CARGO_PKG_VERSION"),
            ready: errors.is_empty(),
            kernel: KernelReport {
                release: &survey.release,
                from: &survey.release_from,
                distribution: survey.distribution.map(|row| row.name),
                tried: survey.distribution.is_some_and(|row| row.tried),
                package: survey.package.as_deref(),
                source_version: survey.version.as_deref(),
            },
            found: found
                .map(|(&piece, l)| FoundPiece { piece, path: &l.path, from: l.from.to_string() })
                .collect(),
            missing: &shortage.missing,
            tools: &shortage.tools,
            packages: &shortage.packages,
            install: shortage.install.as_deref(),
            hints: &shortage.hints,
            passed_over: passed_over.map(|(path, why)| PassedOver { path, why }).collect(),
            compiler: capability.map(|capability| CompilerReport {
                wanted: &capability.wanted_compiler,
                found: capability.toolchain.as_ref().map(|toolchain| toolchain.version_text.as_str()),
                program: capability.toolchain.as_ref().map(|toolchain| toolchain.cc.as_str()),
            }),
            notes: &survey.notes,
            errors,
        }
    }
}
