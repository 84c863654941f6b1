//! The facts about x86_64.

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};
use object::elf;

use super::facts::FieldKind::Bytes;
use super::facts::{ArchFacts, EndDisplacements, FieldInCode, RelocationKind, absolute, branch, relative};
use super::section::Policy::{Carry, Drop};
use super::section::{TableKind, table};
use crate::escape::{BranchField, Escape};

/// x86_64.
pub(super) static FACTS: ArchFacts = ArchFacts {
    name: "x86_64",
    machine: elf::EM_X86_64.0,
    relocations: &RELOCATIONS,
    place_relative: elf::R_X86_64_PC32.0,
    load_relative: None,
    // arch/x86/kernel/module.c, __write_relocate_add
    loaded_alike: &[elf::R_X86_64_PC32.0, elf::R_X86_64_PLT32.0],
    wants_clear_fields: true,
    undescribed_entry: 0,
    // -mfentry: at the entry, or behind ENDBR
    trace_sites: ("__mcount_loc", &[0, 4]),
    frame_table: None,
    module_sections: &[],
    special_sections: &SPECIAL_SECTIONS,
    end_displacements: Some(EndDisplacements { size: 4, bytes_behind, is_plain_access }),
    has_code_outside_symbols: false,
    is_padding,
    padding_at_end,
    unnamed_code_length,
    literal_load: |_| None,
    escapes,
};

/// arch/x86/kernel/module.c, `__write_relocate_add`. `GOTPCREL` forms are left out: modules have no GOT.
static RELOCATIONS: [RelocationKind; 7] = [
    absolute(elf::R_X86_64_NONE.0, "R_X86_64_NONE", Bytes(0)),
    absolute(elf::R_X86_64_64.0, "R_X86_64_64", Bytes(8)),
    relative(elf::R_X86_64_PC32.0, "R_X86_64_PC32", Bytes(4)),
    branch(elf::R_X86_64_PLT32.0, "R_X86_64_PLT32", Bytes(4)),
    absolute(elf::R_X86_64_32.0, "R_X86_64_32", Bytes(4)),
    absolute(elf::R_X86_64_32S.0, "R_X86_64_32S", Bytes(4)),
    relative(elf::R_X86_64_PC64.0, "R_X86_64_PC64", Bytes(8)),
];

/// arch/x86: asm/alternative.h, asm/bug.h, asm/orc_types.h; tools/objtool/check.c writes the `*_sites` tables.
static SPECIAL_SECTIONS: [TableKind; 16] = [
    table(".altinstructions", &[(14, &[0, 4]), (12, &[0, 4])], Carry, true),
    table("__bug_table", &[(16, &[0, 4, 8]), (12, &[0, 4]), (8, &[0])], Carry, true),
    table("__ex_table", &[(12, &[0, 4, 8])], Carry, true),
    table(".static_call_sites", &[(8, &[0, 4])], Carry, true),
    table(".retpoline_sites", &[(4, &[0])], Carry, true),
    table(".return_sites", &[(4, &[0])], Carry, true),
    table(".call_sites", &[(4, &[0])], Carry, true),
    table(".cfi_sites", &[(4, &[0])], Carry, false),
    table(".ibt_endbr_seal", &[(4, &[0])], Drop("the function keeps its ENDBR"), false),
    table(".smp_locks", &[(4, &[0])], Drop("LOCK prefixes stay on a machine with one CPU"), true),
    table(".parainstructions", &[(16, &[0])], Carry, true),
    TableKind { linked_name: Some("__kcfi_traps"), ..table(".kcfi_traps", &[(4, &[0])], Carry, true) },
    TableKind {
        name: ".orc_unwind_ip",
        linked_name: None,
        forms: &[(4, &[0])],
        policy: Carry,
        companion: Some((".orc_unwind", 6)),
        compared: true,
    },
    table("__mcount_loc", &[(8, &[0])], Carry, true),
    table("__patchable_function_entries", &[(8, &[0])], Drop("call padding is not rewritten"), false),
    table(".tramp_sites", &[(4, &[0])], Drop("trampolines stay direct"), false),
];

