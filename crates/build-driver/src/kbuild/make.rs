//! Runs the kernel's make: its variables, its progress lines, and the lines that explain a failure.

use std::path::Path;

use klpx_diagnosis::{Code, Diagnosis, Failure, Result, codes};

use crate::given::FLAGS;
use crate::kernel::{PatchableKernel, SECTION_FLAGS, SectionOrigin};
use crate::language::MakeWord;
use crate::process::{Call, Runner};
use crate::progress::{ObjectCounter, Progress};

/// The most lines of a compiler's output in a diagnosis.
const DETAIL_LINES: usize = 60;

/// Parts of a build that klpx does not need. An empty value on make's command line switches them off for make only: C
/// code still sees the configuration's header. So make needs neither rustc nor pahole nor a key.
pub(crate) const USELESS: [&str; 5] = [
    "CONFIG_RUST=",
    "CONFIG_DEBUG_INFO_BTF=",
    "CONFIG_DEBUG_INFO_BTF_MODULES=",
    "CONFIG_MODULE_SIG_FORMAT=",
    "CONFIG_SYSTEM_TRUSTED_KEYRING=",
];

/// The words for a call that makes no unit of the kernel.
pub(crate) fn without_useless<'w>(words: &[&'w str]) -> Vec<&'w str> {
    words.iter().copied().chain(USELESS).collect()
}

/// The environment variable that names the object whose link is recorded.
pub(crate) const OBJECT: &str = "KLPX_LINK";
/// The environment variable that names the file for the recorded link.
pub(crate) const RECORD: &str = "KLPX_LINK_RECORD";

/// The settings of make for one workspace.
#[derive(Clone, Copy)]
pub(crate) struct MakeSettings<'a> {
    pub(crate) kernel: &'a PatchableKernel,
    pub(crate) runner: &'a Runner,
    pub(crate) workspace: &'a Path,
    pub(crate) src: &'a Path,
    pub(crate) build: &'a Path,
    /// The program that replaces the linker, if any.
    pub(crate) ld: Option<&'a Path>,
    /// The program that replaces the compiler, if any.
    pub(crate) cc: Option<&'a Path>,
    /// The object whose link is recorded instead of made, and the file for the record.
    pub(crate) record: Option<(&'a str, &'a Path)>,
}

/// The result of a make run.
pub(crate) struct MakeResult {
    pub(crate) success: bool,
    /// The number of kernel units that were compiled.
    pub(crate) units: u64,
    /// The output of make.
    pub(crate) lines: Vec<String>,
}

