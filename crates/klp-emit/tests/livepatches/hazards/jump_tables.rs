//! Jump tables: offsets from a place in the function, without relocations, in unnamed read-only data.

use klpx_klp_emit::writer::Relocatable;
use klpx_normalize::elf::{ElfFile, SymbolId};
use klpx_testkit::builds::Builds;
use klpx_testkit::fixture::ARM64_GCC;
use klpx_testkit::kernel::Kernel;

use super::{Livepatch, builds, compilers};

/// Moving a label from one case to another changes the table but no instruction.
const SOURCE: &str = r#"
extern int other(int);
int turn(int x) {
    switch (x) {
    case 0: case 5: return other(1);
    case 1: return other(7) + 3;
    case 2: return other(x + 1) * 5;
    case 3: return 77;
    case 4: other(3); return 9;
    case 6: return other(5) * 3;
    case 7: return other(9) ^ 4;
    case 8: return other(2) - other(1);
    case 9: return 12 * other(x);
    case 10: return other(4) / 3;
    }
    return 0;
}
"#;

fn two_builds(toolchain: &'static klpx_testkit::fixture::Toolchain) -> Builds {
    let patched = SOURCE.replace("case 0: case 5:", "case 0:").replace("case 1:", "case 1: case 5:");
    Builds::of(toolchain, toolchain.traced, SOURCE, &patched)
}

/// The place of the table of a module's `turn`.
fn table(livepatch: &Livepatch) -> (String, usize) {
    let (section, entry, size) = livepatch.function("turn");
    let found = livepatch.references((section, entry), 0, size as i64);
    let pages: Vec<_> = found.iter().filter(|r| r.kind == "R_AARCH64_ADR_PREL_PG_HI21").collect();
    let [page] = pages[..] else { panic!("one table: {found:?}") };
    (page.to.clone(), page.addend as usize)
}

#[test]
fn a_table_that_changed_is_a_change_of_its_function_and_comes_along() {
    for (compiler, toolchain) in compilers() {
        let builds = two_builds(toolchain);
        assert_eq!(builds.changed(), ["turn"], "{compiler}");
        let bytes = |original: bool| {
            builds.with("vmlinux", |units| {
                let object = if original { units[0].original } else { units[0].patched };
                let id = object.elf.section_by_name(b".rodata.turn").expect("a table");
                object.elf.section_bytes(id).to_vec()
            })
        };
        assert_ne!(bytes(true), bytes(false), "{compiler}");
        let livepatch = Livepatch::of(&builds);
        let (section, at) = table(&livepatch);
        let elf = livepatch.elf();
        let section = elf.section_by_name(section.as_bytes()).expect("its section");
        let copied = &elf.section_bytes(section)[at..at + bytes(false).len()];
        assert_eq!(copied, bytes(false), "{compiler}");
    }
}

#[test]
fn a_table_that_was_damaged_is_caught() {
    for (compiler, toolchain) in compilers() {
        let builds = two_builds(toolchain);
        let livepatch = Livepatch::of(&builds);
        let (name, at) = table(&livepatch);
        let mut module = Relocatable::read(&livepatch.elf()).expect("a module");
        let section = module.sections.iter_mut().find(|s| s.name == name.as_bytes()).expect("its section");
        section.data[at + 2] ^= 1;
        let damaged = ElfFile::from_bytes("livepatch.ko", module.write());
        let failure = builds.verify("vmlinux", &Kernel::default(), &damaged).expect_err("caught");
        assert!(failure.diagnoses().any(|found| found.code == "klpx::verify-meaning"), "{compiler}");
    }
}

#[test]
fn a_function_whose_table_stays_is_not_changed() {
    for (compiler, toolchain) in compilers() {
        let source = format!("{SOURCE}int neighbour(int x) {{ return other(x) + 1; }}");
        let builds = builds(toolchain, &[], &source, "+ 1; }", "+ 10; }");
        assert_eq!(builds.changed(), ["neighbour"], "{compiler}");
    }
}

/// GCC makes a table of values of a switch, `CSWTCH.<number>`, a constant without identity.
const VALUES: &str = "
int pick(int x) {
    switch (x) { case 0: return 12; case 1: return 77; case 2: return 5; case 3: return 91; case 4: return 3; }
    return -1;
}";

#[test]
fn a_table_of_values_comes_along_changed_or_not() {
    for (from, to) in [("return -1", "return -2"), ("return 91", "return 92")] {
        let builds = builds(&ARM64_GCC, &[], VALUES, from, to);
        assert_eq!(builds.changed(), ["pick"], "{to}");
        let bytes = builds.with("vmlinux", |units| {
            let object = units[0].patched;
            let is_table = |&id: &SymbolId| object.elf.symbol_name(id).starts_with(b"CSWTCH.");
            let table = object.elf.symbol_ids().find(is_table).expect("a table of values");
            let section = object.elf.symbol_section(table).expect("its section");
            let at = object.elf.symbol_value(table);
            object.range(section, at, at + object.elf.symbol_size(table)).to_vec()
        });
        let livepatch = Livepatch::of(&builds);
        let (section, entry, size) = livepatch.function("pick");
        let found = livepatch.references((section, entry), 0, size as i64);
        let page = found.iter().find(|reference| reference.kind == "R_AARCH64_ADR_PREL_PG_HI21");
        let page = page.expect("the table's address");
        let elf = livepatch.elf();
        let named = |&id: &SymbolId| elf.symbol_name(id) == page.to.as_bytes();
        let symbol = elf.symbol_ids().find(named).expect("a symbol");
        let own = elf.symbol_section(symbol).expect("the module has the table");
        let at = (elf.symbol_value(symbol) as i64 + page.addend) as usize;
        assert_eq!(elf.section_bytes(own)[at..at + bytes.len()], bytes, "{to}");
    }
}
