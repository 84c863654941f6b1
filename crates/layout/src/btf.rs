//! Structures and unions from the BTF of a kernel or a module (include/uapi/linux/btf.h).
//!
//! ```text
//! header   magic 0xeb9f (2), version 1 (1), flags (1), header length (4),
//!          offset of the types, their length, offset of the strings, their length (4 each, counted behind the header)
//! type     name (4), info (4: number of members in bits 0-15, kind in 24-28, kind flag in 31), bytes or type (4)
//! member   name (4), type (4), offset in bits (4; with the kind flag: width of a bit-field in bits 24-31)
//! ```
//!
//! A module's BTF continues the kernel's: the numbers of types and the offsets of strings count on from its end.

use std::collections::{BTreeMap, BTreeSet};

use klpx_diagnosis::{Diagnosis, Result, codes};

use crate::compare::differences;
use crate::{Enclosing, Layout, Layouts, Member, TypeDefinition, TypeKey, TypeKind};

const MAGIC: u16 = 0xeb9f;
/// The greatest depth of unnamed structures inside each other.
const DEPTH: u32 = 32;
/// The greatest number of members of a structure, with the members of unnamed structures inside.
const MEMBERS: usize = 100_000;

/// Kinds of types (BTF_KIND_*), and the bytes that follow the head of each kind.
mod kind {
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const INT: u32 = 1;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const ENUM64: u32 = 19;

    /// Returns the number of bytes behind the head of a type with `count` parts; `None` for an unknown kind.
    pub(super) fn rest(kind: u32, count: usize) -> Option<usize> {
        Some(match kind {
            INT | VAR | DECL_TAG => 4,
            ARRAY => 12,
            STRUCT | UNION | DATASEC | ENUM64 => 12 * count,
            ENUM | FUNC_PROTO => 8 * count,
            2 | 7..=12 | 16 | 18 => 0,
            _ => return None,
        })
    }
}

/// One type.
#[derive(Clone, Copy)]
struct Head {
    name: u32,
    info: u32,
    /// Bytes, or the number of the type that this type refers to.
    value: u32,
    /// The offset in the section where the type's parts begin.
    parts: usize,
}

impl Head {
    fn kind(self) -> u32 {
        self.info >> 24 & 0x1f
    }

    fn count(self) -> usize {
        (self.info & 0xffff) as usize
    }

    fn has_flag(self) -> bool {
        self.info >> 31 == 1
    }
}

/// The types of a kernel, or of a module together with its kernel's.
pub struct Btf<'d> {
    bytes: &'d [u8],
    strings: &'d [u8],
    types: Vec<Head>,
    base: Option<&'d Btf<'d>>,
    /// The number of the first type, and the offset of the first string.
    first: (u32, u32),
}

