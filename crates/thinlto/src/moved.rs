//! Names that other units know and that mean something else after the patch.
//!
//! A touched unit keeps the names of its promoted locals (freeze.rs). Most of them name one thing for good. But some are
//! numbers in a row: `.str.3` is the unit's fourth string, `count.1` the second static `count`. With one more before it,
//! or with another text, the name is that of something else. A unit that imported a function which refers to that name
//! is the same code as before, and does something else. (A reference stays a reference across units where the thin link
//! may not copy the constant: a string that inline assembly names, such as the file in a `WARN`.)

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use klpx_diagnosis::{Class, Diagnosis, Place, Result};
use klpx_normalize::elf::{Definition, ElfFile, SymbolId};
use klpx_normalize::name::{self, canonical};
use klpx_normalize::object::{ItemId, Object};

/// Promoted names of the touched units that mean something else after the patch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    /// Of constants and other data without an identity: a copy serves as well.
    pub(crate) constants: BTreeSet<Vec<u8>>,
    /// Of statics, which must be the kernel's own.
    statics: BTreeSet<Vec<u8>>,
}

impl Moved {
    /// Compares the two native objects of one touched unit.
    pub(crate) fn between(original: &Path, patched: &Path) -> Result<Moved> {
        let (original, patched) = (ElfFile::open(original)?, ElfFile::open(patched)?);
        let (original, patched) = (Object::read(&original)?, Object::read(&patched)?);
        let before: BTreeMap<&[u8], ItemId> = numbered(&original).collect();
        let mut moved = Moved::default();
        if before.is_empty() {
            return Ok(moved);
        }
        let steady = (numbers(&original), numbers(&patched));
        for (name, item) in numbered(&patched) {
            let Some(&old) = before.get(name) else { continue };
            if patched.anonymous(item).is_some() {
                if !same_contents((&original, old), (&patched, item)) {
                    moved.constants.insert(name.to_vec());
                }
            } else if steady.0.get(canonical(name).base) != steady.1.get(canonical(name).base) {
                moved.statics.insert(name.to_vec());
            }
        }
        Ok(moved)
    }

    pub(crate) fn extend(&mut self, other: Moved) {
        self.constants.extend(other.constants);
        self.statics.extend(other.statics);
    }

    /// True when an object refers to one of the names.
    ///
    /// # Errors
    /// `klpx::renumbered-static` when what is meant is a variable of the running kernel.
    pub(crate) fn is_used_by(&self, unit: &str, object: &Path) -> Result<bool> {
        if self.constants.is_empty() && self.statics.is_empty() {
            return Ok(false);
        }
        let object = ElfFile::open(object)?;
        let elf = object.parse()?;
        let undefined = |id: &SymbolId| elf.definition(*id) == Definition::Undefined;
        let names: Vec<&[u8]> = elf.symbol_ids().filter(undefined).map(|id| elf.symbol_name(id)).collect();
        if let Some(name) = names.iter().find(|name| self.statics.contains(**name)) {
            let name = String::from_utf8_lossy(name::without_promotion(name)).into_owned();
            let what = "the patch renumbers a static variable that another unit refers to";
            return Err(Diagnosis::new("klpx::renumbered-static", Class::NotLivepatchable, what)
                .place(Place::symbol(name))
                .why(format!(
                    "{unit} names it by its number, which stands for another variable after the patch"
                ))
                .remedy("give the variable that the patch adds or removes a name of its own")
                .into());
        }
        Ok(names.iter().any(|name| self.constants.contains(*name)))
    }
}

/// Data that other units may know by a name whose meaning is not for good.
fn numbered<'o>(object: &'o Object<'_>) -> impl Iterator<Item = (&'o [u8], ItemId)> {
    object.item_ids().filter_map(|item| {
        let name = object.item_name(item);
        let suffixes = canonical(name).suffixes;
        let unsteady = suffixes.unsteady() || object.anonymous(item).is_some();
        (!object.item(item).code && suffixes.promoted() && unsteady).then_some((name, item))
    })
}

/// How many data of each base name there are.
fn numbers<'o>(object: &'o Object<'_>) -> BTreeMap<&'o [u8], usize> {
    let mut numbers = BTreeMap::new();
    for item in object.item_ids().filter(|&item| !object.item(item).code) {
        *numbers.entry(canonical(object.item_name(item)).base).or_insert(0) += 1;
    }
    numbers
}

/// Equal bytes, and no references that would have to be followed.
fn same_contents((a, x): (&Object<'_>, ItemId), (b, y): (&Object<'_>, ItemId)) -> bool {
    let (one, other) = (a.item(x), b.item(y));
    one.end - one.start == other.end - other.start
        && a.range(one.section, one.start, one.end) == b.range(other.section, other.start, other.end)
        && a.item_relocations(x).is_empty()
        && b.item_relocations(y).is_empty()
}
