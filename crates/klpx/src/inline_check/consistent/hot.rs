//! Functions that are called too often to stay out of line: a list of names, or a profile in the form of `perf report
//! --stdio`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use klpx_build_driver::language::Identifier;
use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Result, codes};

/// The names of hot functions.
#[derive(Default)]
pub(super) struct Hot {
    names: HashSet<String>,
}

impl Hot {
    /// Reads lists and profiles.
    pub(super) fn read(files: &[PathBuf]) -> Result<Hot> {
        let mut hot = Hot::default();
        for path in files {
            for (n, line) in klpx_input::text(path)?.lines().enumerate() {
                match function(line) {
                    Ok(name) => hot.names.extend(name.map(str::to_owned)),
                    Err(NoProfile) => return Err(refused(path, n + 1, line)),
                }
            }
        }
        Ok(hot)
    }

    /// Returns true if a function is hot.
    pub(super) fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }
}

/// The error for a line that is neither a name nor a line of a profile.
#[derive(Debug, PartialEq, Eq)]
struct NoProfile;

/// The function that a line names, without the compiler's suffixes. A profile's line begins with a percentage and has
/// the function after `[k]`, or as its last word. Lines of user space (`[.]`) and lines without a name give no function
/// of the kernel.
fn function(line: &str) -> std::result::Result<Option<&str>, NoProfile> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let words: Vec<&str> = line.split_whitespace().collect();
    let of_profile = words.first().is_some_and(|word| word.ends_with('%'));
    let word = match (of_profile, words.as_slice()) {
        (true, _) if words.contains(&"[.]") => return Ok(None),
        (true, _) => {
            let behind = words.iter().position(|word| *word == "[k]").and_then(|at| words.get(at + 1));
            behind.or(words.last()).copied().unwrap_or_default()
        }
        (false, [word]) => word,
        (false, _) => return Err(NoProfile),
    };
    let name = word.split('.').next().unwrap_or_default();
    match (of_profile, Identifier::new(name).is_some()) {
        (_, true) => Ok(Some(name)),
        (true, false) => Ok(None),
        (false, false) => Err(NoProfile),
    }
}

fn refused(path: &Path, line: usize, text: &str) -> klpx_diagnosis::Failure {
    let what = format!("{text:?} names no function, and is no line of a profile");
    Diagnosis::new(
        &codes::BAD_PROFILE,
        what,
        "klpx must know which functions are hot, so it passes over no line that may name one",
        "give one name on each line, or what perf report --stdio -g none prints",
    )
    .place(DiagnosisPlace::file(path.display().to_string(), u32::try_from(line).ok()))
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_a_function() {
        for (line, name) in [
            ("do_prlimit", Some("do_prlimit")),
            ("  vfs_read.llvm.123  ", Some("vfs_read")),
            ("# Overhead  Symbol", None),
            ("", None),
            ("    12.34%  loops    [kernel.kallsyms]  [k] fget_light", Some("fget_light")),
            ("     9.00%     1.50%  loops  [kernel.kallsyms]  [k] copy_page.isra.0  -  -", Some("copy_page")),
            ("1.00%  pipe_write", Some("pipe_write")),
            ("1.00%  loops  libc.so.6  [.] operator new(unsigned long)", None),
            ("1.00%  loops  [kernel.kallsyms]  [k] 0xffffffff81000000", None),
        ] {
            assert_eq!(function(line), Ok(name), "{line}");
        }
        for line in ["two words", "0x12", "|--5.00%--vfs_read", "f -fplugin=x"] {
            assert_eq!(function(line), Err(NoProfile), "{line}");
        }
    }

    #[test]
    fn files_are_put_together_and_a_wrong_line_is_named() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("a file");
            path
        };
        let (list, profile) = (file("list", "f\n"), file("profile", "# perf\n 2.0%  [k] g\n"));
        let hot = Hot::read(&[list, profile]).expect("hot");
        assert_eq!(["f", "g", "h"].map(|name| hot.has(name)), [true, true, false]);
        let failure = Hot::read(&[file("wrong", "f\na call graph\n")]).err().expect("refused");
        let diagnosis = failure.diagnoses().next().expect("one");
        assert_eq!((diagnosis.code, diagnosis.place.line), ("klpx::bad-profile", Some(2)));
    }
}
