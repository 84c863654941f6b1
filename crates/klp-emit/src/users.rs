//! The users of a function in the kernel to be patched: branches to its entry, and places that keep its address.
//!
//! A linked image has no relocations. There, a branch is an instruction with a distance to the entry. An address is
//! kept if its eight bytes are in data, or if an instruction contains it as a number. All candidate places are found by
//! their bytes, and code is decoded from the start of its function, so that the bytes of another instruction are not
//! mistaken for a branch. In a module, relocations tell. Branches with a distance of one byte are not searched: they
//! come from the same section of the same unit, where the unit's own relocations tell.

use std::collections::BTreeSet;

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind};
use klpx_diagnosis::Result;
use klpx_normalize::elf::{Definition, Elf, ElfFile, SectionId};
use klpx_normalize::special::TableKind;
use object::elf;
use object::endian::LittleEndian as LE;
use rayon::prelude::*;

use crate::arch;
use crate::image::{Image, Location, TargetKernel};

/// The users of a function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FunctionUsers {
    /// Functions with a branch to the function, each with all its names.
    pub callers: BTreeSet<Vec<String>>,
    /// Where the function's address is kept, in words.
    pub kept: BTreeSet<String>,
}

impl FunctionUsers {
    /// Finds the users of a function in the object that defines it. `None` for a linked image whose code klpx can't
    /// read this way.
    pub fn within(image: &Image<'_>, address: u64) -> Option<FunctionUsers> {
        match (image.is_linked(), arch::finds_linked_users(image.arch)) {
            (true, true) => Some(linked(image, address)),
            (true, false) => None,
            (false, _) => {
                let is_it = |location| matches!(location, Location::At(at) if at == address);
                Some(by_relocation(image, is_it))
            }
        }
    }

    /// Finds a module's users of a function that another object exports under `name`.
    pub fn importing(image: &Image<'_>, name: &[u8]) -> FunctionUsers {
        let is_it = |location| matches!(location, Location::Undefined(symbol, 0) if image.elf.symbol_name(symbol) == name);
        by_relocation(image, is_it)
    }
}

/// The modules of a kernel that import at least one of these names.
///
/// # Errors
/// Fails if a module's file can't be read.
pub fn importers(kernel: &TargetKernel, names: &BTreeSet<&[u8]>) -> Result<Vec<String>> {
    let imports = |elf: &Elf<'_>| {
        elf.symbol_ids()
            .any(|id| elf.definition(id) == Definition::Undefined && names.contains(elf.symbol_name(id)))
    };
    let found: Result<Vec<Option<String>>> = kernel
        .modules()
        .collect::<Vec<_>>()
        .into_par_iter()
        .map(|(name, path)| {
            let file = ElfFile::open(path)?;
            Ok(imports(&file.parse()?).then(|| name.to_owned()))
        })
        .collect();
    Ok(found?.into_iter().flatten().collect())
}

/// Sections of a module that name functions but run nothing: export tables (others import by name), and BTF.
const NO_USE: [&[u8]; 3] = [b"__ksymtab", b"__kcrctab", b".BTF"];

