//! What a build is asked for.

use std::path::PathBuf;

use klpx_build_driver::Given;
use klpx_build_driver::language::ModinfoLine;
use klpx_build_driver::packages::Wanted;
use klpx_thinlto::Level;

use crate::inputs::hexadecimal;
use crate::sign::Signing;

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
    /// Further variables that the kernel's make was given.
    pub given: Given,
    /// The folder of `klpx inline-check --consistent` whose lists the kernel was built with; `None` for what the build tree
    /// records.
    pub lists: Option<PathBuf>,
    /// Where workspaces lie.
    pub cache_dir: PathBuf,
    /// So many of a hunk's outer context lines may differ: 0, 1 or 2.
    pub fuzz: u8,
    /// How far the patched build may be brought nearer to the original.
    pub level: Level,
    /// Types whose layout may change, and `__init` functions that may come out otherwise: a person has reviewed them.
    pub allow_layouts: Vec<String>,
    /// What the module says of itself.
    pub info: Info,
    /// What the module is signed with; `None` for no signature.
    pub signing: Option<Signing>,
    /// Whether livepatches that are loaded already are replaced.
    pub replace: bool,
    /// Whether the results are to hold the patches' texts and the code of both builds.
    pub with_code: bool,
    /// Whether the objects of this run are kept.
    pub keep_work: bool,
}

/// What a module says of itself, for modinfo and for whoever asks a host what is loaded.
#[derive(Clone, Debug, Default)]
pub struct Info {
    /// What the livepatch is for.
    pub description: Option<ModinfoLine>,
    /// Its version.
    pub version: Option<ModinfoLine>,
    /// Vulnerabilities that it mends.
    pub cves: Vec<ModinfoLine>,
}

impl Info {
    /// The records of `.modinfo`, for a kernel of this build ID.
    pub(crate) fn records(&self, build_id: Option<&[u8]>) -> Vec<(&'static str, String)> {
        let description = self.description.as_deref().unwrap_or("livepatch made by klpx");
        let mut records = vec![("description", description.to_owned())];
        records.extend(self.version.as_deref().map(|version| ("version", version.to_owned())));
        records.extend(self.cves.iter().map(|cve| ("cve", (**cve).to_owned())));
        records.push(("klpx", env!("CARGO_PKG_VERSION").to_owned()));
        records.extend(build_id.map(|id| ("kernel_build_id", hexadecimal(id))));
        records
    }
}

/// An external module that is to be patched.
#[derive(Clone, Debug)]
pub struct External {
    /// The folder whose Kbuild or Makefile has it.
    pub source: PathBuf,
    /// The module as it is loaded, compressed or not.
    pub file: PathBuf,
}
