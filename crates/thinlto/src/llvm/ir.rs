//! Functions of an LLVM IR text (`clang -S -emit-llvm`, `llvm-dis`), and how to tell whether a function is the same in
//! two builds.
//!
//! Two functions are the same if their texts are equal, once numbers that only name things are replaced by the named
//! things: attribute groups (`#3`), metadata (`!7`), private constants (`@.str.5`) and struct types. Debug information
//! is skipped, and so are places of the source in the data of a sanitizer's check. Text that is not understood is left
//! unchanged: two functions then differ, which is the safe answer.

use std::borrow::Cow;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use klpx_normalize::object::without_places;
use xxhash_rust::xxh3::Xxh3;

type Map<K, V> = HashMap<K, V, FixedState>;

/// How deeply constants, types and metadata may refer to others before their text is taken unchanged.
const MAX_DEPTH: u8 = 12;

/// What identifies a function as the same in another build, as hashes of 128 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The hash of the function's signature and body.
    pub body: u128,
    /// The hash of the function's attributes: target features, sanitizers, and whether it may be inlined at all.
    pub attributes: u128,
}

/// The parts of an IR text, by name. Borrows the text.
#[derive(Debug, Default)]
pub struct IrModule<'t> {
    /// The `define` lines and bodies.
    functions: Map<&'t str, IrFunction<'t>>,
    /// The `declare` lines.
    declarations: Map<&'t str, &'t str>,
    /// The text after `@name = ` for private constants.
    constants: Map<&'t str, &'t str>,
    /// The text after `@name = ` for all other variables and aliases.
    variables: Map<&'t str, &'t str>,
    /// The module-level assembly of the unit.
    assembly: Vec<&'t str>,
    /// The text after `%name = type `.
    types: Map<&'t str, &'t str>,
    /// The text after `attributes #n = `.
    attributes: Map<&'t str, &'t str>,
    /// The text after `!n = `.
    metadata: Map<&'t str, &'t str>,
}

#[derive(Debug)]
struct IrFunction<'t> {
    head: &'t str,
    body: &'t str,
}

