//! Any text as LLVM's remarks, printed and as a file, and as LLVM IR.
#![no_main]

use klpx_thinlto::llvm::{ir, remarks};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let _ = remarks::parse(&text);
    let _ = remarks::parse(&remarks::from_yaml(&text));
    let module = ir::IrModule::parse(&text);
    for name in module.names() {
        let _ = module.identity(name);
    }
    let _ = module.offers_the_same_as(&module, 100);
});
