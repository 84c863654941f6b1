//! Pairs the two builds of a unit: which thing of the patched build is which thing of the original.
//!
//! A name that occurs once in each build is enough. For all other names (numbers that a compiler gives, one name in
//! several files) the comparison that made the change set has to provide the pair. These claims are inputs. Each claim
//! is used so that a wrong claim shows, as a function that differs without being replaced or as a reference that leads
//! to the wrong place.

use std::collections::{BTreeMap, BTreeSet};

use klpx_diagnosis::Offset;
use klpx_normalize::elf::{Elf, SymbolId};
use klpx_normalize::name::{type_id, without_promotion};
use object::elf;

use crate::VerifiedUnit;
use crate::entries::{self, EntryRow};
use crate::file::{Body, IndexedFile};
use crate::unwind::Unwind;

/// The section in which objtool and the linker find sets of BTF numbers (include/linux/btf_ids.h).
const TYPE_IDS: &[u8] = b".BTF_ids";

/// A unit in both builds.
pub(crate) struct BuildPair<'e, 'd> {
    pub(crate) object: &'e str,
    pub(crate) original: IndexedFile<'e, 'd>,
    pub(crate) patched: IndexedFile<'e, 'd>,
    pub(crate) claims: &'e BTreeMap<SymbolId, Option<SymbolId>>,
    pub(crate) gave_way: &'e BTreeSet<SymbolId>,
    /// True for the module's own glue, all of which is new.
    pub(crate) glue: bool,
    /// Rows of special sections of both builds.
    pub(crate) rows: (Vec<EntryRow>, Vec<EntryRow>),
    /// Unwind data of both builds.
    pub(crate) unwind: (Unwind<'d>, Unwind<'d>),
    names: BTreeMap<ThingKey<'e>, Vec<SymbolId>>,
    patched_names: BTreeMap<ThingKey<'e>, Vec<SymbolId>>,
}

/// A name, and whether it names code.
type ThingKey<'e> = (&'e [u8], bool);

/// Returns a name without the parts that differ between two builds of one thing.
pub(crate) fn plain(name: &[u8]) -> &[u8] {
    type_id(name).unwrap_or_else(|| without_promotion(name))
}

fn names<'e>(elf: &'e Elf<'_>, file: &IndexedFile<'_, '_>) -> BTreeMap<ThingKey<'e>, Vec<SymbolId>> {
    let mut found: BTreeMap<ThingKey<'e>, Vec<SymbolId>> = BTreeMap::new();
    for id in file.defined() {
        let code = elf.symbol_section(id).is_some_and(|section| file.is_code(section));
        found.entry((plain(elf.symbol_name(id)), code)).or_default().push(id);
    }
    found
}

impl<'e, 'd> BuildPair<'e, 'd> {
    pub(crate) fn read(unit: &'e VerifiedUnit<'e, 'd>) -> Option<BuildPair<'e, 'd>> {
        let arch = klpx_normalize::arch::Arch::of_machine(unit.patched.machine()).ok()?;
        let (original, patched) =
            rayon::join(|| IndexedFile::read(unit.original, arch), || IndexedFile::read(unit.patched, arch));
        let (names, patched_names) = (names(unit.original, &original), names(unit.patched, &patched));
        Some(BuildPair {
            rows: (entries::rows(&original), entries::rows(&patched)),
            unwind: (Unwind::read(&original), Unwind::read(&patched)),
            object: unit.object,
            original,
            patched,
            claims: &unit.claims,
            gave_way: &unit.gave_way,
            glue: false,
            names,
            patched_names,
        })
    }

    /// Reads an object that kbuild compiled for the module itself.
    pub(crate) fn glue(elf: &'e Elf<'d>) -> Option<BuildPair<'e, 'd>> {
        static NO_CLAIMS: BTreeMap<SymbolId, Option<SymbolId>> = BTreeMap::new();
        static NOTHING: BTreeSet<SymbolId> = BTreeSet::new();
        let arch = klpx_normalize::arch::Arch::of_machine(elf.machine()).ok()?;
        let (original, patched) = (IndexedFile::read(elf, arch), IndexedFile::read(elf, arch));
        Some(BuildPair {
            rows: (Vec::new(), entries::rows(&patched)),
            unwind: (Unwind::read(&original), Unwind::read(&patched)),
            names: BTreeMap::new(),
            patched_names: names(elf, &patched),
            object: "",
            original,
            patched,
            claims: &NO_CLAIMS,
            gave_way: &NOTHING,
            glue: true,
        })
    }

    /// Returns the original's counterpart of a thing of the patched build.
    pub(crate) fn original_of(&self, body: Body) -> Option<Body> {
        self.patched.symbols(body).find_map(|id| self.original_symbol(id)).map(|id| self.original.body(id))
    }

