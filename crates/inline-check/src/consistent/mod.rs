//! Consistent inlining: which functions must not be inlined, or be inlined everywhere, so that none is half-inlined.
//!
//! Owns the choice and its estimate in bytes. Never reads a file by itself, and knows nothing of compilers' options.
//!
//! A choice is made from one build and comes into effect in the next, which inlines other things: so the lists of
//! earlier builds are read again, and only grow. A choice that did not help gives way to a stronger one ([`Choice`]),
//! never the other way round: there are finitely many functions, and it ends. Only functions that the user calls hot lose
//! their choice, and they get none again. To let it end soon, functions that exist
//! out of line and are inlined nowhere are kept as they are: that costs nothing, and callers that have become smaller
//! don't begin to inline them.

mod cost;
mod guarded;
mod lists;

use std::collections::{BTreeMap, BTreeSet};

use crate::survey::{Function, Linkage, Survey};

pub use guarded::Guarded;
pub use lists::{Attribute, Choice, Entry, Key, Lists, NotALine};

/// What the user wants of a kernel.
pub struct Wish<'a> {
    /// Whether a function, by name, is wanted at all.
    pub wanted: &'a dyn Fn(&str) -> bool,
    /// Whether a function, by name, is called so often that a call of it costs too much: it gets no choice, and loses the one
    /// that it has.
    pub hot: &'a dyn Fn(&str) -> bool,
    /// Bytes of code that all choices together may add, by their estimate.
    pub budget: Option<u64>,
    /// The unit that a survey's file name means in the source; `None` for a unit that is not compiled from a file.
    pub unit: &'a dyn Fn(&str) -> Option<String>,
    /// The file that a survey's file name means, by a name that is the same for all builds.
    pub file: &'a dyn Fn(&str) -> String,
    /// Whether a list can name a function. Debug information has any text for a name.
    pub named: &'a dyn Fn(&Key) -> bool,
    /// Whether the source says that a function is always inlined, as far as that is known.
    pub forced: &'a dyn Fn(&Key) -> bool,
    /// Whether the source says that a function inlines whatever it calls (`flatten`), as far as that is known.
    pub flattens: &'a dyn Fn(&Key) -> bool,
}

/// Why a half-inlined function stays so.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Left {
    /// A list of an earlier build said that it must not be inlined.
    Ignored,
    /// It is inlined into code that may call nothing that can be traced: the section.
    Guarded(&'static str),
    /// The source says always_inline.
    Forced,
    /// A list of an earlier build said that it must not be inlined, but the source says that this function inlines all
    /// that it calls: Clang lets a call's attribute win.
    Flattened(String),
    /// Its unit is not compiled from a file of the source.
    NoUnit,
    /// Its name, or its file's, is none that a list can have.
    Unnamed,
    /// The user did not ask for it.
    NotWanted,
    /// The user says that it is hot.
    Hot,
    /// It would cost more than is left of the budget.
    OverBudget,
}

/// What one build gives.
pub struct Plan {
    /// All choices, those of earlier builds among them.
    pub lists: Lists,
    /// Half-inlined functions that have a choice now which was not in effect in this build.
    pub chosen: usize,
    /// Functions that lost the choice of an earlier build, because they are hot.
    pub freed: usize,
    /// Half-inlined functions that stay so, by name.
    pub left: Vec<(Key, Left)>,
    /// Bytes of code that all choices together add, by their estimate; less than nothing when they save some.
    pub estimate: i64,
}

/// A half-inlined function that could be chosen.
struct Candidate {
    key: Key,
    units: BTreeSet<String>,
    sites: usize,
    choice: Choice,
    bytes: i64,
}

