//! The place, alignment and name of copied code and data in the closure object.

use klpx_normalize::elf::{Elf, ElfFile, SymbolId};
use klpx_testkit::builds::Builds;
use klpx_testkit::fixture::ARM64_CLANG;
use klpx_testkit::kernel::Kernel;
use object::elf;
use object::endian::LittleEndian as LE;

fn kernel() -> Kernel {
    Kernel { exports: vec!["__fentry__"], defined: vec!["out", "use"], ..Kernel::default() }
}

fn object(builds: &Builds) -> ElfFile {
    ElfFile::from_bytes("closure.o", builds.emit("vmlinux", &kernel()).expect("a livepatch").object)
}

fn find(elf: &Elf<'_>, name: &str) -> Option<SymbolId> {
    elf.symbol_ids().find(|&id| elf.symbol_name(id) == name.as_bytes())
}

#[test]
fn what_is_copied_lies_in_the_section_of_its_kind() {
    let new = |declaration: &str, user: &str| {
        let text = |more: &str, number: u32| {
            format!("extern int out(int), use(const void *); {more} return out(x) + {number}; }}")
        };
        Builds::new(&text("int f(int x) {", 1), &text(&format!("{declaration} int f(int x) {{ {user}"), 2))
    };
    let data = |section: &str, value: &str| {
        format!(
            "static long fresh {} {value};",
            if section.is_empty() {
                String::new()
            } else {
                format!("__attribute__((section(\"{section}\")))")
            }
        )
    };
    let code = |section: &str| {
        format!(
            "asm(\".pushsection {section},\\\"ax\\\"\\n.type fresh,@function\\nfresh: nop\\nret\\n.size fresh,.-fresh\\n.popsection\"); extern int fresh(int);"
        )
    };
    let (address, call) = ("use(&fresh);", "fresh(1);");
    // The addition of the patch, its use, its section.
    let cases = [
        (data("", "= 5"), address, ".data", elf::SHT_PROGBITS.0, 3),
        (data("", ""), address, ".bss", elf::SHT_NOBITS.0, 3),
        (
            "static const long fresh[2] = { 3, 5 };".to_owned(),
            "use(fresh);",
            ".rodata",
            elf::SHT_PROGBITS.0,
            2,
        ),
        (data(".data..percpu", "= 5"), address, ".data..percpu", elf::SHT_PROGBITS.0, 3),
        (data("__dyndbg", "= 5"), address, "__dyndbg", elf::SHT_PROGBITS.0, 3),
        (
            "static __attribute__((noinline)) int fresh(int x) { return out(x); }".to_owned(),
            call,
            ".text",
            elf::SHT_PROGBITS.0,
            6,
        ),
        (code(".sched.text"), call, ".text", elf::SHT_PROGBITS.0, 6),
        (code(".altinstr_replacement"), call, ".altinstr_replacement", elf::SHT_PROGBITS.0, 6),
        (code(".altinstr_aux"), call, ".altinstr_aux", elf::SHT_PROGBITS.0, 6),
        (code(".static_call.text"), call, ".static_call.text", elf::SHT_PROGBITS.0, 6),
    ];
    for (declaration, user, section, kind, flags) in cases {
        let file = object(&new(&declaration, user));
        let elf = file.parse().expect("an object");
        let of = find(&elf, "fresh").and_then(|id| elf.symbol_section(id)).expect("a symbol");
        let found = (elf.section_name(of), elf.section_type(of), elf.section_flags(of));
        assert_eq!(found, (section.as_bytes(), kind, flags), "{declaration}");
    }
}

#[test]
fn data_keeps_its_alignment_and_code_its_entry() {
    let text = |number: u32, more: &str| {
        format!("extern int out(int), use(const void *); {more} int f(int x) {{ return out(x) + {number}; }}")
    };
    let more = "static char one[3] = \"a\"; static char __attribute__((aligned(64))) two[5] = \"b\"; static char three[3];
        static char __attribute__((aligned(128))) four[5]; __attribute__((noipa)) int g(int x) { use(one); use(three); use(two); use(four); return x; }
        __attribute__((noipa)) int h(int x) { return g(x); }";
    let patched = text(2, more).replace("+ 2", "+ 2 + h(x) + g(x + 1)");
    let file = object(&Builds::new(&text(1, ""), &patched));
    let elf = file.parse().expect("an object");
    for (name, align) in [("two", 64), ("four", 128), ("f", 1)] {
        let id = find(&elf, name).expect("a symbol");
        let section = elf.symbol_section(id).expect("a section");
        assert_eq!(elf.symbol_value(id) % align, 0, "{name}");
        assert_eq!(elf.section(section).sh_addralign.get(LE) % align, 0, "{name}");
    }
    let code = elf.section_by_name(b".text").expect("code");
    let bytes = elf.section_bytes(code);
    let mut functions: Vec<_> = ["f", "g", "h"].map(|name| find(&elf, name).expect("a function")).into();
    functions.sort_by_key(|&id| elf.symbol_value(id));
    for pair in functions.windows(2) {
        let end = (elf.symbol_value(pair[0]) + elf.symbol_size(pair[0])) as usize;
        let gap = &bytes[end..elf.symbol_value(pair[1]) as usize];
        assert!(gap.iter().all(|&byte| byte == 0xcc), "traps between functions: {gap:?}");
    }
    assert!(elf.section_by_name(b".note.GNU-stack").is_some(), "no executable stack is wanted");
}

