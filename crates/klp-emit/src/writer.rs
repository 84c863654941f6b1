//! A relocatable ELF64 file as plain values, read from a checked view and written back as bytes.
//!
//! Owns the file layout: header, sections, symbol order, string tables, relocation sections (several for one target, as
//! in livepatch modules). The same values always give the same bytes. Knows nothing about the meaning of a section.
//!
//! The writers of the `object` crate (0.40) do not serve: `object::write::Object` writes one relocation section for each
//! section at most, and no symbol with a section index such as `SHN_LIVEPATCH`. `object::build::elf::Builder` takes
//! relocation sections with `SHF_ALLOC`, which those of a livepatch have, for dynamic relocations, and refuses to read
//! a file in which one of these relocations names a symbol.

mod layout;
mod read;
mod relocatable;

pub use relocatable::{
    KLP_RELA_FLAGS, OutputSection, RelaTable, Relocatable, Relocation, Sec, Symbol, SymbolIndex, SymbolPlace,
    klp_rela_name,
};

#[cfg(test)]
mod tests;
