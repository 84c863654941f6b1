//! Pairs of a unit and a kernel that agree or differ, in a few lines of assembly. Test code only.

use super::*;
use crate::bind::Binding;
use crate::image::Image;
use klpx_normalize::object::{ItemId, Object};
use klpx_testkit::fixture::{ARM64_CLANG, Fixture, Toolchain, X86_64};

/// A unit, a kernel, and how the unit's `f` agrees with the kernel's, if it does.
struct Pair<'p> {
    what: &'p str,
    unit: &'p str,
    kernel: &'p str,
    agrees: Option<Agreement>,
}

/// The assembly of a file with a function `f`; `text` is the rest, starting with the function's code.
fn file(text: &str) -> String {
    format!(".file \"a.c\"\n.text\n.globl f\n.type f,%function\nf: {}\n", text.replace("; ", "\n"))
}

/// Compares `f` with a linked kernel, or with one that is a module.
fn check(toolchain: &'static Toolchain, linked: bool, pairs: &[Pair<'_>]) {
    let f = Fixture::of(toolchain);
    for pair in pairs {
        f.assemble("unit", &file(pair.unit));
        f.assemble("kernel", &file(pair.kernel));
        match linked {
            true => f.link(&["kernel.o"], "vmlinux"),
            false => f.combine(&["kernel.o"], "m.ko"),
        }
        let (unit, image) = (f.open("unit.o"), f.open(if linked { "vmlinux" } else { "m.ko" }));
        let object = Object::read(&unit).expect("a sound object");
        let image = Image::read(&image, if linked { "vmlinux" } else { "m" }).expect("a sound image");
        let binding = Binding::new(&object, &image);
        let item = object.item_ids().find(|&item| object.item_name(item) == b"f").expect("an item");
        let found = Witness::new(&binding).compare(item);
        assert_eq!(found.as_ref().ok(), pair.agrees.as_ref(), "{}: {found:?}", pair.what);
    }
}

const SAME: Option<Agreement> = Some(Agreement::Identical);
const BRANCHES: Option<Agreement> = Some(Agreement::Branches);
const RELAXED: Option<Agreement> = Some(Agreement::Relaxed);

fn pair<'p>(what: &'p str, unit: &'p str, kernel: &'p str, agrees: Option<Agreement>) -> Pair<'p> {
    Pair { what, unit, kernel, agrees }
}

