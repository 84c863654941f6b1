//! Facts that differ between architectures, such as the relocation types and which of them a livepatch may use.
//!
//! Sources: arch/x86/kernel/module.c and arch/arm64/kernel/module.c for the types that a module loader accepts; the
//! psABI documents for field widths. CONTRIBUTING.md lists the files of an architecture.

use klpx_diagnosis::{Diagnosis, Result, codes};
use object::elf;

/// An architecture that klpx knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arch {
    /// x86_64.
    X86_64,
    /// arm64.
    Arm64,
}

/// The kind of a relocation's field, as far as klpx distinguishes kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldKind {
    /// This number of whole bytes.
    Bytes(u8),
    /// Some bits of a 4-byte instruction.
    Instruction,
}

/// A relocation type.
#[derive(Clone, Copy, Debug)]
pub struct RelocationKind {
    /// `r_type`.
    pub code: u32,
    /// The type's name in the psABI.
    pub name: &'static str,
    /// The field that is written.
    pub field: FieldKind,
    /// True if the value is relative to the place.
    pub pc_relative: bool,
    /// True for calls and jumps, which do not keep the address.
    pub branch: bool,
    /// True if the module loader, and so a livepatch relocation, accepts the type.
    pub in_module: bool,
}

/// `R_*_NONE` of every architecture. objtool leaves this type where it has patched a field away.
pub const NONE: u32 = 0;

const fn kind(
    code: u32,
    name: &'static str,
    field: FieldKind,
    pc_relative: bool,
    branch: bool,
    in_module: bool,
) -> RelocationKind {
    RelocationKind { code, name, field, pc_relative, branch, in_module }
}

use FieldKind::{Bytes, Instruction};

/// arch/x86/kernel/module.c, `__write_relocate_add`. `GOTPCREL` forms are left out: modules have no GOT.
const X86_64: [RelocationKind; 7] = [
    kind(elf::R_X86_64_NONE.0, "R_X86_64_NONE", Bytes(0), false, false, true),
    kind(elf::R_X86_64_64.0, "R_X86_64_64", Bytes(8), false, false, true),
    kind(elf::R_X86_64_PC32.0, "R_X86_64_PC32", Bytes(4), true, false, true),
    kind(elf::R_X86_64_PLT32.0, "R_X86_64_PLT32", Bytes(4), true, true, true),
    kind(elf::R_X86_64_32.0, "R_X86_64_32", Bytes(4), false, false, true),
    kind(elf::R_X86_64_32S.0, "R_X86_64_32S", Bytes(4), false, false, true),
    kind(elf::R_X86_64_PC64.0, "R_X86_64_PC64", Bytes(8), true, false, true),
];

/// arch/arm64/kernel/module.c, `apply_relocate_add`.
const ARM64: [RelocationKind; 25] = [
    kind(elf::R_AARCH64_NONE.0, "R_AARCH64_NONE", Bytes(0), false, false, true),
    kind(elf::R_AARCH64_ABS64.0, "R_AARCH64_ABS64", Bytes(8), false, false, true),
    kind(elf::R_AARCH64_ABS32.0, "R_AARCH64_ABS32", Bytes(4), false, false, true),
    kind(elf::R_AARCH64_ABS16.0, "R_AARCH64_ABS16", Bytes(2), false, false, true),
    kind(elf::R_AARCH64_PREL64.0, "R_AARCH64_PREL64", Bytes(8), true, false, true),
    kind(elf::R_AARCH64_PREL32.0, "R_AARCH64_PREL32", Bytes(4), true, false, true),
    kind(elf::R_AARCH64_PREL16.0, "R_AARCH64_PREL16", Bytes(2), true, false, true),
    kind(elf::R_AARCH64_MOVW_UABS_G0_NC.0, "R_AARCH64_MOVW_UABS_G0_NC", Instruction, false, false, true),
    kind(elf::R_AARCH64_MOVW_UABS_G1_NC.0, "R_AARCH64_MOVW_UABS_G1_NC", Instruction, false, false, true),
    kind(elf::R_AARCH64_MOVW_UABS_G2_NC.0, "R_AARCH64_MOVW_UABS_G2_NC", Instruction, false, false, true),
    kind(elf::R_AARCH64_MOVW_UABS_G3.0, "R_AARCH64_MOVW_UABS_G3", Instruction, false, false, true),
    kind(elf::R_AARCH64_LD_PREL_LO19.0, "R_AARCH64_LD_PREL_LO19", Instruction, true, false, true),
    kind(elf::R_AARCH64_ADR_PREL_LO21.0, "R_AARCH64_ADR_PREL_LO21", Instruction, true, false, true),
    kind(elf::R_AARCH64_ADR_PREL_PG_HI21.0, "R_AARCH64_ADR_PREL_PG_HI21", Instruction, true, false, true),
    kind(
        elf::R_AARCH64_ADR_PREL_PG_HI21_NC.0,
        "R_AARCH64_ADR_PREL_PG_HI21_NC",
        Instruction,
        true,
        false,
        true,
    ),
    kind(elf::R_AARCH64_ADD_ABS_LO12_NC.0, "R_AARCH64_ADD_ABS_LO12_NC", Instruction, false, false, true),
    kind(elf::R_AARCH64_LDST8_ABS_LO12_NC.0, "R_AARCH64_LDST8_ABS_LO12_NC", Instruction, false, false, true),
    kind(
        elf::R_AARCH64_LDST16_ABS_LO12_NC.0,
        "R_AARCH64_LDST16_ABS_LO12_NC",
        Instruction,
        false,
        false,
        true,
    ),
    kind(
        elf::R_AARCH64_LDST32_ABS_LO12_NC.0,
        "R_AARCH64_LDST32_ABS_LO12_NC",
        Instruction,
        false,
        false,
        true,
    ),
    kind(
        elf::R_AARCH64_LDST64_ABS_LO12_NC.0,
        "R_AARCH64_LDST64_ABS_LO12_NC",
        Instruction,
        false,
        false,
        true,
    ),
    kind(
        elf::R_AARCH64_LDST128_ABS_LO12_NC.0,
        "R_AARCH64_LDST128_ABS_LO12_NC",
        Instruction,
        false,
        false,
        true,
    ),
    kind(elf::R_AARCH64_TSTBR14.0, "R_AARCH64_TSTBR14", Instruction, true, true, true),
    kind(elf::R_AARCH64_CONDBR19.0, "R_AARCH64_CONDBR19", Instruction, true, true, true),
    kind(elf::R_AARCH64_JUMP26.0, "R_AARCH64_JUMP26", Instruction, true, true, true),
    kind(elf::R_AARCH64_CALL26.0, "R_AARCH64_CALL26", Instruction, true, true, true),
];

