//! A change set is right when the original program, with nothing but the functions of the change set diverted to their
//! patched copies, answers as the patched program does. Generated programs and patches; each is run both ways. Both
//! programs are built here, by whole links; only the copies are klpx's.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use klpx_testkit::{command, said};

use crate::toy::{Source, Toy, changed};

/// How many programs.
const SEEDS: u64 = 14;

/// Functions of each kind in a program.
const COUNT: u64 = 6;

/// Numbers from a seed (Knuth's MMIX generator).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// The body of a function that may call the statics below `callees` and does call the one numbered `own`, or the last
/// one; with one line that a patch can replace.
fn body(numbers: &mut Numbers, name: &str, callees: u64, own: u64) -> String {
    let mut text = format!("{{\n\tint {name}_k = {};\n\tint r = n;\n", numbers.below(9));
    for step in 0..1 + numbers.below(10) {
        let k = numbers.below(7) + step;
        match numbers.below(if callees > 0 { 6 } else { 3 }) {
            0 => writeln!(text, "\tr += sink(r ^ {k}) * {name}_k;"),
            1 => writeln!(text, "\tfor (int i = 0; i < (n & {k}); i++)\n\t\tr ^= sink(r + i);"),
            2 => writeln!(text, "\tif (r % {} == {name}_k)\n\t\treturn sink(r - {k});", k + 2),
            _ => {
                let callee = numbers.below(callees);
                writeln!(
                    text,
                    "\tif (s{callee}(r, {}) < 0)\n\t\treturn -{k};\n\tr += s{callee}({k}, r);",
                    numbers.below(3)
                )
            }
        }
        .expect("a string");
    }
    if callees > 0 {
        // No function is dead.
        writeln!(text, "\tr += s{}(r, n);", (callees - 1).min(own)).expect("a string");
    }
    writeln!(text, "\treturn r ^ {name}_k;\n}}\n").expect("a string");
    text
}

/// A program of two units, and a patch to the first.
fn program(seed: u64) -> Source {
    let mut numbers = Numbers(seed);
    let mut first = "extern int sink(int);\n\n".to_owned();
    for n in 0..COUNT {
        let attribute = ["", "", "__attribute__((noinline)) "][numbers.below(3) as usize];
        first.push_str(&format!("static {attribute}int s{n}(int n, int m)\n"));
        first.push_str(&body(&mut numbers, &format!("s{n}"), n, n).replacen(
            "int r = n;",
            "int r = n * m;",
            1,
        ));
    }
    for n in 0..COUNT {
        first.push_str(&format!("int e{n}(int n)\n"));
        first.push_str(&body(&mut numbers, &format!("e{n}"), COUNT, n));
    }
    let mut second: String = (0..COUNT).map(|n| format!("extern int e{n}(int);\n")).collect();
    for n in 0..COUNT {
        second.push_str(&format!(
            "int g{n}(int n)\n{{\n\treturn e{n}(n + {n}) - e{}(n);\n}}\n\n",
            (n + 1) % COUNT
        ));
    }
    // Statics half of the time: what they return is what their callers rely on.
    let kind = ["s", "e"][numbers.below(2) as usize];
    let name = format!("{kind}{}", numbers.below(COUNT));
    let line =
        first.lines().find(|line| line.starts_with(&format!("\tint {name}_k = "))).expect("its constant");
    let replacement = match numbers.below(3) {
        0 => format!("\tint {name}_k = {};", numbers.below(99) + 10),
        1 => format!("{line}\n\tif (__builtin_expect(n < {}, 1))\n\t\treturn -n;", numbers.below(40)),
        _ => format!(
            "{line}\n\tif (n == {})\n\t\tfor (int i = 0; i < 3; i++)\n\t\t\tsink(i);",
            numbers.below(9)
        ),
    };
    let edit = ("fs/a.c".to_owned(), format!("{line}\n"), format!("{replacement}\n"));
    Source {
        files: vec![("fs/a.c".into(), first), ("fs/b.c".into(), second)],
        edits: vec![edit],
        limit: 100,
        ..Source::default()
    }
}

