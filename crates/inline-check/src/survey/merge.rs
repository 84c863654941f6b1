//! The units of a file made one: each reference followed to the function that it means, whatever unit that is in.

use std::path::Path;

use hashbrown::HashMap;
use klpx_diagnosis::{Class, Diagnosis, Result};
use klpx_normalize::arch::Arch;
use klpx_normalize::elf::{Elf, SectionId};
use klpx_normalize::name::canonical;
use object::elf::{ET_REL, SHF_EXECINSTR, STT_FUNC};
use object::endian::LittleEndian as LE;
use rayon::prelude::*;

use super::scan::{Die, NONE, RawInlined, UnitFacts};
use super::{CopyId, Function, FunctionId, Inlined, InlinedId, OutOfLine, Reach, Survey, TextId, paths};
use crate::dwarf;
use crate::reach::Sites;
use crate::sections::{Sections, Text};

/// How many entries may stand between one that uses a function and the one that names it.
const MAX_HOPS: u8 = 8;

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Texts by number, each once.
#[derive(Default)]
struct Texts {
    all: Vec<Box<str>>,
    known: Map<Box<[u8]>, u32>,
}

impl Texts {
    fn add(&mut self, bytes: &[u8]) -> TextId {
        if let Some(&id) = self.known.get(bytes) {
            return TextId(id);
        }
        let id = self.all.len() as u32;
        self.all.push(String::from_utf8_lossy(bytes).into());
        self.known.insert(bytes.into(), id);
        TextId(id)
    }
}

/// What an entry says together with those that it refers to.
#[derive(Clone, Copy)]
struct Meaning {
    function: u32,
    /// The file of the unit that defines it.
    home: TextId,
}

struct Merge<'a> {
    sections: &'a Sections<'a>,
    /// Every subprogram entry of the file, by offset.
    dies: Vec<Die>,
    /// Each unit's own file.
    units: Vec<TextId>,
    /// Each unit's files, by index.
    files: Vec<Vec<(u32, TextId)>>,
    texts: Texts,
    /// By entry.
    meanings: Vec<Option<Meaning>>,
    /// By name, file and line.
    known: Map<(TextId, TextId, u32), u32>,
    functions: Vec<Function>,
}

/// Makes a survey of what the units say.
pub(super) fn merge(
    elf: &Elf<'_>,
    arch: Arch,
    sections: &Sections<'_>,
    tree: Option<&Path>,
    mut units: Vec<UnitFacts>,
) -> Result<Survey> {
    let mut texts = Texts::default();
    let (named, root) = name_files(&mut texts, &units, tree);
    let (producers, versions) = compilers(sections, &units);
    let mut dies: Vec<Die> = Vec::with_capacity(units.iter().map(|unit| unit.functions.len()).sum());
    let mut first = Vec::with_capacity(units.len());
    for (number, unit) in units.iter_mut().enumerate() {
        first.push(dies.len() as u32);
        dies.extend(
            std::mem::take(&mut unit.functions).into_iter().map(|die| Die { unit: number as u32, ..die }),
        );
    }
    let mut merge = Merge {
        sections,
        meanings: vec![None; dies.len()],
        dies,
        units: named.iter().map(|(unit, _)| *unit).collect(),
        files: named.into_iter().map(|(_, files)| files).collect(),
        texts,
        known: Map::default(),
        functions: Vec::new(),
    };
    let places = Places::read(elf, arch);
    let mut copies = Vec::new();
    // Number of each unit's copies in `copies`; those that have no code are not there.
    let mut kept: Vec<Vec<u32>> = Vec::with_capacity(units.len());
    for (number, unit) in units.iter().enumerate() {
        let mut numbers = Vec::with_capacity(unit.copies.len());
        for copy in &unit.copies {
            let Some(section) = places.section(elf, copy.address) else {
                numbers.push(NONE);
                continue;
            };
            let die = first[number] + copy.function;
            let meaning = merge.meaning(die).ok_or_else(|| nameless(merge.dies[die as usize].at))?;
            let name = merge.functions[meaning.function as usize].name;
            let entry = places.entry(copy.address);
            let symbol = places.symbol(elf, entry, merge.texts.all[name.0 as usize].as_bytes());
            numbers.push(copies.len() as u32);
            copies.push(OutOfLine {
                function: FunctionId(meaning.function),
                unit: merge.units[number],
                named: symbol.is_some(),
                symbol: symbol.map_or(name, |symbol| merge.texts.add(symbol)),
                section: merge.texts.add(elf.section_name(section)),
                section_id: section,
                address: places.shown(entry),
                bytes: copy.bytes,
                reach: match places.sites.reach(elf.section_name(section), entry) {
                    None => Reach::Unknown,
                    Some(Ok(offset)) => Reach::Site(offset),
                    Some(Err(why)) => Reach::No(why),
                },
            });
        }
        kept.push(numbers);
    }
    let inlined = merge.inlined(&units, &kept)?;
    let survey = merge.finish(arch, !places.object, producers, versions, copies, inlined);
    Ok(Survey { root, ..survey })
}

