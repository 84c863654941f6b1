//! Provides kernels as a distribution ships them. Their packages are fetched from the archive and unpacked into a
//! separate directory; nothing is installed. A directory appears by rename, so that an interrupted run leaves nothing
//! that looks complete.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::apt::{self, Repository};
use crate::distro::Distro;
use crate::source::{self, Source};
use crate::ui;
use crate::workspace::CargoWorkspace;

/// Identifies one of a distribution's kernels.
#[derive(Debug)]
pub(crate) struct Shipped {
    /// The series in the name of the source package.
    pub(crate) series: &'static str,
    /// The start, a middle part and the end of the kernel's release.
    pub(crate) release: [&'static str; 3],
    /// Suites that may have the packages.
    pub(crate) suites: &'static [&'static str],
    /// True to keep the debug package's copies of the modules: 1.8 GB for a cloud kernel. Without them, the modules
    /// have no FILE symbols, as on a machine without the debug package.
    pub(crate) debug_modules: bool,
    /// The release of Debian that the kernel is for. If this machine has a different release, klpx runs in a root
    /// directory of that release, and finds the kernel's packages there, with the source as a tarball.
    pub(crate) home: &'static Distro,
}

impl Shipped {
    /// Returns true for a release of this kernel.
    fn is(&self, release: &str) -> bool {
        let [start, middle, end] = self.release;
        let rest = release.strip_prefix(start).and_then(|rest| rest.strip_suffix(end));
        rest.is_some_and(|rest| rest.contains(middle) && rest.starts_with(|c: char| c.is_ascii_digit()))
    }
}

/// Files of packages that are not needed here, as tar's patterns.
const UNUSED: &[&str] = &["./usr/share", "./usr/lib/debug/.build-id"];
/// The debug package's copies of the modules.
const DEBUG_MODULES: &[&str] =
    &["./usr/lib/debug/lib/modules/*/kernel", "./usr/lib/debug/usr/lib/modules/*/kernel"];

/// Returns the first place that exists, or else the first place.
fn first(places: impl IntoIterator<Item = PathBuf>) -> PathBuf {
    let places: Vec<PathBuf> = places.into_iter().collect();
    places.iter().find(|place| place.exists()).or(places.first()).cloned().unwrap_or_default()
}

/// Returns the kernel with debug information.
pub(crate) fn vmlinux(sysroot: &Path, release: &str) -> PathBuf {
    let places = [
        format!("boot/vmlinux-{release}"),
        format!("lib/modules/{release}/vmlinux"),
        format!("vmlinux-{release}"),
    ];
    first(places.map(|place| sysroot.join("usr/lib/debug").join(place)))
}

/// Returns the kernel's boot image.
pub(crate) fn image(sysroot: &Path, release: &str) -> PathBuf {
    of_image(sysroot, release, "vmlinuz")
}

/// Returns the configuration.
pub(crate) fn config(sysroot: &Path, release: &str) -> PathBuf {
    of_image(sysroot, release, "config")
}

/// Returns a file that comes with the image. Since Debian's 7.2, such a file may lie beside the modules.
fn of_image(sysroot: &Path, release: &str, name: &str) -> PathBuf {
    let places = [format!("boot/{name}-{release}"), format!("usr/lib/modules/{release}/{name}")];
    first(places.map(|place| sysroot.join(place)))
}

/// Returns the headers folder, which has the configuration and all files made from it.
pub(crate) fn headers(sysroot: &Path, release: &str) -> PathBuf {
    sysroot.join("usr/src").join(format!("linux-headers-{release}"))
}

/// Returns the directory of the debug package's copies of the modules.
pub(crate) fn debug_modules(sysroot: &Path, release: &str) -> PathBuf {
    modules(&sysroot.join("usr/lib/debug"), release)
}

/// Returns the directory of the shipped modules.
pub(crate) fn modules(sysroot: &Path, release: &str) -> PathBuf {
    first(["lib/modules", "usr/lib/modules"].map(|place| sysroot.join(place).join(release)))
}

