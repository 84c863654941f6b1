//! The parts of each special section that are copied with a function, row by row in the finished module: one case for
//! each form of each row of the table of tables.

use klpx_normalize::arch::Arch;
use klpx_normalize::elf::{Elf, ElfFile, SymbolId};
use klpx_normalize::special::{Policy, TableKind};
use klpx_testkit::builds::Builds;
use klpx_testkit::fixture::{ARM64_GCC, Toolchain, X86_64};
use klpx_testkit::kernel::Kernel;
use klpx_verify::inspect::parse_symbol;
use object::elf;
use object::endian::LittleEndian as LE;

/// A reference in an entry: place in the entry, relocation type, name, offset in bytes.
type Reference = (u64, u32, String, i64);

/// An entry: its bytes and references.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    bytes: Vec<u8>,
    references: Vec<Reference>,
}

/// The entries of a form as assembly. One reference is to `place`, the others to `there`; all other bytes are `byte`.
fn entry(&(size, offsets): &(u8, &[u8]), place: &str, byte: u8) -> String {
    let mut text = String::new();
    let mut at = 0;
    while at < size {
        let Some(n) = offsets.iter().position(|&offset| offset == at) else {
            text += &format!(".byte {byte}\\n");
            at += 1;
            continue;
        };
        let end = offsets.get(n + 1).copied().unwrap_or(size);
        let wide = end - at >= 8;
        let to = if n == 0 { place } else { "there" };
        text += &match (n, wide) {
            (0, true) => format!(".quad {to}\\n"),
            (_, true) => format!(".quad {to} - .\\n"),
            (_, false) => format!(".long {to} - .\\n"),
        };
        at += if wide { 8 } else { 4 };
    }
    text
}

