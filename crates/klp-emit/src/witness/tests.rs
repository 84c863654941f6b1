//! Comparison of small objects with images, made at run time.

use std::collections::BTreeSet;

use super::*;
use crate::bind::Binding;
use crate::image::Image;
use klpx_normalize::elf::ElfFile;
use klpx_normalize::object::{ItemId, Object};
use klpx_testkit::fixture::{Fixture, X86_64_CLANG};

const ONE: &str = "extern int other(int); extern const char *pick(int);
    static __attribute__((noinline)) int twin(int x) { asm(\"\"); return x + 0x111; }
    int tail(int x) { return twin(x * 3); }
    int both(int x) { if (other(x) > 7) return twin(x); return 5; }
    int total = 7; static const char *words[] = { \"alpha\", \"beta\" };
    const char *pick(int n) { return words[n & 1]; }
    const char *name(void) { return \"a name of its own\"; }
    int one(int x) { total += twin(x); return x ? other(x) : 0; }
    int choose(int x) { switch (x) { case 0: return total; case 1: return other(1); case 2: return twin(4);
        case 3: return other(9); case 4: return one(5); case 5: return one(77); case 6: return twin(-1); } return x; }";
const TWO: &str = "static __attribute__((noinline)) int twin(int x) { asm(\"\"); return x + 0x222; }
    int other(int x) { return twin(x) * 3; }";

fn build(flags: &[&str]) -> Fixture {
    let f = Fixture::new();
    f.compile("one", ONE, "one.o", flags);
    f.compile("two", TWO, "two.o", flags);
    f.compile("one", ONE, "kernel1.o", &[]);
    f.compile("two", TWO, "kernel2.o", &[]);
    f.combine(&["one.o", "two.o"], "witness.o");
    f.link(&["kernel1.o", "kernel2.o"], "vmlinux");
    f
}

/// All named items, each with the result of the comparison with vmlinux.
fn results(f: &Fixture, image: &ElfFile) -> Vec<(String, Result<Agreement, Mismatch>)> {
    results_of(f, image, "vmlinux")
}

fn results_of(f: &Fixture, image: &ElfFile, object_name: &str) -> Vec<(String, Result<Agreement, Mismatch>)> {
    let witness = f.open("witness.o");
    let object = Object::read(&witness).expect("a sound object");
    let image = Image::read(image, object_name).expect("a sound image");
    let binding = Binding::new(&object, &image);
    let check = Witness::new(&binding);
    let name = |id| String::from_utf8_lossy(object.item_name(id)).into_owned();
    object.item_ids().map(|id| (name(id), check.compare(id))).collect()
}

/// The file offset of an image's function.
fn offset_of(f: &Fixture, function: &str) -> usize {
    let file = f.open("vmlinux");
    let image = Image::read(&file, "vmlinux").expect("a sound image");
    let id = image.named(function.as_bytes()).next().expect("a function");
    let address = image.address(id).expect("an address");
    let bytes = image.bytes_from(address).expect("code");
    bytes.as_ptr() as usize - image.elf.data().as_ptr() as usize
}

#[test]
fn the_same_build_agrees_in_everything() {
    let f = build(&[]);
    for (name, result) in results(&f, &f.open("vmlinux")) {
        assert_eq!(result, Ok(Agreement::Identical), "{name}");
    }
}

#[test]
fn sections_of_their_own_change_no_more_than_branch_lengths() {
    let f = build(&["-ffunction-sections", "-fdata-sections"]);
    let all = results(&f, &f.open("vmlinux"));
    for (name, result) in &all {
        assert!(result.is_ok(), "{name}: {result:?}");
    }
    assert!(all.iter().any(|(_, r)| *r == Ok(Agreement::Branches)), "{all:?}");
}

/// In a module, some branches still have relocations, and the assembler shortened others.
#[test]
fn branches_of_a_module_are_compared_whether_they_have_relocations_or_not() {
    let f = build(&["-ffunction-sections", "-fdata-sections"]);
    f.combine(&["kernel1.o", "kernel2.o"], "module.ko");
    let module = f.open("module.ko");
    let all = results_of(&f, &module, "module");
    for (name, result) in &all {
        assert!(result.is_ok(), "{name}: {result:?}");
    }
    assert!(all.iter().any(|(_, r)| *r == Ok(Agreement::Branches)), "{all:?}");
    // Another callee in the relocation of a function whose branches were shortened.
    let another = format!("extern int another(int); {}", ONE.replace("if (other(x)", "if (another(x)"));
    f.compile("one", &another, "kernel1.o", &[]);
    f.combine(&["kernel1.o", "kernel2.o"], "module.ko");
    let found = results_of(&f, &f.open("module.ko"), "module");
    assert!(found.iter().any(|(name, result)| name == "both" && result.is_err()), "{found:?}");
}

#[test]
fn one_changed_byte_of_code_is_found_in_its_function() {
    for flags in [&[][..], &["-ffunction-sections", "-fdata-sections"]] {
        let f = build(flags);
        let at = offset_of(&f, "twin");
        // lea 0x111(%rdi), %eax: the number is in the last bytes
        let image = f.changed("vmlinux", |bytes| {
            let place = bytes[at..].windows(2).position(|w| w == [0x11, 0x01]).expect("the number");
            bytes[at + place] ^= 1;
        });
        let differing: Vec<String> =
            results(&f, &image).into_iter().filter(|(_, r)| r.is_err()).map(|(name, _)| name).collect();
        assert_eq!(differing, ["twin"], "{flags:?}");
    }
}

#[test]
fn a_call_that_leads_elsewhere_is_found() {
    let f = build(&["-ffunction-sections"]);
    let (from, to) = (offset_of(&f, "other"), offset_of(&f, "twin"));
    let image = f.changed("vmlinux", |bytes| {
        let call = from + bytes[from..].iter().position(|&b| b == 0xe8).expect("a call");
        let displacement = (to as i64 - (call as i64 + 5)) as i32;
        bytes[call + 1..call + 5].copy_from_slice(&displacement.to_le_bytes());
    });
    let differing: Vec<_> = results(&f, &image).into_iter().filter(|(_, r)| r.is_err()).collect();
    assert!(
        matches!(&differing[..], [(name, Err(Mismatch::Reference { .. }))] if name == "other"),
        "{differing:?}"
    );
}

#[test]
fn a_changed_string_is_found_in_those_who_refer_to_it() {
    let f = build(&[]);
    let change = |from: &'static [u8]| {
        f.changed("vmlinux", |bytes| {
            let at = bytes.windows(from.len()).position(|w| w == from).expect("the string");
            bytes[at] ^= 0x20;
        })
    };
    let differing = |image: &ElfFile| -> Vec<String> {
        results(&f, image).into_iter().filter(|(_, r)| r.is_err()).map(|(name, _)| name).collect()
    };
    assert_eq!(differing(&change(b"a name of its own")), ["name"]);
    assert_eq!(differing(&change(b"beta\0")), ["words"]);
}

#[test]
fn a_diagnosis_names_the_function_and_another_build_is_called_so() {
    let f = build(&[]);
    let at = offset_of(&f, "other");
    let codes = |image: &ElfFile| -> Vec<(&'static str, Option<String>)> {
        let witness = f.open("witness.o");
        let object = Object::read(&witness).expect("a sound object");
        let image = Image::read(image, "vmlinux").expect("a sound image");
        let binding = Binding::new(&object, &image);
        let all: Vec<ItemId> = object.item_ids().collect();
        Witness::new(&binding).check(&all).into_iter().map(|d| (d.code, d.place.symbol)).collect()
    };
    let image = f.changed("vmlinux", |bytes| bytes[at] ^= 0xff);
    assert_eq!(codes(&image), [("klpx::kernel-differs", Some("other".to_owned()))]);
    f.compile(
        "one",
        &ONE.replace("0x111", "0x333").replace("total += ", "total -= ").replace("77", "78"),
        "k1.o",
        &[],
    );
    f.compile("two", &TWO.replace("* 3", "* 5"), "k2.o", &[]);
    f.link(&["k1.o", "k2.o"], "foreign");
    let found = codes(&f.open("foreign"));
    assert_eq!(found[0].0, "klpx::another-build", "{found:?}");
}

#[test]
fn what_names_the_build_may_differ_and_nothing_else() {
    let f = Fixture::new();
    let source = |who: &str| {
        format!(
            "char linux_proc_banner[] = \"by {who}\"; char motto[] = \"by {who}\"; int f(void) {{ return motto[0]; }}"
        )
    };
    f.compile("one", &source("klpx"), "one.o", &[]);
    f.compile("one", &source("someone else"), "kernel.o", &[]);
    f.combine(&["one.o"], "witness.o");
    f.link(&["kernel.o"], "vmlinux");
    let image = f.open("vmlinux");
    let results = results(&f, &image);
    let of = |name: &str| results.iter().find(|(n, _)| n == name).map(|(_, r)| r.clone());
    assert_eq!(of("linux_proc_banner"), Some(Ok(Agreement::BuildIdentity)));
    assert_eq!(of("motto"), Some(Err(Mismatch::Size { kernel: 16, witness: 8 })));
    assert_eq!(of("f"), Some(Ok(Agreement::Identical)));
}

/// The results for a whole unit: counts of functions and data that agree, explained items, codes of the rest.
type Said = (usize, usize, Vec<(String, Explanation)>, Vec<(&'static str, Option<String>)>);

fn unit(f: &Fixture, unit: &str, image: &str) -> Said {
    let (file, image) = (f.open(unit), f.open(image));
    let object = Object::read(&file).expect("a sound object");
    let image = Image::read(&image, "vmlinux").expect("a sound image");
    let binding = Binding::new(&object, &image);
    let found = Witness::new(&binding).check_unit("unit.o");
    let name = |id| String::from_utf8_lossy(object.item_name(id)).into_owned();
    (
        found.agreed(),
        found.data.values().sum(),
        found.explained.iter().map(|&(id, why)| (name(id), why)).collect(),
        found.unexplained.into_iter().map(|d| (d.code, d.place.symbol)).collect(),
    )
}

const UNIT: &str = "int table[] = { 1, 2, 3 }; int extra(int);
    __attribute__((weak)) int arch(int x) { return x; }
    __attribute__((section(\".exit.text\"))) int leave(int x) { return x - 1; }
    int ids __attribute__((section(\".BTF_ids\"))) = 0;
    int a(int x) { return arch(x) + table[0]; } int b(int x) { return x * 3; } int c(int x) { return x * 5; }
    int d(int x) { return extra(x) + 7; } int e(int x) { return x ^ 11; }";
const ARCH: &str = "int extra(int x) { return x; } int arch(int x) { return x + 1; }";

fn built(f: &Fixture, kernel: &str) {
    f.compile("unit", UNIT, "unit.o", &["-ffunction-sections", "-fdata-sections"]);
    f.compile("unit", kernel, "kernel.o", &[]);
    f.compile("arch", ARCH, "arch.o", &[]);
    f.link(&["kernel.o", "arch.o"], "vmlinux");
}

#[test]
fn every_function_of_a_unit_is_compared_and_what_the_link_took_is_explained() {
    let f = Fixture::new();
    let without =
        UNIT.replace("__attribute__((section(\".exit.text\"))) int leave(int x) { return x - 1; }", "");
    built(&f, &without.replace("\"))) = 0;", "\"))) = 4711;"));
    let explained = [
        ("arch".to_owned(), Explanation::Overridden),
        ("leave".to_owned(), Explanation::Discarded),
        ("ids".to_owned(), Explanation::AfterLink),
    ];
    let (functions, data, mut said, rest) = unit(&f, "unit.o", "vmlinux");
    said.sort_by_key(|(_, why)| *why);
    assert_eq!((functions, data, rest), (5, 1, vec![]));
    assert_eq!(said.iter().map(|(name, _)| name.as_str()).collect::<BTreeSet<_>>().len(), 3, "{said:?}");
    assert!(explained.iter().all(|one| said.contains(one)), "{said:?}");
}

#[test]
fn what_nothing_explains_is_said() {
    let f = Fixture::new();
    built(&f, &UNIT.replace("x * 3", "x * 9").replace("2, 3", "2, 4"));
    let (functions, _, _, mut rest) = unit(&f, "unit.o", "vmlinux");
    rest.sort();
    let differs = |name: &str| ("klpx::kernel-differs", Some(name.to_owned()));
    assert_eq!((functions, rest), (5, vec![differs("b"), differs("table")]));
}

#[test]
fn another_configuration_is_one_diagnosis() {
    let f = Fixture::new();
    built(&f, &UNIT.replace("x * 3", "x * 9").replace("x * 5", "x * 25").replace("+ 7", "+ 77"));
    let (_, _, _, rest) = unit(&f, "unit.o", "vmlinux");
    assert_eq!(rest, [("klpx::another-build", None)]);
}

#[test]
fn of_many_differences_the_first_are_shown_and_the_rest_is_counted() {
    let text =
        |factor: u32| (0..14).map(|n| format!("int f{n}(int x) {{ return x * {factor}{n}; }}\n")).collect();
    let (ours, theirs): (String, String) = (text(1000), text(2000));
    let f = Fixture::new();
    f.compile("one", &ours, "unit.o", &[]);
    f.compile("one", &theirs, "kernel.o", &[]);
    f.link(&["kernel.o"], "vmlinux");
    let (unit, image) = (f.open("unit.o"), f.open("vmlinux"));
    let object = Object::read(&unit).expect("a sound object");
    let image = Image::read(&image, "vmlinux").expect("a sound image");
    let binding = Binding::new(&object, &image);
    let said = Witness::new(&binding).check_unit("kernel/one.o").unexplained;
    let [one] = &said[..] else { panic!("one diagnosis: {said:?}") };
    assert_eq!(one.why, "14 of 14 functions of kernel/one.o differ from those in vmlinux");
    assert_eq!((one.detail.len(), one.detail.last().map(String::as_str)), (11, Some("and 4 more")));
}

#[test]
fn the_folder_of_the_source_may_be_another_one_and_nothing_else_of_its_paths() {
    let text = |path: &str| format!("#line 1 \"{path}\"\nconst char *where(void) {{ return __FILE__; }}");
    let ours = text("/here/linux/drivers/block/loop.c");
    let differs = |kernel: &str, folders: &[std::path::PathBuf]| {
        let f = Fixture::new();
        f.compile("one", &ours, "witness.o", &[]);
        f.compile("one", &text(kernel), "kernel.o", &[]);
        f.link(&["kernel.o"], "vmlinux");
        let (witness, image) = (f.open("witness.o"), f.open("vmlinux"));
        let object = Object::read(&witness).expect("a sound object").compiled_in(folders);
        let image = Image::read(&image, "vmlinux").expect("a sound image");
        let binding = Binding::new(&object, &image);
        let check = Witness::new(&binding);
        object.item_ids().any(|id| check.compare(id).is_err())
    };
    let here = ["/here/linux".into()];
    assert!(!differs("/build/linux-7.3/drivers/block/loop.c", &here));
    assert!(!differs("drivers/block/loop.c", &here));
    assert!(differs("/build/linux-7.3/drivers/block/loop.c", &[]));
    for other in [
        "/build/linux-7.3/drivers/block/pool.c",
        "xdrivers/block/loop.c",
        "/xdrivers/block/loop.c",
        "/loop.c",
        "build/drivers/block/loop.c",
    ] {
        assert!(differs(other, &here), "{other}");
    }
}

/// The sanitizer's description of a type without a name tells where the type is declared.
#[test]
fn the_place_of_a_type_without_a_name_may_be_another_one_and_nothing_else_of_its_description() {
    let text = |path: &str, kind: &str| {
        format!(
            "#line 1 \"{path}\"\nextern int sum(int);
             int f(int i) {{ static {kind} {{ int a, b; }} t[3]; t[i].a = sum(i); return t[i].b; }}"
        )
    };
    let ours = text("/here/linux/drivers/block/loop.c", "struct");
    let differs = |kernel: &str| {
        let f = Fixture::of(&X86_64_CLANG);
        let flags = ["-fsanitize=array-bounds"];
        f.compile("one", &ours, "witness.o", &[flags[0], "-ffunction-sections", "-fdata-sections"]);
        f.compile("one", kernel, "kernel.o", &flags);
        f.compile(
            "sum",
            "int sum(int i) { return i; } void __ubsan_handle_out_of_bounds(void) {}",
            "sum.o",
            &[],
        );
        f.link(&["kernel.o", "sum.o"], "vmlinux");
        let (witness, image) = (f.open("witness.o"), f.open("vmlinux"));
        let object = Object::read(&witness).expect("a sound object").compiled_in(&["/here/linux".into()]);
        let image = Image::read(&image, "vmlinux").expect("a sound image");
        let binding = Binding::new(&object, &image);
        let check = Witness::new(&binding);
        object.item_ids().any(|id| check.compare(id).is_err())
    };
    assert!(!differs(&ours));
    assert!(!differs(&text("/build/linux-7.3/drivers/block/loop.c", "struct")));
    assert!(differs(&text("/build/linux-7.3/drivers/block/pool.c", "struct")), "the location's own path");
    assert!(differs(&text("/here/linux/drivers/block/loop.c", "union")));
}

/// GCC without `-fdata-sections` puts the locations and types of all checks into `.data`, where nothing has a name.
#[test]
fn data_without_any_name_that_refers_to_itself_is_compared() {
    let text = |size: u32, more: &str| {
        let function = |n: u32, size: u32| {
            format!("extern short a{n}[{size}]; short f{n}(int i) {{ return a{n}[i] << i; }}\n")
        };
        let functions: String = (1..10).map(|n| function(n, 20 + n)).collect();
        format!("{functions}{}{more}", function(10, size))
    };
    let handlers =
        "void __ubsan_handle_out_of_bounds(void) {} void __ubsan_handle_shift_out_of_bounds(void) {}\n";
    let arrays: String = (1..=10).map(|n| format!("short a{n}[{}];\n", 20 + n)).collect();
    let differing = |kernel: &str| {
        let f = Fixture::new();
        let flags = ["-fsanitize=bounds-strict,shift"];
        f.compile("one", &text(30, ""), "witness.o", &flags);
        f.compile("one", kernel, "kernel.o", &flags);
        f.compile("others", &format!("int before = 5;\n{handlers}{arrays}"), "others.o", &[]);
        f.link(&["others.o", "kernel.o"], "vmlinux");
        let (witness, image) = (f.open("witness.o"), f.open("vmlinux"));
        let object = Object::read(&witness).expect("a sound object");
        let image = Image::read(&image, "vmlinux").expect("a sound image");
        let binding = Binding::new(&object, &image);
        let check = Witness::new(&binding);
        object.item_ids().filter(|&id| check.compare(id).is_err()).count()
    };
    assert_eq!(differing(&text(30, "")), 0);
    assert!(differing(&text(40, "")) > 0, "a type");
}