/// Runs every entry of both units on some numbers; `DIVERT` holds the table of functions to divert.
const HARNESS: &str = r#"
#include <stdio.h>
#include <string.h>
#include <stdint.h>
#include <sys/mman.h>
static unsigned state = 1, calls;
int sink(int n) { state = state * 31 + (unsigned)n; if (++calls > 20000) return 7; return (int)(state >> 16) % 13 - 4; }
int new_sink(int n) { return sink(n); }
DIVERT
static void divert(char *from, char *to)
{
	int distance = (int)(to - from - 5);
	mprotect((void *)((uintptr_t)from & ~4095UL), 8192, PROT_READ | PROT_WRITE | PROT_EXEC);
	from[0] = (char)0xe9;
	memcpy(from + 1, &distance, 4);
}
int main(void)
{
	for (unsigned n = 0; n < sizeof(table) / sizeof(table[0]) - 1; n++)
		divert(table[n][0], table[n][1]);
	for (int n = -20; n < 60; n++)
		for (unsigned k = 0; k < sizeof(entries) / sizeof(entries[0]); k++) {
			calls = 0;
			int result = entries[k](n);
			printf("%d %u\n", result, state);
		}
	return 0;
}
"#;

fn run(folder: &Path, program: &str, words: &[&str]) -> String {
    said(command(program).args(words).current_dir(folder))
}

/// What the program says that is made of `objects`, with some functions diverted to their copies with `new_` before
/// their names. What else the copies refer to is the program's own.
fn answers(toy: &Toy, name: &str, objects: &[&str], diverted: &[String]) -> String {
    let mut text = String::new();
    let entries: Vec<String> = (0..COUNT).flat_map(|n| [format!("e{n}"), format!("g{n}")]).collect();
    for entry in &entries {
        writeln!(text, "extern int {entry}(int);").expect("a string");
    }
    for function in diverted.iter().filter(|function| !entries.contains(function)) {
        writeln!(text, "extern char {function}[];").expect("a string");
    }
    for function in diverted {
        writeln!(text, "extern char new_{function}[];").expect("a string");
    }
    let rows: Vec<String> =
        diverted.iter().map(|function| format!("{{(char *){function}, new_{function}}}, ")).collect();
    writeln!(text, "static char *table[][2] = {{ {}{{0}} }};", rows.concat()).expect("a string");
    writeln!(text, "static int (*const entries[])(int) = {{ {} }};", entries.join(", ")).expect("a string");
    toy.write(&format!("{name}.c"), &HARNESS.replace("DIVERT", &text));
    let folder = toy.path("");
    let source = format!("{name}.c");
    let own: Vec<String> = objects
        .iter()
        .flat_map(|object| undefined(toy, object))
        .filter_map(|symbol| {
            let own = symbol.strip_prefix("new_").filter(|own| *own != "sink")?;
            Some(format!("-Wl,--defsym={symbol}={own}"))
        })
        .collect();
    let mut words = vec!["-O1", "-no-pie", "-fno-pie", "-fuse-ld=lld", "-o", name, &source];
    words.extend(objects);
    words.extend(own.iter().map(String::as_str));
    run(&folder, "clang-22", &words);
    said(&mut Command::new(toy.path(name)))
}

