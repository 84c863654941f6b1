//! What the declarations of two variables say: whether they are one variable of the source.

use std::cell::OnceCell;

use klpx_layout::{Declaration, Declarations};
use klpx_normalize::object::{ItemId, Object};

use super::Both;

/// What is known of the sources of two builds.
#[derive(Clone, Copy, Default)]
pub enum Sources<'k> {
    /// Nothing: equal line numbers say nothing.
    #[default]
    Unknown,
    /// One source: equal line numbers are one line.
    Same,
    /// Of the patched source it is known which of its lines the original has too, with their numbers.
    Edited(&'k dyn Edits),
}

/// Which lines of a source a patch touches. `file` is a path as debug information has it; lines count from 1.
pub trait Edits: Sync {
    /// A line of the original.
    fn original(&self, file: &str, line: u32) -> Line;
    /// The line of this number in the patched source that has the word `name`.
    fn patched(&self, file: &str, line: u32, name: &str) -> Line;
}

/// What is known of a line of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// Both sources have it, and no other line of the file that reads the same.
    Kept,
    /// Both sources have it, and others that read the same: which is which nobody can tell for sure.
    KeptOneOfSeveral,
    /// Only this source has it.
    Edited,
    /// Nothing.
    Unknown,
}

/// What two declarations say of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says {
    /// The two are one variable: both sources have its declaration, and no edit touches it.
    Same,
    /// They are, if the function has only one variable of that name.
    SameIfOnlyOne,
    /// The two are declared in different functions.
    Elsewhere,
    /// An edit touches a declaration.
    Edited,
    /// Nothing.
    Nothing,
}

/// The declarations of two objects, read when somebody asks for one.
pub(super) struct Declared<'a, 'd> {
    objects: Both<&'a Object<'d>>,
    sources: Sources<'a>,
    read: OnceCell<Both<Declarations>>,
}

impl<'a, 'd> Declared<'a, 'd> {
    pub(super) fn new(objects: Both<&'a Object<'d>>, sources: Sources<'a>) -> Declared<'a, 'd> {
        Declared { objects, sources, read: OnceCell::new() }
    }

    /// Debug information that can't be read says nothing.
    fn both(&self) -> &Both<Declarations> {
        let read = |object: &Object<'_>| Declarations::read(&object.elf).unwrap_or_default();
        self.read.get_or_init(|| rayon::join(|| read(self.objects.0), || read(self.objects.1)))
    }

    /// The declaration of a variable of the original.
    pub(super) fn of_original(&self, item: ItemId) -> Option<&Declaration> {
        let item = self.objects.0.item(item);
        self.both().0.at(item.section, item.entry)
    }

    /// The declaration of a variable of the patched object.
    pub(super) fn of_patched(&self, item: ItemId) -> Option<&Declaration> {
        let item = self.objects.1.item(item);
        self.both().1.at(item.section, item.entry)
    }

    /// What the declarations of two variables of this name say.
    pub(super) fn says(&self, original: ItemId, patched: ItemId, name: &[u8]) -> Says {
        let (Some(theirs), Some(ours)) = (self.of_original(original), self.of_patched(patched)) else {
            return Says::Nothing;
        };
        if theirs.function != ours.function {
            return Says::Elsewhere;
        }
        if theirs.line == 0 || ours.line == 0 {
            return Says::Nothing;
        }
        let lines = match self.sources {
            Sources::Unknown => return Says::Nothing,
            Sources::Same => (Line::Kept, Line::Kept),
            Sources::Edited(edits) => {
                // Clang writes the function before the name.
                let name = name.rsplit(|&byte| byte == b'.').next().unwrap_or(name);
                let name = String::from_utf8_lossy(name);
                let original = edits.original(&theirs.file, theirs.line);
                (original, edits.patched(&ours.file, ours.line, &name))
            }
        };
        match lines {
            (Line::Edited, _) | (_, Line::Edited) => Says::Edited,
            (Line::Kept, Line::Kept) if theirs == ours => Says::Same,
            (Line::KeptOneOfSeveral, Line::KeptOneOfSeveral) if theirs == ours => Says::SameIfOnlyOne,
            _ => Says::Nothing,
        }
    }
}
