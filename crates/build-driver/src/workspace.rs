//! The private workspace of one kernel under the cache directory: its layout, its lock, its baseline. Never writes
//! outside the cache directory.
//!
//! ```text
//! <cache>/kernels/<key>.lock     held while a klpx (or a compiler it started) works in the workspace
//! <cache>/kernels/<key>/
//!     klpx.json       what the workspace is of, when it was last used
//!     src/            private copy of the source; original at rest
//!     build/          the O= tree of both builds; no object of a patched source at rest
//!     group           the process group of the last child
//!     building        there while the original build runs: what build/ holds may be half-written
//!     baseline/       what the original build gave; complete or not there
//!     patch.journal   there while src/ is patched (journal.rs)
//!     saved/          originals of what a patch touches, while it does
//!     links/          how kbuild would link vmlinux.o and modules' objects (ThinLTO; links.rs)
//!     thinlto/        what is known of these links and of their units
//!     bin/            what stands in for the linker
//!     template/       a module that kbuild made, and how it did (template.rs)
//!     work/           results of patched builds
//! ```

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use klpx_diagnosis::{Class, Diagnosis, Failure, Result};
use serde::{Deserialize, Serialize};

use crate::accepted;
use crate::cache::{self, Info};
use crate::config::Config;
use crate::contents::{Contents, Hashes};
use crate::kernel::{FORMAT, Kernel};
use crate::make::{Built, Make};
use crate::patched::WorkDir;
use crate::process::{self, Runner};
use crate::progress::Progress;
use crate::tree::Entry;
use crate::{copy, host, journal, patched};

/// Targets of both builds: they stop before the final link of vmlinux, kallsyms and BTF.
pub(crate) const TARGETS: [&str; 3] = ["vmlinux_o", "modules", "KBUILD_MODPOST_NOFINAL=1"];

/// A locked workspace. Dropping it lets the next klpx in.
#[derive(Debug)]
pub struct Workspace {
    pub(crate) dir: PathBuf,
    pub(crate) kernel: Kernel,
    pub(crate) runner: Runner,
}

/// A module and its object before the final link: relocatable, native code, after objtool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Module {
    /// The name the kernel has for it, such as `raid1`.
    pub name: String,
    /// The object's path in the build tree, such as `drivers/md/raid1.o`.
    pub object_rel: PathBuf,
    /// Where the object is now.
    pub object: PathBuf,
}

/// What the original build gave.
#[derive(Clone, Debug)]
pub struct Baseline {
    /// The folder all of it lies in.
    pub dir: PathBuf,
    /// The workspace's key.
    pub key: String,
    /// What `uname -r` says in the kernel.
    pub release: String,
    /// All of vmlinux, relocatable, after objtool.
    pub vmlinux_o: PathBuf,
    /// Every module, sorted by name.
    pub modules: Vec<Module>,
    /// Exports and their checksums.
    pub symvers: PathBuf,
    /// Translation units of the kernel that were compiled for it.
    pub units: u64,
    /// True when it was there already.
    pub cached: bool,
}

/// `baseline/manifest.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    key: String,
    release: String,
    units: u64,
    vmlinux_o_size: u64,
    /// Object path in the build tree and size.
    modules: Vec<(String, u64)>,
}

impl Workspace {
    /// Takes the workspace of a kernel; waits when another klpx has it, and says so. Puts right what a killed klpx
    /// left.
    ///
    /// # Errors
    /// The cache directory can't be written, or klpx is interrupted while it waits.
    pub fn open(kernel: &Kernel, progress: &dyn Progress) -> Result<Workspace> {
        let kernels = kernel.cache_dir().join("kernels");
        std::fs::create_dir_all(&kernels).map_err(|error| Diagnosis::io("create", &kernels, &error))?;
        let kernels = kernels.canonicalize().map_err(|error| Diagnosis::io("open", &kernels, &error))?;
        let dir = kernels.join(kernel.key());
        let lock = lock(&dir, kernel.runner(), progress)?;
        std::fs::create_dir_all(&dir).map_err(|error| Diagnosis::io("create", &dir, &error))?;
        let runner = kernel.runner().holding(Arc::new(lock), dir.join("group"));
        let workspace = Workspace { dir, kernel: kernel.clone(), runner };
        workspace.recover(progress)?;
        Info::of(kernel).save(&workspace.dir)?;
        Ok(workspace)
    }

