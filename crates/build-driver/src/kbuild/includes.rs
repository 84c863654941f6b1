//! Finds the units that may include a file, without a build. Reads the text of the units' sources and of all files that
//! they can include. Never runs a compiler, so conditions are unknown: a unit may be listed that does not include the
//! file. A unit that includes the file is never missed.
//!
//! Included files are matched by name only: see files.rs. If even the name is unknown (a macro stands for it, or a
//! generated file does not exist yet), the including file counts as *open*: it may include any header.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::list::{UnitId, UnitList, UnitSource};
use crate::config::Config;
use directives::{Directives, Include, NameMacro};
use files::{FileTree, TreeFile, TreeFiles, name, number};

mod directives;
mod files;
mod includers;

pub(crate) use includers::Includers;

/// The files of Rust code that the compiler or bindgen reads as C (rust/Makefile).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RustSide {
    /// The kernel has no Rust code.
    None,
    /// Bindings are made from headers. The C helpers are a unit.
    Bindings,
    /// Bindings are made from headers, and the C helpers are inlined into Rust code (`CONFIG_RUST_INLINE_HELPERS`).
    BindingsAndHelpers,
}

impl RustSide {
    pub(crate) fn from_config(config: &Config) -> RustSide {
        match (config.is("RUST"), config.is("RUST_INLINE_HELPERS")) {
            (false, _) => RustSide::None,
            (true, false) => RustSide::Bindings,
            (true, true) => RustSide::BindingsAndHelpers,
        }
    }

    /// The files whose text ends up in Rust code.
    pub(crate) fn files(self) -> &'static [&'static str] {
        let all = &["rust/bindings/bindings_helper.h", "rust/uapi/uapi_helper.h", "rust/helpers/helpers.c"];
        match self {
            RustSide::None => &[],
            RustSide::Bindings => &all[..2],
            RustSide::BindingsAndHelpers => all,
        }
    }
}

/// The graph of includes among all files that the units of a kernel can reach, and the headers that Rust code sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncludeGraph {
    /// The files, sorted. A file's number is its index.
    files: Vec<TreeFile>,
    /// The files that can include a file, by the file's number.
    included_by: Vec<Vec<u32>>,
    /// Files that may include unknown files.
    open: Vec<u32>,
    /// Names without a matching file, and the files that include them.
    missing: BTreeMap<String, Vec<u32>>,
}

impl IncludeGraph {
    /// Reads the source and the generated headers of a prepared build tree, starting at the units. The more files of
    /// [`UnitList::generated`] exist, the fewer files are open.
    pub(crate) fn scan(src: &Path, build: &Path, list: &UnitList, rust: RustSide) -> IncludeGraph {
        let further = made_later(list);
        let searched = list.searched().iter().filter_map(file_of).collect();
        let files = TreeFiles::list(src, build, list.arch(), further.into_iter(), searched);
        let mut scan = IncludeScan::new([src, build], &files, list);
        scan.follow(roots(&files, list, rust));
        scan.finish()
    }

    /// The units that may include one of these source files, or are compiled from one, sorted. `edited` are existing
    /// files, `added` are new files.
    ///
    /// A new file can take the place of another file with the same name. A unit that is an ingredient of something else
    /// ([`Home::Ingredient`](super::Home)) is listed like any other.
    pub fn dependents(&self, edited: &[&str], added: &[&str], list: &UnitList) -> Vec<UnitId> {
        let starts = self.starts(edited, added, list);
        let reached = self.includers(starts);
        let is_reached = |source: &UnitSource| self.number_of(source).is_some_and(|at| reached[at as usize]);
        list.units()
            .filter(|(id, unit)| is_reached(&unit.source) || list.forced(*id).iter().any(is_reached))
            .map(|(id, _)| id)
            .collect()
    }

