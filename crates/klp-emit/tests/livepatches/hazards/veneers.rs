//! Calls out of reach: the loader makes entries of `.plt` where it can, and veneers serve where it is too late for
//! `.plt`.

use klpx_klp_emit::writer::Relocatable;
use klpx_normalize::elf::ElfFile;
use klpx_testkit::kernel::Kernel;

use super::{Livepatch, builds, compilers};

const SOURCE: &str = r#"
static int seen;
static __attribute__((noinline)) int helper(int x) { seen += x; return seen; }
int later(int);
int calls(int x) { return helper(x) + helper(3) + 1; }
int later(int x) { return seen * x; }
int jumps(int x) { return helper(x + 2); }
int (*keep)(int) = helper;
"#;

#[test]
fn a_branch_into_the_kernel_is_the_loaders() {
    for (compiler, toolchain) in compilers() {
        let builds = builds(toolchain, &[], SOURCE, "+ 1", "+ 10");
        let livepatch = Livepatch::of(&builds);
        let (section, entry, size) = livepatch.function("calls");
        let found = livepatch.references((section, entry), 0, size as i64);
        let calls: Vec<_> = found.iter().map(|r| (r.kind, r.to.as_str(), r.late)).collect();
        assert_eq!(calls, [("R_AARCH64_CALL26", "helper", false); 2], "{compiler}");
    }
}

#[test]
fn the_loader_refuses_a_module_without_room_for_such_entries_and_so_does_the_check() {
    for (compiler, toolchain) in compilers() {
        let builds = builds(toolchain, &[], SOURCE, "+ 1", "+ 10");
        let livepatch = Livepatch::of(&builds);
        for name in [".plt", ".init.plt", ".text.ftrace_trampoline"] {
            let mut module = Relocatable::read(&livepatch.elf()).expect("a module");
            module.retain_sections(|section| section.name != name.as_bytes()).expect("nothing refers to it");
            let without = ElfFile::from_bytes("livepatch.ko", module.write());
            let failure = builds.verify("vmlinux", &Kernel::default(), &without).expect_err(name);
            assert!(failure.diagnoses().any(|f| f.code == "klpx::verify-format"), "{compiler} {name}");
        }
    }
}

#[test]
fn a_branch_to_what_comes_late_goes_through_a_veneer() {
    for (compiler, toolchain) in compilers() {
        for (from, to, name, count) in [("+ 1", "+ 10", "calls", 2), ("+ 2", "+ 20", "jumps", 1)] {
            let builds = builds(toolchain, &[], SOURCE, from, to);
            let livepatch = Livepatch::of_object(&builds, "loop");
            let (section, entry, size) = livepatch.function(name);
            let found = livepatch.references((section, entry), 0, size as i64);
            let veneers: Vec<_> = found.iter().map(|r| (r.to.as_str(), r.addend, r.late)).collect();
            assert_eq!(veneers, vec![("__klpx_veneer_helper", 0, false); count], "{compiler} {name}");

            let (section, entry, size) = livepatch.function("__klpx_veneer_helper");
            // adrp x16, helper; add x16, x16, :lo12:helper; ret x16
            let code = livepatch.words("__klpx_veneer_helper", 0, size as i64);
            assert_eq!(code, [0x9000_0010, 0x9100_0210, 0xd65f_0200], "{compiler}");
            let found = livepatch.references((section, entry), 0, size as i64);
            let halves: Vec<_> = found.iter().map(|r| (r.kind, r.to.as_str(), r.late)).collect();
            let wanted = [
                ("R_AARCH64_ADR_PREL_PG_HI21", "helper", true),
                ("R_AARCH64_ADD_ABS_LO12_NC", "helper", true),
            ];
            assert_eq!(halves, wanted, "{compiler}");
        }
    }
}

/// The loader's own entries branch on by `br x16`, which traps under BTI if the function has no landing pad.
#[test]
fn a_function_without_a_landing_pad_is_never_reached_by_way_of_plt() {
    let source = r#"
        extern int far(int);
        static int seen;
        static __attribute__((noinline)) int bare(int x) { seen += x; return seen; }
        static __attribute__((noinline)) int padded(int x) { seen -= x; return seen; }
        int calls(int x) { return bare(x) + padded(x) + far(x) + 1; }
        int (*keep)(int) = padded;
    "#;
    for (compiler, toolchain) in compilers() {
        for (flags, through) in [
            (&["-mbranch-protection=bti"][..], "__klpx_veneer_bare"),
            (&["-mbranch-protection=none"], "bare"),
        ] {
            let builds = builds(toolchain, flags, source, "+ 1", "+ 10");
            let livepatch = Livepatch::of(&builds);
            let (section, entry, size) = livepatch.function("calls");
            let found = livepatch.references((section, entry), 0, size as i64);
            let calls = found.iter().filter(|r| r.kind == "R_AARCH64_CALL26").map(|r| r.to.as_str());
            assert_eq!(calls.collect::<Vec<_>>(), [through, "padded", "far"], "{compiler} {flags:?}");
        }
    }
}

#[test]
fn each_function_has_one_veneer() {
    for (compiler, toolchain) in compilers() {
        let source = SOURCE.replace("int later(int x) {", "__attribute__((noinline)) int later(int x) {");
        let builds =
            builds(toolchain, &[], &source, "helper(3) + 1", "helper(3) + later(x) + later(helper(x))");
        let livepatch = Livepatch::of_object(&builds, "loop");
        let elf = livepatch.elf();
        let mut names: Vec<_> = elf
            .symbol_ids()
            .map(|id| String::from_utf8_lossy(elf.symbol_name(id)).into_owned())
            .filter(|name| name.starts_with("__klpx_veneer_"))
            .collect();
        names.sort();
        assert_eq!(names, ["__klpx_veneer_helper", "__klpx_veneer_later"], "{compiler}");
    }
}

#[test]
fn no_late_relocation_is_a_branch() {
    for (compiler, toolchain) in compilers() {
        let builds = builds(toolchain, &[], SOURCE, "helper(3) + 1", "helper(3) + later(x)");
        let livepatch = Livepatch::of_object(&builds, "loop");
        let (section, _, _) = livepatch.function("calls");
        let all = livepatch.references((section, 0), 0, i64::MAX);
        assert!(all.iter().any(|reference| reference.late), "{compiler}");
        let branches = ["R_AARCH64_CALL26", "R_AARCH64_JUMP26"];
        assert!(all.iter().all(|r| !r.late || !branches.contains(&r.kind)), "{compiler}: {all:?}");
    }
}
