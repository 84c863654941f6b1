//! Functions of one name from several units of one object: a source may be compiled into two units, or two files have
//! statics of one name. Each must take the place of its own.

use klpx_diagnosis::Place;
use klpx_normalize::elf::SectionId;
use klpx_normalize::object::Object;
use object::elf;

use super::{Check, fault};
use crate::plan::Unit;

/// Where the module has a function of a unit.
pub(super) struct Copies {
    pub(super) unit: usize,
    pub(super) name: String,
    /// Every function of the module that is the same.
    pub(super) places: Vec<(SectionId, u64)>,
}

impl Check<'_, '_> {
    /// The new function of every entry of the arrays is what a unit has under that name, and the function that it
    /// replaces is of that unit's file.
    pub(super) fn check_twins(&mut self, units: &[Unit<'_, '_>], copies: &[Copies]) {
        let mut wrong = Vec::new();
        for object in &self.module.objects {
            for function in &object.functions {
                let twins: Vec<&Copies> = copies
                    .iter()
                    .filter(|copy| {
                        copy.name == function.new_symbol && units[copy.unit].object_name == object.name
                    })
                    .collect();
                let found = self.target.addresses(&object.name, &function.old_name).unwrap_or_default();
                let old = found.get(function.sympos.saturating_sub(1) as usize);
                let file =
                    old.and_then(|&address| self.target.file_of(&object.name, &function.old_name, address));
                let right = |copy: &&&Copies| {
                    let of = file_name(units[copy.unit].original);
                    copy.places.contains(&function.new_at)
                        && file.as_deref().is_none_or(|file| of.is_none_or(|of| of == file.as_bytes()))
                };
                if !twins.iter().any(|copy| right(&copy)) {
                    wrong.push(function.old_name.clone());
                }
            }
        }
        for name in wrong {
            let why = "it is not what a unit of that object has under this name";
            self.faults.push(
                fault("klpx::verify-arrays", "a function that would take another one's place", why)
                    .place(Place::symbol(name)),
            );
        }
    }
}

/// The file that a unit was compiled from; `None` for a linked object, or one that does not say.
pub(super) fn file_name<'d>(object: &Object<'d>) -> Option<&'d [u8]> {
    let mut files = object.elf.symbol_ids().filter(|&id| object.elf.symbol_type(id) == elf::STT_FILE.0);
    let first = files.next()?;
    files.next().is_none().then(|| object.elf.symbol_name(first))
}
