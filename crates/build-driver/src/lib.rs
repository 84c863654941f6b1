//! Builds kernels for klpx: the original and the patched one, in a private workspace that is kept for the next patch.
//!
//! Owns the kernel tree, the workspace and its cache, the application of patches, and every child process. Never looks
//! inside an object file, never prints, never writes to the user's source or build tree.

pub mod accepted;
mod apply;
pub mod cache;
pub mod config;
pub mod consistent;
mod contents;
mod copy;
mod environment;
mod external;
mod external_source;
mod host;
mod journal;
pub mod kbuild;
mod kernel;
pub mod lines;
mod links;
mod make;
pub mod packages;
mod parallel;
pub mod patch;
mod patched;
mod prepare;
mod preprocessed;
pub mod process;
mod progress;
mod recorded;
mod remade;
mod template;
mod toolchain;
mod touched;
pub mod tree;
mod units;
mod workspace;

pub use apply::Prepared;
pub use config::{Arch, Config};
pub use external_source::{ExternalPair, ExternalPairs, ExternalSource};
pub use kernel::{Kernel, Options};
pub use links::VMLINUX;
pub use parallel::each;
pub use patch::PatchSet;
pub use patched::{Pair, Patched, WorkDir};
pub use prepare::Ready;
pub use progress::Progress;
pub use recorded::Recorded;
pub use remade::Remade;
pub use template::{ModuleParts, ModuleText};
pub use toolchain::{Compiler, Lto, Toolchain};
pub use touched::{Touched, TouchedUnit};
pub use tree::{SourceTree, Version};
pub use units::{UnitPair, UnitPairs};
pub use workspace::{Baseline, Module, Workspace};
