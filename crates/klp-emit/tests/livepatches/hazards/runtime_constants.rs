//! `runtime_ptr_*` and `runtime_shift_*`: places that only boot code patches.

use klpx_testkit::kernel::Kernel;

use super::{Livepatch, NOP, builds, compilers};

/// A pointer laid out as by the kernel's macro: 16 bits per instruction, and an entry with its place in a table.
const POINTER: &str = r#"
unsigned long *base;
unsigned long reads(int x) {
    unsigned long *p;
    asm("1: movz %0, #0xcdef\nmovk %0, #0x89ab, lsl #16\nmovk %0, #0x4567, lsl #32\nmovk %0, #0x0123, lsl #48\n"
        ".pushsection runtime_ptr_base,\"a\"\n.long 1b - .\n.popsection" : "=r"(p));
    return p[x] + 1;
}
unsigned long **keep(void) { return &base; }
"#;

const SHIFT: &str = r#"
unsigned reads(unsigned x) {
    asm("1: lsr %w0, %w0, #12\n.pushsection runtime_shift_bits,\"a\"\n.long 1b - .\n.popsection" : "+r"(x));
    return x + 1;
}
"#;

#[test]
fn a_pointer_is_read_from_its_variable() {
    for (compiler, toolchain) in compilers() {
        let builds = builds(toolchain, &[], POINTER, "+ 1", "+ 10");
        assert_eq!(builds.changed(), ["reads"], "{compiler}");
        let livepatch = Livepatch::of(&builds);
        let (section, entry, size) = livepatch.function("reads");
        let found = livepatch.references((section, entry), 0, size as i64);
        let kinds: Vec<(&str, &str)> = found.iter().map(|r| (r.kind, r.to.as_str())).collect();
        let halves = [("R_AARCH64_ADR_PREL_PG_HI21", "base"), ("R_AARCH64_LDST64_ABS_LO12_NC", "base")];
        assert_eq!(kinds, halves, "{compiler}");
        let at = found[0].at;
        let code = livepatch.words("reads", at, at + 16);
        let register = code[0] & 31;
        // adrp x, base; ldr x, [x, :lo12:base]; nop; nop
        let loads = [0x9000_0000 | register, 0xf940_0000 | register << 5 | register, NOP, NOP];
        assert_eq!(code, loads, "{compiler}");
        assert_eq!(livepatch.places("runtime_ptr_base"), [], "{compiler}: modules may not have the table");
    }
}

/// arm64 has the constant in four pieces, so no place in the code holds it.
#[test]
fn a_pointer_without_a_variable_is_refused() {
    let text = POINTER
        .replace("unsigned long *base;", "")
        .replace("unsigned long **keep(void) { return &base; }", "");
    for (compiler, toolchain) in compilers() {
        let builds = builds(toolchain, &[], &text, "+ 1", "+ 10");
        let kernel = Kernel { holder: Some(("reader", 8)), ..Kernel::default() };
        assert_eq!(builds.codes("vmlinux", &kernel), ["klpx::runtime-constant"], "{compiler}");
    }
}

#[test]
fn a_shift_is_refused() {
    for (compiler, toolchain) in compilers() {
        let builds = builds(toolchain, &[], SHIFT, "+ 1", "+ 10");
        let failure = builds.emit("vmlinux", &Kernel::default()).err().expect("refused");
        let found = failure.diagnoses().next().expect("one");
        assert_eq!(found.code, "klpx::special-section", "{compiler}");
        assert_eq!(found.place.symbol.as_deref(), Some("reads"), "{compiler}");
        assert!(!found.why.is_empty() && !found.remedy.is_empty(), "{compiler}");
    }
}
