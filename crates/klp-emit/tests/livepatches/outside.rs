//! How references that lead out of the module are found, and at which distance from the symbol.

use std::collections::BTreeMap;

use klpx_klp_emit::plan::ExportedSymbol;
use klpx_normalize::arch::Arch;
use klpx_normalize::elf::{Definition, ElfFile};
use klpx_testkit::builds::Builds;
use klpx_testkit::kernel::Kernel;
use object::endian::LittleEndian as LE;

/// An export of an object, with a namespace.
fn export(module: &str, namespace: &str) -> ExportedSymbol {
    let some = |text: &str, none: &str| (text != none).then(|| text.to_owned());
    ExportedSymbol { module: some(module, "vmlinux"), gpl: true, namespace: some(namespace, "") }
}

/// The references of a changed unit of `object` to the outside, with their distances; or the codes of its refusals.
fn outside(
    object: &str,
    kernel: &Kernel,
    original: &str,
    patched: &str,
) -> Result<Vec<(String, i64)>, Vec<&'static str>> {
    let builds = Builds::new(original, patched);
    let refused = builds.codes(object, kernel);
    if !refused.is_empty() {
        return Err(refused);
    }
    let file = ElfFile::from_bytes("closure.o", builds.emit(object, kernel).expect("a livepatch").object);
    let elf = file.parse().expect("an object");
    let mut names: Vec<_> = elf
        .symbol_ids()
        .filter(|&id| elf.definition(id) == Definition::Undefined)
        .map(|id| elf.symbol_name(id))
        .collect();
    names.sort();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count, "each name has one symbol");
    let mut found = Vec::new();
    for section in elf.section_ids() {
        if elf.section_type(section) == object::elf::SHT_RELA.0 {
            let places = elf.rela_table(section).iter().map(|rela| rela.r_offset.get(LE));
            assert!(places.is_sorted(), "in the order of the places");
        }
        for rela in elf.relocations(section) {
            let symbol = elf.rela_symbol(rela).expect("a symbol");
            let name = elf.symbol_name(symbol);
            let field = &elf.section_bytes(section)[rela.r_offset.get(LE) as usize..][..4];
            assert!(
                elf.section_name(section) != b".text" || field == [0; 4],
                "the loader takes no other field"
            );
            if elf.definition(symbol) == Definition::Undefined && name != b"__fentry__" && !name.is_empty() {
                let kind = Arch::X86_64.relocation(rela.r_type(LE, false).0).expect("a known type");
                let bias = if elf.section_name(section) == b".text" { Arch::X86_64.pc_bias(kind) } else { 0 };
                found.push((String::from_utf8_lossy(name).into_owned(), rela.r_addend.get(LE) + bias));
            }
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

const NEAR: &str =
    "extern int out(int); GLOBAL __attribute__((noinline)) int near(int x) { return out(x) + 3; }
    int f(int x) { return near(x) * NUMBER; }";
const AWAY: &str = "extern int away(int); int f(int x) { return away(x) * NUMBER; }";
const NEWLY: &str = "extern int away(int); int f(int x) { return USE(x) * NUMBER; }";

/// Object, unit, an export, names that the object defines, and the expected references.
type Case<'c> = (&'c str, &'c str, Option<(&'static str, ExportedSymbol)>, &'c [&'static str], Vec<String>);

