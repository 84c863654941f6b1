//! What a choice costs in bytes of code, as far as the sizes of one build's copies tell.
//!
//! An estimate: a copy that was inlined was optimised for its place, and what is inlined inside it is counted with each
//! copy around it. So the sum over many functions says more bytes saved than there will be. The next build's code tells
//! the truth.

use std::collections::BTreeSet;

use crate::survey::{Function, Survey, TextId};

/// Bytes of a call, with what puts its arguments in place.
const CALL: i64 = 10;
/// Calls that an out-of-line copy of a header's function has, where the debug information does not say.
const CALLS_OF_A_COPY: i64 = 2;

/// The length of a function's longest copy.
fn body(survey: &Survey, function: &Function) -> i64 {
    survey.copies(function).iter().map(|copy| i64::from(copy.bytes)).max().unwrap_or(0)
}

/// Every inlined copy becomes a call; a unit that had inlined ones only gets a copy of its own.
pub(super) fn out_of_line(survey: &Survey, function: &Function) -> i64 {
    let calls: i64 = survey.inlined(function).iter().map(|call| CALL - i64::from(call.bytes)).sum();
    let have: BTreeSet<TextId> = survey.copies(function).iter().map(|copy| copy.unit).collect();
    let lack: BTreeSet<TextId> =
        survey.inlined(function).iter().map(|call| call.home).filter(|home| !have.contains(home)).collect();
    calls + lack.len() as i64 * body(survey, function)
}

/// Every out-of-line copy goes, and its calls become inlined copies.
pub(super) fn everywhere(survey: &Survey, function: &Function) -> i64 {
    let of = |bytes: i64| CALLS_OF_A_COPY * (bytes - CALL) - bytes;
    survey.copies(function).iter().map(|copy| of(i64::from(copy.bytes))).sum()
}
