//! The page of a finished module, from the module alone.

use std::path::Path;

use klpx_engine::code::ModuleFunction;
use klpx_verify::inspect::Module;
use maud::{Markup, html};

use super::bound::Targets;
use super::functions::{REFERENCES, ROWS};
use super::listing::Listing;
use super::part::{anchor, code, facts, share, table, word};
use super::{MANY, checked, more, whole};
use crate::render::{bytes, count, plural};
use crate::signer::Signed;

/// The contents of a module.
pub(crate) struct Inspected<'i> {
    /// The module's path.
    pub(crate) path: &'i Path,
    /// The module's size in bytes.
    pub(crate) bytes: usize,
    /// SHA-256 of the module, in hexadecimal.
    pub(crate) sha256: &'i str,
    /// Its tables.
    pub(crate) module: &'i Module,
    /// The module's functions.
    pub(crate) functions: &'i [ModuleFunction],
    /// The module's signature.
    pub(crate) signed: &'i Signed,
}

/// The page.
pub(crate) fn page(inspected: &Inspected<'_>) -> String {
    let module = inspected.module;
    let contents = [
        ("functions", "Functions"),
        ("symbols", "Symbols"),
        ("modinfo", "Modinfo"),
        ("unchecked", "What it does not say"),
    ];
    let name = module.info("name").unwrap_or("livepatch");
    let body = html! {
        (top(inspected))
        (functions(inspected.functions))
        (callbacks(module))
        (symbols(module))
        (modinfo(module))
        h2 id="unchecked" { "What a module does not say" }
        (checked::list(&UNSAID.map(str::to_owned)))
    };
    whole(name, &html! { "Livepatch module " (code(name)) }, &contents, &body)
}

const UNSAID: [&str; 6] = [
    "The patch, the original code and why a function is here: the page of the build has these (klpx build --page).",
    "Whether its functions mean what a patched kernel's would: klpx build verifies that against both builds.",
    "Whether the kernel has its symbols at these positions: nothing of the kernel was read for this page.",
    "The unit that a symbol belongs to: only its name and its position are in the module.",
    "What keeps the transition waiting, and which layouts change.",
    "Whether it loads: klpx test tries it in a guest of its kernel.",
];

fn top(inspected: &Inspected<'_>) -> Markup {
    let module = inspected.module;
    let mut known = vec![
        ("file", code(&inspected.path.display().to_string())),
        ("SHA-256", html! { span.mono.hash { (inspected.sha256) } }),
        ("size", html! { (bytes(inspected.bytes as u64)) " bytes" }),
    ];
    known.extend(module.info("vermagic").map(|magic| ("kernel", html! { (word(magic)) })));
    known.extend(module.info("kernel_build_id").map(|id| ("build ID", html! { span.mono { (word(id)) } })));
    let text = match module.replace {
        Some(true) => "takes the place of every other livepatch",
        Some(false) => "is added to those that are loaded",
        None => "the module does not say whether it takes the place of others",
    };
    known.push(("when loaded", html! { (text) }));
    known.extend(inspected.signed.rows().into_iter().map(|(key, value)| (key, html! { (word(&value)) })));
    let objects: Vec<String> = module
        .objects
        .iter()
        .map(|object| format!("{} of {}", plural(object.functions.len(), "function"), word(&object.name)))
        .collect();
    html! {
        p.lead { @if objects.is_empty() { "It replaces no function." } @else { "It replaces " (objects.join(", ")) "." } }
        (facts(known))
    }
}

