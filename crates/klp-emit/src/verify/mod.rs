//! The check of a finished module against the kernel to be patched: what the loader, the livepatch core and ftrace will
//! do with it, simulated; and whether each copied function still means what the patched build meant.
//!
//! Owns a second way to everything: nothing here is shared with what wrote the module, but the reader of the arrays in
//! `inspect`. Never changes the module.

mod alternatives;
mod format;
mod frames;
mod meaning;
mod tables;
mod target;
#[cfg(test)]
mod tests;
mod twins;

use std::collections::{BTreeMap, BTreeSet};

use klpx_diagnosis::{Class, Diagnosis, Failure, Place, Result};
use klpx_diff::Change;
use klpx_inline_check::reach;
use klpx_normalize::elf::{Definition, Elf, ElfFile};
use klpx_normalize::lifetime::Lifetime;
use klpx_normalize::name::without_promotion;
use klpx_normalize::object::{ItemId, Object, Target};

pub use target::{KernelFiles, LoadTarget};

use crate::inspect::{self, Module};
use crate::plan::{Unit, VMLINUX};

/// What was checked, for the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Livepatch symbols that the kernel to be patched resolves.
    pub symbols: usize,
    /// Relocations that were compared with what the patched build meant, or that the loader takes.
    pub relocations: usize,
    /// Replaced functions that ftrace reaches.
    pub reachable: usize,
    /// Replaced functions.
    pub functions: usize,
}

/// Checks a finished module.
///
/// # Errors
/// Everything that is wrong with it, with codes that begin with `klpx::verify-`.
pub fn verify(module: &ElfFile, target: &dyn LoadTarget, units: &[Unit<'_, '_>]) -> Result<Verified> {
    let elf = module.parse()?;
    let mut check = Check {
        module: inspect::read(&elf),
        elf: &elf,
        target,
        faults: Vec::new(),
        verified: Verified::default(),
    };
    check.run(units);
    let Check { mut faults, verified, .. } = check;
    // The same tables as of any object: entry forms, companions, relocations in order.
    if let Err(failure) = Object::read(module) {
        faults.extend(failure.diagnoses().map(|found| {
            fault("klpx::verify-format", found.what.clone(), found.why.clone()).place(found.place.clone())
        }));
    }
    Failure::all(faults)?;
    Ok(verified)
}

/// Takes an entry for a function of an object; false when there is none left.
fn take<'a>(listed: &mut BTreeMap<(&'a str, &'a [u8]), usize>, object: &'a str, name: &'a [u8]) -> bool {
    let entries = listed.entry((object, name)).or_default();
    let rest = entries.checked_sub(1);
    *entries = rest.unwrap_or(0);
    rest.is_some()
}

fn not_replaced(what: &str, name: &[u8], why: &str) -> Diagnosis {
    fault("klpx::verify-arrays", what, why).place(Place::symbol(String::from_utf8_lossy(name)))
}

/// The patched build's items for data of the kernel that the patch changes: no livepatch may refer to the kernel's.
fn changed_constants(unit: &Unit<'_, '_>) -> impl Iterator<Item = ItemId> {
    let ours = |change: &&Change| change.original.is_some_and(|original| !unit.is_overridden(original));
    let changes = unit.difference.data.iter().filter(ours).map(|change| change.patched);
    changes.filter(|&item| !klpx_diff::is_anonymous(unit.patched, item))
}

/// The original's functions that ftrace reaches and whose code is the same in both builds, but refers to such data.
fn unchanged_users(unit: &Unit<'_, '_>) -> Vec<ItemId> {
    let constants: BTreeSet<ItemId> = changed_constants(unit).collect();
    let changed: BTreeSet<ItemId> = unit.difference.functions.iter().map(|change| change.patched).collect();
    let object = unit.patched;
    let uses = |item: &ItemId| {
        let section = object.item(*item).section;
        object.item_relocations(*item).iter().any(|rela| {
            matches!(object.resolve(section, rela), Target::Item { item, .. } if constants.contains(&item))
        })
    };
    let functions = object.item_ids().filter(|item| object.item(*item).code && !changed.contains(item));
    let users = functions.filter(|item| !constants.is_empty() && uses(item));
    let originals = users.filter_map(|item| unit.counterpart(item));
    let kept = |item: &ItemId| !unit.is_overridden(*item) && reach::reach(unit.original, *item).is_ok();
    originals.filter(kept).collect()
}

