//! Ties: symbols that several of the image fit. Code that is the same in both builds settles them by its references.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use klpx_normalize::elf::{Rela, SymbolId};
use klpx_normalize::name::promotion;
use klpx_normalize::object::{ItemId, Target};

use super::{Matcher, SymbolEvidence};
use crate::contents;
use crate::field::FieldValue;

impl<'a> Matcher<'a> {
    /// Settles ties by the references of bound code with the same bytes.
    pub(super) fn settle_by_reference(&mut self, mut tied: BTreeMap<SymbolId, Vec<SymbolId>>) {
        while !tied.is_empty() {
            let seen = self.references_to(&tied);
            let mut settled = Vec::new();
            for (&id, candidates) in &tied {
                let fits = |address: u64, found: &(FieldValue, i64)| {
                    found.0.is(address.wrapping_add_signed(found.1))
                };
                let hit = |&&c: &&SymbolId| {
                    let Some(address) = self.image.address(c) else { return false };
                    !self.claimed[c.index()]
                        && seen.get(&id).is_some_and(|all| all.iter().all(|f| fits(address, f)))
                };
                let hits: Vec<SymbolId> = candidates.iter().filter(hit).copied().collect();
                match hits[..] {
                    [only] => settled.push((id, only, true)),
                    // Strings that the linker merged have one address but several names.
                    [first, ..] if self.is_undefined(id) && self.is_one_place(&hits) => {
                        settled.push((id, first, false))
                    }
                    _ => {}
                }
            }
            if settled.is_empty() {
                break;
            }
            for (id, found, alone) in settled {
                tied.remove(&id);
                if self.claimed[found.index()] {
                    continue;
                }
                self.bind(id, found, SymbolEvidence::Reference);
                if let Some((mine, image_symbols)) = self.hashes(id, found).filter(|_| alone) {
                    self.settle_hash(&mut tied, mine, image_symbols);
                }
            }
            for candidates in tied.values_mut() {
                candidates.retain(|c| !self.claimed[c.index()]);
            }
            tied.retain(|_, candidates| !candidates.is_empty());
        }
        self.tied = tied;
    }

    /// Returns true if all symbols have the same address.
    fn is_one_place(&self, candidates: &[SymbolId]) -> bool {
        let mut places = candidates.iter().map(|&id| self.image.address(id));
        let first = places.next().flatten();
        first.is_some() && places.all(|place| place == first)
    }

    /// The hashes in the names of two symbols.
    fn hashes(&self, mine: SymbolId, candidate: SymbolId) -> Option<(&'a [u8], &'a [u8])> {
        Some((promotion(self.witness_name(mine))?, promotion(self.image_name(candidate))?))
    }

    /// Binds the tied names of one hash to the names of the corresponding hash in the image.
    fn settle_hash(&mut self, tied: &mut BTreeMap<SymbolId, Vec<SymbolId>>, mine: &[u8], image_hash: &[u8]) {
        let of_hash: Vec<SymbolId> =
            tied.keys().copied().filter(|&id| promotion(self.witness_name(id)) == Some(mine)).collect();
        for id in of_hash {
            let candidates = tied.remove(&id).unwrap_or_default();
            let free = |c: &&SymbolId| {
                !self.claimed[c.index()] && promotion(self.image_name(**c)) == Some(image_hash)
            };
            if let Some(&found) = candidates.iter().find(free) {
                self.bind(id, found, SymbolEvidence::PromotedTogether);
            }
        }
    }

    /// For each tied symbol: the values of fields of bound items where the witness refers to the symbol, and the offset
    /// from it.
    fn references_to(
        &self,
        tied: &BTreeMap<SymbolId, Vec<SymbolId>>,
    ) -> HashMap<SymbolId, Vec<(FieldValue, i64)>> {
        let items: HashMap<ItemId, SymbolId> =
            tied.keys().filter_map(|&id| Some((self.witness.symbol_item(id)?, id))).collect();
        let wanted = |target| match target {
            Target::Item { item, offset } => Some((*items.get(&item)?, offset)),
            Target::External { symbol, offset } => tied.contains_key(&symbol).then_some((symbol, offset)),
            _ => None,
        };
        let mut seen: HashMap<SymbolId, Vec<(FieldValue, i64)>> = HashMap::new();
        for owner in self.witness.item_ids() {
            let item = self.witness.item(owner);
            let Some((to, _)) = self.bound[item.symbol.index()] else { continue };
            let Some(address) = self.image.address(to) else { continue };
            let leads = |rela: &Rela| wanted(self.witness.resolve(item.section, rela));
            if !self.witness.item_relocations(owner).iter().any(|rela| leads(rela).is_some()) {
                continue;
            }
            for site in contents::sites(self.witness, owner, self.image, address).unwrap_or_default() {
                if let Some((id, offset)) = leads(site.relocation.rela)
                    && let Some(value) = site.value(self.witness, self.image)
                {
                    seen.entry(id).or_default().push((value, offset));
                }
            }
        }
        seen
    }
}
