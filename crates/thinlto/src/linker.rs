//! Runs the linker for a part of a link: for the decisions of the thin link alone, or for the native code of a few
//! units.
//!
//! For each unit, `ld.lld --thinlto-index-only` writes what the unit's backend is told of the rest of the kernel. This
//! *slice* of the index holds the summaries of the unit's own functions and of all its imports, the linkage that the
//! thin link gives them, and the hashes of all files that are read for the unit
//! (llvm/lib/Bitcode/Writer/BitcodeWriter.cpp, `writeIndexToFile`). A distributed build compiles a unit from its
//! bitcode, its slice and the imported bodies, so if slices and files are equal on two sides, the code is equal.
//!
//! `--thinlto-single-module` makes the whole thin link and then runs the backends of only some units, with exactly the
//! configuration of the full link (lld/ELF/LTO.cpp). The distributed backend's configuration differs in details such as
//! the alignment of loops.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::llvm::{native, remarks};
use klpx_build_driver::process::{Call, Runner};
use klpx_diagnosis::{Diagnosis, Result, codes};
use serde::{Deserialize, Serialize};

use crate::files;
use crate::link::Link;
use crate::view::{self, View};

/// What the thin link tells each unit, by the unit's path from the build tree.
pub(crate) type Slices = BTreeMap<String, Slice>;

/// What the thin link tells one unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Slice {
    /// The hash of the whole slice, in hexadecimal digits.
    hash: String,
    /// The units from which the unit imports.
    imports: Vec<String>,
}

/// The result of one backend.
#[derive(Clone, Debug)]
pub(crate) struct Backend {
    /// The native object.
    pub(crate) object: PathBuf,
    /// The inliner's remarks, one per line; empty if LLVM was given options.
    pub(crate) remarks: String,
}

/// A linker to run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Linker<'a> {
    pub(crate) program: &'a str,
    pub(crate) runner: &'a Runner,
}

impl Linker<'_> {
    /// Runs the thin link only. Its files go to `scratch`.
    pub(crate) fn slices(&self, view: &View<'_>, scratch: &Path) -> Result<Slices> {
        files::fresh_dir(scratch)?;
        let top = scratch.join(view::TOP);
        let call = Call::new(self.program)
            .dir(&view.folder)
            .args(view.words())
            .arg("-o")
            .arg(scratch.join("linked.o"))
            .args(["--thinlto-index-only", "--thinlto-emit-imports-files"])
            .arg(format!("--thinlto-prefix-replace={}/;{}/", view::TOP, top.display()));
        let outcome = self.runner.run(&call)?;
        if !outcome.success {
            return Err(failed(view.link, outcome.lines).into());
        }
        let mut slices = Slices::new();
        for entry in walkdir::WalkDir::new(&top) {
            let entry = entry.map_err(|error| Diagnosis::io("read", &top, &error.into()))?;
            let unit = entry.path().strip_prefix(&top).unwrap_or(entry.path()).to_string_lossy().into_owned();
            if let Some(unit) = unit.strip_suffix(".thinlto.bc") {
                let hash = blake3::hash(&files::read(entry.path())?).to_hex().to_string();
                slices.insert(unit.to_owned(), Slice { hash, imports: imports(&top.join(unit))? });
            }
        }
        Ok(slices)
    }

    /// Runs the backends of `units`, either with LLVM options or, if there are none, with remarks. All output goes to
    /// `scratch`. Returns `None` if the linker fails, or does not give one object for each unit.
    pub(crate) fn backends(
        &self,
        view: &View<'_>,
        units: &[&str],
        llvm: &[String],
        scratch: &Path,
    ) -> Result<Option<Vec<Backend>>> {
        files::fresh_dir(scratch)?;
        let native = scratch.join("native");
        let mut call = Call::new(self.program)
            .dir(&view.folder)
            .args(view.words())
            .arg("-o")
            .arg(scratch.join("linked.o"))
            .arg(format!("--lto-obj-path={}", native.display()))
            .args(units.iter().map(|unit| format!("--thinlto-single-module={}", view::name(unit))))
            .args(llvm.iter().flat_map(|option| ["-mllvm", option.as_str()]));
        if llvm.is_empty() {
            call = call.arg("--opt-remarks-filename").arg(scratch.join("remarks"));
            call = call.args(["--opt-remarks-passes", "inline"]);
        }
        let outcome = self.runner.run(&call)?;
        tracing::debug!(?units, good = outcome.success, "backends");
        if !outcome.success {
            return Ok(None);
        }
        sorted(view.link, units, scratch)
    }
}

/// The backends of the units, in the order of `units`. The linker numbers its objects in link order.
fn sorted(link: &Link, units: &[&str], scratch: &Path) -> Result<Option<Vec<Backend>>> {
    let place = |unit: &&str| link.inputs.iter().position(|input| input.path == **unit);
    let Some(places) = units.iter().map(place).collect::<Option<Vec<usize>>>() else { return Ok(None) };
    let mut found = Vec::new();
    for (unit, place) in units.iter().zip(&places) {
        let number = places.iter().filter(|other| *other <= place).count();
        let object = scratch.join(format!("native{number}"));
        let Ok(bytes) = std::fs::read(&object) else { return Ok(None) };
        if !is_of(&bytes, unit) {
            return Ok(None);
        }
        found.push(Backend { object, remarks: read_remarks(scratch, number)? });
    }
    let one_more = scratch.join(format!("native{}", units.len() + 1));
    Ok((!one_more.exists()).then_some(found))
}