impl MakeSettings<'_> {
    /// Runs make with the workspace's variables and `words` (targets and further variables).
    pub(crate) fn run(
        &self,
        words: &[&str],
        progress: &dyn Progress,
        total: Option<usize>,
    ) -> Result<MakeResult> {
        let mut lines = Vec::new();
        let units = ObjectCounter::new(total);
        let mut call = Call::new("make")
            .dir(self.src)
            .arg("--no-print-directory")
            .arg("--output-sync=target")
            .arg(format!("-j{}", self.kernel.jobs()))
            .arg(format!("O={}", self.build.display()))
            .args(self.variables())
            .args(words);
        for (name, value) in self.environment() {
            call = call.env(name, value);
        }
        let success = self.runner.stream(&call, &mut |line| {
            if is_compiled_unit(line) {
                units.add(1, progress);
            }
            tracing::trace!("{line}");
            lines.push(line.to_owned());
        })?;
        Ok(MakeResult { success, units: units.done(), lines })
    }

    /// The environment variables for the program that replaces the linker.
    pub(crate) fn environment(&self) -> Vec<(&'static str, &std::ffi::OsStr)> {
        let record =
            self.record.map(|(object, path)| [(OBJECT, object.as_ref()), (RECORD, path.as_os_str())]);
        record.into_iter().flatten().collect()
    }

    /// The variables of every make run. Original and patched builds use the same, so that no saved command differs.
    pub(crate) fn variables(&self) -> Vec<String> {
        let mut variables = vec![
            format!("ARCH={}", self.kernel.arch().kbuild()),
            "KBUILD_BUILD_TIMESTAMP=@0".to_owned(),
            "KBUILD_BUILD_USER=klpx".to_owned(),
            "KBUILD_BUILD_HOST=klpx".to_owned(),
            "KBUILD_BUILD_VERSION=1".to_owned(),
            "KBUILD_MODPOST_WARN=1".to_owned(),
        ];
        match self.kernel.is_of_units() {
            // Kernels before 6.4 or so make the release from LOCALVERSION and ignore a given value.
            true => variables.push(set("KERNELRELEASE", self.kernel.release_word())),
            // With BTF in modules, the target `modules` would link vmlinux (the kernel's Makefile, "Build modules").
            false => variables.push("CONFIG_DEBUG_INFO_BTF_MODULES=".to_owned()),
        }
        variables.push(set("LOCALVERSION", self.kernel.local_version()));
        if self.kernel.is_of_units() || !self.kernel.config().is("DEBUG_INFO_BTF") {
            // The configuration holds pahole's version even without BTF. A pahole that is installed or removed would
            // cause a rebuild of the kernel.
            variables.push("PAHOLE=/nonexistent".to_owned());
        }
        let tools = self.kernel.toolchain().make.iter();
        variables.extend(tools.filter(|word| self.cc.is_none() || !word.starts_with("CC=")).cloned());
        if let Some(cc) = self.cc {
            variables.push(format!("CC={}", cc.display()));
        }
        variables.extend(self.kernel.given().words(self.workspace));
        if let Some(ld) = self.ld {
            variables.push(format!("LD={}", ld.display()));
        }
        let sections = (self.kernel.sections() == SectionOrigin::Everywhere).then_some(SECTION_FLAGS);
        // Debug information does not change the code. klpx reads the layouts of types, declarations and inlined copies
        // from it.
        let debug_info = (!self.kernel.config().is("DEBUG_INFO")).then_some("-g");
        let given = self.kernel.given().flags(self.workspace);
        let flags = [Some(given.as_str()).filter(|flags| !flags.is_empty()), sections, debug_info];
        if flags.iter().any(Option::is_some) {
            variables.push(format!("{FLAGS}={}", flags.into_iter().flatten().collect::<Vec<_>>().join(" ")));
        }
        variables
    }

    /// The failure that make's output shows.
    pub(crate) fn failure(&self, built: &MakeResult, code: &Code, what: &str, remedy: &str) -> Failure {
        if let Some(line) = built.lines.iter().find(|line| line.contains("No space left on device")) {
            return Diagnosis::new(
                &codes::DISK_FULL,
                "the disk is full",
                line.trim().to_owned(),
                "free some space (klpx cache prune --free GB), or name another cache directory with \
                 --cache-dir",
            )
            .into();
        }
        let lines = error_lines(&built.lines, self.src);
        let mut diagnosis = Diagnosis::new(code, what, "make ended with an error", remedy);
        if let Some((file, line)) = lines.iter().find_map(|line| error_place(line)) {
            diagnosis = diagnosis.place(klpx_diagnosis::DiagnosisPlace::file(file, Some(line)));
        }
        diagnosis.detail(lines).into()
    }
}

/// The command word and the file in one of kbuild's short lines, such as `  CC [M]  drivers/md/raid1.o`.
fn short_line(line: &str) -> Option<(&str, &str)> {
    let rest = line.strip_prefix("  ")?;
    let end = rest.find(' ')?;
    let (word, rest) = rest.split_at(end);
    if word.is_empty() || !word.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_') {
        return None;
    }
    let rest = rest.trim_start();
    let file = rest.strip_prefix("[M]").unwrap_or(rest).trim();
    Some((word, file))
}

/// Returns true if the line reports the compilation of a kernel unit. Programs for the build machine do not count.
pub(crate) fn is_compiled_unit(line: &str) -> bool {
    short_line(line).is_some_and(|(word, file)| {
        (word == "CC" || word == "AS") && !file.starts_with('/') && !file.starts_with("scripts/")
    })
}

/// A variable on make's command line.
fn set(name: &str, value: &MakeWord) -> String {
    format!("{name}={value}")
}

fn is_error(line: &str) -> bool {
    const SIGNS: [&str; 8] = [
        " error: ",
        " fatal error: ",
        "error: objtool",
        "undefined reference",
        "undefined symbol",
        "ERROR: ",
        "internal compiler error",
        ": Stop.",
    ];
    // ld.lld and git begin an error line with `error: `.
    SIGNS.iter().any(|sign| line.contains(sign))
        || line.starts_with("error: ")
        || line.contains("*** No rule")
}

/// Returns true for a line that introduces an error: the including file, the function.
fn is_lead(line: &str) -> bool {
    line.starts_with("In file included from")
        || line.starts_with("                 from ")
        || line.contains(": In function ")
        || line.contains(": At top level:")
}

fn is_make_noise(line: &str) -> bool {
    line.starts_with("make[") || line.starts_with("make: ") || short_line(line).is_some()
}

