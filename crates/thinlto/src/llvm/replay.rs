//! Which of the original's inlining decisions the patched build may take over.
//!
//! LLVM's replay advisor (lib/Analysis/ReplayInlineAdvisor.cpp) asks no viability question: it inlines what a record
//! names, even a function that it must not copy. So a record is taken over only when the callee is the same function in
//! both builds and the caller has the same attributes: LLVM found that pair viable when it built the original, and
//! nothing that it looked at has changed. Whether the decision is a good one is for the comparison of objects to say.
//!
//! Replay works on whole callers (`-cgscc-inline-replay-scope=Function`) and leaves out what has no record
//! (`-cgscc-inline-replay-fallback=NeverInline`), so that both kinds of flips are undone: calls that are inlined no
//! longer, and calls that newly are. A caller that the patch changed also keeps what its own build inlined, which
//! covers its new calls.

use std::collections::{BTreeMap, BTreeSet};

use super::remarks::Inlined;

/// What LLVM's options are that make the inliner read records from a file.
pub(crate) fn options(file: &str) -> [String; 3] {
    [
        format!("-cgscc-inline-replay={file}"),
        "-cgscc-inline-replay-scope=Function".to_owned(),
        "-cgscc-inline-replay-fallback=NeverInline".to_owned(),
    ]
}

/// What is known of a function in both builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sameness {
    /// Signature, body and attributes are the same.
    Same,
    /// Only the attributes are.
    Attributes,
    /// Nothing is known to be the same.
    Other,
}

/// The records for one step of the patched build, from what the step inlined in the original build and what it inlines
/// in the patched one left to itself. `of` tells of a function whether it is the same in both. `None` when both inlined
/// the same: there is nothing to undo.
pub(crate) fn records(
    original: &[Inlined<'_>],
    patched: &[Inlined<'_>],
    of: impl Fn(&str) -> Sameness,
) -> Option<String> {
    let (theirs, ours) = (by_caller(original), by_caller(patched));
    let mut text = String::new();
    let mut undone = false;
    for caller in theirs.keys().chain(ours.keys()).copied().collect::<BTreeSet<_>>() {
        let none = BTreeSet::new();
        let (before, now) = (theirs.get(caller).unwrap_or(&none), ours.get(caller).unwrap_or(&none));
        let chosen = choose(before, now, of(caller), &of);
        undone |= chosen != *now;
        for (callee, site) in chosen {
            text.push_str(&format!(
                "klpx: '{callee}' inlined into '{caller}' with (klpx) at callsite {site};\n"
            ));
        }
    }
    undone.then_some(text)
}

/// A text of the original build with the promotion hashes that the patched build has: the hash of a touched unit is
/// another one in each build. A hash of which the two texts have no name in common stays.
pub(crate) fn with_hashes_of(original: &str, patched: &str) -> String {
    let ours: BTreeMap<&str, &str> = promotions(patched).map(|(_, name, hash)| (name, hash)).collect();
    let renamed: BTreeMap<&str, &str> = promotions(original)
        .filter_map(|(_, name, hash)| Some((hash, *ours.get(name)?)))
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

/// Where each hash of a promoted name stands in a text, the name before it, and the hash.
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

type Sites<'t> = BTreeSet<(&'t str, &'t str)>;

fn by_caller<'t>(inlined: &[Inlined<'t>]) -> BTreeMap<&'t str, Sites<'t>> {
    let mut result: BTreeMap<&str, Sites<'_>> = BTreeMap::new();
    for call in inlined {
        result.entry(call.caller).or_default().insert((call.callee, call.site));
    }
    result
}

/// What to inline into one caller.
fn choose<'t>(
    before: &Sites<'t>,
    now: &Sites<'t>,
    caller: Sameness,
    of: impl Fn(&str) -> Sameness,
) -> Sites<'t> {
    if caller == Sameness::Other {
        return now.clone();
    }
    let same = |callee: &str| of(callee) == Sameness::Same;
    let taken = before.iter().filter(|(callee, _)| same(callee)).copied();
    // The same function with the same callees: exactly what it was. Else what it would have now as well.
    let exact = caller == Sameness::Same && before.iter().chain(now).all(|(callee, _)| same(callee));
    let kept = now.iter().filter(|_| !exact).copied();
    taken.chain(kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call<'t>(caller: &'t str, callee: &'t str, site: &'t str) -> Inlined<'t> {
        Inlined { caller, callee, site }
    }

    fn sameness(name: &str) -> Sameness {
        match name {
            "changed" => Sameness::Attributes,
            "other" => Sameness::Other,
            _ => Sameness::Same,
        }
    }

    fn lines(original: &[Inlined<'_>], patched: &[Inlined<'_>]) -> Option<Vec<String>> {
        let text = records(original, patched, sameness)?;
        let record = |found: &Inlined<'_>| format!("{} {} {}", found.caller, found.callee, found.site);
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
        let grown = [call("f", "changed", "f:1:1")];
        assert_eq!(lines(&[], &grown), None, "the patched build's own decision stays");
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
