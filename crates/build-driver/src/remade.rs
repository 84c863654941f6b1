//! What of the kernel was made from the patched source, as far as it depends on it.

use std::path::{Path, PathBuf};

/// Units that depend on what a patch touches, and what became of them. Objects are paths in the build tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remade {
    /// Objects that were compiled again.
    pub compiled: Vec<PathBuf>,
    /// Objects that make left alone, though its records say that they depend on the patch.
    pub stale: Vec<PathBuf>,
    /// Units that keep the hash of their original, and so the names of their promoted locals.
    pub frozen: Vec<FrozenUnit>,
}

/// A unit that has the hash of its original. Units that import from it were not made again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrozenUnit {
    /// Its object.
    pub object: PathBuf,
    /// Its functions that are not the same to the letter: no other unit may hold a copy of one.
    pub differing: Vec<String>,
}

impl Remade {
    /// True when a unit, by its source's path in the tree, was compiled again.
    pub fn was_compiled(&self, source: &str) -> bool {
        self.compiled.iter().any(|object| unit_of(object) == unit_of(Path::new(source)))
    }

    /// True when a unit, by its source's path in the tree, keeps the hash of its original although this function of it
    /// is another.
    pub fn differs_under_its_old_hash(&self, source: &str, function: &str) -> bool {
        let unit = self.frozen.iter().find(|unit| unit_of(&unit.object) == unit_of(Path::new(source)));
        unit.is_some_and(|unit| unit.differing.iter().any(|name| name == function))
    }
}

/// What an object and its source have in common: the folder, and the name up to the first dot (`switch.nvhe.o` is made
/// of `switch.c`).
fn unit_of(path: &Path) -> (Option<&Path>, &str) {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    (path.parent(), name.split('.').next().unwrap_or(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_known_by_its_source() {
        let remade = Remade {
            compiled: vec!["fs/a.o".into(), "kvm/nvhe/switch.nvhe.o".into()],
            stale: vec!["fs/b.o".into()],
            frozen: vec![FrozenUnit { object: "fs/a.o".into(), differing: vec!["large".into()] }],
        };
        for (source, compiled) in
            [("fs/a.c", true), ("kvm/nvhe/switch.c", true), ("fs/b.c", false), ("a.c", false), ("", false)]
        {
            assert_eq!(remade.was_compiled(source), compiled, "{source}");
        }
        assert!(remade.differs_under_its_old_hash("fs/a.c", "large"));
        assert!(!remade.differs_under_its_old_hash("fs/a.c", "small"));
        assert!(!remade.differs_under_its_old_hash("fs/b.c", "large"));
    }
}
