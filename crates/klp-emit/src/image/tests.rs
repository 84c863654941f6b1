//! Small kernels and modules, and the positions of their symbols.

use std::path::Path;

use super::*;
use klpx_testkit::fixture::Fixture;

#[test]
fn symvers_lines_are_read() {
    let text = "0x1f2e3d4c\tkfree\tvmlinux\tEXPORT_SYMBOL\t\n\
                0x00000000\traid_x\tdrivers/md/raid-x\tEXPORT_SYMBOL_GPL\tmodule:a,b\n";
    let exports = Exports::parse(text).expect("sound lines");
    let kfree = exports.get("kfree").expect("an export");
    assert_eq!((kfree.crc, kfree.object.as_str(), kfree.gpl), (0x1f2e_3d4c, "vmlinux", false));
    let other = exports.get("raid_x").expect("an export");
    assert_eq!((other.object.as_str(), other.path.as_str()), ("raid_x", "drivers/md/raid-x"));
    assert_eq!((other.gpl, other.namespace.as_str()), (true, "module:a,b"));
    for bad in [
        "x",
        "0x1\t\tvmlinux\tEXPORT_SYMBOL\t",
        "0x1\ta\tvmlinux\tOTHER\t",
        "zz\ta\tvmlinux\tEXPORT_SYMBOL\t",
    ] {
        assert_eq!(Exports::parse(bad).expect_err(bad).code, "klpx::bad-symvers");
    }
}

#[test]
fn module_names_have_no_dashes() {
    assert_eq!(module_name(Path::new("drivers/md/dm-mod.ko")), "dm_mod");
    assert_eq!(module_name(Path::new("fs/fat/vfat.o")), "vfat");
    assert_eq!(module_name(Path::new("vmlinux")), "vmlinux");
}

const ONE: &str = "static __attribute__((noinline)) int twin(int x) { asm(\"\"); return x + 1; }
    int one(int x) { return twin(x) * 2; } static int seen; int *look(void) { return &seen; }";
const TWO: &str = "static __attribute__((noinline)) int twin(int x) { asm(\"\"); return x + 2; }
    int two(int x) { return twin(x) * 3; }";

#[test]
fn equal_names_of_vmlinux_are_numbered_by_address() {
    let f = Fixture::new();
    f.compile("one", ONE, "one.o", &[]);
    f.compile("two", TWO, "two.o", &[]);
    f.link(&["two.o", "one.o"], "vmlinux");
    let file = f.open("vmlinux");
    let image = Image::read(&file, VMLINUX).expect("a sound image");
    let mut twins: Vec<_> = image.named(b"twin").collect();
    twins.sort_by_key(|&id| image.address(id));
    let positions: Vec<_> =
        twins.iter().map(|&id| image.position(id).expect("a kernel symbol").sympos).collect();
    assert_eq!(positions, [1, 2]);
    let only = image.named(b"seen").next().expect("a static");
    assert_eq!(image.position(only), Ok(SymbolPosition { name: "seen".into(), sympos: 0 }));
}

#[test]
fn a_module_counts_in_symbol_table_order_and_notices_init() {
    let f = Fixture::new();
    f.compile("one", ONE, "one.o", &["-D__init="]);
    f.compile("two", &TWO.replace("noinline", "noinline,section(\".init.text\")"), "two.o", &[]);
    f.compile("three", &TWO.replace("two", "three"), "three.o", &[]);
    f.combine(&["one.o", "three.o", "two.o"], "late.ko");
    f.combine(&["two.o", "one.o", "three.o"], "early.ko");
    let places = |name: &str| {
        let file = f.open(name);
        let image = Image::read(&file, "m").expect("a sound module");
        let position = |id| image.position(id).map(|p| p.sympos).map_err(|e| e.to_string());
        image.named(b"twin").map(position).collect::<Vec<_>>()
    };
    let late = places("late.ko");
    assert_eq!((&late[0], &late[1]), (&Ok(1), &Ok(2)));
    assert!(late[2].is_err());
    let early = places("early.ko");
    assert!(early.iter().all(Result::is_err), "{early:?}");
    assert!(early[1].as_ref().is_err_and(|e| e.contains("position changes")), "{early:?}");
}

