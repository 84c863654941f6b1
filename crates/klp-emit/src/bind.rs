//! Matches each symbol of klpx's own original build to a symbol of the kernel to be patched.
//!
//! Owns the matching and its evidence. Never binds by guess: a symbol that no evidence settles stays unbound, and
//! asking for it is an error. Compares code only to settle a tie.
//!
//! The two builds have the same source, configuration and compiler. But klpx's build may be one of several translation
//! units of the same name, and the kernel's symbol table may have lost its FILE symbols (a stripped module).
//! Directories differ, so names that ThinLTO promoted carry other hashes, including the names of other units that this
//! one refers to. A local may be promoted in only one build, numbered names may have other numbers, and the final link
//! made hidden globals local.
//!
//! `klpx_diff::correlate` also pairs the things of two builds. The two modules share `klpx_normalize::align` and
//! `klpx_normalize::name`, but their steps differ. Here both sides have one source, so equal sizes and contents are
//! evidence; but the kernel's side has only symbols and addresses where it is a linked image, and no files where it is
//! stripped. There both sides are objects with items and relocations, but a patch lies between them: sizes and contents
//! may differ, and a file may be new.

mod matcher;
mod promoted;
mod symbol_evidence;

use std::collections::BTreeMap;

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, codes};
use klpx_normalize::elf::SymbolId;
use klpx_normalize::name::promotion;
use klpx_normalize::object::{ItemId, Object};
use object::elf;

use crate::image::Image;
use matcher::Matcher;
pub use symbol_evidence::SymbolEvidence;

/// A symbol of the kernel to be patched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundSymbol {
    /// The symbol, in the image's file.
    pub symbol: SymbolId,
    /// The name with which the running kernel compares; includes `.llvm.<hash>` if the kernel compares the hash.
    pub name: String,
    /// The symbol's address in the linked image (for a module see [`Image`]).
    pub address: u64,
    /// The symbol's size in bytes; 0 if the image gives none.
    pub size: u64,
    /// The sympos: 0 for a name that is unique in its object, otherwise the position from 1.
    pub sympos: u32,
    /// The evidence for this symbol.
    pub evidence: SymbolEvidence,
}

/// The symbols of one object of klpx's original build, bound to those of the kernel to be patched.
pub struct Binding<'a> {
    witness: &'a Object<'a>,
    image: &'a Image<'a>,
    bound: Vec<Option<(SymbolId, SymbolEvidence)>>,
    tied: BTreeMap<SymbolId, Vec<SymbolId>>,
}

