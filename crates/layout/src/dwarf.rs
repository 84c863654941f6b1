//! Reads types from the DWARF of an object.

use std::collections::BTreeMap;
use std::rc::Rc;

use gimli::{AttributeValue, DwTag, Dwarf, Reader, Unit};
use hashbrown::HashMap;
use klpx_diagnosis::{Diagnosis, Result, codes};
use klpx_inline_check::sections::DebugSections;
use klpx_normalize::elf::Elf;

use crate::{Enclosing, Layout, Layouts, Member, TypeDefinition, TypeKey, TypeKind};

/// The greatest depth to which a type is followed. C types end far before; a damaged file may have a circle.
const DEPTH: u32 = 48;
/// The most members and types that are described in words. The largest unit of a kernel needs a hundredth.
const STEPS: u32 = 10_000_000;
/// The most bytes of a type in words. A beginning and a checksum stand for a longer text.
const WORDS: usize = 4000;

/// A DWARF entry about types.
struct TypeNode {
    tag: DwTag,
    name: Option<Rc<str>>,
    /// The entry that this entry refers to, as an offset in `.debug_info`.
    of: Option<usize>,
    bytes: Option<u64>,
    /// A member's place, in bits.
    offset: u64,
    /// Width of a bit-field in bits.
    width: u64,
    /// Bits from which a bit-field's place is counted back, up to DWARF 4.
    back: Option<u64>,
    /// Number of an array's elements.
    count: Option<u64>,
    value: i64,
    declaration: bool,
    file: u32,
    line: u32,
    children: Vec<u32>,
}

/// All entries that were read.
#[derive(Default)]
struct TypeEntries {
    nodes: Vec<TypeNode>,
    by_offset: HashMap<usize, u32>,
    /// Paths, by number.
    files: Vec<String>,
    /// Variables of file scope.
    variables: Vec<u32>,
}

/// A type in words, and the named type that lies in it.
#[derive(Clone)]
struct Described {
    text: Rc<str>,
    embeds: Option<TypeKey>,
}

impl Layouts {
    /// Reads the types of a relocatable object; empty for an object without debug information.
    ///
    /// # Errors
    /// `klpx::bad-dwarf`.
    pub fn read(elf: &Elf<'_>) -> Result<Layouts> {
        let sections = DebugSections::read(elf)?;
        let dwarf = sections.relocated();
        let entries = TypeEntries::read(&dwarf).map_err(|error| bad(&error.to_string()))?;
        let mut types = TypeDescriber { entries: &entries, described: HashMap::new(), steps: 0 };
        let found = types.layouts();
        match types.steps < STEPS {
            true => Ok(found),
            false => Err(bad("types lie in each other without end").into()),
        }
    }
}

pub(crate) fn bad(why: &str) -> Diagnosis {
    Diagnosis::new(
        &codes::BAD_DWARF,
        "the types in debug information can't be read",
        why,
        "build the file again; if it came from a package, check its integrity",
    )
}

fn is_wanted(tag: DwTag) -> bool {
    matches!(
        tag,
        gimli::DW_TAG_base_type
            | gimli::DW_TAG_pointer_type
            | gimli::DW_TAG_structure_type
            | gimli::DW_TAG_union_type
            | gimli::DW_TAG_enumeration_type
            | gimli::DW_TAG_typedef
            | gimli::DW_TAG_array_type
            | gimli::DW_TAG_subrange_type
            | gimli::DW_TAG_const_type
            | gimli::DW_TAG_volatile_type
            | gimli::DW_TAG_restrict_type
            | gimli::DW_TAG_atomic_type
            | gimli::DW_TAG_subroutine_type
            | gimli::DW_TAG_formal_parameter
            | gimli::DW_TAG_unspecified_parameters
            | gimli::DW_TAG_member
            | gimli::DW_TAG_enumerator
            | gimli::DW_TAG_variable
    )
}

/// Returns true for a part of another type. A part on its own means nothing.
fn is_part(tag: DwTag) -> bool {
    matches!(
        tag,
        gimli::DW_TAG_subrange_type
            | gimli::DW_TAG_formal_parameter
            | gimli::DW_TAG_unspecified_parameters
            | gimli::DW_TAG_member
            | gimli::DW_TAG_enumerator
    )
}

impl TypeEntries {
    fn read<R: Reader<Offset = usize>>(dwarf: &Dwarf<R>) -> gimli::Result<TypeEntries> {
        let mut all = TypeEntries::default();
        let mut headers = dwarf.units();
        while let Some(header) = headers.next()? {
            let unit = dwarf.unit(header)?;
            all.unit(dwarf, &unit)?;
        }
        Ok(all)
    }

