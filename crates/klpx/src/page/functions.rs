//! A section for each function in the module: why it is there, which hunk caused it, its code from both sources, what
//! it inlines and which functions inline it, what it refers to.

use klpx_engine::code::{Code, ModuleFunction, whole_name};
use klpx_engine::finding::{Cause, ChangeKind, Finding};
use klpx_engine::inlining::Inlines;
use maud::{Markup, html};

use super::bound::Targets;
use super::listing::Listing;
use super::part::{anchor, code, facts, share, table, word};
use super::patch;
use crate::render::{bytes, count};
use crate::report::Report;

/// The limit of rows for all listings together: 2 MB can hold more than twice as many.
pub(super) const ROWS: usize = 4_000;

/// The limit of rows for all tables of references together.
pub(super) const REFERENCES: usize = 1_200;

/// How many lines a list within a function's section has.
const LIST: usize = 12;

/// A function and everything that is shown of it.
struct Shown<'s> {
    finding: &'s Finding,
    /// The function's code, and that of its unlikely part.
    code: Vec<&'s Code>,
    listings: Vec<Listing>,
    /// The references of the function's code in the module.
    targets: Vec<(&'s str, Targets<'s>)>,
}

impl<'s> Shown<'s> {
    fn collect(finding: &'s Finding, report: &'s Report, module: &'s [ModuleFunction]) -> Shown<'s> {
        let mine =
            |code: &&Code| code.object == finding.object && whole_name(&code.function) == finding.function;
        let code: Vec<&Code> = report.results.code.iter().filter(mine).collect();
        let listing = |code: &&Code| match &code.original {
            Some(original) => Listing::of_both(original, &code.patched),
            None => Listing::of_one(&code.patched),
        };
        let listings = code.iter().map(listing).collect();
        let targets = code.iter().filter_map(|code| {
            let function = in_module(code, module)?;
            Some((code.function.as_str(), Targets::collect(&function.body)))
        });
        Shown { finding, targets: targets.collect(), listings, code }
    }

    /// The bytes of code in the original and the patched build.
    fn sizes(&self) -> (Option<usize>, usize) {
        let old = self.code.iter().map(|code| code.original.as_ref().map(|body| body.bytes.len()));
        (old.flatten().reduce(|a, b| a + b), self.code.iter().map(|code| code.patched.bytes.len()).sum())
    }
}

/// The module's function that was made from this code of the patched build: found by the function that it replaces or
/// by its name, and among several by its bytes.
fn in_module<'m>(code: &Code, module: &'m [ModuleFunction]) -> Option<&'m ModuleFunction> {
    let is_whole = |name: &str| whole_name(name) == name;
    let named = |function: &&ModuleFunction| {
        whole_name(&function.symbol) == whole_name(&code.function)
            && is_whole(&function.symbol) == is_whole(&code.function)
            || function.replaces.iter().any(|(object, name, _)| {
                *object == code.object && klpx_engine::code::plain_name(name) == code.function
            })
    };
    let all: Vec<&ModuleFunction> = module.iter().filter(named).collect();
    let same = |function: &&&ModuleFunction| function.body.bytes == code.patched.bytes;
    all.iter().find(same).or(all.first().filter(|_| all.len() == 1)).copied()
}

/// The section of all functions.
pub(super) fn section(report: &Report, module: &[ModuleFunction]) -> Markup {
    let changes = &report.results.changes;
    let all: Vec<Shown<'_>> = changes.iter().map(|finding| Shown::collect(finding, report, module)).collect();
    let lengths: Vec<usize> = all.iter().flat_map(|one| &one.listings).map(Listing::len).collect();
    let rows = share(&lengths, ROWS);
    let lengths: Vec<usize> =
        all.iter().flat_map(|one| &one.targets).map(|(_, targets)| targets.len()).collect();
    let references = share(&lengths, REFERENCES);
    html! {
        h2 id="functions" { "Functions" }
        (overview(&all))
        @for (n, one) in all.iter().enumerate() { (function(report, n, one, (rows, references))) }
        (left_out(report))
    }
}

fn overview(all: &[Shown<'_>]) -> Markup {
    let rows: Vec<Vec<Markup>> = all
        .iter()
        .enumerate()
        .map(|(n, one)| {
            let (old, new) = one.sizes();
            vec![
                html! { a href=(format!("#{}", anchor(n + 1))) { (code(&one.finding.function)) } },
                html! { (word(&one.finding.object)) },
                html! { (kind(one.finding.kind)) },
                html! { (word(&one.finding.why)) },
                html! { span.number { @if let Some(old) = old { (count(old)) " → " } (count(new)) } },
            ]
        })
        .collect();
    table("Functions that the module holds", &["function", "object", "what", "why", "bytes"], &rows)
}

fn kind(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Changed => "replaced",
        ChangeKind::New => "added",
        ChangeKind::Removed => "removed",
    }
}

