//! Any bytes as a file with debug information: who inlined what, lines, ftrace sites, layouts and declarations, and the
//! types in `.BTF`. A file has no other layouts than itself.
#![no_main]

use std::path::Path;

use klpx_inline_check::consistent::Guarded;
use klpx_inline_check::lines::Lines;
use klpx_inline_check::reach::TraceSites;
use klpx_inline_check::sections::DebugSections;
use klpx_inline_check::survey::{Survey, compare};
use klpx_layout::{Btf, Declarations, Layouts, changes};
use klpx_normalize::arch::Arch;
use klpx_normalize::elf::{Elf, ElfFile};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let file = ElfFile::from_bytes("input", bytes.to_vec());
    let Ok(elf) = file.parse() else { return };
    inlining(&elf);
    lines(&elf);
    types(&elf);
});

fn inlining(elf: &Elf<'_>) {
    if let Ok(arch) = Arch::of_machine(elf.machine()) {
        let _ = TraceSites::read(elf, arch);
    }
    let _ = Guarded::read(elf);
    let Ok(survey) = Survey::measured(elf) else { return };
    for (_, function) in survey.functions() {
        let _ = (survey.state(function), survey.call_sites(function), survey.holders(function));
        for call in survey.inlined(function) {
            let _ = survey.chain(call).len();
        }
    }
    assert!(compare(&survey, &survey).is_empty(), "a file inlines otherwise than itself");
}

fn lines(elf: &Elf<'_>) {
    let sections = DebugSections::of_lines(elf);
    let lines = Lines::read(&sections);
    let mut places = Vec::new();
    for id in elf.symbol_ids() {
        if let Some(section) = elf.symbol_section(id) {
            let entry = elf.symbol_value(id);
            let _ = lines.position(section, entry);
            let _ = lines.position_in_function(section, entry, entry.saturating_add(1));
            places.push((section, entry));
        }
    }
    let _ = Survey::read_units(elf, Path::new("/"), &places);
}

fn types(elf: &Elf<'_>) {
    let declarations = Declarations::read(elf);
    for id in elf.symbol_ids() {
        if let (Ok(declarations), Some(section)) = (&declarations, elf.symbol_section(id)) {
            let _ = declarations.at(section, elf.symbol_value(id));
        }
    }
    let Ok(layouts) = Layouts::read(elf) else { return };
    assert!(changes(&layouts, &layouts).is_empty(), "a file has other layouts than itself");
    let Some(section) = elf.section_by_name(b".BTF") else { return };
    if let Ok(kernel) = Btf::read(elf.section_bytes(section), None) {
        let _ = kernel.disagreements(&layouts);
        if let Ok(module) = Btf::read(elf.section_bytes(section), Some(&kernel)) {
            let _ = module.disagreements(&layouts);
        }
    }
}
