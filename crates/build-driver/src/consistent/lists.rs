//! The lists that a kernel was built with: their place, their contents, and a copy of them for klpx's workspace.
//!
//! Lists are input. klpx accepts only text that it would write itself, names of C and attributes, and writes its own
//! copy. The wrapper beside the lists is never run.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Result, codes};
use walkdir::WalkDir;

use super::{InlineAttribute, wrapper};
use crate::files;
use crate::kbuild::recorded::RecordedCommands;
use crate::language::{Identifier, is_source_path};
use crate::toolchain::CompilerFamily;

/// The folder of lists, both in the folder of `inline-check --consistent` and in a workspace.
pub(crate) const UNITS: &str = "units";
const ENDING: &str = ".inl";
/// A unit of every kernel, whose record shows where the lists are.
const FIRST: &str = "init/main";

/// The first line of GCC's lists. GCC warns about an attribute that follows the definition.
const PRAGMA: &str = "#pragma GCC diagnostic ignored \"-Wattributes\"\n";

/// The lists that a kernel's units were compiled with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnitLists {
    /// Texts that are not empty, by unit.
    texts: BTreeMap<String, String>,
}

impl UnitLists {
    /// The folder of the lists that a build tree was compiled with, from kbuild's record of a unit. Either the compiler
    /// is the wrapper, or the unit depends on its list. `None` if the kernel was built without lists.
    pub(crate) fn of_tree(build: &Path) -> Option<PathBuf> {
        let object = format!("{FIRST}.o");
        let compiler = RecordedCommands::read(build, Path::new(&object)).and_then(|record| {
            let cc = Path::new(record.compilation()?.first()?).canonicalize().ok()?;
            is_wrapper(&cc).then(|| cc.parent().map(Path::to_owned))?
        });
        compiler.or_else(|| {
            let (folder, name) = object.rsplit_once('/')?;
            let text = klpx_input::text(&build.join(folder).join(format!(".{name}.cmd"))).ok()?;
            let ending = format!("/{UNITS}/{FIRST}.c{ENDING}");
            let words = text.split_whitespace().map(|word| word.trim_end_matches('\\'));
            words.filter_map(|word| word.strip_suffix(&ending)).next().map(PathBuf::from)
        })
    }

    /// Reads the lists in the folder of `inline-check --consistent`. Leaves out entries that had no effect in the last
    /// compilation of their unit.
    ///
    /// # Errors
    /// If there are no lists, or a list has text that klpx does not write for this compiler.
    pub(crate) fn read(dir: &Path, compiler: CompilerFamily) -> Result<UnitLists> {
        let units = dir.join(UNITS);
        if !units.is_dir() {
            let what = format!("the lists that the kernel was built with are not in {}", dir.display());
            return Err(Diagnosis::new(
                &codes::MISSING_LISTS,
                what,
                "without them units come out as other code: what this kernel calls would be inlined",
                "name the folder that klpx inline-check --consistent wrote (--consistent DIR)",
            )
            .place(DiagnosisPlace::file(units.display().to_string(), None))
            .into());
        }
        let mut texts = BTreeMap::new();
        for entry in WalkDir::new(&units).sort_by_file_name() {
            let entry = entry.map_err(|error| Diagnosis::io("read", &units, &error.into()))?;
            let path = entry.path();
            if entry.file_type().is_dir() {
                continue;
            }
            let rel = path.strip_prefix(&units).ok().and_then(Path::to_str);
            let unit = rel.and_then(|rel| rel.strip_suffix(ENDING));
            let unit = unit.filter(|unit| is_source_path(unit) && unit.ends_with(".c"));
            let Some(unit) = unit.filter(|_| entry.file_type().is_file()) else {
                return Err(bad(path, None));
            };
            let text = klpx_input::text(path)?;
            let functions = parse(compiler, &text).map_err(|line| bad(path, u32::try_from(line).ok()))?;
            let forced = forced(dir, unit);
            let in_effect = |(name, inlining): &(Identifier, InlineAttribute)| {
                let entry = entry_of(compiler, name, *inlining);
                !forced.lines().any(|line| line == entry.trim_end())
            };
            let functions: Vec<_> = match failed(dir, unit) {
                true => Vec::new(),
                false => functions.into_iter().filter(in_effect).collect(),
            };
            if !functions.is_empty() {
                texts.insert(unit.to_owned(), self::text(compiler, &functions));
            }
        }
        Ok(UnitLists { texts })
    }

