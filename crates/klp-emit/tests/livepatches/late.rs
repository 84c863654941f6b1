//! Special sections of a module's livepatch that the loader reads when the module may not be loaded yet.

use klpx_normalize::elf::ElfFile;
use klpx_testkit::builds::Builds;
use klpx_testkit::kernel::Kernel;

/// The kernel: `other`, `key` and similar names belong to the module, `plain` and `_printk` are exported.
fn kernel(defined: &[&'static str]) -> Kernel {
    let defined = [&["other"], defined].concat();
    Kernel { exports: vec!["__fentry__", "plain", "_printk"], defined, ..Kernel::default() }
}

fn builds(code: &str) -> Builds {
    let text = |number: u32| {
        format!("extern int other(int), _printk(int); int f(int x) {{ {code} return x + {number}; }}")
    };
    Builds::new(&text(1), &text(2))
}

/// The size of a section of the emitted object in bytes, and the codes of the warnings.
fn emitted(builds: &Builds, object: &str, kernel: &Kernel, section: &str) -> (u64, Vec<&'static str>) {
    let emitted = builds.emit(object, kernel).expect("a livepatch");
    let told = emitted.plan.warnings.iter().map(|told| told.code).collect();
    let file = ElfFile::from_bytes("closure.o", emitted.object);
    let elf = file.parse().expect("an object");
    (elf.section_by_name(section.as_bytes()).map_or(0, |id| elf.section_size(id)), told)
}

fn key(name: &str) -> String {
    format!(
        "asm goto(\"1: nop\\n.pushsection __jump_table,\\\"aw\\\"\\n.long 1b - ., %l[yes] - .\\n.quad {name} - .\\n.popsection\"
         : : : : yes); x *= other(x); yes:"
    )
}

fn call(name: &str) -> String {
    format!(
        "asm volatile(\"1: call tramp\\n.pushsection .static_call_sites,\\\"aw\\\"\\n.long 1b - ., {name} - .\\n.popsection\" ::: \"rax\");"
    )
}

#[test]
fn keys_and_calls_of_a_module_are_refused_or_dropped_and_those_of_the_kernel_kept() {
    let jumps = "__jump_table";
    let calls = ".static_call_sites";
    let cases = [
        ("raid1", key("key"), jumps, Err("klpx::module-static-key")),
        ("raid1", key("plain"), jumps, Ok((16, vec![]))),
        ("vmlinux", key("key"), jumps, Ok((16, vec![]))),
        ("raid1", key("__tracepoint_run"), jumps, Ok((0, vec!["klpx::tracepoint-dropped"]))),
        ("raid1", call("__SCK__key"), calls, Err("klpx::module-static-call")),
        ("raid1", call("plain"), calls, Ok((8, vec![]))),
        ("vmlinux", call("__SCK__key"), calls, Ok((8, vec![]))),
        ("raid1", call("__SCK__tp_func_run"), calls, Ok((0, vec![]))),
    ];
    let kernel = kernel(&["key", "tramp", "__tracepoint_run", "__SCK__key", "__SCK__tp_func_run"]);
    for (object, code, section, wanted) in cases {
        let builds = builds(&code);
        match wanted {
            Err(refused) => assert_eq!(builds.codes(object, &kernel), [refused], "{object} {code}"),
            Ok(wanted) => assert_eq!(emitted(&builds, object, &kernel, section), wanted, "{object} {code}"),
        }
    }
}

#[test]
fn a_call_that_is_written_late_is_not_listed() {
    let site = |callee: &str| {
        format!(
            "asm volatile(\"1: call {callee}\\n.pushsection .call_sites,\\\"a\\\"\\n.long 1b - .\\n.popsection\" ::: \"rax\");"
        )
    };
    let builds = builds(&[site("other"), site("_printk")].concat());
    let kernel = kernel(&[]);
    assert_eq!(emitted(&builds, "raid1", &kernel, ".call_sites").0, 4, "that of _printk");
    assert_eq!(emitted(&builds, "vmlinux", &kernel, ".call_sites").0, 8);
}

#[test]
fn an_alternative_that_would_be_written_late_is_refused() {
    let alternative = |old: &str, new: &str, behind: &str| {
        format!(
            "asm volatile(\"1: {old}\\n2: {behind}\\n.pushsection .altinstructions,\\\"a\\\"\\n.long 1b - ., 3f - .\\n.long 0\\n\
             .byte 2b - 1b, 4f - 3f\\n.popsection\\n.pushsection .altinstr_replacement,\\\"ax\\\"\\n3: {new}\\n4:\\n.popsection\"
             ::: \"rax\");"
        )
    };
    let cases = [
        ("call other", "nop", "nop", vec!["klpx::late-alternative"]),
        ("nop", "call other", "nop", vec!["klpx::late-alternative"]),
        ("nop; call other", "nop", "nop", vec!["klpx::late-alternative"]),
        ("call _printk", "call _printk", "call other", vec![]),
        ("nop", "nop", "call other", vec![]),
    ];
    for (old, new, behind, wanted) in cases {
        let builds = builds(&alternative(old, new, behind));
        assert_eq!(builds.codes("raid1", &kernel(&[])), wanted, "{old} | {new} | {behind}");
        assert_eq!(builds.codes("vmlinux", &kernel(&[])), [""; 0], "{old} | {new} | {behind}");
    }
}