/// The program by a whole link, before or after the patch: an object in the toy's folder.
fn built(toy: &Toy, source: &Source, patched: bool, name: &str) {
    let folder = toy.path(&format!("{name}.d"));
    std::fs::create_dir_all(&folder).expect("a folder");
    let mut objects = Vec::new();
    for (path, text) in &source.files {
        let mut text = text.clone();
        for (_, from, to) in source.edits.iter().filter(|(edited, ..)| patched && edited == path) {
            text = text.replacen(from, to, 1);
        }
        let file = path.replace('/', "-");
        std::fs::write(folder.join(&file), text).expect("a file");
        let object = file.replace(".c", ".o");
        let flags = "--target=x86_64-linux-gnu -O2 -g -flto=thin -ffreestanding -fno-pic -mcmodel=kernel \
                     -fno-asynchronous-unwind-tables -c -o";
        let mut words: Vec<&str> = flags.split_ascii_whitespace().collect();
        words.extend([object.as_str(), &file]);
        run(&folder, "clang-22", &words);
        objects.push(object);
    }
    let (limit, output) = (format!("-import-instr-limit={}", source.limit), format!("../{name}"));
    let mut words = vec!["-m", "elf_x86_64", "-mllvm", &limit, "-r", "-o", &output];
    words.extend(objects.iter().map(String::as_str));
    run(&folder, "ld.lld-22", &words);
}

fn symbols(toy: &Toy, object: &str, which: &str) -> Vec<String> {
    let listed = run(&toy.path(""), "llvm-nm-22", &[which, "--format=just-symbols", object]);
    listed.lines().map(str::to_owned).collect()
}

fn undefined(toy: &Toy, object: &str) -> Vec<String> {
    symbols(toy, object, "--undefined-only")
}

fn without_hash(symbol: &str) -> &str {
    symbol.split_once(".llvm.").map_or(symbol, |(name, _)| name)
}

/// The symbol of a function in an object: promoted locals have a hash behind their names.
fn symbol(toy: &Toy, object: &str, function: &str) -> Option<String> {
    symbols(toy, object, "--defined-only").into_iter().find(|name| without_hash(name) == function)
}

/// Gives all functions of an object global names without hashes.
fn expose(toy: &Toy, object: &str) {
    for symbol in
        symbols(toy, object, "--undefined-only").into_iter().chain(symbols(toy, object, "--defined-only"))
    {
        let name = without_hash(&symbol);
        // Sections and jump tables have names that C has not.
        if name.starts_with('.') {
            continue;
        }
        run(&toy.path(""), "llvm-objcopy-22", &[&format!("--globalize-symbol={symbol}"), object]);
        if name != symbol {
            let rename = format!("--redefine-sym={symbol}={name}");
            run(&toy.path(""), "llvm-objcopy-22", &[&rename, object]);
        }
    }
}

fn check(seed: u64) -> bool {
    let source = program(seed);
    let toy = Toy::new(&source, "-22");
    let stabilised = toy.report("inlining");
    built(&toy, &source, false, "old.o");
    built(&toy, &source, true, "wanted.o");
    let wanted = answers(&toy, "wanted", &["wanted.o"], &[]);
    let before = answers(&toy, "before", &["old.o"], &[]);

    let pairs = stabilised["objects"].as_array().expect("kept");
    let copies: Vec<&str> = pairs.iter().map(|pair| pair["patched"].as_str().expect("a path")).collect();
    let mut words = vec!["-m", "elf_x86_64", "-r", "-o", "new.o"];
    words.extend(copies);
    run(&toy.path(""), "ld.lld-22", &words);
    let exists = |name: &String| symbol(&toy, "old.o", name).is_some();
    let replaced: Vec<String> = changed(&stabilised).into_iter().filter(exists).collect();
    expose(&toy, "old.o");
    expose(&toy, "new.o");
    run(&toy.path(""), "llvm-objcopy-22", &["--prefix-symbols=new_", "new.o"]);
    let got = answers(&toy, "diverted", &["old.o", "new.o"], &replaced);
    assert_eq!(got, wanted, "seed {seed}: {replaced:?} are not all that must be replaced");
    before != wanted
}

#[test]
fn the_original_with_the_change_set_diverted_answers_as_the_patched_program() {
    let told_apart = (0..SEEDS).filter(|&seed| check(seed)).count() as u64;
    assert!(told_apart > SEEDS / 2, "{told_apart} of {SEEDS} patches change an answer");
}
