//! What klpx checked about a module, and what it did not check. The page claims nothing that was not done.

use klpx_verify::Verified;
use maud::{Markup, html};

use super::part::word;
use crate::render::{count, plural};
use crate::report::Report;

/// Both sections.
pub(super) fn sections(report: &Report, verified: &Verified) -> Markup {
    html! {
        h2 id="checked" { "What was checked" }
        (list(&checked(report, verified)))
        h2 id="unchecked" { "What was not checked" }
        (list(&unchecked(report)))
    }
}

pub(super) fn list(sentences: &[String]) -> Markup {
    html! { ul { @for sentence in sentences { li { (sentence) } } } }
}

fn checked(report: &Report, verified: &Verified) -> Vec<String> {
    let results = &report.results;
    let mut facts: Vec<String> = results
        .units
        .iter()
        .map(|unit| {
            format!(
                "{} of {} are those of the shipped {}.",
                plural(unit.equal, "function"),
                word(&unit.unit),
                word(&unit.object)
            )
        })
        .collect();
    if results.units.is_empty() {
        facts.push(
            "The functions to be replaced, and what they refer to, are those of the shipped kernel."
                .to_owned(),
        );
    }
    facts.extend([
        format!(
            "{} functions and data of both builds were compared; {} differ, and each of these is in the module or need not be.",
            count(verified.compared),
            count(verified.differing)
        ),
        format!(
            "{} functions, data and constants of the module mean what those of the patched build mean.",
            count(verified.copies)
        ),
        format!("The kernel finds each of the {} at its position.", plural(verified.symbols, "livepatch symbol")),
        format!("The module loader takes each of the {}.", plural(verified.relocations, "relocation")),
        format!(
            "ftrace reaches {} of the {}.",
            count(verified.reachable),
            plural(verified.functions, "replaced function")
        ),
    ]);
    facts
}

fn unchecked(report: &Report) -> Vec<String> {
    let results = &report.results;
    let mut facts = vec![
        "Whether the patch is right. klpx checks that the module does what the patched source says.".to_owned(),
        "What the old code left behind: values in memory, locks that are held, counts. Layouts of types are compared, not what lies in memory."
            .to_owned(),
        "Modules from elsewhere. One that was built with a header that the patch edits keeps its inlined copies of the old code."
            .to_owned(),
        "Inlined copies of which no instruction is left in the original: debug information does not name them. What is replaced rests on comparing code, not on it."
            .to_owned(),
    ];
    match &report.test {
        None => facts.push("How the module behaves when it is loaded: it was not tried.".to_owned()),
        Some(tried) => {
            facts.push("How the module behaves on hardware: the guest has little of it.".to_owned());
            facts.extend(
                tried
                    .missing_modules
                    .iter()
                    .map(|name| format!("The part for module {}: the guest did not have it.", word(name))),
            );
        }
    }
    facts.extend(results.units.iter().filter(|unit| unit.explained > 0).map(|unit| {
        format!(
            "{} of {} are not byte for byte those of the shipped {}, each for a reason that klpx knows.",
            plural(unit.explained, "function"),
            word(&unit.unit),
            word(&unit.object)
        )
    }));
    for one in &results.accepted_layouts {
        facts.push(format!(
            "Whether old objects of {} are read: the review that accepted it has to tell.",
            word(&one.name)
        ));
    }
    let module = report.module.as_ref();
    facts.push(match module.is_some_and(|module| !module.signature.is_null()) {
        true => "Whether the signature is right: klpx inspect --cert tells.".to_owned(),
        false => "Where the module comes from: it has no signature.".to_owned(),
    });
    facts.push("Code in sections that run beside a function (alternatives, exception tables) is compared, and not listed on this page.".to_owned());
    facts
}