    /// The folder of the workspace.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The private source copy. The paths in debug information begin with it.
    pub fn source_dir(&self) -> PathBuf {
        self.dir.join("src")
    }

    /// The private `O=` tree.
    pub fn build_dir(&self) -> PathBuf {
        self.dir.join("build")
    }

    /// A new folder for what is made of a patch.
    ///
    /// # Errors
    /// It can't be made.
    pub fn work_dir(&self) -> Result<WorkDir> {
        WorkDir::create(&self.dir)
    }

    /// Starts processes that hold the workspace's lock.
    pub fn runner(&self) -> &Runner {
        &self.runner
    }

    /// The kernel it is of.
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// The original build: what is there, or else a build that takes minutes.
    ///
    /// # Errors
    /// The machine lacks something, the source does not build, the configuration does not fit it, an interrupt.
    pub fn baseline(&self, progress: &dyn Progress) -> Result<Baseline> {
        if let Some(baseline) = self.finished_baseline() {
            return Ok(baseline);
        }
        let (config, toolchain) = (self.kernel.config(), self.kernel.toolchain());
        host::check_build_tools(host::Make::Kernel, config, toolchain, &self.runner)?;
        self.copy_source(progress)?;
        if !self.build_dir().join("vmlinux.a").exists() {
            host::check_space(&self.dir, host::estimate(config))?;
        }
        self.configure(progress)?;
        progress.step("building the original kernel");
        let built = self.make_original(progress)?;
        progress.step("keeping the original objects");
        self.keep_baseline(built.units)?;
        match self.finished_baseline() {
            Some(baseline) => Ok(Baseline { cached: false, ..baseline }),
            None => Err(Diagnosis::new(
                "klpx::internal",
                Class::Internal,
                "the baseline is incomplete after its build",
            )
            .into()),
        }
    }

    /// Brings the build tree up to date with the original source. Something on the machine that kbuild looks at has
    /// changed, a library of a host program for instance; what a patched build made anew because of it is gone with the
    /// patch, and each further patch would pay for it again.
    pub(crate) fn refresh(&self, progress: &dyn Progress) -> Result<()> {
        progress.note("the build tree was out of date; it is made again for the next patch");
        self.make_original(progress).map(|_| ())
    }

    /// Runs make over the original source, in a way that the next run knows of when this one is killed.
    fn make_original(&self, progress: &dyn Progress) -> Result<Built> {
        let marker = self.dir.join("building");
        copy::write_durably(&marker, b"")?;
        let built = self.with_make(|make| {
            let built = make.run(&TARGETS, progress, None)?;
            if built.success { Ok(built) } else { Err(original_does_not_build(make, &built)) }
        });
        if !self.runner.killed() {
            // make and all it started have ended by themselves, and they remove half-written targets.
            remove_file(&marker)?;
        }
        built
    }

    /// A baseline that was finished earlier.
    pub fn finished_baseline(&self) -> Option<Baseline> {
        let dir = self.dir.join("baseline");
        let text = std::fs::read(dir.join("manifest.json")).ok()?;
        let manifest: Manifest = serde_json::from_slice(&text).ok()?;
        if manifest.format != FORMAT || manifest.key != self.kernel.key() {
            return None;
        }
        let whole = |path: &Path, size: u64| path.metadata().is_ok_and(|meta| meta.len() == size);
        let vmlinux_o = dir.join("vmlinux.o");
        if !whole(&vmlinux_o, manifest.vmlinux_o_size) {
            return None;
        }
        let mut modules = Vec::new();
        for (path, size) in &manifest.modules {
            let module = module(&dir, Path::new(path));
            if !whole(&module.object, *size) {
                return None;
            }
            modules.push(module);
        }
        modules.sort();
        Some(Baseline {
            symvers: dir.join("Module.symvers"),
            vmlinux_o,
            modules,
            dir,
            key: manifest.key,
            release: manifest.release,
            units: manifest.units,
            cached: true,
        })
    }

