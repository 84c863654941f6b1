//! Uses the distribution's own next kernel as a witness: it has the fixed functions as the same builders compiled them.
//! If a function differs there and is not in the module, something else that changed must explain the difference.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use klpx_klp_emit::successor::{self, SuccessorVerdict};
use klpx_normalize::elf::ElfFile;
use walkdir::WalkDir;

use super::record::{FixBuild, Judged};
use crate::kernel::BuiltKernel;
use crate::klpx::ReportObjects;
use klpx_guest::KernelModules;

/// The next kernel, and the differences in its source.
pub(super) struct Successor {
    built: BuiltKernel,
    modules: KernelModules,
    /// Files that differ between the two sources, as paths in them.
    changed: BTreeSet<String>,
}

/// The two builds of one unit, and its changed sources.
struct UnitBuilds {
    object: String,
    original: PathBuf,
    patched: PathBuf,
    /// Included sources that also changed.
    others: Vec<String>,
}

impl Successor {
    /// Compares the two sources.
    pub(super) fn new(old: &Path, built: BuiltKernel) -> Result<Successor> {
        let modules = KernelModules::read(&built.debug_modules_root())?;
        let changed = differing(old, &built.source.tree)?;
        Ok(Successor { built, modules, changed })
    }

    /// Compares the units of a run with the next kernel. Also compares the module, if there is one.
    pub(super) fn judge(
        &self,
        path: &str,
        build: &FixBuild,
        objects: &[ReportObjects],
        module: Option<&Path>,
    ) -> Result<Judged> {
        let mut judged = Judged::default();
        for objects in objects {
            let unit = self.unit(path, objects)?;
            self.unit_in(&unit, build, module.is_some(), &mut judged)?;
            if let Some(module) = module {
                self.module_in(&unit, build, module, &mut judged)?;
            }
        }
        Ok(judged)
    }

    fn unit(&self, path: &str, objects: &ReportObjects) -> Result<UnitBuilds> {
        let others = included(&objects.original)?;
        let others = others.into_iter().filter(|other| other != path && self.changed.contains(other));
        Ok(UnitBuilds {
            object: objects.object.clone(),
            original: objects.original.clone(),
            patched: objects.patched.clone(),
            others: others.collect(),
        })
    }

    /// Returns the next kernel's file for an object.
    fn image(&self, object: &str) -> Result<ElfFile> {
        let file = match object {
            "vmlinux" => self.built.vmlinux(),
            module => self.modules.file(module)?,
        };
        ElfFile::open(&file).map_err(|failure| anyhow::anyhow!("{failure}"))
    }

    /// Checks every function of a unit: if the next kernel's code differs from the original, the function must be in
    /// the module.
    fn unit_in(&self, unit: &UnitBuilds, build: &FixBuild, made: bool, judged: &mut Judged) -> Result<()> {
        let image = self.image(&unit.object)?;
        let before = verdicts(&unit.original, &image)?;
        let after = verdicts(&unit.patched, &image)?;
        let held = |name: &str| {
            let item = format!("{}:{}", unit.object, owner(name));
            build.changed.iter().chain(&build.new).any(|known| owner(known) == item)
        };
        for (name, verdict) in &after {
            *judged.counts.entry("functions".to_owned()).or_default() += 1;
            let fixed = *verdict == SuccessorVerdict::Equal
                && before.get(name).is_some_and(|old| *old != SuccessorVerdict::Equal);
            if fixed {
                *judged.counts.entry("functions that the fix changes".to_owned()).or_default() += 1;
                if made && !held(name) {
                    judged
                        .failures
                        .push(format!("{name} is another in the next kernel and not in the module"));
                }
                if !made && build.code.as_deref() == Some(NOTHING) {
                    judged.failures.push(format!("{name} is another in the next kernel: something changed"));
                }
            }
            if *verdict != SuccessorVerdict::Equal {
                let original = before.get(name).copied();
                DifferingFunction { name, verdict: *verdict, original }.record(unit, judged);
            }
        }
        Ok(())
    }

    /// Checks every function of the module.
    fn module_in(
        &self,
        unit: &UnitBuilds,
        build: &FixBuild,
        module: &Path,
        judged: &mut Judged,
    ) -> Result<()> {
        let image = self.image(&unit.object)?;
        let of_module = verdicts(module, &image)?;
        for item in build.changed.iter().chain(&build.new) {
            let Some(name) = item.strip_prefix(&format!("{}:", unit.object)) else { continue };
            // An object has several units. A function belongs to one of them, and is compared once.
            let Some(verdict) = of_module.get(name) else { continue };
            *judged.counts.entry("functions of the module".to_owned()).or_default() += 1;
            if *verdict != SuccessorVerdict::Equal {
                let name = &format!("{name} in the module");
                DifferingFunction { name, verdict: *verdict, original: None }.record(unit, judged);
            }
        }
        Ok(())
    }
}