/// One finding. They are klpx's own faults or those of the files it was given, so the remedy is always the same.
pub(crate) fn fault(code: &'static str, what: impl Into<String>, why: impl Into<String>) -> Diagnosis {
    Diagnosis::new(code, Class::Verification, what)
        .why(why)
        .remedy("do not load this module; check that the kernel files belong together, and report this")
}

pub(crate) struct Check<'c, 'd> {
    pub(crate) elf: &'c Elf<'d>,
    pub(crate) module: Module,
    pub(crate) target: &'c dyn LoadTarget,
    pub(crate) faults: Vec<Diagnosis>,
    pub(crate) verified: Verified,
}

impl Check<'_, '_> {
    fn run(&mut self, units: &[Unit<'_, '_>]) {
        self.check_modinfo();
        self.check_needed_sections();
        self.check_sections();
        self.check_symbols();
        self.check_functions(units);
        self.check_tables();
        self.check_meaning(units);
        self.check_frames(units);
    }

    fn check_modinfo(&mut self) {
        let wrong = |key: &str, want: &str, have: Option<&str>| {
            let have = have.map_or("it has none".to_owned(), |have| format!("it says {have}"));
            fault("klpx::verify-modinfo", format!("the module's {key} is not {want}"), have)
        };
        for (key, want) in [("livepatch", "Y"), ("license", "GPL")] {
            let have = self.module.info(key);
            if have != Some(want) {
                self.faults.push(wrong(key, want, have));
            }
        }
        if let Some(want) = self.target.vermagic() {
            let have = self.module.info("vermagic");
            if have.map(str::trim) != Some(want.trim()) {
                self.faults.push(wrong("vermagic", want.trim(), have));
            }
        }
    }

    /// Every symbol that someone else defines is found, by the rules of whoever looks for it.
    fn check_symbols(&mut self) {
        for id in self.elf.symbol_ids() {
            let name = String::from_utf8_lossy(self.elf.symbol_name(id)).into_owned();
            match self.elf.definition(id) {
                Definition::Livepatch => match inspect::parse_symbol(&name) {
                    Some(symbol) => {
                        let found = self.resolve(&symbol.object, &symbol.name, symbol.sympos);
                        self.verified.symbols += usize::from(found.is_some());
                    }
                    None => self.faults.push(
                        fault(
                            "klpx::verify-symbol",
                            "a livepatch symbol without the proper form",
                            "the kernel refuses it",
                        )
                        .place(Place::symbol(name)),
                    ),
                },
                Definition::Undefined if name.is_empty() => {}
                Definition::Undefined => self.check_import(&name),
                _ => {}
            }
        }
    }

    fn check_import(&mut self, name: &str) {
        let Some(object) = self.target.exporter(name) else {
            let why = "the kernel to be patched does not export it";
            return self.faults.push(
                fault("klpx::verify-import", "an import that can't be found", why).place(Place::symbol(name)),
            );
        };
        let depends = self.module.info("depends").unwrap_or_default();
        if object != VMLINUX && !depends.split(',').any(|module| module.replace('-', "_") == object) {
            let why = format!("{object} exports it, and the module does not depend on that");
            self.faults.push(
                fault("klpx::verify-import", "an import that may not be there", why)
                    .place(Place::symbol(name)),
            );
        }
    }

