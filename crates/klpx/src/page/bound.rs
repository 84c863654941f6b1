//! What a module's code refers to, and to what each reference is bound.

use std::collections::BTreeMap;

use klpx_diagnosis::Offset;
use klpx_engine::KernelReference;
use klpx_engine::code::{Filled, FunctionBody};
use maud::{Markup, html};

use super::part::{code, table, word};
use crate::render::plural;

/// How many places are listed for one target.
const PLACES: usize = 4;

/// The targets of a function's references, those outside the module first, each with the places of its references.
pub(super) struct Targets<'b>(BTreeMap<(&'b Filled, &'b str), Vec<u64>>);

impl<'b> Targets<'b> {
    pub(super) fn collect(body: &'b FunctionBody) -> Targets<'b> {
        let mut targets: BTreeMap<(&Filled, &str), Vec<u64>> = BTreeMap::new();
        for reference in &body.references {
            let key = (&reference.filled, reference.to.as_str());
            targets.entry(key).or_default().push(reference.offset);
        }
        Targets(targets)
    }

    /// The number of rows in the table.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The table, with at most `most` rows.
    pub(super) fn table(&self, caption: &str, known: &[KernelReference], most: usize) -> Markup {
        if self.0.is_empty() {
            return html! { p.soft { (caption) ": it refers to nothing." } };
        }
        let shown = self.0.iter().take(most);
        let rows: Vec<Vec<Markup>> = shown
            .map(|((filled, to), places)| {
                let mut row = vec![code(to)];
                row.extend(bound_to(filled, known));
                row.push(html! { span.mono { (at(places)) } });
                row
            })
            .collect();
        let left = self.0.len() - rows.len();
        html! {
            (table(caption, &["refers to", "bound to", "unit", "position", "at"], &rows))
            @if left > 0 { p.soft { "cut here: " (plural(left, "more target")) } }
        }
    }
}

/// Three cells: what the reference is bound to, the unit, the position.
fn bound_to(filled: &Filled, known: &[KernelReference]) -> [Markup; 3] {
    let none = || html! { span.soft { "–" } };
    match filled {
        Filled::Livepatch(symbol) => {
            let is = |bound: &&KernelReference| {
                (&bound.object, &bound.name, bound.position) == (&symbol.object, &symbol.name, symbol.sympos)
            };
            let bound = known.iter().find(is);
            let name = html! {
                (code(&symbol.name)) " of " (word(&symbol.object))
                @if let Some(address) = bound.and_then(|bound| bound.address.as_deref()) { " at " span.mono { (address) } }
            };
            let unit = match bound {
                Some(bound) => html! { (bound.unit.as_deref().map_or_else(|| "global".to_owned(), word)) },
                None => none(),
            };
            let position = match symbol.sympos {
                0 => html! { "the only one" },
                n => html! { "number " (n) },
            };
            [name, unit, position]
        }
        Filled::Export(name) => [html! { "the export " (code(name)) }, none(), none()],
        Filled::Own => [html! { span.soft { "the module's own" } }, none(), none()],
    }
}

fn at(places: &[u64]) -> String {
    let named = places.iter().take(PLACES).map(|&place| Offset(place.cast_signed()).to_string());
    let named = named.collect::<Vec<_>>().join(", ");
    match places.len().saturating_sub(PLACES) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}