impl<'t> IrModule<'t> {
    /// Splits a text into its parts.
    pub fn parse(text: &'t str) -> IrModule<'t> {
        let mut module = IrModule::default();
        let mut rest = text;
        while let Some((line, after)) = next_line(rest) {
            rest = after;
            if line.starts_with("define ") {
                let end = rest.find("\n}").unwrap_or(rest.len());
                let (body, after) = rest.split_at(end);
                if let Some(name) = symbol(line) {
                    module.functions.insert(name, IrFunction { head: line, body });
                }
                rest = after.strip_prefix("\n}").unwrap_or(after);
            } else if line.starts_with("declare ") {
                module.declarations.extend(symbol(line).map(|name| (name, line)));
            } else if line.starts_with("module asm ") {
                module.assembly.push(line);
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
            Some(b'@') => self.variables.insert(unquoted(&name[1..]), value),
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

    /// The identity of a function; `None` if the text does not define the function.
    pub fn identity(&self, name: &str) -> Option<Identity> {
        let function = self.functions.get(name)?;
        let mut attributes = Xxh3::new();
        for group in attribute_groups(function.head) {
            attributes.update(self.attributes.get(group).map_or(group, |text| text).as_bytes());
        }
        Some(Identity {
            body: self.body(function, NameCounting::ByContent),
            attributes: attributes.digest128(),
        })
    }

    /// Returns true if everything that another unit can import from this one is, to the letter, what it can import from
    /// `other`, an earlier build of this unit. A backend that imports then gives the same code for both. `limit` is the
    /// thin link's import limit in instructions (`-import-instr-limit`).
    ///
    /// Functions above the limit are never imported (lib/Transforms/IPO/FunctionImport.cpp) unless they are
    /// `alwaysinline`. But what LLVM inferred about them comes along with their importing callers, so their signatures
    /// and attributes count. With a profile, the limit depends on the call: the builds then never count as the same.
    pub fn offers_the_same_as(&self, other: &IrModule<'t>, limit: usize) -> bool {
        let profiled =
            |module: &IrModule<'_>| module.metadata.values().any(|text| text.contains("ProfileSummary"));
        let line = |module: &IrModule<'_>, line: &str| {
            let mut hash = Xxh3::new();
            module.hash(line, &mut hash, NameCounting::Literal, 0);
            hash.digest128()
        };
        let same_lines = |own_lines: &Map<&str, &str>, other_lines: &Map<&str, &str>, may_go: bool| {
            other_lines.iter().filter(|(name, _)| !name.starts_with("llvm.")).all(|(name, text)| {
                match own_lines.get(name) {
                    Some(own) => line(self, own) == line(other, text),
                    None => may_go,
                }
            })
        };
        let same_function = |name: &str, function: &IrFunction<'_>| match self.functions.get(name) {
            // A unit that imported the function finds that it is gone. For LLVM this is another link.
            None => true,
            Some(own) => {
                let small = own.instructions() <= 2 * limit && function.instructions() <= 2 * limit;
                let imported = small || other.is_forced(function);
                let same = |names| self.body(own, names) == other.body(function, names);
                line(self, own.head) == line(other, function.head)
                    && (!imported || same(NameCounting::Literal))
            }
        };
        !profiled(self)
            && !profiled(other)
            && self.assembly == other.assembly
            && same_lines(&self.variables, &other.variables, false)
            && same_lines(&self.declarations, &other.declarations, true)
            && other.functions.iter().all(|(name, function)| same_function(name, function))
    }

    /// Returns true if the function is inlined wherever possible, and so imported whatever its size.
    fn is_forced(&self, function: &IrFunction<'_>) -> bool {
        let forced =
            |attributes: &str| attributes.split_ascii_whitespace().any(|word| word == "alwaysinline");
        attribute_groups(function.head)
            .any(|group| self.attributes.get(group).is_none_or(|text| forced(text)))
    }

    fn body(&self, function: &IrFunction<'_>, names: NameCounting) -> u128 {
        let mut hash = Xxh3::new();
        self.hash(function.head, &mut hash, names, 0);
        for line in function.body.lines().filter(|line| !line.trim_start().starts_with("#dbg_")) {
            hash.update(b"\n");
            self.hash(line, &mut hash, names, 0);
        }
        hash.digest128()
    }

    /// Hashes one line, with its numbers replaced by what they stand for.
    fn hash(&self, line: &str, into: &mut Xxh3, names: NameCounting, depth: u8) {
        let mut rest = line;
        while let Some(at) = rest.find(['@', '%', '#', '!', ';', '"']) {
            let (before, from) = rest.split_at(at);
            let mark = from.as_bytes()[0];
            let (name, after) = word(&from[1..]);
            if mark == b'!' && (name == "dbg" || name == "srcloc") {
                // `!dbg` and `!srcloc` only say the place in the source file.
                into.update(before.trim_end().trim_end_matches(',').as_bytes());
                rest = after_metadata(after);
                continue;
            }
            into.update(before.as_bytes());
            match mark {
                // A comment: a block's predecessors, or attributes in words.
                b';' => return,
                b'"' => {
                    let (text, after) = from.split_at(quoted_end(from));
                    into.update(text.as_bytes());
                    rest = after;
                    continue;
                }
                _ => into.update(&[mark]),
            }
            rest = after;
            let mut resolved = |value: Option<&&str>| match value {
                Some(value) if is_debug(value) => {}
                Some(value) if depth < MAX_DEPTH => self.hash(value, into, names, depth + 1),
                _ => into.update(name.as_bytes()),
            };
            match mark {
                b'!' => resolved(self.metadata.get(name)),
                b'#' => resolved(self.attributes.get(name)),
                b'@' => match (self.constants.get(name), names) {
                    (Some(value), NameCounting::ByContent) => {
                        resolved(Some(&&*without_place(value)));
                    }
                    (None, NameCounting::ByContent) => into.update(without_counter(name).as_bytes()),
                    (value, NameCounting::Literal) => {
                        into.update(name.as_bytes());
                        if let Some(value) = value.filter(|_| depth < MAX_DEPTH) {
                            self.hash(value, into, names, depth + 1);
                        }
                    }
                },
                _ => {
                    into.update(name.as_bytes());
                    if let Some(layout) = self.types.get(name).filter(|_| depth < MAX_DEPTH) {
                        self.hash(layout, into, names, depth + 1);
                    }
                }
            }
        }
        into.update(rest.as_bytes());
    }
}

/// How names of private constants and counters count.
#[derive(Clone, Copy, PartialEq, Eq)]
enum NameCounting {
    /// Only the named contents count.
    ByContent,
    /// The names count as well: another unit knows the constant or counter by name.
    Literal,
}

impl IrFunction<'_> {
    /// The number of instructions. Each has one line, indented by two spaces; the cases of a switch are indented
    /// further.
    fn instructions(&self) -> usize {
        let is_instruction =
            |line: &&str| line.starts_with("  ") && !line[2..].starts_with([' ', ']', '#', ';']);
        self.body.lines().filter(is_instruction).count()
    }
}

/// Takes places of the source out of the data of a sanitizer's check (`EmitCheck`, clang/lib/CodeGen/CGExpr.cpp): line
/// and column of a location, which is a private variable that begins with the file's name; and the place of a type
/// without a name, in a private constant that describes the type. Any other text stays whole.
fn without_place(value: &str) -> Cow<'_, str> {
    const LOCATION: &str = "{ { ptr, i32, i32 } { ptr @";
    const TYPE: &str = "private unnamed_addr constant { i16, i16, [";
    let location = || {
        let (kind, _) = value.split_once(" { ")?;
        let at = value.find(LOCATION).filter(|_| kind == "private unnamed_addr global")?;
        let (line, behind) = value[at + LOCATION.len()..].split_once(" }")?;
        let file = line.split(", ").next()?;
        Some(format!("{}{behind}", &value[..at + LOCATION.len() + file.len()]))
    };
    let description = || {
        let (_, contents) = value.strip_prefix(TYPE)?.split_once("] } { ")?;
        let (kind, name) = contents.split_once(", [")?;
        let name =
            name.split_once(" x i8] c").map(|(_, name)| name).filter(|name| name.starts_with("\"'"))?;
        Some(format!("{TYPE}{kind}, {}", String::from_utf8_lossy(&without_places(name.as_bytes()))))
    };
    location().or_else(description).map_or(Cow::Borrowed(value), Cow::Owned)
}