/// The lines of a failed make run that explain the failure: each error with the lines that introduce and follow it,
/// without the path of the workspace's source. The last lines if no line looks like an error.
pub(crate) fn error_lines(lines: &[String], src: &Path) -> Vec<String> {
    let prefix = format!("{}/", src.display());
    let clean = |line: &String| line.replace(&prefix, "");
    let mut kept = vec![false; lines.len()];
    for at in (0..lines.len()).filter(|&at| is_error(&lines[at])) {
        kept[at] = true;
        for before in (0..at).rev().take_while(|&n| is_lead(&lines[n])) {
            kept[before] = true;
        }
        let follows =
            |line: &String| line.starts_with(' ') && !is_make_noise(line) || line.contains(" note: ");
        for (offset, _) in lines[at + 1..].iter().take(12).enumerate().take_while(|(_, line)| follows(line)) {
            kept[at + 1 + offset] = true;
        }
    }
    let found: Vec<String> = lines
        .iter()
        .zip(&kept)
        .filter(|(_, keep)| **keep)
        .map(|(line, _)| clean(line))
        .take(DETAIL_LINES)
        .collect();
    if !found.is_empty() {
        return found;
    }
    let mut last: Vec<String> =
        lines.iter().rev().filter(|line| !line.trim().is_empty()).take(20).map(clean).collect();
    last.reverse();
    last
}

/// The file and line number in `FILE:LINE:COLUMN: error: ...`.
fn error_place(line: &str) -> Option<(String, u32)> {
    let (head, _) = line.split_once(" error: ").or_else(|| line.split_once(" fatal error: "))?;
    let mut parts = head.trim_end_matches(':').split(':');
    let file = parts.next()?;
    let number = parts.next()?.parse().ok()?;
    (!file.is_empty()).then(|| (file.to_owned(), number))
}

pub(crate) fn original_does_not_build(make: &MakeSettings<'_>, built: &MakeResult) -> Failure {
    make.failure(
        built,
        &codes::ORIGINAL_SOURCE_DOES_NOT_BUILD,
        "the unpatched kernel source does not build",
        "build it by hand with the same configuration and tools to see whether it does",
    )
}

pub(crate) fn patched_fails(make: &MakeSettings<'_>, built: &MakeResult) -> Failure {
    let what = "the patched kernel source does not compile";
    make.failure(built, &codes::PATCHED_SOURCE_DOES_NOT_COMPILE, what, "correct the patch")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiled_units_are_counted_from_kbuilds_short_lines() {
        let yes = [
            "  CC      fs/proc/version.o",
            "  CC [M]  drivers/md/raid1.o",
            "  AS      arch/x86/lib/memcpy.o",
        ];
        let no = [
            "  HOSTCC  scripts/basic/fixdep",
            "  CC      scripts/mod/empty.o",
            "  CC       /ws/build/tools/objtool/check.o",
            "  AR      fs/built-in.a",
            "  LD      vmlinux.o",
            "make[3]: something",
            "   CC is a word",
        ];
        assert!(yes.iter().all(|line| is_compiled_unit(line)));
        assert!(!no.iter().any(|line| is_compiled_unit(line)));
    }

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn errors_come_with_what_surrounds_them() {
        let output = lines(
            "  CC      fs/a.o\n\
             In file included from /ws/src/include/linux/b.h:3,\n\
             /ws/src/fs/a.c: In function 'f':\n\
             /ws/src/fs/a.c:7:9: error: 'x' undeclared (first use in this function)\n    7 |  return x;\n      |         ^\n\
             make[3]: *** [/ws/src/scripts/Makefile.build:289: fs/a.o] Error 1\n  CC      fs/b.o\n",
        );
        let found = error_lines(&output, Path::new("/ws/src"));
        assert_eq!(
            found,
            [
                "In file included from include/linux/b.h:3,",
                "fs/a.c: In function 'f':",
                "fs/a.c:7:9: error: 'x' undeclared (first use in this function)",
                "    7 |  return x;",
                "      |         ^",
            ]
        );
        assert_eq!(found.iter().find_map(|line| error_place(line)), Some(("fs/a.c".to_owned(), 7)));
    }

    #[test]
    fn without_an_error_line_the_last_lines_are_shown() {
        let output: Vec<String> = (0..50).map(|n| format!("line {n}")).collect();
        let found = error_lines(&output, Path::new("/ws"));
        assert_eq!((found.len(), found[0].as_str(), found[19].as_str()), (20, "line 30", "line 49"));
    }
}
