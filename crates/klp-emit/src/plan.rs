//! The types that the emitter's stages exchange: the objects to patch, how names are bound, and the finished plan.
//!
//! Owns only these types.

use std::collections::{BTreeMap, BTreeSet};

use klpx_diagnosis::{Diagnosis, Note};
use klpx_diff::Difference;
use klpx_normalize::elf::SymbolId;
use klpx_normalize::name::{canonical, without_promotion};
use klpx_normalize::object::{ItemId, Object};

pub use crate::image::VMLINUX;

/// Both builds of code that is compared as one, and how they differ. The code is a translation unit, or a whole linked
/// object. Several units may belong to one kernel object.
#[derive(Clone, Copy)]
pub struct ComparedUnit<'u, 'd> {
    /// `vmlinux`, or the module's name with underscores, as `/proc/modules` has it.
    pub object_name: &'u str,
    /// The build of the kernel as it is.
    pub original: &'u Object<'d>,
    /// The build with the patch.
    pub patched: &'u Object<'d>,
    /// The differences.
    pub difference: &'u Difference,
    /// The patched functions whose own lines the patch edits; `None` if unknown.
    pub edited: Option<&'u BTreeSet<ItemId>>,
    /// Patched functions that differ because of what they inline, with the inlined function and its place in words;
    /// `None` if unknown.
    pub inlines: Option<&'u BTreeMap<ItemId, String>>,
    /// Items of the original that are weak here, and that the kernel has from another unit; `None` if unknown.
    pub overridden: Option<&'u BTreeSet<ItemId>>,
}

impl ComparedUnit<'_, '_> {
    /// Returns true for the kernel image.
    pub fn is_vmlinux(&self) -> bool {
        self.object_name == VMLINUX
    }

    /// Returns true for an item of the original that gave way to another unit's.
    pub fn is_overridden(&self, original: ItemId) -> bool {
        self.overridden.is_some_and(|items| items.contains(&original))
    }

    /// The original's counterpart of a patched item.
    pub fn counterpart(&self, item: ItemId) -> Option<ItemId> {
        self.difference.original_of(item)
    }

    /// The comparison's result for patched items whose names alone do not tell what they are: the symbol of the
    /// original's item, or `None` for a new item. Verification takes each as a claim.
    pub fn claims(&self) -> BTreeMap<SymbolId, Option<SymbolId>> {
        let (original_counts, patched_counts) = (how_often(self.original), how_often(self.patched));
        let object = self.patched;
        let claim = |item: ItemId| {
            let original = self.counterpart(item);
            let name = plain(object, item);
            let suffixes = canonical(object.item_name(item)).suffixes;
            let times = (
                original_counts.get(name).copied().unwrap_or(0),
                patched_counts.get(name).copied().unwrap_or(0),
            );
            let identified = !suffixes.unsteady()
                && !suffixes.is_version()
                && match original {
                    Some(other) => times == (1, 1) && plain(self.original, other) == name,
                    None => times == (0, 1),
                };
            let symbol = original.map(|other| self.original.item(other).symbol);
            (!identified).then_some((object.item(item).symbol, symbol))
        };
        object.item_ids().filter_map(claim).collect()
    }

    /// The symbols of the original's items that gave way to another unit's.
    pub fn gave_way(&self) -> BTreeSet<SymbolId> {
        let items = self.original.item_ids().filter(|&item| self.is_overridden(item));
        items.map(|item| self.original.item(item).symbol).collect()
    }
}

fn plain<'d>(object: &Object<'d>, item: ItemId) -> &'d [u8] {
    without_promotion(object.item_name(item))
}

/// The names of an object's items, with the number of items of each name.
fn how_often<'d>(object: &Object<'d>) -> BTreeMap<&'d [u8], usize> {
    let mut times = BTreeMap::new();
    object.item_ids().for_each(|item| *times.entry(plain(object, item)).or_default() += 1);
    times
}

/// A symbol of the kernel to be patched, as the livepatch core looks it up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bound {
    /// The name in its kallsyms.
    pub name: String,
    /// 0 for a name that is unique in the object, otherwise the position from 1.
    pub sympos: u32,
}

/// An exported symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportedSymbol {
    /// The exporting module; `None` for the kernel image.
    pub module: Option<String>,
    /// True for `EXPORT_SYMBOL_GPL`.
    pub gpl: bool,
    /// The export's namespace.
    pub namespace: Option<String>,
}

