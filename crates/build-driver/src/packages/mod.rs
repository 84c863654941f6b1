//! A kernel from its packages: which kernel is meant, where each of its files lies, and what is missing.
//!
//! Owns the search below `/` or other roots, and the facts about distributions. Never builds, never installs; downloads
//! only where the caller says so.

mod banner;
mod capability;
mod distribution;
mod fetch;
mod missing;
mod piece;
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
pub use missing::{Missing, Package, Shortage};
pub use piece::Piece;
pub use source::{Source, unpack};
pub use which::Selector;

pub use crate::toolchain::host::Lack;

use crate::process::Runner;
use crate::progress::Progress;
use crate::tree::SourceTree;

/// Files of a headers folder or build tree that pin the configuration, and whether each must be there. The first is
/// what people read, the second what make reads, the third what C reads, the fourth what Rust reads.
pub const PINNED: [(&str, bool); 4] = [
    (".config", true),
    ("include/config/auto.conf", true),
    ("include/generated/autoconf.h", true),
    ("include/generated/rustc_cfg", false),
];

/// What the user says about the kernel to be patched. The default is the running kernel, with everything looked for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Which kernel.
    pub kernel: Option<Selector>,
    /// Folders that stand for `/`, the first that has a file wins; empty for the machine's own `/`.
    pub sysroots: Vec<PathBuf>,
    /// The folder one stands in: a build tree there is taken when no kernel is named.
    pub here: Option<PathBuf>,
    /// The source: a tree or a tarball.
    pub source: Option<PathBuf>,
    /// The kernel's `O=` tree, or its headers folder.
    pub build_dir: Option<PathBuf>,
    /// The configuration.
    pub config: Option<PathBuf>,
    /// The kernel's image.
    pub vmlinux: Option<PathBuf>,
    /// The folder of its modules.
    pub modules: Option<PathBuf>,
    /// klpx's cache, when missing packages may be downloaded and unpacked there; `None` downloads nothing.
    pub fetch: Option<PathBuf>,
}

/// A file or folder, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Where it lies.
    pub path: PathBuf,
    /// Why this one was taken.
    pub from: Origin,
}

/// Why a file was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The user named it with this option.
    Option(&'static str),
    /// It lies in the kernel's own build tree.
    BuildTree,
    /// It lies where this package puts it.
    Package(String),
    /// It lies where such files are kept.
    Place,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Option(name) => f.write_str(name),
            Origin::BuildTree => f.write_str("build tree"),
            Origin::Package(name) => f.write_str(name),
            Origin::Place => f.write_str("usual place"),
        }
    }
}

/// What a search found of one kernel, whole or not.
#[derive(Clone, Debug)]
pub struct Survey {
    /// UTS_RELEASE: what `uname -r` prints.
    pub release: String,
    /// How the release was told.
    pub release_from: String,
    /// Whose kernel it is; `None` for a self-made one.
    pub distribution: Option<&'static Distribution>,
    /// The version of the kernel's package, as exactly as it is known.
    pub package: Option<String>,
    /// The version of its source, as the configuration states it.
    pub version: Option<String>,
    /// The version of the package that brought the source, when one did and it is known.
    pub source_package: Option<String>,
    /// What was found.
    pub found: BTreeMap<Piece, Located>,
    /// Files that were looked at and not taken, and why.
    pub passed_over: Vec<(PathBuf, String)>,
    /// What was checked only in part, and other things to know.
    pub notes: Vec<Note>,
    pub(crate) roots: String,
    /// Other kernels of which files are there.
    pub(crate) others: Vec<String>,
}

