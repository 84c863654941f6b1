//! The result of one scenario, refusal or robustness check on one kernel.

use std::time::Duration;

/// A result.
#[derive(Debug)]
pub(crate) struct Tried {
    /// The name of the check in the fixtures.
    pub(crate) name: String,
    /// What the check shows.
    pub(crate) title: String,
    /// Fixture kernel.
    pub(crate) kernel: &'static str,
    /// Number of checks that passed in a guest.
    pub(crate) passed: usize,
    /// Everything that went wrong.
    pub(crate) failures: Vec<String>,
    /// Time that klpx took.
    pub(crate) elapsed: Duration,
}

impl Tried {
    /// Returns true if nothing went wrong.
    pub(crate) fn good(&self) -> bool {
        self.failures.is_empty()
    }

    /// Returns the row of a table: kernel, name, verdict, time, title.
    pub(crate) fn row(&self) -> Vec<String> {
        let verdict = match (self.good(), self.passed) {
            (false, _) => "FAILED".to_owned(),
            (true, 0) => "ok".to_owned(),
            (true, checks) => format!("ok, {checks} checks"),
        };
        let time = format!("{:.1} s", self.elapsed.as_secs_f64());
        vec![self.kernel.to_owned(), self.name.clone(), verdict, time, self.title.clone()]
    }
}
