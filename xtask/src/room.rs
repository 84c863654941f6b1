//! Makes room on the disk before a kernel is tried: removes first what klpx kept for other kernels, then fixture kernels
//! that this run does not use.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::klpx::Klpx;
use crate::workspace::CargoWorkspace;
use crate::{made, process, ui};

/// Gigabytes that two kernels at once take at most: a build tree and its copy of 1.2 each, and the free space that klpx
/// wants.
const ROOM: u64 = 16;

/// A gigabyte, in bytes.
const GIGABYTE: u64 = 1_000_000_000;

/// Makes room for the next kernel. `used` names the kernels of this run.
pub(crate) fn make(workspace: &CargoWorkspace, klpx: &Klpx, used: &[&str]) -> Result<()> {
    klpx.make_room(ROOM)?;
    let enough = || Ok(free(&workspace.cache)? >= ROOM * GIGABYTE);
    for name in made::remove_unused(workspace, used, &enough)? {
        ui::line("room on the disk", &format!("removed {name}, which this run does not use"), None);
    }
    if !enough()? {
        let free = free(&workspace.cache)? as f64 / GIGABYTE as f64;
        let place = workspace.cache.display();
        ui::line("room on the disk", &format!("{free:.1} GB are free for {place}, {ROOM} are wanted"), None);
    }
    Ok(())
}

/// Returns the bytes that the file system of a folder has free.
fn free(folder: &Path) -> Result<u64> {
    let mut command = Command::new("df");
    let text = process::output(command.args(["--block-size=1", "--output=avail"]).arg(folder))?;
    let bytes = text.lines().last().and_then(|line| line.trim().parse().ok());
    bytes.with_context(|| format!("df does not tell the free bytes, but '{}'", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_free_bytes_of_a_folder_are_known() {
        assert!(free(Path::new("/")).is_ok());
        assert!(free(Path::new("/no/such/folder")).is_err());
    }
}
