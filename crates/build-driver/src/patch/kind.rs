//! What a file of the kernel tree means for a livepatch, by its path: a table, and why some kinds are refused. Reads no
//! file.

use klpx_diagnosis::{Code, Diagnosis, DiagnosisPlace, codes};

use crate::arch::KernelArch;
use crate::tree;

/// What a file of the kernel tree means for a livepatch, by its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// C that is compiled into the kernel.
    Source,
    /// A header.
    Header,
    /// A part of C code or of makefiles. The name does not show which.
    Included,
    /// A Makefile or Kbuild file in a folder of sources.
    BuildFile,
    /// Another file that may affect the kernel, such as a table from which code is made.
    Other,
    /// Assembly.
    Assembly,
    /// A linker script.
    LinkerScript,
    /// vDSO code, which user space runs.
    Vdso,
    /// Code that runs before the kernel proper or outside of it.
    Boot,
    /// Code of a hypervisor, which is linked separately from the kernel.
    Hypervisor,
    /// Kconfig files.
    Kconfig,
    /// The build system itself, or a program that the build runs.
    BuildSystem,
    /// Rust code.
    Rust,
    /// Documentation, user-space tools, and other files that are not compiled into the kernel.
    NotCompiled,
    /// A part of another architecture, which is not compiled into this kernel.
    OtherArch,
}

/// A rule of `classify`: a path that begins with `start`, contains `middle` and ends with `end` has this `kind`.
struct PathRule {
    start: &'static str,
    middle: &'static str,
    end: &'static str,
    kind: FileKind,
}

const fn rule(start: &'static str, middle: &'static str, end: &'static str, kind: FileKind) -> PathRule {
    PathRule { start, middle, end, kind }
}

/// The first rule that fits decides.
const PATH_RULES: [PathRule; 50] = [
    rule("Documentation/", "", "", FileKind::NotCompiled),
    rule("LICENSES/", "", "", FileKind::NotCompiled),
    rule("tools/objtool/", "", "", FileKind::BuildSystem),
    rule("tools/lib/", "", "", FileKind::BuildSystem),
    rule("tools/include/", "", "", FileKind::BuildSystem),
    rule("tools/build/", "", "", FileKind::BuildSystem),
    rule("tools/arch/", "", "", FileKind::BuildSystem),
    rule("tools/scripts/", "", "", FileKind::BuildSystem),
    rule("tools/bpf/resolve_btfids/", "", "", FileKind::BuildSystem),
    rule("tools/", "", "", FileKind::NotCompiled),
    rule("scripts/coccinelle/", "", "", FileKind::NotCompiled),
    rule("scripts/checkpatch.pl", "", "", FileKind::NotCompiled),
    rule("scripts/get_maintainer.pl", "", "", FileKind::NotCompiled),
    rule("scripts/kernel-doc", "", "", FileKind::NotCompiled),
    rule("scripts/gdb/", "", "", FileKind::NotCompiled),
    rule("scripts/", "", "", FileKind::BuildSystem),
    rule("", "", ".rst", FileKind::NotCompiled),
    rule("", "", ".txt", FileKind::NotCompiled),
    rule("", "", ".md", FileKind::NotCompiled),
    rule("", "", "README", FileKind::NotCompiled),
    rule("", "", ".gitignore", FileKind::NotCompiled),
    rule("", "", ".yaml", FileKind::NotCompiled),
    rule("", "", ".dts", FileKind::NotCompiled),
    rule("", "", ".dtsi", FileKind::NotCompiled),
    rule("", "", ".dtso", FileKind::NotCompiled),
    rule("arch/", "/boot/dts/", "", FileKind::NotCompiled),
    rule("include/config/", "", "", FileKind::BuildSystem),
    rule("include/generated/", "", "", FileKind::BuildSystem),
    rule("arch/", "/include/generated/", "", FileKind::BuildSystem),
    rule("arch/", "/configs/", "", FileKind::Kconfig),
    rule("", "Kconfig", "", FileKind::Kconfig),
    rule("arch/", "/boot/", "", FileKind::Boot),
    rule("arch/", "/realmode/", "", FileKind::Boot),
    rule("arch/", "/purgatory/", "", FileKind::Boot),
    rule("arch/arm64/kernel/pi/", "", "", FileKind::Boot),
    rule("drivers/firmware/efi/libstub/", "", "", FileKind::Boot),
    rule("arch/arm64/kvm/hyp/", "", ".h", FileKind::Header),
    rule("arch/arm64/kvm/hyp/", "nvhe/", "", FileKind::Hypervisor),
    rule("", "", ".lds.S", FileKind::LinkerScript),
    rule("", "", ".lds", FileKind::LinkerScript),
    rule("", "", ".lds.h", FileKind::LinkerScript),
    rule("", "/vdso/", ".c", FileKind::Vdso),
    rule("", "/vdso32/", ".c", FileKind::Vdso),
    rule("", "", ".S", FileKind::Assembly),
    rule("", "", ".rs", FileKind::Rust),
    rule("", "", "/Makefile", FileKind::BuildFile),
    rule("", "", "/Kbuild", FileKind::BuildFile),
    rule("", "", ".h", FileKind::Header),
    rule("", "", ".c", FileKind::Source),
    rule("", "", ".inc", FileKind::Included),
];

