//! The facts about arm64.

use object::elf;

use super::facts::FieldKind::{Bytes, Instruction};
use super::facts::{ArchFacts, RelocationKind, absolute, branch, relative};
use super::section::Policy::Carry;
use super::section::{TableKind, table};
use crate::escape::{BranchField, Escape};

/// arm64.
pub(super) static FACTS: ArchFacts = ArchFacts {
    name: "arm64",
    machine: elf::EM_AARCH64.0,
    relocations: &RELOCATIONS,
    place_relative: elf::R_AARCH64_PREL32.0,
    // arch/arm64/Makefile, --no-apply-dynamic-relocs
    load_relative: Some(elf::R_AARCH64_RELATIVE.0),
    loaded_alike: &[],
    wants_clear_fields: false,
    // GCC leaves out a landing pad and two instructions.
    undescribed_entry: 12,
    // before the entry (DYNAMIC_FTRACE_WITH_CALL_OPS), at the entry, or behind a landing pad
    trace_sites: ("__patchable_function_entries", &[-8, 0, 4]),
    // CONFIG_UNWIND_PATCH_PAC_INTO_SCS
    frame_table: Some(b".eh_frame"),
    // module_frob_arch_sections and module_init_ftrace_plt in arch/arm64/kernel
    module_sections: &[".plt", ".init.plt", ".text.ftrace_trampoline"],
    special_sections: &SPECIAL_SECTIONS,
    end_displacements: None,
    has_code_outside_symbols: true,
    is_padding,
    padding_at_end: |bytes| bytes.rchunks(4).take_while(|word| is_padding(word)).map(<[u8]>::len).sum(),
    unnamed_code_length: <[u8]>::len,
    literal_load,
    escapes,
};

/// arch/arm64/kernel/module.c, `apply_relocate_add`.
static RELOCATIONS: [RelocationKind; 25] = [
    absolute(elf::R_AARCH64_NONE.0, "R_AARCH64_NONE", Bytes(0)),
    absolute(elf::R_AARCH64_ABS64.0, "R_AARCH64_ABS64", Bytes(8)),
    absolute(elf::R_AARCH64_ABS32.0, "R_AARCH64_ABS32", Bytes(4)),
    absolute(elf::R_AARCH64_ABS16.0, "R_AARCH64_ABS16", Bytes(2)),
    relative(elf::R_AARCH64_PREL64.0, "R_AARCH64_PREL64", Bytes(8)),
    relative(elf::R_AARCH64_PREL32.0, "R_AARCH64_PREL32", Bytes(4)),
    relative(elf::R_AARCH64_PREL16.0, "R_AARCH64_PREL16", Bytes(2)),
    absolute(elf::R_AARCH64_MOVW_UABS_G0_NC.0, "R_AARCH64_MOVW_UABS_G0_NC", Instruction),
    absolute(elf::R_AARCH64_MOVW_UABS_G1_NC.0, "R_AARCH64_MOVW_UABS_G1_NC", Instruction),
    absolute(elf::R_AARCH64_MOVW_UABS_G2_NC.0, "R_AARCH64_MOVW_UABS_G2_NC", Instruction),
    absolute(elf::R_AARCH64_MOVW_UABS_G3.0, "R_AARCH64_MOVW_UABS_G3", Instruction),
    relative(elf::R_AARCH64_LD_PREL_LO19.0, "R_AARCH64_LD_PREL_LO19", Instruction),
    relative(elf::R_AARCH64_ADR_PREL_LO21.0, "R_AARCH64_ADR_PREL_LO21", Instruction),
    relative(elf::R_AARCH64_ADR_PREL_PG_HI21.0, "R_AARCH64_ADR_PREL_PG_HI21", Instruction),
    relative(elf::R_AARCH64_ADR_PREL_PG_HI21_NC.0, "R_AARCH64_ADR_PREL_PG_HI21_NC", Instruction),
    absolute(elf::R_AARCH64_ADD_ABS_LO12_NC.0, "R_AARCH64_ADD_ABS_LO12_NC", Instruction),
    absolute(elf::R_AARCH64_LDST8_ABS_LO12_NC.0, "R_AARCH64_LDST8_ABS_LO12_NC", Instruction),
    absolute(elf::R_AARCH64_LDST16_ABS_LO12_NC.0, "R_AARCH64_LDST16_ABS_LO12_NC", Instruction),
    absolute(elf::R_AARCH64_LDST32_ABS_LO12_NC.0, "R_AARCH64_LDST32_ABS_LO12_NC", Instruction),
    absolute(elf::R_AARCH64_LDST64_ABS_LO12_NC.0, "R_AARCH64_LDST64_ABS_LO12_NC", Instruction),
    absolute(elf::R_AARCH64_LDST128_ABS_LO12_NC.0, "R_AARCH64_LDST128_ABS_LO12_NC", Instruction),
    branch(elf::R_AARCH64_TSTBR14.0, "R_AARCH64_TSTBR14", Instruction),
    branch(elf::R_AARCH64_CONDBR19.0, "R_AARCH64_CONDBR19", Instruction),
    branch(elf::R_AARCH64_JUMP26.0, "R_AARCH64_JUMP26", Instruction),
    branch(elf::R_AARCH64_CALL26.0, "R_AARCH64_CALL26", Instruction),
];

