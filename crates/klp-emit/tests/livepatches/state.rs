//! The running kernel's state continues in a livepatch, whatever its name: a copy would start from the initial state.
//!

use klpx_normalize::elf::ElfFile;
use klpx_testkit::builds::Builds;
use klpx_testkit::kernel::Kernel;
use klpx_verify::inspect::inspect;

/// The kernel's symbols to which a livepatch of this change refers.
fn kept(original: &str, from: &str, to: &str) -> Vec<String> {
    assert!(original.contains(from));
    let builds = Builds::new(original, &original.replace(from, to));
    let kernel = Kernel { exports: vec!["__fentry__"], defined: vec!["out"], ..Kernel::default() };
    let module = ElfFile::from_bytes("livepatch.ko", builds.module("vmlinux", &kernel));
    let module = inspect(&module).expect("a livepatch");
    module.symbols.into_iter().map(|symbol| symbol.name).collect()
}

#[test]
fn a_flag_that_protects_other_state_is_the_kernels() {
    // What `DO_ONCE()` of include/linux/once.h leaves: a flag and a key for each use. With a fresh flag, the secret
    // would be chosen again.
    let use_of = |name: &str| {
        format!(
            "static unsigned {name}_secret;
             unsigned {name}(unsigned x) {{
                 static unsigned char __attribute__((section(\".data..do_once\"))) ___done;
                 static long ___once_key[2] = {{ 1, 1 }};
                 if (___once_key[0] && !___done) {{ ___done = 1; {name}_secret = out(x); ___once_key[0] = 0; }}
                 return x ^ {name}_secret;
             }}\n"
        )
    };
    let text = format!("extern int out(int);\n{}{}", use_of("first"), use_of("second"));
    let kept = kept(&text, "return x ^ second_secret", "return x + second_secret");
    let of = |base: &str| kept.iter().filter(|name| name.starts_with(base)).count();
    assert_eq!((of("___done"), of("___once_key"), of("second_secret")), (1, 1, 1), "{kept:?}");
}

#[test]
fn a_name_that_a_macro_gives_to_a_constant_may_be_a_variable() {
    for name in ["descriptor", "__already_done", "__msg", "__flags", "_entry"] {
        let text = format!(
            "extern int out(int); int f(int x) {{ static int {name} = 3;
            {name} += x; return out({name}); }}"
        );
        let kept = kept(&text, "+= x", "-= x");
        assert!(kept.iter().any(|kept| kept.starts_with(name)), "{name}: {kept:?}");
    }
}

#[test]
fn a_compound_literal_that_is_written_to_is_state() {
    let text = "struct state { int n[4]; }; extern int out(int); static struct state *s = &(struct state){ { 1, 2 } };
        int f(int x) { s->n[0] += x; return out(s->n[1]); } int g(void) { return s->n[0]; }";
    assert!(kept(text, "+= x", "-= x").iter().any(|kept| kept == "s"));
}

#[test]
fn an_allocation_is_counted_where_it_was_though_its_line_moved() {
    let text = "struct tag { unsigned flags, line; const char *function; } __attribute__((aligned(8)));
        extern void *get(long, struct tag *); extern int use(void *), busy(int);
        #define alloc(n, at) ({ static struct tag _alloc_tag __attribute__((used, section(\"alloc_tags\"))) \
            = { 0, at, __func__ }; get(n, &_alloc_tag); })
        int open(int n) { void *p = alloc(n, 12); if (busy(n)) return CODE; return use(p); }
        int other(int n) { return use(alloc(n * 2, 19)); }";
    let patched = text.replace("12", "14").replace("CODE", "-12");
    let kernel =
        Kernel { exports: vec!["__fentry__"], defined: vec!["get", "use", "busy"], ..Kernel::default() };
    let builds = Builds::new(&text.replace("CODE", "-5"), &patched);
    assert_eq!(builds.changed(), ["open"]);
    let module = ElfFile::from_bytes("livepatch.ko", builds.module("vmlinux", &kernel));
    let module = inspect(&module).expect("a livepatch");
    assert!(module.symbols.iter().any(|symbol| symbol.name.starts_with("_alloc_tag")), "the kernel's own");
    let text = text.replace("CODE", "-5");
    let builds = Builds::new(&text, &text.replace("{ 0, at", "{ 1, at"));
    assert_eq!(builds.codes("vmlinux", &kernel), ["klpx::changed-data"; 2]);
}

#[test]
fn the_address_of_a_new_function_is_told() {
    let text = |more: &str, work: &str| {
        format!(
            "extern int out(int); extern void keep(int (*)(int)); {more} int f(int x) {{ {work} return out(x); }}"
        )
    };
    let fresh = "static __attribute__((noinline)) int fresh(int x) { return out(x) + 1; }";
    let kernel = Kernel { exports: vec!["__fentry__"], defined: vec!["out", "keep"], ..Kernel::default() };
    for (work, told) in [("keep(fresh);", 1), ("x += fresh(x) * fresh(x + 2);", 0)] {
        let builds = Builds::new(&text("", ""), &text(fresh, work));
        let plan = builds.emit("vmlinux", &kernel).expect("a livepatch").plan;
        let said: Vec<String> = plan
            .warnings
            .iter()
            .filter(|said| said.code == "klpx::new-address")
            .map(ToString::to_string)
            .collect();
        assert_eq!(said.len(), told, "{work}: {said:?}");
        // To find a solution, the user must know where the address is taken.
        assert!(said.iter().all(|said| said.contains("fresh") && said.contains(": f takes it")), "{said:?}");
    }
}

#[test]
fn a_flag_that_guards_a_message_is_copied() {
    let text = "extern int out(int); int f(int x) {
            static unsigned char __attribute__((section(\".data..once\"))) __already_done;
            if (!__already_done) { __already_done = 1; out(x); } return x; }";
    assert_eq!(kept(text, "return x;", "return x + 1;"), ["out"]);
}

#[test]
fn nobody_is_told_to_write_to_a_constant() {
    let text = |length: u32| {
        format!(
            "extern int out(const int *); static const int policy[3] = {{ 3, 0, {length} }}; int f(void) {{ return out(policy); }}"
        )
    };
    let kernel = Kernel { exports: vec!["__fentry__"], defined: vec!["out"], ..Kernel::default() };
    let failure = Builds::new(&text(16), &text(8)).emit("vmlinux", &kernel).err().expect("refused");
    let said = failure.diagnoses().next().expect("one");
    assert_eq!(said.code, "klpx::changed-data");
    assert!(!said.remedy.contains("callback") && said.why.contains("read-only"), "{said}");
}
