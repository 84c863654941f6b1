//! The plan: which functions and callbacks of which objects the module's glue names.

use std::collections::BTreeMap;

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, codes};
use klpx_normalize::object::ItemId;
use object::elf;

use super::Emitter;
use crate::closure::{Piece, place_of};
use crate::plan::{ALIAS, PlannedCallback, PlannedFunction, PlannedObject};
use crate::writer::{Symbol, SymbolPlace};

impl Emitter<'_, '_, '_> {
    pub(super) fn plan_objects(&mut self) -> Vec<PlannedObject> {
        let mut units_of: BTreeMap<(bool, &str), Vec<usize>> = BTreeMap::new();
        for unit in 0..self.closure.units.len() {
            let builds = self.unit(unit);
            units_of.entry((!builds.is_vmlinux(), builds.object_name)).or_default().push(unit);
        }
        let mut objects = Vec::new();
        let mut aliases = 0;
        for ((_, name), units) in units_of {
            let functions = self.plan_functions(&units, &mut aliases);
            let callbacks = self.plan_callbacks(&units, &mut aliases);
            if functions.is_empty() && callbacks.is_empty() {
                continue;
            }
            if name.len() > 55 || name.contains('.') {
                self.faults.push(
                    Diagnosis::new(
                        &codes::OBJECT_NAME,
                        "a module name that livepatch can't take",
                        "names are limited to 55 characters without a dot",
                        "change code of vmlinux or of another module instead",
                    )
                    .place(DiagnosisPlace::symbol(name)),
                );
            }
            let mut added: Vec<String> = units.iter().flat_map(|&unit| self.added(unit)).collect();
            added.sort();
            objects.push(PlannedObject { name: name.to_owned(), functions, callbacks, added });
        }
        objects
    }

    /// The names of what a unit adds. Refuses a global whose name the kernel object has already: such a global would
    /// override a weak one, or have come from another file, and the callers of the old one can't be known.
    fn added(&mut self, unit: usize) -> Vec<String> {
        let builds = self.unit(unit);
        let mut names = Vec::new();
        for piece in &self.closure.pieces[unit] {
            let Piece::Item(item) = *piece else { continue };
            let name = builds.patched.item_name(item);
            if builds.counterpart(item).is_some() || builds.patched.anonymous(item).is_some() {
                continue;
            }
            let name = String::from_utf8_lossy(name).into_owned();
            let local =
                builds.patched.elf.symbol_binding(builds.patched.item(item).symbol) == elf::STB_LOCAL.0;
            if !local && self.binder.defines(builds.object_name, &name) {
                self.faults.push(not_new(place_of(builds.patched, item), builds.object_name));
            }
            names.push(name);
        }
        names
    }

    fn plan_functions(&mut self, units: &[usize], aliases: &mut usize) -> Vec<PlannedFunction> {
        let mut found = Vec::new();
        for &unit in units {
            let builds = self.unit(unit);
            for piece in &self.closure.pieces[unit] {
                let Piece::Item(item) = *piece else { continue };
                let Some(original) =
                    builds.counterpart(item).filter(|_| self.closure.is_replacement(unit, item))
                else {
                    continue;
                };
                match self.binder.bind(builds.original, builds.original.item(original).symbol) {
                    Ok(old) => found.push((old, unit, item)),
                    Err(fault) => self.faults.push(fault),
                }
            }
        }
        found.sort();
        for pair in found.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
            let (_, unit, item) = pair[1];
            self.faults.push(replaced_twice(place_of(self.unit(unit).patched, item)));
        }
        found
            .into_iter()
            .map(|(old, unit, item)| PlannedFunction { old, alias: self.alias(unit, item, aliases) })
            .collect()
    }

    fn plan_callbacks(&mut self, units: &[usize], aliases: &mut usize) -> Vec<PlannedCallback> {
        let of_unit =
            |&unit: &usize| self.closure.callbacks[unit].iter().map(move |&callback| (callback, unit));
        let mut found: Vec<_> = units.iter().flat_map(of_unit).collect();
        found.sort_by_key(|&(callback, unit)| (callback.kind, unit, callback.item));
        for pair in found.windows(2).filter(|pair| pair[0].0.kind == pair[1].0.kind) {
            let (callback, unit) = pair[1];
            self.faults.push(
                Diagnosis::new(
                    &codes::CALLBACK_TWICE,
                    "two callbacks of one kind",
                    format!("an object has one {} callback", callback.kind.member()),
                    "do both in one function",
                )
                .place(place_of(self.unit(unit).patched, callback.item)),
            );
        }
        found
            .into_iter()
            .map(|(callback, unit)| PlannedCallback {
                kind: callback.kind,
                alias: self.alias(unit, callback.item, aliases),
            })
            .collect()
    }

    fn alias(&mut self, unit: usize, item: ItemId, aliases: &mut usize) -> String {
        let name = format!("{ALIAS}{aliases}");
        *aliases += 1;
        if let Some(placed) = self.placed.get(&(unit, Piece::Item(item))) {
            self.out.symbols.push(Symbol {
                name: name.clone().into_bytes(),
                binding: elf::STB_GLOBAL.0,
                kind: elf::STT_FUNC.0,
                other: 0,
                place: SymbolPlace::In(placed.section),
                value: placed.anchor,
                size: 0,
            });
        }
        name
    }
}

fn not_new(place: DiagnosisPlace, object: &str) -> Diagnosis {
    Diagnosis::new(
        &codes::NOT_NEW,
        "the kernel has something of this name already",
        format!(
            "the patch adds it to a file that does not have it, and {object} has a global of \
             that name from another one"
        ),
        "leave what moved where it was, or give the new one a name of its own",
    )
    .place(place)
}

fn replaced_twice(place: DiagnosisPlace) -> Diagnosis {
    Diagnosis::new(
        &codes::AMBIGUOUS_SYMBOL,
        "two functions of the patch replace one of the kernel",
        "two units were bound to one and the same symbol of the kernel, and one of them must be another",
        "give klpx the source, configuration and compiler that the kernel was built with",
    )
    .place(place)
}
