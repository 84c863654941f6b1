//! The private copy of the source, and its configuration.

use std::fs::File;
use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, Result, codes};

use crate::config::Config;
use crate::files;
use crate::kbuild::make::original_does_not_build;
use crate::kernel::accepted;
use crate::kernel::contents::{Contents, Hashes};
use crate::progress::Progress;
use crate::space;
use crate::tree::SourceFile;
use crate::workspace::{Workspace, cache, lock};

/// The private source copy of another kernel. A new copy may share its files.
struct SourceDonor {
    src: PathBuf,
    hashes: Hashes,
    _lock: File,
}

impl Workspace {
    pub(crate) fn copy_source(&self, progress: &dyn Progress) -> Result<()> {
        let src = self.source_dir();
        if src.exists() {
            return Ok(());
        }
        let files = self.kernel.files();
        progress.step(&format!("copying the source ({} files)", files.len()));
        let bytes: u64 = files.iter().map(SourceFile::size).sum();
        let built = match self.kernel.is_of_units() {
            true => space::UNITS,
            false => space::estimate(self.kernel.config()),
        };
        space::check(&self.dir, bytes + built)?;
        let temporary = self.dir.join("src.tmp");
        let cache_dir = self.kernel.cache_dir();
        let donors = self.donors();
        let hashes = Contents::hashes(cache_dir, self.kernel.contents().identity());
        let root = self.kernel.source().root();
        // klpx owns a tree that it unpacked, so the copy may share the tree's files.
        let own = cache_dir.canonicalize().is_ok_and(|cache| root.starts_with(cache));
        let donor = |entry: &SourceFile| {
            if own {
                return Some(root.join(&entry.path));
            }
            let hash = hashes.get(&entry.path)?;
            let donor = donors.iter().find(|donor| donor.hashes.get(&entry.path) == Some(hash))?;
            Some(donor.src.join(&entry.path))
        };
        files::copy_tree(root, files, &temporary, &donor)?;
        std::fs::rename(&temporary, &src).map_err(|error| Diagnosis::io("create", &src, &error))?;
        Ok(())
    }

    /// The source copies of other kernels that are at rest, with the hashes of their files. Each stays at rest while
    /// its lock is held here.
    fn donors(&self) -> Vec<SourceDonor> {
        let mut donors = Vec::new();
        for item in cache::list(self.kernel.cache_dir()).unwrap_or_default() {
            let (src, Some(info)) = (item.dir.join("src"), item.info) else { continue };
            if item.dir == self.dir || !src.is_dir() {
                continue;
            }
            let Ok(Some(lock)) = lock::try_take(&item.dir) else { continue };
            if item.dir.join("patch.journal").exists() {
                continue;
            }
            let hashes = Contents::hashes(self.kernel.cache_dir(), &info.contents);
            donors.push(SourceDonor { src, hashes, _lock: lock });
        }
        donors
    }

    /// Installs the configuration and lets Kconfig read it. Kconfig must not change it.
    pub(crate) fn configure(&self, progress: &dyn Progress) -> Result<()> {
        progress.step("checking the configuration");
        let build = self.build_dir();
        std::fs::create_dir_all(&build).map_err(|error| Diagnosis::io("create", &build, &error))?;
        let path = build.join(".config");
        let wanted = self.kernel.config();
        write_if_other(&path, wanted.text())?;
        for (name, text) in self.kernel.local_files() {
            write_if_other(&build.join(name), text)?;
        }
        self.with_make(|make| {
            let built = make.run(&["olddefconfig"], &(), None)?;
            if built.success { Ok(()) } else { Err(original_does_not_build(make, &built)) }
        })?;
        let differences = accepted::differences(wanted, &Config::read(&path)?).into_iter();
        let matters = differences.filter(|difference| difference.accepted.is_none());
        let differences: Vec<String> = matters.map(|difference| difference.to_string()).collect();
        if differences.is_empty() {
            return Ok(());
        }
        let _ = std::fs::remove_file(&path);
        let what = "the configuration does not fit this source and these tools";
        Err(Diagnosis::new(
            &codes::CONFIG_CHANGED,
            what,
            "Kconfig gives other values to the symbols below, so that the build would be of \
             another kernel",
            "use the source that the configuration was made with, and install what its options \
             need (BTF: pahole)",
        )
        .detail(differences)
        .into())
    }
}

fn write_if_other(path: &Path, text: &str) -> Result<()> {
    if std::fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(());
    }
    std::fs::write(path, text).map_err(|error| Diagnosis::io("write", path, &error).into())
}
