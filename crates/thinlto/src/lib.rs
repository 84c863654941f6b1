//! Finds the native code of a ThinLTO kernel that depends on a patch, and compiles it from both sources.
//!
//! A ThinLTO kernel's native code is made per unit, from the unit's bitcode and from the thin link's decisions for the
//! unit. So only what the patch reaches is compiled: the touched units, and the units for which the thin link decides
//! differently than before ([`prepare()`]). The patched side is chosen among valid compilations of the patched source,
//! near to the original: touched units keep the names of their promoted locals and request no imports that the original
//! did not request (freeze.rs), and LLVM's inliner decides again as for the original, wherever nothing that it looked
//! at has changed (attempt).
//!
//! A kernel that Clang compiled without LTO has no such link, and runs the inliner once per unit ([`single`]).
//!
//! This crate does not say what changed: the comparison of the finished objects does.
//!
//! # Reading order
//!
//! [`Link`] is one link of the kernel with its inputs. [`prepare()`] takes [`TouchedObject`]s and returns an [`ObjectResult`]: a
//! [`NativePair`] for each unit that the patch reaches. [`Level`] says how far the patched side may be brought nearer,
//! and [`ReplayOutcome`] what came of it. [`llvm`] reads bitcode, its summaries and the inliner's remarks.

mod attempt;
mod context;
mod declare;
mod differing;
mod files;
mod freeze;
mod link;
mod linker;
pub mod llvm;
mod moved;
mod originals;
mod prepare;
mod sameness;
mod sides;
pub mod single;
#[cfg(test)]
mod testing;
mod unit;
mod view;

use std::path::PathBuf;

use serde::Serialize;

pub use context::Context;
pub use link::{Link, LinkInput};
pub use prepare::{Added, NativePair, ObjectResult, PatchContext, TouchedObject, prepare};
pub use unit::{Overlays, SourceSide, UnitCommands, write_overlay};

/// How far the patched build may be brought nearer to the original. Each level includes the ones before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The patched source as the compiler compiles it. In a ThinLTO link, touched units still keep their originals'
    /// hashes.
    #[default]
    Off,
    /// Units are left alone if everything that they can import from touched units is the same to the letter.
    Names,
    /// Touched units import nothing new.
    Imports,
    /// The inliner decides as for the original where this is still valid.
    Inlining,
}

/// The outcome of replaying the original's inlining for one kernel object or unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayOutcome {
    /// The object, as a path in the build tree.
    pub object: PathBuf,
    /// Functions of the touched units that differ in the plain build.
    pub plain: usize,
    /// Functions of the touched units that differ in the chosen build.
    pub taken: usize,
    /// Why the plain build was taken; `None` if the replayed build was taken.
    pub given_up: Option<String>,
}
