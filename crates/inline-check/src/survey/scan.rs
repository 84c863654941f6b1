//! Reads the functions of one DWARF unit and the calls that were inlined into them, in one pass over its entries.
//!
//! Entries are read raw: no tree is built, and attributes that are not needed are skipped.

use gimli::{
    AttributeValue, Dwarf, LineProgramHeader, Reader, Section as _, Unit, UnitHeader, UnitOffset, UnitType,
};

use super::scanned::{Die, FileName, NONE, RawCopy, RawInlined, ScannedUnit, SubprogramOrigin};
use super::steps::{EntryStep, EntrySteps, is_c};
use crate::sections::TextPlace;

/// The reason why a unit can't be read.
#[derive(Debug)]
pub(super) enum Trouble {
    /// gimli's error, and the offset of the unit.
    Broken(gimli::Error, usize),
    /// The rest of the unit is in a file of this name.
    Split(String),
    /// The rest of the unit is in a supplementary file of dwz.
    Supplementary,
}

/// Reads a unit; `None` for a unit without a compiler's functions, such as assembly or types. `sizes` asks for the size
/// of each copy.
pub(super) fn scan<R: Reader<Offset = usize>>(
    dwarf: &Dwarf<R>,
    header: UnitHeader<R>,
    sizes: bool,
) -> Result<Option<ScannedUnit>, Trouble> {
    let start = header.debug_info_offset().map_or(0, |offset| offset.0);
    if matches!(header.type_(), UnitType::Type { .. } | UnitType::SplitType { .. }) {
        return Ok(None);
    }
    let split = matches!(header.type_(), UnitType::Skeleton(_) | UnitType::SplitCompilation(_));
    let broken = |error| Trouble::Broken(error, start);
    let unit = dwarf.unit(header).map_err(broken)?;
    let mut scan = UnitScan {
        dwarf,
        unit: &unit,
        start,
        sizes,
        c: false,
        facts: ScannedUnit::default(),
        scopes: Vec::new(),
    };
    scan.facts.start = start as u32;
    scan.facts.version = unit.header.version();
    if !scan.head(split)? {
        return Ok(None);
    }
    scan.entries()?;
    scan.facts.resolve();
    scan.files()?;
    Ok(Some(scan.facts))
}

/// A subprogram or an inlined call whose children are being read.
struct Scope {
    /// The entry's depth in the tree.
    depth: isize,
    /// The subprogram if it has code; else `NONE`.
    copy: u32,
    /// The inlined call if the entry is one; else `NONE`.
    inlined: u32,
}

struct UnitScan<'a, R: Reader<Offset = usize>> {
    dwarf: &'a Dwarf<R>,
    unit: &'a Unit<R>,
    start: usize,
    sizes: bool,
    /// True for a unit of C.
    c: bool,
    facts: ScannedUnit,
    scopes: Vec<Scope>,
}

/// The place of an entry's code, as its attributes tell.
struct Extent<R: Reader> {
    low: Option<u64>,
    high: Option<AttributeValue<R>>,
    ranges: Option<AttributeValue<R>>,
}

type Raw<'a, R> = gimli::EntriesRaw<'a, R>;

