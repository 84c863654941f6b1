//! One ThinLTO link of the kernel, read from kbuild's record: its inputs and its flags. Runs only the archiver, to list
//! an archive's members.

use std::path::{Component, Path, PathBuf};

use klpx_build_driver::RecordedCommands;
use klpx_build_driver::process::{Call, Runner};
use klpx_diagnosis::{Diagnosis, Result, codes};
use serde::{Deserialize, Serialize};

use crate::files;

/// A relocatable link with all its inputs listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The output, as a path from the build tree.
    pub object: PathBuf,
    /// All arguments except the program, the inputs, the linker script and the output.
    pub flags: Vec<String>,
    /// The inputs, in link order.
    pub inputs: Vec<LinkInput>,
    /// The script that orders initcalls. No decision of LLVM depends on the script, but the names in it can depend on
    /// LLVM.
    pub script: Option<String>,
}

/// An object among the inputs of a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkInput {
    /// The object's path from the build tree.
    pub path: String,
    /// True for a member of an archive that is linked only if something refers to it.
    pub lazy: bool,
}

/// How archives are listed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Archiver<'a> {
    /// The build tree.
    pub(crate) build: &'a Path,
    /// `llvm-ar`.
    pub(crate) program: &'a str,
    /// Runs `llvm-ar`.
    pub(crate) runner: &'a Runner,
}

impl Link {
    /// Reads the link of an object from kbuild's record; `None` if the record holds no link.
    pub(crate) fn parse(
        recorded: &RecordedCommands,
        object: &Path,
        archiver: Archiver<'_>,
    ) -> Result<Option<Link>> {
        let Some((_, words)) = recorded.link() else { return Ok(None) };
        let mut link =
            Link { object: object.to_owned(), flags: Vec::new(), inputs: Vec::new(), script: None };
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
                // A flag's value is no input, whatever the value ends with.
                flag if flag.starts_with('-') => link.flags.push(flag.to_owned()),
                archive if archive.ends_with(".a") => link.inputs.extend(archiver.members(archive, !whole)?),
                object if object.ends_with(".o") => link.inputs.push(LinkInput::new(object, false)),
                list if list.starts_with('@') => {
                    let text = files::read(&archiver.build.join(&list[1..]))?;
                    let text = String::from_utf8_lossy(&text);
                    link.inputs.extend(text.split_whitespace().map(|path| LinkInput::new(path, false)));
                }
                flag => link.flags.push(flag.to_owned()),
            }
        }
        Ok((!link.inputs.is_empty()).then_some(link))
    }

    /// Returns true if a unit is among the inputs.
    pub fn has(&self, unit: &str) -> bool {
        self.inputs.iter().any(|input| input.path == unit)
    }
}

impl LinkInput {
    /// Resolves `..` in the path: archives name some objects by way of other folders, as in
    /// `arch/x86/kvm/../../../virt/kvm/kvm_main.o`.
    fn new(path: &str, lazy: bool) -> LinkInput {
        let mut clean = PathBuf::new();
        for part in Path::new(path).components() {
            match part {
                Component::CurDir => {}
                Component::ParentDir if clean.file_name().is_some() => {
                    clean.pop();
                }
                part => clean.push(part),
            }
        }
        LinkInput { path: clean.display().to_string(), lazy }
    }
}

impl Archiver<'_> {
    /// The members of a thin archive, as paths from the build tree.
    fn members(&self, archive: &str, lazy: bool) -> Result<Vec<LinkInput>> {
        let answer = self.runner.ask(&Call::new(self.program).dir(self.build).args(["t", archive]))?;
        if !answer.success {
            return Err(Diagnosis::new(
                &codes::ARCHIVE,
                format!("{archive} can't be listed"),
                "the archiver fails",
                "check that llvm-ar is installed beside clang and of the same version; if \
                 the archive is damaged, remove the workspace (klpx cache prune --key KEY)",
            )
            .detail(answer.messages)
            .into());
        }
        let relative = |line: &String| {
            let path = Path::new(line).strip_prefix(self.build).unwrap_or(Path::new(line));
            LinkInput::new(&path.to_string_lossy(), lazy)
        };
        Ok(answer.lines().iter().map(relative).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(text: &str) -> RecordedCommands {
        RecordedCommands::parse(&format!("savedcmd_x := {text}\n")).expect("commands")
    }

    fn link(text: &str) -> Result<Option<Link>> {
        let (runner, build) = (Runner::new(), tempfile::tempdir().expect("a folder"));
        std::fs::write(build.path().join("m.mod"), "fs/a.o\nfs/../virt/./b.o\n").expect("a list");
        std::fs::write(build.path().join("order.lds"), "SECTIONS {}").expect("a script");
        let archiver = Archiver { build: build.path(), program: "false", runner: &runner };
        Link::parse(&recorded(text), Path::new("fs/m.o"), archiver)
    }

    #[test]
    fn flags_inputs_and_script_are_told_apart() {
        let text = "ld.lld -m elf_x86_64 -mllvm -x=5 --lto-sample-profile=/w/k.a -plugin-opt=-split-machine-functions -r \
            -o fs/m.o -Map=m.map -T order.lds @m.mod c.o";
        let found = link(text).expect("known").expect("a link");
        let flags = ["-m", "elf_x86_64", "-mllvm", "-x=5", "--lto-sample-profile=/w/k.a"];
        assert_eq!(found.flags, [&flags[..], &["-plugin-opt=-split-machine-functions", "-r"]].concat());
        let paths: Vec<&str> = found.inputs.iter().map(|input| input.path.as_str()).collect();
        assert_eq!(paths, ["fs/a.o", "virt/b.o", "c.o"]);
        assert_eq!(found.script.as_deref(), Some("SECTIONS {}"));
        assert!(found.has("virt/b.o") && !found.has("b.o"));
    }

    #[test]
    fn what_is_no_link_or_can_not_be_listed_is_told() {
        assert!(link("ld.lld -r -o fs/m.o x.a").is_err(), "the archive can't be listed");
        assert_eq!(link("clang -c -o fs/m.o m.c").expect("known"), None);
    }

    #[test]
    fn members_of_archives_are_linked_as_the_archive_is() {
        klpx_testkit::need("llvm-ar-22");
        let (runner, build) = (Runner::new(), tempfile::tempdir().expect("a folder"));
        for name in ["a", "b"] {
            std::fs::write(build.path().join(format!("{name}.o")), "").expect("a file");
            let words = ["rcT".to_owned(), format!("{name}.a"), format!("{name}.o")];
            assert!(
                runner
                    .run(&Call::new("llvm-ar-22").dir(build.path()).args(words))
                    .expect("an archiver")
                    .success
            );
        }
        let archiver = Archiver { build: build.path(), program: "llvm-ar-22", runner: &runner };
        for (text, lazy) in [
            ("ld.lld -r -o x a.a b.a", [true, true]),
            ("ld.lld -r -o x --whole-archive a.a --no-whole-archive b.a", [false, true]),
            ("ld.lld -r -o x --whole-archive a.a b.a", [false, false]),
        ] {
            let found =
                Link::parse(&recorded(text), Path::new("x"), archiver).expect("known").expect("a link");
            let inputs: Vec<_> = found.inputs.iter().map(|input| (input.path.as_str(), input.lazy)).collect();
            assert_eq!(inputs, [("a.o", lazy[0]), ("b.o", lazy[1])], "{text}");
        }
    }
}
