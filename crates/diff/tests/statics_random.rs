//! Random programs before and after an edit, whose functions have static variables of one name. The test knows the true
//! pairs: a pair must be right, or the variable must be unsettled without a pair.
//!
//! `KLPX_PAIRS` is the number of pairs of programs. CI tries few; a run by hand tries 100,000.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use klpx_diff::{Correlation, Edits, LineState, Sources, correlate};
use klpx_normalize::elf::ElfFile;
use klpx_normalize::object::{ItemId, Object};
use klpx_testkit::command;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};

/// Number of pairs in one unit: a compiler takes longer to start than to compile a pair.
const PAIRS: usize = 100;

/// One static of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Static {
    /// The identity of the static, in both programs.
    id: u32,
    /// The operator of its use.
    operator: char,
}

#[derive(Clone, Debug)]
struct Function {
    statics: Vec<Static>,
    /// Decides the constants of the function's code.
    seed: u32,
    inline: bool,
}

type Program = Vec<Function>;

/// An edit of a program. It takes a function, one of its statics, and a second function.
#[derive(Clone, Copy, Debug)]
enum Edit {
    Remove,
    Add(char),
    Constants,
    Swap,
    Move,
}

/// Returns a number that depends on two others.
fn mixed(a: u32, b: u32) -> u32 {
    (a.wrapping_mul(0x9e37_79b1) ^ b.wrapping_mul(0x85eb_ca6b)).wrapping_mul(0xc2b2_ae35) >> 16
}

impl Function {
    /// Returns the constant in the use of one of the function's statics.
    fn constant(&self, of: Static) -> u32 {
        mixed(self.seed, of.id) % 4
    }
}

fn operator() -> impl Strategy<Value = char> {
    prop::sample::select(vec!['+', '^', '|', '-'])
}

fn program() -> impl Strategy<Value = Program> {
    let function = (prop::collection::vec(operator(), 0..3), 0u32..4, prop::bool::weighted(0.4));
    prop::collection::vec(function, 2..5).prop_map(|functions| {
        let mut id = 0;
        let mut number = |operator| {
            id += 1;
            Static { id, operator }
        };
        let made = functions.into_iter().map(|(operators, seed, inline)| Function {
            statics: operators.into_iter().map(&mut number).collect(),
            seed,
            inline,
        });
        made.collect()
    })
}

type Where = (Edit, prop::sample::Index, prop::sample::Index, prop::sample::Index);

fn index() -> impl Strategy<Value = prop::sample::Index> {
    any::<prop::sample::Index>()
}

fn edits() -> impl Strategy<Value = Vec<Where>> {
    let edit = prop_oneof![
        Just(Edit::Remove),
        operator().prop_map(Edit::Add),
        Just(Edit::Constants),
        Just(Edit::Swap),
        Just(Edit::Move),
    ];
    prop::collection::vec((edit, index(), index(), index()), 1..4)
}

fn edited(before: &Program, edits: &[Where]) -> Program {
    let mut after = before.clone();
    let mut id = 1000;
    for (edit, function, of, other) in edits {
        let at = function.index(after.len());
        let count = after[at].statics.len();
        match edit {
            Edit::Add(operator) => {
                id += 1;
                after[at].statics.insert(of.index(count + 1), Static { id, operator: *operator });
            }
            Edit::Constants => after[at].seed += 1,
            _ if count == 0 => {}
            Edit::Remove => {
                after[at].statics.remove(of.index(count));
            }
            Edit::Swap => after[at].statics.reverse(),
            Edit::Move => {
                let moved = after[at].statics.remove(of.index(count));
                let to = other.index(after.len());
                after[to].statics.push(moved);
            }
        }
    }
    after
}

/// Writes the C text of the `n`th program of a unit. The use of each static leaves a note in the assembly. The line
/// number of a static's declaration is the static's id.
fn text(n: usize, program: &Program, out: &mut String) {
    for (at, function) in program.iter().enumerate() {
        let head = if function.inline { "static inline int" } else { "int" };
        let _ = writeln!(out, "{head} f{n}_{at}(int x) {{");
        for of in &function.statics {
            let (id, operator, constant) = (of.id, of.operator, function.constant(*of));
            let _ = writeln!(out, "{{\n#line {id}\nstatic int n{n};");
            let _ = writeln!(out, "asm(\"# ID{id} %0\" :: \"m\"(n{n}));");
            let _ = writeln!(out, "n{n} {operator}= ext(x + {constant}, n{n}); }}");
        }
        if let Some(before) = at.checked_sub(1).filter(|&before| program[before].inline) {
            let _ = writeln!(out, "x += f{n}_{before}(x);");
        }
        let _ = writeln!(out, "return x + {}; }}", function.seed % 5);
    }
}

