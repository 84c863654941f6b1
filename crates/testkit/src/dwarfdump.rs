//! Counts inlined copies a second time, from the text that llvm-dwarfdump prints. Shares nothing with the code under
//! test.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use crate::command;

/// The entries that matter, and the entries that may contain them.
const TAGS: [&str; 5] = [
    "DW_TAG_subprogram",
    "DW_TAG_inlined_subroutine",
    "DW_TAG_lexical_block",
    "DW_TAG_namespace",
    "DW_TAG_try_block",
];

/// The counts.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Functions with an address.
    pub out_of_line: usize,
    /// Functions with an address that are also inlined.
    pub half_inlined: usize,
    /// Half-inlined functions that are inlined into a unit other than their own.
    pub half_inlined_across: usize,
    /// Inlined copies of half-inlined functions.
    pub inlined: usize,
    /// Inlined copies of half-inlined functions in a unit other than the function's own.
    pub inlined_across: usize,
    /// Half-inlined functions that are global.
    pub half_inlined_global: usize,
    /// Functions without an address.
    pub only_inlined: usize,
    /// Inlined copies of the functions without an address.
    pub only_inlined_copies: usize,
    /// Half-inlined functions that have both kinds of copies from one unit's definition.
    pub by_unit: usize,
    /// Half-inlined functions: name, file name without folders, line.
    pub names: BTreeSet<(String, String, u32)>,
}

/// An entry for a function.
#[derive(Default)]
struct Entry {
    unit: u32,
    name: Option<u32>,
    file: Option<u32>,
    line: u32,
    external: bool,
    origin: Option<u64>,
    specification: bool,
    address: Option<u64>,
}

/// An inlined call.
struct Call {
    origin: u64,
    holder: u64,
}

#[derive(Default)]
struct Reading {
    texts: Vec<String>,
    numbers: HashMap<String, u32>,
    entries: HashMap<u64, Entry>,
    calls: Vec<Call>,
    /// For each unit: its name, its folder, and whether it is assembly.
    units: Vec<(String, String, bool)>,
    /// Depth and offset of the open subprograms.
    open: Vec<(usize, u64)>,
    at: u64,
    kind: Kind,
    /// True if the next line is the first range of a list.
    ranges: bool,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Kind {
    #[default]
    Other,
    Unit,
    Function,
    Inlined,
}

/// Counts what `tool` (some llvm-dwarfdump) prints of a file. In a linked image, code at address 0 was discarded.
pub fn count(tool: &str, file: &Path, linked: bool) -> Count {
    let mut dwarfdump = command(tool);
    dwarfdump
        .args(["--debug-info", "--show-children"])
        .args(TAGS.map(|tag| format!("--filter-child-tag={tag}")));
    dwarfdump.arg(file).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = dwarfdump.spawn().expect("llvm-dwarfdump");
    let mut lines = BufReader::with_capacity(1 << 20, child.stdout.take().expect("a pipe"));
    let mut reading = Reading::default();
    let mut line = String::new();
    while lines.read_line(&mut line).expect("text") > 0 {
        reading.line(line.trim_end());
        line.clear();
    }
    assert!(child.wait().expect("an end").success());
    reading.count(linked)
}

impl Reading {
    fn line(&mut self, line: &str) {
        if let Some((offset, rest)) = line.strip_prefix("0x").and_then(|line| line.split_once(':')) {
            let tag = rest.trim_start();
            self.entry(hex(offset), rest.len() - tag.len(), tag);
            return;
        }
        let line = line.trim_start();
        if let Some(range) = line.strip_prefix("[0x").filter(|_| self.ranges) {
            let begin = range.split_once(',').map(|(begin, _)| hex(begin));
            let entry = self.entries.entry(self.at).or_default();
            entry.address = entry.address.or(begin);
            self.ranges = false;
        } else if let Some((name, value)) = line.split_once('\t') {
            self.attribute(name.trim(), value);
        }
    }

    fn entry(&mut self, at: u64, depth: usize, tag: &str) {
        self.at = at;
        self.ranges = false;
        self.open.retain(|&(open, _)| open < depth);
        self.kind = match tag {
            "DW_TAG_compile_unit" | "DW_TAG_partial_unit" => Kind::Unit,
            "DW_TAG_subprogram" => Kind::Function,
            "DW_TAG_inlined_subroutine" => Kind::Inlined,
            _ => Kind::Other,
        };
        match self.kind {
            Kind::Unit => self.units.push(Default::default()),
            Kind::Function => {
                let unit = self.units.len() as u32 - 1;
                self.entries.insert(at, Entry { unit, ..Entry::default() });
                self.open.push((depth, at));
            }
            Kind::Inlined => {
                let holder = self.open.last().expect("a subprogram around it").1;
                self.calls.push(Call { origin: u64::MAX, holder });
            }
            Kind::Other => {}
        }
    }

