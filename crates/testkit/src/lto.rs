//! The cases of `kernel-fixtures/lto`: C files, an edit of them, and what the edit must change.
//!
//! A line that begins with `//#` is a directive. The lines after `file` or `edit` belong to it.
//!
//! | directive | meaning |
//! |---|---|
//! | `//# file: PATH` | a file of the kernel; its text follows |
//! | `//# edit: PATH` | an edit of that file; the removed lines follow with `-`, the added lines with `+` |
//! | `//# import-limit: N` | the import limit of the link in instructions |
//! | `//# expect-changed: NAMES` | the changed and new functions of the stabilised rebuild |
//! | `//# expect-changed-off: NAMES` | the same without a stabilised rebuild, where the set is another one |
//! | `//# expect-cause: NAME CAUSE` | why a function is in the change set of the stabilised rebuild |
//! | `//# expect-cause-off: NAME CAUSE` | the same without a stabilised rebuild |
//! | `//# expect-why: NAME TEXT` | the cause in words |
//! | `//# expect-unaffected: NAMES` | the functions that hold copies of edited code and have the same code |
//! | `//# expect-frozen: N` | the number of units whose names are frozen |

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The import limit of kernels, in instructions.
const IMPORT_LIMIT: usize = 5;

/// A case.
#[derive(Debug, Default)]
pub struct Case {
    /// The name of the case's file.
    pub name: String,
    /// The kernel's files: path and text.
    pub files: Vec<(String, String)>,
    /// The edits: path, removed text, added text.
    pub edits: Vec<(String, String, String)>,
    /// The import limit of the link, in instructions.
    pub import_limit: usize,
    /// The expectations.
    pub expect: Expect,
}

/// What a case expects.
#[derive(Debug, Default)]
pub struct Expect {
    /// The changed and new functions of the stabilised rebuild.
    pub changed: BTreeSet<String>,
    /// The same without a stabilised rebuild, where the set is another one.
    pub changed_off: Option<BTreeSet<String>>,
    /// Functions and the causes of the stabilised rebuild.
    pub causes: Vec<(String, String)>,
    /// Functions and the causes without a stabilised rebuild.
    pub causes_off: Vec<(String, String)>,
    /// Functions and the causes in words.
    pub why: Vec<(String, String)>,
    /// Functions that hold copies of edited code and have the same code, where the case says which.
    pub unaffected: Option<BTreeSet<String>>,
    /// The number of units whose names are frozen.
    pub frozen: u64,
}

/// Reads every case, in the order of names.
///
/// # Panics
/// A case can't be read or has an unknown directive.
pub fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kernel-fixtures/lto");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("cases").map(|entry| entry.expect("a case").path()).collect();
    paths.sort();
    let read = |path: &PathBuf| {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        Case::read(&name, &std::fs::read_to_string(path).expect("a case"))
    };
    paths.iter().map(read).collect()
}

/// The directive to which a line belongs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    File,
    Edit,
    Other,
}

impl Case {
    /// Reads a case from its text.
    fn read(name: &str, text: &str) -> Case {
        let mut case = Case { name: name.to_owned(), import_limit: IMPORT_LIMIT, ..Case::default() };
        let mut part = Part::Other;
        for line in text.lines() {
            match line.strip_prefix("//#") {
                Some(directive) => part = case.directive(directive),
                None => case.line(part, line),
            }
        }
        case
    }

    /// Reads the text of a directive. Returns the part to which the next lines belong.
    fn directive(&mut self, directive: &str) -> Part {
        let Some((word, value)) = directive.split_once(':') else {
            panic!("{}: a directive without a colon: {directive}", self.name);
        };
        let (word, value) = (word.trim(), value.trim());
        let names = || value.split_whitespace().map(str::to_owned).collect();
        let of_function = || {
            let (function, text) = value.split_once(' ').expect("a function and a text");
            (function.to_owned(), text.to_owned())
        };
        let expect = &mut self.expect;
        match word {
            "file" => {
                self.files.push((value.to_owned(), String::new()));
                return Part::File;
            }
            "edit" => {
                self.edits.push((value.to_owned(), String::new(), String::new()));
                return Part::Edit;
            }
            "import-limit" => self.import_limit = value.parse().expect("a number"),
            "expect-changed" => expect.changed = names(),
            "expect-changed-off" => expect.changed_off = Some(names()),
            "expect-cause" => expect.causes.push(of_function()),
            "expect-cause-off" => expect.causes_off.push(of_function()),
            "expect-why" => expect.why.push(of_function()),
            "expect-unaffected" => expect.unaffected = Some(names()),
            "expect-frozen" => expect.frozen = value.parse().expect("a number"),
            _ => panic!("{}: an unknown directive: {word}", self.name),
        }
        Part::Other
    }

