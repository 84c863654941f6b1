//! The survey of small objects of each compiler, against a second count and against the results that their source must
//! give.

use std::path::{Path, PathBuf};

use klpx_inline_check::survey::{CopyState, Linkage, Summary, Survey, compare};
use klpx_normalize::elf::ElfFile;
use klpx_testkit::{command, dwarfdump, run};

const HEADER: &str = "\
static inline int in_header(int x) { int r = 0; for (int i = 0; i < x; i++) r += i * x; return r; }
static inline __attribute__((always_inline)) int forced(int x) { return x * 3 + 1; }
int global(int x);
int outside(int x);
";

const ONE: &str = "\
#include \"shared.h\"
static int twin(int x) { return in_header(x) + forced(x); }
int global(int x) { return outside(twin(x)) + 7; }
int same_file(int x) { return global(x) * 2; }
int (*kept)(int) = twin;
int (*kept_header)(int) = in_header;
static __attribute__((noinline)) int apart(int x) { return x ? forced(x) : 9; }
int calls_apart(int x) { return apart(x) + apart(x + 1); }
";

const OTHER: &str = "\
#include \"shared.h\"
int other_file(int x) { return global(x) + in_header(x + 2); }
static int twin(int x) { return outside(x) * 5; }
int calls_twin(int x) { return twin(x) + other_file(x); }
int (*kept_twin)(int) = twin;
int (*kept_header_too)(int) = in_header;
";

/// The way to make an object.
#[derive(Clone, Copy, Debug)]
struct Build {
    compiler: &'static [&'static str],
    lto: bool,
    dwarf: u8,
}

const GCC: &[&str] = &["gcc"];
const CLANG: &[&str] = &["clang-22"];
const CLANG_ARM64: &[&str] = &["clang-22", "--target=aarch64-linux-gnu"];

fn builds() -> Vec<Build> {
    let mut all = Vec::new();
    for dwarf in [4, 5] {
        for (compiler, lto) in
            [(GCC, false), (CLANG, false), (CLANG, true), (CLANG_ARM64, false), (CLANG_ARM64, true)]
        {
            all.push(Build { compiler, lto, dwarf });
        }
    }
    all
}

/// Makes one object of both files.
fn make(folder: &Path, build: Build, flags: &[&str]) -> PathBuf {
    make_of(folder, build, flags, ONE)
}

/// Makes one object of both files, with another text for the first.
fn make_of(folder: &Path, build: Build, flags: &[&str], one: &str) -> PathBuf {
    for (name, text) in [("shared.h", HEADER), ("one.c", one), ("other.c", OTHER)] {
        std::fs::write(folder.join(name), text).expect("a writable directory");
    }
    for unit in ["one", "other"] {
        let mut compiler = command(build.compiler[0]);
        compiler.current_dir(folder).args(&build.compiler[1..]).args(["-O2", "-c"]).args(flags);
        compiler.arg(format!("-gdwarf-{}", build.dwarf)).args(build.lto.then_some("-flto=thin"));
        run(compiler.arg(format!("{unit}.c")).args(["-o", &format!("{unit}.o")]));
    }
    let mut linker = command(if build.compiler == GCC { "ld" } else { "ld.lld-22" });
    run(linker.current_dir(folder).args(["-r", "one.o", "other.o", "-o", "both.o"]));
    folder.join("both.o")
}

fn survey(path: &Path) -> Survey {
    let file = ElfFile::open(path).expect("a file");
    Survey::read(&file.parse().expect("an ELF file")).expect("sound DWARF")
}

/// Returns the survey's facts in the second count's form.
fn counted(survey: &Survey) -> dwarfdump::Count {
    let summary = Summary::count(survey);
    let all = summary.all();
    let half = || survey.functions().map(|(_, f)| f).filter(|f| survey.is_half_inlined(f));
    dwarfdump::Count {
        out_of_line: all.out_of_line,
        half_inlined: all.half_inlined,
        half_inlined_across: all.half_inlined_across,
        inlined: all.inlined,
        inlined_across: all.inlined_across,
        half_inlined_global: summary.by_linkage[Linkage::Global as usize].half_inlined,
        only_inlined: summary.only_inlined,
        only_inlined_copies: summary.only_inlined_copies,
        by_unit: summary.by_unit,
        names: half()
            .map(|f| {
                let file = survey.text(f.file).rsplit('/').next().unwrap_or_default();
                (survey.text(f.name).to_owned(), file.to_owned(), f.line)
            })
            .collect(),
    }
}

/// Returns the state of the function with this name in a file.
fn state(survey: &Survey, name: &str, file: &str) -> CopyState {
    let is =
        |f: &klpx_inline_check::survey::Function| survey.text(f.name) == name && survey.text(f.file) == file;
    survey.functions().find(|(_, f)| is(f)).map_or(CopyState::Absent, |(_, f)| survey.state(f))
}

