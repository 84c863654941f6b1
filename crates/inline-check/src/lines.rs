//! Finds the source lines of code in a relocatable object, and runs only the line programs that hold them.
//!
//! The relocations of `.debug_line` are the starts of its sequences (DW_LNE_set_address), so the program that covers a
//! function is found without decoding other programs.

use std::sync::OnceLock;

use gimli::{CompleteLineProgram, DebugLine, DebugLineOffset, LineRow, LineSequence, Reader as _};
use klpx_normalize::arch::Arch;
use klpx_normalize::elf::SectionId;
use object::elf::SHF_EXECINSTR;
use object::endian::LittleEndian as LE;

use crate::dwarf::{self, Reader};
use crate::sections::{DebugSections, TextPlace};

/// A source position.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourcePosition {
    /// The file's path, as given to the compiler.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
}

/// The line programs of an object.
pub struct Lines<'s> {
    sections: &'s DebugSections<'s>,
    debug_line: DebugLine<Reader<'s>>,
    /// The sequences: section and offset where the code of each begins, and its place in `.debug_line`. Ascending.
    sequences: Vec<(SectionId, u64, u64)>,
    /// [`Arch::undescribed_entry`].
    undescribed: u64,
    /// The start of each program, ascending, and the program itself once it was requested.
    programs: Vec<(usize, OnceLock<Option<LineProgram<'s>>>)>,
}

/// A line program that was run once.
struct LineProgram<'s> {
    header: CompleteLineProgram<Reader<'s>>,
    sequences: Vec<LineSequence<Reader<'s>>>,
}

