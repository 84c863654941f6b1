//! The include directives of a C or assembly file, read from its text alone. Ignores conditions: every directive
//! counts. Never opens a file.

/// The directives of one file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Directives {
    /// The included files, by name.
    pub(super) includes: Vec<Include>,
    /// Macros that stand for a file name: `A` in `#include A`, `B` in `#include A(B)`.
    pub(super) computed: Vec<String>,
    /// Definitions that can give a macro of `computed` its value.
    pub(super) names: Vec<NameMacro>,
}

/// An include directive with a file name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Include {
    pub(super) path: String,
    /// True for `"..."`: the compiler first searches the folder of the including file.
    pub(super) quoted: bool,
}

/// `#define MACRO VALUE`, where the value can be a file name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NameMacro {
    pub(super) macro_name: String,
    /// `None` if the value consists of other macros.
    pub(super) file: Option<Include>,
}

/// Suffixes of macros that are made for includes: TRACE_INCLUDE_FILE and its default TRACE_SYSTEM
/// (include/trace/define_trace.h), GENL_MAGIC_INCLUDE_FILE (include/linux/genl_magic_func.h). The value may lack quotes
/// and the file name extension.
const MADE_FOR_INCLUDE: [&[u8]; 2] = [b"INCLUDE_FILE", b"TRACE_SYSTEM"];

impl Directives {
    /// Reads the text of a file.
    pub(super) fn read(text: &[u8]) -> Directives {
        let mut found = Directives::default();
        for at in memchr::memchr_iter(b'#', text) {
            let rest = skip_blanks(&text[at + 1..]);
            if let Some(rest) = after_word(rest, b"include").or_else(|| after_word(rest, b"include_next")) {
                found.include(rest, begins_line(&text[..at]));
            } else if let Some(rest) = after_word(rest, b"define") {
                found.define(rest);
            }
        }
        found.includes.sort();
        found.includes.dedup();
        found.computed.sort();
        found.computed.dedup();
        found
    }

    /// Adds an include. `rest` follows `#include`. A word counts as a macro only if the directive begins its line;
    /// elsewhere the text is prose.
    fn include(&mut self, rest: &[u8], begins_line: bool) {
        if let Some(include) = literal(rest) {
            self.includes.push(include);
        } else if begins_line && let Some(name) = last_identifier(line_of(rest)) {
            self.computed.push(name);
        }
    }

    fn define(&mut self, rest: &[u8]) {
        let length = rest.iter().take_while(|byte| is_word(**byte)).count();
        let (name, rest) = rest.split_at(length);
        // In the definition of a macro with parameters, a parenthesis follows the name.
        if rest.first().is_none_or(|byte| !byte.is_ascii_whitespace() && *byte != b'\\') {
            return;
        }
        let value = skip_blanks(rest);
        let is_made_for_include = MADE_FOR_INCLUDE.iter().any(|end| name.ends_with(end));
        let file = match literal(value) {
            Some(include) if include.path.contains('.') || is_made_for_include => Some(include),
            _ if is_made_for_include => bare(line_of(value)),
            // A header's name made of other macros, as in drivers/iommu/generic_pt.
            None if name.ends_with(b"_H") && !line_of(value).trim_ascii().is_empty() => None,
            _ => return,
        };
        self.names.push(NameMacro { macro_name: text(name), file });
    }
}

/// Parses `<x>` or `"x"`.
fn literal(rest: &[u8]) -> Option<Include> {
    let (quoted, end) = match rest.first()? {
        b'<' => (false, b'>'),
        b'"' => (true, b'"'),
        _ => return None,
    };
    let line = line_of(&rest[1..]);
    let length = memchr::memchr(end, line)?;
    (length > 0).then(|| Include { path: text(&line[..length]), quoted })
}

/// Parses the value of a macro that names a header without quotes: `sched`, `arch/arm64/include/asm/x.h`.
fn bare(line: &[u8]) -> Option<Include> {
    let value = line.trim_ascii();
    let is_path = |byte: &u8| is_word(*byte) || matches!(byte, b'/' | b'.' | b'-');
    if value.is_empty() || !value.iter().all(is_path) {
        return None;
    }
    let value = text(value);
    Some(Include { path: if value.ends_with(".h") { value } else { format!("{value}.h") }, quoted: true })
}

fn last_identifier(line: &[u8]) -> Option<String> {
    let code = &line[..memchr::memmem::find(line, b"/*").unwrap_or(line.len())];
    let is_start = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
    let mut words = code.split(|byte| !is_word(*byte)).filter(|word| word.first().is_some_and(is_start));
    words.next_back().map(text)
}