/// One form of one kind of table.
type Case = (&'static TableKind, &'static (u8, &'static [u8]));

/// The name of a section for a kind of table.
fn section_of(kind: &TableKind) -> String {
    kind.name.replace('*', "base")
}

/// Three functions. The first contains the assembly that makes the entries of all three; the last one's entries come
/// first.
fn unit(cases: &[Case], number: u32) -> String {
    let tables = cases.iter().map(|(kind, form)| {
        let places = [("third + 4", 3), ("second + 4", 2), ("1b", 1), ("second", 4)];
        let entries = places.map(|(place, byte)| entry(form, place, byte)).concat();
        let flags = if kind.name == "__mcount_loc" { "a" } else { "aw" }; // as compilers and the kernel's macros have it
        format!(".pushsection {},\\\"{flags}\\\"\\n{entries}.popsection\\n", section_of(kind))
    });
    let tables: String = tables.collect();
    format!(
        "extern int other(int);
         int first(int x) {{ asm volatile(\"nop\\n1: nop\\n{tables}\"); return other(x) + {number}; }}
         int second(int x) {{ return other(x) * 3 + {number}; }}
         int third(int x) {{ return other(x) * 5; }}"
    )
}

/// The entries, in all sections of a name, that belong to the functions that the patch changes.
fn rows(elf: &Elf<'_>, section: &str, size: u64) -> Vec<Row> {
    let mut found = Vec::new();
    for id in elf.section_ids().filter(|&id| elf.section_name(id) == section.as_bytes()) {
        for start in (0..elf.section_size(id)).step_by(size as usize) {
            let mut references = Vec::new();
            for table in elf.section_ids().filter(|&at| {
                elf.section_type(at) == elf::SHT_RELA.0 && elf.section(at).sh_info.get(LE) == id.0
            }) {
                let inside = |rela: &&klpx_normalize::elf::Rela| {
                    (start..start + size).contains(&rela.r_offset.get(LE))
                };
                references.extend(elf.rela_table(table).iter().filter(inside).map(|rela| {
                    let symbol = elf.rela_symbol(rela).expect("a symbol");
                    let (name, offset) = named(elf, symbol, rela.r_addend.get(LE));
                    (rela.r_offset.get(LE) - start, rela.r_type(LE, false).0, name, offset)
                }));
            }
            references.sort();
            let of_changed = |(at, _, name, _): &Reference| *at == 0 && (name == "first" || name == "second");
            if references.iter().any(of_changed) {
                let bytes = elf.section_bytes(id)[start as usize..(start + size) as usize].to_vec();
                found.push(Row { bytes, references });
            }
        }
    }
    found
}

/// A symbol and a distance; for a section symbol, the function at this place.
fn named(elf: &Elf<'_>, symbol: SymbolId, addend: i64) -> (String, i64) {
    let text = |id| String::from_utf8_lossy(elf.symbol_name(id)).into_owned();
    if elf.symbol_type(symbol) != elf::STT_SECTION.0 {
        let name = text(symbol);
        return (parse_symbol(&name).map_or(name, |symbol| symbol.name), addend);
    }
    // A trace site may lie before the entry.
    let holds = |&id: &SymbolId| {
        elf.symbol_type(id) == elf::STT_FUNC.0
            && elf.symbol_section(id) == elf.symbol_section(symbol)
            && (-8..elf.symbol_size(id) as i64).contains(&(addend - elf.symbol_value(id) as i64))
    };
    let function = elf.symbol_ids().find(holds);
    function.map_or((String::new(), addend), |id| (text(id), addend - elf.symbol_value(id) as i64))
}

fn kernel() -> Kernel {
    Kernel { exports: vec!["__fentry__", "there"], defined: vec!["other"], ..Kernel::default() }
}

/// Every form of every kind of an architecture, in rounds: each round has each kind once.
fn rounds(arch: Arch) -> Vec<Vec<Case>> {
    let forms = TableKind::all(arch).map(|kind| kind.forms.len()).max().unwrap_or(0);
    let round = |n: usize| {
        let kinds = TableKind::all(arch).filter(|kind| kind.companion.is_none());
        kinds.map(|kind| (kind, &kind.forms[n.min(kind.forms.len() - 1)])).collect()
    };
    (0..forms).map(round).collect()
}

const TOOLCHAINS: [(Arch, &Toolchain); 2] = [(Arch::X86_64, &X86_64), (Arch::Arm64, &ARM64_GCC)];

fn builds(toolchain: &'static Toolchain, cases: &[Case]) -> Builds {
    Builds::of(toolchain, toolchain.traced, &unit(cases, 1), &unit(cases, 2))
}

#[test]
fn the_entries_of_each_table_are_carried_or_dropped_as_its_policy_says() {
    for (arch, toolchain) in TOOLCHAINS {
        for round in rounds(arch) {
            let taken = |(kind, _): &Case| matches!(kind.policy, Policy::Carry | Policy::Drop(_));
            let cases: Vec<Case> = round.into_iter().filter(taken).collect();
            let builds = builds(toolchain, &cases);
            let file = ElfFile::from_bytes("livepatch.ko", builds.module("vmlinux", &kernel()));
            let module = file.parse().expect("a module");
            builds.verify("vmlinux", &kernel(), &file).expect("a good module");
            for (kind, form) in cases {
                let (section, size) = (section_of(kind), u64::from(form.0));
                let what = format!("{section} of {}, {size} bytes", arch.name());
                let of_unit = builds.with("vmlinux", |units| rows(&units[0].patched.elf, &section, size));
                assert!(of_unit.len() >= 3, "{what}");
                let wanted = if kind.policy == Policy::Carry { of_unit } else { Vec::new() };
                let section = kind.linked_name.unwrap_or(&section);
                assert_eq!(rows(&module, section, size), wanted, "{what}");
            }
        }
    }
}

#[test]
fn functions_with_entries_that_cant_be_copied_are_refused() {
    for (arch, toolchain) in TOOLCHAINS {
        for case in rounds(arch).remove(0) {
            let code = match case.0.policy {
                Policy::RuntimeConstant => "klpx::runtime-constant",
                Policy::Refuse(_) => "klpx::special-section",
                Policy::Carry | Policy::Drop(_) => continue,
            };
            // Both changed functions have entries.
            assert_eq!(builds(toolchain, &[case]).codes("vmlinux", &kernel()), [code; 2], "{}", case.0.name);
        }
    }
}

/// Functions of 16 bytes in one section, with the unwind rows that objtool would write: objtool leaves out a row that
/// repeats the one before it in the section.
fn rows_in_a_section(number: u32) -> String {
    let function = |name: &str, number: u32| {
        format!(
            ".globl {name}\\n.type {name},@function\\n{name}: call __fentry__\\nmov ${number},%eax\\nret\\n.skip 5,0x90\\n\
             .size {name},.-{name}\\n.pushsection __mcount_loc,\\\"a\\\"\\n.quad {name}\\n.popsection\\n"
        )
    };
    let row = |place: &str, row: u32| {
        format!(
            ".pushsection .orc_unwind_ip,\\\"a\\\"\\n.long {place} - .\\n.popsection\\n\
             .pushsection .orc_unwind,\\\"a\\\"\\n.short {row},0,{row}\\n.popsection\\n"
        )
    };
    let code = ["before", "changed", "behind"]
        .map(|name| function(name, if name == "changed" { number } else { 7 }));
    let rows =
        [("before", 11), ("before + 5", 12), ("changed + 5", 13), ("changed + 10", 14), ("behind", 15)];
    let rows = rows.map(|(place, number)| row(place, number)).concat();
    format!("asm(\".pushsection .sched.text,\\\"ax\\\"\\n{}{rows}.popsection\\n\");", code.concat())
}

/// A function at the end of its section has only one row there, the terminator.
#[test]
fn the_end_of_a_section_is_one_row() {
    let last = |number: u32| {
        format!(
            "asm(\".pushsection .sched.text,\\\"ax\\\"\\n.globl last\\n.type last,@function\\nlast: call __fentry__\\nmov ${number},%eax\\n\
             ret\\n.size last,.-last\\n.Lend:\\n.pushsection __mcount_loc,\\\"a\\\"\\n.quad last\\n.popsection\\n\
             .pushsection .orc_unwind_ip,\\\"a\\\"\\n.long last - .\\n.long .Lend - .\\n.popsection\\n\
             .pushsection .orc_unwind,\\\"a\\\"\\n.short 7,0,7\\n.short 0,0,0\\n.popsection\\n.popsection\\n\");"
        )
    };
    let builds = Builds::of(&X86_64, &[], &last(1), &last(2));
    let file = ElfFile::from_bytes("livepatch.ko", builds.module("vmlinux", &kernel()));
    let elf = file.parse().expect("a module");
    let rows = elf.section_by_name(b".orc_unwind").expect("rows");
    assert_eq!(elf.section_bytes(rows).chunks(6).map(|row| row[0]).collect::<Vec<_>>(), [7, 0]);
}

/// Code may refer to one of its own entries.
#[test]
fn a_reference_into_an_entry_leads_to_the_copy_of_it() {
    let text = |number: u32| {
        let entry = |name: &str| {
            format!(".pushsection __ex_table,\\\"a\\\"\\n{name}.long 1b - ., 1b - ., 7\\n.popsection\\n")
        };
        let user = |name: &str, number: u32| {
            format!(
                "int {name}(int x) {{ long at; asm volatile(\"1: nop\\n{}lea 9b+8(%%rip),%0\" : \"=r\"(at)); return other(x + at) + {number}; }}\n",
                entry("9: ")
            )
        };
        format!("extern int other(int);\n{}{}", user("second", 1), user("first", number))
    };
    let emitted = Builds::new(&text(1), &text(2)).emit("vmlinux", &kernel()).expect("a livepatch");
    let file = ElfFile::from_bytes("closure.o", emitted.object);
    let elf = file.parse().expect("an object");
    let code = elf.section_by_name(b".text").expect("code");
    let table = elf.section_by_name(b"__ex_table").expect("entries");
    let to_table = elf
        .relocations(code)
        .iter()
        .find(|rela| elf.rela_symbol(rela).and_then(|id| elf.symbol_section(id)) == Some(table));
    assert_eq!(to_table.map(|rela| rela.r_addend.get(LE)), Some(8 - 4));
}

#[test]
fn a_function_has_the_unwind_row_in_force_before_it_its_own_and_an_end() {
    let builds = Builds::of(&X86_64, &[], &rows_in_a_section(1), &rows_in_a_section(2));
    assert_eq!(builds.changed(), ["changed"]);
    let file = ElfFile::from_bytes("livepatch.ko", builds.module("vmlinux", &kernel()));
    let elf = file.parse().expect("a module");
    let section = |name: &[u8]| elf.section_by_name(name).expect("a section");
    let rows = elf.section_bytes(section(b".orc_unwind")).chunks(6).map(|row| row[0]);
    let places = elf.relocations(section(b".orc_unwind_ip")).iter().map(|rela| {
        let symbol = elf.rela_symbol(rela).expect("a symbol");
        let code = elf.symbol_ids().find(|&id| elf.symbol_name(id) == b"changed").expect("a function");
        elf.symbol_value(symbol)
            .wrapping_add_signed(rela.r_addend.get(LE))
            .wrapping_sub(elf.symbol_value(code))
    });
    let found: Vec<(u64, u8)> = places.zip(rows).collect();
    assert_eq!(found, [(0, 12), (5, 13), (10, 14), (16, 0)]);
}

/// objtool lists calls in the code of alternatives too (x86_64 with call depth tracking). The code has no name.
#[test]
fn entries_of_the_code_of_an_alternative_are_carried_with_it() {
    let function = |name: &str, number: u32| {
        format!(
            "int {name}(int x) {{ asm volatile(\"1: nop; nop; nop; nop; nop; nop; nop; nop; nop; nop\\n2:\\n\\
             .pushsection .altinstructions,\\\"a\\\"\\n.long 1b - ., 3f - .\\n.long 0\\n.byte 2b - 1b, 5f - 3f\\n.popsection\\n\\
             .pushsection .altinstr_replacement,\\\"ax\\\"\\n3: call there\\n4: call there\\n5:\\n.popsection\\n\\
             .pushsection .call_sites,\\\"a\\\"\\n.long 4b - .\\n.long 3b - .\\n.popsection\"
             ::: \"rax\"); return other(x) * {number}; }}\n"
        )
    };
    let text = |number: u32| {
        format!("extern int other(int);\n{}{}", function("untouched", 1), function("changed", number))
    };
    let builds = Builds::of(&X86_64, X86_64.traced, &text(3), &text(5));
    assert_eq!(builds.changed(), ["changed"]);
    let file = ElfFile::from_bytes("livepatch.ko", builds.module("vmlinux", &kernel()));
    builds.verify("vmlinux", &kernel(), &file).expect("a good module");
    let elf = file.parse().expect("a module");
    let section = |name: &[u8]| elf.section_by_name(name).expect("a section");
    let replacement = section(b".altinstr_replacement");
    assert_eq!(elf.section_size(replacement), 10);
    let places = elf.relocations(section(b".call_sites")).iter().filter_map(|rela| {
        let symbol = elf.rela_symbol(rela).filter(|&id| elf.symbol_section(id) == Some(replacement))?;
        Some(elf.symbol_value(symbol).wrapping_add_signed(rela.r_addend.get(LE)))
    });
    assert_eq!(places.collect::<Vec<_>>(), [5, 0]);
}

#[test]
fn an_alternative_with_entries_that_cant_be_copied_is_refused() {
    let refused =
        [("runtime_ptr_base", "klpx::runtime-constant"), ("runtime_shift_base", "klpx::special-section")];
    for (table, code) in refused {
        let text = |number: u32| {
            format!(
                "extern int other(int);
                 int changed(int x) {{ asm volatile(\"1: nop; nop; nop; nop; nop\\n2:\\n\\
                 .pushsection .altinstructions,\\\"a\\\"\\n.long 1b - ., 3f - .\\n.long 0\\n.byte 2b - 1b, 4f - 3f\\n.popsection\\n\\
                 .pushsection .altinstr_replacement,\\\"ax\\\"\\n3: mov $7,%%eax\\n4:\\n.popsection\\n\\
                 .pushsection {table},\\\"a\\\"\\n.long 3b + 1 - .\\n.popsection\"
                 ::: \"rax\"); return other(x) * {number}; }}\n"
            )
        };
        let builds = Builds::of(&X86_64, X86_64.traced, &text(3), &text(5));
        assert_eq!(builds.codes("vmlinux", &kernel()), [code]);
    }
}