fn by_relocation(image: &Image<'_>, is_it: impl Fn(Location) -> bool) -> FunctionUsers {
    let mut users = FunctionUsers::default();
    let elf = &image.elf;
    let alloc = |id: &SectionId| elf.section_flags(*id) & elf::SHF_ALLOC.0 != 0;
    for section in elf.section_ids().filter(alloc) {
        let name = elf.section_name(section);
        if NO_USE.iter().any(|no_use| name.starts_with(no_use)) {
            continue;
        }
        let code = elf.section_flags(section) & elf::SHF_EXECINSTR.0 != 0;
        let table = TableKind::of(image.arch, name).filter(|_| !code);
        let entry = table.and_then(|kind| Some((kind.entry_size(elf, section)?, kind.forms[0].1[0])));
        for rela in elf.relocations(section) {
            let Some(kind) = image.arch.relocation(rela.r_type(LE, false).0) else { continue };
            // Only instructions count from the end of the field.
            let bias = if code { image.arch.pc_bias(kind) } else { 0 };
            let meant = match image.target(rela) {
                Some(Location::At(at)) => Location::At(at.wrapping_add_signed(bias)),
                Some(Location::Undefined(symbol, addend)) => {
                    Location::Undefined(symbol, addend.wrapping_add(bias))
                }
                None => continue,
            };
            let place = rela.r_offset.get(LE);
            // An entry of a special section does not use the function that it describes.
            let describes = entry.is_some_and(|(size, first)| place % u64::from(size) == u64::from(first));
            if describes || !is_it(meant) {
                continue;
            }
            let at = image.section_address(section).wrapping_add(place);
            let branch =
                code && arch::is_branch(image.arch, kind, elf.section_bytes(section), place as usize);
            match function_at(image, at).filter(|_| branch) {
                Some((_, caller)) => users.callers.insert(caller),
                None => users.kept.insert(format!("{} ({})", image.describe(at), image.object())),
            };
        }
    }
    users
}

fn linked(image: &Image<'_>, address: u64) -> FunctionUsers {
    let mut users = FunctionUsers::default();
    let elf = &image.elf;
    let loaded = |id: &SectionId| {
        elf.section_flags(*id) & elf::SHF_ALLOC.0 != 0 && elf.section_type(*id) == elf::SHT_PROGBITS.0
    };
    for section in elf.section_ids().filter(loaded) {
        let (base, bytes) = (image.section_address(section), elf.section_bytes(section));
        if elf.section_flags(section) & elf::SHF_EXECINSTR.0 == 0 {
            for at in memchr::memmem::find_iter(bytes, &address.to_le_bytes()) {
                users.kept.insert(image.describe(base + at as u64));
            }
            continue;
        }
        // Data may stand beside code: an address there is in no function, and so is kept.
        for at in fields(bytes, base, address) {
            match use_at(image, base + at as u64, address) {
                Use::None => {}
                Use::Branch(caller) => {
                    users.callers.insert(caller);
                }
                Use::Kept => {
                    users.kept.insert(image.describe(base + at as u64));
                }
            }
        }
    }
    users
}

/// Offsets of four bytes that are the distance from their end to an address, or the lower half of the address.
fn fields(bytes: &[u8], base: u64, address: u64) -> Vec<usize> {
    let lower = address as u32;
    let is_field = |(at, word): (usize, &[u8])| {
        let value = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        let behind = (base + at as u64 + 4) as u32;
        value == lower || behind.wrapping_add(value) == lower
    };
    let words = bytes.par_windows(4).enumerate().with_min_len(1 << 16);
    words.filter(|&word| is_field(word)).map(|(at, _)| at).collect()
}

enum Use {
    Branch(Vec<String>),
    Kept,
    /// The bytes do not refer to the address.
    None,
}

/// How the instruction with a field at a place uses an address.
fn use_at(image: &Image<'_>, field: u64, address: u64) -> Use {
    let Some((start, caller)) = function_at(image, field) else {
        return if is_padding(image, field) { Use::None } else { Use::Kept };
    };
    let Some(code) = image.bytes_from(start) else { return Use::Kept };
    let code = &code[..code.len().min((field - start) as usize + 16)];
    let mut decoder = Decoder::with_ip(64, code, start, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        if instruction.is_invalid() {
            return Use::Kept;
        }
        if instruction.next_ip() <= field {
            continue;
        }
        let branches = (0..instruction.op_count()).any(|n| instruction.op_kind(n) == OpKind::NearBranch64);
        if branches && instruction.near_branch_target() == address {
            return Use::Branch(caller);
        }
        return if names(&instruction, address) { Use::Kept } else { Use::None };
    }
    Use::Kept
}

