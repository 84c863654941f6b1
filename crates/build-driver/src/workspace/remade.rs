//! Which translation units affected by the patch were rebuilt.

use std::path::{Path, PathBuf};

/// The units that depend on a file that the patch touches, rebuilt or not. Objects are paths in the build tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remade {
    /// Objects that were rebuilt.
    pub compiled: Vec<PathBuf>,
    /// Objects that make did not rebuild, although kbuild's records say that they depend on the patch.
    pub stale: Vec<PathBuf>,
}

impl Remade {
    /// Returns true if a unit with this source, a path in the tree, was rebuilt.
    pub fn was_compiled(&self, source: &str) -> bool {
        self.compiled.iter().any(|object| unit_of(object) == unit_of(Path::new(source)))
    }
}

/// The common part of an object's path and its source's path: the folder, and the name up to the first dot
/// (`switch.nvhe.o` is made from `switch.c`).
fn unit_of(path: &Path) -> (Option<&Path>, &str) {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    (path.parent(), name.split('.').next().unwrap_or(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_known_by_its_source() {
        let compiled = vec!["fs/a.o".into(), "kvm/nvhe/switch.nvhe.o".into()];
        let remade = Remade { compiled, stale: vec!["fs/b.o".into()] };
        for (source, compiled) in
            [("fs/a.c", true), ("kvm/nvhe/switch.c", true), ("fs/b.c", false), ("a.c", false), ("", false)]
        {
            assert_eq!(remade.was_compiled(source), compiled, "{source}");
        }
    }
}
