//! Every kind of suffix, from the compilers that make it: one small project for each kind, and the expected names as
//! data.

use klpx_normalize::elf::{Definition, ElfFile};
use klpx_normalize::name::{Suffixes, anonymous, canonical};
use klpx_normalize::object::{FileId, Object};
use klpx_testkit::project::{self, CLANG_16, CLANG_19, CLANG_22, CLANGS, File, GCC_12, Mode, Tools};

/// A project, and the name of a symbol in its object.
struct Case {
    what: &'static str,
    tools: &'static [Tools],
    modes: &'static [Mode],
    files: &'static [File<'static>],
    flags: &'static [&'static str],
    /// The name without suffixes.
    base: &'static str,
    /// All the suffixes of the name.
    kinds: &'static [Suffixes],
    /// True if an object of this name has an identity.
    identity: bool,
}

/// The tools that build a project, each in every mode.
type Builds = (&'static [Tools], &'static [Mode]);
/// Files and flags.
type Project = (&'static [File<'static>], &'static [&'static str]);

const fn case(
    what: &'static str,
    (tools, modes): Builds,
    (files, flags): Project,
    base: &'static str,
    kinds: &'static [Suffixes],
) -> Case {
    Case { what, tools, modes, files, flags, base, kinds, identity: true }
}

/// A case whose name stands for something that nobody looks up.
const fn nameless(
    what: &'static str,
    builds: Builds,
    project: Project,
    base: &'static str,
    kinds: &'static [Suffixes],
) -> Case {
    Case { identity: false, ..case(what, builds, project, base, kinds) }
}

