//! The summary that a ThinLTO bitcode file gives the thin link: which functions its functions call, and how often.
//!
//! From the summary, the thin link decides what a unit imports (FunctionImporter,
//! llvm/lib/Transforms/IPO/FunctionImport.cpp). Each call has a hotness, and the size limit for importing its callee
//! grows with the hotness. A cold call imports nothing (`-import-cold-multiplier`, 0) unless the callee is
//! `alwaysinline`. A patched unit that calls a new function imports it, and the unit that defines the function is then
//! compiled differently: its locals are promoted, and LLVM may no longer assume that it sees all their callers. So new
//! calls are made cold. The mark says nothing about the unit's own code, and adds no import.
//!
//! `GLOBALVAL_SUMMARY_BLOCK` (llvm/lib/Bitcode/Writer/BitcodeWriter.cpp) has one record for each function:
//! `FS_PERMODULE_PROFILE: [value, flags, instructions, function flags, n references, read-only ones, write-only ones, n
//! x value, m x (callee, hotness in the lowest three bits)]`. Values count the module's variables, functions, aliases
//! and ifuncs in this order.
//!
//! The format, with a dump: `docs/formats/bitcode.md`.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::bitcode;
use super::bitstream::{self, BlockEntry, BlockReader, OperandField, Record};

const GLOBALVAL_SUMMARY_BLOCK: u64 = 20;
const STRTAB_BLOCK: u64 = 23;

const STRTAB_BLOB: u64 = 1;
const MODULE_CODE_GLOBALVAR: u64 = 7;
const MODULE_CODE_FUNCTION: u64 = 8;
const MODULE_CODE_ALIAS: u64 = 14;
const MODULE_CODE_IFUNC: u64 = 15;
const FS_PERMODULE_PROFILE: u64 = 2;
const FS_VERSION: u64 = 10;

/// The versions of the summary whose records have this layout (LLVM 12 to 22;
/// `ModuleSummaryIndex::BitcodeSummaryVersion`).
const VERSIONS: std::ops::RangeInclusive<u64> = 9..=12;

/// The number of operands before a function record's references.
const HEAD: usize = 7;
const REFERENCES: usize = 4;

/// `CalleeInfo::HotnessType`: 0 unknown, 1 cold, 2 none, 3 hot, 4 critical.
const HOTNESS_BITS: u32 = 3;
const COLD: u64 = 1;

/// A bitcode file in which no call of an original's function imports more than the original did.
pub struct HeldBack {
    /// The patched file, of the same size.
    pub file: Vec<u8>,
    /// The number of functions that the patched unit would newly have requested.
    pub functions: usize,
}

/// Makes those calls of the patched unit cold that the original does not have, or not as hot. Calls of `new` functions
/// stay: no unit of the original can be compiled differently because of them. Returns `None` if there are no such
/// calls, or if a file is not understood.
pub fn without_new_imports(original: &[u8], patched: &[u8], new: impl Fn(&[u8]) -> bool) -> Option<HeldBack> {
    let (original_calls, patched_calls) = (UnitCalls::read(original)?, UnitCalls::read(patched)?);
    let known = original_calls.ranks()?;
    let mut file = patched.to_vec();
    let mut functions = hashbrown::HashSet::<usize, FixedState>::default();
    for call in &patched_calls.calls {
        let callee = patched_calls.values.get(call.callee)?;
        let as_before = known.get(callee.name).copied().unwrap_or(0) >= call.rank();
        if callee.defined || as_before || new(callee.name) {
            continue;
        }
        put(&mut file, call.hotness)?;
        functions.insert(call.callee);
    }
    (!functions.is_empty()).then(|| HeldBack { file, functions: functions.len() })
}

/// The functions that a unit defines. `None` if the file is not understood.
pub fn functions(bytes: &[u8]) -> Option<std::collections::HashSet<&[u8]>> {
    let names = strings(bytes)?;
    let mut entries = BlockReader::new(bytes, bitcode::module(bytes)?);
    let mut found = std::collections::HashSet::new();
    while let Some(entry) = entries.next()? {
        if let BlockEntry::Record(record) = entry
            && record.code == MODULE_CODE_FUNCTION
            && let Some(function) = value(&record, names)?.filter(|value| value.defined)
        {
            found.insert(function.name);
        }
    }
    Some(found)
}

