//! What a build is asked for.

use std::path::PathBuf;

use klpx_build_driver::packages::Wanted;
use klpx_thinlto::Level;

/// Patches, the kernel that they are for, and how the livepatch is to be.
#[derive(Clone, Debug)]
pub struct Request {
    /// Patch files, applied in this order.
    pub patches: Vec<PathBuf>,
    /// The livepatch's name, without `livepatch-`.
    pub name: String,
    /// Which kernel, and what the user says of its files.
    pub wanted: Wanted,
    /// The external module to be patched; `None` to patch the kernel.
    pub external: Option<External>,
    /// Parallel jobs; `None` for one for each processor.
    pub jobs: Option<usize>,
    /// make's LLVM variable; `None` for what the configuration says.
    pub llvm: Option<String>,
    /// make's CROSS_COMPILE variable; `None` for what the configuration says.
    pub cross_compile: Option<String>,
    /// Where workspaces lie.
    pub cache_dir: PathBuf,
    /// So many of a hunk's outer context lines may differ: 0, 1 or 2.
    pub fuzz: u8,
    /// How far the patched build may be brought nearer to the original.
    pub level: Level,
    /// Types whose layout may change, and `__init` functions that may come out otherwise: a person has reviewed them.
    pub allow_layouts: Vec<String>,
    /// Whether livepatches that are loaded already are replaced.
    pub replace: bool,
    /// Whether the objects of this run are kept.
    pub keep_work: bool,
}

/// An external module that is to be patched.
#[derive(Clone, Debug)]
pub struct External {
    /// The folder whose Kbuild or Makefile has it.
    pub source: PathBuf,
    /// The module as it is loaded, compressed or not.
    pub file: PathBuf,
}
