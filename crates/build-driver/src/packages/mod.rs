//! A kernel from its packages: which kernel the user means, where each of its files is, and which files are missing.
//!
//! Owns the search below `/` or other roots, and the facts about distributions. Never builds, never installs. Downloads
//! only if the caller asks for downloads.

mod banner;
mod capability;
mod distribution;
mod fetch;
mod missing;
mod pattern;
mod piece;
mod places;
mod roots;
mod search;
mod source;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod which;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use klpx_diagnosis::{Note, Result};

pub use capability::{Capability, ToolWishes, capability};
pub use distribution::{DISTRIBUTIONS, Distribution};
pub use missing::{MissingPiece, NeededPackage, Shortage};
pub use piece::KernelPiece;
pub use source::{KernelSource, unpack};
pub use which::Selector;

pub use crate::toolchain::host::Lack;

use crate::process::Runner;
use crate::progress::Progress;
use crate::tree::SourceTree;

/// Files of a headers folder or build tree that pin the configuration, and whether each is required. Readers, in this
/// order: people, make, C code, Rust code.
pub const PINNED: [(&str, bool); 4] = [
    (".config", true),
    ("include/config/auto.conf", true),
    ("include/generated/autoconf.h", true),
    ("include/generated/rustc_cfg", false),
];

/// The user's description of the kernel to be patched. The default is the running kernel, with a search for every file.
#[derive(Clone, Debug, Default)]
pub struct WantedKernel {
    /// The kernel.
    pub kernel: Option<Selector>,
    /// Folders that stand for `/`. The first folder that has a file wins. Empty for the machine's own `/`.
    pub sysroots: Vec<PathBuf>,
    /// The current folder. If it is a build tree and no kernel is named, it is used.
    pub here: Option<PathBuf>,
    /// The source: a tree or a tarball.
    pub source: Option<PathBuf>,
    /// The kernel's `O=` tree, or its headers folder.
    pub build_dir: Option<PathBuf>,
    /// The configuration.
    pub config: Option<PathBuf>,
    /// The kernel's image.
    pub vmlinux: Option<PathBuf>,
    /// The folder of the kernel's modules.
    pub modules: Option<PathBuf>,
    /// klpx's cache, if missing packages may be downloaded and unpacked there. `None` forbids downloads.
    pub fetch: Option<PathBuf>,
}

/// A file or folder, and its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// The path.
    pub path: PathBuf,
    /// Why klpx chose this path.
    pub from: FileOrigin,
}

/// Why klpx chose a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileOrigin {
    /// The user named the file with this option.
    Option(&'static str),
    /// The file is in the kernel's own build tree.
    BuildTree,
    /// The file is at the place where this package installs it.
    Package(String),
    /// The file is at a usual place.
    Place,
}

impl fmt::Display for FileOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileOrigin::Option(name) => f.write_str(name),
            FileOrigin::BuildTree => f.write_str("build tree"),
            FileOrigin::Package(name) => f.write_str(name),
            FileOrigin::Place => f.write_str("usual place"),
        }
    }
}

/// The result of a search for one kernel, complete or not.
#[derive(Clone, Debug)]
pub struct KernelSearch {
    /// UTS_RELEASE: what `uname -r` prints.
    pub release: String,
    /// The source of the release, for people.
    pub release_from: String,
    /// The kernel's distribution. `None` for a self-made kernel.
    pub distribution: Option<&'static Distribution>,
    /// The version of the kernel's package, as exactly as known.
    pub package: Option<String>,
    /// The version of the kernel's source, from the configuration.
    pub version: Option<String>,
    /// The version of the package that installed the source, if known.
    pub source_package: Option<String>,
    /// The pieces that were found.
    pub found: BTreeMap<KernelPiece, Located>,
    /// Files that were examined and rejected, with the reason.
    pub passed_over: Vec<(PathBuf, String)>,
    /// Checks that were incomplete, and other notes.
    pub notes: Vec<Note>,
    pub(crate) roots: String,
    /// Other kernels with files below the roots.
    pub(crate) others: Vec<String>,
}

