//! What goes into the module: changed functions, and everything they need that the kernel to be patched does not have.
//!
//! Owns only the choice. Never writes, never looks up a name. A reference is classified twice by the same rules: here,
//! to see what it pulls in, and when the object is written, to see where it leads.

mod direct;
mod globals;
mod pieces;
mod referents;
mod refusals;
mod selection;

pub use pieces::{Callback, Piece, PieceEntry};
pub(crate) use pieces::{place_of, place_of_piece};
pub use referents::{Closure, Reference, ReferenceOrigin, Referent};
pub use selection::select;