    fn unit<R: Reader<Offset = usize>>(&mut self, dwarf: &Dwarf<R>, unit: &Unit<R>) -> gimli::Result<()> {
        let start = unit.header.debug_info_offset().map_or(0, |offset| offset.0);
        let mut paths: HashMap<u64, u32> = HashMap::new();
        // The read entry at each depth; `None` for a skipped entry.
        let mut around: Vec<Option<u32>> = Vec::new();
        let mut entries = unit.entries_raw(None)?;
        while !entries.is_empty() {
            let (at, depth) = (start + entries.next_offset().0, entries.next_depth().max(0) as usize);
            let Some(abbreviation) = entries.read_abbreviation()? else { continue };
            let tag = abbreviation.tag();
            around.truncate(depth);
            let parent = around.last().copied().flatten();
            let local = tag == gimli::DW_TAG_variable && depth != 1;
            if !is_wanted(tag) || local || (is_part(tag) && parent.is_none()) {
                entries.skip_attributes(abbreviation.attributes())?;
                around.resize(depth + 1, None);
                continue;
            }
            let mut node = TypeNode::new(tag);
            for &specification in abbreviation.attributes() {
                let attribute = entries.read_attribute(specification)?;
                let number = || attribute.udata_value();
                match attribute.name() {
                    gimli::DW_AT_name => {
                        let text = dwarf.attr_string(unit, attribute.value())?;
                        node.name = Some(text.to_string_lossy()?.into());
                    }
                    gimli::DW_AT_type => {
                        node.of = match attribute.value() {
                            AttributeValue::UnitRef(offset) => start.checked_add(offset.0),
                            AttributeValue::DebugInfoRef(offset) => Some(offset.0),
                            _ => None,
                        }
                    }
                    gimli::DW_AT_byte_size => node.bytes = number(),
                    gimli::DW_AT_bit_size => node.width = number().unwrap_or_default(),
                    gimli::DW_AT_data_bit_offset => {
                        node.offset = node.offset.saturating_add(number().unwrap_or_default());
                    }
                    gimli::DW_AT_data_member_location => {
                        let bits = number().unwrap_or_default().saturating_mul(8);
                        node.offset = node.offset.saturating_add(bits);
                    }
                    gimli::DW_AT_bit_offset => node.back = number(),
                    gimli::DW_AT_count => node.count = number(),
                    gimli::DW_AT_upper_bound => node.count = number().and_then(|last| last.checked_add(1)),
                    gimli::DW_AT_const_value => {
                        let value = attribute.sdata_value();
                        node.value = value.or(number().map(|n| n as i64)).unwrap_or_default();
                    }
                    gimli::DW_AT_declaration => {
                        node.declaration = matches!(attribute.value(), AttributeValue::Flag(true))
                    }
                    gimli::DW_AT_decl_line => node.line = number().unwrap_or_default() as u32,
                    gimli::DW_AT_decl_file if !is_part(tag) => {
                        let file = match attribute.value() {
                            AttributeValue::FileIndex(index) => index,
                            _ => number().unwrap_or_default(),
                        };
                        node.file = *paths.entry(file).or_insert_with(|| {
                            self.files.push(path(dwarf, unit, file));
                            self.files.len() as u32 - 1
                        });
                    }
                    _ => {}
                }
            }
            if let (Some(back), Some(bytes)) = (node.back, node.bytes) {
                let end = node.offset.saturating_add(bytes.saturating_mul(8));
                node.offset = end.saturating_sub(back.saturating_add(node.width));
            }
            let index = self.nodes.len() as u32;
            if let Some(parent) = parent.filter(|_| is_part(tag)) {
                self.nodes[parent as usize].children.push(index);
            }
            if tag == gimli::DW_TAG_variable {
                self.variables.push(index);
            }
            self.by_offset.insert(at, index);
            self.nodes.push(node);
            around.resize(depth, None);
            around.push(Some(index));
        }
        Ok(())
    }

    fn at(&self, offset: Option<usize>) -> Option<&TypeNode> {
        self.nodes.get(*self.by_offset.get(&offset?)? as usize)
    }

    /// Returns the entry behind `const` and other qualifiers.
    fn unqualified(&self, offset: Option<usize>) -> Option<&TypeNode> {
        let mut node = self.at(offset)?;
        for _ in 0..DEPTH {
            if !node.is_qualifier() {
                return Some(node);
            }
            node = self.at(node.of)?;
        }
        None
    }

    fn children<'e>(&'e self, node: &'e TypeNode) -> impl Iterator<Item = &'e TypeNode> {
        node.children.iter().map(|&child| &self.nodes[child as usize])
    }
}

