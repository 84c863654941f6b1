//! Any bytes as a patch: read, classify, and number the lines of what it would make.
#![no_main]

use klpx_build_driver::{KernelArch, PatchSet, lines, patch};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(set) = PatchSet::from_text("fuzz.patch", bytes) {
        for change in set.changes() {
            assert!(!change.path.starts_with('/') && !change.path.split('/').any(|part| part == ".."));
            let _ = patch::classify(&change.path, KernelArch::X86_64);
        }
    }
    let text = String::from_utf8_lossy(bytes);
    let (before, after) = text.split_at(text.floor_char_boundary(text.len() / 2));
    let numbered = lines::number(before, after);
    let kept = numbered.text.lines().filter(|line| !line.starts_with("#line ")).count();
    assert!(kept <= after.lines().count());
});
