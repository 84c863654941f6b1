//! Compares expected and actual change sets, and tells in words which functions are missing or too much.

use std::collections::BTreeSet;

use crate::klpx::ReportChange;

/// One function of a change set, as `object:function kind`.
pub(crate) type ChangeItem = String;

/// Makes an item from its parts. LTO adds a hash to promoted names, which test data can't foresee; the hash is dropped.
pub(crate) fn item(object: &str, function: &str, kind: &str) -> ChangeItem {
    format!("{object}:{} {kind}", without_hash(function))
}

/// Removes the hash of `name.llvm.123`.
pub(crate) fn without_hash(name: &str) -> &str {
    match name.rsplit_once(".llvm.") {
        Some((base, hash)) if hash.bytes().all(|byte| byte.is_ascii_digit()) => base,
        _ => name,
    }
}

/// Returns a report's changes as items.
pub(crate) fn items(changes: &[ReportChange]) -> BTreeSet<ChangeItem> {
    changes.iter().map(|change| item(&change.object, &change.function, &change.kind)).collect()
}

/// Returns one line for each difference; none if the sets are equal.
pub(crate) fn differences(expected: &BTreeSet<ChangeItem>, actual: &BTreeSet<ChangeItem>) -> Vec<String> {
    let missing = expected.difference(actual).map(|item| format!("not in the change set: {item}"));
    let extra = actual.difference(expected).map(|item| format!("too much in the change set: {item}"));
    missing.chain(extra).collect()
}

/// Returns the text that the guest will find in sysfs: `object/function` of every replaced function, in the order of
/// the guest's `sort`. Two functions of one name are two lines.
pub(crate) fn replaces<'i>(expected: impl IntoIterator<Item = &'i ChangeItem>) -> String {
    let changed = expected.into_iter().filter_map(|item| item.strip_suffix(" changed"));
    let mut lines: Vec<String> = changed.map(|item| item.replacen(':', "/", 1)).collect();
    lines.sort();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_do_not_count() {
        assert_eq!(item("vmlinux", "f.llvm.12", "changed"), "vmlinux:f changed");
        assert_eq!(without_hash("f.llvm.x"), "f.llvm.x");
        assert_eq!(without_hash("f"), "f");
    }

    #[test]
    fn functions_of_one_name_are_told_one_by_one() {
        let items = ["vmlinux:g changed", "vmlinux:f changed", "vmlinux:n new", "vmlinux:f changed"];
        assert_eq!(replaces(&items.map(str::to_owned)), "vmlinux/f\nvmlinux/f\nvmlinux/g");
    }

    #[test]
    fn both_directions_are_told() {
        let set = |items: &[&str]| items.iter().map(|&item| item.to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(
            differences(&set(&["a", "b"]), &set(&["b", "c"])),
            ["not in the change set: a", "too much in the change set: c"]
        );
        assert!(differences(&set(&["a"]), &set(&["a"])).is_empty());
    }

    #[test]
    fn replaced_functions_read_as_in_sysfs() {
        let expected = ["vmlinux:b changed", "vmlinux:n new", "loop:a changed"].map(str::to_owned);
        assert_eq!(replaces(&expected), "loop/a\nvmlinux/b");
    }
}
