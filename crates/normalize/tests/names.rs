//! Every kind of suffix, from the compilers that make it: one small project for each, and what is expected as data.

mod project;

use klpx_normalize::elf::{Definition, ElfFile};
use klpx_normalize::name::{Suffixes, anonymous, canonical};
use klpx_normalize::object::{FileId, Object};
use project::{CLANG_16, CLANG_19, CLANG_22, CLANGS, File, GCC_12, Mode, Tools};

/// A project, and a name that its object has.
struct Case {
    what: &'static str,
    tools: &'static [Tools],
    modes: &'static [Mode],
    files: &'static [File<'static>],
    flags: &'static [&'static str],
    /// The name without suffixes.
    base: &'static str,
    /// The suffixes: all of these.
    kinds: &'static [Suffixes],
    /// Whether an object of this name has an identity; code always does.
    identity: bool,
}

const GCC: &[Tools] = &[GCC_12];
const ALL: &[Tools] = &[CLANG_16, CLANG_19, CLANG_22, GCC_12];
const CLANG: &[Tools] = &CLANGS;
const PLAIN: &[Mode] = &[Mode::Plain];
const EVERY: &[Mode] = &[Mode::Plain, Mode::Thin, Mode::Full];

const TWO_FILES: &[File<'_>] = &[
    (
        "dir/a.c",
        "static int list[4];
        __attribute__((noinline)) static int helper(int x) { asm volatile(\"\"); return x + list[x & 3]; }
        int api_a(int x) { return helper(x) + 1; }
        void set_a(int x) { list[x & 3] = x; }",
    ),
    (
        "dir/b.c",
        "static int list[4];
        __attribute__((noinline)) static int helper(int x) { asm volatile(\"\"); return x * list[x & 3]; }
        extern int api_a(int);
        int api_b(int x) { return helper(x) + api_a(x); }
        void set_b(int x) { list[x & 3] = x; }",
    ),
];
const STATICS: &[File<'_>] =
    &[("a.c", "int f(int x) { static int n; n += x; { static int n; n += 2 * x; x += n; } return n + x; }")];
const COLD: &[File<'_>] = &[(
    "a.c",
    "extern void note(int) __attribute__((cold)); extern void stop(void) __attribute__((cold, noreturn));
    int out(int);
    int f(int x) { if (x == 42) { note(1); note(x); note(x * 3); stop(); } return out(x) + 1; }",
)];
const CONSTPROP: &[File<'_>] = &[(
    "a.c",
    "int out(int);
    __attribute__((noinline)) static int f(int a, int k) { int s = 0; for (int i = 0; i < k; i++) s += out(a + i) * k; return s; }
    int call(int x) { return f(x, 7) + f(x + 1, 7); }",
)];
const ISRA: &[File<'_>] = &[(
    "a.c",
    "struct s { int a, b; }; int out(int);
    __attribute__((noinline)) static int f(struct s *p) { return p->a * 3 + p->b; }
    int call(struct s *p) { return f(p) + out(1); } int other(struct s *p) { return f(p + 1) * 2; }",
)];
const PART: &[File<'_>] = &[(
    "a.c",
    "int out(int);
    int f(int *p) { if (!p) return 0; int s = 0; for (int i = 0; i < p[0]; i++) { s += out(p[i]); s ^= out(s); }
    for (int i = 0; i < p[1]; i++) s += out(i); return s; }
    int call(int *p, int *q) { return f(p) + f(q) + f(p + 1); }",
)];
const SPECIALIZED: &[File<'_>] = &[(
    "a.c",
    "int plus(int x); int minus(int x);
    static __attribute__((noinline)) int inc(int x) { return plus(x) + 1; }
    static __attribute__((noinline)) int dec(int x) { return minus(x) - 1; }
    static __attribute__((noinline)) int f(int n, int (*op)(int)) { int s = 0; for (int i = 0; i < n; i++) s += op(s) * op(i); return s; }
    int call(int x) { return x & 1 ? f(x, inc) : f(x + 3, dec); }",
)];
const SWITCH: &[File<'_>] = &[(
    "a.c",
    "int f(int x) { switch (x) { case 0: return 11; case 1: return 5; case 2: return 99; case 3: return 3;
    case 4: return 8; case 5: return 123; } return 0; }",
)];
const COMPOUND: &[File<'_>] = &[("a.c", "struct s { int a, b; }; struct s *p = &(struct s){ 1, 2 };")];
const FUNC: &[File<'_>] = &[(
    "a.c",
    "void use(const char *const *); void f(void) { static const char *const n[] = { __func__ }; use(n); }
    const char *g(void) { return __func__; }",
)];
const COUNTER: &[File<'_>] =
    &[("a.c", "static const char __UNIQUE_ID_modinfo_41[] __attribute__((used)) = \"license=GPL\";")];
const INITCALL: &[File<'_>] = &[(
    "a.c",
    "static int f(void) { return 1; }
    static int (*__initcall__kmod_a__12_345_f6)(void) __attribute__((used, section(\".initcall6.init\"))) = f;",
)];
const ALIAS: &[File<'_>] = &[(
    "a.c",
    "int out(int); __attribute__((noinline)) int f(int n) { return n ? out(n) + f(n - 1) * f(n - 2) : 1; }",
)];
const CFI: &[File<'_>] = &[(
    "a.c",
    "static __attribute__((noinline)) int f(int x) { return x + 1; } int g(int x) { return x; }
    int (*table[2])(int) = { f, g }; int call(int n, int x) { return table[n & 1](x); }",
)];

/// Goes to the linker.
const BY_FILE: &str = "-Xlinker=-use-source-filename-for-promoted-locals";
const CFI_FLAGS: &[&str] =
    &["-fsanitize=cfi-icall", "-fno-sanitize-ignorelist", "-fvisibility=hidden", "-fsplit-lto-unit"];

use Suffixes as S;

/// One row for each kind, and for each way in which the kind arises.
const CASES: &[Case] = &[
    Case {
        what: "ThinLTO promotes a function",
        tools: CLANG,
        modes: &[Mode::Thin],
        files: TWO_FILES,
        flags: &[],
        base: "helper",
        kinds: &[S::PROMOTED],
        identity: true,
    },
    Case {
        what: "a static of the file that is not promoted",
        tools: CLANG,
        modes: &[Mode::Thin],
        files: TWO_FILES,
        flags: &[],
        base: "helper",
        kinds: &[],
        identity: true,
    },
    Case {
        what: "ThinLTO promotes by file name",
        tools: CLANG,
        modes: &[Mode::Thin],
        files: TWO_FILES,
        flags: &[BY_FILE],
        base: "helper",
        kinds: &[S::PROMOTED_BY_FILE],
        identity: true,
    },
    Case {
        what: "names unique to their file",
        tools: CLANG,
        modes: EVERY,
        files: TWO_FILES,
        flags: &["-funique-internal-linkage-names"],
        base: "_ZL6helperi",
        kinds: &[S::UNIQUE_LINKAGE],
        identity: true,
    },
    Case {
        what: "the same, promoted",
        tools: CLANG,
        modes: &[Mode::Thin],
        files: TWO_FILES,
        flags: &["-funique-internal-linkage-names"],
        base: "_ZL6helperi",
        kinds: &[S::UNIQUE_LINKAGE, S::PROMOTED],
        identity: true,
    },
    Case {
        what: "full LTO numbers equal names",
        tools: CLANG,
        modes: &[Mode::Full],
        files: TWO_FILES,
        flags: &[],
        base: "helper",
        kinds: &[S::NUMBER],
        identity: true,
    },
    Case {
        what: "the second static of a function",
        tools: CLANG,
        modes: EVERY,
        files: STATICS,
        flags: &[],
        base: "f.n",
        kinds: &[S::NUMBER],
        identity: true,
    },
    Case {
        what: "the first static of a function",
        tools: CLANG,
        modes: EVERY,
        files: STATICS,
        flags: &[],
        base: "f.n",
        kinds: &[],
        identity: true,
    },
    Case {
        what: "GCC numbers every static of a function",
        tools: GCC,
        modes: PLAIN,
        files: STATICS,
        flags: &[],
        base: "n",
        kinds: &[S::NUMBER],
        identity: true,
    },
    Case {
        what: "GCC LTO",
        tools: GCC,
        modes: &[Mode::Full],
        files: TWO_FILES,
        flags: &[],
        base: "helper",
        kinds: &[S::LTO_PRIVATE],
        identity: true,
    },
    Case {
        what: "GCC splits the unlikely part off",
        tools: GCC,
        modes: PLAIN,
        files: COLD,
        flags: &[],
        base: "f",
        kinds: &[S::COLD],
        identity: true,
    },
    Case {
        what: "LLVM splits the unlikely part off",
        tools: CLANG,
        modes: PLAIN,
        files: COLD,
        flags: &["-mllvm", "-hot-cold-split", "-mllvm", "-hotcoldsplit-threshold=-100"],
        base: "f",
        kinds: &[S::COLD],
        identity: true,
    },
    Case {
        what: "a parameter became a constant",
        tools: GCC,
        modes: PLAIN,
        files: CONSTPROP,
        flags: &[],
        base: "f",
        kinds: &[S::CONSTPROP],
        identity: true,
    },
    Case {
        what: "a parameter was split",
        tools: GCC,
        modes: PLAIN,
        files: ISRA,
        flags: &[],
        base: "f",
        kinds: &[S::ISRA],
        identity: true,
    },
    Case {
        what: "a function was split",
        tools: GCC,
        modes: PLAIN,
        files: PART,
        flags: &[],
        base: "f",
        kinds: &[S::PART],
        identity: true,
    },
    Case {
        what: "LLVM 16 gives a specialised function a number",
        tools: &[CLANG_16],
        modes: PLAIN,
        files: SPECIALIZED,
        flags: &["-mllvm", "-force-function-specialization"],
        base: "f",
        kinds: &[S::NUMBER],
        identity: true,
    },
    Case {
        what: "LLVM specialises a function",
        tools: &[CLANG_19, CLANG_22],
        modes: PLAIN,
        files: SPECIALIZED,
        flags: &["-mllvm", "-force-specialization"],
        base: "f",
        kinds: &[S::SPECIALIZED],
        identity: true,
    },
    Case {
        what: "a local name of a global",
        tools: GCC,
        modes: PLAIN,
        files: ALIAS,
        flags: &["-fPIC", "-mcmodel=small"],
        base: "f",
        kinds: &[S::ALIAS],
        identity: true,
    },
    Case {
        what: "clang's older CFI",
        tools: CLANG,
        modes: &[Mode::Full],
        files: CFI,
        flags: CFI_FLAGS,
        base: "f",
        kinds: &[S::CFI],
        identity: true,
    },
    Case {
        what: "the same in a module that was split",
        tools: CLANG,
        modes: &[Mode::Thin],
        files: CFI,
        flags: CFI_FLAGS,
        base: "f",
        kinds: &[S::SPLIT, S::CFI],
        identity: true,
    },
    Case {
        what: "the jump table's side of it",
        tools: CLANG,
        modes: &[Mode::Thin],
        files: CFI,
        flags: CFI_FLAGS,
        base: "f",
        kinds: &[S::SPLIT],
        identity: true,
    },
    Case {
        what: "a table of a switch",
        tools: GCC,
        modes: PLAIN,
        files: SWITCH,
        flags: &[],
        base: "CSWTCH",
        kinds: &[S::NUMBER],
        identity: false,
    },
    Case {
        what: "a compound literal",
        tools: GCC,
        modes: PLAIN,
        files: COMPOUND,
        flags: &[],
        base: "__compound_literal",
        kinds: &[S::NUMBER],
        identity: false,
    },
    Case {
        what: "a compound literal",
        tools: CLANG,
        modes: EVERY,
        files: COMPOUND,
        flags: &[],
        base: ".compoundliteral",
        kinds: &[],
        identity: false,
    },
    Case {
        what: "the name of a function",
        tools: GCC,
        modes: PLAIN,
        files: FUNC,
        flags: &[],
        base: "__func__",
        kinds: &[S::NUMBER],
        identity: false,
    },
    Case {
        what: "a counter",
        tools: ALL,
        modes: PLAIN,
        files: COUNTER,
        flags: &[],
        base: "__UNIQUE_ID_modinfo",
        kinds: &[S::COUNTER],
        identity: false,
    },
    Case {
        what: "an initcall",
        tools: ALL,
        modes: PLAIN,
        files: INITCALL,
        flags: &[],
        base: "f6",
        kinds: &[S::INITCALL],
        identity: true,
    },
];

fn names(file: &ElfFile) -> Vec<String> {
    let object = Object::read(file).expect("an object");
    let elf = &object.elf;
    let defined = elf.symbol_ids().filter(|&id| matches!(elf.definition(id), Definition::Section(_)));
    defined
        .map(|id| String::from_utf8_lossy(elf.symbol_name(id)).into_owned())
        .filter(|n| !n.is_empty())
        .collect()
}

#[test]
fn every_kind_is_recognised() {
    for case in CASES {
        for &tools in case.tools {
            for &mode in case.modes {
                let file = project::build(tools, mode, case.files, case.flags);
                let names = names(&file);
                let wanted = case.kinds.iter().fold(Suffixes::default(), |set, &kind| set.with(kind));
                let found = names.iter().find(|name| {
                    let canonical = canonical(name.as_bytes());
                    canonical.base == case.base.as_bytes() && canonical.suffixes == wanted
                });
                let found = found.unwrap_or_else(|| panic!("{}: {tools:?} {mode:?}: {names:?}", case.what));
                assert_eq!(anonymous(found.as_bytes()).is_none(), case.identity, "{}: {found}", case.what);
            }
        }
    }
}

#[test]
fn a_promoted_name_comes_from_the_file_that_its_section_tells() {
    for tools in CLANGS {
        let file = project::build(tools, Mode::Thin, TWO_FILES, &[]);
        let object = Object::read(&file).expect("an object");
        let file_of = |name: &str, promoted: bool| {
            let item = object.item_ids().find(|&item| {
                let canonical = canonical(object.item_name(item));
                canonical.base == name.as_bytes() && canonical.suffixes.promoted() == promoted
            });
            object.unit(item.expect("an item"))
        };
        assert_eq!(object.file_name(file_of("helper", true)), b"a.c", "{tools:?}");
        assert_eq!(object.file_name(file_of("helper", false)), b"b.c", "{tools:?}");
        assert_eq!(object.file_name(file_of("api_b", false)), b"b.c", "{tools:?}");
        let full = project::build(tools, Mode::Full, TWO_FILES, &[]);
        let object = Object::read(&full).expect("an object");
        assert!(object.item_ids().all(|item| object.unit(item) == FileId::NONE), "{tools:?}");
    }
}