    /// Reads a line that is no directive.
    fn line(&mut self, part: Part, line: &str) {
        let text = match part {
            Part::File => self.files.last_mut().map(|(_, text)| (text, line)),
            Part::Edit => {
                let (_, old, new) = self.edits.last_mut().expect("an edit");
                match line.split_at_checked(1) {
                    Some(("-", line)) => Some((old, line)),
                    Some(("+", line)) => Some((new, line)),
                    _ => panic!("{}: a line of an edit without a sign: {line}", self.name),
                }
            }
            Part::Other => None,
        };
        if let Some((text, line)) = text {
            text.push_str(line);
            text.push('\n');
        }
    }

    /// The functions that change without a stabilised rebuild.
    pub fn changed_off(&self) -> &BTreeSet<String> {
        self.expect.changed_off.as_ref().unwrap_or(&self.expect.changed)
    }

    /// The edited files: path and new text.
    ///
    /// # Panics
    /// The removed text of an edit does not occur exactly once.
    pub fn patched(&self) -> Vec<(String, String)> {
        let mut patched: Vec<(String, String)> = Vec::new();
        for (path, old, new) in &self.edits {
            let at = patched.iter().position(|(edited, _)| edited == path).unwrap_or_else(|| {
                let original = self.files.iter().find(|(file, _)| file == path).expect("the edited file");
                patched.push(original.clone());
                patched.len() - 1
            });
            let text = &mut patched[at].1;
            assert_eq!(text.matches(old.as_str()).count(), 1, "{}: {old}", self.name);
            *text = text.replacen(old.as_str(), new, 1);
        }
        patched
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "// What the case is about.
//# import-limit: 20
//# file: fs/a.c
int f(void)

int g(void)
//# file: fs/b.c
int h(void)
//# edit: fs/a.c
-int g(void)
+int k(void)
+
//# expect-changed: g f
//# expect-cause: f inlines
//# expect-why: f inlines g at fs/a.c:9
//# expect-changed-off: f
//# expect-unaffected:
";

    #[test]
    fn a_case_is_what_its_directives_say() {
        let case = Case::read("one", TEXT);
        assert_eq!(case.files[0], ("fs/a.c".into(), "int f(void)\n\nint g(void)\n".into()));
        assert_eq!(case.files[1], ("fs/b.c".into(), "int h(void)\n".into()));
        assert_eq!(case.patched(), [("fs/a.c".into(), "int f(void)\n\nint k(void)\n\n".into())]);
        assert_eq!((case.import_limit, case.expect.frozen), (20, 0));
        assert_eq!(case.expect.changed, BTreeSet::from(["f".into(), "g".into()]));
        assert_eq!(case.changed_off(), &BTreeSet::from(["f".into()]));
        assert_eq!(case.expect.causes, [("f".into(), "inlines".into())]);
        assert_eq!(case.expect.why, [("f".into(), "inlines g at fs/a.c:9".into())]);
        assert_eq!(case.expect.unaffected, Some(BTreeSet::new()));
    }

    #[test]
    fn what_a_case_can_not_mean_fails() {
        for text in ["//# exect-changed: f\n", "//# expect-changed f\n", "//# edit: fs/a.c\nint f(void)\n"] {
            assert!(std::panic::catch_unwind(|| Case::read("bad", text)).is_err(), "{text}");
        }
    }

    #[test]
    fn every_case_has_an_edit_that_fits_and_an_expectation() {
        let cases = cases();
        assert!(cases.len() > 15, "{}", cases.len());
        for case in cases {
            assert!(!case.patched().is_empty() && !case.expect.changed.is_empty(), "{}", case.name);
        }
    }
}
