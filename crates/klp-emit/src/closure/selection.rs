//! The choice: begins with what changed, and follows references until nothing is missing.

use std::collections::{BTreeMap, BTreeSet};

use klpx_diagnosis::{Diagnosis, Failure, Note, Result, codes};
use klpx_inline_check::reach;
use klpx_normalize::lifetime::Lifetime;
use klpx_normalize::name::is_apart;
use klpx_normalize::object::{ItemId, SectionRange, Target};

use super::globals::{new_globals, undefined};
use super::pieces::{Callback, Piece, is_gone, place_of};
use super::referents::{Closure, Reference, ReferenceOrigin, Referent};
use super::{direct, refusals};
use crate::callers::{Elsewhere, callers, is_branch};
use crate::constants;
use crate::plan::{CallbackKind, ComparedUnit};

/// Chooses what goes into the module.
///
/// # Errors
/// All reasons why the change can't be a livepatch.
pub fn select<'u, 'd>(units: &'u [ComparedUnit<'u, 'd>], elsewhere: &Elsewhere) -> Result<Closure<'u, 'd>> {
    let mut selection = Selection {
        elsewhere,
        closure: Closure {
            units,
            pieces: vec![BTreeSet::new(); units.len()],
            callbacks: vec![Vec::new(); units.len()],
            helpers: vec![BTreeSet::new(); units.len()],
            calls: vec![BTreeMap::new(); units.len()],
            constants: vec![BTreeSet::new(); units.len()],
            users: vec![BTreeMap::new(); units.len()],
            warnings: Vec::new(),
            new_globals: new_globals(units),
            imports: units.iter().map(|unit| undefined(unit.original)).collect(),
        },
        todo: Vec::new(),
        faults: Vec::new(),
    };
    for unit in 0..units.len() {
        selection.roots(unit);
    }
    selection.parents();
    selection.run();
    Failure::all(selection.faults)?;
    let mut closure = selection.closure;
    if closure.pieces.iter().all(BTreeSet::is_empty) {
        return Err(refusals::nothing_to_replace(&closure.warnings).into());
    }
    closure.warnings.sort();
    closure.warnings.dedup();
    Ok(closure)
}

/// A closure that is being chosen.
struct Selection<'s, 'u, 'd> {
    elsewhere: &'s Elsewhere,
    closure: Closure<'u, 'd>,
    todo: Vec<(usize, Piece)>,
    faults: Vec<Diagnosis>,
}