fn functions(all: &[ModuleFunction]) -> Markup {
    let mut all: Vec<&ModuleFunction> = all.iter().collect();
    all.sort_by_key(|one| one.replaces.is_empty());
    let listings: Vec<Listing> = all.iter().map(|one| Listing::of_one(&one.body)).collect();
    let targets: Vec<Targets<'_>> = all.iter().map(|one| Targets::collect(&one.body)).collect();
    let rows = share(&listings.iter().map(Listing::len).collect::<Vec<_>>(), ROWS);
    let references = share(&targets.iter().map(Targets::len).collect::<Vec<_>>(), REFERENCES);
    let line = |(n, one): (usize, &&ModuleFunction)| {
        vec![
            html! { a href=(format!("#{}", anchor(n + 1))) { (code(&one.symbol)) } },
            replaces(one),
            html! { span.number { (count(one.body.bytes.len())) } },
        ]
    };
    let each = all.iter().zip(&listings).zip(&targets).take(MANY);
    html! {
        h2 id="functions" { "Functions" }
        (table("Functions of the module", &["function", "what it does", "bytes"], &all.iter().enumerate().take(MANY).map(line).collect::<Vec<_>>()))
        (more(all.len()))
        @for (n, ((one, listing), targets)) in each.enumerate() {
            section aria-labelledby=(anchor(n + 1)) {
                h3 id=(anchor(n + 1)) { (code(&one.symbol)) " " span.soft { (replaces(one)) } }
                (listing.table(&format!("Code of {}", word(&one.symbol)), rows))
                (targets.table(&format!("References of {}", word(&one.symbol)), &[], references))
            }
        }
    }
}

fn replaces(one: &ModuleFunction) -> Markup {
    html! {
        @if one.replaces.is_empty() { "is the module's own" }
        @for (n, (object, name, position)) in one.replaces.iter().enumerate() {
            @if n > 0 { ", " }
            "replaces " (code(name)) " of " (word(object))
            @if *position > 0 { ", number " (position) " of that name" }
        }
    }
}

fn callbacks(module: &Module) -> Markup {
    let rows: Vec<Vec<Markup>> = module
        .objects
        .iter()
        .flat_map(|object| object.callbacks.iter().map(move |(kind, name)| (object, kind, name)))
        .map(|(object, kind, name)| vec![code(name), html! { (kind) }, html! { (word(&object.name)) }])
        .collect();
    html! {
        @if !rows.is_empty() { (table("Callbacks", &["function", "when", "object"], &rows)) }
    }
}

fn symbols(module: &Module) -> Markup {
    let symbols: Vec<Vec<Markup>> = module
        .symbols
        .iter()
        .take(MANY)
        .map(|one| {
            let position =
                if one.sympos == 0 { "the only one".to_owned() } else { format!("number {}", one.sympos) };
            vec![code(&one.name), html! { (word(&one.object)) }, html! { (position) }]
        })
        .collect();
    let relocations: Vec<Vec<Markup>> = module
        .relocations
        .iter()
        .take(MANY)
        .map(|one| vec![code(&one.target), html! { (word(&one.object)) }, html! { (count(one.count)) }])
        .collect();
    html! {
        h2 id="symbols" { "Symbols" }
        @if symbols.is_empty() { p { "It has no livepatch symbols." } } @else {
            (table("Livepatch symbols: the livepatch core looks them up", &["symbol", "object", "position"], &symbols))
            (more(module.symbols.len()))
        }
        @if !relocations.is_empty() {
            (table("Livepatch relocations: applied when the object is there", &["section", "object", "count"], &relocations))
            (more(module.relocations.len()))
        }
        @if !module.imports.is_empty() {
            p { "Exported symbols that the module loader looks up: "
                @for (n, name) in module.imports.iter().take(MANY).enumerate() { @if n > 0 { ", " } (code(name)) } "." }
            (more(module.imports.len()))
        }
    }
}

fn modinfo(module: &Module) -> Markup {
    let rows: Vec<Vec<Markup>> =
        module.info.iter().take(MANY).map(|(key, value)| vec![code(key), html! { (word(value)) }]).collect();
    html! {
        h2 id="modinfo" { "Modinfo" }
        @if rows.is_empty() { p { "It has none." } } @else { (table("What the module says of itself", &["key", "value"], &rows)) }
        (more(module.info.len()))
    }
}
