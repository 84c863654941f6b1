//! Reports replaced functions in which tasks stay: the transition to the livepatch waits for each of them.

use klpx_diagnosis::{Note, codes, words};
use klpx_klp_emit::image::Image;
use klpx_klp_emit::plan::Plan;
use klpx_klp_emit::transition::{Stay, Why, stays};
use serde::Serialize;

/// A replaced function that keeps the transition waiting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// The kernel object that the function belongs to: `vmlinux` or a module's name.
    pub object: String,
    /// The function's name.
    pub function: String,
    /// How long tasks stay in the function.
    pub kind: WaitKind,
    /// The evidence, in words.
    pub reason: String,
    /// The threads whose main function this is, named as in the kernel's source. Absent if the threads are not known,
    /// or if the function is no thread's main function.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thread: Option<String>,
}

/// How long tasks stay in a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WaitKind {
    /// As long as a kernel thread lives: until then the transition does not end.
    ThreadMain,
    /// For a long time, on most machines and at any moment.
    OnPath,
    /// Until what the tasks wait for happens.
    Waits,
}

/// The replaced functions that keep the transition waiting.
pub(crate) fn waiting(plan: &Plan, images: &[&Image<'_>]) -> Vec<Waiting> {
    stays(plan, images).into_iter().map(waiting_of).collect()
}

fn waiting_of(Stay { object, function, why }: Stay) -> Waiting {
    let (kind, reason, thread) = match why {
        Why::Main { threads } => {
            let thread = (!threads.is_empty()).then(|| threads.join(", "));
            (WaitKind::ThreadMain, "the main function of a kernel thread".to_owned(), thread)
        }
        Why::OnPath { doing } => (WaitKind::OnPath, format!("on the stack of tasks that {doing}"), None),
        Why::Waits { calls, in_thread } => {
            let which = if in_thread { ", as part of a kernel thread" } else { "" };
            (WaitKind::Waits, format!("calls {}{which}", calls.join(", ")), None)
        }
    };
    Waiting { object, function, kind, reason, thread }
}

/// The notes on functions that keep the transition waiting; `module` is the kernel's name of the livepatch.
pub(crate) fn notes(waiting: &[Waiting], module: &str) -> Vec<Note> {
    let of = |kind: WaitKind| waiting.iter().filter(move |one| one.kind == kind);
    let mut notes: Vec<Note> = of(WaitKind::ThreadMain).map(thread_note).collect();
    let others: Vec<&Waiting> = of(WaitKind::OnPath).chain(of(WaitKind::Waits)).collect();
    if !others.is_empty() {
        notes.push(sleep_note(&others));
    }
    if !notes.is_empty() {
        let text = format!(
            "do not end the transition by writing to /sys/kernel/livepatch/{module}/force: tasks then go on in replaced \
             functions, and the module can never be removed"
        );
        notes.push(Note::new(&codes::TRANSITION_FORCE, text));
    }
    notes
}

fn thread_note(one: &Waiting) -> Note {
    let (whose, which) = match &one.thread {
        Some(names) => (format!("kernel thread \"{names}\""), "such a thread"),
        None => ("a kernel thread".to_owned(), "the thread"),
    };
    let text = format!(
        "{} is the main function of {whose}, which does not leave it: the transition does not end as long as {which} lives. \
         Patch a function that it calls instead",
        one.function
    );
    Note::new(&codes::THREAD_MAIN, text)
}

fn sleep_note(others: &[&Waiting]) -> Note {
    /// How many functions a note names; the report has all of them.
    const SHOWN: usize = 6;
    let mut named: Vec<String> =
        others.iter().take(SHOWN).map(|one| format!("{} ({})", one.function, one.reason)).collect();
    if others.len() > SHOWN {
        named.push(format!("{} more", words::count(others.len() - SHOWN)));
    }
    let them = if others.len() == 1 { "it" } else { "them" };
    let text = format!(
        "tasks may sleep for long in {}: the transition waits until they leave {them}. Every 15 seconds the kernel interrupts \
         the tasks that it waits for, which ends interruptible sleeps only; a kernel thread has to be woken by what it waits \
         for",
        named.join("; ")
    );
    Note::new(&codes::LONG_SLEEP, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stay(function: &str, why: Why) -> Waiting {
        waiting_of(Stay { object: "vmlinux".to_owned(), function: function.to_owned(), why })
    }

    fn main_of(function: &str, threads: &[&str]) -> Waiting {
        let threads = threads.iter().map(|name| (*name).to_owned()).collect();
        stay(function, Why::Main { threads })
    }

    #[test]
    fn the_report_says_what_tells() {
        let json = |one: &Waiting| serde_json::to_string(one).expect("JSON");
        assert_eq!(
            json(&main_of("kswapd", &["kswapd%d"])),
            "{\"object\":\"vmlinux\",\"function\":\"kswapd\",\"kind\":\"thread-main\",\
             \"reason\":\"the main function of a kernel thread\",\"thread\":\"kswapd%d\"}"
        );
        let waits = stay("f", Why::Waits { calls: vec!["schedule", "wait_woken"], in_thread: true });
        assert_eq!(
            json(&waits),
            "{\"object\":\"vmlinux\",\"function\":\"f\",\"kind\":\"waits\",\
             \"reason\":\"calls schedule, wait_woken, as part of a kernel thread\"}"
        );
        assert!(json(&stay("g", Why::OnPath { doing: "wait" })).contains("\"kind\":\"on-path\""));
    }

    #[test]
    fn a_thread_has_a_note_of_its_own_and_sleepers_share_one() {
        assert_eq!(notes(&[], "livepatch_x"), []);
        let all = [
            stay("ep_poll", Why::OnPath { doing: "wait in epoll_wait" }),
            main_of("kswapd", &["kswapd%d"]),
            main_of("worker", &[]),
            stay("f", Why::Waits { calls: vec!["schedule"], in_thread: false }),
        ];
        let notes = notes(&all, "livepatch_x");
        assert_eq!(notes.len(), 4, "{notes:#?}");
        assert!(
            notes[0].starts_with("kswapd is the main function of kernel thread \"kswapd%d\","),
            "{notes:#?}"
        );
        assert!(notes[1].starts_with("worker is the main function of a kernel thread,"), "{notes:#?}");
        assert!(
            notes[2].starts_with(
                "tasks may sleep for long in ep_poll (on the stack of tasks that wait in epoll_wait); f (calls schedule): \
                 the transition waits until they leave them."
            ),
            "{notes:#?}"
        );
        assert!(notes[3].contains("/sys/kernel/livepatch/livepatch_x/force:"), "{notes:#?}");
    }

    #[test]
    fn a_note_names_a_few_functions() {
        let many: Vec<Waiting> =
            (0..9).map(|n| stay(&format!("f{n}"), Why::OnPath { doing: "wait" })).collect();
        let notes = notes(&many, "livepatch_x");
        assert!(notes[0].contains("f5 (on the stack of tasks that wait); 3 more:"), "{notes:#?}");
        assert!(!notes[0].contains("f6"), "{notes:#?}");
    }
}