#[test]
fn what_is_no_kernel_image_is_refused() {
    let f = Fixture::new();
    f.compile("one", ONE, "one.o", &[]);
    f.link(&["one.o"], "vmlinux");
    let object = f.open("one.o");
    assert!(Image::read(&object, VMLINUX).is_err_and(|e| e.to_string().contains("not a linked vmlinux")));
    for cut in [0, 40, 64, 300, 2000] {
        let short = f.changed("vmlinux", |bytes| bytes.truncate(cut));
        assert!(Image::read(&short, VMLINUX).is_err());
    }
}

#[test]
fn landing_pads_are_there_or_not_or_are_taken_away() {
    let f = Fixture::new();
    let text = "static __attribute__((noinline, nocf_check)) int bare(int x) { asm(\"\"); return x + 1; }
        int kept(int x) { return bare(x); } int sealed(int x) { return bare(x) + 1; } int data = 1;";
    f.compile("one", text, "one.o", &["-fcf-protection=branch"]);
    // `relocate_kernel` lies in `.data`, which then has the flag of code.
    let seals = ".section .data.moved,\"awx\"\n.type moved,@function\nmoved: ret\n.size moved,.-moved\n\
        .section .ibt_endbr_seal,\"a\"\n.long 0\n.long sealed - .\n";
    f.assemble("seals", seals);
    f.link(&["one.o", "seals.o"], "vmlinux");
    f.combine(&["one.o", "seals.o"], "m.ko");
    for (name, object) in [("vmlinux", VMLINUX), ("m.ko", "m")] {
        let file = f.open(name);
        let image = Image::read(&file, object).expect("a sound image");
        assert_eq!(image.seals_functions(), object == VMLINUX);
        let sealed = |name: &str| image.is_sealed(image.placed(name, 0).expect("a symbol"));
        let names = ["bare", "kept", "sealed", "moved", "data"];
        assert_eq!(names.map(sealed), [true, false, true, true, false], "{name}");
    }
}

