//! The files of modules in directories, and the kernel's names for them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use klpx_normalize::compressed::plain_name;
use klpx_normalize::elf::ElfFile;

/// The kernel's name for a module file, compressed or not: the file's stem with `_` for `-` (scripts/Makefile.lib,
/// KBUILD_MODNAME).
pub fn module_name(path: &Path) -> String {
    let name = path.file_name().map(|n| n.to_string_lossy()).unwrap_or_default();
    let name = plain_name(&name);
    name.strip_suffix(".ko").or_else(|| name.strip_suffix(".o")).unwrap_or(name).replace('-', "_")
}

/// The file of a module, opened on the first request.
pub(super) struct ModuleFile {
    pub(super) path: PathBuf,
    pub(super) file: OnceLock<ElfFile>,
}

impl ModuleFile {
    pub(super) fn at(path: PathBuf) -> ModuleFile {
        ModuleFile { path, file: OnceLock::new() }
    }
}

/// All `.ko` files below the directories, compressed or not, and all `.o` files with a `.mod` beside them (kbuild's
/// mark of a module), by name. The first directory wins, then `.ko` over `.o`, then the path that sorts first.
pub(super) fn find_modules(directories: &[PathBuf]) -> BTreeMap<String, ModuleFile> {
    let mut found: BTreeMap<String, (usize, bool, PathBuf)> = BTreeMap::new();
    for (rank, directory) in directories.iter().enumerate() {
        for entry in walkdir::WalkDir::new(directory).follow_links(false).into_iter().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy();
            let object = match Path::new(plain_name(&name)).extension().and_then(|e| e.to_str()) {
                Some("ko") => false,
                Some("o") if path.with_extension("mod").exists() => true,
                _ => continue,
            };
            let candidate = (rank, object, path.to_owned());
            let slot = found.entry(module_name(path)).or_insert_with(|| candidate.clone());
            if candidate < *slot {
                *slot = candidate;
            }
        }
    }
    found.into_iter().map(|(name, (_, _, path))| (name, ModuleFile::at(path))).collect()
}
