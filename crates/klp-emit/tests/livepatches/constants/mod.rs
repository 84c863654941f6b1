//! Patches of constant tables, from two builds of a file to a verified livepatch, or to the refusal.

mod ways;

use klpx_klp_emit::closure;
use klpx_klp_emit::writer::{Relocatable, SymbolIndex};
use klpx_normalize::elf::ElfFile;
use klpx_testkit::builds::Builds;
use klpx_testkit::fixture::ARM64_GCC;
use klpx_testkit::kernel::Kernel;
use klpx_verify::inspect::inspect;

const DECLARATIONS: &str = "
typedef unsigned long size_t;
struct object { const int *table; };
extern int out(int), keep(const void *), put(const void *, int);
extern int strcmp(const char *, const char *), snprintf(char *, size_t, const char *, ...);
extern void *memcpy(void *, const void *, size_t);
";

fn kernel() -> Kernel {
    let defined = [
        "nla_parse",
        "nla_policy_len",
        "out",
        "keep",
        "put",
        "slow",
        "v",
        "strcmp",
        "memcpy",
        "strchr",
        "match",
        "snprintf",
    ];
    Kernel { exports: vec!["__fentry__"], defined: defined.to_vec(), ..Kernel::default() }
}

/// Builds of a text in which `LAST` stands for `one`, then for `other`.
fn builds(text: &str, (one, other): (&str, &str)) -> Builds {
    assert!(text.contains("LAST"));
    let text = [DECLARATIONS, text].concat();
    Builds::new(&text.replace("LAST", one), &text.replace("LAST", other))
}

/// Code and a table of numbers, of which the last one changes.
fn table(code: &str) -> Builds {
    builds(&format!("static const int table[4] = {{ 3, 1, 4, LAST }}; {code}"), ("1", "5"))
}

/// The functions that the verified livepatch replaces, and the kernel's symbols to which it refers.
fn livepatch(builds: &Builds) -> (Vec<String>, Vec<String>) {
    let file = ElfFile::from_bytes("livepatch.ko", builds.module("vmlinux", &kernel()));
    let said = builds.verify("vmlinux", &kernel(), &file);
    let said = said.map_err(|f| f.diagnoses().map(ToString::to_string).collect::<Vec<_>>());
    assert!(said.is_ok(), "{said:?}\n{:?}", builds.changed());
    let module = inspect(&file).expect("a livepatch");
    let functions = module.objects.iter().flat_map(|object| &object.functions);
    (
        functions.map(|function| function.old_name.clone()).collect(),
        module.symbols.into_iter().map(|symbol| symbol.name).collect(),
    )
}

/// Code, reason and remedy of the only refusal.
fn refusal(builds: &Builds) -> (&'static str, String, String) {
    let failure = builds.emit("vmlinux", &kernel()).err().expect("a refusal");
    let all: Vec<_> = failure.diagnoses().cloned().collect();
    let [only] = &all[..] else { panic!("{all:?}") };
    (only.code, only.why.clone(), only.remedy.clone())
}

const POLICY: &str = "
struct nla_policy { unsigned char type; unsigned short len; };
extern int nla_parse(void **tb, int max, const void *attr, const struct nla_policy *p);
static const struct nla_policy foo_policy[3] = { [1] = { 3, 0 }, [2] = { 5, LAST } };
int foo_change(const void *attr)
{ void *tb[3]; if (nla_parse(tb, 2, attr, foo_policy) < 0) return -22; return tb[1] == 0; }
";

#[test]
fn a_policy_that_a_parser_reads_is_carried() {
    let builds = builds(POLICY, ("16", "8"));
    assert_eq!(builds.changed(), [""; 0]);
    let (replaced, kept) = livepatch(&builds);
    assert_eq!((replaced, kept), (vec!["foo_change".into()], vec!["nla_parse".into()]));
    builds.with("vmlinux", |units| {
        let closure = closure::select(units, &Default::default()).expect("a change");
        let name = |item| units[0].patched.item_name(item);
        let users: Vec<_> = closure.users[0].iter().map(|(&user, &of)| (name(user), name(of))).collect();
        assert_eq!(users, [(&b"foo_change"[..], &b"foo_policy"[..])]);
    });
}

