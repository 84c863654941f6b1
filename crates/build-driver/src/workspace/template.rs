//! kbuild's own commands for a module outside its tree, applied to any module. klpx asks kbuild once for a kernel: in
//! the workspace's folder `template`, kbuild builds a module with an empty livepatch and records its commands
//! (`.NAME.cmd`, scripts/Kbuild.include). klpx makes a livepatch's module with the same commands, after replacing the
//! template's name and folder. kbuild's pass through its makefiles takes longer than the commands.

use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, Failure, Result, codes};

use crate::files;
use crate::files::remove_dir;
use crate::kbuild::make::{MakeResult, MakeSettings};
use crate::process::Call;
use crate::workspace::Workspace;

/// The template's name in file names, and the kernel's name of the template.
const NAME: [&str; 2] = ["livepatch-klpxtemplate", "livepatch_klpxtemplate"];

/// The text of a livepatch module.
#[derive(Clone, Copy, Debug)]
pub struct ModuleText<'a> {
    /// The name of the C file, without `.c`.
    pub stem: &'a str,
    /// The contents of this livepatch's C file.
    pub source: &'a str,
    /// The contents of the C file for a livepatch that replaces nothing.
    pub empty: &'a str,
    /// Returns the Kbuild file of a module with the given name.
    pub kbuild: fn(&str) -> String,
}

/// A module before its final link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleParts {
    /// The objects that kbuild links into the module, as native code and in kbuild's order: the module's code first,
    /// then modinfo and the like.
    pub objects: Vec<PathBuf>,
    /// The linker's arguments before `-o` in kbuild's link: emulation, build-id, the linker script.
    pub link_flags: Vec<String>,
}

/// The folder and the name of a module.
struct ModuleLocation {
    folder: PathBuf,
    names: [String; 2],
}

/// A command of the template that makes a file.
struct TemplateCommand {
    /// The whole record, as in kbuild's file.
    text: String,
    /// The command, for a shell.
    command: String,
    /// True if the command runs in the module's folder (from Linux 6.13 on), false for the build tree.
    in_folder: bool,
}

impl ModuleLocation {
    /// `folder` must exist.
    fn new(folder: &Path, name: &str) -> Result<ModuleLocation> {
        let folder = folder.canonicalize().map_err(|error| Diagnosis::io("open", folder, &error))?;
        Ok(ModuleLocation { folder, names: [name.to_owned(), name.replace('-', "_")] })
    }

    /// The file of the module with this suffix.
    fn file(&self, ending: &str) -> PathBuf {
        self.folder.join(format!("{}{ending}", self.names[0]))
    }

    /// The template's text with the name and folder of this module.
    fn instead_of(&self, template: &ModuleLocation, text: &str) -> String {
        let folder = |site: &ModuleLocation| site.folder.display().to_string();
        let text = text.replace(&folder(template), &folder(self));
        template
            .names
            .iter()
            .zip(&self.names)
            .fold(text, |text, (template_name, own)| text.replace(template_name, own))
    }
}

impl TemplateCommand {
    /// Reads kbuild's record of a file that it made.
    fn read(target: &Path) -> Result<TemplateCommand> {
        let text = read(&TemplateCommand::file(target))?;
        TemplateCommand::parse(&text).ok_or_else(|| not_understood(&text))
    }

    /// The path of a file's record.
    fn file(target: &Path) -> PathBuf {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        target.with_file_name(format!(".{name}.cmd"))
    }

    /// Parses `savedcmd_TARGET := COMMAND` (`cmd_` up to Linux 6.2), in make's spelling.
    fn parse(text: &str) -> Option<TemplateCommand> {
        let line = text.lines().find(|line| line.starts_with("savedcmd_") || line.starts_with("cmd_"))?;
        let (target, command) = line.split_once(" := ")?;
        let (_, target) = target.split_once("cmd_")?;
        let command = command.replace("$(pound)", "#").replace("$$", "$");
        Some(TemplateCommand { text: text.to_owned(), command, in_folder: !Path::new(target).is_absolute() })
    }
}

impl Workspace {
    /// Makes a livepatch's module in `folder` up to its final link, against the original kernel. `symvers` lists the
    /// kernel's exports and checksums.
    ///
    /// # Errors
    /// `klpx::glue-does-not-build` with the compiler's lines, or an interrupt.
    pub fn make_module(
        &self,
        folder: &Path,
        name: &str,
        text: ModuleText<'_>,
        symvers: &Path,
    ) -> Result<ModuleParts> {
        let template = self.template(text, symvers)?;
        let site = ModuleLocation::new(folder, name)?;
        write(&site.folder.join(format!("{}.c", text.stem)), text.source)?;
        // Lists of the module's objects, for which kbuild uses a shell.
        for (template_file, own) in [
            (template.folder.join("modules.order"), site.folder.join("modules.order")),
            (template.file(".mod"), site.file(".mod")),
        ] {
            write(&own, &site.instead_of(&template, &read(&template_file)?))?;
        }
        let glue = template.folder.join(format!("{}.o", text.stem));
        let symbols = template.folder.join("Module.symvers");
        for target in [glue, template.file(".o"), symbols, template.file(".mod.o")] {
            let record = TemplateCommand::read(&target)?;
            self.make_again(&record, &template, &site)?;
            // modpost reads the records of the objects for the module's `srcversion`.
            let own = PathBuf::from(site.instead_of(&template, &target.display().to_string()));
            write(&TemplateCommand::file(&own), &site.instead_of(&template, &record.text))?;
        }
        self.parts(&template, &site)
    }

