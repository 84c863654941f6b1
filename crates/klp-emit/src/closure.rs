//! What goes into the module: changed functions, and everything they need that the kernel to be patched does not have.
//!
//! Owns only the choice. Never writes, never looks up a name. A reference is classified twice by the same rules: here,
//! to see what it pulls in, and when the object is written, to see where it leads.

use std::collections::{BTreeMap, BTreeSet};

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Failure, Note, Result, codes};
use klpx_diff::{FoldDirection, Folded, is_anonymous};
use klpx_inline_check::reach;
use klpx_normalize::elf::{Definition, Rela, SectionId, SymbolId};
use klpx_normalize::lifetime::Lifetime;
use klpx_normalize::name::{canonical, is_apart, promotion};
use klpx_normalize::object::{Entry, ItemId, Object, Role, SectionRange, TableId, Target};
use klpx_normalize::special::Policy;
use object::elf;
use object::endian::LittleEndian as LE;

use crate::callers::{Elsewhere, callers, direct_callers};
use crate::plan::{CallbackKind, ComparedUnit};
use crate::{arch, constants, direct};

/// Something that is copied from a patched object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Piece {
    /// A function or data object.
    Item(ItemId),
    /// Bytes without a name.
    Bytes {
        /// The section.
        section: SectionId,
        /// The first byte.
        start: u64,
        /// One past the last byte.
        end: u64,
    },
}

/// The target of a reference in copied code or data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Referent {
    /// A piece of a unit in the module; the offset is from the item's entry or the first byte.
    Copied(usize, Piece, i64),
    /// An item that the original object has; the offset is from the item's entry.
    Original(ItemId, i64),
    /// A global symbol inside such an item (an entry of its own), as the patched object's symbol.
    Inner(SymbolId, i64),
    /// A symbol that the patched object does not define.
    External(SymbolId, i64),
    /// The copy of a special-section entry.
    Entry(TableId, u32, i64),
    /// A plain number.
    Absolute(i64),
}

/// The place of a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferenceOrigin {
    /// In code or data.
    Piece(Piece),
    /// A special-section entry: such references describe the copy.
    Table,
}

/// A reference of a unit's patched object: a relocation, its section, and what is copied with the reference.
#[derive(Clone, Copy)]
pub struct Reference<'o> {
    /// The place of the reference.
    pub origin: ReferenceOrigin,
    /// The section of the relocation.
    pub section: SectionId,
    /// The relocation.
    pub rela: &'o Rela,
}

/// A callback that the patch registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Callback {
    /// When the callback runs.
    pub kind: CallbackKind,
    /// The callback's function.
    pub item: ItemId,
}

/// The pieces that are copied from each unit.
pub struct Closure<'u, 'd> {
    /// The units.
    pub units: &'u [ComparedUnit<'u, 'd>],
    /// By unit: the pieces.
    pub pieces: Vec<BTreeSet<Piece>>,
    /// By unit: the callbacks.
    pub callbacks: Vec<Vec<Callback>>,
    /// By unit: changed functions that ftrace can't reach. They are copied for their callers, and the callers are
    /// replaced.
    pub helpers: Vec<BTreeSet<ItemId>>,
    /// By unit: functions that are replaced because they call one of `helpers`, with the name of the helper.
    pub calls: Vec<BTreeMap<ItemId, String>>,
    /// By unit: constants that the patch changes and that are copied into the module.
    pub constants: Vec<BTreeSet<ItemId>>,
    /// By unit: functions that are replaced because they refer to such a constant, whether changed or not, with the
    /// constant.
    pub users: Vec<BTreeMap<ItemId, ItemId>>,
    /// Warnings for the user.
    pub warnings: Vec<Note>,
    new_globals: BTreeMap<&'d [u8], Vec<NewGlobal>>,
    /// By unit: the names that the original imports from other objects or units.
    imports: Vec<BTreeSet<&'d [u8]>>,
}

