//! Provides kernel sources: the distribution's `linux-source` package from the machine's own mirror, a tree, or a
//! tarball. A source is unpacked once and then renamed, so that an interrupted run leaves nothing that looks complete.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::apt::{self, Repository};
use crate::process;
use crate::ui;
use crate::workspace::CargoWorkspace;

/// A kernel series, as Debian packages its source.
#[derive(Debug)]
pub(crate) struct Series {
    package: &'static str,
    /// Suites that may have the package.
    suites: &'static [&'static str],
}

/// The current series: a released Debian keeps it in backports, later ones in main.
pub(crate) const CURRENT: Series =
    Series { package: "linux-source-7.2", suites: &["trixie-backports", "forky", "sid"] };
/// A long-term series.
pub(crate) const LINUX_6_12: Series =
    Series { package: "linux-source-6.12", suites: &["trixie", "bookworm-backports"] };

/// The file that is written last into a tree that was unpacked here.
const STAMP: &str = "linux-version";

/// An unpacked kernel source, only ever read.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// The tree.
    pub(crate) tree: PathBuf,
    /// The version, such as `7.2.13`.
    pub(crate) version: String,
}

impl Source {
    /// Reads an unpacked tree.
    fn at(path: &Path) -> Result<Source> {
        let tree = path.canonicalize()?;
        Ok(Source { version: version_of(&tree)?, tree })
    }
}

/// Returns the source of a finished build tree: the one that the options name, else the one from which the tree was
/// built. The tree's commands contain paths of that source, so `make` would compile everything again with a different
/// one.
pub(crate) fn of_build(workspace: &CargoWorkspace, tree: &Path, series: &Series) -> Result<Source> {
    let own = tree.join("source");
    if named(workspace, series).is_none() && own.is_dir() {
        Source::at(&own)
    } else {
        ensure(workspace, series)
    }
}

/// Returns the source that the options name for a series. The options only apply to the current series.
fn named<'a>(workspace: &'a CargoWorkspace, series: &Series) -> Option<&'a PathBuf> {
    workspace.kernel_src.as_ref().filter(|_| series.package == CURRENT.package)
}

/// Returns the source of a series: the one that the options name for the current series, else the package, fetched on
/// the first call.
pub(crate) fn ensure(workspace: &CargoWorkspace, series: &Series) -> Result<Source> {
    match named(workspace, series) {
        Some(path) if path.is_dir() => Source::at(path),
        Some(path) if path.is_file() => {
            let path = path.canonicalize()?;
            let stem = path.file_name().and_then(|name| name.to_str()).context("a tarball has a name")?;
            unpacked(workspace, &format!("tarball-{stem}"), |_| Ok(path.clone()))
        }
        Some(path) => bail!("--kernel-src {}: no such tree or tarball", path.display()),
        None => unpacked(workspace, series.package, |scratch| fetch_package(scratch, series)),
    }
}

/// Returns the tree called `name` in the cache. If needed, makes the tree from the tarball that `tarball` puts into a
/// scratch directory.
pub(crate) fn unpacked(
    workspace: &CargoWorkspace,
    name: &str,
    tarball: impl FnOnce(&Path) -> Result<PathBuf>,
) -> Result<Source> {
    let _lock = workspace.lock("kernel-source")?;
    let sources = workspace.cache_dir("src")?;
    let stamp = sources.join(name).join(STAMP);
    if let Ok(version) = fs::read_to_string(&stamp) {
        let tree = sources.join(name).join(version.trim());
        return Ok(Source { version: version_of(&tree)?, tree });
    }
    let mut step = ui::step("kernel source");
    let scratch = tempfile::Builder::new().prefix(".unpack-").tempdir_in(&sources)?;
    step.at("fetching");
    let tarball = tarball(scratch.path())?;
    step.at("unpacking");
    let inner = scratch.path().join("tree");
    fs::create_dir(&inner)?;
    process::output(Command::new("tar").arg("-xf").arg(&tarball).arg("-C").arg(&inner))?;
    let top = only_directory(&inner)?;
    let version = version_of(&top)?;
    let directory = format!("linux-{version}");
    fs::rename(&top, inner.join(&directory))?;
    fs::write(inner.join(STAMP), format!("{directory}\n"))?;
    let place = sources.join(name);
    if place.exists() {
        fs::remove_dir_all(&place).with_context(|| format!("can't replace {}", place.display()))?;
    }
    fs::rename(&inner, &place)?;
    step.done(&format!("Linux {version}"));
    Ok(Source { tree: place.join(directory), version })
}

