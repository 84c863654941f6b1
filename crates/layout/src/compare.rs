//! Compares the types of two builds of a unit.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Layout, Layouts, Member, TypeDefinition, TypeKey};

/// Words in the name of an enumerator that counts the other enumerators: no object holds its value.
const COUNTERS: [&str; 9] = ["MAX", "LAST", "END", "COUNT", "NUM", "NR", "SIZE", "TOTAL", "LENGTH"];

/// A type that differs between the original and the patched build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeChange {
    /// The type's name.
    pub key: TypeKey,
    /// The type's definition in the patched build.
    pub patched: TypeDefinition,
    /// Size in bytes, in the original and in the patched build.
    pub size: (u64, u64),
    /// The differences, a line each.
    pub differences: Vec<String>,
    /// Types that differ only because this type lies in them.
    pub inside: Vec<TypeKey>,
    /// Variables of file scope that hold an object of this type or of one of the `inside` types.
    pub variables: Vec<String>,
}

/// Returns the types that both builds have and that differ, by name. A new type is not a difference, nor is a type that
/// only lost its last user.
pub fn changes(original: &Layouts, patched: &Layouts) -> Vec<TypeChange> {
    let mut changed: BTreeMap<&TypeKey, (&TypeDefinition, &TypeDefinition)> = BTreeMap::new();
    for (key, original_definitions) in &original.types {
        let patched_definitions = patched.of(key);
        let only = |some: &'_ [TypeDefinition], others: &[TypeDefinition]| -> Option<usize> {
            some.iter().position(|one| others.iter().all(|other| one.layout != other.layout))
        };
        if let (Some(from), Some(to)) =
            (only(original_definitions, patched_definitions), only(patched_definitions, original_definitions))
        {
            changed.insert(key, (&original_definitions[from], &patched_definitions[to]));
        }
    }
    let holds = |layout: &Layout| -> BTreeSet<TypeKey> {
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
        let mut inside: BTreeSet<TypeKey> = BTreeSet::new();
        loop {
            let more: Vec<TypeKey> = changed
                .iter()
                .filter(|(other, (original_definitions, _))| {
                    let parts = holds(&original_definitions.layout);
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
        found.push(TypeChange {
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
    let (original_members, patched_members) = (by_name(&from.members), by_name(&to.members));
    for member in &from.members {
        match patched_members.get(member.name.as_str()) {
            None => lines.push(format!("{} is gone", member_name(member))),
            Some(other) => lines.extend(member_change(member, other)),
        }
    }
    for member in to.members.iter().filter(|member| !original_members.contains_key(member.name.as_str())) {
        lines.push(format!("{} is new, at {}", member_name(member), place(member)));
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

fn member_change(from: &Member, to: &Member) -> Option<String> {
    if (from.offset, from.width) != (to.offset, to.width) {
        Some(format!("{} lies at {} instead of {}", member_name(from), place(to), place(from)))
    } else if from.text != to.text {
        Some(format!("{} is {} instead of {}", member_name(from), to.text, from.text))
    } else {
        None
    }
}

fn member_name(member: &Member) -> &str {
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
