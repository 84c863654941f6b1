//! One ThinLTO link of the kernel, as kbuild's record tells of it: what it links, with which flags, and what kbuild
//! runs over the result. Runs nothing but the archiver, to see what an archive holds.

use std::path::{Path, PathBuf};

use klpx_build_driver::Recorded;
use klpx_build_driver::process::{Call, Runner};
use klpx_diagnosis::{Class, Diagnosis, Result};
use serde::{Deserialize, Serialize};

use crate::files;

/// A relocatable link, its inputs spelled out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// What it makes, as a path from the build tree.
    pub object: PathBuf,
    /// Everything but the program, the inputs, the linker script and the output.
    pub flags: Vec<String>,
    /// In link order.
    pub inputs: Vec<Input>,
    /// The script that orders initcalls. No decision of LLVM's depends on it, but what it names can.
    pub script: Option<String>,
    /// The words of objtool's run over the result, the program first; none where no objtool is.
    pub objtool: Vec<String>,
}

/// An object that is linked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// A path from the build tree.
    pub path: String,
    /// It is the member of an archive, and is linked only when something refers to it.
    pub lazy: bool,
}

/// Where and with what archives are listed.
#[derive(Clone, Copy, Debug)]
pub struct Archiver<'a> {
    /// The build tree.
    pub build: &'a Path,
    /// `llvm-ar`.
    pub program: &'a str,
    /// Starts it.
    pub runner: &'a Runner,
}

impl Link {
    /// The link that a record tells of. `None` when the record holds no relocatable link.
    ///
    /// # Errors
    /// The record holds something that klpx does not know.
    pub fn of(recorded: &Recorded, object: &Path, archiver: Archiver<'_>) -> Result<Option<Link>> {
        let Some((at, words)) = recorded.link() else { return Ok(None) };
        let objtool = objtool(&recorded.commands[at + 1..], object)?;
        let mut link =
            Link { object: object.to_owned(), flags: Vec::new(), inputs: Vec::new(), script: None, objtool };
        let mut whole = false;
        let mut words = words.iter().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "-o" => {
                    words.next();
                }
                "-T" => {
                    let script = words.next().map(|name| archiver.build.join(name));
                    link.script = script
                        .map(|path| files::read(&path))
                        .transpose()?
                        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
                }
                "--whole-archive" => whole = true,
                "--no-whole-archive" => whole = false,
                "--start-group" | "--end-group" => {}
                map if map.starts_with("-Map=") => {}
                archive if archive.ends_with(".a") => link.inputs.extend(archiver.members(archive, !whole)?),
                object if object.ends_with(".o") => link.inputs.push(Input::new(object, false)),
                list if list.starts_with('@') => {
                    let text = files::read(&archiver.build.join(&list[1..]))?;
                    let text = String::from_utf8_lossy(&text);
                    link.inputs.extend(text.split_whitespace().map(|path| Input::new(path, false)));
                }
                flag => link.flags.push(flag.to_owned()),
            }
        }
        Ok((!link.inputs.is_empty()).then_some(link))
    }

    /// True when a unit is among what is linked.
    pub fn has(&self, unit: &str) -> bool {
        self.inputs.iter().any(|input| input.path == unit)
    }
}

impl Input {
    fn new(path: &str, lazy: bool) -> Input {
        Input { path: path.to_owned(), lazy }
    }
}

impl Archiver<'_> {
    /// The members of a thin archive, as paths from the build tree.
    fn members(&self, archive: &str, lazy: bool) -> Result<Vec<Input>> {
        let outcome = self.runner.run(&Call::new(self.program).dir(self.build).args(["t", archive]))?;
        if !outcome.success {
            return Err(Diagnosis::new("klpx::archive", Class::Build, format!("{archive} can't be listed"))
                .detail(outcome.lines)
                .into());
        }
        let relative = |line: &String| {
            let path = Path::new(line).strip_prefix(self.build).unwrap_or(Path::new(line));
            Input { path: path.display().to_string(), lazy }
        };
        Ok(outcome.lines.iter().map(relative).collect())
    }
}

/// What kbuild runs over a linked object: objtool, or nothing.
fn objtool(commands: &[Vec<String>], object: &Path) -> Result<Vec<String>> {
    let program = |words: &Vec<String>| {
        let name = words.first().map(|word| Path::new(word).file_name().unwrap_or_default().to_owned());
        name.unwrap_or_default().to_string_lossy().into_owned()
    };
    // A module of one unit is linked to a name of its own first.
    let mut left = commands.iter().filter(|words| program(words) != "mv");
    match (left.next(), left.next()) {
        (None, _) => Ok(Vec::new()),
        (Some(words), None) if program(words) == "objtool" => Ok(words.clone()),
        (Some(words), _) => {
            let what = format!("kbuild runs {} over {}", program(words), object.display());
            Err(Diagnosis::new("klpx::unknown-link", Class::Build, what)
                .why("klpx knows objtool only, and makes an object as the kernel has it or not at all")
                .into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(text: &str) -> Recorded {
        Recorded::parse(&format!("savedcmd_x := {text}\n")).expect("commands")
    }

    fn link(text: &str) -> Result<Option<Link>> {
        let (runner, build) = (Runner::new(), tempfile::tempdir().expect("a folder"));
        std::fs::write(build.path().join("m.mod"), "fs/a.o\nfs/b.o\n").expect("a list");
        std::fs::write(build.path().join("order.lds"), "SECTIONS {}").expect("a script");
        let archiver = Archiver { build: build.path(), program: "false", runner: &runner };
        Link::of(&recorded(text), Path::new("fs/m.o"), archiver)
    }

    #[test]
    fn flags_inputs_script_and_objtool_are_told_apart() {
        let text = "ld.lld -m elf_x86_64 -mllvm -x=5 -r -o fs/m.o -Map=m.map -T order.lds @m.mod c.o ; ./tools/objtool/objtool --link fs/m.o";
        let found = link(text).expect("known").expect("a link");
        assert_eq!(found.flags, ["-m", "elf_x86_64", "-mllvm", "-x=5", "-r"]);
        let paths: Vec<&str> = found.inputs.iter().map(|input| input.path.as_str()).collect();
        assert_eq!(paths, ["fs/a.o", "fs/b.o", "c.o"]);
        assert_eq!(found.script.as_deref(), Some("SECTIONS {}"));
        assert_eq!(found.objtool, ["./tools/objtool/objtool", "--link", "fs/m.o"]);
        assert!(found.has("fs/b.o") && !found.has("b.o"));
    }

    #[test]
    fn a_module_of_one_unit_is_compiled_linked_and_moved() {
        let text = "clang -c -o fs/m.o m.c ; ld.lld -r -o fs/.tmp_m.o fs/m.o; mv fs/.tmp_m.o fs/m.o";
        let found = link(text).expect("known").expect("a link");
        assert_eq!(found.inputs, [Input::new("fs/m.o", false)]);
        assert!(found.objtool.is_empty());
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let text = "ld.lld -r -o fs/m.o c.o ; ./tools/other fs/m.o";
        let failure = link(text).expect_err("another tool");
        assert_eq!(failure.diagnoses().next().expect("one").code, "klpx::unknown-link");
        assert!(link("ld.lld -r -o fs/m.o x.a").is_err(), "the archive can't be listed");
        assert_eq!(link("clang -c -o fs/m.o m.c").expect("known"), None);
    }
}
