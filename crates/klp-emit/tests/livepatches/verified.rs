//! A good module is accepted, and a module is refused in every way in which it may be broken.

use klpx_klp_emit::writer::{OutputSection, Relocatable, SymbolIndex, SymbolPlace};
use klpx_normalize::elf::ElfFile;
use klpx_testkit::builds::Builds;
use klpx_testkit::fixture::{ARM64_CLANG, Fixture};
use klpx_testkit::kernel::Kernel;
use klpx_verify::inspect::inspect;
use klpx_verify::{KernelFilesTarget, KernelObject, LoadTarget, Verified};
use object::elf;

const ORIGINAL: &str = r#"
extern int printk(const char *, ...);
static int calls;
int (*hook)(int);
static __attribute__((noinline)) int helper(int x) { calls += x; return calls; }
__attribute__((noinline)) int target(int x) { return helper(x) + 1; }
int other(int x) { return x * 3; }
"#;

const PATCHED: &str = r#"
extern int printk(const char *, ...);
static int calls;
int (*hook)(int);
static int fresh_count = 7;
static __attribute__((noinline)) int helper(int x) { calls += x; return calls; }
static __attribute__((noinline)) int fresh(int x) { return printk("fresh %d", x) + fresh_count++; }
__attribute__((noinline)) int target(int x) { hook = target; calls--; return helper(x) + fresh(x) + 1; }
int other(int x) { return x * 3; }
"#;

fn kernel() -> Kernel {
    Kernel { exports: vec!["__fentry__", "printk"], ..Kernel::default() }
}

fn check(bytes: Vec<u8>, builds: &Builds, kernel: &Kernel) -> Result<Verified, Vec<String>> {
    let file = ElfFile::from_bytes("livepatch.ko", bytes);
    builds
        .verify("vmlinux", kernel, &file)
        .map_err(|failure| failure.diagnoses().map(|f| format!("{} {f}", f.code)).collect())
}

#[test]
fn a_good_module_is_taken_and_holds_what_was_asked_for() {
    let builds = Builds::new(ORIGINAL, PATCHED);
    let bytes = builds.module("vmlinux", &kernel());
    assert_eq!(bytes, builds.module("vmlinux", &kernel()), "the same input gives the same bytes");
    let verified = check(bytes.clone(), &builds, &kernel()).unwrap();
    assert_eq!((verified.functions, verified.reachable), (1, 1));

    let module = inspect(&ElfFile::from_bytes("livepatch.ko", bytes)).unwrap();
    let symbols: Vec<&str> = module.symbols.iter().map(|symbol| symbol.name.as_str()).collect();
    // `target` is listed because `hook` must hold the original's address.
    assert_eq!(symbols, ["calls", "helper", "hook", "target"]);
    assert_eq!(module.imports, ["__fentry__", "printk"]);
    assert_eq!(module.replace, Some(true));
    assert_eq!(module.objects.len(), 1);
    assert_eq!(module.objects[0].functions[0].old_name, "target");
    assert_eq!(module.objects[0].functions[0].new_symbol, "target");
}

#[test]
fn symbol_positions_reach_the_module() {
    let builds = Builds::new(ORIGINAL, PATCHED);
    let kernel = Kernel { several: [("helper", 2), ("target", 3)].into(), ..kernel() };
    let bytes = builds.module("vmlinux", &kernel);
    check(bytes.clone(), &builds, &kernel).unwrap();
    let module = inspect(&ElfFile::from_bytes("livepatch.ko", bytes)).unwrap();
    assert_eq!(module.objects[0].functions[0].sympos, 3);
    assert_eq!(
        module.symbols.iter().find(|symbol| symbol.name == "helper").map(|symbol| symbol.sympos),
        Some(2)
    );
}

fn section<'m>(module: &'m mut Relocatable, name: &str) -> &'m mut OutputSection {
    module.sections.iter_mut().find(|section| section.name == name.as_bytes()).unwrap()
}

