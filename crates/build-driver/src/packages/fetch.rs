//! `--fetch`: downloads missing packages and unpacks them into klpx's cache. Installs nothing, needs no root.

use std::path::{Path, PathBuf};

use klpx_diagnosis::{Class, Diagnosis, Result};

use super::distribution::Manager;
use super::missing::{Package, Shortage, apt};
use super::{Piece, Survey};
use crate::process::{Call, Runner};

/// Downloads what a search did not find, and unpacks it into one folder for the kernel below `folder`. Packages that
/// were unpacked there before are not fetched again. Returns that folder, which serves as a root.
///
/// # Errors
/// `klpx::fetch-unsupported`, `klpx::fetch-failed`.
pub(super) fn fetch(survey: &Survey, folder: &Path, runner: &Runner) -> Result<PathBuf> {
    let Some(Manager::Apt) = survey.distribution.and_then(|row| row.manager) else {
        return Err(unsupported(survey).into());
    };
    let layer = folder.join(&survey.release);
    let shortage = Shortage::of(survey, runner)?;
    let wanted = shortage.missing.iter().filter(|missing| missing.piece != Piece::DebugModules);
    let wanted: Vec<&String> = wanted.filter_map(|missing| missing.package.as_ref()).collect();
    for package in shortage.packages.iter().filter(|package| wanted.contains(&&package.name)) {
        fetch_one(package, &layer, runner)?;
    }
    Ok(layer)
}

/// Downloads and unpacks one package. The mark is made last: what was interrupted is fetched again.
fn fetch_one(package: &Package, layer: &Path, runner: &Runner) -> Result<()> {
    let mark = layer.join(".klpx").join(package.argument());
    if mark.is_file() {
        return Ok(());
    }
    let create =
        |path: &Path| std::fs::create_dir_all(path).map_err(|error| Diagnosis::io("create", path, &error));
    create(&layer.join(".klpx"))?;
    let download = tempfile::tempdir_in(layer).map_err(|error| Diagnosis::io("write to", layer, &error))?;
    // Root's apt would download as a user that can't write here.
    let get = apt("apt-get").args(["-q", "-o", "APT::Sandbox::User=root", "download"]);
    run(package, &get.arg(package.argument()).dir(download.path()), runner)?;
    let entries = std::fs::read_dir(download.path())
        .map_err(|error| Diagnosis::io("read", download.path(), &error))?
        .flatten();
    for file in entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "deb"))
    {
        run(package, &Call::new("dpkg-deb").arg("--extract").arg(file).arg(layer), runner)?;
    }
    std::fs::write(&mark, "").map_err(|error| Diagnosis::io("write", &mark, &error))?;
    Ok(())
}

fn run(package: &Package, call: &Call, runner: &Runner) -> Result<()> {
    let outcome = runner.run(call)?;
    if outcome.success {
        return Ok(());
    }
    let lines = outcome.lines;
    let shown = lines.len().saturating_sub(10);
    Err(Diagnosis::new(
        "klpx::fetch-failed",
        Class::Environment,
        format!("can't fetch {}", package.argument()),
    )
    .why("the package manager failed")
    .remedy(
        "renew the package manager's lists (apt update); old versions are in the distribution's snapshots",
    )
    .detail(lines.into_iter().skip(shown))
    .into())
}

fn unsupported(survey: &Survey) -> Diagnosis {
    let name = survey.distribution.map_or("no distribution that klpx knows", |row| row.name);
    let what = format!("klpx can't fetch packages of the kernel {}", survey.release);
    Diagnosis::new("klpx::fetch-unsupported", Class::Usage, what)
        .why(format!("it is of {name}; klpx fetches with apt only"))
        .remedy("run klpx without --fetch: it says what is missing and how to install it")
}
