//! What the person who approves has to weigh: layouts, the transition, notes, tests.

use klpx_diagnosis::Note;
use klpx_engine::{Accepted, WaitKind, Waiting};
use maud::{Markup, html};

use super::part::{code, table, word};
use crate::outcome::TrialOutcome;
use crate::render::{count, plural};

/// How many differences of one layout are shown.
const DIFFERENCES: usize = 20;

/// The layouts that the user accepted after a review.
pub(super) fn layouts(accepted: &[Accepted]) -> Markup {
    html! {
        h2 id="layouts" { "Layouts" }
        @if accepted.is_empty() {
            p { "klpx found no type that changes its layout." }
        } @else {
            p { "These were named with " code { "--allow-layout" } ": objects made before the livepatch is loaded stay as they are, and a review has to show that this is harmless." }
            (table("Accepted layouts", &["what", "differences", "lies in"], &accepted.iter().map(|one| vec![
                code(&one.name),
                lines(&one.differences),
                lines(&one.inside),
            ]).collect::<Vec<_>>()))
        }
    }
}

fn lines(all: &[String]) -> Markup {
    html! {
        @for one in all.iter().take(DIFFERENCES) { div { (word(one)) } }
        @if all.len() > DIFFERENCES { div.soft { (count(all.len() - DIFFERENCES)) " more" } }
    }
}

/// The functions that keep the transition waiting.
pub(super) fn transition(waiting: &[Waiting]) -> Markup {
    html! {
        h2 id="transition" { "Transition" }
        @if waiting.is_empty() {
            p { "None of the replaced functions is known to keep tasks for long." }
        } @else {
            p { "The kernel switches a task over once none of the replaced functions is on its stack. It waits for tasks in these:" }
            (table("Functions that keep the transition waiting", &["function", "how long", "why", "thread"], &waiting.iter().map(|one| vec![
                html! { (code(&one.function)) @if one.object != "vmlinux" { " of " (word(&one.object)) } },
                html! { (how_long(one.kind)) },
                html! { (word(&one.reason)) },
                html! { (word(one.thread.as_deref().unwrap_or("–"))) },
            ]).collect::<Vec<_>>()))
        }
    }
}

fn how_long(kind: WaitKind) -> &'static str {
    match kind {
        WaitKind::ThreadMain => "as long as the thread lives",
        WaitKind::OnPath => "long, at any time",
        WaitKind::Waits => "until what it waits for happens",
    }
}

/// The notes with their codes.
pub(super) fn notes(notes: &[Note]) -> Markup {
    html! {
        h2 id="notes" { "Notes" }
        @if notes.is_empty() {
            p { "None." }
        } @else {
            (table("Things to know that stopped nothing", &["code", "note"], &notes.iter().map(|note| vec![
                code(note.code),
                // A note is a sentence by klpx itself and may be long.
                html! { (crate::terminal::word(&note.text)) },
            ]).collect::<Vec<_>>()))
        }
    }
}

/// The outcome of the trial in a guest.
pub(super) fn tests(tried: Option<&TrialOutcome>, failure: Option<&str>) -> Markup {
    html! {
        h2 id="tests" { "Tests" }
        @match (tried, failure) {
            (Some(outcome), _) => {
                p {
                    strong { (if outcome.good() { "Passed" } else { "Failed" }) }
                    " in a guest of Linux " (word(&outcome.release)) ", "
                    (if outcome.emulated { "emulated" } else { "with KVM" }) ", "
                    (format!("{:.1} s", outcome.seconds)) "."
                }
                (table("Trials", &["trial", "checks passed", "result", "problems"], &outcome.trials.iter().map(|trial| vec![
                    html! { (word(&trial.name)) },
                    html! { (count(trial.passed.len())) },
                    html! { @if trial.good { "ok" } @else { strong { "failed" } } },
                    lines(&trial.problems),
                ]).collect::<Vec<_>>()))
                @for name in &outcome.missing_modules {
                    p { "Not tried: module " (code(name)) " is not among the kernel's modules." }
                }
            }
            (None, Some(why)) => p { strong { "Not tried" } ": " (word(why)) "." },
            (None, None) => p { "Not tried. " code { "klpx build --test" } " or " code { "klpx test" } " loads the module in a guest of its kernel." },
        }
    }
}

/// The overview for the top of the page: each risk, in words, with a link.
pub(super) fn glance(
    accepted: &[Accepted],
    waiting: &[Waiting],
    notes: &[Note],
    tried: Option<&TrialOutcome>,
) -> Vec<(&'static str, String, &'static str)> {
    let none = |n: usize, what: &str| if n == 0 { "none".to_owned() } else { plural(n, what) };
    let threads = waiting.iter().filter(|one| one.kind == WaitKind::ThreadMain).count();
    let transition = match threads {
        0 => none(waiting.len(), "function"),
        n => format!("{}, {} the main function of a thread", plural(waiting.len(), "function"), count(n)),
    };
    let tests = tried.map_or("not tried", |outcome| if outcome.good() { "passed" } else { "failed" });
    vec![
        ("Layouts that need a review", none(accepted.len(), "layout"), "#layouts"),
        ("Keeps the transition waiting", transition, "#transition"),
        ("Notes", none(notes.len(), "note"), "#notes"),
        ("Tests", tests.to_owned(), "#tests"),
    ]
}
