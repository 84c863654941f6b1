//! The life of a workspace for a kernel that is built whole.

mod toy;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use klpx_build_driver::{Given, KernelOptions, PatchableKernel, Progress, Workspace, cache};
use klpx_testkit::{command, said};

use toy::{Toy, assert_at_rest, build, code, edit};

#[test]
fn the_baseline_is_built_once_and_the_users_trees_are_not_written() {
    let toy = Toy::new();
    let before = toy.users_files();
    let workspace = toy.open();
    let first = workspace.baseline(&()).expect("a baseline");
    assert!(!first.cached);
    assert_eq!((first.units, first.release.as_str()), (4, "7.2.0"));
    assert_eq!(first.modules.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["my_mod"]);
    assert!(first.vmlinux_o.is_file() && first.symvers.is_file() && first.modules[0].object.is_file());
    assert!(workspace.baseline(&()).expect("a baseline").cached);
    drop(workspace);
    assert!(toy.open().baseline(&()).expect("a baseline").cached);
    assert_eq!(toy.users_files(), before);
    let items = cache::list(&toy.cache()).expect("list");
    assert_eq!(items.len(), 1);
    assert!(items[0].complete && !items[0].busy && items[0].size() > 0);
}

#[test]
fn a_patch_recompiles_only_what_it_touches_and_leaves_nothing() {
    let toy = Toy::new();
    let workspace = toy.open();
    let before = toy.users_files();
    let patched = build(&workspace, &edit(&toy, "fs/a.c", "return 1", "return 7")).expect("built");
    assert_eq!(patched.units, 1);
    assert!(patched.pair("vmlinux").is_some_and(|pair| pair.patched.is_file()));
    assert_eq!(patched.pairs.len(), 1);
    let work = patched.work_dir().to_owned();
    assert!(work.exists());
    drop(patched);
    assert!(!work.exists());
    assert_at_rest(&toy, workspace.dir());

    let patched = build(&workspace, &edit(&toy, "mod/my-mod.c", "return 1", "return 2")).expect("built");
    assert_eq!(patched.units, 1, "the unit of the patch before was put back, not compiled again");
    assert_eq!(patched.pairs.len(), 1);
    assert!(patched.pair("vmlinux").is_none());

    let patched = build(&workspace, &edit(&toy, "include/linux/kernel.h", "N 1", "N 2")).expect("built");
    assert_eq!(patched.units, 2, "both users of the header");
    assert_eq!(toy.users_files(), before);
}

#[test]
fn a_second_build_of_the_same_patch_gives_the_same_bytes() {
    let toy = Toy::new();
    let workspace = toy.open();
    let patch = edit(&toy, "fs/b.c", "return N", "return N * 3");
    let bytes = || {
        let patched = build(&workspace, &patch).expect("built");
        std::fs::read(patched.pair("vmlinux").expect("changed").patched.as_path()).expect("read")
    };
    assert_eq!(bytes(), bytes());
}

#[test]
fn a_comment_changes_nothing() {
    let toy = Toy::new();
    let workspace = toy.open();
    let patched =
        build(&workspace, &edit(&toy, "fs/a.c", "int a", "/* a\n * comment */\nint a")).expect("built");
    assert!(patched.is_unchanged());
    assert_eq!(patched.units, 1);
}

#[test]
fn files_are_added_and_removed() {
    let toy = Toy::new();
    let workspace = toy.open();
    let add = "diff --git a/mod/new.c b/mod/new.c\nnew file mode 100644\n--- /dev/null\n+++ b/mod/new.c\n@@ -0,0 +1 @@\n+int n;\n";
    let patched = build(&workspace, add).expect("built");
    assert_eq!(patched.new_modules.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["new"]);
    assert_at_rest(&toy, workspace.dir());
    let old = std::fs::read_to_string(toy.source().join("fs/c.c")).expect("read");
    let lines: String = old.lines().map(|line| format!("-{line}\n")).collect();
    let remove = format!("--- a/fs/c.c\n+++ /dev/null\n@@ -1,{} +0,0 @@\n{lines}", old.lines().count());
    let patched = build(&workspace, &remove).expect("built");
    assert!(patched.pair("vmlinux").is_some());
    assert_at_rest(&toy, workspace.dir());
    let patched = build(&workspace, &edit(&toy, "fs/a.c", "return 1", "return 7")).expect("built");
    assert!(patched.new_modules.is_empty());
}