/// An object, and the id of the static for each symbol.
struct Unit {
    file: ElfFile,
    ids: BTreeMap<String, u32>,
}

fn compile(compiler: &str, programs: &[&Program]) -> Unit {
    let folder = tempfile::tempdir().expect("a folder");
    let mut source = "extern int ext(int, int);\n".to_owned();
    programs.iter().enumerate().for_each(|(n, program)| text(n, program, &mut source));
    std::fs::write(folder.path().join("unit.c"), source).expect("a source");
    let run = |arguments: &[&str]| {
        klpx_testkit::run(command(compiler).args(arguments).current_dir(folder.path()));
    };
    run(&[
        "-O2",
        "-fno-pic",
        "-mcmodel=kernel",
        "-fno-common",
        "-ffunction-sections",
        "-fdata-sections",
        "-g",
        "-fno-asynchronous-unwind-tables",
        "-fcf-protection=none",
        "-ffreestanding",
        "-pg",
        "-mfentry",
        "-S",
        "unit.c",
        "-o",
        "unit.s",
        &format!("-fdebug-prefix-map={}=.", folder.path().display()),
    ]);
    run(&["-c", "unit.s", "-o", "unit.o"]);
    let assembly = std::fs::read_to_string(folder.path().join("unit.s")).expect("the assembly");
    let mut ids = BTreeMap::new();
    for line in assembly.lines() {
        let note = line.split_once("# ID").and_then(|(_, note)| note.split_once(' '));
        if let Some((id, symbol)) = note
            && let Some(symbol) = symbol.strip_suffix("(%rip)").or_else(|| symbol.split('(').next())
        {
            ids.insert(symbol.to_owned(), id.parse().expect("a number"));
        }
    }
    let bytes = std::fs::read(folder.path().join("unit.o")).expect("an object");
    Unit { file: ElfFile::from_bytes(Path::new("unit.o"), bytes), ids }
}

/// Counts of the statics of the second programs that the first programs also have: how many are paired, and how many
/// there are.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    paired: usize,
    all: usize,
}

/// Checks all pairs of a unit.
fn check(pairs: &[(Program, Program)], compiler: &str, edits: Option<&dyn Edits>) -> Count {
    let [before, after]: [Vec<&Program>; 2] =
        [pairs.iter().map(|pair| &pair.0).collect(), pairs.iter().map(|pair| &pair.1).collect()];
    let (a, b) = (compile(compiler, &before), compile(compiler, &after));
    let (original, patched) =
        (Object::read(&a.file).expect("an object"), Object::read(&b.file).expect("an object"));
    let found = correlate(&original, &patched, edits.map_or(Sources::Unknown, Sources::Edited));
    // A function that nobody calls is in no object; its statics are absent as well.
    let there: BTreeSet<(Option<usize>, u32)> =
        a.ids.iter().map(|(name, &id)| (number_in(name), id)).collect();
    let mut count = Count::default();
    for item in patched.item_ids() {
        let name = String::from_utf8_lossy(patched.item_name(item)).into_owned();
        let Some(&id) = b.ids.get(&name) else { continue };
        let of: usize = number_in(&name).expect("the number of its program");
        let (before, after) = &pairs[of];
        let program = || {
            let mut sources = String::new();
            text(of, before, &mut sources);
            sources.push_str("---\n");
            text(of, after, &mut sources);
            format!("{sources}ID{id} {name}")
        };
        let was_there = there.contains(&(Some(of), id));
        count.all += usize::from(was_there);
        match original_of(&found, item) {
            Some(x) => {
                let theirs = a.ids[&String::from_utf8_lossy(original.item_name(x)).into_owned()];
                let right = theirs == id || are_alike(place(before, theirs), place(after, id));
                assert!(right, "paired with ID{theirs}\n{}", program());
                count.paired += usize::from(was_there);
            }
            // A new static that looks just like the old one took its place, and nobody could tell.
            None if was_there && is_taken(&found, &original, &a.ids, (of, id)) => {}
            None => assert!(!was_there || found.is_unsettled(item), "taken for new\n{}", program()),
        }
    }
    count
}