impl TypeNode {
    fn new(tag: DwTag) -> TypeNode {
        TypeNode {
            tag,
            name: None,
            of: None,
            bytes: None,
            offset: 0,
            width: 0,
            back: None,
            count: None,
            value: 0,
            declaration: false,
            file: u32::MAX,
            line: 0,
            children: Vec::new(),
        }
    }

    /// Returns the C name of a structure, union or enumeration.
    fn key(&self) -> Option<TypeKey> {
        let kind = match self.tag {
            gimli::DW_TAG_structure_type => TypeKind::Struct,
            gimli::DW_TAG_union_type => TypeKind::Union,
            gimli::DW_TAG_enumeration_type => TypeKind::Enum,
            _ => return None,
        };
        Some(TypeKey { kind, name: self.name.as_deref()?.to_owned() })
    }

    fn is_aggregate(&self) -> bool {
        matches!(self.tag, gimli::DW_TAG_structure_type | gimli::DW_TAG_union_type)
    }

    fn has_layout(&self) -> bool {
        self.is_aggregate() || self.tag == gimli::DW_TAG_enumeration_type
    }

    /// Returns true for an entry that only qualifies another type.
    fn is_qualifier(&self) -> bool {
        matches!(
            self.tag,
            gimli::DW_TAG_const_type
                | gimli::DW_TAG_volatile_type
                | gimli::DW_TAG_restrict_type
                | gimli::DW_TAG_atomic_type
        )
    }
}

/// Returns a file's path as debug information has it; empty without a name.
pub(crate) fn path<R: Reader<Offset = usize>>(dwarf: &Dwarf<R>, unit: &Unit<R>, file: u64) -> String {
    let text = |value| -> Option<String> {
        Some(dwarf.attr_string(unit, value).ok()?.to_string_lossy().ok()?.into_owned())
    };
    let named = || {
        let header = unit.line_program.as_ref()?.header();
        let entry = header.file(file)?;
        let name = text(entry.path_name())?;
        let folder =
            entry.directory(header).and_then(text).filter(|folder| !name.starts_with('/') && folder != ".");
        Some(folder.map_or_else(|| name.clone(), |folder| format!("{folder}/{name}")))
    };
    named().unwrap_or_default()
}

/// Returns a text of bounded length that stands for the whole text.
fn shortened(text: &str) -> String {
    use std::hash::{Hash, Hasher};
    if text.len() <= WORDS {
        return text.to_owned();
    }
    // The keys of this hasher are fixed, unlike those of a HashMap.
    let mut checksum = std::hash::DefaultHasher::new();
    text.hash(&mut checksum);
    let beginning: String = text.chars().take(WORDS / 8).collect();
    format!("{beginning}... ({:016x})", checksum.finish())
}

/// Describes types in words.
struct TypeDescriber<'e> {
    entries: &'e TypeEntries,
    described: HashMap<usize, Described>,
    /// The number of steps so far.
    steps: u32,
}

impl<'e> TypeDescriber<'e> {
    fn layouts(&mut self) -> Layouts {
        let mut found = Layouts::default();
        for node in &self.entries.nodes {
            let (key, definition) = match (node.key(), node.tag) {
                (Some(key), _) => (key, node),
                (None, gimli::DW_TAG_typedef) => {
                    let Some(of) = self.unnamed(node) else { continue };
                    let name = node.name.as_deref().unwrap_or_default().to_owned();
                    (TypeKey { kind: TypeKind::Typedef, name }, of)
                }
                _ => continue,
            };
            if definition.declaration || definition.bytes.is_none() {
                continue;
            }
            let layout = self.layout(definition);
            let all = found.types.entry(key).or_default();
            if all.iter().all(|known: &TypeDefinition| known.layout != layout) {
                let file = self.entries.files.get(definition.file as usize).cloned().unwrap_or_default();
                all.push(TypeDefinition { layout, file, line: definition.line });
            }
        }
        found.variables = self.variables();
        found
    }