impl<'d> Btf<'d> {
    /// Reads a section `.BTF`. For a module's section, `base` is the kernel's BTF.
    ///
    /// # Errors
    /// `klpx::bad-btf`.
    pub fn read(bytes: &'d [u8], base: Option<&'d Btf<'d>>) -> Result<Btf<'d>> {
        Btf::parse(bytes, base).ok_or_else(|| {
            Diagnosis::new(
                &codes::BAD_BTF,
                "the types in .BTF can't be read",
                "the section is damaged, or of a version that klpx does not know",
                "check the integrity of the kernel's packages",
            )
            .into()
        })
    }

    fn parse(bytes: &'d [u8], base: Option<&'d Btf<'d>>) -> Option<Btf<'d>> {
        let header = word(bytes, 4)? as usize;
        if u16::from_le_bytes(bytes.get(..2)?.try_into().ok()?) != MAGIC || *bytes.get(2)? != 1 {
            return None;
        }
        let body = bytes.get(header..)?;
        let part = |at: usize| -> Option<&'d [u8]> {
            let (offset, length) = (word(bytes, at)? as usize, word(bytes, at + 4)? as usize);
            body.get(offset..offset.checked_add(length)?)
        };
        let (all, strings) = (part(8)?, part(16)?);
        let mut types = Vec::new();
        let mut at = 0;
        while at < all.len() {
            let head = Head {
                name: word(all, at)?,
                info: word(all, at + 4)?,
                value: word(all, at + 8)?,
                parts: at + 12,
            };
            at = head.parts.checked_add(kind::rest(head.kind(), head.count())?)?;
            types.push(head);
        }
        // Number 0 is void.
        let first = base.map_or((1, 0), |base| {
            (base.first.0 + base.types.len() as u32, base.first.1 + base.strings.len() as u32)
        });
        (at == all.len()).then_some(Btf { bytes: all, strings, types, base, first })
    }

    fn head(&self, number: u32) -> Option<(&Btf<'d>, Head)> {
        match number.checked_sub(self.first.0) {
            Some(index) => Some((self, *self.types.get(index as usize)?)),
            None => self.base?.head(number),
        }
    }

    fn string(&self, offset: u32) -> &'d [u8] {
        let Some(at) = offset.checked_sub(self.first.1) else {
            return self.base.map_or(&[], |base| base.string(offset));
        };
        let rest = self.strings.get(at as usize..).unwrap_or_default();
        &rest[..rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len())]
    }

    /// Returns the named structures and unions of the unit that the kernel also has, but only in other forms, each with
    /// a line that names one difference.
    pub fn disagreements(&self, unit: &Layouts) -> Vec<(TypeKey, TypeDefinition, String)> {
        let wanted: BTreeSet<&[u8]> = unit.types.keys().map(|key| key.name.as_bytes()).collect();
        let mut known: BTreeMap<TypeKey, Vec<Layout>> = BTreeMap::new();
        for btf in [Some(self), self.base].into_iter().flatten() {
            for head in &btf.types {
                let kind = match head.kind() {
                    kind::STRUCT => TypeKind::Struct,
                    kind::UNION => TypeKind::Union,
                    _ => continue,
                };
                let name = btf.string(head.name);
                if !wanted.contains(name) {
                    continue;
                }
                let key = TypeKey { kind, name: String::from_utf8_lossy(name).into_owned() };
                if let Some(layout) = btf.layout(*head) {
                    known.entry(key).or_default().push(layout);
                }
            }
        }
        let mut found = Vec::new();
        for (key, btf_layout) in &known {
            for definition in unit.of(key) {
                let dwarf_layout = bare(&definition.layout);
                if btf_layout.contains(&dwarf_layout) {
                    continue;
                }
                let nearest =
                    btf_layout.iter().map(|layout| differences(layout, &dwarf_layout)).min_by_key(Vec::len);
                let line = nearest.and_then(|lines| lines.into_iter().next()).unwrap_or_default();
                found.push((key.clone(), definition.clone(), line));
            }
        }
        found
    }

    fn layout(&self, head: Head) -> Option<Layout> {
        let mut members = Vec::new();
        self.members(head, Enclosing::default(), &mut members, 0)?;
        Some(Layout { size: u64::from(head.value), members, values: Vec::new() })
    }

    fn members(
        &self,
        head: Head,
        enclosing: Enclosing<'_>,
        found: &mut Vec<Member>,
        depth: u32,
    ) -> Option<()> {
        for n in 0..head.count() {
            let at = head.parts + 12 * n;
            let (name, of, place) =
                (word(self.bytes, at)?, word(self.bytes, at + 4)?, word(self.bytes, at + 8)?);
            let (place, width) = if head.has_flag() { (place & 0xff_ffff, place >> 24) } else { (place, 0) };
            let named = self.string(name);
            let name = format!("{}{}", enclosing.prefix, String::from_utf8_lossy(named));
            let at = enclosing.offset + u64::from(place);
            match self.unnamed(of) {
                Some((btf, inside)) if depth < DEPTH => {
                    let prefix = if named.is_empty() { name } else { format!("{name}.") };
                    btf.members(inside, Enclosing { prefix: &prefix, offset: at }, found, depth + 1)?;
                }
                _ if found.len() >= MEMBERS => return None,
                _ => found.push(Member {
                    name,
                    offset: at,
                    width: u64::from(width),
                    text: String::new(),
                    embeds: None,
                }),
            }
        }
        Some(())
    }

    /// Returns the structure or union that a number means, if it has no name.
    fn unnamed(&self, number: u32) -> Option<(&Btf<'d>, Head)> {
        let mut number = number;
        for _ in 0..DEPTH {
            let (btf, head) = self.head(number)?;
            match head.kind() {
                kind::STRUCT | kind::UNION => return btf.string(head.name).is_empty().then_some((btf, head)),
                kind::VOLATILE | kind::CONST | kind::RESTRICT => number = head.value,
                _ => return None,
            }
        }
        None
    }
}

/// Returns a layout with only the facts that BTF has.
fn bare(layout: &Layout) -> Layout {
    let bare = |member: &Member| Member { text: String::new(), embeds: None, ..member.clone() };
    Layout { members: layout.members.iter().map(bare).collect(), values: Vec::new(), ..layout.clone() }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}
