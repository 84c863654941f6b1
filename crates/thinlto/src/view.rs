//! Gives the inputs of a link the same names, whichever source they come from.
//!
//! The linker knows a unit by the path on its command line, and writes this path into what it tells the units that
//! import from it. So each side of a patch is linked in a folder of its own, in which the same relative paths lead to
//! the bitcode of the original or of the patched unit. All paths begin with one top folder: `--thinlto-single-module`
//! matches a part of a path, and `fs/a.o` is also a part of `arch/x86/fs/a.o`.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, Result};

use crate::files;
use crate::link::Link;

/// The top folder of all paths.
pub(crate) const TOP: &str = "u";

/// The folder in which the linker runs, and the link to run.
#[derive(Debug)]
pub(crate) struct View<'l> {
    pub(crate) folder: PathBuf,
    pub(crate) link: &'l Link,
}

impl<'l> View<'l> {
    /// Makes the inputs of `link` in `folder`, with other files in place of some.
    pub(crate) fn new(
        folder: &Path,
        link: &'l Link,
        build: &Path,
        swaps: &BTreeMap<String, PathBuf>,
    ) -> Result<View<'l>> {
        files::fresh_dir(folder)?;
        let mut made = None;
        for input in &link.inputs {
            let to = folder.join(TOP).join(&input.path);
            let parent = to.parent().unwrap_or(folder).to_owned();
            if made.as_ref() != Some(&parent) {
                files::create_dir(&parent)?;
                made = Some(parent);
            }
            let target = swaps.get(&input.path).cloned().unwrap_or_else(|| build.join(&input.path));
            symlink(&target, &to).map_err(|error| Diagnosis::io("link", &to, &error))?;
        }
        files::write(&folder.join(LIST), list(link))?;
        if let Some(script) = &link.script {
            files::write(&folder.join(SCRIPT), script)?;
        }
        Ok(View { folder: folder.to_owned(), link })
    }

    /// The linker's arguments, except for the output.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut words = self.link.flags.clone();
        if self.link.script.is_some() {
            words.extend(["-T".to_owned(), SCRIPT.to_owned()]);
        }
        words.push(format!("@{LIST}"));
        words
    }
}

/// The name by which the linker knows a unit.
pub(crate) fn name(unit: &str) -> String {
    format!("{TOP}/{unit}")
}

const LIST: &str = "inputs";
const SCRIPT: &str = "order.lds";

/// The inputs in the form of the linker's response file. Archive members stand between words that mark them as such.
fn list(link: &Link) -> String {
    let mut text = String::new();
    let mut lazy = false;
    for input in &link.inputs {
        if input.lazy != lazy {
            text.push_str(if input.lazy { "--start-lib\n" } else { "--end-lib\n" });
            lazy = input.lazy;
        }
        text.push_str(&name(&input.path));
        text.push('\n');
    }
    if lazy {
        text.push_str("--end-lib\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::LinkInput;

    #[test]
    fn both_sides_have_the_same_names() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let input = |path: &str, lazy| LinkInput { path: path.to_owned(), lazy };
        let inputs =
            vec![input("fs/a.o", false), input("lib/b.o", true), input("c.o", false), input("d.o", true)];
        let link = Link {
            object: "vmlinux.o".into(),
            flags: vec!["-r".into()],
            inputs,
            script: Some("SECTIONS {}".into()),
        };
        std::fs::create_dir_all(path("build/fs")).expect("a folder");
        std::fs::write(path("build/fs/a.o"), "original").expect("a file");
        std::fs::write(path("patched.o"), "patched").expect("a file");
        let swaps = BTreeMap::from([("fs/a.o".to_owned(), path("patched.o"))]);
        let read = |view: &View<'_>| std::fs::read_to_string(view.folder.join("u/fs/a.o")).expect("an input");
        let original = View::new(&path("1"), &link, &path("build"), &BTreeMap::new()).expect("a view");
        assert_eq!(read(&original), "original");
        let patched = View::new(&path("2"), &link, &path("build"), &swaps).expect("a view");
        assert_eq!(read(&patched), "patched");
        let again = View::new(&path("1"), &link, &path("build"), &swaps).expect("a view");
        assert_eq!(read(&again), "patched", "nothing is left of the one before");
        assert_eq!(original.words(), ["-r", "-T", "order.lds", "@inputs"]);
        let text = std::fs::read_to_string(path("1/inputs")).expect("a list");
        assert_eq!(
            text,
            "u/fs/a.o\n--start-lib\nu/lib/b.o\n--end-lib\nu/c.o\n--start-lib\nu/d.o\n--end-lib\n"
        );
    }
}
