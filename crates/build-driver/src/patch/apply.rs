//! Applies patches in a scratch copy of the files that they touch, so that a failing patch changes nothing. Writes only
//! to a temporary folder.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Failure, Note, Result, codes};

use crate::arch::KernelArch;
use crate::kernel::PatchableKernel;
use crate::patch::{Hunk, Patch, PatchSet, PlacedHunk, classify, forms, included, lines};
use crate::process::{Call, Runner};

/// A patch set that applies, with the text of every file before and after.
#[derive(Clone, Debug)]
pub struct AppliedPatch {
    pub(crate) changes: Vec<FileEdit>,
    files: usize,
    hunks: usize,
    pub(super) placed: Vec<PlacedHunk>,
    notes: Vec<Note>,
}

/// One file before and after the patches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileEdit {
    pub(crate) path: String,
    pub(crate) original: Option<Vec<u8>>,
    pub(crate) patched: Option<Vec<u8>>,
    /// The edited lines, as the compiler numbers them. Empty for a file that is new or not C.
    pub(crate) edited: Vec<Range<u32>>,
    /// The replaced lines of the original. An empty range marks a place where lines are added before its line.
    pub(crate) replaced: Vec<Range<u32>>,
    /// The removed lines of the original.
    removed: Vec<Range<u32>>,
    /// The new lines, as the compiler numbers them.
    added: Vec<(u32, String)>,
    /// The first line whose number differs from the original's.
    unplaced: Option<u32>,
}

/// How a patch affects one line of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEdit {
    /// Both sources have the line, and no other line reads the same.
    Kept,
    /// Both sources have the line, and other lines read the same.
    KeptOneOfSeveral,
    /// Only one source has the line.
    Edited,
    /// Kept and edited lines share this number.
    Unknown,
}

impl AppliedPatch {
    /// The number of files that the patches touch, even if they are not compiled.
    pub fn files(&self) -> usize {
        self.files
    }

    /// The files that the patch changes or adds, as paths in the source tree, with their patched contents.
    pub fn patched_files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.changes.iter().filter_map(|change| Some((change.path.as_str(), change.patched.as_deref()?)))
    }

    /// The number of hunks in all patches.
    pub fn hunks(&self) -> usize {
        self.hunks
    }

    /// Paths of the files that change, sorted.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.changes.iter().map(|change| change.path.as_str())
    }

    /// Notes for the user: files that were passed over, hunks that applied at another line, line numbers that moved.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// The lines of a file that the patches edit, as the compiler numbers them. For a new file, all lines.
    pub fn edits(&self, path: &str) -> Vec<Range<u32>> {
        match self.changes.iter().find(|change| change.path == path) {
            Some(change) if change.original.is_none() => std::iter::once(1..u32::MAX).collect(),
            Some(change) => change.edited.clone(),
            None => Vec::new(),
        }
    }

    /// Returns true if the patches edit the function that the original of the file declares in line `first`. `next` is
    /// the line that declares the next function.
    pub fn edits_function(&self, path: &str, first: u32, next: Option<u32>) -> bool {
        let Some(change) = self.changes.iter().find(|change| change.path == path) else { return false };
        let Some(original) = change.kept() else { return true };
        // The search for the end of the function is only needed if its lines may be edited.
        change.replaced.iter().any(|lines| within(lines, first, next.unwrap_or(u32::MAX)))
            && edits_of(change, original, first, next).next().is_some()
    }

    /// How the patch affects a line of the original.
    pub fn original_line(&self, path: &str, line: u32) -> LineEdit {
        let Some(change) = self.changes.iter().find(|change| change.path == path) else {
            return LineEdit::Kept;
        };
        let Some(text) = change.original_text(line) else { return LineEdit::Unknown };
        if change.patched.is_none() || change.removed.iter().any(|lines| lines.contains(&line)) {
            return LineEdit::Edited;
        }
        let original = decode(change.original.as_deref().unwrap_or_default());
        let same = original.lines().chain(change.added.iter().map(|(_, text)| text.trim_end_matches('\n')));
        match same.filter(|other| *other == text).nth(1) {
            Some(_) => LineEdit::KeptOneOfSeveral,
            None => LineEdit::Kept,
        }
    }

    /// How the patch affects the line with `word` that the compiler numbers `line` in the patched source.
    pub fn patched_line(&self, path: &str, line: u32, word: &str) -> LineEdit {
        let Some(change) = self.changes.iter().find(|change| change.path == path) else {
            return LineEdit::Kept;
        };
        if change.original.is_none() {
            return LineEdit::Edited;
        }
        if change.unplaced.is_some_and(|first| first <= line) {
            return LineEdit::Unknown;
        }
        let has = |text: &str| words(text).any(|other| other == word);
        let mut added = change.added.iter().filter(|(number, _)| *number == line).peekable();
        let original = self.original_line(path, line);
        if added.peek().is_none() || original == LineEdit::Edited {
            return original;
        }
        match (change.original_text(line).is_some_and(|text| has(&text)), added.any(|(_, text)| has(text))) {
            (true, false) => original,
            (false, true) => LineEdit::Edited,
            _ => LineEdit::Unknown,
        }
    }

    /// The patched text of a file, with the `#line` directives for the build. `None` for a deleted file.
    pub fn patched_text(&self, path: &str) -> Option<&[u8]> {
        self.changes.iter().find(|change| change.path == path)?.patched.as_deref()
    }
}

