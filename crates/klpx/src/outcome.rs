//! The outcome of trying a livepatch in a guest: as text, as JSON, as a failure.

use std::path::Path;

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Result, codes};
use klpx_guest::TaskVerdict;
use serde::Serialize;
use serde_json::json;

use crate::{json, render};

/// Schema version of the JSON.
const SCHEMA: u32 = 1;

/// The outcome of a trial run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TrialOutcome {
    /// The kernel's release.
    pub(crate) release: String,
    /// True if the guest ran without KVM.
    pub(crate) emulated: bool,
    /// How long the guest took.
    pub(crate) seconds: f64,
    /// Modules that the livepatch patches but that the kernel's packages lack.
    pub(crate) missing_modules: Vec<String>,
    /// The trials, in their order.
    pub(crate) trials: Vec<TrialResult>,
}

/// One trial.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TrialResult {
    /// The trial's name.
    pub(crate) name: String,
    /// True if the trial ran to its end and nothing went wrong.
    pub(crate) good: bool,
    /// Checks that passed.
    pub(crate) passed: Vec<String>,
    /// What went wrong.
    pub(crate) problems: Vec<String>,
}

impl TrialResult {
    /// A trial from a task's name, which begins with a number for the order.
    pub(crate) fn new(task: &str, verdict: &TaskVerdict) -> TrialResult {
        TrialResult {
            name: task.split_once(' ').map_or(task, |(_, title)| title).to_owned(),
            good: verdict.good(),
            passed: verdict.passed.clone(),
            problems: verdict.problems(),
        }
    }
}

impl TrialOutcome {
    /// Returns true if every trial is good.
    pub(crate) fn good(&self) -> bool {
        self.trials.iter().all(|trial| trial.good)
    }

    /// The outcome as text for people.
    pub(crate) fn text(&self) -> String {
        let mut rows = vec![["trial", "checks", ""].map(str::to_owned).to_vec()];
        for trial in &self.trials {
            let word = if trial.good { "ok" } else { "FAILED" };
            rows.push(vec![trial.name.clone(), trial.passed.len().to_string(), word.to_owned()]);
        }
        let mut text = format!(
            "Linux {}, {}, {:.1} s\n\n{}",
            self.release,
            if self.emulated { "emulated" } else { "with KVM" },
            self.seconds,
            render::table(&rows)
        );
        for name in &self.missing_modules {
            text.push_str(&format!("\nnot tried: module {name} is not among the kernel's modules\n"));
        }
        text
    }

    /// The outcome as JSON; `livepatch` is the module's name.
    pub(crate) fn json(&self, livepatch: &str) -> Result<String> {
        json::to_text(&json!({
            "schema": SCHEMA,
            "release": self.release,
            "livepatch": livepatch,
            "emulated": self.emulated,
            "seconds": self.seconds,
            "missing_modules": self.missing_modules,
            "trials": self.trials,
            "good": self.good(),
        }))
    }

    /// The failure of the command, if a trial went wrong.
    pub(crate) fn failure(&self, module: &Path) -> Option<Diagnosis> {
        let bad = self.trials.iter().filter(|trial| !trial.good);
        let lines = bad
            .flat_map(|trial| trial.problems.iter().map(move |problem| format!("{}: {problem}", trial.name)));
        let lines: Vec<String> = lines.collect();
        (!lines.is_empty()).then(|| {
            Diagnosis::new(
                &codes::TRIAL_FAILED,
                "the livepatch does not do in a guest what it should",
                "the checks below failed",
                "do not load it; --log FILE keeps the guest's console",
            )
            .place(DiagnosisPlace::file(module.display().to_string(), None))
            .detail(lines)
        })
    }
}
