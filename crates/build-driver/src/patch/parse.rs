//! One patch file: its text, the files that it changes, and its hunks. Refuses what no livepatch can contain.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use diffy::patch_set::{FileMode, FileOperation, FilePatch, ParseOptions, PatchKind, PatchSet};
use klpx_diagnosis::{Code, Diagnosis, DiagnosisPlace, Failure, Note, Result, codes, words};
use sha2::{Digest, Sha256};

use super::forms;

/// One patch file.
#[derive(Clone, Debug)]
pub(crate) struct Patch {
    /// The file's name as the user gave it.
    pub(crate) name: String,
    /// SHA-256 of the file, in hexadecimal.
    pub(crate) hash: String,
    pub(crate) text: Vec<u8>,
    pub(crate) files: Vec<FileChange>,
    /// Notes on changes that klpx made to the text.
    pub(crate) notes: Vec<Note>,
}

/// The change of one file by one patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileChange {
    /// The path, relative to the kernel tree.
    pub path: String,
    /// The kind of change.
    pub action: Action,
    /// The number of hunks.
    pub hunks: usize,
}

/// The kind of change of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The file's text changes.
    Modify,
    /// The file is new.
    Create,
    /// The file is deleted.
    Delete,
}

impl Patch {
    /// Parses a patch.
    pub(crate) fn parse(name: &str, text: Vec<u8>) -> Result<Patch> {
        let hash = words::hexadecimal(&Sha256::digest(&text));
        if text.iter().all(u8::is_ascii_whitespace) {
            return Err(Diagnosis::new(
                &codes::PATCH_EMPTY,
                format!("the patch {name} is empty"),
                "it holds nothing but blanks",
                "make the patch again, for example with git format-patch -1 --stdout COMMIT",
            )
            .into());
        }
        let plain = forms::with_plain_ends(&text);
        let mail = || format!("{name} has the line ends of a mail (CRLF); they are taken off");
        let notes = plain.iter().map(|_| Note::new(&codes::PATCH_LINE_ENDS, mail())).collect();
        let text = plain.unwrap_or(text);
        let mut files = Vec::new();
        for patch in file_patches(&text) {
            let patch = patch.map_err(|why| match forms::miscounted(&text) {
                Some(hunk) => miscounted(name, &hunk),
                None => not_a_patch(name, &why),
            })?;
            files.push(file_change(name, &patch)?);
        }
        if files.is_empty() {
            return Err(not_a_patch(name, "no file header was found").into());
        }
        Ok(Patch { name: name.to_owned(), hash, text, files, notes })
    }

    /// The number of lines that each file gains and loses. klpx compares them with git's own reading.
    pub(crate) fn counts(&self) -> BTreeMap<String, (usize, usize)> {
        let mut counts = BTreeMap::new();
        for patch in file_patches(&self.text).flatten() {
            let (Ok(change), Some(hunks)) = (file_change(&self.name, &patch), patch.patch().as_text()) else {
                continue;
            };
            let count: &mut (usize, usize) = counts.entry(change.path).or_default();
            for line in hunks.hunks().iter().flat_map(|hunk| hunk.lines()) {
                match line {
                    diffy::Line::Insert(_) => count.0 += 1,
                    diffy::Line::Delete(_) => count.1 += 1,
                    diffy::Line::Context(_) => {}
                }
            }
        }
        counts
    }

    /// The hunks of one file: the start in the old file, the old lines and the new lines of each.
    pub(crate) fn hunks_of(&self, path: &str) -> Vec<Hunk> {
        let mut found = Vec::new();
        for patch in file_patches(&self.text).flatten() {
            let matches = file_change(&self.name, &patch).is_ok_and(|change| change.path == path);
            let (true, Some(text)) = (matches, patch.patch().as_text()) else { continue };
            for hunk in text.hunks() {
                let (mut old, mut new) = (Vec::new(), Vec::new());
                for line in hunk.lines() {
                    match line {
                        diffy::Line::Insert(text) => new.push(trim(text)),
                        diffy::Line::Delete(text) => old.push(trim(text)),
                        diffy::Line::Context(text) => {
                            old.push(trim(text));
                            new.push(trim(text));
                        }
                    }
                }
                found.push(Hunk { start: hunk.old_range().start(), old, new });
            }
        }
        found
    }
}

/// One hunk, as needed to explain why it does not apply.
#[derive(Clone, Debug)]
pub(crate) struct Hunk {
    /// The first line in the old file, from 1.
    pub(crate) start: usize,
    pub(crate) old: Vec<String>,
    pub(crate) new: Vec<String>,
}

pub(super) fn trim(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim_end_matches(['\n', '\r']).to_owned()
}

pub(super) type Parsed<'a> = std::result::Result<FilePatch<'a, [u8]>, String>;

pub(super) fn file_patches(text: &[u8]) -> impl Iterator<Item = Parsed<'_>> {
    let git = text.starts_with(b"diff --git ") || text.windows(12).any(|window| window == b"\ndiff --git ");
    let options = if git { ParseOptions::gitdiff() } else { ParseOptions::unidiff() };
    PatchSet::parse_bytes(text, options).map(|patch| patch.map_err(|error| error.to_string()))
}

