//! The chosen pieces, and where the references of their code and data lead.

use std::collections::{BTreeMap, BTreeSet};

use klpx_diagnosis::Note;
use klpx_normalize::elf::{Rela, SectionId, SymbolId};
use klpx_normalize::name::is_apart;
use klpx_normalize::object::{ItemId, Object, Role, SectionRange, TableId, Target};
use klpx_normalize::special::Policy;
use object::elf;
use object::endian::LittleEndian as LE;

use super::direct;
use super::globals::{NewGlobal, is_exported};
use super::pieces::{Callback, Piece, PieceEntry};
use crate::arch;
use crate::callers::is_branch;
use crate::plan::ComparedUnit;

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
    /// A special-section entry that describes a piece: its references mean the copy.
    Table(Piece),
}

impl ReferenceOrigin {
    /// Returns true for a special-section entry.
    pub(crate) fn is_table(self) -> bool {
        matches!(self, ReferenceOrigin::Table(_))
    }
}

/// A reference of a unit's patched object: a relocation with its section.
#[derive(Clone, Copy)]
pub struct Reference<'o> {
    /// The place of the reference.
    pub origin: ReferenceOrigin,
    /// The section of the relocation.
    pub section: SectionId,
    /// The relocation.
    pub rela: &'o Rela,
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
    pub(super) new_globals: BTreeMap<&'d [u8], Vec<NewGlobal>>,
    /// By unit: the names that the original imports from other objects or units.
    pub(super) imports: Vec<BTreeSet<&'d [u8]>>,
}

impl<'u, 'd> Closure<'u, 'd> {
    /// Returns true if a piece is copied.
    pub fn has(&self, unit: usize, piece: Piece) -> bool {
        self.pieces[unit].contains(&piece)
    }

    /// The special-section entries that describe a copied piece and are carried with the copy, in table order.
    pub fn carried(&self, unit: usize, piece: Piece) -> Vec<PieceEntry> {
        let object = self.units[unit].patched;
        let mut entries = piece.entries(object);
        entries.retain(|entry| object.tables[entry.table.index()].kind.policy == Policy::Carry);
        entries.sort_by_key(|entry| (entry.table, entry.index));
        entries
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
            let SectionRange { section, start, end } = piece.range(object);
            refer(ReferenceOrigin::Piece(piece), section, start, end);
            for entry in self.carried(unit, piece) {
                let (section, start, end) = object.entry_range(entry.table, entry.index);
                refer(ReferenceOrigin::Table(piece), section, start, end);
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
            Target::Literal { section, start, offset, .. }
                if let Some((piece, delta)) =
                    described(reference.origin, section, start.wrapping_add_signed(offset)) =>
            {
                Referent::Copied(unit, piece, delta)
            }
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

    /// The target of a reference to an item. A constant without identity has no counterpart, so the module has a copy.
    fn item_referent(&self, unit: usize, reference: Reference<'_>, item: ItemId, offset: i64) -> Referent {
        let piece = Piece::Item(item);
        let copy = Referent::Copied(unit, piece, offset);
        let Some(original) = self.units[unit].counterpart(item) else { return copy };
        let object = self.units[unit].patched;
        if !object.item(item).code {
            let copied = self.constants[unit].contains(&item);
            return if copied { copy } else { Referent::Original(original, offset) };
        }
        let branch = is_branch(object, reference.section, reference.rela);
        if self.has(unit, piece) && (reference.origin.is_table() || branch || offset != 0) {
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

/// The piece without a name that an entry describes and a place lies in, with the place's distance from the first byte.
fn described(origin: ReferenceOrigin, of: SectionId, place: u64) -> Option<(Piece, i64)> {
    let ReferenceOrigin::Table(piece @ Piece::Bytes { section, start, end }) = origin else { return None };
    (section == of && (start..end).contains(&place)).then(|| (piece, place.wrapping_sub(start) as i64))
}

/// The real end of a literal whose length only its reader knows.
fn literal_end(object: &Object<'_>, reference: Reference<'_>, literal: SectionRange) -> u64 {
    let SectionRange { section, start, end } = literal;
    if let (ReferenceOrigin::Table(_), Role::Table(table)) =
        (reference.origin, object.role(reference.section))
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
