//! A written file reads back the same, and follows the format.

use super::*;
use klpx_normalize::elf::ElfFile;
use object::elf;
use object::endian::LittleEndian as LE;

fn symbol(name: &[u8], binding: u8, place: SymbolPlace) -> Symbol {
    Symbol { name: name.to_vec(), binding, kind: 2, other: 0, place, value: 0, size: 4 }
}

#[test]
fn what_is_written_reads_back_the_same() {
    let mut image = Relocatable::new(62);
    let text = image.add_section(OutputSection::new(b".text", 1, 6, 16));
    image.sections[text.0].data = vec![0x90; 12];
    let outside = image.add_symbol(symbol(b".klp.sym.vmlinux.f,2", 1, SymbolPlace::Livepatch));
    image.add_symbol(symbol(b"g", 0, SymbolPlace::In(text)));
    let relocation = Relocation { offset: 4, kind: 2, symbol: Some(outside), addend: -4 };
    image.sections[text.0].relocate(relocation);
    let klp = image.sections[text.0].rela_table(klp_rela_name("vmlinux", b".text"), KLP_RELA_FLAGS);
    klp.relocations.push(relocation);

    let bytes = image.write();
    let file = ElfFile::from_bytes("t.ko", bytes.clone());
    let elf = file.parse().unwrap();
    let again = Relocatable::read(&elf).unwrap();
    assert_eq!(again.sections.len(), 1);
    let names: Vec<_> = again.sections[0].relas.iter().map(|t| t.name.clone()).collect();
    assert_eq!(names, [b".rela.text".to_vec(), b".klp.rela.vmlinux..text".to_vec()]);
    assert_eq!(again.sections[0].relas[1].flags, KLP_RELA_FLAGS);
    assert_eq!(again.symbols[0].name, b"g", "locals come first");
    assert_eq!(again.symbols[1].place, SymbolPlace::Livepatch);
    assert_eq!(again.write(), bytes);
}

#[test]
fn a_dropped_symbol_that_is_still_referred_to_is_an_error() {
    let mut image = Relocatable::new(62);
    let text = image.add_section(OutputSection::new(b".text", 1, 6, 16));
    let f = image.add_symbol(symbol(b"f", 1, SymbolPlace::Undefined));
    image.sections[text.0].relocate(Relocation { offset: 0, kind: 2, symbol: Some(f), addend: 0 });
    assert!(image.retain_symbols(|_, _| false).is_err());
}

/// A file with each kind of section, symbol and relocation.
fn sample() -> Relocatable {
    let mut image = Relocatable::new(62);
    image.flags = 5;
    let text = image.add_section(OutputSection::new(b".text", 1, 6, 16));
    image.sections[text.0].data = vec![0x90; 13];
    let bss = image.add_section(OutputSection::new(b".bss", elf::SHT_NOBITS.0, 3, 32));
    image.sections[bss.0].nobits = 40;
    let order = image.add_section(OutputSection::new(b"sites", 1, 2 | elf::SHF_LINK_ORDER.0, 8));
    image.sections[order.0].link = Some(text);
    image.sections[order.0].data = vec![0; 8];
    image.sections[order.0].entsize = 8;
    let out = image.add_symbol(symbol(b"out", 1, SymbolPlace::Undefined));
    let f = image.add_symbol(Symbol { other: 2, value: 8, ..symbol(b"f", 0, SymbolPlace::In(text)) });
    image.add_symbol(Symbol { value: 77, ..symbol(b"number", 0, SymbolPlace::Absolute) });
    image.sections[text.0].relocate(Relocation { offset: 4, kind: 2, symbol: Some(out), addend: -4 });
    image.sections[order.0].relocate(Relocation { offset: 0, kind: 1, symbol: Some(f), addend: 3 });
    image.sections[order.0].relocate(Relocation { offset: 4, kind: 1, symbol: None, addend: 9 });
    image
}

