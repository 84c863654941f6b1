//! What instructions do to addresses in registers, and where calls lead: enough to read call arguments that are
//! constants.

use crate::image::Location;

/// The effect of an instruction on constants in registers, and its calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// A register holds this constant from now on.
    Set(u8, u64),
    /// The first register holds the second one's value plus this number.
    Add(u8, u8, u64),
    /// A register holds an unknown value from now on.
    Lose(u8),
    /// A call, with its target if the instruction gives one.
    Call(Option<Location>),
    /// The next instruction is not reached from here: a jump, with its target if the instruction gives one, or a
    /// return.
    Leave(Option<Location>),
}

/// Finds the relocation in a range of addresses: its place, and its target including the addend.
pub(crate) type Relocated<'a> = &'a dyn Fn(u64, u64) -> Option<(u64, Location)>;
