//! The stabilised rebuild, seen from the change set: whether it is worth a try, and whether what came of it is nearer to the
//! original than the plain build.

use std::collections::BTreeSet;

use klpx_build_driver::stabilise::{self, Attempt};
use klpx_build_driver::{Pair, Patched};
use klpx_diagnosis::Result;
use klpx_normalize::elf::ElfFile;
use klpx_normalize::name;
use klpx_normalize::object::{ItemId, Object};
use serde::Serialize;

use crate::args::Level;
use crate::inlining::Originals;
use crate::progress::Steps;
use crate::render;
use crate::report::Report;

/// What was done to one object of the kernel.
#[derive(Debug, Serialize)]
pub(crate) struct Stabilised {
    object: String,
    /// The level that was reached.
    level: Level,
    /// Functions that differ in the plain build.
    plain: usize,
    /// Functions that differ in the build that was taken.
    taken: usize,
    /// Why no higher level was reached, where one was asked for.
    #[serde(skip_serializing_if = "String::is_empty")]
    why: String,
}

/// What differs: kind and canonical name, so that two comparisons can be compared.
type Differing = BTreeSet<(u8, Vec<u8>)>;

/// Tries to bring each pair nearer, while the source is patched.
pub(crate) fn refine(
    level: Level,
    patched: &mut Patched,
    tree: &stabilise::Patched<'_>,
    originals: &mut Originals<'_>,
    steps: &Steps,
    report: &mut Report,
) -> Result<()> {
    if level < Level::Inlining {
        return Ok(());
    }
    for pair in &mut patched.pairs {
        let plain = differing(pair)?;
        let functions = names_of_functions(&plain);
        // One function is the least that a change can be.
        if functions.len() < 2 {
            continue;
        }
        let (level, taken, why) = match tree.rebuild(&pair.object, &functions, steps)? {
            Attempt::Rebuilt { object, same } => {
                let nearer = Pair { patched: object, ..pair.clone() };
                let found = differing(&nearer)?;
                match refused(pair, (&plain, &found), &same, originals) {
                    Some(why) => (Level::Names, functions.len(), why),
                    None => {
                        *pair = nearer;
                        (Level::Inlining, names_of_functions(&found).len(), String::new())
                    }
                }
            }
            Attempt::NothingToUndo => continue,
            Attempt::GivenUp(why) => (Level::Names, functions.len(), why),
        };
        tell(&pair.name, level, (functions.len(), taken), &why, steps);
        report.stabilised.push(Stabilised {
            object: pair.name.clone(),
            level,
            plain: functions.len(),
            taken,
            why,
        });
    }
    Ok(())
}

/// Why the nearer build is not taken. `same` are functions that are the same in both sources.
fn refused(
    pair: &Pair,
    (plain, found): (&Differing, &Differing),
    same: &BTreeSet<String>,
    originals: &mut Originals<'_>,
) -> Option<String> {
    if !found.is_subset(plain) || found == plain {
        return Some("the original's inlining brings it no nearer".to_owned());
    }
    // A function that held a copy of what the patch edits, and whose code differs without this, is never given up for it.
    let lost = |name: &str| {
        let key = (FUNCTION, name.as_bytes().to_vec());
        plain.contains(&key) && !found.contains(&key)
    };
    originals.of(&pair.original)?.holders().filter(|holder| lost(holder.name())).find_map(|holder| {
        let inlines = holder.inlines().into_iter().find(|inlines| !same.contains(&inlines.call.function))?;
        Some(format!("it would leave out {}, which {inlines}", holder.name()))
    })
}

fn tell(object: &str, level: Level, (plain, taken): (usize, usize), why: &str, steps: &Steps) {
    steps.remark(&match level {
        Level::Off | Level::Names => format!("{object} is not stabilised further: {why}"),
        Level::Inlining => format!(
            "{object} with the original's inlining: {} instead of {}",
            render::plural(taken, "function"),
            render::count(plain)
        ),
    });
}

fn differing(pair: &Pair) -> Result<Differing> {
    let (original, patched) = (ElfFile::open(&pair.original)?, ElfFile::open(&pair.patched)?);
    let (original, patched) = rayon::join(|| Object::read(&original), || Object::read(&patched));
    let (original, patched) = (original?, patched?);
    let difference = klpx_diff::compare(&original, &patched);
    let named = |kind: u8, object: &Object<'_>, item: ItemId| {
        (kind, name::without_promotion(object.item_name(item)).to_vec())
    };
    let changes = [(FUNCTION, &difference.functions), (1, &difference.data), (2, &difference.registries)];
    let of_patched = changes
        .into_iter()
        .flat_map(|(kind, list)| list.iter().map(move |change| (kind, change.patched)))
        .map(|(kind, item)| named(kind, &patched, item));
    Ok(of_patched.chain(difference.removed.iter().map(|&item| named(3, &original, item))).collect())
}

const FUNCTION: u8 = 0;

fn names_of_functions(differing: &Differing) -> Vec<String> {
    let functions = differing.iter().filter(|(kind, _)| *kind == FUNCTION);
    functions.map(|(_, name)| String::from_utf8_lossy(name).into_owned()).collect()
}
