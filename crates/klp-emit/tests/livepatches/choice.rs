//! What is chosen for a module of several units, what one unit's references mean in another unit, and what the module
//! relies on.

use std::collections::BTreeMap;

use klpx_klp_emit::callers::Elsewhere;
use klpx_klp_emit::plan::ComparedUnit;
use klpx_klp_emit::{closure, emit};
use klpx_normalize::elf::{Definition, ElfFile};
use klpx_testkit::builds::Builds;
use klpx_testkit::kernel::Kernel;
use object::endian::LittleEndian as LE;

fn kernel() -> Kernel {
    Kernel { exports: vec!["__fentry__"], defined: vec!["out", "keep"], ..Kernel::default() }
}

const DECLARATIONS: &str = "extern int out(int), keep(const void *);";

#[test]
fn a_module_relies_on_what_it_replaces_and_on_what_that_refers_to() {
    let text = |number: u32| {
        format!(
            "{DECLARATIONS} static int count; static __attribute__((noinline)) int near(int x) {{ return out(x) + 3; }}
             static long key[2] __attribute__((used)); static const char text[] = \"text\"; long *both[2] = {{ key, key }};
             int f(int x) {{ asm goto(\"1: nop\\n.pushsection __jump_table,\\\"aw\\\"\\n.long 1b - ., %l[yes] - .\\n.quad key - .\\n.popsection\"
                 : : : : yes); keep(text); count += near(x); yes: return x + {number}; }}
             int bystander(int x) {{ return count++; }} long *also(void) {{ return key; }}"
        )
    };
    let names = Builds::new(&text(1), &text(2)).with("vmlinux", |units| {
        let closure = closure::select(units, &Elsewhere::new()).expect("a change");
        let name = |item| String::from_utf8_lossy(units[0].original.item_name(item)).into_owned();
        let mut names: Vec<String> = closure.witnesses(0).into_iter().map(name).collect();
        names.sort();
        names
    });
    assert_eq!(names, ["count", "f", "key", "near", "text"]);
}

/// The kernel's symbols to which the livepatch of these units refers, and the names of what is in the module.
fn made(files: &[(&str, &str, &str)], objects: &[&str]) -> (Vec<String>, Vec<String>) {
    Builds::files(files).with("vmlinux", |units| {
        let units: Vec<ComparedUnit<'_, '_>> = units
            .iter()
            .zip(objects)
            .map(|(unit, object_name)| ComparedUnit { object_name, ..*unit })
            .collect();
        let kernel = Kernel { exports: vec!["__fentry__", "fresh"], ..kernel() };
        let closure = closure::select(&units, &Elsewhere::new()).expect("a change");
        let file =
            ElfFile::from_bytes("closure.o", emit::emit(&closure, &kernel).expect("a livepatch").object);
        let elf = file.parse().expect("an object");
        let text = |id| String::from_utf8_lossy(elf.symbol_name(id)).into_owned();
        let of = |undefined: bool| {
            let ids =
                elf.symbol_ids().filter(|&id| (elf.definition(id) == Definition::Undefined) == undefined);
            ids.map(text)
                .filter(|name| !name.is_empty() && name != "__fentry__" && !name.starts_with("klpx_new"))
                .collect()
        };
        (of(true), of(false))
    })
}

