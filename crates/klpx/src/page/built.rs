//! The page of a build.

use klpx_engine::InputKind;
use klpx_engine::code::ModuleFunction;
use klpx_verify::Verified;
use klpx_verify::inspect::Module;
use maud::{Markup, html};

use super::part::{code, facts, table, word};
use super::{checked, functions, patch, risks, whole};
use crate::render::{bytes, plural};
use crate::report::Report;
use crate::signer::Signed;

/// The results of a build.
pub(crate) struct BuildResults<'b> {
    /// The report.
    pub(crate) report: &'b Report,
    /// What verification counted.
    pub(crate) verified: &'b Verified,
    /// The module's tables.
    pub(crate) module: &'b Module,
    /// The module's functions.
    pub(crate) functions: &'b [ModuleFunction],
    /// The module's signature.
    pub(crate) signed: &'b Signed,
    /// Why the requested trial did not take place, if it did not.
    pub(crate) not_tried: Option<&'b str>,
}

/// The page.
pub(crate) fn page(built: &BuildResults<'_>) -> String {
    let report = built.report;
    let results = &report.results;
    let contents = [
        ("patch", "Patch"),
        ("functions", "Functions"),
        ("others", "Other functions"),
        ("layouts", "Layouts"),
        ("transition", "Transition"),
        ("notes", "Notes"),
        ("tests", "Tests"),
        ("checked", "Checked"),
        ("unchecked", "Not checked"),
        ("inputs", "Inputs and module"),
        ("approval", "Approval"),
    ];
    let name = report.module.as_ref().map_or("livepatch", |module| module.name.as_str());
    let body = html! {
        (top(built))
        (patch::section(&report.patches, &results.patches))
        (functions::section(report, built.functions))
        (risks::layouts(&results.accepted_layouts))
        (risks::transition(&results.transition))
        (risks::notes(&results.notes))
        (risks::tests(report.test.as_ref(), built.not_tried))
        (checked::sections(report, built.verified))
        (inputs(report))
        (approval(report))
    };
    whole(name, &html! { "Livepatch " (code(name)) }, &contents, &body)
}

fn top(built: &BuildResults<'_>) -> Markup {
    let report = built.report;
    let results = &report.results;
    let mut kernel = Vec::new();
    if let Some(known) = &results.kernel {
        kernel.push(("kernel", html! { "Linux " (word(&known.release)) ", " (word(&known.arch)) }));
        kernel.push(("compiler", html! { (word(&known.compiler)) }));
        kernel.extend(known.make.iter().map(|variable| ("make", code(variable))));
    }
    let build_id = results.inputs.iter().find_map(|input| input.build_id.as_deref());
    kernel.extend(build_id.map(|id| ("build ID", html! { span.mono { (word(id)) } })));
    for (key, title) in [("description", "what for"), ("version", "version")] {
        kernel.extend(built.module.info(key).map(|value| (title, html! { (word(value)) })));
    }
    let cves: Vec<String> =
        built.module.info.iter().filter(|(key, _)| key == "cve").map(|(_, value)| word(value)).collect();
    if !cves.is_empty() {
        kernel.push(("mends", html! { (cves.join(", ")) }));
    }
    kernel.extend(built.module.replace.map(|replace| {
        let text = if replace {
            "takes the place of every other livepatch"
        } else {
            "is added to those that are loaded"
        };
        ("when loaded", html! { (text) })
    }));
    kernel.extend(built.signed.rows().into_iter().map(|(key, value)| (key, html! { (word(&value)) })));
    let glance =
        risks::glance(&results.accepted_layouts, &results.transition, &results.notes, report.test.as_ref());
    let replaced: usize = built.module.objects.iter().map(|object| object.functions.len()).sum();
    let objects: Vec<String> = built
        .module
        .objects
        .iter()
        .map(|object| format!("{} of {}", plural(object.functions.len(), "function"), word(&object.name)))
        .collect();
    html! {
        p.lead { "It replaces " (if objects.is_empty() { plural(replaced, "function") } else { objects.join(", ") }) "." }
        div.pair {
            (facts(kernel))
            dl.glance { @for (what, value, place) in glance {
                div { dt { a href=(place) { (what) } } dd { (value) } }
            } }
        }
    }
}

fn inputs(report: &Report) -> Markup {
    let rows: Vec<Vec<Markup>> = report
        .results
        .inputs
        .iter()
        .map(|input| {
            let identity = input.sha256.as_deref().or(input.build_id.as_deref()).unwrap_or("–");
            let what = if input.sha256.is_some() { "SHA-256" } else { "build ID" };
            vec![
                html! { (kind(input.kind)) },
                code(&input.path),
                html! { span.soft { (what) } " " span.mono.hash { (word(identity)) } },
            ]
        })
        .collect();
    html! {
        h2 id="inputs" { "Inputs and module" }
        (table("Files that the module was made from", &["what", "file", "told by"], &rows))
        @if let Some(kernel) = &report.results.kernel {
            p { "The kernel's source and headers are not hashed one by one. Their contents give the key " span.mono.hash { (word(&kernel.key)) } "." }
        }
        @if let Some(module) = &report.module {
            (table("The module", &["what", "value"], &[
                vec![html! { "file" }, code(&module.path)],
                vec![html! { "SHA-256" }, html! { span.mono.hash { (module.sha256) } }],
                vec![html! { "size" }, html! { (bytes(module.bytes as u64)) " bytes" }],
                vec![html! { "made by" }, html! { "klpx " (report.klpx) }],
            ]))
        }
    }
}

fn kind(kind: InputKind) -> &'static str {
    match kind {
        InputKind::Patch => "patch",
        InputKind::Config => "configuration",
        InputKind::Symvers => "Module.symvers",
        InputKind::Vmlinux => "kernel image",
        InputKind::Module => "external module",
        InputKind::MakeFile => "file of a make variable",
        InputKind::Certificate => "certificate",
    }
}

/// Lines to fill in by hand.
fn approval(report: &Report) -> Markup {
    let hash = report.module.as_ref().map_or("", |module| module.sha256.as_str());
    html! {
        section.approval aria-labelledby="approval" {
            h2 id="approval" { "Approval" }
            p { "Of the module with the SHA-256 " span.mono.hash { (hash) } }
            dl.pen { @for what in ["Name", "Date", "Signature"] { div { dt { (what) } dd { } } } }
        }
    }
}
