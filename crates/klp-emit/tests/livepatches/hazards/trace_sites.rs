//! `__patchable_function_entries`: trace sites before, at and after an entry.

use klpx_testkit::builds::Builds;
use object::elf;
use object::endian::LittleEndian as LE;

use super::{Livepatch, NOP, compilers};

const SOURCE: &str = r#"
extern int other(int);
#define SHARED __attribute__((section(".sched.text"), noinline))
SHARED int first(int x) { return other(x) + 1; }
SHARED int second(int x) { return other(x) + 2; }
SHARED int third(int x) { return other(x) + 3; }
int alone(int x) { return other(x) + 4; }
int quiet(int x) { return x; }
"#;

/// Call operations, plain, and with a landing pad first: flags, and the place of the site.
const KINDS: [(&[&str], i64); 3] = [
    (&["-fpatchable-function-entry=4,2", "-falign-functions=8"], -8),
    (&["-fpatchable-function-entry=2"], 0),
    (&["-fpatchable-function-entry=2", "-mbranch-protection=bti"], 4),
];

#[test]
fn the_site_of_a_replaced_function_comes_along_wherever_it_lies() {
    for (compiler, toolchain) in compilers() {
        for (flags, place) in KINDS {
            let patched = SOURCE.replace("+ 2", "+ 20").replace("+ 4", "+ 40");
            let builds = Builds::of(toolchain, flags, SOURCE, &patched);
            assert_eq!(builds.changed(), ["alone", "second"], "{compiler} {flags:?}");
            let livepatch = Livepatch::of(&builds);
            let sites = livepatch.places("__patchable_function_entries");
            for name in ["alone", "second"] {
                let (section, entry, _) = livepatch.function(name);
                let site = (section, entry.wrapping_add_signed(place));
                assert!(sites.contains(&site), "{compiler} {flags:?} {name}: {site:?} in {sites:?}");
                assert_eq!(
                    livepatch.words(name, place, place + 8),
                    [NOP, NOP],
                    "{compiler} {flags:?} {name}"
                );
                let alignment = if place < 0 { 8 } else { 4 }; // of the pointer that ftrace writes there
                assert!(entry.is_multiple_of(alignment), "{compiler} {flags:?} {name}");
            }
        }
    }
}

#[test]
fn the_table_of_the_module_is_ordered_by_its_text() {
    for (compiler, toolchain) in compilers() {
        let patched = SOURCE.replace("+ 1", "+ 10").replace("+ 3", "+ 30");
        let builds = Builds::of(toolchain, toolchain.traced, SOURCE, &patched);
        let livepatch = Livepatch::of(&builds);
        let elf = livepatch.elf();
        let tables: Vec<_> =
            elf.section_ids().filter(|&id| elf.section_name(id) == b"__patchable_function_entries").collect();
        assert_eq!(tables.len(), 1, "{compiler}");
        assert_ne!(elf.section_flags(tables[0]) & elf::SHF_LINK_ORDER.0, 0, "{compiler}");
        let linked = elf.section(tables[0]).sh_link.get(LE) as usize;
        assert_eq!(
            elf.section_name(elf.section_ids().nth(linked).expect("a section")),
            b".text",
            "{compiler}"
        );
    }
}