#[test]
fn a_name_is_imported_or_found_by_the_livepatch_core() {
    let klp = |object: &str, of: &str, name: &str| vec![format!(".klpx.{object}!.klp.sym.{of}.{name},0")];
    let import = |name: &str| vec![name.to_owned()];
    let global = NEAR.replace("GLOBAL", "");
    let local = NEAR.replace("GLOBAL", "static");
    let this =
        "extern char __this_module; int f(int x) { return &__this_module == (char *)(long)x ? NUMBER : 0; }";
    let near = |module: &str, space: &str| Some(("near", export(module, space)));
    let away = |module: &str, space: &str| Some(("away", export(module, space)));
    let cases: [Case<'_>; 20] = [
        ("vmlinux", &global, near("vmlinux", ""), &[], import("near")),
        ("vmlinux", &global, near("vmlinux", "CRYPTO"), &[], import("near")),
        ("vmlinux", &global, None, &[], klp("vmlinux", "vmlinux", "near")),
        ("vmlinux", &local, near("vmlinux", ""), &[], klp("vmlinux", "vmlinux", "near")),
        ("vmlinux", &global, near("vmlinux", "module:kvm"), &[], klp("vmlinux", "vmlinux", "near")),
        ("vmlinux", &global, near("kvm", ""), &[], klp("vmlinux", "vmlinux", "near")),
        ("raid1", &global, near("vmlinux", ""), &[], klp("raid1", "raid1", "near")),
        ("raid1", &local, near("vmlinux", ""), &[], klp("raid1", "raid1", "near")),
        ("vmlinux", AWAY, None, &[], klp("vmlinux", "vmlinux", "away")),
        ("vmlinux", AWAY, away("vmlinux", ""), &[], import("away")),
        ("vmlinux", AWAY, away("vmlinux", "module:kvm"), &[], klp("vmlinux", "vmlinux", "away")),
        ("raid1", AWAY, away("vmlinux", ""), &[], import("away")),
        ("raid1", AWAY, away("vmlinux", "module:kvm"), &[], klp("vmlinux", "vmlinux", "away")),
        ("raid1", AWAY, away("md_mod", ""), &[], klp("raid1", "md_mod", "away")),
        ("raid1", AWAY, away("md_mod", "module:raid1"), &[], klp("raid1", "md_mod", "away")),
        ("raid1", AWAY, away("vmlinux", ""), &["away"], klp("raid1", "raid1", "away")),
        ("raid1", AWAY, None, &["away"], klp("raid1", "raid1", "away")),
        ("raid1", NEWLY, away("md_mod", ""), &[], import("away")),
        ("raid1", NEWLY, away("md_mod", "module:raid1"), &[], klp("raid1", "md_mod", "away")),
        ("raid1", this, None, &[], klp("raid1", "raid1", "__this_module")),
    ];
    for (object, text, export, defined, wanted) in cases {
        let kernel = Kernel {
            exports: vec!["__fentry__"],
            defined: [&["out"], defined].concat(),
            exported: export.clone().into_iter().collect(),
            ..Kernel::default()
        };
        let build = |number: &str, used: &str| text.replace("NUMBER", number).replace("USE", used);
        let found = outside(object, &kernel, &build("5", "-"), &build("7", "away"));
        let names = found.map(|found| found.into_iter().map(|(name, _)| name).collect::<Vec<_>>());
        assert_eq!(names, Ok(wanted), "{object} {text} {export:?} {defined:?}");
    }
}

#[test]
fn a_namespace_is_imported_with_the_name() {
    for text in [NEAR.replace("GLOBAL", ""), AWAY.to_owned()] {
        let exported =
            BTreeMap::from([("near", export("vmlinux", "CRYPTO")), ("away", export("vmlinux", "CRYPTO"))]);
        let kernel = Kernel { exports: vec!["__fentry__"], exported, ..Kernel::default() };
        let builds = Builds::new(&text.replace("NUMBER", "5"), &text.replace("NUMBER", "7"));
        let plan = builds.emit("vmlinux", &kernel).expect("a livepatch").plan;
        let spaces: Vec<_> = plan.imports.iter().filter_map(|import| import.namespace.as_deref()).collect();
        assert_eq!(spaces, ["CRYPTO"], "{text}");
    }
}