    /// Calls `work` with a make for this workspace.
    pub(crate) fn with_make<T>(&self, work: impl FnOnce(&Make<'_>) -> Result<T>) -> Result<T> {
        let (src, build) = (self.source_dir(), self.build_dir());
        let ld = self.linker()?;
        work(&Make {
            kernel: &self.kernel,
            runner: &self.runner,
            src: &src,
            build: &build,
            ld: ld.as_deref(),
            record: None,
        })
    }

    /// Puts right what a klpx that was killed left here.
    fn recover(&self, progress: &dyn Progress) -> Result<()> {
        for name in ["src.tmp", "baseline.tmp"] {
            remove_dir(&self.dir.join(name))?;
        }
        patched::sweep_work(&self.dir)?;
        if journal::recover(&self.dir)? {
            progress.note("a run that was killed had left the workspace patched; it is restored");
        }
        if self.dir.join("building").exists() {
            progress.note("an original build that was killed is started anew");
            remove_file(&self.dir.join("prepared.json"))?;
            remove_dir(&self.dir.join("links"))?;
            remove_dir(&self.build_dir())?;
            remove_file(&self.dir.join("building"))?;
        }
        Ok(())
    }

    pub(crate) fn copy_source(&self, progress: &dyn Progress) -> Result<()> {
        let src = self.source_dir();
        if src.exists() {
            return Ok(());
        }
        let files = self.kernel.files();
        progress.step(&format!("copying the source ({} files)", files.len()));
        let bytes: u64 = files.iter().map(Entry::size).sum();
        let built = match self.kernel.is_of_units() {
            true => host::UNITS,
            false => host::estimate(self.kernel.config()),
        };
        host::check_space(&self.dir, bytes + built)?;
        let temporary = self.dir.join("src.tmp");
        let cache_dir = self.kernel.cache_dir();
        let donors = self.donors();
        let hashes = Contents::hashes(cache_dir, self.kernel.contents().identity());
        let root = self.kernel.source().root();
        // A tree that klpx unpacked is klpx's own.
        let own = cache_dir.canonicalize().is_ok_and(|cache| root.starts_with(cache));
        let donor = |entry: &Entry| {
            if own {
                return Some(root.join(&entry.path));
            }
            let hash = hashes.get(&entry.path)?;
            let donor = donors.iter().find(|donor| donor.hashes.get(&entry.path) == Some(hash))?;
            Some(donor.src.join(&entry.path))
        };
        copy::tree(root, files, &temporary, &donor)?;
        std::fs::rename(&temporary, &src).map_err(|error| Diagnosis::io("create", &src, &error))?;
        Ok(())
    }

    /// The source copies of other kernels that are at rest, with the hashes of their files. Each one stays at rest
    /// while its lock is held here.
    fn donors(&self) -> Vec<Donor> {
        let mut donors = Vec::new();
        for item in cache::list(self.kernel.cache_dir()).unwrap_or_default() {
            let (src, Some(info)) = (item.dir.join("src"), item.info) else { continue };
            if item.dir == self.dir || !src.is_dir() {
                continue;
            }
            let Ok(lock) = File::options().read(true).write(true).open(item.dir.with_extension("lock"))
            else {
                continue;
            };
            if lock.try_lock().is_err() || item.dir.join("patch.journal").exists() {
                continue;
            }
            sign(&lock);
            let hashes = Contents::hashes(self.kernel.cache_dir(), &info.contents);
            donors.push(Donor { src, hashes, _lock: lock });
        }
        donors
    }

    /// Puts the configuration in place and lets Kconfig read it; it must not change.
    pub(crate) fn configure(&self, progress: &dyn Progress) -> Result<()> {
        progress.step("checking the configuration");
        let build = self.build_dir();
        std::fs::create_dir_all(&build).map_err(|error| Diagnosis::io("create", &build, &error))?;
        let path = build.join(".config");
        let wanted = self.kernel.config();
        write_if_other(&path, wanted.text())?;
        for (name, text) in self.kernel.local_files() {
            write_if_other(&build.join(name), text)?;
        }
        self.with_make(|make| {
            let built = make.run(&["olddefconfig"], &(), None)?;
            if built.success { Ok(()) } else { Err(original_does_not_build(make, &built)) }
        })?;
        let differences = accepted::differences(wanted, &Config::read(&path)?).into_iter();
        let matters = differences.filter(|difference| difference.accepted.is_none());
        let differences: Vec<String> = matters.map(|difference| difference.to_string()).collect();
        if differences.is_empty() {
            return Ok(());
        }
        let _ = std::fs::remove_file(&path);
        let what = "the configuration does not fit this source and these tools";
        Err(Diagnosis::new("klpx::config-changed", Class::Build, what)
            .why("Kconfig gives other values to the symbols below, so that the build would be of another kernel")
            .remedy("use the source that the configuration was made with, and install what its options need (BTF: pahole)")
            .detail(differences)
            .into())
    }

    /// Copies what the original build gave to `baseline/`, which is complete from the moment it has that name.
    fn keep_baseline(&self, units: u64) -> Result<()> {
        let (build, dir) = (self.build_dir(), self.dir.join("baseline.tmp"));
        remove_dir(&dir)?;
        remove_dir(&self.dir.join("baseline"))?;
        let release = self.built_release()?;
        for name in ["vmlinux.o", "Module.symvers", "modules.order", ".config"] {
            keep(&build, &dir, Path::new(name))?;
        }
        let mut modules = Vec::new();
        for path in module_objects(&build)? {
            let size = keep(&build, &dir, &path)?;
            modules.push((path.to_string_lossy().into_owned(), size));
        }
        let vmlinux_o_size = dir.join("vmlinux.o").metadata().map_or(0, |meta| meta.len());
        let key = self.kernel.key().to_owned();
        let manifest = Manifest { format: FORMAT, key, release, units, vmlinux_o_size, modules };
        let text = serde_json::to_vec_pretty(&manifest).map_err(|error| internal(&error.to_string()))?;
        sync_file_system(&dir);
        copy::write_durably(&dir.join("manifest.json"), &text)?;
        let target = self.dir.join("baseline");
        std::fs::rename(&dir, &target).map_err(|error| Diagnosis::io("create", &target, &error))?;
        Ok(())
    }

    /// The release that was built; it must be that of the kernel to be patched.
    fn built_release(&self) -> Result<String> {
        let path = self.build_dir().join("include/config/kernel.release");
        let text = std::fs::read_to_string(&path).map_err(|error| Diagnosis::io("read", &path, &error))?;
        let (release, wanted) = (text.trim(), self.kernel.release());
        if release == wanted {
            return Ok(release.to_owned());
        }
        Err(Diagnosis::new(
            "klpx::release-mismatch",
            Class::Build,
            format!("the build is of Linux {release}, not {wanted}"),
        )
        .why("a livepatch's vermagic must be that of the running kernel")
        .into())
    }
}

/// A script in a folder, which is there as a whole or not at all.
pub(crate) fn program(dir: &Path, name: &str, text: &str) -> Result<PathBuf> {
    std::fs::create_dir_all(dir).map_err(|error| Diagnosis::io("create", dir, &error))?;
    let path = dir.join(name);
    if std::fs::read_to_string(&path).is_ok_and(|old| old == text) {
        return Ok(path);
    }
    let temporary = dir.join(format!("{name}.new"));
    std::fs::write(&temporary, text).map_err(|error| Diagnosis::io("write", &temporary, &error))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&temporary, mode).map_err(|error| Diagnosis::io("write", &temporary, &error))?;
    std::fs::rename(&temporary, &path).map_err(|error| Diagnosis::io("write", &path, &error))?;
    Ok(path)
}

