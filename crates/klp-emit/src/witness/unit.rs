//! Compares the whole of one unit with the shipped kernel: every function, not only those that a patch needs, and every
//! datum that the kernel has. A wrong configuration, compiler, flag or source shows here, in the first unit.
//!
//! Owns the explanations of differences. A difference that is not in one of the two tables below stops the build.
//!
//! | a function may differ or be missing because | |
//! |---|---|
//! | [`Explanation::Overridden`] | the unit's function is weak, and the kernel has a strong one of this name from another unit |
//! | [`Explanation::Discarded`] | it is in `.init` or `.exit`, and the link dropped what never runs |
//! | [`Explanation::Shared`] | it is in a section group, of which the link keeps one copy for all units |
//!
//! The second table, for data that is written after the link, is `AFTER_LINK`.

use std::collections::{BTreeMap, BTreeSet};

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, codes, words};
use klpx_normalize::elf::Definition;
use klpx_normalize::lifetime::Lifetime;
use klpx_normalize::object::{ItemId, Object};
use object::elf;

use crate::image::Image;

use super::agreement::{Agreement, Mismatch};
use super::check::ANOTHER_BUILD;
use super::compare::{REMEDY, Witness};

/// Why an item of a unit may differ in the kernel, or be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Explanation {
    /// The item is weak, and another unit has a strong one.
    Overridden,
    /// The item is code that never runs, or that ran once, and the link left it out.
    Discarded,
    /// Several units have the item, and the link kept another unit's.
    Shared,
    /// The item is data that is written after the link.
    AfterLink,
}

/// The most differences that are shown of a unit of another build.
const SHOWN: usize = 10;

/// Sections of data that are written after the link, and the tool that writes them.
const AFTER_LINK: [(&[u8], &str); 2] = [
    (b".BTF_ids", "tools/bpf/resolve_btfids fills in and sorts the numbers of types"),
    (b".BTF", "pahole writes it"),
];

/// The result of comparing a whole unit.
#[derive(Clone, Debug, Default)]
pub struct UnitAgreement {
    /// Functions that equal the kernel's, counted by the kind of agreement.
    pub functions: BTreeMap<Agreement, usize>,
    /// Data that equals the kernel's, counted by the kind of agreement.
    pub data: BTreeMap<Agreement, usize>,
    /// Items that differ or are gone for a known reason, in the order of the unit.
    pub explained: Vec<(ItemId, Explanation)>,
    /// Unexplained differences: the kernel was not made from this unit.
    pub unexplained: Vec<Diagnosis>,
}

impl UnitAgreement {
    /// The number of functions that agree.
    pub fn agreed(&self) -> usize {
        self.functions.values().sum()
    }
}

/// The functions and data of a unit that gave way: they are weak, and the kernel has a strong definition of the name
/// from another unit.
pub fn overridden(unit: &Object<'_>, image: &Image<'_>) -> BTreeSet<ItemId> {
    let gave_way = |item: &ItemId| {
        unit.elf.symbol_binding(unit.item(*item).symbol) == elf::STB_WEAK.0
            && has_strong(image, unit.item_name(*item))
    };
    unit.item_ids().filter(gave_way).collect()
}

/// Returns true if the kernel object has a strong global with this name.
fn has_strong(image: &Image<'_>, name: &[u8]) -> bool {
    image.named(name).any(|id| {
        image.is_global(id)
            && image.elf.symbol_binding(id) != elf::STB_WEAK.0
            && !matches!(image.elf.definition(id), Definition::Undefined)
    })
}

impl Witness<'_, '_> {
    /// Compares every function of a unit with the kernel's, and every datum that the kernel has. `unit` names the unit in
    /// a diagnosis.
    pub fn check_unit(&self, unit: &str) -> UnitAgreement {
        let mut found = UnitAgreement::default();
        let mut differing = 0;
        for id in self.witness.item_ids() {
            let item = self.witness.item(id);
            let function = self.is_function(id);
            if item.code != function {
                continue;
            }
            let mismatch = match self.compare(id) {
                Ok(agreement) => {
                    let counts = if function { &mut found.functions } else { &mut found.data };
                    *counts.entry(agreement).or_default() += 1;
                    continue;
                }
                Err(mismatch) => mismatch,
            };
            let explanation = if function { self.explain(id, &mismatch) } else { self.explain_data(id) };
            match explanation {
                Some(explanation) => found.explained.push((id, explanation)),
                None if !function && matches!(mismatch, Mismatch::Unbound(_)) => {}
                None => {
                    differing += usize::from(function);
                    found.unexplained.push(self.diagnosis(id, &mismatch));
                }
            }
        }
        let compared = found.agreed() + differing;
        if differing >= 2 && differing * ANOTHER_BUILD >= compared {
            found.unexplained = vec![self.another_unit(unit, (differing, compared), &found.unexplained)];
        }
        found
    }

    fn explain(&self, id: ItemId, mismatch: &Mismatch) -> Option<Explanation> {
        let item = self.witness.item(id);
        let elf = &self.witness.elf;
        let section = elf.section_name(item.section);
        let weak = elf.symbol_binding(item.symbol) == elf::STB_WEAK.0;
        if weak && has_strong(self.image, elf.symbol_name(item.symbol)) {
            return Some(Explanation::Overridden);
        }
        if elf.section_flags(item.section) & elf::SHF_GROUP.0 != 0 {
            return Some(Explanation::Shared);
        }
        let goes = Lifetime::of(section) != Lifetime::Kept;
        (goes && matches!(mismatch, Mismatch::Unbound(_))).then_some(Explanation::Discarded)
    }

    fn explain_data(&self, id: ItemId) -> Option<Explanation> {
        let section = self.witness.item(id).section;
        let name = self.witness.elf.section_name(section);
        let written = AFTER_LINK.iter().any(|(section, _)| *section == name);
        let weak = self.witness.elf.symbol_binding(self.witness.item(id).symbol) == elf::STB_WEAK.0;
        if weak && has_strong(self.image, self.witness.item_name(id)) {
            return Some(Explanation::Overridden);
        }
        written.then_some(Explanation::AfterLink)
    }

    fn another_unit(
        &self,
        unit: &str,
        (differing, compared): (usize, usize),
        each: &[Diagnosis],
    ) -> Diagnosis {
        let rest = each.len().saturating_sub(SHOWN);
        Diagnosis::new(
            &codes::ANOTHER_BUILD,
            "the kernel to be patched is another build",
            format!(
                "{differing} of {compared} functions of {unit} differ from those in {}",
                self.image.object()
            ),
            REMEDY,
        )
        .place(DiagnosisPlace::file(self.image.path(), None))
        .detail(each.iter().take(SHOWN).map(ToString::to_string))
        .detail((rest > 0).then(|| format!("and {} more", words::count(rest))))
    }
}