impl FileEdit {
    pub(crate) fn new(path: String, original: Option<Vec<u8>>, patched: Option<Vec<u8>>) -> FileEdit {
        let (edited, replaced, removed, added) = Default::default();
        FileEdit { path, original, patched, edited, replaced, removed, added, unplaced: None }
    }

    /// The text of the original, if both sources have the file.
    pub(super) fn kept(&self) -> Option<&[u8]> {
        self.patched.as_ref().and(self.original.as_deref())
    }

    /// One line of the original.
    fn original_text(&self, line: u32) -> Option<String> {
        let text = decode(self.original.as_deref()?);
        text.lines().nth(line.checked_sub(1)? as usize).map(str::to_owned)
    }
}

/// Returns true if replaced lines lie after line `first` and not after line `last`.
fn within(lines: &Range<u32>, first: u32, last: u32) -> bool {
    match lines.is_empty() {
        true => first < lines.start && lines.start <= last,
        false => first < lines.end && lines.start <= last,
    }
}

/// The edits in a function.
pub(super) fn edits_of<'c>(
    change: &'c FileEdit,
    original: &[u8],
    first: u32,
    next: Option<u32>,
) -> impl Iterator<Item = &'c Range<u32>> {
    let last = lines::end_of_function(&decode(original), first, next).min(next.unwrap_or(u32::MAX));
    change.replaced.iter().filter(move |lines| within(lines, first, last))
}

