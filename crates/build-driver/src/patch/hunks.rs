//! The hunks that edit a function or make a line.

use std::ops::Range;

use super::PlacedHunk;
use super::applied::{AppliedPatch, FileEdit, edits_of};

impl AppliedPatch {
    /// The hunks that edit the function that a file's original declares in line `first`, in patch order. `next` is the
    /// line that declares the next function.
    pub fn hunks_of_function(&self, path: &str, first: u32, next: Option<u32>) -> Vec<&PlacedHunk> {
        self.hunks_of(path, |change, original| edits_of(change, original, first, next).collect())
    }

    /// The hunks that make the line that the compiler numbers `line` in the patched source.
    pub fn hunks_of_line(&self, path: &str, line: u32) -> Vec<&PlacedHunk> {
        self.hunks_of(path, |change, _| {
            let edits = change.edited.iter().zip(&change.replaced);
            edits.filter(|(edited, _)| edited.contains(&line)).map(|(_, replaced)| replaced).collect()
        })
    }

    /// The hunks that make some edits of a file. For a new or deleted file, all of its hunks.
    fn hunks_of<'p>(
        &'p self,
        path: &str,
        edits: impl Fn(&'p FileEdit, &'p [u8]) -> Vec<&'p Range<u32>>,
    ) -> Vec<&'p PlacedHunk> {
        let Some(change) = self.changes.iter().find(|change| change.path == path) else { return Vec::new() };
        let edits = change.kept().map(|original| edits(change, original));
        let wanted = |hunk: &&PlacedHunk| {
            hunk.file == path && edits.as_ref().is_none_or(|edits| edits.iter().any(|lines| hunk.has(lines)))
        };
        self.placed.iter().filter(wanted).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::arch::KernelArch;
    use crate::patch::PatchSet;
    use crate::patch::apply::prepare;
    use crate::process::Runner;

    const ORIGINAL: &str = "\
int a(void)
{
	return 1;
}

/* between */
/* the two */
/* functions */

int b(void)
{
	return 2;
}
";

    const PATCH: &str = "\
--- a/fs/x.c
+++ b/fs/x.c
@@ -1,4 +1,5 @@
 int a(void)
 {
-	return 1;
+	int n = 1;
+	return n;
 }
@@ -8,6 +9,11 @@
 /* functions */
 
 int b(void)
 {
-	return 2;
+	return 3;
 }
+
+int c(void)
+{
+	return 4;
+}
";

    #[test]
    fn a_function_has_the_hunks_that_edit_it() {
        klpx_testkit::need("git");
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(dir.path().join("fs")).expect("a folder");
        std::fs::write(dir.path().join("fs/x.c"), ORIGINAL).expect("written");
        let set = PatchSet::from_text("x.patch", PATCH.as_bytes()).expect("a patch");
        let prepared = prepare(&set, dir.path(), KernelArch::X86_64, &Runner::new(), 0).expect("applies");
        let numbers = |hunks: Vec<&super::PlacedHunk>| hunks.iter().map(|hunk| hunk.hunk).collect::<Vec<_>>();
        assert_eq!(numbers(prepared.hunks_of_function("fs/x.c", 1, Some(10))), [1]);
        assert_eq!(numbers(prepared.hunks_of_function("fs/x.c", 10, None)), [2]);
        assert_eq!(numbers(prepared.hunks_of_function("fs/y.c", 1, None)), [0; 0]);
        let added = prepared.edits("fs/x.c").last().expect("edits").start;
        assert_eq!(numbers(prepared.hunks_of_line("fs/x.c", added)), [2]);
    }
}
