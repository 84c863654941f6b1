//! Merges the units of a file: each reference is followed to the function that it means, in whatever unit.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

use hashbrown::HashMap;
use klpx_diagnosis::{Diagnosis, Result, codes};
use klpx_normalize::arch::Arch;
use klpx_normalize::elf::SectionId;
use rayon::prelude::*;

use super::places::{CopyPlace, Places};
use super::scanned::{Die, NONE, RawInlined, ScannedUnit, SubprogramOrigin};
use super::texts::{FileTable, Texts};
use super::{CopyId, Function, FunctionId, Inlined, InlinedId, OutOfLine, Survey, TextId};
use crate::sections::{DebugSections, TextPlace};

/// The most entries between an entry that uses a function and the entry that names it.
const MAX_HOPS: u8 = 8;

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// The meaning of an entry, together with the entries that it refers to.
#[derive(Clone, Copy)]
struct Meaning {
    /// The function; [`NONE`] until the first request.
    function: u32,
    /// The file of the unit that defines the function.
    home: TextId,
}

/// A subprogram entry: its unit, and its index in the unit.
#[derive(Clone, Copy)]
struct DieId {
    unit: u32,
    index: u32,
}

struct Merge<'a> {
    sections: &'a DebugSections<'a>,
    units: &'a [ScannedUnit],
    files: FileTable,
    texts: Texts,
    /// The meanings of each unit's entries.
    meanings: Vec<Vec<Meaning>>,
    /// Functions by name, file and line.
    known: Map<(TextId, TextId, u32), u32>,
    functions: Vec<Function>,
    copies: Vec<OutOfLine>,
    /// For each unit, the number of each of its copies in `copies`; [`NONE`] for a copy without code.
    kept: Vec<Vec<u32>>,
}

/// Makes a survey of the units' facts.
pub(super) fn merge(
    arch: Arch,
    sections: &DebugSections<'_>,
    tree: Option<&Path>,
    units: &[ScannedUnit],
    places: &Places<'_>,
) -> Result<Survey> {
    let mut texts = Texts::default();
    let files = FileTable::name(&mut texts, sections, units, tree);
    let unasked = Meaning { function: NONE, home: TextId(NONE) };
    let mut merge = Merge {
        sections,
        units,
        files,
        texts,
        meanings: units.iter().map(|unit| vec![unasked; unit.functions.len()]).collect(),
        known: Map::default(),
        functions: Vec::new(),
        copies: Vec::new(),
        kept: Vec::with_capacity(units.len()),
    };
    merge.find_copies(places)?;
    merge.find_inlined()?;
    let (producers, versions) = compilers(sections, units);
    Ok(merge.finish(arch, !places.object, producers, versions))
}