/// Chooses for every half-inlined function of a [measured](Survey::measured) survey. `build` numbers the build: choices
/// of earlier numbers were in effect in it.
pub fn choose(survey: &Survey, guarded: &Guarded, mut lists: Lists, build: u32, wish: &Wish<'_>) -> Plan {
    let freed = lists.free(wish.hot);
    let mut left = Vec::new();
    let mut candidates = Vec::new();
    for (_, function) in survey.functions() {
        let key = key_of(survey, function, wish);
        if !survey.is_half_inlined(function) {
            let there = !survey.copies(function).is_empty();
            let cold = !(wish.hot)(&key.function);
            if cold && there && (wish.named)(&key) && (wish.wanted)(&key.function) && !(wish.forced)(&key) {
                keep(survey, function, key, &mut lists, build, wish);
            }
            continue;
        }
        match candidate(survey, guarded, function, &key, &lists, build, wish) {
            Ok(candidate) => candidates.push(candidate),
            Err(why) => left.push((key, why)),
        }
    }
    let chosen = take(candidates, &mut lists, &mut left, build, wish.budget);
    left.sort();
    let estimate = lists.entries().map(|(_, entry)| entry.bytes).sum();
    Plan { lists, chosen, freed, left, estimate }
}

fn key_of(survey: &Survey, function: &Function, wish: &Wish<'_>) -> Key {
    Key {
        file: (wish.file)(survey.text(function.file)),
        line: function.line,
        function: survey.text(function.name).to_owned(),
    }
}

/// Keeps a function that is inlined nowhere as it is.
fn keep(survey: &Survey, function: &Function, key: Key, lists: &mut Lists, build: u32, wish: &Wish<'_>) {
    let units: BTreeSet<String> =
        survey.copies(function).iter().filter_map(|copy| (wish.unit)(survey.text(copy.unit))).collect();
    if !units.is_empty() {
        lists.add(key, Entry { choice: Choice::Kept, build, bytes: 0, sites: 0, units });
    }
}

fn candidate(
    survey: &Survey,
    guarded: &Guarded,
    function: &Function,
    key: &Key,
    lists: &Lists,
    build: u32,
    wish: &Wish<'_>,
) -> Result<Candidate, Left> {
    let earlier = lists.get(key);
    if earlier.is_none() && !(wish.wanted)(&key.function) {
        return Err(Left::NotWanted);
    }
    if (wish.hot)(&key.function) {
        return Err(Left::Hot);
    }
    if !(wish.named)(key) {
        return Err(Left::Unnamed);
    }
    if (wish.forced)(key) {
        return Err(Left::Forced);
    }
    if let Some(section) = survey.holders(function).into_iter().find_map(|id| guarded.section(survey, id)) {
        return Err(Left::Guarded(section));
    }
    let of_copies = survey.copies(function).iter().map(|copy| copy.unit);
    let homes = survey.inlined(function).iter().map(|call| call.home);
    let files: BTreeSet<&str> = of_copies.chain(homes).map(|unit| survey.text(unit)).collect();
    let units: BTreeSet<String> =
        files.into_iter().filter(|file| !file.is_empty()).filter_map(wish.unit).collect();
    if units.is_empty() {
        return Err(Left::NoUnit);
    }
    let strongest = if function.declared_inline { Choice::Opaque } else { Choice::OutOfLine };
    let choice = match earlier {
        // What was in effect and did not help won't help now, unless a unit has come that had no such list.
        Some(entry) if entry.build < build => match entry.choice {
            Choice::Everywhere => strongest,
            _ if entry.choice < strongest && function.declared_inline => strongest,
            _ if units.is_subset(&entry.units) => return Err(ignored(survey, function, wish)),
            _ => strongest,
        },
        Some(entry) => entry.choice.max(first_choice(survey, function, strongest)),
        None => first_choice(survey, function, strongest),
    };
    let bytes = match choice {
        Choice::Everywhere => cost::everywhere(survey, function),
        Choice::Kept | Choice::OutOfLine | Choice::Opaque => cost::out_of_line(survey, function),
    };
    Ok(Candidate { key: key.clone(), units, sites: survey.call_sites(function), choice, bytes })
}

