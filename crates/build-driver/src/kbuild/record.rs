//! The records that `units.mk` writes, one for each folder, as typed lines. Does not combine the records.

use super::objtool::ObjtoolRule;

/// The record of one folder, as kbuild sees it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct FolderRecord {
    /// The folder, `.` for the root.
    pub(super) folder: String,
    /// Variables whose value differs from the root folder, because parent folders added flags.
    pub(super) inherited: Vec<(String, String)>,
    /// kbuild's name of the architecture: `x86`, `arm64`.
    pub(super) arch: Option<String>,
    /// Folders that kbuild visits next.
    pub(super) folders: Vec<String>,
    /// The path of objtool, if the kernel has objtool.
    pub(super) objtool: Option<String>,
    /// The objects that vmlinux links from the folder's `built-in.a` and `lib.a`, as kbuild names them.
    pub(super) builtin: Vec<String>,
    /// The folder's modules, each with its linked objects. A module of one unit is its own object.
    pub(super) modules: Vec<(String, Vec<String>)>,
    /// The rules that make files.
    pub(super) made: Vec<FileRule>,
}

/// The rule that makes one file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FileRule {
    pub(super) target: String,
    /// kbuild's name of the rule, such as `cc_o_c`.
    pub(super) rule: String,
    /// The first prerequisite.
    pub(super) source: String,
    /// All prerequisites, for a file that is not compiled.
    pub(super) from: Vec<String>,
    /// Files that the command line includes (`-include`).
    pub(super) forced: Vec<String>,
    /// Folders that the compiler searches for included files.
    pub(super) searched: Vec<String>,
    /// True if the file is compiled with the flags that make functions traceable.
    pub(super) traced: bool,
    pub(super) objtool: ObjtoolRule,
}

/// The prefixes of paths in a rule: prerequisites, included files, searched folders.
const PATHS: [&str; 3] = ["from:", "include:", "search:"];

impl FolderRecord {
    /// Parses a record. The error is the line that is not understood.
    pub(super) fn parse(text: &str) -> Result<FolderRecord, &str> {
        let mut record = FolderRecord::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let Some((kind, words)) = words.split_first() else { continue };
            let owned = || words.iter().map(|word| (*word).to_owned());
            match *kind {
                "folder" => record.folder = words.first().ok_or(line)?.to_string(),
                "folders" => record.folders = owned().collect(),
                "inherits" => {
                    let (name, value) = words.split_first().ok_or(line)?;
                    record.inherited.push(((*name).to_owned(), value.join(" ")));
                }
                "arch" => record.arch = owned().next(),
                "objtool" => record.objtool = owned().next(),
                "builtin" => record.builtin = owned().collect(),
                "module" => {
                    let mut words = owned();
                    record.modules.push((words.next().ok_or(line)?, words.collect()));
                }
                "made" => record.made.push(FileRule::parse(words).ok_or(line)?),
                // A prerequisite that does not exist and has no rule. The rule that needs the prerequisite is recorded,
                // too.
                "missing" => {}
                _ => return Err(line),
            }
        }
        if record.folder.is_empty() { Err(text) } else { Ok(record) }
    }
}

impl FileRule {
    fn parse(words: &[&str]) -> Option<FileRule> {
        let [target, rule, source, rest @ ..] = words else { return None };
        let source = source.strip_prefix("source:")?.to_owned();
        let given =
            |kind: &str| rest.iter().filter_map(|w| w.strip_prefix(kind)).map(str::to_owned).collect();
        let [from, forced, searched] = PATHS.map(given);
        let is_path = |word: &&str| PATHS.iter().any(|kind| word.starts_with(kind));
        let rest: Vec<&str> = rest.iter().copied().filter(|word| !is_path(word)).collect();
        let (traced, objtool) = match rest[..] {
            [] => (false, ObjtoolRule::None),
            ["traced", ref words @ ..] => (true, ObjtoolRule::from_words(words)?),
            ["untraced", ref words @ ..] => (false, ObjtoolRule::from_words(words)?),
            _ => return None,
        };
        let (target, rule) = (target.to_string(), rule.to_string());
        Some(FileRule { target, rule, source, from, forced, searched, traced, objtool })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_read_line_by_line() {
        let text = "folder fs\ninherits KBUILD_CFLAGS -O2 -Wextra\n\nfolders fs/ext4\narch x86\nobjtool ./tools/objtool/objtool\n\
            builtin fs/open.o fs/read.o\nmodule fs/a.o fs/a.o\n module fs/m.o fs/x.o fs/y.o\n\n\
            missing key.pem\nmade fs/open.o cc_o_c source:/src/fs/open.c include:/src/k.h search:/src/include search:./include traced later --orc --link\n\
            made fs/t.h gen source:/src/t.tbl from:/src/t.tbl from:fs/gen\nmade fs/u.h gen source:\n";
        let record = FolderRecord::parse(text).expect("a record");
        let expected = FolderRecord {
            folder: "fs".into(),
            inherited: vec![("KBUILD_CFLAGS".into(), "-O2 -Wextra".into())],
            arch: Some("x86".into()),
            folders: vec!["fs/ext4".into()],
            objtool: Some("./tools/objtool/objtool".into()),
            builtin: vec!["fs/open.o".into(), "fs/read.o".into()],
            modules: vec![
                ("fs/a.o".into(), vec!["fs/a.o".into()]),
                ("fs/m.o".into(), vec!["fs/x.o".into(), "fs/y.o".into()]),
            ],
            made: vec![
                FileRule {
                    target: "fs/open.o".into(),
                    rule: "cc_o_c".into(),
                    source: "/src/fs/open.c".into(),
                    from: Vec::new(),
                    forced: vec!["/src/k.h".into()],
                    searched: vec!["/src/include".into(), "./include".into()],
                    traced: true,
                    objtool: ObjtoolRule::Run(vec!["--orc".into(), "--link".into()]),
                },
                FileRule {
                    target: "fs/t.h".into(),
                    rule: "gen".into(),
                    source: "/src/t.tbl".into(),
                    from: vec!["/src/t.tbl".into(), "fs/gen".into()],
                    forced: Vec::new(),
                    searched: Vec::new(),
                    traced: false,
                    objtool: ObjtoolRule::None,
                },
                FileRule {
                    target: "fs/u.h".into(),
                    rule: "gen".into(),
                    source: String::new(),
                    from: Vec::new(),
                    forced: Vec::new(),
                    searched: Vec::new(),
                    traced: false,
                    objtool: ObjtoolRule::None,
                },
            ],
        };
        assert_eq!(record, expected);
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        let lines = [
            "made a.o cc_o_c",
            "made a.o cc_o_c a.c traced",
            "made a.o r source:a.c maybe",
            "object a.o",
            "module",
        ];
        for line in lines {
            assert_eq!(FolderRecord::parse(&format!("folder fs\n{line}\n")), Err(line));
        }
        assert!(FolderRecord::parse("builtin a.o\n").is_err(), "no folder");
    }
}
