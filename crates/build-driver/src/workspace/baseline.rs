//! The original build of a whole kernel, if single units can't be compiled (FullLTO, distributed ThinLTO, ThinLTO
//! without lld): its one big object, the modules, the exports.

use std::fs::File;
use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, Result, codes};
use serde::{Deserialize, Serialize};

use crate::files::{self, remove_dir, remove_file};
use crate::kbuild::make::{MakeResult, original_does_not_build};
use crate::kbuild::recorded::module_objects;
use crate::kernel::FORMAT;
use crate::progress::Progress;
use crate::space;
use crate::toolchain::host;
use crate::workspace::Workspace;

/// The targets of both builds. They stop before the final link of vmlinux, kallsyms and BTF.
pub(crate) const TARGETS: [&str; 3] = ["vmlinux_o", "modules", "KBUILD_MODPOST_NOFINAL=1"];

/// A module and its object before the final link: relocatable native code, after objtool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BaselineModule {
    /// The kernel's name of the module, such as `raid1`.
    pub name: String,
    /// The object's path in the build tree, such as `drivers/md/raid1.o`.
    pub object_rel: PathBuf,
    /// The present path of the object.
    pub object: PathBuf,
}

/// The results of the original build.
#[derive(Clone, Debug)]
pub struct Baseline {
    /// The folder of the results.
    pub dir: PathBuf,
    /// The workspace's key.
    pub key: String,
    /// The kernel's release, as `uname -r` prints it.
    pub release: String,
    /// The relocatable object of vmlinux, after objtool.
    pub vmlinux_o: PathBuf,
    /// Every module, sorted by name.
    pub modules: Vec<BaselineModule>,
    /// Exports and their checksums.
    pub symvers: PathBuf,
    /// The number of the kernel's translation units that were compiled.
    pub units: u64,
    /// True if an earlier run made the baseline.
    pub cached: bool,
}

/// The format of `baseline/manifest.json`.
#[derive(Debug, Serialize, Deserialize)]
struct BaselineManifest {
    format: u32,
    key: String,
    release: String,
    units: u64,
    vmlinux_o_size: u64,
    /// Object paths in the build tree, with sizes.
    modules: Vec<(String, u64)>,
}

impl Workspace {
    /// The original build: the finished one, or a new build that takes minutes.
    ///
    /// # Errors
    /// If the machine lacks something, the source does not build, the configuration does not fit the source, or klpx is
    /// interrupted.
    pub fn baseline(&self, progress: &dyn Progress) -> Result<Baseline> {
        if let Some(baseline) = self.finished_baseline() {
            return Ok(baseline);
        }
        let (config, toolchain) = (self.kernel.config(), self.kernel.toolchain());
        host::check(host::BuildKind::Kernel, config, toolchain, &self.runner)?;
        self.copy_source(progress)?;
        if !self.build_dir().join("vmlinux.a").exists() {
            space::check(&self.dir, space::estimate(config))?;
        }
        self.configure(progress)?;
        progress.step("building the original kernel");
        let built = self.make_original(progress)?;
        progress.step("keeping the original objects");
        self.keep_baseline(built.units)?;
        match self.finished_baseline() {
            Some(baseline) => Ok(Baseline { cached: false, ..baseline }),
            None => Err(Diagnosis::new(
                &codes::INTERNAL,
                "the baseline is incomplete after its build",
                "the build succeeded, and the workspace lacks files of the baseline",
                klpx_diagnosis::REPORT,
            )
            .into()),
        }
    }

    /// Brings the build tree up to date with the original source. Something that kbuild depends on has changed on the
    /// machine, for instance a library of a host program. A patched build's own remakes vanish with the patch, so
    /// without the refresh every further patch would repeat them.
    pub(crate) fn refresh(&self, progress: &dyn Progress) -> Result<()> {
        progress.note("the build tree was out of date; it is made again for the next patch");
        self.make_original(progress).map(|_| ())
    }

    /// Runs make on the original source, with a marker that tells the next run if this run is killed.
    fn make_original(&self, progress: &dyn Progress) -> Result<MakeResult> {
        let marker = self.dir.join("building");
        files::write_durably(&marker, b"")?;
        let built = self.with_make(|make| {
            let built = make.run(&TARGETS, progress, None)?;
            if built.success { Ok(built) } else { Err(original_does_not_build(make, &built)) }
        });
        if !self.runner.killed() {
            // make and its children ended by themselves, so they removed half-written targets.
            remove_file(&marker)?;
        }
        built
    }

    /// The baseline that an earlier run finished.
    pub fn finished_baseline(&self) -> Option<Baseline> {
        let dir = self.dir.join("baseline");
        let text = std::fs::read(dir.join("manifest.json")).ok()?;
        let manifest: BaselineManifest = serde_json::from_slice(&text).ok()?;
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

    /// Copies the results of the original build to `baseline/`. A folder of this name is always complete.
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
        let manifest = BaselineManifest { format: FORMAT, key, release, units, vmlinux_o_size, modules };
        let text =
            serde_json::to_vec_pretty(&manifest).map_err(|error| Diagnosis::internal(&error.to_string()))?;
        sync_file_system(&dir);
        files::write_durably(&dir.join("manifest.json"), &text)?;
        let target = self.dir.join("baseline");
        std::fs::rename(&dir, &target).map_err(|error| Diagnosis::io("create", &target, &error))?;
        Ok(())
    }

    /// The release that was built. It must equal the release of the kernel to be patched.
    fn built_release(&self) -> Result<String> {
        let path = self.build_dir().join("include/config/kernel.release");
        let text = std::fs::read_to_string(&path).map_err(|error| Diagnosis::io("read", &path, &error))?;
        let (release, wanted) = (text.trim(), self.kernel.release());
        if release == wanted {
            return Ok(release.to_owned());
        }
        Err(Diagnosis::new(
            &codes::RELEASE_MISMATCH,
            format!("the build is of Linux {release}, not {wanted}"),
            "a livepatch's vermagic must be that of the running kernel",
            "name the source, the configuration and the build tree of one kernel",
        )
        .into())
    }
}

/// The module with the object `rel` under `dir`.
pub(crate) fn module(dir: &Path, rel: &Path) -> BaselineModule {
    let stem = rel.file_stem().unwrap_or_default().to_string_lossy();
    BaselineModule { name: stem.replace('-', "_"), object_rel: rel.to_owned(), object: dir.join(rel) }
}

/// Copies one file of the build tree, keeping its path. Returns its size.
fn keep(build: &Path, dir: &Path, rel: &Path) -> Result<u64> {
    let (from, to) = (build.join(rel), dir.join(rel));
    let parent = to.parent().unwrap_or(dir);
    std::fs::create_dir_all(parent).map_err(|error| Diagnosis::io("create", parent, &error))?;
    files::copy(&from, &to, false).map_err(|error| Diagnosis::io("copy", &from, &error))?;
    Ok(to.metadata().map_err(|error| Diagnosis::io("read", &to, &error))?.len())
}

/// Flushes the file system of `dir`, so that a manifest never outlives the files that it lists.
fn sync_file_system(dir: &Path) {
    if let Ok(file) = File::open(dir) {
        // SAFETY: a plain system call on an open descriptor.
        unsafe { libc::syncfs(std::os::fd::AsRawFd::as_raw_fd(&file)) };
    }
}
