//! The request for a build.

use std::path::PathBuf;

use klpx_build_driver::Given;
use klpx_build_driver::language::ModinfoLine;
use klpx_build_driver::packages::WantedKernel;
use klpx_diagnosis::words::hexadecimal;
use klpx_thinlto::Level;

use crate::sign::Signing;

/// The patches, the kernel that they are for, and the properties of the livepatch.
#[derive(Clone, Debug)]
pub struct Request {
    /// Patch files, applied in this order.
    pub patches: Vec<PathBuf>,
    /// The livepatch's name, without `livepatch-`.
    pub name: String,
    /// The wanted kernel, and what the user says about its files.
    pub wanted: WantedKernel,
    /// The external module to be patched; `None` to patch the kernel.
    pub external: Option<ExternalModule>,
    /// The number of parallel jobs; `None` for one per processor.
    pub jobs: Option<usize>,
    /// make's LLVM variable; `None` for what the configuration says.
    pub llvm: Option<String>,
    /// make's CROSS_COMPILE variable; `None` for what the configuration says.
    pub cross_compile: Option<String>,
    /// Further variables that were given to the kernel's make.
    pub given: Given,
    /// The folder of `klpx inline-check --consistent` with whose lists the kernel was built; `None` for what the build
    /// tree records.
    pub lists: Option<PathBuf>,
    /// The folder of the workspaces.
    pub cache_dir: PathBuf,
    /// How many of a hunk's outer context lines may differ: 0, 1 or 2.
    pub fuzz: u8,
    /// How near the patched build may be brought to the original.
    pub level: Level,
    /// Types whose layout may change, and `__init` functions whose code may change, because a person has reviewed them.
    pub allow_layouts: Vec<String>,
    /// What the module says about itself.
    pub info: ModuleInfo,
    /// The key and certificate that sign the module; `None` for no signature.
    pub signing: Option<Signing>,
    /// Whether the livepatch replaces those that are already loaded.
    pub replace: bool,
    /// Whether the results contain the patches' texts and the code of both builds.
    pub with_code: bool,
    /// Whether the objects of this run are kept.
    pub keep_work: bool,
}

/// What a module says about itself, for modinfo and for tools that list a host's livepatches.
#[derive(Clone, Debug, Default)]
pub struct ModuleInfo {
    /// The purpose of the livepatch.
    pub description: Option<ModinfoLine>,
    /// The livepatch's version.
    pub version: Option<ModinfoLine>,
    /// The vulnerabilities that the livepatch fixes.
    pub cves: Vec<ModinfoLine>,
}

impl ModuleInfo {
    /// The records of `.modinfo`, for a kernel with this build ID.
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
pub struct ExternalModule {
    /// The folder whose Kbuild or Makefile builds the module.
    pub source: PathBuf,
    /// The module as it is loaded, compressed or not.
    pub file: PathBuf,
}
