//! Checked types for strings from outside, one for each language that a string becomes a part of. A string is refused
//! if its language could read it as several words or as an instruction. Does not know the origin of a string.

use std::fmt;
use std::ops::Deref;
use std::path::{Component, Path};

use klpx_diagnosis::{Diagnosis, Result, codes};

/// The longest release in bytes: the kernel's `__NEW_UTS_LEN` (include/uapi/linux/utsname.h).
const RELEASE: usize = 64;

/// The longest line of modinfo in bytes. Tools show this much without trouble.
const MODINFO_LINE: usize = 500;

/// A word that make takes literally in a variable, a target and a dependency. The shell of a recipe takes it literally
/// without quotes. So does the compiler, whose `-Wp,` gives commas a meaning.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MakeWord(String);

impl MakeWord {
    /// Checks a text, which may be empty.
    pub fn new(text: &str) -> Option<MakeWord> {
        let plain = |c: char| c.is_alphanumeric() || "/._+-@=~".contains(c);
        (text.chars().all(plain) && !text.starts_with('~')).then(|| MakeWord(text.to_owned()))
    }

    /// Checks the path of a folder or program for make.
    ///
    /// # Errors
    /// `klpx::usage`.
    pub fn path(path: &Path) -> Result<MakeWord> {
        path.to_str().and_then(MakeWord::new).ok_or_else(|| {
            let what = format!("kbuild can't have {} in a path", path.display());
            Diagnosis::new(
                &codes::USAGE,
                what,
                "make and its shell take blanks, colons, commas, quotes and dollars for their own",
                "name a place whose path has only letters, digits and the characters / . _ + - @ = ~",
            )
            .into()
        })
    }

    /// Checks a kernel release, or a part of one. It also becomes a part of paths and of package names.
    ///
    /// # Errors
    /// `klpx::bad-release`.
    pub fn release(text: &str) -> Result<MakeWord> {
        let word = MakeWord::new(text).filter(|_| text.len() <= RELEASE && !text.contains(['/', '=', '@']));
        word.ok_or_else(|| {
            let what = format!("{text:?} can't be the release of a kernel");
            Diagnosis::new(
                &codes::BAD_RELEASE,
                what,
                format!(
                    "a release has at most {RELEASE} letters, digits, dots, dashes, pluses, tildes and \
                     underscores"
                ),
                "look at include/config/kernel.release and include/generated/utsrelease.h of the \
                 build tree",
            )
            .into()
        })
    }
}

