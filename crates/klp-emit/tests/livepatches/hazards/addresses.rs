//! Addresses: ADRP paired with the instruction that adds the low bits, four MOVW of a large code model, and the GOT,
//! which modules lack.

use klpx_testkit::kernel::Kernel;

use super::{Livepatch, builds, compilers};

const SOURCE: &str = r#"
struct pair { long a, b; };
struct pair cell[8];
long number;
char letter;
extern long use(void *);
long reads(int x) { return cell[3].b + number + letter + use(cell) + 1; }
"#;

#[test]
fn both_halves_of_a_pair_lead_to_one_place_of_the_kernel() {
    for (compiler, toolchain) in compilers() {
        let builds = builds(toolchain, &[], SOURCE, "+ 1", "+ 10");
        let livepatch = Livepatch::of(&builds);
        let (section, entry, size) = livepatch.function("reads");
        let found = livepatch.references((section, entry), 0, size as i64);
        let pages: Vec<_> = found.iter().filter(|r| r.kind == "R_AARCH64_ADR_PREL_PG_HI21").collect();
        let low: Vec<_> = found.iter().filter(|r| r.kind.ends_with("_LO12_NC")).collect();
        assert!(pages.len() >= 3 && low.len() >= pages.len(), "{compiler}: {found:?}");
        for half in &low {
            let whole = |page: &&&super::Reference| page.to == half.to && page.addend == half.addend;
            assert!(pages.iter().any(|page| whole(&page)), "{compiler}: {half:?} of {found:?}");
        }
        for name in ["cell", "number", "letter"] {
            assert!(low.iter().any(|half| half.to == name), "{compiler} {name}: {found:?}");
        }
    }
}

#[test]
fn the_four_parts_of_an_address_are_taken() {
    for (compiler, toolchain) in compilers() {
        let source = r#"long number; long reads(int x) { long *p;
            asm("movz %0, #:abs_g3:number\nmovk %0, #:abs_g2_nc:number\n"
                "movk %0, #:abs_g1_nc:number\nmovk %0, #:abs_g0_nc:number" : "=r"(p));
            return *p + 1; }"#;
        let builds = builds(toolchain, &[], source, "+ 1", "+ 10");
        let livepatch = Livepatch::of(&builds);
        let (section, entry, size) = livepatch.function("reads");
        let found = livepatch.references((section, entry), 0, size as i64);
        let kinds: Vec<&str> = found.iter().map(|reference| reference.kind).collect();
        let parts = ["G3", "G2_NC", "G1_NC", "G0_NC"].map(|part| format!("R_AARCH64_MOVW_UABS_{part}"));
        assert_eq!(kinds, parts, "{compiler}");
        assert!(found.iter().all(|reference| reference.to == "number"), "{compiler}");
    }
}

#[test]
fn code_that_goes_through_the_got_is_refused() {
    for (compiler, toolchain) in compilers() {
        let source = "extern long number; long reads(void) { return number + 1; }";
        let builds = builds(toolchain, &["-fpic"], source, "+ 1", "+ 10");
        let failure = builds.emit("vmlinux", &Kernel::default()).err().expect("refused");
        let found = failure.diagnoses().next().expect("one");
        assert_eq!(found.code, "klpx::relocation-type", "{compiler}");
        assert_eq!(found.place.symbol.as_deref(), Some("reads"), "{compiler}");
        assert!(!found.why.is_empty() && !found.remedy.is_empty(), "{compiler}");
    }
}
