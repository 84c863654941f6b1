//! How the entries of a unit are passed that say nothing of functions, worked out once for each of its abbreviations.
//! Most of a unit describes types.

use gimli::{Abbreviation, AttributeSpecification, DwLang, DwTag, Reader, Unit};

/// How to come from an entry to the next one that matters.
#[derive(Clone, Copy)]
pub(super) enum Step {
    /// It is a function or an inlined call.
    Read,
    /// So many bytes after its code the next entry begins.
    Skip(usize),
    /// So many bytes after its code it says (`DW_AT_sibling`, as `DW_FORM_ref4`) where its children end.
    Sibling(usize),
    /// Its attributes are of no fixed length.
    Parse,
}

/// What has children that hold no function in any unit of C. In other languages a type holds its methods.
const HOLDS_NO_FUNCTION: [DwTag; 7] = [
    gimli::DW_TAG_array_type,
    gimli::DW_TAG_enumeration_type,
    gimli::DW_TAG_structure_type,
    gimli::DW_TAG_subroutine_type,
    gimli::DW_TAG_union_type,
    gimli::DW_TAG_call_site,
    gimli::DW_TAG_GNU_call_site,
];

/// True for C of any year.
pub(super) fn is_c(language: DwLang) -> bool {
    let c =
        [gimli::DW_LANG_C, gimli::DW_LANG_C89, gimli::DW_LANG_C99, gimli::DW_LANG_C11, gimli::DW_LANG_C17];
    c.contains(&language)
}

/// The abbreviations of a unit, each with its step.
pub(super) struct Steps<'u, R: Reader> {
    unit: &'u Unit<R>,
    /// By code, from 1.
    all: Vec<(&'u Abbreviation, Step)>,
    c: bool,
}

impl<'u, R: Reader<Offset = usize>> Steps<'u, R> {
    /// Of a unit, which may be one of C.
    pub(super) fn of(unit: &'u Unit<R>, c: bool) -> Steps<'u, R> {
        let mut steps = Steps { unit, all: Vec::new(), c };
        // Of a table that units share, a small unit has few; each entry takes a byte at least.
        let length = unit.header.length_including_self();
        let codes = (1..).map_while(|code| unit.abbreviations.get(code)).take(length);
        steps.all = codes.map(|abbreviation| (abbreviation, steps.step(abbreviation))).collect();
        steps
    }

    /// The abbreviation of a code.
    pub(super) fn get(&self, code: u64) -> Option<(&'u Abbreviation, Step)> {
        match usize::try_from(code - 1).ok().and_then(|n| self.all.get(n)) {
            Some(&known) => Some(known),
            // Codes need not be without gaps.
            None => {
                self.unit.abbreviations.get(code).map(|abbreviation| (abbreviation, self.step(abbreviation)))
            }
        }
    }

    fn step(&self, abbreviation: &Abbreviation) -> Step {
        let tag = abbreviation.tag();
        if [gimli::DW_TAG_subprogram, gimli::DW_TAG_inlined_subroutine].contains(&tag) {
            return Step::Read;
        }
        let attributes = abbreviation.attributes();
        if self.c && abbreviation.has_children() && HOLDS_NO_FUNCTION.contains(&tag) {
            let sibling = |attribute: &AttributeSpecification| {
                attribute.name() == gimli::DW_AT_sibling && attribute.form() == gimli::DW_FORM_ref4
            };
            let before = attributes.iter().position(sibling).and_then(|n| self.length(&attributes[..n]));
            if let Some(before) = before {
                return Step::Sibling(before);
            }
        }
        self.length(attributes).map_or(Step::Parse, Step::Skip)
    }

    fn length(&self, attributes: &[AttributeSpecification]) -> Option<usize> {
        attributes.iter().map(|attribute| attribute.size(&self.unit.header)).sum()
    }
}
