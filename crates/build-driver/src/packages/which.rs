//! Which kernel the user means, and the source of its release. Reads no other file of the kernel.

use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Result, codes};

use super::banner::{self, Banner, VmlinuxKind};
use super::places::RELEASE_NAMES;
use super::roots::Roots;
use super::{FileOrigin, PINNED, WantedKernel};
use crate::language::MakeWord;
use crate::own;

/// How a user names a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// The running kernel.
    Running,
    /// The kernel of this release, as `uname -r` prints it.
    Release(String),
    /// The kernel of this image.
    Vmlinux(PathBuf),
}

impl Selector {
    /// Parses `running`, a release, or the path of a vmlinux. A text with a slash, or the name of an existing file, is
    /// a path.
    pub fn parse(text: &str) -> Selector {
        match text {
            "running" => Selector::Running,
            _ if text.contains('/') || Path::new(text).is_file() => Selector::Vmlinux(PathBuf::from(text)),
            _ => Selector::Release(text.to_owned()),
        }
    }
}

/// The kernel that the user means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KernelChoice {
    pub(super) release: String,
    /// The source of the release, for people.
    pub(super) from: String,
    /// The kernel's banner, if it was read already.
    pub(super) banner: Option<Banner>,
    /// The image that the user named, and the option.
    pub(super) vmlinux: Option<(PathBuf, &'static str)>,
    /// The build tree or headers folder that the user named, or the current folder.
    pub(super) build: Option<(PathBuf, FileOrigin)>,
}

/// Finds out which kernel the user means.
///
/// # Errors
/// If nothing gives a release, or the named files give different releases.
pub(super) fn which(wanted: &WantedKernel, roots: &Roots) -> Result<KernelChoice> {
    let vmlinux = match (&wanted.kernel, &wanted.vmlinux) {
        (_, Some(path)) => Some((path.clone(), "--vmlinux")),
        (Some(Selector::Vmlinux(path)), None) => Some((path.clone(), "--kernel")),
        _ => None,
    };
    let build = build_tree(wanted, vmlinux.is_some(), roots)?;
    let (release, from, banner) = match &wanted.kernel {
        Some(Selector::Release(release)) => (release.clone(), "--kernel".to_owned(), None),
        Some(Selector::Running) => running()?,
        Some(Selector::Vmlinux(path)) => of_image(path)?,
        None => match (&build, &vmlinux) {
            (Some((folder, _)), _) => of_build(folder)?,
            (None, Some((path, _))) => of_image(path)?,
            (None, None) if roots.is_machine() => running()?,
            (None, None) => only_one(roots)?,
        },
    };
    // The release becomes a part of paths, package names and make words.
    MakeWord::release(&release)?;
    Ok(KernelChoice { release, from, banner, vmlinux, build })
}

/// The folder that the user named. If no kernel is named, the current folder, provided that it is a build tree.
fn build_tree(wanted: &WantedKernel, image: bool, roots: &Roots) -> Result<Option<(PathBuf, FileOrigin)>> {
    if let Some(folder) = &wanted.build_dir {
        let path = folder.canonicalize().map_err(|error| {
            let what = format!("can't open the build tree {}", folder.display());
            Diagnosis::new(
                &codes::BUILD_DIR_MISSING,
                what,
                error.to_string(),
                "name the kernel's O= tree or headers folder with --build-dir",
            )
        })?;
        return Ok(Some((path, FileOrigin::Option("--build-dir"))));
    }
    if wanted.kernel.is_some() || image || !roots.is_machine() {
        return Ok(None);
    }
    let Some(here) = wanted.here.as_ref().filter(|folder| is_build_tree(folder)) else { return Ok(None) };
    // The user did not name the folder, and klpx would run its Makefile.
    own::check(here).map_err(|failure| {
        let why = failure.diagnoses().next().map(|diagnosis| diagnosis.why.clone()).unwrap_or_default();
        let what = format!("{} is a build tree that others may change", here.display());
        Diagnosis::new(
            &codes::UNTRUSTED_FOLDER,
            what,
            why,
            "name the kernel (--kernel, or --build-dir for this one), or run klpx in another folder",
        )
    })?;
    Ok(Some((here.clone(), FileOrigin::BuildTree)))
}