/// A global function or datum that the patch adds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct NewGlobal {
    /// True if the definition gives way to another of its name.
    weak: bool,
    unit: usize,
    item: ItemId,
    /// True if units of other kernel objects may refer to it.
    exported: bool,
}

/// A place for a diagnosis: the symbol and, where known, its file.
pub(crate) fn place_of(object: &Object<'_>, item: ItemId) -> DiagnosisPlace {
    let place = DiagnosisPlace::symbol(String::from_utf8_lossy(object.item_name(item)));
    match object.file_name(object.symbol_file(object.item(item).symbol)) {
        [] => place,
        file => place.at(String::from_utf8_lossy(file), None),
    }
}

/// Returns true for an item that the running kernel has freed by the time a livepatch is loaded.
fn is_gone(builds: &ComparedUnit<'_, '_>, object: &Object<'_>, item: ItemId) -> bool {
    Lifetime::of(object.elf.section_name(object.item(item).section)).is_gone(builds.is_vmlinux())
}

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
        return Err(nothing_to_replace(&closure.warnings).into());
    }
    closure.warnings.sort();
    closure.warnings.dedup();
    Ok(closure)
}

/// The refusal if something differs, but no code that runs again.
fn nothing_to_replace(warnings: &[Note]) -> Diagnosis {
    if !warnings.is_empty() && warnings.iter().all(|warning| warning.code == codes::OVERRIDDEN_FUNCTION.name)
    {
        return Diagnosis::new(
            &codes::NOTHING_CHANGED,
            "the patch changes nothing of this kernel",
            "what the patch changes is weak, and the kernel uses other units' functions of these names",
            "patch the functions that the kernel uses",
        )
        .detail(warnings.iter().map(ToString::to_string));
    }
    Diagnosis::new(
        &codes::NOTHING_TO_REPLACE,
        "nothing that differs will run again",
        "what the patch changes is not used by any function of the running kernel",
        "a livepatch can't help here: boot a kernel with the patch",
    )
    .detail(warnings.iter().map(ToString::to_string))
}

/// New global functions and data of every unit, by name, with weak ones last: other units may refer to them. Promoted
/// constants are included, new or not: other units know them by names that are numbered in sequence, and a copy serves
/// as well.
fn new_globals<'d>(units: &[ComparedUnit<'_, 'd>]) -> BTreeMap<&'d [u8], Vec<NewGlobal>> {
    let mut globals: BTreeMap<&[u8], Vec<NewGlobal>> = BTreeMap::new();
    for (n, unit) in units.iter().enumerate() {
        let elf = &unit.patched.elf;
        let changes = unit.difference.functions.iter().chain(&unit.difference.data);
        let new = changes.filter(|change| change.original.is_none()).map(|change| change.patched);
        let constants = unit.patched.item_ids().filter(|&item| {
            promotion(unit.patched.item_name(item)).is_some() && is_anonymous(unit.patched, item)
        });
        for item in new.chain(constants) {
            let symbol = unit.patched.item(item).symbol;
            let (binding, name) = (elf.symbol_binding(symbol), elf.symbol_name(symbol));
            if binding != elf::STB_LOCAL.0 {
                globals.entry(name).or_default().push(NewGlobal {
                    weak: binding == elf::STB_WEAK.0,
                    unit: n,
                    item,
                    exported: is_exported(unit.patched, name),
                });
            }
        }
    }
    globals.values_mut().for_each(|list| list.sort_unstable());
    globals
}

/// The names whose definition the link chooses.
fn undefined<'d>(object: &Object<'d>) -> BTreeSet<&'d [u8]> {
    let elf = &object.elf;
    let undefined = elf
        .symbol_ids()
        .filter(|&id| elf.definition(id) == Definition::Undefined || object.is_weak_alias(id));
    undefined.map(|id| elf.symbol_name(id)).collect()
}

/// Returns true if an object marks a name for export (include/linux/export.h: `__export_symbol_` since 6.4, before that
/// the entry of the export table itself).
fn is_exported(object: &Object<'_>, name: &[u8]) -> bool {
    object.elf.symbol_ids().any(|id| {
        EXPORT_MARKS.iter().any(|mark| object.elf.symbol_name(id).strip_prefix(*mark) == Some(name))
    })
}

