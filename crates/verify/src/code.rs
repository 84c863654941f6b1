//! Facts about instructions that verification needs: where instructions end, which of them branch, and the two pieces
//! of code that klpx writes itself. The facts come from the architecture and the kernel, not from the code that wrote
//! the module.

use iced_x86::{Decoder, DecoderOptions, FlowControl, OpKind};
use klpx_normalize::arch::Arch;
use object::elf;

/// One instruction of a run of bytes.
pub(crate) struct Instruction {
    /// First byte.
    pub(crate) start: usize,
    /// One past the last.
    pub(crate) end: usize,
    /// True for a call or a jump to a fixed place.
    pub(crate) branch: bool,
    /// The distance in a branch's field.
    pub(crate) distance: Option<Distance>,
}

/// The distance that a branch leads.
pub(crate) struct Distance {
    /// First byte of the branch's field.
    pub(crate) field: usize,
    /// Size of the field in bytes.
    pub(crate) width: usize,
    /// Bytes from the instruction's end to the target.
    pub(crate) bytes: i64,
    /// The relocation type for the field.
    pub(crate) kind: u32,
}

/// Returns the instructions of a function whose entry is `entry` bytes behind the start. Bytes before the entry are
/// padding.
pub(crate) fn instructions(arch: Arch, bytes: &[u8], entry: usize) -> Vec<Instruction> {
    let code = bytes.get(entry..).unwrap_or(&[]);
    match arch {
        Arch::X86_64 => x86(code, entry),
        Arch::Arm64 => arm64(code, entry),
    }
}

fn x86(code: &[u8], entry: usize) -> Vec<Instruction> {
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

/// Decodes `b` and `bl`. Conditional branches reach 1 MiB or less, and the module loader does not relocate them.
fn arm64(code: &[u8], entry: usize) -> Vec<Instruction> {
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

/// Returns how far behind its field a PC-relative reference starts to count: on x86_64 at the end of the instruction.
pub(crate) fn counted_from(arch: Arch, field: usize, end: Option<usize>) -> i64 {
    match (arch, end) {
        (Arch::Arm64, _) => 0,
        (Arch::X86_64, Some(end)) => end as i64 - field as i64,
        (Arch::X86_64, None) => 4,
    }
}

/// The code that reads a runtime constant in place of code that boot code would have patched (asm/runtime-const.h): its
/// first byte in the run, its bytes, and its relocations by byte of the run and type.
pub(crate) struct ConstantLoad {
    pub(crate) at: usize,
    pub(crate) bytes: Vec<u8>,
    pub(crate) relocations: Vec<(u64, u32)>,
}

/// Returns the code by which a copy reads the runtime constant whose placeholder is at `place` of `code`: `mov
/// sym(%rip), %reg` and a no-operation; `adrp`, `ldr` and two no-operations. `None` if there is no placeholder.
pub(crate) fn runtime_load(arch: Arch, code: &[u8], place: usize) -> Option<ConstantLoad> {
    match arch {
        Arch::X86_64 => {
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
        Arch::Arm64 => {
            let word = |n: usize| {
                let field = code.get(place + 4 * n..place + 4 * n + 4)?;
                Some(u32::from_le_bytes(field.try_into().ok()?))
            };
            let register = word(0)? & 31;
            // movz, movk lsl 16, 32, 48 of the four parts of 0x0123456789abcdef
            let parts =
                [(0xd280_0000, 0xcdef), (0xf2a0_0000, 0x89ab), (0xf2c0_0000, 0x4567), (0xf2e0_0000, 0x0123)];
            for (n, (opcode, part)) in parts.into_iter().enumerate() {
                if word(n)? != opcode | part << 5 | register {
                    return None;
                }
            }
            let code =
                [0x9000_0000 | register, 0xf940_0000 | register << 5 | register, 0xd503_201f, 0xd503_201f];
            let kinds = [elf::R_AARCH64_ADR_PREL_PG_HI21.0, elf::R_AARCH64_LDST64_ABS_LO12_NC.0];
            Some(ConstantLoad {
                at: place,
                bytes: code.into_iter().flat_map(u32::to_le_bytes).collect(),
                relocations: vec![(place as u64, kinds[0]), (place as u64 + 4, kinds[1])],
            })
        }
    }
}

/// The start of the names of veneers.
pub(crate) const VENEER: &[u8] = b"__klpx_veneer_";

/// A veneer: instructions, and relocations on them by offset and type.
pub(crate) struct VeneerCode {
    pub(crate) words: [u32; 3],
    pub(crate) relocations: [(u64, u32); 2],
}

/// Returns `adrp x16`, `add x16, x16`, `ret x16`; `None` if branches always reach.
pub(crate) fn veneer(arch: Arch) -> Option<VeneerCode> {
    let relocations = [(0, elf::R_AARCH64_ADR_PREL_PG_HI21.0), (4, elf::R_AARCH64_ADD_ABS_LO12_NC.0)];
    (arch == Arch::Arm64)
        .then_some(VeneerCode { words: [0x9000_0010, 0x9100_0210, 0xd65f_0200], relocations })
}
