//! Variant forms of patches: line ends of another system, counts that manual edits made wrong, paths without a first
//! component. Reads text only.

/// The patch with plain line ends, if every line of its diff ends with carriage return and newline. Mail programs make
/// these line ends. No file that is compiled into a kernel has them.
pub(super) fn with_plain_ends(text: &[u8]) -> Option<Vec<u8>> {
    let is_header = |line: &&[u8]| line.starts_with(b"--- ") || line.starts_with(b"diff --git ");
    let lines: Vec<&[u8]> = text.split_inclusive(|&byte| byte == b'\n').collect();
    let first = lines.iter().position(is_header)?;
    let dos = |line: &&[u8]| line.ends_with(b"\r\n") || !line.ends_with(b"\n");
    if !lines[first].ends_with(b"\r\n") || !lines[first..].iter().all(dos) {
        return None;
    }
    let plain = |line: &&[u8]| match line.strip_suffix(b"\r\n") {
        Some(line) => [line, b"\n"].concat(),
        None => line.to_vec(),
    };
    Some(lines.iter().flat_map(plain).collect())
}

/// A hunk with wrong line counts in its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Miscounted {
    /// Line of the header in the patch, from 1.
    pub(super) line: u32,
    /// The number of the hunk in its file, from 1.
    pub(super) hunk: usize,
    /// Old and new line counts from the header.
    pub(super) stated: (usize, usize),
    /// Actual old and new line counts.
    pub(super) found: (usize, usize),
}

/// The first hunk with wrong counts.
pub(super) fn miscounted(text: &[u8]) -> Option<Miscounted> {
    // The text after the last line end is no line.
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let lines: Vec<&[u8]> = text.split(|&byte| byte == b'\n').collect();
    let mut hunk = 0;
    for (n, line) in lines.iter().enumerate() {
        if line.starts_with(b"--- ") {
            hunk = 0;
        }
        let Some(stated) = counts(line) else { continue };
        hunk += 1;
        let mut found = (0, 0);
        for line in &lines[n + 1..] {
            // Editors remove the space of an empty context line.
            let is_empty_context = line.is_empty() && found.0 < stated.0 && found.1 < stated.1;
            if !is_of_hunk(line) && !is_empty_context {
                break;
            }
            match line.first() {
                Some(b'-') => found.0 += 1,
                Some(b'+') => found.1 += 1,
                Some(b'\\') => {}
                _ => found = (found.0 + 1, found.1 + 1),
            }
        }
        if found != stated {
            let line = u32::try_from(n + 1).unwrap_or(u32::MAX);
            return Some(Miscounted { line, hunk, stated, found });
        }
    }
    None
}

/// Returns true for a line in a hunk's body. `-- ` begins a mail signature, `--- ` the next file.
fn is_of_hunk(line: &[u8]) -> bool {
    matches!(line.first(), Some(b' ' | b'+' | b'-' | b'\t' | b'\\'))
        && !line.starts_with(b"--- ")
        && line != b"-- "
}

/// Parses the counts in `@@ -12,3 +12,4 @@`.
fn counts(line: &[u8]) -> Option<(usize, usize)> {
    let text = std::str::from_utf8(line.strip_prefix(b"@@ -")?).ok()?;
    let (ranges, _) = text.split_once(" @@")?;
    let (old, new) = ranges.split_once(" +")?;
    let count = |range: &str| range.split_once(',').map_or(Some(1), |(_, count)| count.parse().ok());
    Some((count(old)?, count(new)?))
}

