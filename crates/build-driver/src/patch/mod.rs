//! The user's patches: parsing, the files that they touch, and refusals before any build. Applies nothing.

mod applied;
pub(crate) mod apply;
mod forms;
mod hunks;
mod included;
mod kind;
mod lexer;
pub mod lines;
mod mismatch;
pub(crate) mod outline;
mod parse;
mod placed;

use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Failure, Note, Result, codes};

use crate::arch::KernelArch;
use crate::process;

pub(crate) use applied::FileEdit;
pub use applied::{AppliedPatch, LineEdit};
pub use kind::{FileKind, classify};
pub(crate) use parse::Patch;
pub use parse::{Action, FileChange};
pub use placed::PlacedHunk;

/// Patches, in the order of application.
#[derive(Clone, Debug, Default)]
pub struct PatchSet {
    pub(crate) patches: Vec<Patch>,
}

impl PatchSet {
    /// Reads patch files. Each is a unified diff, as written by `git diff`, `git format-patch` or `diff -u`.
    ///
    /// # Errors
    /// A file that can't be read, that is empty or no patch, or whose changes no livepatch can contain (binary files,
    /// renames, links, paths that leave the tree).
    pub fn read(paths: &[PathBuf]) -> Result<PatchSet> {
        let mut patches = Vec::new();
        for path in paths {
            let text = process::read(path).map_err(|error| {
                Diagnosis::new(
                    &codes::PATCH_UNREADABLE,
                    format!("can't read the patch {}", path.display()),
                    error.to_string(),
                    "check the path and the rights; a relative path starts at the folder in which klpx runs",
                )
            })??;
            patches.push(Patch::parse(&path.display().to_string(), text)?);
        }
        Ok(PatchSet { patches })
    }

    /// Makes a patch set from one patch in memory.
    ///
    /// # Errors
    /// As `read`.
    pub fn from_text(name: &str, text: &[u8]) -> Result<PatchSet> {
        Ok(PatchSet { patches: vec![Patch::parse(name, text.to_owned())?] })
    }

    /// Every change to a file, in order. A file that several patches touch occurs several times.
    pub fn changes(&self) -> impl Iterator<Item = &FileChange> {
        self.patches.iter().flat_map(|patch| &patch.files)
    }

    /// Every touched file once, sorted.
    pub fn paths(&self) -> Vec<&str> {
        let mut paths: Vec<&str> = self.changes().map(|change| change.path.as_str()).collect();
        paths.sort_unstable();
        paths.dedup();
        paths
    }

    /// The name of each patch file as the user gave it, and the SHA-256 of its bytes, in hexadecimal.
    pub fn hashes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.patches.iter().map(|patch| (patch.name.as_str(), patch.hash.as_str()))
    }

    /// The text of each patch, with Unix line ends.
    pub fn texts(&self) -> impl Iterator<Item = &[u8]> {
        self.patches.iter().map(|patch| patch.text.as_slice())
    }

    /// The number of all hunks.
    pub fn hunks(&self) -> usize {
        self.changes().map(|change| change.hunks).sum()
    }

    /// Refuses files that no livepatch can change, and paths that leave the tree. Returns notes on files that are
    /// passed over.
    pub(crate) fn check(&self, root: &Path, arch: KernelArch) -> Result<Vec<Note>> {
        let (mut found, mut notes) = (Vec::new(), Vec::new());
        let mut compiled = 0;
        for path in self.paths() {
            if let Some(diagnosis) = through_link(root, path) {
                found.push(diagnosis);
                continue;
            }
            let kind = classify(path, arch);
            match kind.refusal() {
                Some(refusal) => found.push(refusal.diagnosis(path)),
                None if kind.is_compiled() => {
                    compiled += 1;
                    if kind == FileKind::BuildFile {
                        notes.push(Note::new(
                            &codes::PATCH_CHANGES_MAKE,
                            format!("{path} is changed: what the patch makes it say is run by make"),
                        ));
                    }
                }
                None => notes.push(Note::new(
                    &codes::PASSED_OVER,
                    format!("{path} is passed over: {}", kind.passed_over()),
                )),
            }
        }
        Failure::all(found)?;
        if compiled == 0 {
            return Err(Diagnosis::new(
                &codes::NOTHING_CHANGED,
                "the patch changes nothing in this kernel",
                "it touches only files that are not compiled into it",
                "check whether the kernel has the flaw at all: the Makefile of a file names its \
                 configuration option",
            )
            .detail(notes.into_iter().map(|note| note.text))
            .into());
        }
        Ok(self.patches.iter().flat_map(|patch| patch.notes.clone()).chain(notes).collect())
    }
}

