//! Whether one build of a unit is nearer to the original than another one, and which functions must not be given up for
//! that.

use std::collections::BTreeSet;
use std::path::Path;

use crate::llvm::remarks::Inlined;
use klpx_diagnosis::Result;
use klpx_diff::{Change, Sources};
use klpx_normalize::elf::ElfFile;
use klpx_normalize::name;
use klpx_normalize::object::{ItemId, Object};

/// What differs between two native objects, by canonical names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Differing {
    /// Functions that the second one has otherwise, or newly.
    pub(crate) functions: BTreeSet<String>,
    /// Data, registries, and what is gone.
    pub(crate) others: BTreeSet<String>,
}

impl Differing {
    /// Compares two objects.
    pub(crate) fn between(original: &Path, patched: &Path) -> Result<Differing> {
        Differing::of_unit(original, patched, &BTreeSet::new())
    }

    /// The same for one of several units; `moved` are names that mean something else in the other units' patched builds.
    pub(crate) fn of_unit(original: &Path, patched: &Path, moved: &BTreeSet<Vec<u8>>) -> Result<Differing> {
        let (original, patched) = (ElfFile::open(original)?, ElfFile::open(patched)?);
        let (original, patched) = rayon::join(|| Object::read(&original), || Object::read(&patched));
        let (original, patched) = (original?, patched?);
        let difference = klpx_diff::compare_unit(&original, &patched, moved, Sources::Unknown);
        let named = |object: &Object<'_>, item: ItemId| {
            String::from_utf8_lossy(name::without_promotion(object.item_name(item))).into_owned()
        };
        let of_patched = |change: &Change| named(&patched, change.patched);
        let others = difference.data.iter().chain(&difference.registries).map(of_patched);
        let gone = difference.removed.iter().map(|&item| format!("-{}", named(&original, item)));
        Ok(Differing {
            functions: difference.functions.iter().map(of_patched).collect(),
            others: others.chain(gone).chain(difference.tables.iter().cloned()).collect(),
        })
    }

    /// True when something differs no longer, and nothing does newly.
    pub(crate) fn is_nearer_than(&self, plain: &Differing) -> bool {
        self != plain && self.functions.is_subset(&plain.functions) && self.others.is_subset(&plain.others)
    }
}

/// Functions that hold, in the original, an inlined copy of a function that is not the same in both sources, by way of
/// others or not; by canonical names. `remarks` are those of both steps: what the compilation inlines into a function
/// goes with it when the backend inlines that.
pub(crate) fn holders<'t>(
    remarks: impl IntoIterator<Item = Inlined<'t>>,
    is_same: impl Fn(&str) -> bool,
) -> BTreeSet<&'t str> {
    let base = |name: &'t str| name.split(".llvm.").next().unwrap_or(name);
    let calls: BTreeSet<(&str, &str)> =
        remarks.into_iter().map(|call| (base(call.caller), base(call.callee))).collect();
    let mut found = BTreeSet::new();
    loop {
        let before = found.len();
        let holds = |callee: &str| !is_same(callee) || found.contains(callee);
        let more: Vec<&str> =
            calls.iter().filter(|(_, callee)| holds(callee)).map(|(caller, _)| *caller).collect();
        found.extend(more);
        if found.len() == before {
            return found;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_a_copy_by_way_of_others_is_a_holder_too() {
        let call = |callee, caller| Inlined { caller, callee, site: "" };
        let remarks = [
            call("edited", "mid"),
            call("mid", "top.llvm.12"),
            call("top.llvm.12", "entry"),
            call("other", "bystander"),
        ];
        let found = holders(remarks, |name| name != "edited");
        assert_eq!(found, BTreeSet::from(["entry", "mid", "top"]));
        assert!(holders(remarks, |_| true).is_empty());
    }

    #[test]
    fn nearer_is_a_proper_subset() {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let differing = |functions: &[&str], others: &[&str]| Differing {
            functions: set(functions),
            others: set(others),
        };
        let plain = differing(&["a", "b"], &["x"]);
        assert!(differing(&["a"], &["x"]).is_nearer_than(&plain));
        assert!(differing(&["a", "b"], &[]).is_nearer_than(&plain));
        assert!(!plain.is_nearer_than(&plain));
        assert!(!differing(&["a"], &["x", "y"]).is_nearer_than(&plain));
        assert!(!differing(&["c"], &[]).is_nearer_than(&plain));
    }
}
