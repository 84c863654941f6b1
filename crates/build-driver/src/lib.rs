//! Builds kernels for klpx: the original and the patched one, in a private workspace that is kept for the next patch.
//!
//! Owns the kernel tree, the workspace and its cache, the application of patches, and every child process. Never looks
//! inside an object file, never prints, never writes to the user's source or build tree.
//!
//! ```text
//! workspace              a kernel's private source and build tree, and what is made there of a patch
//! kbuild   patch         how kbuild makes units; what a patch says, and its application
//! packages kernel        where a kernel's files are; which kernel that is
//! given                  variables of make that the kernel's build was given
//! toolchain              compilers and linkers, and what else a build needs of the machine
//! process                child processes
//! ```

pub mod config;
pub mod consistent;
mod files;
pub mod given;
pub mod kbuild;
mod kernel;
pub mod language;
mod own;
pub mod packages;
mod parallel;
pub mod patch;
pub mod process;
mod progress;
mod space;
mod toolchain;
pub mod tree;
mod workspace;

pub use config::{Arch, Config};
pub use given::Given;
pub use kbuild::UnitList;
pub use kbuild::recorded::Recorded;
pub use kernel::{Kernel, Options, accepted};
pub use parallel::each;
pub use patch::apply::{Line, Prepared};
pub use patch::{PatchSet, PlacedHunk, lines};
pub use progress::Progress;
pub use toolchain::{Compiler, Lto, Toolchain};
pub use tree::{SourceTree, Version};
pub use workspace::Workspace;
pub use workspace::baseline::{Baseline, Module};
pub use workspace::cache;
pub use workspace::external_source::{ExternalPair, ExternalPairs, ExternalSource};
pub use workspace::links::VMLINUX;
pub use workspace::patched::{Pair, Patched};
pub use workspace::prepare::Ready;
pub use workspace::remade::Remade;
pub use workspace::template::{ModuleParts, ModuleText};
pub use workspace::touched::{Touched, TouchedUnit};
pub use workspace::units::{UnitPair, UnitPairs};
pub use workspace::work_dir::WorkDir;
