//! Tells which functions of the touched units are the same in both sources, before any pass has run over them.

use std::collections::BTreeMap;

use crate::llvm::ir::Identity;
use crate::originals::Functions;

/// How far a function is the same in both builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sameness {
    /// Signature, body and attributes are the same.
    Same,
    /// Only the attributes are the same.
    Attributes,
    /// Nothing is known to be the same.
    Other,
}

/// The functions of the touched units, by name. Functions of other units count as the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct KnownSameness(BTreeMap<String, Sameness>);

impl KnownSameness {
    /// Compares the functions of each touched unit in both sources.
    pub(crate) fn compare<'a>(units: impl Iterator<Item = (&'a Functions, &'a Functions)>) -> KnownSameness {
        let mut known = BTreeMap::new();
        for (original, patched) in units {
            for name in original.keys().chain(patched.keys()) {
                let found = same(original.get(name), patched.get(name));
                // Two units may have statics of the same name: both must be the same.
                known.entry(name.clone()).and_modify(|old| *old = worse(*old, found)).or_insert(found);
            }
        }
        KnownSameness(known)
    }

    /// Marks a function as not known to be the same.
    pub(crate) fn distrust(&mut self, name: &str) {
        self.0.insert(base(name).to_owned(), Sameness::Other);
    }

    /// How far a function is the same, by its name in either build, including suffixes.
    pub(crate) fn sameness(&self, name: &str) -> Sameness {
        self.0.get(base(name)).copied().unwrap_or(Sameness::Same)
    }

    /// Returns true for a function that is the same in both builds.
    pub(crate) fn is_same(&self, name: &str) -> bool {
        self.sameness(name) == Sameness::Same
    }
}

/// A name without LLVM's suffixes.
fn base(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

fn same(original: Option<&Identity>, patched: Option<&Identity>) -> Sameness {
    match (original, patched) {
        (Some(a), Some(b)) if a == b => Sameness::Same,
        (Some(a), Some(b)) if a.attributes == b.attributes => Sameness::Attributes,
        _ => Sameness::Other,
    }
}

fn worse(a: Sameness, b: Sameness) -> Sameness {
    match (a, b) {
        (Sameness::Other, _) | (_, Sameness::Other) => Sameness::Other,
        (Sameness::Attributes, _) | (_, Sameness::Attributes) => Sameness::Attributes,
        _ => Sameness::Same,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_of_all_functions_of_a_name_counts() {
        let functions = |of: &[(&str, u128, u128)]| -> Functions {
            let identity = |&(name, body, attributes): &(&str, u128, u128)| {
                (name.to_owned(), Identity { body, attributes })
            };
            of.iter().map(identity).collect()
        };
        let a = functions(&[("f", 1, 1), ("g", 1, 1), ("h", 1, 1), ("gone", 1, 1)]);
        let b = functions(&[("f", 1, 1), ("g", 2, 1), ("h", 1, 2), ("new", 1, 1)]);
        let known = KnownSameness::compare([(&a, &b)].into_iter());
        for (name, sameness) in [
            ("f", Sameness::Same),
            ("f.llvm.12", Sameness::Same),
            ("g", Sameness::Attributes),
            ("h", Sameness::Other),
            ("gone", Sameness::Other),
            ("new", Sameness::Other),
            ("of_another_unit", Sameness::Same),
        ] {
            assert_eq!(known.sameness(name), sameness, "{name}");
        }
        let other = functions(&[("f", 1, 1)]);
        let changed = functions(&[("f", 2, 1)]);
        let mut less = known.clone();
        less.distrust("f.llvm.12");
        assert_eq!(less.sameness("f"), Sameness::Other);
        for units in [[(&a, &b), (&other, &changed)], [(&other, &changed), (&a, &b)]] {
            assert_eq!(KnownSameness::compare(units.into_iter()).sameness("f"), Sameness::Attributes);
        }
    }
}
