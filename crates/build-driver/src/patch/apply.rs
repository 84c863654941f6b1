//! Applies patches in a scratch copy of the files that they touch, so that a failing patch changes nothing. Writes only
//! to a temporary folder.

use std::collections::BTreeMap;
use std::path::Path;

use klpx_diagnosis::{Diagnosis, Failure, Note, Result, codes};

use super::applied::{AppliedPatch, FileEdit};
use super::mismatch::{FITTING, explain};
use super::parse::Patch;
use super::{PatchSet, classify, included};
use crate::arch::KernelArch;
use crate::kernel::PatchableKernel;
use crate::process::{Call, Runner};

impl PatchSet {
    /// Checks the patches against the kernel's source and applies them in a scratch copy. With `fuzz` 1 or 2, so many
    /// of a hunk's three outer context lines may differ (git apply -C2, -C1). With 0, none may differ.
    ///
    /// # Errors
    /// A file that no livepatch can change, a patch that does not apply (with hunk and line), patches that cancel each
    /// other.
    pub fn preflight(&self, kernel: &PatchableKernel, fuzz: u8) -> Result<AppliedPatch> {
        self.preflight_in(kernel.source().root(), kernel, fuzz)
    }

    /// Checks and applies the patches in the source of an external module. Paths in the patches start at `folder`.
    ///
    /// # Errors
    /// As [`PatchSet::preflight`].
    pub fn preflight_in(&self, folder: &Path, kernel: &PatchableKernel, fuzz: u8) -> Result<AppliedPatch> {
        prepare(self, folder, kernel.arch(), kernel.runner(), fuzz)
    }
}

pub(crate) fn prepare(
    set: &PatchSet,
    root: &Path,
    arch: KernelArch,
    runner: &Runner,
    fuzz: u8,
) -> Result<AppliedPatch> {
    if fuzz > 2 {
        return Err(Diagnosis::new(
            &codes::FUZZ,
            format!("a fuzz of {fuzz} is too much"),
            "a hunk with none of its context left could apply anywhere",
            "give 0, 1 or 2",
        )
        .into());
    }
    let mut notes = set.check(root, arch)?;
    let scratch =
        tempfile::tempdir().map_err(|error| Diagnosis::io("create", &std::env::temp_dir(), &error))?;
    let tree = scratch.path().join("tree");
    std::fs::create_dir(&tree).map_err(|error| Diagnosis::io("create", &tree, &error))?;
    let originals = copy_touched(set, root, &tree)?;
    let scratch_tree = ScratchTree { root, tree: &tree, runner };
    for (n, patch) in set.patches.iter().enumerate() {
        let file = scratch.path().join(format!("{n}.patch"));
        std::fs::write(&file, &patch.text).map_err(|error| Diagnosis::io("write", &file, &error))?;
        scratch_tree.check_reading(patch, &file)?;
        scratch_tree.apply(patch, &file, fuzz, &mut notes)?;
    }
    let mut changes = Vec::new();
    for (path, original) in originals {
        let patched = read_if_there(&tree.join(&path))?;
        if classify(&path, arch).is_compiled() && patched != original {
            changes.push(FileEdit::new(path, original, patched));
        }
    }
    if changes.is_empty() {
        return Err(Diagnosis::new(
            &codes::NOTHING_CHANGED,
            "the patches change nothing",
            "after all of them every file that is compiled is as it was",
            "check whether the patches undo each other, and whether the kernel has the flaw at all",
        )
        .into());
    }
    included::check(&changes, root, arch)?;
    for change in &mut changes {
        change.number_lines(arch, &mut notes);
    }
    let original = |path: &str| changes.iter().find(|change| change.path == path)?.original.as_deref();
    let placed = set.placed(original);
    Ok(AppliedPatch { changes, files: set.paths().len(), hunks: set.hunks(), placed, notes })
}

fn copy_touched(set: &PatchSet, root: &Path, tree: &Path) -> Result<BTreeMap<String, Option<Vec<u8>>>> {
    let mut originals = BTreeMap::new();
    for path in set.paths() {
        let original = read_if_there(&root.join(path))?;
        if let Some(text) = &original {
            let target = tree.join(path);
            let parent = target.parent().unwrap_or(tree);
            std::fs::create_dir_all(parent).map_err(|error| Diagnosis::io("create", parent, &error))?;
            std::fs::write(&target, text).map_err(|error| Diagnosis::io("write", &target, &error))?;
        }
        originals.insert(path.to_owned(), original);
    }
    Ok(originals)
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(error) => Err(Diagnosis::io("read", path, &error).into()),
    }
}

/// The files that the patches touch, in a temporary folder.
struct ScratchTree<'a> {
    /// The source from which the files were copied.
    root: &'a Path,
    tree: &'a Path,
    runner: &'a Runner,
}

