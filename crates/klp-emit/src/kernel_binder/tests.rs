//! Names in a kernel of a few lines of assembly and one module.

use super::*;
use klpx_normalize::elf::ElfFile;
use klpx_testkit::fixture::Fixture;

/// A function of 16 bytes.
fn code(scope: &str, name: &str, section: &str) -> String {
    format!(
        ".section {section},\"ax\"\n.balign 16\n.{scope} {name}\n.type {name},@function\n{name}: .fill 16,1,0x90\n.size {name},16\n"
    )
}

fn assemble(f: &Fixture, name: &str, file: &str, parts: &[String]) {
    f.assemble(name, &format!(".file \"{file}\"\n{}", parts.concat()));
}

/// Two files with a function of the same name, a function inside another function, constants that boot code patches,
/// promoted names; and a module.
fn kernel(seals: &str) -> Fixture {
    let f = Fixture::new();
    let inner = ".globl inner\n.type inner,@function\n.set inner, many + 8\n".to_owned();
    let sites = ".section runtime_ptr_base,\"a\"\n.globl __start_runtime_ptr_base,__stop_runtime_ptr_base\n\
        __start_runtime_ptr_base: .long setup + 3 - .\n.long holder - .\n__stop_runtime_ptr_base:\n\
        .section runtime_ptr_gone,\"a\"\n.globl __start_runtime_ptr_gone,__stop_runtime_ptr_gone\n\
        __start_runtime_ptr_gone: .long setup + 3 - .\n__stop_runtime_ptr_gone:\n"
        .to_owned();
    // `cover` is data that covers the place that `twin` holds.
    let holder =
        ".globl holder\n.set holder, twin + 5\n.set cover, twin\n.type cover,@object\n.size cover,16\n"
            .to_owned();
    let cover = ".local cover\n".to_owned();
    let promoted = |hash: u32| {
        ["helper", "more"].map(|name| {
            let name = format!("{name}.llvm.{hash}");
            code("globl", &name, ".text") + &format!(".hidden {name}\n")
        })
    };
    assemble(
        &f,
        "one",
        "one.c",
        &[code("local", "twin", ".text"), code("globl", "g", ".text"), code("globl", "many", ".text"), inner],
    );
    let [helper, more] = promoted(222);
    assemble(
        &f,
        "two",
        "two.c",
        &[
            cover,
            code("globl", "twin_of", ".text"),
            code("local", "twin", ".text"),
            holder,
            sites,
            code("globl", "setup", ".init.text"),
            helper,
            more,
        ],
    );
    assemble(
        &f,
        "three",
        "three.c",
        &[
            code("globl", "many_of", ".text"),
            code("local", "g", ".text"),
            ".globl later\n.set later, g\n".to_owned(),
        ],
    );
    f.assemble("seals", seals);
    f.link(&["three.o", "one.o", "two.o", "seals.o"], "vmlinux");
    std::fs::create_dir(f.path("modules")).expect("a folder");
    let away = ".text\ncall away\n".to_owned();
    let init = code("globl", "start", ".init.text");
    let [helper, _] = promoted(333);
    assemble(&f, "part", "part.c", &[code("local", "given", ".text"), away, init, helper]);
    assemble(&f, "rest", "rest.c", &[code("globl", "given", ".text")]);
    f.combine(&["part.o", "rest.o"], "modules/m.ko");
    let symvers = "0x1\tg\tvmlinux\tEXPORT_SYMBOL\t\n0x2\tgiven\tdrivers/m\tEXPORT_SYMBOL_GPL\tSPACE\n";
    std::fs::write(f.path("Module.symvers"), symvers).expect("a file");
    // klpx's own builds of two units. The second refers to a promoted name with a hash of klpx's build.
    assemble(
        &f,
        "unit1",
        "one.c",
        &[
            code("local", "twin", ".text"),
            code("globl", "many", ".text"),
            ".globl inner\n.type inner,@function\n.set inner, many + 8\n".to_owned(),
        ],
    );
    assemble(
        &f,
        "unit2",
        "two.c",
        &[code("globl", "twin_of", ".text"), code("local", "twin", ".text"), promoted(888)[0].clone()],
    );
    assemble(&f, "unit3", "part.c", &[code("local", "given", ".text"), promoted(999)[0].clone()]);
    f
}

/// Runs `ask` with the binder and klpx's own objects of the units.
fn with_binder(seals: &str, ask: impl FnOnce(&KernelBinder<'_>, &[Object<'_>])) {
    let f = kernel(seals);
    let kernel = TargetKernel::open(&f.path("vmlinux"), &f.path("Module.symvers"), &[f.path("modules")])
        .expect("a kernel");
    let (vmlinux, module) = (kernel.image(VMLINUX).expect("an image"), kernel.image("m").expect("a module"));
    let files: Vec<ElfFile> = ["unit1.o", "unit2.o", "unit3.o"].map(|name| f.open(name)).into();
    let objects: Vec<Object<'_>> = files.iter().map(|file| Object::read(file).expect("an object")).collect();
    let images = [&vmlinux, &vmlinux, &module];
    let bindings: Vec<Binding<'_>> =
        objects.iter().zip(images).map(|(object, image)| Binding::new(object, image)).collect();
    ask(&KernelBinder::new(&kernel, &vmlinux, &bindings), &objects);
}

