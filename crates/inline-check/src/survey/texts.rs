//! Numbered texts, and the paths of units and their files in their usual form.

use std::path::Path;

use foldhash::fast::RandomState;
use hashbrown::hash_map::Entry;
use hashbrown::{HashMap, HashTable};
use std::hash::BuildHasher as _;

use super::scanned::{FileName, NONE, ScannedUnit};
use super::{TextId, paths};
use crate::sections::{DebugSections, TextPlace};

/// Numbered texts, each stored once, in one piece of memory.
#[derive(Default)]
pub(super) struct Texts {
    all: String,
    /// The end of each text in `all`.
    ends: Vec<usize>,
    known: HashTable<u32>,
    hasher: RandomState,
    /// The texts that were looked up by their place.
    places: HashMap<TextPlace, TextId, RandomState>,
}

impl Texts {
    /// Returns the number of a text.
    pub(super) fn add(&mut self, text: &str) -> TextId {
        let Texts { all, ends, known, hasher, .. } = self;
        let hash = hasher.hash_one(text);
        if let Some(&number) = known.find(hash, |&number| slice(all, ends, number) == text) {
            return TextId(number);
        }
        let number = ends.len() as u32;
        all.push_str(text);
        ends.push(all.len());
        known.insert_unique(hash, number, |&number| hasher.hash_one(slice(all, ends, number)));
        TextId(number)
    }

    /// Returns the number of a text that lies in a file; `None` for an empty text.
    pub(super) fn add_at(&mut self, sections: &DebugSections<'_>, place: TextPlace) -> Option<TextId> {
        if let Some(&known) = self.places.get(&place) {
            return Some(known);
        }
        let text = sections.text(place);
        if text.is_empty() {
            return None;
        }
        let number = self.add(&String::from_utf8_lossy(text));
        self.places.insert(place, number);
        Some(number)
    }

    /// Returns a text.
    pub(super) fn get(&self, id: TextId) -> &str {
        slice(&self.all, &self.ends, id.0)
    }

    /// Returns the number of texts.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Frees the memory that only adding needs.
    pub(super) fn close(&mut self) {
        self.known = HashTable::new();
        self.places = HashMap::default();
    }
}

fn slice<'t>(all: &'t str, ends: &[usize], number: u32) -> &'t str {
    let number = number as usize;
    &all[number.checked_sub(1).map_or(0, |before| ends[before])..ends[number]]
}

/// The files of all units.
pub(super) struct FileTable {
    /// Each unit's own file.
    pub(super) units: Vec<TextId>,
    /// Each unit's files, by index; `TextId(NONE)` for a file without functions and calls.
    files: Vec<Vec<TextId>>,
    /// The folder from which files are named, with a `/` at its end.
    pub(super) root: String,
}

impl FileTable {
    /// Names each unit's files, without the folder of the source tree.
    pub(super) fn name(
        texts: &mut Texts,
        sections: &DebugSections<'_>,
        units: &[ScannedUnit],
        tree: Option<&Path>,
    ) -> FileTable {
        let mut joined = Joined { sections, all: Vec::new(), known: HashMap::default() };
        let mut files: Vec<Vec<TextId>> = Vec::with_capacity(units.len());
        for unit in units {
            let length = unit.files.last().map_or(0, |&(index, _)| index as usize + 1);
            let mut numbers = vec![TextId(NONE); length];
            for &(index, name) in &unit.files {
                numbers[index as usize] = TextId(joined.add(name));
            }
            files.push(numbers);
        }
        let root = match tree {
            Some(tree) => format!("{}/", tree.display()),
            None => paths::root(&joined.all).to_owned(),
        };
        let own: Vec<u32> = units.iter().map(|unit| joined.add(unit.name)).collect();
        let folder = units.first().map(|unit| String::from_utf8_lossy(sections.text(unit.name.folder)));
        let folder = folder.map(|folder| format!("{}/", folder.trim_end_matches('/')));
        let folders: Vec<String> = [root.clone()].into_iter().chain(folder).collect();
        let name = |path: &String| texts.add(paths::without(path, &folders));
        let names: Vec<TextId> = joined.all.iter().map(name).collect();
        for file in files.iter_mut().flatten().filter(|file| file.0 != NONE) {
            *file = names[file.0 as usize];
        }
        let units = own.into_iter().map(|path| names[path as usize]).collect();
        FileTable { units, files, root }
    }

    /// Returns a unit's file.
    pub(super) fn get(&self, unit: u32, index: u32) -> Option<TextId> {
        let file = self.files[unit as usize].get(index as usize)?;
        Some(*file).filter(|file| file.0 != NONE)
    }
}

/// Paths joined from their parts, each combination once.
struct Joined<'a> {
    sections: &'a DebugSections<'a>,
    all: Vec<String>,
    known: HashMap<FileName, u32, RandomState>,
}

impl Joined<'_> {
    fn add(&mut self, file: FileName) -> u32 {
        let place = match self.known.entry(file) {
            Entry::Occupied(known) => return *known.get(),
            Entry::Vacant(place) => place,
        };
        let number = self.all.len() as u32;
        place.insert(number);
        let FileName { folder, directory, name } = file;
        let parts = [folder, directory, name].map(|part| String::from_utf8_lossy(self.sections.text(part)));
        self.all.push(match name {
            TextPlace::None => String::new(),
            _ => paths::join(&[&parts[0], &parts[1], &parts[2]]),
        });
        number
    }
}