impl Merge<'_> {
    /// What an entry means; `None` when it leads to no name.
    fn meaning(&mut self, die: u32) -> Option<Meaning> {
        if let Some(meaning) = self.meanings[die as usize] {
            return Some(meaning);
        }
        let (mut at, mut abstract_instance) = (die, die);
        let (mut name, mut file, mut line) = (Text::None, None, 0);
        let (mut external, mut declared_inline) = (false, false);
        for _ in 0..MAX_HOPS {
            let entry = &self.dies[at as usize];
            if name == Text::None {
                name = entry.name;
            }
            if file.is_none() && entry.file != NONE {
                (file, line) = (self.file(entry.unit, entry.file), entry.line);
            }
            external |= entry.external;
            declared_inline |= entry.declared_inline;
            let Some(next) = find(&self.dies, entry.origin) else { break };
            if !entry.by_specification {
                abstract_instance = next;
            }
            at = next;
        }
        let sections = self.sections;
        let name = match sections.text(name) {
            [] => return None,
            name => self.texts.add(name),
        };
        let home = self.units[self.dies[abstract_instance as usize].unit as usize];
        let file = file.unwrap_or(home);
        let next = self.functions.len() as u32;
        let function = *self.known.entry((name, file, line)).or_insert(next);
        if function == next {
            self.functions.push(Function {
                name,
                file,
                line,
                external: false,
                included: false,
                declared_inline: false,
                copies: 0..0,
                inlined: 0..0,
                by_unit: false,
            });
        }
        let found = &mut self.functions[function as usize];
        found.external |= external;
        found.declared_inline |= declared_inline;
        let meaning = Meaning { function, home };
        self.meanings[die as usize] = Some(meaning);
        Some(meaning)
    }

    fn file(&self, unit: u32, index: u32) -> Option<TextId> {
        let files = &self.files[unit as usize];
        let n = files.binary_search_by_key(&index, |&(index, _)| index).ok()?;
        Some(files[n].1)
    }

    /// Every inlined copy whose holder has code, in the order of the file.
    fn inlined(&mut self, units: &[UnitFacts], kept: &[Vec<u32>]) -> Result<Vec<Inlined>> {
        let origins: Vec<Vec<Option<u32>>> = units
            .par_iter()
            .map(|unit| unit.inlined.iter().map(|call| find(&self.dies, call.origin)).collect())
            .collect();
        let mut all = Vec::with_capacity(units.iter().map(|unit| unit.inlined.len()).sum());
        let mut numbers: Vec<u32> = Vec::new();
        for (number, (unit, origins)) in units.iter().zip(origins).enumerate() {
            numbers.clear();
            for (call, origin) in unit.inlined.iter().zip(origins) {
                let RawInlined { holder, parent, file, line, column, bytes, .. } = *call;
                let holder = kept[number][holder as usize];
                if holder == NONE {
                    numbers.push(NONE);
                    continue;
                }
                numbers.push(all.len() as u32);
                let meaning =
                    origin.and_then(|die| self.meaning(die)).ok_or_else(|| nameless(call.origin))?;
                all.push(Inlined {
                    function: FunctionId(meaning.function),
                    holder: CopyId(holder),
                    parent: numbers.get(parent as usize).map(|&parent| InlinedId(parent)),
                    file: self.file(number as u32, file),
                    line,
                    column,
                    across: meaning.home != self.units[number],
                    home: meaning.home,
                    bytes,
                });
            }
        }
        Ok(all)
    }

    /// Puts everything in an order that does not depend on the file's, and ties it together.
    fn finish(
        mut self,
        arch: Arch,
        linked: bool,
        producers: Vec<(String, usize)>,
        versions: Vec<u16>,
        mut copies: Vec<OutOfLine>,
        mut inlined: Vec<Inlined>,
    ) -> Survey {
        self.count_by_unit(&copies, &inlined);
        let text = |id: TextId| &self.texts.all[id.0 as usize];
        let mut order: Vec<u32> = (0..self.functions.len() as u32).collect();
        order.par_sort_by_key(|&n| {
            let function = &self.functions[n as usize];
            (text(function.file), function.line, text(function.name))
        });
        let rank = inverse(&order);
        let mut functions: Vec<Function> =
            order.iter().map(|&n| self.functions[n as usize].clone()).collect();

        copies.iter_mut().for_each(|copy| copy.function = FunctionId(rank[copy.function.0 as usize]));
        let mut order: Vec<u32> = (0..copies.len() as u32).collect();
        order.par_sort_by_key(|&n| {
            let copy = &copies[n as usize];
            (copy.function, text(copy.section), copy.address, n)
        });
        let copy_rank = inverse(&order);
        let copies: Vec<OutOfLine> = order.iter().map(|&n| copies[n as usize].clone()).collect();

        for call in &mut inlined {
            call.function = FunctionId(rank[call.function.0 as usize]);
            call.holder = CopyId(copy_rank[call.holder.0 as usize]);
        }
        let mut order: Vec<u32> = (0..inlined.len() as u32).collect();
        order.par_sort_by_key(|&n| (inlined[n as usize].function, inlined[n as usize].holder, n));
        let inlined_rank = inverse(&order);
        let mut inlined: Vec<Inlined> = order.iter().map(|&n| inlined[n as usize].clone()).collect();
        for call in &mut inlined {
            call.parent = call.parent.map(|parent| InlinedId(inlined_rank[parent.0 as usize]));
        }

        // A partial unit has no file of its own.
        let units: hashbrown::HashSet<TextId> =
            self.units.iter().copied().filter(|&unit| !text(unit).is_empty()).collect();
        inlined.iter_mut().for_each(|call| call.across &= units.contains(&call.home));
        let units_count = self.units.len();
        let (mut copy, mut call) = (0, 0);
        for (n, function) in functions.iter_mut().enumerate() {
            let id = FunctionId(n as u32);
            function.copies = run(&mut copy, &copies, |copy| copy.function == id);
            function.inlined = run(&mut call, &inlined, |call| call.function == id);
            function.included = !units.contains(&function.file);
        }
        let mut unit_files = self.units;
        unit_files.sort_unstable_by_key(|&unit| &self.texts.all[unit.0 as usize]);
        unit_files.dedup();
        unit_files.retain(|&unit| !self.texts.all[unit.0 as usize].is_empty());
        Survey {
            arch,
            producers,
            versions,
            units: units_count,
            linked,
            functions,
            copies,
            inlined,
            root: String::new(),
            unit_files,
            texts: self.texts.all,
        }
    }

    /// Marks the functions that have both kinds of copies in one unit's definition.
    fn count_by_unit(&mut self, copies: &[OutOfLine], inlined: &[Inlined]) {
        let out_of_line: hashbrown::HashSet<(FunctionId, TextId), foldhash::fast::RandomState> =
            copies.iter().map(|copy| (copy.function, copy.unit)).collect();
        for call in inlined.iter().filter(|call| out_of_line.contains(&(call.function, call.home))) {
            self.functions[call.function.0 as usize].by_unit = true;
        }
    }
}

