//! Says which of the original's inlining decisions the patched build may take over.
//!
//! LLVM's replay advisor (lib/Analysis/ReplayInlineAdvisor.cpp) does not check whether inlining is viable: it inlines
//! what a record names, even a function that must not be copied. So a record is taken over only if the callee is the
//! same function in both builds and the caller has the same attributes. LLVM found this pair viable in the original
//! build, and nothing that it looked at has changed. Whether the decision is a good one is judged by the comparison of
//! objects.
//!
//! Replay works on whole callers (`-cgscc-inline-replay-scope=Function`) and inlines no call without a record
//! (`-cgscc-inline-replay-fallback=NeverInline`). So both kinds of flips are undone: calls that are no longer inlined,
//! and calls that are newly inlined. A caller that the patch changed also keeps what its own build inlined, which
//! covers its new calls.

use std::collections::{BTreeMap, BTreeSet};

use super::remarks::InlineRemark;
use crate::sameness::{KnownSameness, Sameness};

/// LLVM's options that make the inliner read records from a file.
pub(crate) fn options(file: &str) -> [String; 3] {
    [
        format!("-cgscc-inline-replay={file}"),
        "-cgscc-inline-replay-scope=Function".to_owned(),
        "-cgscc-inline-replay-fallback=NeverInline".to_owned(),
    ]
}

/// The records for one step of the patched build. `original` is what the step inlined in the original build, `patched`
/// what it inlines in the patched build if left to itself. `None` if there is nothing to undo.
pub(crate) fn records(
    original: &[InlineRemark<'_>],
    patched: &[InlineRemark<'_>],
    known: &KnownSameness,
) -> Option<String> {
    let (original_calls, patched_calls) = (by_caller(original), by_caller(patched));
    let mut text = String::new();
    let mut undone = false;
    for caller in original_calls.keys().chain(patched_calls.keys()).copied().collect::<BTreeSet<_>>() {
        let none = BTreeSet::new();
        let (before, patched_sites) =
            (original_calls.get(caller).unwrap_or(&none), patched_calls.get(caller).unwrap_or(&none));
        let chosen = choose(before, patched_sites, caller, known);
        undone |= chosen != *patched_sites;
        if chosen.is_empty() {
            // The inliner decides for a caller without a record. This record names no call.
            text.push_str(&record(NOBODY, caller, NOBODY));
        }
        for (callee, site) in chosen {
            text.push_str(&record(callee, caller, site));
        }
    }
    undone.then_some(text)
}

/// Stands for a callee or a call site that does not exist.
const NOBODY: &str = "klpx:0:0";

/// A record in the form that LLVM reads.
fn record(callee: &str, caller: &str, site: &str) -> String {
    format!("klpx: '{callee}' inlined into '{caller}' with (klpx) at callsite {site};\n")
}

/// A text of the original build with the promotion hashes of the patched build: a touched unit's hash differs between
/// the builds. A hash stays if no name with this hash occurs in both texts.
pub(crate) fn with_hashes_of(original: &str, patched: &str) -> String {
    let patched_hashes: BTreeMap<&str, &str> =
        promotions(patched).map(|(_, name, hash)| (name, hash)).collect();
    let renamed: BTreeMap<&str, &str> = promotions(original)
        .filter_map(|(_, name, hash)| Some((hash, *patched_hashes.get(name)?)))
        .filter(|(old, new)| old != new)
        .collect();
    let mut result = String::with_capacity(original.len());
    let mut done = 0;
    for (at, _, hash) in promotions(original) {
        result.push_str(&original[done..at]);
        result.push_str(renamed.get(hash).unwrap_or(&hash));
        done = at + hash.len();
    }
    result.push_str(&original[done..]);
    result
}

/// For each hash of a promoted name in a text: its place, the name before it, and the hash.
fn promotions(text: &str) -> impl Iterator<Item = (usize, &str, &str)> {
    const MARK: &str = ".llvm.";
    text.match_indices(MARK).filter_map(move |(at, _)| {
        let start = text[..at].rfind(|c: char| !c.is_ascii_alphanumeric() && !"._$".contains(c));
        let name = &text[start.map_or(0, |start| start + 1)..at];
        let hash = &text[at + MARK.len()..];
        let hash = &hash[..hash.find(|c: char| !c.is_ascii_digit()).unwrap_or(hash.len())];
        (!hash.is_empty()).then_some((at + MARK.len(), name, hash))
    })
}

type CallSites<'t> = BTreeSet<(&'t str, &'t str)>;

fn by_caller<'t>(inlined: &[InlineRemark<'t>]) -> BTreeMap<&'t str, CallSites<'t>> {
    let mut result: BTreeMap<&str, CallSites<'_>> = BTreeMap::new();
    for call in inlined {
        result.entry(call.caller).or_default().insert((call.callee, call.site));
    }
    result
}

/// The calls to inline into one caller.
fn choose<'t>(
    before: &CallSites<'t>,
    patched_sites: &CallSites<'t>,
    caller: &str,
    known: &KnownSameness,
) -> CallSites<'t> {
    let sameness = known.sameness(caller);
    if sameness == Sameness::Other {
        return patched_sites.clone();
    }
    let same = |callee: &str| known.is_same(callee);
    let taken = before.iter().filter(|(callee, _)| same(callee)).copied();
    // If the original called a function at a site and the function changed, the call stays a call. Not to inline is
    // always valid, and a livepatch can replace a function that is called.
    let called = |(callee, site): &(&str, &str)| {
        !same(callee) && functions_of(site).all(same) && !before.contains(&(*callee, *site))
    };
    let patched_sites: CallSites<'t> =
        patched_sites.iter().filter(|inlined| !called(inlined)).copied().collect();
    // The same caller with the same callees gets exactly the original's calls. All other callers also keep what they
    // inline now.
    let exact =
        sameness == Sameness::Same && before.iter().chain(&patched_sites).all(|(callee, _)| same(callee));
    let kept = patched_sites.iter().filter(|_| !exact).copied();
    taken.chain(kept).collect()
}