/// The path in a header of the patch that becomes `path` if its first component is removed.
pub(super) fn whole_path<'t>(text: &'t [u8], path: &str) -> Option<&'t str> {
    let headers = text.split(|&byte| byte == b'\n').filter_map(|line| {
        let rest = line.strip_prefix(b"--- ").or_else(|| line.strip_prefix(b"+++ "))?;
        let name = std::str::from_utf8(rest).ok()?;
        Some(name.split('\t').next().unwrap_or(name).trim_end())
    });
    headers.into_iter().find(|header| header.split_once('/').is_some_and(|(_, rest)| rest == path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::KernelArch;
    use crate::patch::PatchSet;
    use crate::patch::apply::prepare;
    use crate::process::Runner;

    const ORIGINAL: &str = "one\ntwo\nthree\nfour\nfive\nsix\nseven\n";
    const HUNK: &str = "@@ -2,5 +2,5 @@ f()\n two\n three\n-four\n+FOUR\n five\n six\n";

    /// The patched text of the tree's file, or the code of the failure.
    fn applied(patch: &[u8]) -> Result<String, &'static str> {
        klpx_testkit::need("git");
        let tree = tempfile::tempdir().expect("dir");
        for (path, text) in [("fs/proc/a.c", ORIGINAL), ("Documentation/a.rst", "a\n")] {
            let path = tree.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("mkdir");
            std::fs::write(path, text).expect("write");
        }
        let code = |failure: klpx_diagnosis::Failure| failure.diagnoses().next().expect("one").code;
        let set = PatchSet::from_text("x.patch", patch).map_err(code)?;
        let prepared = prepare(&set, tree.path(), KernelArch::X86_64, &Runner::new(), 0).map_err(code)?;
        let text = prepared.patched_text("fs/proc/a.c").expect("patched");
        Ok(String::from_utf8(text.to_owned()).expect("text"))
    }

    #[test]
    fn the_same_change_is_read_in_every_form_or_refused_with_its_code() {
        let headers = "--- a/fs/proc/a.c\n+++ b/fs/proc/a.c\n";
        let plain = format!("{headers}{HUNK}");
        let git = format!("diff --git a/fs/proc/a.c b/fs/proc/a.c\n{plain}");
        let mode = "diff --git a/fs/proc/a.c b/fs/proc/a.c\nold mode 100644\nnew mode 100755\n";
        let mail = format!(
            "From 1234 Mon Sep 17 00:00:00 2001\nFrom: =?UTF-8?q?J=C3=BCrgen?= <j@example.org>\nSubject: größer\n\n\
             ---- dashes, === others\n---\n a.c | 2 +-\n\n{mode}index aaaa..bbbb\n{plain}-- \n2.47.3\n\n"
        );
        let quoted = format!(
            "From: x\n\nAs in:\n\n    diff --git a/x b/x\n    --- a/x\n    +++ b/x\n    @@ -1 +1 @@\n    -a\n    +b\n\n---\n{git}"
        );
        let renames = "similarity index 90%\nrename from fs/proc/a.c\nrename to fs/proc/b.c\n--- a/fs/proc/a.c\n+++ b/fs/proc/b.c\n";
        let latin = [b"From: J\xfcrgen\n\n".as_slice(), plain.as_bytes()].concat();
        let docs = "--- a/Documentation/a.rst\n+++ b/Documentation/a.rst\n@@ -1 +1 @@\n-a\n+b\n";
        let png = "diff --git a/Documentation/a.png b/Documentation/a.png\nnew file mode 100644\nindex 0000..1234\nGIT binary patch\nliteral 5\nMcmZ?d\n\nliteral 0\nHcmV?d00001\n\n";
        let readable = [
            ("diff -u", plain.clone().into_bytes()),
            ("git diff", git.clone().into_bytes()),
            ("a mail with another mode", mail.into_bytes()),
            ("CRLF", plain.replace('\n', "\r\n").into_bytes()),
            ("a mail in Latin-1", latin),
            ("a mail that quotes a diff", quoted.into_bytes()),
            (
                "quilt",
                format!(
                    "Index: src/fs/proc/a.c\n{:=<67}\n--- src.orig/fs/proc/a.c\n+++ src/fs/proc/a.c\n{HUNK}",
                    ""
                )
                .into_bytes(),
            ),
            (
                "time stamps",
                format!(
                    "--- a/fs/proc/a.c\t2026-01-01 00:00:00\n+++ b/fs/proc/a.c\t2026-01-02 00:00:00\n{HUNK}"
                )
                .into_bytes(),
            ),
            ("other line numbers", plain.replace("-2,5 +2,5", "-25,5 +25,5").into_bytes()),
            ("documentation too", format!("{plain}{docs}").into_bytes()),
        ];
        for (form, patch) in readable {
            assert_eq!(applied(&patch).as_deref(), Ok(&*ORIGINAL.replace("four", "FOUR")), "{form}");
        }
        let refused = [
            ("-p0", plain.replace("a/fs", "fs").replace("b/fs", "fs"), "klpx::patch-does-not-apply"),
            (
                "two names",
                plain.replace("a/fs/proc", "debian/fs/proc").replace("b/fs/proc", "proc"),
                "klpx::patch-renames",
            ),
            (
                "a rename",
                format!("diff --git a/fs/proc/a.c b/fs/proc/b.c\n{renames}{HUNK}"),
                "klpx::patch-renames",
            ),
            ("counts too high", plain.replace("-2,5 +2,5", "-2,6 +2,6"), "klpx::not-a-patch"),
            ("only a mode", mode.to_owned(), "klpx::nothing-changed"),
            ("a picture too", format!("{git}{png}"), "klpx::patch-binary"),
        ];
        for (form, patch, code) in refused {
            assert_eq!(applied(patch.as_bytes()), Err(code), "{form}");
        }
    }

    #[test]
    fn line_ends_of_a_mail_are_taken_off() {
        let dos = b"From: a\n\n--- a/f\r\n+++ b/f\r\n@@ -1 +1 @@\r\n-x\r\n+y\r\n";
        assert_eq!(
            with_plain_ends(dos).expect("plain"),
            b"From: a\n\n--- a/f\n+++ b/f\n@@ -1 +1 @@\n-x\n+y\n"
        );
        assert_eq!(
            with_plain_ends(b"--- a/f\n+++ b/f\n@@ -1 +1 @@\n-x\r\n+y\r\n"),
            None,
            "a file that has them"
        );
        assert_eq!(with_plain_ends(b"--- a/f\n"), None);
        assert_eq!(with_plain_ends(b""), None);
    }

    #[test]
    fn a_hunk_that_is_counted_wrong_is_found() {
        let patch = |counts: &str| {
            format!("--- a/f\n+++ b/f\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n@@ {counts} @@ f()\n x\n+y\n-- \n2.30\n")
        };
        assert_eq!(miscounted(patch("-9,1 +9,2").as_bytes()), None);
        assert_eq!(miscounted(patch("-9 +9,2").as_bytes()), None);
        let wrong = Miscounted { line: 7, hunk: 2, stated: (2, 3), found: (1, 2) };
        assert_eq!(miscounted(patch("-9,2 +9,3").as_bytes()), Some(wrong));
        let last = b"--- a/f\n+++ b/f\n@@ -1,3 +1,3 @@\n a\n-b\n+c\n";
        let wrong = Miscounted { line: 3, hunk: 1, stated: (3, 3), found: (2, 2) };
        assert_eq!(miscounted(last), Some(wrong), "nothing behind the hunk");
    }

    #[test]
    fn a_path_is_found_as_the_patch_has_it() {
        let patch = b"--- fs/proc/uptime.c\t2026-01-01\n+++ fs/proc/uptime.c\n";
        assert_eq!(whole_path(patch, "proc/uptime.c"), Some("fs/proc/uptime.c"));
        assert_eq!(whole_path(patch, "uptime.c"), None);
    }
}