#[test]
fn a_new_name_means_that_of_the_own_object_an_export_or_the_only_one() {
    let user = format!("{DECLARATIONS} int f(int x) {{ return out(x); }}");
    let uses = format!("{DECLARATIONS} extern int fresh(int); int f(int x) {{ return out(fresh(x)); }}");
    let plain = |name: &str| format!("{DECLARATIONS} int {name}(int x) {{ return out(x) - 1; }}");
    let with = |name: &str, fresh: &str| {
        format!("{DECLARATIONS} {fresh} int {name}(int x) {{ return out(x) - 2; }}")
    };
    let new =
        |number: u32| format!("__attribute__((noinline)) int fresh(int x) {{ return out(x) * {number}; }}");
    let weak = "__attribute__((weak, noinline)) int fresh(int x) { return out(x) * 5; }";
    let export =
        "asm(\".pushsection .export_symbol,\\\"a\\\"\\n__export_symbol_fresh: .long 0\\n.popsection\");";
    let (a, b) = (plain("a"), plain("b"));
    let imported = |text: &(Vec<String>, Vec<String>)| text.0.iter().any(|name| name == "fresh");
    // The objects of the three units, what the second and third add, whether the first uses the version in the module.
    let local = "static __attribute__((noinline, used)) int fresh(int x) { return out(x) * 7; }";
    let cases: [([&str; 3], String, String, bool); 7] = [
        (["vmlinux", "vmlinux", "vmlinux"], local.to_owned(), String::new(), false),
        (["vmlinux", "vmlinux", "raid1"], new(3), String::new(), true),
        (["vmlinux", "raid1", "raid1"], new(3), String::new(), true),
        (["vmlinux", "raid1", "raid2"], new(3), new(4), false),
        (["vmlinux", "raid1", "raid2"], new(3), new(4) + export, true),
        (["vmlinux", "vmlinux", "raid2"], new(3), new(4), true),
        (["vmlinux", "vmlinux", "vmlinux"], weak.to_owned(), new(4), true),
    ];
    for (objects, one, two, own) in cases {
        let (one, two) = (with("a", &one), with("b", &two));
        let found = made(&[("user", &user, &uses), ("one", &a, &one), ("two", &b, &two)], &objects);
        assert_eq!(imported(&found), !own, "{objects:?} {found:?}");
    }
}

/// A unit that refers to another unit's new name gets the strong one of two definitions, in any order.
#[test]
fn a_weak_function_gives_way_to_a_strong_one_of_another_unit() {
    let user = format!("{DECLARATIONS} int f(int x) {{ return out(x); }}");
    let uses = format!("{DECLARATIONS} extern int fresh(int); int f(int x) {{ return out(fresh(x)); }}");
    let weak = |more: &str| format!("{DECLARATIONS} {more} int a(int x) {{ return out(x) - 1; }}");
    let fresh = |attribute: &str, size: &str| {
        format!(
            "__attribute__(({attribute}noinline)) int fresh(int x) {{ asm volatile(\".skip {size},0x90\"); return out(x); }}"
        )
    };
    for order in [["", "weak, "], ["weak, ", ""]] {
        let [one, two] =
            order.map(|attribute| fresh(attribute, if attribute.is_empty() { "64" } else { "128" }));
        let files = [
            ("user", user.clone(), uses.clone()),
            ("a", weak(""), weak(&one)),
            ("b", weak("").replace(" a(", " b("), weak(&two).replace(" a(", " b(")),
        ];
        let files: Vec<(&str, &str, &str)> =
            files.iter().map(|(name, one, two)| (*name, one.as_str(), two.as_str())).collect();
        let builds = Builds::files(&files);
        let file =
            ElfFile::from_bytes("closure.o", builds.emit("vmlinux", &kernel()).expect("a livepatch").object);
        let elf = file.parse().expect("an object");
        let code = elf.section_by_name(b".text").expect("code");
        let f = elf.symbol_ids().find(|&id| elf.symbol_name(id) == b"f").expect("a function");
        let range = elf.symbol_value(f)..elf.symbol_value(f) + elf.symbol_size(f);
        let called =
            elf.relocations(code).iter().filter(|rela| range.contains(&rela.r_offset.get(LE))).find_map(
                |rela| {
                    let symbol = elf.rela_symbol(rela)?;
                    (elf.symbol_name(symbol) == b"fresh").then(|| elf.symbol_size(symbol))
                },
            );
        assert!(called.is_some_and(|size| (64..128).contains(&size)), "{order:?}: {called:?}");
    }
}

