//! The machine code of functions and what it refers to, for people to look at: from both builds, and from a finished
//! module. Decides nothing.

use std::collections::BTreeMap;

use klpx_diagnosis::Result;
use klpx_diff::{Difference, describe};
use klpx_normalize::arch::{Arch, FieldKind, RelocationKind};
use klpx_normalize::elf::{Definition, ElfFile, Rela, SHF_RELA_LIVEPATCH, SectionId};
use klpx_normalize::name::{self, without_promotion};
use klpx_normalize::object::{ItemId, Object, Target};
use klpx_verify::inspect::{self, LivepatchSymbol};
use object::endian::LittleEndian as LE;

use crate::finding;
use crate::pairs::PairObjects;

/// The code of a function, or of a function's unlikely part, in both builds.
#[derive(Clone, Debug)]
pub struct Code {
    /// The kernel object that the function belongs to: `vmlinux` or a module's name.
    pub object: String,
    /// The function's name, without a `.llvm.<hash>`.
    pub function: String,
    /// The code from the original source; `None` for a new function.
    pub original: Option<FunctionBody>,
    /// The code from the patched source.
    pub patched: FunctionBody,
}

/// The code of one function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionBody {
    /// The architecture.
    pub arch: Arch,
    /// The bytes, starting at the entry. Fields that a reference fills are zero.
    pub bytes: Vec<u8>,
    /// What the code refers to, by place.
    pub references: Vec<CodeReference>,
}

/// A reference of an instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeReference {
    /// The first byte of the field, in bytes from the function's entry.
    pub offset: u64,
    /// The target in words.
    pub to: String,
    /// The meaning: equal in both builds if the references mean the same.
    pub meaning: String,
    /// How the loader fills the field.
    pub filled: Filled,
}

/// How a reference of a module gets its value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Filled {
    /// By the livepatch core, with a symbol of the patched kernel object.
    Livepatch(LivepatchSymbol),
    /// By the module loader, with an exported symbol.
    Export(String),
    /// With something in the module itself or in the same unit.
    Own,
}

/// A function of a finished module.
#[derive(Clone, Debug)]
pub struct ModuleFunction {
    /// The function's symbol.
    pub symbol: String,
    /// The functions that it replaces: object, name, and sympos.
    pub replaces: Vec<(String, String, u64)>,
    /// The function's code.
    pub body: FunctionBody,
}

/// A function's name without the mark of a piece that lies apart: `f` for `f.cold`.
pub fn whole_name(name: &str) -> String {
    String::from_utf8_lossy(name::whole(name.as_bytes())).into_owned()
}

impl Code {
    /// The code of a function of the patched build.
    pub(crate) fn read(pair: &PairObjects<'_>, difference: &Difference, patched: ItemId) -> Code {
        let original = difference.original_of(patched);
        let counterpart = |item: ItemId| difference.original_of(item).map(|item| (&pair.original, item));
        Code {
            object: pair.name.to_owned(),
            function: finding::name(&pair.patched, patched),
            original: original.map(|item| body(&pair.original, item, &|_| None)),
            patched: body(&pair.patched, patched, &counterpart),
        }
    }
}

/// Finds the other build's item that corresponds to an item.
type Counterpart<'c, 'd> = dyn Fn(ItemId) -> Option<(&'c Object<'d>, ItemId)> + 'c;

fn body(object: &Object<'_>, item: ItemId, counterpart: &Counterpart<'_, '_>) -> FunctionBody {
    let shape = object.item(item);
    let (section, entry, end) = (shape.section, shape.entry, shape.end);
    let mut bytes = object.range(section, entry, end).to_vec();
    let mut references = BTreeMap::new();
    for rela in object.relocations_in(section, entry, end) {
        let target = object.resolve(section, rela);
        let offset = rela.r_offset.get(LE).saturating_sub(entry);
        clear(&mut bytes, offset, width(object.relocation_kind(rela)));
        references.insert(
            offset,
            CodeReference {
                offset,
                to: plain(describe(object, target)),
                meaning: meaning(object, target, counterpart),
                filled: Filled::Own,
            },
        );
    }
    for branch in object.direct_branches(section, (entry, end)) {
        let Some(to) = branch.to.filter(|&to| to != item) else { continue };
        let target =
            Target::Item { item: to, offset: branch.target.wrapping_sub(object.item(to).entry) as i64 };
        let at = branch.field.map_or(branch.at, |(at, _)| at).saturating_sub(entry);
        if let Some((_, field)) = branch.field {
            clear(&mut bytes, at, width(object.arch.relocation(field.kind)));
        }
        references.entry(at).or_insert_with(|| CodeReference {
            offset: at,
            to: plain(describe(object, target)),
            meaning: meaning(object, target, counterpart),
            filled: Filled::Own,
        });
    }
    FunctionBody { arch: object.arch, bytes, references: references.into_values().collect() }
}

/// The width in bytes of a relocation's field; 0 for a field inside an instruction, which is not cleared.
fn width(kind: Option<&RelocationKind>) -> usize {
    match kind.map(|kind| kind.field) {
        Some(FieldKind::Bytes(n)) => n.into(),
        Some(FieldKind::Instruction) | None => 0,
    }
}

fn clear(bytes: &mut [u8], offset: u64, width: usize) {
    let from = usize::try_from(offset).unwrap_or(usize::MAX);
    if let Some(field) = bytes.get_mut(from..from.saturating_add(width)) {
        field.fill(0);
    }
}

