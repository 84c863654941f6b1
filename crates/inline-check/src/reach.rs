//! Whether ftrace can reach a function, and so whether a livepatch can replace it.
//!
//! Owns the rule by architecture and the reason when it can't. Never decides what must be replaced.
//!
//! A livepatch diverts a function through ftrace, which needs a record for it: klp_get_ftrace_location in
//! kernel/livepatch/patch.c. x86: an `__mcount_loc` entry at the function's entry, or 4 bytes after it where ENDBR
//! comes first (-mfentry). The kernel would take a record anywhere in the function, but diverting it halfway through
//! is no replacement. arm64: a `__patchable_function_entries` entry 8 bytes before the entry
//! (DYNAMIC_FTRACE_WITH_CALL_OPS), at it, or 4 bytes after it where a BTI landing pad comes first
//! (ftrace_call_adjust in arch/arm64/kernel/ftrace.c).

use std::fmt;

use klpx_normalize::object::{Item, ItemId, Object};

/// Why ftrace can't reach a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// It is data.
    NotCode,
    /// It lies in a section that is never traced; the second text says what the section is for.
    Section(&'static str, &'static str),
    /// The object has no table of trace sites at all.
    NoSites,
    /// It was compiled without a trace site: `notrace`, assembly, or a file built without tracing.
    NoSite,
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreachable::NotCode => write!(f, "it is not code"),
            Unreachable::Section(name, purpose) => write!(f, "it is in {name}, {purpose}"),
            Unreachable::NoSites => write!(f, "its object was built without the function tracer"),
            Unreachable::NoSite => {
                write!(
                    f,
                    "it has no trace site: it is notrace, assembly, or in a file that is built without tracing"
                )
            }
        }
    }
}

impl std::error::Error for Unreachable {}

/// Sections whose functions are gone, or must not be diverted, whether they have trace sites or not.
const FREED: [(&str, &str); 3] = [
    (".init.text", "which is freed when the kernel or module has started"),
    (".exit.text", "which runs only when the module is removed"),
    (".head.text", "which runs before the kernel does"),
];

/// Sections without trace sites, by how their name begins (include/asm-generic/vmlinux.lds.h, arch linker scripts).
const UNTRACED: [(&str, &str); 8] = [
    (".noinstr.text", "code that must not be instrumented"),
    (".entry.text", "the kernel's entry code"),
    (".cpuidle.text", "the idle loop, which is not traced"),
    (".hyp.text", "which runs in the hypervisor"),
    (".idmap.text", "which runs with another address mapping"),
    (".mmuoff.text", "which runs with the MMU off"),
    (".altinstr_aux", "code of alternatives"),
    (".static_call.text", "a static call's trampoline"),
];

fn section_in(
    object: &Object<'_>,
    item: &Item,
    list: &[(&'static str, &'static str)],
) -> Option<Unreachable> {
    let section = object.elf.section_name(item.section);
    let found = list.iter().find(|(start, _)| section.starts_with(start.as_bytes()));
    found.map(|&(name, purpose)| Unreachable::Section(name, purpose))
}

