//! The folders that stand for `/`: the machine's own `/`, or unpacked packages. Resolves links as if each folder were
//! `/`.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// The most links that are followed for one path. The kernel has the same limit (include/linux/namei.h, MAXSYMLINKS).
const LINKS: usize = 40;

/// The layers that are searched for a path. The first layer that has the path wins.
///
/// Packages that depend on each other contain links into each other, and may be in different layers: one installed,
/// another fetched. So each component of a path is searched in all layers.
#[derive(Clone, Debug)]
pub(super) struct Roots(Vec<PathBuf>);

impl Roots {
    /// Takes the layers in order. Without layers, uses the machine's own `/`.
    pub(super) fn new(layers: &[PathBuf]) -> Roots {
        Roots(if layers.is_empty() { vec![PathBuf::from("/")] } else { layers.to_vec() })
    }

    /// Returns true if `/` is the only layer.
    pub(super) fn is_machine(&self) -> bool {
        self.0 == [PathBuf::from("/")]
    }

    /// The layers, for people.
    pub(super) fn describe(&self) -> String {
        self.0.iter().map(|root| root.display().to_string()).collect::<Vec<_>>().join(", ")
    }

    /// The real location of a path, with every link resolved inside the layers. `None` if no layer has the path.
    pub(super) fn find(&self, path: impl AsRef<Path>) -> Option<PathBuf> {
        let mut left: VecDeque<OsString> = names(path.as_ref());
        let mut logical = PathBuf::new();
        let mut links = 0;
        while let Some(name) = left.pop_front() {
            if name == ".." {
                logical.pop();
                continue;
            }
            let next = logical.join(name);
            let meta = self.0.iter().find_map(|root| {
                let full = root.join(&next);
                full.symlink_metadata().ok().map(|meta| (full, meta))
            });
            let (full, meta) = meta?;
            if !meta.is_symlink() {
                logical = next;
                continue;
            }
            links += 1;
            if links > LINKS {
                return None;
            }
            let target = std::fs::read_link(full).ok()?;
            if target.is_absolute() {
                logical = PathBuf::new();
            }
            for name in names(&target).into_iter().rev() {
                left.push_front(name);
            }
        }
        self.0.iter().map(|root| root.join(&logical)).find(|full| full.exists())
    }

    /// The layer of a path that was found here.
    pub(super) fn layer_of(&self, path: &Path) -> Option<&Path> {
        self.0.iter().map(PathBuf::as_path).find(|root| path.starts_with(root))
    }

    /// The location of a regular file.
    pub(super) fn file(&self, path: impl AsRef<Path>) -> Option<PathBuf> {
        self.find(path).filter(|path| path.is_file())
    }

    /// The location of a folder.
    pub(super) fn folder(&self, path: impl AsRef<Path>) -> Option<PathBuf> {
        self.find(path).filter(|path| path.is_dir())
    }

    /// The names in a folder, from all layers, sorted.
    pub(super) fn list(&self, path: impl AsRef<Path>) -> Vec<String> {
        let folders = self.0.iter().filter_map(|root| Roots(vec![root.clone()]).folder(path.as_ref()));
        let entries = folders.filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names.dedup();
        names
    }
}

/// The components of a path, with `..` and without the root and `.`.
fn names(path: &Path) -> VecDeque<OsString> {
    let named = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().filter_map(named).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn write(root: &Path, name: &str) {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("mkdir");
        std::fs::write(path, name).expect("write");
    }

    #[test]
    fn absolute_links_stay_below_the_root() {
        let root = tempfile::tempdir().expect("dir");
        write(root.path(), "usr/src/headers/.config");
        std::fs::create_dir_all(root.path().join("lib/modules/R")).expect("mkdir");
        symlink("/usr/src/headers", root.path().join("lib/modules/R/build")).expect("link");
        let roots = Roots::new(&[root.path().to_owned()]);
        let found = roots.file("lib/modules/R/build/.config").expect("found");
        assert_eq!(found, root.path().join("usr/src/headers/.config"));
        assert_eq!(roots.find("lib/modules/R/source"), None);
    }

    #[test]
    fn a_link_of_one_layer_may_lead_into_another() {
        let (fetched, installed) = (tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir"));
        write(installed.path(), "usr/lib/kbuild/scripts/basic");
        std::fs::create_dir_all(fetched.path().join("usr/src/headers")).expect("mkdir");
        symlink("../../lib/kbuild/scripts", fetched.path().join("usr/src/headers/scripts")).expect("link");
        let roots = Roots::new(&[fetched.path().to_owned(), installed.path().to_owned()]);
        let found = roots.file("usr/src/headers/scripts/basic").expect("found");
        assert_eq!(found, installed.path().join("usr/lib/kbuild/scripts/basic"));
    }

    #[test]
    fn a_circle_of_links_ends() {
        let root = tempfile::tempdir().expect("dir");
        symlink("b", root.path().join("a")).expect("link");
        symlink("a", root.path().join("b")).expect("link");
        assert_eq!(Roots::new(&[root.path().to_owned()]).find("a/x"), None);
    }

    #[test]
    fn a_link_above_the_root_ends_at_the_root() {
        let root = tempfile::tempdir().expect("dir");
        write(root.path(), "etc/os-release");
        symlink("../../../../etc/os-release", root.path().join("escape")).expect("link");
        let roots = Roots::new(&[root.path().to_owned()]);
        assert_eq!(roots.file("escape"), Some(root.path().join("etc/os-release")));
    }
}
