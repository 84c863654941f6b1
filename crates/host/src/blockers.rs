//! Tasks that keep a transition from ending: their stacks, the functions that they sleep in, and the patched functions
//! on their stacks (Documentation/livepatch/livepatch.rst, "Consistency model").

use std::collections::BTreeSet;

use serde::Serialize;

use crate::host::Host;
use crate::loaded;

/// How many tasks klpx examines, and how many frames of each. Further tasks are only counted.
const TASKS: usize = 16;
const FRAMES: usize = 24;

/// A task that is not yet in the transition's target state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Blocker {
    /// Process and thread.
    pub(crate) pid: u32,
    pub(crate) tid: u32,
    /// The task's name.
    pub(crate) name: String,
    /// One letter, as ps shows it.
    pub(crate) state: Option<char>,
    /// The function that the task sleeps in.
    pub(crate) sleeps_in: Option<String>,
    /// The innermost patched function on the task's stack.
    pub(crate) holds: Option<String>,
    /// The task's frames, innermost first, without addresses.
    pub(crate) stack: Vec<String>,
}

/// The blocking tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Blockers {
    /// The first tasks, sorted by process.
    pub(crate) tasks: Vec<Blocker>,
    /// The number of all blocking tasks.
    pub(crate) count: usize,
}

/// Examines every task. `target` is the state that tasks must reach: true for patched.
pub(crate) fn find(host: &Host, livepatch: &str, target: bool) -> Blockers {
    let functions: BTreeSet<String> = loaded::find_loaded(host, livepatch)
        .into_iter()
        .flat_map(|loaded| loaded.functions)
        .filter_map(|function| Some(function.function.split_once(',')?.0.to_owned()))
        .collect();
    // KLP_UNPATCHED, KLP_PATCHED. A task that is in no transition has -1 (include/linux/livepatch.h).
    let other = if target { "0" } else { "1" };
    let mut found = Blockers::default();
    for pid in numbers(host, "/proc") {
        for tid in numbers(host, &format!("/proc/{pid}/task")) {
            let folder = format!("/proc/{pid}/task/{tid}");
            if host.text(&format!("{folder}/patch_state")).as_deref() != Some(other) {
                continue;
            }
            found.count += 1;
            if found.tasks.len() < TASKS {
                found.tasks.push(blocker(host, pid, tid, &functions));
            }
        }
    }
    found
}

/// The names in a folder that are numbers, sorted.
fn numbers(host: &Host, folder: &str) -> Vec<u32> {
    let mut found: Vec<u32> = host.names(folder).iter().filter_map(|name| name.parse().ok()).collect();
    found.sort_unstable();
    found
}

fn blocker(host: &Host, pid: u32, tid: u32, functions: &BTreeSet<String>) -> Blocker {
    let text = |file: &str| host.text(&format!("/proc/{pid}/task/{tid}/{file}"));
    let frames = text("stack").unwrap_or_default();
    let stack: Vec<String> = frames.lines().filter_map(frame).take(FRAMES).collect();
    let name_of = |frame: &String| frame.split(['+', ' ']).next().unwrap_or_default().to_owned();
    // A task's name may contain any character, even a parenthesis. The state follows the last parenthesis (proc(5),
    // stat).
    let stat = text("stat").unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    let waits = text("wchan").filter(|name| !name.is_empty() && name != "0");
    let sleeps = state != Some('R');
    Blocker {
        pid,
        tid,
        name: text("comm").unwrap_or_default(),
        state,
        sleeps_in: stack.first().map(name_of).or(waits).filter(|_| sleeps),
        holds: stack.iter().map(name_of).find(|name| functions.contains(name)),
        stack,
    }
}

/// `f+0x1/0x2 [module]` for `[<0>] f+0x1/0x2 [module]`.
fn frame(line: &str) -> Option<String> {
    let (_, frame) = line.split_once("] ")?;
    Some(frame.trim().to_owned()).filter(|frame| !frame.is_empty())
}

impl Blocker {
    fn title(&self) -> String {
        let what = match (&self.holds, &self.sleeps_in, self.state) {
            (Some(function), Some(waits), _) if function != waits => {
                format!("is in {function}, sleeps in {waits}")
            }
            (Some(function), ..) => format!("is in {function}"),
            (None, Some(waits), _) => format!("sleeps in {waits}"),
            (None, None, Some('R')) => "is running".to_owned(),
            (None, None, _) => "its stack can't be read".to_owned(),
        };
        let thread = if self.tid == self.pid { String::new() } else { format!(", thread {}", self.tid) };
        format!("{} (process {}{thread}) {what}", self.name, self.pid)
    }
}

impl Blockers {
    /// The tasks and their stacks as lines for people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for task in &self.tasks {
            lines.push(task.title());
            lines.extend(task.stack.iter().map(|frame| format!("    {frame}")));
        }
        let more = self.count - self.tasks.len();
        if more > 0 {
            lines.push(format!("and {}", klpx_diagnosis::words::plural(more, "more task")));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Machine, Task};

    #[test]
    fn a_task_that_blocks_is_named_with_what_it_is_in() {
        let machine = Machine::new();
        machine.livepatch("a", "1", "1", &["f"]);
        let stack =
            "[<0>] do_nanosleep+0x1/0x2\n[<0>] f+0x3/0x40\n[<0>] entry_SYSCALL_64_after_hwframe+0x76/0x7e\n";
        machine.task(&Task::sleeping(7, "a (b) c\u{1b}[2J", stack));
        machine.task(&Task { tid: 9, state: "R", ..Task::sleeping(7, "other", "") });
        machine.task(&Task { patched: "1", ..Task::sleeping(12, "patched", stack) });
        machine.task(&Task { patched: "-1", ..Task::sleeping(13, "idle", stack) });
        let found = find(&machine.host(), "a", true);
        assert_eq!(found.count, 2);
        let first = &found.tasks[0];
        assert_eq!((first.sleeps_in.as_deref(), first.holds.as_deref()), (Some("do_nanosleep"), Some("f")));
        assert_eq!(first.state, Some('S'));
        let lines = found.lines();
        assert_eq!(lines[0], "a (b) c\u{1b}[2J (process 7) is in f, sleeps in do_nanosleep");
        assert_eq!(lines[2], "    f+0x3/0x40");
        assert_eq!(lines[4], "other (process 7, thread 9) is running");
        let back = find(&machine.host(), "a", false);
        assert_eq!(back.tasks.iter().map(|task| task.pid).collect::<Vec<_>>(), [12]);
    }

    #[test]
    fn many_tasks_are_counted() {
        let machine = Machine::new();
        machine.livepatch("a", "1", "1", &["f"]);
        (1..40).for_each(|pid| machine.task(&Task::sleeping(pid, "t", "")));
        let found = find(&machine.host(), "a", true);
        assert_eq!((found.count, found.tasks.len()), (39, TASKS));
        assert_eq!(found.lines().last().map(String::as_str), Some("and 23 more tasks"));
        assert_eq!(found.lines()[0], "t (process 1) its stack can't be read");
    }
}
