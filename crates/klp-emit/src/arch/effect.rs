//! What instructions do to addresses in registers, and where calls lead: enough to read call arguments that are
//! constants.

use klpx_normalize::arch::Arch;

use super::{arm64, x86_64};
use crate::image::Location;

/// The effect of an instruction on constants in registers, and its calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// A register holds this constant from now on.
    Set(u8, u64),
    /// The first register holds the second one's value plus this number.
    Add(u8, u8, u64),
    /// A register holds an unknown value from now on.
    Lose(u8),
    /// A call, with its target if the instruction gives one.
    Call(Option<Location>),
    /// The next instruction is not reached from here: a jump, with its target if the instruction gives one, or a
    /// return.
    Leave(Option<Location>),
}

/// Finds the relocation in a range of addresses: its place, and its target including the addend.
pub(crate) type Relocated<'a> = &'a dyn Fn(u64, u64) -> Option<(u64, Location)>;

/// Reports the effects of each instruction of `code`, which lies at `base`.
pub(crate) fn effects(
    arch: Arch,
    (code, base): (&[u8], u64),
    relocated: Relocated<'_>,
    tell: &mut dyn FnMut(Effect),
) {
    match arch {
        Arch::X86_64 => x86_64::effects(code, base, relocated, tell),
        Arch::Arm64 => arm64::effects(code, base, relocated, tell),
    }
}

/// The register of a call's argument, counted from 0 (x86-64 psABI 3.2.3, AAPCS64 6.8.2). The first six arguments are
/// in registers on both architectures.
pub(crate) fn argument(arch: Arch, n: usize) -> Option<u8> {
    match arch {
        Arch::X86_64 => [7, 6, 2, 1, 8, 9].get(n).copied(),
        Arch::Arm64 => u8::try_from(n).ok().filter(|&n| n < 8),
    }
}

/// Returns true for a register that a call preserves (the same documents).
pub(crate) fn survives_calls(arch: Arch, register: u8) -> bool {
    match arch {
        Arch::X86_64 => matches!(register, 3 | 5 | 12..=15),
        Arch::Arm64 => (19..=28).contains(&register),
    }
}

/// The addresses in `code`, which lies at `base`, of instructions that call or jump to one of `targets` without a
/// relocation, and of bytes that only look like such an instruction.
pub(crate) fn may_branch_to(arch: Arch, code: &[u8], base: u64, targets: &[u64]) -> Vec<u64> {
    match arch {
        Arch::X86_64 => x86_64::may_branch_to(code, base, targets),
        Arch::Arm64 => arm64::may_branch_to(code, base, targets),
    }
}
