//! A function that ftrace can't reach can still be replaced if all functions that use it are known: the callers are
//! replaced, and bring a copy of the callee along. The usual case is a `static inline` function that the compiler left
//! out of line (`inline` implies notrace, include/linux/compiler_types.h).
//!
//! A global function may have callers anywhere in the kernel. This crate's user knows the kernel's images, and supplies
//! the callers ([`Elsewhere`]) and the units in which they are compiled; each caller must then be found in these units.
//!
//! Owns the search for every use of a function in units. Never decides what is replaced.

use std::collections::{BTreeMap, BTreeSet};

use klpx_inline_check::reach::{self, Unreachable};
use klpx_normalize::elf::{Rela, SectionId};
use klpx_normalize::lifetime::Lifetime;
use klpx_normalize::name::{canonical, is_apart};
use klpx_normalize::object::{ItemId, Object, Role, Target};
use object::elf;
use object::endian::LittleEndian as LE;

use crate::arch;
use crate::plan::ComparedUnit;

/// A function of the kernel to be patched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelFunction {
    /// `vmlinux`, or the module's name.
    pub object: String,
    /// All names of the function.
    pub names: Vec<String>,
}

impl KernelFunction {
    fn is(&self, unit: &ComparedUnit<'_, '_>, item: ItemId) -> bool {
        self.object == unit.object_name
            && self.names.iter().any(|name| name.as_bytes() == unit.original.item_name(item))
    }
}

/// A global function: the object that defines it, and the function's name.
pub type Global = (String, Vec<u8>);

/// The callers of global functions in the whole kernel, or the reason why they are unknown.
pub type Elsewhere = BTreeMap<Global, Result<Vec<KernelFunction>, String>>;

/// Global functions that have to be copied for their callers, but whose callers `elsewhere` does not have.
pub fn unknown(units: &[ComparedUnit<'_, '_>], elsewhere: &Elsewhere) -> BTreeSet<Global> {
    let mut unknown = BTreeSet::new();
    let changed = |(n, unit): (usize, &ComparedUnit<'_, '_>)| -> Vec<(usize, ItemId)> {
        unit.difference.functions.iter().map(|change| (n, change.patched)).collect()
    };
    let mut todo: Vec<(usize, ItemId)> = units.iter().enumerate().flat_map(changed).collect();
    let mut seen: BTreeSet<(usize, ItemId)> = todo.iter().copied().collect();
    while let Some((n, item)) = todo.pop() {
        let unit = &units[n];
        let Some(original) = unit.counterpart(item).filter(|&original| !unit.is_overridden(original)) else {
            continue;
        };
        let section = unit.patched.elf.section_name(unit.patched.item(item).section);
        let gone = Lifetime::of(section).is_gone(unit.is_vmlinux());
        let reached = !matches!(reach::reach(unit.original, original), Err(why) if is_untraced(why));
        if gone || reached || is_apart(unit.patched.item_name(item)) {
            continue;
        }
        let Ok(here) = direct_callers(unit.patched, item) else { continue };
        let mut callers: Vec<(usize, ItemId)> = here.into_iter().map(|caller| (n, caller)).collect();
        if let Some(global) = global(unit, item) {
            match elsewhere.get(&global) {
                None => {
                    unknown.insert(global);
                }
                Some(Err(_)) => {}
                Some(Ok(_)) => callers.extend(importers(units, n, item).into_iter().flatten()),
            }
        }
        todo.extend(callers.into_iter().filter(|caller| seen.insert(*caller)));
    }
    unknown
}

/// The function as a global one, if other units can call it.
fn global(unit: &ComparedUnit<'_, '_>, item: ItemId) -> Option<Global> {
    let symbol = unit.patched.item(item).symbol;
    let global = unit.patched.elf.symbol_binding(symbol) != elf::STB_LOCAL.0;
    global.then(|| (unit.object_name.to_owned(), unit.patched.item_name(item).to_vec()))
}

/// Returns true for a function that was compiled without a trace site. Only this reason allows a copy for the callers.
fn is_untraced(why: Unreachable) -> bool {
    matches!(why, Unreachable::NoSite | Unreachable::NoSites)
}