/// Returns a source, the sysroot of its kernel, and the kernel's release: adopted, cached or fetched now. The release
/// is the one that the options name, else the newest in the cache, else the newest in the archive.
pub(crate) fn ensure(
    workspace: &CargoWorkspace,
    name: &str,
    shipped: &Shipped,
) -> Result<(Source, PathBuf, String)> {
    if let Some(sysroot) = workspace.kernel_builds.get(name) {
        return adopted(workspace, name, sysroot, shipped);
    }
    let wanted = workspace.releases.iter().find(|release| shipped.is(release));
    let release = match (wanted, cached(workspace, shipped)?.pop()) {
        (Some(release), _) => release.clone(),
        (None, Some(newest)) if !workspace.newest => newest,
        (None, _) => {
            let mut step = ui::step(&format!("kernel {name}"));
            step.at("asking the archive");
            let newest = archived(workspace, shipped)?.pop().context("the archive has a release")?;
            step.done(&format!("{newest} is the newest"));
            newest
        }
    };
    let (source, sysroot) = at_release(workspace, name, shipped, &release)?;
    Ok((source, sysroot, release))
}

/// Returns the source and the sysroot of one release: cached or fetched now.
pub(crate) fn at_release(
    workspace: &CargoWorkspace,
    name: &str,
    shipped: &Shipped,
    release: &str,
) -> Result<(Source, PathBuf)> {
    let _lock = workspace.lock(&format!("kernel-{name}"))?;
    let place = workspace.cache_dir("stock")?.join(release);
    if !place.is_dir() {
        fetch(workspace, &place, name, shipped, release)?;
    }
    let source = if shipped.home.is_here() {
        source(workspace, shipped, release)?
    } else {
        Source { tree: tarball(&place, shipped)?, version: release.to_owned() }
    };
    Ok((source, place))
}

/// Returns the source of one release, whether its other packages are needed or not.
pub(crate) fn source(workspace: &CargoWorkspace, shipped: &Shipped, release: &str) -> Result<Source> {
    source::unpacked(workspace, &source_name(release), |files| {
        let lists = workspace.cache_dir("apt")?;
        let _lock = workspace.lock("apt")?;
        let repository = Repository::open(&lists, None, shipped.suites)?;
        let version = repository.newest(&image_package(release))?;
        let downloads = downloads(workspace, release)?;
        let deb = repository.download(&downloads, &source_package(shipped), &version)?;
        apt::unpack(&deb, files, &[])?;
        fs::remove_file(&deb)?;
        remove_if_empty(&downloads);
        tarball(files, shipped)
    })
}

/// Returns a release and the next one, from the cache if possible, else from the archive. The older release is the one
/// that the options name, else the last but one.
pub(crate) fn pair(workspace: &CargoWorkspace, shipped: &Shipped) -> Result<[String; 2]> {
    let wanted = workspace.releases.iter().find(|release| shipped.is(release));
    let of = |known: Vec<String>| {
        let next = match wanted {
            Some(wanted) => {
                known.iter().position(|release| apt::compare_versions(release, wanted).is_gt())?
            }
            None => known.len().checked_sub(1).filter(|last| *last > 0)?,
        };
        let older = wanted.cloned().or_else(|| known.get(next.checked_sub(1)?).cloned())?;
        Some([older, known.get(next)?.clone()])
    };
    let known = if workspace.newest { None } else { of(cached(workspace, shipped)?) };
    match known {
        Some(pair) => Ok(pair),
        None => of(archived(workspace, shipped)?).context("the archive has no newer release of this kernel"),
    }
}

/// Uses a directory that the options name: it has all packages of a kernel, including its source.
fn adopted(
    workspace: &CargoWorkspace,
    name: &str,
    sysroot: &Path,
    shipped: &Shipped,
) -> Result<(Source, PathBuf, String)> {
    let mut found = Vec::new();
    for (directory, prefix) in [("boot", "vmlinuz-"), ("usr/lib/modules", "")] {
        found.extend(releases(&sysroot.join(directory), prefix, shipped).unwrap_or_default());
    }
    found.retain(|release| image(sysroot, release).is_file());
    found.sort_by(|a, b| apt::compare_versions(a, b));
    let release = found.last();
    let release = release.with_context(|| {
        format!("--kernel-build {name}: {} holds no kernel of that name", sysroot.display())
    })?;
    let source = source::unpacked(workspace, &source_name(release), |_| tarball(sysroot, shipped))?;
    Ok((source, sysroot.to_path_buf(), release.clone()))
}

/// Returns the name of a kernel's source in the cache.
fn source_name(release: &str) -> String {
    format!("debian-{release}")
}