/// Returns the symbols of the holders of a function's inlined copies.
fn holders(survey: &Survey, name: &str, file: &str) -> Vec<String> {
    let found = survey.functions().map(|(_, f)| f);
    let mut found = found.filter(|f| survey.text(f.name) == name && survey.text(f.file) == file);
    let holders = survey.holders(found.next().expect("a function of that name"));
    let mut names: Vec<String> =
        holders.into_iter().map(|id| survey.text(survey.copy(id).symbol).to_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_second_count_agrees_for_each_compiler_and_dwarf_version() {
    for build in builds() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let object = make(folder.path(), build, &[]);
        let survey = survey(&object);
        assert_eq!(survey.versions, [u16::from(build.dwarf)], "{build:?}");
        let count = counted(&survey);
        assert_eq!(count, dwarfdump::count("llvm-dwarfdump-22", &object, false), "{build:?}");
        assert!(count.half_inlined >= 3, "{build:?}: {count:?}");
    }
}

#[test]
fn each_function_is_what_its_source_makes_it() {
    for build in builds() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let survey = survey(&make(folder.path(), build, &[]));
        for (name, file, expected) in [
            ("twin", "one.c", CopyState::Both),
            ("twin", "other.c", CopyState::Both),
            ("global", "one.c", CopyState::Both),
            ("in_header", "shared.h", CopyState::Both),
            ("apart", "one.c", CopyState::OutOfLine),
            ("forced", "shared.h", CopyState::Inlined),
            ("calls_twin", "other.c", CopyState::OutOfLine),
        ] {
            assert_eq!(state(&survey, name, file), expected, "{build:?}: {name}");
        }
        let found = survey.functions().map(|(_, f)| f).find(|f| survey.text(f.name) == "in_header");
        let header = found.expect("in_header");
        assert_eq!(header.linkage(), Linkage::StaticIncluded);
        assert_eq!(
            header.declared_inline,
            build.compiler == GCC,
            "only GCC says that a function is declared inline"
        );
        assert_eq!(survey.copies(header).len(), 2, "{build:?}: each unit has a copy");
        assert!(holders(&survey, "global", "one.c").contains(&"same_file".to_owned()), "{build:?}");
    }
}

#[test]
fn only_lto_inlines_across_files_and_the_chain_says_by_way_of_what() {
    for build in builds() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let survey = survey(&make(folder.path(), build, &[]));
        let across = Summary::count(&survey).all().half_inlined_across;
        assert_eq!(across > 0, build.lto, "{build:?}");
        if !build.lto {
            continue;
        }
        assert!(holders(&survey, "global", "one.c").contains(&"other_file".to_owned()), "{build:?}");
        let twin = survey.functions().map(|(_, f)| f);
        let mut twin = twin.filter(|f| survey.text(f.name) == "twin" && survey.text(f.file) == "one.c");
        let twin = twin.next().expect("the first twin");
        let foreign = survey
            .inlined(twin)
            .iter()
            .find(|call| call.across && survey.text(survey.copy(call.holder).symbol) == "other_file");
        let foreign = foreign.expect("a copy in the other file");
        assert_eq!((survey.text(foreign.file.expect("a file")), foreign.line), ("one.c", 3));
        let chain: Vec<&str> = survey
            .chain(foreign)
            .iter()
            .map(|call| survey.text(survey.function(call.function).name))
            .collect();
        assert_eq!(chain, ["global"], "{build:?}");
    }
}

#[test]
fn compressed_sections_say_the_same() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let object = make(folder.path(), Build { compiler: CLANG, lto: true, dwarf: 5 }, &[]);
    let plain = counted(&survey(&object));
    for format in ["zlib", "zstd"] {
        let packed = folder.path().join(format);
        let option = format!("--compress-debug-sections={format}");
        run(command("llvm-objcopy-22").arg(option).arg(&object).arg(&packed));
        let before = std::fs::metadata(&object).expect("a file").len();
        assert_ne!(std::fs::metadata(&packed).expect("a file").len(), before, "{format}: nothing was packed");
        assert_eq!(counted(&survey(&packed)), plain, "{format}");
    }
}

#[test]
fn split_dwarf_and_none_at_all_are_refused() {
    for (compiler, dwarf) in [(GCC, 4), (GCC, 5), (CLANG, 4), (CLANG, 5)] {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let object = make(folder.path(), Build { compiler, lto: false, dwarf }, &["-gsplit-dwarf"]);
        assert_eq!(refusal(&object), "klpx::split-dwarf", "{compiler:?} {dwarf}");
        let object = make(folder.path(), Build { compiler, lto: false, dwarf }, &["-g0"]);
        let stripped = folder.path().join("stripped.o");
        run(command("llvm-objcopy-22").arg("--strip-debug").arg(&object).arg(&stripped));
        assert_eq!(refusal(&stripped), "klpx::no-dwarf", "{compiler:?} {dwarf}");
    }
}

