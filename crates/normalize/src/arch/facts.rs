//! The shape of an architecture's table of facts, and the types of its rows. Knows no architecture.

use crate::arch::section::TableKind;
use crate::escape::Escape;

/// Finds the instructions that lead out of code without a relocation. The second argument returns true for a byte that
/// has a relocation or is not an instruction.
pub(super) type EscapeSearch = fn(&[u8], &dyn Fn(usize) -> bool) -> Vec<Escape>;

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

/// A type that the module loader accepts, whose value does not depend on the place.
pub(super) const fn absolute(code: u32, name: &'static str, field: FieldKind) -> RelocationKind {
    RelocationKind { code, name, field, pc_relative: false, branch: false, in_module: true }
}

/// A type that the module loader accepts, whose value is relative to the place.
pub(super) const fn relative(code: u32, name: &'static str, field: FieldKind) -> RelocationKind {
    RelocationKind { code, name, field, pc_relative: true, branch: false, in_module: true }
}

/// A type of calls and jumps that the module loader accepts.
pub(super) const fn branch(code: u32, name: &'static str, field: FieldKind) -> RelocationKind {
    RelocationKind { code, name, field, pc_relative: true, branch: true, in_module: true }
}

/// A relocated field in a range of code.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FieldInCode<'c> {
    /// The bytes of the range.
    pub(crate) code: &'c [u8],
    /// The offset of the range in the section.
    pub(crate) start: u64,
    /// The offset of the field in the section.
    pub(crate) field: u64,
}

/// Displacements that count from the end of their instruction.
pub(super) struct EndDisplacements {
    /// The size of such a field in bytes.
    pub(super) size: u8,
    /// Returns the number of bytes that follow a field in its instruction; 0 if the code has no such instruction.
    pub(super) bytes_behind: fn(FieldInCode<'_>) -> i64,
    /// Returns true if the instruction with this field only reads or writes the place.
    pub(super) is_plain_access: fn(FieldInCode<'_>) -> bool,
}

/// The facts about an architecture that reading an object needs. Every architecture has one table.
pub(super) struct ArchFacts {
    /// The name that klpx uses.
    pub(super) name: &'static str,
    /// `e_machine` of the ELF header.
    pub(super) machine: u16,
    /// The relocation types that klpx knows.
    pub(super) relocations: &'static [RelocationKind],
    /// The relocation type for a 4-byte field that holds the distance from the field.
    pub(super) place_relative: u32,
    /// The relocation type of a pointer that a kernel fills in when it starts, because the kernel may run at any
    /// address; `None` if the image holds the pointers.
    pub(super) load_relative: Option<u32>,
    /// The relocation types that the module loader handles in the same way.
    pub(super) loaded_alike: &'static [u32],
    /// True if the module loader refuses a relocation over bytes that are not zero.
    pub(super) wants_clear_fields: bool,
    /// The size in bytes of the longest patchable entry that debug information may leave out of a function.
    pub(super) undescribed_entry: u64,
    /// The table of trace sites that ftrace reads, and the possible places of a function's trace site in bytes from its
    /// entry.
    pub(super) trace_sites: (&'static str, &'static [i64]),
    /// The table of frames that some kernels read to patch their code.
    pub(super) frame_table: Option<&'static [u8]>,
    /// The sections without which the loader refuses a module.
    pub(super) module_sections: &'static [&'static str],
    /// The special sections, besides those of every architecture.
    pub(super) special_sections: &'static [TableKind],
    /// Displacements that count from the end of their instruction; `None` if every address counts from the place of its
    /// relocation.
    pub(super) end_displacements: Option<EndDisplacements>,
    /// True if code that no symbol covers may belong to a function: replacements of alternatives, literals, words
    /// before the entry.
    pub(super) has_code_outside_symbols: bool,
    /// Returns true if these bytes of a code section are only filler between functions.
    pub(super) is_padding: fn(&[u8]) -> bool,
    /// Returns the number of padding bytes at the end of the code that follows a function.
    pub(super) padding_at_end: fn(&[u8]) -> usize,
    /// Returns the length of the unnamed code at the start of these bytes.
    pub(super) unnamed_code_length: fn(&[u8]) -> usize,
    /// Returns how far an instruction's literal lies from the instruction, and how many bytes are loaded; `None` if the
    /// instruction loads no literal.
    pub(super) literal_load: fn(u32) -> Option<(i64, u64)>,
    /// The instructions that lead out of the code without a relocation.
    pub(super) escapes: EscapeSearch,
}
