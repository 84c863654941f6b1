//! Tells whether one build of a unit is nearer to the original than another build, and which functions must not be
//! given up for this.

use std::collections::BTreeSet;
use std::path::Path;

use crate::llvm::remarks::InlineRemark;
use klpx_diagnosis::Result;
use klpx_diff::{ItemChange, Sources};
use klpx_normalize::elf::ElfFile;
use klpx_normalize::name;
use klpx_normalize::object::{ItemId, Object};

/// The differences between two native objects, by canonical names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DifferingNames {
    /// Functions that differ in the second object, or that only it has.
    pub(crate) functions: BTreeSet<String>,
    /// Changed data, registries, and items that are gone.
    pub(crate) others: BTreeSet<String>,
}

impl DifferingNames {
    /// Compares two objects.
    pub(crate) fn between(original: &Path, patched: &Path) -> Result<DifferingNames> {
        DifferingNames::of_unit(original, patched, &BTreeSet::new())
    }

    /// Compares two objects of one of several units. `moved` are names that denote something else in the other units'
    /// patched builds.
    pub(crate) fn of_unit(
        original: &Path,
        patched: &Path,
        moved: &BTreeSet<Vec<u8>>,
    ) -> Result<DifferingNames> {
        let (original, patched) = (ElfFile::open(original)?, ElfFile::open(patched)?);
        let (original, patched) = rayon::join(|| Object::read(&original), || Object::read(&patched));
        let (original, patched) = (original?, patched?);
        let difference = klpx_diff::compare_unit(&original, &patched, moved, Sources::Unknown);
        let named = |object: &Object<'_>, item: ItemId| {
            String::from_utf8_lossy(name::without_promotion(object.item_name(item))).into_owned()
        };
        let of_patched = |change: &ItemChange| named(&patched, change.patched);
        let others = difference.data.iter().chain(&difference.registries).map(of_patched);
        let gone = difference.removed.iter().map(|&item| format!("-{}", named(&original, item)));
        Ok(DifferingNames {
            functions: difference.functions.iter().map(of_patched).collect(),
            others: others.chain(gone).chain(difference.tables.iter().cloned()).collect(),
        })
    }

    /// Returns true if at least one difference is gone and none is new.
    pub(crate) fn is_nearer_than(&self, plain: &DifferingNames) -> bool {
        self != plain && self.functions.is_subset(&plain.functions) && self.others.is_subset(&plain.others)
    }
}

/// Functions that, in the original, hold an inlined copy of a function that is not the same in both sources, directly
/// or by way of others; by canonical names. `remarks` are those of both steps: when the backend inlines a function,
/// everything that the compilation inlined into that function comes along.
pub(crate) fn holders<'t>(
    remarks: impl IntoIterator<Item = InlineRemark<'t>>,
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

/// The functions that differ in the `plain` build of a unit but not in the `nearer` one. `None` if the second build is
/// no nearer, or if one of the functions is a holder of what the patch edits, which must differ.
pub(crate) fn spared<'p>(
    plain: &'p DifferingNames,
    nearer: &DifferingNames,
    holders: &BTreeSet<&str>,
) -> Option<Vec<&'p str>> {
    if !nearer.is_nearer_than(plain) {
        return None;
    }
    let differs_no_longer = |name: &&str| !nearer.functions.contains(*name);
    let spared: Vec<&str> = plain.functions.iter().map(String::as_str).filter(differs_no_longer).collect();
    spared.iter().all(|name| !holders.contains(name)).then_some(spared)
}

#[cfg(test)]
mod tests {
    use klpx_testkit::{command, run};

    use super::*;

    #[test]
    fn who_holds_a_copy_by_way_of_others_is_a_holder_too() {
        let call = |callee, caller| InlineRemark { caller, callee, site: "" };
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

    fn differing(functions: &[&str], others: &[&str]) -> DifferingNames {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        DifferingNames { functions: set(functions), others: set(others) }
    }

    #[test]
    fn only_a_nearer_build_spares_functions_and_never_a_holder() {
        let plain = differing(&["a", "b", "c"], &["x"]);
        let spared_by = |nearer: &DifferingNames, holders: &[&'static str]| {
            spared(&plain, nearer, &holders.iter().copied().collect()).map(|names| names.join(" "))
        };
        let near = differing(&["b"], &["x"]);
        assert_eq!(spared_by(&near, &[]).as_deref(), Some("a c"));
        assert_eq!(spared_by(&near, &["b", "other"]).as_deref(), Some("a c"), "b differs still");
        assert_eq!(spared_by(&near, &["c"]), None, "c holds a copy");
        assert_eq!(spared_by(&differing(&["b", "d"], &["x"]), &[]), None, "d differs newly");
        assert_eq!(spared_by(&differing(&["b"], &["y"]), &[]), None, "y differs newly");
        assert_eq!(spared_by(&plain, &[]), None, "nothing is nearer");
    }

    #[test]
    fn what_is_gone_differs_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let object = |name: &str, source: &str| {
            let (from, to) = (folder.path().join(format!("{name}.c")), folder.path().join(name));
            std::fs::write(&from, source).expect("a file");
            run(command("gcc").args(["-O2", "-c"]).arg(&from).arg("-o").arg(&to));
            to
        };
        let more = object("more", "int f(int n) { return n; } int gone(int n) { return n * 3; } int d = 4;");
        let less = object("less", "int f(int n) { return n; }");
        let found = DifferingNames::between(&more, &less).expect("objects");
        assert_eq!(found, differing(&[], &["-d", "-gone"]));
    }

    #[test]
    fn nearer_is_a_proper_subset() {
        let plain = differing(&["a", "b"], &["x"]);
        assert!(differing(&["a"], &["x"]).is_nearer_than(&plain));
        assert!(differing(&["a", "b"], &[]).is_nearer_than(&plain));
        assert!(!plain.is_nearer_than(&plain));
        assert!(!differing(&["a"], &["x", "y"]).is_nearer_than(&plain));
        assert!(!differing(&["c"], &[]).is_nearer_than(&plain));
    }
}