/// Returns true if kbuild prepared the folder with a configuration.
pub(super) fn is_build_tree(folder: &Path) -> bool {
    PINNED.iter().all(|&(name, required)| !required || folder.join(name).is_file())
}

/// A release, its source, and the banner if there is one.
type Told = (String, String, Option<Banner>);

/// The release of the running kernel.
fn running() -> Result<Told> {
    let read = |path: &str| {
        let path = Path::new(path);
        std::fs::read_to_string(path).map_err(|error| Diagnosis::io("read", path, &error))
    };
    let release = read("/proc/sys/kernel/osrelease")?.trim().to_owned();
    // /proc/version has the text of the banner (fs/proc/version.c).
    let banner = Banner::parse(read("/proc/version")?.trim()).filter(|banner| banner.release == release);
    Ok((release, "the running kernel".to_owned(), banner))
}

/// The UTS_RELEASE of a build tree or headers folder. In Debian's 6.1, kernel.release has another release, which the
/// build overrides. So kernel.release counts only if no header was generated.
fn of_build(folder: &Path) -> Result<Told> {
    if let Some(banner) = Banner::of_headers(folder) {
        let from = "include/generated/utsrelease.h of the build tree".to_owned();
        return Ok((banner.release.clone(), from, Some(banner)));
    }
    let recorded = klpx_input::text(&folder.join("include/config/kernel.release")).unwrap_or_default();
    match recorded.trim() {
        "" => {
            let what = format!("the build tree {} does not say its release", folder.display());
            Err(Diagnosis::new(
                &codes::NO_RELEASE,
                what,
                "it has neither include/generated/utsrelease.h nor include/config/kernel.release",
                "name the tree that the kernel was built in, or the kernel with --kernel RELEASE",
            )
            .into())
        }
        release => {
            Ok((release.to_owned(), "include/config/kernel.release of the build tree".to_owned(), None))
        }
    }
}

fn of_image(path: &Path) -> Result<Told> {
    let refuse = |why: &str| {
        Diagnosis::new(
            &codes::BAD_VMLINUX,
            format!("{} is no vmlinux to patch", path.display()),
            why,
            "name the vmlinux of the build tree or of the distribution's debug package",
        )
        .place(DiagnosisPlace::file(path.display().to_string(), None))
    };
    match banner::look(path)? {
        VmlinuxKind::Kernel(Some(banner)) => {
            Ok((banner.release.clone(), format!("the banner of {}", path.display()), Some(banner)))
        }
        VmlinuxKind::Kernel(None) => Err(refuse("it holds no banner that says its release").into()),
        VmlinuxKind::Unusable(why) => Err(refuse(why).into()),
    }
}

/// The kernel below the roots, if there is exactly one.
fn only_one(roots: &Roots) -> Result<Told> {
    let releases = releases(roots);
    if let [release] = releases.as_slice() {
        return Ok((release.clone(), format!("the only kernel below {}", roots.describe()), None));
    }
    let (what, why) = match releases.is_empty() {
        true => ("no kernel is below the given root", "no package of a kernel is unpacked there"),
        false => ("it is not clear which kernel is meant", "files of several kernels are there"),
    };
    Err(Diagnosis::new(&codes::WHICH_KERNEL, what, why, "name the kernel with --kernel RELEASE")
        .detail(releases)
        .into())
}

/// The releases of kernels with files below the roots, sorted.
pub(super) fn releases(roots: &Roots) -> Vec<String> {
    let named = RELEASE_NAMES.iter().flat_map(|&(folder, start)| {
        let releases = roots.list(folder).into_iter();
        releases.filter_map(move |name| name.strip_prefix(start).map(str::to_owned))
    });
    // Debian's common headers belong to no single kernel. SUSE's images of debug symbols have a suffix.
    let mut found: Vec<String> = named
        .map(|name| name.strip_suffix(".debug").map(str::to_owned).unwrap_or(name))
        .filter(|name| name.starts_with(|c: char| c.is_ascii_digit()) && !name.ends_with("-common"))
        .collect();
    found.sort();
    found.dedup();
    found
}