    /// The number of units whose list is not empty.
    pub(crate) fn len(&self) -> usize {
        self.texts.len()
    }

    /// The list of a unit. `unit` is the path of the unit's source.
    pub(crate) fn of(&self, unit: &str) -> Option<&str> {
        self.texts.get(unit).map(String::as_str)
    }

    /// The identity of the lists. A kernel with other lists is another kernel.
    pub(crate) fn identity(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        for part in self.texts.iter().flat_map(|(unit, text)| [unit, text]) {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.finalize()
    }

    /// Writes the lists to a folder, which is either complete or absent.
    pub(crate) fn place(&self, dir: &Path) -> Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        let unfinished = dir.with_extension("tmp");
        files::remove_dir(&unfinished)?;
        for (unit, text) in &self.texts {
            let path = path(&unfinished.join(UNITS), unit);
            files::create_parent(&path)?;
            std::fs::write(&path, text).map_err(|error| Diagnosis::io("write", &path, &error))?;
        }
        std::fs::create_dir_all(&unfinished).map_err(|error| Diagnosis::io("create", &unfinished, &error))?;
        std::fs::rename(&unfinished, dir).map_err(|error| Diagnosis::io("create", dir, &error).into())
    }
}

/// The path of a unit's list in the folder of lists.
pub(super) fn path(units: &Path, unit: &str) -> PathBuf {
    units.join(format!("{unit}{ENDING}"))
}

/// Returns true if the last compilation of the unit failed with its list, so that the unit has no list.
pub(super) fn failed(dir: &Path, unit: &str) -> bool {
    dir.join("failed").join(unit).exists()
}

/// The entries of a unit that contradict the source and therefore have no effect.
pub(super) fn forced(dir: &Path, unit: &str) -> String {
    klpx_input::text(&dir.join("forced").join(unit)).unwrap_or_default()
}

/// The text of a unit's list for the compiler.
pub(super) fn text(compiler: CompilerFamily, functions: &[(Identifier, InlineAttribute)]) -> String {
    let head = if compiler == CompilerFamily::Gcc && !functions.is_empty() { PRAGMA } else { "" };
    let entries = functions.iter().map(|(name, inlining)| entry_of(compiler, name, *inlining));
    std::iter::once(head.to_owned()).chain(entries).collect()
}

fn entry_of(compiler: CompilerFamily, name: &Identifier, inlining: InlineAttribute) -> String {
    let attributes = attributes(compiler, inlining);
    match compiler {
        CompilerFamily::Clang => format!("-mllvm -force-attribute={name}:{attributes}\n"),
        // A macro may have the function's name.
        CompilerFamily::Gcc => {
            format!("#undef {name}\nextern __typeof__({name}) {name} __attribute__(({attributes}));\n")
        }
    }
}

fn attributes(compiler: CompilerFamily, inlining: InlineAttribute) -> &'static str {
    match (compiler, inlining) {
        (CompilerFamily::Clang, InlineAttribute::Always) => "alwaysinline",
        (CompilerFamily::Clang, _) => "noinline",
        (CompilerFamily::Gcc, InlineAttribute::Always) => "__always_inline__",
        (CompilerFamily::Gcc, InlineAttribute::Never) => "__noinline__",
        (CompilerFamily::Gcc, InlineAttribute::NeverNorClone) => "__noinline__, __noclone__",
        (CompilerFamily::Gcc, InlineAttribute::Opaque) => "__noipa__",
    }
}