impl Merge<'_> {
    /// Finds every copy that has code.
    fn find_copies(&mut self, places: &Places<'_>) -> Result<()> {
        let of_unit = |unit: &ScannedUnit| -> Vec<Option<CopyPlace>> {
            unit.copies.iter().map(|copy| places.find(copy.address)).collect()
        };
        let found: Vec<Vec<Option<CopyPlace>>> = self.units.par_iter().map(of_unit).collect();
        let mut section_names: Map<SectionId, TextId> = Map::default();
        let elf = self.sections.elf();
        for (number, (unit, found)) in self.units.iter().zip(found).enumerate() {
            let mut numbers = Vec::with_capacity(found.len());
            for (copy, place) in unit.copies.iter().zip(found) {
                let Some(place) = place else {
                    numbers.push(NONE);
                    continue;
                };
                let die = DieId { unit: number as u32, index: copy.function };
                let nameless = || nameless(self.units[number].functions[copy.function as usize].at);
                let function = self.meaning(die).ok_or_else(nameless)?.function;
                let name = self.functions[function as usize].name;
                let symbol = places.symbol(&place, self.texts.get(name).as_bytes());
                let section = || self.texts.add(&String::from_utf8_lossy(elf.section_name(place.section)));
                numbers.push(self.copies.len() as u32);
                let section = *section_names.entry(place.section).or_insert_with(section);
                self.copies.push(OutOfLine {
                    function: FunctionId(function),
                    unit: self.files.units[number],
                    named: symbol.is_some(),
                    symbol: match symbol {
                        Some(symbol) if symbol != self.texts.get(name).as_bytes() => {
                            self.texts.add(&String::from_utf8_lossy(symbol))
                        }
                        _ => name,
                    },
                    section,
                    section_id: place.section,
                    address: place.shown,
                    bytes: copy.bytes,
                    reach: place.reach,
                });
            }
            self.kept.push(numbers);
        }
        Ok(())
    }

    /// Gives a meaning to every function with an inlined copy inside a copy that has code.
    fn find_inlined(&mut self) -> Result<()> {
        for (number, unit) in self.units.iter().enumerate() {
            for call in &unit.inlined {
                if self.kept[number][call.holder as usize] == NONE {
                    continue;
                }
                let die = self.find(number as u32, call.origin);
                if die.and_then(|die| self.meaning(die)).is_none() {
                    return Err(nameless(unit.place_of(call.origin)).into());
                }
            }
        }
        Ok(())
    }

    /// Returns the entry that a unit's reference leads to.
    fn find(&self, unit: u32, origin: SubprogramOrigin) -> Option<DieId> {
        match origin {
            SubprogramOrigin::None => None,
            SubprogramOrigin::Here(index) => Some(DieId { unit, index }),
            SubprogramOrigin::There(at) => {
                let after = self.units.partition_point(|unit| unit.start <= at);
                let unit = after.checked_sub(1)?;
                let index = self.units[unit].functions.binary_search_by_key(&at, |die| die.at).ok()?;
                Some(DieId { unit: unit as u32, index: index as u32 })
            }
        }
    }

    /// Returns the meaning of an entry; `None` if the entry leads to no name.
    fn meaning(&mut self, die: DieId) -> Option<Meaning> {
        let known = self.meanings[die.unit as usize][die.index as usize];
        if known.function != NONE {
            return Some(known);
        }
        let (mut at, mut abstract_instance) = (die, die);
        let (mut name, mut file, mut line) = (TextPlace::None, None, 0);
        let (mut external, mut declared_inline) = (false, false);
        for _ in 0..MAX_HOPS {
            let entry = self.die(at);
            if name == TextPlace::None {
                name = entry.name;
            }
            if file.is_none() && entry.file != NONE {
                (file, line) = (self.files.get(at.unit, entry.file), entry.line);
            }
            external |= entry.external;
            declared_inline |= entry.declared_inline;
            let Some(next) = self.find(at.unit, entry.origin) else { break };
            if !entry.by_specification {
                abstract_instance = next;
            }
            at = next;
        }
        let name = self.texts.add_at(self.sections, name)?;
        let home = self.files.units[abstract_instance.unit as usize];
        let function = self.function(name, file.unwrap_or(home), line);
        let found = &mut self.functions[function as usize];
        found.external |= external;
        found.declared_inline |= declared_inline;
        let meaning = Meaning { function, home };
        self.meanings[die.unit as usize][die.index as usize] = meaning;
        Some(meaning)
    }

    fn die(&self, id: DieId) -> &Die {
        &self.units[id.unit as usize].functions[id.index as usize]
    }

    fn function(&mut self, name: TextId, file: TextId, line: u32) -> u32 {
        let next = self.functions.len() as u32;
        let number = *self.known.entry((name, file, line)).or_insert(next);
        if number == next {
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
        number
    }

    /// Connects all parts of the survey, in an order that does not depend on the file's order.
    fn finish(
        mut self,
        arch: Arch,
        linked: bool,
        producers: Vec<(String, usize)>,
        versions: Vec<u16>,
    ) -> Survey {
        let function_ranks = self.sort_functions();
        let copy_ranks = self.sort_copies(&function_ranks);
        let is_unit = self.units_by_text();
        let inlined = self.inlined(&function_ranks, &copy_ranks, &is_unit);
        let Merge { mut functions, copies, files, mut texts, units, .. } = self;
        let (mut copy, mut call) = (0, 0);
        for (n, function) in functions.iter_mut().enumerate() {
            let id = FunctionId(n as u32);
            function.copies = run(&mut copy, &copies, |copy| copy.function == id);
            function.inlined = run(&mut call, &inlined, |call| call.function == id);
            function.included = !is_unit[function.file.0 as usize];
        }
        functions.par_iter_mut().for_each(|function| function.by_unit = by_unit(function, &copies, &inlined));
        texts.close();
        let mut unit_files: Vec<TextId> =
            (0..is_unit.len() as u32).map(TextId).filter(|id| is_unit[id.0 as usize]).collect();
        unit_files.sort_unstable_by_key(|&unit| texts.get(unit));
        Survey {
            arch,
            producers,
            versions,
            units: units.len(),
            linked,
            functions,
            copies,
            inlined,
            root: files.root,
            unit_files,
            texts,
        }
    }

    /// Returns for each text whether it is a unit's own file. A partial unit has no file.
    fn units_by_text(&self) -> Vec<bool> {
        let mut is_unit = vec![false; self.texts.len()];
        for &unit in self.files.units.iter().filter(|&&unit| !self.texts.get(unit).is_empty()) {
            is_unit[unit.0 as usize] = true;
        }
        is_unit
    }

    /// Sorts functions by file, line and name. Returns the new number of each.
    fn sort_functions(&mut self) -> Vec<u32> {
        let texts = &self.texts;
        let mut files: Vec<TextId> = self.functions.iter().map(|function| function.file).collect();
        files.sort_unstable();
        files.dedup();
        files.sort_unstable_by_key(|&file| texts.get(file));
        let mut file_ranks = vec![0; texts.len()];
        for (n, file) in files.iter().enumerate() {
            file_ranks[file.0 as usize] = n as u32;
        }
        let place = |function: &Function| (file_ranks[function.file.0 as usize], function.line);
        let mut order: Vec<((u32, u32), u32)> =
            self.functions.iter().zip(0..).map(|(function, n)| (place(function), n)).collect();
        let name = |n: u32| texts.get(self.functions[n as usize].name);
        order.par_sort_unstable_by(|(a, m), (b, n)| a.cmp(b).then_with(|| name(*m).cmp(name(*n))));
        let order: Vec<u32> = order.into_iter().map(|(_, n)| n).collect();
        self.functions = order.iter().map(|&n| self.functions[n as usize].clone()).collect();
        inverse(&order)
    }

    /// Sorts copies by function, section and address. Returns the new number of each.
    fn sort_copies(&mut self, function_ranks: &[u32]) -> Vec<u32> {
        for copy in &mut self.copies {
            copy.function = FunctionId(function_ranks[copy.function.0 as usize]);
        }
        let mut order: Vec<u32> = (0..self.copies.len() as u32).collect();
        order.par_sort_unstable_by_key(|&n| {
            let copy = &self.copies[n as usize];
            (copy.function, self.texts.get(copy.section), copy.address, n)
        });
        self.copies = order.iter().map(|&n| self.copies[n as usize].clone()).collect();
        inverse(&order)
    }

    /// Returns every inlined copy whose holder has code, by function and holder, then in the order of the file.
    fn inlined(&self, function_ranks: &[u32], copy_ranks: &[u32], is_unit: &[bool]) -> Vec<Inlined> {
        let mut first = Vec::with_capacity(self.units.len());
        let mut count = 0;
        for unit in self.units {
            first.push(count);
            count += unit.inlined.len() as u32;
        }
        let of_unit = |number: usize| {
            let keys = self.units[number].inlined.iter().zip(first[number]..);
            keys.filter_map(move |(call, n)| {
                let holder = *copy_ranks.get(self.kept[number][call.holder as usize] as usize)?;
                let meaning = self.meaning_of(number as u32, call)?;
                Some((function_ranks[meaning.function as usize], holder, n))
            })
        };
        let mut order: Vec<(u32, u32, u32)> =
            (0..self.units.len()).into_par_iter().flat_map_iter(of_unit).collect();
        order.par_sort_unstable();
        let mut ranks = vec![NONE; count as usize];
        for (rank, &(_, _, n)) in order.iter().enumerate() {
            ranks[n as usize] = rank as u32;
        }
        let one = |&(function, holder, n): &(u32, u32, u32)| {
            let number = first.partition_point(|&first| first <= n) - 1;
            let call = &self.units[number].inlined[(n - first[number]) as usize];
            let home = self.meaning_of(number as u32, call).map_or(TextId(NONE), |meaning| meaning.home);
            let parent = (call.parent != NONE).then(|| ranks[(first[number] + call.parent) as usize]);
            Inlined {
                function: FunctionId(function),
                holder: CopyId(holder),
                parent: parent.map(InlinedId),
                file: self.files.get(number as u32, call.file),
                line: call.line,
                column: call.column,
                across: home != self.files.units[number] && is_unit[home.0 as usize],
                home,
                bytes: call.bytes,
            }
        };
        order.par_iter().map(one).collect()
    }

    /// Returns the meaning of an inlined function, if it is already known.
    fn meaning_of(&self, unit: u32, call: &RawInlined) -> Option<Meaning> {
        let die = self.find(unit, call.origin)?;
        let meaning = self.meanings[die.unit as usize][die.index as usize];
        (meaning.function != NONE).then_some(meaning)
    }
}