#[test]
fn references_lead_to_what_they_led_to() {
    let rodata = |text: &str| format!("lea .Lc(%rip),%rax; ret; .size f,.-f; .section .rodata; .Lc: {text}");
    let string = |text: &str| {
        format!(
            "lea .Lc+2(%rip),%rax; ret; .size f,.-f; .section .rodata.str1.1,\"aMS\",@progbits,1; .Lc: .asciz \"{text}\""
        )
    };
    let nested = |text: &str| {
        format!(
            "lea .Lt(%rip),%rax; ret; .size f,.-f; .section .rodata,\"a\"; .Lt: .quad .Lc; .section .rodata.str1.1,\"aMS\",@progbits,1; .Lc: .asciz \"{text}\""
        )
    };
    // An object with a section and a size, which lies at another place in the kernel.
    let object = |section: &str, size: u32, used: &str| {
        format!(
            "lea {used}(%rip),%rax; ret; .size f,.-f; {section}; .local one,two; .type one,@object; one: .skip 8; .size one,{size}; \
             .type two,@object; two: .skip 8; .size two,{size}"
        )
    };
    let variable = |section: &str, name: &str| {
        format!(
            "lea {name}(%rip),%rax; ret; .size f,.-f; {section}; .local {name}; .type {name},@object; {name}: .long 7; .size {name},4"
        )
    };
    // A local function and a global one, and a name for one of them.
    let alias = |scope: &str, function: &str| {
        format!(
            "{{disp32}} jmp w; .size f,.-f; .type l,@function; l: inc %eax; ret; .size l,.-l; \
             .globl g; .type g,@function; g: dec %eax; ret; .size g,.-g; {scope}; .set w,{function}"
        )
    };
    check(
        &X86_64,
        true,
        &[
            pair("the same constant", &rodata(".long 5"), &rodata(".long 5"), SAME),
            pair("another constant", &rodata(".long 5"), &rodata(".long 6"), None),
            pair("a place in a string", &string("abcd"), &string("abcd"), SAME),
            pair("a place in another string", &string("abcd"), &string("xycd"), None),
            pair("a constant that names the same", &nested("abc"), &nested("abc"), SAME),
            pair("a constant that names another one", &nested("abc"), &nested("abd"), None),
            pair(
                "an object of no bytes, elsewhere",
                &object(".bss", 0, "one"),
                &object(".bss", 0, "two"),
                SAME,
            ),
            pair(
                "an object with bytes, elsewhere",
                &object(".bss", 8, "one"),
                &object(".bss", 8, "two"),
                None,
            ),
            pair(
                "an object of no bytes among data",
                &object(".data", 0, "one"),
                &object(".data", 0, "two"),
                None,
            ),
            pair(
                "a constant of another name",
                &variable(".section .rodata", "v"),
                &variable(".section .rodata", "w"),
                SAME,
            ),
            pair("a variable of another name", &variable(".data", "v"), &variable(".data", "w"), None),
            pair(
                "a weak name that nothing defines",
                "mov $opt,%rax; ret; .size f,.-f; .weak opt",
                "mov $opt,%rax; ret; .size f,.-f; .weak opt",
                SAME,
            ),
            pair("a weak alias", &alias(".weak w", "l"), &alias(".weak w", "l"), SAME),
            pair(
                "a weak alias in whose place the kernel has another function",
                &alias(".weak w", "l"),
                &alias(".globl w", "g"),
                SAME,
            ),
            pair(
                "the function behind a weak alias in whose place the kernel has another function",
                &alias(".weak w", "l"),
                &alias(".globl w", "g").replace("jmp w", "jmp l"),
                None,
            ),
            pair(
                "a function without a name in the kernel, whose weak alias is another function there",
                &alias(".weak w", "l").replace("{disp32} jmp w", "mov $l,%rax"),
                &alias(".globl w", "g")
                    .replace("{disp32} jmp w", "mov $w,%rax")
                    .replace(".type l,@function; l:", ".Ll:")
                    .replace(".size l,.-l; ", ""),
                None,
            ),
            pair(
                "another name that nothing defines",
                "mov $opt,%rax; ret; .size f,.-f",
                "mov $0,%rax; ret; .size f,.-f",
                None,
            ),
        ],
    );
}

#[test]
fn instructions_are_the_same_but_for_the_lengths_of_branches() {
    let long = |target: &str, more: &str| {
        format!("{{disp32}} jmp {target}; 1: inc %eax; 2: {more}; ret; .size f,.-f")
    };
    let short = |target: &str, more: &str| format!("jmp {target}; 1: inc %eax; 2: {more}; ret; .size f,.-f");
    let globals = "; .globl g,h; .type g,@function; .type h,@function; g: ret; .size g,1; h: ret; .size h,1; \
        .data; .globl x,y; .type x,@object; .type y,@object; x: .long 1; .size x,4; y: .long 1; .size y,4";
    let with = |text: String| text + globals;
    let jump_table = |jump: &str, to: &str| {
        format!(
            "{jump} jmp 1f; 1: jmp *.Lt(,%rax,8); 2: ret; .size f,.-f; .section .rodata; .balign 8; .Lt: .quad {to}"
        )
    };
    check(
        &X86_64,
        true,
        &[
            pair("a shorter branch", &long("2f", "nop"), &short("2f", "nop"), BRANCHES),
            pair("a shorter branch to another place", &long("2f", "nop"), &short("1f", "nop"), None),
            pair("another instruction", &long("2f", "dec %eax"), &short("2f", "inc %eax"), None),
            pair("another number", &long("2f", "mov $1,%eax"), &short("2f", "mov $2,%eax"), None),
            pair(
                "the same in another length",
                &long("2f", "{disp8} mov 1(%rax),%ecx"),
                &short("2f", "{disp32} mov 1(%rax),%ecx"),
                None,
            ),
            pair(
                "the other way of a condition",
                "{disp32} je 2f; nop; 2: ret; .size f,.-f",
                "jne 2f; nop; 2: ret; .size f,.-f",
                None,
            ),
            pair("one more instruction", &long("2f", "nop"), &short("2f", "inc %eax"), None),
            pair("one more at the end", &long("2f", "ret"), &short("2f", "ret; ret"), None),
            pair("one more no-operation", &long("2f", "nop"), &short("2f", "nop; nop"), BRANCHES),
            pair("a call", &with(long("2f", "call g")), &with(short("2f", "call g")), BRANCHES),
            pair("a call of another", &with(long("2f", "call g")), &with(short("2f", "call h")), None),
            pair(
                "a variable",
                &with(long("2f", "mov x(%rip),%eax")),
                &with(short("2f", "mov x(%rip),%eax")),
                BRANCHES,
            ),
            pair(
                "another variable",
                &with(long("2f", "mov x(%rip),%eax")),
                &with(short("2f", "mov y(%rip),%eax")),
                None,
            ),
            pair("a table of its own places", &jump_table("{disp32}", "1b"), &jump_table("", "1b"), BRANCHES),
            pair("a table of another place", &jump_table("{disp32}", "1b"), &jump_table("", "2b"), None),
        ],
    );
}

