//! A kernel's modules: where each lies, compressed or not, and what must be loaded before it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use object::{Object as _, ObjectSection as _};

use crate::process;

/// Endings of files of modules, and what brings their contents to standard output.
const FORMS: &[(&str, &[&str])] = &[
    ("ko", &[]),
    ("ko.xz", &["xz", "--decompress", "--stdout"]),
    ("ko.zst", &["zstd", "--decompress", "--quiet", "--stdout"]),
    ("ko.gz", &["gzip", "--decompress", "--stdout"]),
];

/// The modules of a kernel, and what is built into it instead.
#[derive(Debug)]
pub(crate) struct Modules {
    root: PathBuf,
    /// Paths below the root, without an ending, by the module's name.
    paths: BTreeMap<String, PathBuf>,
    builtin: BTreeSet<String>,
}

/// A module that a guest loads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Module {
    /// The kernel's name for it.
    pub(crate) name: String,
    /// The ELF file.
    pub(crate) data: Vec<u8>,
    /// What must be loaded for it, in order; itself comes last.
    pub(crate) chain: Vec<String>,
}

impl Modules {
    /// Reads `modules.order` and `modules.builtin` of a directory.
    pub(crate) fn read(root: &Path) -> Result<Modules> {
        let order = root.join("modules.order");
        let order = fs::read_to_string(&order).with_context(|| format!("can't read {}", order.display()))?;
        let builtin = fs::read_to_string(root.join("modules.builtin")).unwrap_or_default();
        let paths =
            order.lines().filter_map(|line| Some((name_of(line)?, Path::new(line).with_extension(""))));
        Ok(Modules {
            root: root.to_path_buf(),
            paths: paths.collect(),
            builtin: builtin.lines().filter_map(name_of).collect(),
        })
    }

    /// The same modules with their files in another directory.
    pub(crate) fn under(self, root: &Path) -> Modules {
        Modules { root: root.to_path_buf(), ..self }
    }

    /// Every module's name.
    pub(crate) fn names(&self) -> Vec<String> {
        self.paths.keys().cloned().collect()
    }

    /// The file of a module.
    pub(crate) fn file(&self, name: &str) -> Result<PathBuf> {
        let path = self.paths.get(name).with_context(|| format!("the kernel has no module {name}"))?;
        let path = self.root.join(path);
        let mut files = FORMS.iter().map(|(form, _)| path.with_extension(form));
        files.find(|file| file.is_file()).with_context(|| format!("{} is missing", path.display()))
    }

    /// The modules in the order in which they can be loaded, with all that they need. What is built in is left out.
    pub(crate) fn loading(&self, names: &[String]) -> Result<Vec<Module>> {
        let mut order = Vec::new();
        for name in names {
            self.add(name, &mut order)?;
        }
        Ok(order)
    }

    fn add(&self, name: &str, order: &mut Vec<Module>) -> Result<()> {
        if self.builtin.contains(name) || order.iter().any(|module| module.name == name) {
            return Ok(());
        }
        let data = contents(&self.file(name)?)?;
        let mut chain: Vec<String> = Vec::new();
        // The kernel refuses modules that need each other, so this ends.
        for needed in depends(&data).with_context(|| format!("module {name}"))? {
            self.add(&needed, order)?;
            let earlier = order.iter().find(|module| module.name == needed);
            let more = earlier.into_iter().flat_map(|module| &module.chain);
            let more: Vec<String> = more.filter(|name| !chain.contains(name)).cloned().collect();
            chain.extend(more);
        }
        chain.push(name.to_owned());
        order.push(Module { name: name.to_owned(), data, chain });
        Ok(())
    }
}

/// `md_mod` of `drivers/md/md-mod.ko` or `drivers/md/md-mod.o`.
fn name_of(line: &str) -> Option<String> {
    Some(Path::new(line).file_stem()?.to_str()?.replace('-', "_"))
}

/// A module's ELF file, decompressed.
fn contents(file: &Path) -> Result<Vec<u8>> {
    let name = file.to_string_lossy();
    let form = FORMS.iter().find(|(form, _)| name.ends_with(&format!(".{form}")));
    let (_, words) = form.with_context(|| format!("{name} is no module"))?;
    let Some((program, options)) = words.split_first() else {
        return fs::read(file).with_context(|| format!("can't read {name}"));
    };
    let mut command = Command::new(program);
    command.args(options).arg(file).stdin(Stdio::null());
    let result = command.output().with_context(|| format!("can't run {}", process::shown(&command)))?;
    if !result.status.success() {
        bail!("{} failed: {}", process::shown(&command), String::from_utf8_lossy(&result.stderr).trim());
    }
    Ok(result.stdout)
}

/// The modules that one needs, as modpost wrote them into it.
fn depends(data: &[u8]) -> Result<Vec<String>> {
    let file = object::File::parse(data).context("no ELF file")?;
    let info = file.section_by_name(".modinfo").context("no .modinfo")?.data()?;
    let strings = info.split(|byte| *byte == 0).filter_map(|string| std::str::from_utf8(string).ok());
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
        let modules = Modules::read(root.path()).expect("readable");
        assert_eq!(modules.names(), ["gone", "loop", "md_mod"]);
        assert!(modules.file("md_mod").expect("there").ends_with("kernel/md-mod.ko.xz"));
        assert!(modules.file("loop").expect("there").ends_with("kernel/loop.ko"));
        assert!(modules.file("gone").is_err());
        assert_eq!(modules.loading(&["nls_base".to_owned()]).expect("built in"), []);
    }
}
