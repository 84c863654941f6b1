//! Bytes and references of one item in both builds, side by side.
//!
//! Owns where a witness's relocation stands in the image and what the image has there. Judges nothing.

use klpx_normalize::arch::{Field, NONE};
use klpx_normalize::elf::Rela;
use klpx_normalize::object::{Item, ItemId, Object, Role, Target};
use object::endian::LittleEndian as LE;

use crate::field::{self, Value};
use crate::image::{Image, Location};

/// What stands in the image at a relocated place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A field that refers to an address of the image.
    Value(Value),
    /// A reference to a symbol that the image imports, with an offset.
    Import(klpx_normalize::elf::SymbolId, i64),
}

/// The first offset in `start..end` of a witness section at which a byte outside relocated fields is not that of the
/// image, where the range begins at `address`. An unreadable place of the image differs.
pub(crate) fn first_difference(
    witness: &Object<'_>,
    section: klpx_normalize::elf::SectionId,
    (start, end): (u64, u64),
    image: &Image<'_>,
    address: u64,
) -> Option<u64> {
    let mine = witness.range(section, start, end);
    if mine.is_empty() {
        return None; // .bss: nothing but a size
    }
    let theirs = image.bytes_from(address).unwrap_or(&[]);
    if theirs.is_empty() && image.section_of(address).is_some() {
        return mine.iter().position(|&b| b != 0).map(|n| start + n as u64); // zeroes that one link put into .bss
    }
    if theirs.len() < mine.len() {
        return Some(start);
    }
    let differs = |from: usize, to: usize| {
        let to = to.min(mine.len());
        (from < to && mine[from..to] != theirs[from..to])
            .then(|| (from..to).find(|&n| mine[n] != theirs[n]).unwrap_or(from))
    };
    let mut done = 0;
    for rela in witness.relocations_in(section, start, end) {
        let at = (rela.r_offset.get(LE) - start) as usize;
        let Some(kind) = witness.relocation_kind(rela) else { return Some(start + at as u64) };
        if let Some(n) = differs(done, at) {
            return Some(start + n as u64);
        }
        if !field::rest_agrees(kind, mine.get(at..).unwrap_or(&[]), theirs.get(at..).unwrap_or(&[])) {
            return Some(start + at as u64);
        }
        done = done.max(at + field::length(kind) as usize);
    }
    differs(done, mine.len()).map(|n| start + n as u64)
}

/// True when an item's bytes outside relocated fields are those that the image has at `entry`.
pub(crate) fn unrelocated_bytes_agree(
    witness: &Object<'_>,
    item: &Item,
    image: &Image<'_>,
    entry: u64,
) -> bool {
    let first = entry.wrapping_sub(item.entry - item.start);
    first_difference(witness, item.section, (item.start, item.end), image, first).is_none()
}

/// What the image has where a witness's relocation stands; `place` is that place in the image.
pub(crate) fn found(
    witness: &Object<'_>,
    section: klpx_normalize::elf::SectionId,
    rela: &Rela,
    image: &Image<'_>,
    place: u64,
) -> Option<Found> {
    let kind = witness.relocation_kind(rela)?;
    let bias = if witness.role(section) == Role::Code { witness.arch.pc_bias(kind) } else { 0 };
    let add = |value| match value {
        Value::Address(a) => Value::Address(a.wrapping_add_signed(bias)),
        other => other,
    };
    if image.is_linked() {
        if let (Field::Bytes(8), Some(pointer)) = (kind.field, image.pointer_at(place)) {
            return Some(Found::Value(Value::Address(pointer)));
        }
        let bytes = image.bytes_from(place)?;
        return field::value(witness.arch, kind, bytes, place).map(|value| Found::Value(add(value)));
    }
    let all = image.relocations(place, 1);
    if all.is_empty() && kind.pc_relative {
        // Without function sections the assembler wrote branches inside of a module's section itself.
        let value = field::value(witness.arch, kind, image.bytes_from(place)?, place)?;
        return Some(Found::Value(add(value)));
    }
    let other = all.iter().find(|other| !is_none(other))?;
    if !witness.arch.loads_alike(kind.code, other.r_type(LE, false).0) {
        return None;
    }
    Some(match image.target(other)? {
        Location::At(a) => Found::Value(Value::Address(a.wrapping_add_signed(bias))),
        Location::Undefined(symbol, offset) => Found::Import(symbol, offset.wrapping_add(bias)),
    })
}

fn is_none(rela: &Rela) -> bool {
    rela.r_type(LE, false).0 == NONE
}

/// What a field of the image says where an item's relocation stands, the item's entry being at `entry`. `None` for an
/// import.
pub(crate) fn value(
    witness: &Object<'_>,
    item: &Item,
    rela: &Rela,
    image: &Image<'_>,
    entry: u64,
) -> Option<Value> {
    let place = entry.wrapping_add(rela.r_offset.get(LE)).wrapping_sub(item.entry);
    match found(witness, item.section, rela, image, place)? {
        Found::Value(value) => Some(value),
        Found::Import(..) => None,
    }
}

/// The references of an item that `wanted` names: relocation, what it leads to, offset from there.
pub(crate) fn references<'d, T>(
    witness: &'d Object<'_>,
    owner: ItemId,
    wanted: &dyn Fn(Target) -> Option<(T, i64)>,
) -> Vec<(&'d Rela, T, i64)> {
    let section = witness.item(owner).section;
    let relocations = witness.item_relocations(owner).iter();
    relocations
        .filter_map(|rela| wanted(witness.resolve(section, rela)).map(|(to, offset)| (rela, to, offset)))
        .collect()
}
