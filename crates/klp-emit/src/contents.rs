//! Compares bytes and references of one item in both builds.
//!
//! Owns where a witness's relocation lies in the image, and what the image has there. Judges nothing.

use klpx_normalize::arch::{FieldKind, NONE};
use klpx_normalize::elf::{Rela, SectionId};
use klpx_normalize::object::{Item, ItemId, Object, Role, SectionRange};
use object::endian::LittleEndian as LE;

use crate::arch;
use crate::field::{self, FieldValue};
use crate::image::{Image, Location};

/// The contents of the image at a relocated place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PlaceContents {
    /// A field that refers to an address of the image.
    Value(FieldValue),
    /// A reference to a symbol that the image imports, with an offset.
    Import(klpx_normalize::elf::SymbolId, i64),
}

/// The first offset in a range of a witness section at which a byte outside relocated fields differs from the image,
/// where the range begins at `address`. An unreadable place of the image counts as a difference.
pub(crate) fn first_difference(
    witness: &Object<'_>,
    range: SectionRange,
    image: &Image<'_>,
    address: u64,
) -> Option<u64> {
    let SectionRange { section, start, end } = range;
    let mine = witness.range(section, start, end);
    if mine.is_empty() {
        return None; // .bss: nothing but a size
    }
    let image_bytes = image.bytes_from(address).unwrap_or(&[]);
    if image_bytes.is_empty() && image.section_of(address).is_some() {
        return mine.iter().position(|&b| b != 0).map(|n| start + n as u64); // zeroes that one link put into .bss
    }
    if image_bytes.len() < mine.len() {
        return Some(start);
    }
    let differs = |from: usize, to: usize| {
        let to = to.min(mine.len());
        (from < to && mine[from..to] != image_bytes[from..to])
            .then(|| (from..to).find(|&n| mine[n] != image_bytes[n]).unwrap_or(from))
    };
    let mut done = 0;
    for rela in witness.relocations_in(section, start, end) {
        let at = (rela.r_offset.get(LE) - start) as usize;
        let Some(kind) = witness.relocation_kind(rela) else { return Some(start + at as u64) };
        if let Some(n) = differs(done, at) {
            return Some(start + n as u64);
        }
        let (rest, image_rest) = (mine.get(at..).unwrap_or(&[]), image_bytes.get(at..).unwrap_or(&[]));
        if !field::rest_agrees(witness.arch, kind, rest, image_rest) {
            return Some(start + at as u64);
        }
        done = done.max(at + field::length(kind) as usize);
    }
    differs(done, mine.len()).map(|n| start + n as u64)
}

/// Returns true if an item's bytes outside relocated fields equal those of the image at `entry`.
pub(crate) fn unrelocated_bytes_agree(
    witness: &Object<'_>,
    item: &Item,
    image: &Image<'_>,
    entry: u64,
) -> bool {
    let first = entry.wrapping_sub(item.entry - item.start);
    let &Item { section, start, end, .. } = item;
    first_difference(witness, SectionRange { section, start, end }, image, first).is_none()
}

/// A relocation of the witness, with the place of the relocated field in the image.
#[derive(Clone, Copy)]
pub(crate) struct PlacedRelocation<'d> {
    /// The section of the relocation.
    pub(crate) section: SectionId,
    /// The relocation.
    pub(crate) rela: &'d Rela,
    /// The field's address in the image.
    pub(crate) place: u64,
}