impl<'u, 'd> Selection<'_, 'u, 'd> {
    fn unit(&self, unit: usize) -> ComparedUnit<'u, 'd> {
        self.closure.units[unit]
    }

    fn add(&mut self, unit: usize, piece: Piece) {
        if self.closure.pieces[unit].insert(piece) {
            self.todo.push((unit, piece));
            if let Piece::Item(item) = piece {
                self.faults.extend(refusals::unsettled(self.closure.units, unit, item));
            }
        }
    }

    fn roots(&mut self, unit: usize) {
        let builds = self.closure.units[unit];
        for change in &builds.difference.functions {
            let edited = || builds.edited.is_none_or(|edited| edited.contains(&change.patched));
            if change.original.is_some() {
                self.replace(unit, change.patched);
            } else if is_gone(&builds, builds.patched, change.patched) && edited() {
                // The function was inlined into another one before, or the patch adds it. Either way, nothing will call
                // it.
                self.may_replace(unit, change.patched);
            }
        }
        let is_ours = |original: ItemId| !builds.is_overridden(original);
        for change in builds.difference.data.iter().filter(|change| change.original.is_some_and(is_ours)) {
            self.changed_data(unit, change.patched);
        }
        for change in &builds.difference.registries {
            self.changed_data(unit, change.patched);
        }
        for folded in &builds.difference.folded {
            self.faults.extend(refusals::folded(&builds, folded));
        }
        self.callbacks(unit);
    }

    /// Replaces a function, or all its callers if ftrace can't reach it.
    fn replace(&mut self, unit: usize, item: ItemId) {
        let builds = self.closure.units[unit];
        let Some(original) = builds.counterpart(item) else { return };
        if self.closure.has(unit, Piece::Item(item)) || !self.may_replace(unit, item) {
            return;
        }
        let unreachable = match reach::reach(builds.original, original) {
            Err(unreachable) if !is_apart(builds.patched.item_name(item)) => unreachable,
            _ => return self.add(unit, Piece::Item(item)),
        };
        match callers(self.closure.units, self.elsewhere, (unit, item), unreachable) {
            Ok(callers) => {
                self.add(unit, Piece::Item(item));
                self.closure.helpers[unit].insert(item);
                let name = String::from_utf8_lossy(builds.patched.item_name(item)).into_owned();
                for (unit, caller) in callers {
                    self.closure.calls[unit].entry(caller).or_insert_with(|| name.clone());
                    self.replace(unit, caller);
                }
            }
            Err(why) => {
                let constant = self.closure.users[unit].get(&item).copied();
                self.faults.push(refusals::not_traceable(&builds, item, constant, why));
            }
        }
    }

    /// Returns true if a function may be replaced. A changed `__init` function has run, so the patch can't reach it. A
    /// built-in `__exit` function never runs. A weak function may have been overridden.
    fn may_replace(&mut self, unit: usize, item: ItemId) -> bool {
        let builds = self.closure.units[unit];
        let object = builds.patched;
        let place = place_of(object, item);
        if builds.counterpart(item).is_some_and(|original| builds.is_overridden(original)) {
            let note = "a changed weak function is left out";
            let why = "the kernel uses another unit's function of this name";
            self.closure.warnings.push(Note::at(&codes::OVERRIDDEN_FUNCTION, note, &place, why));
            return false;
        }
        if !is_gone(&builds, object, item) {
            return true;
        }
        if Lifetime::of(object.elf.section_name(object.item(item).section)) == Lifetime::Removal {
            let note = "a changed __exit function is left out";
            let why = "nothing removes what is built in, so nothing runs the function";
            self.closure.warnings.push(Note::at(&codes::EXIT_FUNCTION, note, &place, why));
            return false;
        }
        if builds.is_vmlinux() && builds.edited.is_some_and(|edited| !edited.contains(&item)) {
            let note = "an __init function differs only because something in it changed; it is left out";
            let why = "it ran when the kernel booted and is gone";
            self.closure.warnings.push(Note::instead_of(&codes::INIT_FUNCTION, note, &place, why));
        } else {
            self.faults.push(
                Diagnosis::new(
                    &codes::INIT_FUNCTION,
                    "the patch changes an __init function",
                    "it has run by the time a livepatch is loaded, and its memory was given back",
                    "do what it should have done in a pre-patch callback, or leave this part of the \
                     patch out",
                )
                .place(place),
            );
        }
        false
    }

    fn changed_data(&mut self, unit: usize, item: ItemId) {
        let object = self.closure.units[unit].patched;
        let fault = match refusals::changed_data(object, item) {
            Some(fault) => fault,
            None => {
                let Err(why) = self.carry(unit, item) else { return };
                refusals::changed_constant(object, item, &why)
            }
        };
        self.faults.push(fault);
    }

    /// Copies a changed constant into the module, and replaces all functions that refer to it.
    fn carry(&mut self, unit: usize, constant: ItemId) -> Result<(), String> {
        let users = constants::carry(self.closure.units, unit, constant)?;
        self.closure.constants[unit].insert(constant);
        for &user in &users {
            self.closure.users[unit].entry(user).or_insert(constant);
        }
        users.into_iter().for_each(|user| self.replace(unit, user));
        Ok(())
    }

    /// Finds the callbacks that the patch registers with the macros of include/linux/livepatch_helpers.h.
    fn callbacks(&mut self, unit: usize) {
        let object = self.closure.units[unit].patched;
        let mut found = Vec::new();
        for symbol in object.elf.symbol_ids() {
            let Some(section) = object.elf.symbol_section(symbol) else { continue };
            if !object.elf.section_name(section).starts_with(b".discard.klp_callback_ptrs") {
                continue;
            }
            let name = object.elf.symbol_name(symbol);
            let Some(&(kind, ..)) =
                CallbackKind::ALL.iter().find(|(_, start, _)| name.starts_with(start.as_bytes()))
            else {
                continue;
            };
            let at = object.elf.symbol_value(symbol);
            for rela in object.relocations_in(section, at, at + 8) {
                if let Target::Item { item, offset: 0 } = object.resolve(section, rela) {
                    found.push(Callback { kind, item });
                }
            }
        }
        found.sort_unstable();
        for callback in &found {
            self.add(unit, Piece::Item(callback.item));
        }
        self.closure.callbacks[unit] = found;
    }

    /// Replaces the function of each changed cold part, because a cold part can only be reached through its function.
    /// The function's callers may be in another unit.
    fn parents(&mut self) {
        loop {
            let before: usize = self.closure.pieces.iter().map(BTreeSet::len).sum();
            for unit in 0..self.closure.units.len() {
                self.parents_of_cold(unit);
            }
            if self.closure.pieces.iter().map(BTreeSet::len).sum::<usize>() == before {
                return;
            }
        }
    }

    fn parents_of_cold(&mut self, unit: usize) {
        let object = self.closure.units[unit].patched;
        let cold: BTreeSet<ItemId> = self.closure.pieces[unit]
            .iter()
            .filter_map(|piece| match piece {
                Piece::Item(item) if is_apart(object.item_name(*item)) => Some(*item),
                _ => None,
            })
            .collect();
        if cold.is_empty() {
            return;
        }
        for item in object.item_ids().filter(|&item| object.item(item).code && !cold.contains(&item)) {
            let section = object.item(item).section;
            let reaches = object.item_relocations(item).iter().any(|rela| {
                matches!(object.resolve(section, rela), Target::Item { item: to, .. } if cold.contains(&to))
            });
            if reaches {
                self.replace(unit, item);
            }
        }
    }

    fn run(&mut self) {
        while let Some((unit, piece)) = self.todo.pop() {
            let builds = self.unit(unit);
            let object = builds.patched;
            self.faults.extend(refusals::piece(&builds, piece));
            let SectionRange { section, start, end } = piece.range(object);
            let origin = ReferenceOrigin::Piece(piece);
            for rela in object.relocations_in(section, start, end) {
                self.follow(unit, piece, Reference { origin, section, rela });
            }
            match direct::branches(object, piece) {
                Ok(branches) => {
                    for rela in &branches {
                        self.follow(unit, piece, Reference { origin, section, rela });
                    }
                }
                Err(at) => self.faults.push(refusals::direct_branch(object, piece, at)),
            }
            let origin = ReferenceOrigin::Table(piece);
            for entry in self.closure.carried(unit, piece) {
                let (section, start, end) = object.entry_range(entry.table, entry.index);
                for rela in object.relocations_in(section, start, end) {
                    self.follow(unit, piece, Reference { origin, section, rela });
                }
            }
        }
    }

    /// Adds the target of a reference that is copied with the piece `by`.
    fn follow(&mut self, unit: usize, by: Piece, reference: Reference<'_>) {
        let builds = self.unit(unit);
        let object = builds.patched;
        let Reference { origin, section, rela } = reference;
        if object.relocation_kind(rela).is_some_and(|kind| kind.code == 0) {
            return;
        }
        self.faults.extend(refusals::border(&builds, by, section, rela));
        match self.closure.referent(unit, reference) {
            Referent::Copied(other, piece, offset) => {
                if !origin.is_table() && offset == 0 && !is_branch(object, section, rela) {
                    let note = refusals::new_address(self.closure.units, (unit, by), (other, piece));
                    self.closure.warnings.extend(note);
                }
                self.add(other, piece);
            }
            Referent::Original(original, _) => {
                let to = builds.original;
                if is_gone(&builds, to, original) {
                    self.faults.push(refusals::init_reference(object, by, to.item_name(original)));
                }
            }
            _ => {}
        }
    }
}