impl<'a> Binding<'a> {
    /// Matches all symbols of an object that can be matched.
    pub fn new(witness: &'a Object<'a>, image: &'a Image<'a>) -> Binding<'a> {
        let mut matcher = Matcher::new(witness, image);
        matcher.run();
        Binding { witness, image, bound: matcher.bound, tied: matcher.tied }
    }

    /// The object of klpx's original build.
    pub fn witness(&self) -> &'a Object<'a> {
        self.witness
    }

    /// The kernel's object.
    pub fn image(&self) -> &'a Image<'a> {
        self.image
    }

    /// The symbol's counterpart in the kernel's image, and the evidence.
    pub fn counterpart(&self, symbol: SymbolId) -> Option<(SymbolId, SymbolEvidence)> {
        self.bound.get(symbol.index()).copied().flatten()
    }

    /// The global symbol of the witness with this name, defined or not.
    pub(crate) fn named(&self, name: &[u8]) -> Option<SymbolId> {
        let elf = &self.witness.elf;
        elf.symbol_ids().find(|&id| elf.symbol_name(id) == name && elf.symbol_binding(id) != elf::STB_LOCAL.0)
    }

    /// The hash in promoted names of the image that corresponds to a hash of the witness.
    pub(crate) fn hash_in_image(&self, hash: &[u8]) -> Option<&'a [u8]> {
        self.witness.elf.symbol_ids().find_map(|id| {
            let (found, evidence) = self.counterpart(id)?;
            let sure = evidence != SymbolEvidence::Reference;
            let mine = promotion(self.witness.elf.symbol_name(id)).filter(|&mine| mine == hash && sure);
            mine.and_then(|_| promotion(self.image.elf.symbol_name(found)))
        })
    }

    /// The address of an item's entry in the kernel's image, found by the item's symbol or a strong alias.
    pub fn item_address(&self, item: ItemId) -> Option<u64> {
        self.image.address(self.counterpart(self.item_symbol(item)?)?.0)
    }

    /// A bound symbol of an item.
    fn item_symbol(&self, item: ItemId) -> Option<SymbolId> {
        let symbol = self.witness.item(item).symbol;
        if self.counterpart(symbol).is_some() {
            return Some(symbol);
        }
        self.witness
            .aliases(item)
            .find(|&alias| !self.witness.is_weak_alias(alias) && self.counterpart(alias).is_some())
    }

    /// The running kernel's name for an item.
    ///
    /// # Errors
    /// The same as for [`Binding::symbol`].
    pub fn item(&self, item: ItemId) -> Result<BoundSymbol, Diagnosis> {
        self.symbol(self.item_symbol(item).unwrap_or(self.witness.item(item).symbol))
    }

    /// The running kernel's name for a symbol.
    ///
    /// # Errors
    /// `klpx::not-in-kernel` if the kernel has no such symbol, `klpx::ambiguous-symbol` if no evidence settles which
    /// one it is, or an error of [`Image::position`].
    pub fn symbol(&self, symbol: SymbolId) -> Result<BoundSymbol, Diagnosis> {
        let Some((found, evidence)) = self.counterpart(symbol) else { return Err(self.unbound(symbol)) };
        let address = self.image.address(found).ok_or_else(|| self.unbound(symbol))?;
        let position = self.image.position(found).map_err(first_diagnosis)?;
        Ok(BoundSymbol {
            symbol: found,
            name: position.name,
            address,
            size: self.image.elf.symbol_size(found),
            sympos: position.sympos,
            evidence,
        })
    }

    /// How many symbols each kind of evidence bound.
    pub fn tally(&self) -> BTreeMap<SymbolEvidence, usize> {
        let mut tally = BTreeMap::new();
        for (_, evidence) in self.bound.iter().flatten() {
            *tally.entry(*evidence).or_insert(0) += 1;
        }
        tally
    }

    fn unbound(&self, symbol: SymbolId) -> Diagnosis {
        let name = String::from_utf8_lossy(self.witness.elf.symbol_name(symbol)).into_owned();
        let file = self.witness.file_name(self.witness.symbol_file(symbol));
        let mut place = DiagnosisPlace::symbol(name);
        if !file.is_empty() {
            place = place.at(String::from_utf8_lossy(file), None);
        }
        let object = self.image.object();
        match self.tied.get(&symbol) {
            Some(candidates) => {
                Diagnosis::new(
                    &codes::AMBIGUOUS_SYMBOL,
                    "several symbols fit",
                    format!(
                        "{object} has {} symbols that this one could be, and nothing tells them apart",
                        candidates.len()
                    ),
                    "build klpx's original with exactly the source, configuration and compiler of the kernel",
                )
                .place(place)
                .detail(candidates.iter().map(|&id| {
                    format!("{} at {:#x}", self.image.name(id), self.image.address(id).unwrap_or(0))
                }))
            }
            None => Diagnosis::new(
                &codes::NOT_IN_KERNEL,
                "the kernel to be patched has no such symbol",
                format!("klpx's own build of the original source has it, {object} of the kernel does not"),
                "give klpx the source, configuration and compiler that the kernel was built with",
            )
            .place(place),
        }
    }
}

fn first_diagnosis(failure: klpx_diagnosis::Failure) -> Diagnosis {
    let mut all = failure.diagnoses().cloned();
    all.next().unwrap_or_else(|| {
        Diagnosis::new(
            &codes::INTERNAL,
            "a failure without a diagnosis",
            "a failure must have a diagnosis",
            klpx_diagnosis::REPORT,
        )
    })
}

#[cfg(test)]
mod evidence;
#[cfg(test)]
mod tests;
