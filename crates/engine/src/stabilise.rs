//! The stabilised rebuild, seen from the change set: what differs between two objects, and what is told of it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use klpx_build_driver::Patched;
use klpx_build_driver::stabilise::{self, Differing, Level, Outcome};
use klpx_diagnosis::Result;
use klpx_diff::Change;
use klpx_normalize::elf::ElfFile;
use klpx_normalize::name;
use klpx_normalize::object::{ItemId, Object};
use serde::Serialize;

use crate::events::Events;
use crate::inlining::Originals;
use crate::results::Results;
use klpx_diagnosis::words;

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

/// Says what came of the patched build's levels.
pub(crate) fn tell(patched: &Patched, events: &dyn Events, results: &mut Results) {
    results.frozen = patched.remade.frozen.len();
    results.held_back = patched.held_back;
    for outcome in &patched.outcomes {
        let object = name_of(patched, outcome);
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
        results.stabilised.push(Stabilised { object, level, plain, taken, why });
    }
}

/// `vmlinux`, or a module's name.
fn name_of(patched: &Patched, outcome: &Outcome) -> String {
    let pair = patched.pairs.iter().find(|pair| pair.object == outcome.object);
    let stem = || outcome.object.file_stem().unwrap_or_default().to_string_lossy().replace('-', "_");
    pair.map_or_else(stem, |pair| pair.name.clone())
}

/// Judges builds by the comparison of objects, and by who held what in the original.
pub(crate) struct Judge<'o, 'p>(pub(crate) Mutex<&'o mut Originals<'p>>);

impl stabilise::Judge for Judge<'_, '_> {
    fn differing(&self, original: &Path, patched: &Path) -> Result<Differing> {
        differing(original, patched)
    }

    /// A function that held a copy of what the patch edits, and whose code differs without this, is never given up for
    /// it.
    fn refuses(
        &self,
        original: &Path,
        left_out: &BTreeSet<String>,
        is_same: &dyn Fn(&str) -> bool,
    ) -> Option<String> {
        let mut originals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let holders = originals.of(original)?.holders().filter(|holder| left_out.contains(holder.name()));
        holders.into_iter().find_map(|holder| {
            let inlines = holder.inlines().into_iter().find(|inlines| !is_same(&inlines.call.function))?;
            Some(format!("it would leave out {}, which {inlines}", holder.name()))
        })
    }
}

/// Compares two objects.
fn differing(original: &Path, patched: &Path) -> Result<Differing> {
    let (original, patched) = (ElfFile::open(original)?, ElfFile::open(patched)?);
    let (original, patched) = rayon::join(|| Object::read(&original), || Object::read(&patched));
    let (original, patched) = (original?, patched?);
    let difference = klpx_diff::compare(&original, &patched);
    let named = |object: &Object<'_>, item: ItemId| {
        String::from_utf8_lossy(name::without_promotion(object.item_name(item))).into_owned()
    };
    let of_patched = |change: &Change| named(&patched, change.patched);
    let others = difference.data.iter().chain(&difference.registries).map(of_patched);
    let gone = difference.removed.iter().map(|&item| format!("-{}", named(&original, item)));
    Ok(Differing {
        functions: difference.functions.iter().map(of_patched).collect(),
        others: others.chain(gone).collect(),
    })
}
