//! One kernel before any build: source, configuration, architecture, tools, release, identity.

pub mod accepted;
pub(crate) mod contents;
mod pinned;
mod release;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use klpx_diagnosis::{Diagnosis, Note, Result, codes};

use crate::arch::KernelArch;
use crate::config::{self, Config};
use crate::consistent::lists::UnitLists;
use crate::given::{Given, profile};
use crate::kernel::contents::Contents;
use crate::kernel::pinned::Pinned;
use crate::kernel::release::{localversion_files, release};
use crate::language::MakeWord;
use crate::process::Runner;
use crate::toolchain::{self, CompilerFamily, Lto, Toolchain, Wishes};
use crate::tree::{SourceFile, SourceTree, Version};

pub(crate) use pinned::{PINNED_FILES, PINNED_RUST};

/// The version of the workspace format. It changes when workspaces of an earlier klpx become unusable.
pub(crate) const FORMAT: u32 = 6;

/// The origin of the sections. The comparison needs one section for each function and each datum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SectionOrigin {
    /// The LTO link makes the sections itself. [`SECTION_FLAGS`] would change nothing in bitcode.
    FromLink,
    /// [`SECTION_FLAGS`] in every compilation. They change nothing in the code except the lengths of branches.
    Everywhere,
    /// [`SECTION_FLAGS`] only in compilations that are compared with each other. The flags change the code, so objects
    /// that are compared with the kernel are compiled without them.
    WhereCompared,
}

/// The compiler flags for one section for each function and each datum.
pub(crate) const SECTION_FLAGS: &str = "-ffunction-sections -fdata-sections";

/// The user's request.
#[derive(Clone, Debug, Default)]
pub struct KernelOptions {
    /// The kernel source tree.
    pub source: PathBuf,
    /// The `O=` tree of the kernel to be patched. `None` for the source tree.
    pub build_dir: Option<PathBuf>,
    /// The configuration. `None` for the build tree's `.config`.
    pub config: Option<PathBuf>,
    /// Parallel jobs. `None` for one job per processor.
    pub jobs: Option<usize>,
    /// make's LLVM variable: empty or `1`, a suffix such as `-22`, or a folder with a trailing slash.
    pub llvm: Option<String>,
    /// make's CROSS_COMPILE variable.
    pub cross_compile: Option<String>,
    /// Further make variables of the kernel's build.
    pub given: Given,
    /// A folder with Kconfig's output for the configuration: `.config`, `include/config/auto.conf` and
    /// `include/generated/autoconf.h`, from a build tree or a headers package. `None` for the build tree. If its
    /// `.config` differs from the configuration, Kconfig reads the configuration again.
    pub pinned: Option<PathBuf>,
    /// The release of the kernel, as `uname -r` prints it (UTS_RELEASE). `None` for the release that the build tree
    /// records.
    pub release: Option<String>,
    /// The folder of `klpx inline-check --consistent` whose lists the kernel was built with. `None` for the folder that
    /// the build tree records.
    pub lists: Option<PathBuf>,
    /// The folder of the workspaces.
    pub cache_dir: PathBuf,
}

/// A kernel that can be livepatched, judged by its source, its configuration and the installed tools.
#[derive(Clone, Debug)]
pub struct PatchableKernel {
    source: SourceTree,
    files: Vec<SourceFile>,
    config: Config,
    arch: KernelArch,
    toolchain: Toolchain,
    given: Given,
    notes: Vec<Note>,
    release: MakeWord,
    local_version: MakeWord,
    local_files: Vec<(String, String)>,
    pinned: Option<Pinned>,
    lists: Option<Arc<UnitLists>>,
    contents: Contents,
    jobs: usize,
    cache_dir: PathBuf,
    key: String,
    runner: Runner,
}

