//! Combines the records of all folders to one [`UnitList`].

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Component, Path, PathBuf};

use super::{
    Generated, Home, KbuildModule, KbuildUnit, ModuleId, ObjectRule, UnitId, UnitList, UnitSource, index,
};
use crate::kbuild::objtool::ObjtoolRule;
use crate::kbuild::record::{FileRule, FolderRecord};

/// Combines records.
pub(super) struct Builder<'a> {
    src: PathBuf,
    build: PathBuf,
    /// How files are made, by folder and by kbuild's name of the file.
    made: HashMap<(&'a str, &'a str), &'a FileRule>,
    drafts: BTreeMap<String, Draft<'a>>,
}

/// Distinct values, in order of first use. A kernel has a few dozen.
struct ValueTable<T> {
    values: Vec<T>,
}

impl<T> Default for ValueTable<T> {
    fn default() -> Self {
        ValueTable { values: Vec::new() }
    }
}

impl<T: PartialEq> ValueTable<T> {
    fn place(&mut self, value: T) -> u16 {
        let at = self.values.iter().position(|known| *known == value).unwrap_or_else(|| {
            self.values.push(value);
            self.values.len() - 1
        });
        u16::try_from(at).unwrap_or(u16::MAX)
    }
}

/// A unit before indices are assigned.
struct Draft<'a> {
    folder: &'a str,
    target: &'a str,
    made: Option<&'a FileRule>,
    vmlinux: bool,
    /// The objects of modules.
    modules: Vec<String>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(src: PathBuf, build: PathBuf, records: &'a [FolderRecord]) -> Builder<'a> {
        let made = records
            .iter()
            .flat_map(|record| {
                record.made.iter().map(|made| ((record.folder.as_str(), made.target.as_str()), made))
            })
            .collect();
        Builder { src, build, made, drafts: BTreeMap::new() }
    }

    pub(super) fn build(mut self, records: &'a [FolderRecord]) -> Result<UnitList, String> {
        complete(records)?;
        for record in records {
            for target in &record.builtin {
                self.draft(&record.folder, target).vmlinux = true;
            }
            for (module, parts) in &record.modules {
                for target in parts {
                    self.draft(&record.folder, target).modules.push(normal(module));
                }
            }
        }
        self.ingredients(records);
        Ok(self.finish(records))
    }

    fn draft(&mut self, folder: &'a str, target: &'a str) -> &mut Draft<'a> {
        let made = self.made.get(&(folder, target)).copied();
        self.drafts.entry(normal(target)).or_insert(Draft {
            folder,
            target,
            made,
            vmlinux: false,
            modules: Vec::new(),
        })
    }

    /// Adds units that are compiled on the way to something else. Other rules make the programs for the build machine.
    fn ingredients(&mut self, records: &'a [FolderRecord]) {
        for record in records {
            for made in record.made.iter().filter(|made| ObjectRule::from_name(&made.rule).is_compiled()) {
                self.draft(&record.folder, &made.target);
            }
        }
    }

    fn finish(self, records: &[FolderRecord]) -> UnitList {
        let module_ids: BTreeMap<String, ModuleId> = {
            let names =
                records.iter().flat_map(|record| record.modules.iter().map(|(module, _)| normal(module)));
            let sorted: BTreeSet<String> = names.collect();
            sorted.into_iter().enumerate().map(|(n, name)| (name, ModuleId(index(n)))).collect()
        };
        let mut list = UnitList {
            objtool: records.iter().find_map(|record| record.objtool.as_deref()).map(normal),
            arch: records.iter().find_map(|record| record.arch.clone()).unwrap_or_default(),
            generated: self.generated(records),
            searched: self.searched(records),
            inherited: records
                .iter()
                .filter(|record| !record.inherited.is_empty())
                .map(|record| (record.folder.clone(), record.inherited.clone()))
                .collect(),
            ..UnitList::default()
        };
        let (mut rules, mut forced) = (ValueTable::default(), ValueTable::default());
        for (object, draft) in &self.drafts {
            let rule = match draft.made {
                Some(made) if draft.is_linked() => made.objtool.clone(),
                _ => ObjtoolRule::None,
            };
            let includes = draft.made.map_or(&[][..], |made| &made.forced);
            list.units.push(KbuildUnit {
                object: object.clone(),
                target: (draft.target != object).then(|| draft.target.to_owned()),
                folder: draft.folder.to_owned(),
                rule: draft.made.map_or(ObjectRule::Unknown, |made| ObjectRule::from_name(&made.rule)),
                source: draft.made.map_or(UnitSource::Unknown, |made| self.source(&made.source)),
                home: draft.home(&module_ids),
                traced: draft.made.is_some_and(|made| made.traced),
                objtool: rules.place(rule),
                forced: forced.place(includes.iter().map(|path| self.source(path)).collect()),
            });
        }
        (list.rules, list.forced) = (rules.values, forced.values);
        list.modules = modules(records, &list);
        let mut by_source: Vec<UnitId> =
            list.units().filter(|(_, unit)| unit.source.in_tree().is_some()).map(|(id, _)| id).collect();
        by_source.sort_by_key(|id| (list.unit(*id).source.in_tree(), *id));
        list.by_source = by_source;
        list
    }

    fn searched(&self, records: &[FolderRecord]) -> Vec<UnitSource> {
        let all = || records.iter().flat_map(|record| &record.made);
        let mut compiled = all().filter(|made| ObjectRule::from_name(&made.rule).is_compiled());
        if compiled.any(|made| made.searched.is_empty()) {
            return Vec::new();
        }
        let paths: HashSet<&String> = all().flat_map(|made| &made.searched).collect();
        let folders = paths.into_iter().map(|path| self.source(path));
        folders.filter(|folder| *folder != UnitSource::Unknown).collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn generated(&self, records: &[FolderRecord]) -> Vec<Generated> {
        let is_product =
            |path: &str| [".o", ".s", ".so", ".dbg", ".elf", ".ro"].iter().any(|end| path.ends_with(end));
        let mut files: Vec<Generated> = records
            .iter()
            .flat_map(|record| record.made.iter().map(|made| (record.folder.clone(), made)))
            .filter(|(_, made)| !is_product(&made.target))
            .map(|(folder, made)| {
                let from = made.from.iter().filter(|path| !is_product(path)).map(|path| self.source(path));
                Generated { path: normal(&made.target), folder, from: from.collect() }
            })
            .collect();
        files.sort();
        files.dedup();
        files
    }

    /// Finds the tree of a path. make names source files by an absolute path, or by `../` if the build tree lies in the
    /// source tree.
    pub(super) fn source(&self, path: &str) -> UnitSource {
        if path.is_empty() {
            return UnitSource::Unknown;
        }
        let path = lexical(&self.build.join(path));
        let inside = |root: &Path| path.strip_prefix(root).ok().and_then(Path::to_str).map(str::to_owned);
        if let Some(path) = inside(&self.build) {
            return UnitSource::Generated(path);
        }
        inside(&self.src).map_or(UnitSource::Unknown, UnitSource::Tree)
    }
}