/// Parses text that [`text`] wrote. The error is the number of the first line that differs from its output.
fn parse(
    compiler: CompilerFamily,
    text: &str,
) -> std::result::Result<Vec<(Identifier, InlineAttribute)>, usize> {
    const ALL: [InlineAttribute; 4] = [
        InlineAttribute::Always,
        InlineAttribute::Never,
        InlineAttribute::NeverNorClone,
        InlineAttribute::Opaque,
    ];
    let lines: Vec<&str> = text.lines().collect();
    let function = |line: &&str| {
        let (name, rest) = match compiler {
            CompilerFamily::Clang => line.strip_prefix("-mllvm -force-attribute=")?.split_once(':')?,
            CompilerFamily::Gcc => line.strip_prefix("extern __typeof__(")?.split_once(')')?,
        };
        let given = match compiler {
            CompilerFamily::Clang => rest,
            CompilerFamily::Gcc => rest.split_once(" __attribute__((")?.1.strip_suffix("));")?,
        };
        let inlining = ALL.into_iter().find(|&inlining| attributes(compiler, inlining) == given)?;
        Some((Identifier::new(name)?, inlining))
    };
    let functions: Vec<_> = lines.iter().filter_map(function).collect();
    let written = self::text(compiler, &functions);
    match written == text {
        true => Ok(functions),
        false => Err(1 + written
            .lines()
            .zip(&lines)
            .take_while(|(written_line, read_line)| written_line == *read_line)
            .count()),
    }
}

fn is_wrapper(cc: &Path) -> bool {
    let mut head = Vec::new();
    let read = |file: std::fs::File| file.take(wrapper::HEAD.len() as u64).read_to_end(&mut head);
    std::fs::File::open(cc).and_then(read).is_ok() && head == wrapper::HEAD.as_bytes()
}

