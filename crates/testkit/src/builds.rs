//! Makes a livepatch from two small C files at run time: compiled, compared, emitted, linked and finished with a
//! stand-in for the kernel's headers and linker script.

use std::collections::BTreeSet;
use std::path::PathBuf;

use klpx_diagnosis::Result;
use klpx_diff::{Edits, LineState, Sources, compare_unit};
use klpx_klp_emit::callers::Elsewhere;
use klpx_klp_emit::closure;
use klpx_klp_emit::emit::{self, Emitted};
use klpx_klp_emit::finish;
use klpx_klp_emit::glue;
use klpx_klp_emit::plan::ComparedUnit;
use klpx_normalize::elf::ElfFile;
use klpx_normalize::object::Object;
use klpx_verify::{self as verify, Verified};

use crate::fixture::{Fixture, Toolchain, X86_64};
use crate::kernel::Kernel;

const SECTIONS: [&str; 2] = ["-ffunction-sections", "-fdata-sections"];

const HEADER: &str = r#"
typedef _Bool bool;
#define true 1
#define __used __attribute__((used))
#define __section(s) __attribute__((section(s)))
#ifdef __x86_64__
#define __init __section(".init.text")
#define __exit __section(".exit.text")
#else
#define __init
#define __exit
#endif
struct module { char name[56]; };
struct module __this_module __section(".gnu.linkonce.this_module");
#define THIS_MODULE (&__this_module)
#define PASTE2(a, b) a##b
#define PASTE(a, b) PASTE2(a, b)
#define MODULE_INFO(tag, info) \
    static const char PASTE(info_, __COUNTER__)[] __used __section(".modinfo") = #tag "=" info
#define MODULE_LICENSE(x) MODULE_INFO(license, x)
#define MODULE_DESCRIPTION(x) MODULE_INFO(description, x)
#define module_init(f) int init_module(void) __attribute__((alias(#f)))
#define module_exit(f) void cleanup_module(void) __attribute__((alias(#f)))
MODULE_INFO(vermagic, "test SMP ");
struct klp_object;
struct klp_callbacks { int (*pre_patch)(struct klp_object *); void (*post_patch)(struct klp_object *);
    void (*pre_unpatch)(struct klp_object *); void (*post_unpatch)(struct klp_object *); bool enabled; };
struct klp_func { const char *old_name; void *new_func; unsigned long old_sympos; char internal[200]; };
struct klp_object { const char *name; struct klp_func *funcs; struct klp_callbacks callbacks; char internal[120]; };
struct klp_patch { struct module *mod; struct klp_object *objs; void *states; bool replace; char internal[200]; };
static inline int klp_enable_patch(struct klp_patch *patch)
{ asm volatile("" : : "r"(patch) : "memory"); return patch->mod != THIS_MODULE; }
"#;

/// What scripts/module.lds.S and arch/arm64/include/asm/module.lds.h do with sections.
const SCRIPT: &str = "SECTIONS {
    /DISCARD/ : { *(.discard.*) *(.comment) *(.note.*) }
    .text 0 : { *(.text .text.*) }
    .data 0 : { *(.data .data.*) }
    .rodata 0 : { *(.rodata .rodata.*) }
    .bss 0 : { *(.bss .bss.*) }
    __patchable_function_entries 0 : { *(__patchable_function_entries) }
    __kcfi_traps 0 : { KEEP(*(.kcfi_traps)) }
    .plt 0 : { BYTE(0) }
    .init.plt 0 : { BYTE(0) }
    .text.ftrace_trampoline 0 : { BYTE(0) }
    .init.eh_frame : { *(.eh_frame) }
}";

/// The source folder, if a test names it by `#line`.
pub const FOLDER: &str = "/home/somebody/linux";

/// Two builds of a file, or of several files, each a unit of its own.
pub struct Builds {
    fixture: Fixture,
    toolchain: &'static Toolchain,
    units: Vec<(ElfFile, ElfFile, SameLines)>,
}

/// The lines of a file before and after. A line is unchanged if both texts have the same line under its number.
struct SameLines(Vec<String>, Vec<String>);

impl Edits for SameLines {
    fn original(&self, _file: &str, line: u32) -> LineState {
        let text = |lines: &'_ [String]| lines.get(line as usize - 1).cloned();
        if text(&self.0) == text(&self.1) { LineState::Kept } else { LineState::Edited }
    }

    fn patched(&self, file: &str, line: u32, _name: &str) -> LineState {
        self.original(file, line)
    }
}

impl Builds {
    /// Builds of a file for x86_64.
    pub fn new(original: &str, patched: &str) -> Builds {
        Builds::of(&X86_64, X86_64.traced, original, patched)
    }

    /// Builds of a file with a toolchain and flags.
    pub fn of(toolchain: &'static Toolchain, flags: &[&str], original: &str, patched: &str) -> Builds {
        Builds::of_files(toolchain, flags, &[("file", original, patched)])
    }

    /// Builds of several files: name without `.c`, original text, patched text.
    pub fn files(files: &[(&str, &str, &str)]) -> Builds {
        Builds::of_files(&X86_64, X86_64.traced, files)
    }

