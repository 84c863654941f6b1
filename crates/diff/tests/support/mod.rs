//! Two builds of a small C project and the correlation between them. Test code only.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::BTreeSet;

use klpx_diff::{Correlation, Edits, ItemEvidence, LineState, Sources, correlate};
use klpx_normalize::elf::ElfFile;
use klpx_normalize::object::{ItemId, Object, Target};
use klpx_testkit::project;

/// Two objects.
pub(crate) struct Builds {
    pub(crate) original: ElfFile,
    pub(crate) patched: ElfFile,
}

/// Two objects, read and correlated.
pub(crate) struct Pair<'f> {
    pub(crate) original: Object<'f>,
    pub(crate) patched: Object<'f>,
    pub(crate) correlation: Correlation,
}

impl Builds {
    /// Builds both with the same tools and flags.
    pub(crate) fn new(
        (tools, mode, flags): (project::Tools, project::Mode, &[&str]),
        original: &[project::File<'_>],
        patched: &[project::File<'_>],
    ) -> Builds {
        Builds {
            original: project::build(tools, mode, original, flags),
            patched: project::build(tools, mode, patched, flags),
        }
    }

    /// Builds one file `unit.c` before and after an edit, with debug information and with the line numbers of a
    /// livepatch's build.
    pub(crate) fn numbered(tools: project::Tools, original: &str, patched: &str) -> (Builds, Kept) {
        let (text, kept) = numbered(original, patched);
        let plain = (tools, project::Mode::Plain, &["-g"][..]);
        (Builds::new(plain, &[("unit.c", original)], &[("unit.c", &text)]), kept)
    }

    pub(crate) fn pair(&self) -> Pair<'_> {
        self.pair_of(Sources::Unknown)
    }

    /// Correlates the builds, with what is known of the sources.
    pub(crate) fn pair_of(&self, sources: Sources<'_>) -> Pair<'_> {
        let original = Object::read(&self.original).expect("an object");
        let patched = Object::read(&self.patched).expect("an object");
        let correlation = correlate(&original, &patched, sources);
        Pair { original, patched, correlation }
    }
}

/// The first number of new lines.
const NEW: u32 = 1000;

/// The lines of the original that the patched source also has.
pub(crate) struct Kept(BTreeSet<u32>);

impl Edits for Kept {
    fn original(&self, _file: &str, line: u32) -> LineState {
        if self.0.contains(&line) { LineState::Kept } else { LineState::Edited }
    }

    fn patched(&self, file: &str, line: u32, _name: &str) -> LineState {
        self.original(file, line)
    }
}

/// Returns the patched text, with the original's numbers for the lines that both texts have in one order.
fn numbered(original: &str, patched: &str) -> (String, Kept) {
    let mut before = (1..).zip(original.lines());
    let (mut text, mut kept) = (String::new(), BTreeSet::new());
    for (new, line) in (NEW..).zip(patched.lines()) {
        let number = match before.clone().find(|(_, other)| *other == line) {
            Some((number, _)) => {
                before.find(|(n, _)| *n == number);
                kept.insert(number);
                number
            }
            None => new,
        };
        text.push_str(&format!("#line {number}\n{line}\n"));
    }
    (text, Kept(kept))
}

/// Reads the same bytes again.
pub(crate) fn copy(file: &ElfFile) -> ElfFile {
    let bytes = file.parse().expect("an object").data().to_vec();
    ElfFile::from_bytes(file.path(), bytes)
}

/// Returns the items of this name.
pub(crate) fn named(object: &Object<'_>, name: &str) -> Vec<ItemId> {
    object.item_ids().filter(|&item| object.item_name(item) == name.as_bytes()).collect()
}

/// Returns the only item of this name.
pub(crate) fn item(object: &Object<'_>, name: &str) -> ItemId {
    let found = named(object, name);
    assert_eq!(found.len(), 1, "items called {name}");
    found[0]
}

/// Returns the items with this base name to which the function of this name refers, in the order of its references.
pub(crate) fn used(object: &Object<'_>, user: &str, base: &str) -> Vec<ItemId> {
    let user = item(object, user);
    let section = object.item(user).section;
    let mut found = Vec::new();
    for rela in object.item_relocations(user) {
        if let Target::Item { item, .. } = object.resolve(section, rela)
            && klpx_normalize::name::canonical(object.item_name(item)).base == base.as_bytes()
            && !found.contains(&item)
        {
            found.push(item);
        }
    }
    found
}

/// Returns the only item with this base name to which a function refers.
pub(crate) fn used_one(object: &Object<'_>, user: &str, base: &str) -> ItemId {
    let found = used(object, user, base);
    assert_eq!(found.len(), 1, "items called {base} to which {user} refers");
    found[0]
}

impl Pair<'_> {
    /// Returns the original of a patched item and the evidence.
    pub(crate) fn of(&self, patched: ItemId) -> Option<(ItemId, ItemEvidence)> {
        self.correlation.original_of[patched.index()]
    }

    /// Returns the evidence if the functions of both builds refer to one item of this base name, and the two items are
    /// a pair.
    pub(crate) fn same(&self, original_user: &str, patched_user: &str, base: &str) -> Option<ItemEvidence> {
        let (x, y) =
            (used_one(&self.original, original_user, base), used_one(&self.patched, patched_user, base));
        self.of(y).filter(|&(original, _)| original == x).map(|(_, evidence)| evidence)
    }

    /// Returns the names of unsettled items.
    pub(crate) fn unsettled(&self) -> Vec<String> {
        let name = |item| String::from_utf8_lossy(self.patched.item_name(item)).into_owned();
        self.correlation.unsettled.iter().map(|unsettled| name(unsettled.patched)).collect()
    }

    /// Returns the names of the items that count as changed or new, and of those that are gone, sorted.
    pub(crate) fn changes(&self) -> (Vec<String>, Vec<String>) {
        let difference = klpx_diff::compare(&self.original, &self.patched);
        let text = |object: &Object<'_>, item| String::from_utf8_lossy(object.item_name(item)).into_owned();
        let lists = [&difference.functions, &difference.data, &difference.registries];
        let mut changed: Vec<String> =
            lists.into_iter().flatten().map(|change| text(&self.patched, change.patched)).collect();
        let mut removed: Vec<String> =
            difference.removed.iter().map(|&item| text(&self.original, item)).collect();
        changed.sort_unstable();
        removed.sort_unstable();
        (changed, removed)
    }
}
