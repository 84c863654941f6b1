//! What compilers make for the checks of the undefined-behaviour sanitizer (lib/ubsan.h): locations of checks, which the
//! kernel marks as reported, and descriptions of types. A copy of a location reports once more.

use klpx_normalize::elf::SectionId;

use crate::file::{Body, IndexedFile};

/// Returns true for a section of such data: the only variables without a name.
pub(crate) fn is_check_data(file: &IndexedFile<'_, '_>, section: SectionId) -> bool {
    label(file, section).is_some()
}

/// Returns true for a section of locations, which hold a line and a column.
pub(crate) fn holds_locations(file: &IndexedFile<'_, '_>, section: SectionId) -> bool {
    match label(file, section) {
        Some(Label::Data) => true,
        Some(Label::Unnamed) => file.is_writable(section),
        Some(Label::Type) | None => false,
    }
}

/// The label that a section is called after.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Label {
    /// GCC's label of a location.
    Data,
    /// GCC's label of a type.
    Type,
    /// The number that LLVM gives to what has no name, with the hash of the module for ThinLTO.
    Unnamed,
}

fn label(file: &IndexedFile<'_, '_>, section: SectionId) -> Option<Label> {
    let section = std::str::from_utf8(file.section_name(section)).ok()?;
    let (_, label) = section.split_once("..L")?;
    let word = label.trim_end_matches(|c: char| c.is_ascii_digit());
    let of_module = |word: &str| {
        let hash = word.strip_prefix("anon.")?.strip_suffix('.')?;
        (hash.len() == 32 && hash.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(())
    };
    match word {
        _ if word.len() == label.len() => None,
        "ubsan_data" => Some(Label::Data),
        "ubsan_type" => Some(Label::Type),
        "__unnamed_" => Some(Label::Unnamed),
        _ => of_module(word).map(|()| Label::Unnamed),
    }
}

/// Clang's description of a type (`struct type_descriptor`): kind and details, and the name. The name of a type without
/// a name is a place: `struct (unnamed at PATH:LINE:COLUMN)`.
struct Description<'d> {
    head: &'d [u8],
    name: &'d str,
}

impl<'d> Description<'d> {
    /// Reads a constant that has no name.
    fn of(file: &IndexedFile<'_, 'd>, body: Body) -> Option<Description<'d>> {
        let constant = label(file, body.section) == Some(Label::Unnamed) && !file.is_writable(body.section);
        constant.then(|| Description::read(file.bytes(body))).flatten()
    }

    fn read(bytes: &'d [u8]) -> Option<Description<'d>> {
        let (head, name) = bytes.split_at_checked(4)?;
        let name = std::str::from_utf8(name.split(|&byte| byte == 0).next()?).ok()?;
        let quoted = name.len() > 2 && name.starts_with('\'') && name.ends_with('\'');
        quoted.then_some(Description { head, name })
    }

    /// Returns the text before the first place, and each place with the text behind.
    fn parts(&self) -> Option<(&'d str, Vec<(&'d str, &'d str)>)> {
        let mut parts = self.name.split(" at ");
        let first = parts.next()?;
        let rest: Option<Vec<(&str, &str)>> = parts.map(|part| part.split_once(')')).collect();
        Some((first, rest?))
    }

    /// Returns true if two descriptions are the same in all but places, and `alike` for each pair of places.
    fn is_like(&self, other: &Description<'_>, alike: impl Fn(&str, &str) -> bool) -> bool {
        let (Some((first, places)), Some((other_first, other_places))) = (self.parts(), other.parts()) else {
            return false;
        };
        let mut pairs = places.iter().zip(&other_places);
        self.head == other.head
            && first == other_first
            && places.len() == other_places.len()
            && pairs.all(|((a, rest), (b, other_rest))| rest == other_rest && alike(a, b))
    }
}

/// Returns true if two constants of two builds describe one type. A place depends on lines above.
pub(crate) fn describe_one_type(
    (original, original_body): (&IndexedFile<'_, '_>, Body),
    (patched, patched_body): (&IndexedFile<'_, '_>, Body),
) -> bool {
    let (a, b) = (Description::of(original, original_body), Description::of(patched, patched_body));
    a.zip(b).is_some_and(|(a, b)| a.is_like(&b, |_, _| true))
}

/// Returns true for a description of a type. Its copy may be shorter.
pub(crate) fn is_type_description(file: &IndexedFile<'_, '_>, body: Body) -> bool {
    Description::of(file, body).is_some()
}

/// Returns true if a constant of the patched build and its copy describe one type, and the places lack the folder in
/// the copy: a module does not tell where it was made. Any other bytes may follow the copy.
pub(crate) fn is_without_folder(patched: &IndexedFile<'_, '_>, body: Body, copy: &[u8]) -> bool {
    let without_folder = |whole: &str, path: &str| {
        whole.strip_suffix(path).is_some_and(|folder| {
            folder.is_empty() || folder.starts_with('/') && folder.ends_with('/') && !path.starts_with('/')
        })
    };
    let descriptions = Description::of(patched, body).zip(Description::read(copy));
    descriptions.is_some_and(|(whole, copy)| whole.is_like(&copy, without_folder))
}
