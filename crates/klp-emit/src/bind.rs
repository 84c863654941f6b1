//! Which symbol of the kernel to be patched each symbol of klpx's own original build is.
//!
//! Owns the matching and its evidence. Binds nothing by guess: what no evidence settles stays unbound, and asking for
//! it is an error. Never compares code, but to settle a tie.
//!
//! The two builds have the same source, configuration and compiler. klpx's may be one translation unit of several of
//! that name, the kernel's symbol table may have lost its FILE symbols (a stripped module). Directories differ: names
//! that ThinLTO promoted carry other hashes, also those of other units that this one refers to, a local may be promoted in one build only, numbered names may have other
//! numbers, and the final link made hidden globals local.

mod matcher;
mod promoted;

use std::collections::BTreeMap;

use klpx_diagnosis::{Class, Diagnosis, Place};
use klpx_normalize::elf::SymbolId;
use klpx_normalize::name::promotion;
use klpx_normalize::object::{ItemId, Object};
use object::elf;

use crate::image::Image;
use matcher::Matcher;

/// Why two symbols are held to be the same. The order is that of the steps; an earlier one is stronger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Evidence {
    /// A global of the same name: there is only one in a link.
    Global,
    /// The only local of that name in the same file.
    FileAndName,
    /// One of several locals of that name in the same file, by their order; their sizes agree one by one.
    FileAndOrder,
    /// In a symbol table without files, the only one of that name, or one of several by their order.
    Name,
    /// As before, among the symbols between those of the same unit.
    Neighbours,
    /// Promoted from the same file: the other promoted names of the file have the same two hashes.
    PromotedTogether,
    /// The only one left of that name without the compiler's suffixes, in the same file where the file is known.
    CanonicalName,
    /// As before, and the only one of that size.
    Size,
    /// As before, and the only one with those contents.
    Contents,
    /// As before, and code that is the same in both builds refers to it.
    Reference,
}

/// A symbol of the kernel to be patched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundSymbol {
    /// The symbol, in the image's file.
    pub symbol: SymbolId,
    /// The name that the running kernel compares with, its `.llvm.<hash>` included where the kernel compares it.
    pub name: String,
    /// Its address in the linked image (for a module see [`Image`]).
    pub address: u64,
    /// Its size in bytes, 0 when the image gives none.
    pub size: u64,
    /// 0 when the name is unique in its object, else which of them, from 1.
    pub sympos: u32,
    /// Why it is this one.
    pub evidence: Evidence,
}

/// The symbols of one object of klpx's original build, bound to those of the kernel to be patched.
pub struct Binding<'a> {
    witness: &'a Object<'a>,
    image: &'a Image<'a>,
    bound: Vec<Option<(SymbolId, Evidence)>>,
    tied: BTreeMap<SymbolId, Vec<SymbolId>>,
}

impl<'a> Binding<'a> {
    /// Matches every symbol of an object that can be matched.
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

    /// The symbol that this one is in the kernel's image, and why.
    pub fn counterpart(&self, symbol: SymbolId) -> Option<(SymbolId, Evidence)> {
        self.bound.get(symbol.index()).copied().flatten()
    }

    /// The global symbol of the witness with this name, defined or not.
    pub(crate) fn named(&self, name: &[u8]) -> Option<SymbolId> {
        let elf = &self.witness.elf;
        elf.symbol_ids().find(|&id| elf.symbol_name(id) == name && elf.symbol_binding(id) != elf::STB_LOCAL.0)
    }

    /// The hash in promoted names of the image that stands for this one of the witness.
    pub(crate) fn hash_in_image(&self, hash: &[u8]) -> Option<&'a [u8]> {
        self.witness.elf.symbol_ids().find_map(|id| {
            let (found, evidence) = self.counterpart(id)?;
            let sure = evidence != Evidence::Reference;
            let mine = promotion(self.witness.elf.symbol_name(id)).filter(|&mine| mine == hash && sure);
            mine.and_then(|_| promotion(self.image.elf.symbol_name(found)))
        })
    }

    /// The address of an item's entry in the kernel's image, through its symbol or an alias of it.
    pub fn item_address(&self, item: ItemId) -> Option<u64> {
        self.image.address(self.counterpart(self.item_symbol(item)?)?.0)
    }

    /// A bound symbol of an item.
    fn item_symbol(&self, item: ItemId) -> Option<SymbolId> {
        let symbol = self.witness.item(item).symbol;
        if self.counterpart(symbol).is_some() {
            return Some(symbol);
        }
        self.witness.aliases(item).find(|&alias| self.counterpart(alias).is_some())
    }

    /// How the running kernel names an item.
    ///
    /// # Errors
    /// As [`Binding::symbol`].
    pub fn item(&self, item: ItemId) -> Result<BoundSymbol, Diagnosis> {
        self.symbol(self.item_symbol(item).unwrap_or(self.witness.item(item).symbol))
    }

    /// How the running kernel names a symbol.
    ///
    /// # Errors
    /// `klpx::not-in-kernel` when the kernel has no such symbol, `klpx::ambiguous-symbol` when no evidence settles
    /// which it is, or what [`Image::position`] says.
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
    pub fn tally(&self) -> BTreeMap<Evidence, usize> {
        let mut tally = BTreeMap::new();
        for (_, evidence) in self.bound.iter().flatten() {
            *tally.entry(*evidence).or_insert(0) += 1;
        }
        tally
    }

    fn unbound(&self, symbol: SymbolId) -> Diagnosis {
        let name = String::from_utf8_lossy(self.witness.elf.symbol_name(symbol)).into_owned();
        let file = self.witness.file_name(self.witness.symbol_file(symbol));
        let mut place = Place::symbol(name);
        if !file.is_empty() {
            place = place.at(String::from_utf8_lossy(file), None);
        }
        let object = self.image.object();
        match self.tied.get(&symbol) {
            Some(candidates) => Diagnosis::new(
                "klpx::ambiguous-symbol",
                Class::Verification,
                "several symbols fit",
            )
            .place(place)
            .why(format!(
                "{object} has {} symbols that this one could be, and nothing tells them apart",
                candidates.len()
            ))
            .remedy("build klpx's original with exactly the source, configuration and compiler of the kernel")
            .detail(
                candidates.iter().map(|&id| {
                    format!("{} at {:#x}", self.image.name(id), self.image.address(id).unwrap_or(0))
                }),
            ),
            None => Diagnosis::new(
                "klpx::not-in-kernel",
                Class::Verification,
                "the kernel to be patched has no such symbol",
            )
            .place(place)
            .why(format!("klpx's own build of the original source has it, {object} of the kernel does not"))
            .remedy("give klpx the source, configuration and compiler that the kernel was built with"),
        }
    }
}

fn first_diagnosis(failure: klpx_diagnosis::Failure) -> Diagnosis {
    let mut all = failure.diagnoses().cloned();
    all.next()
        .unwrap_or_else(|| Diagnosis::new("klpx::internal", Class::Internal, "a failure without a diagnosis"))
}

#[cfg(test)]
mod evidence;
#[cfg(test)]
mod tests;