/// Takes a workspace's lock, or waits for it. The lock file holds the number of the process that has it.
fn lock(dir: &Path, runner: &Runner, progress: &dyn Progress) -> Result<File> {
    let path = dir.with_extension("lock");
    let fail = |error: &std::io::Error| Failure::from(Diagnosis::io("lock", &path, error));
    let mut options = File::options();
    let file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|error| fail(&error))?;
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(error)) => return Err(fail(&error)),
            Err(TryLockError::WouldBlock) => {}
        }
        let holder: Option<i32> =
            std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
        if holder.is_some_and(|pid| !process::is_alive(pid)) {
            // It was killed, and what it started still works here.
            process::end_orphans(&dir.join("group"), dir);
        } else if !told {
            let pid = holder.map_or(String::new(), |pid| format!(" (pid {pid})"));
            progress.step(&format!("waiting for another klpx{pid}"));
            told = true;
        }
        if runner.stopped() {
            return Err(process::interrupted());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    sign(&file);
    Ok(file)
}

/// Writes this process's number into a lock file that it holds, for messages of those who wait.
fn sign(file: &File) {
    let _ = file.set_len(0);
    let _ = std::io::Write::write_all(&mut &*file, std::process::id().to_string().as_bytes());
}

/// Another kernel's private copy of its source, whose files a new copy may share.
struct Donor {
    src: PathBuf,
    hashes: Hashes,
    _lock: File,
}

