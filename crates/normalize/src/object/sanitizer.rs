//! What a compiler makes for the checks of the undefined-behaviour sanitizer (CONFIG_UBSAN, lib/ubsan.h): the location
//! of each check, and descriptions of types. With `-fdata-sections` each of these has a section, but no symbol.
//!
//! A location is writable, because the kernel's handler marks it as reported (`was_reported`, lib/ubsan.c). A copy of
//! the location reports once more. Nothing else depends on the mark.

use std::ops::Range;

use crate::elf::{Elf, SectionId};
use crate::object::Object;
use ::object::elf::SHF_WRITE;

/// The bytes of line and column in a location (`struct source_location`, lib/ubsan.h).
pub const LINE_AND_COLUMN: Range<u64> = 8..16;

/// Stands before a place in the name of a type.
pub(super) const AT: &[u8] = b" at ";

/// The most bytes of a place: a path (PATH_MAX, include/uapi/linux/limits.h), line and column.
const MAX_PLACE: usize = 4096 + 32;

/// What a section holds for the sanitizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CheckData {
    /// Begins with the location of a check.
    Location,
    /// Describes a type.
    Type,
    /// A constant of Clang's without a name: it describes a type if its contents have this form.
    Constant,
}

impl Object<'_> {
    /// Returns true for the section of a check's data, which begins with file, line and column of the check.
    pub fn is_check_location(&self, section: SectionId) -> bool {
        check_data(&self.elf, section) == Some(CheckData::Location)
    }

    /// Returns true for a section that holds nothing but data of the sanitizer.
    pub fn is_check_data(&self, section: SectionId) -> bool {
        matches!(check_data(&self.elf, section), Some(CheckData::Location | CheckData::Type))
    }

    /// Returns true for a section that holds nothing but Clang's description of a type. Places in the type's name
    /// ([`places_in_type`]) depend on where the source was compiled, and on lines above.
    pub fn is_type_description(&self, section: SectionId) -> bool {
        check_data(&self.elf, section) == Some(CheckData::Constant)
            && type_description(self.elf.section_bytes(section)).is_some()
    }
}

/// Returns the description of a type at the start of some bytes, with its NUL (`struct type_descriptor`, lib/ubsan.h):
/// the kind (integer, float, or none of these), details, and the name in quotes.
pub fn type_description(bytes: &[u8]) -> Option<&[u8]> {
    let kind = u16::from_le_bytes([*bytes.first()?, *bytes.get(1)?]);
    let name = bytes.get(4..)?;
    let end = name.iter().position(|&byte| byte == 0)?;
    let quoted = end > 1 && name[0] == b'\'' && name[end - 1] == b'\'';
    (quoted && matches!(kind, 0..=2 | u16::MAX)).then(|| &bytes[..4 + end + 1])
}

/// Returns the places in a text about types: each ` at PATH:LINE:COLUMN` before a closing parenthesis. Clang writes a
/// place for a type without a name, as in `struct (unnamed at kernel/a.c:7:1)` (`TypePrinter::printTag`, clang/lib/AST/
/// TypePrinter.cpp).
pub fn places_in_type(text: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(start) = text[from..].windows(AT.len()).position(|part| part == AT).map(|n| from + n) {
        from = start + AT.len();
        let mut ends = from..text.len().min(from + MAX_PLACE);
        let is_end = |&end: &usize| text[end] == b')' && ends_with_line_and_column(&text[from..end]);
        if let Some(end) = ends.find(is_end) {
            found.push(start..end);
            from = end;
        }
    }
    found
}

/// Returns a text about types without the places in it.
pub fn without_places(text: &[u8]) -> Vec<u8> {
    let mut rest = Vec::with_capacity(text.len());
    let mut from = 0;
    for place in places_in_type(text) {
        rest.extend_from_slice(&text[from..place.start]);
        from = place.end;
    }
    rest.extend_from_slice(&text[from..]);
    rest
}

fn ends_with_line_and_column(text: &[u8]) -> bool {
    let before_number = |text: &[u8]| {
        let digits = text.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
        let rest = &text[..text.len() - digits];
        rest.strip_suffix(b":").filter(|rest| digits > 0 && !rest.is_empty()).map(<[u8]>::len)
    };
    before_number(text).and_then(|end| before_number(&text[..end])).is_some()
}

fn check_data(elf: &Elf<'_>, section: SectionId) -> Option<CheckData> {
    of_label(local_label(elf.section_name(section))?, elf.section_flags(section) & SHF_WRITE.0 != 0)
}

