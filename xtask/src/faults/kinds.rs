//! The kinds of faults that are put into modules.

use fastrand::Rng;
use klpx_klp_emit::writer::{OutputSection, Relocatable, Relocation, SymbolIndex, SymbolPlace};
use klpx_normalize::arch::Arch;
use klpx_normalize::special::TableKind;
use object::elf;

/// The result of an attempt to make a fault.
pub(super) enum FaultAttempt {
    /// The module has nothing into which the fault could be put.
    Nothing,
    /// Nothing reads the changed part.
    Harmless,
    /// The fault was put into the module.
    Fault(String),
}

/// A kind of fault: its name, and the function that makes one.
type FaultKind = (&'static str, fn(&mut Relocatable, &mut Rng) -> FaultAttempt);

/// Every kind.
pub(super) const KINDS: [FaultKind; 13] = [
    ("a reference to another symbol", other_symbol),
    ("a reference to a twin", twin),
    ("another offset from a symbol", other_addend),
    ("a relocation moved", moved_relocation),
    ("a relocation dropped", dropped_relocation),
    ("another type of relocation", other_type),
    ("a byte of code or data", flipped_byte),
    ("an entry of a special section dropped", dropped_entry),
    ("an entry of a special section twice", doubled_entry),
    ("functions swapped in the arrays", swapped_functions),
    ("a function left out of the arrays", left_out),
    ("a function's size", other_size),
    ("a section's flags", other_flags),
];

/// Returns true for sections of the module itself: they are loaded, and the kernel reads or runs them.
fn is_loaded(section: &OutputSection) -> bool {
    section.flags & elf::SHF_ALLOC.0 != 0 && !is_note(section)
}

/// Returns true for notes and version strings, on which nothing acts.
fn is_note(section: &OutputSection) -> bool {
    section.name.starts_with(b".note") || section.name == b".comment"
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// Picks any relocation of a loaded section: section, table, number.
fn pick(module: &Relocatable, random: &mut Rng) -> Option<(usize, usize, usize)> {
    let all: Vec<(usize, usize, usize)> = (module.sections.iter().enumerate())
        .filter(|(_, section)| is_loaded(section))
        .flat_map(|(s, section)| {
            let tables = section.relas.iter().enumerate();
            tables.flat_map(move |(t, table)| (0..table.relocations.len()).map(move |r| (s, t, r)))
        })
        .collect();
    (!all.is_empty()).then(|| all[random.usize(..all.len())])
}

fn relocation(module: &mut Relocatable, (s, t, r): (usize, usize, usize)) -> &mut Relocation {
    &mut module.sections[s].relas[t].relocations[r]
}

fn place(module: &Relocatable, (s, t, r): (usize, usize, usize)) -> String {
    let section = &module.sections[s];
    format!("{}+{:#x}", text(&section.name), section.relas[t].relocations[r].offset)
}

fn symbol_text(module: &Relocatable, symbol: Option<SymbolIndex>) -> String {
    symbol.map_or("nothing".to_owned(), |symbol| {
        let symbol = &module.symbols[symbol.0];
        match (symbol.name.is_empty(), symbol.place) {
            (true, SymbolPlace::In(section)) => text(&module.sections[section.0].name),
            _ => text(&symbol.name),
        }
    })
}

fn other_symbol(module: &mut Relocatable, random: &mut Rng) -> FaultAttempt {
    let Some(at) = pick(module, random) else { return FaultAttempt::Nothing };
    let Some(current) = relocation(module, at).symbol else { return FaultAttempt::Nothing };
    let same_place = |place: SymbolPlace, other: SymbolPlace| match (place, other) {
        (SymbolPlace::In(_), SymbolPlace::In(_)) => true,
        (place, other) => place == other,
    };
    let address = |symbol: usize| (module.symbols[symbol].place, module.symbols[symbol].value);
    let others: Vec<usize> = (0..module.symbols.len())
        .filter(|&other| {
            let (place, is) = (module.symbols[current.0].place, module.symbols[other].place);
            let same = matches!(place, SymbolPlace::In(_)) && address(other) == address(current.0);
            other != current.0 && same_place(place, is) && !same
        })
        .collect();
    if others.is_empty() {
        return FaultAttempt::Nothing;
    }
    let other = SymbolIndex(others[random.usize(..others.len())]);
    let what = format!(
        "at {}: {} for {}",
        place(module, at),
        symbol_text(module, Some(other)),
        symbol_text(module, Some(current))
    );
    relocation(module, at).symbol = Some(other);
    FaultAttempt::Fault(what)
}

/// Changes a livepatch symbol to name a different symbol of the same name.
fn twin(module: &mut Relocatable, random: &mut Rng) -> FaultAttempt {
    let all: Vec<usize> =
        (0..module.symbols.len()).filter(|&n| module.symbols[n].place == SymbolPlace::Livepatch).collect();
    if all.is_empty() {
        return FaultAttempt::Nothing;
    }
    let symbol = &mut module.symbols[all[random.usize(..all.len())]];
    let name = text(&symbol.name);
    let Some((start, position)) = name.rsplit_once(',') else { return FaultAttempt::Nothing };
    let position: u32 = position.parse().unwrap_or(0);
    let other = match position {
        0 => 2,
        1 => 2,
        n => n - 1,
    };
    symbol.name = format!("{start},{other}").into_bytes();
    FaultAttempt::Fault(format!("{name} became number {other}"))
}

fn other_addend(module: &mut Relocatable, random: &mut Rng) -> FaultAttempt {
    let Some(at) = pick(module, random) else { return FaultAttempt::Nothing };
    let by = [1, 2, 4, 8, 16, 64][random.usize(..6)] * if random.bool() { 1 } else { -1 };
    let symbol = relocation(module, at).symbol;
    let what = format!("at {}: {by:+}, {}", place(module, at), symbol_text(module, symbol));
    relocation(module, at).addend += by;
    FaultAttempt::Fault(what)
}

fn moved_relocation(module: &mut Relocatable, random: &mut Rng) -> FaultAttempt {
    let Some(at) = pick(module, random) else { return FaultAttempt::Nothing };
    let by = [4, 8][random.usize(..2)];
    let what = format!("at {}: {by} bytes on", place(module, at));
    let one = relocation(module, at);
    one.offset = one.offset.wrapping_add(by);
    FaultAttempt::Fault(what)
}

fn dropped_relocation(module: &mut Relocatable, random: &mut Rng) -> FaultAttempt {
    let Some((s, t, r)) = pick(module, random) else { return FaultAttempt::Nothing };
    let what = format!("at {}", place(module, (s, t, r)));
    module.sections[s].relas[t].relocations.remove(r);
    FaultAttempt::Fault(what)
}

fn other_type(module: &mut Relocatable, random: &mut Rng) -> FaultAttempt {
    let Some(at) = pick(module, random) else { return FaultAttempt::Nothing };
    let kinds = [
        elf::R_X86_64_64.0,
        elf::R_X86_64_PC32.0,
        elf::R_X86_64_32S.0,
        elf::R_X86_64_32.0,
        elf::R_X86_64_PC64.0,
    ];
    let current = relocation(module, at).kind;
    let kind = kinds[random.usize(..kinds.len())];
    // The loader treats the two types alike.
    let alike = |kind| [elf::R_X86_64_PC32.0, elf::R_X86_64_PLT32.0].contains(&kind);
    if kind == current || alike(kind) && alike(current) {
        return FaultAttempt::Nothing;
    }
    let what = format!("at {}: {kind} for {current}", place(module, at));
    relocation(module, at).kind = kind;
    FaultAttempt::Fault(what)
}

/// Flips a bit of a byte that something reads: in a named and sized thing, or in a section of strings, constants or
/// rows.
fn flipped_byte(module: &mut Relocatable, random: &mut Rng) -> FaultAttempt {
    let all: Vec<usize> = (0..module.sections.len())
        .filter(|&n| is_loaded(&module.sections[n]) && !module.sections[n].data.is_empty())
        .collect();
    if all.is_empty() {
        return FaultAttempt::Nothing;
    }
    let s = all[random.usize(..all.len())];
    let at = random.usize(..module.sections[s].data.len());
    let bit = 1 << random.u8(..8);
    let what = format!("{}+{at:#x}: bit {bit:#x}", text(&module.sections[s].name));
    let harmless =
        is_padding(module, s, at) || is_behind_text(module, s, at) || is_free_text(&module.sections[s], at);
    module.sections[s].data[at] ^= bit;
    if harmless { FaultAttempt::Harmless } else { FaultAttempt::Fault(what) }
}

/// Returns true for bytes that no symbol covers: they fill the gaps between functions.
fn is_padding(module: &Relocatable, s: usize, at: usize) -> bool {
    let section = &module.sections[s];
    let covers = |symbol: &klpx_klp_emit::writer::Symbol| {
        let place = matches!(symbol.place, SymbolPlace::In(of) if of.0 == s);
        place && (symbol.value..symbol.value + symbol.size).contains(&(at as u64))
    };
    let code = section.flags & elf::SHF_EXECINSTR.0 != 0 && !section.name.starts_with(b".altinstr");
    let arrays = section.flags & elf::SHF_WRITE.0 != 0;
    (code || arrays) && !module.symbols.iter().any(covers)
}

/// Returns true for zeroes behind the end of a string, up to the next place to which something refers.
fn is_behind_text(module: &Relocatable, s: usize, at: usize) -> bool {
    let section = &module.sections[s];
    if section.name != b".rodata" || section.data[at] != 0 {
        return false;
    }
    let leads = |one: &Relocation| {
        let symbol = &module.symbols[one.symbol?.0];
        let here = matches!(symbol.place, SymbolPlace::In(of) if of.0 == s);
        here.then(|| symbol.value.wrapping_add_signed(one.addend) as usize)
    };
    let all = module.sections.iter().flat_map(|section| &section.relas).flat_map(|table| &table.relocations);
    let Some(start) = all.filter_map(leads).filter(|&place| place <= at).max() else { return false };
    let bytes = &section.data[start..at];
    let text = bytes.iter().position(|&byte| byte == 0);
    text.is_some_and(|end| bytes[..end].is_ascii() && bytes[end..].iter().all(|&byte| byte == 0))
}

/// Returns true for a modinfo line that is only for people.
fn is_free_text(section: &OutputSection, at: usize) -> bool {
    if section.name != b".modinfo" {
        return false;
    }
    let start = section.data[..at].iter().rposition(|&byte| byte == 0).map_or(0, |n| n + 1);
    let line = &section.data[start..];
    let read = [&b"livepatch="[..], b"license=", b"vermagic=", b"depends=", b"import_ns=", b"name="];
    !read.iter().any(|key| line.starts_with(key))
}

/// Picks an entry of a special section: section, size, number.
fn entry(module: &Relocatable, random: &mut Rng) -> Option<(usize, usize, usize)> {
    let size = |section: &OutputSection| -> Option<usize> {
        let kind = TableKind::of(Arch::X86_64, &section.name)?;
        let relocations: usize = section.relas.iter().map(|table| table.relocations.len()).sum();
        let fits = |&&(size, places): &&(u8, &[u8])| {
            let entries = section.data.len() / usize::from(size);
            section.data.len().is_multiple_of(usize::from(size))
                && (entries..=entries * places.len()).contains(&relocations)
        };
        kind.forms.iter().find(fits).map(|&(size, _)| size.into())
    };
    let all: Vec<(usize, usize)> = (module.sections.iter().enumerate())
        .filter(|(_, section)| !section.data.is_empty())
        .filter_map(|(s, section)| Some((s, size(section)?)))
        .collect();
    if all.is_empty() {
        return None;
    }
    let (s, size) = all[random.usize(..all.len())];
    Some((s, size, random.usize(..module.sections[s].data.len() / size)))
}

fn dropped_entry(module: &mut Relocatable, random: &mut Rng) -> FaultAttempt {
    let Some((s, size, n)) = entry(module, random) else { return FaultAttempt::Nothing };
    let section = &mut module.sections[s];
    let what = format!("{}[{n}]", text(&section.name));
    cut(section, n * size, size);
    if section.name == b".orc_unwind_ip" {
        let Some(rows) = module.sections.iter_mut().find(|section| section.name == b".orc_unwind") else {
            return FaultAttempt::Nothing;
        };
        cut(rows, n * 6, 6);
    }
    FaultAttempt::Fault(what)
}

/// Removes bytes from a section, together with their relocations.
fn cut(section: &mut OutputSection, start: usize, size: usize) {
    section.data.drain(start..start + size);
    let (start, size) = (start as u64, size as u64);
    for table in &mut section.relas {
        table.relocations.retain(|one| !(start..start + size).contains(&one.offset));
        let behind = table.relocations.iter_mut().filter(|one| one.offset >= start);
        behind.for_each(|one| one.offset -= size);
    }
}

fn doubled_entry(module: &mut Relocatable, random: &mut Rng) -> FaultAttempt {
    let Some((s, size, n)) = entry(module, random) else { return FaultAttempt::Nothing };
    let section = &mut module.sections[s];
    let what = format!("{}[{n}]", text(&section.name));
    if section.name == b".orc_unwind_ip" {
        return FaultAttempt::Nothing; // a row that repeats another one says the same
    }
    let (start, end) = ((n * size) as u64, ((n + 1) * size) as u64);
    let last = section.data.len() as u64;
    let bytes = section.data[n * size..(n + 1) * size].to_vec();
    section.data.extend(bytes);
    for table in &mut section.relas {
        let own: Vec<Relocation> =
            table.relocations.iter().filter(|one| (start..end).contains(&one.offset)).copied().collect();
        let copies = own.into_iter().map(|one| Relocation { offset: one.offset - start + last, ..one });
        table.relocations.extend(copies);
    }
    FaultAttempt::Fault(what)
}

/// Returns the relocations of the arrays that lead to functions: section, table, number.
fn array_functions(module: &Relocatable) -> Vec<(usize, usize, usize)> {
    let mut found = Vec::new();
    for (s, section) in
        module.sections.iter().enumerate().filter(|(_, section)| section.name.starts_with(b".data"))
    {
        for (t, table) in section.relas.iter().enumerate() {
            for (r, one) in table.relocations.iter().enumerate() {
                let Some(symbol) = one.symbol.map(|symbol| &module.symbols[symbol.0]) else { continue };
                let SymbolPlace::In(of) = symbol.place else { continue };
                let code = module.sections[of.0].flags & elf::SHF_EXECINSTR.0 != 0;
                // The name's pointer stands right before the function's.
                let name = table.relocations.iter().any(|other| other.offset + 8 == one.offset);
                if code && name {
                    found.push((s, t, r));
                }
            }
        }
    }
    found
}

fn swapped_functions(module: &mut Relocatable, random: &mut Rng) -> FaultAttempt {
    let all = array_functions(module);
    if all.len() < 2 {
        return FaultAttempt::Nothing;
    }
    let n = random.usize(..all.len());
    let m = (n + 1 + random.usize(..all.len() - 1)) % all.len();
    let (one, other) = (*relocation(module, all[n]), *relocation(module, all[m]));
    if (one.symbol, one.addend) == (other.symbol, other.addend) {
        return FaultAttempt::Nothing;
    }
    let what = format!("{} and {}", symbol_text(module, one.symbol), symbol_text(module, other.symbol));
    (relocation(module, all[n]).symbol, relocation(module, all[n]).addend) = (other.symbol, other.addend);
    (relocation(module, all[m]).symbol, relocation(module, all[m]).addend) = (one.symbol, one.addend);
    FaultAttempt::Fault(what)
}

/// Clears an array entry's name and function, which ends the array there.
fn left_out(module: &mut Relocatable, random: &mut Rng) -> FaultAttempt {
    let all = array_functions(module);
    if all.is_empty() {
        return FaultAttempt::Nothing;
    }
    let (s, t, r) = all[random.usize(..all.len())];
    let table = &mut module.sections[s].relas[t];
    let offset = table.relocations[r].offset;
    let what = format!("at {offset:#x}");
    table.relocations.retain(|one| one.offset != offset && one.offset + 8 != offset);
    FaultAttempt::Fault(what)
}

fn other_size(module: &mut Relocatable, random: &mut Rng) -> FaultAttempt {
    let functions = array_functions(module);
    if functions.is_empty() {
        return FaultAttempt::Nothing;
    }
    let at = functions[random.usize(..functions.len())];
    let one = *relocation(module, at);
    let Some(symbol) = one.symbol.filter(|symbol| module.symbols[symbol.0].kind == elf::STT_FUNC.0) else {
        return FaultAttempt::Nothing;
    };
    module.symbols[symbol.0].size = 0;
    FaultAttempt::Fault(symbol_text(module, Some(symbol)))
}

fn other_flags(module: &mut Relocatable, random: &mut Rng) -> FaultAttempt {
    let all: Vec<usize> = (0..module.sections.len())
        .filter(|&n| {
            let section = &module.sections[n];
            let own = [&b".text"[..], b".data", b".rodata", b".bss"].contains(&&section.name[..]);
            own && section.size() > 0
        })
        .collect();
    if all.is_empty() {
        return FaultAttempt::Nothing;
    }
    let section = &mut module.sections[all[random.usize(..all.len())]];
    let flag = match () {
        () if section.flags & elf::SHF_EXECINSTR.0 != 0 => elf::SHF_EXECINSTR.0,
        () if section.flags & elf::SHF_WRITE.0 != 0 => elf::SHF_WRITE.0,
        () => elf::SHF_ALLOC.0,
    };
    section.flags &= !flag;
    FaultAttempt::Fault(format!("{} without {flag:#x}", text(&section.name)))
}