/// Returns the releases of a series that the archive has, oldest first, such as `7.2.12`.
pub(crate) fn releases(workspace: &CargoWorkspace, series: &Series) -> Result<Vec<String>> {
    let lists = workspace.cache_dir("apt")?;
    let _lock = workspace.lock("apt")?;
    let mut versions = Repository::open(&lists, None, series.suites)?.versions(series.package)?;
    versions.sort_by(|a, b| apt::compare_versions(a, b));
    let mut releases: Vec<String> = versions.iter().map(|version| release_of(version).to_owned()).collect();
    releases.dedup();
    Ok(releases)
}

/// Returns the source of one release.
pub(crate) fn at_release(workspace: &CargoWorkspace, series: &Series, release: &str) -> Result<Source> {
    unpacked(workspace, &format!("{}-{release}", series.package), |scratch| {
        let lists = workspace.cache_dir("apt")?;
        let _lock = workspace.lock("apt")?;
        let repository = Repository::open(&lists, None, series.suites)?;
        let mut versions = repository.versions(series.package)?;
        versions.retain(|version| release_of(version) == release);
        let newest = versions.into_iter().max_by(|a, b| apt::compare_versions(a, b));
        let newest = newest.with_context(|| {
            format!("the configured mirror has no {} {release}{}", series.package, repository.excuse())
        })?;
        let deb = repository.download(scratch, series.package, &newest)?;
        let files = scratch.join("files");
        apt::unpack(&deb, &files, &[])?;
        tarball_in(&files, series)
    })
}

/// Returns the kernel's release in the version of a package.
fn release_of(version: &str) -> &str {
    version.split('-').next().unwrap_or(version)
}

fn only_directory(parent: &Path) -> Result<PathBuf> {
    let mut found =
        fs::read_dir(parent)?.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir());
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        _ => bail!("a kernel tarball holds one directory"),
    }
}

/// Returns the version that a tree's Makefile states.
fn version_of(tree: &Path) -> Result<String> {
    let makefile = tree.join("Makefile");
    let text =
        fs::read_to_string(&makefile).with_context(|| format!("no kernel source: {}", tree.display()))?;
    let value = |key: &str| {
        let line = text.lines().find(|line| line.split('=').next().is_some_and(|left| left.trim() == key))?;
        Some(line.split('=').nth(1)?.trim().to_owned())
    };
    match (value("VERSION"), value("PATCHLEVEL"), value("SUBLEVEL")) {
        (Some(major), Some(minor), Some(patch)) => Ok(format!("{major}.{minor}.{patch}")),
        _ => bail!("{} is not a kernel's", makefile.display()),
    }
}

/// Downloads the package into `scratch` and returns the tarball in it.
fn fetch_package(scratch: &Path, series: &Series) -> Result<PathBuf> {
    let files = apt::fetch(scratch, series.package, None, series.suites)
        .context("name a source with --kernel-src DIR or --kernel-src linux-7.2.tar.xz")?;
    tarball_in(&files, series)
}

/// Returns the tarball in an unpacked package.
fn tarball_in(files: &Path, series: &Series) -> Result<PathBuf> {
    fs::read_dir(files.join("usr/src"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.to_string_lossy().contains(".tar."))
        .with_context(|| format!("{} holds no tarball", series.package))
}
