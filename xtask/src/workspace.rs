//! Knows the places of the repository and the fixture cache, and the options that override them. Creates no files
//! outside the cache.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use etcetera::{BaseStrategy, choose_base_strategy};

use crate::FixtureOptions;
use crate::ui;

/// The places and options for all commands.
pub(crate) struct CargoWorkspace {
    /// The repository.
    pub(crate) root: PathBuf,
    /// Sources and kernels, kept between runs.
    pub(crate) cache: PathBuf,
    /// A source tree or tarball that replaces the distribution's source.
    pub(crate) kernel_src: Option<PathBuf>,
    /// Finished build trees by kernel name.
    pub(crate) kernel_builds: BTreeMap<String, PathBuf>,
    /// Releases of stock kernels to use instead of the newest.
    pub(crate) releases: Vec<String>,
    /// True to ask the archive for newer stock kernels than those in the cache.
    pub(crate) newest: bool,
    /// Jobs for `make`.
    pub(crate) jobs: usize,
}

impl CargoWorkspace {
    /// Resolves the options.
    pub(crate) fn new(options: &FixtureOptions) -> Result<CargoWorkspace> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = manifest.parent().context("the xtask crate lies in the workspace")?.to_path_buf();
        let cache = match &options.fixture_cache {
            Some(directory) => std::path::absolute(directory)?,
            None => choose_base_strategy().context("no cache directory")?.cache_dir().join("klpx-fixtures"),
        };
        let mut kernel_builds = BTreeMap::new();
        for option in &options.kernel_build {
            let Some((name, directory)) = option.split_once('=') else {
                bail!("--kernel-build wants KERNEL=DIR, not '{option}'");
            };
            let directory = Path::new(directory)
                .canonicalize()
                .with_context(|| format!("--kernel-build {name}: no directory {directory}"))?;
            kernel_builds.insert(name.to_owned(), directory);
        }
        let jobs = match options.jobs {
            Some(jobs) => jobs.max(1),
            None => std::thread::available_parallelism().map_or(1, usize::from),
        };
        Ok(CargoWorkspace {
            root,
            cache,
            kernel_src: options.kernel_src.clone(),
            kernel_builds,
            releases: options.release.clone(),
            newest: options.newest,
            jobs,
        })
    }

    /// Returns a path under `kernel-fixtures/`.
    pub(crate) fn fixtures(&self, relative: &str) -> PathBuf {
        self.root.join("kernel-fixtures").join(relative)
    }

    /// Blocks other runs that would make the same files in the cache, until the returned lock is dropped.
    pub(crate) fn lock(&self, name: &str) -> Result<File> {
        let file = self.lock_file(name)?;
        if file.try_lock().is_err() {
            ui::line(name, "another run is at it: waiting", None);
            file.lock().with_context(|| format!("can't lock {name}"))?;
        }
        Ok(file)
    }

    /// Like [`CargoWorkspace::lock`], but returns `None` instead of waiting for another run.
    pub(crate) fn try_lock(&self, name: &str) -> Result<Option<File>> {
        let file = self.lock_file(name)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("can't lock {name}")),
        }
    }

    fn lock_file(&self, name: &str) -> Result<File> {
        let path = self.cache_dir("")?.join(format!("{name}.lock"));
        File::create(&path).with_context(|| format!("can't create {}", path.display()))
    }

    /// Returns a directory of the cache, created if missing.
    pub(crate) fn cache_dir(&self, relative: &str) -> Result<PathBuf> {
        let directory = self.cache.join(relative);
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("can't create {}", directory.display()))?;
        Ok(directory)
    }
}
