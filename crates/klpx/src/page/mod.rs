//! `klpx build --page`, `klpx inspect --page`: one HTML page for the person who approves a livepatch.
//!
//! The page loads no other file, needs no network and no script, and shows the same on paper. The same inputs give the
//! same page.

mod bound;
mod built;
mod checked;
mod compare;
mod functions;
mod inspected;
mod listing;
mod part;
mod patch;
mod risks;

use maud::{DOCTYPE, Markup, PreEscaped, html};

pub(crate) use built::{BuildResults, page as built};
pub(crate) use inspected::{Inspected, page as inspected};

use crate::render::plural;

/// The style that all of klpx's pages have.
pub(crate) const STYLE: &str = include_str!("common.css");

/// The additional style of these pages.
const OWN: &str = include_str!("own.css");

/// The row limit of lists that can have any length.
const MANY: usize = 400;

/// The line below a list of more than [`MANY`] rows.
fn more(length: usize) -> Markup {
    html! { @if length > MANY { p.soft { "cut here: " (plural(length - MANY, "more row")) } } }
}

/// The whole page.
fn whole(title: &str, heading: &Markup, contents: &[(&str, &str)], body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Livepatch " (part::word(title)) }
                style { (PreEscaped(STYLE)) (PreEscaped(OWN)) }
            }
            body {
                a.skip href="#functions" { "To the functions" }
                main {
                    h1 { (heading) }
                    nav aria-label="Contents" {
                        @for (place, name) in contents { a href=(format!("#{place}")) { (name) } " " }
                    }
                    (body)
                    p.soft.made { "Made by klpx " (env!("CARGO_PKG_VERSION")) "." }
                }
            }
        }
    };
    let mut page = page.into_string();
    page.push('\n');
    page
}

#[cfg(test)]
mod tests;
