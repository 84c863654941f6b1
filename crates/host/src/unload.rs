//! Unloads a livepatch.

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Failure, Result, codes};
use serde_json::{Value, json};

use crate::args::WaitingArgs;
use crate::host::Host;
use crate::loaded::{self, LivepatchState};
use crate::report::CommandOutput;
use crate::transition::{Transition, TransitionEnd, remove_module};
use crate::{mark, record};

/// Disables a livepatch, waits for its transition, and removes its module. The caller holds the lock. A failure after
/// the request to disable is returned together with the value for programs.
///
/// # Errors
/// `klpx::not-loaded`, or the error of the system.
pub(crate) fn run(
    host: &Host,
    name: &str,
    waiting: &WaitingArgs,
    report: &mut CommandOutput<'_>,
) -> Result<(Value, Option<Failure>)> {
    let loaded = loaded::find_loaded(host, name);
    if loaded.is_none() && !loaded::is_left(host, name) {
        return Err(Diagnosis::new(
            &codes::NOT_LOADED,
            "no such livepatch is loaded",
            "/sys has neither a livepatch nor a module of this name",
            "klpx-host status lists those that are",
        )
        .place(DiagnosisPlace::symbol(name))
        .into());
    }
    let start = host.kernel.clock();
    let transition = Transition { host, name, waiting, target: false };
    let mut end = TransitionEnd::Through;
    if let Some(loaded) = loaded {
        if matches!(loaded.state, LivepatchState::Enabled | LivepatchState::Enabling) {
            host.write(&format!("{}/enabled", loaded::folder(name)), "0")?;
        }
        end = transition.end(report)?;
    }
    let seconds = host.kernel.clock().saturating_sub(start).as_secs_f64();
    if let Some(diagnosis) = transition.failure(&end) {
        let (outcome, blockers) = match &end {
            TransitionEnd::Reverted(blockers) => ("reverted", blockers),
            TransitionEnd::Stuck(blockers) => ("stuck", blockers),
            TransitionEnd::Through | TransitionEnd::Forced => return Err(diagnosis.into()),
        };
        let value =
            json!({"name": name, "outcome": outcome, "transition_seconds": seconds, "blockers": blockers});
        return Ok((value, Some(diagnosis.into())));
    }
    record::clear(host, name);
    mark::clear(host, name)?;
    let outcome = if end == TransitionEnd::Forced {
        report.line(&format!("{name} is disabled; its module stays until the next boot"))?;
        "forced"
    } else {
        remove_module(host, name)?;
        report.line(&format!("{name} is unloaded"))?;
        "unloaded"
    };
    Ok((json!({"name": name, "outcome": outcome, "transition_seconds": seconds}), None))
}
