//! Livepatches on a host: load, watch, unload, and install them for the next boot.
//!
//! Owns the requests to the running kernel through sysfs, proc and the module system calls. Never builds or changes a
//! module, never forces a transition unless asked, never unloads a livepatch unless asked.

mod args;
mod blockers;
mod boot;
mod checks;
mod exit;
mod file;
mod files;
mod host;
mod installed;
mod load;
mod loaded;
mod mark;
mod record;
mod refusal;
mod report;
mod schema;
mod status;
mod system;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod transition;
mod unload;

use std::io::Write;
use std::path::Path;

use klpx_diagnosis::{Diagnosis, Failure, Result, codes};
use klpx_terminal::render;
use serde_json::{Value, json};

pub use args::{
    CheckArgs, HostCli, HostCommand, Install, JsonArgs, LoadArgs, Uninstall, Unload, WaitingArgs,
};
pub use exit::{STATUS_CODES, StatusCode, exit_codes};
pub use host::Host;
pub use schema::SCHEMAS;

use checks::CheckResult;
use file::Opened;
use report::CommandOutput;

/// Runs a command on this machine and returns the exit code of a command that ran as intended.
///
/// # Errors
/// The reason why the command stopped.
pub fn run(command: &HostCommand, out: &mut impl Write) -> Result<u8> {
    run_on(&Host::this(), command, out)
}

/// Runs a command on a machine.
///
/// # Errors
/// The reason why the command stopped.
pub fn run_on(host: &Host, command: &HostCommand, out: &mut impl Write) -> Result<u8> {
    match command {
        HostCommand::Load(args) => load_command(host, args, &mut CommandOutput::new(out, args.json)),
        HostCommand::Unload(args) => {
            let report = &mut CommandOutput::new(out, args.json);
            let name = host::name(&args.name)?;
            let _lock = record::lock(host)?;
            let (value, failure) = unload::run(host, &name, &args.waiting, report)?;
            ended(value, failure, report)
        }
        HostCommand::Status(args) => status::run(host, &mut CommandOutput::new(out, args.json)),
        HostCommand::Check(args) => check(host, &args.module, &mut CommandOutput::new(out, args.json)),
        HostCommand::List(args) => installed::list(host, &mut CommandOutput::new(out, args.json)).map(|()| 0),
        HostCommand::Install(args) => {
            installed::install(host, &args.module, &mut CommandOutput::new(out, args.json)).map(|()| 0)
        }
        HostCommand::Uninstall(args) => uninstall(host, args, &mut CommandOutput::new(out, args.json)),
    }
}

/// Prints the result of a command, then returns the command's failure, if any.
fn ended(value: Value, failure: Option<Failure>, report: &mut CommandOutput<'_>) -> Result<u8> {
    report.result(value)?;
    failure.map_or(Ok(0), Err)
}

fn load_command(host: &Host, args: &LoadArgs, report: &mut CommandOutput<'_>) -> Result<u8> {
    let Some(module) = &args.module else {
        let _lock = record::lock(host)?;
        mark::settle(host)?;
        return boot::run(host, &args.waiting, report).map(|()| 0);
    };
    let opened = open(host, module)?;
    let _lock = record::lock(host)?;
    mark::settle(host)?;
    let load = load::LoadRequest { host, waiting: &args.waiting, retry: args.retry, must_mark: false };
    let loaded = load.run(&opened, report)?;
    ended(loaded.value, loaded.failure, report)
}

/// Opens a file, or the installed livepatch of that name.
fn open(host: &Host, module: &Path) -> Result<Opened> {
    match (installed::as_file(module), module.to_str()) {
        (None, Some(name)) => file::open(&installed::find(host, &host.release()?, &host::name(name)?)?),
        _ => file::open(module),
    }
}

fn check(host: &Host, module: &Path, report: &mut CommandOutput<'_>) -> Result<u8> {
    let opened = open(host, module)?;
    let livepatch = &opened.livepatch;
    let mut findings = checks::run(host, livepatch);
    findings.push(("crash mark", crash_mark(host, livepatch)));
    let rows: Vec<Vec<String>> = findings
        .iter()
        .map(|(name, finding)| {
            let (verdict, why) = verdict_and_reason(finding);
            vec![(*name).to_owned(), verdict.to_owned(), why]
        })
        .collect();
    report.line(&format!("{} ({})", livepatch.name, opened.path.display()))?;
    report.text(&render::table(&rows))?;
    let values: Vec<Value> = findings
        .iter()
        .map(|(name, finding)| {
            let (verdict, why) = verdict_and_reason(finding);
            let code =
                if let CheckResult::Refused(diagnosis) = finding { Some(diagnosis.code) } else { None };
            json!({"check": name, "verdict": verdict, "why": why, "code": code})
        })
        .collect();
    let refusals = checks::refusals(findings);
    report.result(json!({"livepatch": livepatch, "checks": values, "good": refusals.is_empty()}))?;
    Failure::all(refusals).map(|()| 0)
}

fn crash_mark(host: &Host, livepatch: &file::Livepatch) -> CheckResult {
    match mark::check(host, livepatch) {
        Ok(()) => CheckResult::Right("there is none".to_owned()),
        Err(failure) => match failure.diagnoses().next() {
            Some(diagnosis) => CheckResult::Refused(Box::new(diagnosis.clone())),
            None => CheckResult::Unknown(failure.to_string()),
        },
    }
}

/// The words for a finding: the verdict and the reason.
fn verdict_and_reason(finding: &CheckResult) -> (&'static str, String) {
    match finding {
        CheckResult::Right(why) => ("right", why.clone()),
        CheckResult::Unknown(why) => ("unknown", why.clone()),
        CheckResult::Refused(diagnosis) => ("refused", diagnosis.why.clone()),
    }
}

fn uninstall(host: &Host, args: &Uninstall, report: &mut CommandOutput<'_>) -> Result<u8> {
    let name = host::name(&args.name)?;
    let release = match &args.release {
        Some(release) if host::is_release(release) => release.clone(),
        Some(release) => {
            let what = format!("'{release}' is no kernel release");
            return Err(Diagnosis::new(
                &codes::USAGE,
                what,
                "a release has at most 64 letters, digits, dots, dashes, pluses, tildes and underscores",
                "write it as uname -r does",
            )
            .into());
        }
        None => host.release()?,
    };
    installed::uninstall(host, &release, &name, report)?;
    let mut value = json!({"name": name, "release": release});
    let mut failure = None;
    if args.unload {
        let _lock = record::lock(host)?;
        let (unloaded, stopped) = unload::run(host, &name, &args.waiting, report)?;
        value["unload"] = unloaded;
        failure = stopped;
    }
    ended(value, failure, report)
}
