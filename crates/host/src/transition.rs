//! Waits for a transition. A transition that does not end is reversed, or forced if the user asked for force
//! (Documentation/livepatch/livepatch.rst).

use std::io;
use std::time::Duration;

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Result, codes, words};

use crate::args::WaitingArgs;
use crate::blockers::{self, Blockers};
use crate::host::{Host, failed, pause};
use crate::loaded::{self, LivepatchState};
use crate::report::CommandOutput;

/// How often klpx-host reads sysfs.
const POLL: Duration = Duration::from_millis(50);
/// The time after which the blocking tasks are named. Most transitions take less than two seconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a forced transition may take, and how long a module may stay in use.
const SOON: Duration = Duration::from_secs(20);

/// How a transition ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TransitionEnd {
    /// Every task reached the target state.
    Through,
    /// The transition was forced.
    Forced,
    /// The transition was reversed.
    Reverted(Blockers),
    /// The transition ends in neither direction.
    Stuck(Blockers),
}

/// The transition of one livepatch.
pub(crate) struct Transition<'a> {
    pub(crate) host: &'a Host,
    pub(crate) name: &'a str,
    pub(crate) waiting: &'a WaitingArgs,
    /// The target state: true for enabled.
    pub(crate) target: bool,
}

impl Transition<'_> {
    /// Waits for the transition's end, of any kind.
    ///
    /// # Errors
    /// The error of the system.
    pub(crate) fn end(&self, report: &mut CommandOutput<'_>) -> Result<TransitionEnd> {
        if self.comes_to(self.target, self.waiting.timeout(), report)? {
            return Ok(TransitionEnd::Through);
        }
        let blockers = blockers::find(self.host, self.name, self.target);
        if self.waiting.force {
            report.note(
                "the transition is forced: tasks may run old and new functions mixed, and modules of it may stay until the next boot",
            )?;
            self.write_control("force", "1", self.target)?;
            return Ok(match self.comes_to(self.target, SOON, report)? {
                true => TransitionEnd::Forced,
                false => TransitionEnd::Stuck(blockers),
            });
        }
        report.line(&format!("{}: the transition does not end, it is taken back", self.name))?;
        self.write_control("enabled", if self.target { "0" } else { "1" }, !self.target)?;
        Ok(match self.comes_to(!self.target, self.waiting.timeout(), report)? {
            true => TransitionEnd::Reverted(blockers),
            false => TransitionEnd::Stuck(blockers::find(self.host, self.name, !self.target)),
        })
    }

    /// Writes to a file of the livepatch. The write may fail if the transition ended before it: the file may be gone by
    /// then.
    fn write_control(&self, file: &str, text: &str, target: bool) -> Result<()> {
        let written = self.host.write(&format!("{}/{file}", loaded::folder(self.name)), text);
        if self.is_at(target) { Ok(()) } else { written }
    }

    /// Waits until the livepatch is enabled or disabled. Returns false after the time limit. Names blocking tasks once.
    fn comes_to(&self, target: bool, limit: Duration, report: &mut CommandOutput<'_>) -> Result<bool> {
        let start = self.host.kernel.clock();
        let mut named = false;
        loop {
            if self.is_at(target) {
                return Ok(true);
            }
            let passed = pause(self.host, POLL).saturating_sub(start);
            if !named && passed >= PATIENCE.min(limit) {
                named = true;
                self.name_blockers(target, passed, report)?;
            }
            if passed >= limit {
                return Ok(self.is_at(target));
            }
        }
    }

    fn is_at(&self, target: bool) -> bool {
        match loaded::find_loaded(self.host, self.name) {
            None => !target,
            Some(loaded) => {
                loaded.state == if target { LivepatchState::Enabled } else { LivepatchState::Disabled }
            }
        }
    }

    fn name_blockers(&self, target: bool, passed: Duration, report: &mut CommandOutput<'_>) -> Result<()> {
        let blockers = blockers::find(self.host, self.name, target);
        let tasks = words::plural(blockers.count, "task");
        report.line(&format!("{}: after {} s it waits for {tasks}", self.name, passed.as_secs()))?;
        for line in blockers.lines() {
            report.line(&format!("    {line}"))?;
        }
        Ok(())
    }

    /// The diagnosis of a transition that did not end as wanted.
    pub(crate) fn failure(&self, end: &TransitionEnd) -> Option<Diagnosis> {
        let seconds = self.waiting.timeout;
        let (code, what, blockers) = match end {
            TransitionEnd::Through | TransitionEnd::Forced => return None,
            TransitionEnd::Reverted(blockers) => {
                let what = match self.target {
                    true => "the livepatch is not loaded: its transition did not end, and was taken back",
                    false => "the livepatch stays enabled: its transition back did not end",
                };
                (&codes::TRANSITION_REVERTED, what, blockers)
            }
            TransitionEnd::Stuck(blockers) => {
                (&codes::TRANSITION_STUCK, "the transition does not end, nor can it be taken back", blockers)
            }
        };
        let tasks = words::plural(blockers.count, "task");
        Some(
            Diagnosis::new(
                code,
                what,
                format!("after {seconds} s {tasks} had not left the functions that are patched"),
                "stop or wake these tasks, or allow more time with --timeout, and try again; \
                 --force ends it by risk",
            )
            .place(DiagnosisPlace::symbol(self.name))
            .detail(blockers.lines()),
        )
    }
}

/// Removes the module of a livepatch that is disabled.
///
/// # Errors
/// `klpx::module-in-use` if the module is still in use after a while. The kernel counts its users.
pub(crate) fn remove_module(host: &Host, name: &str) -> Result<()> {
    let start = host.kernel.clock();
    loop {
        let error = match host.kernel.remove(name) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        match error.raw_os_error() {
            Some(libc::ENOENT) => return Ok(()),
            Some(libc::EAGAIN | libc::EBUSY) if host.kernel.clock().saturating_sub(start) < SOON => {
                pause(host, POLL);
            }
            _ => return Err(in_use(host, name, &error).into()),
        }
    }
}

fn in_use(host: &Host, name: &str, error: &io::Error) -> Diagnosis {
    if error.kind() == io::ErrorKind::PermissionDenied {
        return failed("remove the module", &host.at(&format!("/sys/module/{name}")), error);
    }
    Diagnosis::new(
        &codes::MODULE_IN_USE,
        "the module can't be removed",
        format!("{error}; its livepatch is disabled, and does nothing"),
        "a livepatch whose transition was forced stays until the next boot; else try again",
    )
    .place(DiagnosisPlace::symbol(name))
}