const EXPORT_MARKS: [&[u8]; 2] = [b"__export_symbol_", b"__ksymtab_"];

impl<'u, 'd> Closure<'u, 'd> {
    /// Returns true if a piece is copied.
    pub fn has(&self, unit: usize, piece: Piece) -> bool {
        self.pieces[unit].contains(&piece)
    }

    /// The special-section entries of a copied item that are carried with the copy, in table order.
    pub fn carried(&self, unit: usize, item: ItemId) -> impl Iterator<Item = Entry> + '_ {
        let object = self.units[unit].patched;
        object
            .entries(item)
            .iter()
            .copied()
            .filter(move |entry| object.tables[entry.table.index()].kind.policy == Policy::Carry)
    }

    /// The original functions that a unit's copied functions replace, in item order. Cold parts are not listed: they
    /// come with their functions.
    pub fn replaced(&self, unit: usize) -> Vec<ItemId> {
        let builds = &self.units[unit];
        let functions = self.pieces[unit].iter().filter_map(|piece| match piece {
            Piece::Item(item) if self.is_replacement(unit, *item) => builds.counterpart(*item),
            _ => None,
        });
        functions.collect()
    }

    /// Returns true for a copied function that replaces one of the kernel's.
    pub fn is_replacement(&self, unit: usize, item: ItemId) -> bool {
        let builds = &self.units[unit];
        builds.patched.item(item).code
            && builds.counterpart(item).is_some()
            && !is_apart(builds.patched.item_name(item))
            && !self.helpers[unit].contains(&item)
    }

    /// The original items on which the module relies: the replaced ones, and those to which the module's code and data
    /// refer.
    pub fn witnesses(&self, unit: usize) -> Vec<ItemId> {
        let object = self.units[unit].patched;
        let mut items: BTreeSet<ItemId> = self.replaced(unit).into_iter().collect();
        let mut refer = |origin: ReferenceOrigin, section: SectionId, start: u64, end: u64| {
            for rela in object.relocations_in(section, start, end) {
                let reference = Reference { origin, section, rela };
                if let Referent::Original(original, _) = self.referent(unit, reference) {
                    items.insert(original);
                }
            }
        };
        for &piece in &self.pieces[unit] {
            match piece {
                Piece::Bytes { section, start, end } => {
                    refer(ReferenceOrigin::Piece(piece), section, start, end)
                }
                Piece::Item(item) => {
                    let shape = object.item(item);
                    refer(ReferenceOrigin::Piece(piece), shape.section, shape.start, shape.end);
                    for entry in self.carried(unit, item) {
                        let (section, start, end) = object.entry_range(entry.table, entry.index);
                        refer(ReferenceOrigin::Table, section, start, end);
                    }
                }
            }
        }
        items.into_iter().collect()
    }

    /// Relocations for a copied piece's branches, where the assembler left them out.
    pub(crate) fn direct_branches(&self, unit: usize, piece: Piece) -> Vec<Rela> {
        direct::branches(self.units[unit].patched, piece).unwrap_or_default()
    }

    /// The target of a relocation of a unit's patched object.
    pub fn referent(&self, unit: usize, reference: Reference<'_>) -> Referent {
        let object = self.units[unit].patched;
        match object.resolve(reference.section, reference.rela) {
            Target::Item { item, offset } => self.item_referent(unit, reference, item, offset),
            Target::Literal { section, start, end, offset } => {
                let end = literal_end(object, reference, SectionRange { section, start, end });
                Referent::Copied(unit, Piece::Bytes { section, start, end }, offset)
            }
            Target::Entry { table, entry, offset } => Referent::Entry(table, entry, offset),
            Target::External { symbol, offset } => {
                let name = object.elf.symbol_name(symbol);
                let new = self.new_global(unit, name).map(|new| (new.unit, new.item));
                match new.or_else(|| self.helper(unit, name)) {
                    Some((of, item)) => Referent::Copied(of, Piece::Item(item), offset),
                    None => Referent::External(symbol, offset),
                }
            }
            Target::Absolute(value) => Referent::Absolute(value),
        }
    }

    /// The item that the patch adds under a name, from a unit's point of view: one of the unit's own kernel object, or
    /// one that another object exports. Within one livepatch an export is not needed, so the only item of the name
    /// serves as well. But a name that the original imported keeps its meaning, unless the patch adds it to the unit's
    /// own object.
    fn new_global(&self, unit: usize, name: &[u8]) -> Option<NewGlobal> {
        let all = self.new_globals.get(name)?;
        let own = |new: &&NewGlobal| self.units[new.unit].object_name == self.units[unit].object_name;
        if self.imports[unit].contains(name) {
            return all.iter().find(own).copied();
        }
        let only = || all.first().filter(|_| all.len() == 1);
        all.iter().find(own).or_else(|| all.iter().find(|new| new.exported)).or_else(only).copied()
    }

    /// The copy of a function that ftrace can't reach, by the name with which other units call it.
    fn helper(&self, unit: usize, name: &[u8]) -> Option<(usize, ItemId)> {
        let object_name = |n: usize| self.units[n].object_name;
        let is_it = |n: usize, item: ItemId| {
            let object = self.units[n].patched;
            let global = object.elf.symbol_binding(object.item(item).symbol) != elf::STB_LOCAL.0;
            global
                && object.item_name(item) == name
                && (object_name(n) == object_name(unit) || is_exported(object, name))
        };
        let helpers = self.helpers.iter().enumerate();
        helpers
            .flat_map(|(n, items)| items.iter().map(move |&item| (n, item)))
            .find(|&(n, item)| is_it(n, item))
    }

    /// The target of a reference to an item.
    fn item_referent(&self, unit: usize, reference: Reference<'_>, item: ItemId, offset: i64) -> Referent {
        let piece = Piece::Item(item);
        let copy = Referent::Copied(unit, piece, offset);
        let Some(original) = self.units[unit].counterpart(item) else { return copy };
        let object = self.units[unit].patched;
        if !object.item(item).code {
            let copied = is_anonymous(object, item) || self.constants[unit].contains(&item);
            return if copied { copy } else { Referent::Original(original, offset) };
        }
        let branch = is_branch(object, reference.section, reference.rela);
        if self.has(unit, piece) && (reference.origin == ReferenceOrigin::Table || branch || offset != 0) {
            return copy;
        }
        if is_apart(object.item_name(item)) {
            return copy;
        }
        match inner_symbol(object, reference.rela, item) {
            Some((symbol, delta)) => Referent::Inner(symbol, offset - delta),
            None if offset != 0 => copy,
            None => Referent::Original(original, offset),
        }
    }
}

