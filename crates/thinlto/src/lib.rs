//! Which native code of a ThinLTO kernel depends on a patch, and native code of both sides of it.
//!
//! A ThinLTO kernel's native code is made per unit, from the unit's bitcode and from what the thin link decides for it.
//! So no more of the kernel is compiled than the patch reaches: the units that it touches, and those that the thin link
//! tells something else than before ([`prepare()`]). The patched side is chosen among valid compilations of the patched
//! source, near to the original:
//! touched units keep the names of their promoted locals and ask for no imports that the original did not ask for
//! (freeze.rs), and LLVM's inliner decides again as it did for the original, wherever nothing that it looked at has
//! changed (attempt).
//!
//! A kernel that Clang compiled without LTO has no link and one run of the inliner for each unit ([`single`]).
//!
//! Nothing here says what changed: that is for the comparison of the finished objects.

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
pub use link::{Input, Link};
pub use prepare::{Added, Made, Pair, Touched, prepare};
pub use unit::{Overlays, Side, Unit, write_overlay};

/// How far the patched build may be brought nearer to the original; each level holds the ones before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The patched source as the compiler takes it.
    #[default]
    Off,
    /// Units that import from a touched one only what is the same to the letter are left alone.
    Names,
    /// Touched units import nothing new.
    Imports,
    /// The inliner decides as for the original where that is still valid.
    Inlining,
}

/// What came of bringing one object of the kernel nearer by its inlining.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The object, as a path in the build tree.
    pub object: PathBuf,
    /// Functions of the touched units that differ in the plain build; none when the attempt did not get so far.
    pub plain: usize,
    /// The same in what was taken.
    pub taken: usize,
    /// Why the plain build was taken. `None` when it was not.
    pub given_up: Option<String>,
}