#[test]
fn what_does_not_compile_is_shown_and_undone() {
    let toy = Toy::new();
    let workspace = toy.open();
    let failure = build(&workspace, &edit(&toy, "fs/a.c", "return 1", "return nothing")).expect_err("fails");
    let diagnosis = failure.diagnoses().next().expect("one");
    assert_eq!(diagnosis.code, "klpx::patched-source-does-not-compile");
    assert_eq!((diagnosis.place.file.as_deref(), diagnosis.place.line), (Some("fs/a.c"), Some(3)));
    assert!(diagnosis.detail.iter().any(|line| line.starts_with("fs/a.c:3:") && line.contains("nothing")));
    assert_at_rest(&toy, workspace.dir());
    let patched = build(&workspace, &edit(&toy, "fs/b.c", "return N", "return N + 5")).expect("built");
    assert_eq!(patched.units, 1);
}

#[test]
fn an_original_that_does_not_build_has_a_code_of_its_own() {
    let toy = Toy::new();
    toy.write("fs/a.c", "int a(void) { return wrong; }\n");
    let failure = toy.open().baseline(&()).expect_err("fails");
    assert_eq!(code(&failure), "klpx::original-source-does-not-build");
    toy.write("fs/a.c", "int a(void) { return 0; }\n");
    assert!(toy.open().baseline(&()).is_ok());
}

#[test]
fn a_configuration_that_kconfig_changes_is_refused() {
    let toy = Toy::new();
    toy.write("extra-config", "CONFIG_NEW_SYMBOL=y\nCONFIG_LD_VERSION=24000\n");
    let failure = toy.open().baseline(&()).expect_err("refused");
    assert_eq!(code(&failure), "klpx::config-changed");
    assert_eq!(failure.diagnoses().next().expect("one").detail, ["CONFIG_NEW_SYMBOL: not set -> y"]);
}

#[test]
fn the_release_is_that_of_the_kernel_to_be_patched() {
    let toy = Toy::new();
    let record = toy.root.path().join("out/include/config/kernel.release");
    std::fs::create_dir_all(record.parent().expect("parent")).expect("mkdir");
    std::fs::write(&record, "7.2.0-mine+\n").expect("write");
    let workspace = toy.open();
    assert_eq!(workspace.kernel().release(), "7.2.0-mine+");
    assert_eq!(workspace.baseline(&()).expect("a baseline").release, "7.2.0-mine+");
}

#[test]
fn a_full_disk_is_told_from_a_source_that_does_not_compile() {
    let toy = Toy::new();
    let workspace = toy.open();
    let patch = edit(&toy, "fs/a.c", "int a", "#error No space left on device\nint a");
    let failure = build(&workspace, &patch).expect_err("fails");
    assert_eq!(code(&failure), "klpx::disk-full");
    assert_eq!(failure.exit_code(), 8);
    assert_at_rest(&toy, workspace.dir());
}

#[test]
fn a_damaged_baseline_is_not_taken_for_a_whole_one() {
    let toy = Toy::new();
    let workspace = toy.open();
    let baseline = workspace.baseline(&()).expect("a baseline");
    std::fs::write(&baseline.vmlinux_o, "short").expect("write");
    assert!(workspace.finished_baseline().is_none());
    assert!(!workspace.baseline(&()).expect("a baseline").cached);
}

#[test]
fn kept_work_survives_the_next_run() {
    let toy = Toy::new();
    let workspace = toy.open();
    let mut patched = build(&workspace, &edit(&toy, "fs/a.c", "return 1", "return 7")).expect("built");
    let kept = patched.keep().to_owned();
    drop((patched, workspace));
    let workspace = toy.open();
    assert!(kept.join("patched/vmlinux.o").is_file());
    drop(workspace);
}