fn refusal(path: &Path) -> &'static str {
    let file = ElfFile::open(path).expect("a file");
    let refused = Survey::read(&file.parse().expect("an ELF file")).err().expect("a refusal");
    refused.diagnoses().next().expect("a diagnosis").code
}

#[test]
fn damaged_debug_information_never_panics() {
    for dwarf in [4, 5] {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let object = make(folder.path(), Build { compiler: CLANG, lto: true, dwarf }, &[]);
        let sound = std::fs::read(&object).expect("the object");
        let (mut refused, mut read) = (0, 0);
        for section in [".debug_info", ".debug_abbrev", ".debug_line", ".debug_str_offsets", ".debug_addr"] {
            let file = ElfFile::from_bytes("object", sound.clone());
            let elf = file.parse().expect("an ELF file");
            let Some(id) = elf.section_by_name(section.as_bytes()) else { continue };
            let start = elf.section_bytes(id).as_ptr() as usize - elf.data().as_ptr() as usize;
            let length = elf.section_bytes(id).len();
            for n in (0..length).step_by((length / 150).max(1)) {
                for damage in [0xff, 0x80, 0x01] {
                    let mut bytes = sound.clone();
                    bytes[start + n] ^= damage;
                    let file = ElfFile::from_bytes("object", bytes);
                    match Survey::read(&file.parse().expect("an ELF file")) {
                        Ok(survey) => {
                            read += 1;
                            let sound = |f| survey.call_sites(f) <= survey.inlined(f).len();
                            assert!(survey.functions().all(|(_, f)| sound(f)));
                        }
                        Err(_) => refused += 1,
                    }
                }
            }
        }
        assert!(refused > 100 && read > 100, "{refused} refused, {read} read");
    }
}

#[test]
fn a_comparison_names_what_lto_half_inlined() {
    // Nothing in its own file calls `global`.
    let one = "int outside(int x); int global(int x) { return outside(x) * 7; }\n";
    let [plain, lto] = [false, true].map(|lto| {
        let folder = tempfile::tempdir().expect("a temporary directory");
        survey(&make_of(folder.path(), Build { compiler: CLANG, lto, dwarf: 5 }, &[], one))
    });
    let changes = compare(&plain, &lto);
    let names: Vec<(&str, CopyState, CopyState)> = changes
        .iter()
        .map(|c| (lto.text(lto.function(c.after.expect("there too")).name), c.was, c.is))
        .collect();
    assert_eq!(names, [("global", CopyState::OutOfLine, CopyState::Both)]);
    assert!(compare(&lto, &lto).is_empty());
}

/// Returns the facts about the functions of one unit: copies by symbol and section, holders, and calls with their
/// chains.
fn facts(survey: &Survey, unit: &str) -> Vec<String> {
    let mut facts = Vec::new();
    for (_, copy) in survey.out_of_line().filter(|(_, copy)| survey.text(copy.unit) == unit) {
        let (symbol, section) = (survey.text(copy.symbol), survey.text(copy.section));
        facts.push(format!("{symbol} {section} {:?} {:#x} {}", copy.section_id, copy.address, copy.reach));
    }
    for (_, function) in survey.functions() {
        for call in survey.inlined_ids(function).map(|id| survey.inlined_copy(id)) {
            let holder = survey.copy(call.holder);
            if survey.text(holder.unit) != unit {
                continue;
            }
            let name = |call: &klpx_inline_check::survey::Inlined| {
                let file = call.file.map_or("?", |file| survey.text(file));
                format!("{} {file}:{}", survey.text(survey.function(call.function).name), call.line)
            };
            let chain: Vec<String> = survey.chain(call).into_iter().map(name).collect();
            let home = survey.text(call.home);
            facts.push(format!("{} {} {chain:?} {home}", survey.text(holder.symbol), name(call)));
        }
    }
    facts.sort();
    facts
}

#[test]
fn a_survey_of_some_units_says_the_same_of_them() {
    for build in builds() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let object = make(folder.path(), build, &["-ffunction-sections"]);
        let file = ElfFile::open(&object).expect("a file");
        let elf = file.parse().expect("an ELF file");
        let whole = Survey::read_in(&elf, folder.path()).expect("sound DWARF");
        for unit in ["one.c", "other.c"] {
            let copies = whole.out_of_line().map(|(_, copy)| copy);
            let mut places: Vec<_> = copies
                .filter(|copy| whole.text(copy.unit) == unit)
                .map(|copy| (copy.section_id, copy.address))
                .collect();
            // One place is enough to find the unit.
            places.truncate(1);
            let some = Survey::read_units(&elf, folder.path(), &places).expect("sound DWARF");
            assert_eq!(facts(&some, unit), facts(&whole, unit), "{build:?} {unit}");
            assert!(facts(&some, unit).len() > 6, "{build:?} {unit}: {:?}", facts(&some, unit));
        }
        let none = Survey::read_units(&elf, folder.path(), &[]).expect("sound DWARF");
        assert_eq!(none.functions().len(), 0);
    }
}

