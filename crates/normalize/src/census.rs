//! The census of an object's symbol names: which suffixes the compiler added, and whether a name is unique without its
//! suffixes.

use std::collections::BTreeMap;

use object::elf;

use crate::elf::{Definition, Elf, SymbolId};
use crate::name::{self, Anonymous, KINDS, SuffixKind, Suffixes};
use crate::object::{FileId, Object};

/// The counts of an object's names.
#[derive(Clone, Debug)]
pub struct Census {
    /// Defined functions, data objects and labels.
    pub symbols: usize,
    /// The number of symbols with each kind of suffix, in the order of [`KINDS`]. A name may have several suffixes.
    pub kinds: Vec<(&'static SuffixKind, usize)>,
    /// Symbols with a suffix that have no identity, such as constants: nobody looks them up. The counts below leave
    /// them out.
    pub anonymous: usize,
    /// Symbols with a suffix, and how many of them are the only ones of their name without the suffix.
    pub suffixed: Uniqueness,
    /// The same counts for promoted names.
    pub promoted: Uniqueness,
    /// Names with a suffix that share the rest of the name with other symbols, sorted by the rest.
    pub ambiguous: Vec<Shared>,
}

/// How many of some names are unique.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uniqueness {
    /// The number of names.
    pub all: usize,
    /// The number of names that no other symbol has once suffixes are removed.
    pub unique: usize,
}

impl Uniqueness {
    fn add(&mut self, count: usize, alone: bool) {
        self.all += count;
        self.unique += if alone { count } else { 0 };
    }
}

/// Symbols that have the same name without the compiler's suffixes. At least one of the symbols has a suffix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// The name without suffixes that may differ between builds.
    pub base: String,
    /// True if a promoted name is among the members.
    pub promoted: bool,
    /// Each symbol's own name and source file. The file is empty if the object does not name one.
    pub members: Vec<(String, String)>,
}

/// Counts an object's names.
pub fn census(object: &Object<'_>) -> Census {
    let elf = &object.elf;
    let mut by_key: BTreeMap<(&[u8], Suffixes), Vec<SymbolId>> = BTreeMap::new();
    let mut kinds = vec![0; KINDS.len()];
    let (mut symbols, mut anonymous) = (0, 0);
    for id in elf.symbol_ids().filter(|&id| counts(elf, id)) {
        let canonical = name::canonical(elf.symbol_name(id));
        symbols += 1;
        for (kind, count) in KINDS.iter().zip(&mut kinds) {
            *count += usize::from(canonical.suffixes.contains(kind.kind));
        }
        if has_identity(elf, id) {
            by_key.entry(canonical.key()).or_default().push(id);
        } else {
            anonymous += usize::from(!canonical.suffixes.is_empty());
        }
    }
    let mut census = Census {
        symbols,
        kinds: KINDS.iter().zip(kinds).filter(|(_, count)| *count > 0).collect(),
        anonymous,
        suffixed: Uniqueness::default(),
        promoted: Uniqueness::default(),
        ambiguous: Vec::new(),
    };
    let suffixes = |id: SymbolId| name::canonical(elf.symbol_name(id)).suffixes;
    for ((base, _), members) in by_key {
        let number = |test: fn(Suffixes) -> bool| members.iter().filter(|&&id| test(suffixes(id))).count();
        let (suffixed, promoted) = (number(|suffixes| !suffixes.is_empty()), number(Suffixes::promoted));
        census.suffixed.add(suffixed, members.len() == 1);
        census.promoted.add(promoted, members.len() == 1);
        if suffixed > 0 && members.len() > 1 {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let member =
                |&id: &SymbolId| (text(elf.symbol_name(id)), text(object.file_name(unit(object, id))));
            let mut members: Vec<_> = members.iter().map(member).collect();
            members.sort();
            census.ambiguous.push(Shared { base: text(base), promoted: promoted > 0, members });
        }
    }
    census
}

fn has_identity(elf: &Elf<'_>, id: SymbolId) -> bool {
    let Some(section) = elf.symbol_section(id) else { return true };
    let flags = elf.section_flags(section);
    let lies_there = |why: Anonymous| why.lies_in(elf.section_name(section), flags & elf::SHF_WRITE.0 != 0);
    flags & elf::SHF_EXECINSTR.0 != 0 || !name::anonymous(elf.symbol_name(id)).is_some_and(lies_there)
}

/// Returns true for a named symbol that a section of this object defines. Sections, files and mapping symbols do not
/// count.
fn counts(elf: &Elf<'_>, id: SymbolId) -> bool {
    let name = elf.symbol_name(id);
    elf.symbol_type(id) < elf::STT_SECTION.0
        && matches!(elf.definition(id), Definition::Section(_))
        && !name.is_empty()
        && !name::is_mapping_symbol(name)
}

fn unit(object: &Object<'_>, id: SymbolId) -> FileId {
    match object.symbol_item(id) {
        Some(item) if object.item(item).symbol == id => object.unit(item),
        _ => object.symbol_file(id),
    }
}
