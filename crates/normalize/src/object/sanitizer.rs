//! What a compiler makes for the checks of the undefined-behaviour sanitizer (CONFIG_UBSAN, lib/ubsan.h): the location
//! of each check, and descriptions of types. With `-fdata-sections` each of these has a section, but no symbol.
//!
//! A location is writable, because the kernel's handler marks it as reported (`was_reported`, lib/ubsan.c). A copy of
//! the location reports once more. Nothing else depends on the mark.

use crate::elf::{Elf, SectionId};
use crate::object::Object;
use ::object::elf::SHF_WRITE;

/// The bytes of line and column in a location (`struct source_location`, lib/ubsan.h).
pub const LINE_AND_COLUMN: std::ops::Range<u64> = 8..16;

/// What a section holds for the sanitizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CheckData {
    /// Begins with the location of a check.
    Location,
    /// Describes a type.
    Type,
}

impl Object<'_> {
    /// Returns true for the section of a check's data, which begins with file, line and column of the check.
    pub fn is_check_location(&self, section: SectionId) -> bool {
        check_data(&self.elf, section) == Some(CheckData::Location)
    }

    /// Returns true for a section that holds nothing but data of the sanitizer.
    pub fn is_check_data(&self, section: SectionId) -> bool {
        check_data(&self.elf, section).is_some()
    }
}

fn check_data(elf: &Elf<'_>, section: SectionId) -> Option<CheckData> {
    of_label(label(elf.section_name(section))?, elf.section_flags(section) & SHF_WRITE.0 != 0)
}

/// Returns the local label in the name of a label's own section: `ubsan_data3` of `.data..Lubsan_data3`.
fn label(section: &[u8]) -> Option<&[u8]> {
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
        b"__unnamed_" if writable => Some(CheckData::Location),
        _ if hashed && writable => Some(CheckData::Location),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_of_checks_are_known_by_the_compilers_labels() {
        use CheckData::{Location, Type};
        let hashed = format!(".data..Lanon.{}.18", "0123456789abcdef".repeat(2));
        for (section, writable, expected) in [
            (".data..Lubsan_data12", true, Some(Location)),
            (".data..Lubsan_type0", true, Some(Type)),
            (".data..L__unnamed_3", true, Some(Location)),
            (&hashed, true, Some(Location)),
            // A constant without a name may be anything.
            (".rodata..L__unnamed_3", false, None),
            (&hashed.replace(".data", ".rodata"), false, None),
            (".data..Lubsan_data", true, None),
            (".data..Lubsan_database1", true, None),
            (".data..L__unnamed_x", true, None),
            (".data..Lanon.0123.18", true, None),
            (&hashed.replace("anon.0", "anon.g"), true, None),
            (".data.ubsan_data1", true, None),
            (".data", true, None),
        ] {
            let found = label(section.as_bytes()).and_then(|label| of_label(label, writable));
            assert_eq!(found, expected, "{section}");
        }
    }
}
