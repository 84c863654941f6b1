//! The plan: which functions and callbacks of which objects the module's glue names.

use klpx_diagnosis::{Class, Diagnosis, Place as Where};
use klpx_normalize::object::ItemId;
use object::elf;

use super::Emitter;
use crate::closure::{Piece, place_of};
use crate::plan::{ALIAS, PlannedCallback, PlannedFunction, PlannedObject};
use crate::writer::{Place, Symbol};

impl Emitter<'_, '_, '_> {
    pub(super) fn plan_objects(&mut self) -> Vec<PlannedObject> {
        let mut order: Vec<usize> = (0..self.closure.units.len()).collect();
        order.sort_by_key(|&n| (!self.unit(n).is_vmlinux(), self.unit(n).object_name));
        let mut objects = Vec::new();
        let mut aliases = 0;
        for unit in order {
            let functions = self.plan_functions(unit, &mut aliases);
            let callbacks = self.plan_callbacks(unit, &mut aliases);
            let of = self.unit(unit);
            if functions.is_empty() && callbacks.is_empty() {
                continue;
            }
            if of.object_name.len() > 55 || of.object_name.contains('.') {
                self.faults.push(
                    Diagnosis::new(
                        "klpx::object-name",
                        Class::NotLivepatchable,
                        "a module name that livepatch can't take",
                    )
                    .place(Where::symbol(of.object_name))
                    .why("names are limited to 55 characters without a dot"),
                );
            }
            let mut added: Vec<String> = self.closure.pieces[unit]
                .iter()
                .filter_map(|piece| match piece {
                    Piece::Item(item) if of.counterpart(*item).is_none() => Some(*item),
                    _ => None,
                })
                .map(|item| String::from_utf8_lossy(of.patched.item_name(item)).into_owned())
                .filter(|name| klpx_normalize::name::anonymous(name.as_bytes()).is_none())
                .collect();
            added.sort();
            objects.push(PlannedObject { name: of.object_name.to_owned(), functions, callbacks, added });
        }
        objects
    }

    fn plan_functions(&mut self, unit: usize, aliases: &mut usize) -> Vec<PlannedFunction> {
        let of = self.unit(unit);
        let mut found = Vec::new();
        for piece in &self.closure.pieces[unit] {
            let Piece::Item(item) = *piece else { continue };
            let Some(original) = of.counterpart(item).filter(|_| self.closure.is_replacement(unit, item))
            else {
                continue;
            };
            match self.binder.bind(of.object_name, of.original, of.original.item(original).symbol) {
                Ok(old) => found.push((old, item)),
                Err(fault) => self.faults.push(fault),
            }
        }
        found.sort();
        found
            .into_iter()
            .map(|(old, item)| PlannedFunction { old, alias: self.alias(unit, item, aliases), item })
            .collect()
    }

    fn plan_callbacks(&mut self, unit: usize, aliases: &mut usize) -> Vec<PlannedCallback> {
        let found = self.closure.callbacks[unit].clone();
        let repeated: Vec<_> = found.windows(2).filter(|pair| pair[0].kind == pair[1].kind).collect();
        for pair in repeated {
            self.faults.push(
                Diagnosis::new("klpx::callback-twice", Class::NotLivepatchable, "two callbacks of one kind")
                    .place(place_of(self.unit(unit).patched, pair[1].item))
                    .why(format!("an object has one {} callback", pair[1].kind.member()))
                    .remedy("do both in one function"),
            );
        }
        found
            .into_iter()
            .map(|callback| PlannedCallback {
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
                place: Place::In(placed.section),
                value: placed.anchor,
                size: 0,
            });
        }
        name
    }
}