/// The files of a kernel that a livepatch is made for.
#[derive(Clone, Debug)]
pub struct KernelFiles {
    /// UTS_RELEASE: what `uname -r` prints, and what the module's vermagic must contain. The source's Makefile may give
    /// another release; distributions pass theirs to make as KERNELRELEASE.
    pub release: String,
    /// The kernel's distribution. `None` for a self-made kernel.
    pub distribution: Option<&'static Distribution>,
    /// The version of the kernel's package, as exactly as known.
    pub package: Option<String>,
    /// The version of the kernel's source, from the configuration.
    pub version: Option<String>,
    /// The configuration.
    pub config: Located,
    /// The headers folder or build tree with the [`PINNED`] files. `None` if only a configuration was found.
    pub headers: Option<Located>,
    /// Module.symvers.
    pub symvers: Located,
    /// The kernel's image, with code and symbols.
    pub vmlinux: Located,
    /// The source: a tree or a tarball.
    pub source: KernelSource,
    /// The version of the package that installed the source, if known.
    pub source_package: Option<String>,
    /// The folder of the loadable modules, compressed or not.
    pub modules: Option<Located>,
    /// The folder of the debug package's module copies.
    pub debug_modules: Option<Located>,
    /// modules.order.
    pub modules_order: Option<Located>,
    /// modules.builtin.
    pub modules_builtin: Option<Located>,
    /// Checks that were incomplete, and other notes.
    pub notes: Vec<Note>,
}

impl KernelFiles {
    /// The files that pin the configuration: the path in a build tree, and the present path.
    pub fn pinned(&self) -> Vec<(&'static str, PathBuf)> {
        let Some(headers) = &self.headers else { return Vec::new() };
        let there = |&(name, _): &(&'static str, bool)| (name, headers.path.join(name));
        PINNED.iter().map(there).filter(|(_, path)| path.is_file()).collect()
    }

    /// Checks that a tree is this kernel's source, as exactly as the tree allows. A tarball is checked by this function
    /// after it is unpacked. Returns notes on what could not be checked.
    ///
    /// # Errors
    /// `klpx::source-mismatch`.
    pub fn check_source(&self, tree: &SourceTree) -> Result<Vec<Note>> {
        let kernel = source::Expected {
            release: &self.release,
            version: self.version.as_deref(),
            package: self.package.as_deref(),
        };
        source::check_tree(&kernel, tree, self.source_package.as_deref())
    }
}

/// Finds a kernel's files.
///
/// # Errors
/// `klpx::kernel-incomplete` with everything that is missing. `klpx::release-mismatch`, `klpx::source-mismatch` and
/// `klpx::package-mismatch` if files belong to different kernels.
pub fn find(wanted: &WantedKernel, runner: &Runner, progress: &dyn Progress) -> Result<KernelFiles> {
    let survey = survey(wanted, runner, progress)?;
    match survey.files() {
        Some(files) => Ok(files),
        None => Err(Shortage::find(&survey, runner)?.diagnosis(&survey).into()),
    }
}

/// Searches for a kernel's files, and downloads missing packages if [`WantedKernel::fetch`] allows downloads. Files that are
/// still missing afterwards are no error here.
///
/// # Errors
/// If files belong to different kernels, a named file is missing, or a download fails.
pub fn survey(wanted: &WantedKernel, runner: &Runner, progress: &dyn Progress) -> Result<KernelSearch> {
    let first = search::search(wanted)?;
    let Some(cache) = wanted.fetch.as_ref().filter(|_| !first.is_complete()) else { return Ok(first) };
    // Fetched packages come first: klpx fetched them because the installed files did not suffice.
    let mut sysroots = fetch::fetch(&first, cache, runner, progress)?;
    match wanted.sysroots.is_empty() {
        true => sysroots.push(PathBuf::from("/")),
        false => sysroots.extend(wanted.sysroots.iter().cloned()),
    }
    search::search(&WantedKernel { sysroots, ..wanted.clone() })
}

impl KernelSearch {
    /// Returns true if every piece that all livepatches need was found.
    pub fn is_complete(&self) -> bool {
        self.missing().iter().all(|piece| !piece.is_required())
    }

    /// The missing pieces, among those that a build may need.
    pub fn missing(&self) -> Vec<KernelPiece> {
        let needed = KernelPiece::ALL.into_iter().filter(|&piece| piece != KernelPiece::BootImage);
        needed.filter(|piece| !self.found.contains_key(piece)).collect()
    }

    /// The files, if every piece that all livepatches need was found.
    pub fn files(&self) -> Option<KernelFiles> {
        let take = |piece| self.found.get(&piece).cloned();
        Some(KernelFiles {
            release: self.release.clone(),
            distribution: self.distribution,
            package: self.package.clone(),
            version: self.version.clone(),
            config: take(KernelPiece::Config)?,
            headers: take(KernelPiece::Headers),
            symvers: take(KernelPiece::Symvers)?,
            vmlinux: take(KernelPiece::Vmlinux)?,
            source: KernelSource::new(take(KernelPiece::Source)?),
            source_package: self.source_package.clone(),
            modules: take(KernelPiece::Modules),
            debug_modules: take(KernelPiece::DebugModules),
            modules_order: take(KernelPiece::ModulesOrder),
            modules_builtin: take(KernelPiece::ModulesBuiltin),
            notes: self.notes.clone(),
        })
    }
}
