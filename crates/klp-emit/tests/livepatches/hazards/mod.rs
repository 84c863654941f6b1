//! Hazards of one architecture, most of them of arm64. Each is tested on objects that its compilers make at run time,
//! from two builds of a file to a verified module. One file per hazard.

mod addresses;
mod alternatives;
mod call_padding;
mod cfi;
mod jump_tables;
mod literal_pools;
mod mapping_symbols;
mod runtime_constants;
mod shadow_stack;
mod trace_sites;
mod veneers;

use klpx_normalize::arch::Arch;
use klpx_normalize::elf::{Elf, ElfFile, SectionId, SymbolId};
use klpx_testkit::builds::Builds;
use klpx_testkit::fixture::{ARM64_CLANG, ARM64_GCC, Toolchain};
use klpx_testkit::kernel::Kernel;
use object::elf;
use object::endian::LittleEndian as LE;

/// The compilers that build arm64 kernels.
fn compilers() -> [(&'static str, &'static Toolchain); 2] {
    [("clang", &ARM64_CLANG), ("gcc", &ARM64_GCC)]
}

/// Two builds: the second has `to` in place of `from`.
fn builds(toolchain: &'static Toolchain, flags: &[&str], source: &str, from: &str, to: &str) -> Builds {
    assert!(source.contains(from));
    let flags = [toolchain.traced, flags].concat();
    Builds::of(toolchain, &flags, source, &source.replace(from, to))
}

/// A relocation of a finished module, with its symbol by name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reference {
    /// The place, from the function's entry or from the first byte.
    at: i64,
    kind: &'static str,
    /// The name that the livepatch core looks up, or the symbol's name; for a section symbol, `section+offset`.
    to: String,
    addend: i64,
    late: bool,
}

/// A finished module that passed verification.
struct Livepatch {
    file: ElfFile,
}

impl Livepatch {
    /// Makes and verifies the livepatch for `vmlinux`.
    fn of(builds: &Builds) -> Livepatch {
        Livepatch::of_object(builds, "vmlinux")
    }

    fn of_object(builds: &Builds, object: &str) -> Livepatch {
        let file = ElfFile::from_bytes("livepatch.ko", builds.module(object, &Kernel::default()));
        let said = builds.verify(object, &Kernel::default(), &file);
        assert!(
            said.is_ok(),
            "{:?}",
            said.err().map(|f| f.diagnoses().map(ToString::to_string).collect::<Vec<_>>())
        );
        Livepatch { file }
    }

    fn elf(&self) -> Elf<'_> {
        self.file.parse().expect("a sound module")
    }

    /// The section, entry and size of a function.
    fn function(&self, name: &str) -> (SectionId, u64, u64) {
        let elf = self.elf();
        let is_it =
            |&id: &SymbolId| elf.symbol_name(id) == name.as_bytes() && elf.symbol_type(id) == elf::STT_FUNC.0;
        let id = elf.symbol_ids().find(is_it).unwrap_or_else(|| panic!("no function {name}"));
        (elf.symbol_section(id).expect("defined"), elf.symbol_value(id), elf.symbol_size(id))
    }

    /// The instructions in `from..to` bytes from a function's entry.
    fn words(&self, name: &str, from: i64, to: i64) -> Vec<u32> {
        let (section, entry, _) = self.function(name);
        self.words_at(section, entry.wrapping_add_signed(from), entry.wrapping_add_signed(to))
    }

    fn words_at(&self, section: SectionId, from: u64, to: u64) -> Vec<u32> {
        words(&self.elf().section_bytes(section)[from as usize..to as usize])
    }

    /// The relocations in `from..to` bytes from a place.
    fn references(&self, (section, base): (SectionId, u64), from: i64, to: i64) -> Vec<Reference> {
        let elf = self.elf();
        let mut found = Vec::new();
        for table in elf.section_ids().filter(|&id| elf.section_type(id) == elf::SHT_RELA.0) {
            if elf.section(table).sh_info.get(LE) != section.0 {
                continue;
            }
            let livepatch = elf.section_name(table).starts_with(b".klp.rela.");
            let late = livepatch && !elf.section_name(table).starts_with(b".klp.rela.vmlinux.");
            for rela in elf.rela_table(table) {
                let at = rela.r_offset.get(LE) as i64 - base as i64;
                let symbol = elf.rela_symbol(rela).expect("a symbol");
                let name = match elf.symbol_section(symbol) {
                    Some(of) if elf.symbol_type(symbol) == elf::STT_SECTION.0 => elf.section_name(of),
                    _ => elf.symbol_name(symbol),
                };
                let to_name = String::from_utf8_lossy(name).into_owned();
                let kind = Arch::Arm64.relocation(rela.r_type(LE, false).0).expect("a known type").name;
                let to_name = klpx_verify::inspect::parse_symbol(&to_name)
                    .map_or(to_name.clone(), |symbol| symbol.name);
                if (from..to).contains(&at) {
                    found.push(Reference { at, kind, to: to_name, addend: rela.r_addend.get(LE), late });
                }
            }
        }
        found.sort_by_key(|reference| reference.at);
        found
    }

    /// The places to which a table's relocations lead, in table order.
    fn places(&self, table: &str) -> Vec<(SectionId, u64)> {
        let elf = self.elf();
        let Some(table) = elf.section_by_name(table.as_bytes()) else { return Vec::new() };
        let place = |rela: &klpx_normalize::elf::Rela| {
            let symbol = elf.rela_symbol(rela).expect("a symbol");
            let value = elf.symbol_value(symbol).wrapping_add_signed(rela.r_addend.get(LE));
            (elf.symbol_section(symbol).expect("a place in the module"), value)
        };
        elf.relocations(table).iter().map(place).collect()
    }
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect()
}

const NOP: u32 = 0xd503_201f;
