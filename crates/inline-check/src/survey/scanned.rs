//! The facts of one DWARF unit, as its entries tell them.

use crate::sections::TextPlace;

/// The value for no index and no offset.
pub(super) const NONE: u32 = u32::MAX;

/// The `DW_TAG_subprogram` that an entry refers to.
#[derive(Clone, Copy, Debug)]
pub(super) enum SubprogramOrigin {
    /// No subprogram.
    None,
    /// A subprogram of the same unit: index in its [`ScannedUnit::functions`].
    Here(u32),
    /// Offset in `.debug_info` of a subprogram of another unit, or of another entry.
    There(u32),
}

/// The parts of a file's path, from left to right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct FileName {
    /// The folder that the compiler ran in.
    pub(super) folder: TextPlace,
    pub(super) directory: TextPlace,
    /// The file name; `TextPlace::None` if there is no file.
    pub(super) name: TextPlace,
}

/// A `DW_TAG_subprogram`: a definition, a declaration, an abstract instance, or a concrete one.
#[derive(Clone, Debug)]
pub(super) struct Die {
    /// Offset in `.debug_info`.
    pub(super) at: u32,
    /// The entry's own name, if it has one.
    pub(super) name: TextPlace,
    /// The entry that has the missing facts.
    pub(super) origin: SubprogramOrigin,
    /// File index of the declaration; [`NONE`] without one.
    pub(super) file: u32,
    /// Line of the declaration; 0 without one.
    pub(super) line: u32,
    /// DW_AT_external.
    pub(super) external: bool,
    /// True if DW_AT_inline is DW_INL_declared_not_inlined or DW_INL_declared_inlined. Clang never writes these values.
    pub(super) declared_inline: bool,
    /// True if the origin is a declaration (DW_AT_specification), which may be in another unit.
    pub(super) by_specification: bool,
}

/// A subprogram that has code.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawCopy {
    /// The subprogram's entry: index in the unit's [`ScannedUnit::functions`].
    pub(super) function: u32,
    /// The start of the code.
    pub(super) address: u64,
    /// The length of the code in bytes; 0 without measuring.
    pub(super) bytes: u32,
}

/// A `DW_TAG_inlined_subroutine` in a subprogram that has code.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawInlined {
    /// The entry of the inlined function.
    pub(super) origin: SubprogramOrigin,
    /// The subprogram around the call: index in the unit's [`ScannedUnit::copies`].
    pub(super) holder: u32,
    /// The inlined call around this call: index in the unit's [`ScannedUnit::inlined`], or [`NONE`].
    pub(super) parent: u32,
    /// File index of the call.
    pub(super) file: u32,
    /// Line of the call.
    pub(super) line: u32,
    /// Column of the call; 0 if unknown.
    pub(super) column: u32,
    /// Bytes of code of the inlined call; 0 without measuring.
    pub(super) bytes: u32,
}

/// The facts of a unit.
#[derive(Debug, Default)]
pub(super) struct ScannedUnit {
    /// Offset in `.debug_info`.
    pub(super) start: u32,
    /// The unit's source.
    pub(super) name: FileName,
    /// The compiler.
    pub(super) producer: TextPlace,
    /// DWARF version.
    pub(super) version: u16,
    pub(super) functions: Vec<Die>,
    pub(super) copies: Vec<RawCopy>,
    pub(super) inlined: Vec<RawInlined>,
    /// The files of functions and calls, by file index.
    pub(super) files: Vec<(u32, FileName)>,
}

impl ScannedUnit {
    /// Returns the offsets in `.debug_info` of the entries of other units that this unit refers to.
    pub(super) fn refers_to(&self) -> impl Iterator<Item = u32> {
        let declared = self.functions.iter().map(|die| die.origin);
        declared.chain(self.inlined.iter().map(|call| call.origin)).filter_map(|origin| match origin {
            SubprogramOrigin::There(at) => Some(at),
            SubprogramOrigin::None | SubprogramOrigin::Here(_) => None,
        })
    }

    /// Returns the target of a reference, as an offset in `.debug_info`.
    pub(super) fn place_of(&self, origin: SubprogramOrigin) -> u32 {
        match origin {
            SubprogramOrigin::None => NONE,
            SubprogramOrigin::Here(index) => self.functions[index as usize].at,
            SubprogramOrigin::There(at) => at,
        }
    }

    /// Turns references to the unit's own entries into indices.
    pub(super) fn resolve(&mut self) {
        let all: Vec<u32> = self.functions.iter().map(|die| die.at).collect();
        let of_functions = self.functions.iter_mut().map(|die| &mut die.origin);
        for origin in of_functions.chain(self.inlined.iter_mut().map(|call| &mut call.origin)) {
            if let SubprogramOrigin::There(at) = origin
                && let Ok(index) = all.binary_search(at)
            {
                *origin = SubprogramOrigin::Here(index as u32);
            }
        }
    }
}