/// Returns true for a place after a function, if only no-operations and traps lie between. The last bytes of a long
/// no-operation are zeros, and so is the distance to the code that follows.
fn is_padding(image: &Image<'_>, field: u64) -> bool {
    let Some(end) = image.function_before(field).filter(|end| field - end < LONGEST_PADDING) else {
        return false;
    };
    let Some(code) = image.bytes_from(end) else { return false };
    let mut decoder = Decoder::with_ip(64, code, end, DecoderOptions::NONE);
    while decoder.can_decode() && decoder.ip() <= field {
        if !matches!(decoder.decode().mnemonic(), Mnemonic::Nop | Mnemonic::Int3) {
            return false;
        }
    }
    decoder.ip() > field
}

/// Functions begin at multiples of at most this number of bytes.
const LONGEST_PADDING: u64 = 128;

/// Returns true if an instruction contains an address as a displacement or a number.
fn names(instruction: &Instruction, address: u64) -> bool {
    let memory = (0..instruction.op_count()).any(|n| instruction.op_kind(n) == OpKind::Memory);
    let immediate = |n: u32| {
        let kind = instruction.op_kind(n);
        matches!(kind, OpKind::Immediate32 | OpKind::Immediate64 | OpKind::Immediate32to64)
            && instruction.immediate(n) as u32 == address as u32
    };
    memory && instruction.memory_displacement64() as u32 == address as u32
        || (0..instruction.op_count()).any(immediate)
}

/// The function that covers an address: its start and all its names.
fn function_at(image: &Image<'_>, address: u64) -> Option<(u64, Vec<String>)> {
    let (start, _) = image.function_at(address)?;
    let functions = image.at(start).filter(|&id| image.elf.symbol_type(id) == elf::STT_FUNC.0);
    let mut names: Vec<String> = functions.map(|id| image.name(id)).collect();
    names.sort();
    Some((start, names))
}

#[cfg(test)]
mod tests {
    use super::*;
    use klpx_testkit::fixture::Fixture;

    const CALLERS: &str = "extern int wanted(int);
        int calls(int x) { return wanted(x) + 1; }
        int jumps(int x) { return wanted(x * 3); }
        int twice(int x) { return wanted(x) + wanted(x + 1); }
        int other(int x) { return x; }";

    /// The users of `wanted` in a linked image, in a module that defines it, and in a module that imports it.
    fn users(more: &str) -> [FunctionUsers; 3] {
        let fixture = Fixture::new();
        fixture.compile("one", "int wanted(int x) { return x ^ 5; }", "one.o", &[]);
        fixture.compile("two", &format!("{CALLERS} {more}"), "two.o", &[]);
        fixture.link(&["two.o", "one.o"], "vmlinux");
        fixture.combine(&["two.o", "one.o"], "module.o");
        let within = |name: &str, object: &str| {
            let file = fixture.open(name);
            let image = Image::read(&file, object).expect("an image");
            let address = image.global(b"wanted").and_then(|symbol| image.address(symbol)).expect("there");
            FunctionUsers::within(&image, address).expect("an x86_64 image")
        };
        let importing = {
            let file = fixture.open("two.o");
            FunctionUsers::importing(&Image::read(&file, "two").expect("an image"), b"wanted")
        };
        [within("vmlinux", "vmlinux"), within("module.o", "module"), importing]
    }

    #[test]
    fn every_branch_counts_for_its_function() {
        for found in users("") {
            let callers: Vec<&str> = found.callers.iter().flatten().map(String::as_str).collect();
            assert_eq!((callers, found.kept.len()), (vec!["calls", "jumps", "twice"], 0));
        }
    }

    #[test]
    fn a_place_that_keeps_the_address_is_found() {
        for (more, place) in [
            ("int (*table[2])(int) = { other, wanted };", "table+0x8"),
            (
                "asm(\".section .data.moved, \\\"awx\\\", @progbits\\n ret\\n .previous\");
                int (*table[2])(int) = { other, wanted };",
                "table+0x8",
            ),
            ("int (*hook)(int); void hooks(void) { hook = wanted; }", "hooks"),
            (
                "__attribute__((noipa)) int run(int (*f)(int)) { return f(1); } int hands(void) { return run(wanted); }",
                "hands",
            ),
        ] {
            for found in users(more) {
                assert!(found.kept.iter().any(|kept| kept.starts_with(place)), "{more}: {:?}", found.kept);
            }
        }
    }