/// Returns true if the static of this program and id has a counterpart.
fn is_taken(
    found: &Correlation,
    original: &Object<'_>,
    ids: &BTreeMap<String, u32>,
    (program, id): (usize, u32),
) -> bool {
    original.item_ids().any(|item| {
        let name = String::from_utf8_lossy(original.item_name(item)).into_owned();
        ids.get(&name) == Some(&id)
            && number_in(&name) == Some(program)
            && found.patched_of[item.index()].is_some()
    })
}

fn original_of(found: &Correlation, patched: ItemId) -> Option<ItemId> {
    found.original_of[patched.index()].map(|(original, _)| original)
}

/// Returns the number in `n17.3` and in `f17_0.n17.3`.
fn number_in(symbol: &str) -> Option<usize> {
    let name = symbol.split('.').find(|part| part.starts_with('n'))?;
    name[1..].parse().ok()
}

/// Returns where and how a program uses a static.
fn place(program: &Program, id: u32) -> Option<(usize, char, u32)> {
    program.iter().enumerate().find_map(|(at, function)| {
        let of = function.statics.iter().find(|of| of.id == id)?;
        Some((at, of.operator, function.constant(*of)))
    })
}

/// Returns true if the same function uses both statics in the same way: nobody could tell that one replaced the other.
fn are_alike(one: Option<(usize, char, u32)>, other: Option<(usize, char, u32)>) -> bool {
    one.is_some() && one == other
}

/// Returns the number of pairs to try.
fn wanted() -> usize {
    std::env::var("KLPX_PAIRS").ok().and_then(|pairs| pairs.parse().ok()).unwrap_or(1_000)
}

/// Tries pairs until the wanted number is reached.
fn try_pairs(check: impl Fn(&[(Program, Program)]) -> Count) -> Count {
    let config = Config { failure_persistence: None, max_shrink_iters: 0, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(
        config,
        prop::test_runner::TestRng::deterministic_rng(prop::test_runner::RngAlgorithm::ChaCha),
    );
    let pair = (program(), edits()).prop_map(|(before, edits)| {
        let after = edited(&before, &edits);
        (before, after)
    });
    let unit = prop::collection::vec(pair, PAIRS);
    let mut count = Count::default();
    for _ in 0..wanted().div_ceil(PAIRS) {
        let pairs = unit.new_tree(&mut runner).expect("programs").current();
        let found = check(&pairs);
        count = Count { paired: count.paired + found.paired, all: count.all + found.all };
    }
    println!("{} of {} statics paired", count.paired, count.all);
    count
}

#[test]
fn a_pair_is_right_or_there_is_none() {
    let count = try_pairs(|pairs| check(pairs, "gcc-12", None));
    // Nothing is known of the sources, and most programs change every use: the rest of the statics is unsettled.
    assert!(count.paired * 5 > count.all * 2, "{count:?}");
}

/// The ids of statics that both programs have in one function. An id is also a line number, and such a line is kept.
struct Kept(BTreeSet<u32>);

impl Edits for Kept {
    fn original(&self, _file: &str, line: u32) -> LineState {
        if self.0.contains(&line) { LineState::Kept } else { LineState::Edited }
    }

    fn patched(&self, file: &str, line: u32, _name: &str) -> LineState {
        self.original(file, line)
    }
}

#[test]
fn a_declaration_that_no_edit_touches_settles_it() {
    for compiler in ["gcc-12", "clang-22"] {
        let count = try_pairs(|pairs| {
            // One program for each unit: a line that is kept in one program is not kept in another.
            let count = pairs.iter().take(4).map(|pair| {
                let function = |program: &Program, id| place(program, id).map(|(function, ..)| function);
                let ids = pair.0.iter().flat_map(|function| &function.statics).map(|of| of.id);
                let kept = ids.filter(|&id| function(&pair.0, id) == function(&pair.1, id)).collect();
                check(std::slice::from_ref(pair), compiler, Some(&Kept(kept)))
            });
            count.fold(Count::default(), |sum, found| Count {
                paired: sum.paired + found.paired,
                all: sum.all + found.all,
            })
        });
        // The rest of the statics moved to another function.
        assert!(count.paired * 10 > count.all * 8, "{compiler}: {count:?}");
    }
}
