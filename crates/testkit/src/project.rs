//! Small C projects that a running test compiles and combines into one relocatable object.

use std::path::Path;

use crate::command;
use klpx_normalize::elf::ElfFile;

/// A compiler and its linker. `cargo xtask test` installs them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tools {
    /// The compiler.
    pub compiler: &'static str,
    /// The linker.
    pub linker: &'static str,
}

/// Clang 16 and its linker.
pub const CLANG_16: Tools = Tools { compiler: "clang-16", linker: "ld.lld-16" };
/// Clang 19 and its linker.
pub const CLANG_19: Tools = Tools { compiler: "clang-19", linker: "ld.lld-19" };
/// Clang 22 and its linker.
pub const CLANG_22: Tools = Tools { compiler: "clang-22", linker: "ld.lld-22" };
/// GCC 12 and the linker of binutils.
pub const GCC_12: Tools = Tools { compiler: "gcc-12", linker: "ld" };
/// Every Clang.
pub const CLANGS: [Tools; 3] = [CLANG_16, CLANG_19, CLANG_22];

/// How a project becomes one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Compiled with a section for each item, then combined.
    Plain,
    /// `-flto=thin`; GCC has no such mode.
    Thin,
    /// `-flto`.
    Full,
}

/// A file of a project: its name, which may have a folder before it, and its text. `.S` files are assembled; `.txt`
/// files are there for flags that name them.
pub type File<'t> = (&'t str, &'t str);

/// The prefix of a flag that goes to LLVM at the link step (`-mllvm`).
pub const TO_LINKER: &str = "-Xlinker=";

/// Returns the object that these files make. The names of the files and of the folder do not depend on where the test
/// runs.
pub fn build(tools: Tools, mode: Mode, files: &[File<'_>], flags: &[&str]) -> ElfFile {
    let folder = tempfile::tempdir().expect("a folder");
    let mut objects = Vec::new();
    for (n, (name, text)) in files.iter().enumerate() {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(&path, text).expect("a source");
        if name.ends_with(".txt") {
            continue;
        }
        let object = format!("{n}.o");
        let mut arguments = vec!["-O2", "-fno-pic", "-mcmodel=kernel", "-fno-asynchronous-unwind-tables"];
        arguments.extend(["-fcf-protection=none", "-fno-stack-protector", "-c", name, "-o", &object]);
        let here = format!("-fdebug-prefix-map={}=.", folder.path().display());
        arguments.push(&here);
        match (mode, tools) {
            _ if name.ends_with(".S") => {}
            (Mode::Plain, _) => arguments.extend(["-ffunction-sections", "-fdata-sections"]),
            (Mode::Thin, _) => arguments.push("-flto=thin"),
            (Mode::Full, _) => arguments.push("-flto"),
        }
        arguments.extend(flags.iter().filter(|flag| !flag.starts_with(TO_LINKER)));
        run(folder.path(), tools.compiler, &arguments);
        objects.push(object);
    }
    let mut arguments: Vec<&str> = vec!["-r", "-o", "all.o"];
    arguments.extend(objects.iter().map(String::as_str));
    for flag in flags.iter().filter_map(|flag| flag.strip_prefix(TO_LINKER)) {
        arguments.extend(["-mllvm", flag]);
    }
    if tools == GCC_12 && mode == Mode::Full {
        arguments.splice(0..1, ["-O2", "-nostdlib", "-flto", "-flinker-output=nolto-rel", "-r"]);
        run(folder.path(), tools.compiler, &arguments);
    } else {
        run(folder.path(), tools.linker, &arguments);
    }
    let bytes = std::fs::read(folder.path().join("all.o")).expect("an object");
    ElfFile::from_bytes(Path::new("all.o"), bytes)
}

fn run(folder: &Path, program: &str, arguments: &[&str]) {
    crate::run(command(program).args(arguments).current_dir(folder));
}