/// The real end of a literal whose length only its reader knows.
fn literal_end(object: &Object<'_>, reference: Reference<'_>, literal: SectionRange) -> u64 {
    let SectionRange { section, start, end } = literal;
    if let (ReferenceOrigin::Table, Role::Table(table)) = (reference.origin, object.role(reference.section))
        && object.tables[table.index()].kind.name == ".altinstructions"
    {
        // struct alt_instr ends with instrlen and replacementlen, in every version and on both architectures.
        let size = u64::from(object.tables[table.index()].entry_size);
        let at = reference.rela.r_offset.get(LE);
        let last = at - at % size + size - 1;
        let length = object.range(reference.section, last, last + 1).first().copied().unwrap_or(0);
        return start + u64::from(length);
    }
    if object.role(section) == Role::Code {
        let code = object.range(section, start, end);
        return arch::straight_code_length(object.arch, code).map_or(end, |length| start + length as u64);
    }
    end
}

/// The refusal for BTF type lists (include/linux/btf_ids.h).
fn type_ids(what: &str) -> Diagnosis {
    Diagnosis::new(
        &codes::BTF_IDS,
        what,
        "tools/bpf/resolve_btfids writes the numbers when the kernel is linked; nothing does in a livepatch",
        "leave this part of the patch out: the running kernel keeps its own list",
    )
}

