//! Any bytes as a compressed module: unpacked within the limits, or refused.
#![no_main]

use std::path::Path;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = klpx_normalize::compressed::unpack(Path::new("input"), bytes);
});