/// The contents of the image at the place of a witness's relocation.
pub(crate) fn found(
    witness: &Object<'_>,
    relocation: PlacedRelocation<'_>,
    image: &Image<'_>,
) -> Option<PlaceContents> {
    let PlacedRelocation { section, rela, place } = relocation;
    let kind = witness.relocation_kind(rela)?;
    let bias = if witness.role(section) == Role::Code { witness.arch.pc_bias(kind) } else { 0 };
    let add = |value| match value {
        FieldValue::Address(a) => FieldValue::Address(a.wrapping_add_signed(bias)),
        other => other,
    };
    if image.is_linked() {
        if let (FieldKind::Bytes(8), Some(pointer)) = (kind.field, image.pointer_at(place)) {
            return Some(PlaceContents::Value(FieldValue::Address(pointer)));
        }
        let bytes = image.bytes_from(place)?;
        return field::value(witness.arch, kind, bytes, place).map(|value| PlaceContents::Value(add(value)));
    }
    let all = image.relocations(place, 1);
    if all.is_empty() && kind.pc_relative {
        // Without function sections, the assembler resolved branches inside a module's section itself.
        let value = field::value(witness.arch, kind, image.bytes_from(place)?, place)?;
        return Some(PlaceContents::Value(add(value)));
    }
    let other = all.iter().find(|other| !is_none(other))?;
    if !witness.arch.loads_alike(kind.code, other.r_type(LE, false).0) {
        return None;
    }
    Some(match image.target(other)? {
        Location::At(a) => PlaceContents::Value(FieldValue::Address(a.wrapping_add_signed(bias))),
        Location::Undefined(symbol, offset) => PlaceContents::Import(symbol, offset.wrapping_add(bias)),
    })
}

fn is_none(rela: &Rela) -> bool {
    rela.r_type(LE, false).0 == NONE
}

/// A relocated field of an item whose bytes outside relocated fields are the same in the image.
#[derive(Clone, Copy)]
pub(crate) struct FieldSite<'d> {
    pub(crate) relocation: PlacedRelocation<'d>,
    /// arm64: the address that a pair of instructions computes, if the linker turned `adrp`+`add` into `nop`+`adr`
    /// (lld, R_AARCH64_ADR_PREL_PG_HI21 relaxation).
    pub(crate) shortened: Option<u64>,
}

impl FieldSite<'_> {
    /// The value of the field in the image; `None` for an import.
    pub(crate) fn value(&self, witness: &Object<'_>, image: &Image<'_>) -> Option<FieldValue> {
        match self.shortened {
            Some(address) => Some(FieldValue::Address(address)),
            None => match found(witness, self.relocation, image)? {
                PlaceContents::Value(value) => Some(value),
                PlaceContents::Import(..) => None,
            },
        }
    }
}

/// The relocated fields of an item whose other bytes equal those of the image at `entry`, except for shortened pairs.
/// `None` if the bytes differ.
pub(crate) fn sites<'d>(
    witness: &'d Object<'_>,
    id: ItemId,
    image: &Image<'_>,
    entry: u64,
) -> Option<Vec<FieldSite<'d>>> {
    let item = witness.item(id);
    let first = entry.wrapping_sub(item.entry - item.start);
    let site = |rela: &'d Rela, place: u64, shortened: Option<u64>| FieldSite {
        relocation: PlacedRelocation { section: item.section, rela, place },
        shortened,
    };
    if unrelocated_bytes_agree(witness, item, image, entry) {
        let place = |rela: &Rela| first.wrapping_add(rela.r_offset.get(LE) - item.start);
        let relocations = witness.item_relocations(id).iter();
        return Some(relocations.map(|rela| site(rela, place(rela), None)).collect());
    }
    let shortened_pair = arch::shortened_pair(witness.arch).filter(|_| item.code)?;
    let witness_bytes = witness.range(item.section, item.start, item.end);
    let image_bytes = image.bytes_from(first)?.get(..witness_bytes.len())?;
    let mut sites = Vec::new();
    let mut relocations = witness.item_relocations(id).iter().peekable();
    let mut at = 0;
    while at < witness_bytes.len() {
        let (mine, other) = (&witness_bytes[at..], &image_bytes[at..]);
        let place = first.wrapping_add(at as u64);
        let Some(rela) = relocations.next_if(|r| r.r_offset.get(LE) - item.start < at as u64 + 4) else {
            let end = mine.len().min(4);
            if mine[..end] != other[..end] {
                return None;
            }
            at += 4;
            continue;
        };
        let kinds = relocations.peek().map(|next| (rela.r_type(LE, false).0, next.r_type(LE, false).0));
        let distance = kinds.and_then(|kinds| shortened_pair(kinds, mine, other));
        if let Some(distance) = distance {
            relocations.next();
            sites.push(site(rela, place, Some(place.wrapping_add_signed(distance))));
            at += 8;
            continue;
        }
        if !field::rest_agrees(witness.arch, witness.relocation_kind(rela)?, mine, other) {
            return None;
        }
        sites.push(site(rela, place, None));
        at += 4;
    }
    Some(sites)
}
