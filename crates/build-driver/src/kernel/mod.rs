//! One kernel as klpx sees it before it builds anything: source, configuration, architecture, tools, release, identity.

pub mod accepted;
pub(crate) mod contents;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use klpx_diagnosis::{Class, Diagnosis, Note, Result};

use crate::config::{self, Arch, Config};
use crate::consistent::lists::Lists;
use crate::given::{Given, profile};
use crate::kernel::contents::Contents;
use crate::language::MakeWord;
use crate::process::Runner;
use crate::toolchain::{self, Compiler, Lto, Toolchain, Wishes};
use crate::tree::{Entry, SourceTree, Version};

/// Changes whenever workspaces of an earlier klpx can't be used any more.
pub(crate) const FORMAT: u32 = 5;

/// The comparison needs a section for each function and each datum. What gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sections {
    /// The LTO link, by itself; [`SECTION_FLAGS`] would change nothing in bitcode.
    FromLink,
    /// [`SECTION_FLAGS`] in every compilation. They change nothing in the code but lengths of branches.
    Everywhere,
    /// [`SECTION_FLAGS`] in compilations that are compared with each other only: the flags change the code, and what is
    /// compared with the kernel is compiled without them.
    WhereCompared,
}

/// The compiler's flags for a section for each function and each datum.
pub(crate) const SECTION_FLAGS: &str = "-ffunction-sections -fdata-sections";

/// What the user asks for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The kernel source tree.
    pub source: PathBuf,
    /// The `O=` tree of the kernel to be patched. Without it the source tree is taken.
    pub build_dir: Option<PathBuf>,
    /// The configuration. Without it the build tree's `.config`.
    pub config: Option<PathBuf>,
    /// Parallel jobs. Without it one for each processor.
    pub jobs: Option<usize>,
    /// make's LLVM variable: empty or `1`, a suffix such as `-22`, or a folder with a slash at its end.
    pub llvm: Option<String>,
    /// make's CROSS_COMPILE variable.
    pub cross_compile: Option<String>,
    /// Further variables that the kernel's make was given.
    pub given: Given,
    /// A folder that has what Kconfig made of the configuration: `.config`, `include/config/auto.conf` and
    /// `include/generated/autoconf.h`, of a build tree or of a headers package. Without it the build tree is looked at.
    /// When its `.config` is another one, Kconfig reads the configuration anew.
    pub pinned: Option<PathBuf>,
    /// What `uname -r` says in the kernel (UTS_RELEASE). Without it what the build tree records.
    pub release: Option<String>,
    /// The folder of `klpx inline-check --consistent` whose lists the kernel was built with. Without it what the build tree
    /// records.
    pub lists: Option<PathBuf>,
    /// Where workspaces lie.
    pub cache_dir: PathBuf,
}

/// A kernel that can be livepatched, as far as its source, configuration and the installed tools tell.
#[derive(Clone, Debug)]
pub struct Kernel {
    source: SourceTree,
    files: Vec<Entry>,
    config: Config,
    arch: Arch,
    toolchain: Toolchain,
    given: Given,
    notes: Vec<Note>,
    release: MakeWord,
    local_version: MakeWord,
    local_files: Vec<(String, String)>,
    pinned: Option<Pinned>,
    lists: Option<Arc<Lists>>,
    contents: Contents,
    jobs: usize,
    cache_dir: PathBuf,
    key: String,
    runner: Runner,
}

