//! Branches between items of one section that the assembler resolved, as relocations: a copy needs a relocation for
//! each.

use klpx_normalize::elf::Rela;
use klpx_normalize::object::{Object, SectionRange};
use object::endian::{I64, LittleEndian as LE, U64};

use super::pieces::Piece;

/// The relocations that the branches out of a piece would have, sorted by place. Fails with the place in the section of
/// a branch out that can't have a relocation.
pub(crate) fn branches(object: &Object<'_>, piece: Piece) -> Result<Vec<Rela>, u64> {
    let SectionRange { section, end, .. } = piece.range(object);
    let relocation = |branch: klpx_normalize::object::DirectBranch| {
        let (Some((place, field)), Some(to)) = (branch.field, branch.to) else { return Err(branch.at) };
        let to = object.item(to);
        Ok(Rela {
            r_offset: U64::new(LE, place),
            r_info: U64::new(LE, u64::from(to.symbol.0) << 32 | u64::from(field.kind)),
            r_addend: I64::new(LE, branch.target.wrapping_sub(to.entry) as i64 + field.addend),
        })
    };
    object.direct_branches(section, (piece.anchor(object), end)).into_iter().map(relocation).collect()
}
