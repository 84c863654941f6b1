//! The JSON of `klpx inline-check`. The schema version grows when a field changes its meaning or goes away.

use klpx_diagnosis::Result;
use klpx_inline_check::survey::{
    Function, Inlined, Linkage, OutOfLine, Reach, StateChange, Survey, Tally, compare,
};
use serde_json::{Value, json};

use super::{EqualCalls, Surveyed, calls, function};
use crate::json::to_text;

/// The schema version.
pub(super) const SCHEMA: u32 = 1;

/// A file: its counts, and every half-inlined function with all of its copies.
pub(super) fn file(surveyed: &Surveyed) -> Result<String> {
    let survey = &surveyed.survey;
    let functions: Vec<Value> =
        surveyed.half_inlined().iter().map(|listed| function_json(survey, listed.function)).collect();
    to_text(&json!({
        "schema": SCHEMA,
        "file": head(surveyed),
        "summary": summary(surveyed),
        "half_inlined": functions,
    }))
}

/// The functions of one name, with what their copies mean.
pub(super) fn functions(surveyed: &Surveyed, functions: &[&Function]) -> Result<String> {
    let survey = &surveyed.survey;
    let all: Vec<Value> = functions
        .iter()
        .map(|&function| {
            let verdicts = function::verdicts(survey, function);
            let mut value = function_json(survey, function);
            value["tracing"] = json!(verdicts.tracing);
            value["livepatch"] = json!(verdicts.livepatch);
            value
        })
        .collect();
    to_text(&json!({"schema": SCHEMA, "file": head(surveyed), "functions": all}))
}

/// The comparison of two files.
pub(super) fn comparison(before: &Surveyed, after: &Surveyed) -> Result<String> {
    let changes: Vec<Value> =
        compare(&before.survey, &after.survey).iter().map(|c| change(before, after, c)).collect();
    let side = |surveyed: &Surveyed| json!({"file": head(surveyed), "summary": summary(surveyed)});
    to_text(&json!({"schema": SCHEMA, "before": side(before), "after": side(after), "changes": changes}))
}

fn change(before: &Surveyed, after: &Surveyed, change: &StateChange) -> Value {
    let side = match (change.after, change.before) {
        (Some(id), _) => Some((&after.survey, id)),
        (None, Some(id)) => Some((&before.survey, id)),
        (None, None) => None,
    };
    let sites = |surveyed: &Surveyed, id: Option<_>| {
        id.map_or(0, |id| surveyed.survey.call_sites(surveyed.survey.function(id)))
    };
    let mut value = json!({
        "before": change.was.name(),
        "after": change.is.name(),
        "call_sites_before": sites(before, change.before),
        "call_sites_after": sites(after, change.after),
    });
    if let Some((survey, id)) = side {
        let function = survey.function(id);
        value["function"] = json!(survey.text(function.name));
        value["declared"] = declared(survey, function);
    }
    value
}

fn head(surveyed: &Surveyed) -> Value {
    let survey = &surveyed.survey;
    let compilers: Vec<Value> =
        survey.producers.iter().map(|(name, units)| json!({"name": name, "units": units})).collect();
    json!({
        "path": surveyed.path.display().to_string(),
        "arch": survey.arch.name(),
        "linked": survey.linked,
        "compilers": compilers,
        "dwarf": survey.versions,
        "units": survey.units,
        "code_bytes": surveyed.code,
    })
}

fn summary(surveyed: &Surveyed) -> Value {
    let summary = &surveyed.summary;
    let mut value = json!({
        "all": tally(&summary.all()),
        "half_inlined_within_one_unit": summary.by_unit,
        "half_inlined_reached_by_ftrace": summary.half_inlined_reached,
        "only_inlined": {
            "functions": summary.only_inlined,
            "declared_inline": summary.only_inlined_declared,
            "inlined_copies": summary.only_inlined_copies,
        },
    });
    for (linkage, counts) in Linkage::ALL.iter().zip(&summary.by_linkage) {
        value[key(*linkage)] = tally(counts);
    }
    value
}

fn key(linkage: Linkage) -> &'static str {
    match linkage {
        Linkage::Static => "static",
        Linkage::StaticIncluded => "static_in_header",
        Linkage::Global => "global",
    }
}

fn tally(tally: &Tally) -> Value {
    json!({
        "out_of_line": tally.out_of_line,
        "half_inlined": tally.half_inlined,
        "half_inlined_across_files": tally.half_inlined_across,
        "inlined_copies": tally.inlined,
        "inlined_copies_across_files": tally.inlined_across,
    })
}

fn declared(survey: &Survey, function: &Function) -> Value {
    json!({"file": survey.text(function.file), "line": function.line})
}

fn function_json(survey: &Survey, function: &Function) -> Value {
    let copies: Vec<Value> = survey.copies(function).iter().map(|copy| out_of_line(survey, copy)).collect();
    let inlined: Vec<Value> = calls(survey, function).iter().map(|calls| call(survey, calls)).collect();
    json!({
        "function": survey.text(function.name),
        "declared": declared(survey, function),
        "linkage": key(function.linkage()),
        "declared_inline": function.declared_inline,
        "state": survey.state(function).name(),
        "call_sites": survey.call_sites(function),
        "inlined_copies": survey.inlined(function).len(),
        "out_of_line": copies,
        "inlined": inlined,
    })
}

fn out_of_line(survey: &Survey, copy: &OutOfLine) -> Value {
    let (reached, why) = match copy.reach {
        Reach::Site(_) => (json!(true), None),
        Reach::No(why) => (json!(false), Some(why.to_string())),
        Reach::Unknown => (Value::Null, None),
    };
    let mut value = json!({
        "symbol": survey.text(copy.symbol),
        "section": survey.text(copy.section),
        "address": copy.address,
        "unit": survey.text(copy.unit),
        "ftrace": reached,
    });
    if let Some(why) = why {
        value["why_not"] = json!(why);
    }
    value
}

fn call(survey: &Survey, calls: &EqualCalls<'_>) -> Value {
    let holder = survey.copy(calls.holder);
    let place = |call: &Inlined| {
        json!({
            "function": survey.text(survey.function(call.function).name),
            "file": call.file.map(|file| survey.text(file)),
            "line": call.line,
            "column": call.column,
        })
    };
    let by_way_of: Vec<Value> = calls.chain.iter().map(|call| place(call)).collect();
    json!({
        "holder": survey.text(holder.symbol),
        "holder_unit": survey.text(holder.unit),
        "file": calls.call.file.map(|file| survey.text(file)),
        "line": calls.call.line,
        "column": calls.call.column,
        "across_files": calls.call.across,
        "by_way_of": by_way_of,
        "copies": calls.times,
    })
}
