//! Compares the types of two builds of a unit.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Definition, Key, Layout, Layouts, Member};

/// Words in the name of an enumerator that counts the other enumerators: no object holds its value.
const COUNTERS: [&str; 9] = ["MAX", "LAST", "END", "COUNT", "NUM", "NR", "SIZE", "TOTAL", "LENGTH"];

/// A type that differs between the original and the patched build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The type's name.
    pub key: Key,
    /// The type's definition in the patched build.
    pub patched: Definition,
    /// Size in bytes, in the original and in the patched build.
    pub size: (u64, u64),
    /// The differences, a line each.
    pub differences: Vec<String>,
    /// Types that differ only because this type lies in them.
    pub inside: Vec<Key>,
    /// Variables of file scope that hold an object of this type or of one of the `inside` types.
    pub variables: Vec<String>,
}

/// Returns the types that both builds have and that differ, by name. A new type is not a difference, nor is a type that
/// only lost its last user.
pub fn changes(original: &Layouts, patched: &Layouts) -> Vec<Change> {
    let mut changed: BTreeMap<&Key, (&Definition, &Definition)> = BTreeMap::new();
    for (key, theirs) in &original.types {
        let ours = patched.of(key);
        let only = |some: &'_ [Definition], others: &[Definition]| -> Option<usize> {
            some.iter().position(|one| others.iter().all(|other| one.layout != other.layout))
        };
        if let (Some(from), Some(to)) = (only(theirs, ours), only(ours, theirs)) {
            changed.insert(key, (&theirs[from], &ours[to]));
        }
    }
    let holds = |layout: &Layout| -> BTreeSet<Key> {
        layout
            .members
            .iter()
            .filter_map(|member| member.embeds.clone())
            .filter(|key| changed.contains_key(key))
            .collect()
    };
    // A type that differs only in the types inside it is reported with those types.
    let follows = |from: &Layout, to: &Layout| {
        let shape = |layout: &Layout| -> Vec<(String, String)> {
            layout.members.iter().map(|member| (member.name.clone(), member.text.clone())).collect()
        };
        !holds(from).is_empty() && shape(from) == shape(to)
    };
    let mut found = Vec::new();
    for (&key, &(from, to)) in &changed {
        let differences = differences(&from.layout, &to.layout);
        if differences.is_empty() || follows(&from.layout, &to.layout) {
            continue;
        }
        let mut inside: BTreeSet<Key> = BTreeSet::new();
        loop {
            let more: Vec<Key> = changed
                .iter()
                .filter(|(other, (theirs, _))| {
                    let parts = holds(&theirs.layout);
                    **other != key
                        && !inside.contains(**other)
                        && (parts.contains(key) || !parts.is_disjoint(&inside))
                })
                .map(|(&other, _)| other.clone())
                .collect();
            if more.is_empty() {
                break;
            }
            inside.extend(more);
        }
        let all = std::iter::once(key).chain(&inside);
        let mut variables: Vec<String> = all.flat_map(|key| original.variables(key)).cloned().collect();
        variables.sort();
        variables.dedup();
        found.push(Change {
            key: key.clone(),
            patched: to.clone(),
            size: (from.layout.size, to.layout.size),
            differences,
            inside: inside.into_iter().collect(),
            variables,
        });
    }
    found
}

/// Describes how two layouts of one name differ.
pub(crate) fn differences(from: &Layout, to: &Layout) -> Vec<String> {
    let mut lines = Vec::new();
    if from.size != to.size {
        lines.push(format!("it has {} bytes instead of {}", to.size, from.size));
    }
    let (theirs, ours) = (by_name(&from.members), by_name(&to.members));
    for member in &from.members {
        match ours.get(member.name.as_str()) {
            None => lines.push(format!("{} is gone", said(member))),
            Some(other) => lines.extend(moved(member, other)),
        }
    }
    for member in to.members.iter().filter(|member| !theirs.contains_key(member.name.as_str())) {
        lines.push(format!("{} is new, at {}", said(member), place(member)));
    }
    let values: BTreeMap<&str, i64> = to.values.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    for (name, value) in from.values.iter().filter(|(name, _)| !counts(name)) {
        match values.get(name.as_str()) {
            Some(other) if other == value => {}
            Some(other) => lines.push(format!("{name} is {other} instead of {value}")),
            None => lines.push(format!("{name} is gone")),
        }
    }
    lines
}

fn by_name(members: &[Member]) -> BTreeMap<&str, &Member> {
    members.iter().map(|member| (member.name.as_str(), member)).collect()
}

fn moved(from: &Member, to: &Member) -> Option<String> {
    if (from.offset, from.width) != (to.offset, to.width) {
        Some(format!("{} lies at {} instead of {}", said(from), place(to), place(from)))
    } else if from.text != to.text {
        Some(format!("{} is {} instead of {}", said(from), to.text, from.text))
    } else {
        None
    }
}

fn said(member: &Member) -> &str {
    if member.name.is_empty() { "a member without a name" } else { &member.name }
}

/// Names a member's place: `byte 12`, `bits 3 to 5 of byte 12`.
fn place(member: &Member) -> String {
    let (byte, bit) = (member.offset / 8, member.offset % 8);
    match member.width {
        0 => format!("byte {byte}"),
        1 => format!("bit {bit} of byte {byte}"),
        width => format!("bits {bit} to {} of byte {byte}", bit.saturating_add(width - 1)),
    }
}

/// Returns true for the name of an enumerator that counts the others.
fn counts(name: &str) -> bool {
    name.split('_').any(|word| COUNTERS.contains(&word.to_ascii_uppercase().as_str()))
}