#[test]
fn a_file_is_as_the_format_says() {
    let bytes = sample().write();
    let file = ElfFile::from_bytes("t.ko", bytes.clone());
    let elf = file.parse().expect("an object");
    let header = |name: &[u8]| {
        let id = elf.section_by_name(name).expect("a section");
        let header = elf.section(id);
        let of =
            |number: u32| elf.section_ids().nth(number as usize).map_or(&b""[..], |id| elf.section_name(id));
        assert_eq!(header.sh_offset.get(LE) % header.sh_addralign.get(LE).max(1), 0, "the place is aligned");
        (
            header.sh_type.get(LE).0,
            header.sh_flags.get(LE).0,
            header.sh_size.get(LE),
            header.sh_addralign.get(LE),
            header.sh_entsize.get(LE),
            of(header.sh_link.get(LE)),
        )
    };
    let link_order = elf::SHF_LINK_ORDER.0;
    assert_eq!(header(b".text"), (1, 6, 13, 16, 0, &b""[..]));
    assert_eq!(header(b".bss"), (8, 3, 40, 32, 0, &b""[..]));
    assert_eq!(header(b"sites"), (1, 2 | link_order, 8, 8, 8, &b".text"[..]));
    assert_eq!(header(b".symtab"), (2, 0, 24 * 4, 8, 24, &b".strtab"[..]));
    for (table, target) in [(&b".rela.text"[..], &b".text"[..]), (b".relasites", b"sites")] {
        let found = header(table);
        assert_eq!((found.0, found.1, found.5), (4, elf::SHF_INFO_LINK.0, &b".symtab"[..]));
        let id = elf.section_by_name(table).expect("a table");
        let info = elf.section(id).sh_info.get(LE) as usize;
        assert_eq!(elf.section_ids().nth(info).map(|id| elf.section_name(id)), Some(target));
    }
    let symbols: Vec<_> = elf
        .symbol_ids()
        .map(|id| {
            let at = elf.symbol(id);
            (
                elf.symbol_name(id),
                elf.symbol_binding(id),
                elf.symbol_type(id),
                at.st_other.0,
                elf.symbol_value(id),
                elf.symbol_size(id),
            )
        })
        .collect();
    let wanted = [(&b"f"[..], 0, 2, 2, 8, 4), (b"number", 0, 2, 0, 77, 4), (b"out", 1, 2, 0, 0, 4)];
    assert_eq!(symbols.split_at(symbols.len() - 3).1, wanted);
    let table = elf.section_by_name(b".symtab").expect("symbols");
    assert_eq!(elf.section(table).sh_info.get(LE), 3, "locals, and the empty one");
    assert_eq!(bytes[48..52], 5_u32.to_le_bytes());
    let again = Relocatable::read(&elf).expect("a module");
    let all = again.sections.iter().flat_map(|section| &section.relas).flat_map(|table| &table.relocations);
    let name = |symbol: Option<SymbolIndex>| {
        symbol.map(|symbol| again.symbols[symbol.0].name.clone()).unwrap_or_default()
    };
    let all: Vec<_> = all.map(|one| (one.offset, one.kind, name(one.symbol), one.addend)).collect();
    assert_eq!(all, [(4, 2, b"out".to_vec(), -4), (0, 1, b"f".to_vec(), 3), (4, 1, Vec::new(), 9)]);
}

#[test]
fn padding_reaches_the_alignment_and_the_rest() {
    for (kind, fill) in [(elf::SHT_PROGBITS.0, 0xcc), (elf::SHT_NOBITS.0, 0)] {
        let mut section = OutputSection::new(b"s", kind, 3, 4);
        let grow = |section: &mut OutputSection, more: usize| match kind == elf::SHT_NOBITS.0 {
            true => section.nobits += more as u64,
            false => section.data.resize(section.data.len() + more, 1),
        };
        grow(&mut section, 5);
        assert_eq!(section.pad(8, 0, fill), 8);
        grow(&mut section, 1);
        assert_eq!(section.pad(32, 8, fill), 40);
        assert_eq!(section.pad(8, 64, fill), 40);
        assert_eq!((section.size(), section.align), (40, 32));
        if kind == elf::SHT_PROGBITS.0 {
            assert_eq!(section.data[..9], [1, 1, 1, 1, 1, 0xcc, 0xcc, 0xcc, 1]);
            assert!(section.data[9..].iter().all(|&byte| byte == 0xcc));
        }
    }
}

#[test]
fn what_goes_takes_its_symbols_along_and_nothing_may_refer_to_it() {
    let mut image = sample();
    image.retain_sections(|section| section.name != b".bss").expect("nothing refers to it");
    assert_eq!(image.sections.len(), 2);
    assert_eq!(image.sections[1].link, Some(Sec(0)));
    let mut image = sample();
    let last = image.add_section(OutputSection::new(b"last", 1, 2, 1));
    image.add_symbol(symbol(b"mark", 0, SymbolPlace::In(last)));
    image.retain_sections(|section| section.name != b".bss").expect("nothing refers to it");
    assert!(
        image.symbols.iter().any(|symbol| symbol.name == b"mark" && symbol.place == SymbolPlace::In(Sec(2)))
    );
    assert!(sample().retain_sections(|section| section.name != b".text").is_err(), "sites refers to f");
}

#[test]
fn what_no_module_holds_is_refused() {
    let f = klpx_testkit::fixture::Fixture::new();
    for (text, what) in [
        (".comm shared,8\n", "a common symbol"),
        (".section .text.g,\"axG\",@progbits,g,comdat\nnop\n", "a section group"),
    ] {
        f.assemble("odd", text);
        let file = f.open("odd.o");
        let failure = Relocatable::read(&file.parse().expect("an object")).expect_err(what);
        assert!(failure.to_string().contains(what), "{failure}");
    }
}