#[test]
fn tables_that_are_only_read_are_carried() {
    let cases: [(&str, &[&str]); 12] = [
        ("int f(unsigned n) { return n < 4 ? table[n] : 0; }", &["f"]),
        ("int f(int n) { return n < 3 || n > 6 ? 0 : table[n - 3]; }", &["f"]),
        (
            "int f(int x) { for (int i = 0; i < 4; i++) if (out(table[i]) == x) return i; return -1; }",
            &["f"],
        ),
        (
            "int g(int n) { return out(table[n & 3]) + 1; } int f(int n) { return table[n & 1]; }
             int h(int n) { return n; }",
            &["f", "g"],
        ),
        ("int f(int *to) { memcpy(to, table, sizeof(table)); return out(to[0]); }", &["f"]),
        ("void f(int *to) { __builtin_memcpy(to, table, sizeof(table)); }", &["f"]),
        ("int f(int n, int *to) { const int *p = n & 1 ? table : to; return p[n & 3]; }", &["f"]),
        ("int f(void *o) { return o == table; }", &["f"]),
        (
            "int f(int n) { asm goto(\"1: jmp %l[yes]; .pushsection __jump_table, \\\"aw\\\"; .long 1b - ., %l[yes] - .; .quad 0;\"
                 \".popsection\" : : : : yes); return table[n & 3]; yes: return out(n); }",
            &["f"],
        ),
        (
            "int f(int n, int *to) { switch (n) { case 0: return out(table[*to & 3]); case 1: return out(7) + table[*to & 3];
             case 2: *to = 5; return 9; case 3: return out(*to) * 3; case 4: return *to - 8; case 5: return out(9) ^ 3;
             default: return table[n & 3] + 1; } }",
            &["f"],
        ),
        (
            "static __attribute__((noinline, no_instrument_function)) int g(int n) { return out(table[n & 3]); }
             int f(int n) { return g(n) + 1; }",
            &["f"],
        ),
        (
            "int f(int n) { return table[n & 3]; }
             int __attribute__((section(\".exit.text\"), used)) leave(void) { return keep(table); }",
            &["f"],
        ),
    ];
    for (code, functions) in cases {
        let (replaced, kept) = livepatch(&table(code));
        assert_eq!(replaced, functions, "{code}");
        assert!(kept.iter().all(|kept| kept != "table"), "{code}: {kept:?}");
    }
}

#[test]
fn an_unlikely_part_is_followed_with_its_function() {
    let code = "extern int slow(const void *, int) __attribute__((cold)); extern int v;
        int f(int x) { if (x == 7) { v = slow(GIVEN, table[v & 3]); v += slow(0, v); } return x + v; }";
    assert_eq!(livepatch(&table(&code.replace("GIVEN", "0"))).0, ["f"]);
    let (code, why, _) = refusal(&table(&code.replace("GIVEN", "table")));
    assert_eq!(code, "klpx::changed-data");
    assert!(why.contains("f.cold") && why.contains("to slow, which may keep it"), "{why}");
}

#[test]
fn a_table_of_names_is_carried_with_its_strings() {
    let text = "static const struct { int key; const char *name; } names[] = { { 1, \"one\" }, { 2, \"two\" }, { 7, LAST } };
        int f(const char *name) {
            for (unsigned i = 0; i < 3; i++) if (!strcmp(names[i].name, name)) return names[i].key;
            return -22; }";
    let builds = builds(text, ("\"six\"", "\"seven\""));
    assert_eq!(livepatch(&builds).0, ["f"]);
    let module = builds.module("vmlinux", &kernel());
    let holds = |text: &[u8]| module.windows(text.len()).any(|part| part == text);
    assert!(holds(b"\0seven\0") && !holds(b"\0six\0"));
}

#[test]
fn a_table_of_functions_is_carried_while_only_its_contents_are_handed_out() {
    let text = "static int one(int x) { return x + 1; } static int two(int x) { return out(x); }
        static int (*const actions[3])(int) = { one, two, LAST };
        int f(int n) { USE return actions[n % 3u](n) + 1; }";
    let read = builds(&text.replace("USE", ""), ("one", "two"));
    let (replaced, kept) = livepatch(&read);
    assert_eq!(replaced, ["f"]);
    assert!(["one", "two"].iter().all(|name| kept.iter().any(|kept| kept == name)), "the kernel's: {kept:?}");
    let handed =
        builds(&text.replace("USE", "char to[24]; memcpy(to, actions, n); out(to[n]);"), ("one", "two"));
    let (code, why, remedy) = refusal(&handed);
    assert_eq!(code, "klpx::changed-data");
    assert!(why.contains("name functions (one)") && why.contains("handed to memcpy"), "{why}");
    assert!(remedy.starts_with("change a function that the constant names already"), "{remedy}");
    // A name of another file may also be a function.
    let outside = "static int (*const actions[3])(int) = { out, out, LAST };
        int f(int n) { char to[24]; memcpy(to, actions, n); out(to[n]); return actions[n % 3u](n) + 1; }";
    let (_, why, _) = refusal(&builds(outside, ("out", "0")));
    assert!(why.contains("name functions (out)"), "{why}");
}

#[test]
fn a_table_whose_address_may_be_kept_is_refused() {
    let cases = [
        ("void f(struct object *o) { o->table = table; }", "f+"),
        ("void f(struct object *o) { o->table = table; }", "may store its address"),
        ("void f(struct object *o, int n) { o->table = table + (n & 3); }", "may store its address"),
        (
            "void f(struct object *o, int n) { const int *p = table; while (*p != n) p++; o->table = p; }",
            "may store its address",
        ),
        ("const int *f(void) { out(1); return table; }", "may return its address"),
        ("const int *f(int n) { return &table[n & 3]; }", "may return its address"),
        ("struct two { long n; const int *p; }; struct two f(long n) { return (struct two){ n, table }; }", "may return"),
        ("int f(void) { return keep(table) + 1; }", "to keep, which may keep it"),
        ("int f(void) { return keep(table); }", "to keep, which may keep it"),
        ("int f(int n) { return put(&table[n & 3], n) + 1; }", "to put, which may keep it"),
        ("int f(int (*g)(const int *)) { return g(table) + 1; }", "to a function that a pointer names, which may keep it"),
        ("int f(int (**g)(const int *)) { return g[1](table); }", "to a function that a pointer names, which may keep it"),
        (
            "static __attribute__((noinline, noclone)) int strlen(const void *p) { return keep(p); }
             int f(int n) { return strlen(n ? table : 0) + 1; }",
            "to strlen, which may keep it",
        ),
        ("int f(int n) { memcpy((void *)(table + n), &n, n); return n; }", "and not for reading"),
        (
            "extern char *strchr(const char *, int); const char *f(int n) { out(n); return strchr((char *)table, n); }",
            "may return its address",
        ),
        ("struct object known = { table }; int f(int n) { return table[n & 3]; }", "known keeps its address"),
        (
            "asm(\".pushsection .data.hidden,\\\"aw\\\"\\n.quad table\\n.popsection\"); int f(int n) { return table[n & 3]; }",
            ".data.hidden keeps its address",
        ),
        (
            "static const struct object known = { table }; int f(int n) { return put(&known, n) + table[n & 3]; }",
            "known keeps its address",
        ),
        (
            "int f(int n) { return table[n & 3] + n; }
             int __attribute__((section(\".init.text\"))) setup(void) { return out(table[out(1) & 3]); }",
            "setup has run and is gone",
        ),
        (
            "int f(int n) { return table[n & 3]; }
             void g(void) { asm volatile(\"vmovq %0, %%xmm0; vmovq %%xmm0, (%1)\" : : \"r\"(table), \"r\"(out(1)) : \"memory\"); }",
            "klpx does not follow",
        ),
    ];
    for (code, reason) in cases {
        let (said, why, remedy) = refusal(&table(code));
        assert_eq!(said, "klpx::changed-data", "{code}");
        assert!(why.contains(reason) && why.contains("read-only memory"), "{code}: {why}");
        assert!(remedy.contains("the code that hands out the constant's address"), "{remedy}");
    }
}

#[test]
fn either_build_may_be_the_one_that_keeps_the_address() {
    for (one, other) in [("o->table = table;", ""), ("", "o->table = table;")] {
        let text = "static const int table[4] = { 3, 1, 4, LAST }; int f(int n) { return table[n & 3]; }
             void g(struct object *o) { out(1); WHAT }";
        let of = |what: &str, last: &str| {
            [DECLARATIONS, &text.replace("WHAT", what).replace("LAST", last)].concat()
        };
        let (_, why, _) = refusal(&Builds::new(&of(one, "1"), &of(other, "5")));
        assert!(why.contains("g+") && why.contains("may store its address"), "{why}");
    }
}

#[test]
fn a_reader_that_the_patch_changes_is_not_known_any_more() {
    let user = |last: &str| {
        format!(
            "extern int nla_policy_len(const int *, int); static const int table[4] = {{ 3, 1, 4, {last} }};
             int f(int n) {{ return nla_policy_len(table, n) + 1; }}"
        )
    };
    let reader = |more: &str| {
        format!("const int *kept; int nla_policy_len(const int *p, int n) {{ {more} return p[n]; }}")
    };
    let (one, other) = (user("1"), user("5"));
    let (code, why, _) =
        refusal(&Builds::files(&[("one", &one, &other), ("two", &reader(""), &reader("kept = p;"))]));
    assert_eq!(code, "klpx::changed-data");
    assert!(why.contains("the patch changes, too"), "{why}");
    // Only the patched build passes the table on.
    let reads = one.replace("nla_policy_len(table, n)", "table[n & 3]");
    let files = [("one", &reads[..], &other[..]), ("two", &reader(""), &reader("kept = p;"))];
    let (_, why, _) = refusal(&Builds::files(&files));
    assert!(why.contains("the patch changes, too"), "{why}");
    assert_eq!(livepatch(&Builds::files(&[("one", &one, &other)])).0, ["f"]);
}

#[test]
fn code_without_a_name_is_not_trusted_with_the_address() {
    let code = "int f(int n, int *to) { const int *p = table + n; asm volatile(\"1: mov (%0), %%eax; 2:\\n\"
            \".pushsection .fixup, \\\"ax\\\"; 3: mov %1, (%2); jmp 2b; .popsection\\n\"
            \".pushsection __ex_table, \\\"a\\\"; .balign 4; .long 1b - ., 3b - ., 0; .popsection\"
            : : \"r\"(to), \"r\"(p), \"r\"(out(n)) : \"rax\", \"memory\"); return n; }";
    let (code, why, _) = refusal(&table(code));
    assert_eq!(code, "klpx::changed-data");
    assert!(why.contains("code without a name"), "{why}");
}

#[test]
fn a_table_that_others_may_know_is_refused() {
    let cases = [
        ("const int table[4] = { 3, 1, 4, LAST }; int f(int n) { return table[n & 3]; }", "table, a global"),
        (
            "static const int table[4] = { 3, 1, 4, LAST }; extern const int other[4] __attribute__((alias(\"table\")));
             int f(int n) { return table[n & 3]; }",
            "other, a global",
        ),
        (
            "static const int __attribute__((section(\"found_by_name\"))) table[4] = { 3, 1, 4, LAST };
             int f(int n) { return table[n & 3]; }",
            "it lies in found_by_name",
        ),
        (
            "static const int __attribute__((section(\".rodata.shared\"))) table[4] = { 3, 1, 4, LAST }, more[3] = { 1, 2, 3 };
             int f(int n) { return table[n & 3] + more[n & 1]; }",
            "what lies beside it",
        ),
    ];
    for (text, reason) in cases {
        let (code, why, _) = refusal(&builds(text, ("1", "5")));
        assert_eq!(code, "klpx::changed-data");
        assert!(why.contains(reason), "{text}: {why}");
    }
}

#[test]
fn a_table_that_nothing_reads_needs_no_livepatch() {
    let text =
        "static const int __attribute__((used)) table[4] = { 3, 1, 4, LAST }; int f(int n) { return n; }";
    assert_eq!(builds(text, ("1", "5")).codes("vmlinux", &kernel()), ["klpx::nothing-to-replace"]);
}

#[test]
fn a_user_that_cant_be_replaced_is_told_with_the_constant() {
    let builds = table(
        "int g(int n) { return n; } __attribute__((no_instrument_function)) int f(int n) { return out(table[n & 3]); }",
    );
    let (code, why, remedy) = refusal(&builds);
    assert_eq!(code, "klpx::not-traceable");
    assert!(why.contains("the kernel's own table") && why.contains("callers anywhere"), "{why}");
    assert!(remedy.contains("leave the constant as it is"), "{remedy}");
}

#[test]
fn on_arm64_a_changed_table_is_refused() {
    let text = "static const int table[4] = { 3, 1, 4, LAST }; int f(unsigned n) { return table[n & 3]; }";
    let builds =
        Builds::of(&ARM64_GCC, ARM64_GCC.traced, &text.replace("LAST", "1"), &text.replace("LAST", "5"));
    let (code, why, _) = refusal(&builds);
    assert_eq!(code, "klpx::changed-data");
    assert!(why.contains("arm64"), "{why}");
}

/// The faults found in a module that was changed.
fn said_of(builds: &Builds, change: impl FnOnce(&mut Relocatable)) -> Vec<String> {
    let good = ElfFile::from_bytes("livepatch.ko", builds.module("vmlinux", &kernel()));
    let mut module = Relocatable::read(&good.parse().expect("an object")).expect("a module");
    change(&mut module);
    let file = ElfFile::from_bytes("livepatch.ko", module.write());
    let said = builds.verify("vmlinux", &kernel(), &file).expect_err("a fault");
    said.diagnoses().map(|found| format!("{} {found}", found.code)).collect()
}

fn symbol(module: &Relocatable, name: &str) -> SymbolIndex {
    SymbolIndex(module.symbols.iter().position(|symbol| symbol.name == name.as_bytes()).expect("a symbol"))
}

#[test]
fn a_reference_to_the_kernels_own_table_is_caught() {
    // From a function that is the same in both builds, and from one that is not.
    for more in ["", " + LAST"] {
        let text = format!(
            "static const int table[4] = {{ 3, 1, 4, LAST }}; int f(int n) {{ return out(table[n & 3]) + 2{more}; }}"
        );
        let builds = builds(&text, ("1", "5"));
        let said = said_of(&builds, |module| {
            let (own, out) = (symbol(module, "table"), symbol(module, ".klp.sym.vmlinux.out,0"));
            let mut old = module.symbols[out.0].clone();
            old.name = b".klp.sym.vmlinux.table,0".to_vec();
            module.symbols.push(old);
            let old = SymbolIndex(module.symbols.len() - 1);
            let text = module.sections.iter_mut().find(|section| section.name == b".text").expect("code");
            let mut moved = None;
            for table in text.relas.iter_mut().filter(|table| table.name == b".rela.text") {
                let at =
                    table.relocations.iter().position(|one| one.symbol == Some(own)).expect("a reference");
                moved = Some(table.relocations.remove(at));
            }
            let mut moved = moved.expect("a reference");
            moved.symbol = Some(old);
            let livepatch =
                text.relas.iter_mut().find(|table| table.name.starts_with(b".klp.")).expect("one");
            livepatch.relocations.push(moved);
            livepatch.relocations.sort_by_key(|relocation| relocation.offset);
        });
        assert!(said.iter().any(|said| said.starts_with("klpx::verify-meaning")), "{said:?}");
    }
}

#[test]
fn a_table_with_other_contents_is_caught() {
    let text =
        "static const int table[4] = { 3, 1, 4, LAST }; int f(int n) { return out(table[n & 3]) + LAST; }";
    let said = said_of(&builds(text, ("1", "5")), |module| {
        let at = module.symbols[symbol(module, "table").0].value as usize;
        let section =
            module.sections.iter_mut().find(|section| section.name == b".rodata").expect("constants");
        section.data[at + 12] ^= 1;
    });
    assert!(
        said.iter().any(|said| said.starts_with("klpx::verify-meaning") && said.contains("table")),
        "{said:?}"
    );
}

#[test]
fn a_user_that_was_left_out_is_caught() {
    let text = |last: &str| {
        format!(
            "{DECLARATIONS} static const int table[4] = {{ 3, 1, 4, {last} }}; int f(int n) {{ return out(table[n & 3]); }}"
        )
    };
    let more = |last: &str| format!("{} int g(int n) {{ return out(table[n & 1]); }}", text(last));
    let module = Builds::new(&text("1"), &text("5")).module("vmlinux", &kernel());
    let file = ElfFile::from_bytes("livepatch.ko", module);
    let said = Builds::new(&more("1"), &more("5")).verify("vmlinux", &kernel(), &file).expect_err("a fault");
    let said: Vec<String> = said.diagnoses().map(ToString::to_string).collect();
    assert!(said.iter().any(|said| said.contains("(table)") && said.contains("g uses it")), "{said:?}");
}