fn symbol(module: &Relocatable, name: &str) -> SymbolIndex {
    SymbolIndex(module.symbols.iter().position(|symbol| symbol.name == name.as_bytes()).unwrap())
}

fn klp(module: &mut Relocatable) -> &mut klpx_klp_emit::writer::RelaTable {
    let text = section(module, ".text");
    text.relas.iter_mut().find(|table| table.name.starts_with(b".klp.")).unwrap()
}

fn replace_bytes(section: &mut OutputSection, from: &[u8], to: &[u8]) {
    let at = section.data.windows(from.len()).position(|w| w == from).unwrap();
    section.data[at..at + to.len()].copy_from_slice(to);
}

type Corruption = (&'static str, &'static str, fn(&mut Relocatable));

const CORRUPTIONS: [Corruption; 17] = [
    ("a livepatch symbol of another position", "klpx::verify-symbol", |m| {
        let at = symbol(m, ".klp.sym.vmlinux.helper,0");
        m.symbols[at.0].name = b".klp.sym.vmlinux.helper,2".to_vec();
    }),
    ("a livepatch symbol without the form", "klpx::verify-symbol", |m| {
        let at = symbol(m, ".klp.sym.vmlinux.helper,0");
        m.symbols[at.0].name = b".klp.sym.vmlinux.helper".to_vec();
    }),
    ("a livepatch symbol that is plain undefined", "klpx::verify-import", |m| {
        let at = symbol(m, ".klp.sym.vmlinux.helper,0");
        m.symbols[at.0].place = SymbolPlace::Undefined;
    }),
    ("an import that nothing exports", "klpx::verify-import", |m| {
        let at = symbol(m, "printk");
        m.symbols[at.0].name = b"print_k".to_vec();
    }),
    ("a relocation type that the loader does not know", "klpx::verify-relocation", |m| {
        klp(m).relocations[0].kind = elf::R_X86_64_GOTPCREL.0;
    }),
    ("bytes under a relocation that are not zero", "klpx::verify-relocation", |m| {
        let at = klp(m).relocations[0].offset as usize;
        section(m, ".text").data[at] = 1;
    }),
    ("a relocation outside of its section", "klpx::verify-relocation", |m| {
        klp(m).relocations[0].offset = 1 << 20
    }),
    ("another addend", "klpx::verify-meaning", |m| klp(m).relocations[0].addend += 8),
    ("another symbol", "klpx::verify-meaning", |m| {
        let relocations = &mut klp(m).relocations;
        let first = relocations[0].symbol;
        let other = relocations.iter().position(|r| r.symbol != first).unwrap();
        relocations[0].symbol = relocations[other].symbol;
    }),
    ("a lost relocation", "klpx::verify-meaning", |m| {
        klp(m).relocations.remove(0);
    }),
    ("a flipped bit in the code", "klpx::verify-meaning", |m| {
        let start = m.symbols[symbol(m, "target").0].value as usize;
        section(m, ".text").data[start] ^= 1;
    }),
    ("a kept address of the copy", "klpx::verify-meaning", |m| {
        let (from, to) = (symbol(m, ".klp.sym.vmlinux.target,0"), symbol(m, "target"));
        let at = klp(m).relocations.iter().position(|r| r.symbol == Some(from)).unwrap();
        let mut moved = klp(m).relocations.remove(at);
        moved.symbol = Some(to);
        section(m, ".text").relocate(moved);
    }),
    ("no livepatch mark", "klpx::verify-modinfo", |m| {
        replace_bytes(section(m, ".modinfo"), b"livepatch=Y", b"livepatch=N");
    }),
    ("another kernel's version", "klpx::verify-modinfo", |m| {
        replace_bytes(section(m, ".modinfo"), b"vermagic=test", b"vermagic=best");
    }),
    ("a section without the livepatch flag", "klpx::bad-elf", |m| klp(m).flags = 2),
    ("vmlinux symbols in a section for a module", "klpx::verify-relocation", |m| {
        klp(m).name = b".klp.rela.raid1..text".to_vec();
    }),
    ("a new function without a size", "klpx::verify-arrays", |m| {
        let at = symbol(m, "target");
        m.symbols[at.0].size = 0;
    }),
];

