//! Why a function is in the change set, as far as debug information tells: the patch edits it, it holds a copy of what
//! the patch edits, its code relies on another function that changed, or the compiler decided differently. This file
//! explains; it never decides what changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use klpx_build_driver::{AppliedPatch, PlacedHunk};
use klpx_diff::{Difference, ItemChange};
use klpx_normalize::name::without_promotion;
use klpx_normalize::object::{ItemId, Object, Target};

use crate::finding::{self, Cause, Finding};
use crate::inlining::{DeclaredFunction, Inlines, Inlining};
use crate::pairs::PairObjects;

/// The debug information of both builds of an object, and the patch between them.
#[derive(Clone, Copy)]
pub(crate) struct InliningPair<'a> {
    pub(crate) prepared: &'a AppliedPatch,
    pub(crate) original: &'a Inlining,
    pub(crate) patched: &'a Inlining,
}

impl InliningPair<'_> {
    /// Whether the patch edits a function; `None` if the debug information does not have the function.
    pub(crate) fn is_edited(&self, pair: &PairObjects<'_>, change: &ItemChange) -> Option<bool> {
        let original = change.original.and_then(|item| self.original.is_edited(pair.original.item(item)));
        original.or_else(|| self.patched.is_edited(pair.patched.item(change.patched)))
    }

    /// The hunks that edit a function, or the functions that it inlines in either build.
    fn hunks(&self, pair: &PairObjects<'_>, change: &ItemChange) -> Vec<PlacedHunk> {
        let prepared = self.prepared;
        let original = change.original.map(|item| pair.original.item(item));
        let mut hunks =
            original.map(|item| self.original.hunks(item, self.original, prepared)).unwrap_or_default();
        hunks.extend(self.patched.hunks(pair.patched.item(change.patched), self.original, prepared));
        hunks.into_iter().collect()
    }

    /// The inlined copies of edited functions that a function holds, those in the original first.
    fn inlines(&self, pair: &PairObjects<'_>, change: &ItemChange) -> Vec<Inlines> {
        let original = change.original.map(|item| self.original.inlines(pair.original.item(item)));
        let mut all = original.unwrap_or_default();
        let after = self.patched.inlines(pair.patched.item(change.patched));
        let new: Vec<Inlines> = after.into_iter().filter(|inlines| !all.contains(inlines)).collect();
        all.extend(new);
        all
    }

    /// What a function inlines in one build only, in words; `None` if both builds inline the same.
    fn inlines_otherwise(&self, pair: &PairObjects<'_>, change: &ItemChange) -> Option<String> {
        let before = self.original.callees_in(pair.original.item(change.original?));
        let after = self.patched.callees_in(pair.patched.item(change.patched));
        let fewer = |one: &BTreeMap<DeclaredFunction<'_>, usize>,
                     other: &BTreeMap<DeclaredFunction<'_>, usize>| {
            let more =
                |(callee, count): &(&DeclaredFunction<'_>, &usize)| other.get(*callee).unwrap_or(&0) < *count;
            one.iter().filter(more).map(|((_, name), _)| (*name).to_owned()).collect::<Vec<_>>().join(", ")
        };
        let parts =
            [("newly inlines", fewer(&after, &before)), ("no longer inlines", fewer(&before, &after))];
        let phrases: Vec<String> = parts
            .into_iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(what, names)| format!("{what} {names}"))
            .collect();
        (!phrases.is_empty()).then(|| phrases.join("; "))
    }
}

/// Adds its cause to each finding. `findings` are in the order of the changed functions.
pub(crate) fn explain(
    pair: &PairObjects<'_>,
    difference: &Difference,
    both: InliningPair<'_>,
    findings: &mut [Finding],
) {
    let changes = &difference.functions;
    let references = ChangeReferences::find(pair, changes);
    let name = |n: usize| finding::name(&pair.patched, changes[n].patched);
    for ((n, change), finding) in changes.iter().enumerate().zip(findings) {
        let Some(edited) = both.is_edited(pair, change) else { continue };
        finding.inlines = both.inlines(pair, change);
        finding.hunks = both.hunks(pair, change);
        let cause = if edited {
            Cause::Edited
        } else if let Some(inlines) = finding.inlines.first() {
            finding.why = match finding.inlines.len() {
                1 => inlines.to_string(),
                n => format!("{inlines}, and {} more", n - 1),
            };
            Cause::Inlines
        } else if let Some(holder) = held_before(pair, change, changes, both) {
            finding.why = format!("new: was inlined into {}, no longer is", name(holder));
            Cause::InlinedNoLonger
        } else if let Some(&other) = references.to[n].first() {
            finding.why = format!("{}; relies on {}, which changed", finding.why, name(other));
            Cause::ReliesOn
        } else if let Some(&other) = references.from[n].first() {
            finding.why = format!("{}; {}, which changed, calls it", finding.why, name(other));
            Cause::CalledBy
        } else if let Some(phrase) = both.inlines_otherwise(pair, change) {
            finding.why = format!("{}; {phrase}", finding.why);
            Cause::InlinesOtherwise
        } else {
            Cause::Otherwise
        };
        finding.cause = Some(cause);
    }
}

