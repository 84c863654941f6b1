//! Kconfig's output for the kernel's configuration, as it lies in a build tree or a headers package.

use std::path::PathBuf;

use klpx_diagnosis::{Diagnosis, Result};

use crate::config::Config;

/// A configuration that is used unchanged. Kconfig examines the machine's tools: without pahole or rustc it silently
/// makes another configuration.
#[derive(Clone, Debug)]
pub(crate) struct Pinned {
    /// The folder with the files.
    pub(crate) dir: PathBuf,
    /// The hash of the files.
    pub(super) hash: blake3::Hash,
}

/// The files that make and C code read of a configuration.
pub(crate) const PINNED_FILES: [&str; 3] =
    [".config", "include/config/auto.conf", "include/generated/autoconf.h"];
/// The file that rustc reads, in kernels with Rust.
pub(crate) const PINNED_RUST: &str = "include/generated/rustc_cfg";

impl Pinned {
    /// Finds the folder's configuration, if the folder is complete and its configuration is `config`.
    pub(super) fn find(dir: PathBuf, config: &Config) -> Result<Option<Pinned>> {
        let is_complete = PINNED_FILES.iter().all(|name| dir.join(name).is_file());
        if !is_complete || Config::read(&dir.join(PINNED_FILES[0]))? != *config {
            return Ok(None);
        }
        let mut hasher = blake3::Hasher::new();
        for name in PINNED_FILES {
            let path = dir.join(name);
            let text = klpx_input::bytes(&path).map_err(|error| Diagnosis::io("read", &path, &error))??;
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(&text);
        }
        Ok(Some(Pinned { dir, hash: hasher.finalize() }))
    }
}
