//! Data that a module loader or the kernel's boot has to find.

use klpx_testkit::builds::Builds;
use klpx_testkit::kernel::Kernel;

fn kernel() -> Kernel {
    Kernel {
        exports: vec!["__fentry__"],
        defined: vec!["lock", "work", "slow", "value", "other"],
        ..Kernel::default()
    }
}

#[test]
fn new_data_that_the_loader_must_set_up_is_refused() {
    // The data that DEFINE_STATIC_SRCU() of include/linux/srcutree.h leaves in a module, and similar data.
    for section in ["___srcu_struct_ptrs", ".init_array", "__bpf_raw_tp_map"] {
        let original =
            "struct domain { long n[4]; }; extern int lock(struct domain *); extern void work(int);
            int go(int x) { work(x); return 0; }";
        let patched = format!(
            "struct domain {{ long n[4]; }}; extern int lock(struct domain *); extern void work(int);
            static struct domain mine = {{ {{ 1 }} }}; extern struct domain *const pointer_to_mine;
            struct domain *const pointer_to_mine __attribute__((section(\"{section}\"))) = &mine;
            int go(int x) {{ x += lock(&mine); work(x); return 0; }}"
        );
        let builds = Builds::new(original, &patched);
        let registries = builds.with("raid1", |units| {
            units[0].difference.registries.iter().filter(|new| new.original.is_none()).count()
        });
        assert_eq!(registries, 1, "{section}");
    }
}

#[test]
fn a_changed_unlikely_part_takes_its_function_along_or_the_callers_of_it() {
    let text = |notrace: &str, number: u32| {
        format!(
            "extern int slow(int) __attribute__((cold)); extern int value, other(int);
             static {notrace} __attribute__((noinline)) int check(int x)
             {{ if (x == 7) {{ value = slow(x) + {number}; value += slow(value); }} return x + value; }}
             int a(int x) {{ return check(x) + other(x); }} int b(int x) {{ return check(x + 1) * other(x); }}"
        )
    };
    for (notrace, wanted) in
        [("", vec!["check"]), ("__attribute__((no_instrument_function))", vec!["a", "b"])]
    {
        let builds = Builds::new(&text(notrace, 1), &text(notrace, 2));
        assert_eq!(builds.changed(), ["check.cold"], "the compiler splits the function");
        let plan = builds.emit("vmlinux", &kernel()).expect("a livepatch").plan;
        let mut replaced: Vec<_> =
            plan.objects[0].functions.iter().map(|one| one.old.name.as_str()).collect();
        replaced.sort_unstable();
        assert_eq!(replaced, wanted);
    }
}
