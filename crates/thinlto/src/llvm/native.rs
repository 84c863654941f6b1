//! Native objects as backends write them: whether two hold the same code, and from which source one is compiled.

use object::LittleEndian as LE;
use object::elf::{FileHeader64, SectionType};
use object::read::elf::{FileHeader as _, SectionHeader as _};

/// The section type of `.llvm_addrsig` (llvm/BinaryFormat/ELF.h).
const SHT_LLVM_ADDRSIG: SectionType = SectionType(0x6fff_4c03);

/// Returns true if two objects are the same byte for byte, except for the order of symbols in `.llvm_addrsig`. This
/// section is a set, which LLVM writes in the order of a hash table; the table's keys depend on how the linker was
/// given the unit.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    if a == b {
        return true;
    }
    let (Some(set), Some(other)) = (address_significant(a), address_significant(b)) else { return false };
    let rest = |bytes: &[u8], range: std::ops::Range<usize>| {
        a.len() == b.len()
            && bytes.get(..range.start) == a.get(..range.start)
            && bytes.get(range.end..) == a.get(range.end..)
    };
    set == other && rest(b, other) && symbols(&a[set.clone()]) == symbols(&b[set])
}

/// The source file's name, from the only `STT_FILE` symbol of the object.
pub fn source_file(bytes: &[u8]) -> Option<&str> {
    let header = FileHeader64::<LE>::parse(bytes).ok()?;
    let symbols = header.sections(LE, bytes).ok()?.symbols(LE, bytes, object::elf::SHT_SYMTAB).ok()?;
    let mut files = symbols.iter().filter(|symbol| symbol.st_type() == object::elf::STT_FILE);
    let (file, None) = (files.next()?, files.next()) else { return None };
    std::str::from_utf8(symbols.symbol_name(LE, file).ok()?).ok()
}

/// The range of `.llvm_addrsig`.
fn address_significant(bytes: &[u8]) -> Option<std::ops::Range<usize>> {
    let header = FileHeader64::<LE>::parse(bytes).ok()?;
    let sections = header.sections(LE, bytes).ok()?;
    let section = sections.iter().find(|section| section.sh_type(LE) == SHT_LLVM_ADDRSIG)?;
    let (offset, size) = section.file_range(LE)?;
    let range = usize::try_from(offset).ok()?..usize::try_from(offset.checked_add(size)?).ok()?;
    (range.end <= bytes.len()).then_some(range)
}

/// The symbol numbers of `.llvm_addrsig`, decoded from ULEB128 and sorted.
fn symbols(bytes: &[u8]) -> Vec<u64> {
    let mut found = Vec::new();
    let (mut value, mut shift) = (0_u64, 0_u32);
    for &byte in bytes {
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        shift += 7;
        if byte & 0x80 == 0 {
            found.push(value);
            (value, shift) = (0, 0);
        }
    }
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use klpx_testkit::{command, run};

    use super::*;

    const SOURCE: &str = "int a, b; extern void take(void *, void *); void f(void) { take(&a, &b); }";

    fn object(source: &str) -> Vec<u8> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("a.c"), source).expect("a file");
        run(command("clang-22").args(["-O2", "-faddrsig", "-c", "a.c"]).current_dir(folder.path()));
        std::fs::read(path("a.o")).expect("an object")
    }

    #[test]
    fn an_object_names_its_source() {
        assert_eq!(source_file(&object(SOURCE)), Some("a.c"));
        assert_eq!(source_file(b"\x7fELF"), None);
    }

    #[test]
    fn only_the_order_of_address_significant_symbols_is_free() {
        let original = object(SOURCE);
        let range = address_significant(&original).expect("clang writes the section");
        let mut turned = original.clone();
        turned[range.clone()].reverse();
        assert_ne!(original, turned, "two symbols or more, of a byte each");
        assert!(same(&original, &turned));
        let mut other = original.clone();
        other[range.start] ^= 0x40;
        assert!(!same(&original, &other));
        assert!(!same(&original, &object(&SOURCE.replace("&b);", "&a);"))));
        for at in (0..original.len()).step_by(7).filter(|at| !range.contains(at)) {
            let mut damaged = original.clone();
            damaged[at] ^= 1;
            assert!(!same(&original, &damaged), "byte {at}");
        }
    }
}
