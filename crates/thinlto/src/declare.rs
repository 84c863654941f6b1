//! Declares symbols that objtool looks up by name, and that a unit of a ThinLTO kernel may lack.
//!
//! For a call of the trampoline `__SCT__x`, objtool needs the symbol of the key `__SCK__x` (tools/objtool/check.c,
//! create_static_call_sections). A unit that is compiled alone has both: `static_call(x)` refers to the key so that the
//! compiler keeps it (include/linux/static_call_types.h, __ADDRESSABLE). A function that ThinLTO imports brings only
//! the call along. In `vmlinux.o`, where kbuild runs objtool, other units supply the key. A module may lack the key:
//! with `--module`, objtool takes the trampoline's address instead, and the kernel's loader finds the key from this
//! address.

use std::collections::BTreeSet;

use object::elf::{
    FileHeader64, SHN_UNDEF, SHT_SYMTAB, SHT_SYMTAB_SHNDX, STB_GLOBAL, SectionHeader64, Sym64, SymbolInfo,
    SymbolOther,
};
use object::endian::{LittleEndian as LE, U16, U32, U64};
use object::pod;
use object::read::SectionIndex;
use object::read::elf::{FileHeader as _, SectionHeader as _};

const TRAMPOLINE: &[u8] = b"__SCT__";
const KEY: &[u8] = b"__SCK__";

/// The object as objtool needs it with these options. `None` if nothing has to be added.
pub(crate) fn for_objtool(bytes: &[u8], options: &[String]) -> Option<Vec<u8>> {
    // With `--module`, objtool takes the trampoline if there is no key.
    if options.iter().any(|option| option == "--module") {
        return None;
    }
    static_call_keys(bytes)
}

/// The object with an undefined symbol for each missing key. `None` if no key is missing, or if the bytes are no
/// object.
fn static_call_keys(bytes: &[u8]) -> Option<Vec<u8>> {
    let header = FileHeader64::<LE>::parse(bytes).ok()?;
    let sections = header.sections(LE, bytes).ok()?;
    let symbols = sections.symbols(LE, bytes, SHT_SYMTAB).ok()?;
    let mut trampolines = BTreeSet::new();
    let mut keys = BTreeSet::new();
    for symbol in symbols.iter() {
        let name = symbols.symbol_name(LE, symbol).ok()?;
        if let Some(call) = name.strip_prefix(TRAMPOLINE) {
            trampolines.insert(call);
        } else if let Some(call) = name.strip_prefix(KEY) {
            keys.insert(call);
        }
    }
    let missing: Vec<Vec<u8>> = trampolines.difference(&keys).map(|call| [KEY, call].concat()).collect();
    if missing.is_empty() {
        return None;
    }
    let numbers = sections.iter().position(|section| section.sh_type(LE) == SHT_SYMTAB_SHNDX);
    let data =
        |section: SectionIndex| sections.section(section).ok()?.data(LE, bytes).ok().map(<[u8]>::to_vec);
    let (table, strings) = (symbols.section(), symbols.string_section());
    let (mut rows, mut text) = (data(table)?, data(strings)?);
    for name in &missing {
        let row = Sym64::<LE> {
            st_name: U32::new(LE, u32::try_from(text.len()).ok()?),
            st_info: SymbolInfo(STB_GLOBAL.0 << 4),
            st_other: SymbolOther(0),
            st_shndx: U16::new(LE, SHN_UNDEF),
            st_value: U64::new(LE, 0),
            st_size: U64::new(LE, 0),
        };
        rows.extend_from_slice(pod::bytes_of(&row));
        text.extend_from_slice(name);
        text.push(0);
    }
    let mut object =
        Appended { bytes: bytes.to_vec(), headers: usize::try_from(header.e_shoff.get(LE)).ok()? };
    object.replace(strings, &text)?;
    object.replace(table, &rows)?;
    if let Some(numbers) = numbers {
        let mut more = data(SectionIndex(numbers))?;
        more.extend(std::iter::repeat_n(0, 4 * missing.len()));
        object.replace(SectionIndex(numbers), &more)?;
    }
    Some(object.bytes)
}

/// A file whose sections can be replaced by data that is appended. The old data stays in the file, unused.
struct Appended {
    bytes: Vec<u8>,
    /// Where the section headers are.
    headers: usize,
}

impl Appended {
    fn replace(&mut self, section: SectionIndex, data: &[u8]) -> Option<()> {
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        let (offset, size) = (self.bytes.len() as u64, data.len() as u64);
        let at = self.headers + section.0 * size_of::<SectionHeader64<LE>>();
        let (header, _) = pod::from_bytes_mut::<SectionHeader64<LE>>(self.bytes.get_mut(at..)?).ok()?;
        header.sh_offset = U64::new(LE, offset);
        header.sh_size = U64::new(LE, size);
        self.bytes.extend_from_slice(data);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use klpx_testkit::{command, run};

    use super::*;

    fn compiled(source: &str) -> Vec<u8> {
        let dir = tempfile::tempdir().expect("a folder");
        let (from, to) = (dir.path().join("a.c"), dir.path().join("a.o"));
        std::fs::write(&from, source).expect("written");
        run(command("gcc").arg("-c").arg(&from).arg("-o").arg(&to));
        std::fs::read(to).expect("an object")
    }

    fn names(bytes: &[u8]) -> Vec<String> {
        let header = FileHeader64::<LE>::parse(bytes).expect("an object");
        let symbols = header.sections(LE, bytes).expect("sections").symbols(LE, bytes, SHT_SYMTAB);
        let symbols = symbols.expect("symbols");
        let name = |symbol| String::from_utf8_lossy(symbols.symbol_name(LE, symbol).expect("a name")).into();
        symbols.iter().map(name).collect()
    }

    #[test]
    fn the_key_of_a_call_without_one_is_declared() {
        let source = "void __SCT__a(void); void __SCT__b(void); extern int __SCK__b;
            int f(void) { __SCT__a(); __SCT__b(); return __SCK__b; }";
        let before = compiled(source);
        let after = static_call_keys(&before).expect("one is missing");
        let mut wanted = names(&before);
        wanted.push("__SCK__a".to_owned());
        assert_eq!(names(&after), wanted);
        assert_eq!(static_call_keys(&after), None);
        let options = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(for_objtool(&before, &options(&["--orc", "--link"])), Some(after));
        assert_eq!(for_objtool(&before, &options(&["--orc", "--module"])), None);
    }
}