/// Writes lists for the kernel in the format of klpx inline-check.
fn write_lists(toy: &Toy, unit: &str, functions: &[&str]) -> PathBuf {
    let lists = toy.root.path().canonicalize().expect("a path").join("lists");
    let entry = |name: &&str| {
        format!("#undef {name}\nextern __typeof__({name}) {name} __attribute__((__noinline__));\n")
    };
    let entries: String = functions.iter().map(entry).collect();
    let path = lists.join(format!("units/{unit}.inl"));
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("mkdir");
    std::fs::write(path, format!("#pragma GCC diagnostic ignored \"-Wattributes\"\n{entries}"))
        .expect("a list");
    lists
}

fn functions(object: &Path) -> Vec<String> {
    let shown = said(command("llvm-nm-22").arg(object));
    let of_code = shown.lines().filter_map(|line| line.split_once(" t ").or_else(|| line.split_once(" T ")));
    of_code.map(|(_, name)| name.to_owned()).collect()
}

#[test]
fn both_builds_have_the_lists_of_the_kernel() {
    let toy = Toy::new();
    toy.write(
        "fs/a.c",
        "extern int far(int x);\n\nstatic int one(void)\n{\n\treturn far(1);\n}\n\n\
         static int two(void)\n{\n\treturn far(2);\n}\n\n\
         int a(void)\n{\n\treturn one() + two();\n}\n",
    );
    let lists = write_lists(&toy, "fs/a.c", &["one", "two"]);
    let plain = toy.kernel();
    let kernel = PatchableKernel::open(&KernelOptions { lists: Some(lists.clone()), ..toy.options() })
        .expect("a kernel");
    assert_ne!(kernel.key(), plain.key());
    assert_eq!((plain.units_with_lists(), kernel.units_with_lists()), (None, Some(1)));
    let original = |kernel: &PatchableKernel| {
        let workspace = Workspace::open(kernel, &()).expect("a workspace");
        functions(&workspace.baseline(&()).expect("a baseline").vmlinux_o)
    };
    assert_eq!(original(&plain), ["a", "b", "c"]);
    assert_eq!(original(&kernel), ["a", "b", "c", "one", "two"]);
    let workspace = Workspace::open(&kernel, &()).expect("a workspace");
    // Later changes of the user's lists have no effect.
    std::fs::remove_dir_all(&lists).expect("removed");
    let built = |from: &str, to: &str| {
        let patched = build(&workspace, &edit(&toy, "fs/a.c", from, to)).expect("built");
        functions(&patched.pair("vmlinux").expect("changed").patched)
    };
    assert_eq!(built("far(1)", "far(7)"), ["a", "b", "c", "one", "two"]);
    // No list has the new function, and an entry without its function is dropped.
    assert_eq!(built("two", "other"), ["a", "b", "c", "one"]);
}

#[test]
fn a_kernels_record_leads_to_its_lists() {
    let toy = Toy::new();
    let lists = write_lists(&toy, "fs/a.c", &["a"]);
    let record = format!(
        "savedcmd_init/main.o := gcc -c -o init/main.o ../init/main.c\n\ndeps_init/main.o := \\\n  {} \\\n",
        lists.join("units/init/main.c.inl").display()
    );
    let path = toy.root.path().join("out/init/.main.o.cmd");
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("mkdir");
    std::fs::write(path, record).expect("a record");
    let by_record = toy.kernel();
    let named = PatchableKernel::open(&KernelOptions { lists: Some(lists.clone()), ..toy.options() })
        .expect("a kernel");
    assert_eq!((by_record.key(), by_record.units_with_lists()), (named.key(), Some(1)));
    // The same lists at another place make the same kernel. Other lists make another kernel.
    let moved = toy.root.path().join("moved");
    std::fs::rename(&lists, &moved).expect("moved");
    let failure = PatchableKernel::open(&toy.options()).expect_err("refused");
    assert_eq!(code(&failure), "klpx::missing-lists");
    let options = KernelOptions { lists: Some(moved.clone()), ..toy.options() };
    assert_eq!(PatchableKernel::open(&options).expect("a kernel").key(), named.key());
    std::fs::write(moved.join("units/fs/a.c.inl"), "").expect("a list");
    assert_ne!(PatchableKernel::open(&options).expect("a kernel").key(), named.key());
    std::fs::write(moved.join("units/fs/a.c.inl"), "int x;\n").expect("a list");
    assert_eq!(code(&PatchableKernel::open(&options).expect_err("refused")), "klpx::bad-list");
}