/// Refuses a path that goes through a symbolic link.
fn through_link(root: &Path, path: &str) -> Option<Diagnosis> {
    let mut at = root.to_owned();
    for part in Path::new(path).components() {
        at.push(part);
        if at.symlink_metadata().is_ok_and(|meta| meta.is_symlink()) {
            let what = "the patch goes through a symbolic link";
            return Some(
                Diagnosis::new(
                    &codes::PATCH_LEAVES_TREE,
                    what,
                    format!("{} is a link", at.strip_prefix(root).unwrap_or(&at).display()),
                    "patch the file that the link points to",
                )
                .place(DiagnosisPlace::file(path, None)),
            );
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> &'static str {
        match PatchSet::from_text("x.patch", text.as_bytes()) {
            Ok(_) => "ok",
            Err(failure) => failure.diagnoses().next().expect("one").code,
        }
    }

    const HUNK: &str = "@@ -1 +1 @@\n-a\n+b\n";

    #[test]
    fn the_line_ends_of_a_mail_are_no_change() {
        let text = format!("--- a/f.c\n+++ b/f.c\n{HUNK}");
        let mail = PatchSet::from_text("x.patch", text.replace('\n', "\r\n").as_bytes()).expect("a patch");
        assert_eq!(mail.patches[0].text, text.as_bytes());
        assert!(mail.patches[0].notes[0].contains("CRLF"));
    }

    #[test]
    fn a_hunk_that_is_counted_wrong_is_named() {
        let text = "--- a/f.c\n+++ b/f.c\n@@ -1,2 +1 @@\n-a\n+b\n";
        let failure = PatchSet::from_text("x.patch", text.as_bytes()).expect_err("refused");
        let said = failure.diagnoses().next().expect("one").to_string();
        assert!(
            said.contains("hunk 1 states 2 old and 1 new lines, and has 1 old and 1 new lines"),
            "{said}"
        );
        assert!(said.contains("x.patch:3"), "{said}");
    }

    #[test]
    fn what_is_no_patch_is_refused_with_its_code() {
        let cases = [
            ("", "klpx::patch-empty"),
            (" \n\n", "klpx::patch-empty"),
            ("hello\nworld\n", "klpx::not-a-patch"),
            ("\0\u{1}\u{2}ELF", "klpx::not-a-patch"),
            ("--- a/f.c\n+++ b/f.c\n@@ -1,5 +1 @@\n-a\n", "klpx::not-a-patch"),
            (
                "diff --git a/x b/x\nindex 1..2 100644\nBinary files a/x and b/x differ\n",
                "klpx::patch-binary",
            ),
            (
                "diff --git a/x b/y\nsimilarity index 100%\nrename from x\nrename to y\n",
                "klpx::patch-renames",
            ),
            (
                "diff --git a/l b/l\nnew file mode 120000\n--- /dev/null\n+++ b/l\n@@ -0,0 +1 @@\n+x\n",
                "klpx::patch-link",
            ),
        ];
        for (text, wanted) in cases {
            assert_eq!(code(text), wanted, "{text:?}");
        }
        for path in ["../f.c", "/etc/passwd", "x/../../f", ".git/config", "x/./../f"] {
            let text = format!("--- a/{path}\n+++ b/{path}\n{HUNK}");
            assert_eq!(code(&text), "klpx::patch-leaves-tree", "{path}");
        }
    }

    #[test]
    fn changes_are_listed() {
        let text = "From: x\nSubject: y\n---\n fs/a.c | 1 +\n\ndiff --git a/fs/a.c b/fs/a.c\nindex 1..2 100644\n\
                    --- a/fs/a.c\n+++ b/fs/a.c\n@@ -1 +1 @@\n-a\n+b\n@@ -9 +9 @@\n-c\n+d\n\
                    diff --git a/fs/n.c b/fs/n.c\nnew file mode 100644\n--- /dev/null\n+++ b/fs/n.c\n@@ -0,0 +1 @@\n+x\n\
                    diff --git a/fs/o.c b/fs/o.c\ndeleted file mode 100644\n--- a/fs/o.c\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n\
                    -- \n2.47.3\n";
        let set = PatchSet::from_text("m.patch", text.as_bytes()).expect("a patch");
        let got: Vec<_> = set.changes().map(|c| (c.path.as_str(), c.action, c.hunks)).collect();
        let wanted =
            [("fs/a.c", Action::Modify, 2), ("fs/n.c", Action::Create, 1), ("fs/o.c", Action::Delete, 1)];
        assert_eq!(got, wanted);
        assert_eq!(set.hunks(), 4);
    }

    #[test]
    fn a_mail_in_mbox_form_is_read() {
        let text = "From 1234 Mon Sep 17 00:00:00 2001\nFrom: x\nSubject: y\n\nbody\n---\n fs/a.c | 2 +-\n\n\
                    diff --git a/fs/a.c b/fs/a.c\nindex 1..2 100644\n--- a/fs/a.c\n+++ b/fs/a.c\n@@ -1 +1 @@\n-a\n+b\n-- \n2.47\n\n";
        let twice = format!("{text}{}", text.replace("a.c", "b.c"));
        let set = PatchSet::from_text("m.patch", twice.as_bytes()).expect("a patch");
        assert_eq!(set.paths(), ["fs/a.c", "fs/b.c"]);
    }

    #[test]
    fn each_refused_kind_has_a_code_and_a_remedy() {
        let tree = tempfile::tempdir().expect("dir");
        let text = format!(
            "--- a/arch/x86/lib/x.S\n+++ b/arch/x86/lib/x.S\n{HUNK}--- a/Makefile\n+++ b/Makefile\n{HUNK}"
        );
        let set = PatchSet::from_text("x", text.as_bytes()).expect("a patch");
        let failure = set.check(tree.path(), KernelArch::X86_64).expect_err("refused");
        let codes: Vec<_> = failure.diagnoses().map(|d| d.code).collect();
        assert_eq!(codes, ["klpx::assembly", "klpx::patch-changes-build"]);
        assert!(failure.diagnoses().all(|d| !d.remedy.is_empty() && d.place.file.is_some()));
        assert_eq!(failure.exit_code(), 6);
        let set = PatchSet::from_text(
            "x",
            format!("--- a/Documentation/x\n+++ b/Documentation/x\n{HUNK}").as_bytes(),
        );
        let failure = set.expect("a patch").check(tree.path(), KernelArch::X86_64).expect_err("nothing");
        assert_eq!(failure.exit_code(), 5);
    }

    #[test]
    fn a_path_through_a_link_is_refused() {
        let tree = tempfile::tempdir().expect("dir");
        std::os::unix::fs::symlink("/etc", tree.path().join("fs")).expect("link");
        let set = PatchSet::from_text("x", format!("--- a/fs/x.c\n+++ b/fs/x.c\n{HUNK}").as_bytes())
            .expect("a patch");
        let failure = set.check(tree.path(), KernelArch::X86_64).expect_err("refused");
        assert_eq!(failure.diagnoses().next().expect("one").code, "klpx::patch-leaves-tree");
    }

    mod property {
        use proptest::prelude::*;

        use super::super::*;

        const SAMPLE: &str = "From 1234 Mon Sep 17 00:00:00 2001\nSubject: x\n---\n a | 2 +-\n\n\
            diff --git a/fs/a.c b/fs/a.c\nindex 1..2 100644\n--- a/fs/a.c\n+++ b/fs/a.c\n@@ -1,2 +1,3 @@ f()\n a\n-b\n+c\n+d\n\
            diff --git \"a/fs/\\303\\244.c\" \"b/fs/\\303\\244.c\"\nnew file mode 100644\n--- /dev/null\n\
            +++ \"b/fs/\\303\\244.c\"\n@@ -0,0 +1 @@\n+x\n\\ No newline at end of file\n\
            diff --git a/b b/b\nGIT binary patch\nliteral 5\nMcmZ?d\n\nliteral 0\nHcmV?d00001\n\n-- \n2.47.3\n";

        proptest! {
            /// klpx answers any input as a patch, and never panics.
            #[test]
            fn no_input_makes_the_reader_panic(
                edits in prop::collection::vec((0..SAMPLE.len(), 0..20usize, prop::collection::vec(any::<u8>(), 0..6)), 0..8),
            ) {
                let mut text = SAMPLE.as_bytes().to_vec();
                for (at, remove, insert) in edits {
                    let at = at.min(text.len());
                    let end = (at + remove).min(text.len());
                    text.splice(at..end, insert);
                }
                if let Ok(set) = PatchSet::from_text("x", &text) {
                    // An independent check of the paths, by the system's rules rather than the reader's.
                    for path in set.paths() {
                        prop_assert!(!path.starts_with('/') && !path.split('/').any(|part| part == ".."), "{path:?}");
                        prop_assert!(!path.is_empty() && path.split('/').find(|part| !matches!(*part, "" | ".")) != Some(".git"), "{path:?}");
                    }
                    for patch in &set.patches {
                        let _ = patch.counts();
                        set.paths().iter().for_each(|path| drop(patch.hunks_of(path)));
                    }
                }
            }
        }
    }
}