impl Kernel {
    /// Looks at everything that can be looked at without a build.
    ///
    /// # Errors
    /// An unusable tree, a configuration that rules livepatching out, tools that are not the kernel's.
    pub fn open(options: &Options) -> Result<Kernel> {
        let runner = Runner::new();
        let source = SourceTree::open(&options.source)?;
        let build_dir = match &options.build_dir {
            Some(dir) => canonical_dir(dir)?,
            None => source.root().to_owned(),
        };
        let config = Config::read(&options.config.clone().unwrap_or_else(|| build_dir.join(".config")))?;
        let pinned = Pinned::find(options.pinned.as_deref().unwrap_or(&build_dir), &config)?;
        let arch = Arch::of(&config)?;
        config::check(&config, arch, source.version())?;
        let wishes = Wishes { llvm: options.llvm.as_deref(), cross: options.cross_compile.as_deref() };
        let toolchain = toolchain::choose(&config, arch, &wishes, &runner)?;
        let mut given = options.given.clone();
        let notes = profile::complete(&mut given, &config, &build_dir)?;
        let lists = options.lists.clone().or_else(|| Lists::of_tree(&build_dir));
        let lists = lists.map(|dir| Lists::read(&dir, toolchain.compiler)).transpose()?;
        let local_files =
            if build_dir == source.root() { Vec::new() } else { localversion_files(&build_dir) };
        // Units get the release by a variable; a whole build makes it, and must make the same.
        let (release, local_version) = match &options.release {
            Some(release) if toolchain.lto == Lto::None => (release.clone(), String::new()),
            _ => release(&source, &build_dir, &config, &local_files)?,
        };
        outside_of(&options.cache_dir, &[source.root(), &build_dir])?;
        MakeWord::path(&std::path::absolute(&options.cache_dir).unwrap_or_default())?;
        let (release, local_version) = (MakeWord::release(&release)?, MakeWord::release(&local_version)?);
        let files = source.files()?;
        let contents = Contents::of(&options.cache_dir, source.root(), &files)?;
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
        Ok(Kernel {
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

    /// What `uname -r` says in that kernel.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The architecture.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// Compiler and linker.
    pub fn toolchain(&self) -> &Toolchain {
        &self.toolchain
    }

    /// Variables that the kernel's make was given: by the user, and by what the build tree records.
    pub fn given(&self) -> &Given {
        &self.given
    }

    /// Things to know of it that stop nothing.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// The workspace's key: 12 hexadecimal digits of the identity of source, configuration, tools and make variables.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// How many units have a list of functions that are inlined nowhere, or everywhere. `None` for a kernel that was built
    /// without lists.
    pub fn units_with_lists(&self) -> Option<usize> {
        self.lists().map(Lists::len)
    }

    /// One line for people, such as `Linux 7.2.13 x86_64 · clang 22.1.8 ThinLTO`.
    pub fn describe(&self) -> String {
        format!("Linux {} {} · {}", self.release, self.arch.name(), self.toolchain.describe())
    }

    /// Starts child processes.
    pub fn runner(&self) -> &Runner {
        &self.runner
    }

    pub(crate) fn files(&self) -> &[Entry] {
        &self.files
    }

    /// How many processes run at once.
    pub fn jobs(&self) -> usize {
        self.jobs
    }

    pub(crate) fn cache_dir(&self) -> &Path {
        &self.cache_dir
    }

    /// The release as make is told.
    pub(crate) fn release_word(&self) -> &MakeWord {
        &self.release
    }

    pub(crate) fn local_version(&self) -> &MakeWord {
        &self.local_version
    }

    pub(crate) fn local_files(&self) -> &[(String, String)] {
        &self.local_files
    }

    /// The folder whose configuration is taken as it is.
    pub(crate) fn pinned(&self) -> Option<&Path> {
        self.pinned.as_ref().map(|pinned| pinned.dir.as_path())
    }

    /// The lists that the kernel was built with.
    pub(crate) fn lists(&self) -> Option<&Lists> {
        self.lists.as_deref()
    }

    pub(crate) fn contents(&self) -> &Contents {
        &self.contents
    }

    /// True when a patch needs only single units: without LTO, and with ThinLTO those that the thin link names. Full LTO
    /// makes one unit of all, and the backends of distributed ThinLTO are runs of the compiler that klpx does not know.
    pub fn is_of_units(&self) -> bool {
        self.toolchain.lto == Lto::None || self.is_thin()
    }

    /// True when the linker makes native code unit by unit, in one process.
    pub fn is_thin(&self) -> bool {
        self.toolchain.lto == Lto::Thin && self.toolchain.lld && !self.config.is("LTO_CLANG_THIN_DIST")
    }

    /// Where the comparison's objects get their sections from. The backends of distributed ThinLTO are compiler runs, and a
    /// ThinLTO kernel has units that are not compiled for LTO; bitcode is the same with and without sections.
    pub(crate) fn sections(&self) -> Sections {
        if self.toolchain.lto == Lto::Full {
            Sections::FromLink
        } else if self.toolchain.compiler == Compiler::Gcc && self.arch.gcc_anchors_data() {
            Sections::WhereCompared
        } else {
            Sections::Everywhere
        }
    }
}

/// Refuses a cache in the user's trees: nothing is written there, and a source that holds its own copy has no end. The
/// other way is fine, for trees that klpx unpacked.
fn outside_of(cache: &Path, trees: &[&Path]) -> Result<()> {
    let existing = cache.ancestors().find_map(|dir| dir.canonicalize().ok());
    let lies_in = |tree: &&&Path| existing.as_ref().is_some_and(|dir| dir.starts_with(tree));
    let Some(tree) = trees.iter().find(lies_in) else { return Ok(()) };
    let what = format!("the cache {} lies in {}", cache.display(), tree.display());
    Err(Diagnosis::new("klpx::cache-in-tree", Class::Usage, what)
        .why("klpx never writes to the kernel's source and build tree")
        .remedy("name a folder outside of them with --cache-dir")
        .into())
}

fn canonical_dir(dir: &Path) -> Result<PathBuf> {
    dir.canonicalize().map_err(|error| {
        let what = format!("can't open the build tree {}", dir.display());
        Diagnosis::new("klpx::build-dir-missing", Class::Build, what)
            .why(error.to_string())
            .remedy("name the kernel's O= tree with --build-dir")
            .into()
    })
}

/// The `localversion*` files of a folder, in the order scripts/setlocalversion reads them.
fn localversion_files(dir: &Path) -> Vec<(String, String)> {
    let Ok(listing) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut files: Vec<(String, String)> = listing
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok()?;
            let wanted = name.starts_with("localversion") && !name.contains('~');
            wanted.then(|| klpx_input::text(&entry.path()).ok().map(|text| (name, text)))?
        })
        .collect();
    files.sort();
    files
}

/// The release string of the kernel to be patched, and the LOCALVERSION that makes a rebuild come out the same.
fn release(
    source: &SourceTree,
    build_dir: &Path,
    config: &Config,
    local_files: &[(String, String)],
) -> Result<(String, String)> {
    let in_source = localversion_files(source.root());
    let mut base = source.version().to_string();
    for (_, text) in local_files.iter().chain(&in_source) {
        base.push_str(text.trim_end_matches('\n'));
    }
    base.push_str(config.value("LOCALVERSION").unwrap_or_default());
    let Some(release) = recorded_release(build_dir) else { return Ok((base, String::new())) };
    match release.strip_prefix(&base) {
        Some(rest) => Ok((release.clone(), rest.to_owned())),
        None => {
            let what = format!("the build tree is of Linux {release}, the source would build {base}");
            Err(Diagnosis::new("klpx::release-mismatch", Class::Build, what)
                .why("a livepatch's vermagic must be that of the running kernel")
                .remedy("name the source and the configuration that the build tree was made from")
                .into())
        }
    }
}

/// What a build tree says its release is.
fn recorded_release(build_dir: &Path) -> Option<String> {
    let line = klpx_input::text(&build_dir.join("include/config/kernel.release")).ok();
    if let Some(text) = line.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()) {
        return Some(text);
    }
    let header = klpx_input::text(&build_dir.join("include/generated/utsrelease.h")).ok()?;
    let (_, rest) = header.split_once("UTS_RELEASE \"")?;
    rest.split_once('"').map(|(release, _)| release.to_owned()).filter(|release| !release.is_empty())
}