/// GCC 16 (not 14) aligns a small loop to a cache line, so the padding in a function depends on where in its section the
/// function lies. References come from the function's cold part and from tables.
#[test]
fn a_place_in_a_function_with_other_padding_is_the_same() {
    let body = |padding: &str| {
        format!(
            "; .size f,.-f; .section .text.hot,\"ax\"; .type hot,@function; hot: inc %eax; .La: {padding}; \
             .Lb: dec %eax; .Lc: mov $9,%ecx; ret; .size hot,.-hot"
        )
    };
    let jump = |to: &str, padding: &str| format!("ud2; jmp {to}{}", body(padding));
    let after_branch = |branch: &str, to: &str, padding: &str| {
        format!("{branch} jmp 1f; inc %eax; 1: dec %eax; jmp {to}{}", body(padding))
    };
    let table = |to: &str, padding: &str| {
        format!("jmp *.Lt(,%rax,8){}; .section .rodata; .balign 8; .Lt: .quad {to}", body(padding))
    };
    let (none, little, much) = ("", "nop", "nopw 0(%rax,%rax); nopl 0(%rax)");
    let places = [
        ("behind the padding", ".Lb", ".Lb", true),
        ("before the padding", ".La", ".La", true),
        ("further behind", ".Lc", ".Lc", true),
        ("before the padding here, and behind it there", ".La", ".Lb", true),
        ("to another instruction", ".Lb", ".Lc", false),
        ("into an instruction", ".Lc", ".Lc+1", false),
        ("into the same instruction", ".Lc+1", ".Lc+1", true),
        ("to the entry", "hot", ".Lb", false),
        ("behind the function", ".Lb", ".Lb+9", false),
    ];
    let at_same_distance = (jump(".Lc", none), jump("hot+4", little));
    let mut pairs = vec![("the same distance from the entry", at_same_distance.0, at_same_distance.1, None)];
    for (unit_padding, kernel_padding) in [(none, little), (little, much), (much, none)] {
        for (what, unit, kernel, same) in places {
            pairs.push((
                what,
                jump(unit, unit_padding),
                jump(kernel, kernel_padding),
                same.then_some(Agreement::Identical),
            ));
            pairs.push((
                what,
                table(unit, unit_padding),
                table(kernel, kernel_padding),
                same.then_some(Agreement::Identical),
            ));
            pairs.push((
                what,
                after_branch("{disp32}", unit, unit_padding),
                after_branch("", kernel, kernel_padding),
                same.then_some(Agreement::Branches),
            ));
        }
    }
    let pairs: Vec<Pair<'_>> =
        pairs.iter().map(|(what, unit, kernel, agrees)| pair(what, unit, kernel, *agrees)).collect();
    check(&X86_64, true, &pairs);
    check(&X86_64, false, &pairs);
}

