//! Source paths in their usual form: without the folder of the source tree.

/// Joins the parts of a path and removes `.` and `..`. An absolute part starts the path again.
pub fn join(parts: &[&str]) -> String {
    let mut absolute = false;
    let mut names: Vec<&str> = Vec::new();
    for part in parts {
        if part.starts_with('/') {
            absolute = true;
            names.clear();
        }
        for name in part.split('/') {
            match name {
                "" | "." => {}
                ".." if names.last().is_some_and(|&last| last != "..") => {
                    names.pop();
                }
                ".." if absolute => {}
                name => names.push(name),
            }
        }
    }
    let path = names.join("/");
    if absolute { format!("/{path}") } else { path }
}

/// Returns the deepest folder that holds nearly all (19 of 20) of the different absolute paths: the root of a source
/// tree. The folder ends with a `/`; it is empty if there is none.
pub(super) fn root(paths: &[String]) -> &str {
    let mut inside: Vec<&String> = paths.iter().filter(|path| path.starts_with('/')).collect();
    inside.sort_unstable();
    inside.dedup();
    let enough = inside.len() * 19;
    let mut root = "";
    loop {
        let folder = |path: &'_ String| path[root.len()..].find('/').map(|slash| root.len() + slash + 1);
        let children =
            inside.chunk_by(|a, b| folder(a).map(|end| &a[..end]) == folder(b).map(|end| &b[..end]));
        let Some(largest) = children.max_by_key(|child| child.len()) else { return root };
        let Some(end) = folder(largest[0]).filter(|_| largest.len() * 20 >= enough) else { return root };
        root = &largest[0][..end];
        inside = largest.to_vec();
    }
}

/// Returns a path without the first of these folders that holds it.
pub(super) fn without<'p>(path: &'p str, folders: &[String]) -> &'p str {
    folders
        .iter()
        .filter(|folder| !folder.is_empty())
        .find_map(|folder| path.strip_prefix(folder.as_str()))
        .unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_joined_as_a_file_system_would() {
        for (parts, path) in [
            (&["/build", "../source", "./kernel/fork.c"][..], "/source/kernel/fork.c"),
            (&["/build", "/source/include", "linux/list.h"], "/source/include/linux/list.h"),
            (&["", "..", "kernel/fork.c"], "../kernel/fork.c"),
            (&["/build", "", "a/b/../c.h"], "/build/a/c.h"),
            (&["/", "../../x.c"], "/x.c"),
        ] {
            assert_eq!(join(parts), path);
        }
    }

    #[test]
    fn the_root_is_where_nearly_all_files_are() {
        let mut paths: Vec<String> = (0..15).map(|n| format!("/src/linux/fs/{n}.c")).collect();
        paths.extend((0..15).map(|n| format!("/src/linux/include/linux/{n}.h")));
        assert_eq!(root(&paths), "/src/linux/");
        paths.push("/usr/lib/gcc/include/arm_neon.h".to_owned());
        assert_eq!(root(&paths), "/src/linux/");
        assert_eq!(root(&["/tmp/a.c".to_owned()]), "/tmp/");
        assert_eq!(root(&["a.c".to_owned()]), "");
        assert_eq!(root(&[]), "");
        assert_eq!(without("/build/x.c", &["/src/".to_owned(), "/build/".to_owned()]), "x.c");
    }
}