fn bad(path: &Path, line: Option<u32>) -> klpx_diagnosis::Failure {
    Diagnosis::new(
        &codes::BAD_LIST,
        "a list that the kernel was built with can't be read",
        "klpx inline-check --consistent does not write this for the kernel's compiler",
        "name the folder that it wrote, as it was for this build of the kernel",
    )
    .place(DiagnosisPlace::file(path.display().to_string(), line))
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLANG: &str = "-mllvm -force-attribute=f:noinline\n-mllvm -force-attribute=g:alwaysinline\n";

    fn write(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("mkdir");
        std::fs::write(path, text).expect("write");
    }

    #[test]
    fn what_is_written_is_read_again() {
        let name = |name| Identifier::new(name).expect("a name");
        let all = [
            InlineAttribute::Always,
            InlineAttribute::Never,
            InlineAttribute::NeverNorClone,
            InlineAttribute::Opaque,
        ];
        let gcc: Vec<_> = all.into_iter().map(|inlining| (name("f"), inlining)).collect();
        let clang = vec![(name("f"), InlineAttribute::Never), (name("g"), InlineAttribute::Always)];
        for (compiler, functions) in
            [(CompilerFamily::Gcc, gcc), (CompilerFamily::Clang, clang), (CompilerFamily::Gcc, vec![])]
        {
            let text = text(compiler, &functions);
            assert_eq!(parse(compiler, &text), Ok(functions));
        }
        assert_eq!(text(CompilerFamily::Clang, &parse(CompilerFamily::Clang, CLANG).expect("a list")), CLANG);
    }

    #[test]
    fn what_klpx_does_not_write_is_no_list() {
        let gcc = format!("{PRAGMA}#undef f\nextern __typeof__(f) f __attribute__((__noinline__));\n");
        assert!(parse(CompilerFamily::Gcc, &gcc).is_ok());
        let plugin = "-mllvm -force-attribute=f:noinline\n-fplugin=x.so\n";
        for (compiler, text, line) in [
            (CompilerFamily::Clang, plugin.to_owned(), 2),
            (CompilerFamily::Clang, "-mllvm -force-attribute=f -fplugin=x:noinline\n".to_owned(), 1),
            (CompilerFamily::Clang, "-mllvm -force-attribute=f:cold\n".to_owned(), 1),
            (CompilerFamily::Clang, "-mllvm -force-attribute=f:noinline".to_owned(), 2),
            (CompilerFamily::Clang, gcc.clone(), 1),
            (CompilerFamily::Gcc, CLANG.to_owned(), 1),
            (CompilerFamily::Gcc, gcc.replace("#undef f\n", ""), 2),
            (CompilerFamily::Gcc, gcc.replace("));", ")); int x;"), 1),
            (CompilerFamily::Gcc, format!("{gcc}int x;\n"), 4),
            (CompilerFamily::Gcc, "\n".to_owned(), 1),
        ] {
            assert_eq!(parse(compiler, &text), Err(line), "{text}");
        }
    }

    #[test]
    fn lists_are_those_that_units_were_compiled_with() {
        let dir = tempfile::tempdir().expect("dir");
        let at = |path: &str| dir.path().join(path);
        let failure = UnitLists::read(dir.path(), CompilerFamily::Clang).expect_err("none");
        assert_eq!(failure.diagnoses().next().expect("one").code, "klpx::missing-lists");
        for unit in ["fs/a.c", "fs/b.c", "fs/c.c"] {
            write(&at(&format!("units/{unit}.inl")), CLANG);
        }
        write(&at("units/fs/none.c.inl"), "");
        let all = UnitLists::read(dir.path(), CompilerFamily::Clang).expect("lists");
        assert_eq!((all.len(), all.of("fs/a.c"), all.of("fs/none.c")), (3, Some(CLANG), None));
        // b.c did not compile with its list. In c.c, an entry has no effect.
        write(&at("failed/fs/b.c"), "error");
        write(
            &at("forced/fs/c.c"),
            "-mllvm -force-attribute=f:noinline\n-mllvm -force-attribute=f:alwaysinline\n",
        );
        let less = UnitLists::read(dir.path(), CompilerFamily::Clang).expect("lists");
        assert_eq!((less.len(), less.of("fs/b.c")), (2, None));
        assert_eq!(less.of("fs/c.c"), Some("-mllvm -force-attribute=g:alwaysinline\n"));
        assert_ne!(all.identity(), less.identity());
        // The copy equals the lists. A second write leaves the copy unchanged.
        less.place(&at("copy")).expect("written");
        all.place(&at("copy")).expect("there");
        let copy = UnitLists::read(&at("copy"), CompilerFamily::Clang).expect("lists");
        assert_eq!((&copy, copy.identity()), (&less, less.identity()));
    }

    #[test]
    fn other_files_and_other_compilers_are_refused() {
        for (path, text) in [
            ("units/fs/a.c.inl", "-fplugin=x.so\n"),
            ("units/fs/a.txt", ""),
            ("units/fs/a b.c.inl", ""),
            ("units/fs/a.h.inl", ""),
        ] {
            let dir = tempfile::tempdir().expect("dir");
            write(&dir.path().join(path), text);
            for compiler in [CompilerFamily::Clang, CompilerFamily::Gcc] {
                let failure = UnitLists::read(dir.path(), compiler).expect_err(path);
                assert_eq!(failure.diagnoses().next().expect("one").code, "klpx::bad-list");
            }
        }
        let dir = tempfile::tempdir().expect("dir");
        write(&dir.path().join("units/a.c.inl"), CLANG);
        assert!(UnitLists::read(dir.path(), CompilerFamily::Gcc).is_err());
        std::fs::remove_file(dir.path().join("units/a.c.inl")).expect("removed");
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("units/a.c.inl")).expect("a link");
        assert!(UnitLists::read(dir.path(), CompilerFamily::Clang).is_err());
    }

    #[test]
    fn a_build_tree_tells_of_its_lists() {
        let dir = tempfile::tempdir().expect("dir");
        let (build, lists) = (dir.path().join("build"), dir.path().canonicalize().expect("path").join("inl"));
        let of = |cc: &Path, depends: &str| {
            let cc = cc.display();
            let text = format!(
                "savedcmd_init/main.o := {cc} -c -o init/main.o ../init/main.c\n\ndeps_init/main.o := \\\n  {depends} \\\n"
            );
            write(&build.join("init/.main.o.cmd"), &text);
            UnitLists::of_tree(&build)
        };
        assert_eq!(UnitLists::of_tree(&build), None);
        write(&lists.join("cc"), &format!("{}rest\n", wrapper::HEAD));
        write(&lists.join("other"), "#!/bin/sh\n");
        for cc in [Path::new("gcc"), Path::new("/no/such/cc"), &lists.join("other")] {
            assert_eq!(of(cc, "include/linux/a.h"), None, "{}", cc.display());
        }
        let link = dir.path().join("clang");
        std::os::unix::fs::symlink("inl/cc", &link).expect("a link");
        assert_eq!(of(&lists.join("cc"), "a.h"), Some(lists.clone()));
        assert_eq!(of(&link, "a.h"), Some(lists));
        // The wrapper was found by PATH, or is gone.
        assert_eq!(of(Path::new("clang"), "/was/inl/units/init/main.c.inl"), Some("/was/inl".into()));
        assert_eq!(of(Path::new("clang"), "/was/inl/units/fs/main.c.inl"), None);
    }
}
