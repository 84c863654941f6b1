//! Which functions a function holds inlined copies of, from the one DWARF unit that describes it.

use gimli::{AttributeValue, Dwarf, Reader as _, Unit, UnitOffset};
use klpx_normalize::elf::{Elf, SectionId};

use crate::dwarf::{self, Reader};
use crate::extent::{self, Extent};
use crate::lines::{self, Position};

/// How far names are looked for through abstract origins and specifications.
const MAX_HOPS: u8 = 8;

/// An inlined copy of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// The function's name.
    pub name: String,
    /// The lines that the function takes up in the source, where the DWARF says.
    pub extent: Option<Extent>,
    /// Where it is called.
    pub call: Option<Position>,
}

/// The inlined copies that the code at `offset` of a section holds, nested ones included, in the order of the DWARF. `None` when it
/// does not say.
pub fn copies(elf: &Elf<'_>, section: SectionId, offset: u64) -> Option<Vec<Copy>> {
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
) -> gimli::Result<Option<Vec<Copy>>> {
    let mut copies = None;
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
                copies = Some(Vec::new());
            }
            gimli::DW_TAG_inlined_subroutine if inside.is_some() => {
                let origin = entry.attr_value(gimli::DW_AT_abstract_origin);
                if let (Some(copies), Some((name, extent))) =
                    (copies.as_mut(), function(dwarf, unit, origin, 0)?)
                {
                    copies.push(Copy { name, extent, call: call(dwarf, unit, entry) });
                }
            }
            _ => {}
        }
    }
    Ok(copies)
}

/// Where an inlined subroutine is called.
fn call<'d>(
    dwarf: &Dwarf<Reader<'d>>,
    unit: &Unit<Reader<'d>>,
    entry: &gimli::DebuggingInformationEntry<Reader<'d>>,
) -> Option<Position> {
    let file = match entry.attr_value(gimli::DW_AT_call_file)? {
        AttributeValue::FileIndex(n) => n,
        other => other.udata_value()?,
    };
    let line = u32::try_from(entry.attr_value(gimli::DW_AT_call_line)?.udata_value()?).ok()?;
    Some(Position { file: extent::file_name(dwarf, unit, file)?, line })
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

/// A function's name and lines, through its abstract origin or specification, in this unit or another.
fn function<'d>(
    dwarf: &Dwarf<Reader<'d>>,
    unit: &Unit<Reader<'d>>,
    at: Option<AttributeValue<Reader<'d>>>,
    hops: u8,
) -> gimli::Result<Option<(String, Option<Extent>)>> {
    if hops > MAX_HOPS {
        return Ok(None);
    }
    match at {
        Some(AttributeValue::UnitRef(offset)) => function_at(dwarf, unit, offset, hops),
        Some(AttributeValue::DebugInfoRef(offset)) => {
            let mut headers = dwarf.units();
            while let Some(header) = headers.next()? {
                if let Some(inner) = offset.to_unit_offset(&header) {
                    let other = dwarf.unit(header)?;
                    return function_at(dwarf, &other, inner, hops);
                }
            }
            Ok(None)
        }
        _ => Ok(None),
    }
}

fn function_at<'d>(
    dwarf: &Dwarf<Reader<'d>>,
    unit: &Unit<Reader<'d>>,
    offset: UnitOffset,
    hops: u8,
) -> gimli::Result<Option<(String, Option<Extent>)>> {
    let entry = unit.entry(offset)?;
    if let Some(value) = entry.attr_value(gimli::DW_AT_name) {
        let name = dwarf.attr_string(unit, value)?.to_string_lossy()?.into_owned();
        return Ok(Some((name, extent::declared_extent(dwarf, unit, &entry))));
    }
    let next = entry
        .attr_value(gimli::DW_AT_abstract_origin)
        .or_else(|| entry.attr_value(gimli::DW_AT_specification));
    function(dwarf, unit, next, hops + 1)
}