/// Explains functions that rely on a changed function of another unit of the same object. Findings are in the order of
/// the pairs and of their changed functions.
pub(crate) fn explain_across(
    pairs: &[PairObjects<'_>],
    differences: &[Difference],
    findings: &mut [Vec<Finding>],
) {
    if pairs.len() < 2 {
        return;
    }
    let outside: Vec<Vec<BTreeSet<String>>> =
        pairs.iter().zip(differences).map(|(pair, difference)| outside(pair, difference)).collect();
    let places = || findings.iter().enumerate().flat_map(|(n, all)| (0..all.len()).map(move |at| (n, at)));
    let mut causes = Vec::new();
    let unexplained = |&(n, at): &(usize, usize)| findings[n][at].cause.is_some_and(Cause::is_unexplained);
    for (n, at) in places().filter(unexplained) {
        let own = &findings[n][at].function;
        let others = || places().filter(|&(m, _)| m != n && pairs[m].name == pairs[n].name);
        let name = |(m, other): (usize, usize)| findings[m][other].function.clone();
        if let Some(other) = others().map(name).find(|name| outside[n][at].contains(name)) {
            causes.push((n, at, Cause::ReliesOn, format!("relies on {other}, which changed")));
        } else if let Some(other) = others().find(|&(m, other)| outside[m][other].contains(own)) {
            causes.push((n, at, Cause::CalledBy, format!("{}, which changed, calls it", name(other))));
        }
    }
    for (n, at, cause, why) in causes {
        let finding = &mut findings[n][at];
        finding.why = format!("{}; {why}", finding.why);
        finding.cause = Some(cause);
    }
}

/// For each changed function, the names in other units that it refers to in either build.
fn outside(pair: &PairObjects<'_>, difference: &Difference) -> Vec<BTreeSet<String>> {
    let of = |object: &Object<'_>, item: ItemId| -> BTreeSet<String> {
        let section = object.item(item).section;
        let target = |rela| match object.resolve(section, rela) {
            Target::External { symbol, .. } => {
                let name = without_promotion(object.elf.symbol_name(symbol));
                Some(String::from_utf8_lossy(name).into_owned())
            }
            _ => None,
        };
        object.item_relocations(item).iter().filter_map(target).collect()
    };
    let both = |change: &ItemChange| {
        let mut names = of(&pair.patched, change.patched);
        names.extend(change.original.into_iter().flat_map(|item| of(&pair.original, item)));
        names
    };
    difference.functions.iter().map(both).collect()
}

/// The first changed function into which a new function was inlined.
fn held_before(
    pair: &PairObjects<'_>,
    change: &ItemChange,
    changes: &[ItemChange],
    both: InliningPair<'_>,
) -> Option<usize> {
    if change.original.is_some() {
        return None;
    }
    let (file, name) = both.patched.declared(pair.patched.item(change.patched))?;
    let holders = both.original.places_of_holders(file, name);
    changes.iter().position(|other| {
        let original = other.original.map(|item| pair.original.item(item));
        original.is_some_and(|item| holders.contains(&(item.section, item.entry)))
    })
}

/// Which functions of the change set refer to which others in either build. Functions are numbered by their place in
/// the change set.
struct ChangeReferences {
    to: Vec<BTreeSet<usize>>,
    from: Vec<BTreeSet<usize>>,
}

impl ChangeReferences {
    fn find(pair: &PairObjects<'_>, changes: &[ItemChange]) -> ChangeReferences {
        let none = vec![BTreeSet::new(); changes.len()];
        let mut references = ChangeReferences { to: none.clone(), from: none };
        let patched = changes.iter().map(|change| Some(change.patched));
        references.add(&pair.patched, &patched.collect::<Vec<_>>());
        let original = changes.iter().map(|change| change.original);
        references.add(&pair.original, &original.collect::<Vec<_>>());
        references
    }

    fn add(&mut self, object: &Object<'_>, items: &[Option<ItemId>]) {
        let places: HashMap<ItemId, usize> =
            items.iter().enumerate().filter_map(|(n, item)| Some(((*item)?, n))).collect();
        for (&item, &n) in &places {
            let section = object.item(item).section;
            for rela in object.item_relocations(item) {
                let Target::Item { item: to, .. } = object.resolve(section, rela) else { continue };
                if let Some(&other) = places.get(&to).filter(|&&other| other != n) {
                    self.to[n].insert(other);
                    self.from[other].insert(n);
                }
            }
        }
    }
}
