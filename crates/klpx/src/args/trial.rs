//! The arguments of `klpx test`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::build::BuildArgs;
use super::common::KernelArgs;

#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// Livepatch module; it is tried on the kernel that its vermagic names
    #[arg(value_name = "FILE.ko", value_hint = ValueHint::FilePath)]
    pub(crate) module: PathBuf,
    #[command(flatten)]
    pub(crate) which: KernelArgs,
    /// Build tree (O=) of the kernel
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) build_dir: Option<PathBuf>,
    /// The kernel's boot image; default: from its packages or build tree
    #[arg(long, value_name = "VMLINUZ", value_hint = ValueHint::FilePath)]
    pub(crate) image: Option<PathBuf>,
    /// The kernel's modules; default: the build tree's, or those in /lib/modules/RELEASE
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) modules: Option<PathBuf>,
    /// A static busybox for the guest; default: the one that is installed
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) busybox: Option<PathBuf>,
    /// An earlier livepatch: the module takes its place while it is loaded
    #[arg(long, value_name = "OLD.ko", value_hint = ValueHint::FilePath)]
    pub(crate) previous: Option<PathBuf>,
    /// A command and what it prints before the livepatch is loaded, a pattern of the shell; may be repeated
    #[arg(long, value_name = "COMMAND => OUTPUT")]
    pub(crate) before: Vec<klpx_guest::Expectation>,
    /// The same while the livepatch is loaded
    #[arg(long, value_name = "COMMAND => OUTPUT")]
    pub(crate) after: Vec<klpx_guest::Expectation>,
    /// A script for busybox's shell that runs while the livepatch is loaded; each check is a line: check WHAT EXPECTED
    /// ACTUAL, or pass WHAT, or fail WHAT
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) script: Option<PathBuf>,
    /// Keep the guest's console in this file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) log: Option<PathBuf>,
    /// Where klpx keeps kernels between runs; default: klpx in the user's cache folder
    #[arg(long, value_name = "DIR", env = "KLPX_CACHE_DIR", value_hint = ValueHint::DirPath)]
    pub(crate) cache_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl TestArgs {
    /// The trial of a module that was built just now, for the kernel that the build was for.
    pub(crate) fn of_built(build: &BuildArgs, module: PathBuf) -> TestArgs {
        TestArgs {
            module,
            which: build.which.clone(),
            build_dir: build.build_dir.clone(),
            image: None,
            modules: build.modules.clone(),
            busybox: None,
            previous: None,
            before: Vec::new(),
            after: Vec::new(),
            script: None,
            log: None,
            cache_dir: build.common.cache_dir.clone(),
            json: false,
        }
    }
}
