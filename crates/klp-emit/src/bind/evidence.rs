//! Which evidence binds a symbol, and which symbols stay unbound: units and kernels of a few lines of assembly. Test
//! code only.

use super::*;
use klpx_testkit::fixture::Fixture;

/// A function; `mark` is a label at its place that the tests know.
fn code(scope: &str, name: &str, mark: &str, body: &str) -> String {
    format!(
        ".text\n.balign 16\n{}.{scope} {name}\n.type {name},@function\n{name}: {body}\nret\n.size {name},.-{name}\n",
        marked(mark)
    )
}

/// A variable of some bytes, each with this value.
fn data(scope: &str, name: &str, mark: &str, (size, value): (u32, u32)) -> String {
    format!(
        ".data\n.balign 16\n{}.{scope} {name}\n.type {name},@object\n{name}: .fill {size},1,{value}\n.size {name},{size}\n",
        marked(mark)
    )
}

fn marked(mark: &str) -> String {
    if mark.is_empty() { String::new() } else { format!(".globl {mark}\n{mark}:\n") }
}

/// A kernel of these files, a unit, and the expected binding of one of its symbols: the mark of a place, and the
/// evidence.
struct Case<'c> {
    what: &'c str,
    kernel: &'c [(&'c str, String)],
    unit: &'c [(&'c str, String)],
    asked: &'c [(&'c str, Option<(&'c str, SymbolEvidence)>)],
}

fn check(case: &Case<'_>) {
    let f = Fixture::new();
    let assemble = |prefix: &str, files: &[(&str, String)]| -> Vec<String> {
        let each = files.iter().enumerate().map(|(n, (file, text))| {
            let name = format!("{prefix}{n}");
            f.assemble(&name, &format!(".file \"{file}\"\n{text}"));
            format!("{name}.o")
        });
        each.collect()
    };
    let kernel = assemble("kernel", case.kernel);
    f.link(&kernel.iter().map(String::as_str).collect::<Vec<_>>(), "vmlinux");
    let unit = assemble("unit", case.unit);
    if unit.len() > 1 {
        f.combine(&unit.iter().map(String::as_str).collect::<Vec<_>>(), "units.o");
    }
    let (file, image) = (f.open(if unit.len() > 1 { "units.o" } else { "unit0.o" }), f.open("vmlinux"));
    let object = Object::read(&file).expect("a sound object");
    let image = Image::read(&image, "vmlinux").expect("a sound image");
    let binding = Binding::new(&object, &image);
    let place = |name: &str| image.global(name.as_bytes()).and_then(|id| image.address(id)).expect("a mark");
    for &(name, wanted) in case.asked {
        let symbol = object.elf.symbol_ids().find(|&id| object.elf.symbol_name(id) == name.as_bytes());
        let found = binding.counterpart(symbol.expect("a symbol of the unit"));
        let found = found.map(|(id, evidence)| (image.address(id), evidence));
        let wanted = wanted.map(|(mark, evidence)| (Some(place(mark)), evidence));
        assert_eq!(found, wanted, "{}: {name}", case.what);
    }
}

/// A function that ThinLTO promoted. The reference to the section leaves the section's symbol after the FILE symbol, as
/// compilers do.
fn hidden(name: &str, mark: &str, body: &str) -> String {
    code("globl", name, mark, body) + &format!(".hidden {name}\n.data\n.quad .text\n")
}