const GCC: &[Tools] = &[GCC_12];
const ALL: &[Tools] = &[CLANG_16, CLANG_19, CLANG_22, GCC_12];
const CLANG: &[Tools] = &CLANGS;
const PLAIN: &[Mode] = &[Mode::Plain];
const THIN: &[Mode] = &[Mode::Thin];
const FULL: &[Mode] = &[Mode::Full];
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
const IMPORTED: &[File<'_>] = &[
    (
        "a.c",
        "void use(const char *);
        int strings(int x) { use(\"first\"); use(\"second\"); return x; }
        int counts(int x) { static int big[4]; return big[x & 3]++; }",
    ),
    ("b.c", "int strings(int); int counts(int); int other(int x) { return strings(x) + counts(x); }"),
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

/// The files that flags name come first.
const PROFILED: &[File<'_>] = &[
    ("profile.txt", "f:100000:1000\n 0: 1000\n 1: 10000\n 2: 0\n 3: 10000 g:10000\n 4: 1000\n"),
    ("clusters.txt", "v1\nf f\nc 0 1\nc 2 3\n"),
    (
        "a.c",
        "extern int g(int), h(int); int f(int n) { int s = 0;
        for (int i = 0; i < n; i++) { if (i & 64)
        s += h(i) * 3 + h(i + 1) * 5 + h(i + 2) * 7; else
        s += g(i); }
        return s; }",
    ),
];
const AUTOFDO: &[&str] =
    &["-g", "-fdebug-info-for-profiling", "-fprofile-sample-use=profile.txt", "-fsplit-machine-functions"];
const PROPELLER: &[&str] = &["-fbasic-block-sections=list=clusters.txt"];

/// A flag for the linker.
const BY_FILE: &str = "-Xlinker=-use-source-filename-for-promoted-locals";
const UNIQUE: &[&str] = &["-funique-internal-linkage-names"];
const CFI_FLAGS: &[&str] =
    &["-fsanitize=cfi-icall", "-fno-sanitize-ignorelist", "-fvisibility=hidden", "-fsplit-lto-unit"];

use Suffixes as S;

/// One row for each kind, and for each way in which the kind arises.
const CASES: &[Case] = &[
    case("ThinLTO promotes a function", (CLANG, THIN), (TWO_FILES, &[]), "helper", &[S::PROMOTED]),
    case("a static of the file that is not promoted", (CLANG, THIN), (TWO_FILES, &[]), "helper", &[]),
    case(
        "ThinLTO promotes by file name",
        (CLANG, THIN),
        (TWO_FILES, &[BY_FILE]),
        "helper",
        &[S::PROMOTED_BY_FILE],
    ),
    case(
        "names unique to their file",
        (CLANG, EVERY),
        (TWO_FILES, UNIQUE),
        "_ZL6helperi",
        &[S::UNIQUE_LINKAGE],
    ),
    case(
        "the same, promoted",
        (CLANG, THIN),
        (TWO_FILES, UNIQUE),
        "_ZL6helperi",
        &[S::UNIQUE_LINKAGE, S::PROMOTED],
    ),
    case(
        "ThinLTO promotes a static of a function",
        (CLANG, THIN),
        (IMPORTED, &[]),
        "counts.big",
        &[S::PROMOTED],
    ),
    nameless("the first string", (CLANG, THIN), (IMPORTED, &[]), ".str", &[S::PROMOTED]),
    nameless("the second string", (CLANG, THIN), (IMPORTED, &[]), ".str", &[S::NUMBER, S::PROMOTED]),
    case("full LTO numbers equal names", (CLANG, FULL), (TWO_FILES, &[]), "helper", &[S::NUMBER]),
    case("the second static of a function", (CLANG, EVERY), (STATICS, &[]), "f.n", &[S::NUMBER]),
    case("the first static of a function", (CLANG, EVERY), (STATICS, &[]), "f.n", &[]),
    case("GCC numbers every static of a function", (GCC, PLAIN), (STATICS, &[]), "n", &[S::NUMBER]),
    case("GCC LTO", (GCC, FULL), (TWO_FILES, &[]), "helper", &[S::LTO_PRIVATE]),
    case("GCC splits the unlikely part off", (GCC, PLAIN), (COLD, &[]), "f", &[S::COLD]),
    case(
        "LLVM splits the unlikely part off",
        (CLANG, PLAIN),
        (COLD, &["-mllvm", "-hot-cold-split", "-mllvm", "-hotcoldsplit-threshold=-100"]),
        "f",
        &[S::COLD],
    ),
    case("a profile splits a function", (&[CLANG_22], PLAIN), (PROFILED, AUTOFDO), "f", &[S::COLD]),
    case("clusters of blocks", (&[CLANG_22], PLAIN), (PROFILED, PROPELLER), "f", &[S::BLOCKS]),
    case("a parameter became a constant", (GCC, PLAIN), (CONSTPROP, &[]), "f", &[S::CONSTPROP]),
    case("a parameter was split", (GCC, PLAIN), (ISRA, &[]), "f", &[S::ISRA]),
    case("a function was split", (GCC, PLAIN), (PART, &[]), "f", &[S::PART]),
    case(
        "LLVM 16 gives a specialised function a number",
        (&[CLANG_16], PLAIN),
        (SPECIALIZED, &["-mllvm", "-force-function-specialization"]),
        "f",
        &[S::NUMBER],
    ),
    case(
        "LLVM specialises a function",
        (&[CLANG_19, CLANG_22], PLAIN),
        (SPECIALIZED, &["-mllvm", "-force-specialization"]),
        "f",
        &[S::SPECIALIZED],
    ),
    case("a local name of a global", (GCC, PLAIN), (ALIAS, &["-fPIC", "-mcmodel=small"]), "f", &[S::ALIAS]),
    case("clang's older CFI", (CLANG, FULL), (CFI, CFI_FLAGS), "f", &[S::CFI]),
    case("the same in a module that was split", (CLANG, THIN), (CFI, CFI_FLAGS), "f", &[S::SPLIT, S::CFI]),
    case("the jump table's side of it", (CLANG, THIN), (CFI, CFI_FLAGS), "f", &[S::SPLIT]),
    nameless("a table of a switch", (GCC, PLAIN), (SWITCH, &[]), "CSWTCH", &[S::NUMBER]),
    nameless("a compound literal", (GCC, PLAIN), (COMPOUND, &[]), "__compound_literal", &[S::NUMBER]),
    nameless("a compound literal", (CLANG, EVERY), (COMPOUND, &[]), ".compoundliteral", &[]),
    nameless("the name of a function", (GCC, PLAIN), (FUNC, &[]), "__func__", &[S::NUMBER]),
    nameless("a counter", (ALL, PLAIN), (COUNTER, &[]), "__UNIQUE_ID_modinfo", &[S::COUNTER]),
    case("an initcall", (ALL, PLAIN), (INITCALL, &[]), "f6", &[S::INITCALL]),
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