impl PatchableKernel {
    /// Examines everything that needs no build.
    ///
    /// # Errors
    /// An unusable tree, a configuration that rules out livepatches, tools that are not the kernel's tools.
    pub fn open(options: &KernelOptions) -> Result<PatchableKernel> {
        let runner = Runner::new();
        let source = SourceTree::open(&options.source)?;
        let build_dir = match &options.build_dir {
            Some(dir) => canonical_dir(dir)?,
            None => source.root().to_owned(),
        };
        let config = Config::read(&options.config.clone().unwrap_or_else(|| build_dir.join(".config")))?;
        let pinned = Pinned::find(canonical_dir(options.pinned.as_deref().unwrap_or(&build_dir))?, &config)?;
        let arch = KernelArch::of(&config)?;
        config::check(&config, arch, source.version())?;
        let wishes = Wishes { llvm: options.llvm.as_deref(), cross: options.cross_compile.as_deref() };
        let toolchain = toolchain::choose(&config, arch, &wishes, &runner)?;
        let mut given = options.given.clone();
        let notes = profile::complete(&mut given, &config, &build_dir)?;
        let lists = options.lists.clone().or_else(|| UnitLists::of_tree(&build_dir));
        let lists = lists.map(|dir| UnitLists::read(&dir, toolchain.compiler)).transpose()?;
        let local_files =
            if build_dir == source.root() { Vec::new() } else { localversion_files(&build_dir) };
        // Units get the release by a variable. A whole build computes the release, and the result must be the same.
        let (release, local_version) = match &options.release {
            Some(release) if toolchain.lto == Lto::None => (release.clone(), String::new()),
            _ => release(&source, &build_dir, &config, &local_files)?,
        };
        outside_of(&options.cache_dir, &[source.root(), &build_dir])?;
        MakeWord::path(&std::path::absolute(&options.cache_dir).unwrap_or_default())?;
        let (release, local_version) = (MakeWord::release(&release)?, MakeWord::release(&local_version)?);
        let files = source.files()?;
        let contents = Contents::identify(&options.cache_dir, source.root(), &files)?;
        let parts = Parts {
            contents: &contents,
            config: &config,
            arch,
            toolchain: &toolchain,
            given: &given,
            release: &release,
            local_files: &local_files,
            pinned: pinned.as_ref(),
            lists: lists.as_ref(),
        };
        let key = parts.key();
        Ok(PatchableKernel {
            source,
            files,
            config,
            arch,
            toolchain,
            given,
            notes,
            release,
            local_version,
            local_files,
            pinned,
            lists: lists.map(Arc::new),
            contents,
            jobs: options
                .jobs
                .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
                .max(1),
            cache_dir: options.cache_dir.clone(),
            key,
            runner,
        })
    }

    /// The user's source tree.
    pub fn source(&self) -> &SourceTree {
        &self.source
    }

    /// The source's version.
    pub fn version(&self) -> &Version {
        self.source.version()
    }

    /// The release of the kernel, as `uname -r` prints it.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The architecture.
    pub fn arch(&self) -> KernelArch {
        self.arch
    }

    /// The compiler and the linker.
    pub fn toolchain(&self) -> &Toolchain {
        &self.toolchain
    }

    /// The make variables of the kernel's build, from the user and from the build tree's records.
    pub fn given(&self) -> &Given {
        &self.given
    }

    /// Notes about the kernel.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// The workspace's key: 12 hexadecimal digits of the hash of source, configuration, tools and make variables.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The number of units with a list of functions that are never inlined or always inlined. `None` for a kernel that
    /// was built without lists.
    pub fn units_with_lists(&self) -> Option<usize> {
        self.lists().map(UnitLists::len)
    }

    /// One line for people, such as `Linux 7.2.13 x86_64 · clang 22.1.8 ThinLTO`.
    pub fn describe(&self) -> String {
        format!("Linux {} {} · {}", self.release, self.arch.name(), self.toolchain.describe())
    }

    /// The runner of child processes.
    pub fn runner(&self) -> &Runner {
        &self.runner
    }

    pub(crate) fn files(&self) -> &[SourceFile] {
        &self.files
    }

    /// The number of parallel jobs.
    pub fn jobs(&self) -> usize {
        self.jobs
    }

    pub(crate) fn cache_dir(&self) -> &Path {
        &self.cache_dir
    }

    /// The release, checked for make.
    pub(crate) fn release_word(&self) -> &MakeWord {
        &self.release
    }

    pub(crate) fn local_version(&self) -> &MakeWord {
        &self.local_version
    }

    pub(crate) fn local_files(&self) -> &[(String, String)] {
        &self.local_files
    }

    /// The folder whose configuration is used unchanged.
    pub(crate) fn pinned(&self) -> Option<&Path> {
        self.pinned.as_ref().map(|pinned| pinned.dir.as_path())
    }

