//! Any bytes as one or two bitcode files, the second one beginning with its own magic number: hashes, functions, calls.
//! A file that takes a hash has that hash afterwards, and nothing of a file is new to itself.
#![no_main]

use klpx_thinlto::llvm::{bitcode, native, summary};

/// How bitcode begins.
const MAGIC: &[u8] = b"BC\xc0\xde";

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let second = bytes.windows(MAGIC.len()).skip(1).position(|window| window == MAGIC);
    let (original, patched) = bytes.split_at(second.map_or(bytes.len(), |place| place + 1));
    for file in [original, patched] {
        if bitcode::hash(file).is_some() {
            let hash = [1, u32::MAX, 0, 31, 32];
            let other = bitcode::with_hash(file, hash).expect("a file with a hash takes another");
            assert_eq!(bitcode::hash(&other), Some(hash));
        }
        let _ = summary::functions(file);
        assert!(
            summary::without_new_imports(file, file, |_| false).is_none(),
            "a file calls more than itself"
        );
    }
    if let Some(held) = summary::without_new_imports(original, patched, |_| false) {
        assert_eq!(held.file.len(), patched.len());
    }
    let _ = (native::source_file(bytes), native::same(original, patched));
});
