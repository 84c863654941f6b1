//! Estimates the cost of a choice in bytes of code, from the sizes of one build's copies.
//!
//! The estimate is rough: an inlined copy was optimised for its place, and code that is inlined inside a copy is
//! counted again with each copy around it. So the sum over many functions promises more saved bytes than there will be.
//! The next build shows the true size.

use std::collections::BTreeSet;

use crate::survey::{Function, Survey, TextId};

/// Bytes of a call, including the code that sets up its arguments.
const CALL: i64 = 10;
/// Calls of an out-of-line copy of a header's function, which the debug information does not tell.
const CALLS_OF_A_COPY: i64 = 2;

/// Returns the length of a function's longest copy.
fn body(survey: &Survey, function: &Function) -> i64 {
    survey.copies(function).iter().map(|copy| i64::from(copy.bytes)).max().unwrap_or(0)
}

/// Returns the cost if every inlined copy becomes a call. A unit that only has inlined copies gets an out-of-line copy.
pub(super) fn out_of_line(survey: &Survey, function: &Function) -> i64 {
    let calls: i64 = survey.inlined(function).iter().map(|call| CALL - i64::from(call.bytes)).sum();
    let have: BTreeSet<TextId> = survey.copies(function).iter().map(|copy| copy.unit).collect();
    let lack: BTreeSet<TextId> =
        survey.inlined(function).iter().map(|call| call.home).filter(|home| !have.contains(home)).collect();
    calls + lack.len() as i64 * body(survey, function)
}

/// Returns the cost if every out-of-line copy goes and its calls become inlined copies.
pub(super) fn everywhere(survey: &Survey, function: &Function) -> i64 {
    let of = |bytes: i64| CALLS_OF_A_COPY * (bytes - CALL) - bytes;
    survey.copies(function).iter().map(|copy| of(i64::from(copy.bytes))).sum()
}
