//! The facts about x86_64 code.

use iced_x86::{Decoder, DecoderOptions, FlowControl, OpKind};
use object::elf;

use super::facts::{CodeFacts, ConstantLoad, Distance, Instruction};

/// x86_64.
pub(super) static FACTS: CodeFacts =
    CodeFacts { instructions, counted_from_end: Some(4), runtime_load, veneer: None };

fn instructions(code: &[u8], entry: usize) -> Vec<Instruction> {
    let mut decoder = Decoder::new(64, code, DecoderOptions::NONE);
    let mut found = Vec::new();
    while decoder.can_decode() {
        let start = decoder.position();
        let i = decoder.decode();
        let end = decoder.position();
        let to_place = matches!(
            i.flow_control(),
            FlowControl::Call | FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch
        );
        let branch = to_place && i.op0_kind() == OpKind::NearBranch64;
        let distance = branch.then(|| {
            let offsets = decoder.get_constant_offsets(&i);
            Distance {
                field: entry + start + offsets.immediate_offset(),
                width: offsets.immediate_size(),
                bytes: i.near_branch64().wrapping_sub(i.next_ip()).cast_signed(),
                kind: elf::R_X86_64_PLT32.0,
            }
        });
        found.push(Instruction { start: entry + start, end: entry + end, branch, distance });
    }
    found
}

/// `mov sym(%rip), %reg` and a no-operation.
fn runtime_load(code: &[u8], place: usize) -> Option<ConstantLoad> {
    let at = place.checked_sub(2)?;
    let field: [u8; 10] = code.get(at..at + 10)?.try_into().ok()?;
    let placeholder = field[2..] == [0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0x01];
    let (high, register) = (field[0] & 1, field[1] & 7);
    if !placeholder || field[0] & 0xfe != 0x48 || field[1] & 0xf8 != 0xb8 {
        return None;
    }
    let bytes = vec![0x48 + 4 * high, 0x8b, 8 * register + 5, 0, 0, 0, 0, 0x0f, 0x1f, 0];
    Some(ConstantLoad { at, bytes, relocations: vec![(at as u64 + 3, elf::R_X86_64_PC32.0)] })
}
