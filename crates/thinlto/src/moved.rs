//! Finds names that other units refer to and that denote something else after the patch.
//!
//! A touched unit keeps the names of its promoted locals (freeze.rs). Most of these names always denote the same thing.
//! But some are numbered in sequence: `.str.3` is the unit's fourth string, `count.1` the second static `count`. If the
//! patch adds an item before it, or changes a text, the name denotes something else. A unit that imported a function
//! which refers to this name has the same code as before, but does something else. (A reference stays a reference
//! across units where the thin link may not copy the constant: a string that inline assembly names, such as the file in
//! a `WARN`.)

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Result, codes};
use klpx_normalize::elf::{Definition, ElfFile, SymbolId};
use klpx_normalize::name::{self, canonical};
use klpx_normalize::object::{ItemId, Object};

/// Promoted names of the touched units that denote something else after the patch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    /// Names of constants and other anonymous data: a copy serves as well.
    pub(crate) constants: BTreeSet<Vec<u8>>,
    /// Names of statics, which must be the kernel's own.
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

    /// Returns true if the object refers to one of the names.
    ///
    /// # Errors
    /// `klpx::renumbered-static` if the name denotes a variable of the running kernel.
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
            return Err(Diagnosis::new(
                &codes::RENUMBERED_STATIC,
                what,
                format!("{unit} names it by its number, which stands for another variable after the patch"),
                "give the variable that the patch adds or removes a name of its own",
            )
            .place(DiagnosisPlace::symbol(name))
            .into());
        }
        Ok(names.iter().any(|name| self.constants.contains(*name)))
    }
}

/// Data that other units may know by a name whose meaning can change.
fn numbered<'o>(object: &'o Object<'_>) -> impl Iterator<Item = (&'o [u8], ItemId)> {
    object.item_ids().filter_map(|item| {
        let name = object.item_name(item);
        let suffixes = canonical(name).suffixes;
        let unsteady = suffixes.unsteady() || object.anonymous(item).is_some();
        (!object.item(item).code && suffixes.promoted() && unsteady).then_some((name, item))
    })
}

/// The number of data objects for each base name.
fn numbers<'o>(object: &'o Object<'_>) -> BTreeMap<&'o [u8], usize> {
    let mut numbers = BTreeMap::new();
    for item in object.item_ids().filter(|&item| !object.item(item).code) {
        *numbers.entry(canonical(object.item_name(item)).base).or_insert(0) += 1;
    }
    numbers
}

/// Returns true for equal bytes without references that would have to be followed.
fn same_contents((a, x): (&Object<'_>, ItemId), (b, y): (&Object<'_>, ItemId)) -> bool {
    let (one, other) = (a.item(x), b.item(y));
    one.end - one.start == other.end - other.start
        && a.range(one.section, one.start, one.end) == b.range(other.section, other.start, other.end)
        && a.item_relocations(x).is_empty()
        && b.item_relocations(y).is_empty()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use klpx_testkit::{command, run};

    use super::*;

    /// A data object: name, section, contents.
    type Datum<'t> = (&'t str, &'t str, &'t str);

    fn object(folder: &Path, name: &str, data: &[Datum<'_>], more: &str) -> PathBuf {
        let each = data.iter().map(|(name, section, contents)| {
            let flags = if *section == ".data" { "aw" } else { "a" };
            format!(
                ".section {section}.{name},\"{flags}\"\n.globl {name}\n.hidden {name}\n.type {name},@object\n\
                 {name}: {contents}\n.size {name},.-{name}\n"
            )
        });
        let text: String = each.chain([more.to_owned()]).collect();
        let (source, to) = (folder.join(format!("{name}.s")), folder.join(format!("{name}.o")));
        std::fs::write(&source, format!(".file \"a.c\"\n{text}")).expect("a file");
        run(command("as").arg(&source).arg("-o").arg(&to));
        to
    }

    const STRING: &str = ".str.3.llvm.77";
    const STATIC: &str = "count.1.llvm.77";

    #[test]
    fn numbered_names_mean_the_same_while_contents_or_numbers_stay() {
        let (text, other, named) = (".asciz \"one\"", ".asciz \"two\"", ".quad f");
        let string = |contents: &'static str| vec![(STRING, ".rodata", contents)];
        let counts = |more: &[Datum<'static>]| [&[(STATIC, ".data", ".long 5")], more].concat();
        let second: &[Datum<'static>] = &[("count.2.llvm.77", ".data", ".long 5")];
        let steady = |contents: &'static str| vec![("limit.llvm.77", ".data", contents)];
        // Original, patched, and how many constants and statics denote something else.
        let cases = [
            (string(text), string(text), 0, 0),
            (string(text), string(other), 1, 0),
            (string(text), string(".asciz \"longer\""), 1, 0),
            (string(named), string(named), 1, 0),
            (string(named), string(".quad 0"), 1, 0),
            (string(".quad 0"), string(named), 1, 0),
            (string(text), counts(&[]), 0, 0),
            (counts(&[]), counts(&[]), 0, 0),
            (counts(&[]), counts(second), 0, 1),
            (counts(second), counts(&[]), 0, 1),
            (steady(".long 5"), steady(".long 6"), 0, 0),
        ];
        for (n, (original, patched, constants, statics)) in cases.into_iter().enumerate() {
            let folder = tempfile::tempdir().expect("a folder");
            let of = |name: &str, data: &[Datum<'_>]| object(folder.path(), name, data, "");
            let moved =
                Moved::between(&of("original", &original), &of("patched", &patched)).expect("objects");
            assert_eq!((moved.constants.len(), moved.statics.len()), (constants, statics), "case {n}");
        }
    }

    #[test]
    fn who_refers_to_a_name_that_moved_is_found_and_a_variable_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let user = |name: &str, of: &str| {
            object(folder.path(), name, &[], &format!(".text\nf: lea {of}(%rip),%rax\n"))
        };
        let set = |name: &str, has: bool| has.then(|| name.as_bytes().to_vec()).into_iter().collect();
        let moved =
            |constant, variable| Moved { constants: set(STRING, constant), statics: set(STATIC, variable) };
        let (string, count, neither) =
            (user("string", STRING), user("count", STATIC), user("neither", "other"));
        let own = object(folder.path(), "own", &[(STRING, ".rodata", ".asciz \"one\"")], "");
        for (object, moved, used) in [
            (&string, moved(true, false), Some(true)),
            (&string, moved(false, true), Some(false)),
            (&string, moved(false, false), Some(false)),
            (&count, moved(true, false), Some(false)),
            (&count, moved(true, true), None),
            (&neither, moved(true, true), Some(false)),
            (&own, moved(true, true), Some(false)),
        ] {
            let found = moved.is_used_by("fs/b.o", object);
            let codes = |failure: klpx_diagnosis::Failure| {
                failure.diagnoses().map(|one| one.code).collect::<Vec<_>>()
            };
            let wanted = used.ok_or_else(|| vec!["klpx::renumbered-static"]);
            assert_eq!(found.map_err(codes), wanted, "{object:?} {moved:?}");
        }
    }
}