/// Not a test: a second klpx process for the tests below.
#[test]
#[ignore = "started by other tests"]
fn child() {
    let Ok(root) = std::env::var("KLPX_TEST_ROOT") else { return };
    let root = PathBuf::from(root);
    let patch = std::fs::read_to_string(root.join("patch")).expect("read");
    let options = KernelOptions {
        source: root.join("linux"),
        build_dir: Some(root.join("out")),
        cache_dir: root.join("cache"),
        jobs: Some(2),
        ..KernelOptions::default()
    };
    let result = PatchableKernel::open(&options)
        .and_then(|kernel| Workspace::open(&kernel, &()))
        .and_then(|workspace| build(&workspace, &patch).map(|patched| patched.units));
    std::process::exit(match result {
        Ok(_) => 0,
        Err(failure) => i32::from(failure.exit_code()),
    });
}

fn start_child(toy: &Toy, patch: &str) -> Child {
    std::fs::write(toy.root.path().join("patch"), patch).expect("write");
    Command::new(std::env::current_exe().expect("exe"))
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env("KLPX_TEST_ROOT", toy.root.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("started")
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn signal(child: &Child, signal: i32) {
    // SAFETY: a plain system call on a child that was not waited for.
    unsafe { libc::kill(child.id().cast_signed(), signal) };
}

/// Starts a build that hangs in the middle of compiling fs/a.c. Returns the path of that object.
fn start_slow(toy: &Toy) -> (Child, PathBuf, PathBuf) {
    let workspace = toy.open();
    workspace.baseline(&()).expect("a baseline");
    let dir = workspace.dir().to_owned();
    drop(workspace);
    let child = start_child(toy, &edit(toy, "fs/a.c", "return 1", "return 9 /* SLOW */"));
    let object = dir.join("build/fs/a.o");
    wait_for("a half-written object", || std::fs::read(&object).is_ok_and(|text| text == b"half\n"));
    (child, dir, object)
}

#[test]
fn a_run_that_is_killed_leaves_a_good_cache() {
    let toy = Toy::new();
    let before = toy.users_files();
    let (mut child, dir, object) = start_slow(&toy);
    signal(&child, libc::SIGKILL);
    child.wait().expect("ended");
    assert!(dir.join("patch.journal").exists());
    let workspace = toy.open();
    assert_at_rest(&toy, &dir);
    assert_ne!(std::fs::read(&object).ok().as_deref(), Some(&b"half\n"[..]));
    let patch = edit(&toy, "fs/b.c", "return N", "return N + 5");
    let after_kill = build(&workspace, &patch).expect("built");
    let after_kill =
        std::fs::read(after_kill.pair("vmlinux").expect("changed").patched.as_path()).expect("read");
    drop(workspace);
    // The result equals the result with an undisturbed cache.
    std::fs::remove_dir_all(toy.cache()).expect("removed");
    let fresh = build(&toy.open(), &patch).expect("built");
    assert_eq!(
        after_kill,
        std::fs::read(fresh.pair("vmlinux").expect("changed").patched.as_path()).expect("read")
    );
    assert_eq!(toy.users_files(), before);
}

#[test]
fn a_run_that_is_interrupted_puts_everything_back() {
    let toy = Toy::new();
    let (mut child, dir, _) = start_slow(&toy);
    signal(&child, libc::SIGINT);
    let status = child.wait().expect("ended");
    assert_eq!(status.code(), Some(130));
    assert_at_rest(&toy, &dir);
    let patched = build(&toy.open(), &edit(&toy, "fs/b.c", "return N", "return N + 5")).expect("built");
    assert_eq!(patched.units, 1);
}

#[test]
fn a_killed_baseline_is_started_anew() {
    let toy = Toy::new();
    toy.write("fs/slow.c", "/* SLOW */\nint s;\n");
    let mut child = start_child(&toy, "");
    let object = toy.cache().join("kernels").join(toy.kernel().key()).join("build/fs/slow.o");
    wait_for("a half-written object", || std::fs::read(&object).is_ok_and(|text| text == b"half\n"));
    signal(&child, libc::SIGKILL);
    child.wait().expect("ended");
    let workspace = toy.open();
    assert!(workspace.finished_baseline().is_none());
    assert!(!object.exists());
}

/// Records the steps.
#[derive(Default)]
struct Steps(Mutex<Vec<String>>);

impl Progress for Steps {
    fn step(&self, message: &str) {
        self.0.lock().expect("lock").push(message.to_owned());
    }
    fn objects(&self, _: u64, _: Option<u64>) {}
    fn note(&self, _: &str) {}
}

#[test]
fn a_second_klpx_waits_and_says_so() {
    let toy = Toy::new();
    let (mut child, dir, _) = start_slow(&toy);
    let steps = Steps::default();
    let kernel = toy.kernel();
    std::thread::scope(|scope| {
        let second =
            scope.spawn(|| Workspace::open(&kernel, &steps).map(|workspace| workspace.dir().to_owned()));
        wait_for("a message", || !steps.0.lock().expect("lock").is_empty());
        assert!(!second.is_finished());
        signal(&child, libc::SIGINT);
        child.wait().expect("ended");
        assert_eq!(second.join().expect("joined").expect("opened"), dir);
    });
    assert_eq!(steps.0.lock().expect("lock")[0], format!("waiting for another klpx (pid {})", child.id()));
}

/// The toy kernel, with these variables given to its make.
fn given(toy: &Toy, texts: &[&str]) -> PatchableKernel {
    let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
    PatchableKernel::open(&KernelOptions { given: Given::read(&texts).expect("variables"), ..toy.options() })
        .expect("a kernel")
}

#[test]
fn variables_of_make_reach_each_compilation_and_are_a_part_of_the_kernel() {
    let toy = Toy::new();
    toy.write("fs/d.c", "int d(void)\n{\n\treturn FLAG + FROM_FILE;\n}\n");
    let file = toy.root.path().join("a profile");
    std::fs::write(&file, "#define FROM_FILE 2\n").expect("write");
    let profile = format!("CLANG_AUTOFDO_PROFILE={}", file.display());
    let kernel = given(&toy, &["KCFLAGS=-DFLAG=1 -O2", &profile]);
    assert_eq!(kernel.key(), given(&toy, &[&profile, "KCFLAGS=-DFLAG=1 -O2"]).key());
    let others = [&["KCFLAGS=-DFLAG=1 -O2"][..], &["KCFLAGS=-DFLAG=2 -O2", &profile], &[&profile], &[]];
    for texts in others {
        assert_ne!(kernel.key(), given(&toy, texts).key(), "{texts:?}");
    }
    assert!(toy.open().baseline(&()).is_err(), "without the flags it does not compile");

    let workspace = Workspace::open(&kernel, &()).expect("a workspace");
    workspace.baseline(&()).expect("a baseline");
    std::fs::remove_file(&file).expect("removed");
    let patched = build(&workspace, &edit(&toy, "fs/d.c", "return FLAG", "return 7 + FLAG")).expect("built");
    assert_eq!(patched.units, 1, "the other units were not compiled again");
    drop((patched, workspace));

    std::fs::write(&file, "#define FROM_FILE 3\n").expect("write");
    assert_ne!(
        kernel.key(),
        given(&toy, &["KCFLAGS=-DFLAG=1 -O2", &profile]).key(),
        "it holds something else"
    );
}
