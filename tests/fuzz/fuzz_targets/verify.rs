//! Any bytes as a finished module: what it holds, and its verification against no kernel at all, and against itself in
//! the place of everything else.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};

use klpx_normalize::elf::ElfFile;
use klpx_verify::{KernelFilesTarget, KernelObject, VMLINUX, VerifiedUnit, inspect, verify};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let file = ElfFile::from_bytes("input", bytes.to_vec());
    let _ = inspect::inspect(&file);
    let Ok(elf) = file.parse() else { return };
    let _ = verify(&file, &KernelFilesTarget::new(Vec::new(), &[]), &[], &[]);
    let object = KernelObject { name: VMLINUX, elf: &elf, file_of: &|_| None };
    let kernel = KernelFilesTarget::new(vec![object], &["0x1\tprintk\tvmlinux\tEXPORT_SYMBOL\t\n"]);
    let unit = VerifiedUnit {
        object: VMLINUX,
        original: &elf,
        patched: &elf,
        claims: BTreeMap::new(),
        gave_way: BTreeSet::new(),
    };
    let _ = verify(&file, &kernel, &[unit], &[]);
});