/// The entry at an offset.
fn find(dies: &[Die], at: u32) -> Option<u32> {
    dies.binary_search_by_key(&at, |die| die.at).ok().map(|n| n as u32)
}

fn inverse(order: &[u32]) -> Vec<u32> {
    let mut rank = vec![0; order.len()];
    for (n, &item) in order.iter().enumerate() {
        rank[item as usize] = n as u32;
    }
    rank
}

/// The next items that belong together.
fn run<T>(next: &mut u32, items: &[T], belongs: impl Fn(&T) -> bool) -> std::ops::Range<u32> {
    let start = *next;
    while items.get(*next as usize).is_some_and(&belongs) {
        *next += 1;
    }
    start..*next
}

fn nameless(at: u32) -> Diagnosis {
    Diagnosis::new("klpx::bad-dwarf", Class::Input, "the debug information can't be read")
        .why(format!("the entry at {at:#x} of .debug_info should be a function, and leads to no name"))
        .remedy("build the file again; if it came from a package, check its integrity")
}

/// A unit's own file, and its files by index.
type Named = (TextId, Vec<(u32, TextId)>);

/// Each unit's files, without the folder that the tree was in, and that folder.
fn name_files(texts: &mut Texts, units: &[UnitFacts], tree: Option<&Path>) -> (Vec<Named>, String) {
    let mut all: Vec<&String> =
        units.iter().flat_map(|unit| unit.files.iter().map(|(_, path)| path)).collect();
    all.par_sort_unstable();
    all.dedup();
    let all: Vec<String> = all.into_iter().cloned().collect();
    let folder = |unit: &UnitFacts| format!("{}/", unit.folder.trim_end_matches('/'));
    let root = tree.map_or_else(|| paths::root(&all).to_owned(), |tree| format!("{}/", tree.display()));
    let folders: Vec<String> = [root.clone()].into_iter().chain(units.first().map(folder)).collect();
    let mut name = |path: &str| texts.add(paths::without(path, &folders).as_bytes());
    let named = units
        .iter()
        .map(|unit| (name(&unit.path), unit.files.iter().map(|(index, path)| (*index, name(path))).collect()))
        .collect();
    (named, root)
}

