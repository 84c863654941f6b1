//! The part of a preprocessed text that determines code and data. Never runs a preprocessor.

/// Values of `-fsanitize=` that put no line number into data.
const WITHOUT_LINES: [&str; 4] = ["kcfi", "cfi-icall", "shadow-call-stack", "thread"];

/// Prefixes of flags that let line numbers reach code or data: counters and profiles belong to lines.
const WITH_LINES: [&str; 5] =
    ["-fprofile-", "-fauto-profile", "-ftest-coverage", "-fcoverage-mapping", "-finstr-profile"];

/// The part of a preprocessed text that determines the object's code and data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CodeText {
    /// The tokens. The preprocessor has already replaced every `__LINE__`, `__FILE__` and `__COUNTER__`, for instance
    /// in a BUG, a WARN or an initcall's name. The remaining places are markers (`# 7 "file.h" 2`), which only reach
    /// warnings and debug information. So markers and blank lines do not count, and text may move to another line.
    WithoutPlaces,
    /// The tokens and their places: a sanitizer writes line and column into its data, and a profile belongs to lines.
    WithPlaces,
}

impl CodeText {
    /// The part that counts in a compilation with these arguments.
    pub(crate) fn for_compilation(words: &[String]) -> CodeText {
        let has_lines = |word: &String| match word.strip_prefix("-fsanitize=") {
            Some(kinds) => kinds.split(',').any(|kind| !WITHOUT_LINES.contains(&kind)),
            None => WITH_LINES.iter().any(|flag| word.starts_with(flag)),
        };
        if words.iter().any(has_lines) { CodeText::WithPlaces } else { CodeText::WithoutPlaces }
    }

    /// The identity of a preprocessed text. Equal if the same command makes the same code and data from both texts.
    pub(crate) fn identity(self, text: &[u8]) -> blake3::Hash {
        if self == CodeText::WithPlaces {
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

/// Returns true for `# LINE "FILE" FLAGS`, and for a `#line LINE` that the preprocessor left. Pragmas are no markers.
fn is_marker(line: &[u8]) -> bool {
    let Some(rest) = line.strip_prefix(b"#") else { return false };
    let rest = rest.trim_ascii_start();
    let rest = rest.strip_prefix(b"line").unwrap_or(rest).trim_ascii_start();
    rest.first().is_some_and(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_where_flags_write_them_into_the_object() {
        let cases = [
            ("-O2 -g", CodeText::WithoutPlaces),
            ("-fsanitize=kcfi -fsanitize=shadow-call-stack", CodeText::WithoutPlaces),
            ("-fsanitize=bounds,shift", CodeText::WithPlaces),
            ("-fsanitize=kernel-address", CodeText::WithPlaces),
            ("-fprofile-arcs -ftest-coverage", CodeText::WithPlaces),
            ("-fprofile-sample-use=/p", CodeText::WithPlaces),
        ];
        for (flags, expected) in cases {
            let words: Vec<String> = flags.split(' ').map(str::to_owned).collect();
            assert_eq!(CodeText::for_compilation(&words), expected, "{flags}");
        }
    }

    #[test]
    fn text_is_the_same_wherever_it_stands() {
        let plain = CodeText::WithoutPlaces;
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
            assert_ne!(CodeText::WithPlaces.identity(text), CodeText::WithPlaces.identity(other));
        }
        for other in differing {
            assert_ne!(plain.identity(text), plain.identity(other), "{}", other.escape_ascii());
        }
    }
}
