//! Builds kernels for klpx: the original and the patched kernel, in a private workspace that is kept for the next
//! patch.
//!
//! Owns the kernel tree, the workspace and its cache, the application of patches, and every child process. Never looks
//! inside an object file, never prints, never writes to the user's source or build tree.
//!
//! ```text
//! workspace              a kernel's private source and build tree, and the files that are made there for a patch
//! kbuild   patch         how kbuild makes units; the contents of a patch, and its application
//! packages kernel        where a kernel's files are; the identity of a kernel
//! given                  make variables from the command line of the kernel's build
//! toolchain              compilers and linkers, and the other needs of a build
//! process                child processes
//! ```
//!
//! # Reading order
//!
//! [`PatchSet`] is a patch that was read and whose targets are known. [`packages`] finds the files of an installed kernel, and
//! [`PatchableKernel`] is the kernel with its identity. [`Workspace`] holds the kernel's private tree: it makes a
//! [`Baseline`] only for a kernel that can't be compiled by units. [`TouchedUnits`] are the units that the patch changes,
//! [`UnitPairs`] their objects from both sources. [`Patched`] has the pairs of a kernel that was built as a whole.

mod arch;
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

pub use arch::KernelArch;
pub use config::Config;
pub use files::is_bitcode;
pub use given::Given;
pub use kbuild::UnitList;
pub use kbuild::recorded::RecordedCommands;
pub use kernel::{KernelOptions, PatchableKernel, accepted};
pub use parallel::each;
pub use patch::{AppliedPatch, LineEdit, PatchSet, PlacedHunk, lines};
pub use progress::Progress;
pub use toolchain::{CompilerFamily, Lto, Toolchain};
pub use tree::{SourceTree, Version};
pub use workspace::Workspace;
pub use workspace::baseline::{Baseline, BaselineModule};
pub use workspace::cache;
pub use workspace::external_source::{ExternalPair, ExternalPairs, ExternalSource};
pub use workspace::links::VMLINUX;
pub use workspace::patched::{ObjectPair, Patched};
pub use workspace::prepare::Ready;
pub use workspace::remade::Remade;
pub use workspace::template::{ModuleParts, ModuleText};
pub use workspace::touched::{TouchedUnit, TouchedUnits};
pub use workspace::units::{UnitPair, UnitPairs};
pub use workspace::work_dir::WorkDir;