    /// Returns true if a file of the source may include one of these source files, or is one of them.
    pub fn may_include(&self, includer: &str, edited: &[&str], added: &[&str], list: &UnitList) -> bool {
        let reached = self.includers(self.starts(edited, added, list));
        self.find(FileTree::Source, includer).is_some_and(|at| reached[at as usize])
    }

    /// The number of files that the units can reach.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Returns true if the units reach no file.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The files that may include unknown files.
    pub fn open_files(&self) -> impl Iterator<Item = &str> {
        self.open.iter().map(|at| self.files[*at as usize].path.as_str())
    }

    /// Marks these files and all files that include them, directly or not.
    fn includers(&self, starts: BTreeSet<u32>) -> Vec<bool> {
        let mut reached = vec![false; self.files.len()];
        let mut left: Vec<u32> = starts.into_iter().collect();
        while let Some(at) = left.pop() {
            if !std::mem::replace(&mut reached[at as usize], true) {
                left.extend(&self.included_by[at as usize]);
            }
        }
        reached
    }

    /// The files whose text changes with an edit. With a header, the open files count.
    fn starts(&self, edited: &[&str], added: &[&str], list: &UnitList) -> BTreeSet<u32> {
        let mut starts: BTreeSet<u32> =
            edited.iter().filter_map(|path| self.find(FileTree::Source, path)).collect();
        for path in added {
            let wanted = name(path);
            let same = |at: &u32| name(&self.files[*at as usize].path) == wanted;
            starts.extend((0..number(self.files.len())).filter(same));
            starts.extend(self.missing.get(wanted).into_iter().flatten());
        }
        let is_header = |path: &&str| {
            let at = self.find(FileTree::Source, path);
            list.by_source(path).is_empty() || at.is_some_and(|at| !self.included_by[at as usize].is_empty())
        };
        if edited.iter().chain(added).any(is_header) {
            starts.extend(&self.open);
        }
        starts
    }

    fn find(&self, tree: FileTree, path: &str) -> Option<u32> {
        let at = self.files.binary_search_by(|file| (file.tree, file.path.as_str()).cmp(&(tree, path)));
        at.ok().map(number)
    }

    fn number_of(&self, source: &UnitSource) -> Option<u32> {
        let file = file_of(source)?;
        self.find(file.tree, &file.path)
    }
}

/// Returns true for a list of what Rust code exports. Each line is a macro with one name (`cmd_exports` in rust/Makefile,
/// the same from 6.1 to 7.3), so the file includes nothing. It can't be made without Rust's compiler.
fn is_list_of_exports(path: &str) -> bool {
    path.strip_prefix("rust/exports_").is_some_and(|rest| rest.ends_with("_generated.h"))
}

fn file_of(source: &UnitSource) -> Option<TreeFile> {
    match source {
        UnitSource::Tree(path) => Some(TreeFile { tree: FileTree::Source, path: path.clone() }),
        UnitSource::Generated(path) => Some(TreeFile { tree: FileTree::Build, path: path.clone() }),
        UnitSource::Unknown => None,
    }
}