    /// As klp_find_object_symbol does it.
    pub(crate) fn resolve(&mut self, object: &str, name: &str, sympos: u64) -> Option<u64> {
        let wrong = |why: String| {
            fault("klpx::verify-symbol", "a symbol that the kernel to be patched does not resolve", why)
                .place(Place::symbol(name))
        };
        let Some(found) = self.target.addresses(object, name) else {
            self.faults.push(wrong(format!("klpx has no file of the object {object}")));
            return None;
        };
        let why = match (sympos, found.len()) {
            (_, 0) => format!("{object} has no such symbol"),
            (0, 1) => return Some(found[0]),
            (0, n) => format!("{object} has {n} of that name, and the module does not say which"),
            (position, n) if position as usize <= n => return Some(found[position as usize - 1]),
            (position, n) => format!("the module wants number {position} of that name, and {object} has {n}"),
        };
        self.faults.push(wrong(why));
        None
    }

    /// Every array entry names a function that is there and that ftrace can redirect to one that is in the module.
    fn check_functions(&mut self, units: &[Unit<'_, '_>]) {
        let objects = self.module.objects.clone();
        if objects.is_empty() {
            self.faults.push(fault(
                "klpx::verify-arrays",
                "the module patches nothing",
                "its klp_patch arrays are empty or broken",
            ));
        }
        for object in &objects {
            for function in &object.functions {
                self.verified.functions += 1;
                let place = Place::symbol(function.old_name.clone());
                if function.new_symbol.is_empty() || function.new_size == 0 {
                    let why = "its replacement has no symbol with a size, and the kernel needs that size";
                    self.faults.push(
                        fault("klpx::verify-arrays", "a replaced function without a new one", why)
                            .place(place.clone()),
                    );
                }
                let Some(address) = self.resolve(&object.name, &function.old_name, function.sympos) else {
                    continue;
                };
                match self.target.is_traced(&object.name, address) {
                    true => self.verified.reachable += 1,
                    false => {
                        let why = "the kernel to be patched has no ftrace record in it";
                        self.faults.push(
                            fault("klpx::verify-ftrace", "ftrace can't redirect this function", why)
                                .place(place),
                        );
                    }
                }
            }
        }
        self.check_all_replaced(units, &objects);
    }

    /// Every changed function that outlives boot is in the arrays, under the object it belongs to.
    fn check_all_replaced(&mut self, units: &[Unit<'_, '_>], objects: &[inspect::PatchedObject]) {
        // Several units of one object may have functions of one name: each needs an entry of its own.
        let mut listed: BTreeMap<(&str, &[u8]), usize> = BTreeMap::new();
        for object in objects {
            for function in &object.functions {
                *listed.entry((&object.name, function.new_symbol.as_bytes())).or_default() += 1;
            }
        }
        for unit in units {
            for change in &unit.difference.functions {
                let Some(original) = change.original.filter(|&original| !unit.is_overridden(original)) else {
                    continue;
                };
                let name = without_promotion(unit.original.item_name(original));
                let section = unit.original.elf.section_name(unit.original.item(original).section);
                let built_in = unit.is_vmlinux();
                let left_out = Lifetime::of(section).is_gone(built_in) || name.ends_with(b".cold");
                // Its callers are in the change set then, or the closure would have been refused.
                let helper = reach::reach(unit.original, original).is_err();
                if left_out || helper || name.windows(6).any(|w| w == b".cold.") {
                    continue;
                }
                if !take(&mut listed, unit.object_name, name) {
                    let why = "it is in the change set, but not in the module's arrays";
                    self.faults.push(not_replaced("a changed function that is not replaced", name, why));
                }
            }
        }
        for unit in units {
            for item in unchanged_users(unit) {
                let name = without_promotion(unit.original.item_name(item));
                if !take(&mut listed, unit.object_name, name) {
                    let why = "it goes on with the kernel's constant, and the patch changes that";
                    self.faults.push(not_replaced("a function that is not replaced", name, why));
                }
            }
        }
    }
}
