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
    find(elf, section, offset, |rows| covering(rows, dwarf::address(section, offset)))
}

/// The same for a place in the function that begins at `entry`, as a line of the function's own file: for code of an
/// inlined function the next line of the function's own, or the one before when none follows.
pub fn position_in_function(elf: &Elf<'_>, section: SectionId, entry: u64, offset: u64) -> Option<Position> {
    find(elf, section, entry, |rows| {
        let wanted = dwarf::address(section, offset);
        let own = covering(rows, dwarf::address(section, entry))?.file_index();
        let exact = covering(rows, wanted)?;
        let of_own = |row: &&LineRow| row.file_index() == own && row.line().is_some() && !row.end_sequence();
        let after = rows.iter().filter(of_own).find(|row| row.address() >= exact.address());
        after.or_else(|| rows.iter().rev().filter(of_own).find(|row| row.address() <= wanted)).copied()
    })
}

/// Runs the line program that covers a place, and lets `choose` pick a row of the sequence there.
fn find(
    elf: &Elf<'_>,
    section: SectionId,
    offset: u64,
    choose: impl FnOnce(&[LineRow]) -> Option<LineRow>,
) -> Option<Position> {
    let start = program_of(elf, section, offset)?;
    let debug_line = gimli::DebugLine::from(dwarf::section(elf, ".debug_line"));
    let program = debug_line.program(DebugLineOffset(start), 8, None, None).ok()?;
    let wanted = dwarf::address(section, offset);
    let mut all = program.rows();
    let mut sequence: Vec<LineRow> = Vec::new();
    while let Ok(Some((_, row))) = all.next_row() {
        sequence.push(*row);
        if row.end_sequence() {
            if covering(&sequence, wanted).is_some() {
                break;
            }
            sequence.clear();
        }
    }
    let header = all.header();
    let row = choose(&sequence)?;
    let line = u32::try_from(row.line()?.get()).ok()?;
    let file = row.file(header)?;
    let directory = file.directory(header).and_then(|d| text(elf, d));
    let name = text(elf, file.path_name())?;
    let file = match directory {
        Some(directory) if !name.starts_with('/') && !directory.is_empty() => format!("{directory}/{name}"),
        _ => name,
    };
    Some(Position { file, line })
}

/// The row of a sequence that holds an address.
fn covering(rows: &[LineRow], address: u64) -> Option<LineRow> {
    let pair = rows.windows(2).find(|pair| pair[0].address() <= address && address < pair[1].address())?;
    Some(pair[0])
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