fn tarball(files: &Path, shipped: &Shipped) -> Result<PathBuf> {
    let tarball = files.join(format!("usr/src/linux-source-{}.tar.xz", shipped.series));
    if !tarball.is_file() {
        bail!("no source of the kernel: {} is missing", tarball.display());
    }
    Ok(tarball)
}

/// Returns the releases of a kernel in the cache, oldest first.
fn cached(workspace: &CargoWorkspace, shipped: &Shipped) -> Result<Vec<String>> {
    releases(&workspace.cache_dir("stock")?, "", shipped)
}

/// Returns the releases of a kernel that the archive has with debug information, oldest first.
fn archived(workspace: &CargoWorkspace, shipped: &Shipped) -> Result<Vec<String>> {
    let lists = workspace.cache_dir("apt")?;
    let _lock = workspace.lock("apt")?;
    let repository = Repository::open(&lists, None, shipped.suites)?;
    let [start, _, end] = shipped.release;
    let names = repository.names(&image_package(start))?;
    let mut found = Vec::new();
    for release in names.iter().filter_map(|name| name.strip_prefix("linux-image-")) {
        // The lists also name former packages that other packages still mention.
        if shipped.is(release) && !repository.versions(&debug_package(release))?.is_empty() {
            found.push(release.to_owned());
        }
    }
    if found.is_empty() {
        bail!("the configured mirror has no {}*{end}{}", image_package(start), repository.excuse());
    }
    found.sort_by(|a, b| apt::compare_versions(a, b));
    Ok(found)
}

/// Returns the releases at the ends of the names in a directory, oldest first.
fn releases(directory: &Path, prefix: &str, shipped: &Shipped) -> Result<Vec<String>> {
    let entries = fs::read_dir(directory).with_context(|| format!("can't read {}", directory.display()))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut found: Vec<String> = names
        .filter_map(|name| Some(name.strip_prefix(prefix)?.to_owned()))
        .filter(|release| shipped.is(release))
        .collect();
    found.sort_by(|a, b| apt::compare_versions(a, b));
    Ok(found)
}

/// Returns the folder for downloads of a release's packages. Packages that an interrupted run has fetched need not be
/// fetched again.
fn downloads(workspace: &CargoWorkspace, release: &str) -> Result<PathBuf> {
    workspace.cache_dir(&format!("stock/.packages-{release}"))
}

/// Removes the folder of downloads, unless it still contains a package.
fn remove_if_empty(directory: &Path) {
    let _ = fs::remove_dir(directory);
}

/// Fetches and unpacks the packages of a release, except its source.
fn fetch(
    workspace: &CargoWorkspace,
    place: &Path,
    name: &str,
    shipped: &Shipped,
    release: &str,
) -> Result<()> {
    let mut step = ui::step(&format!("kernel {name}"));
    step.at("asking the archive");
    let lists = workspace.cache_dir("apt")?;
    let lock = workspace.lock("apt")?;
    let repository = Repository::open(&lists, None, shipped.suites)?;
    let version = repository.newest(&image_package(release))?;
    let downloads = downloads(workspace, release)?;
    let scratch = tempfile::Builder::new().prefix(".unpack-").tempdir_in(workspace.cache_dir("stock")?)?;
    let sysroot = scratch.path().join("sysroot");
    fs::create_dir_all(sysroot.join("usr/lib"))?;
    std::os::unix::fs::symlink("usr/lib", sysroot.join("lib"))?;
    let (mut megabytes, mut debs) = (0, Vec::new());
    let mut wanted = packages(&repository, release, &version)?;
    if !shipped.home.is_here() {
        wanted.insert(source_package(shipped), version);
    }
    for (package, version) in wanted {
        step.at(&format!("fetching {package}"));
        let deb = repository.download(&downloads, &package, &version)?;
        megabytes += fs::metadata(&deb)?.len() >> 20;
        step.at(&format!("unpacking {package}"));
        apt::unpack(&deb, &sysroot, &unused(&package, shipped))?;
        debs.push(deb);
    }
    drop(lock);
    for file in [vmlinux(&sysroot, release), image(&sysroot, release), config(&sysroot, release)] {
        if !file.is_file() {
            bail!("the packages of {release} hold no {}", file.display());
        }
    }
    fs::rename(&sysroot, place)?;
    debs.iter().try_for_each(fs::remove_file)?;
    remove_if_empty(&downloads);
    step.done(&format!("{release}, {megabytes} MB of packages"));
    Ok(())
}