#[test]
fn each_symbol_is_bound_by_its_evidence_or_not_at_all() {
    let load = |name: &str| format!("mov {name}(%rip),%eax");
    let call = |name: &str| format!("call {name}");
    // With a promoted name in the kernel, symbols of other files are candidates.
    let promoted = || ("other.c", hidden("thing.llvm.5", "", "nop"));
    let same = (4, 7);
    use SymbolEvidence::{CanonicalName, Contents, FileAndName, Global, PromotedTogether, Reference, Size};
    let cases = [
        Case {
            what: "code is no data",
            kernel: &[("a.c", data("local", "x", "", same))],
            unit: &[("a.c", code("local", "x", "", "nop"))],
            asked: &[("x", None)],
        },
        Case {
            what: "a local of another file",
            kernel: &[("a.c", code("local", "x", "", "nop")), ("b.c", code("local", "y", "", "nop")), promoted()],
            unit: &[("b.c", code("local", "x", "", "nop") + &code("local", "y", "", "nop"))],
            asked: &[("x", None)],
        },
        Case {
            what: "a local that is a global of another file",
            kernel: &[("a.c", code("globl", "x.part.1", "", "nop")), ("b.c", code("local", "y", "", "nop")), promoted()],
            unit: &[("b.c", code("local", "x.part.0", "", "nop") + &code("local", "y", "", "nop"))],
            asked: &[("x.part.0", None)],
        },
        Case {
            what: "a global that is a local",
            kernel: &[("a.c", code("local", "x.part.1", "", "nop")), promoted()],
            unit: &[("a.c", code("globl", "x.part.0", "", "nop"))],
            asked: &[("x.part.0", None)],
        },
        Case {
            what: "a global of another number",
            kernel: &[("a.c", code("globl", "x.part.1", "", "nop")), promoted()],
            unit: &[("a.c", code("globl", "x.part.0", "", "nop"))],
            asked: &[("x.part.0", None)],
        },
        Case {
            what: "a promoted one that is a local of its file",
            kernel: &[("a.c", code("local", "x", "", "nop")), ("b.c", code("local", "x", "mine", "nop") + &code("local", "y", "", "nop"))],
            unit: &[("b.c", hidden("x.llvm.9", "", "nop") + &code("local", "y", "", "nop"))],
            asked: &[("x.llvm.9", Some(("mine", CanonicalName)))],
        },
        Case {
            what: "a promoted one that is a local of another file",
            kernel: &[("a.c", code("local", "x", "", "nop")), ("b.c", code("local", "y", "there", "nop"))],
            unit: &[("b.c", hidden("x.llvm.9", "", "nop") + &code("local", "y", "", "nop"))],
            asked: &[("x.llvm.9", None), ("y", Some(("there", FileAndName)))],
        },
        Case {
            what: "promoted names of no hash that has all of them",
            kernel: &[("a.c", hidden("x.llvm.1", "", "nop")), ("b.c", hidden("y.llvm.2", "", "nop"))],
            unit: &[("c.c", code("globl", "user", "", &(call("x.llvm.9") + "\n" + &call("y.llvm.9"))))],
            asked: &[("x.llvm.9", None), ("y.llvm.9", None)],
        },
        Case {
            what: "promoted data of no hash that has all of it",
            kernel: &[("a.c", data("globl", "x.llvm.1", "", same)), ("b.c", data("globl", "y.llvm.2", "", same))],
            unit: &[(
                "c.c",
                code("globl", "user", "", &(load("x.llvm.9") + "\n" + &load("y.llvm.9"))) + ".data\n.quad x.llvm.9, y.llvm.9\n",
            )],
            asked: &[("x.llvm.9", None), ("y.llvm.9", None)],
        },
        Case {
            what: "promoted names of several hashes, told by one reference for both",
            kernel: &[
                ("a.c", hidden("x.llvm.1", "", "nop") + &hidden("y.llvm.1", "", "nop")),
                ("b.c", hidden("x.llvm.2", "first", "nop") + &hidden("y.llvm.2", "second", "nop")),
                ("d.c", hidden("x.llvm.3", "", "nop")),
                ("c.c", code("globl", "user", "", &call("x.llvm.2"))),
            ],
            unit: &[("c.c", code("globl", "user", "", &call("x.llvm.9")) + &code("globl", "more", "", &call("y.llvm.9")))],
            asked: &[("x.llvm.9", Some(("first", Reference))), ("y.llvm.9", Some(("second", PromotedTogether)))],
        },
        Case {
            what: "promoted strings that the linker merged",
            kernel: &[
                ("a.c", ".section .rodata\n.globl s.llvm.1,s.llvm.2,t.llvm.1,t.llvm.2,one\none:s.llvm.1: s.llvm.2: .ascii \"a\"\nt.llvm.1: .ascii \"b\"\nt.llvm.2: .ascii \"c\"\n".into()),
                ("c.c", code("globl", "user", "", &load("s.llvm.1"))),
            ],
            unit: &[("c.c", code("globl", "user", "", &load("s.llvm.9")) + &code("globl", "more", "", &load("t.llvm.9")))],
            asked: &[("s.llvm.9", Some(("one", Reference))), ("t.llvm.9", None)],
        },
        Case {
            what: "two places of equal names that one reference fits: strings of several addresses",
            kernel: &[
                ("a.c", ".section .rodata\n.globl s.llvm.1,s.llvm.2\ns.llvm.1: .ascii \"a\"\ns.llvm.2: .ascii \"b\"\n".into()),
                ("c.c", code("globl", "user", "", "nop")),
            ],
            unit: &[("c.c", code("globl", "user", "", "nop") + &code("globl", "more", "", &load("s.llvm.9")))],
            asked: &[("s.llvm.9", None)],
        },
        Case {
            what: "the size tells",
            kernel: &[("a.c", data("local", "x.1", "", (4, 7)) + &data("local", "x.2", "mine", (8, 7)))],
            unit: &[("a.c", data("local", "x.5", "", (8, 9)))],
            asked: &[("x.5", Some(("mine", Size)))],
        },
        Case {
            what: "the contents tell, not those of another size",
            kernel: &[(
                "a.c",
                data("local", "x.1", "", (8, 5)) + &data("local", "x.2", "mine", (8, 7)) + &data("local", "x.3", "", (12, 7)),
            )],
            unit: &[("a.c", data("local", "x.5", "", (8, 7)))],
            asked: &[("x.5", Some(("mine", Contents)))],
        },
        Case {
            what: "nothing tells",
            kernel: &[("a.c", data("local", "x.1", "", same) + &data("local", "x.2", "", same))],
            unit: &[("a.c", data("local", "x.5", "", same))],
            asked: &[("x.5", None)],
        },
        Case {
            what: "two of a name are one of the kernel",
            kernel: &[("a.c", data("local", "x.1", "", same))],
            unit: &[("a.c", data("local", "x.5", "", same) + &data("local", "x.6", "", same))],
            asked: &[("x.5", None), ("x.6", None)],
        },
        Case {
            what: "the number of one that is left is another",
            kernel: &[("a.c", data("local", "x.1", "first", (4, 7)) + &data("local", "x.2", "second", (8, 7)))],
            unit: &[("a.c", data("local", "x.1", "", (8, 7)) + &data("local", "x.2", "", (4, 7)))],
            asked: &[("x.1", Some(("second", Size))), ("x.2", Some(("first", Size)))],
        },
        Case {
            what: "the file with most of the names",
            kernel: &[
                ("a.c", data("local", "x", "mine", (4, 7)) + &data("local", "y", "", (4, 7))),
                ("a.c", data("local", "x", "", (8, 7))),
            ],
            unit: &[("a.c", data("local", "x", "", (8, 7)) + &data("local", "y", "", (8, 7)))],
            asked: &[("x", Some(("mine", FileAndName)))],
        },
        Case {
            what: "the file with most of the sizes",
            kernel: &[("a.c", data("local", "x", "", (4, 0))), ("a.c", data("local", "x", "mine", (8, 9)))],
            unit: &[("a.c", data("local", "x", "", (8, 0)))],
            asked: &[("x", Some(("mine", FileAndName)))],
        },
        Case {
            what: "the file with most of the contents",
            kernel: &[("a.c", data("local", "x", "", (8, 5))), ("a.c", data("local", "x", "mine", (8, 9)))],
            unit: &[("a.c", data("local", "x", "", (8, 9)))],
            asked: &[("x", Some(("mine", FileAndName)))],
        },
        Case {
            what: "files that the names inside tell, in their order",
            kernel: &[
                ("a.c", data("local", "x", "", same) + &data("local", "p", "", same)),
                ("a.c", data("local", "x", "first", same) + &data("local", "q", "", same)),
                ("a.c", data("local", "x", "second", same) + &data("local", "r", "", same)),
            ],
            unit: &[
                ("a.c", data("local", "x", "", same) + &data("local", "q", "", same)),
                ("a.c", data("local", "z", "", same) + &data("local", "r", "", same)),
            ],
            asked: &[("x", Some(("first", FileAndName)))],
        },
        Case {
            what: "a reference with a distance",
            kernel: &[
                ("a.c", data("local", "x", "mine", (8, 9)) + &code("globl", "user", "", &load("x+4"))),
                ("a.c", data("local", "x", "", (8, 9))),
            ],
            unit: &[("a.c", data("local", "x", "", (8, 9)) + &code("globl", "user", "", &load("x+4")))],
            asked: &[("x", Some(("mine", Reference))), ("user", Some(("user", Global)))],
        },
        Case {
            what: "references that contradict",
            kernel: &[
                ("a.c", data("local", "x", "", (8, 9)) + &code("globl", "one", "", &load("x")) + &code("globl", "two", "", &load("third"))),
                ("a.c", data("local", "x", "", (8, 9))),
                ("b.c", data("globl", "third", "", (8, 9))),
            ],
            unit: &[(
                "a.c",
                data("local", "x", "", (8, 9)) + &code("globl", "one", "", &load("x")) + &code("globl", "two", "", &load("x")),
            )],
            asked: &[("x", None)],
        },
    ];
    cases.iter().for_each(check);
}