impl Arch {
    /// Returns the architecture of an ELF machine number.
    pub fn of_machine(machine: u16) -> Result<Arch> {
        match machine {
            m if m == elf::EM_X86_64.0 => Ok(Arch::X86_64),
            m if m == elf::EM_AARCH64.0 => Ok(Arch::Arm64),
            other => Err(Diagnosis::new(
                &codes::UNKNOWN_MACHINE,
                "an object for an unknown machine",
                format!("its ELF machine number is {other}; klpx knows x86_64 (62) and arm64 (183)"),
                "check that the file is the one that you meant",
            )
            .into()),
        }
    }

    /// Returns the name that klpx uses for the architecture: `x86_64` or `arm64`.
    pub fn name(self) -> &'static str {
        match self {
            Arch::X86_64 => "x86_64",
            Arch::Arm64 => "arm64",
        }
    }

    /// Returns the meaning of a relocation type, if klpx knows the type.
    pub fn relocation(self, code: u32) -> Option<&'static RelocationKind> {
        let table: &'static [RelocationKind] = match self {
            Arch::X86_64 => &X86_64,
            Arch::Arm64 => &ARM64,
        };
        table.iter().find(|kind| kind.code == code)
    }

    /// Returns the relocation type for a 4-byte field that holds the distance from the field.
    pub fn place_relative(self) -> u32 {
        match self {
            Arch::X86_64 => elf::R_X86_64_PC32.0,
            Arch::Arm64 => elf::R_AARCH64_PREL32.0,
        }
    }

    /// Returns true if the module loader refuses a relocation over bytes that are not zero.
    pub fn wants_clear_fields(self) -> bool {
        match self {
            Arch::X86_64 => true,
            Arch::Arm64 => false,
        }
    }

    /// Returns true if the module loader handles both relocation types in the same way.
    pub fn loads_alike(self, one: u32, other: u32) -> bool {
        let calls = [elf::R_X86_64_PC32.0, elf::R_X86_64_PLT32.0];
        one == other || self == Arch::X86_64 && calls.contains(&one) && calls.contains(&other)
    }

    /// Returns the size in bytes of the longest patchable entry that debug information may leave out of a function: GCC
    /// on arm64 leaves out a landing pad and two instructions.
    pub fn undescribed_entry(self) -> u64 {
        match self {
            Arch::X86_64 => 0,
            Arch::Arm64 => 12,
        }
    }

    /// Returns the table of trace sites that ftrace reads, and the possible places of a function's trace site in bytes
    /// from its entry: see `klpx_inline_check::reach`.
    pub fn trace_sites(self) -> (&'static str, &'static [i64]) {
        match self {
            Arch::X86_64 => ("__mcount_loc", &[0, 4]),
            Arch::Arm64 => ("__patchable_function_entries", &[-8, 0, 4]),
        }
    }

    /// Returns the table of frames that some kernels read to patch their code: see `klp_emit`'s `emit/frames.rs`.
    pub fn frame_table(self) -> Option<&'static [u8]> {
        match self {
            Arch::X86_64 => None,
            Arch::Arm64 => Some(b".eh_frame"),
        }
    }

    /// Returns the sections without which the loader refuses a module: module_frob_arch_sections and
    /// module_init_ftrace_plt in arch/arm64/kernel.
    pub fn module_sections(self) -> &'static [&'static str] {
        match self {
            Arch::X86_64 => &[],
            Arch::Arm64 => &[".plt", ".init.plt", ".text.ftrace_trampoline"],
        }
    }

    /// Returns the distance from a PC-relative field to the address from which the processor counts, for the usual
    /// instruction that ends with the field. An x86 displacement is relative to the next instruction.
    pub fn pc_bias(self, kind: &RelocationKind) -> i64 {
        match (self, kind.pc_relative, kind.field) {
            (Arch::X86_64, true, Bytes(4)) => 4,
            _ => 0,
        }
    }

    /// Returns the numbers of bytes that may follow a PC-relative field in its instruction: the sizes of an immediate.
    pub fn trailing_bytes(self) -> &'static [i64] {
        match self {
            Arch::X86_64 => &[0, 1, 2, 4],
            Arch::Arm64 => &[0],
        }
    }

    /// Returns the number of padding bytes at the end of the code that follows a function. On arm64, replacements of
    /// alternatives may precede the padding. x86_64 code can't be decoded backwards, so either all bytes count as
    /// padding or none.
    pub fn padding_at_end(self, bytes: &[u8]) -> u64 {
        let padding = match self {
            Arch::X86_64 if self.is_padding(bytes) => bytes.len(),
            Arch::X86_64 => 0,
            Arch::Arm64 => bytes.rchunks(4).take_while(|word| self.is_padding(word)).map(<[u8]>::len).sum(),
        };
        padding as u64
    }

    /// Returns how far an instruction's literal lies from the instruction, and how many bytes are loaded; `None` if the
    /// instruction loads no literal. The loads are `ldr` (literal) and `ldrsw` (Arm ARM, C4.1.94, "Load register
    /// (literal)").
    pub fn literal_load(self, word: u32) -> Option<(i64, u64)> {
        let load = self == Arch::Arm64 && word & 0x3b00_0000 == 0x1800_0000;
        let size = match (word >> 26 & 1, word >> 30) {
            (0, 0 | 2) | (1, 0) => 4,
            (0, 1) | (1, 1) => 8,
            (1, 2) => 16,
            _ => return None, // prfm, and what is not allocated
        };
        // imm19, in words, with a sign
        load.then_some((i64::from((word << 8) as i32 >> 13) * 4, size))
    }

    /// Returns true if these bytes of a code section are only filler between functions: no-operations, traps or zeroes.
    pub fn is_padding(self, bytes: &[u8]) -> bool {
        match self {
            // nop (also inside the multi-byte forms), int3, and zero fill
            Arch::X86_64 => {
                bytes.iter().all(|&b| matches!(b, 0x90 | 0xcc | 0)) || bytes.len() < 32 && x86_nops(bytes)
            }
            Arch::Arm64 => bytes.chunks(4).all(|word| {
                matches!(word, [0x1f, 0x20, 0x03, 0xd5] | [0, 0, 0, 0])
                    || word.len() < 4 && word.iter().all(|&b| b == 0)
            }),
        }
    }
}

