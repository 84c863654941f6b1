//! All ways that an address can take through the instructions of a function.

use klpx_testkit::fixture::X86_64;

use super::*;

/// Holds the table's address in a register that the compiler did not choose for it.
const HELD: &str = "const int *p = table; asm volatile(\"\" : \"+a\"(p));";

#[test]
fn each_way_of_an_instruction_is_followed() {
    let cases = [
        // No way that klpx sees leads there.
        (
            "int f(int n) { return table[n & 3]; }
             asm(\".pushsection .text.g,\\\"ax\\\"\\n.type g,@function\\ng: ret\\nmov $table,%rax\\nmov %rax,(%rdi)\\n.size g,.-g\\n.popsection\");".to_owned(),
            "does not see how g+",
        ),
        // The code after a fault begins with the state before the instruction.
        (
            format!(
                "int f(int n, const int **o) {{ {HELD} asm volatile(\"1: mov (%1),%0\\njmp 3f\\n2: mov %0,(%1)\\n3:\\n\"
                 \".pushsection __ex_table,\\\"a\\\"\\n.balign 4\\n.long 1b - .,2b - .,0\\n.popsection\" : \"+a\"(p) : \"r\"(o) : \"memory\");
                 return n; }}"
            ),
            "may store its address",
        ),
        ("int f(int n) { long d; asm volatile(\"movabs $table - .,%0\" : \"=r\"(d)); return table[n & 3] + d; }".to_owned(), "in another way"),
        // Code without a name that returns.
        (
            format!(
                "int f(struct object *o) {{ {HELD} asm goto(\"jmp 6f\\n.pushsection .altinstr_aux,\\\"ax\\\"\\n6: testb $1,%%al\\njnz %l[yes]\\n\"
                 \"jmp %l[no]\\n.popsection\" : : \"a\"(p) : : yes, no); no: return 0; yes: o->table = p; return 1; }}"
            ),
            "may store its address",
        ),
        (format!("int f(int n) {{ {HELD} asm volatile(\"call 1f\\n1: pop %%rcx\" : \"+a\"(p) : : \"rcx\", \"memory\"); return p[n & 3]; }}"), "a function beside it"),
        (
            "static __attribute__((noipa)) int g(const int *p, int n) { return out(p[n]) + 1; } int f(int n) { return g(table, n); }".to_owned(),
            "to g, which may keep it",
        ),
        // A jump table of distances, and one of addresses.
        (
            format!(
                "int f(struct object *o) {{ {HELD} asm goto(\"lea 7f(%%rip),%%rcx\\nmovslq (%%rcx),%%rdx\\nadd %%rcx,%%rdx\\njmp *%%rdx\\n\"
                 \".pushsection .rodata.places,\\\"a\\\"\\n7: .long %l[yes] - 7b\\n.popsection\" : : \"a\"(p) : \"rcx\", \"rdx\" : yes);
                 return 0; yes: o->table = p; return 1; }}"
            ),
            "a function that a pointer names",
        ),
        (
            format!(
                "int f(struct object *o) {{ {}
                 asm goto(\"lea 7f(%%rip),%%rcx\\nmovslq (%%rcx),%%rdx\\nadd %%rcx,%%rdx\\njmp *%%rdx\\n\"
                 \".pushsection .rodata.places,\\\"a\\\"\\n7: .long %l[yes] - 7b\\n.popsection\" : : \"b\"(p) : \"rcx\", \"rdx\" : yes);
                 return 0; yes: o->table = p; return 1; }}",
                HELD.replace("+a", "+b")
            ),
            "leads where klpx does not see",
        ),
        (
            "int f(struct object *o) { const int *p = table; asm volatile(\"\" : \"+b\"(p));
             asm goto(\"jmp *7f(%%rip)\\n.pushsection .rodata.places,\\\"a\\\"\\n.balign 8\\n7: .quad %l[yes]\\n.popsection\" : : \"b\"(p) : : yes);
             return 0; yes: o->table = p; return 1; }".to_owned(),
            "may store its address",
        ),
        // An unknown callee may take any register.
        ("int f(int (*g)(int)) { const int *p = table; asm volatile(\"\" : : \"a\"(p)); return g(1) + 1; }".to_owned(), "a function that a pointer names"),
        // An alternative that uses the address, and one that removes a jump.
        (
            format!(
                "int f(int n, const int **o) {{ {HELD} asm volatile(\"1: nop\\nnop\\nnop\\n2:\\n.pushsection .altinstructions,\\\"a\\\"\\n.long 1b - .,3f - .\\n\"
                 \".long 0\\n.byte 2b - 1b,4f - 3f\\n.popsection\\n.pushsection .altinstr_replacement,\\\"ax\\\"\\n3: mov %0,(%1)\\n4:\\n.popsection\"
                 : : \"a\"(p), \"r\"(o) : \"memory\"); return p[n & 3]; }}"
            ),
            "an alternative that klpx does not follow",
        ),
        (
            format!(
                "int f(struct object *o) {{ {HELD} asm goto(\"1: jmp %l[no]\\n2:\\n.pushsection .altinstructions,\\\"a\\\"\\n.long 1b - .,3f - .\\n\"
                 \".long 0\\n.byte 2b - 1b,0\\n.popsection\\n.pushsection .altinstr_replacement,\\\"ax\\\"\\n3:\\n.popsection\"
                 : : \"a\"(p) : : no); o->table = p; no: return 0; }}"
            ),
            "may store its address",
        ),
        // A write to half of a register leaves the rest.
        (
            format!("int f(int n, const int **o) {{ {HELD} asm volatile(\"mov $5,%%al\\nmov %0,(%1)\" : \"+a\"(p) : \"r\"(o) : \"memory\"); return n; }}"),
            "may store its address",
        ),
        (
            format!("int f(int n, const int **o) {{ {HELD} asm volatile(\"mov %0,%%rcx\\nmov %%rcx,(%1)\" : \"+a\"(p) : \"D\"(o) : \"rcx\", \"memory\"); return n; }}"),
            "may store its address",
        ),
        ("int f(int n, long *o) { asm volatile(\"movq $table,(%0)\" : : \"D\"(o) : \"memory\"); return table[n & 3]; }".to_owned(), "may store its address"),
        ("int f(int n) { asm volatile(\"movl $5,table+4(%%rip)\" : : : \"memory\"); return table[n & 3]; }".to_owned(), "may write to it"),
        (format!("int f(int n) {{ {HELD} asm volatile(\"movl $5,(%0)\" : : \"a\"(p) : \"memory\"); return n; }}"), "may write to it"),
        (format!("int f(int n) {{ {HELD} asm volatile(\"andn (%0),%0,%%rcx\" : : \"a\"(p) : \"rcx\"); return out(n) + 1; }}"
            ),
            "klpx does not follow",
        ),
        (format!("int f(int n) {{ {HELD} asm volatile(\"mov %0,%%db0\" : : \"a\"(p)); return out(n) + 1; }}"), "klpx does not follow"),
        (
            format!(
                "int f(int n) {{ {HELD} asm volatile(\"bswap %0\" : \"+a\"(p)); return out(n) + 1; }}"), "klpx does not follow"),
        (format!("int f(int n, const int **o) {{ {HELD} asm volatile(\"mov %0,(%0,%1)\" : : \"a\"(p), \"D\"(o) : \"memory\"); return n; }}"), "may write to it"),
        (format!("int f(int n) {{ {HELD} asm volatile(\"mov (%0),%0\" : \"+a\"(p)); return *p + out(n); }}"), "nothing"),
        (format!("int f(int n) {{ {HELD} int x = p[n & 3]; return out(x) + 1; }}"), "nothing"),
        (format!("int f(int n, const int **o) {{ {HELD} asm volatile(\"mov $5,%%eax\\nmov %0,(%1)\" : \"+a\"(p) : \"D\"(o) : \"memory\"); return n; }}"), "nothing"),
    ];
    for (code, reason) in cases {
        let builds = table(&code);
        if reason == "nothing" {
            assert_eq!(livepatch(&builds).0, ["f"], "{code}");
            continue;
        }
        let (said, why, _) = refusal(&builds);
        assert_eq!(said, "klpx::changed-data", "{code}");
        assert!(why.contains(reason), "{code}: {why}");
    }
}

