//! The facts about x86_64 code.

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind,
    Register,
};
use klpx_normalize::arch::RelocationKind;
use object::elf;

use super::effect::{Effect, Relocated};
use super::facts::{CodeFacts, RuntimeLoad};
use crate::image::Location;

/// x86_64. Registers have the numbers that instructions give them.
pub(super) static FACTS: CodeFacts = CodeFacts {
    is_branch,
    encodings: &[],
    zero_extended: elf::R_X86_64_32.0,
    branch_lengths_vary: true,
    shortened_pair: None,
    runtime_load,
    // an immediate of 8 bytes
    code_holds_constants: true,
    veneer: None,
    begins_with_landing_pad: |_| true,
    straight_code_length,
    filler: 0xcc, // int3
    effects,
    // rdi, rsi, rdx, rcx, r8, r9 (x86-64 psABI 3.2.3)
    argument_registers: &[7, 6, 2, 1, 8, 9],
    // rbx, rbp, r12 to r15 (the same section)
    preserved_registers: &[3, 5, 12, 13, 14, 15],
    may_branch_to,
    follows_addresses: true,
    finds_linked_users: true,
};

/// The placeholder of `runtime_const_ptr()` (arch/x86/include/asm/runtime-const.h).
const PLACEHOLDER: u64 = 0x0123_4567_89ab_cdef;

/// Assemblers give most branches `PLT32`, but some conditional ones `PC32`. Their opcodes `e8`, `e9` and `0f 80`..`0f
/// 8f` stand directly before the displacement, where a RIP-relative operand has its ModRM byte, which is never one of
/// these.
fn is_branch(kind: &RelocationKind, code: &[u8], place: usize) -> bool {
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
fn runtime_load(code: &[u8], place: usize) -> Option<RuntimeLoad> {
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

fn straight_code_length(code: &[u8]) -> Option<usize> {
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

fn effects(code: &[u8], base: u64, relocated: Relocated<'_>, tell: &mut dyn FnMut(Effect)) {
    let mut decoder = Decoder::with_ip(64, code, base, DecoderOptions::NONE);
    let mut known = InstructionInfoFactory::new();
    while decoder.can_decode() {
        let i = decoder.decode();
        match i.flow_control() {
            _ if i.is_invalid() => tell(Effect::Leave(None)),
            FlowControl::Call => tell(Effect::Call(target(&i, relocated))),
            FlowControl::IndirectCall => tell(Effect::Call(None)),
            FlowControl::UnconditionalBranch => tell(Effect::Leave(target(&i, relocated))),
            FlowControl::IndirectBranch | FlowControl::Return | FlowControl::Interrupt => {
                tell(Effect::Leave(None));
            }
            // After a warning's trap the code continues.
            FlowControl::Next
            | FlowControl::ConditionalBranch
            | FlowControl::Exception
            | FlowControl::XbeginXabortXend => match assignment(&i, relocated) {
                Some(assignment) => tell(assignment),
                None => {
                    for used in known.info(&i).used_registers() {
                        let writes = !matches!(used.access(), OpAccess::Read | OpAccess::CondRead);
                        if let Some(register) = number(used.register()).filter(|_| writes) {
                            tell(Effect::Lose(register));
                        }
                    }
                }
            },
        }
    }
}

fn number(register: Register) -> Option<u8> {
    let full = register.full_register();
    full.is_gpr64().then(|| full.number() as u8)
}

/// The target of a near call or jump.
fn target(i: &Instruction, relocated: Relocated<'_>) -> Option<Location> {
    if !matches!(i.op0_kind(), OpKind::NearBranch64) {
        return None;
    }
    match relocated(i.ip(), i.next_ip()) {
        Some((place, to)) => Some(from_end(i, place, to)),
        None => Some(Location::At(i.near_branch_target())),
    }
}

/// Converts a location: a relocation counts from its own place, the processor from the end of the instruction.
fn from_end(i: &Instruction, place: u64, to: Location) -> Location {
    let more = i.next_ip().wrapping_sub(place);
    match to {
        Location::At(address) => Location::At(address.wrapping_add(more)),
        Location::Undefined(symbol, addend) => Location::Undefined(symbol, addend.wrapping_add(more as i64)),
    }
}

/// The constant that an instruction moves into a register, or the register from which it copies.
fn assignment(i: &Instruction, relocated: Relocated<'_>) -> Option<Effect> {
    if i.op_count() != 2 || i.op0_kind() != OpKind::Register {
        return None;
    }
    let to = number(i.op0_register())?;
    let value = |location| match location {
        Location::At(address) => Effect::Set(to, address),
        Location::Undefined(..) => Effect::Lose(to),
    };
    let relocated = || relocated(i.ip(), i.next_ip());
    match (i.mnemonic(), i.op1_kind()) {
        (Mnemonic::Mov, OpKind::Immediate32 | OpKind::Immediate32to64 | OpKind::Immediate64) => {
            Some(relocated().map_or_else(|| Effect::Set(to, i.immediate(1)), |(_, location)| value(location)))
        }
        (Mnemonic::Mov, OpKind::Register) if i.op0_register().size() == 8 => {
            number(i.op1_register()).map(|from| Effect::Add(to, from, 0))
        }
        (Mnemonic::Lea, _) if i.is_ip_rel_memory_operand() => Some(relocated().map_or_else(
            || Effect::Set(to, i.ip_rel_memory_address()),
            |(place, location)| value(from_end(i, place, location)),
        )),
        _ => None,
    }
}

/// Finds `e8` and `e9`, whose distance counts from the end of its four bytes.
fn may_branch_to(code: &[u8], base: u64, targets: &[u64]) -> Vec<u64> {
    let opcodes = memchr::memchr2_iter(0xe8, 0xe9, code);
    let leads = |&at: &usize| {
        let Some(&[a, b, c, d]) = code.get(at + 1..at + 5) else { return false };
        let distance = i64::from(i32::from_le_bytes([a, b, c, d]));
        targets.contains(&base.wrapping_add(at as u64 + 5).wrapping_add_signed(distance))
    };
    opcodes.filter(leads).map(|at| base.wrapping_add(at as u64)).collect()
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

    #[test]
    fn an_operand_that_looks_like_a_conditional_jump_is_none() {
        let pc32 = Arch::X86_64.relocation(elf::R_X86_64_PC32.0).unwrap();
        assert!(!is_branch(pc32, &[0x48, 0x8d, 0x85, 0, 0, 0, 0], 3));
        assert!(!is_branch(pc32, &[0x85, 0, 0, 0, 0], 1));
    }

    #[test]
    fn another_number_is_no_runtime_constant() {
        let code = |number: u64| [&[0x48, 0xb8][..], &number.to_le_bytes()].concat();
        assert!(runtime_load(&code(PLACEHOLDER), 2).is_some());
        assert_eq!(runtime_load(&code(PLACEHOLDER + 1), 2), None);
    }
}
