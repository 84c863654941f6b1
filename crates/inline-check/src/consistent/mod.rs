//! Consistent inlining: chooses functions that must not be inlined, or must be inlined everywhere, so that no function
//! is half-inlined.
//!
//! Owns the choices and their estimates in bytes. Reads no files, and knows nothing of compilers' options.
//!
//! A choice is made from one build and takes effect in the next build, whose inlining differs again. So the lists of
//! earlier builds are read again, and only grow. A choice that did not help gives way to a stronger one ([`Choice`]),
//! never the other way round. There are finitely many functions, so this process ends. Only functions that the user
//! calls hot lose their choice, and they never get a new one. To end soon, functions that exist out of line and are
//! inlined nowhere are kept as they are. This costs nothing, and keeps callers that have become smaller from inlining
//! them.

mod cost;
mod guarded;
mod lists;

use std::collections::{BTreeMap, BTreeSet};

use crate::survey::{Function, Linkage, Survey};

pub use guarded::Guarded;
pub use lists::{Attribute, Choice, ChoiceLists, FunctionKey, ListEntry, NotALine};

/// The user's wishes for a kernel, and facts about its source.
pub struct Wish<'a> {
    /// Returns true if the user wants a function, by name, to be consistent.
    pub wanted: &'a dyn Fn(&str) -> bool,
    /// Returns true for a function, by name, that is called so often that a call would cost too much. The function gets
    /// no choice, and loses an existing choice.
    pub hot: &'a dyn Fn(&str) -> bool,
    /// Estimated bytes of code that all choices together may add.
    pub budget: Option<u64>,
    /// Returns the unit in the source for a survey's file name; `None` for a unit that is not compiled from a file.
    pub unit: &'a dyn Fn(&str) -> Option<String>,
    /// Returns the file for a survey's file name, by a name that is the same in all builds.
    pub file: &'a dyn Fn(&str) -> String,
    /// Returns true if a list can name a function. Names in debug information can be any text.
    pub named: &'a dyn Fn(&FunctionKey) -> bool,
    /// Returns true if the source says that a function is always inlined, as far as known.
    pub forced: &'a dyn Fn(&FunctionKey) -> bool,
    /// Returns true if the source says that a function inlines all its calls (`flatten`), as far as known.
    pub flattens: &'a dyn Fn(&FunctionKey) -> bool,
}

/// The reason why a half-inlined function stays half-inlined.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftReason {
    /// The list of an earlier build forbade inlining the function, without effect.
    Ignored,
    /// The function is inlined into code of this section, which may call nothing that can be traced.
    Guarded(&'static str),
    /// The source says always_inline.
    Forced,
    /// The list of an earlier build forbade inlining the function, but the named function inlines all its calls
    /// according to the source: Clang lets a call's attribute win.
    Flattened(String),
    /// The function's unit is not compiled from a file of the source.
    NoUnit,
    /// A list can't contain the name of the function or of its file.
    Unnamed,
    /// The user did not ask for the function.
    NotWanted,
    /// The user says that the function is hot.
    Hot,
    /// The choice would cost more than is left of the budget.
    OverBudget,
}

/// The result for one build.
pub struct ConsistentPlan {
    /// All choices, including those of earlier builds.
    pub lists: ChoiceLists,
    /// Half-inlined functions whose present choice was not in effect in this build.
    pub chosen: usize,
    /// Functions that lost the choice of an earlier build because they are hot.
    pub freed: usize,
    /// Functions that stay half-inlined, by name.
    pub left: Vec<(FunctionKey, LeftReason)>,
    /// Estimated bytes of code that all choices together add; negative if they save bytes.
    pub estimate: i64,
}

/// A half-inlined function that may get a choice.
struct ChoiceCandidate {
    key: FunctionKey,
    units: BTreeSet<String>,
    sites: usize,
    choice: Choice,
    bytes: i64,
}

/// One build, of which functions get choices.
struct Build<'a> {
    survey: &'a Survey,
    guarded: &'a Guarded,
    /// The build's number: choices of earlier numbers were in effect.
    number: u32,
    wish: &'a Wish<'a>,
}

