//! Call padding (x86_64, CONFIG_CALL_PADDING): 16 bytes before each entry with a symbol and unwind rows of their own,
//! as `objtool --orc --prefix=16` writes them. objtool leaves out a row that repeats the one before it in its section.

use klpx_normalize::elf::ElfFile;
use klpx_testkit::builds::Builds;
use klpx_testkit::fixture::X86_64;
use klpx_testkit::kernel::Kernel;
use object::endian::LittleEndian as LE;

use super::Livepatch;

/// `alone` has its own section and rows; `first` and `second` share a section, and only `first` has rows there.
const SOURCE: &str = r#"
#define PREFIX(f) asm(".type __pfx_" #f ",@function\n.size __pfx_" #f ",16\n.set __pfx_" #f "," #f "-16\n")
#define ROW(place, row) asm(".pushsection .orc_unwind_ip,\"a\",@progbits\n.long " place " - .\n.popsection\n" \
    ".pushsection .orc_unwind,\"a\",@progbits\n.short " row ", 0, " row "\n.popsection\n")
#define END(section, label) asm(".pushsection " section ",\"ax\",@progbits\n" label ":\n.popsection\n")
#define SHARED __attribute__((section(".sched.text"), noinline))
extern int other(int);
int alone(int x) { return other(x) + 1; }
END(".text.alone", ".Lalone_end");
int SHARED first(int x) { return x * 3; }
int SHARED second(int x) { return x + 1; }
END(".sched.text", ".Lshared_end");
PREFIX(alone); PREFIX(first); PREFIX(second);
ROW("alone - 16", "8"); ROW("alone", "16"); ROW(".Lalone_end", "0");
ROW("first - 16", "8"); ROW(".Lshared_end", "0");
"#;

fn builds() -> Builds {
    let flags = [X86_64.traced, &["-fpatchable-function-entry=16,16"]].concat();
    let builds = Builds::of(&X86_64, &flags, SOURCE, &SOURCE.replace("+ 1", "+ 10"));
    assert_eq!(builds.changed(), ["alone", "second"]);
    builds
}

#[test]
fn the_padding_comes_along_with_its_symbol_and_its_rows() {
    let livepatch = Livepatch::of(&builds());
    let rows = livepatch.places(".orc_unwind_ip");
    for name in ["alone", "second"] {
        let (section, entry, size) = livepatch.function(name);
        assert_eq!(livepatch.function(&format!("__pfx_{name}")), (section, entry - 16, 16), "{name}");
        assert!(rows.contains(&(section, entry - 16)), "{name}: {rows:?}");
        assert!(rows.contains(&(section, entry + size)), "{name}: {rows:?}");
    }
}

#[test]
fn a_function_without_a_row_in_force_is_found() {
    let builds = builds();
    let livepatch = Livepatch::of(&builds);
    let elf = livepatch.elf();
    let section = elf.section_by_name(b".orc_unwind").expect("rows");
    let start = elf.section(section).sh_offset.get(LE) as usize;
    let (_, entry, _) = livepatch.function("second");
    let rows = livepatch.places(".orc_unwind_ip");
    let row = rows.iter().position(|&(_, place)| place == entry - 16).expect("a row");
    let mut bytes = livepatch.file.bytes().to_vec();
    bytes[start + 6 * row..start + 6 * row + 6].fill(0);
    let broken = ElfFile::from_bytes("livepatch.ko", bytes);
    let said = builds.verify("vmlinux", &Kernel::default(), &broken).expect_err("a function without rows");
    let codes: Vec<_> = said.diagnoses().map(|found| found.code).collect();
    assert!(
        !codes.is_empty() && codes.iter().all(|code| *code == "klpx::verify-special-section"),
        "{codes:?}"
    );
}