/// arch/arm64: asm/alternative-macros.h, asm/asm-bug.h, asm/asm-extable.h.
static SPECIAL_SECTIONS: [TableKind; 4] = [
    table(".altinstructions", &[(12, &[0, 4])], Carry, true),
    table("__bug_table", &[(12, &[0, 4]), (8, &[0])], Carry, true),
    table("__ex_table", &[(12, &[0, 4])], Carry, true),
    table("__patchable_function_entries", &[(8, &[0])], Carry, true),
];

/// nop, and zero fill.
fn is_padding(bytes: &[u8]) -> bool {
    bytes.chunks(4).all(|word| {
        matches!(word, [0x1f, 0x20, 0x03, 0xd5] | [0, 0, 0, 0])
            || word.len() < 4 && word.iter().all(|&b| b == 0)
    })
}

/// The loads are `ldr` (literal) and `ldrsw` (Arm ARM, C4.1.94, "Load register (literal)").
fn literal_load(word: u32) -> Option<(i64, u64)> {
    let load = word & 0x3b00_0000 == 0x1800_0000;
    let size = match (word >> 26 & 1, word >> 30) {
        (0, 0 | 2) | (1, 0) => 4,
        (0, 1) | (1, 1) => 8,
        (1, 2) => 16,
        _ => return None, // prfm, and what is not allocated
    };
    // imm19, in words, with a sign
    load.then_some((i64::from((word << 8) as i32 >> 13) * 4, size))
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
fn escapes(code: &[u8], settled: &dyn Fn(usize) -> bool) -> Vec<Escape> {
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
    fn loads_of_literals_are_told_from_other_loads() {
        // ldr x0, .+8; ldr w1, .-4; ldrsw x2, .+0x10; ldr q0, .+16
        for (word, load) in
            [(0x5800_0040, (8, 8)), (0x18ff_ffe1, (-4, 4)), (0x9800_0082, (16, 4)), (0x9c00_0080, (16, 16))]
        {
            assert_eq!(literal_load(word), Some(load), "{word:#x}");
        }
        // prfm pldl1keep, .+8; ldr x0, [x1]; b .+8
        for word in [0xd800_0040, 0xf940_0020, 0x1400_0002] {
            assert_eq!(literal_load(word), None, "{word:#x}");
        }
    }

    #[test]
    fn padding_is_seen_from_the_end() {
        // mrs x1, tpidr_el2; nop; zeroes
        let tail = [0x41, 0xd0, 0x3c, 0xd5, 0x1f, 0x20, 0x03, 0xd5, 0, 0, 0, 0];
        assert_eq!((FACTS.padding_at_end)(&tail), 8);
        assert_eq!((FACTS.padding_at_end)(&tail[..4]), 0);
        assert_eq!((FACTS.padding_at_end)(&[]), 0);
    }

    #[test]
    fn what_leaves_the_code_is_found_by_every_way_out() {
        let kinds = |word: u32| -> Vec<(i64, Option<u32>)> {
            let found = escapes(&code(&[NOP, word, NOP]), &|_| false);
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
        assert_eq!(escapes(&code(&[0x1400_0002]), &|_| true), []);
    }
}