/// A function with an entry of its own inside, and a place inside that only has a label of the assembler.
const ENTRIES: &str = "
asm(\".pushsection .text.many,\\\"ax\\\"\\n.globl many\\n.type many,@function\\nmany: nop\\n.skip 7,0x90\\n\"
    \".globl inside\\n.type inside,@function\\ninside: MORE nop\\nret\\n.size many,.-many\\n.size inside,.-inside\\n.popsection\");
int named(int) __attribute__((alias(\"f\")));
static int numbers[8];
extern int many(int), inside(int), elsewhere[];
int f(int x) { return x; }
int g(int x) { return WHAT; }
int set(int n, int x) { return numbers[n] = x; }";

#[test]
fn references_keep_their_distance_and_inner_entries_and_aliases_their_names() {
    let klp =
        |name: &str, distance: i64| vec![(format!(".klpx.vmlinux!.klp.sym.vmlinux.{name},0"), distance)];
    let cases = [
        ("many(x)", klp("many", 0)),
        ("inside(x)", klp("inside", 0)),
        ("(int)(long)&inside", klp("inside", 0)),
        ("((char *)inside)[2]", klp("inside", 2)),
        ("named(x)", klp("named", 0)),
        ("f(x)", klp("f", 0)),
        ("numbers[3]", klp("numbers", 12)),
        ("elsewhere[5]", klp("elsewhere", 20)),
        // A place without a name of its own is copied with its function.
        ("((volatile char *)f)[3]", vec![]),
        ("*(volatile char *)__func__", vec![]),
    ];
    let kernel = Kernel { exports: vec!["__fentry__"], defined: vec!["elsewhere"], ..Kernel::default() };
    let text = |what: &str| ENTRIES.replace("MORE", "").replace("WHAT", what);
    // `f` stays out of line, as in a kernel of many files.
    let text = |what: &str| {
        text(what).replace("int f(int x) { return x; }", "__attribute__((noipa)) int f(int x) { return x; }")
    };
    for (what, wanted) in cases {
        assert_eq!(
            outside("vmlinux", &kernel, &text("0"), &text(&format!("{what} + 1"))),
            Ok(wanted),
            "{what}"
        );
    }
    // An exported alias is imported by its own name.
    let exported = BTreeMap::from([("named", export("vmlinux", ""))]);
    let kernel = Kernel { exported, ..kernel };
    let found = outside("vmlinux", &kernel, &text("0"), &text("named(x)"));
    assert_eq!(found, Ok(vec![("named".to_owned(), 0)]));
}

/// The values of a switch are a table that the compiler makes. Each build numbers its tables anew.
#[test]
fn a_constant_without_identity_comes_along() {
    let text = |number: u32| {
        format!(
            "extern int out(int); int f(int x) {{ int y = 5; switch (x) {{ case 0: y = 13; break; case 1: y = 7; break;
             case 2: y = 290; break; case 3: y = 31; break; case 4: y = 3; }} return out(y) + {number}; }}"
        )
    };
    let kernel = Kernel { exports: vec!["__fentry__", "out"], ..Kernel::default() };
    assert_eq!(outside("vmlinux", &kernel, &text(1), &text(2)), Ok(vec![("out".to_owned(), 0)]));
    let original = Builds::new(&text(1), &text(2));
    let table = original.with("vmlinux", |units| {
        let object = units[0].original;
        object.item_ids().any(|item| object.item_name(item).starts_with(b"CSWTCH"))
    });
    assert!(table, "the compiler makes a table with a symbol");
}

