//! Functions of an LLVM IR text (`clang -S -emit-llvm`), and what tells whether two builds have the same one.
//!
//! Two functions are the same when their text is, once numbers that only name things are replaced by what they name:
//! attribute groups (`#3`), metadata (`!7`), private constants (`@.str.5`) and struct types. The text must be without debug
//! information (`-g0`). What is not understood stays as it stands: two functions then differ, which is the safe answer.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use xxhash_rust::xxh3::Xxh3;

type Map<K, V> = HashMap<K, V, FixedState>;

/// How deep constants, types and metadata may name others before their text is taken as it stands.
const MAX_DEPTH: u8 = 12;

/// What makes a function the same one in another build. Hashes of 128 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Of its signature and body.
    pub body: u128,
    /// Of its attributes: target features, sanitizers, and whether it may be inlined at all.
    pub attributes: u128,
}

/// The parts of an IR text, by name. Borrows the text.
#[derive(Debug, Default)]
pub struct Module<'t> {
    /// `define` line and body.
    functions: Map<&'t str, Function<'t>>,
    /// What stands after `@name = ` for private constants.
    constants: Map<&'t str, &'t str>,
    /// What stands after `%name = type `.
    types: Map<&'t str, &'t str>,
    /// What stands after `attributes #n = `.
    attributes: Map<&'t str, &'t str>,
    /// What stands after `!n = `.
    metadata: Map<&'t str, &'t str>,
}

#[derive(Debug)]
struct Function<'t> {
    head: &'t str,
    body: &'t str,
}

impl<'t> Module<'t> {
    /// Takes a text apart.
    pub fn parse(text: &'t str) -> Module<'t> {
        let mut module = Module::default();
        let mut rest = text;
        while let Some((line, after)) = next_line(rest) {
            rest = after;
            if line.starts_with("define ") {
                let end = rest.find("\n}").unwrap_or(rest.len());
                let (body, after) = rest.split_at(end);
                if let Some(name) = symbol(line) {
                    module.functions.insert(name, Function { head: line, body });
                }
                rest = after.strip_prefix("\n}").unwrap_or(after);
            } else {
                module.definition(line);
            }
        }
        module
    }

    fn definition(&mut self, line: &'t str) {
        let Some((name, value)) = line.split_once(" = ") else { return };
        match name.as_bytes().first() {
            Some(b'@') if value.starts_with("private ") => self.constants.insert(unquoted(&name[1..]), value),
            Some(b'%') => self.types.insert(&name[1..], value),
            Some(b'!') => self.metadata.insert(&name[1..], value),
            Some(b'a') => match name.strip_prefix("attributes #") {
                Some(number) => self.attributes.insert(number, value),
                None => None,
            },
            _ => None,
        };
    }

    /// The names of all defined functions.
    pub fn names(&self) -> impl Iterator<Item = &'t str> {
        self.functions.keys().copied()
    }

    /// What tells the function apart from another of its name; `None` when the text does not define it.
    pub fn identity(&self, name: &str) -> Option<Identity> {
        let function = self.functions.get(name)?;
        let (mut body, mut attributes) = (Xxh3::new(), Xxh3::new());
        self.hash(function.head, &mut body, 0);
        for line in function.body.lines() {
            body.update(b"\n");
            self.hash(line, &mut body, 0);
        }
        for group in attribute_groups(function.head) {
            attributes.update(self.attributes.get(group).map_or(group, |text| text).as_bytes());
        }
        Some(Identity { body: body.digest128(), attributes: attributes.digest128() })
    }

    /// Feeds one line, with what its numbers stand for.
    fn hash(&self, line: &str, into: &mut Xxh3, depth: u8) {
        let mut rest = line;
        while let Some(at) = rest.find(['@', '%', '#', '!', ';', '"']) {
            into.update(&rest.as_bytes()[..at]);
            rest = &rest[at..];
            let mark = rest.as_bytes()[0];
            let (name, after) = match mark {
                // A comment: predecessors of a block, attributes in words.
                b';' => return,
                b'"' => {
                    let text = quoted_end(rest);
                    into.update(&rest.as_bytes()[..text]);
                    rest = &rest[text..];
                    continue;
                }
                _ => word(&rest[1..]),
            };
            rest = after;
            into.update(&[mark]);
            match mark {
                // Where inline assembly stands in its file.
                b'!' if name == "srcloc" => rest = after.find(',').map_or("", |comma| &after[comma..]),
                b'!' => self.resolved(self.metadata.get(name), name, into, depth),
                b'#' => self.resolved(self.attributes.get(name), name, into, depth),
                b'@' => match self.constants.get(name) {
                    Some(value) => self.resolved(Some(value), name, into, depth),
                    None => into.update(without_counter(name).as_bytes()),
                },
                _ => {
                    into.update(name.as_bytes());
                    if let Some(layout) = self.types.get(name) {
                        self.resolved(Some(layout), name, into, depth);
                    }
                }
            }
        }
        into.update(rest.as_bytes());
    }