/// nop (also inside the multi-byte forms), int3, and zero fill.
fn is_padding(bytes: &[u8]) -> bool {
    bytes.iter().all(|&b| matches!(b, 0x90 | 0xcc | 0)) || bytes.len() < 32 && are_no_operations(bytes)
}

/// Returns true if the bytes decode as no-operations and traps only.
fn are_no_operations(bytes: &[u8]) -> bool {
    let mut decoder = Decoder::new(64, bytes, DecoderOptions::NONE);
    while decoder.can_decode() {
        if !matches!(decoder.decode().mnemonic(), Mnemonic::Nop | Mnemonic::Int3) {
            return false;
        }
    }
    true
}

/// Code can't be decoded backwards, so either all bytes count as padding or none.
fn padding_at_end(bytes: &[u8]) -> usize {
    if is_padding(bytes) { bytes.len() } else { 0 }
}

/// `.altinstr_aux` (arch/x86/include/asm/cpufeature.h): a few instructions up to a jump back.
fn unnamed_code_length(code: &[u8]) -> usize {
    let mut decoder = Decoder::new(64, code, DecoderOptions::NONE);
    while decoder.can_decode() {
        if matches!(decoder.decode().flow_control(), FlowControl::UnconditionalBranch) {
            break;
        }
    }
    decoder.position()
}

/// Decodes the code up to the instruction that ends behind the first byte of the field.
fn instruction_with(at: FieldInCode<'_>) -> Option<(Decoder<'_>, Instruction)> {
    let mut decoder = Decoder::with_ip(64, at.code, at.start, DecoderOptions::NONE);
    while decoder.can_decode() {
        let instruction = decoder.decode();
        if instruction.next_ip() > at.field {
            return Some((decoder, instruction));
        }
    }
    None
}

fn bytes_behind(at: FieldInCode<'_>) -> i64 {
    instruction_with(at).map_or(0, |(_, instruction)| instruction.next_ip() as i64 - (at.field as i64 + 4))
}

fn is_plain_access(at: FieldInCode<'_>) -> bool {
    let Some((decoder, instruction)) = instruction_with(at) else { return false };
    let fields = decoder.get_constant_offsets(&instruction);
    let field = instruction.ip() + fields.displacement_offset() as u64;
    fields.has_displacement()
        && field == at.field
        && instruction.mnemonic() != Mnemonic::Lea
        && matches!(instruction.memory_base(), Register::None | Register::RIP)
        && instruction.memory_index() == Register::None
}

/// `R_X86_64_PLT32` and its addend: the processor counts from the end of the 4-byte field.
const BRANCH: (u32, i64) = (elf::R_X86_64_PLT32.0, -4);

/// Returns the branches without a relocation that leave the code.
fn escapes(code: &[u8], relocated: &dyn Fn(usize) -> bool) -> Vec<Escape> {
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
        let (kind, addend) = BRANCH;
        let field = end.checked_sub(4).filter(|_| long).map(|at| BranchField { at, kind, addend });
        found.push(Escape { at, target, field });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_all_or_nothing() {
        // nopw 0(%rax,%rax,1); int3; then ret; nop
        assert_eq!(padding_at_end(&[0x66, 0x0f, 0x1f, 0x44, 0, 0, 0xcc]), 7);
        assert_eq!(padding_at_end(&[0xc3, 0x90]), 0);
    }

    #[test]
    fn an_instruction_that_is_cut_off_leads_nowhere() {
        for code in [&[0xe8, 1, 0][..], &[0x90, 0xe9], &[0x0f, 0x85, 0xff, 0xff, 0xff]] {
            assert_eq!(escapes(code, &|_| false), [], "{code:x?}");
        }
    }
}