#[test]
fn every_corruption_is_caught() {
    let builds = Builds::new(ORIGINAL, PATCHED);
    let good = ElfFile::from_bytes("livepatch.ko", builds.module("vmlinux", &kernel()));
    for (what, code, corrupt) in CORRUPTIONS {
        let mut module = Relocatable::read(&good.parse().unwrap()).unwrap();
        corrupt(&mut module);
        let found = check(module.write(), &builds, &kernel()).expect_err(what);
        assert!(found.iter().any(|line| line.starts_with(code)), "{what}: {found:#?}");
    }
}

#[test]
fn a_kernel_that_does_not_fit_is_caught() {
    let builds = Builds::new(ORIGINAL, PATCHED);
    let bytes = builds.module("vmlinux", &kernel());
    let kernels: [(&str, Kernel); 4] = [
        ("klpx::verify-symbol", Kernel { missing: vec!["helper"], ..kernel() }),
        ("klpx::verify-symbol", Kernel { several: [("target", 2)].into(), ..kernel() }),
        ("klpx::verify-ftrace", Kernel { untraced: true, ..kernel() }),
        ("klpx::verify-import", Kernel::default()),
    ];
    for (code, kernel) in kernels {
        let found = check(bytes.clone(), &builds, &kernel).expect_err(code);
        assert!(found.iter().any(|line| line.starts_with(code)), "{code}: {found:#?}");
    }
}

#[test]
fn a_truncated_module_is_an_error_and_no_panic() {
    let builds = Builds::new(ORIGINAL, PATCHED);
    let bytes = builds.module("vmlinux", &kernel());
    for length in (0..bytes.len()).step_by(61) {
        let _ = check(bytes[..length].to_vec(), &builds, &kernel());
        let _ = inspect(&ElfFile::from_bytes("livepatch.ko", bytes[..length].to_vec()));
    }
    for at in (0..bytes.len()).step_by(7) {
        let mut changed = bytes.clone();
        changed[at] ^= 0xff;
        let _ = check(changed.clone(), &builds, &kernel());
        let _ = inspect(&ElfFile::from_bytes("livepatch.ko", changed));
    }
}

