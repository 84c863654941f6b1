//! Why a patch does not apply: the hunk, its file, and the text found instead.

use std::path::Path;

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, codes};

use super::forms;
use super::parse::{Hunk, Patch};

/// The remedy for a patch that does not apply.
pub(super) const FITTING: &str =
    "make the patch against the source of the running kernel, or let context differ with --fuzz";

/// Explains each of git's errors: the hunk, its file, and the text found instead.
/// `root` is the whole source, and `tree` holds the files that the patch touches.
pub(super) fn explain(patch: &Patch, root: &Path, tree: &Path, errors: &[String]) -> Vec<Diagnosis> {
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
