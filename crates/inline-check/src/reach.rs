//! Tells whether ftrace can reach a function, and so whether a livepatch can replace it.
//!
//! Owns the rule for each architecture and the reason why ftrace can't reach a function. Never decides which functions
//! must be replaced.
//!
//! A livepatch diverts a function through ftrace, which needs a record for the function: klp_get_ftrace_location in
//! kernel/livepatch/patch.c. x86: an `__mcount_loc` entry at the function's entry, or 4 bytes after the entry if ENDBR
//! comes first (-mfentry). The kernel would accept a record anywhere in the function, but a diversion halfway through
//! the function does not replace it. arm64: a `__patchable_function_entries` entry 8 bytes before the function's entry
//! (DYNAMIC_FTRACE_WITH_CALL_OPS), at the entry, or 4 bytes after the entry if a BTI landing pad comes first
//! (ftrace_call_adjust in arch/arm64/kernel/ftrace.c).

use std::fmt;

use klpx_normalize::arch::Arch;
use klpx_normalize::elf::{Elf, SectionId};
use klpx_normalize::object::{ItemId, Object};
use object::elf::ET_REL;
use object::endian::LittleEndian as LE;

use crate::dwarf;

/// Why ftrace can't reach a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// The item is data.
    NotCode,
    /// The function lies in a section that is never traced; the second text says what the section is for.
    Section(&'static str, &'static str),
    /// The object has no table of trace sites.
    NoSites,
    /// The function was compiled without a trace site: `notrace`, assembly, or a file built without tracing.
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

impl Unreachable {
    /// Returns true for code that has run before a livepatch is loaded, and never runs again.
    pub fn has_run(self) -> bool {
        matches!(self, Unreachable::Section(".init.text" | ".head.text", _))
    }
}

/// Sections whose functions are freed or must not be diverted, with or without trace sites.
const FREED: [(&str, &str); 3] = [
    (".init.text", "which is freed when the kernel or module has started"),
    (".exit.text", "which runs only when the module is removed"),
    (".head.text", "which runs before the kernel does"),
];

/// Sections without trace sites, by the start of their name (include/asm-generic/vmlinux.lds.h, arch linker scripts).
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

fn section_in(section: &[u8], list: &[(&'static str, &'static str)]) -> Option<Unreachable> {
    let found = list.iter().find(|(start, _)| section.starts_with(start.as_bytes()));
    found.map(|&(name, purpose)| Unreachable::Section(name, purpose))
}

/// Returns the trace site of a function, in bytes from its entry.
///
/// # Errors
/// The reason why the function has none.
pub fn reach(object: &Object<'_>, id: ItemId) -> Result<i64, Unreachable> {
    let item = object.item(id);
    if !item.code {
        return Err(Unreachable::NotCode);
    }
    let section = object.elf.section_name(item.section);
    let (table, places) = object.arch.trace_sites();
    let site = (object.entries(id).iter())
        .filter(|entry| object.tables[entry.table.index()].kind.name == table)
        .map(|entry| entry.place)
        .find(|place| places.contains(place));
    verdict(section, site, || object.tables.iter().any(|t| t.kind.name == table))
}

/// Applies the rule to a function with this section and trace site. `table` tells whether the file has a table of
/// sites.
fn verdict(section: &[u8], site: Option<i64>, table: impl FnOnce() -> bool) -> Result<i64, Unreachable> {
    if let Some(gone) = section_in(section, &FREED) {
        return Err(gone);
    }
    site.ok_or_else(|| {
        let other = || if table() { Unreachable::NoSite } else { Unreachable::NoSites };
        section_in(section, &UNTRACED).unwrap_or_else(other)
    })
}

/// Every trace site of an object or a linked image, for a question about each of its functions.
///
/// A linked image has its sites as addresses between `__start_mcount_loc` and `__stop_mcount_loc`
/// (include/asm-generic/vmlinux.lds.h). An image that can be moved (arm64) may have them in the addends of its
/// relocations instead.
#[derive(Debug)]
pub struct TraceSites {
    /// [`dwarf::address`]es in an object, addresses in an image, ascending; `None` if the file does not tell.
    all: Option<Vec<u64>>,
    places: &'static [i64],
}

impl TraceSites {
    /// Reads all trace sites of a file.
    pub fn read(elf: &Elf<'_>, arch: Arch) -> TraceSites {
        let (table, places) = arch.trace_sites();
        let mut all = match elf.file_type() == ET_REL.0 {
            true => Some(in_object(elf, table)),
            false => in_image(elf),
        };
        if let Some(all) = &mut all {
            all.sort_unstable();
        }
        TraceSites { all, places }
    }