/// The text after the word and blanks, if the text begins with this word.
fn after_word<'t>(text: &'t [u8], word: &[u8]) -> Option<&'t [u8]> {
    let rest = text.strip_prefix(word)?;
    if rest.first().is_some_and(|byte| is_word(*byte)) { None } else { Some(skip_blanks(rest)) }
}

/// Skips blanks, comments and continued line ends.
fn skip_blanks(mut text: &[u8]) -> &[u8] {
    loop {
        text = match text {
            [b' ' | b'\t', rest @ ..] | [b'\\', b'\n', rest @ ..] | [b'\\', b'\r', b'\n', rest @ ..] => rest,
            [b'/', b'*', rest @ ..] => match memchr::memmem::find(rest, b"*/") {
                Some(end) => &rest[end + 2..],
                None => return text,
            },
            _ => return text,
        };
    }
}

/// Returns true if only blanks, or a comment's end and blanks, precede on the line.
fn begins_line(before: &[u8]) -> bool {
    let line = before.rsplit(|byte| *byte == b'\n').next().unwrap_or(before).trim_ascii();
    line.is_empty() || line.ends_with(b"*/")
}

fn line_of(text: &[u8]) -> &[u8] {
    &text[..memchr::memchr(b'\n', text).unwrap_or(text.len())]
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn includes(text: &str) -> Vec<String> {
        let mark = |include: Include| {
            if include.quoted { format!("\"{}\"", include.path) } else { format!("<{}>", include.path) }
        };
        Directives::read(text.as_bytes()).includes.into_iter().map(mark).collect()
    }

    #[test]
    fn include_lines_are_found_however_they_are_written() {
        let cases: [(&str, &[&str]); 12] = [
            ("#include <linux/a.h>\n", &["<linux/a.h>"]),
            ("#include \"a.h\"", &["\"a.h\""]),
            ("  # \t include\t<a.h>\n", &["<a.h>"]),
            ("#include_next <a.h>\n", &["<a.h>"]),
            ("#include \\\n <a.h>\n", &["<a.h>"]),
            ("#include /* why */ <a.h>\n", &["<a.h>"]),
            ("/* b */ #include <a.h>\r\n", &["<a.h>"]),
            ("#if 0\n#include <a.h>\n#endif\n", &["<a.h>"]),
            ("#include <a.h>\n#include <a.h>\n#include \"a.h\"\n", &["<a.h>", "\"a.h\""]),
            ("#included <a.h>\n#includes\n", &[]),
            ("#include <a.h\n>\n#include \"\"\n", &[]),
            ("mov #include, x\n", &[]),
        ];
        for (text, expected) in cases {
            assert_eq!(includes(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_macro_in_place_of_a_name_is_told() {
        let cases: [(&str, &[&str]); 6] = [
            ("#include NAME\n", &["NAME"]),
            (" # include TRACE_INCLUDE(TRACE_INCLUDE_FILE) /* here */\n", &["TRACE_INCLUDE_FILE"]),
            ("/* c */ #include NAME", &["NAME"]),
            (" * #include files like this\n", &[]),
            ("#include <a.h>\n", &[]),
            ("#include\n", &[]),
        ];
        for (text, expected) in cases {
            assert_eq!(Directives::read(text.as_bytes()).computed, expected, "{text:?}");
        }
    }

    #[test]
    fn macros_that_can_name_a_file_are_kept_with_their_value() {
        let name = |macro_name: &str, file: Option<(&str, bool)>| NameMacro {
            macro_name: macro_name.to_owned(),
            file: file.map(|(path, quoted)| Include { path: path.to_owned(), quoted }),
        };
        let cases = [
            ("#define A <linux/a.h>\n", vec![name("A", Some(("linux/a.h", false)))]),
            ("#define A \"a.h\"\n", vec![name("A", Some(("a.h", true)))]),
            ("#define TRACE_INCLUDE_FILE sched\n", vec![name("TRACE_INCLUDE_FILE", Some(("sched.h", true)))]),
            ("#define X_INCLUDE_FILE a/b-c.h\n", vec![name("X_INCLUDE_FILE", Some(("a/b-c.h", true)))]),
            ("#define TRACE_SYSTEM kvm\n", vec![name("TRACE_SYSTEM", Some(("kvm.h", true)))]),
            ("#define TRACE_SYSTEM \"x\"\n", vec![name("TRACE_SYSTEM", Some(("x", true)))]),
            ("#define X_INCLUDE_FILE F(x)\n", vec![name("X_INCLUDE_FILE", None)]),
            ("#define FMT_H __stringify(FMT.h)\n", vec![name("FMT_H", None)]),
            ("#define _LINUX_A_H\n#define A \"text\"\n#define F(x) \"a.h\"\n#define N 1\n", vec![]),
        ];
        for (text, expected) in cases {
            assert_eq!(Directives::read(text.as_bytes()).names, expected, "{text:?}");
        }
    }
}
