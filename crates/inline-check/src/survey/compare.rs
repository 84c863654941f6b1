//! Compares two surveys: which functions became half-inlined, and which no longer are.

use std::collections::BTreeMap;

use super::{Function, FunctionId, Survey};

/// The kinds of copies that a function has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CopyState {
    /// The function is not in the file.
    Absent,
    /// Out of line only.
    OutOfLine,
    /// Both kinds: the function is half-inlined.
    Both,
    /// Inlined only.
    Inlined,
}

impl CopyState {
    /// Returns the state in a word or two.
    pub fn name(self) -> &'static str {
        match self {
            CopyState::Absent => "absent",
            CopyState::OutOfLine => "out of line",
            CopyState::Both => "half-inlined",
            CopyState::Inlined => "only inlined",
        }
    }
}

impl Survey {
    /// Returns the kinds of copies that a function has.
    pub fn state(&self, function: &Function) -> CopyState {
        match (function.copies.is_empty(), function.inlined.is_empty()) {
            (true, true) => CopyState::Absent,
            (false, true) => CopyState::OutOfLine,
            (false, false) => CopyState::Both,
            (true, false) => CopyState::Inlined,
        }
    }
}

/// A function whose state differs between two files and is [`CopyState::Both`] in one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// The function in the first file, if the file has it.
    pub before: Option<FunctionId>,
    /// The function in the second file, if the file has it.
    pub after: Option<FunctionId>,
    /// The function's state in the first file.
    pub was: CopyState,
    /// The function's state in the second file.
    pub is: CopyState,
}

/// Compares two files. Functions are matched by name and file; several of one name in one file, by their order.
pub fn compare(before: &Survey, after: &Survey) -> Vec<StateChange> {
    let mut pairs: BTreeMap<(&str, &str, usize), [Option<FunctionId>; 2]> = BTreeMap::new();
    for (side, survey) in [before, after].into_iter().enumerate() {
        let mut seen: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for (id, function) in survey.functions() {
            let (file, name) = (survey.text(function.file), survey.text(function.name));
            let ordinal = seen.entry((file, name)).or_default();
            pairs.entry((file, name, *ordinal)).or_default()[side] = Some(id);
            *ordinal += 1;
        }
    }
    let state = |survey: &Survey, id: Option<FunctionId>| {
        id.map_or(CopyState::Absent, |id| survey.state(survey.function(id)))
    };
    pairs
        .into_values()
        .map(|[b, a]| StateChange { before: b, after: a, was: state(before, b), is: state(after, a) })
        .filter(|change| change.was != change.is && [change.was, change.is].contains(&CopyState::Both))
        .collect()
}
