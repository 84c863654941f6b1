//! Facts that differ between architectures, such as the relocation types and which of them a livepatch may use. Each
//! architecture has one table of facts, in a module of its own.
//!
//! Sources: arch/x86/kernel/module.c and arch/arm64/kernel/module.c for the types that a module loader accepts; the
//! psABI documents for field widths. CONTRIBUTING.md lists the files of an architecture.

pub mod arm64;
mod facts;
mod section;
mod x86_64;

use klpx_diagnosis::{Diagnosis, Result, codes};

use crate::escape::Escape;
use facts::{ArchFacts, EndDisplacements};

pub(crate) use facts::FieldInCode;
pub use facts::{FieldKind, RelocationKind};
pub use section::{Policy, TableKind};

/// Declares the architectures, each with its table of facts.
macro_rules! architectures {
    ($($(#[$doc:meta])* $arch:ident: $facts:path,)+) => {
        /// An architecture that klpx knows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Arch {
            $($(#[$doc])* $arch,)+
        }

        impl Arch {
            /// Every architecture.
            pub const ALL: &[Arch] = &[$(Arch::$arch,)+];

            fn facts(self) -> &'static ArchFacts {
                match self {
                    $(Arch::$arch => &$facts,)+
                }
            }
        }
    };
}

architectures! {
    /// x86_64.
    X86_64: x86_64::FACTS,
    /// arm64.
    Arm64: arm64::FACTS,
}

/// `R_*_NONE` of every architecture. objtool leaves this type where it has patched a field away.
pub const NONE: u32 = 0;

impl Arch {
    /// Returns the architecture of an ELF machine number.
    pub fn of_machine(machine: u16) -> Result<Arch> {
        let found = Arch::ALL.iter().find(|arch| arch.facts().machine == machine);
        found.copied().ok_or_else(|| {
            let known: Vec<String> =
                Arch::ALL.iter().map(|arch| format!("{} ({})", arch.name(), arch.facts().machine)).collect();
            Diagnosis::new(
                &codes::UNKNOWN_MACHINE,
                "an object for an unknown machine",
                format!("its ELF machine number is {machine}; klpx knows {}", known.join(" and ")),
                "check that the file is the one that you meant",
            )
            .into()
        })
    }

    /// Returns the name that klpx uses for the architecture: `x86_64` or `arm64`.
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// Returns the meaning of a relocation type, if klpx knows the type.
    pub fn relocation(self, code: u32) -> Option<&'static RelocationKind> {
        self.facts().relocations.iter().find(|kind| kind.code == code)
    }

    /// Returns the relocation type for a 4-byte field that holds the distance from the field.
    pub fn place_relative(self) -> u32 {
        self.facts().place_relative
    }

    /// Returns the relocation type of a pointer that a kernel fills in when it starts, because the kernel may run at
    /// any address. `None` if the image of the kernel holds the pointers.
    pub fn load_relative(self) -> Option<u32> {
        self.facts().load_relative
    }

    /// Returns true if the module loader refuses a relocation over bytes that are not zero.
    pub fn wants_clear_fields(self) -> bool {
        self.facts().wants_clear_fields
    }

    /// Returns true if the module loader handles both relocation types in the same way.
    pub fn loads_alike(self, one: u32, other: u32) -> bool {
        let alike = self.facts().loaded_alike;
        one == other || alike.contains(&one) && alike.contains(&other)
    }

    /// Returns the size in bytes of the longest patchable entry that debug information may leave out of a function.
    pub fn undescribed_entry(self) -> u64 {
        self.facts().undescribed_entry
    }

    /// Returns the table of trace sites that ftrace reads, and the possible places of a function's trace site in bytes
    /// from its entry: see `klpx_inline_check::reach`.
    pub fn trace_sites(self) -> (&'static str, &'static [i64]) {
        self.facts().trace_sites
    }

    /// Returns the table of frames that some kernels read to patch their code: see `klp_emit`'s `emit/frames.rs`.
    pub fn frame_table(self) -> Option<&'static [u8]> {
        self.facts().frame_table
    }

    /// Returns the sections without which the loader refuses a module.
    pub fn module_sections(self) -> &'static [&'static str] {
        self.facts().module_sections
    }

    /// Returns the distance from a PC-relative field to the address from which the processor counts, for the usual
    /// instruction that ends with the field. An x86 displacement is relative to the next instruction.
    pub fn pc_bias(self, kind: &RelocationKind) -> i64 {
        match (self.end_displacements(), kind.pc_relative, kind.field) {
            (Some(counted), true, FieldKind::Bytes(size)) if size == counted.size => i64::from(size),
            _ => 0,
        }
    }

    fn end_displacements(self) -> Option<&'static EndDisplacements> {
        self.facts().end_displacements.as_ref()
    }

    /// Returns true if displacements count from the end of their instruction, which more bytes than the field's may
    /// precede.
    pub(crate) fn counts_from_end(self) -> bool {
        self.end_displacements().is_some()
    }

    /// Returns the number of bytes that follow a displacement in its instruction.
    pub(crate) fn bytes_behind(self, at: FieldInCode<'_>) -> i64 {
        self.end_displacements().map_or(0, |counted| (counted.bytes_behind)(at))
    }

    /// Returns true if the instruction with this displacement only reads or writes the place: then the reference is not
    /// the end of an item.
    pub(crate) fn is_plain_access(self, at: FieldInCode<'_>) -> bool {
        self.end_displacements().is_some_and(|counted| (counted.is_plain_access)(at))
    }

    /// Returns true if code that no symbol covers may belong to a function: replacements of alternatives, literals,
    /// words before the entry.
    pub(crate) fn has_code_outside_symbols(self) -> bool {
        self.facts().has_code_outside_symbols
    }

    /// Returns the number of padding bytes at the end of the code that follows a function. Where code lies outside of
    /// symbols, replacements of alternatives may precede the padding.
    pub fn padding_at_end(self, bytes: &[u8]) -> u64 {
        (self.facts().padding_at_end)(bytes) as u64
    }

    /// Returns the length of the unnamed code at the start of these bytes.
    pub(crate) fn unnamed_code_length(self, code: &[u8]) -> u64 {
        (self.facts().unnamed_code_length)(code) as u64
    }

    /// Returns how far an instruction's literal lies from the instruction, and how many bytes are loaded; `None` if the
    /// instruction loads no literal.
    pub fn literal_load(self, word: u32) -> Option<(i64, u64)> {
        (self.facts().literal_load)(word)
    }

    /// Returns true if these bytes of a code section are only filler between functions: no-operations, traps or zeroes.
    pub fn is_padding(self, bytes: &[u8]) -> bool {
        (self.facts().is_padding)(bytes)
    }

    /// Returns the instructions that lead out of `code` without a relocation. `settled` returns true for a byte that
    /// has a relocation or is not an instruction.
    pub fn escapes(self, code: &[u8], settled: &dyn Fn(usize) -> bool) -> Vec<Escape> {
        (self.facts().escapes)(code, settled)
    }
}

