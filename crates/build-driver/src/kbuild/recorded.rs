//! kbuild's records of how files were made (`.NAME.cmd`), as programs with their arguments.

use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, Result};

/// The commands that made a file, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedCommands {
    /// Each command is a program and its arguments.
    pub commands: Vec<Vec<String>>,
}

impl RecordedCommands {
    /// Reads the record of a file in the build tree. `None` if there is no record, or if it has more than plain
    /// commands.
    pub fn read(build: &Path, rel: &Path) -> Option<RecordedCommands> {
        let name = rel.file_name()?.to_str()?;
        let text = std::fs::read_to_string(build.join(rel).with_file_name(format!(".{name}.cmd"))).ok()?;
        RecordedCommands::parse(&text)
    }

    /// Parses `savedcmd_FILE := COMMAND; COMMAND` (scripts/Kbuild.include; `cmd_` up to 6.2), in make's spelling.
    pub fn parse(text: &str) -> Option<RecordedCommands> {
        let line = text.lines().find(|line| line.starts_with("savedcmd_") || line.starts_with("cmd_"))?;
        let (_, value) = line.split_once(" := ")?;
        let value = value.replace("$(pound)", "#").replace("$$", "$");
        let mut commands = vec![Vec::new()];
        for word in shlex::split(&value)? {
            if is_shell_syntax(&word) {
                return None;
            }
            let (word, ends) = word.strip_suffix(';').map_or((word.as_str(), false), |word| (word, true));
            if let (Some(last), false) = (commands.last_mut(), word.is_empty()) {
                last.push(word.to_owned());
            }
            if ends {
                commands.push(Vec::new());
            }
        }
        commands.retain(|words| !words.is_empty());
        (!commands.is_empty()).then_some(RecordedCommands { commands })
    }

    /// The compilation, if the first command compiles.
    pub fn compilation(&self) -> Option<&[String]> {
        let words = self.commands.first()?;
        words.iter().any(|word| word == "-c").then_some(words)
    }

    /// Returns true if the unit is compiled for ThinLTO.
    pub fn is_thin_unit(&self) -> bool {
        self.compilation().is_some_and(|words| words.iter().any(|word| word == "-flto=thin"))
    }

    /// The relocatable link, with its index among the commands.
    pub fn link(&self) -> Option<(usize, &[String])> {
        let is_link =
            |words: &&Vec<String>| words.iter().any(|w| w == "-r") && words.iter().any(|w| w == "-o");
        let at = self.commands.iter().position(|words| is_link(&words))?;
        Some((at, &self.commands[at]))
    }
}

/// The objects of all modules, from modules.order (which lists `.ko` up to 6.1, `.o` later).
pub(crate) fn module_objects(build: &Path) -> Result<Vec<PathBuf>> {
    let path = build.join("modules.order");
    let text = std::fs::read_to_string(&path).map_err(|error| Diagnosis::io("read", &path, &error))?;
    Ok(text.lines().filter(|line| !line.is_empty()).map(|line| Path::new(line).with_extension("o")).collect())
}

/// Returns true for a word that needs a shell.
fn is_shell_syntax(word: &str) -> bool {
    matches!(word, "&&" | "||" | "|" | "&") || word.starts_with(['>', '<', '(', '`'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_of_one_file_is_compiled_linked_and_moved() {
        let text = "savedcmd_d/a.o := clang -DX='\"a b\"' -c -o d/a.o ../d/a.c  ; /ws/bin/ld.lld -m elf_x86_64 -r -o d/.tmp_a.o d/a.o; mv d/.tmp_a.o d/a.o  ; ./objtool --module d/a.o\n\nsource_d/a.o := x\n";
        let recorded = RecordedCommands::parse(text).expect("commands");
        assert_eq!(recorded.commands.len(), 4);
        assert_eq!(recorded.compilation().expect("a compilation")[1], "-DX=\"a b\"");
        assert_eq!(recorded.link().expect("a link").0, 1);
        assert_eq!(recorded.commands[2], ["mv", "d/.tmp_a.o", "d/a.o"]);
    }

    #[test]
    fn makes_spelling_is_undone_and_shells_are_left_alone() {
        let hash = RecordedCommands::parse("cmd_a := cc '-DA=$(pound)$$x' -c\n").expect("commands");
        assert_eq!(hash.commands[0][1], "-DA=#$x");
        assert_eq!(RecordedCommands::parse("savedcmd_a := cc -c a.c && mv a b\n"), None);
        assert_eq!(RecordedCommands::parse("savedcmd_a := echo x > a\n"), None);
        assert_eq!(RecordedCommands::parse("nothing"), None);
    }
}