type Map<K, V> = HashMap<K, V, FixedState>;

/// Writes `COLD` over the lowest bits of a field.
fn put(file: &mut [u8], field: OperandField) -> Option<()> {
    if field.low_bits < HOTNESS_BITS {
        return None;
    }
    for n in 0..HOTNESS_BITS {
        let at = field.at + n as usize;
        let byte = file.get_mut(at / 8)?;
        let mask = 1 << (at % 8);
        *byte = if COLD >> n & 1 == 1 { *byte | mask } else { *byte & !mask };
    }
    Some(())
}

/// All calls of a unit's functions.
struct UnitCalls<'d> {
    values: Vec<SummaryValue<'d>>,
    calls: Vec<SummaryCall>,
}

struct SummaryValue<'d> {
    name: &'d [u8],
    /// True if the value is defined in this unit, so that a call of it imports nothing.
    defined: bool,
}

#[derive(Clone, Copy)]
struct SummaryCall {
    callee: usize,
    hotness: OperandField,
}

impl SummaryCall {
    /// How far the call reaches; 0 imports nothing.
    fn rank(&self) -> u8 {
        match self.hotness.value & ((1 << HOTNESS_BITS) - 1) {
            COLD => 0,
            3 => 2,
            4 => 3,
            _ => 1,
        }
    }
}

impl<'d> UnitCalls<'d> {
    fn read(bytes: &'d [u8]) -> Option<UnitCalls<'d>> {
        let names = strings(bytes)?;
        let mut entries = BlockReader::new(bytes, bitcode::module(bytes)?);
        let mut values = Vec::new();
        let mut calls = None;
        while let Some(entry) = entries.next()? {
            match entry {
                BlockEntry::Record(record) => values.extend(value(&record, names)?),
                BlockEntry::Block(block) if block.id == GLOBALVAL_SUMMARY_BLOCK => {
                    calls = Some(summary(BlockReader::new(bytes, block))?);
                }
                BlockEntry::Block(_) => {}
            }
        }
        Some(UnitCalls { values, calls: calls? })
    }

    /// How far the hottest call of each callee reaches.
    fn ranks(&self) -> Option<Map<&'d [u8], u8>> {
        let mut ranks: Map<&[u8], u8> = Map::default();
        for call in &self.calls {
            let rank = ranks.entry(self.values.get(call.callee)?.name).or_default();
            *rank = (*rank).max(call.rank());
        }
        Some(ranks)
    }
}

/// The names of a file's only module, concatenated.
fn strings(bytes: &[u8]) -> Option<&[u8]> {
    let blocks = bitstream::blocks(bytes)?;
    let mut tables = blocks.iter().filter(|block| block.id == STRTAB_BLOCK);
    let (table, None) = (tables.next()?, tables.next()) else { return None };
    let mut entries = BlockReader::new(bytes, *table);
    while let Some(entry) = entries.next()? {
        if let BlockEntry::Record(Record { code: STRTAB_BLOB, blob: Some(range), .. }) = entry {
            return bytes.get(range);
        }
    }
    None
}

/// The global value that a record of the module's block declares: `[offset and size of its name, ...]`, and for a
/// function whether the record is only a prototype. `Some(None)` for other records.
fn value<'d>(record: &Record, names: &'d [u8]) -> Option<Option<SummaryValue<'d>>> {
    let defined = match record.code {
        MODULE_CODE_FUNCTION => record.operands.get(4)?.value == 0,
        MODULE_CODE_GLOBALVAR | MODULE_CODE_ALIAS | MODULE_CODE_IFUNC => true,
        _ => return Some(None),
    };
    let number = |n: usize| usize::try_from(record.operands.get(n)?.value).ok();
    let (start, size) = (number(0)?, number(1)?);
    Some(Some(SummaryValue { name: names.get(start..start.checked_add(size)?)?, defined }))
}