/// Files at the top of the tree that the build does not read.
const TOP_TEXTS: [&str; 8] = [
    "COPYING",
    "CREDITS",
    "MAINTAINERS",
    "README",
    ".mailmap",
    ".gitattributes",
    ".clang-format",
    ".editorconfig",
];

/// The kind of a file, by its path.
pub fn classify(path: &str, arch: KernelArch) -> FileKind {
    if TOP_TEXTS.contains(&path) {
        return FileKind::NotCompiled;
    }
    if let Some(rest) = path.strip_prefix("arch/") {
        match rest.split_once('/') {
            Some((name, "Makefile")) if name == arch.kbuild() => return FileKind::BuildSystem,
            Some((name, _)) if name != arch.kbuild() => return FileKind::OtherArch,
            _ => {}
        }
    }
    if tree::is_of_no_build(path) {
        return FileKind::NotCompiled;
    }
    let kind = PATH_RULES
        .iter()
        .find(|rule| path.starts_with(rule.start) && path.contains(rule.middle) && path.ends_with(rule.end))
        .map_or(FileKind::Other, |rule| rule.kind);
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    match is_of_build_system(folder, name) && (kind != FileKind::NotCompiled || folder.is_empty()) {
        true => FileKind::BuildSystem,
        false => kind,
    }
}

/// Returns true for a file that make or the kernel's scripts read, except for the Makefile or Kbuild file of a folder
/// below the top. make reads the first existing file of GNUmakefile, makefile and Makefile.
fn is_of_build_system(folder: &str, name: &str) -> bool {
    let of_folder = !folder.is_empty() && (name == "Makefile" || name == "Kbuild");
    let of_top = folder.is_empty() && (name.starts_with("localversion") || name == ".scmversion");
    !of_folder && (is_read_by_make(name) || of_top || tree::is_product(name))
}

/// Returns true for the name of a makefile.
pub(super) fn is_read_by_make(name: &str) -> bool {
    const STARTS: [&str; 4] = ["GNUmakefile", "makefile", "Makefile", "Kbuild"];
    const ENDS: [&str; 3] = [".mk", ".mak", ".include"];
    // scripts/Makefile.build reads Platform files of some architectures.
    STARTS.iter().any(|start| name.starts_with(start))
        || ENDS.iter().any(|end| name.ends_with(end))
        || name == "Platform"
}

/// Why a livepatch can't change a kind of file.
pub(super) struct Refusal {
    code: &'static Code,
    what: &'static str,
    why: &'static str,
    remedy: &'static str,
}

impl Refusal {
    pub(super) fn diagnosis(&self, path: &str) -> Diagnosis {
        Diagnosis::new(self.code, format!("the patch changes {}", self.what), self.why, self.remedy)
            .place(DiagnosisPlace::file(path, None))
    }
}

impl FileKind {
    /// Returns true if the file can become a part of the kernel and klpx applies its changes.
    pub fn is_compiled(self) -> bool {
        self.is_c() || matches!(self, FileKind::BuildFile | FileKind::Other)
    }

    /// Returns true if the compiler of C code reads the file.
    pub(crate) fn is_c(self) -> bool {
        matches!(self, FileKind::Source | FileKind::Header | FileKind::Included)
    }