    fn of_files(toolchain: &'static Toolchain, flags: &[&str], files: &[(&str, &str, &str)]) -> Builds {
        let fixture = Fixture::of(toolchain);
        let flags = [&SECTIONS[..], &["-g"], flags].concat();
        let unit = |&(name, original, patched): &(&str, &str, &str)| {
            // Both builds have the same file name, because klpx builds at the same path.
            let build = |text, object: String| {
                fixture.compile(name, text, &object, &flags);
                fixture.open(&object)
            };
            let lines = |text: &str| text.lines().map(str::to_owned).collect();
            let both = SameLines(lines(original), lines(patched));
            (build(original, format!("{name}-original.o")), build(patched, format!("{name}-patched.o")), both)
        };
        let units = files.iter().map(unit).collect();
        Builds { fixture, toolchain, units }
    }

    /// Runs `use_units` on the units of these builds, all of one kernel object.
    pub fn with<T>(&self, object_name: &str, use_units: impl FnOnce(&[ComparedUnit<'_, '_>]) -> T) -> T {
        let folders = [PathBuf::from(FOLDER)];
        let read = |file| Object::read(file).expect("an object").compiled_in(&folders);
        let pairs: Vec<_> = self.units.iter().map(|(one, other, _)| (read(one), read(other))).collect();
        let differ = |((one, other), (.., lines)): (&(_, _), &(_, _, SameLines))| {
            compare_unit(one, other, &BTreeSet::new(), Sources::Edited(lines))
        };
        let differences: Vec<_> = pairs.iter().zip(&self.units).map(differ).collect();
        let units: Vec<ComparedUnit<'_, '_>> = (pairs.iter().zip(&differences))
            .map(|((original, patched), difference)| ComparedUnit {
                object_name,
                original,
                patched,
                difference,
                edited: None,
                inlines: None,
                overridden: None,
            })
            .collect();
        use_units(&units)
    }

    /// The closure of all that changes, or the refusals.
    pub fn emit(&self, object_name: &str, kernel: &Kernel) -> Result<Emitted> {
        self.with(object_name, |units| emit::emit(&closure::select(units, &Elsewhere::new())?, kernel))
    }

    /// The names of the functions that differ, sorted.
    pub fn changed(&self) -> Vec<String> {
        self.with("vmlinux", |units| {
            let unit = &units[0];
            let name = |item| String::from_utf8_lossy(unit.patched.item_name(item)).into_owned();
            let mut names: Vec<String> =
                unit.difference.functions.iter().map(|change| name(change.patched)).collect();
            names.sort();
            names
        })
    }

    /// The result of verifying a finished module.
    pub fn verify(&self, object_name: &str, kernel: &Kernel, module: &ElfFile) -> Result<Verified> {
        self.with(object_name, |units| {
            let units: Vec<verify::VerifiedUnit<'_, '_>> = units.iter().map(verified_unit).collect();
            // Damaged modules are also checked before any module is made.
            let glue = self.fixture.path("glue.o").exists().then(|| self.fixture.open("glue.o"));
            let glue: Vec<_> = glue.iter().map(|file| file.parse().expect("an object")).collect();
            verify::verify(module, kernel, &units, &glue)
        })
    }

    /// The codes of the change's faults.
    pub fn codes(&self, object_name: &str, kernel: &Kernel) -> Vec<&'static str> {
        match self.emit(object_name, kernel) {
            Ok(_) => Vec::new(),
            Err(failure) => failure.diagnoses().map(|found| found.code).collect(),
        }
    }

    /// The finished module.
    pub fn module(&self, object_name: &str, kernel: &Kernel) -> Vec<u8> {
        self.module_of(&self.emit(object_name, kernel).expect("a livepatch"))
    }

    /// The module made from an emitted closure.
    pub fn module_of(&self, emitted: &Emitted) -> Vec<u8> {
        let path = |name: &str| self.fixture.path(name);
        std::fs::create_dir_all(path("linux")).expect("a directory");
        std::fs::write(path("linux/kernel.h"), "").expect("a file");
        std::fs::write(path("linux/module.h"), HEADER).expect("a file");
        std::fs::write(path("linux/livepatch.h"), "").expect("a file");
        std::fs::write(path("module.lds"), SCRIPT).expect("a file");
        std::fs::write(path("closure.o"), &emitted.object).expect("a file");
        let text =
            glue::source(&emitted.plan, glue::GlueOptions { replace: true, ..glue::GlueOptions::default() });
        let flags = [&["-I.", "-Wno-attributes"], self.toolchain.traced_glue].concat();
        self.fixture.compile("glue", &text, "glue.o", &flags);
        self.fixture.link_module("module.lds", &["glue.o", "closure.o"], "linked.ko");
        finish::finish(&self.fixture.open("linked.ko")).expect("a module")
    }
}

/// A unit in the form that verification takes.
pub fn verified_unit<'u, 'd>(unit: &'u ComparedUnit<'u, 'd>) -> verify::VerifiedUnit<'u, 'd> {
    verify::VerifiedUnit {
        object: unit.object_name,
        original: &unit.original.elf,
        patched: &unit.patched.elf,
        claims: unit.claims(),
        gave_way: unit.gave_way(),
    }
}
