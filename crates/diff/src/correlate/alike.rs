//! The references of an item, and the pairs of references that stand at the same place of two items.

use klpx_normalize::arch::FieldKind;
use klpx_normalize::elf::{Rela, SectionId};
use klpx_normalize::object::{ItemId, Object, SectionRange, Target};
use klpx_normalize::special::TableKind;
use object::endian::LittleEndian as LE;

use super::side::{Map, ObjectSide};
use crate::purpose::purpose;

/// Where a reference of an item stands: in the item itself, or in a special-section entry that describes the item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ReferencePlace {
    /// The special section's name; empty for the item itself.
    pub(super) table: &'static str,
    /// Bytes from the item's entry to the field, or to the place that the special-section entry describes.
    pub(super) place: i64,
    /// Index among several entries for one place.
    nth: u32,
    /// Bytes from the start of the special-section entry.
    within: u64,
    /// The relocation's type.
    kind: u32,
}

impl ReferencePlace {
    /// Appends the place as bytes.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.table.bytes());
        out.extend(self.place.to_le_bytes());
        out.extend(self.within.to_le_bytes());
        out.extend(self.nth.to_le_bytes());
        out.extend(self.kind.to_le_bytes());
    }
}

/// One reference of an item.
#[derive(Clone, Copy, Debug)]
pub(super) struct ItemReference {
    pub(super) at: ReferencePlace,
    pub(super) target: Target,
}

/// Returns every reference of an item and of the special-section entries that describe the item, by place.
pub(super) fn references(object: &Object<'_>, item: ItemId) -> Vec<ItemReference> {
    let shape = object.item(item);
    let own = object.item_relocations(item).iter().map(|rela| {
        let place = rela.r_offset.get(LE).wrapping_sub(shape.entry) as i64;
        let at = ReferencePlace { table: "", place, nth: 0, within: 0, kind: kind(object, rela) };
        ItemReference { at, target: object.resolve(shape.section, rela) }
    });
    let mut all: Vec<ItemReference> = own.filter(|reference| reference.at.kind != 0).collect();
    let mut before = ("", 0);
    let mut nth = 0;
    for entry in object.entries(item) {
        let table = object.tables[entry.table.index()].kind;
        if !refers(table) {
            continue;
        }
        nth = if before == (table.name, entry.place) { nth + 1 } else { 0 };
        before = (table.name, entry.place);
        let (section, start, end) = object.entry_range(entry.table, entry.index);
        all.extend(object.relocations_in(section, start, end).iter().map(|rela| {
            let within = rela.r_offset.get(LE) - start;
            let at = ReferencePlace {
                table: table.name,
                place: entry.place,
                nth,
                within,
                kind: kind(object, rela),
            };
            ItemReference { at, target: object.resolve(section, rela) }
        }));
    }
    all.sort_by_key(|reference| reference.at);
    all
}

/// Returns the items that an item refers to.
pub(super) fn referents<'o, 'd>(
    object: &'o Object<'d>,
    item: ItemId,
) -> impl Iterator<Item = ItemId> + use<'o, 'd> {
    let own = (object.item(item).section, object.item_relocations(item));
    let entries = object
        .entries(item)
        .iter()
        .filter(|entry| refers(object.tables[entry.table.index()].kind))
        .map(|entry| object.entry_range(entry.table, entry.index))
        .map(|(section, start, end)| (section, object.relocations_in(section, start, end)));
    std::iter::once(own).chain(entries).flat_map(move |(section, relocations)| {
        relocations.iter().filter_map(move |rela| match object.resolve(section, rela) {
            Target::Item { item, .. } => Some(item),
            _ => None,
        })
    })
}

/// Returns true for a table that counts in a comparison and whose entries have references besides the described place.
fn refers(table: &TableKind) -> bool {
    table.compared && table.forms.iter().any(|(_, places)| places.len() > 1)
}

