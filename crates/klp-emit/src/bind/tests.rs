//! Binding, tested on objects and images that are made at run time.

use std::collections::BTreeSet;

use klpx_normalize::name::canonical;
use object::elf;

use super::*;
use crate::image::TargetKernel;
use klpx_normalize::elf::ElfFile;
use klpx_testkit::fixture::Fixture;

const TWIN: &str = "static __attribute__((noinline)) int twin(int x) { asm(\"\"); return x + ADD; }
    int NAME(int x) { return twin(x) * 2; }";

/// Binds every symbol, and gives the bindings of those with this name, in symbol table order.
fn bindings(witness: &ElfFile, image: &ElfFile, name: &str) -> Vec<Option<(String, u64, SymbolEvidence)>> {
    let image = Image::read(image, "vmlinux").expect("a sound image");
    bindings_in(witness, &image, name)
}

fn bindings_in(
    witness: &ElfFile,
    image: &Image<'_>,
    name: &str,
) -> Vec<Option<(String, u64, SymbolEvidence)>> {
    let object = Object::read(witness).expect("a sound object");
    let binding = Binding::new(&object, image);
    let symbols = object.elf.symbol_ids().filter(|&id| {
        canonical(object.elf.symbol_name(id)).base == name.as_bytes()
            && object.elf.symbol_type(id) != elf::STT_FILE.0
    });
    let bound =
        |id| binding.counterpart(id).map(|(to, e)| (image.name(to), image.address(to).unwrap_or(0), e));
    symbols.map(bound).collect()
}

#[test]
fn equal_static_names_are_told_apart_by_file() {
    let f = Fixture::new();
    for (name, add) in [("alpha", 1), ("beta", 2)] {
        f.compile(name, TWIN, &format!("{name}.o"), &[&format!("-DNAME={name}"), &format!("-DADD={add}")]);
    }
    f.link(&["alpha.o", "beta.o"], "vmlinux");
    f.combine(&["alpha.o", "beta.o"], "same.o");
    f.combine(&["beta.o", "alpha.o"], "other.o");
    let addresses = |object: &str| -> Vec<u64> {
        let bound = bindings(&f.open(object), &f.open("vmlinux"), "twin");
        assert!(
            bound.iter().all(|b| b.as_ref().is_some_and(|b| b.2 == SymbolEvidence::FileAndName)),
            "{bound:?}"
        );
        bound.iter().flatten().map(|b| b.1).collect()
    };
    let (same, other) = (addresses("same.o"), addresses("other.o"));
    assert_eq!((same[0], same[1]), (other[1], other[0]));
    assert!(same[0] < same[1]);
}

/// Code that the link puts into `.data`, as the final link of x86_64 does with `relocate_kernel`.
const MOVED: &str = "
    .section .data.moved, \"awx\", @progbits
    .globl moved
    .type moved, @function
moved:
    ret
    .size moved, .-moved";

#[test]
fn data_beside_code_in_one_section_is_matched_with_data() {
    let f = Fixture::new();
    let source = "static int kept[4] = {1}; static int (*called)(void);
        extern int moved(void);
        int *user(void) { called = moved; return kept + (called != 0); }";
    f.compile("alpha", source, "alpha.o", &[]);
    f.assemble("moved", MOVED);
    f.link(&["alpha.o", "moved.o"], "vmlinux");
    let vmlinux = f.open("vmlinux");
    let elf = vmlinux.parse().expect("an image");
    let data = elf.section_by_name(b".data").expect("data");
    let both = elf::SHF_WRITE.0 | elf::SHF_EXECINSTR.0;
    assert_eq!(elf.section_flags(data) & both, both);
    for (object, name) in [("alpha.o", "kept"), ("moved.o", "moved")] {
        let bound = bindings(&f.open(object), &vmlinux, name);
        assert!(matches!(&bound[..], [Some((to, ..))] if to == name), "{bound:?}");
    }
}

