//! Types of small C files, as GCC and Clang describe them.

use klpx_layout::{Btf, Layouts, TypeChange, changes};
use klpx_normalize::elf::ElfFile;
use klpx_testkit::{command, run};

const COMPILERS: [(&str, &[&str]); 3] =
    [("gcc", &["-gdwarf-5"]), ("gcc", &["-gdwarf-4"]), ("clang-22", &["-gdwarf-5"])];

fn object(compiler: &str, flags: &[&str], source: &str) -> ElfFile {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("a.c"), source).expect("a file");
    let mut made = command(compiler);
    made.args(["-O2", "-ffunction-sections", "-c", "a.c", "-o", "a.o"]).args(flags);
    run(made.current_dir(folder.path()));
    ElfFile::from_bytes("a.o", std::fs::read(folder.path().join("a.o")).expect("an object"))
}

fn layouts(file: &ElfFile) -> Layouts {
    Layouts::read(&file.parse().expect("an object")).expect("sound debug information")
}

/// Returns the differing types, for each compiler.
fn changed(original: &str, patched: &str) -> Vec<Vec<TypeChange>> {
    let each = COMPILERS.iter().map(|(compiler, flags)| {
        let files = [original, patched].map(|text| object(compiler, flags, text));
        changes(&layouts(&files[0]), &layouts(&files[1]))
    });
    each.collect()
}

/// Returns the differences in words: `struct s: it has 8 bytes instead of 4; b is new, at byte 4`.
fn words(original: &str, patched: &str) -> Vec<String> {
    let each = changed(original, patched).into_iter().map(|all| {
        all.iter().map(|one| format!("{}: {}", one.key, one.differences.join("; "))).collect::<Vec<_>>()
    });
    let mut each: Vec<Vec<String>> = each.collect();
    each.dedup();
    assert_eq!(each.len(), 1, "all compilers tell the same: {each:?}");
    each.remove(0)
}

/// Returns a text with a type `struct s` of these members, and code that uses it.
fn with(members: &str) -> String {
    format!(
        "struct other {{ int x; }}; typedef struct {{ long a; int b; }} pair_t; enum kind {{ ONE, TWO }};
         struct s {{ {members} }}; struct outer {{ int before; struct s inner; int behind; }};
         extern int use(void *, ...); struct s one; static struct outer *list[3];
         int f(struct outer *o) {{ struct outer local; return use(&local, o, &one, list) + o->behind; }}"
    )
}

#[test]
fn each_kind_of_difference_is_told() {
    let original =
        "int a; unsigned flag : 3, rest : 5; struct other *p; union { int u; char c; }; int (*call)(int);";
    let cases = [
        (
            "int a;",
            "int a; int b;",
            "struct s: it has 40 bytes instead of 32; flag lies at bits 0 to 2 of byte 8 instead of bits 0 to 2 of byte 4; ",
        ),
        ("int a;", "char a[16];", "struct s: it has 48 bytes instead of 32; a is char[16] instead of int; "),
        ("int a;", "unsigned a;", "struct s: a is unsigned int instead of int"),
        (
            "flag : 3, rest : 5",
            "flag : 4, rest : 4",
            "struct s: flag lies at bits 0 to 3 of byte 4 instead of bits 0 to 2 of byte 4; rest ",
        ),
        ("struct other *p", "pair_t *p", "struct s: p is pair_t * instead of struct other *"),
        ("int u;", "unsigned u;", "struct s: u is unsigned int instead of int"),
        (
            "(*call)(int)",
            "(*call)(int, unsigned)",
            "struct s: call is int (int, unsigned int) * instead of int (int) *",
        ),
        (
            "int (*call)(int);",
            "int (*call)(int); char more;",
            "struct s: it has 40 bytes instead of 32; more is new, at byte 32",
        ),
        ("rest : 5;", "rest : 5, more : 1;", "struct s: more is new, at bit 0 of byte 5"),
        ("struct other *p;", "", "struct s: it has 24 bytes instead of 32; p is gone; "),
    ];
    for (from, to, wanted) in cases {
        let found = words(&with(original), &with(&original.replacen(from, to, 1)));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(wanted), "{found:?} for {wanted}");
    }
}

#[test]
fn what_a_type_lies_in_follows_from_it() {
    let original = with("int a;");
    for all in changed(&original, &with("int a; int b;")) {
        let [one] = all.as_slice() else { panic!("one type: {all:?}") };
        assert_eq!(one.inside.iter().map(ToString::to_string).collect::<Vec<_>>(), ["struct outer"]);
        assert_eq!((one.size, one.variables.as_slice()), ((4, 8), &["one".to_owned()][..]));
        assert!(one.patched.file.ends_with("a.c") && one.patched.line == 2, "{:?}", one.patched);
    }
    // The members of the outer type also changed.
    let both = with("int a; int b;").replace("int behind;", "int more; int behind;");
    let names = |all: &[TypeChange]| all.iter().map(|one| one.key.to_string()).collect::<Vec<_>>();
    for all in changed(&original, &both) {
        assert_eq!(names(&all), ["struct outer", "struct s"]);
    }
}

