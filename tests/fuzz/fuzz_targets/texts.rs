//! Any text as the small files around a kernel: its configuration, its exports, kbuild's record of a command, the lists
//! of `--consistent`. Lists that were read are written as they were read.
#![no_main]

use klpx_build_driver::{Config, RecordedCommands};
use klpx_inline_check::consistent::ChoiceLists;
use klpx_klp_emit::image::Exports;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let config = Config::parse(&text);
    for name in config.names() {
        let _ = (config.is(name), config.value(name), config.number(name));
    }
    let _ = Exports::parse(&text);
    if let Some(record) = RecordedCommands::parse(&text) {
        let _ = (record.compilation(), record.is_thin_unit(), record.link());
    }
    if let Ok(lists) = ChoiceLists::parse(&text) {
        let written = lists.to_text();
        let again = ChoiceLists::parse(&written).map(|lists| lists.to_text());
        assert_eq!(again.ok(), Some(written));
    }
});
