//! Small kernels and modules with threads and sleeping tasks, compiled at run time.

use std::collections::{BTreeMap, BTreeSet};

use klpx_normalize::elf::ElfFile;

use super::threads::main_functions;
use super::{Why, stays, why};
use crate::image::{Image, VMLINUX};
use crate::plan::{Bound, Plan, PlannedFunction, PlannedObject};
use klpx_testkit::fixture::{ARM64_CLANG, ARM64_GCC, Fixture, Toolchain, X86_64};

/// Functions that make threads, and functions that wait.
const KERNEL: &str = r#"
typedef int (*main_of)(void *); struct task;
#define THE __attribute__((noinline))
THE struct task *kthread_create_on_node(main_of f, void *data, int node, const char *name, ...)
{ asm volatile("" : : "r"(f), "r"(data), "r"((long)node), "r"(name) : "memory"); return data; }
THE struct task *kthread_create_on_cpu(main_of f, void *data, unsigned cpu, const char *name)
{ asm volatile("" : : "r"(f), "r"(data), "r"((long)cpu), "r"(name) : "memory"); return data; }
THE int kernel_thread(main_of f, void *data, const char *name, unsigned long flags)
{ asm volatile("" : : "r"(f), "r"(data), "r"(name), "r"(flags) : "memory"); return 1; }
THE int user_mode_thread(main_of f, void *data, unsigned long flags)
{ asm volatile("" : : "r"(f), "r"(data), "r"(flags) : "memory"); return 2; }
THE void schedule(void) { asm volatile("" : : : "memory"); }
THE void schedule_work(void) { asm volatile("nop" : : : "memory"); }
THE void prepare_to_wait_event(void *queue) { asm volatile("" : : "r"(queue) : "memory"); }
THE int kthread_should_stop(void) { int x; asm volatile("" : "=r"(x)); return x; }
"#;

const USER: &str = r#"
typedef int (*main_of)(void *); struct task; typedef unsigned long size;
extern struct task *kthread_create_on_node(main_of f, void *data, int node, const char *name, ...);
extern struct task *kthread_create_on_cpu(main_of f, void *data, unsigned cpu, const char *name);
extern int kernel_thread(main_of f, void *data, const char *name, unsigned long flags);
extern int user_mode_thread(main_of f, void *data, unsigned long flags);
extern void schedule(void), schedule_work(void), prepare_to_wait_event(void *); extern int kthread_should_stop(void);
#define THE __attribute__((noinline))
#define BODY { asm volatile("" : : "r"(x) : "memory"); return n; }
static THE int flusher(void *x) { int n = 1; BODY }
static THE int formatted(void *x) { int n = 2; BODY }
static THE int per_cpu(void *x) { int n = 3; BODY }
static THE int nameless(void *x) { int n = 4; BODY }
static THE int chosen(void *x) { int n = 5; BODY }
static THE int leaves(void *x) { int n = 6; BODY }
static THE int callback(void *x) { int n = 7; BODY }
main_of table[] = { callback };
struct task *start(void *data, const char *name, int cpu)
{
    if (!kthread_create_on_node(flusher, data, -1, "flush-%d", cpu))
        return 0;
    kthread_create_on_node(formatted, data, -1, "%s", "odd one");
    kthread_create_on_node(chosen, data, -1, name);
    kthread_create_on_node(table[cpu], data, -1, "unknown");
    user_mode_thread(leaves, data, 0);
    kernel_thread(nameless, data, 0, 1);
    return kthread_create_on_cpu(per_cpu, data, cpu, "each/%u");
}
int waits(void *queue) { prepare_to_wait_event(queue); schedule(); return 1; }
int limited(void *queue) { prepare_to_wait_event(queue); return 2; }
int yield_to(int n) { schedule(); return n + 3; }
int loops(void) { int n = 0; while (!kthread_should_stop()) { schedule(); n++; } return n; }
int asks(void) { int n = 0; while (!kthread_should_stop()) { schedule_work(); n++; } return n; }
int ordinary(int x) { schedule_work(); return x + 1; }
void hands_on(void) { schedule(); }
long do_epoll_wait(long x) { return x + 2; }
"#;

/// Runs a check on an object: `vmlinux`, or a module.
fn with_images(toolchain: &'static Toolchain, check: impl Fn(&str, &Image<'_>)) {
    let f = Fixture::of(toolchain);
    f.compile("core", KERNEL, "core.o", toolchain.traced_glue);
    f.compile("eventpoll", USER, "user.o", toolchain.traced_glue);
    f.link(&["core.o", "user.o"], "vmlinux");
    f.combine(&["user.o"], "m.ko");
    for (name, object) in [("vmlinux", VMLINUX), ("m.ko", "m")] {
        let file: ElfFile = f.open(name);
        check(name, &Image::read(&file, object).expect("a sound image"));
    }
}

