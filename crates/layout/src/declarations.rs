//! The places in the source where an object's variables are declared, from its DWARF.

use gimli::{AttributeValue, Dwarf, Operation, Reader, Unit, UnitOffset};
use hashbrown::HashMap;
use klpx_diagnosis::Result;
use klpx_inline_check::dwarf::place;
use klpx_inline_check::sections::DebugSections;
use klpx_inline_check::survey::paths::join;
use klpx_normalize::elf::{Elf, SectionId};

use crate::dwarf::{bad, path};

/// The place where a variable is declared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Declaration {
    /// The function that declares the variable, even where its code is inlined into another function; empty for a
    /// variable of the file.
    pub function: String,
    /// The file's path, absolute if debug information knows the folder; empty if debug information names no file.
    pub file: String,
    /// The line, from 1; 0 if unknown.
    pub line: u32,
    /// The column, from 1; 0 if unknown (Clang gives none).
    pub column: u32,
}

/// The declarations of the variables that an object defines.
#[derive(Clone, Debug, Default)]
pub struct Declarations {
    by_place: HashMap<(SectionId, u64), Declaration>,
}

impl Declarations {
    /// Reads the declarations of a relocatable object; empty for an object without debug information.
    ///
    /// # Errors
    /// `klpx::bad-dwarf`.
    pub fn read(elf: &Elf<'_>) -> Result<Declarations> {
        let sections = DebugSections::read(elf)?;
        let dwarf = sections.relocated();
        let mut all = Declarations::default();
        let read = |all: &mut Declarations| -> gimli::Result<()> {
            let mut headers = dwarf.units();
            while let Some(header) = headers.next()? {
                all.unit(&dwarf, &dwarf.unit(header)?)?;
            }
            Ok(())
        };
        match read(&mut all) {
            Ok(()) => Ok(all),
            Err(error) => Err(bad(&error.to_string()).into()),
        }
    }

    /// Returns the declaration of the variable that begins at an offset of a section.
    pub fn at(&self, section: SectionId, offset: u64) -> Option<&Declaration> {
        self.by_place.get(&(section, offset))
    }

    fn unit<R: Reader<Offset = usize>>(&mut self, dwarf: &Dwarf<R>, unit: &Unit<R>) -> gimli::Result<()> {
        let mut paths: HashMap<u64, String> = HashMap::new();
        let folder = match &unit.comp_dir {
            Some(folder) => folder.to_string_lossy()?.into_owned(),
            None => String::new(),
        };
        let mut functions: Vec<(usize, String)> = Vec::new();
        let mut cursor = unit.entries_raw(None)?;
        while !cursor.is_empty() {
            let depth = cursor.next_depth().max(0) as usize;
            let Some(abbreviation) = cursor.read_abbreviation()? else { continue };
            while functions.last().is_some_and(|(outer, _)| *outer >= depth) {
                functions.pop();
            }
            let function = abbreviation.tag() == gimli::DW_TAG_subprogram;
            if !function && abbreviation.tag() != gimli::DW_TAG_variable {
                cursor.skip_attributes(abbreviation.attributes())?;
                continue;
            }
            let mut entry = EntryAttributes::default();
            for &specification in abbreviation.attributes() {
                let attribute = cursor.read_attribute(specification)?;
                entry.take(dwarf, unit, &attribute)?;
            }
            if function {
                functions.push((depth, entry.name(dwarf, unit)?));
                continue;
            }
            let Some(at) = entry.address.and_then(place) else { continue };
            // The entry of an inlined copy only points to the entry that declares the variable, which also has the
            // address.
            let Some(line) = entry.line else { continue };
            let file = entry.file.unwrap_or_default();
            let file =
                paths.entry(file).or_insert_with(|| join(&[&folder, &path(dwarf, unit, file)])).clone();
            let function = functions.last().map(|(_, name)| name.clone()).unwrap_or_default();
            let column = entry.column.unwrap_or_default();
            self.by_place.insert(at, Declaration { function, file, line, column });
        }
        Ok(())
    }
}

/// The attributes of an entry.
#[derive(Default)]
struct EntryAttributes {
    name: Option<String>,
    /// The entry that has the name of an entry without one.
    of: Option<UnitOffset>,
    file: Option<u64>,
    line: Option<u32>,
    column: Option<u32>,
    address: Option<u64>,
}

/// The most entries that are followed for one name.
const STEPS: u32 = 4;

impl EntryAttributes {
    fn take<R: Reader<Offset = usize>>(
        &mut self,
        dwarf: &Dwarf<R>,
        unit: &Unit<R>,
        attribute: &gimli::Attribute<R>,
    ) -> gimli::Result<()> {
        let number = || attribute.udata_value().and_then(|n| u32::try_from(n).ok());
        match attribute.name() {
            gimli::DW_AT_name => {
                let text = dwarf.attr_string(unit, attribute.value())?;
                self.name = Some(text.to_string_lossy()?.into_owned());
            }
            gimli::DW_AT_abstract_origin | gimli::DW_AT_specification => {
                if let AttributeValue::UnitRef(offset) = attribute.value() {
                    self.of = Some(offset);
                }
            }
            gimli::DW_AT_decl_file => {
                self.file = match attribute.value() {
                    AttributeValue::FileIndex(index) => Some(index),
                    _ => attribute.udata_value(),
                }
            }
            gimli::DW_AT_decl_line => self.line = number(),
            gimli::DW_AT_decl_column => self.column = number(),
            gimli::DW_AT_location => {
                if let AttributeValue::Exprloc(expression) = attribute.value() {
                    let mut operations = expression.operations(unit.encoding());
                    self.address = match (operations.next()?, operations.next()?) {
                        (Some(Operation::Address { address }), None) => Some(address),
                        (Some(Operation::AddressIndex { index }), None) => Some(dwarf.address(unit, index)?),
                        _ => None,
                    };
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Returns a function's name: its own, or the name of the entry that it is a copy of.
    fn name<R: Reader<Offset = usize>>(&self, dwarf: &Dwarf<R>, unit: &Unit<R>) -> gimli::Result<String> {
        let (mut name, mut of) = (self.name.clone(), self.of);
        for _ in 0..STEPS {
            let (None, Some(offset)) = (&name, of) else { break };
            let mut entry = EntryAttributes::default();
            for attribute in unit.entry(offset)?.attrs() {
                entry.take(dwarf, unit, attribute)?;
            }
            (name, of) = (entry.name, entry.of);
        }
        Ok(name.unwrap_or_default())
    }
}