#[test]
fn a_return_thunk_is_a_return() {
    let text = |last: &str| {
        format!(
            "{DECLARATIONS} static const int table[4] = {{ 3, 1, 4, {last} }};
             int f(int n) {{ const int *p = table; asm volatile(\"\" : \"+c\"(p)); int x = p[n & 3]; asm volatile(\"\" : : \"c\"(p)); return x; }}
             const int *g(int n) {{ RETURNED }}"
        )
    };
    let builds = |returned: &str| {
        let text = |last: &str| text(last).replace("RETURNED", returned);
        let flags = [X86_64.traced, &["-mfunction-return=thunk-extern"]].concat();
        Builds::of(&X86_64, &flags, &text("1"), &text("5"))
    };
    let kernel = Kernel { exports: vec!["__fentry__", "__x86_return_thunk"], ..kernel() };
    assert_eq!(builds("return 0;").codes("vmlinux", &kernel), [""; 0]);
    assert_eq!(builds("return table;").codes("vmlinux", &kernel), ["klpx::changed-data"]);
}

/// The kernel runs another unit's function of this name.
#[test]
fn a_weak_function_that_gave_way_uses_nothing() {
    let text = |last: &str| {
        format!(
            "{DECLARATIONS} static const int table[4] = {{ 3, 1, 4, {last} }};
             __attribute__((weak, noinline)) void arch(struct object *o) {{ out(1); o->table = table; }}
             int f(int n) {{ return table[n & 3]; }}"
        )
    };
    let codes = |gave_way: bool| {
        Builds::new(&text("1"), &text("5")).with("vmlinux", |units| {
            let original = units[0].original;
            let items =
                original.item_ids().filter(|&item| original.item_name(item) == b"arch" && gave_way).collect();
            let units = [klpx_klp_emit::plan::ComparedUnit { overridden: Some(&items), ..units[0] }];
            let chosen = closure::select(&units, &Default::default());
            chosen.err().map(|failure| failure.diagnoses().map(|found| found.code).collect::<Vec<_>>())
        })
    };
    assert_eq!(codes(true), None);
    assert_eq!(codes(false), Some(vec!["klpx::changed-data"]));
}
