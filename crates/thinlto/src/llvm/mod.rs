//! What LLVM decided for the original that it may decide again for the patched source: identity of functions in LLVM
//! IR, the inliner's remarks and the records that its replay advisor reads, and what a unit asks the thin link to
//! import.
//!
//! Pure functions of texts and bytes. Starts no process, never judges what changed in the kernel's code.

pub(crate) mod bitcode;
mod bitstream;
pub(crate) mod ir;
pub(crate) mod native;
pub(crate) mod remarks;
pub(crate) mod replay;
pub(crate) mod summary;
