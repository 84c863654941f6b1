//! The output of a guest on its console: the lines of the protocol, the kernel's complaints, and the verdict on each
//! task.

use std::collections::BTreeMap;

use crate::Task;
use crate::qemu::GuestEnd;

/// The beginning of every protocol line.
const PREFIX: &str = "KLPX-GUEST: ";
/// Console lines that no healthy kernel writes. A task lists the complaints that it provokes.
const COMPLAINTS: &[&str] = &[
    "WARNING:",
    "BUG:",
    "Oops",
    "general protection fault",
    "Kernel panic",
    "unable to handle",
    "rcu_preempt detected stalls",
    "blocked for more than",
    "not found in symbol table",
    "unresolvable ambiguity",
    "livepatch: failed",
    "failed to apply patch",
    "Invalid relocation",
    "Unknown symbol",
    "unknown relocation",
];

/// The result of one task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskVerdict {
    /// Checks that passed.
    pub passed: Vec<String>,
    /// What went wrong. Empty after a success, if the task also finished.
    pub failures: Vec<String>,
    /// Lines that the script shows to the user.
    pub shown: Vec<String>,
    /// True if the task ran to its end.
    pub finished: bool,
}

impl TaskVerdict {
    /// Returns true if the task ran to its end, passed a check, and nothing went wrong.
    pub fn good(&self) -> bool {
        self.finished && self.failures.is_empty() && !self.passed.is_empty()
    }

    /// The failures. Empty if the verdict is good.
    pub fn problems(&self) -> Vec<String> {
        if self.good() || !self.failures.is_empty() {
            return self.failures.clone();
        }
        let why = if self.finished {
            "the guest's script checked nothing"
        } else {
            "the guest did not come to its end"
        };
        vec![why.to_owned()]
    }
}

/// Parses the console and collects the verdicts.
pub(crate) struct Protocol<'a> {
    tasks: &'a [&'a Task],
    verdicts: BTreeMap<String, TaskVerdict>,
    /// The running task, with a flag for each of its expected complaints that has come.
    current: Option<(&'a Task, Vec<bool>)>,
    /// The task that ended last. Complaints between two tasks, or after all tasks, count against this task.
    last: Option<&'a Task>,
    done: bool,
}

