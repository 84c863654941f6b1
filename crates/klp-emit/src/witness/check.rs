//! The check of the items on which a module relies, with a diagnosis for each that differs.

use std::collections::BTreeSet;

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, codes};
use klpx_normalize::object::ItemId;

use super::agreement::Mismatch;
use super::compare::{REMEDY, Witness};

/// If one in this many functions differs, the kernel was not built from this source and configuration.
pub(super) const ANOTHER_BUILD: usize = 4;

/// How many functions are sampled to distinguish a single change from another build.
const SAMPLE: usize = 2000;

impl Witness<'_, '_> {
    /// Checks items of the original build: those to be replaced and those to which they refer. Each differing item is a
    /// diagnosis. If a quarter of the sampled functions differ, a single diagnosis says that the kernel is another
    /// build.
    pub fn check(&self, items: &[ItemId]) -> Vec<Diagnosis> {
        let wanted: BTreeSet<ItemId> = items.iter().copied().collect();
        let mut diagnoses: Vec<Diagnosis> =
            wanted.iter().filter_map(|&id| Some(self.diagnosis(id, &self.compare(id).err()?))).collect();
        if !diagnoses.is_empty()
            && let Some(whole) = self.another_build()
        {
            diagnoses.insert(0, whole);
        }
        diagnoses
    }

    pub(super) fn diagnosis(&self, id: ItemId, mismatch: &Mismatch) -> Diagnosis {
        if let Mismatch::Unbound(diagnosis) = mismatch {
            return (**diagnosis).clone();
        }
        let item = self.witness.item(id);
        let name = String::from_utf8_lossy(self.witness.item_name(id)).into_owned();
        let file = self.witness.file_name(self.witness.symbol_file(item.symbol));
        let mut place = DiagnosisPlace::symbol(name);
        if !file.is_empty() {
            place = place.at(String::from_utf8_lossy(file), None);
        }
        let what = format!(
            "{} of the kernel to be patched differs",
            if item.code { "a function" } else { "an object" }
        );
        Diagnosis::new(
            &codes::KERNEL_DIFFERS,
            what,
            format!("in {}, {}", self.image.object(), mismatch.text()),
            REMEDY,
        )
        .place(place)
    }

    /// A diagnosis if a quarter of the sampled functions differ.
    fn another_build(&self) -> Option<Diagnosis> {
        let functions: Vec<ItemId> = self.witness.item_ids().filter(|&id| self.is_function(id)).collect();
        let step = functions.len().div_ceil(SAMPLE).max(1);
        let sample: Vec<ItemId> = functions.into_iter().step_by(step).collect();
        let differing = sample.iter().filter(|&&id| self.compare(id).is_err()).count();
        if differing < 2 || differing * ANOTHER_BUILD < sample.len() {
            return None;
        }
        Some(
            Diagnosis::new(
                &codes::ANOTHER_BUILD,
                "the kernel to be patched is another build",
                format!(
                    "{differing} of {} functions that were compared differ from klpx's build of the \
                     original source",
                    sample.len()
                ),
                REMEDY,
            )
            .place(DiagnosisPlace::file(self.image.path(), None)),
        )
    }
}