/// An item may be known by another of its names.
#[test]
fn an_item_is_bound_by_an_alias_too() {
    let f = Fixture::new();
    f.assemble("kernel", &format!(".file \"a.c\"\n{}", code("globl", "known", "", "nop")));
    let unit = ".file \"b.c\"\n.text\n.globl own,known\n.type own,@function\nown: nop\nknown: ret\n.size own,.-own\n";
    f.assemble("unit", unit);
    f.assemble("alias", ".file \"b.c\"\n.text\n.local own\n.globl known\n.type own,@function\nown: known: nop\nret\n.size own,.-own\n");
    f.link(&["kernel.o"], "vmlinux");
    let image = f.open("vmlinux");
    let image = Image::read(&image, "vmlinux").expect("a sound image");
    let known = image.global(b"known").and_then(|id| image.address(id)).expect("there");
    for (unit, wanted) in [("unit.o", None), ("alias.o", Some(known))] {
        let file = f.open(unit);
        let object = Object::read(&file).expect("a sound object");
        let binding = Binding::new(&object, &image);
        let item = object.item_ids().find(|&item| object.item_name(item) == b"own").expect("an item");
        assert_eq!(binding.item_address(item), wanted, "{unit}");
        assert_eq!(binding.item(item).ok().map(|bound| bound.address), wanted, "{unit}");
    }
}