fn not_traceable(
    builds: &ComparedUnit<'_, '_>,
    item: ItemId,
    constant: Option<ItemId>,
    why: String,
) -> Diagnosis {
    let changed = builds.difference.functions.iter().any(|change| change.patched == item);
    if let Some(constant) = constant.filter(|_| !changed) {
        let what = "a function that ftrace can't reach uses a constant that the patch changes";
        let name = String::from_utf8_lossy(builds.patched.item_name(constant));
        return Diagnosis::new(
            &codes::NOT_TRACEABLE,
            what,
            format!("it would go on with the kernel's own {name}: {why}"),
            "leave the constant as it is, and add another one for functions that ftrace \
             reaches; or leave this part of the patch out",
        )
        .place(place_of(builds.patched, item));
    }
    let (why, remedy) = match builds.inlines.and_then(|inlines| inlines.get(&item)) {
        Some(inlines) => (
            format!("it {inlines}, which the patch edits; {why}"),
            "leave the inlined function as it is: make the change in a copy of it under another name, and use that in callers that \
             ftrace reaches; or leave this part of the patch out",
        ),
        None => (why, "make the change in its callers instead, or leave this part of the patch out"),
    };
    Diagnosis::new(&codes::NOT_TRACEABLE, "a changed function that ftrace can't reach", why, remedy)
        .place(place_of(builds.patched, item))
}

fn direct_branch(object: &Object<'_>, piece: Piece, at: u64) -> Diagnosis {
    let (place, section, start) = match piece {
        Piece::Item(item) => (place_of(object, item), object.item(item).section, object.item(item).entry),
        Piece::Bytes { section, start, .. } => (DiagnosisPlace::default(), section, start),
    };
    let section = String::from_utf8_lossy(object.elf.section_name(section));
    Diagnosis::new(
        &codes::DIRECT_BRANCH,
        "a short way out of a function",
        format!(
            "at byte {:#x} it leads to another place of {section} without a relocation, and a \
             copy would be too far away",
            at.wrapping_sub(start)
        ),
        "change the callers of this function instead",
    )
    .place(place)
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

/// The global symbol that a relocation goes through if it is not the item's own symbol, with its distance from the
/// item's entry. It is an alias that is exported where the other name is not, or an entry of its own, such as a thunk
/// in an array of thunks.
fn inner_symbol(object: &Object<'_>, rela: &Rela, item: ItemId) -> Option<(SymbolId, i64)> {
    let symbol = object.elf.rela_symbol(rela)?;
    let own = object.item(item);
    let delta = object.elf.symbol_value(symbol).wrapping_sub(own.entry) as i64;
    let global = object.elf.symbol_binding(symbol) != elf::STB_LOCAL.0;
    (global && symbol != own.symbol && object.symbol_item(symbol) == Some(item)).then_some((symbol, delta))
}

/// A closure that is being chosen.
struct Selection<'s, 'u, 'd> {
    elsewhere: &'s Elsewhere,
    closure: Closure<'u, 'd>,
    todo: Vec<(usize, Piece)>,
    faults: Vec<Diagnosis>,
}

impl<'d> Selection<'_, '_, 'd> {
    fn unit(&self, unit: usize) -> ComparedUnit<'_, 'd> {
        self.closure.units[unit]
    }

    fn add(&mut self, unit: usize, piece: Piece) {
        if self.closure.pieces[unit].insert(piece) {
            self.todo.push((unit, piece));
            self.refuse_unsettled(unit, piece);
        }
    }