    #[test]
    fn zeros_before_the_entry_are_no_branch_to_it() {
        let fixture = Fixture::new();
        // cs nopw 0x0(%rax,%rax,1), with which assemblers pad.
        let text = ".globl before\n.type before,@function\nbefore: ret\n.size before,.-before\n\
            .byte 0x66,0x2e,0x0f,0x1f,0x84,0,0,0,0,0\n\
            .globl wanted\n.type wanted,@function\nwanted: ret\n.size wanted,.-wanted\n";
        fixture.assemble("one", text);
        fixture.link(&["one.o"], "vmlinux");
        let file = fixture.open("vmlinux");
        let image = Image::read(&file, "vmlinux").expect("an image");
        let wanted = image.global(b"wanted").and_then(|symbol| image.address(symbol)).expect("there");
        assert_eq!(FunctionUsers::within(&image, wanted), Some(FunctionUsers::default()));
    }

    #[test]
    fn bytes_that_only_look_like_an_address_are_no_use() {
        // The number equals the address's lower half, but is not in a field where an instruction has an address.
        let fixture = Fixture::new();
        fixture.compile("one", "int wanted(int x) { return x ^ 5; }", "one.o", &[]);
        fixture.link(&["one.o"], "vmlinux");
        let file = fixture.open("vmlinux");
        let image = Image::read(&file, "vmlinux").expect("an image");
        let wanted = image.global(b"wanted").and_then(|symbol| image.address(symbol)).expect("there");
        let bytes: Vec<String> = (wanted as u32).to_le_bytes().iter().map(u8::to_string).collect();
        // movabs $N, %rax: the lower half is in the upper four bytes of the number.
        let text = format!(
            ".globl odd\n.type odd,@function\nodd: .byte 0x48,0xb8,0,0,0,0,{}\nret\n.size odd,.-odd\n",
            bytes.join(",")
        );
        fixture.assemble("odd", &text);
        fixture.link(&["one.o", "odd.o"], "vmlinux");
        let file = fixture.open("vmlinux");
        let image = Image::read(&file, "vmlinux").expect("an image");
        let again = image.global(b"wanted").and_then(|symbol| image.address(symbol));
        assert_eq!(again, Some(wanted));
        assert_eq!(FunctionUsers::within(&image, wanted), Some(FunctionUsers::default()));
    }

    /// The users of `wanted` in a linked image of this assembly: callers, and the number of places that keep the
    /// address.
    fn used(text: &str) -> (Vec<String>, usize) {
        let fixture = Fixture::new();
        let wanted =
            ".globl wanted\n.type wanted,@function\n.balign 16\nwanted: ret\n.size wanted,.-wanted\n";
        let function = "user: nop\n";
        fixture.assemble(
            "one",
            &format!(
                ".text\n{wanted}.globl user\n.type user,@function\n{function}{}",
                text.replace("; ", "\n")
            ),
        );
        fixture.link(&["one.o"], "vmlinux");
        let file = fixture.open("vmlinux");
        let image = Image::read(&file, "vmlinux").expect("an image");
        let address = image.global(b"wanted").and_then(|symbol| image.address(symbol)).expect("there");
        let users = FunctionUsers::within(&image, address).expect("an x86_64 image");
        (users.callers.into_iter().flatten().collect(), users.kept.len())
    }

