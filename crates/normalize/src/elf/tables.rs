//! The tables of an ELF file as they lie in its bytes, with checks of their bounds.

use object::elf;
use object::endian::LittleEndian as LE;
use object::pod;

/// A section header as it lies in the file.
pub type Shdr = elf::SectionHeader64<LE>;
/// A symbol as it lies in the file.
pub type Sym = elf::Sym64<LE>;
/// A relocation with addend as it lies in the file.
pub type Rela = elf::Rela64<LE>;

/// The table of `count` rows at `offset`.
pub(super) fn table<'d, T: pod::Pod>(
    data: &'d [u8],
    offset: u64,
    count: u64,
    what: &str,
) -> Result<&'d [T], String> {
    let short = || format!("its {what} reaches past the end of the file");
    let start = usize::try_from(offset).map_err(|_| short())?;
    let rest = data.get(start..).ok_or_else(short)?;
    let count = usize::try_from(count).map_err(|_| short())?;
    if count.checked_mul(size_of::<T>()).is_none_or(|length| length > rest.len()) {
        return Err(short());
    }
    pod::slice_from_bytes(rest, count).map(|(slice, _)| slice).map_err(|()| short())
}

/// All section headers.
pub(super) fn section_headers<'d>(
    data: &'d [u8],
    header: &elf::FileHeader64<LE>,
) -> Result<&'d [Shdr], String> {
    let offset = header.e_shoff.get(LE);
    if offset == 0 {
        return Err("it has no sections".into());
    }
    if header.e_shentsize.get(LE) as usize != size_of::<Shdr>() {
        return Err("its section headers are of an unknown size".into());
    }
    let first: &[Shdr] = table(data, offset, 1, "section header table")?;
    let count = match header.e_shnum.get(LE) {
        0 => first[0].sh_size.get(LE),
        count => u64::from(count),
    };
    if count == 0 || count > u64::from(u32::MAX) {
        return Err("it has no sections".into());
    }
    table(data, offset, count, "section header table")
}

/// The index of the section that holds the names of sections.
pub(super) fn section_string_table(header: &elf::FileHeader64<LE>, sections: &[Shdr]) -> Result<u32, String> {
    let index = match header.e_shstrndx.get(LE) {
        elf::SHN_XINDEX => sections[0].sh_link.get(LE),
        index => u32::from(index.0),
    };
    if index as usize >= sections.len() {
        return Err("it names no table of section names".into());
    }
    Ok(index)
}

/// The string at an offset of a string table; empty outside of the table.
pub(super) fn string_at(strings: &[u8], offset: u32) -> &[u8] {
    let rest = strings.get(offset as usize..).unwrap_or(&[]);
    let end = rest.iter().position(|&b| b == 0).unwrap_or(rest.len());
    &rest[..end]
}
