//! One function: where its copies are, and what this means for tracing and patching it.

use std::collections::{BTreeMap, HashSet};

use klpx_inline_check::survey::{CopyId, CopyState, Function, OutOfLine, Reach, Survey};

use super::{EqualCalls, calls, linkage, place};
use crate::render;

/// How many names a verdict lists; the rest are only counted.
const NAMED: usize = 8;

/// What a function's copies mean for a person.
pub(super) struct Verdicts {
    /// The verdicts for ftrace, kprobes and BPF.
    pub(super) tracing: Vec<String>,
    /// The verdicts for a livepatch.
    pub(super) livepatch: Vec<String>,
}

/// The function, as text for people.
pub(super) fn text(survey: &Survey, function: &Function) -> String {
    let state = survey.state(function);
    let name = survey.text(function.name);
    let declared = place(survey, Some(function.file), function.line);
    let mut text = format!("  {name}  {declared} · {} · {}\n", linkage(function), state.name());
    if !survey.copies(function).is_empty() {
        text.push('\n');
        text.push_str(&copies(survey, function));
    }
    let calls = calls(survey, function);
    if !calls.is_empty() {
        text.push('\n');
        text.push_str(&holders(survey, &calls));
    }
    let verdicts = verdicts(survey, function);
    text.push('\n');
    for (label, lines) in [("tracing", &verdicts.tracing), ("livepatch", &verdicts.livepatch)] {
        for (n, line) in lines.iter().enumerate() {
            text.push_str(&format!("  {:10} {line}\n", if n == 0 { label } else { "" }));
        }
    }
    text
}

fn copies(survey: &Survey, function: &Function) -> String {
    let mut rows = vec![["out of line", "address", "section", "unit", "ftrace"].map(str::to_owned).to_vec()];
    rows.extend(survey.copies(function).iter().map(|copy| {
        vec![
            survey.text(copy.symbol).to_owned(),
            format!("{:#x}", copy.address),
            survey.text(copy.section).to_owned(),
            survey.text(copy.unit).to_owned(),
            copy.reach.to_string(),
        ]
    }));
    render::table(&rows)
}

fn holders(survey: &Survey, calls: &[EqualCalls<'_>]) -> String {
    let mut rows = vec![["inlined into", "at", "", "by way of"].map(str::to_owned).to_vec()];
    rows.extend(calls.iter().map(|calls| {
        let times = if calls.times > 1 { format!("×{}", calls.times) } else { String::new() };
        vec![
            survey.text(survey.copy(calls.holder).symbol).to_owned(),
            place(survey, calls.call.file, calls.call.line),
            times,
            chain(survey, calls),
        ]
    }));
    render::table(&rows)
}

/// `outer at a.c:12, inner at b.h:3`: the inlined calls between a holder and a call.
pub(super) fn chain(survey: &Survey, calls: &EqualCalls<'_>) -> String {
    let around = calls.chain.iter().map(|call| {
        let name = survey.text(survey.function(call.function).name);
        format!("{name} at {}", place(survey, call.file, call.line))
    });
    around.collect::<Vec<_>>().join(", ")
}

/// What the function's copies mean.
pub(super) fn verdicts(survey: &Survey, function: &Function) -> Verdicts {
    let holders: Vec<&OutOfLine> =
        survey.holders(function).into_iter().map(|id: CopyId| survey.copy(id)).collect();
    Verdicts {
        tracing: tracing(survey, function, &holders),
        livepatch: livepatch(survey, function, &holders),
    }
}

fn tracing(survey: &Survey, function: &Function, holders: &[&OutOfLine]) -> Vec<String> {
    let name = survey.text(function.name);
    let copies = survey.copies(function);
    let mut lines = vec![match survey.state(function) {
        CopyState::Absent | CopyState::OutOfLine => format!("a probe on {name} sees every call"),
        CopyState::Inlined => {
            format!(
                "{name} has no address of its own: probe what it is inlined into ({})",
                names(survey, holders)
            )
        }
        CopyState::Both => format!(
            "a probe on {name} misses the calls from {} ({}, {})",
            names(survey, holders),
            render::plural(survey.call_sites(function), "call site"),
            match survey.inlined(function).len() {
                1 => "1 inlined copy".to_owned(),
                n => format!("{} inlined copies", render::count(n)),
            },
        ),
    }];
    if copies.len() > 1 {
        lines.push(format!(
            "its {} out-of-line copies need a probe each: {}",
            render::count(copies.len()),
            names(survey, &copies.iter().collect::<Vec<_>>())
        ));
    }
    let unreached = unreached(&copies.iter().collect::<Vec<_>>());
    if !unreached.is_empty() {
        lines.push(format!("ftrace does not reach {}", reasons(survey, &unreached)));
    }
    lines
}

fn livepatch(survey: &Survey, function: &Function, holders: &[&OutOfLine]) -> Vec<String> {
    let mut all: Vec<&OutOfLine> = survey.copies(function).iter().chain(holders.iter().copied()).collect();
    // A function may hold an inlined copy of itself.
    let mut seen = HashSet::new();
    all.retain(|&copy| seen.insert(std::ptr::from_ref(copy)));
    let has_run = |copy: &&OutOfLine| matches!(copy.reach, Reach::No(why) if why.has_run());
    let (over, needed): (Vec<&OutOfLine>, Vec<&OutOfLine>) = all.into_iter().partition(has_run);
    let name = survey.text(function.name);
    let mut lines = vec![match needed.as_slice() {
        [] => format!("patching {name} changes nothing in a running kernel"),
        [one] => format!("patching {name} replaces {}", survey.text(one.symbol)),
        several => format!(
            "patching {name} needs {} replaced: {}",
            render::plural(several.len(), "function"),
            names(survey, several)
        ),
    }];
    let unreached = unreached(&needed);
    if !unreached.is_empty() {
        lines.push(format!(
            "of these, ftrace does not reach {}: replace what calls them",
            reasons(survey, &unreached)
        ));
    }
    if !over.is_empty() {
        lines.push(format!("nothing to do for {}", reasons(survey, &over)));
    }
    if needed.iter().any(|copy| copy.reach == Reach::Unknown) {
        lines.push(
            "whether ftrace reaches them is unknown: ask vmlinux.o or the module's own object".to_owned(),
        );
    }
    lines
}

fn unreached<'s>(copies: &[&'s OutOfLine]) -> Vec<&'s OutOfLine> {
    copies.iter().copied().filter(|copy| matches!(copy.reach, Reach::No(_))).collect()
}

/// Symbols, each once; the first few by name, the rest counted.
fn names(survey: &Survey, copies: &[&OutOfLine]) -> String {
    let mut names: Vec<&str> = copies.iter().map(|copy| survey.text(copy.symbol)).collect();
    names.sort_unstable();
    names.dedup();
    match names.len() {
        n if n > NAMED + 1 => {
            format!("{} and {} more", names[..NAMED].join(", "), render::count(n - NAMED))
        }
        _ => names.join(", "),
    }
}

/// Symbols that ftrace does not reach, grouped by reason.
fn reasons(survey: &Survey, copies: &[&OutOfLine]) -> String {
    let mut by_reason: BTreeMap<String, Vec<&OutOfLine>> = BTreeMap::new();
    for copy in copies {
        if let Reach::No(why) = copy.reach {
            by_reason.entry(why.to_string()).or_default().push(copy);
        }
    }
    let groups = by_reason.iter().map(|(why, copies)| format!("{} ({why})", names(survey, copies)));
    groups.collect::<Vec<_>>().join("; ")
}
