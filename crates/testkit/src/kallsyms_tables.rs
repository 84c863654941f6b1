//! kallsyms tables for small images, as assembly text. For tests, and for the seeds of
//! `cargo xtask fuzz`.

use klpx_normalize::elf::{Definition, ElfFile, SymbolId};

/// The tables of scripts/kallsyms.c for the symbols of an image, with one token per character. If `strips` is true,
/// they are sorted by names without promotion suffixes.
pub fn source(image: &ElfFile, strips: bool) -> String {
    let elf = image.parse().expect("an image");
    let named = |id: &SymbolId| {
        elf.symbol_type(*id) < 3
            && matches!(elf.definition(*id), Definition::Section(_))
            && !elf.symbol_name(*id).is_empty()
    };
    let mut symbols: Vec<(u64, String)> = elf
        .symbol_ids()
        .filter(named)
        .map(|id| (elf.symbol_value(id), String::from_utf8_lossy(elf.symbol_name(id)).into_owned()))
        .collect();
    symbols.sort();
    let seen = |n: usize| {
        let name = &symbols[n].1;
        let end = if strips { name.find(".llvm.") } else { None };
        name[..end.unwrap_or(name.len())].to_owned()
    };
    let mut by_name: Vec<usize> = (0..symbols.len()).collect();
    by_name.sort_by_key(|&n| (seen(n), n));
    let lines = |of: &mut dyn Iterator<Item = String>| of.collect::<Vec<_>>().join("\n");
    let bytes = |text: String| text.bytes().map(|b| b.to_string()).collect::<Vec<_>>().join(", ");
    let parts = [
        ("num_syms", format!(".long {}", symbols.len())),
        (
            "names",
            lines(
                &mut symbols
                    .iter()
                    .map(|(_, name)| format!(".byte {}, {}", name.len() + 1, bytes(format!("t{name}")))),
            ),
        ),
        ("token_table", lines(&mut (0..256).map(|b: u32| format!(".byte {}, 0", b.max(1))))),
        ("token_index", lines(&mut (0..256).map(|n| format!(".short {}", n * 2)))),
        ("offsets", lines(&mut symbols.iter().map(|(at, _)| format!(".long {:#x} - .", at)))),
        ("relative_base", ".quad _text".to_owned()),
        ("seqs_of_names", lines(&mut by_name.iter().map(|n| format!(".byte 0, 0, {n}")))),
    ];
    let mut text = ".section .kallsyms, \"a\"\n".to_owned();
    for (name, body) in parts {
        // Offsets are 32 bits wide and relative to their base, as in kernels before 7.0.
        let body = body.replace(" - .", " - 0xffffffff81000000");
        text += &format!(".balign 8\n.globl kallsyms_{name}\nkallsyms_{name}:\n{body}\n");
    }
    text
}
