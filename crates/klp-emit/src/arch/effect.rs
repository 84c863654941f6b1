//! What instructions do to addresses in registers, and where calls lead: enough to read the arguments of a call that
//! are constants.

use klpx_normalize::arch::Arch;

use super::{arm64, x86_64};
use crate::image::Location;

/// What an instruction does, as far as constants in registers and calls go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// A register holds a constant from here on.
    Set(u8, u64),
    /// The first register holds what the second one holds, and so much more.
    Add(u8, u8, u64),
    /// A register holds something else from here on.
    Lose(u8),
    /// A call, and where it leads when the instruction says.
    Call(Option<Location>),
    /// What comes next is not reached from here: a jump, with where it leads when the instruction says, or a return.
    Leave(Option<Location>),
}

/// The relocation in a range of addresses: its place, and what it refers to, its addend included.
pub(crate) type Relocated<'a> = &'a dyn Fn(u64, u64) -> Option<(u64, Location)>;

/// Tells the effects of each instruction of `code`, which lies at `base`.
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

/// The register of an argument of a call, counted from 0 (x86-64 psABI 3.2.3, AAPCS64 6.8.2). The first six have one
/// on both architectures.
pub(crate) fn argument(arch: Arch, n: usize) -> Option<u8> {
    match arch {
        Arch::X86_64 => [7, 6, 2, 1, 8, 9].get(n).copied(),
        Arch::Arm64 => u8::try_from(n).ok().filter(|&n| n < 8),
    }
}

/// True for a register that a call leaves as it is (the same documents).
pub(crate) fn survives_calls(arch: Arch, register: u8) -> bool {
    match arch {
        Arch::X86_64 => matches!(register, 3 | 5 | 12..=15),
        Arch::Arm64 => (19..=28).contains(&register),
    }
}

/// Where `code`, which lies at `base`, may call or jump to one of `targets` without a relocation: the addresses of such
/// instructions, and of bytes that only look like one.
pub(crate) fn may_branch_to(arch: Arch, code: &[u8], base: u64, targets: &[u64]) -> Vec<u64> {
    match arch {
        Arch::X86_64 => x86_64::may_branch_to(code, base, targets),
        Arch::Arm64 => arm64::may_branch_to(code, base, targets),
    }
}
