//! Compares the declarations of two variables, to tell whether both are one variable of the source.

use std::cell::OnceCell;

use klpx_layout::{Declaration, Declarations};
use klpx_normalize::object::{ItemId, Object};

use super::side::OnBothSides;

/// The knowledge about the sources of two builds.
#[derive(Clone, Copy, Default)]
pub enum Sources<'k> {
    /// Nothing is known: equal line numbers prove nothing.
    #[default]
    Unknown,
    /// Both builds have one source: equal line numbers are one line.
    Same,
    /// The patched source is edited. klpx knows which of its lines the original also has, with their numbers.
    Edited(&'k dyn Edits),
}

/// Tells which lines of a source a patch touches. `file` is a path as in debug information; lines count from 1.
pub trait Edits: Sync {
    /// Looks up a line of the original.
    fn original(&self, file: &str, line: u32) -> LineState;
    /// Looks up the line of the patched source that has this number and the word `name`.
    fn patched(&self, file: &str, line: u32, name: &str) -> LineState;
}

/// The state of a line of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineState {
    /// Both sources have the line, and no other line of the file reads the same.
    Kept,
    /// Both sources have the line, but other lines read the same, so nobody can tell them apart for sure.
    KeptOneOfSeveral,
    /// Only this source has the line.
    Edited,
    /// Nothing is known.
    Unknown,
}

/// The conclusion from the declarations of two variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says {
    /// Both are one variable: both sources have its declaration, and no edit touches the declaration.
    Same,
    /// Both are one variable, provided that the function has only one variable of that name.
    SameIfOnlyOne,
    /// Both are declared in different functions.
    Elsewhere,
    /// An edit touches a declaration.
    Edited,
    /// Nothing can be said.
    Nothing,
}

/// The declarations of two objects, read on the first request.
pub(super) struct ObjectDeclarations<'a, 'd> {
    objects: OnBothSides<&'a Object<'d>>,
    sources: Sources<'a>,
    read: OnceCell<OnBothSides<Declarations>>,
}

impl<'a, 'd> ObjectDeclarations<'a, 'd> {
    pub(super) fn new(
        objects: OnBothSides<&'a Object<'d>>,
        sources: Sources<'a>,
    ) -> ObjectDeclarations<'a, 'd> {
        ObjectDeclarations { objects, sources, read: OnceCell::new() }
    }

    /// Reads the declarations of both objects. Debug information that can't be read gives none.
    fn both(&self) -> &OnBothSides<Declarations> {
        let read = |object: &Object<'_>| Declarations::read(&object.elf).unwrap_or_default();
        self.read.get_or_init(|| rayon::join(|| read(self.objects.0), || read(self.objects.1)))
    }

    /// Returns the declaration of a variable of the original.
    pub(super) fn of_original(&self, item: ItemId) -> Option<&Declaration> {
        let item = self.objects.0.item(item);
        self.both().0.at(item.section, item.entry)
    }

    /// Returns the declaration of a variable of the patched object.
    pub(super) fn of_patched(&self, item: ItemId) -> Option<&Declaration> {
        let item = self.objects.1.item(item);
        self.both().1.at(item.section, item.entry)
    }

    /// Compares the declarations of two variables of this name.
    pub(super) fn says(&self, original: ItemId, patched: ItemId, name: &[u8]) -> Says {
        let (Some(original_declaration), Some(patched_declaration)) =
            (self.of_original(original), self.of_patched(patched))
        else {
            return Says::Nothing;
        };
        if original_declaration.function != patched_declaration.function {
            return Says::Elsewhere;
        }
        if original_declaration.line == 0 || patched_declaration.line == 0 {
            return Says::Nothing;
        }
        let lines = match self.sources {
            Sources::Unknown => return Says::Nothing,
            Sources::Same => (LineState::Kept, LineState::Kept),
            Sources::Edited(edits) => {
                // Clang writes the function before the variable's name.
                let name = name.rsplit(|&byte| byte == b'.').next().unwrap_or(name);
                let name = String::from_utf8_lossy(name);
                let original = edits.original(&original_declaration.file, original_declaration.line);
                (original, edits.patched(&patched_declaration.file, patched_declaration.line, &name))
            }
        };
        match lines {
            (LineState::Edited, _) | (_, LineState::Edited) => Says::Edited,
            (LineState::Kept, LineState::Kept) if original_declaration == patched_declaration => Says::Same,
            (LineState::KeptOneOfSeveral, LineState::KeptOneOfSeveral)
                if original_declaration == patched_declaration =>
            {
                Says::SameIfOnlyOne
            }
            _ => Says::Nothing,
        }
    }
}
