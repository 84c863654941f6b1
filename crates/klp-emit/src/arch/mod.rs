//! The facts about an architecture that copying code into a module needs; one file per architecture.
//!
//! Owns instruction-level facts: what is a branch, how a runtime constant is read. Never decides what is copied.

mod arm64;
mod effect;
mod x86_64;

pub(crate) use effect::{Effect, argument, effects, may_branch_to, survives_calls};

use klpx_normalize::arch::{Arch, RelocationKind};

/// The place of a runtime constant, rewritten to read the variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RuntimeLoad {
    /// The first byte to replace, in bytes from the start of the given code.
    pub(crate) at: usize,
    /// The new bytes.
    pub(crate) bytes: Vec<u8>,
    /// Relocations of the new bytes against the variable: offset from the start of the code, type, addend.
    pub(crate) relocations: Vec<(usize, u32, i64)>,
}

/// Returns true if the relocation at `place` of `code` belongs to a call or jump, so that the address is not kept.
pub(crate) fn is_branch(arch: Arch, kind: &RelocationKind, code: &[u8], place: usize) -> bool {
    kind.branch || arch == Arch::X86_64 && x86_64::is_branch(kind, code, place)
}

/// The code that reads the variable of a runtime constant whose table entry points at `place` of `code`. `None` if the
/// bytes there are not those of the kernel's macro.
pub(crate) fn runtime_load(arch: Arch, code: &[u8], place: usize) -> Option<RuntimeLoad> {
    match arch {
        Arch::X86_64 => x86_64::runtime_load(code, place),
        Arch::Arm64 => arm64::runtime_load(code, place),
    }
}

/// Returns true if a runtime constant that boot code patched can be read from the code like a variable. x86_64 has it
/// in one piece, an immediate of 8 bytes; arm64 has it in pieces of 16 bits.
pub(crate) fn code_holds_constants(arch: Arch) -> bool {
    match arch {
        Arch::X86_64 => true,
        Arch::Arm64 => false,
    }
}

/// The prefix of a veneer's name, before the name of the veneer's target.
pub(crate) const VENEER: &str = "__klpx_veneer_";

/// Code that branches to a symbol at any distance.
pub(crate) struct Veneer {
    /// The instructions.
    pub(crate) code: &'static [u32],
    /// Relocations of the code against the symbol: offset in bytes, type.
    pub(crate) relocations: &'static [(u64, u32)],
}

/// The veneer for branches that the loader can't make reach their target; `None` where it always can.
///
/// If a `bl` does not reach its target, arm64's loader makes an entry in `.plt`, which branches on by `br x16`. The
/// loader can't do this when the patched module arrives: `.plt` is read-only by then, and module_emit_plt_entry
/// (arch/arm64/kernel/module-plts.c) writes there directly. Nor must it do this where BTI is on and the callee has no
/// landing pad.
pub(crate) fn veneer(arch: Arch) -> Option<&'static Veneer> {
    match arch {
        Arch::X86_64 => None,
        Arch::Arm64 => Some(&arm64::VENEER),
    }
}

/// Returns true if code begins with an instruction at which an indirect branch may arrive.
pub(crate) fn begins_with_landing_pad(arch: Arch, code: &[u8]) -> bool {
    match arch {
        Arch::X86_64 => true,
        Arch::Arm64 => arm64::begins_with_landing_pad(code),
    }
}

/// The target of two instructions in a linked image that the linker made from two relocated ones, in bytes from the
/// first; `None` for other instructions. `kinds` are the relocation types of the two.
pub(crate) fn shortened_pair(
    arch: Arch,
    kinds: (u32, u32),
    witness_code: &[u8],
    image_code: &[u8],
) -> Option<i64> {
    match arch {
        Arch::X86_64 => None,
        Arch::Arm64 => arm64::shortened_pair(kinds, witness_code, image_code),
    }
}

/// The length of the code at the start of `code` up to and including the first instruction that never falls through.
pub(crate) fn straight_code_length(arch: Arch, code: &[u8]) -> Option<usize> {
    match arch {
        Arch::X86_64 => x86_64::straight_code_length(code),
        Arch::Arm64 => arm64::straight_code_length(code),
    }
}

/// The byte that fills gaps between functions.
pub(crate) fn filler(arch: Arch) -> u8 {
    match arch {
        Arch::X86_64 => 0xcc, // int3
        Arch::Arm64 => 0,
    }
}