    /// Refuses a copy of an item that the kernel may have already: the copy would start from its initial state, and the
    /// kernel's item would stay where it is.
    fn refuse_unsettled(&mut self, unit: usize, piece: Piece) {
        let builds = self.closure.units[unit];
        let Piece::Item(item) = piece else { return };
        let unsettled = &builds.difference.correlation.unsettled;
        let mut names: Vec<String> = unsettled
            .iter()
            .filter(|unsettled| unsettled.patched == item)
            .flat_map(|unsettled| &unsettled.candidates)
            .map(|&candidate| String::from_utf8_lossy(builds.original.item_name(candidate)).into_owned())
            .collect();
        names.extend(self.moved_from(unit, item));
        if !names.is_empty() {
            self.faults.push(
                Diagnosis::new(
                    &codes::UNSETTLED_ITEM,
                    "nothing tells whether the kernel has this already",
                    "the original build has things of this name that it may be, and their users changed \
                     too",
                    "leave the line that declares it as it is; if it is new, give it a name of its own \
                     in the patch",
                )
                .place(place_of(builds.patched, item))
                .detail(names.into_iter().map(|name| format!("may be {name}"))),
            );
        }
    }

    /// Variables that other units of the same kernel object no longer have, and that may have become this new one.
    fn moved_from(&self, unit: usize, item: ItemId) -> Vec<String> {
        let builds = self.closure.units[unit];
        let shape = builds.patched.item(item);
        let variable = builds.patched.elf.section_flags(shape.section) & elf::SHF_WRITE.0 != 0;
        if shape.code || !variable || builds.counterpart(item).is_some() || is_anonymous(builds.patched, item)
        {
            return Vec::new();
        }
        let key = canonical(builds.patched.item_name(item)).key();
        let others = self.closure.units.iter().enumerate();
        let others = others.filter(|&(n, other)| n != unit && other.object_name == builds.object_name);
        let removed =
            others.flat_map(|(_, other)| other.difference.removed.iter().map(move |&gone| (other, gone)));
        removed
            .filter(|(other, gone)| canonical(other.original.item_name(*gone)).key() == key)
            .map(|(other, gone)| place_of(other.original, gone).to_string())
            .collect()
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
            self.check_folded(&builds, folded);
        }
        self.callbacks(unit);
    }

    /// Refuses functions that have one body in only one of the builds, unless all their callers are known. Functions
    /// that change are copied for these callers; no other code may have the body's address for one of them.
    fn check_folded(&mut self, builds: &ComparedUnit<'_, 'd>, folded: &Folded) {
        let in_sight = |object: &Object<'_>, item: ItemId| {
            object.elf.symbol_binding(object.item(item).symbol) == elf::STB_LOCAL.0
                && direct_callers(object, item).is_ok()
        };
        let all_in_sight = match &folded.way {
            FoldDirection::Part { body, into } => {
                direct_callers(builds.original, *body).is_ok()
                    && into.iter().all(|&item| in_sight(builds.patched, item))
            }
            FoldDirection::Join { from } => from.iter().all(|&item| in_sight(builds.original, item)),
        };
        if all_in_sight {
            return;
        }
        let what = format!(
            "{} have one body in one of the builds, and the patch changes one of them",
            folded.names.join(" and ")
        );
        self.faults.push(
            Diagnosis::new(
                &codes::FOLDED_FUNCTIONS,
                what,
                "a livepatch diverts an address: callers and pointers that mean the other function \
                 would go along",
                "change all of these functions alike, or leave this part of the patch out",
            )
            .place(DiagnosisPlace::symbol(folded.names.first().cloned().unwrap_or_default())),
        );
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
                self.faults.push(not_traceable(&builds, item, constant, why));
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
        if is_anonymous(object, item) {
            return;
        }
        let section = object.item(item).section;
        let name = object.elf.section_name(section);
        let place = place_of(object, item);
        let fault = if object.is_type_ids(item) {
            type_ids("the patch changes a list of BTF type numbers")
        } else if object.role(section) == Role::Registry {
            Diagnosis::new(
                &codes::CHANGED_REGISTRY,
                "the patch changes a table that is read at boot",
                format!("the kernel read {} when it booted", String::from_utf8_lossy(name)),
                "leave this part of the patch out",
            )
        } else if Lifetime::of(name) == Lifetime::Boot {
            Diagnosis::new(
                &codes::INIT_DATA,
                "the patch changes __init data",
                "it was read when the kernel booted, and its memory was given back",
                "leave this part of the patch out",
            )
        } else if object.elf.section_flags(section) & elf::SHF_WRITE.0 == 0 {
            let Err(why) = self.carry(unit, item) else { return };
            Diagnosis::new(
                &codes::CHANGED_DATA,
                "the patch changes a constant that has an address",
                format!(
                    "the running kernel has its own copy in read-only memory, which a livepatch does not \
                     replace, and {why}"
                ),
                "change a function that the constant names already, or the code that hands out the constant's address: \
                 nothing can write to it",
            )
        } else {
            Diagnosis::new(
                &codes::CHANGED_DATA,
                "the initial value of existing data changed",
                "the running kernel has its own copy, which a livepatch does not replace",
                "set the value in a pre-patch callback (KLP_PRE_PATCH_CALLBACK), or keep new state in a shadow \
                 variable (klp_shadow_get_or_alloc)",
            )
        };
        self.faults.push(fault.place(place));
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
            self.check_piece(unit, piece);
            let object = self.closure.units[unit].patched;
            let (section, start, end) = match piece {
                Piece::Item(item) => {
                    (object.item(item).section, object.item(item).start, object.item(item).end)
                }
                Piece::Bytes { section, start, end } => (section, start, end),
            };
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
                Err(at) => self.faults.push(direct_branch(object, piece, at)),
            }
            let Piece::Item(item) = piece else { continue };
            let carried: Vec<Entry> = self.closure.carried(unit, item).collect();
            for entry in carried {
                let (section, start, end) = object.entry_range(entry.table, entry.index);
                for rela in object.relocations_in(section, start, end) {
                    self.follow(unit, piece, Reference { origin: ReferenceOrigin::Table, section, rela });
                }
            }
        }
    }

    /// Adds the target of a reference that is copied with the piece `by`.
    fn follow(&mut self, unit: usize, by: Piece, reference: Reference<'_>) {
        let object = self.unit(unit).patched;
        let Reference { origin, section, rela } = reference;
        if object.relocation_kind(rela).is_some_and(|kind| kind.code == 0) {
            return;
        }
        let branch = is_branch(object, section, rela);
        self.check_border(unit, by, section, rela);
        match self.closure.referent(unit, reference) {
            Referent::Copied(other, piece, offset) => {
                self.note_address((unit, by), origin, (other, piece, offset), branch);
                self.add(other, piece);
            }
            Referent::Original(original, _) => {
                let to = self.unit(unit).original;
                if is_gone(&self.unit(unit), to, original) {
                    self.init_reference(
                        unit,
                        by,
                        String::from_utf8_lossy(to.item_name(original)).into_owned(),
                    );
                }
            }
            _ => {}
        }
    }

    /// Warns if code may keep the address of a new function, which dangles once the livepatch is removed.
    fn note_address(
        &mut self,
        (unit, by): (usize, Piece),
        origin: ReferenceOrigin,
        (other, piece, offset): (usize, Piece, i64),
        is_branch: bool,
    ) {
        let Piece::Item(item) = piece else { return };
        let builds = self.unit(other);
        let is_new = builds.patched.item(item).code && builds.counterpart(item).is_none();
        let own = (unit, by) == (other, piece) || is_apart(builds.patched.item_name(item));
        if !is_new || own || is_branch || offset != 0 || origin == ReferenceOrigin::Table {
            return;
        }
        let taker = match by {
            Piece::Item(taker) => {
                String::from_utf8_lossy(self.unit(unit).patched.item_name(taker)).into_owned()
            }
            Piece::Bytes { .. } => "a constant".to_owned(),
        };
        let why = format!(
            "{taker} takes it, and a timer, a work item, a thread or a table that keeps it calls freed memory once the \
             livepatch is removed: take it back in a callback before that, or leave the livepatch loaded"
        );
        let (what, place) = ("the address of a new function is taken", place_of(builds.patched, item));
        self.closure.warnings.push(Note::at(&codes::NEW_ADDRESS, what, &place, &why));
    }

    /// Checks a reference to the place where one item ends and the next begins. Both meanings must lead to the same
    /// address: the border of two items of the kernel that are still adjacent.
    fn check_border(&mut self, unit: usize, by: Piece, section: SectionId, rela: &Rela) {
        let builds = self.unit(unit);
        let Some(before) = builds.patched.ends_at(section, rela) else { return };
        let Target::Item { item: behind, .. } = builds.patched.resolve(section, rela) else { return };
        let shape = |item: ItemId| builds.counterpart(item).map(|original| *builds.original.item(original));
        if let (Some(before), Some(behind)) = (shape(before), shape(behind))
            && (before.section, before.end) == (behind.section, behind.start)
        {
            return;
        }
        let name = |item| String::from_utf8_lossy(builds.patched.item_name(item)).into_owned();
        let place = match by {
            Piece::Item(item) => place_of(builds.patched, item),
            Piece::Bytes { .. } => DiagnosisPlace::default(),
        };
        let what = format!("the end of {}, or the start of {}", name(before), name(behind));
        self.faults.push(
            Diagnosis::new(
                &codes::BORDER_REFERENCE,
                what,
                "one lies behind the other in a section, a reference has the same offset for both, \
                 and the patch moves one of them",
                "give what the patch adds no section of its own (__read_mostly and the like)",
            )
            .place(place),
        );
    }

    fn init_reference(&mut self, unit: usize, by: Piece, what: String) {
        let object = self.unit(unit).patched;
        let place = match by {
            Piece::Item(item) => place_of(object, item),
            Piece::Bytes { .. } => DiagnosisPlace::default(),
        };
        self.faults.push(
            Diagnosis::new(
                &codes::INIT_REFERENCE,
                format!("a reference to {what}, which is gone after boot"),
                "the running kernel has given that memory back",
                "a livepatch can only change code that runs after boot: leave this part of the patch out",
            )
            .place(place),
        );
    }

    /// Refuses pieces that can't be copied at all.
    fn check_piece(&mut self, unit: usize, piece: Piece) {
        let object = self.closure.units[unit].patched;
        let (section, place) = match piece {
            Piece::Item(item) => (object.item(item).section, place_of(object, item)),
            Piece::Bytes { section, .. } => (section, DiagnosisPlace::default()),
        };
        let name = object.elf.section_name(section);
        if Lifetime::of(name).is_gone(self.closure.units[unit].is_vmlinux()) {
            let what = match piece {
                Piece::Item(item) => String::from_utf8_lossy(object.item_name(item)).into_owned(),
                Piece::Bytes { .. } => "unnamed data".into(),
            };
            return self.init_reference(unit, piece, what);
        }
        let fault = match (piece, object.role(section)) {
            (Piece::Item(item), _) if object.is_type_ids(item) => {
                type_ids("the patch needs a new list of BTF type numbers")
            }
            (Piece::Item(_), Role::Registry) => Diagnosis::new(
                &codes::REGISTRY,
                "a new entry of a table that is read at boot",
                format!("a livepatch can't add to {}", String::from_utf8_lossy(name)),
                "leave this part of the patch out, or do its work in a callback",
            ),
            (Piece::Bytes { .. }, Role::Data)
                if object.elf.section_flags(section) & elf::SHF_WRITE.0 != 0 =>
            {
                Diagnosis::new(
                    &codes::UNNAMED_DATA,
                    "a reference to variable data without a name",
                    format!("in {}; klpx can't tell which variable it is", String::from_utf8_lossy(name)),
                    "give the data a name in C, or leave this part of the patch out",
                )
            }
            (_, Role::BuildOnly | Role::Table(_)) => Diagnosis::new(
                &codes::UNKNOWN_SECTION,
                "a reference to a section that only the build uses, or to a table of places in code",
                String::from_utf8_lossy(name),
                "look for a section attribute or inline assembly in the patch, and use another section",
            ),
            _ => return,
        };
        self.faults.push(fault.place(place));
    }
}