/// Returns true for the text of metadata that only debuggers read.
fn is_debug(value: &str) -> bool {
    value.strip_prefix("distinct ").unwrap_or(value).starts_with("!DI")
}

/// The text after ` !7`.
fn after_metadata(text: &str) -> &str {
    text.strip_prefix(" !").map_or(text, |rest| word(rest).1)
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

/// The identifier at the start of a text, without quotes, and the rest of the text.
fn word(text: &str) -> (&str, &str) {
    if text.starts_with('"') {
        let end = quoted_end(text);
        return (unquoted(&text[..end]), &text[end..]);
    }
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '$' | '-');
    text.split_at(text.find(|c| !is_part(c)).unwrap_or(text.len()))
}

/// The end of the string with which `text` begins. LLVM writes a quote inside a string as `\22`.
fn quoted_end(text: &str) -> usize {
    text[1..].find('"').map_or(text.len(), |at| at + 2)
}

fn unquoted(name: &str) -> &str {
    name.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(name)
}

/// `__UNIQUE_ID_x_12` without its number, which is only a counter.
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
        IrModule::parse(text).identity("f").expect("f is defined")
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
    fn only_the_place_of_a_check_does_not_matter() {
        const CHECK: &str = "@.str = private unnamed_addr global { { ptr, i32, i32 }, ptr } \
            { { ptr, i32, i32 } { ptr @.src, i32 2, i32 25 }, ptr @5, ptr @6 }\n\
            @.src = private unnamed_addr constant [4 x i8] c\"a.c\\00\"\n\
            @5 = private unnamed_addr constant { i16 } { i16 11 }\n\
            @6 = private unnamed_addr constant { i16, i16, [36 x i8] } \
            { i16 -1, i16 0, [36 x i8] c\"'struct (unnamed at /a/b.c:9:1)[3]'\\00\" }\n@.old =";
        let checked = ORIGINAL.replace("@.str =", CHECK);
        let same = |from: &str, to: &str| {
            let other = checked.replacen(from, to, 1);
            assert_ne!(other, checked, "{from}");
            identity(&checked) == identity(&other)
        };
        assert!(same("i32 2, i32 25", "i32 31, i32 7"));
        assert!(same("/a/b.c:9:1", "b.c:9:12"));
        assert!(same("[36 x i8] } ", "[37 x i8] } "), "the length of the place");
        for (from, to) in [
            ("a.c", "b.c"),
            ("i16 11", "i16 12"),
            ("ptr @5,", "ptr @.src,"),
            ("b.c:9:1", "b.c:9"),
            ("struct (", "union ("),
            ("[3]'", "[4]'"),
            ("i16 -1", "i16 1"),
            ("unnamed_addr global", "unnamed_addr constant"),
        ] {
            assert!(!same(from, to), "{from}");
        }
        let constant = checked.replacen("unnamed_addr global", "unnamed_addr constant", 1);
        let moved = constant.replacen("i32 2,", "i32 3,", 1);
        assert_ne!(identity(&constant), identity(&moved), "only the sanitizer's variables have a place");
    }

    #[test]
    fn attributes_are_told_apart_from_the_body() {
        let other = ORIGINAL.replace("\"+a\"", "\"+b\"");
        assert_ne!(identity(ORIGINAL).attributes, identity(&other).attributes);
    }

    #[test]
    fn debug_information_is_passed_over() {
        let mut other = ORIGINAL
            .replace("ret i32 %3", "  #dbg_value(i32 %3, !9, !DIExpression(), !10)\n  ret i32 %3, !dbg !10")
            .replace("align 16 {", "align 16 !dbg !9 {");
        other.push_str("!9 = distinct !DISubprogram(name: \"f\")\n!10 = !DILocation(line: 3, scope: !9)\n");
        assert_eq!(identity(ORIGINAL), identity(&other));
        let holding = |number: u32, contents: &str| {
            let ret = format!("ret i32 %3, !heapallocsite !{number}");
            format!("{}!{number} = {contents}\n", ORIGINAL.replace("ret i32 %3", &ret))
        };
        let a = holding(9, "!DIBasicType(name: \"a\")");
        assert_eq!(identity(&a), identity(&holding(10, "distinct !DIBasicType(name: \"b\")")));
        assert_ne!(identity(&a).body, identity(&holding(9, "!{i64 1}")).body, "no debug information");
    }

    fn offers_the_same(original: &str, patched: &str, limit: usize) -> bool {
        IrModule::parse(patched).offers_the_same_as(&IrModule::parse(original), limit)
    }

    #[test]
    fn what_can_be_imported_must_be_the_same_to_the_letter() {
        assert!(offers_the_same(ORIGINAL, ORIGINAL, 5));
        let changes = [
            ("ret i32 %3", "ret i32 0"),
            // A string under another name.
            ("@.str", "@.str.4"),
            ("internal global i32 0", "internal global i32 1"),
            ("@g(ptr) #1", "@g(ptr) #0"),
            ("type { i64 }", "type { i32 }"),
            // Changed contents of a constant that keeps its name.
            ("c\"ab\\00\"", "c\"ac\\00\""),
            // A removed variable.
            ("@count = internal global i32 0\n", ""),
            ("@count =", "module asm \"nop\"\n@count ="),
        ];
        for (from, to) in changes {
            assert!(ORIGINAL.contains(from));
            assert!(!offers_the_same(ORIGINAL, &ORIGINAL.replace(from, to), 5), "{from}");
        }
        let added = format!("{ORIGINAL}\n@more = internal global i32 0\n@.str.9 = private constant i8 0\n");
        assert!(offers_the_same(ORIGINAL, &added, 5), "nobody knew of it");
    }

    #[test]
    fn a_function_above_the_limit_counts_by_its_attributes_only() {
        let patched = ORIGINAL.replace("ret i32 %3", "ret i32 0");
        assert!(offers_the_same(ORIGINAL, &patched, 1), "four instructions are more than twice the limit");
        assert!(!offers_the_same(ORIGINAL, &patched.replace("\"+a\"", "\"+b\""), 1));
        assert!(!offers_the_same(ORIGINAL, &patched.replace("ptr %0)", "ptr noundef %0)"), 1));
    }

    #[test]
    fn a_function_that_is_inlined_whatever_its_size_counts_with_its_body() {
        let forced = ORIGINAL.replace("{ nounwind \"target", "{ alwaysinline nounwind \"target");
        assert_ne!(forced, ORIGINAL);
        assert!(!offers_the_same(&forced, &forced.replace("ret i32 %3", "ret i32 0"), 1));
        assert!(offers_the_same(&forced, &forced, 1));
    }

    #[test]
    fn damaged_texts_are_no_panic() {
        for end in 0..ORIGINAL.len() {
            let module = IrModule::parse(&ORIGINAL[..end]);
            let names: Vec<_> = module.names().collect();
            for name in names {
                module.identity(name);
            }
        }
    }

    #[test]
    fn lists_of_llvms_own_are_no_offer_and_with_a_profile_nothing_is() {
        let listed = format!("{ORIGINAL}\n@llvm.used = appending global [1 x ptr] [ptr @count]\n");
        assert!(offers_the_same(&listed, &listed.replace("@count]", "@f]"), 5));
        assert!(offers_the_same(&listed, ORIGINAL, 5));
        let profiled = format!("{ORIGINAL}\n!9 = !{{!\"ProfileSummary\", !7}}\n");
        for (original, patched) in [(ORIGINAL, &profiled[..]), (&profiled, ORIGINAL), (&profiled, &profiled)]
        {
            assert!(!offers_the_same(original, patched, 5));
        }
    }

    #[test]
    fn a_function_counts_as_imported_only_where_both_are_small() {
        let body = ORIGINAL
            .split_once("align 16 {\n")
            .and_then(|(_, rest)| rest.split_once("}\n"))
            .expect("a body")
            .0;
        let small = ORIGINAL.replace(body, "  ret i32 0\n");
        let other = ORIGINAL.replace(body, "  ret i32 1\n");
        assert!(!offers_the_same(&small, &other, 1), "both are imported");
        assert!(offers_the_same(ORIGINAL, &small, 1), "nobody has imported the original");
        assert!(offers_the_same(&small, ORIGINAL, 1), "who has imported it can't any more");
    }

    #[test]
    fn numbers_of_unique_names_do_not_matter() {
        let text = |number: u32| ORIGINAL.replace("ptr @.str", &format!("ptr @__UNIQUE_ID_x_{number}"));
        assert_eq!(identity(&text(12)), identity(&text(345)));
        assert_ne!(identity(&text(12)).body, identity(&text(12).replace("ID_x_", "ID_y_")).body);
    }
}
