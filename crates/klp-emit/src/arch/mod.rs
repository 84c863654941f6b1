//! What copying code into a module needs to know of an architecture; one file each.
//!
//! Owns instruction-level facts (what is a branch, how a runtime constant is read). Never decides what is copied.

mod x86_64;

use klpx_normalize::arch::{Arch, RelocationKind};

/// A runtime constant's site, rewritten to read the variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RuntimeLoad {
    /// First byte to replace, in bytes from the start of the code that was handed in.
    pub(crate) at: usize,
    /// The new bytes.
    pub(crate) bytes: Vec<u8>,
    /// Relocations on them against the variable: offset from the start of the code, type, addend.
    pub(crate) relocations: Vec<(usize, u32, i64)>,
}

/// True when the relocation at `place` of `code` belongs to a call or jump: nobody keeps the address.
pub(crate) fn is_branch(arch: Arch, kind: &RelocationKind, code: &[u8], place: usize) -> bool {
    kind.branch || arch == Arch::X86_64 && x86_64::is_branch(kind, code, place)
}

/// How to read the variable of a runtime constant whose table entry points at `place` of `code`; `None` when the
/// bytes there are not what the kernel's macro makes.
pub(crate) fn runtime_load(arch: Arch, code: &[u8], place: usize) -> Option<RuntimeLoad> {
    match arch {
        Arch::X86_64 => x86_64::runtime_load(code, place),
        Arch::Arm64 => None,
    }
}

/// How long the code at the start of `code` is when it ends with the first instruction that never falls through.
pub(crate) fn straight_code_length(arch: Arch, code: &[u8]) -> Option<usize> {
    match arch {
        Arch::X86_64 => x86_64::straight_code_length(code),
        Arch::Arm64 => {
            // b, br, ret: no condition, no link.
            let ends = |w: u32| w >> 26 == 0b000101 || w & 0xfffffc1f == 0xd61f0000 || w & 0xfffffc1f == 0xd65f0000;
            code.chunks_exact(4)
                .position(|w| ends(u32::from_le_bytes([w[0], w[1], w[2], w[3]])))
                .map(|n| (n + 1) * 4)
        }
    }
}

/// The byte that fills gaps between functions.
pub(crate) fn filler(arch: Arch) -> u8 {
    match arch {
        Arch::X86_64 => 0xcc, // int3
        Arch::Arm64 => 0,
    }
}
