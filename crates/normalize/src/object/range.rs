//! A range of one section.

use crate::elf::SectionId;

/// The bytes `start..end` of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SectionRange {
    /// The section.
    pub section: SectionId,
    /// The first byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}