/// A text without the hash that ThinLTO puts on names.
fn plain(text: String) -> String {
    match text.starts_with('"') {
        true => text,
        false => match text.rsplit_once(['+', '-']) {
            Some((name, offset)) if offset.starts_with("0x") => {
                let sign = text.as_bytes().get(name.len()).copied().map_or('+', char::from);
                format!("{}{sign}{offset}", plain_name(name))
            }
            _ => plain_name(&text),
        },
    }
}

/// A name without the hash that ThinLTO puts on it.
pub fn plain_name(name: &str) -> String {
    String::from_utf8_lossy(without_promotion(name.as_bytes())).into_owned()
}

fn meaning(object: &Object<'_>, target: Target, counterpart: &Counterpart<'_, '_>) -> String {
    match target {
        Target::Item { item, offset } => match counterpart(item) {
            Some((other, item)) => plain(describe(other, Target::Item { item, offset })),
            None => plain(describe(object, target)),
        },
        // A string's contents already tell what it means.
        Target::Literal { section, start, end, offset } => {
            let contents = object.range(section, start, end);
            format!("{:?}+{offset}", String::from_utf8_lossy(contents))
        }
        // The same entry may have another number in the other build.
        Target::Entry { table, .. } => object.tables[table.index()].kind.name.to_owned(),
        Target::External { .. } | Target::Absolute(_) => plain(describe(object, target)),
    }
}

/// The functions of a finished module, in the order of the file.
///
/// # Errors
/// Fails if the file is not a readable module.
pub fn of_module(file: &ElfFile) -> Result<Vec<ModuleFunction>> {
    let module = inspect::inspect(file)?;
    let object = Object::read(file)?;
    let livepatch = livepatch_relocations(&object);
    let function = |item: ItemId| {
        let shape = object.item(item);
        let at = (shape.section, shape.entry);
        let replaced = module.objects.iter().flat_map(|patched| {
            let own = patched.functions.iter().filter(|function| function.new_at == at);
            own.map(|function| (patched.name.clone(), function.old_name.clone(), function.sympos))
        });
        let mut body = body(&object, item, &|_| None);
        for reference in &mut body.references {
            let rela = object.relocations_in(at.0, at.1, shape.end);
            let place = |rela: &&Rela| rela.r_offset.get(LE).saturating_sub(at.1) == reference.offset;
            if let Some(name) = rela.iter().find(place).and_then(|rela| import(&object, rela)) {
                reference.filled = Filled::Export(name);
            }
        }
        let relocations = livepatch.get(&at.0).into_iter().flatten();
        for (place, symbol, addend, width) in
            relocations.filter(|(place, ..)| (at.1..shape.end).contains(place))
        {
            let offset = place - at.1;
            clear(&mut body.bytes, offset, *width);
            let to = klpx_diagnosis::Offset(*addend).behind(plain_name(&symbol.name));
            let filled = Filled::Livepatch(symbol.clone());
            body.references.push(CodeReference { offset, meaning: to.clone(), to, filled });
        }
        body.references.sort_by_key(|reference| reference.offset);
        ModuleFunction {
            symbol: String::from_utf8_lossy(object.item_name(item)).into_owned(),
            replaces: replaced.collect(),
            body,
        }
    };
    Ok(object.item_ids().filter(|&item| object.item(item).code).map(function).collect())
}

/// The name of the relocation's symbol, if the module does not define the symbol.
fn import(object: &Object<'_>, rela: &Rela) -> Option<String> {
    let symbol = object.elf.rela_symbol(rela)?;
    let name = object.elf.symbol_name(symbol);
    let undefined = object.elf.definition(symbol) == Definition::Undefined && !name.is_empty();
    undefined.then(|| String::from_utf8_lossy(name).into_owned())
}

/// Place, symbol, bytes from the symbol, and the field's width in bytes.
type LivepatchRelocation = (u64, LivepatchSymbol, i64, usize);

/// A module's livepatch relocations, by the section to which they apply.
fn livepatch_relocations(object: &Object<'_>) -> BTreeMap<SectionId, Vec<LivepatchRelocation>> {
    let elf = &object.elf;
    let mut found: BTreeMap<SectionId, Vec<LivepatchRelocation>> = BTreeMap::new();
    for id in elf.section_ids().filter(|&id| elf.section_flags(id) & SHF_RELA_LIVEPATCH != 0) {
        let on = SectionId(elf.section(id).sh_info.get(LE));
        for rela in elf.rela_table(id) {
            let symbol = elf.rela_symbol(rela).map(|symbol| elf.symbol_name(symbol));
            let symbol = symbol.and_then(|name| inspect::parse_symbol(&String::from_utf8_lossy(name)));
            let Some(symbol) = symbol else { continue };
            let bias = object.relocation_kind(rela).map_or(0, |kind| object.arch.pc_bias(kind));
            let addend = rela.r_addend.get(LE).wrapping_add(bias);
            found.entry(on).or_default().push((
                rela.r_offset.get(LE),
                symbol,
                addend,
                width(object.relocation_kind(rela)),
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_without_what_a_build_puts_on_them() {
        for (text, wanted) in [
            ("md_stop", "md_stop"),
            ("md_stop.llvm.123", "md_stop"),
            ("md_stop.llvm.123+0x8", "md_stop+0x8"),
            ("\"a.llvm.1\"", "\"a.llvm.1\""),
            ("md-5", "md-5"),
        ] {
            assert_eq!(plain(text.to_owned()), wanted);
        }
        assert_eq!(
            ["f", "f.cold", "f.cold.7", "f.__part.1", "cold"].map(whole_name),
            ["f", "f", "f", "f", "cold"]
        );
    }
}