fn failed(link: &Link, lines: Vec<String>) -> Diagnosis {
    let what = format!("the thin link of {} fails", link.object.display());
    Diagnosis::new(
        &codes::THIN_LINK,
        what,
        "the linker reports an error",
        "read the linker's output; the linker must be the ld.lld of the kernel's own LLVM release",
    )
    .detail(lines)
}

/// Returns true if a native object may belong to a unit: the object's symbol table names the unit's source.
fn is_of(object: &[u8], unit: &str) -> bool {
    // `switch.nvhe.o` is compiled from `switch.c`.
    let stem = |path: &str| {
        let name = Path::new(path).file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.split('.').next().unwrap_or_default().to_owned()
    };
    native::source_file(object).is_none_or(|source| stem(source) == stem(unit))
}

/// Reads the remarks of one unit: the linker appends the number and the module to the file's name.
fn read_remarks(scratch: &Path, number: usize) -> Result<String> {
    let prefix = format!("remarks.thin.{number}.");
    let fail = |error: std::io::Error| Diagnosis::io("read", scratch, &error);
    let entries: std::io::Result<Vec<_>> = std::fs::read_dir(scratch).map_err(fail)?.collect();
    let mut names: Vec<OsString> = entries.map_err(fail)?.iter().map(|entry| entry.file_name()).collect();
    names.sort();
    let mut text = String::new();
    for name in names.iter().filter(|name| name.to_string_lossy().starts_with(&prefix)) {
        let file = files::read(&scratch.join(name))?;
        text.push_str(&remarks::from_yaml(&String::from_utf8_lossy(&file)));
    }
    Ok(text)
}

/// The units from which a unit imports, read from the linker's list beside the slice: one path per line.
fn imports(unit: &Path) -> Result<Vec<String>> {
    let mut list = unit.as_os_str().to_owned();
    list.push(".imports");
    let text = match std::fs::read_to_string(&list) {
        Ok(text) => text,
        // The archive member was not linked.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(Diagnosis::io("read", Path::new(&list), &error).into()),
    };
    let top = format!("{}/", view::TOP);
    Ok(text.lines().map(|path| path.strip_prefix(&top).unwrap_or(path).to_owned()).collect())
}

/// The units whose backends see a difference between the two sides: other decisions of the thin link, or an import from
/// one of the `changed` units.
pub(crate) fn seeing_otherwise(original: &Slices, patched: &Slices, changed: &[&str]) -> Vec<String> {
    let imports_changed = |slice: &Slice| slice.imports.iter().any(|from| changed.contains(&from.as_str()));
    let differs = |unit: &str| {
        let (before, patched_slice) = (original.get(unit), patched.get(unit));
        before != patched_slice || patched_slice.is_some_and(imports_changed)
    };
    let all: BTreeSet<&String> = original.keys().chain(patched.keys()).collect();
    all.into_iter().filter(|unit| differs(unit)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use klpx_testkit::{command, run};

    use super::*;

    #[test]
    fn other_decisions_and_imports_of_what_changed_are_seen() {
        let slice = |hash: &str, imports: &[&str]| Slice {
            hash: hash.to_owned(),
            imports: imports.iter().map(|unit| (*unit).to_owned()).collect(),
        };
        let slices = |last: &str| {
            Slices::from([
                ("a.o".to_owned(), slice("1", &[])),
                ("b.o".to_owned(), slice("2", &["a.o"])),
                ("c.o".to_owned(), slice(last, &[])),
            ])
        };
        let none: [String; 0] = [];
        assert_eq!(seeing_otherwise(&slices("3"), &slices("3"), &[]), none);
        assert_eq!(seeing_otherwise(&slices("3"), &slices("4"), &[]), ["c.o"]);
        assert_eq!(seeing_otherwise(&slices("3"), &slices("3"), &["a.o"]), ["b.o"]);
        assert_eq!(seeing_otherwise(&slices("3"), &Slices::new(), &[]), ["a.o", "b.o", "c.o"]);
    }

    #[test]
    fn the_linkers_objects_are_those_of_the_units_in_the_order_of_the_link() {
        let folder = tempfile::tempdir().expect("a folder");
        let scratch = folder.path();
        // The linker numbers the objects: a.c is the first, c.c the second.
        for (source, to) in [("a.c", "native1"), ("c.c", "native2")] {
            std::fs::write(scratch.join(source), "int x;").expect("a file");
            run(command("clang-22").args(["-c", source, "-o", to]).current_dir(scratch));
        }
        let input = |path: &str| crate::link::LinkInput { path: path.to_owned(), lazy: false };
        let inputs = ["fs/a.o", "fs/b.o", "fs/c.o"].map(input).into();
        let link = Link { object: "vmlinux.o".into(), flags: Vec::new(), inputs, script: None };
        let found = |units: &[&str]| -> Option<Vec<PathBuf>> {
            let found = sorted(&link, units, scratch).expect("files");
            Some(found?.into_iter().map(|one| one.object).collect())
        };
        let files = |names: [&str; 2]| Some(names.map(|name| scratch.join(name)).to_vec());
        assert_eq!(found(&["fs/a.o", "fs/c.o"]), files(["native1", "native2"]));
        assert_eq!(found(&["fs/c.o", "fs/a.o"]), files(["native2", "native1"]));
        assert_eq!(found(&["fs/a.o", "fs/b.o"]), None, "the second one is of c.c");
        assert_eq!(found(&["fs/a.o"]), None, "there is one more");
        assert_eq!(found(&["fs/a.o", "fs/unknown.o"]), None);
        assert_eq!(found(&["fs/a.o", "fs/b.o", "fs/c.o"]), None, "there is one less");
    }
}