    /// The template of this kernel: the existing one, or a new one made by kbuild.
    fn template(&self, text: ModuleText<'_>, symvers: &Path) -> Result<ModuleLocation> {
        self.prepare_modules(symvers)?;
        let folder = self.dir.join("template");
        let made = folder.join("made");
        if !made.exists() {
            remove_dir(&folder)?;
            std::fs::create_dir(&folder).map_err(|error| Diagnosis::io("create", &folder, &error))?;
            write(&folder.join(format!("{}.c", text.stem)), text.empty)?;
            write(&folder.join("Kbuild"), &(text.kbuild)(NAME[0]))?;
            let folder = folder.canonicalize().map_err(|error| Diagnosis::io("open", &folder, &error))?;
            self.make_modules(&folder, glue_fails)?;
            files::write_durably(&made, b"")?;
        }
        ModuleLocation::new(&folder, NAME[0])
    }

    /// Runs a command of the template for another module.
    fn make_again(
        &self,
        record: &TemplateCommand,
        template: &ModuleLocation,
        site: &ModuleLocation,
    ) -> Result<()> {
        let command = site.instead_of(template, &record.command);
        let call = Call::new("sh").args(["-e", "-c", &command]).dir(self.place(record, site));
        let outcome = self.runner.run(&call)?;
        if outcome.success {
            return Ok(());
        }
        self.with_make(|make| {
            Err(glue_fails(make, &MakeResult { success: false, units: 0, lines: outcome.lines }))
        })
    }

    /// The folder that a command runs in.
    fn place(&self, record: &TemplateCommand, site: &ModuleLocation) -> PathBuf {
        if record.in_folder { site.folder.clone() } else { self.build_dir() }
    }

    /// The objects and flags of kbuild's final link of the template, for another module.
    fn parts(&self, template: &ModuleLocation, site: &ModuleLocation) -> Result<ModuleParts> {
        let record = TemplateCommand::read(&template.file(".ko"))?;
        let Some((flags, objects)) = parse_link(&record.command) else {
            return Err(not_understood(&record.command));
        };
        let place = self.place(&record, site);
        let resolve = |word: &str| place.join(site.instead_of(template, word));
        let objects: Vec<PathBuf> = objects.iter().map(|word| resolve(word)).collect();
        // An object that is the same in every module: `.module-common.o`, from Linux 6.12 on.
        for object in objects.iter().filter(|object| !object.exists()) {
            let template_file = template.folder.join(object.file_name().unwrap_or_default());
            files::copy(&template_file, object, false)
                .map_err(|error| Diagnosis::io("copy", &template_file, &error))?;
        }
        let is_script = |word: &str| word.ends_with(".lds");
        let flag = |word: &String| match is_script(word) {
            true => resolve(word).display().to_string(),
            false => word.clone(),
        };
        let link_flags: Vec<String> = flags.iter().map(flag).collect();
        let link = |objects: &[PathBuf], output: &Path| {
            self.link_module(&flags_without_layout(&link_flags), objects, output)
        };
        let objects = objects.into_iter().map(|object| native(object, link)).collect::<Result<_>>()?;
        Ok(ModuleParts { objects, link_flags })
    }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| Diagnosis::io("read", path, &error).into())
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(|error| Diagnosis::io("write", path, &error).into())
}

fn glue_fails(make: &MakeSettings<'_>, built: &MakeResult) -> Failure {
    let remedy = "this is a fault in klpx, please report it with the lines below";
    make.failure(built, &codes::GLUE_DOES_NOT_BUILD, "the livepatch's glue does not build", remedy)
}

fn not_understood(text: &str) -> Failure {
    let what = "kbuild's record of how it made a module can't be understood";
    Diagnosis::new(
        &codes::GLUE_DOES_NOT_BUILD,
        what,
        "klpx links the livepatch with the command in this record",
        "report this record and the kernel's version",
    )
    .detail([text.to_owned()])
    .into()
}

/// Returns the object as native code. Where no objtool reads each object (arm64), kbuild leaves the bitcode of an LTO
/// kernel's module to the module's final link (`cmd_ld_single`, scripts/Makefile.lib).
fn native(object: PathBuf, link: impl Fn(&[PathBuf], &Path) -> Result<()>) -> Result<PathBuf> {
    if !files::is_bitcode(&object) {
        return Ok(object);
    }
    let native = object.with_extension("native.o");
    link(&[object], &native)?;
    Ok(native)
}