/// Returns true if a function has both kinds of copies from one unit's definition.
fn by_unit(function: &Function, copies: &[OutOfLine], inlined: &[Inlined]) -> bool {
    let all = |range: &Range<u32>| range.start as usize..range.end as usize;
    let (copies, inlined) = (&copies[all(&function.copies)], &inlined[all(&function.inlined)]);
    if copies.is_empty() || inlined.is_empty() {
        return false;
    }
    let units: BTreeSet<TextId> = copies.iter().map(|copy| copy.unit).collect();
    inlined.iter().any(|call| units.contains(&call.home))
}

fn inverse(order: &[u32]) -> Vec<u32> {
    let mut rank = vec![0; order.len()];
    for (n, &item) in order.iter().enumerate() {
        rank[item as usize] = n as u32;
    }
    rank
}

/// Returns the range of the next items that belong together.
fn run<T>(next: &mut u32, items: &[T], belongs: impl Fn(&T) -> bool) -> Range<u32> {
    let start = *next;
    while items.get(*next as usize).is_some_and(&belongs) {
        *next += 1;
    }
    start..*next
}

fn nameless(at: u32) -> Diagnosis {
    Diagnosis::new(
        &codes::BAD_DWARF,
        "the debug information can't be read",
        format!("the entry at {at:#x} of .debug_info should be a function, and leads to no name"),
        "build the file again; if it came from a package, check its integrity",
    )
}

/// Returns the compilers with their numbers of units, and the DWARF versions.
fn compilers(sections: &DebugSections<'_>, units: &[ScannedUnit]) -> (Vec<(String, usize)>, Vec<u16>) {
    let mut texts: Map<TextPlace, usize> = Map::default();
    for unit in units {
        *texts.entry(unit.producer).or_default() += 1;
    }
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (producer, units) in texts {
        *counts.entry(compiler(&String::from_utf8_lossy(sections.text(producer)))).or_default() += units;
    }
    let mut producers: Vec<(String, usize)> = counts.into_iter().collect();
    producers.sort_by_key(|(_, units)| std::cmp::Reverse(*units));
    let versions: BTreeSet<u16> = units.iter().map(|unit| unit.version).collect();
    (producers, versions.into_iter().collect())
}

/// Returns a compiler's name and version, without its options and the packager's additions.
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