pub(crate) fn original_does_not_build(make: &Make<'_>, built: &Built) -> Failure {
    make.failure(
        built,
        "klpx::original-source-does-not-build",
        "the unpatched kernel source does not build",
        "build it by hand with the same configuration and tools to see whether it does",
    )
}

/// The objects of all modules, from modules.order (which names `.ko` up to 6.1, `.o` later).
pub(crate) fn module_objects(build: &Path) -> Result<Vec<PathBuf>> {
    let path = build.join("modules.order");
    let text = std::fs::read_to_string(&path).map_err(|error| Diagnosis::io("read", &path, &error))?;
    Ok(text.lines().filter(|line| !line.is_empty()).map(|line| Path::new(line).with_extension("o")).collect())
}

/// The module whose object lies at `rel` under `dir`.
pub(crate) fn module(dir: &Path, rel: &Path) -> Module {
    let stem = rel.file_stem().unwrap_or_default().to_string_lossy();
    Module { name: stem.replace('-', "_"), object_rel: rel.to_owned(), object: dir.join(rel) }
}

/// Copies one file of the build tree, its path kept; its size.
fn keep(build: &Path, dir: &Path, rel: &Path) -> Result<u64> {
    let (from, to) = (build.join(rel), dir.join(rel));
    let parent = to.parent().unwrap_or(dir);
    std::fs::create_dir_all(parent).map_err(|error| Diagnosis::io("create", parent, &error))?;
    copy::file(&from, &to, false).map_err(|error| Diagnosis::io("copy", &from, &error))?;
    Ok(to.metadata().map_err(|error| Diagnosis::io("read", &to, &error))?.len())
}

fn write_if_other(path: &Path, text: &str) -> Result<()> {
    if std::fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(());
    }
    std::fs::write(path, text).map_err(|error| Diagnosis::io("write", path, &error).into())
}

/// Flushes what was written to the file system of `dir`, so that a manifest never outlives the files it lists.
fn sync_file_system(dir: &Path) {
    if let Ok(file) = File::open(dir) {
        // SAFETY: a plain system call on an open descriptor.
        unsafe { libc::syncfs(std::os::fd::AsRawFd::as_raw_fd(&file)) };
    }
}

pub(crate) fn internal(why: &str) -> Failure {
    Diagnosis::new("klpx::internal", Class::Internal, "a fault in klpx").why(why).into()
}

/// Removes a folder; one that is not there is no error.
pub(crate) fn remove_dir(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Diagnosis::io("remove", path, &error).into())
        }
        _ => Ok(()),
    }
}

/// Removes a file; one that is not there is no error.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Diagnosis::io("remove", path, &error).into())
        }
        _ => Ok(()),
    }
}

/// Seconds since the epoch.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