/// Chooses for every half-inlined function of a [measured](Survey::measured) survey. `build` numbers the build, in
/// which choices of earlier numbers were in effect.
pub fn choose(
    survey: &Survey,
    guarded: &Guarded,
    mut lists: ChoiceLists,
    build: u32,
    wish: &Wish<'_>,
) -> ConsistentPlan {
    let freed = lists.free(wish.hot);
    let build = Build { survey, guarded, number: build, wish };
    let mut left = Vec::new();
    let mut candidates = Vec::new();
    for (_, function) in survey.functions() {
        let key = build.key_of(function);
        if !survey.is_half_inlined(function) {
            let there = !survey.copies(function).is_empty();
            let cold = !(wish.hot)(&key.function);
            if cold && there && (wish.named)(&key) && (wish.wanted)(&key.function) && !(wish.forced)(&key) {
                build.keep(function, key, &mut lists);
            }
            continue;
        }
        match build.candidate(function, &key, &lists) {
            Ok(candidate) => candidates.push(candidate),
            Err(why) => left.push((key, why)),
        }
    }
    let chosen = build.take(candidates, &mut lists, &mut left);
    left.sort();
    let estimate = lists.entries().map(|(_, entry)| entry.bytes).sum();
    ConsistentPlan { lists, chosen, freed, left, estimate }
}

impl Build<'_> {
    fn key_of(&self, function: &Function) -> FunctionKey {
        let Build { survey, wish, .. } = self;
        FunctionKey {
            file: (wish.file)(survey.text(function.file)),
            line: function.line,
            function: survey.text(function.name).to_owned(),
        }
    }

    /// Adds a choice that keeps a function inlined nowhere.
    fn keep(&self, function: &Function, key: FunctionKey, lists: &mut ChoiceLists) {
        let Build { survey, number: build, wish, .. } = *self;
        let units: BTreeSet<String> =
            survey.copies(function).iter().filter_map(|copy| (wish.unit)(survey.text(copy.unit))).collect();
        if !units.is_empty() {
            lists.add(key, ListEntry { choice: Choice::Kept, build, bytes: 0, sites: 0, units });
        }
    }

    /// The candidate for a half-inlined function, or the reason why the function gets no choice.
    fn candidate(
        &self,
        function: &Function,
        key: &FunctionKey,
        lists: &ChoiceLists,
    ) -> Result<ChoiceCandidate, LeftReason> {
        let Build { survey, guarded, number: build, wish } = *self;
        let earlier = lists.get(key);
        if earlier.is_none() && !(wish.wanted)(&key.function) {
            return Err(LeftReason::NotWanted);
        }
        if (wish.hot)(&key.function) {
            return Err(LeftReason::Hot);
        }
        if !(wish.named)(key) {
            return Err(LeftReason::Unnamed);
        }
        if (wish.forced)(key) {
            return Err(LeftReason::Forced);
        }
        if let Some(section) = survey.holders(function).into_iter().find_map(|id| guarded.section(survey, id))
        {
            return Err(LeftReason::Guarded(section));
        }
        let of_copies = survey.copies(function).iter().map(|copy| copy.unit);
        let homes = survey.inlined(function).iter().map(|call| call.home);
        let files: BTreeSet<&str> = of_copies.chain(homes).map(|unit| survey.text(unit)).collect();
        let units: BTreeSet<String> =
            files.into_iter().filter(|file| !file.is_empty()).filter_map(wish.unit).collect();
        if units.is_empty() {
            return Err(LeftReason::NoUnit);
        }
        let strongest = if function.declared_inline { Choice::Opaque } else { Choice::OutOfLine };
        let choice = match earlier {
            // A choice that was in effect without success won't help now, unless a new unit had no such list.
            Some(entry) if entry.build < build => match entry.choice {
                Choice::Everywhere => strongest,
                _ if entry.choice < strongest && function.declared_inline => strongest,
                _ if units.is_subset(&entry.units) => return Err(self.ignored(function)),
                _ => strongest,
            },
            Some(entry) => entry.choice.max(first_choice(survey, function, strongest)),
            None => first_choice(survey, function, strongest),
        };
        let bytes = match choice {
            Choice::Everywhere => cost::everywhere(survey, function),
            Choice::Kept | Choice::OutOfLine | Choice::Opaque => cost::out_of_line(survey, function),
        };
        Ok(ChoiceCandidate { key: key.clone(), units, sites: survey.call_sites(function), choice, bytes })
    }

    /// Returns why a function is inlined although its list forbids it, as far as its holders tell.
    fn ignored(&self, function: &Function) -> LeftReason {
        let Build { survey, wish, .. } = self;
        let holder = |id| self.key_of(survey.function(survey.copy(id).function));
        let mut holders = survey.holders(function).into_iter().map(holder);
        match holders.find(|holder| (wish.flattens)(holder)) {
            Some(holder) => LeftReason::Flattened(holder.function),
            None => LeftReason::Ignored,
        }
    }

    /// Takes the candidates with the most call sites for each byte as long as the budget lasts, and returns their number.
    fn take(
        &self,
        mut candidates: Vec<ChoiceCandidate>,
        lists: &mut ChoiceLists,
        left: &mut Vec<(FunctionKey, LeftReason)>,
    ) -> usize {
        let (build, budget) = (self.number, self.wish.budget);
        candidates.sort_by(|a, b| {
            // Compares sites for each byte without a division: a / b < c / d for positive b and d.
            let dear = |candidate: &ChoiceCandidate| candidate.bytes.max(0) as u128;
            let ratio = (b.sites as u128 * dear(a)).cmp(&(a.sites as u128 * dear(b)));
            ratio.then(b.sites.cmp(&a.sites)).then_with(|| a.key.cmp(&b.key))
        });
        let mut spent: u64 = lists.entries().map(|(_, entry)| entry.bytes.max(0).cast_unsigned()).sum();
        let mut chosen = 0;
        for candidate in candidates {
            let ChoiceCandidate { key, units, sites, choice, bytes } = candidate;
            let before = lists.get(&key).map_or(0, |entry| entry.bytes.max(0).cast_unsigned());
            let after = (spent - before).saturating_add(bytes.max(0).cast_unsigned());
            // A choice of an earlier build is not given up, because a build with it may exist.
            if bytes > 0 && budget.is_some_and(|budget| after > budget) && lists.get(&key).is_none() {
                left.push((key, LeftReason::OverBudget));
                continue;
            }
            spent = after;
            chosen += 1;
            lists.add(key, ListEntry { choice, build, bytes, sites, units });
        }
        chosen
    }
}

