//! Finds the C or assembly files that include one file, in a source that is not prepared yet, from the text of every
//! candidate. Never finds the units.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;

use rayon::prelude::*;

use super::directives::Directives;
use super::files::{FileTree, TreeFile, TreeFiles, walk};

/// The files of a source, before and after a patch.
pub(crate) struct Includers<'a> {
    root: &'a Path,
    files: TreeFiles,
    /// All texts of each file that changes.
    changed: &'a [(&'a str, Vec<&'a [u8]>)],
}

impl<'a> Includers<'a> {
    /// Lists the files of a source. `changed` has the texts, before and after, of files that a patch changes or adds.
    pub(crate) fn new(root: &'a Path, arch: &str, changed: &'a [(&'a str, Vec<&'a [u8]>)]) -> Includers<'a> {
        let added = changed.iter().map(|(path, _)| (*path).to_owned());
        let file = |path| TreeFile { tree: FileTree::Source, path };
        let files = walk(root).into_iter().chain(added).map(file).collect();
        Includers { root, files: TreeFiles::new(files, arch, BTreeSet::new()), changed }
    }

    /// The paths of all files, sorted.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.all().map(|(_, path)| path)
    }

    /// The texts of a file, before and after.
    pub(crate) fn texts(&self, path: &str) -> Vec<Cow<'a, [u8]>> {
        match self.changed.iter().find(|(changed, _)| *changed == path) {
            Some((_, texts)) => texts.iter().map(|text| Cow::Borrowed(*text)).collect(),
            None => std::fs::read(self.root.join(path)).ok().map(Cow::Owned).into_iter().collect(),
        }
    }

    /// A C or assembly file that includes `path` by name. Files in the same folder are tried first.
    pub(crate) fn of(&self, path: &str) -> Option<&str> {
        const ENDS: [&str; 4] = [".c", ".h", ".S", ".inc"];
        let wanted = self.files.find(FileTree::Source, path)?;
        let home = folder(path);
        let aside = self.files.aside(path);
        let can_include = self.files.all().filter(|(_, path)| {
            ENDS.iter().any(|end| path.ends_with(end)) && self.files.aside(path) == aside
        });
        let (near, far): (Vec<_>, Vec<_>) = can_include.partition(|(_, path)| folder(path) == home);
        let includes = |(at, from): &&(u32, &str)| {
            let directives = self.texts(from).into_iter().flat_map(|text| Directives::read(&text).includes);
            directives.into_iter().any(|include| self.files.meant(*at, &include).contains(&wanted))
        };
        let first = |all: &[(u32, &str)]| all.par_iter().find_first(includes).map(|(at, _)| *at);
        let found = first(&near).or_else(|| first(&far))?;
        Some(&self.files.file(found).path)
    }
}

fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}