fn source_package(shipped: &Shipped) -> String {
    format!("linux-source-{}", shipped.series)
}

fn image_package(release: &str) -> String {
    format!("linux-image-{release}")
}

fn debug_package(release: &str) -> String {
    format!("{}-dbg", image_package(release))
}

/// Returns all packages of a kernel with their versions: the image, its debug information, its headers, and the
/// packages of the same source on which these depend.
fn packages(repository: &Repository<'_>, release: &str, version: &str) -> Result<BTreeMap<String, String>> {
    let mut left = vec![format!("linux-headers-{release}"), debug_package(release), image_package(release)];
    let mut found = BTreeMap::new();
    while let Some(package) = left.pop() {
        if !package.starts_with("linux-") || found.contains_key(&package) {
            continue;
        }
        let Some(version) = fitting(&repository.versions(&package)?, version) else { continue };
        left.extend(repository.dependencies(&package, &version)?);
        found.insert(package, version);
    }
    // The alternative to the signed image contains the same files.
    found.retain(|package, _| !package.contains("-unsigned"));
    Ok(found)
}

/// Returns the version itself, or else the newest later version. The archive has one linux-kbuild for all releases of a
/// series, and a newer build replaces it before the older release is gone.
fn fitting(known: &[String], wanted: &str) -> Option<String> {
    if known.iter().any(|version| version == wanted) {
        return Some(wanted.to_owned());
    }
    let newer = known.iter().filter(|version| apt::compare_versions(version, wanted).is_gt());
    newer.max_by(|a, b| apt::compare_versions(a, b)).cloned()
}

/// Returns the files that are left out of a package, as tar's patterns.
fn unused(package: &str, shipped: &Shipped) -> Vec<String> {
    let mut patterns = UNUSED.to_vec();
    if package.ends_with("-dbg") && !shipped.debug_modules {
        patterns.extend(DEBUG_MODULES);
    }
    patterns.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOUD: Shipped = Shipped {
        series: "6.12",
        release: ["6.12.", "+deb12", "-cloud-amd64"],
        suites: &[],
        debug_modules: false,
        home: &crate::distro::BOOKWORM,
    };

    #[test]
    fn a_release_is_of_one_series_distribution_and_flavour() {
        for release in ["6.12.117+deb12-cloud-amd64", "6.12.90+deb12.1-cloud-amd64"] {
            assert!(CLOUD.is(release), "{release}");
        }
        for release in [
            "6.12.117+deb13-cloud-amd64",
            "6.12.117+deb12-amd64",
            "6.1.0-56-cloud-amd64",
            "6.12.-cloud-amd64",
        ] {
            assert!(!CLOUD.is(release), "{release}");
        }
    }

    #[test]
    fn a_package_of_a_whole_series_may_be_newer_than_the_release() {
        let known =
            |versions: &[&str]| versions.iter().map(|version| (*version).to_owned()).collect::<Vec<_>>();
        for (versions, fits) in [
            (&["6.1.192-3", "6.1.192-2", "6.1.176-1"][..], Some("6.1.192-2")),
            (&["6.1.192-3", "6.1.176-1", "6.1.195-1"], Some("6.1.195-1")),
            (&["6.1.176-1"], None),
            (&[], None),
        ] {
            assert_eq!(fitting(&known(versions), "6.1.192-2").as_deref(), fits, "{versions:?}");
        }
    }

    #[test]
    fn the_newest_release_in_a_directory_comes_last() {
        let directory = tempfile::tempdir().expect("a directory");
        for name in
            ["6.12.9+deb12-cloud-amd64", "6.12.117+deb12-cloud-amd64", ".unpack-x", "6.1.0-1-cloud-amd64"]
        {
            fs::create_dir(directory.path().join(name)).expect("created");
        }
        let found = releases(directory.path(), "", &CLOUD).expect("readable");
        assert_eq!(found, ["6.12.9+deb12-cloud-amd64", "6.12.117+deb12-cloud-amd64"]);
    }

    #[test]
    fn only_the_debug_package_loses_its_modules() {
        assert_eq!(unused("linux-image-6.12-cloud-amd64", &CLOUD).len(), UNUSED.len());
        assert_eq!(
            unused("linux-image-6.12-cloud-amd64-dbg", &CLOUD).len(),
            UNUSED.len() + DEBUG_MODULES.len()
        );
    }
}