fn miscounted(name: &str, hunk: &forms::Miscounted) -> Diagnosis {
    let lines = |(old, new): (usize, usize)| format!("{old} old and {new} new lines");
    not_a_patch(
        name,
        &format!("hunk {} states {}, and has {}", hunk.hunk, lines(hunk.stated), lines(hunk.found)),
    )
    .place(DiagnosisPlace::file(name, Some(hunk.line)))
    .with_remedy("make the patch again (git diff), or let recountdiff correct it")
}

fn not_a_patch(name: &str, why: &str) -> Diagnosis {
    Diagnosis::new(
        &codes::NOT_A_PATCH,
        format!("{name} is not a patch klpx can read"),
        why.to_owned(),
        "give a unified diff, as git diff, git format-patch or diff -u write it",
    )
}

/// The change that a parsed patch makes to its file.
pub(super) fn file_change(name: &str, patch: &FilePatch<'_, [u8]>) -> Result<FileChange> {
    let operation = patch.operation().strip_prefix(1);
    let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    let refuse = |code: &Code, path: &str, what: &str, why: &str, remedy: &str| -> Failure {
        Diagnosis::new(code, format!("the patch {name} {what}"), why, remedy)
            .place(DiagnosisPlace::file(path, None))
            .into()
    };
    let (path, action) = match &operation {
        FileOperation::Create(path) => (text(path), Action::Create),
        FileOperation::Delete(path) => (text(path), Action::Delete),
        FileOperation::Modify { original, modified } if original == modified => {
            (text(original), Action::Modify)
        }
        FileOperation::Modify { original, modified } => {
            // `diff -u a.c.orig a.c`: patch and git then use the name after +++.
            let path = if original.ends_with(b".orig") { modified } else { original };
            if path != modified {
                let why = format!("{} becomes {}", text(original), text(modified));
                return Err(refuse(
                    &codes::PATCH_RENAMES,
                    &text(original),
                    "names one file by two names",
                    &why,
                    "make the patch in a tree where the file has one name",
                ));
            }
            (text(path), Action::Modify)
        }
        FileOperation::Rename { from, .. } | FileOperation::Copy { from, .. } => {
            let what = format!("the patch {name} renames or copies a file");
            return Err(Diagnosis::new(
                &codes::PATCH_RENAMES,
                what,
                "the functions of a file that moves all become other functions",
                "make the change at the file's old place (git format-patch --no-renames shows it as it is)",
            )
            .place(DiagnosisPlace::file(text(from), None))
            .into());
        }
    };
    if let Some(why) = bad_name(&path) {
        let remedy = "leave this file out of the patch";
        return Err(refuse(&codes::PATCH_PATH, &path, "names a file that no kernel has", why, remedy));
    }
    if !stays_inside(&path) {
        return Err(refuse(
            &codes::PATCH_LEAVES_TREE,
            &path,
            "names a path outside the kernel tree",
            "klpx takes the first part off each path, as patch -p1 does, and the rest must stay in the tree",
            "make the patch from the top of the kernel tree",
        ));
    }
    if matches!(patch.patch(), PatchKind::Binary(_)) {
        return Err(refuse(
            &codes::PATCH_BINARY,
            &path,
            "changes a binary file",
            "binary files hold no code",
            "take the file out of the patch (filterdiff -x 'a/PATH'), and make a livepatch of the rest",
        ));
    }
    let special = |mode: Option<&FileMode>| matches!(mode, Some(FileMode::Symlink | FileMode::Gitlink));
    if special(patch.old_mode()) || special(patch.new_mode()) {
        return Err(refuse(
            &codes::PATCH_LINK,
            &path,
            "changes a symbolic link or submodule",
            "a link has no text that could change",
            "take the link out of the patch, and make a livepatch of the rest",
        ));
    }
    let hunks = patch.patch().as_text().map_or(0, |text| text.hunks().len());
    Ok(FileChange { path, action, hunks })
}

/// Why no kernel file can have this name. A name that is not UTF-8 was read with U+FFFD in it.
fn bad_name(path: &str) -> Option<&'static str> {
    // NAME_MAX, and PATH_MAX minus room for the tree's folder (include/uapi/linux/limits.h).
    if path.len() > 3072 || path.split('/').any(|part| part.len() > 255) {
        return Some("its path is too long");
    }
    if path.contains(char::REPLACEMENT_CHARACTER) {
        return Some("its name is no UTF-8");
    }
    path.contains(char::is_control).then_some("its name has control characters")
}

/// Returns true for a plain relative path without `..` that does not lead into `.git`.
fn stays_inside(path: &str) -> bool {
    let path = Path::new(path);
    let mut parts = 0;
    for part in path.components() {
        match part {
            Component::Normal(name) if parts > 0 || name != ".git" => parts += 1,
            _ => return false,
        }
    }
    parts > 0 && !path.as_os_str().as_encoded_bytes().contains(&0)
}