impl ScratchTree<'_> {
    /// A git call in the scratch folder, independent of any repository around it and of the user's settings.
    fn git(&self, words: &[&str]) -> Call {
        Call::new("git")
            .args([
                "-c",
                "core.autocrlf=false",
                "-c",
                "apply.whitespace=nowarn",
                "-c",
                "core.attributesFile=/dev/null",
            ])
            .args(words)
            .dir(self.tree)
            .env("GIT_CEILING_DIRECTORIES", self.tree.parent().unwrap_or(self.tree))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
    }

    /// Refuses a patch that git reads differently from klpx: git must apply exactly what klpx checked.
    fn check_reading(&self, patch: &Patch, file: &Path) -> Result<()> {
        let answer = self.runner.ask(&self.git(&["apply", "--numstat", "-z", "-p1"]).arg(file))?;
        let refuse = |why: String, lines: Vec<String>| -> Failure {
            Diagnosis::new(
                &codes::NOT_A_PATCH,
                format!("{} is not a patch git can read", patch.name),
                why,
                "give a unified diff, as git diff, git format-patch or diff -u write it",
            )
            .detail(lines)
            .into()
        };
        if !answer.success {
            return Err(refuse("git apply refuses it".to_owned(), answer.messages));
        }
        let mut read: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for record in String::from_utf8_lossy(&answer.data).split('\0').filter(|record| !record.is_empty()) {
            let mut fields = record.splitn(3, '\t');
            let mut number = || fields.next().and_then(|text| text.parse::<usize>().ok());
            let counts = (number().unwrap_or(usize::MAX), number().unwrap_or(usize::MAX));
            let entry = read.entry(fields.next().unwrap_or_default().to_owned()).or_default();
            *entry = (entry.0.saturating_add(counts.0), entry.1.saturating_add(counts.1));
        }
        if read == patch.counts() {
            Ok(())
        } else {
            Err(refuse("it can be read in two ways".to_owned(), Vec::new()))
        }
    }

    /// Applies one patch in the scratch tree, completely or not at all.
    fn apply(&self, patch: &Patch, file: &Path, fuzz: u8, notes: &mut Vec<Note>) -> Result<()> {
        let mut call = self.git(&["apply", "--verbose", "-p1"]);
        if fuzz > 0 {
            call = call.arg(format!("-C{}", 3 - fuzz));
        }
        let outcome = self.runner.run(&call.arg(file))?;
        let mut at = String::new();
        for line in &outcome.lines {
            if let Some(path) = line.strip_prefix("Checking patch ") {
                at = path.trim_end_matches("...").to_owned();
            } else if line.starts_with("Hunk #") && line.contains("succeeded") {
                let text = format!("{at}: {}", line.trim_end_matches('.').replacen("Hunk", "hunk", 1));
                notes.push(Note::new(&codes::HUNK_MOVED, text));
            }
        }
        if outcome.success {
            return Ok(());
        }
        let errors: Vec<String> =
            outcome.lines.into_iter().filter(|line| line.starts_with("error: ")).collect();
        Failure::all(explain(patch, self.root, self.tree, &errors))?;
        let what = format!("{} does not apply", patch.name);
        Err(Diagnosis::new(&codes::PATCH_DOES_NOT_APPLY, what, "git refuses it", FITTING)
            .detail(errors)
            .into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patch::LineEdit;

    const ORIGINAL: &str = "one\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\nten\n";

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("dir");
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
            std::fs::write(path, text).expect("write");
        }
        dir
    }

    fn run(dir: &tempfile::TempDir, patches: &[&str], fuzz: u8) -> Result<AppliedPatch> {
        klpx_testkit::need("git");
        let mut set = PatchSet::default();
        for (n, text) in patches.iter().enumerate() {
            set.patches.push(Patch::parse(&format!("{n}.patch"), text.as_bytes().to_owned())?);
        }
        prepare(&set, dir.path(), KernelArch::X86_64, &Runner::new(), fuzz)
    }

    fn diff(path: &str, old: &str, new: &str) -> String {
        let body = diffy::create_patch(old, new).to_string();
        body.replace("--- original", &format!("--- a/{path}"))
            .replace("+++ modified", &format!("+++ b/{path}"))
    }

    fn text(prepared: &AppliedPatch, path: &str) -> String {
        String::from_utf8(prepared.patched_text(path).expect("patched").to_owned()).expect("text")
    }

    #[test]
    fn patches_apply_in_order_and_the_tree_is_not_written() {
        let dir = tree(&[("fs/a.c", ORIGINAL)]);
        let middle = ORIGINAL.replace("five\n", "five\nfive and a half\n");
        let end = middle.replace("half", "third");
        let prepared =
            run(&dir, &[&diff("fs/a.c", ORIGINAL, &middle), &diff("fs/a.c", &middle, &end)], 0).expect("ok");
        assert_eq!(text(&prepared, "fs/a.c"), end.replace("third\n", "third\n#line 6\n"));
        assert_eq!(std::fs::read_to_string(dir.path().join("fs/a.c")).expect("read"), ORIGINAL);
        assert_eq!((prepared.files(), prepared.hunks()), (1, 2));
    }

    #[test]
    fn a_line_is_known_by_its_number_and_a_word() {
        let body =
            |n: &str, rest: &str| format!("int {n}(void)\n{{\n\tstatic int n;\n{rest}\treturn n++;\n}}\n");
        let original = format!("{}{}", body("one", "\tint only;\n"), body("two", ""));
        let dir = tree(&[("fs/a.c", &original)]);
        let prepared = |new: &str| run(&dir, &[&diff("fs/a.c", &original, new)], 0).expect("ok");
        // Two lines before the declaration in line 3 get the numbers 3 and 4. The directive corrects the numbers below.
        let added = prepared(&original.replacen("{\n", "{\n\tint m;\n\tint k;\n", 1));
        assert_eq!(added.original_line("fs/a.c", 3), LineEdit::KeptOneOfSeveral);
        assert_eq!(added.patched_line("fs/a.c", 3, "n"), LineEdit::KeptOneOfSeveral);
        assert_eq!(added.patched_line("fs/a.c", 3, "m"), LineEdit::Edited);
        assert_eq!(added.patched_line("fs/a.c", 3, "int"), LineEdit::Unknown, "both lines have it");
        assert_eq!(added.patched_line("fs/a.c", 3, "hidden"), LineEdit::Unknown, "a macro may declare it");
        assert_eq!(added.original_line("fs/a.c", 4), LineEdit::Kept);
        assert_eq!(added.patched_line("fs/a.c", 4, "only"), LineEdit::Kept);
        let replaced = prepared(&original.replace("int only", "long only"));
        assert_eq!(replaced.original_line("fs/a.c", 4), LineEdit::Edited);
        assert_eq!(replaced.patched_line("fs/a.c", 4, "only"), LineEdit::Edited);
        for (path, line, known) in [("fs/b.c", 4, LineEdit::Kept), ("fs/a.c", 400, LineEdit::Unknown)] {
            assert_eq!(replaced.original_line(path, line), known);
            assert_eq!(replaced.patched_line(path, line, "n"), known);
        }
    }

    #[test]
    fn a_function_is_edited_when_its_own_lines_are() {
        let function = |name: &str, body: &str| format!("int {name}(void)\n{{\n\treturn {body};\n}}\n\n");
        let [a, b, c] = ["a", "b", "c"].map(|name| function(name, name));
        let original = format!("{a}{b}{c}");
        let dir = tree(&[("fs/a.c", &original)]);
        // Each function has five lines.
        let edited = |new: &str| {
            let prepared = run(&dir, &[&diff("fs/a.c", &original, new)], 0).expect("ok");
            [(1, Some(6)), (6, Some(11)), (11, None)]
                .map(|(first, next)| prepared.edits_function("fs/a.c", first, next))
        };
        assert_eq!(edited(&original.replace("return b", "return 1 + b")), [false, true, false]);
        assert_eq!(
            edited(&original.replace("return b", "if (x)\n\t\treturn 0;\n\treturn b")),
            [false, true, false]
        );
        assert_eq!(edited(&format!("{a}{}{b}{c}", function("new", "a"))), [false; 3], "added between two");
        assert_eq!(edited(&format!("{a}{b}{c}{}", function("new", "c"))), [false; 3], "added at the end");
        assert_eq!(edited(&format!("{a}{b}int x;\n\n{c}")), [false; 3], "a variable");
        assert_eq!(edited(&format!("{a}{c}")), [false, true, false], "removed");
        assert_eq!(edited(&original.replace("int c", "long c")), [false, false, true], "its head");
        let prepared = run(&dir, &[&diff("fs/a.c", &original, &a)], 0).expect("ok");
        assert!(!prepared.edits_function("fs/b.c", 1, None), "another file");
    }

    #[test]
    fn a_hunk_that_does_not_apply_is_shown_with_its_line() {
        let dir = tree(&[("fs/a.c", &ORIGINAL.replace("six", "SIX"))]);
        let patch = diff("fs/a.c", ORIGINAL, &ORIGINAL.replace("five\n", "5\n"));
        let failure = run(&dir, &[&patch], 0).expect_err("refused");
        let diagnosis = failure.diagnoses().next().expect("one");
        assert_eq!(diagnosis.code, "klpx::patch-does-not-apply");
        assert_eq!((diagnosis.place.file.as_deref(), diagnosis.place.line), (Some("fs/a.c"), Some(6)));
        assert_eq!(diagnosis.detail, ["expected: six", "found:    SIX"]);
        assert!(diagnosis.what.contains("hunk 1"));
    }

    #[test]
    fn fuzz_lets_outer_context_differ() {
        let dir = tree(&[("fs/a.c", &ORIGINAL.replace("eight", "EIGHT"))]);
        let patch = diff("fs/a.c", ORIGINAL, &ORIGINAL.replace("five\n", "5\n"));
        assert!(run(&dir, &[&patch], 0).is_err());
        let prepared = run(&dir, &[&patch], 1).expect("applies");
        assert!(text(&prepared, "fs/a.c").contains("5\nsix\n"));
        assert_eq!(run(&dir, &[&patch], 3).expect_err("too much").exit_code(), 2);
    }

    #[test]
    fn an_applied_patch_is_recognised() {
        let new = ORIGINAL.replace("five\n", "5\n");
        let dir = tree(&[("fs/a.c", &new)]);
        let failure = run(&dir, &[&diff("fs/a.c", ORIGINAL, &new)], 0).expect_err("refused");
        assert!(failure.diagnoses().next().expect("one").why.contains("already"));
    }

    #[test]
    fn a_hunk_at_another_line_is_noted() {
        let dir = tree(&[("fs/a.c", &format!("zero\nnull\n{ORIGINAL}"))]);
        let prepared =
            run(&dir, &[&diff("fs/a.c", ORIGINAL, &ORIGINAL.replace("five\n", "5\n"))], 0).expect("ok");
        assert_eq!(prepared.notes().len(), 1, "{:?}", prepared.notes());
        assert!(prepared.notes()[0].contains("fs/a.c: hunk #1 succeeded at 4"), "{:?}", prepared.notes());
    }

    #[test]
    fn files_come_and_go() {
        let dir = tree(&[("fs/old.c", "x\n"), ("fs/Makefile", "obj-y += old.o\n")]);
        let patch = format!(
            "diff --git a/fs/new.c b/fs/new.c\nnew file mode 100644\n--- /dev/null\n+++ b/fs/new.c\n@@ -0,0 +1 @@\n+int x;\n\
             diff --git a/fs/old.c b/fs/old.c\ndeleted file mode 100644\n--- a/fs/old.c\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n\
             diff --git a/fs/Makefile b/fs/Makefile\n{}",
            diff("fs/Makefile", "obj-y += old.o\n", "obj-y += new.o\n")
        );
        let prepared = run(&dir, &[&patch], 0).expect("ok");
        let got: Vec<_> = prepared
            .changes
            .iter()
            .map(|c| (c.path.as_str(), c.original.is_some(), c.patched.is_some()))
            .collect();
        assert_eq!(got, [("fs/Makefile", true, true), ("fs/new.c", false, true), ("fs/old.c", true, false)]);
    }

    #[test]
    fn missing_files_and_undone_patches_are_told() {
        let dir = tree(&[("fs/a.c", ORIGINAL)]);
        let new = ORIGINAL.replace("five", "5");
        let failure = run(&dir, &[&diff("fs/b.c", ORIGINAL, &new)], 0).expect_err("refused");
        let diagnosis = failure.diagnoses().next().expect("one");
        assert!(diagnosis.what.contains("not there"), "{diagnosis}");
        let failure = run(&dir, &[&diff("fs/a.c", ORIGINAL, &new), &diff("fs/a.c", &new, ORIGINAL)], 0)
            .expect_err("none");
        assert_eq!(failure.diagnoses().next().expect("one").code, "klpx::nothing-changed");
    }

    #[test]
    fn bytes_that_are_not_utf8_survive() {
        klpx_testkit::need("git");
        let dir = tempfile::tempdir().expect("dir");
        std::fs::create_dir(dir.path().join("fs")).expect("mkdir");
        std::fs::write(dir.path().join("fs/a.c"), b"a\n/* \xe4 */\nb\n").expect("write");
        let patch = b"--- a/fs/a.c\n+++ b/fs/a.c\n@@ -1,3 +1,4 @@\n a\n+new\n /* \xe4 */\n b\n";
        let set = PatchSet::from_text("x", patch).expect("a patch");
        let prepared = prepare(&set, dir.path(), KernelArch::X86_64, &Runner::new(), 0).expect("ok");
        assert_eq!(prepared.patched_text("fs/a.c"), Some(&b"a\nnew\n#line 2\n/* \xe4 */\nb\n"[..]));
    }
}
