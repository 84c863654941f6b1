//! Output that is held against files. `KLPX_WRITE_SNAPSHOTS=1 cargo test` writes the files; the change of a file is then
//! reviewed as the change of the output.

use std::path::{Path, PathBuf};

/// The variable that makes a comparison write its file.
const WRITE: &str = "KLPX_WRITE_SNAPSHOTS";

/// A folder of files.
pub struct Snapshots {
    folder: PathBuf,
    replaced: Vec<(String, String)>,
}

impl Snapshots {
    /// The files of a folder.
    pub fn of(folder: PathBuf) -> Snapshots {
        Snapshots { folder, replaced: Vec::new() }
    }

    /// Shows `word` for a text that depends on the machine, such as the name of a temporary folder.
    pub fn replace(&mut self, text: &str, word: &str) {
        self.replaced.push((text.to_owned(), word.to_owned()));
    }

    /// Compares output with the file of this name.
    ///
    /// # Panics
    /// The output is another one, or there is no file.
    #[track_caller]
    pub fn check(&self, name: &str, output: &str) {
        let replaced = &self.replaced;
        let shown = replaced.iter().fold(output.to_owned(), |shown, (text, word)| shown.replace(text, word));
        let path = self.folder.join(name);
        if std::env::var_os(WRITE).is_some() {
            return write(&path, &shown);
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            shown == expected,
            "{} differs; if the output is right, set {WRITE}=1\n--- expected\n{expected}--- output\n{shown}---",
            path.display()
        );
    }
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    std::fs::write(path, text).expect("a file");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_compared_without_what_depends_on_the_machine() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("one.txt"), "in FOLDER\n").expect("a file");
        let mut snapshots = Snapshots::of(folder.path().to_owned());
        snapshots.replace("/tmp/x1", "FOLDER");
        snapshots.check("one.txt", "in /tmp/x1\n");
        for (name, output) in [("one.txt", "in /tmp/x2\n"), ("none.txt", "in /tmp/x1\n")] {
            let check = std::panic::AssertUnwindSafe(|| snapshots.check(name, output));
            assert!(std::panic::catch_unwind(check).is_err(), "{name}: {output}");
        }
    }
}