impl<'s> Lines<'s> {
    /// Finds the code that each program covers. Runs no program.
    pub fn read(sections: &'s DebugSections<'s>) -> Lines<'s> {
        let (reader, relocations) = sections.lines();
        let elf = sections.elf();
        let starts_sequence = |rela: &klpx_normalize::elf::Rela| {
            let symbol = elf.rela_symbol(rela)?;
            let section = elf.symbol_section(symbol)?;
            let code = elf.section_flags(section) & SHF_EXECINSTR.0 != 0;
            let start = elf.symbol_value(symbol).wrapping_add_signed(rela.r_addend.get(LE));
            code.then_some((section, start, rela.r_offset.get(LE)))
        };
        let mut sequences: Vec<_> = relocations.iter().filter_map(starts_sequence).collect();
        sequences.sort_unstable();
        let programs = starts(reader.clone()).into_iter().map(|start| (start, OnceLock::new())).collect();
        let undescribed = Arch::of_machine(elf.machine()).map_or(0, Arch::undescribed_entry);
        Lines { sections, debug_line: DebugLine::from(reader), sequences, undescribed, programs }
    }

    /// Returns the source position of the instruction at an offset of a section; `None` without line information.
    pub fn position(&self, section: SectionId, offset: u64) -> Option<SourcePosition> {
        self.find(section, offset, |rows| covering(rows, dwarf::address(section, offset)))
    }

    /// Returns the position of a place in the function that begins at `entry`, as a line of the function's own file.
    /// For code of an inlined function, this is the next line of the function's own code, or the previous line if none
    /// follows.
    pub fn position_in_function(
        &self,
        section: SectionId,
        entry: u64,
        offset: u64,
    ) -> Option<SourcePosition> {
        let entry = self.first(section, entry);
        let offset = offset.max(entry);
        self.find(section, entry, |rows| {
            let wanted = dwarf::address(section, offset);
            let own = covering(rows, dwarf::address(section, entry))?.file_index();
            let exact = covering(rows, wanted)?;
            let of_own =
                |row: &&LineRow| row.file_index() == own && row.line().is_some() && !row.end_sequence();
            let after = rows.iter().filter(of_own).find(|row| row.address() >= exact.address());
            after.or_else(|| rows.iter().rev().filter(of_own).find(|row| row.address() <= wanted)).copied()
        })
    }

    /// Lets `choose` pick a row of the sequence that covers a place.
    fn find(
        &self,
        section: SectionId,
        offset: u64,
        choose: impl FnOnce(&[LineRow]) -> Option<LineRow>,
    ) -> Option<SourcePosition> {
        let program = self.program(section, offset)?;
        let wanted = dwarf::address(section, offset);
        let here = |sequence: &&LineSequence<_>| sequence.start <= wanted && wanted < sequence.end;
        let mut resumed = program.header.resume_from(program.sequences.iter().find(here)?);
        let mut rows = Vec::new();
        while let Ok(Some((_, row))) = resumed.next_row() {
            rows.push(*row);
        }
        let row = choose(&rows)?;
        let line = u32::try_from(row.line()?.get()).ok()?;
        let header = program.header.header();
        let file = row.file(header)?;
        let directory = file.directory(header).and_then(|directory| self.text(directory));
        let name = self.text(file.path_name())?;
        let file = match directory {
            Some(directory) if !name.starts_with('/') && !directory.is_empty() => {
                format!("{directory}/{name}")
            }
            _ => name,
        };
        Some(SourcePosition { file, line })
    }

    /// Returns the start in `.debug_line` of the program with the last sequence that begins at or before a place.
    pub(crate) fn program_start(&self, section: SectionId, offset: u64) -> Option<usize> {
        self.entry(section, self.first(section, offset)).map(|&(start, _)| start)
    }

    /// Returns the first place of a function that has a line: a sequence may begin behind the patchable entry.
    fn first(&self, section: SectionId, entry: u64) -> u64 {
        let at = self
            .sequences
            .partition_point(|&(sequence_section, start, _)| (sequence_section, start) < (section, entry));
        match self.sequences.get(at) {
            Some(&(sequence_section, start, _))
                if sequence_section == section && start - entry <= self.undescribed =>
            {
                start
            }
            _ => entry,
        }
    }

    fn entry(&self, section: SectionId, offset: u64) -> Option<&(usize, OnceLock<Option<LineProgram<'s>>>)> {
        let after = self
            .sequences
            .partition_point(|&(sequence_section, start, _)| (sequence_section, start) <= (section, offset));
        let &(sequence_section, _, place) = self.sequences.get(after.checked_sub(1)?)?;
        let after = self.programs.partition_point(|&(start, _)| start as u64 <= place);
        self.programs.get(after.checked_sub(1)?).filter(|_| sequence_section == section)
    }

    /// Runs the program that covers a place, and returns it.
    fn program(&self, section: SectionId, offset: u64) -> Option<&LineProgram<'s>> {
        let (start, program) = self.entry(section, offset)?;
        let run = || {
            let program = self.debug_line.program(DebugLineOffset(*start), 8, None, None).ok()?;
            let (header, sequences) = program.sequences().ok()?;
            Some(LineProgram { header, sequences })
        };
        program.get_or_init(run).as_ref()
    }

    fn text(&self, value: gimli::AttributeValue<Reader<'_>>) -> Option<String> {
        let text = |offset: usize, of: fn(u32) -> TextPlace| {
            let bytes = self.sections.text(of(u32::try_from(offset).ok()?));
            Some(String::from_utf8_lossy(bytes).into_owned())
        };
        match value {
            gimli::AttributeValue::String(reader) => Some(reader.to_string_lossy().ok()?.into_owned()),
            gimli::AttributeValue::DebugLineStrRef(offset) => text(offset.0, TextPlace::LineStr),
            gimli::AttributeValue::DebugStrRef(offset) => text(offset.0, TextPlace::Str),
            _ => None,
        }
    }
}

/// Returns the row of a sequence that holds an address.
fn covering(rows: &[LineRow], address: u64) -> Option<LineRow> {
    let pair = rows.windows(2).find(|pair| pair[0].address() <= address && address < pair[1].address())?;
    Some(pair[0])
}

/// Returns the starts of the programs.
fn starts(mut reader: Reader<'_>) -> Vec<usize> {
    let length = reader.len();
    let mut starts = Vec::new();
    while !reader.is_empty() {
        let start = length - reader.len();
        let Ok((program, _)) = reader.read_initial_length() else { break };
        starts.push(start);
        if reader.skip(program).is_err() {
            break;
        }
    }
    starts
}
