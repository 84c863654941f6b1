//! How to skip the entries of a unit that are not about functions, worked out once for each of its abbreviations. Most
//! of a unit describes types.

use gimli::{Abbreviation, AttributeSpecification, DwLang, DwTag, Reader, Unit};

/// The way from an entry to the next relevant entry.
#[derive(Clone, Copy)]
pub(super) enum EntryStep {
    /// The entry is a function or an inlined call, and is read.
    Read,
    /// The next entry begins this many bytes after the entry's code.
    Skip(usize),
    /// The end of the entry's children (`DW_AT_sibling`, as `DW_FORM_ref4`) stands this many bytes after the entry's
    /// code.
    Sibling(usize),
    /// The entry's attributes have no fixed length.
    Parse,
}

/// Tags whose children hold no function in a unit of C. In other languages a type holds its methods.
const HOLDS_NO_FUNCTION: [DwTag; 7] = [
    gimli::DW_TAG_array_type,
    gimli::DW_TAG_enumeration_type,
    gimli::DW_TAG_structure_type,
    gimli::DW_TAG_subroutine_type,
    gimli::DW_TAG_union_type,
    gimli::DW_TAG_call_site,
    gimli::DW_TAG_GNU_call_site,
];

/// Returns true for any version of C.
pub(super) fn is_c(language: DwLang) -> bool {
    let c =
        [gimli::DW_LANG_C, gimli::DW_LANG_C89, gimli::DW_LANG_C99, gimli::DW_LANG_C11, gimli::DW_LANG_C17];
    c.contains(&language)
}

/// The abbreviations of a unit, each with its step.
pub(super) struct EntrySteps<'u, R: Reader> {
    unit: &'u Unit<R>,
    /// Abbreviations by code, from 1.
    all: Vec<(&'u Abbreviation, EntryStep)>,
    c: bool,
}

impl<'u, R: Reader<Offset = usize>> EntrySteps<'u, R> {
    /// Computes the steps of a unit. `c` is true for a unit of C.
    pub(super) fn compute(unit: &'u Unit<R>, c: bool) -> EntrySteps<'u, R> {
        let mut steps = EntrySteps { unit, all: Vec::new(), c };
        // A small unit uses few codes of a table that units share; each entry takes at least a byte.
        let length = unit.header.length_including_self();
        let codes = (1..).map_while(|code| unit.abbreviations.get(code)).take(length);
        steps.all = codes.map(|abbreviation| (abbreviation, steps.step(abbreviation))).collect();
        steps
    }

    /// Returns the abbreviation of a code.
    pub(super) fn get(&self, code: u64) -> Option<(&'u Abbreviation, EntryStep)> {
        match usize::try_from(code - 1).ok().and_then(|n| self.all.get(n)) {
            Some(&known) => Some(known),
            // Codes may have gaps.
            None => {
                self.unit.abbreviations.get(code).map(|abbreviation| (abbreviation, self.step(abbreviation)))
            }
        }
    }

    fn step(&self, abbreviation: &Abbreviation) -> EntryStep {
        let tag = abbreviation.tag();
        if [gimli::DW_TAG_subprogram, gimli::DW_TAG_inlined_subroutine].contains(&tag) {
            return EntryStep::Read;
        }
        let attributes = abbreviation.attributes();
        if self.c && abbreviation.has_children() && HOLDS_NO_FUNCTION.contains(&tag) {
            let sibling = |attribute: &AttributeSpecification| {
                attribute.name() == gimli::DW_AT_sibling && attribute.form() == gimli::DW_FORM_ref4
            };
            let before = attributes.iter().position(sibling).and_then(|n| self.length(&attributes[..n]));
            if let Some(before) = before {
                return EntryStep::Sibling(before);
            }
        }
        self.length(attributes).map_or(EntryStep::Parse, EntryStep::Skip)
    }

    fn length(&self, attributes: &[AttributeSpecification]) -> Option<usize> {
        attributes.iter().map(|attribute| attribute.size(&self.unit.header)).sum()
    }
}