/// A function that differs in the next kernel.
struct DifferingFunction<'a> {
    name: &'a str,
    verdict: SuccessorVerdict,
    /// The verdict on the function of the original unit.
    original: Option<SuccessorVerdict>,
}

impl DifferingFunction<'_> {
    /// Records the function, with the explanation if there is one.
    fn record(&self, unit: &UnitBuilds, judged: &mut Judged) {
        let DifferingFunction { name, verdict, original } = *self;
        let what = match verdict {
            SuccessorVerdict::Differs { unit_size, image_size } => {
                format!("{name}: {unit_size} bytes here, {image_size} there")
            }
            SuccessorVerdict::Absent | SuccessorVerdict::Equal => format!("{name}: not there"),
        };
        match unit.others.first() {
            Some(other) => judged.explained.push(format!("{what}: {other} changed too")),
            // No kernel uses the function under this name: it is a weak function that another unit overrides.
            None if verdict == SuccessorVerdict::Absent && original == Some(SuccessorVerdict::Absent) => {
                judged.explained.push(format!("{what}: nor was it before"));
            }
            None => judged.failures.push(what),
        }
    }
}

/// The diagnosis of a patch that changes nothing according to klpx.
const NOTHING: &str = "klpx::nothing-changed";

/// Returns the function to which a name's code belongs. Only the function itself uses its cold part and its padding.
fn owner(name: &str) -> &str {
    let name = name.strip_prefix("__pfx_").unwrap_or(name);
    name.strip_suffix(".cold").unwrap_or(name)
}

/// Compares each function with the image, by name. A name that occurs several times is equal only if all occurrences
/// are.
fn verdicts(file: &Path, image: &ElfFile) -> Result<BTreeMap<String, SuccessorVerdict>> {
    let opened = ElfFile::open(file).map_err(|failure| anyhow::anyhow!("{failure}"))?;
    let unit_elf = opened.parse().map_err(|failure| anyhow::anyhow!("{failure}"))?;
    let image_elf = image.parse().map_err(|failure| anyhow::anyhow!("{failure}"))?;
    let mut found = BTreeMap::new();
    for (name, verdict) in successor::compare(&unit_elf, &image_elf) {
        let known = found.entry(name).or_insert(verdict);
        *known = (*known).max(verdict);
    }
    Ok(found)
}

/// Returns the sources that a unit includes, as paths in the source. The compiler lists them beside kbuild's object.
fn included(original: &Path) -> Result<Vec<String>> {
    // <workspace>/units/<object>, <workspace>/build/<object>, <workspace>/src.
    let text = original.to_string_lossy();
    let (workspace, object) = text.rsplit_once("/units/").context("an original unit lies in units/")?;
    let object = Path::new(object);
    let name = object.file_name().context("an object has a name")?.to_string_lossy();
    let record = Path::new(workspace).join("build").join(object).with_file_name(format!(".{name}.cmd"));
    let record = fs::read_to_string(&record).with_context(|| format!("can't read {}", record.display()))?;
    let source = format!("{workspace}/src/");
    let words = record.split([' ', '\t', '\n', '\\']).filter_map(|word| word.strip_prefix(&source));
    Ok(words.map(|word| word.trim_end_matches(')').to_owned()).collect())
}

/// Returns the files of both sources that differ.
fn differing(old: &Path, new: &Path) -> Result<BTreeSet<String>> {
    let mut changed = BTreeSet::new();
    for entry in WalkDir::new(old) {
        let entry = entry.with_context(|| format!("can't walk {}", old.display()))?;
        let name = entry.path().strip_prefix(old)?;
        let is_source = name.extension().is_some_and(|kind| kind == "h" || kind == "c" || kind == "S");
        if !entry.file_type().is_file() || !is_source {
            continue;
        }
        let other = new.join(name);
        let same_size =
            other.metadata().is_ok_and(|other| entry.metadata().is_ok_and(|m| m.len() == other.len()));
        if !same_size || fs::read(entry.path())? != fs::read(&other)? {
            changed.insert(name.to_string_lossy().into_owned());
        }
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cold_parts_and_padding_belong_to_their_function() {
        assert_eq!(["f", "f.cold", "__pfx_f", "__pfx_f.cold"].map(owner), ["f"; 4]);
        assert_eq!(owner("f.isra.0"), "f.isra.0");
    }

    #[test]
    fn what_a_unit_includes_stands_in_kbuilds_record() {
        let workspace = tempfile::tempdir().expect("a directory");
        let at = |path: &str| workspace.path().join(path);
        for directory in ["units/fs", "build/fs"] {
            fs::create_dir_all(at(directory)).expect("created");
        }
        let source = at("src");
        let record = format!(
            "source_fs/a.o := {0}/fs/a.c\n\ndeps_fs/a.o := \\\n    $(wildcard include/config/X) \\\n  {0}/include/b.h \\\n",
            source.display()
        );
        fs::write(at("build/fs/.a.o.cmd"), record).expect("written");
        assert_eq!(included(&at("units/fs/a.o")).expect("read"), ["fs/a.c", "include/b.h"]);
    }
}
