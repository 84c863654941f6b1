//! Source lines of small objects of each compiler, with plain and compressed debug sections.

use std::path::{Path, PathBuf};

use klpx_inline_check::lines::{Lines, SourcePosition};
use klpx_inline_check::sections::DebugSections;
use klpx_normalize::elf::{ElfFile, SectionId};
use klpx_testkit::{command, run};

const HEADER: &str = "static inline int twice(int x)\n{\n\treturn x * 2 + 1;\n}\n";

const SOURCE: &str = "\
#include \"shared.h\"
int outside(int);
int first(int x)
{
	return outside(x) + 1;
}

int second(int x)
{
	x = outside(x + 3);
	return outside(twice(x)) + 1;
}
";

fn compile(folder: &Path, compiler: &[&str], flags: &[&str]) -> PathBuf {
    std::fs::write(folder.join("shared.h"), HEADER).expect("a writable directory");
    std::fs::write(folder.join("unit.c"), SOURCE).expect("a writable directory");
    let mut made = command(compiler[0]);
    made.current_dir(folder).args(&compiler[1..]).args(["-O2", "-g", "-c", "unit.c", "-o", "unit.o"]);
    run(made.args(flags));
    folder.join("unit.o")
}

/// Returns the position of each byte of `second`: exact, and as a line of the function's own file.
fn positions(object: &Path) -> (Vec<Option<SourcePosition>>, Vec<Option<SourcePosition>>) {
    let file = ElfFile::open(object).expect("the object that was just made");
    let elf = file.parse().expect("a sound object");
    let sections = DebugSections::of_lines(&elf);
    let lines = Lines::read(&sections);
    let of = |name: &str| {
        let symbol = elf.symbol_ids().find(|&id| elf.symbol_name(id) == name.as_bytes()).expect("a symbol");
        let (section, start): (SectionId, u64) =
            (elf.symbol_section(symbol).expect("a section"), elf.symbol_value(symbol));
        let places = start..start + elf.symbol_size(symbol);
        let exact = places.clone().map(|at| lines.position(section, at)).collect();
        (exact, places.map(|at| lines.position_in_function(section, start, at)).collect())
    };
    let (first, own): (Vec<_>, Vec<_>) = of("first");
    assert_eq!(first, own, "nothing is inlined into it");
    of("second")
}

fn at(positions: &[Option<SourcePosition>], file: &str) -> Vec<u32> {
    // Clang gives some instructions no line.
    let all = positions.iter().flatten();
    let mut lines: Vec<u32> = all.filter(|p| p.file.ends_with(file)).map(|p| p.line).collect();
    lines.dedup();
    lines
}

#[test]
fn inlined_code_is_told_as_a_line_of_the_function_around_it() {
    let arm64: &[&str] = &["aarch64-linux-gnu-gcc"];
    for compiler in [&["gcc"][..], &["clang-22"], &["clang-22", "--target=aarch64-linux-gnu"], arm64] {
        for flags in [&["-gdwarf-5"][..], &["-gdwarf-4"], &["-ffunction-sections"]] {
            let folder = tempfile::tempdir().expect("a temporary directory");
            let (exact, own) = positions(&compile(folder.path(), compiler, flags));
            assert_eq!(exact[0], own[0], "{compiler:?} {flags:?}");
            assert!(at(&exact, "shared.h").contains(&3), "{compiler:?} {flags:?}: {exact:?}");
            assert!(at(&own, "shared.h").is_empty(), "{compiler:?} {flags:?}: {own:?}");
            let lines = at(&own, "unit.c");
            assert!(lines.contains(&10) && lines.contains(&11), "{compiler:?} {flags:?}: {lines:?}");
        }
    }
}

#[test]
fn compressed_sections_say_the_same() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    // Long enough for compression to pay.
    let flags: Vec<String> = (0..40).map(|n| format!("-DA_MACRO_OF_A_LONG_NAME_{n}={n}")).collect();
    let mut flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    flags.extend(["-g3", "-ffunction-sections"]);
    let object = compile(folder.path(), &["gcc"], &flags);
    let plain = positions(&object);
    assert!(plain.0.iter().all(Option::is_some));
    for format in ["zlib", "zstd"] {
        let packed = folder.path().join(format);
        let option = format!("--compress-debug-sections={format}");
        run(command("llvm-objcopy-22").arg(option).arg(&object).arg(&packed));
        let file = ElfFile::open(&packed).expect("a file");
        let elf = file.parse().expect("an ELF file");
        let line = elf.section_by_name(b".debug_line").expect("line programs");
        assert_ne!(elf.section_flags(line) & 0x800, 0, "{format}: .debug_line was not packed");
        assert_eq!(positions(&packed), plain, "{format}");
    }
}

#[test]
fn damaged_line_programs_never_panic() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let sound =
        std::fs::read(compile(folder.path(), &["gcc"], &["-ffunction-sections"])).expect("the object");
    let file = ElfFile::from_bytes("object", sound.clone());
    let elf = file.parse().expect("an ELF file");
    let code: Vec<SectionId> =
        elf.section_ids().filter(|&id| elf.section_name(id).starts_with(b".text.")).collect();
    assert_eq!(code.len(), 2);
    let id = elf.section_by_name(b".debug_line").expect("line programs");
    let start = elf.section_bytes(id).as_ptr() as usize - elf.data().as_ptr() as usize;
    let mut lost = 0;
    for n in 0..elf.section_bytes(id).len() {
        for damage in [0xff, 0x80, 0x01] {
            let mut bytes = sound.clone();
            bytes[start + n] ^= damage;
            let file = ElfFile::from_bytes("object", bytes);
            let elf = file.parse().expect("an ELF file");
            let sections = DebugSections::of_lines(&elf);
            let lines = Lines::read(&sections);
            let found = code.iter().filter(|&&section| lines.position_in_function(section, 0, 0).is_some());
            lost += 2 - found.count();
        }
    }
    assert!(lost > 20, "{lost}");
}