/// A local that ThinLTO promoted is a hidden global with a hash in its name.
const PROMOTED: &str = "#define QUOTE(x) #x
    #define TEXT(x) QUOTE(x)
    #define HIDDEN __attribute__((visibility(\"hidden\"), noinline))
    HIDDEN int helper(int x) __asm__(\"helper.llvm.\" TEXT(HASH));
    HIDDEN int only(int x) __asm__(TEXT(MARK) \".llvm.\" TEXT(HASH));
    int helper(int x) { asm(\"\"); return x + 1; }
    int only(int x) { asm(\"\"); return x * 3; }
    int NAME(int x) { return helper(x) + only(x); }";

fn promoted(f: &Fixture, name: &str, hash: u32) -> String {
    let object = format!("{name}{hash}.o");
    let flags = [format!("-DNAME={name}"), format!("-DMARK=only_{name}"), format!("-DHASH={hash}")];
    f.compile(name, PROMOTED, &object, &flags.each_ref().map(String::as_str));
    object
}

#[test]
fn promoted_names_are_matched_by_the_company_they_keep() {
    let f = Fixture::new();
    let kernel = [promoted(&f, "alpha", 111), promoted(&f, "beta", 222)];
    let ours = [promoted(&f, "alpha", 777), promoted(&f, "beta", 888)];
    f.link(&kernel.each_ref().map(String::as_str), "vmlinux");
    f.combine(&ours.each_ref().map(String::as_str), "witness.o");
    let bound = bindings(&f.open("witness.o"), &f.open("vmlinux"), "helper");
    let names: BTreeSet<_> = bound.iter().flatten().map(|b| (b.0.as_str(), b.2)).collect();
    let expected = [
        ("helper.llvm.111", SymbolEvidence::PromotedTogether),
        ("helper.llvm.222", SymbolEvidence::PromotedTogether),
    ];
    assert_eq!(names, BTreeSet::from(expected));
    let object = f.open("witness.o");
    let object = Object::read(&object).expect("a sound object");
    let image = f.open("vmlinux");
    let image = Image::read(&image, "vmlinux").expect("a sound image");
    let binding = Binding::new(&object, &image);
    let id = object.elf.symbol_ids().find(|&id| object.elf.symbol_name(id) == b"helper.llvm.888");
    let bound = binding.symbol(id.expect("a promoted symbol")).expect("a bound symbol");
    assert_eq!((bound.name.as_str(), bound.sympos), ("helper.llvm.222", 0));
}

/// A unit that refers to the promoted names of another unit.
fn user(f: &Fixture, hash: u32, names: &[&str]) -> String {
    let declared: String =
        names.iter().map(|name| format!("int {name}_(int) __asm__(\"{name}.llvm.{hash}\");\n")).collect();
    let called: String = names.iter().map(|name| format!("x += {name}_(x);")).collect();
    let object = format!("user{hash}.o");
    f.compile("user", &format!("{declared} int user(int x) {{ {called} return x; }}"), &object, &[]);
    object
}

#[test]
fn promoted_names_of_another_unit_are_matched_by_company_or_by_the_code_that_refers_to_them() {
    for (names, evidence) in [
        (&["helper", "only_beta"][..], SymbolEvidence::PromotedTogether),
        (&["helper"][..], SymbolEvidence::Reference),
    ] {
        let f = Fixture::new();
        let kernel = [promoted(&f, "alpha", 111), promoted(&f, "beta", 222), user(&f, 222, names)];
        f.link(&kernel.each_ref().map(String::as_str), "vmlinux");
        let bound = bindings(&f.open(&user(&f, 888, names)), &f.open("vmlinux"), "helper");
        assert!(
            matches!(&bound[..], [Some((name, _, found))] if name == "helper.llvm.222" && *found == evidence),
            "{bound:?}"
        );
    }
}

#[test]
fn a_local_of_one_build_may_be_promoted_in_the_other() {
    let f = Fixture::new();
    let local = "static __attribute__((noinline)) int helper(int x) { asm(\"\"); return x + 1; }
        int NAME(int x) { return helper(x); }";
    f.compile("gamma", local, "gamma.o", &["-DNAME=gamma"]);
    let object = promoted(&f, "gamma", 111);
    f.link(&[&object], "vmlinux");
    let bound = bindings(&f.open("gamma.o"), &f.open("vmlinux"), "helper");
    assert!(
        matches!(&bound[..], [Some((name, _, SymbolEvidence::CanonicalName))] if name == "helper.llvm.111"),
        "{bound:?}"
    );
    f.link(&["gamma.o"], "other");
    let bound = bindings(&f.open(&object), &f.open("other"), "helper");
    assert!(
        matches!(&bound[..], [Some((name, _, SymbolEvidence::CanonicalName))] if name == "helper"),
        "{bound:?}"
    );
}

#[test]
fn numbered_statics_are_not_matched_by_their_number_when_the_sizes_disagree() {
    let f = Fixture::new();
    let source =
        "int NAME(int x) { static int A[SIZE_A]; A[x & 1] += x; { static int A[SIZE_B]; A[x & 3] += x;
        return A[x & 1]; } }";
    let first = ["-DNAME=f", "-DA=count", "-DSIZE_A=2", "-DSIZE_B=8"];
    let swapped = ["-DNAME=f", "-DA=count", "-DSIZE_A=8", "-DSIZE_B=2"];
    f.compile("delta", source, "first.o", &first);
    f.compile("delta", source, "swapped.o", &swapped);
    f.link(&["swapped.o"], "vmlinux");
    let bound = bindings(&f.open("first.o"), &f.open("vmlinux"), "count");
    assert_eq!(bound.len(), 2);
    assert!(bound.iter().flatten().all(|b| b.2 == SymbolEvidence::Size), "{bound:?}");
}

#[test]
fn what_nothing_tells_apart_is_an_error() {
    let f = Fixture::new();
    // The kernel has two files of one name; klpx's build has one of them under another name: no file matches, and the
    // sizes are the same.
    let source = "static __attribute__((noinline)) int helper(int x) { asm(\"\"); return x + 1; }
        int NAME(int x) { return helper(x); }";
    let kernel = [promoted(&f, "alpha", 111), promoted(&f, "beta", 222)];
    f.compile("gamma", source, "gamma.o", &["-DNAME=gamma"]);
    f.link(&kernel.each_ref().map(String::as_str), "vmlinux");
    let (object, image) = (f.open("gamma.o"), f.open("vmlinux"));
    let object = Object::read(&object).expect("a sound object");
    let image = Image::read(&image, "vmlinux").expect("a sound image");
    let binding = Binding::new(&object, &image);
    let symbol = |name: &[u8]| object.elf.symbol_ids().find(|&id| object.elf.symbol_name(id) == name);
    let error = binding.symbol(symbol(b"helper").expect("a local")).expect_err("two fit");
    assert_eq!((error.code, error.detail.len()), ("klpx::ambiguous-symbol", 2));
    let error = binding.symbol(symbol(b"gamma").expect("a global")).expect_err("none fits");
    assert_eq!(error.code, "klpx::not-in-kernel");
}

/// Two files of one name. `twin` has the same size in both; `seen` is the same in both.
const CORE: &str = "static __attribute__((noinline)) int twin(int x) { asm(\"\"); return x + ADD; }
    static __attribute__((used)) int seen;
    static __attribute__((noinline)) int NAME_only(int x) { asm(\"\"); return x - ADD; }
    int NAME(int x) { return twin(x) * 2 + NAME_only(x); }";

/// Compiles one of the two files, as the kernel is compiled and with sections, to `NAME.o` and `NAME-unit.o`.
fn core(f: &Fixture, name: &str, add: u32, local: &str) {
    let text = CORE.replace("NAME_only", local).replace("NAME", name);
    let add = format!("-DADD={add}");
    f.compile("core", &text, &format!("{name}.o"), &[&add]);
    f.compile("core", &text, &format!("{name}-unit.o"), &[&add, "-ffunction-sections", "-fdata-sections"]);
}

/// The binding of a unit's local: its address minus that of the unit's global in the image, and the evidence.
fn place_of(unit: &ElfFile, image: &Image<'_>, global: &str, local: &str) -> Option<(u64, SymbolEvidence)> {
    let object = Object::read(unit).expect("a sound object");
    let binding = Binding::new(&object, image);
    let symbol = |name: &str| {
        let is_it = |&id: &SymbolId| object.elf.symbol_name(id) == name.as_bytes();
        object.elf.symbol_ids().find(is_it).expect("a symbol of the unit")
    };
    let address = |name: &str| {
        let (found, evidence) = binding.counterpart(symbol(name))?;
        Some((image.address(found)?, evidence))
    };
    let (base, _) = address(global)?;
    address(local).map(|(at, evidence)| (base.wrapping_sub(at), evidence))
}

#[test]
fn a_unit_is_the_one_of_several_files_of_its_name_that_holds_what_it_holds() {
    for (locals, adds) in [(["one_only", "two_only"], [1, 1]), (["same", "same"], [1, 2])] {
        let f = Fixture::new();
        core(&f, "one", adds[0], locals[0]);
        core(&f, "two", adds[1], locals[1]);
        f.link(&["one.o", "two.o"], "vmlinux");
        let image = f.open("vmlinux");
        let image = Image::read(&image, "vmlinux").expect("a sound image");
        for name in ["one", "two"] {
            let unit = f.open(&format!("{name}-unit.o"));
            let found = place_of(&unit, &image, name, "twin").expect("bound");
            assert!(found.0 < 64, "{name}: its own twin lies right before it: {found:?}");
            assert_eq!(found.1, SymbolEvidence::FileAndName, "{locals:?} {name}");
        }
    }
}

#[test]
fn of_files_that_nothing_tells_apart_only_references_tell() {
    let f = Fixture::new();
    core(&f, "one", 1, "same");
    core(&f, "two", 1, "same");
    f.link(&["one.o", "two.o"], "vmlinux");
    let image = f.open("vmlinux");
    let image = Image::read(&image, "vmlinux").expect("a sound image");
    let unit = f.open("two-unit.o");
    let found = place_of(&unit, &image, "two", "twin").expect("bound");
    assert!(found.0 < 64 && found.1 == SymbolEvidence::Reference, "{found:?}");
    let object = Object::read(&unit).expect("a sound object");
    let binding = Binding::new(&object, &image);
    let seen = object.elf.symbol_ids().find(|&id| object.elf.symbol_name(id) == b"seen");
    let error = binding.symbol(seen.expect("a static")).expect_err("two fit");
    assert_eq!((error.code, error.detail.len()), ("klpx::ambiguous-symbol", 2));
}

#[test]
fn a_stripped_module_is_bound_by_names_and_neighbours_or_by_its_copy() {
    let f = Fixture::new();
    core(&f, "one", 1, "one_only");
    core(&f, "two", 2, "two_only");
    std::fs::create_dir(f.path("shipped")).expect("a directory");
    std::fs::create_dir(f.path("debug")).expect("a directory");
    f.combine(&["one.o", "two.o"], "debug/m.ko");
    f.strip("debug/m.ko", "shipped/m.ko");
    std::fs::write(f.path("Module.symvers"), "").expect("a file");
    let kernel = |copies: &[std::path::PathBuf]| {
        let shipped = [f.path("shipped")];
        let kernel = TargetKernel::open(&f.path("one.o"), &f.path("Module.symvers"), &shipped);
        kernel.expect("a kernel").with_debug_modules(copies)
    };
    let (alone, with_copy) = (kernel(&[]), kernel(&[f.path("debug")]));
    for (kernel, unique, double) in [
        (&alone, SymbolEvidence::Name, SymbolEvidence::Contents),
        (&with_copy, SymbolEvidence::FileAndName, SymbolEvidence::FileAndName),
    ] {
        let image = kernel.image("m").expect("a module");
        assert!(image.files().is_empty(), "stripping takes the FILE symbols");
        for name in ["one", "two"] {
            let unit = f.open(&format!("{name}-unit.o"));
            let only = place_of(&unit, &image, name, &format!("{name}_only")).expect("bound");
            let twin = place_of(&unit, &image, name, "twin").expect("bound");
            assert!(only.0 < 64 && twin.0 < 64, "{name}: {only:?} {twin:?}");
            assert_eq!((only.1, twin.1), (unique, double), "{name}");
        }
    }
}

#[test]
fn in_a_stripped_module_the_locals_of_a_unit_stand_together() {
    let f = Fixture::new();
    let text = "static int NAME_first; static int state; static int NAME_last;
        int NAME(int x) { NAME_first += x; state += x; NAME_last += x; return NAME_first + state + NAME_last; }";
    for name in ["one", "two"] {
        f.compile("core", &text.replace("NAME", name), &format!("{name}.o"), &[]);
    }
    f.combine(&["one.o", "two.o"], "whole.ko");
    f.strip("whole.ko", "m.ko");
    let image = f.open("m.ko");
    let image = Image::read(&image, "m").expect("a sound module");
    for name in ["one", "two"] {
        let found = bindings_in(&f.open(&format!("{name}.o")), &image, "state");
        assert!(matches!(&found[..], [Some((_, _, SymbolEvidence::Neighbours))]), "{name}: {found:?}");
        let first = bindings_in(&f.open(&format!("{name}.o")), &image, &format!("{name}_first"));
        let distance =
            |a: &Option<(String, u64, SymbolEvidence)>| a.as_ref().map(|found| found.1).unwrap_or_default();
        assert!(distance(&found[0]).abs_diff(distance(&first[0])) < 12, "{name}: {found:?} {first:?}");
    }
}
