//! `--fetch`: downloads missing packages and unpacks them into klpx's cache. Installs nothing and needs no root.

use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, Result, codes};

use super::KernelSearch;
use super::distribution::Manager;
use super::missing::{NeededPackage, Shortage, apt};
use crate::process::{Call, Runner};
use crate::progress::Progress;
use crate::workspace::cache;

/// Downloads the pieces that a search did not find. Each package is unpacked into its own folder, which serves as a
/// root and is kept for the next run.
///
/// # Errors
/// `klpx::fetch-unsupported`, `klpx::fetch-failed`.
pub(super) fn fetch(
    survey: &KernelSearch,
    cache_dir: &Path,
    runner: &Runner,
    progress: &dyn Progress,
) -> Result<Vec<PathBuf>> {
    let Some(Manager::Apt) = survey.distribution.and_then(|row| row.manager) else {
        return Err(unsupported(survey).into());
    };
    let shortage = Shortage::find(survey, runner)?;
    let fetched = shortage.packages.iter().map(|package| {
        // Without a version, the kernel release in the package's name identifies the download.
        let identity = package.argument();
        cache::cached_folder(cache_dir, "packages", &identity, |folder| {
            progress.note(&match package.bytes {
                Some(bytes) => format!("fetching {identity}, {} MB", bytes.div_ceil(1_000_000)),
                None => format!("fetching {identity}"),
            });
            download(package, folder, runner)
        })
    });
    fetched.collect()
}

/// Downloads a package into a temporary folder, unpacks it into `folder`, and removes the download.
fn download(package: &NeededPackage, folder: &Path, runner: &Runner) -> Result<()> {
    let download = tempfile::tempdir_in(folder).map_err(|error| Diagnosis::io("write to", folder, &error))?;
    // As root, apt would download as a user without write access to this folder.
    let get = apt("apt-get").args(["-q", "-o", "APT::Sandbox::User=root", "download"]);
    run(package, &get.arg(package.argument()).dir(download.path()), runner)?;
    let listing =
        std::fs::read_dir(download.path()).map_err(|error| Diagnosis::io("read", download.path(), &error))?;
    let files = listing.flatten().map(|entry| entry.path());
    for file in files.filter(|path| path.extension().is_some_and(|end| end == "deb")) {
        run(package, &Call::new("dpkg-deb").arg("--extract").arg(file).arg(folder), runner)?;
    }
    Ok(())
}

fn run(package: &NeededPackage, call: &Call, runner: &Runner) -> Result<()> {
    let outcome = runner.run(call)?;
    if outcome.success {
        return Ok(());
    }
    let lines = outcome.lines;
    let shown = lines.len().saturating_sub(10);
    Err(Diagnosis::new(
        &codes::FETCH_FAILED,
        format!("can't fetch {}", package.argument()),
        "the package manager failed",
        "renew the package manager's lists (apt update); old versions are in the distribution's snapshots",
    )
    .detail(lines.into_iter().skip(shown))
    .into())
}

fn unsupported(survey: &KernelSearch) -> Diagnosis {
    let name = survey.distribution.map_or("no distribution that klpx knows", |row| row.name);
    let what = format!("klpx can't fetch packages of the kernel {}", survey.release);
    Diagnosis::new(
        &codes::FETCH_UNSUPPORTED,
        what,
        format!("it is of {name}; klpx fetches with apt only"),
        "run klpx without --fetch: it says what is missing and how to install it",
    )
}

#[cfg(test)]
mod tests {
    use super::super::testing::Root;
    use super::super::{Selector, WantedKernel, survey};
    use super::*;

    #[test]
    fn what_klpx_can_not_fetch_is_refused() {
        for release in ["6.11.4-301.fc41.x86_64", "6.11.3-1-default", "7.2.0-rc1+"] {
            let (root, cache) = (Root::new(), Root::new());
            let wanted = WantedKernel {
                kernel: Some(Selector::parse(release)),
                fetch: Some(cache.path().to_owned()),
                ..root.wanted()
            };
            let failure = survey(&wanted, &Runner::new(), &()).expect_err("refused");
            assert_eq!(failure.diagnoses().next().expect("one").code, "klpx::fetch-unsupported", "{release}");
        }
    }
}
