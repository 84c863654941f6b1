//! After one mutation of one function of a real object, the comparison reports exactly that function.

use std::path::{Path, PathBuf};

use klpx_normalize::arch::FieldKind;
use klpx_normalize::elf::{ElfFile, Rela, SectionId};
use klpx_normalize::object::{ItemId, Object, Target};
use klpx_testkit::{command, run};
use object::endian::LittleEndian as LE;
use proptest::prelude::*;

/// Compiles the fixture. Every function gets its own section, as in an object that klpx compares.
fn compile(compiler: &str, dir: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kernel-fixtures/objects/special.c");
    let object = dir.join(format!("{compiler}.o"));
    let mut made = command(compiler);
    made.args(["-O2", "-c", "-ffunction-sections", "-fdata-sections", "-fno-pic", "-mcmodel=kernel"]);
    made.args(["-mno-red-zone", "-fno-asynchronous-unwind-tables", "-o"]);
    run(made.arg(&object).arg(&source));
    object
}

/// Returns the bytes of the fixture's object, for each compiler.
fn fixtures() -> &'static [Vec<u8>] {
    static OBJECTS: std::sync::OnceLock<Vec<Vec<u8>>> = std::sync::OnceLock::new();
    OBJECTS.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let compilers = ["gcc", "clang-22", "clang-19", "clang-16"];
        compilers.iter().map(|c| std::fs::read(compile(c, dir.path())).expect("the object")).collect()
    })
}

/// Returns the file offset of a byte of a section.
fn file_offset(object: &Object<'_>, section: SectionId, offset: u64) -> usize {
    (object.elf.section(section).sh_offset.get(LE) + offset) as usize
}

fn functions(object: &Object<'_>) -> Vec<ItemId> {
    object.item_ids().filter(|&i| object.item(i).code && object.item(i).end > object.item(i).entry).collect()
}

/// Returns the file offset of a relocation of a section. Assemblers do not sort relocations; the reader does.
fn rela_place(object: &Object<'_>, section: SectionId, rela: &Rela) -> usize {
    let table = object
        .elf
        .section_ids()
        .find(|&id| object.elf.section_type(id) == 4 && object.elf.section(id).sh_info.get(LE) == section.0)
        .expect("a relocation section");
    let key = |r: &Rela| (r.r_offset.get(LE), r.r_info.get(LE), r.r_addend.get(LE));
    let bytes = object.elf.section_bytes(table);
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let found = (0..bytes.len() / 24)
        .find(|n| (word(24 * n), word(24 * n + 8), word(24 * n + 16).cast_signed()) == key(rela));
    file_offset(object, table, 24 * found.expect("the relocation") as u64)
}

#[derive(Clone, Copy, Debug)]
enum Mutation {
    Byte,
    Target,
    Addend,
    Entry,
}

/// Changes one function and returns its name, if the function has something of that kind to change.
fn mutate(bytes: &mut [u8], kind: Mutation, pick: usize, choice: usize) -> Option<String> {
    let file = ElfFile::from_bytes("original", bytes.to_vec());
    let object = Object::read(&file).expect("the fixture is sound");
    let functions = functions(&object);
    let item = functions[pick % functions.len()];
    let shape = *object.item(item);
    let relocations = object.item_relocations(item);
    match kind {
        Mutation::Byte => {
            let place = shape.entry + (choice as u64) % (shape.end - shape.entry);
            let covered =
                relocations.iter().any(|r| (r.r_offset.get(LE)..r.r_offset.get(LE) + 8).contains(&place));
            if covered {
                return None;
            }
            bytes[file_offset(&object, shape.section, place)] ^= 1 + (choice % 255) as u8;
        }
        Mutation::Addend => {
            let n = choice % relocations.len().max(1);
            let rela = relocations.get(n)?;
            let at = rela_place(&object, shape.section, rela);
            let addend = rela.r_addend.get(LE) + 2 + (choice % 64) as i64;
            bytes[at + 16..at + 24].copy_from_slice(&addend.to_le_bytes());
        }
        Mutation::Target => {
            let n = choice % relocations.len().max(1);
            let rela = relocations.get(n)?;
            let now = object.resolve(shape.section, rela);
            let other = object.elf.symbol_ids().find(|&s| {
                let item = object.symbol_item(s);
                !matches!(now, Target::Item { item: i, .. } if Some(i) == item)
                    && item.is_some_and(|i| object.item(i).code)
                    && object.elf.symbol_value(s) == object.item(item.expect("checked")).entry
                    && s != object.elf.rela_symbol(rela).expect("checked")
            })?;
            let at = rela_place(&object, shape.section, rela);
            bytes[at + 12..at + 16].copy_from_slice(&other.0.to_le_bytes());
        }
        Mutation::Entry => {
            let entries: Vec<_> = object
                .entries(item)
                .iter()
                .filter(|e| object.tables[e.table.index()].kind.compared)
                .collect();
            let entry = entries.get(choice % entries.len().max(1))?;
            let (section, start, end) = object.entry_range(entry.table, entry.index);
            // the last byte of each of these forms is a plain number: flags, type, a length
            let last = end - 1;
            let field = |r| match object.relocation_kind(r).expect("a known type").field {
                FieldKind::Bytes(n) => u64::from(n),
                FieldKind::Instruction => 4,
            };
            if object.relocations_in(section, start, end).iter().any(|r| r.r_offset.get(LE) + field(r) > last)
            {
                return None;
            }
            bytes[file_offset(&object, section, last)] ^= 1;
        }
    }
    Some(String::from_utf8_lossy(object.item_name(item)).into_owned())
}