    fn attribute(&mut self, name: &str, value: &str) {
        let value = value.trim_start_matches('(').trim_end_matches(')');
        let quoted = || value.trim_matches('"').to_owned();
        let reference = || hex(value.trim_start_matches("0x").split(' ').next().unwrap_or_default());
        match (self.kind, name) {
            (Kind::Unit, "DW_AT_name") => self.unit().0 = quoted(),
            (Kind::Unit, "DW_AT_comp_dir") => self.unit().1 = quoted(),
            (Kind::Unit, "DW_AT_language") => self.unit().2 = value == "DW_LANG_Mips_Assembler",
            (Kind::Inlined, "DW_AT_abstract_origin") => {
                self.calls.last_mut().expect("a call").origin = reference();
            }
            (Kind::Function, _) => {
                let text = match name {
                    "DW_AT_name" | "DW_AT_decl_file" => Some(self.number(quoted())),
                    _ => None,
                };
                let entry = self.entries.entry(self.at).or_default();
                match name {
                    "DW_AT_name" => entry.name = text,
                    "DW_AT_decl_file" => entry.file = text,
                    "DW_AT_decl_line" => entry.line = value.parse().expect("a number"),
                    "DW_AT_external" => entry.external = value == "true",
                    "DW_AT_abstract_origin" => entry.origin = Some(reference()),
                    "DW_AT_specification" => {
                        (entry.origin, entry.specification) = (Some(reference()), true);
                    }
                    "DW_AT_low_pc" => entry.address = Some(reference()),
                    "DW_AT_ranges" => self.ranges = true,
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn unit(&mut self) -> &mut (String, String, bool) {
        self.units.last_mut().expect("a unit")
    }

    fn number(&mut self, text: String) -> u32 {
        let next = self.texts.len() as u32;
        let number = *self.numbers.entry(text.clone()).or_insert(next);
        if number == next {
            self.texts.push(text);
        }
        number
    }

    /// Returns name, file and line of the function that an entry stands for, whether it is global, and the unit that
    /// defines it.
    fn meaning(&self, at: u64) -> (Key, bool, u32) {
        let mut entry = &self.entries[&at];
        let mut unit = entry.unit;
        let (mut name, mut place, mut external) = (entry.name, None, false);
        loop {
            name = name.or(entry.name);
            place = place.or(entry.file.map(|file| (file, entry.line)));
            external |= entry.external;
            let Some(origin) = entry.origin else { break };
            let specification = entry.specification;
            entry = &self.entries[&origin];
            if !specification {
                unit = entry.unit;
            }
        }
        let (file, line) = place.map_or((None, 0), |(file, line)| (Some(file), line));
        let file = file.map_or_else(
            || plain(&join(&self.units[unit as usize])),
            |file| plain(&self.texts[file as usize]),
        );
        ((self.texts[name.expect("a name") as usize].clone(), file, line), external, unit)
    }

    fn count(&self, linked: bool) -> Count {
        let path = |unit: u32| plain(&join(&self.units[unit as usize]));
        let alive = |entry: &Entry| {
            !self.units[entry.unit as usize].2 && entry.address.is_some_and(|address| !linked || address != 0)
        };
        let mut out_of_line: HashMap<Key, HashSet<String>> = HashMap::new();
        let mut globals: HashSet<Key> = HashSet::new();
        for (&at, entry) in self.entries.iter().filter(|(_, entry)| alive(entry)) {
            let (key, external, _) = self.meaning(at);
            if external {
                globals.insert(key.clone());
            }
            out_of_line.entry(key).or_default().insert(path(entry.unit));
        }
        // For each function: all inlined copies, those across units, and those from a unit that has an out-of-line
        // copy.
        let mut inlined: HashMap<Key, [usize; 3]> = HashMap::new();
        for call in &self.calls {
            let holder = &self.entries[&call.holder];
            if !alive(holder) {
                continue;
            }
            let (key, external, home) = self.meaning(call.origin);
            if external {
                globals.insert(key.clone());
            }
            let home = path(home);
            let counts = inlined.entry(key.clone()).or_default();
            counts[0] += 1;
            counts[1] += usize::from(home != path(holder.unit));
            counts[2] += usize::from(out_of_line.get(&key).is_some_and(|units| units.contains(&home)));
        }
        let mut count = Count { out_of_line: out_of_line.len(), ..Count::default() };
        for (key, [copies, across, home]) in inlined {
            if !out_of_line.contains_key(&key) {
                count.only_inlined += 1;
                count.only_inlined_copies += copies;
                continue;
            }
            count.half_inlined += 1;
            count.half_inlined_across += usize::from(across > 0);
            count.half_inlined_global += usize::from(globals.contains(&key));
            count.inlined += copies;
            count.inlined_across += across;
            count.by_unit += usize::from(home > 0);
            let (name, file, line) = key;
            let file = file.rsplit('/').next().unwrap_or_default().to_owned();
            count.names.insert((name, file, line));
        }
        count
    }
}

type Key = (String, String, u32);

fn hex(digits: &str) -> u64 {
    u64::from_str_radix(digits.trim().trim_start_matches("0x"), 16).expect("hexadecimal digits")
}

fn join((name, folder, _): &(String, String, bool)) -> String {
    if name.starts_with('/') { name.clone() } else { format!("{folder}/{name}") }
}

/// Returns a path without `.` and `..`.
fn plain(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "." | "" => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}
