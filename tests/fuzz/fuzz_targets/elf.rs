//! Any bytes as an object: read, resolve everything, compare with itself. Seed it with small `.o` files.
#![no_main]

use klpx_diff::Reason;
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
    // The comparison gives up on constants that refer to themselves, and on alternatives of which it does not understand
    // the replacement. Both count as different.
    let sure = |reason: &Reason| {
        !matches!(reason, Reason::Literal { .. } | Reason::SpecialSection { table: ".altinstructions", .. })
    };
    let changed = difference.functions.iter().find(|change| change.reasons.iter().any(sure));
    assert_eq!(changed, None, "an object differs from itself");
});