/// Finds symbols in the kernel to be patched. The running kernel is the truth: a symbol that can't be bound is an
/// error.
pub trait Binder {
    /// A symbol that a unit's original build defines.
    fn bind(&self, original: &Object<'_>, symbol: SymbolId) -> Result<Bound, Diagnosis>;
    /// A global symbol that the finished object `object` has, but that is not in the unit: another unit or the kernel's
    /// linker script defines it, or it is a module's `__this_module`.
    fn bind_finished(&self, object: &str, name: &str) -> Result<Bound, Diagnosis>;
    /// Returns true if the finished object `object` has a global symbol with this name.
    fn defines(&self, object: &str, name: &str) -> bool;
    /// Returns true if an indirect call of a function would stop the kernel: the function has no landing pad, or lost
    /// it at boot.
    fn refuses_indirect_calls(&self, object: &str, function: &Bound) -> bool;
    /// A symbol that another module exports.
    fn bind_export(&self, module: &str, name: &str) -> Result<Bound, Diagnosis>;
    /// A place in the kernel's own code that holds a runtime constant's value: a function, and an offset in bytes.
    fn runtime_constant(&self, name: &str) -> Option<(Bound, i64)>;
    /// The export with this name.
    fn export(&self, name: &str) -> Option<ExportedSymbol>;
}

/// When a callback runs (include/linux/livepatch_external.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallbackKind {
    /// Before the object's code is patched; may refuse the patching.
    PrePatch,
    /// After the object's code is patched.
    PostPatch,
    /// Before the original code is restored.
    PreUnpatch,
    /// After the original code is restored.
    PostUnpatch,
}

impl CallbackKind {
    /// All kinds, each with the prefix of its pointer's name and the member of `struct klp_callbacks`.
    pub const ALL: [(CallbackKind, &str, &str); 4] = [
        (CallbackKind::PrePatch, "__klp_pre_patch_callback_", "pre_patch"),
        (CallbackKind::PostPatch, "__klp_post_patch_callback_", "post_patch"),
        (CallbackKind::PreUnpatch, "__klp_pre_unpatch_callback_", "pre_unpatch"),
        (CallbackKind::PostUnpatch, "__klp_post_unpatch_callback_", "post_unpatch"),
    ];

    /// The member of `struct klp_callbacks`.
    pub fn member(self) -> &'static str {
        Self::ALL.iter().find(|(kind, ..)| *kind == self).map_or("", |(_, _, member)| member)
    }
}

/// A function that the livepatch replaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedFunction {
    /// The name and position of the function to be replaced.
    pub old: Bound,
    /// The global alias by which the glue refers to the new function.
    pub alias: String,
}

/// A callback of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedCallback {
    /// When the callback runs.
    pub kind: CallbackKind,
    /// The global alias by which the glue refers to the callback.
    pub alias: String,
}

/// What the livepatch does to one kernel object, for all of the object's units together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedObject {
    /// `vmlinux` or a module's name.
    pub name: String,
    /// The object's replaced functions, sorted by name.
    pub functions: Vec<PlannedFunction>,
    /// The object's callbacks.
    pub callbacks: Vec<PlannedCallback>,
    /// Names of functions and data that are new or were copied with a symbol of their own, sorted.
    pub added: Vec<String>,
}

/// An exported symbol that the module imports the ordinary way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Import {
    /// The symbol's name.
    pub name: String,
    /// The namespace that the module must import for it.
    pub namespace: Option<String>,
}

/// Everything that the glue, the finishing step and verification need to know about a closure.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Patched objects, the kernel image first, then by name.
    pub objects: Vec<PlannedObject>,
    /// Ordinary imports, sorted.
    pub imports: Vec<Import>,
    /// Distinct `.klp.sym.*` symbols, sorted.
    pub livepatch_symbols: Vec<String>,
    /// Warnings for the user that are no reason to stop.
    pub warnings: Vec<Note>,
}

/// A livepatch symbol's final name.
pub fn klp_symbol(object: &str, bound: &Bound) -> String {
    format!(".klp.sym.{object}.{},{}", bound.name, bound.sympos)
}

/// The prefix of the names by which a closure object refers to livepatch symbols until the module is finished:
/// `.klpx.<section object>!<final name>`.
pub(crate) const PENDING: &str = ".klpx.";

/// The prefix of the global aliases of functions to which the glue refers.
pub(crate) const ALIAS: &str = "klpx_new_";