fn summary(mut entries: BlockReader<'_>) -> Option<Vec<SummaryCall>> {
    let mut calls = Vec::new();
    let mut version = None;
    while let Some(entry) = entries.next()? {
        let BlockEntry::Record(record) = entry else { return None };
        match record.code {
            FS_VERSION => version = record.operands.first().map(|field| field.value),
            FS_PERMODULE_PROFILE => {
                let references = usize::try_from(record.operands.get(REFERENCES)?.value).ok()?;
                let edges = record.operands.get(HEAD.checked_add(references)?..)?;
                for edge in edges.chunks(2) {
                    let &[callee, hotness] = edge else { return None };
                    calls.push(SummaryCall { callee: usize::try_from(callee.value).ok()?, hotness });
                }
            }
            _ => {}
        }
    }
    VERSIONS.contains(&version?).then_some(calls)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use klpx_testkit::{command, said};

    use super::super::bitcode::testing::file;
    use super::*;

    const ORIGINAL: &str =
        "int known(int); int own(int n) { return known(n) + 1; } int edit(int n) { return n; }";
    const LIBRARY: &str = "extern int sink(int);
        static __attribute__((noinline)) int helper(int n) { return sink(n) * sink(n + 2) + sink(n - 7); }
        int known(int n) { return n * 3; }
        int fresh(int n) { return helper(n) + helper(n + 1) + helper(n * 2); }";

    fn run(folder: &Path, program: &str, words: &[&str]) -> String {
        said(command(program).args(words).current_dir(folder))
    }

    fn bitcode(folder: &Path, version: &str, name: &str, source: &str) -> Vec<u8> {
        std::fs::write(folder.join(format!("{name}.c")), source).expect("a file");
        let object = format!("{name}.o");
        run(
            folder,
            &format!("clang-{version}"),
            &["-O2", "-g", "-flto=thin", "-c", &format!("{name}.c"), "-o", &object],
        );
        std::fs::read(folder.join(object)).expect("bitcode")
    }

    /// The symbols after a thin link of a unit with the library.
    fn linked(folder: &Path, version: &str, unit: &str) -> String {
        run(folder, &format!("ld.lld-{version}"), &["-r", unit, "library.o", "-o", "linked.o"]);
        run(folder, &format!("llvm-nm-{version}"), &["linked.o"])
    }

    #[test]
    fn a_new_call_imports_nothing_and_old_ones_do_as_before() {
        for version in ["19", "22"] {
            let folder = tempfile::tempdir().expect("a folder");
            let folder = folder.path();
            let original = bitcode(folder, version, "original", ORIGINAL);
            let source = ORIGINAL.replace("return n;", "extern int fresh(int); return fresh(n) + known(2);");
            let patched = bitcode(folder, version, "patched", &source);
            bitcode(folder, version, "library", LIBRARY);
            let held = without_new_imports(&original, &patched, |_| false).expect("a new call");
            assert_eq!(held.functions, 1, "clang {version}");
            assert_eq!(held.file.len(), patched.len());
            let again = without_new_imports(&original, &held.file, |_| false);
            assert!(again.is_none(), "nothing new is left");
            std::fs::write(folder.join("held.o"), &held.file).expect("a file");
            let promoted = |unit| linked(folder, version, unit).contains("helper.llvm.");
            assert!(promoted("patched.o"), "clang {version}: the patched unit asks for fresh and its helper");
            assert!(!promoted("held.o"), "clang {version}");
            assert!(!promoted("original.o"));
            run(folder, &format!("llvm-dis-{version}"), &["held.o", "-o", "held.ll"]);
        }
    }

    #[test]
    fn functions_are_those_that_are_defined_here() {
        let folder = tempfile::tempdir().expect("a folder");
        let original = bitcode(folder.path(), "22", "original", &format!("int data; {ORIGINAL}"));
        let names = functions(&original).expect("bitcode");
        assert_eq!(names, std::collections::HashSet::from([&b"own"[..], b"edit"]));
        assert_eq!(functions(b"\x7fELF"), None);
    }

    #[test]
    fn nothing_is_held_back_where_nothing_is_new() {
        let folder = tempfile::tempdir().expect("a folder");
        let original = bitcode(folder.path(), "22", "original", ORIGINAL);
        assert!(without_new_imports(&original, &original, |_| false).is_none());
        let source = ORIGINAL.replace("return n;", "return own(n) * known(7);");
        let patched = bitcode(folder.path(), "22", "patched", &source);
        assert!(without_new_imports(&original, &patched, |_| false).is_none());
    }

    #[test]
    fn damaged_files_are_no_panic() {
        let folder = tempfile::tempdir().expect("a folder");
        let original = bitcode(folder.path(), "22", "original", ORIGINAL);
        let patched =
            bitcode(folder.path(), "22", "patched", &ORIGINAL.replace("return n;", "return known(n + 1);"));
        for at in (0..patched.len()).step_by(11) {
            without_new_imports(&original, &patched[..at], |_| false);
            let mut damaged = patched.clone();
            damaged[at] ^= 0x5a;
            without_new_imports(&original, &damaged, |_| false);
            without_new_imports(&damaged, &patched, |_| false);
        }
    }

    #[test]
    fn only_bits_that_lie_side_by_side_are_written() {
        let field = |at: usize, low_bits: u32| OperandField { value: 0b111, at, low_bits };
        let both = |first: u8, second: u8| Some([first, second]);
        for (at, low_bits, wanted) in
            [(0, 3, both(0xf9, 0xff)), (6, 5, both(0x7f, 0xfe)), (0, 2, None), (0, 0, None), (14, 3, None)]
        {
            let mut file = [0xff, 0xff];
            let done = put(&mut file, field(at, low_bits));
            assert_eq!(done.map(|()| file), wanted, "{at} {low_bits}");
        }
    }

    fn call(callee: usize, hotness: u64) -> SummaryCall {
        SummaryCall { callee, hotness: OperandField { value: hotness, at: 0, low_bits: 3 } }
    }

    #[test]
    fn a_call_reaches_as_far_as_it_is_hot() {
        let ranks = [0, 1, 2, 3, 4].map(|hotness| call(0, hotness).rank());
        assert_eq!(ranks, [1, 0, 1, 2, 3], "unknown, cold, none, hot, critical");
    }

    #[test]
    fn the_hottest_of_several_calls_counts() {
        let value = |name| SummaryValue { name, defined: false };
        let calls = |calls: Vec<SummaryCall>| UnitCalls { values: vec![value(b"f"), value(b"g")], calls };
        for order in [[1, 3, 0], [3, 0, 1], [0, 1, 3]] {
            let found = calls(order.map(|hotness| call(1, hotness)).to_vec());
            assert_eq!(found.ranks(), Some(Map::from_iter([(&b"g"[..], 2)])), "{order:?}");
        }
        assert_eq!(calls(vec![call(2, 0)]).ranks(), None, "a callee that is not there");
    }

    #[test]
    fn a_summary_of_an_unknown_version_is_not_understood() {
        // A function with 3 instructions that refers to value 1 and calls value 2.
        let function: &[u64] = &[0, 0, 3, 0, 1, 0, 0, 1, 2, 0];
        let calls = |version: Option<u64>| {
            let version = version.map(|version| vec![version]);
            let versions = version.iter().map(|version| (FS_VERSION, version.as_slice()));
            let records: Vec<_> = versions.chain([(FS_PERMODULE_PROFILE, function)]).collect();
            let bytes = file(&[(GLOBALVAL_SUMMARY_BLOCK, &records)]);
            let block = bitstream::blocks(&bytes).expect("a bitstream")[0];
            summary(BlockReader::new(&bytes, block))
                .map(|calls| calls.iter().map(|call| call.callee).collect())
        };
        for version in [9, 10, 11, 12] {
            assert_eq!(calls(Some(version)), Some(vec![2]), "version {version}");
        }
        for version in [None, Some(0), Some(8), Some(13)] {
            assert_eq!(calls(version), None, "version {version:?}");
        }
    }

    #[test]
    fn only_calls_of_the_originals_functions_are_held_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let original = bitcode(folder.path(), "22", "original", ORIGINAL);
        let source = ORIGINAL.replace(
            "int edit(int n) { return n; }",
            "int fresh(int); __attribute__((noinline)) int mine(int n) { return n * 3; }
            int edit(int n) { return fresh(n) + mine(n) + own(n); }",
        );
        let patched = bitcode(folder.path(), "22", "patched", &source);
        let held = without_new_imports(&original, &patched, |_| false).expect("a new call");
        assert_eq!(held.functions, 1, "neither mine nor own, which are here");
        assert!(without_new_imports(&original, &patched, |name| name == b"fresh").is_none());
    }
}