fn compilers() -> [&'static Toolchain; 3] {
    [&X86_64, &ARM64_CLANG, &ARM64_GCC]
}

fn address(image: &Image<'_>, name: &str) -> u64 {
    let symbol = image.named(name.as_bytes()).next().unwrap_or_else(|| panic!("no {name}"));
    image.address(symbol).expect("defined")
}

#[test]
fn main_functions_and_the_names_of_their_threads_are_read_from_the_calls() {
    for toolchain in compilers() {
        with_images(toolchain, |file, image| {
            let found: BTreeMap<String, Vec<String>> = main_functions(image)
                .into_iter()
                .map(|(at, names)| (image.describe(at), names.into_iter().collect()))
                .collect();
            let expected = [
                ("chosen", None),
                ("flusher", Some("flush-%d")),
                ("formatted", Some("odd one")),
                ("nameless", None),
                ("per_cpu", Some("each/%u")),
            ];
            let expected: BTreeMap<String, Vec<String>> = expected
                .map(|(main, name)| (main.to_owned(), name.map(str::to_owned).into_iter().collect()))
                .into();
            assert_eq!(found, expected, "{file}");
        });
    }
}

#[test]
fn waits_are_told_by_direct_calls() {
    for toolchain in compilers() {
        with_images(toolchain, |file, image| {
            let none = BTreeMap::new();
            let why = |name: &str| why(image, name, address(image, name), &none);
            let waits =
                |calls: &[&'static str], in_thread| Some(Why::Waits { calls: calls.to_vec(), in_thread });
            assert_eq!(why("waits"), waits(&["schedule"], false), "{file}");
            assert_eq!(why("loops"), waits(&["schedule"], true), "{file}");
            for quiet in ["ordinary", "start", "flusher", "asks", "limited", "yield_to"] {
                assert_eq!(why(quiet), None, "{file} {quiet}");
            }
            assert_eq!(why("do_epoll_wait"), Some(Why::OnPath { doing: "wait in epoll_wait" }), "{file}");
        });
    }
}

#[test]
fn a_function_that_jumps_to_what_waits_is_off_the_stack() {
    for toolchain in compilers() {
        with_images(toolchain, |file, image| {
            assert_eq!(why(image, "hands_on", address(image, "hands_on"), &BTreeMap::new()), None, "{file}");
        });
    }
}

#[test]
fn a_main_function_counts_before_what_it_calls() {
    with_images(&X86_64, |file, image| {
        let at = address(image, "waits");
        let mains = BTreeMap::from([(at, BTreeSet::from(["a".to_owned(), "b".to_owned()]))]);
        let threads = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(why(image, "waits", at, &mains), Some(Why::Main { threads }), "{file}");
    });
}

#[test]
fn replaced_functions_are_asked_and_no_others() {
    let f = Fixture::new();
    f.compile("user", USER, "m.ko", &[]);
    let file = f.open("m.ko");
    let image = Image::read(&file, "m").expect("a sound module");
    let replaced = |name: &str| PlannedFunction {
        old: Bound { name: name.to_owned(), sympos: 0 },
        alias: String::new(),
    };
    let object = |name: &str, functions: &[&str]| PlannedObject {
        name: name.to_owned(),
        functions: functions.iter().map(|name| replaced(name)).collect(),
        callbacks: Vec::new(),
        added: Vec::new(),
    };
    let plan = |objects| Plan { objects, ..Plan::default() };
    let names = |plan: &Plan| -> Vec<String> {
        stays(plan, &[&image]).into_iter().map(|stay| format!("{} {}", stay.object, stay.function)).collect()
    };
    assert_eq!(names(&plan(vec![object("m", &["flusher", "ordinary", "waits"])])), ["m flusher", "m waits"]);
    assert_eq!(names(&plan(vec![object("m", &["ordinary", "not_there"])])), [""; 0]);
    assert_eq!(names(&plan(vec![object("other", &["flusher"])])), [""; 0]);
}

#[test]
fn damaged_code_is_no_reason_to_stop() {
    let f = Fixture::new();
    f.compile("core", KERNEL, "core.o", &[]);
    f.compile("user", USER, "user.o", &[]);
    f.link(&["core.o", "user.o"], "vmlinux");
    f.combine(&["user.o"], "m.ko");
    for (name, object) in [("vmlinux", VMLINUX), ("m.ko", "m")] {
        let size = std::fs::read(f.path(name)).expect("a file").len();
        for at in (64..size).step_by(7) {
            for byte in [0, 0xff, 0xe8] {
                let file = f.changed(name, |bytes| bytes[at] = byte);
                let Ok(image) = Image::read(&file, object) else { continue };
                let mains = main_functions(&image);
                for name in ["start", "waits", "asks", "do_epoll_wait"] {
                    let entry = image.named(name.as_bytes()).next().and_then(|id| image.address(id));
                    let _ = entry.and_then(|entry| why(&image, name, entry, &mains));
                }
            }
        }
    }
}
