//! Records the results of each fix, one line of JSON for each event, so that an interrupted run can be continued.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// How a build ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Ending {
    /// A module was built.
    Built,
    /// No code and no data changed.
    NothingChanged,
    /// The patch of one file is not a whole change: it does not apply, or its source does not compile.
    NoWholePatch,
    /// klpx gave a reason for making no module.
    Refused,
    /// Any other ending.
    Failed,
}

/// The exit codes of `klpx build` (documented in `klpx build --help`), and their endings.
const EXITS: &[(i32, Ending)] = &[
    (0, Ending::Built),
    (3, Ending::NoWholePatch),
    (4, Ending::NoWholePatch),
    (5, Ending::NothingChanged),
    (6, Ending::Refused),
];
/// The only failed build that the patch itself causes.
const DOES_NOT_COMPILE: &str = "klpx::patched-source-does-not-compile";

impl Ending {
    /// Every ending, with its word in tables.
    pub(super) const ALL: [(Ending, &str); 5] = [
        (Ending::Built, "built"),
        (Ending::NothingChanged, "nothing changed"),
        (Ending::NoWholePatch, "no whole patch"),
        (Ending::Refused, "refused"),
        (Ending::Failed, "failed"),
    ];

    /// Returns the ending for an exit code and the diagnosis' code.
    pub(super) fn from_exit(exit: Option<i32>, code: Option<&str>) -> Ending {
        let known = EXITS.iter().find(|(known, _)| Some(*known) == exit);
        match known {
            Some((4, _)) if code != Some(DOES_NOT_COMPILE) => Ending::Failed,
            Some((_, ending)) => *ending,
            None => Ending::Failed,
        }
    }

    pub(super) fn word(self) -> &'static str {
        Self::ALL.iter().find(|(ending, _)| *ending == self).map_or("", |(_, word)| word)
    }
}

/// klpx's result for a fix.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct FixBuild {
    pub(super) ending: Ending,
    /// The diagnosis' code, if there is one.
    pub(super) code: Option<String>,
    /// The line with the code, or else the last line of the output.
    #[serde(rename = "said")]
    pub(super) message: String,
    pub(super) seconds: f64,
    /// Replaced functions, and below them added functions, as `object:function`.
    pub(super) changed: Vec<String>,
    pub(super) new: Vec<String>,
    /// The codes of the notes.
    #[serde(default)]
    pub(super) notes: Vec<String>,
    /// Causes of functions that the patch does not edit.
    #[serde(default)]
    pub(super) causes: Vec<Caused>,
}

/// The cause of a function in a change set.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Caused {
    /// `object:function`.
    pub(super) function: String,
    /// The report's word for the cause; empty if debug information gives none.
    pub(super) cause: String,
    /// The cause in words for people.
    pub(super) why: String,
}

/// The result of a guest or of a comparison: without failures if all is well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Judged {
    /// Everything that is wrong.
    pub(super) failures: Vec<String>,
    /// Numbers of checked things, by kind.
    #[serde(default)]
    pub(super) counts: BTreeMap<String, usize>,
    /// Differences that are accounted for.
    #[serde(default)]
    pub(super) explained: Vec<String>,
}

/// Everything that is known about a fix.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct KnownFix {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) build: Option<FixBuild>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) guest: Option<Judged>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) successor: Option<Judged>,
}

/// A line of the file: new results of one fix.
#[derive(Serialize, Deserialize)]
struct RecordLine {
    path: String,
    #[serde(flatten)]
    known: KnownFix,
}

/// The file with the results.
#[derive(Default)]
pub(super) struct Records {
    file: PathBuf,
    known: BTreeMap<String, KnownFix>,
}

impl Records {
    /// Reads the results of an earlier run. An incomplete line does not count.
    pub(super) fn open(file: &Path) -> Result<Records> {
        let text = fs::read_to_string(file).unwrap_or_default();
        let mut records = Records { file: file.to_path_buf(), known: BTreeMap::new() };
        for line in text.lines().filter_map(|line| serde_json::from_str::<RecordLine>(line).ok()) {
            records.take(line);
        }
        Ok(records)
    }

    fn take(&mut self, line: RecordLine) {
        let known = self.known.entry(line.path).or_default();
        // A new build makes results of the last one void.
        if line.known.build.is_some() {
            *known = line.known;
            return;
        }
        known.guest = line.known.guest.or(known.guest.take());
        known.successor = line.known.successor.or(known.successor.take());
    }

    /// Returns the known results of a fix.
    pub(super) fn of(&self, path: &str) -> Option<&KnownFix> {
        self.known.get(path)
    }

    /// Adds a line.
    pub(super) fn add(&mut self, path: &str, known: KnownFix) -> Result<()> {
        let line = RecordLine { path: path.to_owned(), known };
        let text = serde_json::to_string(&line)? + "\n";
        let mut file = fs::File::options()
            .create(true)
            .append(true)
            .open(&self.file)
            .with_context(|| format!("can't write {}", self.file.display()))?;
        file.write_all(text.as_bytes())?;
        self.take(line);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(ending: Ending) -> KnownFix {
        let build = FixBuild {
            ending,
            code: None,
            message: String::new(),
            seconds: 1.0,
            changed: vec![],
            new: vec![],
            notes: Vec::new(),
            causes: vec![],
        };
        KnownFix { build: Some(build), ..KnownFix::default() }
    }

    #[test]
    fn a_run_goes_on_from_whole_lines() {
        let folder = tempfile::tempdir().expect("a directory");
        let file = folder.path().join("results.jsonl");
        let mut records = Records::open(&file).expect("none yet");
        records.add("a.c", build(Ending::Built)).expect("written");
        records.add("b.c", build(Ending::Refused)).expect("written");
        let guest = Judged { failures: vec!["it oopses".to_owned()], ..Judged::default() };
        records.add("a.c", KnownFix { guest: Some(guest.clone()), ..KnownFix::default() }).expect("written");
        let text = fs::read_to_string(&file).expect("readable");
        fs::write(&file, text + "{\"path\":\"b.c\",\"bui").expect("written");
        let again = Records::open(&file).expect("readable");
        let known = again.of("a.c").expect("known");
        assert_eq!(known.guest, Some(guest));
        assert_eq!(known.build.as_ref().map(|build| build.ending), Some(Ending::Built));
        assert_eq!(again.of("b.c").and_then(|b| b.build.as_ref()).map(|b| b.ending), Some(Ending::Refused));
    }

    #[test]
    fn a_new_build_makes_the_old_verdict_void() {
        let folder = tempfile::tempdir().expect("a directory");
        let mut records = Records::open(&folder.path().join("results.jsonl")).expect("none yet");
        records.add("a.c", build(Ending::Built)).expect("written");
        let fine = KnownFix { guest: Some(Judged::default()), ..KnownFix::default() };
        records.add("a.c", fine).expect("written");
        records.add("a.c", build(Ending::Built)).expect("written");
        assert_eq!(records.of("a.c").expect("known").guest, None);
    }

    #[test]
    fn only_source_that_does_not_compile_is_the_patchs_fault() {
        assert_eq!(Ending::from_exit(Some(4), Some(DOES_NOT_COMPILE)), Ending::NoWholePatch);
        assert_eq!(Ending::from_exit(Some(4), Some("klpx::original-source-does-not-build")), Ending::Failed);
        assert_eq!(Ending::from_exit(Some(7), Some("klpx::kernel-differs")), Ending::Failed);
        assert_eq!(Ending::from_exit(None, None), Ending::Failed);
        assert_eq!(Ending::from_exit(Some(6), Some("klpx::changed-data")), Ending::Refused);
    }
}