    #[test]
    fn each_way_to_use_an_address_is_a_branch_or_keeps_it() {
        let end = "ret; .size user,.-user";
        let cases: [(&str, &[&str], usize); 13] = [
            ("call wanted", &["user"], 0),
            (".byte 0x0f,0x84; .long wanted - . - 4", &["user"], 0), // je
            ("call wanted + 1", &[], 0),
            ("lea wanted(%rip),%rax", &[], 1),
            ("mov wanted(%rip),%rax", &[], 1),
            ("mov $wanted,%rax", &[], 1),
            ("movabs $wanted,%rax", &[], 1),
            ("push $wanted", &[], 1),
            ("cmp $wanted,%rax", &[], 1),
            ("mov wanted(,%rax,8),%rax", &[], 1),
            (".byte 0x06; .long wanted - . - 4", &[], 1), // no instruction of 64 bits
            ("nop", &[], 0),
            // e8 ff ff ff as a number equals the distance; the call leads elsewhere.
            (".skip 18,0x90; .byte 0xe8,0xff,0xff,0xff,0x00", &[], 0),
        ];
        for (code, callers, kept) in cases {
            assert_eq!(
                used(&format!("{code}; {end}")),
                (callers.iter().map(|one| (*one).to_owned()).collect(), kept),
                "{code}"
            );
        }
        // After a function, padding has no effect, and anything else is unknown.
        let distance = ".long wanted - . - 4";
        assert_eq!(used(&format!("{end}; .byte 0xe8; {distance}")).1, 1, "a call that no function holds");
        assert_eq!(
            used(&format!("{end}; .byte 0x66,0x0f,0x1f,0x84,0; {distance}")).1,
            0,
            "the end of a long no-operation"
        );
        assert_eq!(used(&format!("{end}; .data; .quad wanted")).1, 1);
        assert_eq!(used(&format!("{end}; .data; .quad wanted + 1")).1, 0);
    }

    #[test]
    fn in_a_module_tables_that_run_nothing_keep_no_address() {
        let fixture = Fixture::new();
        let text = ".text\n.globl wanted\n.type wanted,@function\nwanted: ret\n.size wanted,.-wanted\n\
            .section .text.user,\"ax\"\n.globl user\n.type user,@function\nuser: call wanted\ncall away\nlea away+4(%rip),%rax\nret\n.size user,.-user\n";
        for (more, kept) in [
            ("", 0),
            (".section .data.near,\"aw\"\n.long wanted - .\n", 1),
            (".section .data.behind,\"aw\"\n.long wanted + 4 - .\n", 0),
            // The second reference of an entry is a use; the first one is the place that the entry describes.
            (".section _kprobe_blacklist,\"a\"\n.quad wanted\n", 0),
            (".section .static_call_sites,\"a\"\n.long user - .,wanted - .\n", 1),
            (".section .static_call_sites,\"a\"\n.long wanted - .,other - .\n", 0),
            (".section .ibt_endbr_seal,\"a\"\n.long wanted - .\n", 0),
            (".section __ksymtab,\"a\"\n.long wanted - .\n", 0),
            (".section .data.hook,\"aw\"\n.quad wanted\n", 1),
            (".section .text.user,\"ax\"\nlea wanted(%rip),%rax\n", 1),
            (".section .debug_info\n.quad wanted\n", 0),
        ] {
            fixture.assemble("one", &format!("{text}{more}"));
            let file = fixture.open("one.o");
            let image = Image::read(&file, "one").expect("an image");
            let address = image.global(b"wanted").and_then(|symbol| image.address(symbol)).expect("there");
            let users = FunctionUsers::within(&image, address).expect("a module");
            assert_eq!((users.callers.len(), users.kept.len()), (1, kept), "{more}");
            let importing = FunctionUsers::importing(&image, b"away");
            assert_eq!((importing.callers.len(), importing.kept.len()), (1, 0), "{more}");
            assert_eq!(FunctionUsers::importing(&image, b"nobody"), FunctionUsers::default());
        }
    }

    #[test]
    fn nobody_is_said_to_use_what_klpx_cant_read() {
        let fixture = Fixture::of(&klpx_testkit::fixture::ARM64_GCC);
        fixture.compile("one", "int wanted(int x) { return x ^ 5; }", "one.o", &[]);
        fixture.link(&["one.o"], "vmlinux");
        let file = fixture.open("vmlinux");
        let image = Image::read(&file, "vmlinux").expect("an image");
        let address = image.global(b"wanted").and_then(|symbol| image.address(symbol)).expect("there");
        assert_eq!(FunctionUsers::within(&image, address), None);
    }
}
