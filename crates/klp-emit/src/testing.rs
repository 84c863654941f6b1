//! A livepatch made from two small C files when a test runs: compiled, compared, emitted, linked and finished with a
//! stand-in for the kernel's headers and linker script. Test code only.

use std::collections::BTreeMap;

use klpx_diagnosis::{Diagnosis, Result};
use klpx_diff::compare;
use klpx_normalize::elf::{ElfFile, SymbolId};
use klpx_normalize::object::Object;

use crate::closure;
use crate::emit::{self, Emitted};
use crate::finish;
use crate::fixture::{Fixture, Toolchain, X86_64};
use crate::glue;
use crate::plan::{Binder, Bound, Export, Unit};
use crate::verify::{self, LoadTarget, Verified};

const SECTIONS: [&str; 2] = ["-ffunction-sections", "-fdata-sections"];

const HEADER: &str = r#"
typedef _Bool bool;
#define true 1
#define __init
#define __exit
#define __used __attribute__((used))
#define __section(s) __attribute__((section(s)))
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

const SCRIPT: &str = "SECTIONS {
    /DISCARD/ : { *(.discard.*) *(.comment) *(.note.*) }
    .text 0 : { *(.text .text.*) }
    .data 0 : { *(.data .data.*) }
    .rodata 0 : { *(.rodata .rodata.*) }
    .bss 0 : { *(.bss .bss.*) }
    __patchable_function_entries 0 : { *(__patchable_function_entries) }
    .plt 0 : { BYTE(0) }
    .init.plt 0 : { BYTE(0) }
    .text.ftrace_trampoline 0 : { BYTE(0) }
    .init.eh_frame : { *(.eh_frame) }
}";

/// The kernel of the tests: names are found as they are, once each, unless `several` says otherwise.
#[derive(Default)]
pub(crate) struct Kernel {
    pub(crate) exports: Vec<&'static str>,
    pub(crate) missing: Vec<&'static str>,
    pub(crate) untraced: bool,
    pub(crate) several: BTreeMap<&'static str, u32>,
}

impl Binder for Kernel {
    fn bind(&self, _: &str, original: &Object<'_>, symbol: SymbolId) -> Result<Bound, Diagnosis> {
        let name = String::from_utf8_lossy(original.elf.symbol_name(symbol)).into_owned();
        let sympos = self.several.get(name.as_str()).copied().unwrap_or(0);
        Ok(Bound { name, sympos })
    }
    fn bind_finished(&self, _: &str, name: &str) -> Result<Bound, Diagnosis> {
        Ok(Bound { name: name.into(), sympos: 0 })
    }
    fn bind_export(&self, _: &str, name: &str) -> Result<Bound, Diagnosis> {
        Ok(Bound { name: name.into(), sympos: 0 })
    }
    fn runtime_constant(&self, _: &str) -> Option<(Bound, i64)> {
        None
    }
    fn export(&self, name: &str) -> Option<Export> {
        self.exports.contains(&name).then_some(Export { module: None, gpl: false, namespace: None })
    }
}

impl LoadTarget for Kernel {
    fn addresses(&self, _: &str, name: &str) -> Option<Vec<u64>> {
        let count =
            if self.missing.contains(&name) { 0 } else { self.several.get(name).copied().unwrap_or(1) };
        Some((0..u64::from(count)).map(|n| 0xffff_ffff_8100_0000 + n * 16).collect())
    }
    fn is_traced(&self, _: &str, _: u64) -> bool {
        !self.untraced
    }
    fn runtime_sites(&self, _: &str) -> Vec<u64> {
        Vec::new()
    }
    fn exporter(&self, name: &str) -> Option<String> {
        self.exports.contains(&name).then(|| "vmlinux".to_owned())
    }
    fn vermagic(&self) -> Option<String> {
        Some("test SMP ".into())
    }
}

/// Two builds of a file.
pub(crate) struct Builds {
    fixture: Fixture,
    toolchain: &'static Toolchain,
    original: ElfFile,
    patched: ElfFile,
}

impl Builds {
    pub(crate) fn new(original: &str, patched: &str) -> Builds {
        Builds::of(&X86_64, X86_64.traced, original, patched)
    }

    pub(crate) fn of(toolchain: &'static Toolchain, flags: &[&str], original: &str, patched: &str) -> Builds {
        let fixture = Fixture::of(toolchain);
        let flags = [&SECTIONS, flags].concat();
        // The same file name in both, as klpx builds at the same path.
        fixture.compile("file", original, "original.o", &flags);
        fixture.compile("file", patched, "patched.o", &flags);
        let (original, patched) = (fixture.open("original.o"), fixture.open("patched.o"));
        Builds { fixture, toolchain, original, patched }
    }

    /// Runs `use_units` on the one unit that the builds are.
    pub(crate) fn with<T>(&self, object_name: &str, use_units: impl FnOnce(&[Unit<'_, '_>]) -> T) -> T {
        let original = Object::read(&self.original).expect("an object");
        let patched = Object::read(&self.patched).expect("an object");
        let difference = compare(&original, &patched);
        let unit = Unit {
            object_name,
            original: &original,
            patched: &patched,
            difference: &difference,
            edited: None,
            inlines: None,
        };
        use_units(&[unit])
    }

    pub(crate) fn emit(&self, object_name: &str, kernel: &Kernel) -> Result<Emitted> {
        self.with(object_name, |units| emit::emit(&closure::select(units)?, kernel))
    }

    /// The names of the functions that differ, sorted.
    pub(crate) fn changed(&self) -> Vec<String> {
        self.with("vmlinux", |units| {
            let unit = &units[0];
            let name = |item| String::from_utf8_lossy(unit.patched.item_name(item)).into_owned();
            let mut names: Vec<String> =
                unit.difference.functions.iter().map(|change| name(change.patched)).collect();
            names.sort();
            names
        })
    }

    /// What is said of a finished module.
    pub(crate) fn verify(&self, object_name: &str, kernel: &Kernel, module: &ElfFile) -> Result<Verified> {
        self.with(object_name, |units| verify::verify(module, kernel, units))
    }

    /// The codes of what is wrong with the change.
    pub(crate) fn codes(&self, object_name: &str, kernel: &Kernel) -> Vec<&'static str> {
        match self.emit(object_name, kernel) {
            Ok(_) => Vec::new(),
            Err(failure) => failure.diagnoses().map(|found| found.code).collect(),
        }
    }

    /// The finished module.
    pub(crate) fn module(&self, object_name: &str, kernel: &Kernel) -> Vec<u8> {
        let emitted = self.emit(object_name, kernel).expect("a livepatch");
        let path = |name: &str| self.fixture.path(name);
        std::fs::create_dir_all(path("linux")).expect("a directory");
        std::fs::write(path("linux/kernel.h"), "").expect("a file");
        std::fs::write(path("linux/module.h"), HEADER).expect("a file");
        std::fs::write(path("linux/livepatch.h"), "").expect("a file");
        std::fs::write(path("module.lds"), SCRIPT).expect("a file");
        std::fs::write(path("closure.o"), &emitted.object).expect("a file");
        let text = glue::source(&emitted.plan, glue::Options { replace: true });
        let flags = [&["-I.", "-Wno-attributes"], self.toolchain.traced_glue].concat();
        self.fixture.compile("glue", &text, "glue.o", &flags);
        self.fixture.link_module("module.lds", &["glue.o", "closure.o"], "linked.ko");
        finish::finish(&self.fixture.open("linked.ko")).expect("a module")
    }
}