/// Configuration that is taken as it is. Kconfig asks the machine's tools, and on a machine without pahole or rustc it
/// makes another configuration without a word.
#[derive(Clone, Debug)]
pub(crate) struct Pinned {
    /// The folder that has the files.
    pub(crate) dir: PathBuf,
    /// Hash of the files.
    hash: blake3::Hash,
}

/// What make reads of a configuration, and what C sees of it.
pub(crate) const PINNED_FILES: [&str; 3] =
    [".config", "include/config/auto.conf", "include/generated/autoconf.h"];
/// Of kernels with Rust: what rustc sees.
pub(crate) const PINNED_RUST: &str = "include/generated/rustc_cfg";

impl Pinned {
    /// The folder, when it is complete and of this configuration.
    fn find(dir: &Path, config: &Config) -> Result<Option<Pinned>> {
        let dir = canonical_dir(dir)?;
        let is_complete = PINNED_FILES.iter().all(|name| dir.join(name).is_file());
        if !is_complete || Config::read(&dir.join(PINNED_FILES[0]))? != *config {
            return Ok(None);
        }
        let mut hasher = blake3::Hasher::new();
        for name in PINNED_FILES {
            let path = dir.join(name);
            let text = klpx_input::bytes(&path).map_err(|error| Diagnosis::io("read", &path, &error))??;
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(&text);
        }
        Ok(Some(Pinned { dir, hash: hasher.finalize() }))
    }
}

