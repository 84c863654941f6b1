//! Literal pools: the value that `ldr x0, =symbol` reads lies after the function, outside its symbol, without a
//! relocation on the load.

use klpx_testkit::kernel::Kernel;

use super::{Livepatch, builds, compilers};

const SOURCE: &str = r#"
extern int other(int);
unsigned long sink;
SECTION unsigned long address(void) { unsigned long r; asm("ldr %0, =sink" : "=r"(r)); return r + 1; }
SECTION unsigned long number(void) { unsigned long r; asm("ldr %0, =0x123456789abcdef0" : "=r"(r)); return r + 2; }
SECTION int last(int x) { return other(x) + 3; }
"#;

fn source(section: &str) -> String {
    let attribute = format!("__attribute__((section(\"{section}\"), noinline))");
    SOURCE.replace("SECTION", if section.is_empty() { "" } else { &attribute })
}

#[test]
fn a_pool_comes_along_with_its_function() {
    for (compiler, toolchain) in compilers() {
        let builds = builds(toolchain, &[], &source(""), "+ 1", "+ 10");
        assert_eq!(builds.changed(), ["address"], "{compiler}");
        let livepatch = Livepatch::of(&builds);
        let (section, entry, size) = livepatch.function("address");
        let pool = livepatch.references((section, entry), size as i64, size as i64 + 16);
        let [literal] = &pool[..] else { panic!("{compiler}: {pool:?}") };
        assert_eq!((literal.kind, literal.to.as_str()), ("R_AARCH64_ABS64", "sink"), "{compiler}");
        // The load leads to the pool.
        let loads: Vec<i64> = livepatch
            .words("address", 0, size as i64)
            .into_iter()
            .enumerate()
            .filter_map(|(n, word)| Some(super::Arch::Arm64.literal_load(word)?.0 + 4 * n as i64))
            .collect();
        assert_eq!(loads, [literal.at], "{compiler}");
    }
}

#[test]
fn a_literal_that_changed_is_a_change_of_the_function_that_loads_it() {
    for (compiler, toolchain) in compilers() {
        for section in ["", ".sched.text"] {
            let builds = builds(toolchain, &[], &source(section), "0x123456789abcdef0", "0x123456789abcdef1");
            assert!(builds.changed().contains(&"number".to_owned()), "{compiler} {section:?}");
        }
    }
}

#[test]
fn a_pool_behind_another_function_is_refused() {
    for (compiler, toolchain) in compilers() {
        let builds = builds(toolchain, &[], &source(".sched.text"), "+ 1", "+ 10");
        let failure = builds.emit("vmlinux", &Kernel::default()).err().expect("refused");
        let found = failure.diagnoses().next().expect("one");
        assert_eq!(found.code, "klpx::direct-branch", "{compiler}");
        assert_eq!(found.place.symbol.as_deref(), Some("address"), "{compiler}");
        assert!(!found.why.is_empty() && !found.remedy.is_empty(), "{compiler}");
    }
}
