//! The facts about an architecture that copying code into a module needs. Each architecture has one table of facts, in
//! a module of its own.
//!
//! Owns instruction-level facts: what is a branch, how a runtime constant is read. Never decides what is copied.

mod arm64;
mod effect;
mod encoding;
mod facts;
mod x86_64;

use klpx_normalize::arch::{Arch, RelocationKind};

pub(crate) use effect::Effect;
pub(crate) use encoding::{AddressEncoding, FieldValue};
pub(crate) use facts::{RuntimeLoad, ShortenedPair, Veneer};

use effect::Relocated;
use facts::CodeFacts;

/// The prefix of a veneer's name, before the name of the veneer's target.
pub(crate) const VENEER: &str = "__klpx_veneer_";

fn facts(arch: Arch) -> &'static CodeFacts {
    match arch {
        Arch::X86_64 => &x86_64::FACTS,
        Arch::Arm64 => &arm64::FACTS,
    }
}

/// Returns true if the relocation at `place` of `code` belongs to a call or jump, so that the address is not kept.
pub(crate) fn is_branch(arch: Arch, kind: &RelocationKind, code: &[u8], place: usize) -> bool {
    kind.branch || (facts(arch).is_branch)(kind, code, place)
}

/// How the instruction with a relocation of this type holds an address; `None` for a field of whole bytes.
pub(crate) fn encoding(arch: Arch, code: u32) -> Option<AddressEncoding> {
    facts(arch).encodings.iter().find(|&&(known, _)| known == code).map(|&(_, encoding)| encoding)
}

/// The relocation type whose 4-byte field holds a number without a sign.
pub(crate) fn zero_extended(arch: Arch) -> u32 {
    facts(arch).zero_extended
}

/// Returns true if the assembler chooses the lengths of branches and no-operations by the rest of the section.
pub(crate) fn branch_lengths_vary(arch: Arch) -> bool {
    facts(arch).branch_lengths_vary
}

/// The pairs of instructions that the linker may shorten; `None` if it shortens none.
pub(crate) fn shortened_pair(arch: Arch) -> Option<ShortenedPair> {
    facts(arch).shortened_pair
}

/// The code that reads the variable of a runtime constant whose table entry points at `place` of `code`. `None` if the
/// bytes there are not those of the kernel's macro.
pub(crate) fn runtime_load(arch: Arch, code: &[u8], place: usize) -> Option<RuntimeLoad> {
    (facts(arch).runtime_load)(code, place)
}

/// Returns true if a runtime constant that boot code patched can be read from the code like a variable.
pub(crate) fn code_holds_constants(arch: Arch) -> bool {
    facts(arch).code_holds_constants
}

/// The veneer for branches that the loader can't make reach their target; `None` where it always can.
pub(crate) fn veneer(arch: Arch) -> Option<&'static Veneer> {
    facts(arch).veneer
}

/// Returns true if code begins with an instruction at which an indirect branch may arrive.
pub(crate) fn begins_with_landing_pad(arch: Arch, code: &[u8]) -> bool {
    (facts(arch).begins_with_landing_pad)(code)
}

/// The length of the code at the start of `code` up to and including the first instruction that never falls through.
pub(crate) fn straight_code_length(arch: Arch, code: &[u8]) -> Option<usize> {
    (facts(arch).straight_code_length)(code)
}

/// The byte that fills gaps between functions.
pub(crate) fn filler(arch: Arch) -> u8 {
    facts(arch).filler
}

/// Reports the effects of each instruction of `code`, which lies at `base`.
pub(crate) fn effects(
    arch: Arch,
    code: &[u8],
    base: u64,
    relocated: Relocated<'_>,
    tell: &mut dyn FnMut(Effect),
) {
    (facts(arch).effects)(code, base, relocated, tell);
}

/// The register of a call's argument, counted from 0.
pub(crate) fn argument(arch: Arch, n: usize) -> Option<u8> {
    facts(arch).argument_registers.get(n).copied()
}

/// Returns true for a register that a call preserves.
pub(crate) fn survives_calls(arch: Arch, register: u8) -> bool {
    facts(arch).preserved_registers.contains(&register)
}

/// The addresses in `code`, which lies at `base`, of instructions that call or jump to one of `targets` without a
/// relocation, and of bytes that only look like such an instruction.
pub(crate) fn may_branch_to(arch: Arch, code: &[u8], base: u64, targets: &[u64]) -> Vec<u64> {
    (facts(arch).may_branch_to)(code, base, targets)
}

/// Returns true if klpx follows addresses through the code.
pub(crate) fn follows_addresses(arch: Arch) -> bool {
    facts(arch).follows_addresses
}

/// Returns true if klpx finds the users of an address in a linked image, which has no relocations.
pub(crate) fn finds_linked_users(arch: Arch) -> bool {
    facts(arch).finds_linked_users
}