impl<'a> Protocol<'a> {
    pub(crate) fn new(tasks: &'a [&'a Task]) -> Protocol<'a> {
        Protocol { tasks, verdicts: BTreeMap::new(), current: None, last: None, done: false }
    }

    pub(crate) fn line(&mut self, line: &str) {
        let Some((_, message)) = line.split_once(PREFIX) else {
            self.kernel_line(line);
            return;
        };
        let (word, rest) = message.split_once(' ').unwrap_or((message, ""));
        match word {
            "begin" => self.begin(rest),
            "end" => self.end(),
            "done" => self.done = true,
            "ok" => {
                if let Some(verdict) = self.verdict() {
                    verdict.passed.push(rest.to_owned());
                }
            }
            "shown" => {
                if let Some(verdict) = self.verdict() {
                    verdict.shown.push(rest.to_owned());
                }
            }
            "FAIL" => self.fail(rest.to_owned()),
            "note" => {
                if let Some(verdict) = self.verdict() {
                    verdict.failures.push(format!("  {rest}"));
                }
            }
            _ => {}
        }
    }

    fn begin(&mut self, name: &str) {
        if let Some(task) = self.tasks.iter().find(|task| task.name == name) {
            self.verdicts.insert(name.to_owned(), TaskVerdict::default());
            self.current = Some((task, vec![false; task.console.len()]));
        }
    }

    fn end(&mut self) {
        let Some((task, seen)) = self.current.take() else { return };
        self.last = Some(task);
        let missing = task.console.iter().zip(&seen).filter(|(_, seen)| !**seen).map(|(text, _)| text);
        let missing: Vec<String> = missing.map(|text| format!("the console never said '{text}'")).collect();
        if let Some(verdict) = self.verdicts.get_mut(&task.name) {
            verdict.failures.extend(missing);
            verdict.finished = true;
        }
    }

    /// Handles a line that is not part of the protocol: a line of the kernel.
    fn kernel_line(&mut self, line: &str) {
        if self.current.is_none()
            && self.last.is_some_and(|task| task.console.iter().any(|text| line.contains(text)))
        {
            return;
        }
        if let Some((task, seen)) = &mut self.current {
            let mut expected = false;
            for (text, seen) in task.console.iter().zip(seen) {
                if line.contains(text) {
                    *seen = true;
                    expected = true;
                }
            }
            if expected {
                return;
            }
        }
        if COMPLAINTS.iter().any(|complaint| line.contains(complaint)) {
            self.fail(format!("kernel: {}", line.trim()));
        }
    }

    fn verdict(&mut self) -> Option<&mut TaskVerdict> {
        let task = self.current.as_ref().map(|(task, _)| *task).or(self.last)?;
        self.verdicts.get_mut(&task.name)
    }

    fn fail(&mut self, what: String) {
        if let Some(verdict) = self.verdict() {
            verdict.failures.push(what);
        }
    }

    pub(crate) fn finish(mut self, end: GuestEnd) -> BTreeMap<String, TaskVerdict> {
        if !self.done {
            self.fail(match end {
                GuestEnd::Exited => "the guest went down".to_owned(),
                GuestEnd::TimedOut => "the guest did not come to an end in time".to_owned(),
            });
        }
        self.verdicts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict_of(console: &[&str], lines: &[&str]) -> TaskVerdict {
        let task = Task {
            name: "01-a".to_owned(),
            script: String::new(),
            files: Vec::new(),
            console: console.iter().map(|&text| text.to_owned()).collect(),
        };
        let tasks = [&task];
        let mut protocol = Protocol::new(&tasks);
        for line in lines {
            protocol.line(line);
        }
        protocol.finish(GuestEnd::Exited).remove("01-a").unwrap_or_default()
    }

    const BEGIN: &str = "[    1.0] KLPX-GUEST: begin 01-a";
    const OK: &str = "[    1.0] KLPX-GUEST: ok loaded";
    const END: &str = "[    1.0] KLPX-GUEST: end 01-a";
    const DONE: &str = "[    1.0] KLPX-GUEST: done";
    const WARNING: &str = "[    1.0] WARNING: CPU: 0 PID: 1 at a.c:1 f+0x1/0x2";

    #[test]
    fn a_task_is_good_when_it_checked_something_and_ended() {
        assert!(verdict_of(&[], &[BEGIN, OK, END, DONE]).good());
        assert!(!verdict_of(&[], &[BEGIN, END, DONE]).good());
        assert!(!verdict_of(&[], &[BEGIN, OK]).good());
        assert!(!verdict_of(&[], &[]).good());
    }

    #[test]
    fn a_kernel_complaint_fails_the_task_that_runs() {
        assert!(!verdict_of(&[], &[BEGIN, OK, WARNING, END, DONE]).good());
        assert!(verdict_of(&[], &[WARNING, BEGIN, OK, END, DONE]).good());
    }

    #[test]
    fn a_complaint_after_the_end_of_a_task_is_its_own() {
        for lines in
            [&[BEGIN, OK, END, WARNING, DONE][..], &[BEGIN, OK, END, DONE, WARNING], &[BEGIN, OK, END]]
        {
            assert!(!verdict_of(&[], lines).good(), "{lines:?}");
        }
        assert!(verdict_of(&["at a.c:1"], &[BEGIN, OK, WARNING, END, WARNING, DONE]).good());
    }

    #[test]
    fn an_expected_complaint_must_come() {
        assert!(verdict_of(&["at a.c:1"], &[BEGIN, OK, WARNING, END, DONE]).good());
        assert!(!verdict_of(&["at a.c:1"], &[BEGIN, OK, END, DONE]).good());
    }

    #[test]
    fn a_guest_that_goes_down_fails_the_task_that_ran() {
        let verdict = verdict_of(&[], &[BEGIN, OK]);
        assert_eq!(verdict.failures, ["the guest went down"]);
    }
}