/// Returns a relocation's type, with one number for all types that mean the same.
fn kind(object: &Object<'_>, rela: &Rela) -> u32 {
    let (kind, relative) = (rela.r_type(LE, false).0, object.arch.place_relative());
    if object.arch.loads_alike(kind, relative) { relative } else { kind }
}

/// Returns bytes of a section with every relocated field cleared. The bits of an arm64 immediate are clear in the file.
pub(super) fn masked(object: &Object<'_>, section: SectionId, start: u64, end: u64) -> Vec<u8> {
    let mut bytes = object.range(section, start, end).to_vec();
    for rela in object.relocations_in(section, start, end) {
        if let Some(FieldKind::Bytes(length)) = object.relocation_kind(rela).map(|kind| kind.field) {
            let at = (rela.r_offset.get(LE) - start) as usize;
            let field = at.min(bytes.len())..(at + usize::from(length)).min(bytes.len());
            bytes[field].fill(0);
        }
    }
    bytes
}

/// The references that stand at the same place of two items.
pub(super) struct SamePlaces {
    /// Pairs of targets.
    pub(super) pairs: Vec<(Target, Target)>,
    /// True if the items differ at most in their references' targets.
    pub(super) alike: bool,
}

/// Returns the references that stand at the same place of two items. If the items differ only in their targets, these
/// are all references. Otherwise they are references of code between bytes that occur once in each item, as long as
/// they keep their order.
pub(super) fn same_places(original: (&Object<'_>, ItemId), patched: (&Object<'_>, ItemId)) -> SamePlaces {
    let (original_places, patched_places) =
        (references(original.0, original.1), references(patched.0, patched.1));
    let text = |(object, item): (&Object<'_>, ItemId)| {
        let item = object.item(item);
        (item.entry - item.start, item.end - item.start, masked(object, item.section, item.start, item.end))
    };
    let (their_text, our_text) = (text(original), text(patched));
    if their_text == our_text && original_places.iter().map(|r| r.at).eq(patched_places.iter().map(|r| r.at))
    {
        let pairs = original_places.iter().zip(&patched_places).map(|(x, y)| (x.target, y.target)).collect();
        return SamePlaces { pairs, alike: true };
    }
    if !original.0.item(original.1).code {
        return SamePlaces { pairs: Vec::new(), alike: false };
    }
    let original_places = surroundings(&original_places, their_text.0, &their_text.2);
    let patched_places = surroundings(&patched_places, our_text.0, &our_text.2);
    let mut pairs: Vec<(i64, i64, Target, Target)> = original_places
        .iter()
        .filter_map(|(bytes, x)| match (x, patched_places.get(bytes)?) {
            (Some(x), Some(y)) => Some((x.at.place, y.at.place, x.target, y.target)),
            _ => None,
        })
        .collect();
    pairs.sort_unstable_by_key(|pair| (pair.0, pair.1));
    let highest_before: Vec<i64> = pairs
        .iter()
        .scan(i64::MIN, |highest, pair| Some(std::mem::replace(highest, (*highest).max(pair.1))))
        .collect();
    let mut lowest_after = i64::MAX;
    let mut kept = Vec::new();
    for (pair, highest_before) in pairs.iter().zip(highest_before).rev() {
        if highest_before < pair.1 && pair.1 < lowest_after {
            kept.push((pair.2, pair.3));
        }
        lowest_after = lowest_after.min(pair.1);
    }
    SamePlaces { pairs: kept, alike: false }
}

/// The numbers of bytes before and after a field that tell its place.
const BEFORE: usize = 12;
const AFTER: usize = 8;

/// Returns the references of code by the bytes around them; `None` for bytes that occur twice.
fn surroundings<'t>(
    references: &[ItemReference],
    ahead: u64,
    text: &'t [u8],
) -> Map<(&'t [u8], u32), Option<ItemReference>> {
    let mut map: Map<(&[u8], u32), Option<ItemReference>> = Map::default();
    for reference in references.iter().filter(|reference| reference.at.table.is_empty()) {
        let at = reference.at.place.saturating_add(ahead as i64).max(0) as usize;
        let around = &text[at.saturating_sub(BEFORE).min(text.len())..(at + AFTER).min(text.len())];
        map.entry((around, reference.at.kind)).and_modify(|seen| *seen = None).or_insert(Some(*reference));
    }
    map
}

