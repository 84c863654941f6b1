//! What LLVM decided for the original that it may decide again for the patched source: identity of functions in LLVM
//! IR, the inliner's remarks and the records that its replay advisor reads, and what a unit asks the thin link to
//! import.
//!
//! Pure functions of texts and bytes. Starts no process, never judges what changed in the kernel's code.

pub mod bitcode;
mod bitstream;
pub mod ir;
pub mod native;
pub mod remarks;
pub(crate) mod replay;
pub mod summary;