impl Draft<'_> {
    fn is_linked(&self) -> bool {
        self.vmlinux || !self.modules.is_empty()
    }

    fn home(&self, ids: &BTreeMap<String, ModuleId>) -> Home {
        if self.vmlinux {
            return Home::Vmlinux;
        }
        let mut modules: Vec<ModuleId> =
            self.modules.iter().filter_map(|name| ids.get(name).copied()).collect();
        modules.sort_unstable();
        modules.dedup();
        if modules.is_empty() { Home::Ingredient } else { Home::Modules(modules) }
    }
}

/// Checks that every folder that kbuild visits has a record. Without the check, units could be missing silently.
fn complete(records: &[FolderRecord]) -> Result<(), String> {
    let there: HashSet<&str> = records.iter().map(|record| record.folder.as_str()).collect();
    if !there.contains(".") {
        return Err("there is no record of the root folder".to_owned());
    }
    match records.iter().flat_map(|record| &record.folders).find(|folder| !there.contains(folder.as_str())) {
        Some(folder) => Err(format!("there is no record of the folder {folder}")),
        None => Ok(()),
    }
}

fn modules(records: &[FolderRecord], list: &UnitList) -> Vec<KbuildModule> {
    let mut modules: BTreeMap<String, KbuildModule> = BTreeMap::new();
    for (object, parts) in records.iter().flat_map(|record| &record.modules) {
        let object = normal(object);
        let mut units = Vec::with_capacity(parts.len());
        // A Makefile may name a part twice. kbuild links the part once.
        for unit in parts.iter().filter_map(|part| list.by_object(&normal(part))) {
            if !units.contains(&unit) {
                units.push(unit);
            }
        }
        let is_its_unit = units.iter().any(|unit| list.unit(*unit).object == object);
        modules.entry(object.clone()).or_insert(KbuildModule { object, units, is_its_unit });
    }
    modules.into_values().collect()
}

/// A path in the build tree without `.` and `..`.
fn normal(path: &str) -> String {
    lexical(Path::new(path)).to_string_lossy().into_owned()
}

fn lexical(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(clean.components().next_back(), Some(Component::Normal(_))) => {
                clean.pop();
            }
            part => clean.push(part),
        }
    }
    clean
}
