//! The kernel's source, a tree or a tarball, and the check that it belongs to exactly this kernel.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Note, Result, codes};

use super::Located;
use crate::process::{Call, Runner};
use crate::tree::SourceTree;

/// A kernel's source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelSource {
    /// A tree.
    Tree(Located),
    /// A tarball with one folder, which is the tree.
    Tarball(Located),
}

impl KernelSource {
    pub(super) fn new(located: Located) -> KernelSource {
        match located.path.is_dir() {
            true => KernelSource::Tree(located),
            false => KernelSource::Tarball(located),
        }
    }

    /// The path of the source, and its origin.
    pub fn located(&self) -> &Located {
        match self {
            KernelSource::Tree(located) | KernelSource::Tarball(located) => located,
        }
    }
}

/// Extensions of tarballs that tar can unpack.
const TARBALLS: [&str; 6] = [".tar", ".tar.xz", ".tar.gz", ".tar.bz2", ".tar.zst", ".tgz"];

/// Returns true for the file name of a tarball.
pub(super) fn is_tarball(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    TARBALLS.iter().any(|end| name.ends_with(end))
}

/// Unpacks a tarball's tree into an empty folder.
///
/// # Errors
/// `klpx::bad-tarball`, or an error if tar is not installed.
pub fn unpack(tarball: &Path, into: &Path, runner: &Runner) -> Result<()> {
    let call = Call::new("tar").args([
        "--extract",
        "--strip-components=1",
        "--no-same-owner",
        "--no-same-permissions",
    ]);
    let outcome = runner.run(&call.arg("--file").arg(tarball).arg("--directory").arg(into))?;
    if outcome.success {
        return Ok(());
    }
    let what = format!("can't unpack {}", tarball.display());
    Err(Diagnosis::new(
        &codes::BAD_TARBALL,
        what,
        "tar failed",
        "check the file, unpack it yourself and name the folder with --source",
    )
    .place(DiagnosisPlace::file(tarball.display().to_string(), None))
    .detail(outcome.lines.into_iter().take(5))
    .into())
}

/// The kernel that the source must belong to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected<'a> {
    pub(super) release: &'a str,
    /// The version in the first lines of the configuration.
    pub(super) version: Option<&'a str>,
    /// The version of the kernel's package.
    pub(super) package: Option<&'a str>,
}

/// Checks a tree. `installed` is the version of the package that installed it. Returns notes on what was not checked.
pub(super) fn check_tree(
    kernel: &Expected<'_>,
    tree: &SourceTree,
    installed: Option<&str>,
) -> Result<Vec<Note>> {
    let version = tree.version().to_string();
    // Fedora sets EXTRAVERSION so that the Makefile's version is the whole release.
    if kernel.version.is_some_and(|wanted| wanted != version) && version != kernel.release {
        let wanted = kernel.version.unwrap_or_default();
        return Err(mismatch(tree.root(), &format!("Linux {version}"), &format!("Linux {wanted}")).into());
    }
    let changelog = first_line(&tree.root().join("debian/changelog"));
    let stated = changelog.as_deref().and_then(changelog_version).or(installed);
    check_package(kernel, tree.root(), stated, kernel.version.map(|_| version.as_str()))
}

/// Checks a tarball by the version of the package that installed it. Returns notes on what was not checked.
pub(super) fn check_tarball(
    kernel: &Expected<'_>,
    tarball: &Path,
    installed: Option<&str>,
) -> Result<Vec<Note>> {
    check_package(kernel, tarball, installed, None)
}

fn check_package(
    kernel: &Expected<'_>,
    path: &Path,
    stated: Option<&str>,
    version: Option<&str>,
) -> Result<Vec<Note>> {
    match (kernel.package, stated, version) {
        (Some(wanted), Some(stated), _) if wanted != stated => {
            Err(mismatch(path, &format!("version {stated}"), &format!("version {wanted}")).into())
        }
        (Some(_), Some(_), _) | (None, _, Some(_)) => Ok(Vec::new()),
        (Some(wanted), None, Some(version)) => {
            let text = format!(
                "the source states its version {version}, but not its package's: that it is {wanted} was not checked"
            );
            Ok(vec![Note::new(&codes::SOURCE_PACKAGE_UNKNOWN, text)])
        }
        (_, _, None) => {
            let text = format!("the version of {} is checked when it is unpacked", path.display());
            Ok(vec![Note::new(&codes::SOURCE_PACKED, text)])
        }
    }
}

fn mismatch(path: &Path, found: &str, wanted: &str) -> Diagnosis {
    Diagnosis::new(
        &codes::SOURCE_MISMATCH,
        "the source is not this kernel's",
        format!("it is {found}, the kernel was made from {wanted}"),
        "name the source of the kernel's own package with --source",
    )
    .place(DiagnosisPlace::file(path.display().to_string(), None))
}

/// The version of an installed or unpacked Debian package below a root: from dpkg's record, or else from the package's
/// changelog.
pub(super) fn package_version(root: &Path, package: &str) -> Option<String> {
    let recorded = || {
        let status = std::fs::File::open(root.join("var/lib/dpkg/status")).ok()?;
        version_in_status(BufReader::new(status), package)
    };
    let brought = || {
        let path = root.join("usr/share/doc").join(package).join("changelog.Debian.gz");
        let file = std::fs::File::open(path).ok()?;
        // A line of a changelog is short. A longer text is no changelog.
        let text = flate2::read::GzDecoder::new(file).take(4096);
        let line = BufReader::new(text).lines().next()?.ok()?;
        changelog_version(&line).map(str::to_owned)
    };
    recorded().or_else(brought)
}

fn version_in_status(status: impl BufRead, package: &str) -> Option<String> {
    let (mut inside, mut installed) = (false, false);
    for line in status.lines().map_while(std::io::Result::ok) {
        if let Some(name) = line.strip_prefix("Package: ") {
            (inside, installed) = (name == package, false);
        } else if inside && let Some(state) = line.strip_prefix("Status: ") {
            installed = state.ends_with(" installed");
        } else if inside
            && installed
            && let Some(version) = line.strip_prefix("Version: ")
        {
            return Some(version.to_owned());
        }
    }
    None
}

fn first_line(path: &Path) -> Option<String> {
    BufReader::new(std::fs::File::open(path).ok()?).lines().next()?.ok()
}

/// `6.12.115-2~deb12u1` from `linux-6.12 (6.12.115-2~deb12u1) bookworm-security; urgency=high`.
fn changelog_version(line: &str) -> Option<&str> {
    let (name, rest) = line.split_once(" (")?;
    let version = rest.split_once(") ")?.0;
    (name.starts_with("linux") && !version.is_empty()).then_some(version)
}

/// The version that Kconfig writes into the first lines: `# Linux/x86 6.1.192 Kernel Configuration`.
pub(super) fn configured_version(config: &str) -> Option<String> {
    config.lines().take(10).find_map(|line| {
        let rest = line.strip_prefix("# Linux/")?.strip_suffix(" Kernel Configuration")?;
        rest.split_once(' ').map(|(_, version)| version.to_owned())
    })
}

/// The absolute path, with links resolved if possible.
pub(super) fn absolute(path: &Path) -> PathBuf {
    path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned())
}