/// Why a function is inlined although its list forbids it, as far as its holders tell.
fn ignored(survey: &Survey, function: &Function, wish: &Wish<'_>) -> Left {
    let holder = |id| key_of(survey, survey.function(survey.copy(id).function), wish);
    let mut holders = survey.holders(function).into_iter().map(holder);
    match holders.find(|holder| (wish.flattens)(holder)) {
        Some(holder) => Left::Flattened(holder.function),
        None => Left::Ignored,
    }
}

/// A header's static function is inlined everywhere when that is the smaller code: if it has users that only keep its
/// address, the next build shows it. All others stay out of line, where one can trace them: the copy of a global
/// function never goes away.
fn first_choice(survey: &Survey, function: &Function, strongest: Choice) -> Choice {
    let in_header = function.linkage() == Linkage::StaticIncluded;
    match in_header && cost::everywhere(survey, function) < cost::out_of_line(survey, function) {
        true => Choice::Everywhere,
        false => strongest,
    }
}

/// Takes the candidates with the most call sites for a byte as long as the budget lasts. How many it took.
fn take(
    mut candidates: Vec<Candidate>,
    lists: &mut Lists,
    left: &mut Vec<(Key, Left)>,
    build: u32,
    budget: Option<u64>,
) -> usize {
    candidates.sort_by(|a, b| {
        // Sites for a byte, without a division: a / b < c / d where b and d are positive.
        let dear = |candidate: &Candidate| candidate.bytes.max(0) as u128;
        let ratio = (b.sites as u128 * dear(a)).cmp(&(a.sites as u128 * dear(b)));
        ratio.then(b.sites.cmp(&a.sites)).then_with(|| a.key.cmp(&b.key))
    });
    let mut spent: u64 = lists.entries().map(|(_, entry)| entry.bytes.max(0).cast_unsigned()).sum();
    let mut chosen = 0;
    for candidate in candidates {
        let Candidate { key, units, sites, choice, bytes } = candidate;
        let before = lists.get(&key).map_or(0, |entry| entry.bytes.max(0).cast_unsigned());
        let after = (spent - before).saturating_add(bytes.max(0).cast_unsigned());
        // What was taken before is not given up: a build with it may be there.
        if bytes > 0 && budget.is_some_and(|budget| after > budget) && lists.get(&key).is_none() {
            left.push((key, Left::OverBudget));
            continue;
        }
        spent = after;
        chosen += 1;
        lists.add(key, Entry { choice, build, bytes, sites, units });
    }
    chosen
}

/// The attributes that every unit's functions get, the units without any among them.
pub fn by_unit(
    lists: &Lists,
    units: impl IntoIterator<Item = String>,
) -> BTreeMap<String, Vec<(String, Attribute)>> {
    let mut all: BTreeMap<String, BTreeMap<String, Attribute>> =
        units.into_iter().map(|unit| (unit, BTreeMap::new())).collect();
    for (key, entry) in lists.entries() {
        for unit in &entry.units {
            let functions = all.entry(unit.clone()).or_default();
            let attribute = functions.entry(key.function.clone()).or_insert(entry.choice.attribute());
            // Two functions of one name in a unit, one of them never compiled: what keeps both whole.
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
        let mut lists = Lists::default();
        let choices = [("f", 1, Choice::Everywhere), ("f", 9, Choice::Kept), ("g", 2, Choice::OutOfLine)];
        for (function, line, choice) in choices {
            let key = Key { file: "fs/a.c".to_owned(), line, function: function.to_owned() };
            let units = ["fs/a.c".to_owned()].into();
            lists.add(key, Entry { choice, build: 1, bytes: 0, sites: 1, units });
        }
        let all = by_unit(&lists, ["fs/b.c".to_owned()]);
        let listed = [("f", Attribute::NoInline), ("g", Attribute::NoInlineNoClone)];
        assert_eq!(all["fs/a.c"], listed.map(|(name, attribute)| (name.to_owned(), attribute)));
        assert_eq!(all["fs/b.c"], []);
    }
}
