//! The guest's programs: a static busybox of the guest's architecture.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::machine::Machine;
use crate::workspace::CargoWorkspace;
use crate::{apt, ui};

const PACKAGE: &str = "busybox-static";

/// Returns the installed busybox where it runs here; else the one of the other architecture's package, unpacked in the
/// cache.
pub(crate) fn ensure(workspace: &CargoWorkspace, machine: &Machine) -> Result<PathBuf> {
    if machine.is_native() {
        return Ok(klpx_guest::busybox()?);
    }
    let place = workspace.cache_dir("busybox")?.join(machine.debian);
    if place.exists() {
        return Ok(place);
    }
    let _lock = workspace.lock("busybox")?;
    let mut step = ui::step("busybox");
    step.at(&format!("{PACKAGE} for {}", machine.debian));
    let scratch = tempfile::Builder::new().prefix(".fetch-").tempdir_in(workspace.cache_dir("busybox")?)?;
    let files = apt::fetch(scratch.path(), PACKAGE, Some(machine.debian), &[])?;
    let binary = ["bin/busybox", "usr/bin/busybox"].map(|path| files.join(path));
    let binary = binary.iter().find(|path| path.exists()).context("the package holds no busybox")?;
    std::fs::rename(binary, &place)?;
    step.done(machine.debian);
    Ok(place)
}
