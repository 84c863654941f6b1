//! Builds external modules of scenarios as a user builds them: with the kernel's headers package or build tree, and
//! without klpx.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::distro;
use crate::kernel::BuiltKernel;
use crate::process;

/// Mounts a headers package below `/usr`, where its makefiles look for their other parts.
const WITH_PACKAGES: &str =
    r#"mount -t overlay overlay -o "lowerdir=$1/usr:/usr" /usr && shift && exec "$@""#;

/// Builds the modules of a source folder below `output`. Returns the folder with the `.ko` files.
pub(crate) fn build(built: &BuiltKernel, source: &Path, output: &Path) -> Result<PathBuf> {
    let folder = output.join("external");
    fs::create_dir_all(&folder)?;
    for entry in fs::read_dir(source).with_context(|| format!("can't read {}", source.display()))? {
        let entry = entry?;
        fs::copy(entry.path(), folder.join(entry.file_name()))?;
    }
    let mut make = match (&built.release, &built.root) {
        (Some(release), Some(root)) => with_headers(distro::enter(root, &built.tree, &[output]), release),
        (Some(release), None) => {
            let mut make = Command::new("unshare");
            make.args(["--mount", "sh", "-c", WITH_PACKAGES, "sh"]).arg(&built.tree);
            with_headers(make, release)
        }
        (None, _) => built.make(&built.tree)?,
    };
    make.arg(format!("M={}", folder.display())).arg("modules");
    process::output(&mut make).context("the external modules do not build")?;
    Ok(folder)
}

/// Adds make's call for the headers package of a release.
fn with_headers(mut command: Command, release: &str) -> Command {
    command.args(["make", "-C"]).arg(format!("/usr/src/linux-headers-{release}"));
    command
}

/// Returns the modules in a folder, by file name.
pub(crate) fn modules(folder: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "ko") {
            let name = path.file_name().context("a file has a name")?.to_string_lossy().into_owned();
            found.push((name, fs::read(&path)?));
        }
    }
    found.sort();
    Ok(found)
}
