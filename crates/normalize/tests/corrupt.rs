//! No input makes the reader panic: truncated, overwritten and random files give an object or a diagnosis.

use std::path::Path;
use std::sync::OnceLock;

use klpx_normalize::elf::ElfFile;
use klpx_normalize::object::Object;
use klpx_testkit::{command, run};
use proptest::prelude::*;

fn fixture() -> &'static [u8] {
    static OBJECT: OnceLock<Vec<u8>> = OnceLock::new();
    OBJECT.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let object = dir.path().join("special.o");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kernel-fixtures/objects/special.c");
        let mut gcc = command("gcc");
        gcc.args([
            "-g",
            "-O2",
            "-c",
            "-ffunction-sections",
            "-fdata-sections",
            "-fno-pic",
            "-mcmodel=kernel",
            "-o",
        ]);
        run(gcc.arg(&object).arg(source));
        std::fs::read(object).expect("the object")
    })
}

/// Calls everything that the reader offers.
fn read_all(bytes: Vec<u8>) -> bool {
    let file = ElfFile::from_bytes("input", bytes);
    let Ok(object) = Object::read(&file) else { return false };
    for item in object.item_ids() {
        let section = object.item(item).section;
        let _ = (object.item_name(item), object.item_bytes(item), object.aliases(item).count());
        for rela in object.item_relocations(item) {
            let _ = (object.resolve(section, rela), object.relocation_kind(rela));
        }
        for entry in object.entries(item) {
            let _ = (
                object.entry_range(entry.table, entry.index),
                object.entry_companion(entry.table, entry.index),
            );
        }
    }
    true
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn overwritten_files_do_not_panic(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut bytes = fixture().to_vec();
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        read_all(bytes);
    }

    /// Headers decide most, so they get most of the mutations.
    #[test]
    fn overwritten_headers_do_not_panic(word in any::<u64>(), at in any::<prop::sample::Index>(), low in any::<bool>()) {
        let mut bytes = fixture().to_vec();
        let table = u64::from_le_bytes(bytes[40..48].try_into().expect("e_shoff")) as usize;
        let words = (bytes.len() - table) / 8;
        let at = if low { at.index(8) * 8 } else { table + at.index(words) * 8 };
        bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
        read_all(bytes);
    }

    #[test]
    fn truncated_files_do_not_panic(length in any::<prop::sample::Index>()) {
        let bytes = fixture();
        let complete = read_all(bytes[..length.index(bytes.len())].to_vec());
        prop_assert!(!complete, "the section headers stand at the end, so every truncation is seen");
    }

    #[test]
    fn random_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        prop_assert!(!read_all(bytes));
    }
}

#[test]
fn the_fixture_itself_is_read() {
    assert!(read_all(fixture().to_vec()));
}

/// Returns the fixture with the value and size of a function's symbol changed. A symbol is 24 bytes (`Elf64_Sym`).
fn with_symbol(name: &str, value: u64, size: u64) -> Vec<u8> {
    let mut bytes = fixture().to_vec();
    let file = ElfFile::from_bytes("input", bytes.clone());
    let elf = file.parse().expect("the fixture");
    let id = elf.symbol_ids().find(|&id| elf.symbol_name(id) == name.as_bytes()).expect("a symbol");
    let table = elf.section_ids().find(|&id| elf.section_type(id) == 2).expect("a symbol table");
    let at = elf.section(table).sh_offset.get(object::LittleEndian) as usize + 24 * id.index();
    bytes[at + 8..at + 16].copy_from_slice(&value.to_le_bytes());
    bytes[at + 16..at + 24].copy_from_slice(&size.to_le_bytes());
    bytes
}

#[test]
fn functions_outside_their_section_are_refused_and_labels_are_empty() {
    for (value, size, sound) in [
        (0, 1, true),
        (0, u64::MAX, true),
        (1 << 40, 1, false),
        (u64::MAX, u64::MAX, false),
        (1 << 40, 0, true),
        (u64::MAX, 0, true),
    ] {
        let file = ElfFile::from_bytes("input", with_symbol("warns", value, size));
        let object = match Object::read(&file) {
            Ok(object) => object,
            Err(failure) => {
                assert!(!sound, "{value:#x} {size:#x}");
                assert_eq!(failure.diagnoses().next().map(|one| one.code), Some("klpx::bad-elf"));
                continue;
            }
        };
        assert!(sound, "{value:#x} {size:#x}");
        let items = object.item_ids().map(|id| object.item(id));
        assert!(items.into_iter().all(|item| item.start <= item.entry && item.entry <= item.end));
    }
}

/// The relocations of a section that is not loaded are neither checked nor sorted, so nothing may compare its contents.
#[test]
fn code_that_refers_to_a_section_that_is_not_loaded_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    for (flags, sound) in [("", false), ("a", true)] {
        let source = format!(
            "asm(\".section .aside,\\\"{flags}\\\"\\ninside: .quad 1\\n.previous\");
             extern char inside[]; char *f(void) {{ return inside; }}"
        );
        std::fs::write(folder.path().join("a.c"), source).expect("a file");
        let mut gcc = command("gcc");
        gcc.args(["-O2", "-c", "-fno-pic", "-mcmodel=kernel", "a.c", "-o", "a.o"]);
        run(gcc.current_dir(folder.path()));
        let file = ElfFile::from_bytes("a.o", std::fs::read(folder.path().join("a.o")).expect("an object"));
        let code = Object::read(&file).err().and_then(|failure| Some(failure.diagnoses().next()?.code));
        assert_eq!(code, (!sound).then_some("klpx::unknown-section"), "flags {flags:?}");
    }
}