#[test]
fn what_no_object_holds_is_no_difference() {
    let text = |types: &str, body: &str| {
        format!(
            "extern int use(void *, ...); {types} struct s {{ int a; }}; int f(struct s *s) {{ {body} return use(s); }}"
        )
    };
    let original = text("", "");
    for patched in [
        text("struct fresh { int x; };", "struct fresh x; use(&x);"),
        text("", "struct s2 { int y; } z; use(&z);"),
        text("", "{ struct s { long other; } s; use(&s); }"),
        text("/* moved */\n\n", ""),
    ] {
        assert_eq!(words(&original, &patched), [""; 0], "{patched}");
        assert_eq!(words(&patched, &original), [""; 0], "{patched}");
    }
}

#[test]
fn an_enumerator_keeps_its_value() {
    let text = |names: &str| {
        format!("enum e {{ {names} }}; extern int use(enum e); int f(enum e e) {{ return use(e); }}")
    };
    let original = text("E_A, E_B, __E_LAST, E_MAX = __E_LAST - 1");
    assert_eq!(words(&original, &text("E_A, E_B, E_C, __E_LAST, E_MAX = __E_LAST - 1")), [""; 0]);
    assert_eq!(
        words(&original, &text("E_A, E_C, E_B, __E_LAST, E_MAX = __E_LAST - 1")),
        ["enum e: E_B is 2 instead of 1"]
    );
    assert_eq!(words(&original, &text("E_A, __E_LAST, E_MAX = __E_LAST - 1")), ["enum e: E_B is gone"]);
}

#[test]
fn a_kernels_types_are_compared_by_names_and_places() {
    let flags = &["-gbtf", "-gno-column-info"][..];
    let text = with(
        "int a; unsigned flag : 3; union { int u; char c; }; struct { int x, y; } pos; const struct { char z; } q; pair_t pair;",
    );
    let kernel = |text: &str| object("gcc", flags, text);
    let ours = layouts(&object("gcc", &["-gdwarf-5"], &text));
    let disagree = |file: &ElfFile| -> Vec<String> {
        let elf = file.parse().expect("an object");
        let section = elf.section_by_name(b".BTF").expect("BTF");
        let btf = Btf::read(elf.section_bytes(section), None).expect("sound BTF");
        btf.disagreements(&ours).into_iter().map(|(key, _, line)| format!("{key}: {line}")).collect()
    };
    assert_eq!(disagree(&kernel(&text)), [""; 0]);
    // Two units of the kernel may each have a type of one name. A type that the kernel does not have proves nothing.
    assert_eq!(disagree(&kernel("struct unrelated { int x; } y;")), [""; 0]);
    assert_eq!(
        disagree(&kernel(&text.replace("int a;", "int extra; int a;"))),
        ["struct outer: it has 56 bytes instead of 64", "struct s: it has 40 bytes instead of 48"]
    );
    assert_eq!(
        disagree(&kernel(&text.replace("int x, y;", "int y, x;"))),
        ["struct s: pos.y lies at byte 16 instead of byte 12"]
    );
}

#[test]
fn damaged_debug_information_is_refused_or_read_and_never_more() {
    let sound =
        object("gcc", &["-gdwarf-5"], &with("int a; struct { int x; } b[3]; int (*call)(struct outer *);"));
    let bytes = sound.parse().expect("an object").data().to_vec();
    for n in (64..bytes.len()).step_by(7) {
        let mut bytes = bytes.clone();
        bytes[n] ^= 1 << (n % 8);
        let damaged = ElfFile::from_bytes("a.o", bytes);
        if let Ok(elf) = damaged.parse() {
            let _ = Layouts::read(&elf);
        }
    }
}

/// A structure with one member. Size, width and place of the member are the largest possible numbers, and its type lies
/// behind the end.
const HUGE: &str = r#"
    .section .debug_abbrev,"",@progbits
    .byte 1, 0x11, 1, 0, 0                                  # DW_TAG_compile_unit
    .byte 2, 0x13, 1, 0x03, 0x08, 0x0b, 0x07, 0, 0          # DW_TAG_structure_type: name, byte_size
    .byte 3, 0x0d, 0, 0x03, 0x08, 0x0b, 0x07, 0x0d, 0x07    # DW_TAG_member: name, byte_size, bit_size,
    .byte 0x0c, 0x07, 0x38, 0x07, 0x6b, 0x07, 0x49, 0x14, 0, 0 # bit_offset, location, data_bit_offset, type (ref8)
    .byte 0
    .section .debug_info,"",@progbits
    .long 2f - 1f
1:  .short 4
    .long 0
    .byte 8
    .byte 1
    .byte 2
    .asciz "s"
    .quad -1
    .byte 3
    .asciz "m"
    .quad -1, -1, -1, -1, -1, -1
    .byte 0, 0
2:
"#;

#[test]
fn numbers_of_any_size_are_read() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("a.s"), HUGE).expect("a file");
    run(command("gcc").args(["-c", "a.s", "-o", "a.o"]).current_dir(folder.path()));
    let bytes = std::fs::read(folder.path().join("a.o")).expect("an object");
    let file = ElfFile::from_bytes("a.o", bytes);
    let (huge, small) = (layouts(&file), layouts(&object("gcc", &["-g"], "struct s { int m : 3; } one;")));
    assert_eq!(changes(&small, &huge).len(), 1, "what they say of the type differs");
    assert!(changes(&huge, &huge).is_empty());
}
