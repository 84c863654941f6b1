//! A livepatch names promoted locals as the kernel to be patched does, whatever klpx's own build calls them. Witness
//! and kernel are real ThinLTO links of a small project.

use klpx_klp_emit::bind::{Binding, BoundSymbol, SymbolEvidence};
use klpx_klp_emit::image::{Image, VMLINUX};
use klpx_normalize::elf::ElfFile;
use klpx_normalize::name::{Suffixes, canonical};
use klpx_normalize::object::{ItemId, Object, Target};
use klpx_testkit::project::{self, CLANGS, Mode, Tools};
use klpx_testkit::{command, kallsyms_tables};

/// `api_a` is imported by its caller, so its helper has to be promoted. The other file's helper is not promoted.
const A: &str = "static int list[4];
    __attribute__((noinline)) static int helper(int x) { asm volatile(\"\"); return x + list[x & 3]; }
    int api_a(int x) { return helper(x) + 1; }
    void set_a(int x) { list[x & 3] = x; }";
const B: &str = "static int list[4];
    __attribute__((noinline)) static int helper(int x) { asm volatile(\"\"); return x * list[x & 3]; }
    extern int api_a(int);
    int api_b(int x) { return helper(x) + api_a(x); }
    void set_b(int x) { list[x & 3] = x; }";

/// The project, built in a folder with this name: ThinLTO's hash differs from folder to folder. The second file calls
/// into the first only if `promote` is true.
fn object(tools: Tools, folder: &str, promote: bool) -> ElfFile {
    let b = if promote { B.to_owned() } else { B.replace("api_a(x)", "x") };
    let (first, second) = (format!("{folder}/a/core.c"), format!("{folder}/b/core.c"));
    project::build(tools, Mode::Thin, &[(&first, A), (&second, &b)], &[])
}

/// A kernel: the object, linked at the kernel's addresses. If `strips` is given, the kernel has kallsyms tables for its
/// symbols, sorted accordingly.
fn kernel(tools: Tools, object: &ElfFile, strips: Option<bool>) -> ElfFile {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("all.o"), object.parse().expect("an object").data()).expect("a file");
    std::fs::write(at("text.s"), ".text\n.globl _text\n_text: .skip 16\n").expect("a file");
    let run = |program: &str, arguments: &[&str]| {
        klpx_testkit::run(command(program).args(arguments).current_dir(folder.path()));
    };
    run("gcc", &["-c", "text.s", "-o", "text.o"]);
    let link = |objects: &[&str]| {
        let mut arguments =
            vec!["-static", "-e", "0", "-Ttext=0xffffffff81000000", "-Tbss=0xffffffff82000000"];
        arguments.extend(["-Tdata=0xffffffff83000000", "--section-start=.kallsyms=0xffffffff84000000"]);
        arguments.extend(["-o", "vmlinux", "text.o", "all.o"]);
        arguments.extend(objects);
        run(tools.linker, &arguments);
        ElfFile::from_bytes("vmlinux", std::fs::read(at("vmlinux")).expect("an image"))
    };
    let linked = link(&[]);
    let Some(strips) = strips else { return linked };
    std::fs::write(at("kallsyms.s"), kallsyms_tables::source(&linked, strips)).expect("a file");
    run("gcc", &["-c", "kallsyms.s", "-o", "kallsyms.o"]);
    link(&["kallsyms.o"])
}

/// The function `helper` that the object's function `user` calls.
fn helper_of(object: &Object<'_>, user: &str) -> ItemId {
    let user = object.item_ids().find(|&item| object.item_name(item) == user.as_bytes()).expect("a user");
    let called = object.item_relocations(user).iter().find_map(|rela| {
        match object.resolve(object.item(user).section, rela) {
            Target::Item { item, .. } if canonical(object.item_name(item)).base == b"helper" => Some(item),
            _ => None,
        }
    });
    called.expect("a helper")
}

/// The kernel's symbols for the helpers of `api_a` and `api_b`.
fn bound(witness: &ElfFile, kernel: &ElfFile) -> [BoundSymbol; 2] {
    let object = Object::read(witness).expect("an object");
    let image = Image::read(kernel, VMLINUX).expect("an image");
    let binding = Binding::new(&object, &image);
    ["api_a", "api_b"].map(|user| {
        let helper = helper_of(&object, user);
        let bound = binding.item(helper).expect("a bound symbol");
        let code = image.bytes_from(bound.address).expect("code");
        let own = object.item_bytes(helper);
        assert_eq!(&code[..1], &own[..1], "{user}: other code");
        bound
    })
}

/// The helper's name in a kernel's image.
fn promoted_name(kernel: &ElfFile) -> String {
    let elf = kernel.parse().expect("an image");
    let found = elf.symbol_ids().find(|&id| {
        let canonical = canonical(elf.symbol_name(id));
        canonical.base == b"helper" && canonical.suffixes.contains(Suffixes::PROMOTED)
    });
    String::from_utf8_lossy(elf.symbol_name(found.expect("a promoted helper"))).into_owned()
}

#[test]
fn a_promoted_function_has_the_kernels_hash() {
    for tools in CLANGS {
        let witness = object(tools, "klpx", true);
        let kernel = kernel(tools, &object(tools, "vendor", true), Some(false));
        let [a, b] = bound(&witness, &kernel);
        let name = promoted_name(&kernel);
        let object = Object::read(&witness).expect("an object");
        let own = String::from_utf8_lossy(object.item_name(helper_of(&object, "api_a"))).into_owned();
        assert_ne!(own, name, "the two builds have different hashes");
        assert_eq!((a.name.as_str(), a.sympos), (name.as_str(), 0), "{tools:?}");
        assert_eq!(
            (b.name.as_str(), b.sympos, b.evidence),
            ("helper", 0, SymbolEvidence::FileAndName),
            "{tools:?}"
        );
    }
}

#[test]
fn a_function_that_only_one_build_promoted_has_the_kernels_name() {
    for tools in CLANGS {
        for promoted in [true, false] {
            let witness = object(tools, "klpx", !promoted);
            let kernel = kernel(tools, &object(tools, "vendor", promoted), Some(false));
            let [a, b] = bound(&witness, &kernel);
            if promoted {
                assert_eq!((a.name, a.sympos), (promoted_name(&kernel), 0), "{tools:?}");
                assert_eq!((b.name.as_str(), b.sympos), ("helper", 0), "{tools:?}");
            } else {
                let mut positions = [a.sympos, b.sympos];
                positions.sort_unstable();
                assert_eq!(
                    (a.name.as_str(), b.name.as_str(), positions),
                    ("helper", "helper", [1, 2]),
                    "{tools:?}"
                );
            }
            assert_ne!(a.address, b.address);
        }
    }
}

#[test]
fn a_kernel_that_strips_promoted_names_is_told_by_position() {
    for tools in CLANGS {
        let witness = object(tools, "klpx", true);
        let built = object(tools, "vendor", true);
        // 6.2 to 6.10 compare `helper` with both names; the order of the addresses tells which is which.
        let [a, b] = bound(&witness, &kernel(tools, &built, Some(true)));
        assert_eq!((a.name.as_str(), b.name.as_str()), ("helper", "helper"), "{tools:?}");
        let order = if a.address < b.address { (1, 2) } else { (2, 1) };
        assert_eq!((a.sympos, b.sympos), order, "{tools:?}");
        // The same tables sorted by whole names, and an image without tables.
        for strips in [Some(false), None] {
            let kernel = kernel(tools, &built, strips);
            let [a, b] = bound(&witness, &kernel);
            assert_eq!((a.name, a.sympos), (promoted_name(&kernel), 0), "{tools:?}");
            assert_eq!((b.name.as_str(), b.sympos), ("helper", 0), "{tools:?}");
        }
    }
}