fn stem(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// Files that make makes on the way to units. They may not exist yet.
fn made_later(list: &UnitList) -> Vec<TreeFile> {
    let sources = list.units().filter(|(_, unit)| unit.rule.is_compiled()).map(|(_, unit)| &unit.source);
    let generated =
        list.generated().iter().map(|made| TreeFile { tree: FileTree::Build, path: made.path.clone() });
    let sources = sources.filter(|source| source.in_tree().is_none()).filter_map(file_of);
    sources.chain(generated).collect()
}

/// The files that the compiler is given: sources, and files that the command line includes. Also the files
/// that bindgen is given.
fn roots(files: &TreeFiles, list: &UnitList, rust: RustSide) -> Vec<u32> {
    let mut roots: Vec<u32> = list
        .units()
        .filter(|(_, unit)| unit.rule.is_compiled())
        .flat_map(|(id, unit)| std::iter::once(&unit.source).chain(list.forced(id)))
        .filter_map(file_of)
        .filter_map(|file| files.find(file.tree, &file.path))
        .chain(rust.files().iter().filter_map(|path| files.find(FileTree::Source, path)))
        .collect();
    roots.sort_unstable();
    roots.dedup();
    roots
}

/// Follows includes from file to file.
struct IncludeScan<'a> {
    roots: [&'a Path; 2],
    files: &'a TreeFiles,
    /// The files that generated files are made from.
    made_from: BTreeMap<u32, Vec<u32>>,
    /// Generated files that do not exist yet.
    later: Vec<&'a str>,
    seen: Vec<bool>,
    /// Pairs of an including and an included file.
    edges: Vec<(u32, u32)>,
    open: BTreeSet<u32>,
    missing: BTreeMap<String, BTreeSet<u32>>,
    /// Files that include a file named by a macro, by macro.
    computed: BTreeMap<String, Vec<u32>>,
    /// Definitions of macros that may name a file.
    names: Vec<(u32, NameMacro)>,
}

/// The includes that macros name.
#[derive(Default)]
struct Macros {
    edges: Vec<(u32, u32)>,
    open: Vec<u32>,
}

/// The directives of one file.
struct Read {
    at: u32,
    /// `None` for a file that can't be read.
    directives: Option<Directives>,
    meant: Vec<Vec<u32>>,
}

impl<'a> IncludeScan<'a> {
    fn new(roots: [&'a Path; 2], files: &'a TreeFiles, list: &'a UnitList) -> IncludeScan<'a> {
        let number_of =
            |source: &UnitSource| file_of(source).and_then(|file| files.find(file.tree, &file.path));
        let made_from = list
            .generated()
            .iter()
            .filter_map(|made| {
                Some((
                    files.find(FileTree::Build, &made.path)?,
                    made.from.iter().filter_map(number_of).collect(),
                ))
            })
            .collect();
        let generated = list.generated().iter().map(|made| made.path.as_str());
        let later = generated.filter(|path| !roots[1].join(path).exists()).collect();
        IncludeScan {
            roots,
            files,
            made_from,
            later,
            seen: vec![false; files.len()],
            edges: Vec::new(),
            open: BTreeSet::new(),
            missing: BTreeMap::new(),
            computed: BTreeMap::new(),
            names: Vec::new(),
        }
    }

    /// Reads these files and all files that they include.
    fn follow(&mut self, mut front: Vec<u32>) {
        loop {
            front.retain(|at| !std::mem::replace(&mut self.seen[*at as usize], true));
            if front.is_empty() {
                let macros = self.macros();
                self.edges.extend(&macros.edges);
                front = macros.edges.into_iter().map(|(_, to)| to).collect();
                front.retain(|at| !self.seen[*at as usize]);
                if front.is_empty() {
                    self.open.extend(macros.open);
                    return;
                }
                continue;
            }
            let read: Vec<Read> = front.par_iter().map(|at| self.read(*at)).collect();
            front = read.into_iter().flat_map(|read| self.take(read)).collect();
            front.sort_unstable();
            front.dedup();
        }
    }

    fn read(&self, at: u32) -> Read {
        let file = self.files.file(at);
        let root = self.roots[usize::from(file.tree == FileTree::Build)];
        let directives = std::fs::read(root.join(&file.path)).ok().map(|text| Directives::read(&text));
        let includes = directives.iter().flat_map(|directives| &directives.includes);
        let meant = includes.map(|include| self.files.meant(at, include)).collect();
        Read { at, directives, meant }
    }

    /// Adds the directives of a file. Returns the files to read next.
    fn take(&mut self, read: Read) -> Vec<u32> {
        let mut next = self.made_from.get(&read.at).cloned().unwrap_or_default();
        match read.directives {
            Some(directives) => {
                for (include, meant) in directives.includes.iter().zip(&read.meant) {
                    if meant.is_empty() {
                        let missing = name(&include.path);
                        if self.is_made_later(read.at, missing) {
                            self.open.insert(read.at);
                        }
                        self.missing.entry(missing.to_owned()).or_default().insert(read.at);
                    }
                    next.extend(meant);
                }
                for name in directives.computed {
                    self.computed.entry(name).or_default().push(read.at);
                }
                self.names.extend(directives.names.into_iter().map(|name| (read.at, name)));
            }
            None if is_list_of_exports(&self.files.file(read.at).path) => {}
            None => {
                self.open.insert(read.at);
            }
        }
        self.edges.extend(next.iter().map(|to| (read.at, *to)));
        next
    }

    /// Returns true if `missing` may be a generated file that does not exist yet. kbuild names one of the files that a
    /// rule makes together. The others have the same stem or lie in its folder.
    fn is_made_later(&self, includer: u32, missing: &str) -> bool {
        let includer = &self.files.file(includer).path;
        self.later.iter().any(|made| {
            let is_beside = made.rsplit_once('/').is_some_and(|(folder, _)| {
                includer.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
            });
            is_beside || stem(name(made)) == stem(missing)
        })
    }

    /// Resolves the macros that stand for a file. The file with the definition counts as the includer, because the unit
    /// includes it. If a definition is missing or gives no name, the file with the directive is open.
    fn macros(&self) -> Macros {
        let mut found = Macros::default();
        for (macro_name, includers) in &self.computed {
            let is_known = self.definitions(macro_name, &mut BTreeSet::new(), &mut found.edges);
            // A configuration string without a definition is off, and so is its directive.
            if !is_known.unwrap_or(macro_name.starts_with("CONFIG_")) {
                found.open.extend(includers);
            }
        }
        found
    }

    /// Adds the files that a macro's definitions name. `None` if there is no definition, false if one gives no name. A
    /// name without a file is no error: the compiler would fail on it.
    fn definitions(
        &self,
        macro_name: &str,
        looked_at: &mut BTreeSet<String>,
        edges: &mut Vec<(u32, u32)>,
    ) -> Option<bool> {
        let mut is_known = None;
        for (at, name) in self.names.iter().filter(|(_, name)| name.macro_name == macro_name) {
            let Some(include) = &name.file else { return Some(false) };
            edges.extend(self.named_by_macro(*at, include).into_iter().map(|to| (*at, to)));
            is_known = Some(true);
            // TRACE_INCLUDE_FILE defaults to TRACE_SYSTEM.
            let other = include.path.strip_suffix(".h").unwrap_or(&include.path);
            if looked_at.insert(other.to_owned()) && self.definitions(other, looked_at, edges) == Some(false)
            {
                return Some(false);
            }
        }
        is_known
    }

    /// The files that a macro can name. A trace header names itself, to be included again.
    fn named_by_macro(&self, at: u32, include: &Include) -> Vec<u32> {
        if name(&self.files.file(at).path) == include.path {
            vec![at]
        } else {
            self.files.ending(at, include).collect()
        }
    }

    fn finish(self) -> IncludeGraph {
        let reached: Vec<u32> = (0..number(self.seen.len())).filter(|at| self.seen[*at as usize]).collect();
        let place = |at: u32| number(reached.partition_point(|known| *known < at));
        let places = |all: BTreeSet<u32>| all.into_iter().map(place).collect::<Vec<u32>>();
        let mut included_by = vec![Vec::new(); reached.len()];
        let mut edges: Vec<(u32, u32)> =
            self.edges.par_iter().map(|(from, to)| (place(*to), place(*from))).collect();
        edges.par_sort_unstable();
        edges.dedup();
        for (to, from) in edges {
            included_by[to as usize].push(from);
        }
        IncludeGraph {
            files: reached.iter().map(|at| self.files.file(*at).clone()).collect(),
            included_by,
            open: places(self.open),
            missing: self.missing.into_iter().map(|(name, all)| (name, places(all))).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
