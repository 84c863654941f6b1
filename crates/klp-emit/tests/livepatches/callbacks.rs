//! Callbacks that a patch registers (include/linux/livepatch_helpers.h).

use klpx_normalize::elf::ElfFile;
use klpx_testkit::builds::Builds;
use klpx_testkit::kernel::Kernel;
use klpx_verify::inspect::inspect;

/// A unit that registers a callback of each of the kinds; each callback calls `out` with its number.
fn unit(kinds: &[&str], number: u32, changed: bool) -> (String, String) {
    let function =
        |which: u32| format!("extern int out(int); int f{number}(int x) {{ return out(x) + {which}; }}\n");
    let register = |kind: &&str| {
        let result = if *kind == "pre_patch" { "int" } else { "void" };
        let give = if *kind == "pre_patch" { "return" } else { "" };
        format!(
            "struct klp_object; static {result} on_{kind}_{number}(struct klp_object *object) {{ {give} out({number}); }}
             static {result} (*__klp_{kind}_callback_p{number})(struct klp_object *)
             __attribute__((used, section(\".discard.klp_callback_ptrs\"))) = on_{kind}_{number};\n"
        )
    };
    let callbacks: String = kinds.iter().map(register).collect();
    (function(1), function(if changed { 2 } else { 1 }) + &callbacks)
}

fn kernel() -> Kernel {
    Kernel { exports: vec!["__fentry__"], defined: vec!["out"], ..Kernel::default() }
}

const ALL: [&str; 4] = ["pre_patch", "post_patch", "pre_unpatch", "post_unpatch"];

#[test]
fn each_kind_is_registered_with_its_object_also_where_no_function_is_replaced() {
    for changed in [true, false] {
        let turned: Vec<&str> = ALL.iter().rev().copied().collect();
        for kinds in [&ALL[..], &turned, &ALL[1..3]] {
            let (original, patched) = unit(kinds, 1, changed);
            let builds = Builds::new(&original, &patched);
            let file = ElfFile::from_bytes("livepatch.ko", builds.module("vmlinux", &kernel()));
            builds.verify("vmlinux", &kernel(), &file).expect("a sound module");
            let module = inspect(&file).expect("a livepatch");
            let [object] = &module.objects[..] else { panic!("one object: {:?}", module.objects) };
            assert_eq!(object.functions.len(), usize::from(changed));
            let wanted: Vec<_> = ALL
                .iter()
                .filter(|kind| kinds.contains(kind))
                .map(|&kind| (kind, format!("on_{kind}_1")))
                .collect();
            assert_eq!(object.callbacks, wanted);
        }
    }
}

#[test]
fn an_object_has_one_callback_of_a_kind() {
    let units = |kinds: [&[&str]; 2]| {
        let [one, two] = [unit(kinds[0], 1, true), unit(kinds[1], 2, true)];
        Builds::files(&[("one", &one.0, &one.1), ("two", &two.0, &two.1)])
    };
    assert_eq!(units([&ALL[..1], &ALL[..1]]).codes("vmlinux", &kernel()), ["klpx::callback-twice"]);
    let builds = units([&ALL[2..], &ALL[..2]]);
    let plan = builds.emit("vmlinux", &kernel()).expect("a livepatch").plan;
    let kinds: Vec<_> = plan.objects[0].callbacks.iter().map(|callback| callback.kind.member()).collect();
    assert_eq!(kinds, ALL);
}