    /// The lists that the kernel was built with.
    pub(crate) fn lists(&self) -> Option<&UnitLists> {
        self.lists.as_deref()
    }

    pub(crate) fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Returns true if klpx compiles only single units for a patch: without LTO the touched units, with ThinLTO the
    /// units that the thin link names. Full LTO makes one unit of all units. The backends of distributed ThinLTO are
    /// compiler runs that klpx does not know.
    pub fn is_of_units(&self) -> bool {
        self.toolchain.lto == Lto::None || self.is_thin()
    }

    /// Returns true if the linker makes native code unit by unit, in one process.
    pub fn is_thin(&self) -> bool {
        self.toolchain.lto == Lto::Thin && self.toolchain.lld && !self.config.is("LTO_CLANG_THIN_DIST")
    }

    /// The origin of the sections of compared objects. `SECTION_FLAGS` also fit ThinLTO: the backends of distributed
    /// ThinLTO are compiler runs, and a ThinLTO kernel has units that are not compiled for LTO. The flags do not change
    /// bitcode.
    pub(crate) fn sections(&self) -> SectionOrigin {
        if self.toolchain.lto == Lto::Full {
            SectionOrigin::FromLink
        } else if self.toolchain.compiler == CompilerFamily::Gcc && self.arch.gcc_anchors_data() {
            SectionOrigin::WhereCompared
        } else {
            SectionOrigin::Everywhere
        }
    }
}

/// Refuses a cache inside the user's trees. klpx never writes there, and a source that contains its own copy would grow
/// without end. A tree inside the cache is fine: klpx unpacked it.
fn outside_of(cache: &Path, trees: &[&Path]) -> Result<()> {
    let existing = cache.ancestors().find_map(|dir| dir.canonicalize().ok());
    let lies_in = |tree: &&&Path| existing.as_ref().is_some_and(|dir| dir.starts_with(tree));
    let Some(tree) = trees.iter().find(lies_in) else { return Ok(()) };
    let what = format!("the cache {} lies in {}", cache.display(), tree.display());
    Err(Diagnosis::new(
        &codes::CACHE_IN_TREE,
        what,
        "klpx never writes to the kernel's source and build tree",
        "name a folder outside of them with --cache-dir",
    )
    .into())
}

fn canonical_dir(dir: &Path) -> Result<PathBuf> {
    dir.canonicalize().map_err(|error| {
        let what = format!("can't open the build tree {}", dir.display());
        Diagnosis::new(
            &codes::BUILD_DIR_MISSING,
            what,
            error.to_string(),
            "name the kernel's O= tree with --build-dir",
        )
        .into()
    })
}

/// The parts of a kernel's identity.
struct Parts<'a> {
    contents: &'a Contents,
    config: &'a Config,
    arch: KernelArch,
    toolchain: &'a Toolchain,
    given: &'a Given,
    release: &'a str,
    local_files: &'a [(String, String)],
    pinned: Option<&'a Pinned>,
    lists: Option<&'a UnitLists>,
}

impl Parts<'_> {
    fn key(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        part(&FORMAT.to_le_bytes());
        part(self.contents.identity().as_bytes());
        part(self.config.text().as_bytes());
        part(self.arch.name().as_bytes());
        part(self.toolchain.identity().as_bytes());
        part(self.release.as_bytes());
        for (name, text) in self.local_files {
            part(name.as_bytes());
            part(text.as_bytes());
        }
        part(self.pinned.map_or(&[][..], |pinned| pinned.hash.as_bytes()));
        let given = self.given.identity();
        if !given.is_empty() {
            part(&given);
        }
        if let Some(lists) = self.lists {
            part(lists.identity().as_bytes());
        }
        hasher.finalize().to_hex().as_str()[..12].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_in_the_users_trees_is_refused() {
        let dir = tempfile::tempdir().expect("dir");
        let root = dir.path().canonicalize().expect("path");
        let cache = root.join("cache");
        let failure = outside_of(&cache, &[Path::new("/nonexistent"), &root]).expect_err("refused");
        assert_eq!(failure.diagnoses().next().expect("one").code, "klpx::cache-in-tree");
        assert!(!cache.exists());
        outside_of(&cache, &[&cache.join("unpacked/1"), Path::new("/nonexistent")]).expect("outside");
    }
}
