//! Which functions a function holds inlined copies of, from the one DWARF unit that describes it.

use std::collections::BTreeSet;

use gimli::{AttributeValue, Dwarf, Reader as _, Unit, UnitOffset};
use klpx_normalize::elf::{Elf, SectionId};

use crate::dwarf::{self, Reader};
use crate::lines;

/// How far names are looked for through abstract origins and specifications.
const MAX_HOPS: u8 = 8;

/// The names of the functions of which the code at `offset` of a section holds inlined copies, nested ones included.
/// `None` when the DWARF does not say.
pub fn inlined_functions(elf: &Elf<'_>, section: SectionId, offset: u64) -> Option<BTreeSet<String>> {
    let program = lines::program_of(elf, section, offset)?;
    let dwarf: Dwarf<Reader<'_>> =
        Dwarf::load(|id| Ok::<_, gimli::Error>(dwarf::section(elf, id.name()))).ok()?;
    let unit = unit_of_program(&dwarf, program)?;
    collect(&dwarf, &unit, dwarf::address(section, offset)).ok().flatten()
}

/// The unit whose DW_AT_stmt_list is this line program.
pub(crate) fn unit_of_program<'d>(dwarf: &Dwarf<Reader<'d>>, program: usize) -> Option<Unit<Reader<'d>>> {
    let mut headers = dwarf.units();
    while let Ok(Some(header)) = headers.next() {
        let abbreviations = dwarf.abbreviations(&header).ok()?;
        let mut cursor = header.entries(&abbreviations);
        let root = cursor.next_dfs().ok().flatten();
        let list = root.and_then(|root| root.attr_value(gimli::DW_AT_stmt_list));
        if matches!(list, Some(AttributeValue::DebugLineRef(at)) if at.0 == program) {
            return dwarf.unit(header).ok();
        }
    }
    None
}

/// Walks the unit; inside the subprogram that holds the address, every inlined subroutine counts.
fn collect<'d>(
    dwarf: &Dwarf<Reader<'d>>,
    unit: &Unit<Reader<'d>>,
    address: u64,
) -> gimli::Result<Option<BTreeSet<String>>> {
    let mut names = None;
    let mut inside = None; // depth of the subprogram
    let mut entries = unit.entries();
    while let Some(entry) = entries.next_dfs()? {
        let depth = entry.depth();
        if inside.is_some_and(|top| depth <= top) {
            break;
        }
        match entry.tag() {
            gimli::DW_TAG_subprogram if inside.is_none() && covers(dwarf, unit, entry, address)? => {
                inside = Some(depth);
                names = Some(BTreeSet::new());
            }
            gimli::DW_TAG_inlined_subroutine if inside.is_some() => {
                let origin = entry.attr_value(gimli::DW_AT_abstract_origin);
                if let (Some(names), Some(name)) = (names.as_mut(), name(dwarf, unit, origin, 0)?) {
                    names.insert(name);
                }
            }
            _ => {}
        }
    }
    Ok(names)
}

pub(crate) fn covers<'d>(
    dwarf: &Dwarf<Reader<'d>>,
    unit: &Unit<Reader<'d>>,
    entry: &gimli::DebuggingInformationEntry<Reader<'d>>,
    address: u64,
) -> gimli::Result<bool> {
    let mut ranges = dwarf.die_ranges(unit, entry)?;
    while let Some(range) = ranges.next()? {
        if range.begin <= address && address < range.end {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A function's name, through its abstract origin or specification, in this unit or another.
fn name<'d>(
    dwarf: &Dwarf<Reader<'d>>,
    unit: &Unit<Reader<'d>>,
    at: Option<AttributeValue<Reader<'d>>>,
    hops: u8,
) -> gimli::Result<Option<String>> {
    if hops > MAX_HOPS {
        return Ok(None);
    }
    match at {
        Some(AttributeValue::UnitRef(offset)) => name_at(dwarf, unit, offset, hops),
        Some(AttributeValue::DebugInfoRef(offset)) => {
            let mut headers = dwarf.units();
            while let Some(header) = headers.next()? {
                if let Some(inner) = offset.to_unit_offset(&header) {
                    let other = dwarf.unit(header)?;
                    return name_at(dwarf, &other, inner, hops);
                }
            }
            Ok(None)
        }
        _ => Ok(None),
    }
}

fn name_at<'d>(
    dwarf: &Dwarf<Reader<'d>>,
    unit: &Unit<Reader<'d>>,
    offset: UnitOffset,
    hops: u8,
) -> gimli::Result<Option<String>> {
    let entry = unit.entry(offset)?;
    if let Some(value) = entry.attr_value(gimli::DW_AT_name) {
        return Ok(Some(dwarf.attr_string(unit, value)?.to_string_lossy()?.into_owned()));
    }
    let next = entry
        .attr_value(gimli::DW_AT_abstract_origin)
        .or_else(|| entry.attr_value(gimli::DW_AT_specification));
    name(dwarf, unit, next, hops + 1)
}