fn changed(original: Vec<u8>, patched: Vec<u8>) -> (Vec<String>, usize) {
    let (a, b) = (ElfFile::from_bytes("original", original), ElfFile::from_bytes("patched", patched));
    let (original, patched) = (Object::read(&a).expect("original"), Object::read(&b).expect("patched"));
    let difference = klpx_diff::compare(&original, &patched);
    let names = difference
        .functions
        .iter()
        .map(|c| String::from_utf8_lossy(patched.item_name(c.patched)).into_owned())
        .collect();
    (names, difference.data.len() + difference.registries.len() + difference.removed.len())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_mutation_is_one_changed_function(
        which in any::<usize>(),
        kind in prop_oneof![Just(Mutation::Byte), Just(Mutation::Target), Just(Mutation::Addend), Just(Mutation::Entry)],
        pick in any::<usize>(),
        choice in any::<usize>(),
    ) {
        let original = &fixtures()[which % fixtures().len()];
        let mut patched = original.clone();
        let Some(name) = mutate(&mut patched, kind, pick, choice) else { return Ok(()) };
        let (names, others) = changed(original.clone(), patched);
        prop_assert_eq!(names, vec![name]);
        prop_assert_eq!(others, 0);
    }
}

#[test]
fn an_object_does_not_differ_from_itself() {
    for object in fixtures() {
        assert_eq!(changed(object.clone(), object.clone()), (vec![], 0));
    }
}

#[test]
fn every_kind_of_mutation_happens() {
    for kind in [Mutation::Byte, Mutation::Target, Mutation::Addend, Mutation::Entry] {
        let done = (0..64).filter(|&n| mutate(&mut fixtures()[0].clone(), kind, n, n * 7).is_some()).count();
        assert!(done >= 8, "{kind:?} applies {done} times of 64");
    }
}

#[test]
fn a_changed_string_changes_its_users() {
    let original = &fixtures()[0];
    let mut patched = original.clone();
    let at = patched.windows(7).position(|w| w == b"unknown").expect("the string");
    patched[at] = b'U';
    assert_eq!(changed(original.clone(), patched), (vec!["name_of".to_owned()], 0));
}

/// Returns the file offsets of the rows of each table of one type, 24 bytes a row.
fn rows(bytes: &[u8], section_type: u32) -> Vec<usize> {
    let file = ElfFile::from_bytes("original", bytes.to_vec());
    let object = Object::read(&file).expect("the fixture is sound");
    let tables = object.elf.section_ids().filter(|&id| object.elf.section_type(id) == section_type);
    let table = |id| {
        (0..object.elf.section_bytes(id).len() / 24).map(move |row| (id, 24 * row as u64)).collect::<Vec<_>>()
    };
    tables.flat_map(table).map(|(id, at)| file_offset(&object, id, at)).collect()
}

/// Returns copies of an object in which one place is far outside of its section: a relocation's offset, or a symbol's
/// value. A symbol is tried as the symbol is, as a label (without type and size), and as a label without name.
fn with_odd_places(original: &[u8]) -> Vec<Vec<u8>> {
    let (symbol_table, relocations) = (2, 4);
    let mut copies = vec![];
    for extreme in [1_u64 << 63, (1 << 63) - 1, u64::MAX, 1 << 32] {
        let with = |fields: &[(usize, &[u8])]| {
            let mut copy = original.to_vec();
            for (at, bytes) in fields {
                copy[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            copy
        };
        let extreme = extreme.to_le_bytes();
        copies.extend(rows(original, relocations).into_iter().map(|row| with(&[(row, &extreme)])));
        for row in rows(original, symbol_table) {
            let (value, size) = ((row + 8, &extreme[..]), (row + 16, &[0; 8][..]));
            let no_type = [original[row + 4] & 0xf0];
            copies.push(with(&[value]));
            copies.push(with(&[value, size, (row + 4, &no_type)]));
            copies.push(with(&[value, size, (row + 4, &no_type), (row, &[0; 4])]));
        }
    }
    copies
}

/// Neither the reader nor the comparison may compute with a place as if the place were in its section.
#[test]
fn a_place_outside_of_its_section_is_an_error_or_a_difference() {
    let (mut refused, mut compared) = (0, 0);
    for original in fixtures() {
        let sound = ElfFile::from_bytes("original", original.clone());
        let sound = Object::read(&sound).expect("original");
        for odd in with_odd_places(original) {
            let odd = ElfFile::from_bytes("patched", odd);
            let Ok(odd) = Object::read(&odd) else {
                refused += 1;
                continue;
            };
            compared += 1;
            klpx_diff::compare(&sound, &odd);
            klpx_diff::compare(&odd, &sound);
            klpx_diff::compare(&odd, &odd);
        }
    }
    assert!(refused > 0 && compared > 0, "{refused} refused, {compared} compared");
}