/// The linker's flags without the linker script and the build id, which only the final link has.
fn flags_without_layout(flags: &[String]) -> Vec<String> {
    let mut rest = flags.iter();
    let mut kept = Vec::new();
    while let Some(flag) = rest.next() {
        match flag.as_str() {
            "-T" => drop(rest.next()),
            other if other.starts_with("--build-id") => {}
            other => kept.push(other.to_owned()),
        }
    }
    kept
}

/// The flags and objects of a module's final link: `LD FLAGS -o NAME.ko OBJECTS[; ...]` (scripts/Makefile.modfinal).
fn parse_link(command: &str) -> Option<(Vec<String>, Vec<String>)> {
    let words: Vec<&str> = command.split(';').next()?.split_whitespace().collect();
    let output = words.iter().position(|word| *word == "-o")?;
    let flags = words.get(1..output)?.iter().map(|word| (*word).to_owned()).collect();
    let objects: Vec<String> = words.get(output + 2..)?.iter().map(|word| (*word).to_owned()).collect();
    (!objects.is_empty() && objects.iter().all(|word| word.ends_with(".o"))).then_some((flags, objects))
}

#[cfg(test)]
mod tests {
    use klpx_testkit::{command, need, run};

    use super::*;

    #[test]
    fn a_command_is_read_from_its_record() {
        let new = TemplateCommand::parse("savedcmd_lp.mod.o := cc -DX='$(pound)$$' -o lp.mod.o lp.mod.c\n")
            .expect("read");
        assert_eq!((new.command.as_str(), new.in_folder), ("cc -DX='#$' -o lp.mod.o lp.mod.c", true));
        let old =
            TemplateCommand::parse("source := x\ncmd_/d/lp.o := cc -o /d/lp.o /d/lp.c\n").expect("read");
        assert_eq!((old.command.as_str(), old.in_folder), ("cc -o /d/lp.o /d/lp.c", false));
        assert!(TemplateCommand::parse("nothing").is_none());
    }

    #[test]
    fn a_command_is_said_of_another_module() {
        let site = |folder: &str, names: [&str; 2]| ModuleLocation {
            folder: folder.into(),
            names: names.map(str::to_owned),
        };
        let template = site("/ws/template", NAME);
        let own = site("/ws/run/1", ["livepatch-a-b", "livepatch_a_b"]);
        let said = own.instead_of(
            &template,
            "cc -DN='\"livepatch_klpxtemplate\"' -o /ws/template/livepatch-klpxtemplate.mod.o",
        );
        assert_eq!(said, "cc -DN='\"livepatch_a_b\"' -o /ws/run/1/livepatch-a-b.mod.o");
    }

    #[test]
    fn what_kbuild_leaves_as_bitcode_becomes_native_code() {
        need("ld.lld-22");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("lp.mod.c"), "int known = 7;").expect("a file");
        for (lto, name) in [("-flto=thin", "lp.mod.o"), ("-fno-lto", "lp.o")] {
            let words = ["--target=aarch64-linux-gnu", "-fsplit-lto-unit", lto, "-c", "lp.mod.c", "-o", name];
            run(command("clang-22").args(words).current_dir(folder.path()));
        }
        let flags = flags_without_layout(
            &["-r", "-maarch64elf", "--build-id=sha1", "-T", "/no/module.lds", "-z", "norelro"]
                .map(str::to_owned),
        );
        assert_eq!(flags, ["-r", "-maarch64elf", "-z", "norelro"]);
        let link = |objects: &[PathBuf], output: &Path| {
            run(command("ld.lld-22").args(&flags).arg("-o").arg(output).args(objects));
            Ok(())
        };
        let bitcode = folder.path().join("lp.mod.o");
        assert!(files::is_bitcode(&bitcode));
        let object = native(bitcode, link).expect("native code");
        let text = std::fs::read(&object).expect("an object");
        assert!(text.starts_with(b"\x7fELF") && text.windows(5).any(|name| name == b"known"));
        let ready = folder.path().join("lp.o");
        assert_eq!(native(ready.clone(), link).expect("native code"), ready, "nothing is to be done");
    }

    #[test]
    fn the_last_link_is_taken_apart() {
        let (flags, objects) =
            parse_link("/ws/bin/ld.lld -r -m elf_x86_64 --build-id=sha1  -T /b/scripts/module.lds -o lp.ko lp.o lp.mod.o .module-common.o")
                .expect("read");
        assert_eq!(flags, ["-r", "-m", "elf_x86_64", "--build-id=sha1", "-T", "/b/scripts/module.lds"]);
        assert_eq!(objects, ["lp.o", "lp.mod.o", ".module-common.o"]);
        let old = "ld -r -m elf_x86_64 -T scripts/module.lds -o /d/lp.ko /d/lp.o /d/lp.mod.o;  true";
        assert_eq!(parse_link(old).expect("read").1, ["/d/lp.o", "/d/lp.mod.o"]);
        assert_eq!(parse_link("nothing"), None);
    }
}
