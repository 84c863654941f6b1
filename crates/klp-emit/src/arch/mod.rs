//! What copying code into a module needs to know of an architecture; one file each.
//!
//! Owns instruction-level facts (what is a branch, how a runtime constant is read). Never decides what is copied.

mod arm64;
mod effect;
mod x86_64;

pub(crate) use effect::{Effect, argument, effects, may_branch_to, survives_calls};

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
        Arch::Arm64 => arm64::runtime_load(code, place),
    }
}

/// True when a runtime constant that boot code patched can be read as a variable: x86_64 has it in one piece, an
/// immediate of 8 bytes; arm64 has it in pieces of 16 bits.
pub(crate) fn code_holds_constants(arch: Arch) -> bool {
    match arch {
        Arch::X86_64 => true,
        Arch::Arm64 => false,
    }
}

/// Before the name of what a veneer leads to, in the veneer's own.
pub(crate) const VENEER: &str = "__klpx_veneer_";

/// Code that branches to a symbol, wherever that is.
pub(crate) struct Veneer {
    /// Instructions.
    pub(crate) code: &'static [u32],
    /// Relocations on them against the symbol: offset in bytes, type.
    pub(crate) relocations: &'static [(u64, u32)],
}

/// What branches lead through that the loader can't make reach; `None` where it always can.
///
/// arm64's loader gives a `bl` that does not reach an entry of `.plt`, which branches on by `br x16`. It can't when the
/// patched module arrives: `.plt` is read-only by then, and module_emit_plt_entry (arch/arm64/kernel/module-plts.c)
/// writes there directly. And it must not where BTI is on and the callee has no landing pad.
pub(crate) fn veneer(arch: Arch) -> Option<&'static Veneer> {
    match arch {
        Arch::X86_64 => None,
        Arch::Arm64 => Some(&arm64::VENEER),
    }
}

/// True when code begins with what an indirect branch may lead to.
pub(crate) fn begins_with_landing_pad(arch: Arch, code: &[u8]) -> bool {
    match arch {
        Arch::X86_64 => true,
        Arch::Arm64 => arm64::begins_with_landing_pad(code),
    }
}

/// How far two instructions of a linked image lead that the linker made of two relocated ones, when it did: in bytes
/// from the first. `kinds` are the relocation types of the two.
pub(crate) fn shortened_pair(arch: Arch, kinds: (u32, u32), ours: &[u8], theirs: &[u8]) -> Option<i64> {
    match arch {
        Arch::X86_64 => None,
        Arch::Arm64 => arm64::shortened_pair(kinds, ours, theirs),
    }
}

/// How long the code at the start of `code` is when it ends with the first instruction that never falls through.
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