/// The compilers, by number of units, and the DWARF versions.
fn compilers(sections: &Sections<'_>, units: &[UnitFacts]) -> (Vec<(String, usize)>, Vec<u16>) {
    let mut counts: std::collections::BTreeMap<String, usize> = std::collections::BTreeMap::new();
    for unit in units {
        *counts.entry(compiler(&String::from_utf8_lossy(sections.text(unit.producer)))).or_default() += 1;
    }
    let mut producers: Vec<(String, usize)> = counts.into_iter().collect();
    producers.sort_by_key(|(_, units)| std::cmp::Reverse(*units));
    let versions: std::collections::BTreeSet<u16> = units.iter().map(|unit| unit.version).collect();
    (producers, versions.into_iter().collect())
}

/// A compiler's name and version, without the options and the packager that may stand around them.
fn compiler(producer: &str) -> String {
    let number = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
    let name = ["clang", "rustc", "GNU C++", "GNU C"].into_iter().find(|name| producer.contains(name));
    let version = producer.split_whitespace().find(number);
    match (name, version) {
        (Some(name), Some(version)) => {
            format!("{} {version}", if name.starts_with("GNU") { "gcc" } else { name })
        }
        _ => producer.split(" -").next().unwrap_or_default().to_owned(),
    }
}

/// What lies where in the file.
struct Places {
    object: bool,
    /// Sections of code in a linked image, by address: begin, end.
    code: Vec<(u64, u64, SectionId)>,
    /// Functions, by address as DWARF has it.
    symbols: Vec<(u64, klpx_normalize::elf::SymbolId)>,
    sites: Sites,
    /// [`Arch::undescribed_entry`].
    undescribed: u64,
}

impl Places {
    fn read(elf: &Elf<'_>, arch: Arch) -> Places {
        let object = elf.file_type() == ET_REL.0;
        let executable = |&id: &SectionId| elf.section_flags(id) & SHF_EXECINSTR.0 != 0;
        let span = |id: SectionId| {
            let begin = elf.section(id).sh_addr.get(LE);
            (begin, begin.saturating_add(elf.section_size(id)), id)
        };
        let mut code: Vec<_> = elf.section_ids().filter(executable).map(span).collect();
        code.sort_unstable_by_key(|&(begin, ..)| begin);
        let mut symbols: Vec<_> = elf
            .symbol_ids()
            .filter(|&id| elf.symbol_type(id) == STT_FUNC.0)
            .filter_map(|id| {
                let section = elf.symbol_section(id)?;
                let value = elf.symbol_value(id);
                Some((if object { dwarf::address(section, value) } else { value }, id))
            })
            .collect();
        symbols.par_sort_unstable();
        let undescribed = arch.undescribed_entry();
        Places { object, code, symbols, sites: Sites::read(elf, arch), undescribed }
    }

    /// The section of code that an address is in.
    fn section(&self, elf: &Elf<'_>, address: u64) -> Option<SectionId> {
        if self.object {
            let (section, _) = dwarf::place(address)?;
            let exists = section.index() < elf.section_count();
            return (exists && elf.section_flags(section) & SHF_EXECINSTR.0 != 0).then_some(section);
        }
        let after = self.code.partition_point(|&(begin, ..)| begin <= address);
        let &(_, end, id) = self.code.get(after.checked_sub(1)?)?;
        (address < end).then_some(id)
    }

    /// An address as a person knows it.
    fn shown(&self, address: u64) -> u64 {
        match dwarf::place(address) {
            Some((_, offset)) if self.object => offset,
            _ => address,
        }
    }

    /// The entry of the function that DWARF has begin at an address, which may be behind the patchable entry.
    fn entry(&self, address: u64) -> u64 {
        let after = self.symbols.partition_point(|&(at, _)| at <= address);
        match after.checked_sub(1).and_then(|n| self.symbols.get(n)) {
            Some(&(at, _)) if address - at <= self.undescribed => at,
            _ => address,
        }
    }

    /// The name at an address: where there are several, the one that is like the function's.
    fn symbol<'d>(&self, elf: &Elf<'d>, address: u64, function: &[u8]) -> Option<&'d [u8]> {
        let start = self.symbols.partition_point(|&(at, _)| at < address);
        let here = self.symbols[start..].iter().take_while(|&&(at, _)| at == address);
        let names = || here.clone().map(|&(_, id)| elf.symbol_name(id));
        names()
            .find(|&name| name == function)
            .or_else(|| names().find(|name| canonical(name).base == function))
            .or_else(|| names().next())
    }
}