#[test]
fn a_module_imports_the_same_from_the_same_place() {
    let own = "; .section .text.other,\"ax\"; .globl g; .type g,@function; g: ret; .size g,1";
    let with = |text: &str| format!("{text}; ret; .size f,.-f{own}");
    let bare = |text: &str| format!("{text}; ret; .size f,.-f");
    let data = |text: &str| format!("ret; .long {text}; .size f,.-f");
    check(
        &X86_64,
        false,
        &[
            pair("an import", &bare("mov away+4(%rip),%eax"), &bare("mov away+4(%rip),%eax"), SAME),
            pair(
                "another place of an import",
                &bare("mov away+4(%rip),%eax"),
                &bare("mov away+8(%rip),%eax"),
                None,
            ),
            pair("another import", &bare("mov away+4(%rip),%eax"), &bare("mov gone+4(%rip),%eax"), None),
            pair("a call of an import", &bare("call away"), &bare("call away"), SAME),
            pair("its own function", &with("call g"), &with("call g"), SAME),
            pair("an import in the place of its own", &with("call g"), &bare("call g"), None),
            pair("a distance in the place of an address", &data("away"), &data("away - ."), None),
        ],
    );
}

#[test]
fn data_without_bytes_in_the_file_is_zeros() {
    let f = Fixture::new();
    let file = |section: &str, value: &str| {
        format!(".file \"a.c\"\n{section}\n.globl f\n.type f,@object\nf: {value}\n.size f,4\n")
    };
    for (value, same) in [(".long 0", true), (".long 5", false)] {
        f.assemble("unit", &file(".data", value));
        f.assemble("kernel", &file(".bss", ".skip 4"));
        f.link(&["kernel.o"], "vmlinux");
        let (unit, image) = (f.open("unit.o"), f.open("vmlinux"));
        let object = Object::read(&unit).expect("a sound object");
        let image = Image::read(&image, "vmlinux").expect("a sound image");
        let binding = Binding::new(&object, &image);
        let item = object.item_ids().next().expect("an item");
        assert_eq!(Witness::new(&binding).compare(item).is_ok(), same, "{value}");
    }
}

#[test]
fn an_address_that_lld_made_shorter_is_the_same_one() {
    let rest = |code: &str, text: &str| {
        format!(
            "{code}; ret; .size f,.-f; .globl g,h; .type g,%function; g: ret; .size g,4; .type h,%function; h: ret; .size h,4; \
             .data; .balign 4; .globl v,w; .type v,%object; v: .word 7; .size v,4; .type w,%object; w: .word 7; .size w,4; \
             .section .rodata.str1.1,\"aMS\",%progbits,1; .Lc: .asciz \"{text}\""
        )
    };
    let address =
        |register: &str, of: &str| format!("adrp {register}, {of}; add {register}, {register}, :lo12:{of}");
    let code = |of: &str| rest(&address("x0", of), "text");
    let load = |of: &str| rest(&format!("adrp x0, {of}; ldr w1, [x0, :lo12:{of}]"), "text");
    let both =
        |register: &str, callee: &str| rest(&format!("{}; bl {callee}", address(register, "v")), "text");
    check(
        &ARM64_CLANG,
        true,
        &[
            pair("a variable", &code("v"), &code("v"), RELAXED),
            pair("another variable", &code("v"), &code("w"), None),
            pair("a text", &code(".Lc"), &code(".Lc"), RELAXED),
            pair("a load", &load("v"), &load("v"), SAME),
            pair("a load of what lies beside it", &load("v"), &load("w"), None),
            pair("another text", &code(".Lc"), &rest(&address("x0", ".Lc"), "tent"), None),
            pair("another register", &both("x0", "g"), &both("x1", "g"), None),
            pair("a call", &both("x0", "g"), &both("x0", "g"), RELAXED),
            pair("a call of another", &both("x0", "g"), &both("x0", "h"), None),
        ],
    );
}