/// Returns true if the bytes decode as no-operations and traps only.
fn x86_nops(bytes: &[u8]) -> bool {
    use iced_x86::{Decoder, DecoderOptions, Mnemonic};
    let mut decoder = Decoder::new(64, bytes, DecoderOptions::NONE);
    while decoder.can_decode() {
        if !matches!(decoder.decode().mnemonic(), Mnemonic::Nop | Mnemonic::Int3) {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_of_literals_are_told_from_other_loads() {
        // ldr x0, .+8; ldr w1, .-4; ldrsw x2, .+0x10; ldr q0, .+16
        for (word, load) in
            [(0x5800_0040, (8, 8)), (0x18ff_ffe1, (-4, 4)), (0x9800_0082, (16, 4)), (0x9c00_0080, (16, 16))]
        {
            assert_eq!(Arch::Arm64.literal_load(word), Some(load), "{word:#x}");
            assert_eq!(Arch::X86_64.literal_load(word), None);
        }
        // prfm pldl1keep, .+8; ldr x0, [x1]; b .+8
        for word in [0xd800_0040, 0xf940_0020, 0x1400_0002] {
            assert_eq!(Arch::Arm64.literal_load(word), None, "{word:#x}");
        }
    }

    #[test]
    fn padding_is_seen_from_the_end_where_instructions_have_one_size() {
        // mrs x1, tpidr_el2; nop; zeroes
        let tail = [0x41, 0xd0, 0x3c, 0xd5, 0x1f, 0x20, 0x03, 0xd5, 0, 0, 0, 0];
        assert_eq!(Arch::Arm64.padding_at_end(&tail), 8);
        assert_eq!(Arch::Arm64.padding_at_end(&tail[..4]), 0);
        assert_eq!(Arch::Arm64.padding_at_end(&[]), 0);
        // nopw 0(%rax,%rax,1); int3; then ret; nop
        assert_eq!(Arch::X86_64.padding_at_end(&[0x66, 0x0f, 0x1f, 0x44, 0, 0, 0xcc]), 7);
        assert_eq!(Arch::X86_64.padding_at_end(&[0xc3, 0x90]), 0);
    }
}
