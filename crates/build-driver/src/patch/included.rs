//! Files whose names do not show who reads them (`*.inc`): either C code or make includes them. Searches for the
//! includer in the source before and after the patch.

use std::path::Path;

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Failure, Result, codes};

use super::applied::FileEdit;
use super::kind::{self, FileKind, classify};
use crate::arch::KernelArch;
use crate::kbuild::includes::Includers;

/// Refuses changes of files that make reads, and of files without a known reader.
pub(super) fn check(changes: &[FileEdit], root: &Path, arch: KernelArch) -> Result<()> {
    let included = || changes.iter().filter(|change| classify(&change.path, arch) == FileKind::Included);
    if included().next().is_none() {
        return Ok(());
    }
    let changed: Vec<(&str, Vec<&[u8]>)> =
        changes.iter().map(|change| (change.path.as_str(), texts(change))).collect();
    let source = Includers::new(root, arch.kbuild(), &changed);
    Failure::all(included().filter_map(|change| fault(&change.path, &source)).collect())
}

fn texts(change: &FileEdit) -> Vec<&[u8]> {
    [&change.original, &change.patched].into_iter().filter_map(|text| text.as_deref()).collect()
}

fn fault(path: &str, source: &Includers<'_>) -> Option<Diagnosis> {
    let why = match make_includer(path, source) {
        Some(makefile) => format!("{makefile} includes it, and both kernels must be built the same way"),
        None if source.of(path).is_some() => return None,
        None => "no C code includes it by its name, so make may read it".to_owned(),
    };
    let what = "the patch changes what may be a part of the build system";
    Some(
        Diagnosis::new(
            &codes::PATCH_CHANGES_BUILD,
            what,
            why,
            "leave this file out of the patch, or make the change in the C code",
        )
        .place(DiagnosisPlace::file(path, None)),
    )
}

/// A makefile that includes or may include this file.
fn make_includer<'s>(path: &str, source: &'s Includers<'_>) -> Option<&'s str> {
    let name = file_name(path);
    let of_make = |file: &&str| kind::is_read_by_make(file_name(file)) || file.ends_with(".inc");
    source
        .paths()
        .filter(of_make)
        .find(|file| source.texts(file).iter().any(|text| includes(&String::from_utf8_lossy(text), name)))
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Returns true if a makefile's text has a line that can include a file of this name, by the name itself or by a
/// pattern or variable.
fn includes(text: &str, name: &str) -> bool {
    let joined = text.replace("\\\n", " ");
    joined.lines().any(|line| {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let is_include = words.next().is_some_and(|word| matches!(word, "include" | "-include" | "sinclude"));
        is_include && words.any(|word| can_mean(word, name))
    })
}

fn can_mean(word: &str, name: &str) -> bool {
    let word = word.trim_end_matches([')', '}', ',']);
    let last = file_name(word);
    last == name || last.ends_with(".inc") && last.contains(['$', ')', '}', '*', '?', '[', '%'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_make_that_can_include_a_file_are_seen() {
        for (text, expected) in [
            ("include $(src)/x.inc\n", true),
            ("  -include x.inc # why\n", true),
            ("ifdef A\n\tsinclude a.mk \\\n  $(srctree)/fs/x.inc\nendif\n", true),
            ("include $(wildcard $(src)/*.inc)\n", true),
            ("include $(src)/$(ARCH).inc\n", true),
            ("include $(src)/xx.inc\n", false),
            ("include $(kbuild-file)\n", false),
            ("# include x.inc\n", false),
            ("#include \"x.inc\"\n", false),
            ("$(obj)/a.o: $(src)/x.inc\n", false),
            ("", false),
        ] {
            assert_eq!(includes(text, "x.inc"), expected, "{text:?}");
        }
    }

    /// The path of a file and its text before and after. An empty text means that the file does not exist.
    type FileTexts<'t> = (&'t str, &'t str, &'t str);

    fn refused(files: &[(&str, &str)], changes: &[FileTexts<'_>]) -> Option<String> {
        let root = tempfile::tempdir().expect("dir");
        for (path, text) in files.iter().copied().chain(changes.iter().map(|(path, text, _)| (*path, *text)))
        {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("mkdir");
            if !text.is_empty() {
                std::fs::write(path, text).expect("write");
            }
        }
        let text = |text: &str| (!text.is_empty()).then(|| text.as_bytes().to_vec());
        let changes: Vec<FileEdit> =
            changes.iter().map(|(path, a, b)| FileEdit::new((*path).to_owned(), text(a), text(b))).collect();
        let failure = check(&changes, root.path(), KernelArch::X86_64).err()?;
        let diagnosis = failure.diagnoses().next().expect("one");
        assert_eq!(diagnosis.code, "klpx::patch-changes-build");
        Some(diagnosis.why.clone())
    }

    #[test]
    fn a_file_is_what_the_one_is_who_includes_it() {
        let table = ("fs/x.inc", "1,\n", "2,\n");
        let by_c = ("fs/a.c", "int a[] = {\n#include \"x.inc\"\n};\n");
        let by_make = ("fs/Makefile", "include $(src)/x.inc\n");
        let (make, nobody) = ("fs/Makefile includes it", "no C code includes it");
        for (files, changes, says) in [
            (&[by_c][..], &[table][..], None),
            (&[("fs/sub/b.h", "#include \"../x.inc\"\n")], &[table], None),
            (&[("mm/b.c", "#include <fs/x.inc>\n")], &[table], None),
            (&[("mm/b.c", "#include \"x.inc\"\n"), ("mm/x.inc", "3,\n")], &[table], Some(nobody)),
            (&[("tools/b.c", "#include \"x.inc\"\n")], &[table], Some(nobody)),
            (&[], &[table], Some(nobody)),
            (&[by_make], &[table], Some(make)),
            (&[by_c, by_make], &[table], Some(make)),
            (
                &[("fs/Makefile", "include $(src)/y.inc\n"), ("fs/y.inc", "include x.inc\n")],
                &[table],
                Some("fs/y.inc"),
            ),
            // Includes that the patch itself adds count, and so do includes that it removes.
            (&[], &[("fs/x.inc", "", "2,\n"), ("fs/a.c", "int a;\n", by_c.1)], None),
            (&[by_c], &[table, ("fs/Makefile", "obj-y := a.o\n", by_make.1)], Some(make)),
            (&[by_c], &[table, ("fs/Makefile", by_make.1, "obj-y := a.o\n")], Some(make)),
        ] {
            let code = refused(files, changes);
            match says {
                None => assert_eq!(code, None, "{files:?}"),
                Some(says) => {
                    assert!(code.as_ref().is_some_and(|code| code.starts_with(says)), "{files:?}: {code:?}")
                }
            }
        }
    }
}
