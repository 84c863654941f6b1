//! What a build is asked for.

use std::path::PathBuf;

use klpx_build_driver::{Options, stabilise};

/// Patches, the kernel that they are for, and how the livepatch is to be.
#[derive(Clone, Debug)]
pub struct Request {
    /// Patch files, applied in this order.
    pub patches: Vec<PathBuf>,
    /// The livepatch's name, without `livepatch-`.
    pub name: String,
    /// Source, configuration and tools.
    pub options: Options,
    /// The kernel that will be patched, with its symbols; `None` for the build tree's.
    pub vmlinux: Option<PathBuf>,
    /// Exports of that kernel; `None` for the ones beside its vmlinux or in the build tree.
    pub symvers: Option<PathBuf>,
    /// Folders to look for its modules in, before those beside its vmlinux and in the build tree.
    pub modules: Vec<PathBuf>,
    /// So many of a hunk's outer context lines may differ: 0, 1 or 2.
    pub fuzz: u8,
    /// How far the patched build may be brought nearer to the original.
    pub level: stabilise::Level,
    /// Whether livepatches that are loaded already are replaced.
    pub replace: bool,
    /// Whether the objects of this run are kept.
    pub keep_work: bool,
}
