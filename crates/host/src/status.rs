//! The loaded livepatches for people and for monitoring: the state of each, since when, and what it fixes.

use klpx_diagnosis::{Result, words};
use serde_json::{Value, json};

use crate::blockers;
use crate::exit::{CRASHED, DISABLED, NONE, TRANSITION};
use crate::host::Host;
use crate::loaded::{self, LivepatchState, LoadedLivepatch};
use crate::record::{self, LivepatchRecord};
use crate::report::CommandOutput;
use crate::{installed, mark};

/// Prints the state of every livepatch and returns the exit code.
///
/// # Errors
/// The error of the system.
pub(crate) fn run(host: &Host, report: &mut CommandOutput<'_>) -> Result<u8> {
    let loaded = loaded::all(host);
    let crashes = mark::of_crashes(host)?;
    let mut values = Vec::new();
    for livepatch in &loaded {
        values.push(livepatch_status(host, livepatch, report)?);
    }
    if loaded.is_empty() {
        report.line("no livepatch is loaded")?;
    }
    for mark in &crashes {
        let name = &mark.name;
        report.note(format!(
            "{name} was being loaded when the machine went down; it is not loaded until klpx-host load --retry {name}"
        ))?;
    }
    let has =
        |wanted: &dyn Fn(LivepatchState) -> bool| loaded.iter().any(|livepatch| wanted(livepatch.state));
    // The most urgent condition gives the exit code.
    let (code, _) = if !crashes.is_empty() {
        CRASHED
    } else if has(&LivepatchState::is_transition) {
        TRANSITION
    } else if has(&|state| state == LivepatchState::Disabled) {
        DISABLED
    } else if loaded.is_empty() {
        NONE
    } else {
        (0, "")
    };
    let crashes: Vec<Value> = crashes.iter().map(|mark| json!(mark)).collect();
    report.result(json!({"livepatches": values, "crash_marks": crashes, "exit_code": code}))?;
    Ok(code)
}

fn livepatch_status(
    host: &Host,
    livepatch: &LoadedLivepatch,
    report: &mut CommandOutput<'_>,
) -> Result<Value> {
    let name = &livepatch.name;
    let (record, since) = known_record(host, livepatch);
    let seconds = since.map(|since| host.kernel.date().saturating_sub(since));
    let mut title = format!("{name}: {}", livepatch.state.word());
    if let Some(seconds) = seconds.filter(|_| livepatch.state == LivepatchState::Enabled) {
        title.push_str(&format!(" for {}", duration(seconds)));
    }
    report.line(&title)?;
    if let Some(text) = &record.description {
        report.line(&format!("    {text}"))?;
    }
    if let Some(version) = &record.version {
        report.line(&format!("    version {version}"))?;
    }
    if !record.cves.is_empty() {
        report.line(&format!("    mends {}", record.cves.join(", ")))?;
    }
    if record.forced {
        report.line("    its transition was forced")?;
    }
    for function in &livepatch.functions {
        report.line(&format!("    {}/{}", function.object, function.function))?;
    }
    let blockers = livepatch
        .state
        .is_transition()
        .then(|| blockers::find(host, name, livepatch.state == LivepatchState::Enabling));
    if let Some(blockers) = &blockers {
        report.line(&format!("    waits for {}", words::plural(blockers.count, "task")))?;
        for line in blockers.lines() {
            report.line(&format!("        {line}"))?;
        }
    }
    Ok(json!({
        "name": name,
        "state": livepatch.state,
        "since": since,
        "build_id": livepatch.build_id,
        "description": record.description,
        "version": record.version,
        "cves": record.cves,
        "forced": record.forced,
        "functions": livepatch.functions,
        "blockers": blockers,
    }))
}

/// The known facts of a loaded livepatch: from the record of its load, or from an installed file of the same build. The
/// second value is the time since when the livepatch is enabled, if klpx-host enabled it.
fn known_record(host: &Host, livepatch: &LoadedLivepatch) -> (LivepatchRecord, Option<u64>) {
    if let Some(record) = record::read(host, &livepatch.name, livepatch.build_id.as_deref()) {
        let since = record.since;
        return (record, Some(since));
    }
    let release = host.release().unwrap_or_default();
    let file = installed::open_all(host, &release).into_iter().flatten();
    let file = file.map(|opened| opened.livepatch).find(|file| livepatch.is_of(file));
    let record = file.map(|file| LivepatchRecord {
        description: file.description,
        version: file.version,
        cves: file.cves,
        ..LivepatchRecord::default()
    });
    (record.unwrap_or_default(), None)
}

/// Seconds for people, in the largest unit and the next one.
fn duration(seconds: u64) -> String {
    let units =
        [("d", seconds / 86400), ("h", seconds / 3600 % 24), ("min", seconds / 60 % 60), ("s", seconds % 60)];
    let first = units.iter().position(|(_, n)| *n > 0).unwrap_or(units.len() - 1);
    let shown = units[first..].iter().take(2).filter(|(_, n)| *n > 0 || seconds == 0);
    shown.map(|(unit, n)| format!("{n} {unit}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_its_two_largest_units() {
        for (seconds, text) in
            [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3725, "1 h 2 min"), (86400, "1 d"), (90061, "1 d 1 h")]
        {
            assert_eq!(duration(seconds), text);
        }
    }
}