/// The depth to which nameless constants are followed.
const MAX_DEPTH: u8 = 8;

/// Appends everything that characterises an item, as bytes: two items are alike if these bytes are equal. `counterpart`
/// gives one id to both members of a pair.
pub(super) fn contents(
    side: &ObjectSide<'_, '_>,
    item: ItemId,
    counterpart: &dyn Fn(ItemId) -> Option<ItemId>,
    out: &mut Vec<u8>,
) {
    ContentWriter { side, counterpart, out }.item(item, 0);
}

/// Appends the contents of one item to `out`. The depth counts the nameless constants that were followed.
struct ContentWriter<'w, 'a, 'd> {
    side: &'w ObjectSide<'a, 'd>,
    /// Gives one id to both members of a pair.
    counterpart: &'w dyn Fn(ItemId) -> Option<ItemId>,
    out: &'w mut Vec<u8>,
}

impl ContentWriter<'_, '_, '_> {
    fn item(&mut self, item: ItemId, depth: u8) {
        let side = self.side;
        let shape = side.object.item(item);
        let (section, flags) = purpose(side.object, item);
        self.out.extend(section);
        for number in [flags, shape.entry.wrapping_sub(shape.start), shape.end.wrapping_sub(shape.start)] {
            self.out.extend(number.to_le_bytes());
        }
        self.out.extend(masked(side.object, shape.section, shape.start, shape.end));
        for (place, of) in side.object.type_ids(item) {
            self.out.extend(place.to_le_bytes());
            self.out.extend(of);
        }
        for reference in references(side.object, item) {
            reference.at.write(self.out);
            self.referent(item, reference.target, depth);
        }
    }

    /// Appends the contents of bytes without a name in the same way.
    fn literal(&mut self, owner: ItemId, literal: SectionRange, depth: u8) {
        let SectionRange { section, start, end } = literal;
        let object = self.side.object;
        self.out.extend((end - start).to_le_bytes());
        self.out.extend(masked(object, section, start, end));
        if depth >= MAX_DEPTH {
            return;
        }
        for rela in object.relocations_in(section, start, end) {
            self.out.extend((rela.r_offset.get(LE) - start).to_le_bytes());
            self.referent(owner, object.resolve(section, rela), depth + 1);
        }
    }

    /// Appends the meaning of a reference, as bytes.
    fn referent(&mut self, owner: ItemId, target: Target, depth: u8) {
        let (side, object) = (self.side, self.side.object);
        let mut put = |tag: u8, n: i64| {
            self.out.push(tag);
            self.out.extend(n.to_le_bytes());
        };
        match target {
            Target::Item { item, offset } if item == owner => put(b'S', offset),
            Target::Item { item, offset } => match (self.counterpart)(item) {
                Some(one) => {
                    put(b'P', offset);
                    put(b'=', i64::from(one.0));
                }
                None if side.is_anonymous(item) => {
                    put(b'L', offset);
                    if depth < MAX_DEPTH {
                        self.item(item, depth + 1);
                    }
                }
                None => {
                    put(b'O', offset);
                    self.out.extend(side.key(item).base);
                }
            },
            Target::Literal { section, start, end, offset } => {
                put(b'L', offset);
                self.literal(owner, SectionRange { section, start, end }, depth);
            }
            Target::Entry { table, offset, .. } => {
                put(b'E', offset);
                self.out.extend(object.tables[table.index()].kind.name.bytes());
            }
            Target::External { symbol, offset } => {
                put(b'X', offset);
                self.out.extend(object.elf.symbol_name(symbol));
            }
            Target::Absolute(value) => put(b'N', value),
        }
    }
}