/// The results for a unit: explained items with the explanation, codes of the rest, and items that gave way to another
/// unit's.
fn said(unit: &str, kernel: &[&str], linked: bool) -> (Vec<(String, Explanation)>, Vec<String>, Vec<String>) {
    let f = Fixture::new();
    f.assemble("unit", unit);
    let objects: Vec<String> = (0..kernel.len())
        .map(|n| {
            f.assemble(&format!("kernel{n}"), kernel[n]);
            format!("kernel{n}.o")
        })
        .collect();
    let objects: Vec<&str> = objects.iter().map(String::as_str).collect();
    let name = if linked { "vmlinux" } else { "m" };
    if linked {
        f.link(&objects, name)
    } else {
        f.combine(&objects, name)
    }
    let (file, image) = (f.open("unit.o"), f.open(name));
    let object = Object::read(&file).expect("a sound object");
    let image = Image::read(&image, name).expect("a sound image");
    let binding = Binding::new(&object, &image);
    let found = Witness::new(&binding).check_unit("unit.o");
    let text = |item| String::from_utf8_lossy(object.item_name(item)).into_owned();
    let mut explained: Vec<_> = found.explained.iter().map(|&(item, why)| (text(item), why)).collect();
    explained.sort();
    let rest = found
        .unexplained
        .iter()
        .map(|one| format!("{} {}", one.code, one.place.symbol.clone().unwrap_or_default()));
    let mut rest: Vec<String> = rest.collect();
    rest.sort();
    (explained, rest, overridden(&object, &image).into_iter().map(text).collect())
}

#[test]
fn each_difference_of_a_unit_is_explained_or_said() {
    let function = |scope: &str, name: &str, section: &str, number: u32| {
        format!(
            ".section {section},\"ax\"\n.{scope} {name}\n.type {name},@function\n{name}: mov ${number},%eax\nret\n.size {name},.-{name}\n"
        )
    };
    let grouped = |number: u32| {
        function("globl", "x", ".text.x", number).replace("\"ax\"", "\"axG\",@progbits,x,comdat")
    };
    let datum = |scope: &str, name: &str, number: u32| {
        format!(".data\n.{scope} {name}\n.type {name},@object\n{name}: .long {number}\n.size {name},4\n")
    };
    // Other functions that agree, so that it counts as the same build.
    let rest: String = (0..12).map(|n| function("globl", &format!("agrees{n}"), ".text", n)).collect();
    let file = |parts: &[String]| format!(".file \"a.c\"\n{}{rest}", parts.concat());
    let (one, two) =
        (|scope: &str| function(scope, "x", ".text", 1), |scope: &str| function(scope, "x", ".text", 2));
    let none: [(String, Explanation); 0] = [];
    let explained = |why| vec![("x".to_owned(), why)];
    let differs = |name: &str| vec![format!("klpx::kernel-differs {name}")];
    let cases = [
        ("nothing", one("globl"), vec![file(&[one("globl")])], true, none.to_vec(), vec![], false),
        (
            "a strong function",
            one("globl"),
            vec![file(&[two("globl")])],
            true,
            none.to_vec(),
            differs("x"),
            false,
        ),
        (
            "a weak one alone",
            one("weak"),
            vec![file(&[two("weak")])],
            true,
            none.to_vec(),
            differs("x"),
            false,
        ),
        (
            "a weak one that gave way",
            one("weak"),
            vec![file(&[one("weak")]), two("globl")],
            true,
            explained(Explanation::Overridden),
            vec![],
            true,
        ),
        // A module that imports the name has no definition of it.
        (
            "a weak one and an import",
            one("weak"),
            vec![file(&[two("weak")]), "call x\n".to_owned()],
            false,
            none.to_vec(),
            differs("x"),
            false,
        ),
        (
            "a local elsewhere",
            one("weak"),
            vec![file(&[two("weak")]), format!(".file \"b.c\"\n{}", function("local", "x", ".text.b", 3))],
            true,
            none.to_vec(),
            differs("x"),
            false,
        ),
        (
            "a member of a group",
            grouped(1),
            vec![file(&[grouped(2)])],
            true,
            explained(Explanation::Shared),
            vec![],
            false,
        ),
        (
            "code that never runs, gone",
            function("globl", "x", ".exit.text", 1),
            vec![file(&[])],
            true,
            explained(Explanation::Discarded),
            vec![],
            false,
        ),
        (
            "code that never runs, other",
            function("globl", "x", ".exit.text", 1),
            vec![file(&[function("globl", "x", ".exit.text", 2)])],
            true,
            none.to_vec(),
            differs("x"),
            false,
        ),
        (
            "code that stays, gone",
            one("globl"),
            vec![file(&[])],
            true,
            none.to_vec(),
            vec!["klpx::not-in-kernel x".to_owned()],
            false,
        ),
        (
            "a datum",
            datum("globl", "x", 1),
            vec![file(&[datum("globl", "x", 2)])],
            true,
            none.to_vec(),
            differs("x"),
            false,
        ),
        (
            "a datum that the kernel does not have",
            datum("globl", "x", 1),
            vec![file(&[])],
            true,
            none.to_vec(),
            vec![],
            false,
        ),
        (
            "a weak datum that gave way",
            datum("weak", "x", 1),
            vec![file(&[datum("weak", "x", 1)]), datum("globl", "x", 2)],
            true,
            explained(Explanation::Overridden),
            vec![],
            true,
        ),
    ];
    for (what, unit, kernel, linked, explained, rest, gave_way) in cases {
        let kernel: Vec<&str> = kernel.iter().map(String::as_str).collect();
        let gave_way: Vec<String> = gave_way.then(|| "x".to_owned()).into_iter().collect();
        assert_eq!(said(&file(&[unit]), &kernel, linked), (explained, rest, gave_way), "{what}");
    }
}

