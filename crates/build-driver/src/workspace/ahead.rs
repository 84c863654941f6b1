//! Patched units that are compiled while kbuild compiles the original units, on processors that would be idle.
//!
//! Both units must have the same source path, and only one source can be there at a time. GCC makes the same code in
//! two steps as in one: `-E -fdirectives-only` merges all files into one text and keeps macros, lines and columns, and
//! the second step needs no source. A unit's inlining list is appended to its text, as the compiler wrapper does
//! (compiler.rs). The wrapper compiles a text unchanged. The flags come from kbuild's record of the unit's preprocessed
//! text (`%.i` in scripts/Makefile.build). klpx uses the object only if kbuild's record of the object has the same
//! flags.

use std::io::Write;
use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, Result};

use crate::files::create_parent;
use crate::kbuild::environment::Environment;
use crate::kbuild::recorded::RecordedCommands;
use crate::kernel::{SECTION_FLAGS, SectionOrigin};
use crate::patch::AppliedPatch;
use crate::toolchain::CompilerFamily;
use crate::workspace::Workspace;
use crate::workspace::compilation::redirected;
use crate::workspace::touched::TouchedUnit;

/// The flags of the second step.
const FROM_TEXT: [&str; 3] = ["-c", "-fpreprocessed", "-fdirectives-only"];

/// A patched unit that no longer needs its source.
pub(super) struct PatchedText {
    /// The command with which kbuild preprocessed the original.
    preprocessing: Vec<String>,
    /// kbuild's name of the preprocessed text.
    target: String,
    text: PathBuf,
    object: PathBuf,
}

/// The result of compiling ahead.
#[derive(Debug)]
pub(super) struct Ahead {
    /// The object, before objtool.
    pub(super) object: PathBuf,
    flags: Vec<String>,
}

impl Ahead {
    /// Returns true if the record compiles a unit with the same flags.
    pub(super) fn is_by(&self, record: &RecordedCommands) -> bool {
        record.compilation().is_some_and(|words| flags(words) == self.flags)
    }
}

impl Workspace {
    /// The texts of patched units, in the order of the units, for units where compiling ahead saves time and is
    /// possible.
    pub(super) fn texts_ahead(
        &self,
        prepared: &AppliedPatch,
        units: &[&TouchedUnit],
        work: &Path,
    ) -> Result<Vec<Option<PatchedText>>> {
        let nothing = || units.iter().map(|_| None).collect();
        if self.kernel.toolchain().compiler != CompilerFamily::Gcc || units.len() >= self.kernel.jobs() {
            return Ok(nothing());
        }
        let environment = Environment::read(&self.dir)?;
        for unit in units {
            let (folder, target) = (&unit.unit.folder, target(unit));
            let built =
                self.with_make(|make| environment.make(make, folder, &[PathBuf::from(target)], &mut |_| {}))?;
            if !built.success {
                // A header that is only made with the folder's objects, or an error that the build of the object will
                // report.
                return Ok(nothing());
            }
        }
        self.while_patched(prepared, |_| units.iter().map(|unit| self.text_ahead(unit, work)).collect())
    }

    fn text_ahead(&self, unit: &TouchedUnit, work: &Path) -> Result<Option<PatchedText>> {
        let target = target(unit);
        let record = RecordedCommands::read(&self.build_dir(), Path::new(&target));
        let Some(preprocessing) = record.and_then(|record| record.commands.into_iter().next()) else {
            return Ok(None);
        };
        let (text, object) = (work.join("text").join(&target), work.join("patched").join(unit.object()));
        create_parent(&text)?;
        let mut words = redirected(&preprocessing, &target, &text);
        words.insert(1, FROM_TEXT[2].to_owned());
        let made = self.run_in(&self.build_dir(), &words)?.success;
        if let (true, Some(lists)) = (made, self.kernel.lists()) {
            // The wrapper handles sources that were generated in the build tree.
            let Some(source) = unit.unit.source.in_tree().and_then(|path| self.listed(path)) else {
                return Ok(None);
            };
            append(&text, lists.of(&source).unwrap_or_default())?;
        }
        Ok(made.then_some(PatchedText { preprocessing, target, text, object }))
    }

    /// The path under which lists know a source: without links to folders, as the wrapper computes it.
    fn listed(&self, source: &str) -> Option<String> {
        let path = self.source_dir().join(source);
        let folder = path.parent()?.canonicalize().ok()?;
        let path = folder.join(path.file_name()?);
        path.strip_prefix(self.source_dir()).ok()?.to_str().map(str::to_owned)
    }

    /// Compiles a text. `None` if the compilation fails: a later compilation from the source shows the compiler's
    /// messages.
    pub(super) fn compile_ahead(&self, unit: &PatchedText) -> Result<Option<Ahead>> {
        create_parent(&unit.object)?;
        let mut words = redirected(&unit.preprocessing, &unit.target, &unit.object);
        words.retain(|word| word != "-E");
        words.pop();
        words.extend(FROM_TEXT.map(str::to_owned));
        if self.kernel.sections() == SectionOrigin::WhereCompared {
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

/// kbuild's name of a unit's preprocessed text.
fn target(unit: &TouchedUnit) -> String {
    Path::new(unit.unit.target()).with_extension("i").display().to_string()
}

/// The arguments of a compilation or a preprocessor run that affect the code.
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
        let record = |text: &str| RecordedCommands { commands: vec![words(text)] };
        assert!(ahead.is_by(&record("gcc -Wp,-MMD,fs/.a.o.d -O2 -DX -c -o fs/a.o /ws/src/fs/a.c")));
        assert!(!ahead.is_by(&record("gcc -Wp,-MMD,fs/.a.o.d -O2 -DX -pg -c -o fs/a.o /ws/src/fs/a.c")));
        assert!(!ahead.is_by(&record("gcc -O2 -DX -S -o fs/a.o /ws/src/fs/a.c")));
    }
}
