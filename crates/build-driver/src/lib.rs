//! Builds kernels for klpx: the original and the patched one, in a private workspace that is kept for the next patch.
//!
//! Owns the kernel tree, the workspace and its cache, the application of patches, and every child process. Never looks
//! inside an object file, never prints, never writes to the user's source or build tree.

mod apply;
pub mod cache;
pub mod config;
pub mod consistent;
mod copy;
mod external;
mod host;
mod journal;
mod kernel;
pub mod lines;
mod make;
pub mod patch;
mod patched;
pub mod process;
mod progress;
mod recorded;
mod remade;
pub mod stabilise;
mod toolchain;
pub mod tree;
mod workspace;

pub use apply::Prepared;
pub use config::{Arch, Config};
pub use external::ExternalModule;
pub use kernel::{Kernel, Options};
pub use patch::PatchSet;
pub use patched::{Pair, Patched};
pub use progress::Progress;
pub use recorded::Recorded;
pub use remade::{FrozenUnit, Remade};
pub use toolchain::{Compiler, Lto, Toolchain};
pub use tree::{SourceTree, Version};
pub use workspace::{Baseline, Module, Workspace};
