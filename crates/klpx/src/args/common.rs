//! Arguments that several commands have.

use std::path::PathBuf;

use clap::{Args, ValueHint};

/// Which kernel is to be patched, and where its packages are looked for.
#[derive(Clone, Debug, Args)]
pub(crate) struct KernelArgs {
    /// The kernel to be patched; default: the build tree one stands in, else the running kernel
    #[arg(short, long, value_name = "RELEASE|running|VMLINUX", value_hint = ValueHint::AnyPath)]
    pub(crate) kernel: Option<String>,
    /// Look for the kernel's packages below this folder instead of /; may be repeated, the first that has a file wins
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) sysroot: Vec<PathBuf>,
    /// Download packages that are missing into the cache and unpack them there; nothing is installed
    #[arg(long)]
    pub(crate) fetch: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Where klpx keeps kernels between runs; default: klpx in the user's cache folder
    #[arg(long, value_name = "DIR", env = "KLPX_CACHE_DIR", value_hint = ValueHint::DirPath)]
    pub(crate) cache_dir: Option<PathBuf>,
    /// Say more: each changed function's reasons
    #[arg(short, long)]
    pub(crate) verbose: bool,
}
