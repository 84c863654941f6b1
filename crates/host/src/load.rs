//! Loads one livepatch: checks, crash mark, the kernel's load, its transition, and the removal of replaced livepatches.

use klpx_diagnosis::{Failure, Result};
use serde_json::{Value, json};

use crate::args::WaitingArgs;
use crate::checks::{self, CheckResult};
use crate::file::{Livepatch, Opened};
use crate::host::Host;
use crate::loaded::{self, LivepatchState};
use crate::report::CommandOutput;
use crate::transition::{Transition, TransitionEnd, remove_module};
use crate::{mark, record, refusal};

/// How a livepatch is loaded.
pub(crate) struct LoadRequest<'a> {
    pub(crate) host: &'a Host,
    pub(crate) waiting: &'a WaitingArgs,
    /// Load the livepatch even if the machine once went down during its load.
    pub(crate) retry: bool,
    /// Refuse the load if no crash mark can be written.
    pub(crate) must_mark: bool,
}

/// The result of a load: the value for programs, and the failure if there was one after the kernel had accepted the
/// module.
pub(crate) struct LoadResult {
    pub(crate) value: Value,
    pub(crate) failure: Option<Failure>,
}

impl LoadRequest<'_> {
    /// Loads a livepatch. The caller holds the lock.
    ///
    /// # Errors
    /// A refusal by a check or by the kernel.
    pub(crate) fn run(&self, opened: &Opened, report: &mut CommandOutput<'_>) -> Result<LoadResult> {
        let (host, livepatch) = (self.host, &opened.livepatch);
        match loaded::find_loaded(host, &livepatch.name).filter(|loaded| loaded.is_of(livepatch)) {
            Some(loaded) if loaded.state == LivepatchState::Enabled => {
                report.line(&format!("{} is loaded already", livepatch.name))?;
                let value = self.value(livepatch, "already-loaded", 0.0, &[]);
                return Ok(LoadResult { value, failure: None });
            }
            // An earlier klpx-host was killed while it waited.
            Some(loaded) if loaded.state == LivepatchState::Enabling => {
                return self.finish(livepatch, &[], report);
            }
            _ => {}
        }
        self.check(livepatch, report)?;
        let before: Vec<String> = loaded::active(host).into_iter().map(|loaded| loaded.name).collect();
        let mut log = Vec::new();
        if let Err(error) = host.kernel.load(&opened.file, opened.unpacked.as_deref(), &mut log) {
            // The kernel is unchanged, and the machine did not go down.
            mark::clear(host, &livepatch.name)?;
            return Err(refusal::explained(&livepatch.name, &error, log).into());
        }
        self.finish(livepatch, &before, report)
    }

    fn check(&self, livepatch: &Livepatch, report: &mut CommandOutput<'_>) -> Result<()> {
        let findings = checks::run(self.host, livepatch);
        for (name, finding) in &findings {
            if let CheckResult::Unknown(why) = finding {
                report.note(format!("not checked: {name}: {why}"))?;
            }
        }
        Failure::all(checks::refusals(findings))?;
        match self.retry {
            true => mark::clear(self.host, &livepatch.name)?,
            false => mark::check(self.host, livepatch)?,
        }
        match mark::set(self.host, livepatch) {
            Err(failure) if self.must_mark => Err(failure),
            Err(failure) => report.note(format!("a crash would not be seen at the next boot: {failure}")),
            Ok(()) => Ok(()),
        }
    }

    /// Waits for the transition and cleans up. `before` are the livepatches that were active before the load.
    fn finish(
        &self,
        livepatch: &Livepatch,
        before: &[String],
        report: &mut CommandOutput<'_>,
    ) -> Result<LoadResult> {
        let (host, name) = (self.host, livepatch.name.as_str());
        let transition = Transition { host, name, waiting: self.waiting, target: true };
        let start = host.kernel.clock();
        let end = transition.end(report)?;
        let seconds = host.kernel.clock().saturating_sub(start).as_secs_f64();
        if let Some(diagnosis) = transition.failure(&end) {
            let mut value = self.value(livepatch, "stuck", seconds, &[]);
            if let TransitionEnd::Reverted(blockers) = &end {
                remove_module(host, name)?;
                mark::clear(host, name)?;
                value["outcome"] = json!("reverted");
                value["blockers"] = json!(blockers);
            }
            return Ok(LoadResult { value, failure: Some(diagnosis.into()) });
        }
        mark::clear(host, name)?;
        if let Err(failure) = record::put(host, livepatch, end == TransitionEnd::Forced) {
            report.note(format!("klpx-host status will not know since when it is enabled: {failure}"))?;
        }
        let replaced = self.remove_replaced(before, report)?;
        report.line(&format!("{name} is loaded; its transition took {seconds:.1} s"))?;
        if !replaced.is_empty() {
            report.line(&format!("it replaced {}", replaced.join(", ")))?;
        }
        let outcome = if end == TransitionEnd::Forced { "forced" } else { "loaded" };
        Ok(LoadResult { value: self.value(livepatch, outcome, seconds, &replaced), failure: None })
    }

    /// Removes the modules of replaced livepatches, which have no effect any more.
    fn remove_replaced(&self, before: &[String], report: &mut CommandOutput<'_>) -> Result<Vec<String>> {
        let gone = |name: &&String| loaded::find_loaded(self.host, name).is_none();
        let replaced: Vec<String> = before.iter().filter(gone).cloned().collect();
        for name in &replaced {
            record::clear(self.host, name);
            if let Err(failure) = remove_module(self.host, name) {
                report.note(failure.to_string())?;
            }
        }
        Ok(replaced)
    }

    fn value(&self, livepatch: &Livepatch, outcome: &str, seconds: f64, replaced: &[String]) -> Value {
        json!({
            "name": livepatch.name,
            "sha256": livepatch.sha256,
            "outcome": outcome,
            "transition_seconds": seconds,
            "replaced": replaced,
        })
    }
}
