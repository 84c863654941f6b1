//! x86_64 instruction facts.

use klpx_normalize::arch::RelocationKind;
use object::elf;

use super::RuntimeLoad;

/// The placeholder of `runtime_const_ptr()` (arch/x86/include/asm/runtime-const.h).
const PLACEHOLDER: u64 = 0x0123_4567_89ab_cdef;

/// Assemblers give most branches `PLT32`, but some conditional ones `PC32`: `e8`, `e9` and `0f 80`..`0f 8f` stand right
/// before the displacement, where a RIP-relative operand has its ModRM byte (never one of these).
pub(super) fn is_branch(kind: &RelocationKind, code: &[u8], place: usize) -> bool {
    if kind.code != elf::R_X86_64_PC32.0 {
        return false;
    }
    let before = |n: usize| place.checked_sub(n).and_then(|at| code.get(at)).copied();
    match before(1) {
        Some(0xe8 | 0xe9) => true,
        Some(0x80..=0x8f) => before(2) == Some(0x0f),
        _ => false,
    }
}

/// `movabs $placeholder,%reg` (10 bytes) becomes `mov sym(%rip),%reg; nopl (%rax)`.
pub(super) fn runtime_load(code: &[u8], place: usize) -> Option<RuntimeLoad> {
    let at = place.checked_sub(2)?;
    let &[rex, opcode, ref immediate @ ..] = code.get(at..place + 8)? else { return None };
    if *immediate != PLACEHOLDER.to_le_bytes() || !matches!(rex, 0x48 | 0x49) || opcode & 0xf8 != 0xb8 {
        return None;
    }
    let wide = 0x48 | (rex & 1) << 2; // REX.B of the register field becomes REX.R
    let modrm = (opcode & 7) << 3 | 0b101;
    let bytes = vec![wide, 0x8b, modrm, 0, 0, 0, 0, 0x0f, 0x1f, 0x00];
    Some(RuntimeLoad { at, bytes, relocations: vec![(at + 3, elf::R_X86_64_PC32.0, -4)] })
}

pub(super) fn straight_code_length(code: &[u8]) -> Option<usize> {
    use iced_x86::{Decoder, DecoderOptions, FlowControl};
    let mut decoder = Decoder::new(64, code, DecoderOptions::NONE);
    while decoder.can_decode() {
        let instruction = decoder.decode();
        match instruction.flow_control() {
            FlowControl::UnconditionalBranch | FlowControl::IndirectBranch | FlowControl::Return => {
                return Some(decoder.position());
            }
            FlowControl::Exception => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use klpx_normalize::arch::Arch;

    #[test]
    fn a_runtime_constant_becomes_a_load_into_the_same_register() {
        // movabs $0x0123456789abcdef,%rax and ,%r9
        for (rex, opcode, wide, modrm) in [(0x48, 0xb8, 0x48, 0x05), (0x49, 0xb9, 0x4c, 0x0d)] {
            let mut code = vec![0x90, rex, opcode];
            code.extend(PLACEHOLDER.to_le_bytes());
            let load = runtime_load(&code, 3).unwrap();
            assert_eq!((load.at, &load.bytes[..3]), (1, &[wide, 0x8b, modrm][..]));
            assert_eq!(load.bytes.len(), 10);
            assert_eq!(load.relocations, [(4, elf::R_X86_64_PC32.0, -4)]);
        }
        assert_eq!(runtime_load(&[0x90; 16], 3), None);
    }

    #[test]
    fn conditional_jumps_are_told_from_rip_relative_operands() {
        let pc32 = Arch::X86_64.relocation(elf::R_X86_64_PC32.0).unwrap();
        assert!(is_branch(pc32, &[0x0f, 0x85, 0, 0, 0, 0], 2));
        assert!(is_branch(pc32, &[0xe9, 0, 0, 0, 0], 1));
        assert!(!is_branch(pc32, &[0x48, 0x8d, 0x3d, 0, 0, 0, 0], 3));
    }
}