impl Deref for MakeWord {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MakeWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of a make variable of a build. Names in lower case belong to kbuild (`obj`, `srctree`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MakeName(String);

impl MakeName {
    /// Checks a name.
    pub fn new(text: &str) -> Option<MakeName> {
        let begins = text.starts_with(|c: char| c.is_ascii_uppercase() || c == '_');
        let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        (begins && text.chars().all(plain)).then(|| MakeName(text.to_owned()))
    }
}

impl Deref for MakeName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MakeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A word of a variable's value that make and the shell of a recipe take literally. Unlike a [`MakeWord`], it is
/// neither a path nor a target, so it may contain commas and colons, as flags do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MakeValue(String);

impl MakeValue {
    /// Checks a word, which may be empty.
    pub fn new(text: &str) -> Option<MakeValue> {
        let plain = |c: char| c.is_alphanumeric() || "/._+-@=,:~^".contains(c);
        let home = text.starts_with('~') || text.contains("=~") || text.contains(":~");
        (text.chars().all(plain) && !home).then(|| MakeValue(text.to_owned()))
    }
}

impl Deref for MakeValue {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// A line of a module's modinfo. It becomes a C string and a record of `.modinfo`, which ends with a zero byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModinfoLine(String);

impl std::str::FromStr for ModinfoLine {
    type Err = &'static str;

    fn from_str(text: &str) -> std::result::Result<ModinfoLine, Self::Err> {
        match text.is_empty() || text.len() > MODINFO_LINE || text.chars().any(char::is_control) {
            true => Err("one line of at most 500 bytes"),
            false => Ok(ModinfoLine(text.to_owned())),
        }
    }
}

impl Deref for ModinfoLine {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// A C identifier in a list of functions. It becomes C code, a compiler option and a cell of a table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identifier(String);

impl Identifier {
    /// Checks a name.
    pub fn new(name: &str) -> Option<Identifier> {
        let part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let begins = name.bytes().next().is_some_and(|byte| part(byte) && !byte.is_ascii_digit());
        (begins && name.bytes().all(part)).then(|| Identifier(name.to_owned()))
    }
}

impl Deref for Identifier {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Returns true for a valid package version. It becomes a word for a package manager and a part of a line to paste.
pub(crate) fn is_package_version(version: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".+-~:_".contains(&byte);
    version.bytes().all(plain) && version.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
}

/// Returns true if the path of a source stays in its tree and is one word for make.
pub fn is_source_path(path: &str) -> bool {
    let stays = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    stays && !path.is_empty() && MakeWord::new(path).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_of_make_means_itself() {
        for text in ["", "/home/k_1/.cache/klpx", "6.12.117+deb12~1", "/usr/lib/llvm-22/bin/", "/ü/a=b@c"] {
            assert_eq!(MakeWord::new(text).expect(text).to_string(), text);
        }
        for text in [
            "$(touch x)",
            "a b",
            "a\tb",
            "a\nb",
            "a:b",
            "a;b",
            "`a`",
            "a'b",
            "a\"b",
            "a#b",
            "a%b",
            "a,b",
            "~a",
            "a*",
        ] {
            assert!(MakeWord::new(text).is_none(), "{text}");
            assert!(MakeWord::path(Path::new(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn a_variable_of_make_has_a_name_and_words_that_mean_themselves() {
        for name in ["KCFLAGS", "_X", "CFLAGS_fork.o", "A-b_9"] {
            assert_eq!(&*MakeName::new(name).expect(name), name);
        }
        for name in ["", "obj", "9A", "A B", "A$B", "A:", "A+", "A\nB", "\u{c9}"] {
            assert!(MakeName::new(name).is_none(), "{name:?}");
        }
        for word in ["", "-O3", "-march=x86-64-v3", "-Wp,-DX=1", "-ffile-prefix-map=/a:b=./c", "a~b", "x^y"] {
            assert_eq!(&*MakeValue::new(word).expect(word), word);
        }
        for word in [
            "a b", "$(id)", "`id`", "a;b", "a|b", "a&b", "a>b", "'a'", "\"a\"", "a\\b", "a#b", "a*", "a?",
            "{a}", "(a)", "a%", "!a", "~/a", "-I=~/a", "a:~/b", "a\tb", "a\nb",
        ] {
            assert!(MakeValue::new(word).is_none(), "{word:?}");
        }
    }

    #[test]
    fn a_release_is_a_part_of_paths_and_names() {
        for text in ["7.2.13", "6.12.117+deb12-cloud-amd64", "6.11.4-301.fc41.x86_64", "7.2.0-rc1_x~y"] {
            MakeWord::release(text).expect(text);
        }
        for text in ["7.2$(id)", "../../etc", "7.2 -j", "7.2;x", &"1".repeat(65)] {
            let failure = MakeWord::release(text).expect_err(text);
            assert_eq!(failure.diagnoses().next().expect("one").code, "klpx::bad-release");
        }
    }

    #[test]
    fn a_name_of_c_is_nothing_else() {
        for name in ["f", "_f9", "__x64_sys_read"] {
            assert_eq!(&*Identifier::new(name).expect(name), name);
        }
        for name in ["", "9f", "f g", "f -fplugin=x", "f)\n", "f.part.0", "f\t1", "\u{e9}"] {
            assert!(Identifier::new(name).is_none(), "{name}");
        }
    }

    #[test]
    fn a_version_is_a_word_of_a_line_to_paste() {
        for (version, plain) in [
            ("6.12.115-2~deb12u1", true),
            ("1:2.3+x", true),
            ("$(id)", false),
            ("1 rm", false),
            ("-o", false),
            ("", false),
        ] {
            assert_eq!(is_package_version(version), plain, "{version}");
        }
    }

    #[test]
    fn a_source_path_stays_in_its_tree() {
        for (path, stays) in [
            ("fs/a.c", true),
            ("../a.c", false),
            ("fs/../../a.c", false),
            ("/etc/a.c", false),
            ("fs/a b.c", false),
            ("fs/a.c\tx", false),
            ("", false),
        ] {
            assert_eq!(is_source_path(path), stays, "{path}");
        }
    }
}