    /// Returns the unnamed structure, union or enumeration that a typedef names.
    fn unnamed(&self, typedef: &TypeNode) -> Option<&'e TypeNode> {
        self.entries.at(typedef.of).filter(|of| of.has_layout() && of.name.is_none())
    }

    fn layout(&mut self, node: &TypeNode) -> Layout {
        let mut layout =
            Layout { size: node.bytes.unwrap_or_default(), members: Vec::new(), values: Vec::new() };
        let entries = self.entries;
        for child in entries.children(node).filter(|child| child.tag == gimli::DW_TAG_enumerator) {
            let name = child.name.as_deref().unwrap_or_default();
            layout.values.push((name.to_owned(), child.value));
        }
        if node.is_aggregate() {
            self.members(node, Enclosing::default(), &mut layout.members, 0);
        }
        layout
    }

    /// Adds the members of a structure, which may lie in a described one.
    fn members(&mut self, node: &TypeNode, enclosing: Enclosing<'_>, found: &mut Vec<Member>, depth: u32) {
        let entries = self.entries;
        for child in entries.children(node).filter(|child| child.tag == gimli::DW_TAG_member) {
            if self.is_over() {
                return;
            }
            let name = format!("{}{}", enclosing.prefix, child.name.as_deref().unwrap_or_default());
            let at = enclosing.offset.saturating_add(child.offset);
            let inside = entries.unqualified(child.of).filter(|of| of.is_aggregate() && of.name.is_none());
            if let Some(inside) = inside.filter(|_| depth < DEPTH) {
                let prefix = if child.name.is_some() { format!("{name}.") } else { name };
                self.members(inside, Enclosing { prefix: &prefix, offset: at }, found, depth + 1);
                continue;
            }
            let Described { text, embeds } = self.describe(child.of, 0);
            found.push(Member {
                name,
                offset: at,
                width: child.width,
                text: text.as_ref().to_owned(),
                embeds,
            });
        }
    }

    /// Counts a step; returns true if there were too many.
    fn is_over(&mut self) -> bool {
        self.steps = self.steps.saturating_add(1);
        self.steps >= STEPS
    }

    fn describe(&mut self, offset: Option<usize>, depth: u32) -> Described {
        let plain = |text: &str| Described { text: shortened(text).into(), embeds: None };
        let Some(at) = offset else { return plain("void") };
        if let Some(known) = self.described.get(&at) {
            return known.clone();
        }
        let entries = self.entries;
        let Some(node) = entries.at(offset) else { return plain("?") };
        if depth >= DEPTH || self.is_over() {
            self.steps = STEPS;
            return plain("?");
        }
        let name = node.name.as_deref();
        let found = if let Some(key) = node.key() {
            Described { text: key.to_string().into(), embeds: Some(key) }
        } else if node.is_qualifier() {
            self.describe(node.of, depth + 1)
        } else {
            match node.tag {
                gimli::DW_TAG_typedef if self.unnamed(node).is_some() => {
                    let key = TypeKey { kind: TypeKind::Typedef, name: name.unwrap_or_default().to_owned() };
                    Described { text: key.to_string().into(), embeds: Some(key) }
                }
                gimli::DW_TAG_typedef => self.describe(node.of, depth + 1),
                gimli::DW_TAG_pointer_type => {
                    let to = self.describe(node.of, depth + 1).text;
                    plain(&format!("{to} *"))
                }
                gimli::DW_TAG_array_type => {
                    let element = self.describe(node.of, depth + 1);
                    let counts = entries.children(node).map(|range| match range.count {
                        Some(count) => format!("[{count}]"),
                        None => "[]".to_owned(),
                    });
                    let text = format!("{}{}", element.text, counts.collect::<String>());
                    Described { text: text.into(), embeds: element.embeds }
                }
                gimli::DW_TAG_subroutine_type => {
                    let result = self.describe(node.of, depth + 1).text;
                    let parameters = entries.children(node).map(|parameter| match parameter.tag {
                        gimli::DW_TAG_unspecified_parameters => "...".to_owned(),
                        _ => self.describe(parameter.of, depth + 1).text.to_string(),
                    });
                    let parameters: Vec<String> = parameters.collect();
                    plain(&format!("{result} ({})", parameters.join(", ")))
                }
                _ if node.has_layout() => {
                    let layout = self.layout(node);
                    let members = layout.members.iter().map(|member| {
                        format!("{} {} at {}:{}", member.text, member.name, member.offset, member.width)
                    });
                    let values = layout.values.iter().map(|(name, value)| format!("{name} = {value}"));
                    let parts: Vec<String> = members.chain(values).collect();
                    plain(&format!("{{ {} }} of {} bytes", parts.join("; "), layout.size))
                }
                _ => plain(name.unwrap_or("?")),
            }
        };
        self.described.insert(at, found.clone());
        found
    }

    fn variables(&mut self) -> BTreeMap<TypeKey, Vec<String>> {
        let mut found: BTreeMap<TypeKey, Vec<String>> = BTreeMap::new();
        let entries = self.entries;
        for node in entries.variables.iter().map(|&index| &entries.nodes[index as usize]) {
            let Some(name) = node.name.as_deref().filter(|_| !node.declaration) else { continue };
            if let Some(key) = self.describe(node.of, 0).embeds {
                found.entry(key).or_default().push(name.to_owned());
            }
        }
        for names in found.values_mut() {
            names.sort();
            names.dedup();
        }
        found
    }
}