const NO_SEALS: &str = "";
const SEALS: &str = ".section .ibt_endbr_seal,\"a\"\n.long 0\n";

/// A name and its position, or the code of the failure.
fn short(found: Result<Bound, Diagnosis>) -> Result<(String, u32), &'static str> {
    found.map(|bound| (bound.name, bound.sympos)).map_err(|fault| fault.code)
}

fn bound(name: &str, position: u32) -> Result<(String, u32), &'static str> {
    Ok((name.to_owned(), position))
}

#[test]
fn symbols_of_a_unit_are_those_of_its_own_binding() {
    with_binder(NO_SEALS, |binder, units| {
        let find = |unit: &Object<'_>, name: &str| {
            let symbol = unit.elf.symbol_ids().find(|&id| unit.elf.symbol_name(id) == name.as_bytes());
            short(binder.bind(unit, symbol.expect("a symbol")))
        };
        assert_eq!(find(&units[0], "twin"), bound("twin", 1));
        assert_eq!(find(&units[1], "twin"), bound("twin", 2));
        assert_eq!(find(&units[0], "many"), bound("many", 0));
        assert_eq!(find(&units[0], "inner"), bound("inner", 0));
        assert_eq!(find(&units[2], "given"), bound("given", 1));
    });
}

#[test]
fn finished_names_have_their_position_and_the_kernels_hash() {
    with_binder(NO_SEALS, |binder, _| {
        let missing = || Err("klpx::not-in-kernel");
        for (object, name, wanted) in [
            ("vmlinux", "many", bound("many", 0)),
            ("vmlinux", "g", bound("g", 2)),
            ("m", "given", bound("given", 2)),
            ("vmlinux", "nobody", missing()),
            ("unknown", "g", missing()),
            ("vmlinux", "helper.llvm.888", bound("helper.llvm.222", 0)),
            ("vmlinux", "more.llvm.888", bound("more.llvm.222", 0)),
            ("m", "helper.llvm.999", bound("helper.llvm.333", 0)),
            ("m", "helper.llvm.888", missing()),
            ("vmlinux", "helper.llvm.555", missing()),
        ] {
            assert_eq!(short(binder.bind_finished(object, name)), wanted, "{object} {name}");
        }
        assert_eq!(short(binder.bind_export("m", "given")), bound("given", 2));
        assert!(binder.bind_export("none", "given").is_err());
    });
}

#[test]
fn an_object_defines_what_it_keeps() {
    with_binder(NO_SEALS, |binder, _| {
        for (object, name, wanted) in [
            ("vmlinux", "many", true),
            ("vmlinux", "twin", false),
            ("vmlinux", "setup", false),
            ("vmlinux", "nobody", false),
            ("vmlinux", "more.llvm.888", true),
            ("m", "given", true),
            ("m", "away", false),
            ("m", "start", false),
            ("unknown", "many", false),
        ] {
            assert_eq!(binder.defines(object, name), wanted, "{object} {name}");
        }
    });
}

#[test]
fn an_indirect_call_is_refused_where_the_kernel_seals_functions() {
    for (seals, wanted) in [(NO_SEALS, false), (SEALS, true)] {
        with_binder(seals, |binder, _| {
            let function = |name: &str| Bound { name: name.to_owned(), sympos: 0 };
            assert_eq!(binder.refuses_indirect_calls("vmlinux", &function("many")), wanted);
            assert!(!binder.refuses_indirect_calls("vmlinux", &function("nobody")));
            assert!(!binder.refuses_indirect_calls("unknown", &function("many")));
        });
    }
}

#[test]
fn a_runtime_constant_is_read_from_code_that_stays() {
    with_binder(NO_SEALS, |binder, _| {
        let twin = Bound { name: "twin".to_owned(), sympos: 2 };
        assert_eq!(binder.runtime_constant("base"), Some((twin, 5)));
        assert_eq!(binder.runtime_constant("gone"), None);
        assert_eq!(binder.runtime_constant("nothing"), None);
    });
}

#[test]
fn exports_say_whose_they_are() {
    with_binder(NO_SEALS, |binder, _| {
        assert_eq!(binder.export("g"), Some(ExportedSymbol { module: None, gpl: false, namespace: None }));
        let of_module =
            ExportedSymbol { module: Some("m".into()), gpl: true, namespace: Some("SPACE".into()) };
        assert_eq!(binder.export("given"), Some(of_module));
        assert_eq!(binder.export("nobody"), None);
    });
}