/// What makes a kernel another kernel.
struct Parts<'a> {
    contents: &'a Contents,
    config: &'a Config,
    arch: Arch,
    toolchain: &'a Toolchain,
    given: &'a Given,
    release: &'a str,
    local_files: &'a [(String, String)],
    pinned: Option<&'a Pinned>,
    lists: Option<&'a Lists>,
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

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("dir");
        let files = [
            ("Makefile", "VERSION = 7\nPATCHLEVEL = 2\nSUBLEVEL = 13\nEXTRAVERSION =\n"),
            ("Kconfig", ""),
            ("scripts/Kbuild.include", ""),
            ("init/main.c", ""),
            ("include/linux/kernel.h", ""),
        ];
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
            std::fs::write(path, text).expect("write");
        }
        dir
    }

    #[test]
    fn the_local_version_makes_up_for_what_the_release_has_more() {
        let cases = [
            (None, "", "7.2.13", ""),
            (Some("7.2.13"), "", "7.2.13", ""),
            (Some("7.2.13+"), "", "7.2.13+", "+"),
            (Some("7.2.13-cfg-g1234"), "-cfg", "7.2.13-cfg-g1234", "-g1234"),
            (None, "-cfg", "7.2.13-cfg", ""),
        ];
        for (recorded, local, release_wanted, rest_wanted) in cases {
            let dir = tree();
            let build = tempfile::tempdir().expect("dir");
            if let Some(text) = recorded {
                std::fs::create_dir_all(build.path().join("include/config")).expect("mkdir");
                std::fs::write(build.path().join("include/config/kernel.release"), format!("{text}\n"))
                    .expect("write");
            }
            let config = Config::parse(&format!("CONFIG_LOCALVERSION=\"{local}\"\n"));
            let source = SourceTree::open(dir.path()).expect("tree");
            let got = release(&source, build.path(), &config, &[]).expect("release");
            assert_eq!(got, (release_wanted.to_owned(), rest_wanted.to_owned()));
        }
    }

    #[test]
    fn a_build_tree_of_another_source_is_refused() {
        let dir = tree();
        let build = tempfile::tempdir().expect("dir");
        std::fs::create_dir_all(build.path().join("include/generated")).expect("mkdir");
        std::fs::write(
            build.path().join("include/generated/utsrelease.h"),
            "#define UTS_RELEASE \"6.1.0-9-amd64\"\n",
        )
        .expect("write");
        let source = SourceTree::open(dir.path()).expect("tree");
        let failure = release(&source, build.path(), &Config::default(), &[]).expect_err("refused");
        assert_eq!(failure.diagnoses().next().expect("one").code, "klpx::release-mismatch");
    }

    #[test]
    fn a_cache_in_the_users_trees_is_refused() {
        let dir = tree();
        let root = dir.path().canonicalize().expect("path");
        let cache = root.join("cache");
        let failure = outside_of(&cache, &[Path::new("/nonexistent"), &root]).expect_err("refused");
        assert_eq!(failure.diagnoses().next().expect("one").code, "klpx::cache-in-tree");
        assert!(!cache.exists());
        outside_of(&cache, &[&cache.join("unpacked/1"), Path::new("/nonexistent")]).expect("outside");
    }

    #[test]
    fn localversion_files_count() {
        let dir = tree();
        std::fs::write(dir.path().join("localversion-rt"), "-rt5\n").expect("write");
        std::fs::write(dir.path().join("localversion-rt~"), "-old\n").expect("write");
        let source = SourceTree::open(dir.path()).expect("tree");
        let got = release(&source, Path::new("/nonexistent"), &Config::default(), &[]).expect("release");
        assert_eq!(got.0, "7.2.13-rt5");
    }
}
