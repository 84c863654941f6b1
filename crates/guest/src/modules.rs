//! A kernel's modules: the place of each, compressed or not, and the modules that must be loaded first.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Result, codes};
use klpx_normalize::elf::ElfFile;

/// Extensions of module files.
const FORMS: &[&str] = &["ko", "ko.xz", "ko.zst", "ko.gz"];

/// The modules of a kernel, and the names that are built into the kernel.
#[derive(Debug)]
pub struct KernelModules {
    root: PathBuf,
    /// Paths below the root, without an extension, by module name.
    paths: BTreeMap<String, PathBuf>,
    builtin: BTreeSet<String>,
}

/// A module for a guest to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestModule {
    /// The kernel's name for the module.
    pub name: String,
    /// The ELF file.
    pub data: Vec<u8>,
    /// The modules to load, in order. The module itself comes last.
    pub chain: Vec<String>,
}

impl KernelModules {
    /// Reads `modules.order` and `modules.builtin` of a directory.
    ///
    /// # Errors
    /// If `modules.order` can't be read.
    pub fn read(root: &Path) -> Result<KernelModules> {
        let order = root.join("modules.order");
        let order = fs::read_to_string(&order).map_err(|error| Diagnosis::io("read", &order, &error))?;
        let builtin = fs::read_to_string(root.join("modules.builtin")).unwrap_or_default();
        let paths =
            order.lines().filter_map(|line| Some((name_of(line)?, Path::new(line).with_extension(""))));
        Ok(KernelModules {
            root: root.to_path_buf(),
            paths: paths.collect(),
            builtin: builtin.lines().filter_map(name_of).collect(),
        })
    }

    /// The same modules with their files in another directory.
    pub fn under(self, root: &Path) -> KernelModules {
        KernelModules { root: root.to_path_buf(), ..self }
    }

    /// The names of all modules.
    pub fn names(&self) -> Vec<String> {
        self.paths.keys().cloned().collect()
    }

    /// Returns true if the name is a module of the kernel or built into the kernel.
    pub fn has(&self, name: &str) -> bool {
        self.builtin.contains(name) || self.paths.contains_key(name)
    }

    /// The file of a module.
    ///
    /// # Errors
    /// `klpx::module-missing`.
    pub fn file(&self, name: &str) -> Result<PathBuf> {
        let missing = |why: String| {
            let what = format!("the kernel's module {name} is not there");
            Diagnosis::new(
                &codes::MODULE_MISSING,
                what,
                why,
                "install the package with the kernel's modules, or name the folder with --modules",
            )
        };
        let order = || missing(format!("modules.order of {} does not list it", self.root.display()));
        let path = self.root.join(self.paths.get(name).ok_or_else(order)?);
        let mut files = FORMS.iter().map(|form| path.with_extension(form));
        let file = files.find(|file| file.is_file());
        Ok(file.ok_or_else(|| missing(format!("{} is missing", path.display())))?)
    }

    /// The named modules and the modules that they need, in loading order. Leaves out modules that are built in.
    ///
    /// # Errors
    /// If a file is missing or is not a module.
    pub fn loading(&self, names: &[String]) -> Result<Vec<GuestModule>> {
        let mut order = Vec::new();
        for name in names {
            self.add(name, &mut order)?;
        }
        Ok(order)
    }

    fn add(&self, name: &str, order: &mut Vec<GuestModule>) -> Result<()> {
        if self.builtin.contains(name) || order.iter().any(|module| module.name == name) {
            return Ok(());
        }
        let file = ElfFile::open(&self.file(name)?)?;
        let mut chain: Vec<String> = Vec::new();
        // The kernel refuses modules that need each other, so the recursion ends.
        for needed in depends(&file)? {
            self.add(&needed, order)?;
            let earlier = order.iter().find(|module| module.name == needed);
            let more = earlier.into_iter().flat_map(|module| &module.chain);
            let more: Vec<String> = more.filter(|name| !chain.contains(name)).cloned().collect();
            chain.extend(more);
        }
        chain.push(name.to_owned());
        order.push(GuestModule { name: name.to_owned(), data: file.bytes().to_vec(), chain });
        Ok(())
    }
}

/// `md_mod` for `drivers/md/md-mod.ko` or `drivers/md/md-mod.o`.
fn name_of(line: &str) -> Option<String> {
    Some(Path::new(line).file_stem()?.to_str()?.replace('-', "_"))
}

/// The modules that a module needs, as modpost recorded them.
fn depends(file: &ElfFile) -> Result<Vec<String>> {
    let elf = file.parse()?;
    let info = elf.section_by_name(b".modinfo").ok_or_else(|| {
        Diagnosis::new(
            &codes::NOT_A_MODULE,
            "a file that should be a kernel module is none",
            "it has no section .modinfo",
            "install the package with the kernel's modules again, or name their folder with --modules",
        )
        .place(DiagnosisPlace::file(file.path().display().to_string(), None))
    })?;
    let strings =
        elf.section_bytes(info).split(|byte| *byte == 0).filter_map(|text| std::str::from_utf8(text).ok());
    let depends = strings.filter_map(|string| string.strip_prefix("depends="));
    Ok(depends.flat_map(|names| names.split(',')).filter(|name| !name.is_empty()).map(kernels_name).collect())
}

fn kernels_name(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_found_in_every_form_and_under_the_kernels_name() {
        let root = tempfile::tempdir().expect("a directory");
        for file in ["kernel/md-mod.ko.xz", "kernel/loop.ko", "modules.order", "modules.builtin"] {
            let file = root.path().join(file);
            fs::create_dir_all(file.parent().expect("inside")).expect("created");
            fs::write(file, "").expect("written");
        }
        fs::write(root.path().join("modules.order"), "kernel/md-mod.ko\nkernel/loop.o\nkernel/gone.ko\n")
            .expect("written");
        fs::write(root.path().join("modules.builtin"), "kernel/nls-base.ko\n").expect("written");
        let modules = KernelModules::read(root.path()).expect("readable");
        assert_eq!(modules.names(), ["gone", "loop", "md_mod"]);
        assert!(modules.file("md_mod").expect("there").ends_with("kernel/md-mod.ko.xz"));
        assert!(modules.file("loop").expect("there").ends_with("kernel/loop.ko"));
        assert!(modules.file("gone").is_err());
        assert_eq!(modules.loading(&["nls_base".to_owned()]).expect("built in"), []);
    }
}
