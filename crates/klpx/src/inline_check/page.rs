//! `klpx inline-check --html`: one self-contained page for a browser.
//!
//! The page loads no other file and needs no network. Its data is a table of texts, and rows of numbers that refer to
//! the table, which keeps the page of a whole kernel at a few megabytes.

use std::collections::HashMap;

use klpx_diagnosis::{Diagnosis, Result, codes};
use klpx_inline_check::survey::{Function, Linkage, Reach, TextId};
use serde_json::{Value, json};

use super::{Surveyed, about, calls, function};

/// The page without its data.
const PAGE: &str = include_str!("page.html");

/// The mark that is replaced by the data.
const DATA: &str = "\"DATA\"";

/// The mark that is replaced by the style that all pages share.
const STYLE: &str = "\"STYLE\"";

/// Texts by number, each stored once.
#[derive(Default)]
struct PageTexts<'s> {
    all: Vec<&'s str>,
    known: HashMap<&'s str, usize>,
}

impl<'s> PageTexts<'s> {
    fn add(&mut self, text: &'s str) -> usize {
        *self.known.entry(text).or_insert_with(|| {
            self.all.push(text);
            self.all.len() - 1
        })
    }
}

/// The page.
pub(super) fn html(surveyed: &Surveyed) -> Result<String> {
    let (survey, summary) = (&surveyed.survey, &surveyed.summary);
    let mut texts = PageTexts::default();
    let functions: Vec<Value> =
        surveyed.half_inlined().iter().map(|listed| row(surveyed, &mut texts, listed.function)).collect();
    let totals: Vec<Value> = Linkage::ALL
        .iter()
        .map(|linkage| linkage.name())
        .zip(&summary.by_linkage)
        .chain([("all", &summary.all())])
        .map(|(name, t)| {
            json!([name, t.out_of_line, t.half_inlined, t.half_inlined_across, t.inlined, t.inlined_across])
        })
        .collect();
    let data = json!({
        "klpx": env!("CARGO_PKG_VERSION"),
        "file": surveyed.path.display().to_string(),
        "about": about(surveyed),
        "linked": survey.linked,
        "totals": totals,
        "byUnit": summary.by_unit,
        "reached": summary.half_inlined_reached,
        "onlyInlined": [summary.only_inlined, summary.only_inlined_copies],
        "texts": texts.all,
        "functions": functions,
    });
    let data = serde_json::to_string(&data).map_err(|e| {
        Diagnosis::new(
            &codes::INTERNAL,
            "the page's data can't be written",
            e.to_string(),
            klpx_diagnosis::REPORT,
        )
    })?;
    // No text in the data may end the script element.
    let page = PAGE.replacen(STYLE, crate::page::STYLE, 1);
    Ok(page.replacen(DATA, &data.replace('<', "\\u003c"), 1))
}

/// A function as a row for the page's script, which describes the columns.
fn row<'s>(surveyed: &'s Surveyed, texts: &mut PageTexts<'s>, function: &'s Function) -> Value {
    let survey = &surveyed.survey;
    let verdicts = function::verdicts(survey, function);
    let mut text = |id: TextId| texts.add(survey.text(id));
    let copies: Vec<Value> = survey
        .copies(function)
        .iter()
        .map(|copy| {
            let reach = match copy.reach {
                Reach::Site(_) => json!(1),
                Reach::No(why) => json!(why.to_string()),
                Reach::Unknown => json!(0),
            };
            json!([
                text(copy.symbol),
                text(copy.section),
                format!("{:#x}", copy.address),
                text(copy.unit),
                reach
            ])
        })
        .collect();
    let inlined: Vec<Value> = calls(survey, function)
        .into_iter()
        .map(|calls| {
            let around = calls.chain.iter().map(|call| {
                json!([text(survey.function(call.function).name), call.file.map(&mut text), call.line])
            });
            let chain: Vec<Value> = around.collect();
            let (holder, call) = (survey.copy(calls.holder), calls.call);
            json!([
                text(holder.symbol),
                text(holder.unit),
                calls.times,
                u8::from(call.across),
                call.file.map(&mut text),
                call.line,
                chain,
            ])
        })
        .collect();
    let across = survey.inlined(function).iter().filter(|call| call.across).count();
    json!([
        text(function.name),
        text(function.file),
        function.line,
        function.linkage() as u8,
        survey.call_sites(function),
        survey.inlined(function).len(),
        across,
        super::list::reached(survey, function),
        verdicts.tracing,
        verdicts.livepatch,
        copies,
        inlined,
    ])
}
