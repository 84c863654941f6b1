//! The arguments of `klpx build`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};
use klpx_build_driver::language::ModinfoLine;
use serde::Serialize;

use super::common::{Common, KernelArgs};
use crate::progress::ProgressForm;

#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// Patches, applied in this order with -p1
    #[arg(required = true, value_name = "PATCH", value_hint = ValueHint::FilePath)]
    pub(crate) patches: Vec<PathBuf>,
    /// Kernel source: a tree or a tarball; default: from the kernel's packages, or the tree one stands in
    #[arg(short, long, value_name = "DIR|TARBALL", value_hint = ValueHint::AnyPath)]
    pub(crate) source: Option<PathBuf>,
    /// Build tree (O=) or headers folder of the kernel to be patched; default: from the kernel's packages
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) build_dir: Option<PathBuf>,
    /// Kernel configuration; default: the build tree's .config
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    /// The kernel's vmlinux, with its symbols; default: the build tree's, or the debug package's
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) vmlinux: Option<PathBuf>,
    /// The kernel's modules; default: the build tree's, or those in /lib/modules/RELEASE
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) modules: Option<PathBuf>,
    /// Patch an external module: the folder of its source, whose Kbuild or Makefile builds it; needs --module
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, requires = "module")]
    pub(crate) module_source: Option<PathBuf>,
    /// The external module as it is loaded, compressed or not; needs --module-source
    #[arg(long, value_name = "FILE.ko", value_hint = ValueHint::FilePath, requires = "module_source")]
    pub(crate) module: Option<PathBuf>,
    /// Where the module goes; default: livepatch-NAME.ko in this folder
    #[arg(short, long, value_name = "FILE|DIR", value_hint = ValueHint::AnyPath)]
    pub(crate) output: Option<PathBuf>,
    /// Name of the livepatch; default: from the first patch's file name
    #[arg(short, long)]
    pub(crate) name: Option<String>,
    /// What the livepatch is for, as modinfo shows it
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<ModinfoLine>,
    /// Version of the livepatch, as modinfo shows it
    #[arg(long, value_name = "VERSION")]
    pub(crate) module_version: Option<ModinfoLine>,
    /// A vulnerability that the livepatch mends, as modinfo shows it; may be repeated
    #[arg(long, value_name = "CVE-ID")]
    pub(crate) cve: Vec<ModinfoLine>,
    /// Parallel jobs; default: one for each processor
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) jobs: Option<u16>,
    #[command(flatten)]
    pub(crate) signing: SigningArgs,
    /// Try the module in a guest, as klpx test does
    #[arg(long)]
    pub(crate) test: bool,
    /// Do not replace livepatches that are loaded already
    #[arg(long)]
    pub(crate) no_replace: bool,
    /// Accept that this type's layout changes, or what this __init function sets up, after a review; may be repeated
    #[arg(long, value_name = "TYPE|FUNCTION")]
    pub(crate) allow_layout: Vec<String>,
    /// Let a hunk apply when this many of its context lines differ
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) fuzz: u32,
    /// Build with LLVM, optionally of a suffix (`--llvm=-22`) or in a folder; default: as .config was made
    #[arg(long, value_name = "SUFFIX", num_args = 0..=1, require_equals = true, default_missing_value = "1")]
    pub(crate) llvm: Option<String>,
    /// Prefix of the cross tools; default: as .config was made
    #[arg(long, value_name = "PREFIX")]
    pub(crate) cross_compile: Option<String>,
    /// A variable of make with which the kernel was built, such as KCFLAGS=-march=x86-64-v3; files that the value names
    /// belong to the kernel; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) make: Vec<String>,
    /// Folder that klpx inline-check --consistent wrote, when the kernel was built with it; default: as the build tree
    /// records
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) consistent: Option<PathBuf>,
    /// Which decisions of the original the patched build keeps where they are still valid
    #[arg(long, value_enum, value_name = "LEVEL", default_value_t = LevelArg::Inlining)]
    pub(crate) stabilise: LevelArg,
    /// How progress is shown on standard error
    #[arg(long, value_enum, value_name = "FORM", default_value_t = ProgressForm::Text)]
    pub(crate) progress: ProgressForm,
    /// Write a report as JSON
    #[arg(long, value_name = "FILE.json", value_hint = ValueHint::FilePath)]
    pub(crate) report: Option<PathBuf>,
    /// Write a page for the person who approves the livepatch
    #[arg(long, value_name = "FILE.html", value_hint = ValueHint::FilePath)]
    pub(crate) page: Option<PathBuf>,
    /// Keep the objects of this run, and say where they are
    #[arg(long)]
    pub(crate) keep_work: bool,
    #[command(flatten)]
    pub(crate) which: KernelArgs,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// What a module is signed with.
#[derive(Debug, Args)]
pub(crate) struct SigningArgs {
    /// Sign the module with this private key, at last; KBUILD_SIGN_PIN holds its passphrase
    #[arg(long, value_name = "FILE|pkcs11:URI", requires = "sign_cert")]
    pub(crate) sign_key: Option<OsString>,
    /// The certificate of the key
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "sign_key")]
    pub(crate) sign_cert: Option<PathBuf>,
    /// Hash function of the signature; default: as the kernel's configuration has it
    #[arg(long, value_name = "NAME", requires = "sign_key")]
    pub(crate) sign_hash: Option<String>,
    /// Read the passphrase of the key from this open descriptor
    #[arg(long, value_name = "N", requires = "sign_key")]
    pub(crate) sign_pin_fd: Option<u32>,
}

/// Levels of the stabilised rebuild; each holds the ones before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LevelArg {
    /// The names of promoted locals (ThinLTO)
    Off,
    /// The code of units that import only functions that are the same to the letter (ThinLTO)
    Names,
    /// The imports of touched units: no new ones (ThinLTO)
    Imports,
    /// The inliner's decisions about functions that are the same in both sources (ThinLTO; Clang without LTO)
    Inlining,
}

impl From<LevelArg> for klpx_engine::Level {
    fn from(level: LevelArg) -> Self {
        match level {
            LevelArg::Off => Self::Off,
            LevelArg::Names => Self::Names,
            LevelArg::Imports => Self::Imports,
            LevelArg::Inlining => Self::Inlining,
        }
    }
}
