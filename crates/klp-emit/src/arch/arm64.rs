//! arm64 instruction facts.

use object::elf;

use super::{Escape, Field};

fn words(code: &[u8]) -> impl Iterator<Item = (usize, u32)> + '_ {
    code.chunks_exact(4).enumerate().map(|(n, w)| (n * 4, u32::from_le_bytes([w[0], w[1], w[2], w[3]])))
}

/// `b`, `br` and `ret`: no condition, no link.
pub(super) fn straight_code_length(code: &[u8]) -> Option<usize> {
    let ends =
        |w: u32| w >> 26 == 0b00_0101 || w & 0xffff_fc1f == 0xd61f_0000 || w & 0xffff_fc1f == 0xd65f_0000;
    words(code).find(|&(_, word)| ends(word)).map(|(at, _)| at + 4)
}

/// The `b` and `bl` without a relocation that leave the code.
pub(super) fn escaping_branches(code: &[u8], relocated: &dyn Fn(usize) -> bool) -> Vec<Escape> {
    let mut found = Vec::new();
    for (at, word) in words(code) {
        let kind = match word >> 26 {
            0b00_0101 => elf::R_AARCH64_JUMP26.0,
            0b10_0101 => elf::R_AARCH64_CALL26.0,
            _ => continue,
        };
        let target = at as i64 + (i64::from((word << 6) as i32) >> 6) * 4;
        if !(0..code.len() as i64).contains(&target) && !relocated(at) {
            found.push(Escape { at, target, field: Some(Field { at, kind, addend: 0 }) });
        }
    }
    found
}
