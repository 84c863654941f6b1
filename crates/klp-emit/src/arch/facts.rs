//! The shape of an architecture's table of facts about code, and the types of its rows. Knows no architecture.

use klpx_normalize::arch::RelocationKind;

use super::effect::{Effect, Relocated};
use super::encoding::AddressEncoding;

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

/// Code that branches to a symbol at any distance.
pub(crate) struct Veneer {
    /// The instructions.
    pub(crate) code: &'static [u32],
    /// Relocations of the code against the symbol: offset in bytes, type.
    pub(crate) relocations: &'static [(u64, u32)],
}

/// The target of two instructions in a linked image that the linker made from two relocated ones, in bytes from the
/// first; `None` for other instructions. The arguments are the relocation types of the two, and the code of the witness
/// and of the image.
pub(crate) type ShortenedPair = fn((u32, u32), &[u8], &[u8]) -> Option<i64>;

/// Reports the effects of each instruction of the code, which lies at an address, to the last argument.
pub(super) type EffectReader = fn(&[u8], u64, Relocated<'_>, &mut dyn FnMut(Effect));

/// The facts about an architecture that copying code into a module needs. Every architecture has one table.
pub(super) struct CodeFacts {
    /// Returns true if the relocation at a place of the code belongs to a call or jump, although its type is no
    /// branch's.
    pub(super) is_branch: fn(&RelocationKind, &[u8], usize) -> bool,
    /// How instructions hold addresses, by relocation type; empty if every field has whole bytes.
    pub(super) encodings: &'static [(u32, AddressEncoding)],
    /// The relocation type whose 4-byte field holds a number without a sign.
    pub(super) zero_extended: u32,
    /// True if the assembler chooses the lengths of branches and no-operations by the rest of the section.
    pub(super) branch_lengths_vary: bool,
    /// The pairs of instructions that the linker may shorten; `None` if it shortens none.
    pub(super) shortened_pair: Option<ShortenedPair>,
    /// Returns the code that reads the variable of a runtime constant whose table entry points at a place of the code.
    /// `None` if the bytes there are not those of the kernel's macro (asm/runtime-const.h).
    pub(super) runtime_load: fn(&[u8], usize) -> Option<RuntimeLoad>,
    /// True if code holds a runtime constant in one piece.
    pub(super) code_holds_constants: bool,
    /// The veneer for branches that the loader can't make reach their target; `None` where it always can.
    pub(super) veneer: Option<&'static Veneer>,
    /// Returns true if code begins with an instruction at which an indirect branch may arrive.
    pub(super) begins_with_landing_pad: fn(&[u8]) -> bool,
    /// Returns the length of the code at the start up to and including the first instruction that never falls through.
    pub(super) straight_code_length: fn(&[u8]) -> Option<usize>,
    /// The byte that fills gaps between functions.
    pub(super) filler: u8,
    /// Reports the effects of each instruction.
    pub(super) effects: EffectReader,
    /// The registers of a call's arguments, in order.
    pub(super) argument_registers: &'static [u8],
    /// The registers that a call preserves.
    pub(super) preserved_registers: &'static [u8],
    /// Returns the addresses in the code, which lies at an address, of instructions that may branch to one of the
    /// targets.
    pub(super) may_branch_to: fn(&[u8], u64, &[u64]) -> Vec<u64>,
    /// True if klpx follows addresses through the code (`constants/flow.rs`).
    pub(super) follows_addresses: bool,
    /// True if klpx finds the users of an address in a linked image, which has no relocations (`users.rs`).
    pub(super) finds_linked_users: bool,
}