/// Returns the first choice for a function. A header's static function is inlined everywhere if that makes the code
/// smaller; if some users only keep its address, the next build shows them. All other functions stay out of line, where
/// they can be traced: the copy of a global function never goes away.
fn first_choice(survey: &Survey, function: &Function, strongest: Choice) -> Choice {
    let in_header = function.linkage() == Linkage::StaticIncluded;
    match in_header && cost::everywhere(survey, function) < cost::out_of_line(survey, function) {
        true => Choice::Everywhere,
        false => strongest,
    }
}

/// Returns the attributes of every unit's functions, with an empty list for a unit without any.
pub fn by_unit(
    lists: &ChoiceLists,
    units: impl IntoIterator<Item = String>,
) -> BTreeMap<String, Vec<(String, Attribute)>> {
    let mut all: BTreeMap<String, BTreeMap<String, Attribute>> =
        units.into_iter().map(|unit| (unit, BTreeMap::new())).collect();
    for (key, entry) in lists.entries() {
        for unit in &entry.units {
            let functions = all.entry(unit.clone()).or_default();
            let attribute = functions.entry(key.function.clone()).or_insert(entry.choice.attribute());
            // A unit may have two functions of one name, one of them never compiled: the stronger attribute keeps both
            // whole.
            *attribute = (*attribute).max(entry.choice.attribute());
        }
    }
    all.into_iter().map(|(unit, functions)| (unit, functions.into_iter().collect())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_has_the_strongest_attribute_of_each_name_and_units_without_any_are_there() {
        let mut lists = ChoiceLists::default();
        let choices = [("f", 1, Choice::Everywhere), ("f", 9, Choice::Kept), ("g", 2, Choice::OutOfLine)];
        for (function, line, choice) in choices {
            let key = FunctionKey { file: "fs/a.c".to_owned(), line, function: function.to_owned() };
            let units = ["fs/a.c".to_owned()].into();
            lists.add(key, ListEntry { choice, build: 1, bytes: 0, sites: 1, units });
        }
        let all = by_unit(&lists, ["fs/b.c".to_owned()]);
        let listed = [("f", Attribute::NoInline), ("g", Attribute::NoInlineNoClone)];
        assert_eq!(all["fs/a.c"], listed.map(|(name, attribute)| (name.to_owned(), attribute)));
        assert_eq!(all["fs/b.c"], []);
    }
}
