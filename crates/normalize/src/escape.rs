//! Instructions that lead out of their code without a relocation. The assembler writes the distance itself where both
//! ends lie in one section.

use object::elf;

use crate::arch::Arch;

/// An instruction that leads out of its code without a relocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Escape {
    /// First byte of the instruction.
    pub at: usize,
    /// The target, in bytes from the start of the code.
    pub target: i64,
    /// The field where a relocation would stand; `None` if the instruction does not reach all of a module.
    pub field: Option<BranchField>,
}

/// The field of a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BranchField {
    /// The first byte of the field.
    pub at: usize,
    /// The relocation type for the field.
    pub kind: u32,
    /// The addend of a relocation to the target.
    pub addend: i64,
}

/// Returns the instructions that lead out of `code` without a relocation. `settled` returns true for a byte that has a
/// relocation or is not an instruction.
pub fn escapes(arch: Arch, code: &[u8], settled: &dyn Fn(usize) -> bool) -> Vec<Escape> {
    match arch {
        Arch::X86_64 => of_x86_64(code, settled),
        Arch::Arm64 => of_arm64(code, settled),
    }
}

/// `R_X86_64_PLT32` and its addend: the processor counts from the end of the 4-byte field.
const X86_BRANCH: (u32, i64) = (elf::R_X86_64_PLT32.0, -4);

/// Returns the branches without a relocation that leave the code.
fn of_x86_64(code: &[u8], relocated: &dyn Fn(usize) -> bool) -> Vec<Escape> {
    use iced_x86::{Decoder, DecoderOptions, OpKind};
    let mut decoder = Decoder::new(64, code, DecoderOptions::NONE);
    let mut found = Vec::new();
    while decoder.can_decode() {
        let at = decoder.position();
        let instruction = decoder.decode();
        let end = decoder.position();
        let near = matches!(instruction.op0_kind(), OpKind::NearBranch64 | OpKind::NearBranch32);
        let target = instruction.near_branch_target() as i64;
        // The code may end within an instruction, because a symbol of assembly can stand anywhere.
        let whole = !instruction.is_invalid();
        if !near || !whole || (0..code.len() as i64).contains(&target) || (at..end).any(relocated) {
            continue;
        }
        let long = decoder.get_constant_offsets(&instruction).immediate_size() == 4;
        let (kind, addend) = X86_BRANCH;
        let field = end.checked_sub(4).filter(|_| long).map(|at| BranchField { at, kind, addend });
        found.push(Escape { at, target, field });
    }
    found
}

/// A form of instruction with a relative address: the bits that identify the form, their value, the place and width of
/// the distance, and the relocation that reaches every place of a module (Arm ARM, C4.1.93 "Branches, exception
/// generating and system instructions", C4.1.94 "Load register (literal)", C4.1.92 "PC-rel. addressing").
struct Relative {
    mask: u32,
    value: u32,
    at: u32,
    width: u32,
    kind: Option<u32>,
}

const RELATIVE: [Relative; 6] = [
    Relative { mask: 0xfc00_0000, value: 0x1400_0000, at: 0, width: 26, kind: Some(elf::R_AARCH64_JUMP26.0) },
    Relative { mask: 0xfc00_0000, value: 0x9400_0000, at: 0, width: 26, kind: Some(elf::R_AARCH64_CALL26.0) },
    // b.cond; cbz, cbnz; tbz, tbnz; ldr (literal)
    Relative { mask: 0xff00_0000, value: 0x5400_0000, at: 5, width: 19, kind: None },
    Relative { mask: 0x7e00_0000, value: 0x3400_0000, at: 5, width: 19, kind: None },
    Relative { mask: 0x7e00_0000, value: 0x3600_0000, at: 5, width: 14, kind: None },
    Relative { mask: 0x3b00_0000, value: 0x1800_0000, at: 5, width: 19, kind: None },
];

/// Returns the distance of an `adr` in bytes; `None` for any other instruction.
pub fn adr_distance(word: u32) -> Option<i64> {
    // immhi:immlo, 21 bits with a sign
    let distance = ((word << 8) as i32 >> 13 << 2) | (word >> 29 & 3) as i32;
    (word & 0x9f00_0000 == 0x1000_0000).then_some(i64::from(distance))
}

/// Returns the branches, loads and addresses without a relocation that leave the code.
fn of_arm64(code: &[u8], settled: &dyn Fn(usize) -> bool) -> Vec<Escape> {
    let mut found = Vec::new();
    for (at, word) in words(code) {
        let relative = RELATIVE.iter().find(|form| word & form.mask == form.value);
        let (distance, kind) = match (relative, adr_distance(word)) {
            (Some(form), _) => {
                let left = 32 - form.at - form.width;
                (i64::from((word << left) as i32 >> (32 - form.width)) * 4, form.kind)
            }
            (None, Some(distance)) => (distance, None),
            (None, None) => continue,
        };
        let target = at as i64 + distance;
        if !(0..code.len() as i64).contains(&target) && !settled(at) {
            found.push(Escape { at, target, field: kind.map(|kind| BranchField { at, kind, addend: 0 }) });
        }
    }
    found
}

fn words(code: &[u8]) -> impl Iterator<Item = (usize, u32)> + '_ {
    code.chunks_exact(4).enumerate().map(|(n, w)| (n * 4, u32::from_le_bytes([w[0], w[1], w[2], w[3]])))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOP: u32 = 0xd503_201f;

    fn code(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn an_instruction_that_is_cut_off_leads_nowhere() {
        for code in [&[0xe8, 1, 0][..], &[0x90, 0xe9], &[0x0f, 0x85, 0xff, 0xff, 0xff]] {
            assert_eq!(of_x86_64(code, &|_| false), [], "{code:x?}");
        }
    }

    #[test]
    fn what_leaves_the_code_is_found_by_every_way_out() {
        let kinds = |word: u32| -> Vec<(i64, Option<u32>)> {
            let found = of_arm64(&code(&[NOP, word, NOP]), &|_| false);
            found.into_iter().map(|escape| (escape.target, escape.field.map(|field| field.kind))).collect()
        };
        let (jump, call) = (elf::R_AARCH64_JUMP26.0, elf::R_AARCH64_CALL26.0);
        // b .+8; bl .-8; b.ne .+16; cbnz x1, .-8; tbz w2, #3, .+8; ldr x3, .+8; adr x4, .+13
        for (word, out) in [
            (0x1400_0002, (12, Some(jump))),
            (0x97ff_fffe, (-4, Some(call))),
            (0x5400_0081, (20, None)),
            (0xb5ff_ffc1, (-4, None)),
            (0x3618_0042, (12, None)),
            (0x5800_0043, (12, None)),
            (0x3000_0064, (17, None)),
        ] {
            assert_eq!(kinds(word), [out], "{word:#x}");
        }
        // b .-4; ldr x0, [x1]; add x0, x0, #1
        for word in [0x17ff_ffff, 0xf940_0020, 0x9100_0400] {
            assert_eq!(kinds(word), [], "{word:#x}");
        }
        assert_eq!(of_arm64(&code(&[0x1400_0002]), &|_| true), []);
    }
}
