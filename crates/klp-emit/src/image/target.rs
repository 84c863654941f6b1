//! The files of the kernel to be patched.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Result, codes};
use klpx_normalize::elf::ElfFile;

use super::exports::Exports;
use super::kernel_object::{Image, VMLINUX};
use super::module_files::{ModuleFile, find_modules, module_name};
use crate::locals::Locals;

/// The files of the kernel to be patched.
pub struct TargetKernel {
    vmlinux: ElfFile,
    exports: Exports,
    directories: Vec<PathBuf>,
    modules: OnceLock<BTreeMap<String, ModuleFile>>,
    debug_directories: Vec<PathBuf>,
    debug_modules: OnceLock<BTreeMap<String, ModuleFile>>,
    /// Module files that take precedence over those in the directories.
    named: Vec<PathBuf>,
}

impl TargetKernel {
    /// Opens vmlinux and Module.symvers. A module is searched in `directories` when it is requested.
    ///
    /// # Errors
    /// Fails if one of the two files can't be read.
    pub fn open(vmlinux: &Path, symvers: &Path, directories: &[PathBuf]) -> Result<TargetKernel> {
        let vmlinux = ElfFile::open(vmlinux)?;
        let text = klpx_input::text(symvers)?;
        let exports = Exports::parse(&text).map_err(|diagnosis| {
            diagnosis.place(DiagnosisPlace::file(symvers.display().to_string(), None))
        })?;
        Ok(TargetKernel {
            vmlinux,
            exports,
            directories: directories.to_vec(),
            modules: OnceLock::new(),
            debug_directories: Vec::new(),
            debug_modules: OnceLock::new(),
            named: Vec::new(),
        })
    }

    /// Adds directories with copies of the kernel's modules that were not stripped, such as those of a debug package.
    /// The copies tell only from which file a symbol comes.
    pub fn with_debug_modules(mut self, directories: &[PathBuf]) -> TargetKernel {
        self.debug_directories = directories.to_vec();
        self
    }

    /// Adds an external module: its file, and the text of the Module.symvers that lists its exports.
    ///
    /// # Errors
    /// `klpx::bad-symvers`.
    pub fn with_external(mut self, module: &Path, symvers: &str) -> Result<TargetKernel> {
        self.named.push(module.to_owned());
        self.exports.by_name.extend(Exports::parse(symvers)?.by_name);
        Ok(self)
    }

    /// The kernel's image as a file.
    pub(crate) fn vmlinux(&self) -> &ElfFile {
        &self.vmlinux
    }

    /// The exports of the kernel and its modules.
    pub fn exports(&self) -> &Exports {
        &self.exports
    }

    /// Reads the image of `vmlinux` or of a module, by the running kernel's name for it.
    ///
    /// # Errors
    /// `klpx::no-such-module`, or an error for a damaged file.
    pub fn image(&self, object: &str) -> Result<Image<'_>> {
        if object == VMLINUX {
            Image::read(&self.vmlinux, VMLINUX)
        } else {
            let image = Image::read(self.module(object)?, object)?;
            if image.files.is_empty()
                && let Some(copy) = self.debug_copy(object)
            {
                let copy = copy?;
                let locals = Locals::by_copy(&image.elf, |id| image.is_global(id), &copy.parse()?);
                let _ = image.locals.set(locals);
            }
            Ok(image)
        }
    }

    /// The unstripped copy of a module, if there is one.
    fn debug_copy(&self, name: &str) -> Option<Result<ElfFile>> {
        let modules = self.debug_modules.get_or_init(|| find_modules(&self.debug_directories));
        modules.get(name).map(|module| ElfFile::open(&module.path))
    }

    /// All modules, by name and file.
    pub fn modules(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.found_modules().iter().map(|(name, module)| (name.as_str(), module.path.as_path()))
    }

    fn found_modules(&self) -> &BTreeMap<String, ModuleFile> {
        self.modules.get_or_init(|| {
            let mut found = find_modules(&self.directories);
            let named = self.named.iter().map(|path| (module_name(path), ModuleFile::at(path.clone())));
            found.extend(named);
            found
        })
    }

    /// The file of a module.
    fn module(&self, name: &str) -> Result<&ElfFile> {
        let module = self.found_modules().get(name).ok_or_else(|| {
            Diagnosis::new(
                &codes::NO_SUCH_MODULE,
                format!("the module {name} is not there"),
                format!("neither {name}.ko nor its object is in {}", list(&self.directories)),
                "name the directory of the kernel's own modules",
            )
        })?;
        if let Some(file) = module.file.get() {
            return Ok(file);
        }
        let file = ElfFile::open(&module.path)?;
        Ok(module.file.get_or_init(|| file))
    }
}

fn list(directories: &[PathBuf]) -> String {
    directories.iter().map(|d| d.display().to_string()).collect::<Vec<_>>().join(", ")
}