    /// Returns the trace site of the function at an entry (a [`dwarf::address`] in an object), in bytes from the entry;
    /// `None` if the file does not tell.
    pub fn reach(&self, section: &[u8], entry: u64) -> Option<Result<i64, Unreachable>> {
        let all = self.all.as_ref();
        let there = |&&place: &&i64| {
            all.is_some_and(|all| all.binary_search(&entry.wrapping_add_signed(place)).is_ok())
        };
        let site = self.places.iter().find(there).copied();
        match verdict(section, site, || all.is_none_or(|all| !all.is_empty())) {
            Err(Unreachable::NoSite) if all.is_none() => None,
            verdict => Some(verdict),
        }
    }
}

fn in_object(elf: &Elf<'_>, table: &str) -> Vec<u64> {
    let mut all = Vec::new();
    for id in elf.section_ids().filter(|&id| elf.section_name(id) == table.as_bytes()) {
        all.extend(elf.relocations(id).iter().filter_map(|rela| {
            let symbol = elf.rela_symbol(rela)?;
            let offset = elf.symbol_value(symbol).wrapping_add_signed(rela.r_addend.get(LE));
            Some(dwarf::address(elf.symbol_section(symbol)?, offset))
        }));
    }
    all
}

fn in_image(elf: &Elf<'_>) -> Option<Vec<u64>> {
    let named = |name: &[u8]| elf.symbol_ids().find(|&id| elf.symbol_name(id) == name);
    let [start, stop] = match (named(b"__start_mcount_loc"), named(b"__stop_mcount_loc")) {
        (Some(start), Some(stop)) => [start, stop].map(|id| elf.symbol_value(id)),
        // A kernel with symbols but without these two has no table. Without any symbols, nothing can be told.
        _ => return (elf.symbol_count() > 1).then(Vec::new),
    };
    let holds = |&id: &SectionId| {
        let begin = elf.section(id).sh_addr.get(LE);
        begin != 0 && begin <= start && stop <= begin.saturating_add(elf.section_size(id))
    };
    let section = elf.section_ids().find(holds)?;
    let offset = |address: u64| usize::try_from(address - elf.section(section).sh_addr.get(LE)).ok();
    let bytes = elf.section_bytes(section).get(offset(start)?..offset(stop)?)?;
    let words = bytes.chunks_exact(8).map(|word| word.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b)));
    let mut all: Vec<u64> = words.filter(|&address| address != 0).collect();
    let Some(kind) = Arch::of_machine(elf.machine()).ok().and_then(Arch::load_relative) else {
        return Some(all);
    };
    for id in elf.section_ids().filter(|&id| elf.section_name(id).starts_with(b".rela.dyn")) {
        let relative = elf.rela_table(id).iter().filter(|rela| rela.r_type(LE, false).0 == kind);
        let here = relative.filter(|rela| (start..stop).contains(&rela.r_offset.get(LE)));
        all.extend(here.map(|rela| rela.r_addend.get(LE).cast_unsigned()));
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use klpx_normalize::elf::ElfFile;
    use klpx_testkit::{command, run};

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
        run(command("as").arg("--64").arg("-o").arg(&object).arg(&source));
        ElfFile::open(&object).expect("the object that was just made")
    }

    #[test]
    fn a_function_is_reached_by_its_trace_site_and_the_others_say_why_not() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = assemble(directory.path());
        let object = Object::read(&file).expect("a sound object");
        agree(&object);
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

    /// Checks that the table of all sites says the same of each function as the function's own entries.
    fn agree(object: &Object<'_>) {
        let sites = TraceSites::read(&object.elf, object.arch);
        for id in object.item_ids().filter(|&id| object.item(id).code) {
            let item = object.item(id);
            let section = object.elf.section_name(item.section);
            let found = sites.reach(section, dwarf::address(item.section, item.entry));
            assert_eq!(found, Some(reach(object, id)), "{}", String::from_utf8_lossy(object.item_name(id)));
        }
    }

    /// Returns what the table of a linked image says of each function, by its symbol.
    fn in_linked(image: &Path, names: &[&str]) -> Vec<Option<Result<i64, Unreachable>>> {
        let file = ElfFile::open(image).expect("the image that was just made");
        let elf = file.parse().expect("a sound image");
        let sites = TraceSites::read(&elf, Arch::of_machine(elf.machine()).expect("a known machine"));
        let named = |name: &&str| {
            let found = elf.symbol_ids().find(|&id| elf.symbol_name(id) == name.as_bytes());
            let id = found.expect("a symbol of this name");
            let section = elf.symbol_section(id).expect("a section");
            sites.reach(elf.section_name(section), elf.symbol_value(id))
        };
        names.iter().map(named).collect()
    }

    fn link(
        linker: &str,
        directory: &Path,
        script: &str,
        options: &[&str],
        object: &Path,
    ) -> std::path::PathBuf {
        let (place, image) = (directory.join("image.lds"), directory.join("image"));
        std::fs::write(&place, script).expect("a writable directory");
        run(command(linker).args(options).arg("-T").arg(&place).arg("-o").arg(&image).arg(object));
        image
    }

    /// The layout of include/asm-generic/vmlinux.lds.h, with the table among the initial data.
    const SCRIPT: &str = "SECTIONS {
        .text 0x1000 : { *(.text .text.* .noinstr.text) }
        .init.text : { *(.init.text) }
        .init.data : {
            BOUND_START *(__mcount_loc) *(__patchable_function_entries) BOUND_STOP
        }
        .rela.dyn : { *(.rela.dyn) }
    }";

    fn script(bounded: bool) -> String {
        let bound = |name: &str| if bounded { format!("{name} = .;") } else { String::new() };
        SCRIPT
            .replace("BOUND_START", &bound("__start_mcount_loc"))
            .replace("BOUND_STOP", &bound("__stop_mcount_loc"))
    }

    #[test]
    fn a_linked_image_says_the_same_as_its_objects() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        assemble(directory.path());
        let object = directory.path().join("a.o");
        let image = link("ld", directory.path(), &script(true), &["-e", "0"], &object);
        let found = in_linked(&image, &["traced", "untraced", "starting", "quiet"]);
        // The section that explains why `quiet` has no site is no longer in the image.
        assert_eq!(
            [found[0], found[1], found[3]],
            [Some(Ok(4)), Some(Err(Unreachable::NoSite)), Some(Err(Unreachable::NoSite))]
        );
        assert!(matches!(found[2], Some(Err(Unreachable::Section(".init.text", _)))));
        let image = link("ld", directory.path(), &script(false), &["-e", "0"], &object);
        assert_eq!(in_linked(&image, &["traced"]), [Some(Err(Unreachable::NoSites))]);
    }

    #[test]
    fn an_image_that_can_be_moved_has_its_sites_in_relocations() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (source, object) = (directory.path().join("a.c"), directory.path().join("a.o"));
        let text = "int traced(int x) { return x; }\n
            __attribute__((patchable_function_entry(0))) int untraced(int x) { return x + 1; }\n";
        std::fs::write(&source, text).expect("a writable directory");
        let mut compiler = command("clang-22");
        compiler.args(["--target=aarch64-linux-gnu", "-O2", "-fpatchable-function-entry=4,2", "-fpie", "-c"]);
        run(compiler.arg("-o").arg(&object).arg(&source));
        let options = ["-pie", "--no-dynamic-linker", "-z", "notext", "--no-gc-sections"];
        let image = link("ld.lld-22", directory.path(), &script(true), &options, &object);
        let found = in_linked(&image, &["traced", "untraced"]);
        assert_eq!(found, [Some(Ok(-8)), Some(Err(Unreachable::NoSite))]);
    }

    /// Returns every function's trace site in an arm64 object of clang, built with the kernel's option and these flags.
    fn arm64_sites(flags: &[&str]) -> Vec<Result<i64, Unreachable>> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (source, linked) = (directory.path().join("a.c"), directory.path().join("linked.o"));
        // More functions than a byte can count: each has its own table. Two files have a `twin`, and the linker puts
        // both into one section, as `ld.lld -r` does with the kernel's objects.
        let objects = ["one", "two"].map(|name| {
            let text: String = (0..200)
                .map(|n| format!("int {name}_{n}(int x) {{ return x * {n}; }}\n"))
                .chain([format!("static int twin(int x) {{ return x; }} void *{name} = twin;\n")])
                .collect();
            std::fs::write(&source, text).expect("a writable directory");
            let object = directory.path().join(format!("{name}.o"));
            let mut compiler = command("clang-22");
            compiler.args(["--target=aarch64-linux-gnu", "-O2", "-ffunction-sections", "-c", "-o"]);
            run(compiler.arg(&object).arg(&source).args(flags));
            object
        });
        run(command("ld.lld-22").args(["-r", "-o"]).arg(&linked).args(&objects));
        let file = ElfFile::open(&linked).expect("the object that was just made");
        let object = Object::read(&file).expect("a sound object");
        let functions: Vec<ItemId> = object.item_ids().filter(|&id| object.item(id).code).collect();
        assert_eq!(functions.len(), 402);
        agree(&object);
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
            // A static function of which only the address is used needs its landing pad, like a global function.
            assert!(found.iter().all(|site| *site == Ok(place)), "{flags:?}: {:?}", &found[398..]);
        }
    }
}