/// The C words of a line.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
}

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
    for (n, patch) in set.patches.iter().enumerate() {
        let file = scratch.path().join(format!("{n}.patch"));
        std::fs::write(&file, &patch.text).map_err(|error| Diagnosis::io("write", &file, &error))?;
        same_reading(patch, &file, &tree, runner)?;
        apply(patch, &file, (root, &tree), runner, fuzz, &mut notes)?;
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
        number_lines(change, arch, &mut notes);
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

/// A git call in the scratch folder, independent of any repository around it and of the user's settings.
fn git(tree: &Path, words: &[&str]) -> Call {
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
        .dir(tree)
        .env("GIT_CEILING_DIRECTORIES", tree.parent().unwrap_or(tree))
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_ATTR_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
}

/// Refuses a patch that git reads differently from klpx: git must apply exactly what klpx checked.
fn same_reading(patch: &Patch, file: &Path, tree: &Path, runner: &Runner) -> Result<()> {
    let answer = runner.ask(&git(tree, &["apply", "--numstat", "-z", "-p1"]).arg(file))?;
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
        return Err(refuse("git apply refuses it".to_owned(), answer.said));
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
fn apply(
    patch: &Patch,
    file: &Path,
    (root, tree): (&Path, &Path),
    runner: &Runner,
    fuzz: u8,
    notes: &mut Vec<Note>,
) -> Result<()> {
    let mut call = git(tree, &["apply", "--verbose", "-p1"]);
    if fuzz > 0 {
        call = call.arg(format!("-C{}", 3 - fuzz));
    }
    let outcome = runner.run(&call.arg(file))?;
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
    let errors: Vec<String> = outcome.lines.into_iter().filter(|line| line.starts_with("error: ")).collect();
    Failure::all(explain(patch, (root, tree), &errors))?;
    let what = format!("{} does not apply", patch.name);
    Err(Diagnosis::new(&codes::PATCH_DOES_NOT_APPLY, what, "git refuses it", FITTING).detail(errors).into())
}

/// The remedy for a patch that does not apply.
const FITTING: &str =
    "make the patch against the source of the running kernel, or let context differ with --fuzz";

/// Explains each of git's errors: the hunk, its file, and the text found instead.
fn explain(patch: &Patch, (root, tree): (&Path, &Path), errors: &[String]) -> Vec<Diagnosis> {
    let mut found = Vec::new();
    let refuse = |what: String, why: &str, remedy: &str| {
        Diagnosis::new(&codes::PATCH_DOES_NOT_APPLY, what, why, remedy)
    };
    for error in errors {
        let rest = error.trim_start_matches("error: ");
        if let Some((path, line)) = rest.strip_prefix("patch failed: ").and_then(|rest| rest.rsplit_once(':'))
        {
            let hunks = patch.hunks_of(path);
            let start: usize = line.parse().unwrap_or(0);
            let Some(n) = hunks.iter().position(|hunk| hunk.start == start) else { continue };
            let text = std::fs::read(tree.join(path)).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let (why, detail, line) = mismatch(&hunks[n], &text);
            let what = format!("hunk {} of {} does not apply", n + 1, patch.name);
            let place = DiagnosisPlace::file(path, u32::try_from(line).ok());
            found.push(refuse(what, &why, FITTING).place(place).detail(detail));
        } else if let Some(path) = rest.strip_suffix(": No such file or directory") {
            let what = format!("{} changes a file that is not there", patch.name);
            let whole = forms::whole_path(&patch.text, path).filter(|whole| root.join(whole).is_file());
            let refusal = match whole {
                Some(whole) => {
                    let why =
                        format!("the patch was made with -p0: it says {whole}, without a/ and b/ before it");
                    refuse(what, &why, "make it with git diff, or put a/ and b/ before its paths")
                }
                None => refuse(what, "klpx takes the first part off each path, as patch -p1 does", FITTING),
            };
            found.push(refusal.place(DiagnosisPlace::file(path, None)));
        } else if let Some(path) = rest.strip_suffix(": already exists in working directory") {
            let what = format!("{} adds a file that is there already", patch.name);
            let why = "the source of this kernel has the file already";
            found.push(refuse(what, why, FITTING).place(DiagnosisPlace::file(path, None)));
        }
    }
    found
}

/// Why a hunk does not fit: a reason, the lines that differ, and the line number of the best place.
fn mismatch(hunk: &Hunk, text: &str) -> (String, Vec<String>, usize) {
    let lines: Vec<&str> = text.lines().collect();
    let fits = |wanted: &[String], at: usize| {
        wanted
            .iter()
            .enumerate()
            .filter(|(n, line)| lines.get(at + n).is_some_and(|found| found == line))
            .count()
    };
    if !hunk.new.is_empty()
        && let Some(at) = (0..lines.len()).find(|&at| fits(&hunk.new, at) == hunk.new.len())
    {
        return ("the change seems to be there already".to_owned(), Vec::new(), at + 1);
    }
    let stated = hunk.start.saturating_sub(1);
    let best = (0..lines.len().max(1))
        .max_by_key(|&at| (fits(&hunk.old, at), usize::MAX - at.abs_diff(stated)))
        .unwrap_or(stated);
    let off =
        hunk.old.iter().enumerate().find(|(n, line)| lines.get(best + n).is_none_or(|found| found != line));
    let Some((n, expected)) = off else {
        return ("its lines are there, but not where they can be".to_owned(), Vec::new(), best + 1);
    };
    let found =
        lines.get(best + n).map_or("(the end of the file)".to_owned(), |line| format!("found:    {line}"));
    (
        "a line is not what the patch expects".to_owned(),
        vec![format!("expected: {expected}"), found],
        best + n + 1,
    )
}

/// Inserts `#line` directives into a patched C file.
fn number_lines(change: &mut FileEdit, arch: KernelArch, notes: &mut Vec<Note>) {
    let kind = classify(&change.path, arch);
    let (Some(original), Some(patched)) = (&change.original, &change.patched) else { return };
    if !kind.is_c() {
        return;
    }
    let numbered = lines::number(&decode(original), &decode(patched));
    for line in &numbered.unplaced {
        let text = format!("{}: line numbers move from line {line} on, up to the next hunk", change.path);
        notes.push(Note::new(&codes::LINES_MOVE, text));
    }
    change.patched = Some(encode(&numbered.text));
    change.edited = numbered.edited;
    change.replaced = numbered.replaced;
    change.removed = numbered.removed;
    change.added = numbered.added;
    change.unplaced = numbered.unplaced.first().copied();
}

/// Decodes bytes to text, one character for each byte. Some kernel files are not UTF-8, and no byte may change.
fn decode(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

fn encode(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