#[test]
fn a_quarter_of_the_functions_is_another_build_and_two_of_many_are_not() {
    let file = |count: u32, others: u32| {
        let function = |n: u32| {
            let number = if n < others { 100 + n } else { n };
            format!(".globl f{n}\n.type f{n},@function\nf{n}: mov ${number},%eax\nret\n.size f{n},.-f{n}\n")
        };
        format!(".file \"a.c\"\n.text\n{}", (0..count).map(function).collect::<String>())
    };
    for (count, others, codes) in [
        (4, 1, &["klpx::kernel-differs"][..]),
        (8, 2, &["klpx::another-build"]),
        (20, 2, &["klpx::kernel-differs"; 2]),
        (20, 4, &["klpx::kernel-differs"; 4]),
        (20, 5, &["klpx::another-build"]),
    ] {
        let (unit, kernel) = (file(count, 0), file(count, others));
        let (_, rest, _) = said(&unit, &[&kernel], true);
        // The same for functions that are checked one by one, except for the words on each.
        let f = Fixture::new();
        f.assemble("unit", &unit);
        f.assemble("kernel", &kernel);
        f.link(&["kernel.o"], "vmlinux");
        let (unit, image) = (f.open("unit.o"), f.open("vmlinux"));
        let object = Object::read(&unit).expect("a sound object");
        let image = Image::read(&image, "vmlinux").expect("a sound image");
        let binding = Binding::new(&object, &image);
        let all: Vec<ItemId> = object.item_ids().collect();
        let each: Vec<_> = Witness::new(&binding).check(&all).iter().map(|found| found.code).collect();
        let whole = codes == ["klpx::another-build"];
        assert_eq!(each.len(), others as usize + usize::from(whole), "{others} of {count}");
        assert_eq!(each[0] == "klpx::another-build", whole, "{others} of {count}");
        let found: Vec<&str> = rest.iter().filter_map(|one| one.split(' ').next()).collect();
        assert_eq!(found, codes, "{others} of {count}");
    }
}

/// A kernel that relocates itself holds zeros where it fills in pointers when it starts.
#[test]
fn pointers_that_the_starting_kernel_fills_in_are_known_by_their_relocations() {
    let file = |to: &str| {
        format!(
            ".file \"a.c\"\n.text\n.globl g,h\n.type g,%function\ng: ret\n.size g,4\n.type h,%function\nh: ret\n.size h,4\n\
             .data\n.globl t\n.type t,%object\n.balign 8\nt: .quad {to}\n.size t,8\n"
        )
    };
    for (to, same) in [("g", true), ("h", false)] {
        let f = Fixture::of(&ARM64_CLANG);
        f.assemble("unit", &file("g"));
        f.assemble("kernel", &file(to));
        f.link_movable(&["kernel.o"], "vmlinux");
        let (unit, image) = (f.open("unit.o"), f.open("vmlinux"));
        let object = Object::read(&unit).expect("a sound object");
        let image = Image::read(&image, "vmlinux").expect("a sound image");
        let binding = Binding::new(&object, &image);
        let item = object.item_ids().find(|&item| object.item_name(item) == b"t").expect("an item");
        assert_eq!(Witness::new(&binding).compare(item).is_ok(), same, "{to}");
    }
}