/// All functions that call or jump to a unit's function, by unit. The function itself is left out.
///
/// # Errors
/// The reason why replacing the callers is not enough.
pub(crate) fn callers(
    units: &[ComparedUnit<'_, '_>],
    elsewhere: &Elsewhere,
    (n, callee): (usize, ItemId),
    unreachable: Unreachable,
) -> Result<BTreeSet<(usize, ItemId)>, String> {
    if !is_untraced(unreachable) {
        return Err(unreachable.to_string());
    }
    let unit = &units[n];
    let object = unit.patched;
    if object.items_of(object.item(callee).section).len() > 1 {
        return Err(format!("{unreachable}, and functions of its section may call it without a relocation"));
    }
    let here = direct_callers(object, callee).map_err(|why| format!("{unreachable}, and {why}"))?;
    let mut found: BTreeSet<(usize, ItemId)> = here.into_iter().map(|caller| (n, caller)).collect();
    // The callers of a promoted local are in the files of its link. If the object is that link, all callers are known.
    let in_sight = canonical(object.item_name(callee)).suffixes.promoted() && object.file_count() > 1;
    let Some(global) = global(unit, callee).filter(|_| !in_sight) else { return Ok(found) };
    let known = match elsewhere.get(&global) {
        None => return Err(format!("{unreachable}, and as a global function it may have callers anywhere")),
        Some(Err(why)) => return Err(format!("{unreachable}, and {why}")),
        Some(Ok(known)) => known,
    };
    found.extend(importers(units, n, callee).ok_or_else(|| format!("{unreachable}, and {KEPT}"))?);
    for function in known {
        let is_it = |&(at, item): &(usize, ItemId)| {
            units[at].counterpart(item).is_some_and(|original| function.is(&units[at], original))
        };
        if !found.iter().any(is_it) && !function.is(unit, callee) {
            let name = function.names.first().map_or("a function without a name", String::as_str);
            return Err(format!(
                "{unreachable}, and {name} ({}) calls it, whose source was not found",
                function.object
            ));
        }
    }
    Ok(found)
}

/// Functions of other units that call or jump to a unit's global function; `None` if one of them keeps its address.
fn importers(
    units: &[ComparedUnit<'_, '_>],
    exporter: usize,
    callee: ItemId,
) -> Option<BTreeSet<(usize, ItemId)>> {
    let name = units[exporter].patched.item_name(callee);
    let mut found = BTreeSet::new();
    for (n, unit) in units.iter().enumerate().filter(|(n, _)| *n != exporter) {
        let object = unit.patched;
        let is_it = |target| matches!(target, Target::External { symbol, .. } if object.elf.symbol_name(symbol) == name);
        found.extend(branches_to(object, is_it, None)?.into_iter().map(|item| (n, item)));
    }
    Some(found)
}

/// The reason why callers are not enough: something may call later.
const KEPT: &str = "its address is kept somewhere";

/// All functions of an object that call or jump to `callee`, except itself.
///
/// # Errors
/// The reason why these are not all uses of the function in the object.
pub(crate) fn direct_callers(object: &Object<'_>, callee: ItemId) -> Result<BTreeSet<ItemId>, String> {
    let mut names = object.elf.symbol_ids();
    let alias = names.find(|&id| object.is_weak_alias(id) && object.symbol_item(id) == Some(callee));
    if let Some(alias) = alias {
        let alias = String::from_utf8_lossy(object.elf.symbol_name(alias));
        return Err(format!("a call of {alias}, its weak alias, may mean another unit's function"));
    }
    let is_it = |target| matches!(target, Target::Item { item, .. } if item == callee);
    branches_to(object, is_it, Some(callee)).ok_or_else(|| KEPT.to_owned())
}

/// The prefix of section names that hold an entry of the export table up to Linux 6.3 (include/linux/export.h). The
/// modules' symbol tables tell which of them import the name.
const EXPORTS: &[u8] = b"___ksymtab";

/// All functions with a branch to a target, except one; `None` if something else refers to the target.
fn branches_to(
    object: &Object<'_>,
    is_it: impl Fn(Target) -> bool,
    itself: Option<ItemId>,
) -> Option<BTreeSet<ItemId>> {
    let mut found = BTreeSet::new();
    for section in object.elf.section_ids() {
        let exports = object.elf.section_name(section).starts_with(EXPORTS);
        if exports || matches!(object.role(section), Role::Unloaded | Role::BuildOnly) {
            continue;
        }
        for rela in object.elf.relocations(section) {
            if !is_it(object.resolve(section, rela)) {
                continue;
            }
            match holder(object, section, rela.r_offset.get(LE)) {
                Some(item) if Some(item) == itself => {}
                Some(item) if object.item(item).code && is_branch(object, section, rela) => {
                    found.insert(item);
                }
                _ => return None,
            }
        }
    }
    Some(found)
}

/// The item to which a place belongs; for a special-section entry, the function that the entry describes.
fn holder(object: &Object<'_>, section: klpx_normalize::elf::SectionId, place: u64) -> Option<ItemId> {
    if let Role::Table(table) = object.role(section) {
        let index = (place / u64::from(object.tables[table.index()].entry_size)) as u32;
        let describes =
            |item: &ItemId| object.entries(*item).iter().any(|e| e.table == table && e.index == index);
        return object.item_ids().find(describes);
    }
    object.items_of(section).find(|&id| object.item(id).start <= place && place < object.item(id).end)
}

/// Returns true if the relocation belongs to a call or jump.
pub(crate) fn is_branch(object: &Object<'_>, section: SectionId, rela: &Rela) -> bool {
    let Some(kind) = object.relocation_kind(rela) else { return false };
    let at = rela.r_offset.get(LE);
    object.role(section) == Role::Code
        && arch::is_branch(
            object.arch,
            kind,
            object.range(section, at.saturating_sub(2), at),
            at.min(2) as usize,
        )
}