/// The files of a kernel that a livepatch is made for.
#[derive(Clone, Debug)]
pub struct KernelFiles {
    /// UTS_RELEASE: what `uname -r` prints, and what the module's vermagic must say. The source's Makefile may make
    /// another one; distributions give theirs to make as KERNELRELEASE.
    pub release: String,
    /// Whose kernel it is; `None` for a self-made one.
    pub distribution: Option<&'static Distribution>,
    /// The version of the kernel's package, as exactly as it is known.
    pub package: Option<String>,
    /// The version of its source, as the configuration states it.
    pub version: Option<String>,
    /// The configuration.
    pub config: Located,
    /// The headers folder or build tree that has the [`PINNED`] files. `None` when only a configuration was found.
    pub headers: Option<Located>,
    /// Module.symvers.
    pub symvers: Located,
    /// The kernel's image, with code and symbols.
    pub vmlinux: Located,
    /// The source: a tree or a tarball.
    pub source: Source,
    /// The version of the package that brought the source, when one did and it is known.
    pub source_package: Option<String>,
    /// The folder of the modules as they are loaded, compressed or not.
    pub modules: Option<Located>,
    /// The folder of the debug package's copies of the modules.
    pub debug_modules: Option<Located>,
    /// modules.order.
    pub modules_order: Option<Located>,
    /// modules.builtin.
    pub modules_builtin: Option<Located>,
    /// What was checked only in part, and other things to know.
    pub notes: Vec<Note>,
}

impl KernelFiles {
    /// The files that pin the configuration: the path inside a build tree, and where it lies now.
    pub fn pinned(&self) -> Vec<(&'static str, PathBuf)> {
        let Some(headers) = &self.headers else { return Vec::new() };
        let there = |&(name, _): &(&'static str, bool)| (name, headers.path.join(name));
        PINNED.iter().map(there).filter(|(_, path)| path.is_file()).collect()
    }

    /// Checks that a tree is this kernel's source, as exactly as the tree tells. A tarball is checked so once it is
    /// unpacked. Returns what could not be checked.
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
/// `klpx::kernel-incomplete` with everything that is missing; `klpx::release-mismatch`, `klpx::source-mismatch` and
/// `klpx::package-mismatch` when files are of different kernels.
pub fn find(wanted: &Wanted, runner: &Runner, progress: &dyn Progress) -> Result<KernelFiles> {
    let survey = survey(wanted, runner, progress)?;
    match survey.files() {
        Some(files) => Ok(files),
        None => Err(Shortage::of(&survey, runner)?.diagnosis(&survey).into()),
    }
}

/// Looks for a kernel's files, and downloads what is missing where [`Wanted::fetch`] allows it. What is missing after
/// that is no error here.
///
/// # Errors
/// When files are of different kernels, a named one is not there, or a download fails.
pub fn survey(wanted: &Wanted, runner: &Runner, progress: &dyn Progress) -> Result<Survey> {
    let first = search::search(wanted)?;
    let Some(cache) = wanted.fetch.as_ref().filter(|_| !first.is_complete()) else { return Ok(first) };
    // What was fetched comes first: it was asked for because what is installed does not do.
    let mut sysroots = fetch::fetch(&first, cache, runner, progress)?;
    match wanted.sysroots.is_empty() {
        true => sysroots.push(PathBuf::from("/")),
        false => sysroots.extend(wanted.sysroots.iter().cloned()),
    }
    search::search(&Wanted { sysroots, ..wanted.clone() })
}

impl Survey {
    /// True when nothing is missing that every livepatch needs.
    pub fn is_complete(&self) -> bool {
        self.missing().iter().all(|piece| !piece.is_required())
    }

    /// The pieces that were not found, of those that a build may need.
    pub fn missing(&self) -> Vec<Piece> {
        let needed = Piece::ALL.into_iter().filter(|&piece| piece != Piece::BootImage);
        needed.filter(|piece| !self.found.contains_key(piece)).collect()
    }

    /// The files, when nothing is missing that every livepatch needs.
    pub fn files(&self) -> Option<KernelFiles> {
        let take = |piece| self.found.get(&piece).cloned();
        Some(KernelFiles {
            release: self.release.clone(),
            distribution: self.distribution,
            package: self.package.clone(),
            version: self.version.clone(),
            config: take(Piece::Config)?,
            headers: take(Piece::Headers),
            symvers: take(Piece::Symvers)?,
            vmlinux: take(Piece::Vmlinux)?,
            source: Source::of(take(Piece::Source)?),
            source_package: self.source_package.clone(),
            modules: take(Piece::Modules),
            debug_modules: take(Piece::DebugModules),
            modules_order: take(Piece::ModulesOrder),
            modules_builtin: take(Piece::ModulesBuiltin),
            notes: self.notes.clone(),
        })
    }
}