#[test]
fn a_part_of_a_section_keeps_its_place_modulo_the_alignment() {
    // The variables share a section; the second is 16 bytes after a multiple of 64.
    let text = |number: u32, user: &str| {
        format!(
            "extern int out(int), use(const void *);
             asm(\".pushsection .data.pair,\\\"aw\\\"\\n.balign 64\\n.local head,tail\\n.type head,@object\\nhead: .quad 1\\n.size head,8\\n.skip 8\\n\
             .type tail,@object\\ntail: .quad 2,3\\n.size tail,16\\n.popsection\");
             extern char head, tail; int f(int x) {{ {user} return out(x) + {number}; }}"
        )
    };
    let original = "extern int out(int); int f(int x) { return out(x) + 1; }";
    let file = object(&Builds::new(original, &text(2, "use(&tail);")));
    let elf = file.parse().expect("an object");
    assert_eq!(elf.symbol_value(find(&elf, "tail").expect("a symbol")) % 64, 16);
}

#[test]
fn copies_have_the_names_of_the_kernels_own_build() {
    let text = |number: u32, counter: u32| {
        format!(
            "extern int out(int);
             int piece(int) __asm__(\"piece.part.{counter}\"), promoted(int) __asm__(\"promoted.llvm.{counter}77\");
             __attribute__((noinline)) int piece(int x) {{ return out(x) + {number}; }}
             __attribute__((noinline)) int promoted(int x) {{ return out(x) * {number}; }}
             int f(int x) {{ return piece(x) + promoted(x); }}"
        )
    };
    let file = object(&Builds::new(&text(5, 3), &text(6, 4)));
    let elf = file.parse().expect("an object");
    let names: Vec<_> =
        elf.symbol_ids().map(|id| String::from_utf8_lossy(elf.symbol_name(id)).into_owned()).collect();
    for (name, there) in [("piece.part.3", true), ("piece.part.4", false), ("promoted", true)] {
        assert_eq!(names.iter().any(|found| found == name), there, "{name}: {names:?}");
    }
    assert!(names.iter().all(|name| !name.contains(".llvm.")), "{names:?}");
}

#[test]
fn what_a_unit_adds_is_listed_without_what_has_no_identity() {
    let original = "extern int out(int), use(const void *); int f(int x) { return out(x); }";
    let patched = "extern int out(int), use(const void *); static int count;
        static __attribute__((noinline)) int helper(int x) { return out(x) + 1; }
        int f(int x) { count += helper(x); use(__func__); return out(count); }";
    let plan = Builds::new(original, patched).emit("vmlinux", &kernel()).expect("a livepatch").plan;
    assert_eq!(plan.objects[0].added, ["count", "helper"]);
    // A local may have the name of a global of the kernel, but a global may not.
    let kernel = Kernel { defined: vec!["out", "use", "helper"], ..kernel() };
    assert_eq!(Builds::new(original, patched).codes("vmlinux", &kernel), [""; 0]);
    let global = patched
        .replace("static __attribute__((noinline)) int helper", "__attribute__((noinline)) int helper");
    assert_eq!(Builds::new(original, &global).codes("vmlinux", &kernel), ["klpx::not-new"]);
}

#[test]
fn objects_and_functions_have_an_order() {
    let text = |name: &str, number: u32| {
        format!("extern int out(int); int {name}(int x) {{ return out(x) + {number}; }}")
    };
    let both = |name: &'static str| (name, text(name, 1), text(name, 2));
    let files = [both("zeta"), both("alpha"), both("mid")];
    let files: Vec<(&str, &str, &str)> =
        files.iter().map(|(name, one, other)| (*name, one.as_str(), other.as_str())).collect();
    let order = |objects: [&str; 3]| {
        Builds::files(&files).with("vmlinux", |units| {
            let units: Vec<_> = units
                .iter()
                .zip(objects)
                .map(|(unit, object_name)| klpx_klp_emit::plan::ComparedUnit { object_name, ..*unit })
                .collect();
            let kernel = Kernel { defined: vec!["out"], ..kernel() };
            let closure = klpx_klp_emit::closure::select(&units, &Default::default()).expect("a change");
            let plan = klpx_klp_emit::emit::emit(&closure, &kernel).expect("a livepatch").plan;
            let each = plan.objects.into_iter().map(|object| {
                (
                    object.name,
                    object
                        .functions
                        .into_iter()
                        .map(|function| function.old.name)
                        .collect::<Vec<_>>()
                        .join(" "),
                )
            });
            each.collect::<Vec<_>>()
        })
    };
    let named = |all: &[(&str, &str)]| {
        all.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>()
    };
    assert_eq!(order(["vmlinux"; 3]), named(&[("vmlinux", "alpha mid zeta")]));
    assert_eq!(
        order(["raid1", "vmlinux", "abc"]),
        named(&[("vmlinux", "alpha"), ("abc", "mid"), ("raid1", "zeta")])
    );
}

/// Where ftrace writes before the entry, an alias at the first byte would not be a function.
#[test]
fn an_alias_of_a_function_is_at_its_entry() {
    let text = |number: u32| format!("extern int out(int); int f(int x) {{ return out(x) + {number}; }}");
    let builds = Builds::of(&ARM64_CLANG, ARM64_CLANG.traced, &text(1), &text(2));
    let file = object(&builds);
    let elf = file.parse().expect("an object");
    let value = |name: &str| elf.symbol_value(find(&elf, name).expect("a symbol"));
    assert_eq!(value("f"), value("klpx_new_0"));
    assert_eq!(value("f") % 16, 8);
}

#[test]
fn of_code_without_a_name_comes_what_runs_and_labels_are_no_symbols() {
    let text = |number: u32| {
        let fixup = |number: u32| {
            format!(
                "asm volatile(\"1: nop\\n2:\\n.pushsection .fixup,\\\"ax\\\"\\n3: mov ${number},%%eax\\nret\\n.popsection\\n\\
                 .pushsection __ex_table,\\\"a\\\"\\n.balign 4\\n.long 1b - ., 3b - ., 0\\n.popsection\" : : : \"rax\");"
            )
        };
        format!(
            "extern int out(int), use(const void *);
             asm(\".pushsection .rodata.mine,\\\"a\\\"\\n.type .Lmine,@object\\n.Lmine: .quad 5\\n.size .Lmine,8\\n.popsection\");
             int f(int x) {{ {} use(&\"abcdef\"[2]); asm volatile(\"mov .Lmine(%%rip),%0\" : \"=r\"(x)); return out(x) + {number}; }}
             int g(int x) {{ {} return out(x); }}",
            fixup(0x1111),
            fixup(0x2222)
        )
    };
    let flags = [klpx_testkit::fixture::X86_64.traced, &["-Wa,-L"]].concat();
    let builds = Builds::of(&klpx_testkit::fixture::X86_64, &flags, &text(1), &text(2));
    let file = object(&builds);
    let elf = file.parse().expect("an object");
    let code = elf.section_bytes(elf.section_by_name(b".text").expect("code"));
    let holds = |number: u16| code.windows(2).any(|two| two == number.to_le_bytes());
    assert!(holds(0x1111) && !holds(0x2222), "the fixup of g stays");
    let names: Vec<_> =
        elf.symbol_ids().map(|id| String::from_utf8_lossy(elf.symbol_name(id)).into_owned()).collect();
    assert!(names.iter().all(|name| !name.starts_with(".L")), "{names:?}");
    // The reference keeps its offset within the text.
    let texts = elf.section_by_name(b".rodata").expect("texts");
    let places = elf
        .section_ids()
        .flat_map(|id| elf.relocations(id))
        .filter(|rela| elf.rela_symbol(rela).and_then(|id| elf.symbol_section(id)) == Some(texts));
    let places: Vec<_> = places.map(|rela| rela.r_addend.get(LE)).collect();
    assert!(
        places.iter().any(|&at| elf.section_bytes(texts)[at as usize..].starts_with(b"cdef\0")),
        "{places:?}"
    );
}