#[test]
fn functions_are_found_by_the_file_that_declares_them() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let build = Build { compiler: CLANG, lto: true, dwarf: 5 };
    make(folder.path(), build, &[]);
    let file = ElfFile::open(&folder.path().join("both.o")).expect("a file");
    let survey = Survey::read_in(&file.parse().expect("an ELF file"), folder.path()).expect("sound DWARF");
    let lines = |file: &str, name: &str| -> Vec<u32> {
        let found: Vec<_> = survey.declared(file, name).collect();
        assert!(found.iter().all(|(id, f)| survey.function(*id).line == f.line));
        found.iter().map(|(_, f)| f.line).collect()
    };
    assert_eq!(lines("one.c", "twin"), [2]);
    assert_eq!(lines("other.c", "twin"), [3]);
    assert_eq!(lines("shared.h", "in_header"), [1]);
    assert!(lines("one.c", "in_header").is_empty() && lines("none.c", "twin").is_empty());
}

#[test]
fn the_code_of_a_weak_definition_that_another_one_replaces_has_no_name() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let weak = "int outside(int x); __attribute__((weak)) int other_file(int x) { return outside(x) + 5; }\n";
    let object = make_of(folder.path(), Build { compiler: GCC, lto: false, dwarf: 5 }, &[], weak);
    let survey = survey(&object);
    let copies = survey.out_of_line().filter(|(_, copy)| survey.text(copy.symbol) == "other_file");
    let mut named: Vec<(&str, bool)> = copies.map(|(_, copy)| (survey.text(copy.unit), copy.named)).collect();
    named.sort_unstable();
    assert_eq!(named, [("one.c", false), ("other.c", true)]);
    assert!(survey.out_of_line().filter(|(_, copy)| copy.named).count() > 2);
}

/// 40,000 units without children that share one table of 40,000 abbreviations, each of a type without attributes.
const ONE_TABLE: &str = "
.section .debug_abbrev,\"\",@progbits
.uleb128 1, 0x11
.byte 0, 0, 0
.set code, 1
.rept 40000
.set code, code + 1
.uleb128 code, 0x24
.byte 0, 0, 0
.endr
.byte 0
.section .debug_info,\"\",@progbits
.rept 40000
.long 8
.short 4
.long 0
.byte 8, 1
.endr
";

#[test]
fn a_table_of_abbreviations_that_all_units_share_is_read_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let (source, object) = (dir.path().join("a.s"), dir.path().join("a.o"));
    std::fs::write(&source, ONE_TABLE).expect("written");
    run(command("as").arg(&source).arg("-o").arg(&object));
    let file = ElfFile::open(&object).expect("opened");
    let start = std::time::Instant::now();
    let _ = Survey::read(&file.parse().expect("parsed"));
    // Reading the table for each unit would read 1,600 million abbreviations, which takes a minute.
    assert!(start.elapsed() < std::time::Duration::from_secs(15), "{:?}", start.elapsed());
}

#[test]
fn a_compressed_section_is_not_allotted_by_what_it_claims() {
    let dir = tempfile::tempdir().expect("a folder");
    let (source, object) = (dir.path().join("a.c"), dir.path().join("a.o"));
    std::fs::write(&source, "int f(int x) { return x + 1; }").expect("written");
    run(command("gcc").args(["-g", "-gz=zlib", "-c"]).arg(&source).arg("-o").arg(&object));
    let read = |bytes: Vec<u8>| {
        let file = ElfFile::from_bytes("a.o", bytes);
        Survey::read(&file.parse().expect("parsed")).map(|_| ())
    };
    let mut bytes = std::fs::read(&object).expect("read");
    read(bytes.clone()).expect("a whole section");
    let file = ElfFile::from_bytes("a.o", bytes.clone());
    let elf = file.parse().expect("parsed");
    let section = elf.section_by_name(b".debug_info").expect("debug information");
    let place = elf.section_bytes(section).as_ptr() as usize - elf.data().as_ptr() as usize;
    // ch_size of Elf64_Chdr.
    bytes[place + 8..place + 16].copy_from_slice(&(3u64 << 30).to_le_bytes());
    let failure = read(bytes).expect_err("refused");
    assert!(failure.to_string().contains("more than its"), "{failure}");
}