    fn original_symbol(&self, id: SymbolId) -> Option<SymbolId> {
        if let Some(claim) = self.claims.get(&id) {
            return *claim;
        }
        let section = self.patched.elf.symbol_section(id)?;
        let key = (plain(self.patched.elf.symbol_name(id)), self.patched.is_code(section));
        let (original_symbols, patched_symbols) = (self.names.get(&key)?, self.patched_names.get(&key)?);
        match (original_symbols.as_slice(), patched_symbols.as_slice()) {
            ([one], [_]) => Some(*one),
            _ if original_symbols.len() == patched_symbols.len()
                && self.patched.section_name(section) == TYPE_IDS =>
            {
                original_symbols.get(patched_symbols.iter().position(|&other| other == id)?).copied()
            }
            // A linker merges constants of several files: they are one thing with the same name several times.
            _ => {
                let section = self.patched.section_name(section);
                let known = at_one_place(&self.original, original_symbols, section)?;
                at_one_place(&self.patched, patched_symbols, section).map(|_| known)
            }
        }
    }

    /// Returns the names under which the kernel has a thing of the original, without hashes of promotion.
    pub(crate) fn original_names(&self, original: Body) -> Vec<&'d [u8]> {
        self.original
            .symbols(original)
            .filter(|&id| !self.original.may_give_way(id, original))
            .map(|id| without_promotion(self.original.elf.symbol_name(id)))
            .collect()
    }

    /// Returns a thing's name in the patched build, for people; its place in the section if it has no name.
    pub(crate) fn name(&self, body: Body) -> String {
        let name =
            self.patched.symbols(body).next().map(|id| without_promotion(self.patched.elf.symbol_name(id)));
        match name {
            Some(name) => String::from_utf8_lossy(name).into_owned(),
            None => {
                let section = String::from_utf8_lossy(self.patched.section_name(body.section));
                Offset(body.entry as i64).behind(section)
            }
        }
    }

    /// Returns true if the kernel has another unit's thing in place of this thing: weak symbols.
    pub(crate) fn gave_way(&self, original: Body) -> bool {
        self.original.symbols(original).any(|id| self.gave_way.contains(&id))
    }

    /// Returns true for a thing that only this unit's code can name.
    pub(crate) fn is_local(&self, body: Body) -> bool {
        self.patched.symbols(body).all(|id| self.patched.elf.symbol_binding(id) == elf::STB_LOCAL.0)
    }

    /// Returns the global thing that the patched build defines under a name.
    pub(crate) fn global(&self, name: &[u8]) -> Option<Body> {
        let all = [true, false].into_iter().filter_map(|code| self.patched_names.get(&(plain(name), code)));
        let is_it = |&&id: &&SymbolId| {
            self.patched.elf.symbol_binding(id) != elf::STB_LOCAL.0
                && self.patched.elf.symbol_name(id) == name
        };
        all.flatten().find(is_it).map(|&id| self.patched.body(id))
    }

    /// Returns true if the original has an exported entry of this name in a thing, at a distance from the thing's entry:
    /// a thunk in an array of thunks (arch/x86/lib/retpoline.S).
    pub(crate) fn has_inner(&self, original: Body, delta: i64, name: &[u8]) -> bool {
        let place = (Some(original.section), original.entry.wrapping_add_signed(delta));
        let elf = self.original.elf;
        let all = [true, false].into_iter().filter_map(|code| self.names.get(&(plain(name), code)));
        all.flatten().any(|&id| {
            (elf.symbol_section(id), elf.symbol_value(id)) == place
                && elf.symbol_name(id) == name
                && elf.symbol_binding(id) != elf::STB_LOCAL.0
        })
    }

    /// Returns true if the original defines a global of this name.
    pub(crate) fn had_global(&self, name: &[u8]) -> bool {
        let all = [true, false].into_iter().filter_map(|code| self.names.get(&(plain(name), code)));
        all.flatten().any(|&id| self.original.elf.symbol_binding(id) != elf::STB_LOCAL.0)
    }
}

/// Returns the first of the symbols that lie in a section of a name, if all of these lie at one place.
fn at_one_place(file: &IndexedFile<'_, '_>, symbols: &[SymbolId], section: &[u8]) -> Option<SymbolId> {
    let place = |id: SymbolId| (file.elf.symbol_section(id), file.elf.symbol_value(id));
    let lies = |id: SymbolId| file.elf.symbol_section(id).is_some_and(|at| file.section_name(at) == section);
    let mut found = symbols.iter().copied().filter(|&id| lies(id));
    let first = found.next()?;
    found.all(|id| place(id) == place(first)).then_some(first)
}