/// The trace site of a function, in bytes from its entry.
///
/// # Errors
/// Why it has none.
pub fn reach(object: &Object<'_>, id: ItemId) -> Result<i64, Unreachable> {
    let item = object.item(id);
    if !item.code {
        return Err(Unreachable::NotCode);
    }
    if let Some(gone) = section_in(object, item, &FREED) {
        return Err(gone);
    }
    let (table, places) = object.arch.trace_sites();
    let site = (object.entries(id).iter())
        .filter(|entry| object.tables[entry.table.index()].kind.name == table)
        .map(|entry| entry.place)
        .find(|place| places.contains(place));
    site.ok_or_else(|| {
        let no_table = !object.tables.iter().any(|t| t.kind.name == table);
        let other = if no_table { Unreachable::NoSites } else { Unreachable::NoSite };
        section_in(object, item, &UNTRACED).unwrap_or(other)
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use klpx_normalize::elf::ElfFile;

    use super::*;

    const SOURCE: &str = r#"
        .macro fn name, section
        .section \section, "ax"
        .globl \name
        .type \name, @function
        \name:
        endbr64
        1: nopl 0(%rax,%rax)
        ret
        .size \name, . - \name
        .endm
        fn traced, .text.traced
        .section __mcount_loc, "a"
        .quad 1b
        fn untraced, .text.untraced
        fn starting, .init.text
        .section __mcount_loc, "a"
        .quad 1b
        fn quiet, .noinstr.text
        .data
        .globl number
        .type number, @object
        number: .long 1
        .size number, 4
    "#;

    fn assemble(directory: &Path) -> ElfFile {
        let (source, object) = (directory.join("a.s"), directory.join("a.o"));
        std::fs::write(&source, SOURCE).expect("a writable directory");
        let done =
            Command::new("as").arg("--64").arg("-o").arg(&object).arg(&source).status().expect("binutils");
        assert!(done.success());
        ElfFile::open(&object).expect("the object that was just made")
    }

    #[test]
    fn a_function_is_reached_by_its_trace_site_and_the_others_say_why_not() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = assemble(directory.path());
        let object = Object::read(&file).expect("a sound object");
        let named = |name: &str| {
            let found = object.item_ids().find(|&id| object.item_name(id) == name.as_bytes());
            reach(&object, found.expect("an item of this name"))
        };
        assert_eq!(named("traced"), Ok(4));
        assert_eq!(named("untraced"), Err(Unreachable::NoSite));
        assert!(matches!(named("starting"), Err(Unreachable::Section(".init.text", _))));
        assert!(matches!(named("quiet"), Err(Unreachable::Section(".noinstr.text", _))));
        assert_eq!(named("number"), Err(Unreachable::NotCode));
    }

    /// Every function's trace site in an arm64 object of clang, built as the kernel is with these flags.
    fn arm64_sites(flags: &[&str]) -> Vec<Result<i64, Unreachable>> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (source, linked) = (directory.path().join("a.c"), directory.path().join("linked.o"));
        // More functions than a byte can count: each has a table of its own. Two files have a `twin`, and the linker puts
        // both into one section, as `ld.lld -r` does with the kernel's.
        let objects = ["one", "two"].map(|name| {
            let text: String = (0..200)
                .map(|n| format!("int {name}_{n}(int x) {{ return x * {n}; }}\n"))
                .chain([format!("static int twin(int x) {{ return x; }} void *{name} = twin;\n")])
                .collect();
            std::fs::write(&source, text).expect("a writable directory");
            let object = directory.path().join(format!("{name}.o"));
            let mut compiler = Command::new("clang-22");
            compiler.args(["--target=aarch64-linux-gnu", "-O2", "-ffunction-sections", "-c", "-o"]);
            let done = compiler.arg(&object).arg(&source).args(flags).status().expect("clang-22");
            assert!(done.success());
            object
        });
        let mut linker = Command::new("ld.lld-22");
        let done = linker.args(["-r", "-o"]).arg(&linked).args(&objects).status().expect("ld.lld-22");
        assert!(done.success());
        let file = ElfFile::open(&linked).expect("the object that was just made");
        let object = Object::read(&file).expect("a sound object");
        let functions: Vec<ItemId> = object.item_ids().filter(|&id| object.item(id).code).collect();
        assert_eq!(functions.len(), 402);
        functions.into_iter().map(|id| reach(&object, id)).collect()
    }

    #[test]
    fn arm64_sites_lie_before_at_and_behind_the_entry() {
        // With call operations, plain, and with a landing pad first.
        let cases: [(&[&str], i64); 3] = [
            (&["-fpatchable-function-entry=4,2", "-falign-functions=8"], -8),
            (&["-fpatchable-function-entry=2"], 0),
            (&["-fpatchable-function-entry=2", "-mbranch-protection=bti"], 4),
        ];
        for (flags, place) in cases {
            let found = arm64_sites(flags);
            // A static function whose address alone is used needs its landing pad, and so do global ones.
            assert!(found.iter().all(|site| *site == Ok(place)), "{flags:?}: {:?}", &found[398..]);
        }
    }
}