impl<R: Reader<Offset = usize>> UnitScan<'_, R> {
    /// Reads the unit's own entry. Returns false if there is nothing to read in this unit.
    fn head(&mut self, split: bool) -> Result<bool, Trouble> {
        let broken = |error| Trouble::Broken(error, self.start);
        let mut entries = self.unit.entries_raw(None).map_err(broken)?;
        let Some(abbreviation) = entries.read_abbreviation().map_err(broken)? else { return Ok(false) };
        let (mut producer, mut source) = (TextPlace::None, FileName::default());
        let (mut assembly, mut other_file) = (false, None);
        for &specification in abbreviation.attributes() {
            let value = entries.read_attribute(specification).map_err(broken)?.value();
            match specification.name() {
                gimli::DW_AT_producer => producer = self.text(value)?,
                gimli::DW_AT_comp_dir => source.folder = self.text(value)?,
                gimli::DW_AT_name => source.name = self.text(value)?,
                gimli::DW_AT_language => {
                    assembly = matches!(value, AttributeValue::Language(gimli::DW_LANG_Mips_Assembler));
                    self.c = matches!(value, AttributeValue::Language(language) if is_c(language));
                }
                gimli::DW_AT_dwo_name | gimli::DW_AT_GNU_dwo_name => other_file = Some(self.string(value)),
                _ => {}
            }
        }
        if split || other_file.is_some() {
            return Err(Trouble::Split(other_file.unwrap_or_default()));
        }
        self.facts.name = source;
        self.facts.producer = producer;
        Ok(!assembly)
    }

    /// Reads all entries.
    fn entries(&mut self) -> Result<(), Trouble> {
        let (start, unit) = (self.start, self.unit);
        let broken = |error| Trouble::Broken(error, start);
        let steps = EntrySteps::compute(unit, self.c);
        let end = unit.header.length_including_self();
        let mut input = unit.header.range_from(unit.header.root_offset()..).map_err(broken)?;
        let mut depth = 0;
        while !input.is_empty() {
            let at = end - input.len();
            let code = input.read_uleb128().map_err(broken)?;
            if code == 0 {
                // The children of an entry end here.
                depth -= 1;
                while self.scopes.last().is_some_and(|scope| scope.depth >= depth) {
                    self.scopes.pop();
                }
                continue;
            }
            let unknown = || broken(gimli::Error::InvalidAbbreviationCode(code));
            let (abbreviation, step) = steps.get(code).ok_or_else(unknown)?;
            if let EntryStep::Sibling(before) = step
                && let Some(next) = sibling(input.clone(), end, before).map_err(broken)?
            {
                input = next;
                continue;
            }
            if let EntryStep::Skip(length) = step {
                input.skip(length).map_err(broken)?;
            } else {
                let here = UnitOffset(end - input.len());
                let mut entries = Raw::new(input.clone(), unit.encoding(), &unit.abbreviations, here);
                let scope = match abbreviation.tag() {
                    gimli::DW_TAG_subprogram => Some(self.subprogram(&mut entries, abbreviation, at)?),
                    gimli::DW_TAG_inlined_subroutine => Some(self.inlined(&mut entries, abbreviation)?),
                    _ => {
                        entries.skip_attributes(abbreviation.attributes()).map_err(broken)?;
                        None
                    }
                };
                if let Some(scope) = scope.filter(|_| abbreviation.has_children()) {
                    self.scopes.push(Scope { depth, ..scope });
                }
                input.skip(entries.next_offset().0 - here.0).map_err(broken)?;
            }
            depth += isize::from(abbreviation.has_children());
        }
        Ok(())
    }

    fn subprogram(
        &mut self,
        entries: &mut Raw<'_, R>,
        abbreviation: &gimli::Abbreviation,
        at: usize,
    ) -> Result<Scope, Trouble> {
        let start = self.start;
        let broken = |error| Trouble::Broken(error, start);
        let mut die = Die {
            at: (start + at) as u32,
            name: TextPlace::None,
            origin: SubprogramOrigin::None,
            file: NONE,
            line: 0,
            external: false,
            declared_inline: false,
            by_specification: false,
        };
        let mut extent = Extent { low: None, high: None, ranges: None };
        for &specification in abbreviation.attributes() {
            match specification.name() {
                gimli::DW_AT_high_pc if self.sizes => {}
                gimli::DW_AT_name
                | gimli::DW_AT_decl_file
                | gimli::DW_AT_decl_line
                | gimli::DW_AT_external
                | gimli::DW_AT_inline
                | gimli::DW_AT_abstract_origin
                | gimli::DW_AT_specification
                | gimli::DW_AT_low_pc
                | gimli::DW_AT_ranges => {}
                _ => {
                    entries.skip_attributes(&[specification]).map_err(broken)?;
                    continue;
                }
            }
            let value = entries.read_attribute(specification).map_err(broken)?.value();
            match specification.name() {
                gimli::DW_AT_name => die.name = self.text(value)?,
                gimli::DW_AT_decl_file => die.file = file_index(&value),
                gimli::DW_AT_decl_line => die.line = number(&value),
                gimli::DW_AT_external => die.external = matches!(value, AttributeValue::Flag(true)),
                gimli::DW_AT_inline => {
                    let declared = [gimli::DW_INL_declared_inlined, gimli::DW_INL_declared_not_inlined];
                    die.declared_inline =
                        matches!(value, AttributeValue::Inline(how) if declared.contains(&how));
                }
                gimli::DW_AT_abstract_origin => die.origin = self.reference(&value)?,
                gimli::DW_AT_specification => {
                    die.origin = self.reference(&value)?;
                    die.by_specification = true;
                }
                gimli::DW_AT_low_pc => {
                    extent.low = self.dwarf.attr_address(self.unit, value).map_err(broken)?.or(extent.low)
                }
                gimli::DW_AT_high_pc => extent.high = Some(value),
                _ => extent.ranges = Some(value),
            }
        }
        let address = match (extent.low, &extent.ranges) {
            (None, Some(ranges)) => self.first_address(ranges.clone())?,
            (low, _) => low,
        };
        let function = self.facts.functions.len() as u32;
        self.facts.functions.push(die);
        let mut copy = NONE;
        if let Some(address) = address {
            copy = self.facts.copies.len() as u32;
            let bytes = self.bytes(extent)?;
            self.facts.copies.push(RawCopy { function, address, bytes });
        }
        Ok(Scope { depth: 0, copy, inlined: NONE })
    }

    fn inlined(
        &mut self,
        entries: &mut Raw<'_, R>,
        abbreviation: &gimli::Abbreviation,
    ) -> Result<Scope, Trouble> {
        let start = self.start;
        let broken = |error| Trouble::Broken(error, start);
        let (holder, parent) = self.scopes.last().map_or((NONE, NONE), |scope| (scope.copy, scope.inlined));
        let mut found = RawInlined {
            origin: SubprogramOrigin::None,
            holder,
            parent,
            file: NONE,
            line: 0,
            column: 0,
            bytes: 0,
        };
        let mut extent = Extent { low: None, high: None, ranges: None };
        for &specification in abbreviation.attributes() {
            match specification.name() {
                gimli::DW_AT_low_pc | gimli::DW_AT_high_pc | gimli::DW_AT_ranges if self.sizes => {}
                gimli::DW_AT_abstract_origin
                | gimli::DW_AT_call_file
                | gimli::DW_AT_call_line
                | gimli::DW_AT_call_column => {}
                _ => {
                    entries.skip_attributes(&[specification]).map_err(broken)?;
                    continue;
                }
            }
            let value = entries.read_attribute(specification).map_err(broken)?.value();
            match specification.name() {
                gimli::DW_AT_abstract_origin => found.origin = self.reference(&value)?,
                gimli::DW_AT_call_file => found.file = file_index(&value),
                gimli::DW_AT_call_line => found.line = number(&value),
                gimli::DW_AT_low_pc => {
                    extent.low = self.dwarf.attr_address(self.unit, value).map_err(broken)?
                }
                gimli::DW_AT_high_pc => extent.high = Some(value),
                gimli::DW_AT_ranges => extent.ranges = Some(value),
                _ => found.column = number(&value),
            }
        }
        found.bytes = self.bytes(extent)?;
        let mut inlined = NONE;
        // Calls inlined into an abstract instance appear again in each concrete instance.
        if holder != NONE {
            inlined = self.facts.inlined.len() as u32;
            self.facts.inlined.push(found);
        }
        Ok(Scope { depth: 0, copy: holder, inlined })
    }

    /// Returns the first address of a range list: the entry of a function whose unlikely part lies elsewhere.
    fn first_address(&self, value: AttributeValue<R>) -> Result<Option<u64>, Trouble> {
        let broken = |error| Trouble::Broken(error, self.start);
        let Some(mut ranges) = self.dwarf.attr_ranges(self.unit, value).map_err(broken)? else {
            return Ok(None);
        };
        Ok(ranges.next().map_err(broken)?.map(|range| range.begin))
    }

    /// Returns the number of bytes of code; 0 without measuring.
    fn bytes(&self, extent: Extent<R>) -> Result<u32, Trouble> {
        let broken = |error| Trouble::Broken(error, self.start);
        let mut bytes = 0_u64;
        match (extent.low, extent.high, extent.ranges) {
            _ if !self.sizes => {}
            (_, _, Some(ranges)) => {
                if let Some(mut ranges) = self.dwarf.attr_ranges(self.unit, ranges).map_err(broken)? {
                    while let Some(range) = ranges.next().map_err(broken)? {
                        bytes = bytes.saturating_add(range.end.saturating_sub(range.begin));
                    }
                }
            }
            (Some(low), Some(high), None) => {
                bytes = match high.udata_value() {
                    Some(length) => length,
                    None => self
                        .dwarf
                        .attr_address(self.unit, high)
                        .map_err(broken)?
                        .unwrap_or(low)
                        .saturating_sub(low),
                };
            }
            _ => {}
        }
        Ok(u32::try_from(bytes).unwrap_or(u32::MAX))
    }

    /// Returns the target of a reference.
    fn reference(&self, value: &AttributeValue<R>) -> Result<SubprogramOrigin, Trouble> {
        match value {
            // An offset beyond 4 GB is invalid: 32-bit DWARF, which kernels have, ends there.
            AttributeValue::UnitRef(offset) => {
                Ok(SubprogramOrigin::There(narrow(self.start.saturating_add(offset.0))))
            }
            AttributeValue::DebugInfoRef(offset) => Ok(SubprogramOrigin::There(narrow(offset.0))),
            AttributeValue::DebugInfoRefSup(_) => Err(Trouble::Supplementary),
            _ => Ok(SubprogramOrigin::None),
        }
    }

    fn text(&self, value: AttributeValue<R>) -> Result<TextPlace, Trouble> {
        let broken = |error| Trouble::Broken(error, self.start);
        Ok(match value {
            AttributeValue::String(text) => {
                TextPlace::Info(text.offset_from(self.dwarf.debug_info.reader()) as u32)
            }
            AttributeValue::DebugStrRef(offset) => TextPlace::Str(offset.0 as u32),
            AttributeValue::DebugLineStrRef(offset) => TextPlace::LineStr(offset.0 as u32),
            AttributeValue::DebugStrOffsetsIndex(index) => {
                TextPlace::Str(self.dwarf.string_offset(self.unit, index).map_err(broken)?.0 as u32)
            }
            AttributeValue::DebugStrRefSup(_) => return Err(Trouble::Supplementary),
            _ => TextPlace::None,
        })
    }

    fn string(&self, value: AttributeValue<R>) -> String {
        let text = self.dwarf.attr_string(self.unit, value).ok();
        text.and_then(|text| Some(text.to_string_lossy().ok()?.into_owned())).unwrap_or_default()
    }

    /// Names the files of the functions and calls that were read.
    fn files(&mut self) -> Result<(), Trouble> {
        let Some(program) = &self.unit.line_program else { return Ok(()) };
        let header = program.header();
        // Before DWARF 5 files count from 1.
        let mut met = vec![false; header.file_names().len() + 1];
        let declared = self.facts.functions.iter().map(|die| die.file);
        for index in declared.chain(self.facts.inlined.iter().map(|call| call.file)) {
            if let Some(met) = met.get_mut(index as usize) {
                *met = true;
            }
        }
        for (index, _) in (0..).zip(met).filter(|(_, met)| *met) {
            if let Some(name) = self.file(header, index)? {
                self.facts.files.push((index, name));
            }
        }
        Ok(())
    }

    fn file(&self, header: &LineProgramHeader<R>, index: u32) -> Result<Option<FileName>, Trouble> {
        let own = self.facts.name;
        // For number 0 before DWARF 5, gimli returns the unit's own folder and name.
        let of_unit = |number: u64| number == 0 && header.version() < 5;
        if of_unit(index.into()) {
            return Ok(Some(own).filter(|own| own.name != TextPlace::None));
        }
        let Some(file) = header.file(index.into()) else { return Ok(None) };
        let directory = file.directory(header).filter(|_| !of_unit(file.directory_index()));
        let directory = directory.map_or(Ok(TextPlace::None), |directory| self.text_of_line(directory))?;
        Ok(Some(FileName { folder: own.folder, directory, name: self.text_of_line(file.path_name())? }))
    }

    /// Returns the place of a text that a line program names.
    fn text_of_line(&self, value: AttributeValue<R>) -> Result<TextPlace, Trouble> {
        match value {
            AttributeValue::String(text) => {
                Ok(TextPlace::Line(text.offset_from(self.dwarf.debug_line.reader()) as u32))
            }
            other => self.text(other),
        }
    }
}

/// Returns a place as a 32-bit number; [`NONE`] if the place does not fit.
fn narrow(offset: usize) -> u32 {
    u32::try_from(offset).unwrap_or(NONE)
}

/// Returns the input behind the children of an entry. The reference to their end stands `before` bytes after the
/// entry's code. Returns `None` if the reference would lead backwards.
fn sibling<R: Reader<Offset = usize>>(mut input: R, end: usize, before: usize) -> gimli::Result<Option<R>> {
    input.skip(before)?;
    let sibling = input.read_u32()? as usize;
    let Some(between) = sibling.checked_sub(end - input.len()) else { return Ok(None) };
    input.skip(between)?;
    Ok(Some(input))
}

fn number<R: Reader>(value: &AttributeValue<R>) -> u32 {
    value.udata_value().and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
}

fn file_index<R: Reader>(value: &AttributeValue<R>) -> u32 {
    match value {
        AttributeValue::FileIndex(n) => u32::try_from(*n).unwrap_or(NONE),
        other => other.udata_value().and_then(|n| u32::try_from(n).ok()).unwrap_or(NONE),
    }
}
