//! `$x` and `$d`: these symbols name nothing, but distinguish data in code from instructions.

use super::{Livepatch, builds, compilers};

/// The word in `second` reads as a `bl` to `first`.
const SOURCE: &str = r#"
extern int other(int);
#define SHARED __attribute__((section(".sched.text"), noinline))
SHARED int first(int x) { return other(x) + 1; }
SHARED int second(int x) { asm volatile("b 1f\n.word 0x97fffff0\n1:"); return first(x) + 2; }
SHARED int third(int x) { return other(x) + 3; }
"#;

#[test]
fn they_name_no_function_and_no_datum() {
    for (compiler, toolchain) in compilers() {
        let builds = builds(toolchain, &[], SOURCE, "+ 3", "+ 30");
        builds.with("vmlinux", |units| {
            let object = units[0].patched;
            let named = |mark: u8| object.item_ids().any(|id| object.item_name(id).first() == Some(&mark));
            assert!(!named(b'$') && !named(b'.'), "{compiler}");
            let has = object.elf.symbol_ids().any(|id| object.elf.symbol_name(id) == b"$x");
            assert!(has, "{compiler} marks code");
        });
        Livepatch::of(&builds);
    }
}

#[test]
fn data_in_code_is_copied_as_it_is() {
    for (compiler, toolchain) in compilers() {
        let builds = builds(toolchain, &[], SOURCE, "+ 2", "+ 20");
        assert_eq!(builds.changed(), ["second"], "{compiler}");
        let livepatch = Livepatch::of(&builds);
        let (section, entry, size) = livepatch.function("second");
        let at = livepatch.words("second", 0, size as i64).iter().position(|&word| word == 0x97ff_fff0);
        let at = 4 * at.expect("the word") as i64;
        let found = livepatch.references((section, entry), 0, size as i64);
        assert!(found.iter().all(|reference| reference.at != at), "{compiler}: {found:?}");
        // The real call has a relocation, even if the assembler wrote none.
        let calls: Vec<&str> = found.iter().map(|reference| reference.to.as_str()).collect();
        assert_eq!(calls, ["first"], "{compiler}");
    }
}