    pub(super) fn passed_over(self) -> &'static str {
        if self == FileKind::OtherArch {
            "it is of another architecture"
        } else {
            "it is not compiled into the kernel"
        }
    }

    pub(super) fn refusal(self) -> Option<Refusal> {
        let refusal = |code, what, why, remedy| Some(Refusal { code, what, why, remedy });
        match self {
            FileKind::Assembly => refusal(
                &codes::ASSEMBLY,
                "assembly",
                "assembly functions have no ftrace entry, and their callers may depend on their exact bytes",
                "make the fix in the C code that calls it",
            ),
            FileKind::LinkerScript => refusal(
                &codes::LINKER_SCRIPT,
                "a linker script",
                "the layout of the running kernel can't change",
                "leave the linker script out of the patch",
            ),
            FileKind::Vdso => refusal(
                &codes::VDSO,
                "the vdso",
                "it is mapped into every process and runs in user mode, where no livepatch reaches",
                "this fix needs a reboot",
            ),
            FileKind::Boot => refusal(
                &codes::BOOT_CODE,
                "boot code",
                "it has run, or runs outside the kernel, before a livepatch can be loaded",
                "this fix needs a reboot",
            ),
            FileKind::Hypervisor => refusal(
                &codes::HYPERVISOR_CODE,
                "hypervisor code",
                "it runs at another exception level with its own mapping, where ftrace does not reach",
                "this fix needs a reboot",
            ),
            FileKind::Kconfig => refusal(
                &codes::PATCH_CHANGES_CONFIG,
                "the kernel configuration",
                "the running kernel's options can't change",
                "leave the Kconfig change out of the patch, and its code without the new option",
            ),
            FileKind::BuildSystem => refusal(
                &codes::PATCH_CHANGES_BUILD,
                "the build system",
                "original and patched kernel must be built the same way to be compared",
                "leave this file out of the patch",
            ),
            FileKind::Rust => refusal(
                &codes::RUST,
                "Rust code",
                "klpx does not know how to livepatch Rust functions yet",
                "make the fix in C code",
            ),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_classified_by_path() {
        use FileKind::*;
        let cases = [
            ("fs/proc/version.c", Source),
            ("include/linux/md.h", Header),
            ("drivers/md/Makefile", BuildFile),
            ("Makefile", BuildSystem),
            ("arch/x86/Makefile", BuildSystem),
            ("scripts/mod/modpost.c", BuildSystem),
            ("scripts/checkpatch.pl", NotCompiled),
            ("Documentation/x.c", NotCompiled),
            ("tools/objtool/check.c", BuildSystem),
            ("tools/testing/selftests/x.c", NotCompiled),
            ("arch/arm64/kernel/x.c", OtherArch),
            ("arch/x86/entry/entry_64.S", Assembly),
            ("arch/x86/entry/vdso/vclock_gettime.c", Vdso),
            ("lib/vdso/gettimeofday.c", Vdso),
            ("arch/x86/include/asm/vdso/gettimeofday.h", Header),
            ("arch/x86/boot/main.c", Boot),
            ("arch/x86/realmode/rm/x.S", Boot),
            ("arch/x86/kernel/vmlinux.lds.S", LinkerScript),
            ("drivers/md/Kconfig", Kconfig),
            ("rust/kernel/lib.rs", Rust),
            ("MAINTAINERS", NotCompiled),
            ("GNUmakefile", BuildSystem),
            ("makefile", BuildSystem),
            ("fs/GNUmakefile", BuildSystem),
            ("fs/makefile", BuildSystem),
            ("fs/Makefile.inc", BuildSystem),
            ("drivers/x/rules.mk", BuildSystem),
            ("drivers/x/table.inc", Included),
            ("scripts/x.inc", BuildSystem),
            ("arch/arm64/lib/x.inc", OtherArch),
            ("fs/Kbuild.inc", BuildSystem),
            ("arch/x86/Kbuild.extra", BuildSystem),
            ("localversion-x", BuildSystem),
            ("localversion.txt", BuildSystem),
            (".scmversion", BuildSystem),
            ("include/config/auto.conf", BuildSystem),
            ("arch/x86/include/generated/asm/x.h", BuildSystem),
            ("fs/a.o", BuildSystem),
            ("fs/Makefile", BuildFile),
            ("tools/testing/selftests/lib.mk", NotCompiled),
            ("fs/.hidden/a.c", NotCompiled),
            ("notes.json", NotCompiled),
            ("arch/x86/entry/syscalls/syscall_64.tbl", Other),
        ];
        for (path, kind) in cases {
            assert_eq!(classify(path, KernelArch::X86_64), kind, "{path}");
        }
        assert_eq!(classify("arch/arm64/kvm/hyp/nvhe/mm.c", KernelArch::Arm64), Hypervisor);
        assert_eq!(classify("arch/arm64/boot/dts/x/y.dts", KernelArch::Arm64), NotCompiled);
    }
}
