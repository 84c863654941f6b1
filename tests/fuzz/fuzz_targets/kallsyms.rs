//! Any bytes as the kernel's image, or as a module: its symbols, what lies where, and the position of each symbol by the
//! tables of kallsyms.
#![no_main]

use klpx_klp_emit::image::{Image, VMLINUX};
use klpx_normalize::elf::ElfFile;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let file = ElfFile::from_bytes("input", bytes.to_vec());
    for object in [VMLINUX, "module"] {
        let Ok(image) = Image::read(&file, object) else { continue };
        let Ok(elf) = file.parse() else { continue };
        let _ = image.runtime_sites("runtime_const");
        for id in elf.symbol_ids() {
            let _ = (image.position(id), image.file_of(id), image.name(id));
            let Some(address) = image.address(id) else { continue };
            // Sections and files have addresses, and are not asked for by them.
            let named = elf.symbol_type(id) < 3;
            assert!(!named || image.at(address).any(|other| other == id), "a symbol is not at its address");
            let _ = (image.describe(address), image.next_symbol(address), image.section_of(address));
            let _ = image.bytes_from(address);
            for rela in image.relocations(address, elf.symbol_size(id)) {
                let _ = image.target(rela);
            }
        }
    }
});