/// In symbol tables without FILE symbols, several locals of one name are matched by their order only if the sizes
/// agree.
#[test]
fn sizes_that_contradict_the_order_bind_nothing() {
    let file = |first: u32, second: u32, mark: &str| {
        let f = |size: u32, more: &str| data("local", "x", "", (size, 7)) + more;
        (format!(".file \"a.c\"\n{}", f(first, "")), format!(".file \"b.c\"\n{}{mark}", f(second, "")))
    };
    for (order, bound) in [([4, 8], true), ([8, 4], false)] {
        let f = Fixture::new();
        let module = |name: &str, [first, second]: [u32; 2]| {
            let (one, two) = file(first, second, "");
            f.assemble("one", &one);
            f.assemble("two", &two);
            f.combine(&["one.o", "two.o"], "whole.o");
            f.strip("whole.o", name);
        };
        module("unit.o", [4, 8]);
        module("m.ko", order);
        let (file, image) = (f.open("unit.o"), f.open("m.ko"));
        let object = Object::read(&file).expect("a sound object");
        let image = Image::read(&image, "m").expect("a sound module");
        let binding = Binding::new(&object, &image);
        for id in object.elf.symbol_ids().filter(|&id| object.elf.symbol_name(id) == b"x") {
            let found = binding.counterpart(id);
            let size = found.map(|(to, _)| image.elf.symbol_size(to));
            assert_eq!(size, Some(object.elf.symbol_size(id)), "{order:?}");
            assert_eq!(
                found.is_some_and(|(_, evidence)| evidence == SymbolEvidence::Name),
                bound,
                "{order:?}"
            );
        }
    }
}