/// The functions in which a call site lies: `g:3:5 @ f:10:2` lies in `g`, inlined into `f`. If a function is the same
/// in both builds, so are its line numbers.
fn functions_of(site: &str) -> impl Iterator<Item = &str> {
    site.split(" @ ").map(|part| part.split(':').next().unwrap_or(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llvm::ir::Identity;
    use crate::originals::Functions;

    fn call<'t>(caller: &'t str, callee: &'t str, site: &'t str) -> InlineRemark<'t> {
        InlineRemark { caller, callee, site }
    }

    /// `changed` has another body, `other` has other attributes, and `new` is only in the patched build.
    fn known() -> KnownSameness {
        let functions = |of: &[(&str, u128, u128)]| -> Functions {
            let identity = |&(name, body, attributes): &(&str, u128, u128)| {
                (name.to_owned(), Identity { body, attributes })
            };
            of.iter().map(identity).collect()
        };
        let original = functions(&[("changed", 1, 1), ("other", 1, 1)]);
        let patched = functions(&[("changed", 2, 1), ("other", 1, 2), ("new", 1, 1)]);
        KnownSameness::compare([(&original, &patched)].into_iter())
    }

    fn lines(original: &[InlineRemark<'_>], patched: &[InlineRemark<'_>]) -> Option<Vec<String>> {
        let text = records(original, patched, &known())?;
        let record = |found: &InlineRemark<'_>| format!("{} {} {}", found.caller, found.callee, found.site);
        Some(crate::llvm::remarks::parse(&text).iter().map(record).collect())
    }

    #[test]
    fn a_call_that_is_inlined_no_longer_is_again() {
        let original = [call("changed", "leaf", "changed:3:1"), call("changed", "g", "changed:1:1")];
        let patched = [call("changed", "g", "changed:1:1"), call("changed", "new", "changed:9:1")];
        let expected = ["changed g changed:1:1", "changed leaf changed:3:1", "changed new changed:9:1"];
        assert_eq!(lines(&original, &patched).expect("a flip"), expected);
    }

    #[test]
    fn a_call_that_newly_is_inlined_into_the_same_function_is_not() {
        let original = [call("f", "g", "f:1:1")];
        let patched = [call("f", "g", "f:1:1"), call("f", "leaf", "f:2:1")];
        assert_eq!(lines(&original, &patched).expect("a flip"), ["f g f:1:1"]);
    }

    #[test]
    fn a_changed_callee_is_left_to_the_inliner() {
        let original = [call("f", "changed", "f:1:1"), call("f", "g", "f:2:1")];
        let patched = [call("f", "leaf", "f:3:1")];
        assert_eq!(lines(&original, &patched).expect("a flip"), ["f g f:2:1", "f leaf f:3:1"]);
    }

    #[test]
    fn a_changed_function_that_was_called_goes_on_being_called() {
        let patched_calls = [call("f", "changed", "f:1:1"), call("f", "g", "f:2:1")];
        assert_eq!(lines(&[call("f", "g", "f:2:1")], &patched_calls).expect("a flip"), ["f g f:2:1"]);
        let within = [call("f", "g", "f:2:1"), call("f", "changed", "g:1:1 @ f:2:1")];
        assert_eq!(lines(&[call("f", "g", "f:2:1")], &within).expect("a flip"), ["f g f:2:1"]);
    }

    #[test]
    fn a_caller_into_which_nothing_is_inlined_has_a_record_of_its_own() {
        let found = lines(&[], &[call("f", "changed", "f:1:1")]).expect("a flip");
        assert_eq!(found, ["f klpx:0:0 klpx:0:0"]);
    }

    #[test]
    fn what_a_changed_function_brings_along_is_the_patched_builds_own() {
        let before = [call("f", "changed", "f:1:1")];
        let patched_calls = [call("f", "changed", "f:1:1"), call("f", "new", "changed:2:1 @ f:1:1")];
        assert_eq!(lines(&before, &patched_calls), None);
        // A caller that the patch edits may have this call only since the patch.
        assert_eq!(lines(&[], &[call("changed", "new", "changed:2:1")]), None);
    }

    #[test]
    fn a_caller_with_other_attributes_is_left_alone() {
        let original = [call("other", "g", "other:1:1")];
        assert_eq!(lines(&original, &[]), None);
    }

    #[test]
    fn promotion_hashes_are_those_of_the_patched_build() {
        let original = "'g' inlined into 'f.llvm.12' ... f:1:1; 'h.llvm.12' 'k.llvm.5' 'l.llvm.6'";
        let patched = "'f.llvm.34' 'k.llvm.5'";
        let expected = "'g' inlined into 'f.llvm.34' ... f:1:1; 'h.llvm.34' 'k.llvm.5' 'l.llvm.6'";
        assert_eq!(with_hashes_of(original, patched), expected);
        assert_eq!(with_hashes_of(".llvm.", ".llvm.x"), ".llvm.");
    }

    #[test]
    fn without_a_flip_there_is_nothing_to_replay() {
        let both = [call("f", "g", "f:1:1"), call("changed", "g", "changed:1:1")];
        assert_eq!(lines(&both, &both), None);
    }
}
