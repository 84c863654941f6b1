//! The outline of a C header: its declarations and preprocessor lines, without comments and without the bodies of
//! functions. Code in another language that is made from a header (Rust's bindings) depends on the outline alone.
//!
//! The reader knows no macros, so the reader takes too much rather than too little for the outline.

/// One part of an outline. Blanks are normalized.
#[derive(Clone, Debug, PartialEq, Eq)]
enum OutlinePart {
    /// A preprocessor line, without the `#`.
    Directive(String),
    /// A declaration, or a function without its body.
    Declaration(String),
}

impl OutlinePart {
    fn text(&self) -> String {
        match self {
            OutlinePart::Directive(text) => format!("#{text}"),
            OutlinePart::Declaration(text) => text.clone(),
        }
    }
}

/// Returns the first part of the outline that differs, unless the patched header only adds to the original's outline.
///
/// Added declarations, includes and macros with new names are additions. Every other preprocessor line can change the
/// meaning of what follows.
pub(crate) fn first_change(original: &[u8], patched: &[u8]) -> Option<String> {
    let (original, patched) = (outline(original), outline(patched));
    let mut left = patched.iter();
    let mut added = Vec::new();
    for part in &original {
        loop {
            match left.next() {
                Some(other) if other == part => break,
                Some(other) => added.push(other),
                None => return Some(part.text()),
            }
        }
    }
    added.extend(left);
    added.into_iter().find(|part| !is_addition(part, &original)).map(OutlinePart::text)
}

fn is_addition(part: &OutlinePart, original: &[OutlinePart]) -> bool {
    let OutlinePart::Directive(line) = part else { return true };
    let names = |line: &str, word: &str| {
        let rest = line.strip_prefix(word)?.strip_prefix(' ')?;
        rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().map(str::to_owned)
    };
    if line.starts_with("include") {
        return true;
    }
    let Some(name) = names(line, "define") else { return false };
    let is_same =
        |line: &str| [names(line, "define"), names(line, "undef")].into_iter().flatten().any(|it| it == name);
    !original.iter().any(|part| matches!(part, OutlinePart::Directive(line) if is_same(line)))
}

/// Returns the parts of a header, in order. A header whose braces do not match is one part.
fn outline(text: &[u8]) -> Vec<OutlinePart> {
    let text = without_comments(&String::from_utf8_lossy(text).replace("\\\r\n", "").replace("\\\n", ""));
    let mut reader = DeclarationReader::default();
    for line in text.lines() {
        match line.trim_start().strip_prefix('#') {
            Some(directive) => reader.parts.push(OutlinePart::Directive(normalized(directive))),
            None => reader.line(line),
        }
    }
    if reader.braces != 0 || reader.parentheses != 0 {
        return vec![OutlinePart::Declaration(text)];
    }
    reader.end();
    reader.parts
}

/// Splits lines of C, without comments and directives, into declarations.
#[derive(Default)]
struct DeclarationReader {
    parts: Vec<OutlinePart>,
    declaration: String,
    braces: i32,
    parentheses: i32,
    /// True inside a function's body.
    in_body: bool,
    /// The quote that began a literal, and true after a backslash.
    literal: Option<(char, bool)>,
}

impl DeclarationReader {
    fn line(&mut self, line: &str) {
        for c in line.chars().chain(['\n']) {
            self.character(c);
        }
        self.literal = None;
    }

    fn character(&mut self, c: char) {
        if let Some((quote, escaped)) = self.literal {
            self.literal = (escaped || c != quote).then_some((quote, c == '\\' && !escaped));
            return self.keep(c);
        }
        let is_outside = self.braces == 0 && self.parentheses == 0;
        match c {
            '"' | '\'' => self.literal = Some((c, false)),
            '(' | '[' => self.parentheses += 1,
            ')' | ']' => self.parentheses -= 1,
            '{' => {
                if is_outside && is_function(&self.declaration) {
                    self.in_body = true;
                }
                self.braces += 1;
            }
            '}' => self.braces -= 1,
            _ => {}
        }
        if c == '}' && self.braces == 0 && self.in_body {
            self.in_body = false;
            return self.end();
        }
        self.keep(c);
        if c == ';' && is_outside {
            self.end();
        }
    }

    fn keep(&mut self, c: char) {
        if !self.in_body {
            self.declaration.push(c);
        }
    }

    fn end(&mut self) {
        let declaration = normalized(&self.declaration);
        self.declaration.clear();
        if !declaration.is_empty() {
            self.parts.push(OutlinePart::Declaration(declaration));
        }
    }
}

/// Returns true if a brace after this text opens a function's body: a parameter list or an attribute ends the text. The
/// braces of structures and initializers belong to the outline. A function that returns a structure by value counts as
/// a structure.
fn is_function(text: &str) -> bool {
    let text = text.trim();
    let begins = |word: &str| {
        let mut words = text.split_whitespace().filter(|it| !matches!(*it, "static" | "inline" | "typedef"));
        words.next() == Some(word)
    };
    let is_aggregate = ["struct", "union", "enum"].into_iter().any(begins) && !text.contains('*');
    text.ends_with(')') && !text.contains('=') && !is_aggregate
}

