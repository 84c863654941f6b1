//! Puts a linker in front of a fixture kernel's own linker. The new linker keeps the native code of ThinLTO links in
//! the build tree, so a copy of the tree in which a few units differ is linked in seconds. The linked result is the
//! same.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The folder in the build tree that contains the linker.
const TOOLS: &str = "klpx-fixture-tools";
/// The folder in the build tree with the native code.
const CACHE: &str = "klpx-fixture-lto";

/// Puts the linker into a build tree, under the name that kbuild calls, and returns its folder for PATH. Only
/// relocatable links contain bitcode.
pub(crate) fn with_cache(tree: &Path, name: &str) -> Result<PathBuf> {
    let real = klpx_guest::which(name).with_context(|| format!("no {name} in PATH"))?;
    let tools = tree.join(TOOLS);
    fs::create_dir_all(&tools)?;
    let script = format!(
        "#!/bin/sh\nfor word; do\n\t[ \"$word\" != -r ] || exec {} --thinlto-cache-dir={} \"$@\"\ndone\nexec {} \"$@\"\n",
        real.display(),
        tree.join(CACHE).display(),
        real.display()
    );
    let path = tools.join(name);
    if !fs::read_to_string(&path).is_ok_and(|old| old == script) {
        fs::write(&path, script)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(tools)
}

/// Returns PATH with folders before all others.
pub(crate) fn path_with(folders: impl IntoIterator<Item = PathBuf>) -> Result<OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    Ok(std::env::join_paths(folders.into_iter().chain(std::env::split_paths(&path)))?)
}
