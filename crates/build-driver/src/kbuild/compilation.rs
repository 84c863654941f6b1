//! The compilation of a unit as kbuild recorded it, turned to other ends: another output, further flags, preprocessed
//! text. And which of that text the compiler makes code from. Never runs a command.

use std::path::Path;

/// Beginnings of the words by which kbuild has a compiler list what it read (c_flags in scripts/Makefile.lib). A list
/// beside another output would be taken for kbuild's own.
const LISTS: [&str; 4] = ["-Wp,-MMD,", "-Wp,-MD,", "-MMD", "-MD"];

/// Values of `-fsanitize=` that put no line number into data.
const WITHOUT_LINES: [&str; 4] = ["kcfi", "cfi-icall", "shadow-call-stack", "thread"];

/// Beginnings of flags by which line numbers reach code or data: counters and profiles belong to lines.
const WITH_LINES: [&str; 5] =
    ["-fprofile-", "-fauto-profile", "-ftest-coverage", "-fcoverage-mapping", "-finstr-profile"];

/// A unit's recorded compilation. The commands that it gives run in the build tree, as the recorded one did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compilation<'r> {
    words: &'r [String],
    /// The place of the output's name.
    output: usize,
}

impl<'r> Compilation<'r> {
    /// The compilation that these words are, if they are one: `COMPILER ... -c -o OUTPUT SOURCE`.
    pub fn of(words: &'r [String]) -> Option<Compilation<'r>> {
        let is_one = words.len() > 3 && words.iter().any(|word| word == "-c");
        let output = words.iter().position(|word| word == "-o")? + 1;
        (is_one && output + 1 < words.len()).then_some(Compilation { words, output })
    }

    /// The file that is compiled: a path from the build tree, or an absolute one.
    pub fn source(&self) -> &'r str {
        self.words.last().map_or("", String::as_str)
    }

    /// The same compilation to another place, with further flags, and of another file if one is given.
    pub fn compile(&self, to: &Path, flags: &[&str], source: Option<&Path>) -> Vec<String> {
        let mut words = self.kept(|at| if at == self.output { Some(to.display().to_string()) } else { None });
        let own = words.pop().unwrap_or_default();
        words.extend(flags.iter().map(|flag| (*flag).to_owned()));
        words.push(source.map_or(own, |source| source.display().to_string()));
        words
    }

    /// Preprocesses what would be compiled, to the standard output. Warnings are off: the compilation gives them.
    pub fn preprocess(&self) -> Vec<String> {
        let is_output = |at: usize| at == self.output || at + 1 == self.output;
        let mut words: Vec<String> = Vec::with_capacity(self.words.len());
        for (at, word) in self.words.iter().enumerate() {
            if !is_output(at) && word != "-c" && !is_list(word) {
                words.push(word.clone());
            }
        }
        words.splice(1..1, ["-E".to_owned(), "-w".to_owned()]);
        words
    }

    /// Which part of the preprocessed text decides about the object.
    pub fn text(&self) -> Text {
        let has_lines = |word: &String| match word.strip_prefix("-fsanitize=") {
            Some(kinds) => kinds.split(',').any(|kind| !WITHOUT_LINES.contains(&kind)),
            None => WITH_LINES.iter().any(|flag| word.starts_with(flag)),
        };
        if self.words.iter().any(has_lines) { Text::WithPlaces } else { Text::WithoutPlaces }
    }

    fn kept(&self, other: impl Fn(usize) -> Option<String>) -> Vec<String> {
        let words = self.words.iter().enumerate().filter(|(_, word)| !is_list(word));
        words.map(|(at, word)| other(at).unwrap_or_else(|| word.clone())).collect()
    }
}

fn is_list(word: &str) -> bool {
    LISTS.iter().any(|list| word.starts_with(list))
}

/// Which part of a preprocessed text decides about the object's code and data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text {
    /// The tokens. The preprocessor has put in every `__LINE__`, `__FILE__` and `__COUNTER__`, and with these a BUG, a
    /// WARN, an initcall's name. What is left of places are markers (`# 7 "file.h" 2`), which go into warnings and debug
    /// information alone. So markers and blank lines do not count, and text may move to another line.
    WithoutPlaces,
    /// The tokens and where they stand: a sanitizer writes line and column into its data, a profile belongs to lines.
    WithPlaces,
}

