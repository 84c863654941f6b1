//! What LLVM decided for the original and may decide again for the patched source: the identity of functions in LLVM
//! IR, the inliner's remarks, the records that LLVM's replay advisor reads, and the imports that a unit requests from
//! the thin link.
//!
//! These are pure functions of texts and bytes. They start no process and never judge what changed in the kernel's
//! code.

pub mod bitcode;
mod bitstream;
pub mod ir;
pub mod native;
pub mod remarks;
pub(crate) mod replay;
pub mod summary;