/// A symbol table in assembly, read as a module.
fn module(text: &str, ask: impl FnOnce(&Image<'_>)) {
    let f = Fixture::new();
    f.assemble("m", text);
    let file = f.open("m.o");
    ask(&Image::read(&file, "m").expect("a sound module"));
}

#[test]
fn a_modules_names_are_counted_as_the_kernel_counts_them() {
    // FILE symbols count, undefined ones do not; symbols of sections that are not kept go when the module has started.
    let text = ".file \"twin\"\n.text\n.type twin,@function\ntwin: nop\ncall away\ncall other\n\
        .section .secret\nother_one: .long 1\n.section .init.text,\"ax\"\nstart: nop\n";
    module(text, |image| {
        let position = |name: &[u8]| image.named(name).next().map(|id| image.position(id));
        let found = |name: &[u8]| position(name).map(|found| found.map(|found| found.sympos).ok());
        assert_eq!(found(b"twin"), Some(None), "it moves when the FILE symbol goes");
        assert_eq!(found(b"away"), Some(None));
        assert_eq!(found(b"other_one"), Some(None), "not loaded");
        assert_eq!(found(b"start"), Some(None), "gone after init");
    });
    module(".text\n.globl one\none: nop\ncall twin\n", |image| {
        let one = image.named(b"one").next().expect("a symbol");
        assert_eq!(image.position(one), Ok(SymbolPosition { name: "one".into(), sympos: 0 }));
    });
}

#[test]
fn hidden_symbols_are_globals_though_the_link_made_them_local() {
    let f = Fixture::new();
    f.assemble("one", ".text\n.globl shown,hidden\n.hidden hidden\nshown: nop\nhidden: nop\nlocal: nop\n");
    f.link(&["one.o"], "vmlinux");
    let file = f.open("vmlinux");
    let image = Image::read(&file, VMLINUX).expect("a sound image");
    let global = |name: &str| image.global(name.as_bytes()).is_some();
    assert_eq!(["shown", "hidden", "local"].map(global), [true, true, false]);
}

#[test]
fn a_place_lies_in_a_function_or_behind_one() {
    let f = Fixture::new();
    let function = |name: &str, size: u32| {
        format!(".globl {name}\n.type {name},@function\n{name}: .fill 16,1,0x90\n.size {name},{size}\n")
    };
    f.assemble("one", &format!(".text\n{}{}", function("one", 10), function("two", 16)));
    f.link(&["one.o"], "vmlinux");
    let file = f.open("vmlinux");
    let image = Image::read(&file, VMLINUX).expect("a sound image");
    let start = image.global(b"one").and_then(|id| image.address(id)).expect("a function");
    let at = |offset: u64| image.function_at(start + offset).map(|(from, to)| (from - start, to - start));
    assert_eq!(
        [0, 9, 10, 15, 16, 31, 32].map(at),
        [Some((0, 10)), Some((0, 10)), None, None, Some((16, 32)), Some((16, 32)), None]
    );
    let before = |offset: u64| image.function_before(start + offset).map(|end| end - start);
    assert_eq!([0, 5, 10, 15, 16, 20].map(before), [None, None, Some(10), Some(10), Some(10), None]);
}

#[test]
fn a_module_is_found_in_the_first_folder_as_what_is_shipped() {
    let f = Fixture::new();
    let folders = ["first", "second"].map(|name| f.path(name));
    f.assemble("m", ".text\n.globl one\none: nop\n");
    let m = std::fs::read(f.path("m.o")).expect("an object");
    for (file, of) in [
        ("first/sub/kept.ko", true),
        ("first/kept.o", true),
        ("first/kept.mod", false),
        ("second/kept.ko", true),
        ("second/only.ko", true),
        ("second/built.o", true),
        ("second/built.mod", false),
        ("second/stray.o", true),
    ] {
        let path = f.path(file);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(&path, if of { m.as_slice() } else { b"" }).expect("a file");
    }
    f.link(&["m.o"], "vmlinux");
    std::fs::write(f.path("symvers"), "").expect("a file");
    let kernel = TargetKernel::open(&f.path("vmlinux"), &f.path("symvers"), &folders).expect("a kernel");
    let found: Vec<_> = kernel
        .modules()
        .map(|(name, path)| {
            (name.to_owned(), path.strip_prefix(f.path("")).unwrap_or(path).display().to_string())
        })
        .collect();
    let wanted = [("built", "second/built.o"), ("kept", "first/sub/kept.ko"), ("only", "second/only.ko")];
    assert_eq!(found, wanted.map(|(name, path)| (name.to_owned(), path.to_owned())));
    assert!(kernel.image("stray").is_err_and(|failure| failure.to_string().contains("stray")));
    // A named file takes precedence.
    let kernel = kernel
        .with_external(&f.path("second/kept.ko"), "0x1\tnew\tout/kept\tEXPORT_SYMBOL\t\n")
        .expect("lines");
    assert_eq!(kernel.exports().get("new").map(|export| export.object.as_str()), Some("kept"));
}

#[test]
fn names_that_a_module_imports_are_not_its_own_and_a_position_is_one_of_several() {
    let f = Fixture::new();
    f.assemble("one", ".file \"a.c\"\n.text\ntwin: nop\n");
    f.assemble("two", ".file \"b.c\"\n.text\ncall twin\n");
    f.assemble("three", ".file \"c.c\"\n.text\nnop\ntwin: nop\n");
    f.combine(&["one.o", "two.o"], "m.ko");
    let file = f.open("m.ko");
    let image = Image::read(&file, "m").expect("a sound module");
    let own = image.named(b"twin").find(|&id| image.address(id).is_some()).expect("a local");
    assert_eq!(image.position(own), Ok(SymbolPosition { name: "twin".into(), sympos: 0 }));
    f.combine(&["one.o", "three.o"], "m.ko");
    f.link(&["one.o", "three.o"], "vmlinux");
    for (name, object) in [("m.ko", "m"), ("vmlinux", VMLINUX)] {
        let file = f.open(name);
        let image = Image::read(&file, object).expect("a sound image");
        let at = |position: u32| image.placed("twin", position);
        assert!(at(1).is_some() && at(2) > at(1) && at(3).is_none() && at(0) == at(1), "{name}");
    }
}