    fn resolved(&self, value: Option<&&str>, name: &str, into: &mut Xxh3, depth: u8) {
        match value {
            Some(value) if depth < MAX_DEPTH => self.hash(value, into, depth + 1),
            _ => into.update(name.as_bytes()),
        }
    }
}

fn next_line(text: &str) -> Option<(&str, &str)> {
    if text.is_empty() {
        return None;
    }
    Some(text.split_once('\n').unwrap_or((text, "")))
}

/// The first `@name` of a line.
fn symbol(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once('@')?;
    Some(word(rest).0)
}

/// The identifier at the start of a text, without quotes, and what follows it.
fn word(text: &str) -> (&str, &str) {
    if text.starts_with('"') {
        let end = quoted_end(text);
        return (unquoted(&text[..end]), &text[end..]);
    }
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '$' | '-');
    text.split_at(text.find(|c| !is_part(c)).unwrap_or(text.len()))
}

/// Where the string that `text` begins with ends. LLVM writes a quote inside one as `\22`.
fn quoted_end(text: &str) -> usize {
    text[1..].find('"').map_or(text.len(), |at| at + 2)
}

fn unquoted(name: &str) -> &str {
    name.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(name)
}

/// `__UNIQUE_ID_x_12` without its number, which only counts.
fn without_counter(name: &str) -> &str {
    if name.contains("__UNIQUE_ID_") { name.trim_end_matches(|c: char| c.is_ascii_digit()) } else { name }
}

/// The numbers of the attribute groups on a `define` line.
fn attribute_groups(head: &str) -> impl Iterator<Item = &str> {
    head.split_ascii_whitespace().filter_map(|part| part.strip_prefix('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGINAL: &str = r#"
%struct.a = type { i32, %struct.b }
%struct.b = type { i64 }
@.str = private unnamed_addr constant [3 x i8] c"ab\00", align 1
@count = internal global i32 0
define internal i32 @f(ptr %0) #0 align 16 {
  %2 = getelementptr inbounds %struct.a, ptr %0, i32 0, i32 1
  call void asm sideeffect "nop # @x ; y", ""() #1, !srcloc !7
  %3 = call i32 @g(ptr @.str), !annotation !8
  ret i32 %3
}

declare i32 @g(ptr) #1
attributes #0 = { nounwind "target-features"="+a" }
attributes #1 = { nounwind }
!7 = !{i64 100}
!8 = !{!"auto-init"}
"#;

    fn identity(text: &str) -> Identity {
        Module::parse(text).identity("f").expect("f is defined")
    }

    #[test]
    fn numbers_that_only_name_things_do_not_matter() {
        let other = ORIGINAL
            .replace("@.str", "@.str.4")
            .replace("#1", "#5")
            .replace("!7", "!70")
            .replace("!8", "!80")
            .replace("i64 100", "i64 900");
        assert_eq!(identity(ORIGINAL), identity(&other));
    }

    #[test]
    fn what_the_code_depends_on_does() {
        let changes = [
            ("c\"ab\\00\"", "c\"ac\\00\""),
            ("type { i64 }", "type { i32 }"),
            ("ret i32 %3", "ret i32 0"),
            ("@g(ptr @.str)", "@h(ptr @.str)"),
            ("nop #", "nop  #"),
            ("auto-init", "auto"),
            ("@f(ptr %0)", "@f(ptr noundef %0)"),
        ];
        for (from, to) in changes {
            let other = ORIGINAL.replacen(from, to, 1);
            assert_ne!(other, ORIGINAL, "{from}");
            assert_ne!(identity(ORIGINAL).body, identity(&other).body, "{from}");
        }
    }

    #[test]
    fn attributes_are_told_apart_from_the_body() {
        let other = ORIGINAL.replace("\"+a\"", "\"+b\"");
        assert_ne!(identity(ORIGINAL).attributes, identity(&other).attributes);
    }

    #[test]
    fn damaged_texts_are_no_panic() {
        for end in 0..ORIGINAL.len() {
            let module = Module::parse(&ORIGINAL[..end]);
            let names: Vec<_> = module.names().collect();
            for name in names {
                module.identity(name);
            }
        }
    }
}
