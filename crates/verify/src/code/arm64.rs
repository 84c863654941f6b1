//! The facts about arm64 code.

use object::elf;

use super::facts::{CodeFacts, ConstantLoad, Distance, Instruction, VeneerCode};

/// arm64.
pub(super) static FACTS: CodeFacts = CodeFacts {
    instructions,
    counted_from_end: None,
    runtime_load,
    // adrp x16; add x16, x16; ret x16
    veneer: Some(VeneerCode {
        words: [0x9000_0010, 0x9100_0210, 0xd65f_0200],
        relocations: [(0, elf::R_AARCH64_ADR_PREL_PG_HI21.0), (4, elf::R_AARCH64_ADD_ABS_LO12_NC.0)],
    }),
};

/// Decodes `b` and `bl`. Conditional branches reach 1 MiB or less, and the module loader does not relocate them.
fn instructions(code: &[u8], entry: usize) -> Vec<Instruction> {
    let word = |(n, w): (usize, &[u8])| {
        let word = u32::from_le_bytes([w[0], w[1], w[2], w[3]]);
        let (start, end) = (entry + 4 * n, entry + 4 * n + 4);
        let branch = word >> 26 & 0b1_1111 == 0b0_0101;
        let kind = if word >> 31 == 1 { elf::R_AARCH64_CALL26.0 } else { elf::R_AARCH64_JUMP26.0 };
        let bytes = i64::from((word << 6).cast_signed() >> 6) * 4 - 4;
        let distance = branch.then_some(Distance { field: start, width: 4, bytes, kind });
        Instruction { start, end, branch, distance }
    };
    code.chunks_exact(4).enumerate().map(word).collect()
}

/// `adrp`, `ldr` and two no-operations.
fn runtime_load(code: &[u8], place: usize) -> Option<ConstantLoad> {
    let word = |n: usize| {
        let field = code.get(place + 4 * n..place + 4 * n + 4)?;
        Some(u32::from_le_bytes(field.try_into().ok()?))
    };
    let register = word(0)? & 31;
    // movz, movk lsl 16, 32, 48 of the four parts of 0x0123456789abcdef
    let parts = [(0xd280_0000, 0xcdef), (0xf2a0_0000, 0x89ab), (0xf2c0_0000, 0x4567), (0xf2e0_0000, 0x0123)];
    for (n, (opcode, part)) in parts.into_iter().enumerate() {
        if word(n)? != opcode | part << 5 | register {
            return None;
        }
    }
    let code = [0x9000_0000 | register, 0xf940_0000 | register << 5 | register, 0xd503_201f, 0xd503_201f];
    let kinds = [elf::R_AARCH64_ADR_PREL_PG_HI21.0, elf::R_AARCH64_LDST64_ABS_LO12_NC.0];
    Some(ConstantLoad {
        at: place,
        bytes: code.into_iter().flat_map(u32::to_le_bytes).collect(),
        relocations: vec![(place as u64, kinds[0]), (place as u64 + 4, kinds[1])],
    })
}
