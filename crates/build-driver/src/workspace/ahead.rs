//! Patched units that are compiled while kbuild compiles the original ones, where processors would be idle otherwise.
//!
//! Both units must come from the same path, where only one of the sources can be. GCC compiles in two steps as it does
//! in one: `-E -fdirectives-only` puts all files in one text and leaves macros, lines and columns as they are, and the
//! second step needs no source any more. A unit's list of what not to inline stands behind its text, as the compiler's
//! stand-in has it (compiler.rs), which compiles a text as it is. kbuild's record of the unit's preprocessed text (`%.i` in
//! scripts/Makefile.build) has the flags; the object is taken only when kbuild's record of the object has the same ones.

use std::io::Write;
use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, Result};

use crate::files::create_parent;
use crate::kbuild::environment::Environment;
use crate::kbuild::recorded::Recorded;
use crate::kernel::{SECTION_FLAGS, Sections};
use crate::patch::apply::Prepared;
use crate::toolchain::Compiler;
use crate::workspace::Workspace;
use crate::workspace::touched::TouchedUnit;
use crate::workspace::units::redirected;

/// The flags of the second step.
const FROM_TEXT: [&str; 3] = ["-c", "-fpreprocessed", "-fdirectives-only"];

/// A patched unit that needs no source any more.
pub(super) struct Text {
    /// The command that made kbuild's own text, which is of the original.
    preprocessing: Vec<String>,
    /// What kbuild calls its text.
    target: String,
    text: PathBuf,
    object: PathBuf,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Ahead {
    /// The object, before objtool.
    pub(super) object: PathBuf,
    flags: Vec<String>,
}

impl Ahead {
    /// True when a unit is compiled by this record with the same flags.
    pub(super) fn is_by(&self, record: &Recorded) -> bool {
        record.compilation().is_some_and(|words| flags(words) == self.flags)
    }
}

impl Workspace {
    /// Texts of patched units, in their order, where compiling these ahead saves time and can be done.
    pub(super) fn texts_ahead(
        &self,
        prepared: &Prepared,
        units: &[&TouchedUnit],
        work: &Path,
    ) -> Result<Vec<Option<Text>>> {
        let nothing = || units.iter().map(|_| None).collect();
        if self.kernel.toolchain().compiler != Compiler::Gcc || units.len() >= self.kernel.jobs() {
            return Ok(nothing());
        }
        let environment = Environment::read(&self.dir)?;
        for unit in units {
            let (folder, target) = (&unit.unit.folder, target(unit));
            let built =
                self.with_make(|make| environment.make(make, folder, &[PathBuf::from(target)], &mut |_| {}))?;
            if !built.success {
                // A header that is made with the folder's objects only; or an error that the object's build tells.
                return Ok(nothing());
            }
        }
        self.while_patched(prepared, |_| units.iter().map(|unit| self.text_ahead(unit, work)).collect())
    }

    fn text_ahead(&self, unit: &TouchedUnit, work: &Path) -> Result<Option<Text>> {
        let target = target(unit);
        let record = Recorded::read(&self.build_dir(), Path::new(&target));
        let Some(preprocessing) = record.and_then(|record| record.commands.into_iter().next()) else {
            return Ok(None);
        };
        let (text, object) = (work.join("text").join(&target), work.join("patched").join(unit.object()));
        create_parent(&text)?;
        let mut words = redirected(&preprocessing, &target, &text);
        words.insert(1, FROM_TEXT[2].to_owned());
        let made = self.run_in(&self.build_dir(), &words)?.success;
        if let (true, Some(lists)) = (made, self.kernel.lists()) {
            // What was generated in the build tree is left to the stand-in.
            let Some(source) = unit.unit.source.in_tree().and_then(|path| self.listed(path)) else {
                return Ok(None);
            };
            append(&text, lists.of(&source).unwrap_or_default())?;
        }
        Ok(made.then_some(Text { preprocessing, target, text, object }))
    }

    /// The path by which lists know a source: without links to folders, as the stand-in finds it.
    fn listed(&self, source: &str) -> Option<String> {
        let path = self.source_dir().join(source);
        let folder = path.parent()?.canonicalize().ok()?;
        let path = folder.join(path.file_name()?);
        path.strip_prefix(self.source_dir()).ok()?.to_str().map(str::to_owned)
    }

    /// Compiles a text. `None` when that fails: the source gives the compiler's own words later.
    pub(super) fn compile_ahead(&self, unit: &Text) -> Result<Option<Ahead>> {
        create_parent(&unit.object)?;
        let mut words = redirected(&unit.preprocessing, &unit.target, &unit.object);
        words.retain(|word| word != "-E");
        words.pop();
        words.extend(FROM_TEXT.map(str::to_owned));
        if self.kernel.sections() == Sections::WhereCompared {
            words.extend(SECTION_FLAGS.split(' ').map(str::to_owned));
        }
        words.push(unit.text.display().to_string());
        let made = self.run_in(&self.build_dir(), &words)?.success;
        Ok(made.then(|| Ahead { object: unit.object.clone(), flags: flags(&unit.preprocessing) }))
    }
}

fn append(path: &Path, text: &str) -> Result<()> {
    let opened = std::fs::File::options().append(true).open(path);
    let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| Diagnosis::io("write", path, &error).into())
}

/// What kbuild calls the preprocessed text of a unit.
fn target(unit: &TouchedUnit) -> String {
    Path::new(unit.unit.target()).with_extension("i").display().to_string()
}

/// The words of a compilation or of a preprocessing that decide about the code.
fn flags(words: &[String]) -> Vec<String> {
    let output = words.iter().position(|word| word == "-o").map_or(usize::MAX, |at| at + 1);
    let counts = |&(at, word): &(usize, &String)| {
        at != output && !matches!(word.as_str(), "-c" | "-E" | "-o") && !word.starts_with("-Wp,-M")
    };
    words.iter().enumerate().filter(counts).map(|(_, word)| word.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_and_an_object_of_the_same_flags_are_told_from_others() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let text = words("gcc -E -Wp,-MMD,fs/.a.i.d -O2 -DX -o fs/a.i /ws/src/fs/a.c");
        let ahead = Ahead { object: PathBuf::new(), flags: flags(&text) };
        let record = |text: &str| Recorded { commands: vec![words(text)] };
        assert!(ahead.is_by(&record("gcc -Wp,-MMD,fs/.a.o.d -O2 -DX -c -o fs/a.o /ws/src/fs/a.c")));
        assert!(!ahead.is_by(&record("gcc -Wp,-MMD,fs/.a.o.d -O2 -DX -pg -c -o fs/a.o /ws/src/fs/a.c")));
        assert!(!ahead.is_by(&record("gcc -O2 -DX -S -o fs/a.o /ws/src/fs/a.c")));
    }
}
