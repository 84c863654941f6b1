//! Source lines of code in a relocatable object, without reading more DWARF than the one line program that holds them.
//!
//! The relocations of `.debug_line` are the starts of its sequences (DW_LNE_set_address), so the program that covers a
//! function is found without decoding any other.

use gimli::{DebugLineOffset, Format, LineRow, Reader as _};
use klpx_normalize::elf::{Elf, SectionId};
use object::endian::LittleEndian as LE;

use crate::dwarf::{self, Reader};

/// A source position.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The file's path, as the compiler was given it.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
}

/// The source position of the instruction at an offset of a section; `None` without line information.
pub fn position(elf: &Elf<'_>, section: SectionId, offset: u64) -> Option<Position> {
    let start = program_of(elf, section, offset)?;
    let debug_line = gimli::DebugLine::from(dwarf::section(elf, ".debug_line"));
    let program = debug_line.program(DebugLineOffset(start), 8, None, None).ok()?;
    let wanted = dwarf::address(section, offset);
    let mut rows = program.rows();
    let mut best: Option<(LineRow, u64)> = None;
    let mut previous: Option<LineRow> = None;
    while let Ok(Some((_, row))) = rows.next_row() {
        if let Some(before) = previous.take()
            && before.address() <= wanted
            && wanted < row.address()
        {
            best = Some((before, row.address()));
        }
        previous = (!row.end_sequence()).then_some(*row);
    }
    let (row, _) = best?;
    let line = u32::try_from(row.line()?.get()).ok()?;
    let header = rows.header();
    let file = row.file(header)?;
    let directory = file.directory(header).and_then(|d| text(elf, d));
    let name = text(elf, file.path_name())?;
    let file = match directory {
        Some(directory) if !name.starts_with('/') && !directory.is_empty() => format!("{directory}/{name}"),
        _ => name,
    };
    Some(Position { file, line })
}

fn text(elf: &Elf<'_>, value: gimli::AttributeValue<Reader<'_>>) -> Option<String> {
    let bytes = match value {
        gimli::AttributeValue::String(reader) => reader.to_slice().ok()?.into_owned(),
        gimli::AttributeValue::DebugLineStrRef(offset) => string(elf, ".debug_line_str", offset.0)?,
        gimli::AttributeValue::DebugStrRef(offset) => string(elf, ".debug_str", offset.0)?,
        _ => return None,
    };
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn string(elf: &Elf<'_>, section: &str, offset: usize) -> Option<Vec<u8>> {
    let bytes = elf.section_bytes(elf.section_by_name(section.as_bytes())?).get(offset..)?;
    Some(bytes.iter().take_while(|&&b| b != 0).copied().collect())
}

/// Where in `.debug_line` the program starts that has a sequence over this place.
pub(crate) fn program_of(elf: &Elf<'_>, section: SectionId, offset: u64) -> Option<usize> {
    let lines = elf.section_by_name(b".debug_line")?;
    let place = elf
        .relocations(lines)
        .iter()
        .filter_map(|rela| {
            let symbol = elf.rela_symbol(rela)?;
            let start = elf.symbol_value(symbol).wrapping_add_signed(rela.r_addend.get(LE));
            (elf.symbol_section(symbol) == Some(section) && start <= offset)
                .then_some((start, rela.r_offset.get(LE)))
        })
        .max_by_key(|&(start, _)| start)?
        .1;
    let bytes = elf.section_bytes(lines);
    let mut reader = gimli::EndianSlice::new(bytes, gimli::LittleEndian);
    loop {
        let start = bytes.len() - reader.len();
        let (length, format) = reader.read_initial_length().ok()?;
        let _: Format = format;
        reader.skip(length).ok()?;
        if (bytes.len() - reader.len()) as u64 > place {
            return Some(start);
        }
    }
}
