//! Finds debug information's names in the source: the units that are compiled from a file, and the declarations in it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;

use klpx_build_driver::consistent::ConsistentBuild;
use klpx_inline_check::consistent::FunctionKey;

/// Units by their names in the debug information. Each is looked up on disk once.
pub(super) struct Units<'a> {
    project: &'a ConsistentBuild,
    root: &'a str,
    known: RefCell<HashMap<String, Option<String>>>,
}

impl<'a> Units<'a> {
    /// `root` is the folder to which the debug information's file names are relative.
    pub(super) fn new(project: &'a ConsistentBuild, root: &'a str) -> Units<'a> {
        Units { project, root, known: RefCell::default() }
    }

    /// The unit of a file; `None` if it is not compiled from a file of the source.
    pub(super) fn of(&self, file: &str) -> Option<String> {
        if let Some(unit) = self.known.borrow().get(file) {
            return unit.clone();
        }
        let unit = self.project.unit(self.root, file);
        self.known.borrow_mut().insert(file.to_owned(), unit.clone());
        unit
    }
}

/// Declarations in the source text. Each file is read once.
pub(super) struct SourceDeclarations<'a> {
    source: &'a Path,
    files: RefCell<HashMap<String, Vec<String>>>,
}

impl<'a> SourceDeclarations<'a> {
    pub(super) fn new(source: &'a Path) -> SourceDeclarations<'a> {
        SourceDeclarations { source, files: RefCell::default() }
    }

    /// Returns true if a declaration contains a word such as `always_inline`, with or without underscores around it, on
    /// its own line or on the lines before that belong to it. The function's own name does not count. Macros are not
    /// expanded here.
    pub(super) fn says(&self, key: &FunctionKey, word: &str) -> bool {
        let mut files = self.files.borrow_mut();
        let lines = files.entry(key.file.clone()).or_insert_with(|| {
            let text = klpx_input::text(&self.source.join(&key.file)).unwrap_or_default();
            text.lines().map(str::to_owned).collect()
        });
        let at = (key.line as usize).min(lines.len());
        let Some((own, above)) = lines[..at].split_last() else { return false };
        let ends = |line: &&String| {
            line.trim().is_empty() || line.trim_end().ends_with([';', '}', '/']) || line.starts_with('#')
        };
        let declaration = std::iter::once(own).chain(above.iter().rev().take_while(|line| !ends(line)));
        declaration.take(5).any(|line| has_word(line, word, &key.function))
    }
}

fn has_word(line: &str, word: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    line.split(|c| !is_part(c)).any(|part| part != name && part.trim_matches('_') == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_is_a_word_whatever_underscores_it_has_and_a_part_of_a_name_is_none() {
        for line in ["static __always_inline int f(void)", "__attribute__((always_inline))", "always_inline"]
        {
            assert!(has_word(line, "always_inline", "f"), "{line}");
        }
        for line in ["int flattened(int x)", "int tree_flatten(int x)", "flattens", ""] {
            assert!(!has_word(line, "flatten", "f"), "{line}");
        }
        assert!(!has_word("static int flatten(int x)", "flatten", "flatten"));
        assert!(has_word("static __flatten int flatten(int x)", "flatten", "flatten"));
    }
}