/// Two addresses may be in the same page.
#[test]
fn a_reference_that_fits_two_places_binds_nothing() {
    let f = Fixture::of(&klpx_testkit::fixture::ARM64_CLANG);
    let user = |name: &str| {
        format!(
            ".file \"c.c\"\n.text\n.globl user\n.type user,%function\nuser: adrp x0, {name}\nret\n.size user,.-user\n"
        )
    };
    f.assemble(
        "strings",
        ".section .rodata\n.globl s.llvm.1,s.llvm.2\ns.llvm.1: .word 1\ns.llvm.2: .word 2\n",
    );
    f.assemble("kernel", &user("s.llvm.1"));
    f.assemble("unit", &user("s.llvm.9"));
    f.link(&["strings.o", "kernel.o"], "vmlinux");
    let (file, image) = (f.open("unit.o"), f.open("vmlinux"));
    let object = Object::read(&file).expect("a sound object");
    let image = Image::read(&image, "vmlinux").expect("a sound image");
    let binding = Binding::new(&object, &image);
    let symbol =
        object.elf.symbol_ids().find(|&id| object.elf.symbol_name(id) == b"s.llvm.9").expect("a symbol");
    assert_eq!(binding.counterpart(symbol), None);
    assert_eq!(binding.hash_in_image(b"9"), None);
}

/// A claimed symbol is no candidate, and a hash that only a reference supports is not known.
#[test]
fn what_is_left_is_told_without_what_is_taken() {
    let f = Fixture::new();
    let eight = |name: &str, value: u32| data("local", name, "", (8, value));
    f.assemble("kernel", &format!(".file \"a.c\"\n{}{}", eight("x.1", 5), eight("x.2", 7)));
    f.assemble("unit", &format!(".file \"a.c\"\n{}{}", eight("x.5", 5), eight("x.6", 9)));
    f.link(&["kernel.o"], "vmlinux");
    let (file, image) = (f.open("unit.o"), f.open("vmlinux"));
    let object = Object::read(&file).expect("a sound object");
    let image = Image::read(&image, "vmlinux").expect("a sound image");
    let binding = Binding::new(&object, &image);
    let symbol = object.elf.symbol_ids().find(|&id| object.elf.symbol_name(id) == b"x.6").expect("a symbol");
    let fault = binding.symbol(symbol).expect_err("another value");
    assert_eq!((fault.code, fault.detail.len()), ("klpx::ambiguous-symbol", 1), "{fault:?}");
}

#[test]
fn a_hash_is_known_by_names_and_not_by_a_reference_alone() {
    let f = Fixture::new();
    let both = ".section .rodata\n.globl s.llvm.1,s.llvm.2\ns.llvm.1: s.llvm.2: .ascii \"a\"\n";
    let user = |name: &str| {
        format!(".file \"c.c\"\n{}", code("globl", "user", "", &format!("mov {name}(%rip),%eax")))
    };
    f.assemble("strings", both);
    f.assemble("kernel", &user("s.llvm.1"));
    f.assemble("unit", &user("s.llvm.9"));
    f.link(&["strings.o", "kernel.o"], "vmlinux");
    let (file, image) = (f.open("unit.o"), f.open("vmlinux"));
    let object = Object::read(&file).expect("a sound object");
    let image = Image::read(&image, "vmlinux").expect("a sound image");
    let binding = Binding::new(&object, &image);
    let symbol =
        object.elf.symbol_ids().find(|&id| object.elf.symbol_name(id) == b"s.llvm.9").expect("a symbol");
    assert_eq!(binding.counterpart(symbol).map(|(_, evidence)| evidence), Some(SymbolEvidence::Reference));
    assert_eq!(binding.hash_in_image(b"9"), None);
}
