//! Any bytes as an object: read, resolve everything, compare with itself. Seed it with small `.o` files.
#![no_main]

use klpx_normalize::elf::ElfFile;
use klpx_normalize::object::Object;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let file = ElfFile::from_bytes("input", bytes.to_vec());
    let Ok(object) = Object::read(&file) else { return };
    for item in object.item_ids() {
        for rela in object.item_relocations(item) {
            let _ = object.resolve(object.item(item).section, rela);
        }
    }
    let difference = klpx_diff::compare(&object, &object);
    assert!(difference.functions.iter().all(|change| change.original.is_none()), "an object differs from itself");
});
