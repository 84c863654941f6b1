//! Which source lines a function takes up, from the declarations in its DWARF unit.

use gimli::{AttributeValue, DebuggingInformationEntry, Dwarf, Reader as _, Unit};
use klpx_normalize::elf::{Elf, SectionId};

use crate::dwarf::{self, Reader};
use crate::inlined::{covers, unit_of_program};
use crate::lines;

/// The lines of a function's definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The file, as the compiler was given it.
    pub file: String,
    /// The line that declares it, from 1.
    pub first: u32,
    /// The last line before the next function of the file; `u32::MAX` for the last one.
    pub last: u32,
}

/// The source lines of the function at `offset` of a section. `None` when the DWARF does not say.
pub fn extent(elf: &Elf<'_>, section: SectionId, offset: u64) -> Option<Extent> {
    let program = lines::program_of(elf, section, offset)?;
    let dwarf: Dwarf<Reader<'_>> =
        Dwarf::load(|id| Ok::<_, gimli::Error>(dwarf::section(elf, id.name()))).ok()?;
    let unit = unit_of_program(&dwarf, program)?;
    let declared = declaration_at(&dwarf, &unit, dwarf::address(section, offset)).ok()??;
    lines_of(&dwarf, &unit, declared)
}

/// The lines of the function that an entry declares.
pub(crate) fn declared_extent<'d>(
    dwarf: &Dwarf<Reader<'d>>,
    unit: &Unit<Reader<'d>>,
    entry: &DebuggingInformationEntry<Reader<'d>>,
) -> Option<Extent> {
    lines_of(dwarf, unit, declared(entry)?)
}

fn lines_of<'d>(
    dwarf: &Dwarf<Reader<'d>>,
    unit: &Unit<Reader<'d>>,
    (file, first): (u64, u32),
) -> Option<Extent> {
    let next = declarations(unit).ok()?.into_iter().filter(|&(f, line)| f == file && line > first).min();
    let last = next.map_or(u32::MAX, |(_, line)| line - 1);
    Some(Extent { file: file_name(dwarf, unit, file)?, first, last })
}

/// File index and line of the function that holds an address.
fn declaration_at<'d>(
    dwarf: &Dwarf<Reader<'d>>,
    unit: &Unit<Reader<'d>>,
    address: u64,
) -> gimli::Result<Option<(u64, u32)>> {
    let mut entries = unit.entries();
    while let Some(entry) = entries.next_dfs()? {
        if entry.tag() == gimli::DW_TAG_subprogram && covers(dwarf, unit, entry, address)? {
            let own = declared(entry);
            let origin = entry
                .attr_value(gimli::DW_AT_abstract_origin)
                .or_else(|| entry.attr_value(gimli::DW_AT_specification));
            return Ok(match (own, origin) {
                (Some(own), _) => Some(own),
                (None, Some(AttributeValue::UnitRef(at))) => declared(&unit.entry(at)?),
                _ => None,
            });
        }
    }
    Ok(None)
}

/// File index and line of every function that the unit declares.
fn declarations(unit: &Unit<Reader<'_>>) -> gimli::Result<Vec<(u64, u32)>> {
    let mut all = Vec::new();
    let mut entries = unit.entries();
    while let Some(entry) = entries.next_dfs()? {
        if entry.tag() == gimli::DW_TAG_subprogram {
            all.extend(declared(entry));
        }
    }
    Ok(all)
}

fn declared(entry: &DebuggingInformationEntry<Reader<'_>>) -> Option<(u64, u32)> {
    let file = match entry.attr_value(gimli::DW_AT_decl_file)? {
        AttributeValue::FileIndex(n) => n,
        other => other.udata_value()?,
    };
    let line = entry.attr_value(gimli::DW_AT_decl_line)?.udata_value()?;
    Some((file, u32::try_from(line).ok()?))
}

pub(crate) fn file_name(dwarf: &Dwarf<Reader<'_>>, unit: &Unit<Reader<'_>>, index: u64) -> Option<String> {
    let header = unit.line_program.as_ref()?.header();
    let file = header.file(index)?;
    let text = |value| Some(dwarf.attr_string(unit, value).ok()?.to_string_lossy().ok()?.into_owned());
    let name = text(file.path_name())?;
    match file.directory(header).and_then(text) {
        Some(directory) if !name.starts_with('/') && !directory.is_empty() => {
            Some(format!("{directory}/{name}"))
        }
        _ => Some(name),
    }
}