fn normalized(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Replaces each comment by a blank, as the compiler does.
fn without_comments(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['/', '"', '\'', '\n']) {
        kept.push_str(&rest[..at]);
        rest = &rest[at..];
        let length = if rest.starts_with("/*") {
            kept.push(' ');
            rest.find("*/").filter(|&end| end >= 2).map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else {
            let length = if rest.starts_with(['"', '\'']) { literal_length(rest) } else { 1 };
            kept.push_str(&rest[..length]);
            length
        };
        rest = &rest[length..];
    }
    kept + rest
}

/// Returns the length of the literal at the beginning of a text, in bytes. A literal ends with its line at the latest.
fn literal_length(text: &str) -> usize {
    let quote = text.chars().next();
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if c == '\n' {
            return at;
        }
        if !escaped && Some(c) == quote {
            return at + c.len_utf8();
        }
        escaped = c == '\\' && !escaped;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = r#"
/* A comment. */
#ifndef A_H
#define A_H
#define LIMIT 8	/* the
	most */
#define PAIR(a, b) \
	((a) + (b))
struct a { int x; char *name; };
struct a *find(int n);
enum kind { ONE, TWO = 5 };
static const char text[] = "a { \" // no comment";
static inline struct a *first(void)
{
	struct a *it = find(1); // a comment {
	if (!it) { return 0; }
	return it;
}
static inline int twice(int n) __must_hold(lock) { return 2 * n; }
extern int last;
#endif
"#;

    #[test]
    fn bodies_comments_and_additions_do_not_count() {
        let same = [
            ("find(1); // a comment {", "find(2); /* another } */"),
            ("{ return 2 * n; }", "{ if (n) { return n << 1; } return 0; }"),
            ("/* A comment. */", "// Another.\n\n"),
            ("8	/* the\n	most */", "8"),
            ("extern int last;", "extern int last;\nint more(int);\nstruct b { int y; };"),
            ("extern int last;", "#include <linux/b.h>\n#define OTHER 4\nextern int last;"),
            ("struct a { int x;", "struct a {\n\tint  x;"),
        ];
        for (from, to) in same {
            assert!(HEADER.contains(from), "{from}");
            let patched = HEADER.replace(from, to);
            assert_eq!(first_change(HEADER.as_bytes(), patched.as_bytes()), None, "{to}");
        }
    }

    #[test]
    fn everything_else_counts() {
        let other = [
            ("LIMIT 8", "LIMIT 9", "#define LIMIT 8"),
            ("((a) + (b))", "((a) - (b))", "#define PAIR(a, b) ((a) + (b))"),
            ("int x; char", "long x; char", "struct a { int x; char *name; };"),
            ("TWO = 5", "TWO = 6", "enum kind { ONE, TWO = 5 };"),
            ("no comment", "noise", "static const char text[] = \"a { \\\" // no comment\";"),
            ("first(void)", "first(int n)", "static inline struct a *first(void)"),
            ("extern int last;", "", "extern int last;"),
            ("extern int last;", "#undef LIMIT\nextern int last;", "#undef LIMIT"),
            ("extern int last;", "#define LIMIT 9\nextern int last;", "#define LIMIT 9"),
            ("extern int last;", "#ifdef B\nextern int last;\n#endif", "#ifdef B"),
            ("enum kind", "#pragma pack(1)\nenum kind", "#pragma pack(1)"),
        ];
        for (from, to, expected) in other {
            assert!(HEADER.contains(from), "{from}");
            let patched = HEADER.replace(from, to);
            let change = first_change(HEADER.as_bytes(), patched.as_bytes());
            assert_eq!(change.as_deref(), Some(expected), "{to}");
        }
    }

    #[test]
    fn braces_that_belong_to_data_count() {
        for (original, patched) in [
            ("struct a b = (struct a) { 1 };", "struct a b = (struct a) { 2 };"),
            ("struct __attribute__((packed)) { int x; } a;", "struct __attribute__((packed)) { int y; } a;"),
            ("static struct a make(void) { return one; }", "static struct a make(void) { return two; }"),
        ] {
            assert!(first_change(original.as_bytes(), patched.as_bytes()).is_some(), "{original}");
        }
    }

    #[test]
    fn a_header_whose_braces_do_not_match_counts_as_a_whole() {
        let header = "#ifdef A\nint f(int a) {\n#else\nint f(void) {\n#endif\nreturn 1; }\n";
        assert_eq!(first_change(header.as_bytes(), header.as_bytes()), None);
        assert!(first_change(header.as_bytes(), header.replace("return 1", "return 2").as_bytes()).is_some());
    }

    #[test]
    fn any_text_is_read() {
        for text in ["", "\"", "'", "/*", "//", "\\", "{{{", ")))", "#", "\"\\", "/*/", "\u{fffd}{\"é"] {
            assert_eq!(first_change(text.as_bytes(), text.as_bytes()), None, "{text}");
            assert!(first_change(&[0xff, b'{'], text.as_bytes()).is_some(), "{text}");
        }
    }
}
