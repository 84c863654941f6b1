//! Replacements of alternatives: they lie in `.subsection 1`, after their functions and outside every symbol.

use klpx_normalize::elf::SectionId;
use klpx_testkit::fixture::Toolchain;

use super::{Livepatch, NOP, builds, compilers};

/// An alternative laid out as by the kernel's macros: the code, an entry, and the replacement in `.subsection 1`.
const MACRO: &str = r#"
extern int other(int);
#define ALTERNATIVE(code, replacement) asm volatile( \
    "661: " code "\n662:\n" \
    ".pushsection .altinstructions,\"a\"\n.word 661b - ., 663f - .\n.hword 5\n.byte 662b - 661b, 664f - 663f\n" \
    ".popsection\n.subsection 1\n663: " replacement "\n664:\n.previous")
"#;

/// Each function has a section of its own.
const ALONE: &str = r#"
int cpu(int x) { ALTERNATIVE("mrs x9, tpidr_el1", "mrs x9, tpidr_el2"); return other(x) + 1; }
int quick(int x) { ALTERNATIVE("dsb sy", "nop"); return other(x) + 2; }
int after(int x) { return other(x) + 3; }
"#;

/// The functions share one section, and their replacements lie after the last function.
const SHARED: &str = r#"
#define SHARED __attribute__((section(".sched.text"), noinline))
SHARED int first(int x) { ALTERNATIVE("nop", "mrs x9, tpidr_el2"); return other(x) + 1; }
SHARED int second(int x) { ALTERNATIVE("dsb sy", "nop"); return other(x) + 2; }
SHARED int third(int x) {
    asm goto("661: nop\n662:\n"
        ".pushsection .altinstructions,\"a\"\n.word 661b - ., 663f - .\n.hword 5\n.byte 662b - 661b, 664f - 663f\n"
        ".popsection\n.subsection 1\n663: b %l[out]\n664:\n.previous" : : : : out);
    x = other(x) + 3;
out:
    return other(x) * 7;
}
SHARED int last(int x) { return other(x) + 4; }
"#;

const MRS_EL2: u32 = 0xd53c_d049; // mrs x9, tpidr_el2

fn two_builds(
    toolchain: &'static Toolchain,
    source: &str,
    from: &str,
    to: &str,
) -> klpx_testkit::builds::Builds {
    builds(toolchain, &[], &format!("{MACRO}{source}"), from, to)
}

/// For each alternative of a module, in table order: the places of its code and its replacement.
fn alternatives(livepatch: &Livepatch) -> Vec<[(SectionId, u64); 2]> {
    livepatch.places(".altinstructions").chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect()
}

#[test]
fn a_change_of_the_replacement_is_a_change_of_its_function() {
    for (compiler, toolchain) in compilers() {
        let builds = two_builds(toolchain, ALONE, "mrs x9, tpidr_el2", "mrs x9, tpidr_el0");
        assert_eq!(builds.changed(), ["cpu"], "{compiler}");
        let livepatch = Livepatch::of(&builds);
        let [[code, (section, at)]] = alternatives(&livepatch)[..] else { panic!("one alternative") };
        let (of, entry, size) = livepatch.function("cpu");
        assert!(code.0 == of && (entry..entry + size).contains(&code.1), "{compiler}");
        assert_eq!(livepatch.words_at(section, at, at + 4), [0xd53b_d049], "{compiler}"); // mrs x9, tpidr_el0
    }
}

#[test]
fn a_replacement_of_nothing_but_no_operations_comes_along() {
    for (compiler, toolchain) in compilers() {
        let builds = two_builds(toolchain, ALONE, "+ 2", "+ 20");
        assert_eq!(builds.changed(), ["quick"], "{compiler}");
        let livepatch = Livepatch::of(&builds);
        let [[_, (section, at)]] = alternatives(&livepatch)[..] else { panic!("one alternative") };
        let (_, entry, size) = livepatch.function("quick");
        assert!(at >= entry + size, "{compiler}");
        assert_eq!(livepatch.words_at(section, at, at + 4), [NOP], "{compiler}");
    }
}

#[test]
fn replacements_behind_the_last_function_of_a_section_belong_to_their_own() {
    for (compiler, toolchain) in compilers() {
        let cases = [
            ("mrs x9, tpidr_el2", "mrs x9, tpidr_el0", "first"),
            ("ALTERNATIVE(\"dsb sy\", \"nop\")", "ALTERNATIVE(\"dsb sy\", \"isb\")", "second"),
            ("+ 4", "+ 40", "last"),
        ];
        for (from, to, changed) in cases {
            let builds = two_builds(toolchain, SHARED, from, to);
            assert_eq!(builds.changed(), [changed], "{compiler} {to}");
            let livepatch = Livepatch::of(&builds);
            let own = if changed == "last" { 0 } else { 1 };
            assert_eq!(alternatives(&livepatch).len(), own, "{compiler} {to}");
        }
    }
}

#[test]
fn a_replacement_is_taken_along_from_behind_another_function() {
    for (compiler, toolchain) in compilers() {
        let builds = two_builds(toolchain, SHARED, "+ 1", "+ 10");
        assert_eq!(builds.changed(), ["first"], "{compiler}");
        let livepatch = Livepatch::of(&builds);
        let [[_, (section, at)]] = alternatives(&livepatch)[..] else { panic!("one alternative") };
        assert_eq!(livepatch.words_at(section, at, at + 4), [MRS_EL2], "{compiler}");
    }
}

#[test]
fn a_replacement_branches_back_into_the_copy() {
    for (compiler, toolchain) in compilers() {
        let builds = two_builds(toolchain, SHARED, "+ 3", "+ 30");
        assert_eq!(builds.changed(), ["third"], "{compiler}");
        let livepatch = Livepatch::of(&builds);
        let [[_, replacement]] = alternatives(&livepatch)[..] else { panic!("one alternative") };
        let found = livepatch.references(replacement, 0, 4);
        let [branch] = &found[..] else { panic!("{compiler}: {found:?}") };
        let (_, entry, size) = livepatch.function("third");
        assert_eq!((branch.kind, branch.to.as_str()), ("R_AARCH64_JUMP26", "third"), "{compiler}");
        assert!((1..size as i64).contains(&branch.addend), "{compiler}: {branch:?} {entry:#x}");
    }
}

#[test]
fn a_replacement_in_a_section_of_its_function_needs_no_relocation() {
    let own = SHARED.replace("section(\".sched.text\"), ", "");
    for (compiler, toolchain) in compilers() {
        let builds = two_builds(toolchain, &own, "+ 3", "+ 30");
        let livepatch = Livepatch::of(&builds);
        let [[_, (section, at)]] = alternatives(&livepatch)[..] else { panic!("one alternative") };
        assert_eq!(livepatch.references((section, at), 0, 4), [], "{compiler}");
        let word = livepatch.words_at(section, at, at + 4)[0];
        let to = at.wrapping_add_signed(i64::from((word << 6) as i32 >> 6) * 4);
        let (_, entry, size) = livepatch.function("third");
        assert!((entry + 1..entry + size).contains(&to), "{compiler}: {to:#x}");
    }
}