impl Text {
    /// The identity of a preprocessed text: equal when the same command makes the same code and data of both.
    pub fn identity(self, text: &[u8]) -> blake3::Hash {
        if self == Text::WithPlaces {
            return blake3::hash(text);
        }
        let mut hasher = blake3::Hasher::new();
        for line in text.split(|byte| *byte == b'\n') {
            let line = line.trim_ascii();
            if !line.is_empty() && !is_marker(line) {
                hasher.update(line).update(b"\n");
            }
        }
        hasher.finalize()
    }
}

/// `# LINE "FILE" FLAGS`, or the `#line LINE` that a preprocessor may leave as it is. Pragmas are none.
fn is_marker(line: &[u8]) -> bool {
    let Some(rest) = line.strip_prefix(b"#") else { return false };
    let rest = rest.trim_ascii_start();
    let rest = rest.strip_prefix(b"line").unwrap_or(rest).trim_ascii_start();
    rest.first().is_some_and(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    const RECORDED: &str = "gcc -Wp,-MMD,fs/.a.o.d -nostdinc -DX=fs/a.o -c -o fs/a.o /src/fs/a.c";

    #[test]
    fn a_compilation_is_led_to_another_place_with_further_flags() {
        let recorded = words(RECORDED);
        let unit = Compilation::of(&recorded).expect("a compilation");
        assert_eq!(unit.source(), "/src/fs/a.c");
        let same = unit.compile(Path::new("/w/a.o"), &[], None);
        assert_eq!(same, words("gcc -nostdinc -DX=fs/a.o -c -o /w/a.o /src/fs/a.c"));
        let other = unit.compile(Path::new("/w/a.o"), &["-ffunction-sections"], Some(Path::new("/w/e.c")));
        assert_eq!(other, words("gcc -nostdinc -DX=fs/a.o -c -o /w/a.o -ffunction-sections /w/e.c"));
    }

    #[test]
    fn preprocessing_leaves_no_file() {
        let recorded = words(RECORDED);
        let unit = Compilation::of(&recorded).expect("a compilation");
        assert_eq!(unit.preprocess(), words("gcc -E -w -nostdinc -DX=fs/a.o /src/fs/a.c"));
    }

    #[test]
    fn other_commands_are_no_compilations() {
        for text in ["ld -r -o a.o b.o", "gcc -c a.c", "gcc -c -o a.o", "", "gcc -E -o a.i a.c"] {
            assert_eq!(Compilation::of(&words(text)), None, "{text}");
        }
    }

    #[test]
    fn places_count_where_flags_write_them_into_the_object() {
        let cases = [
            ("-O2 -g", Text::WithoutPlaces),
            ("-fsanitize=kcfi -fsanitize=shadow-call-stack", Text::WithoutPlaces),
            ("-fsanitize=bounds,shift", Text::WithPlaces),
            ("-fsanitize=kernel-address", Text::WithPlaces),
            ("-fprofile-arcs -ftest-coverage", Text::WithPlaces),
            ("-fprofile-sample-use=/p", Text::WithPlaces),
        ];
        for (flags, expected) in cases {
            let recorded = words(&format!("gcc {flags} -c -o a.o a.c"));
            assert_eq!(Compilation::of(&recorded).expect("a compilation").text(), expected, "{flags}");
        }
    }

    #[test]
    fn text_is_the_same_wherever_it_stands() {
        let plain = Text::WithoutPlaces;
        let text = b"# 1 \"a.c\"\nint a;\n\n\n#pragma pack(1)\nint b;\n".as_slice();
        let equal = [
            b"# 1 \"a.c\"\n# 7 \"b.h\" 1 3\nint a;\n#pragma pack(1)\n#line 9\n\tint b;  ".as_slice(),
            b"int a;\r\n#pragma pack(1)\nint b;".as_slice(),
        ];
        let differing = [
            b"int a;\nint b;\n".as_slice(),
            b"int a;\n#pragma pack(2)\nint b;\n".as_slice(),
            b"int a; #pragma pack(1)\nint b;\n".as_slice(),
            b"int a;\n#pragma pack(1)\nint  b;\n".as_slice(),
            b"int a;\n#pragma pack(1)\nin\nt b;\n".as_slice(),
        ];
        for other in equal {
            assert_eq!(plain.identity(text), plain.identity(other), "{}", other.escape_ascii());
            assert_ne!(Text::WithPlaces.identity(text), Text::WithPlaces.identity(other));
        }
        for other in differing {
            assert_ne!(plain.identity(text), plain.identity(other), "{}", other.escape_ascii());
        }
    }
}