impl TableKind {
    /// Returns every kind that an architecture has.
    pub fn all(arch: Arch) -> impl Iterator<Item = &'static TableKind> {
        arch.facts().special_sections.iter().chain(&section::COMMON)
    }

    /// Returns the kind of the section with this name, if it is a special section.
    pub fn of(arch: Arch, name: &[u8]) -> Option<&'static TableKind> {
        TableKind::all(arch).find(|table| table.matches(name))
    }

    /// Returns true if a section of this name is the companion of a table.
    pub fn is_companion(arch: Arch, name: &[u8]) -> bool {
        TableKind::all(arch).filter_map(|kind| kind.companion).any(|(other, _)| other.as_bytes() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_arm64_loads_literals() {
        assert_eq!(Arch::X86_64.literal_load(0x5800_0040), None);
        assert_eq!(Arch::Arm64.literal_load(0x5800_0040), Some((8, 8)));
    }

    #[test]
    fn an_architecture_is_told_by_its_machine() {
        for &arch in Arch::ALL {
            assert_eq!(Arch::of_machine(arch.facts().machine).ok(), Some(arch));
        }
        let unknown = Arch::of_machine(0).expect_err("no machine").to_string();
        assert!(unknown.contains("x86_64 (62) and arm64 (183)"), "{unknown}");
    }
}