#[test]
fn constants_without_identity_that_another_unit_names_are_copied() {
    let name = ".str.3.llvm.77";
    let holder = |number: u32| {
        format!(
            "{DECLARATIONS} asm(\".pushsection .rodata.str,\\\"a\\\"\\n.globl {name}\\n.hidden {name}\\n.type {name},@object\\n{name}: .asciz \\\"text\\\"\\n\
             .size {name},5\\n.popsection\"); int g(int x) {{ return out(x) + {number}; }}"
        )
    };
    let user = |number: u32| {
        format!(
            "{DECLARATIONS} extern const char text[] __asm__(\"{name}\"); int f(int x) {{ return keep(text) + {number}; }}"
        )
    };
    let (undefined, _) =
        made(&[("one", &holder(1), &holder(2)), ("two", &user(1), &user(2))], &["vmlinux", "vmlinux"]);
    assert!(undefined.iter().all(|name| !name.contains(".str")), "{undefined:?}");
}

#[test]
fn a_helper_of_another_object_is_not_the_one_that_a_unit_calls() {
    let helper = |number: u32| {
        format!(
            "{DECLARATIONS} __attribute__((no_instrument_function, noinline)) SCOPE int helper(int x) {{ return out(x) + {number}; }} USER"
        )
    };
    let local = |number: u32| {
        helper(number).replace("SCOPE", "static").replace("USER", "int g(int x) { return helper(x) * 2; }")
    };
    let user = |number: u32| {
        format!("{DECLARATIONS} extern int helper(int); int f(int x) {{ return helper(x) + {number}; }}")
    };
    // A local of this name in another unit is not the user's.
    let (undefined, _) =
        made(&[("one", &local(1), &local(2)), ("two", &user(1), &user(2))], &["vmlinux", "vmlinux"]);
    assert!(undefined.iter().any(|name| name.contains(".helper,")), "{undefined:?}");
    // Neither is a global of another object.
    let global = |number: u32| {
        helper(number).replace("SCOPE", "").replace("USER", "int g(int x) { return helper(x) * 2; }")
    };
    let files = [("one", global(1), global(2)), ("two", user(1), user(2))];
    let files: Vec<(&str, &str, &str)> =
        files.iter().map(|(name, one, two)| (*name, one.as_str(), two.as_str())).collect();
    let known: Elsewhere = BTreeMap::from([(("raid1".to_owned(), b"helper".to_vec()), Ok(Vec::new()))]);
    let symbols = Builds::files(&files).with("vmlinux", |units| {
        let units = [ComparedUnit { object_name: "raid1", ..units[0] }, units[1]];
        let closure = closure::select(&units, &known)?;
        emit::emit(&closure, &kernel()).map(|emitted| emitted.plan.livepatch_symbols)
    });
    let symbols = symbols.expect("a livepatch");
    assert!(symbols.iter().any(|name| name == ".klp.sym.vmlinux.helper,0"), "{symbols:?}");
}

#[test]
fn functions_that_change_together_call_each_others_copies() {
    let text = |number: u32| {
        format!(
            "{DECLARATIONS} __attribute__((noipa)) int g(int x) {{ return out(x) + {number}; }}
             int f(int x) {{ return g(x) * {number}; }} int (*hook)(int); void h(int x) {{ hook = g; out({number}); }}"
        )
    };
    let builds = Builds::new(&text(3), &text(4));
    let file =
        ElfFile::from_bytes("closure.o", builds.emit("vmlinux", &kernel()).expect("a livepatch").object);
    let elf = file.parse().expect("an object");
    let code = elf.section_by_name(b".text").expect("code");
    let of = |name: &str| {
        let id = elf.symbol_ids().find(|&id| elf.symbol_name(id) == name.as_bytes()).expect("a function");
        let range = elf.symbol_value(id)..elf.symbol_value(id) + elf.symbol_size(id);
        let inside = elf.relocations(code).iter().filter(|rela| range.contains(&rela.r_offset.get(LE)));
        let names = inside
            .filter_map(|rela| elf.rela_symbol(rela))
            .map(|id| String::from_utf8_lossy(elf.symbol_name(id)).into_owned());
        names.filter(|name| name != "__fentry__").collect::<Vec<_>>()
    };
    assert_eq!(of("f"), ["g"]);
    // Code that keeps an address keeps that of the kernel's function, which stays and which ftrace diverts.
    assert!(of("h").iter().any(|name| name.ends_with(".klp.sym.vmlinux.g,0")), "{:?}", of("h"));
}