/// A weak name of a function may be another file's function in the kernel.
#[test]
fn a_weak_name_is_not_the_function_behind_it() {
    let text = |number: u32| {
        format!(
            "extern int out(int); static __attribute__((noipa)) int local(int x) {{ return out(x) * 3; }}
             int weak(int x) __attribute__((weak, alias(\"local\")));
             int target(int x) {{ return weak(x) + local(x) + {number}; }}"
        )
    };
    let builds = Builds::new(&text(1), &text(2));
    let kernel = Kernel { defined: vec!["out", "weak"], ..kernel() };
    let good = ElfFile::from_bytes("livepatch.ko", builds.module("vmlinux", &kernel));
    let good = || Relocatable::read(&good.parse().unwrap()).unwrap();
    check(good().write(), &builds, &kernel).expect("a good module");
    for (from, to) in [("weak", "local"), ("local", "weak")] {
        let mut module = good();
        let [from, to] = [from, to].map(|name| symbol(&module, &format!(".klp.sym.vmlinux.{name},0")));
        let relocations = &mut klp(&mut module).relocations;
        relocations.iter_mut().filter(|r| r.symbol == Some(from)).for_each(|r| r.symbol = Some(to));
        check(module.write(), &builds, &kernel).expect_err("the other function");
    }
}

/// A set of BTF numbers (include/linux/btf_ids.h): a label for the whole set, a count, and numbers with labels.
const SET: &str = r#"
asm(".pushsection .BTF_ids,\"a\"\n.local set\nset: .zero 4\n.type __BTF_ID__func__a__12, @object\n"
    ".size __BTF_ID__func__a__12, 4\n__BTF_ID__func__a__12: .zero 4\n.size set, 8\n.popsection");
extern const unsigned set[];
int target(int x) { return set[1] + x * FACTOR; }
"#;

#[test]
fn a_place_in_a_set_of_numbers_has_the_name_that_the_kernel_has_there() {
    let [original, patched] = ["2", "3"].map(|factor| SET.replace("FACTOR", factor));
    let builds = Builds::new(&original, &patched);
    let with = |name| Kernel { behind: [(4, name)].into(), ..kernel() };
    let bytes = builds.module("vmlinux", &kernel());
    check(bytes.clone(), &builds, &with("__BTF_ID__func__a__34")).expect("the same number");
    for other in ["__BTF_ID__func__b__12", "set"] {
        let faults = check(bytes.clone(), &builds, &with(other)).expect_err("another number");
        assert!(faults.iter().any(|fault| fault.starts_with("klpx::verify-meaning")), "{faults:?}");
    }
}

/// A static may have the number in the patched build that another static has in the kernel.
#[test]
fn another_static_of_the_right_name_is_caught() {
    let function = |name: &str, factor: u32| {
        format!("int {name}(int x) {{ static int n;\n n += out(x * {factor}); return n; }}\n")
    };
    let text =
        |factor| format!("extern int out(int);\n{}{}", function("first", 2), function("second", factor));
    let builds = Builds::new(&text(3), &format!("{}{}", text(5), function("added", 7)));
    let kernel = Kernel { defined: vec!["out"], ..kernel() };
    let good = ElfFile::from_bytes("livepatch.ko", builds.module("vmlinux", &kernel));
    let good = || Relocatable::read(&good.parse().unwrap()).unwrap();
    check(good().write(), &builds, &kernel).expect("a good module");
    // GCC counts from the last function to the first.
    let mut module = good();
    let at = symbol(&module, ".klp.sym.vmlinux.n.0,0");
    module.symbols[at.0].name = b".klp.sym.vmlinux.n.1,0".to_vec();
    let of_another_file = Kernel { of_file: [(("n.0", "other.c"), 1)].into(), ..kernel.clone() };
    for (bytes, kernel, why) in [
        (module.write(), &kernel, "another one of that name"),
        (good().write(), &of_another_file, "of other.c"),
    ] {
        let faults = check(bytes, &builds, kernel).expect_err(why);
        let fault = faults.iter().find(|fault| fault.starts_with("klpx::verify-meaning"));
        assert!(fault.is_some_and(|fault| fault.contains(why)), "{faults:?}");
    }
}

#[test]
fn the_end_of_an_array_is_the_arrays() {
    let text = "static const int saved[6] = { 0, 1, 2, 3, 4, 5 }; extern void mark(int *, int); extern int check(int);
        void clear(int *regs) { for (int i = 0; i < 6; i++) { mark(regs, saved[i]); check(saved[i] + NUMBER); } }";
    let builds = Builds::new(&text.replace("NUMBER", "1"), &text.replace("NUMBER", "2"));
    let kernel = Kernel { defined: vec!["mark", "check"], ..kernel() };
    let bytes = builds.module("vmlinux", &kernel);
    check(bytes, &builds, &kernel).expect("a good module");
}

#[test]
fn a_string_behind_a_named_constant_is_no_end() {
    let text = "extern int tell(const char *, const char *, ...); extern void use(const int *);
        static int calls; int f(int x) { static const int table[3] = { 1, 2, 3 }; use(table);
        BODY return tell(\"%s: a format that is long enough for a section of its own, %d\", __func__, x); }";
    let builds = Builds::new(
        &text.replace("BODY", ""),
        &text.replace("BODY", "tell(\"another %s\", __func__, calls++);"),
    );
    let kernel = Kernel { defined: vec!["tell", "use"], ..kernel() };
    let bytes = builds.module("vmlinux", &kernel);
    check(bytes, &builds, &kernel).expect("a good module");
}

/// `vm_numa_event` without CONFIG_NUMA (mm/vmstat.c): the array has no elements, and the next array begins at its
/// place.
#[test]
fn an_array_without_elements_is_what_begins_there() {
    let text = r#"
asm(".pushsection .data..shared,\"aw\"\n.globl none, counters, behind\n.type none, @object\n.size none, 0\nnone:\n"
    ".type counters, @object\n.size counters, 24\ncounters: .zero 24\n.zero 40\n"
    ".type behind, @object\n.size behind, 8\nbehind: .zero 8\n.popsection");
extern int none[], counters[];
int target(void) { return none[0] + counters[1] + NUMBER; }
"#;
    let builds = Builds::new(&text.replace("NUMBER", "1"), &text.replace("NUMBER", "2"));
    let kernel = kernel();
    let bytes = builds.module("vmlinux", &kernel);
    let verified = check(bytes, &builds, &kernel).expect("a good module");
    assert_eq!(verified.differing, 1, "only the function");
}

/// Code that passes its entry of `__bug_table` to the handler (arch/x86/include/asm/bug.h) refers to one row. Nothing
/// refers to the rows of other code.
#[test]
fn a_reference_to_a_row_means_that_row() {
    let text = r#"
#define WARN(n) ({ unsigned char *entry; asm volatile("lea 2f(%%rip), %0\n1: ud2\n" \
    ".pushsection __bug_table,\"aw\"\n2: .long 1b - ., file - .\n.word " #n ", 1\n.popsection" : "=r"(entry)); *entry; })
#define BUG(n) asm volatile("1: ud2\n.pushsection __bug_table,\"aw\"\n.long 1b - ., file - .\n.word " #n ", 1\n.popsection")
asm(".pushsection .rodata.file,\"a\"\nfile: .asciz \"file.c\"\n.popsection");
int before(void) { return WARN(1) + WARN(2); }
int target(void) { return WARN(3) + NUMBER; }
void behind(void) { BUG(4); BUG(5); }
"#;
    let builds = Builds::new(&text.replace("NUMBER", "1"), &text.replace("NUMBER", "2"));
    let kernel = kernel();
    let good = ElfFile::from_bytes("livepatch.ko", builds.module("vmlinux", &kernel));
    let mut module = Relocatable::read(&good.parse().unwrap()).unwrap();
    let verified = check(module.write(), &builds, &kernel).expect("a good module");
    assert_eq!(verified.differing, 1, "only the function");
    // The line number in the row that the code passes.
    replace_bytes(section(&mut module, "__bug_table"), &[3, 0, 1, 0], &[4, 0, 1, 0]);
    let faults = check(module.write(), &builds, &kernel).expect_err("another row");
    assert!(faults.iter().all(|fault| fault.contains("__bug_table")), "{faults:?}");
}

/// The code of an alternative has no name. What the kernel does when its load faults stands in a row of `__ex_table`.
#[test]
fn a_row_that_describes_the_code_of_an_alternative_is_compared() {
    let text = |fixup: u32, number: u32| {
        format!(
            "int first(int *p) {{ asm volatile(\"1: nop; nop\\n2:\\n\\
             .pushsection .altinstructions,\\\"a\\\"\\n.long 1b - ., 3f - .\\n.long 0\\n.byte 2b - 1b, 4f - 3f\\n.popsection\\n\\
             .pushsection .altinstr_replacement,\\\"ax\\\"\\n3: mov (%%rdi),%%eax\\n4:\\n.popsection\\n\\
             .pushsection __ex_table,\\\"a\\\"\\n.long 3b - ., 2b - ., {fixup}\\n.popsection\" ::: \"rax\"); return *p; }}
             int second(int x) {{ return x + {number}; }}"
        )
    };
    let both = Builds::new(&text(0x71, 1), &text(0x72, 2));
    assert_eq!(both.changed(), ["first", "second"]);
    let kernel = kernel();
    let good = ElfFile::from_bytes("livepatch.ko", both.module("vmlinux", &kernel));
    let mut module = Relocatable::read(&good.parse().unwrap()).unwrap();
    check(module.write(), &both, &kernel).expect("a good module");

    let second_only = Builds::new(&text(0x72, 1), &text(0x72, 2)).module("vmlinux", &kernel);
    let faults = check(second_only, &both, &kernel).expect_err("a function is missing");
    assert!(faults.iter().any(|fault| fault.contains("first")), "{faults:?}");

    replace_bytes(section(&mut module, "__ex_table"), &[0x72], &[0x73]);
    let faults = check(module.write(), &both, &kernel).expect_err("another row");
    assert!(faults.iter().all(|fault| fault.contains("__ex_table")), "{faults:?}");
}

/// The last link makes hidden globals local; lld puts them after the FILE symbols of all files.
#[test]
fn a_hidden_global_of_the_kernel_comes_from_no_file() {
    let fixture = Fixture::of(&ARM64_CLANG);
    let text = |file: &str, names: &str| format!(".file \"{file}\"\n.text\n{names}: nop\n");
    fixture.assemble("one", &text("one.c", ".globl shared\n.hidden shared\nown: nop\nshared"));
    fixture.assemble("two", &text("two.c", "other"));
    fixture.link(&["one.o", "two.o"], "vmlinux");
    let image = fixture.open("vmlinux");
    let elf = image.parse().unwrap();
    let vmlinux = KernelObject { name: "vmlinux", elf: &elf, file_of: &|_| None };
    let kernel = KernelFilesTarget::new(vec![vmlinux], &[]);
    let of = |name: &str| {
        let address = kernel.addresses("vmlinux", name).unwrap()[0];
        (kernel.file_of("vmlinux", name, address), kernel.is_local("vmlinux", name, address))
    };
    assert_eq!(of("own"), (Some("one.c".to_owned()), true));
    assert_eq!(of("other"), (Some("two.c".to_owned()), true));
    assert_eq!(of("shared"), (None, false));
}

/// With FullLTO the array of thunks for indirect calls lies in the object of its users (arch/x86/lib/retpoline.S).
#[test]
fn an_exported_entry_inside_of_an_array_is_what_a_call_means() {
    let text = |number: u32| {
        format!(
            "asm(\".pushsection .text.thunks,\\\"ax\\\"\\n.globl array\\n.type array,@function\\narray:\\n.globl one\\none: int3\\n.skip 31,0xcc\\n\\
             .globl two\\ntwo: int3\\n.skip 31,0xcc\\n.size array,.-array\\n.popsection\");
             int f(int x) {{ asm volatile(\"call two\"); return x + {number}; }}"
        )
    };
    let kernel = Kernel { exports: vec!["__fentry__", "array", "one", "two"], ..Kernel::default() };
    let builds = Builds::new(&text(1), &text(2));
    assert_eq!(builds.changed(), ["f"]);
    let module = builds.module("vmlinux", &kernel);
    check(module.clone(), &builds, &kernel).expect("a sound module");
    for other in ["one", "array"] {
        let file = ElfFile::from_bytes("livepatch.ko", module.clone());
        let mut changed = Relocatable::read(&file.parse().unwrap()).unwrap();
        let at = symbol(&changed, "two");
        changed.symbols[at.0].name = other.as_bytes().to_vec();
        check(changed.write(), &builds, &kernel).expect_err(other);
    }
}

/// With FullLTO the constants of several assembler files are one, and the name is there once for each file.
#[test]
fn names_that_mean_one_place_are_one_thing() {
    let text = |labels: &str, number: u32| {
        format!(
            "asm(\".pushsection .rodata.cst16.K,\\\"aM\\\",@progbits,16\\n{labels} .quad 1, 2\\n.popsection\");
             asm(\".text\\n.type user,@function\\n.globl user\\nuser: lea K.llvm.1(%rip),%rax\\nret\\n.size user,.-user\");
             int f(int x) {{ return x + {number}; }}"
        )
    };
    let kernel = Kernel { exports: vec!["__fentry__"], ..Kernel::default() };
    let labels = "K.llvm.0: K.llvm.1: K.llvm.2:";
    let builds = Builds::new(&text(labels, 1), &text(labels, 2));
    check(builds.module("vmlinux", &kernel), &builds, &kernel).expect("a sound module");
}
