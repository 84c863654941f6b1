//! What is told of bringing a ThinLTO link's patched units near to the original.

use klpx_diagnosis::words;
use klpx_thinlto::{Level, Made};
use serde::Serialize;

use crate::events::Events;
use crate::results::Results;

/// What was done to one object of the kernel.
#[derive(Debug, Serialize)]
pub struct Stabilised {
    /// The object.
    object: String,
    /// The level that was reached.
    level: Level,
    /// Functions of the touched units that differ in the plain build.
    plain: usize,
    /// Functions of them that differ in the build that was taken.
    taken: usize,
    /// Why no higher level was reached, where one was asked for.
    #[serde(skip_serializing_if = "String::is_empty")]
    why: String,
}

/// Says what came of an object's levels.
pub(crate) fn tell(object: &str, made: &Made, events: &dyn Events, results: &mut Results) {
    results.frozen += made.frozen;
    results.held_back += made.held_back;
    if made.spared > 0 {
        let spared = words::plural(made.spared, "function");
        events.note(&format!("{object}: {spared} of untouched units inline what they inlined before"));
    }
    let Some(outcome) = &made.outcome else { return };
    let (level, why) = match &outcome.given_up {
        None => (Level::Inlining, String::new()),
        Some(why) => (Level::Imports, why.clone()),
    };
    events.note(&match level {
        Level::Inlining => format!(
            "{object} with the original's inlining: {} instead of {}",
            words::plural(outcome.taken, "function"),
            words::count(outcome.plain)
        ),
        _ => format!("{object} is not stabilised further: {why}"),
    });
    let (plain, taken) = (outcome.plain, outcome.taken);
    results.stabilised.push(Stabilised { object: object.to_owned(), level, plain, taken, why });
}