/// Returns the local label in the name of a label's own section: `ubsan_data3` of `.data..Lubsan_data3`.
pub(super) fn local_label(section: &[u8]) -> Option<&[u8]> {
    const LABEL: &[u8] = b"..L";
    let at = section.windows(LABEL.len()).position(|part| part == LABEL)?;
    Some(&section[at + LABEL.len()..])
}

/// GCC numbers the two kinds (`ubsan_create_data` and `ubsan_type_descriptor`, gcc/ubsan.cc). Clang gives neither kind
/// a name and makes types constant (`EmitCheck`, clang/lib/CodeGen/CGExpr.cpp), so that locations are the only writable
/// ones of these. LLVM numbers what has no name. For ThinLTO it adds a hash (llvm/lib/Transforms/Utils/
/// NameAnonGlobals.cpp).
fn of_label(label: &[u8], writable: bool) -> Option<CheckData> {
    let digits = label.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let word = &label[..label.len() - digits];
    let hash = word.strip_prefix(b"anon.").and_then(|rest| rest.strip_suffix(b"."));
    let hashed = hash.is_some_and(|hash| hash.len() == 32 && hash.iter().all(u8::is_ascii_hexdigit));
    match word {
        _ if digits == 0 => None,
        b"ubsan_data" => Some(CheckData::Location),
        b"ubsan_type" => Some(CheckData::Type),
        _ if word != b"__unnamed_" && !hashed => None,
        _ if writable => Some(CheckData::Location),
        _ => Some(CheckData::Constant),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_of_checks_are_known_by_the_compilers_labels() {
        use CheckData::{Constant, Location, Type};
        let hashed = format!(".data..Lanon.{}.18", "0123456789abcdef".repeat(2));
        for (section, writable, expected) in [
            (".data..Lubsan_data12", true, Some(Location)),
            (".data..Lubsan_type0", true, Some(Type)),
            (".data..L__unnamed_3", true, Some(Location)),
            (&hashed, true, Some(Location)),
            (".rodata..L__unnamed_3", false, Some(Constant)),
            (&hashed.replace(".data", ".rodata"), false, Some(Constant)),
            (".data..Lubsan_data", true, None),
            (".data..Lubsan_database1", true, None),
            (".data..L__unnamed_x", true, None),
            (".data..Lanon.0123.18", true, None),
            (&hashed.replace("anon.0", "anon.g"), true, None),
            (".data.ubsan_data1", true, None),
            (".data", true, None),
        ] {
            let found = local_label(section.as_bytes()).and_then(|label| of_label(label, writable));
            assert_eq!(found, expected, "{section}");
        }
    }

    #[test]
    fn a_description_has_a_kind_and_a_name_in_quotes() {
        let whole: [&[u8]; 3] =
            [b"\0\0\x0b\0'int'\0", b"\xff\xff\0\0'struct x[2]'\0", b"\x01\0\x20\0'float'\0"];
        for bytes in whole {
            assert_eq!(type_description(bytes), Some(bytes));
            assert_eq!(type_description(&[bytes, b"more\0"].concat()), Some(bytes));
            assert_eq!(type_description(&bytes[..bytes.len() - 1]), None, "no end");
        }
        let others: [&[u8]; 6] =
            [b"", b"\0\0\0", b"\0\0\0\0int\0", b"\0\0\0\0'int\0", b"\0\0\0\0'\0", b"\x07\0\0\0'int'\0"];
        for bytes in others {
            assert_eq!(type_description(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn places_of_types_without_a_name_are_found() {
        for (text, without) in [
            ("'struct (unnamed at /a b/c.c:7:1)'", "'struct (unnamed)'"),
            ("'struct (unnamed struct at k/c).c:70:12)[4]'", "'struct (unnamed struct)[4]'"),
            (
                "'f (enum (unnamed at a.h:1:2), union (unnamed at b.h:3:4))'",
                "'f (enum (unnamed), union (unnamed))'",
            ),
            ("'int'", "'int'"),
            ("'struct (unnamed at a.c:7)'", "'struct (unnamed at a.c:7)'"),
            ("'struct (unnamed at :7:1)'", "'struct (unnamed at :7:1)'"),
            ("'struct (unnamed at a.c:7:1'", "'struct (unnamed at a.c:7:1'"),
            ("'struct (unnamed at a.c:7:x)'", "'struct (unnamed at a.c:7:x)'"),
            (" at ", " at "),
        ] {
            assert_eq!(String::from_utf8(without_places(text.as_bytes())).unwrap(), without);
        }
    }
}