fn function(report: &Report, n: usize, one: &Shown<'_>, (rows, references): (usize, usize)) -> Markup {
    let finding = one.finding;
    let mut known = vec![
        ("why", html! { (word(&finding.why)) }),
        ("cause", html! { (cause(finding.cause, one.sizes().0.is_none())) }),
    ];
    known.push(("hunk", hunks(report, finding)));
    if let Some(file) = finding.file.as_ref().filter(|file| !finding.why.contains(file.as_str())) {
        let line = finding.line.map(|line| format!(":{line}")).unwrap_or_default();
        let first = if finding.kind == ChangeKind::New { "begins at" } else { "first differs at" };
        known.push((first, html! { span.mono { (word(file)) (line) } }));
    }
    if let (Some(old), new) = one.sizes() {
        known.push(("bytes", html! { (bytes(old as u64)) " before, " (bytes(new as u64)) " now" }));
    }
    known.push(("inlines", inlines(&finding.inlines)));
    known.push(("inlined by", holders(report, finding)));
    if !finding.reasons.is_empty() {
        known.push(("differences", list(finding.reasons.iter().map(|reason| html! { (word(reason)) }))));
    }
    html! {
        section aria-labelledby=(anchor(n + 1)) {
            h3 id=(anchor(n + 1)) { (code(&finding.function)) " " span.soft { (word(&finding.object)) ", " (kind(finding.kind)) } }
            (facts(known))
            @if one.listings.is_empty() { p.soft { "Its code is not in the results." } }
            @for (code, listing) in one.code.iter().zip(&one.listings) {
                (listing.table(&format!("Code of {}", word(&code.function)), rows))
            }
            @for (name, targets) in &one.targets {
                (targets.table(&format!("References of {}", word(name)), &report.results.bound, references))
            }
        }
    }
}

fn hunks(report: &Report, finding: &Finding) -> Markup {
    if finding.hunks.is_empty() {
        return html! { "none of its own: " (match finding.cause {
            Some(Cause::ReliesOn | Cause::CalledBy | Cause::InlinedNoLonger) => "see the function named above",
            Some(Cause::Uses) => "see the function or constant named above",
            _ => "debug information names none that reaches it",
        }) };
    }
    list(finding.hunks.iter().map(|hunk| patch::link(hunk, &report.patches)))
}

fn cause(cause: Option<Cause>, new: bool) -> &'static str {
    match cause {
        Some(Cause::Edited) if new => "the patch adds it",
        Some(Cause::Edited) => "the patch edits its lines",
        Some(Cause::Inlines) => "it holds an inlined copy of a function that the patch edits",
        Some(Cause::InlinedNoLonger) => "it was inlined into a function that changed, and no longer is",
        Some(Cause::ReliesOn) => {
            "it refers to a function that changed, and the compiler knew something of that one that no longer holds"
        }
        Some(Cause::CalledBy) => "a function that changed refers to it",
        Some(Cause::Uses) => {
            "its own code is the same, but must use the new version of what the patch changes"
        }
        Some(Cause::InlinesOtherwise) => {
            "the compiler inlines other functions into it than before, and nothing that the patch edits is among them"
        }
        Some(Cause::Otherwise) => "a decision of the compiler, or a change of a macro, a type or a datum",
        None => "debug information does not tell",
    }
}

fn inlines(all: &[Inlines]) -> Markup {
    match all {
        [] => html! { span.soft { "nothing that the patch edits" } },
        all => list(all.iter().map(|one| {
            let text = one.to_string();
            html! { (word(text.strip_prefix("inlines ").unwrap_or(&text))) }
        })),
    }
}

/// Functions that hold copies of this one, if the patch edits it.
fn holders(report: &Report, finding: &Finding) -> Markup {
    let results = &report.results;
    let holds = |all: &[Inlines]| all.iter().any(|inlines| inlines.call.function == finding.function);
    let changed = results.changes.iter().enumerate().filter(|(_, other)| holds(&other.inlines));
    let changed = changed
        .map(|(n, other)| html! { a href=(format!("#{}", anchor(n + 1))) { (code(&other.function)) } });
    let same = results.unaffected.iter().filter(|other| holds(&other.inlines));
    let same = same.map(|other| html! { (code(&other.function)) ", whose code is the same" });
    let all: Vec<Markup> = changed.chain(same).collect();
    match (all.is_empty(), finding.cause) {
        (false, _) => list(all.into_iter()),
        (true, Some(Cause::Edited)) => html! { span.soft { "nobody that debug information names" } },
        (true, _) => html! { span.soft { "not looked at: the patch does not edit it" } },
    }
}

fn list(all: impl ExactSizeIterator<Item = Markup>) -> Markup {
    let more = all.len().saturating_sub(LIST);
    html! {
        @for one in all.take(LIST) { div { (one) } }
        @if more > 0 { div.soft { (count(more)) " more" } }
    }
}

/// Functions that differ but are not in the module, and holders whose code came out the same.
fn left_out(report: &Report) -> Markup {
    let results = &report.results;
    let row = |finding: &Finding| {
        vec![code(&finding.function), html! { (word(&finding.object)) }, html! { (word(&finding.why)) }]
    };
    let same = |one: &klpx_engine::holders::Unaffected| {
        vec![code(&one.function), html! { (word(&one.object)) }, inlines(&one.inlines)]
    };
    html! {
        h2 id="others" { "Other functions" }
        @if results.left_out.is_empty() && results.unaffected.is_empty() {
            p { "Nothing else differs, and debug information names nobody else who holds a copy of what the patch edits." }
        }
        @if !results.left_out.is_empty() {
            (table("They differ, and are not in the module", &["function", "object", "why"], &results.left_out.iter().take(super::MANY).map(row).collect::<Vec<_>>()))
            (super::more(results.left_out.len()))
        }
        @if !results.unaffected.is_empty() {
            (table("They hold copies of what the patch edits, and their code is the same", &["function", "object", "copies"], &results.unaffected.iter().take(super::MANY).map(same).collect::<Vec<_>>()))
            (super::more(results.unaffected.len()))
        }
    }
}