/// `cpu_show_spectre_v2` of drivers/base/cpu.c: a weak name of a local function, which arch/x86 defines too.
#[test]
fn a_weak_name_means_the_function_that_the_kernel_has_under_this_name() {
    let text = |number: u32, called: &str| {
        format!(
            "extern int out(int); static __attribute__((noipa)) int not_affected(int x) {{ return out(x) + {number}; }}
             int show(int x) __attribute__((weak, alias(\"not_affected\")));
             int f(int x) {{ return {called}(x) + {number}; }}"
        )
    };
    let klp = |name: &str| (format!(".klpx.vmlinux!.klp.sym.vmlinux.{name},0"), 0);
    let kernel = Kernel { exports: vec!["__fentry__", "out"], defined: vec!["show"], ..Kernel::default() };
    // The local function is replaced too; the call of `show` does not lead to its copy.
    let found = outside("vmlinux", &kernel, &text(1, "show"), &text(2, "show"));
    assert_eq!(found, Ok(vec![klp("show"), ("out".to_owned(), 0)]));
    let found = outside("vmlinux", &kernel, &text(1, "not_affected"), &text(2, "not_affected"));
    assert_eq!(found, Ok(vec![("out".to_owned(), 0)]));
    // A name that neither kernel has.
    let fresh = text(2, "fresh") + "int fresh(int x) __attribute__((weak, alias(\"not_affected\")));";
    let fresh = "extern int fresh(int);".to_owned() + &fresh;
    let found = outside("raid1", &kernel, &text(1, "show"), &fresh);
    assert_eq!(found, Err(vec!["klpx::unresolved-symbol"]));
}

#[test]
fn an_entry_that_only_the_patch_has_is_known_by_its_place() {
    let kernel = Kernel { exports: vec!["__fentry__"], ..Kernel::default() };
    let text = |what: &str| {
        format!(
            "asm(\".pushsection .text.many,\\\"ax\\\"\\n.globl many\\n.type many,@function\\nmany:  nop\\n.skip 7,0x90\\n\
             behind: nop\\nret\\n.size many,.-many\\n.popsection\");
             extern int many(int), {what}(int); int g(int x) {{ return {what}(x); }}"
        )
    };
    // A name at the entry of `many` stands for `many`; at a place inside, the kernel has no name for it.
    let at_entry = text("fresh").replace("many: ", ".globl fresh\\n.type fresh,@function\\nfresh: many: ");
    let inside = text("fresh").replace("behind: ", ".globl fresh\\n.type fresh,@function\\nfresh: ");
    let found = outside(
        "vmlinux",
        &kernel,
        &text("many"),
        &at_entry.replace("return fresh(x)", "return fresh(x) + 1"),
    );
    assert_eq!(found, Ok(vec![(".klpx.vmlinux!.klp.sym.vmlinux.many,0".to_owned(), 0)]));
    let found =
        outside("vmlinux", &kernel, &text("many"), &inside.replace("return fresh(x)", "return fresh(x) + 1"));
    assert_eq!(found, Err(vec!["klpx::unresolved-symbol"]));
}

#[test]
fn branches_that_the_assembler_wrote_out_lead_where_they_led() {
    let text = |number: u32, more: &str, called: &str| {
        format!(
            "extern int out(int);

#define TOGETHER __attribute__((noinline, section(\".sched.text\")))
             static TOGETHER int near(int x) {{ return out(x) + 3; }} {more}
             TOGETHER int f(int x) {{ return {called} + near(x) * {number}; }}"
        )
    };
    let kernel = Kernel { exports: vec!["__fentry__", "out"], ..Kernel::default() };
    let near = (".klpx.vmlinux!.klp.sym.vmlinux.near,0".to_owned(), 0);
    let found = outside("vmlinux", &kernel, &text(5, "", "1"), &text(7, "", "1"));
    assert_eq!(found, Ok(vec![near.clone()]));
    let fresh = "static TOGETHER int fresh(int x) { return out(x) * 9; }";
    let found = outside("vmlinux", &kernel, &text(5, "", "1"), &text(7, fresh, "fresh(x)"));
    assert_eq!(found, Ok(vec![near, ("out".to_owned(), 0)]), "what is new comes along");
}

#[test]
fn a_branch_to_a_plain_number_keeps_it() {
    let text = |number: u32| {
        format!(
            "extern int out(int); int f(int x) {{ asm volatile(\"call 0x1230\" : : : \"rax\"); return out(x) + {number}; }}"
        )
    };
    let kernel = Kernel { exports: vec!["__fentry__", "out"], ..Kernel::default() };
    let emitted = Builds::new(&text(1), &text(2)).emit("vmlinux", &kernel).expect("a livepatch");
    let file = ElfFile::from_bytes("closure.o", emitted.object);
    let elf = file.parse().expect("an object");
    let code = elf.section_by_name(b".text").expect("code");
    let plain = elf.relocations(code).iter().filter(|rela| rela.r_sym(LE, false) == 0);
    // The processor counts from the end of the field.
    assert_eq!(plain.map(|rela| rela.r_addend.get(LE)).collect::<Vec<_>>(), [0x1230 - 4]);
}

#[test]
fn an_entry_inside_is_not_what_else_has_its_name() {
    let kernel = Kernel { exports: vec!["__fentry__"], ..Kernel::default() };
    // `many` with an entry `inside` in the patched build; in the original, the name belongs to something else.
    let text = |inside: &str, more: &str, number: u32| {
        format!(
            "asm(\".pushsection .text.many,\\\"ax\\\"\\n.globl many\\n.type many,@function\\nmany: nop\\n.skip 7,0x90\\n{inside}nop\\nret\\n.size many,.-many\\n.popsection\\n{more}\");
             extern int many(int), inside(int); int g(int x) {{ return inside(x) * {number}; }}"
        )
    };
    let entry = ".globl inside\\n.type inside,@function\\ninside: ";
    let local = ".pushsection .text.inside,\\\"ax\\\"\\n.type inside,@function\\ninside: nop\\nret\\n.size inside,.-inside\\n.popsection";
    for (original, wanted) in [
        (text(entry, "", 3), Ok(vec![(".klpx.vmlinux!.klp.sym.vmlinux.inside,0".to_owned(), 0)])),
        (text("", "", 3), Err(vec!["klpx::unresolved-symbol"])),
        (text("", local, 3), Err(vec!["klpx::unresolved-symbol"])),
    ] {
        assert_eq!(outside("vmlinux", &kernel, &original, &text(entry, "", 5)), wanted, "{original}");
    }
}

/// A constant whose name comes from a macro or the compiler has no identity.
#[test]
fn a_constant_without_identity_is_copied_though_the_kernel_has_one() {
    let text = |number: u32| {
        format!(
            "extern int keep(const void *); int f(int x) {{ return keep(__func__) + {number}; }} int g(int x) {{ return keep(__func__); }}"
        )
    };
    let kernel = Kernel { exports: vec!["__fentry__", "keep"], ..Kernel::default() };
    assert_eq!(outside("vmlinux", &kernel, &text(3), &text(5)), Ok(vec![("keep".to_owned(), 0)]));
}

/// The unlikely part of a copied function is copied with it, changed or not.
#[test]
fn an_unlikely_part_that_did_not_change_comes_along() {
    let text = |number: u32| {
        format!(
            "extern int slow(int) __attribute__((cold)); extern int v;
             int f(int x) {{ if (x == 7) {{ v = slow(x); v += slow(v); }} return x + v * {number}; }}"
        )
    };
    let kernel = Kernel { exports: vec!["__fentry__", "slow", "v"], ..Kernel::default() };
    let found = outside("vmlinux", &kernel, &text(3), &text(5)).expect("a livepatch");
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["slow", "v"]);
}

/// `runtime_const_ptr()` of x86_64 where the compiler optimised the variable away: a place in the kernel's code has it.
#[test]
fn a_runtime_constant_without_a_variable_is_read_from_the_code_that_has_it() {
    let text = |number: u32| {
        format!(
            "unsigned long f(int x) {{ unsigned long *p;
             asm(\"movabs $0x0123456789abcdef,%0\\n1:\\n.pushsection runtime_ptr_base,\\\"a\\\"\\n.long 1b - 8 - .\\n.popsection\" : \"=r\"(p));
             return p[x] + {number}; }}"
        )
    };
    let kernel = Kernel { exports: vec!["__fentry__"], holder: Some(("reader", 5)), ..Kernel::default() };
    let found = outside("vmlinux", &kernel, &text(3), &text(5));
    assert_eq!(found, Ok(vec![(".klpx.vmlinux!.klp.sym.vmlinux.reader,0".to_owned(), 5)]));
    let nobody = Kernel { holder: None, ..kernel };
    assert_eq!(outside("vmlinux", &nobody, &text(3), &text(5)), Err(vec!["klpx::runtime-constant"]));
}
