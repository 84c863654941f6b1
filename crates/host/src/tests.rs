//! Whole commands on test machines, with modules made by a compiler and a linker.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Parser;
use klpx_testkit as tools;
use serde_json::Value;

use crate::testing::{Machine, Task};
use crate::{HostCli, SCHEMAS, run_on};

/// The source of a livepatch of one function of vmlinux.
const SOURCE: &str = r#"
#define INFO(n, text) static const char info##n[] __attribute__((section(".modinfo"), used)) = text
INFO(1, "livepatch=Y"); INFO(2, "name=" NAME); INFO(3, "vermagic=" RELEASE " SMP preempt ");
INFO(4, "kernel_build_id=" BUILD_ID); INFO(5, "description=" NAME " mends it"); INFO(6, "cve=CVE-2026-0001");
INFO(7, "cve=CVE-2026-0002"); INFO(8, "version=" VERSION);
static int fixed(void) { return 1; }
struct func { const char *name; int (*new)(void); unsigned long position; };
struct object { const char *name; struct func *functions; void *callbacks[4]; };
struct patch { void *module; struct object *objects; void *states; char replace; };
char __this_module[64];
static struct func functions[] = { { FUNCTION, fixed, 0 }, { 0 } };
static struct object objects[] = { { 0, functions }, { 0 } };
struct patch patch = { __this_module, objects, 0, REPLACE };
"#;

/// The properties of a test module.
struct Module {
    name: &'static str,
    release: &'static str,
    build_id: &'static str,
    version: &'static str,
    function: &'static str,
    replace: bool,
}

const A: Module = Module {
    name: "a",
    release: "6.12.1+test",
    build_id: "0102030405060708",
    version: "1",
    function: "f",
    replace: true,
};

impl Module {
    /// Builds the module into a folder of the machine where klpx-host does not look for livepatches.
    fn build(&self, machine: &Machine) -> PathBuf {
        machine.put("/tmp/module.c", SOURCE);
        let file = machine.at(&format!("/tmp/{}.ko", self.name));
        let mut command = tools::command("gcc");
        command.args(["-r", "-nostdlib", "-fno-pic", "-Wl,--build-id=sha1", "-o"]).arg(&file);
        for (name, value) in [
            ("NAME", self.name),
            ("RELEASE", self.release),
            ("BUILD_ID", self.build_id),
            ("VERSION", self.version),
            ("FUNCTION", self.function),
        ] {
            command.arg(format!("-D{name}=\"{value}\""));
        }
        command.arg(format!("-DREPLACE={}", u8::from(self.replace)));
        tools::run(command.arg(machine.at("/tmp/module.c")));
        file
    }
}

/// The answer of a command.
#[derive(Debug)]
struct Answer {
    exit: u8,
    out: String,
    /// The codes of the command's failures.
    codes: Vec<&'static str>,
    /// The detail lines of the failures.
    detail: Vec<String>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap()
    }
}

/// Checks that a command's output for programs fits its schema.
#[track_caller]
fn fits(command: &str, text: &str) {
    let (_, schema) = SCHEMAS.iter().find(|(name, _)| *name == command).unwrap();
    let schema: Value = serde_json::from_str(schema).unwrap();
    assert!(jsonschema::meta::is_valid(&schema), "{command}");
    let value: Value = serde_json::from_str(text).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> =
        validator.iter_errors(&value).map(|error| format!("{error} at {}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{command}: {errors:#?}\n{value:#}");
}

/// Runs `klpx-host` with the given arguments.
fn host(machine: &Machine, words: &[&str]) -> Answer {
    let cli = HostCli::try_parse_from([&["klpx-host"], words].concat()).unwrap();
    let mut out = Vec::new();
    let result = run_on(&machine.host(), &cli.command, &mut out);
    let out = String::from_utf8(out).unwrap();
    // A command that is refused at once prints no result for programs.
    if words.contains(&"--json") && !out.is_empty() {
        fits(words[0], &out);
    }
    match result {
        Ok(exit) => Answer { exit, out, codes: Vec::new(), detail: Vec::new() },
        Err(failure) => Answer {
            exit: failure.exit_code(),
            out,
            codes: failure.diagnoses().map(|diagnosis| diagnosis.code).collect(),
            detail: failure.diagnoses().flat_map(|diagnosis| diagnosis.detail.clone()).collect(),
        },
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Makes the kernel show the build ID of a loaded module.
fn shows_build_id(machine: &Machine, name: &str, file: &Path) {
    let id = crate::file::open(file).unwrap().livepatch.build_id.unwrap();
    let id = (0..id.len() / 2).map(|n| u8::from_str_radix(&id[2 * n..2 * n + 2], 16).unwrap());
    let note = [&[4, 0, 0, 0, 20, 0, 0, 0, 3, 0, 0, 0][..], b"GNU\0", &id.collect::<Vec<u8>>()].concat();
    machine.put_bytes(&format!("/sys/module/{name}/notes/.note.gnu.build-id"), &note);
}

/// Makes the kernel accept a module: its livepatch appears, in transition.
fn takes(machine: &Machine, name: &'static str) {
    machine.on_load(0, move |machine| {
        shows_build_id(machine, name, &machine.at(&format!("/tmp/{name}.ko")));
        let marked = machine.text(&format!("/var/lib/klpx/loading/{name}"));
        assert!(marked.contains("boot-1"), "a mark is there before the kernel is asked: {marked}");
        machine.livepatch(name, "1\n", "1\n", &["f"]);
        machine.task(&Task::sleeping(5, "sleeper", "[<0>] f+0x1/0x20\n"));
    });
}

/// Ends the transition of a livepatch at a second of the clock.
fn ends(machine: &Machine, name: &'static str, second: u64) {
    machine.after(second, move |machine| {
        machine.put(&format!("/sys/kernel/livepatch/{name}/transition"), "0\n");
    });
}

const MARKS: &str = "/var/lib/klpx/loading";

fn marks(machine: &Machine) -> Vec<String> {
    machine.host().names(MARKS)
}

#[test]
fn a_livepatch_is_loaded_when_its_transition_is_through() {
    let machine = Machine::new();
    let file = A.build(&machine);
    machine.livepatch("old", "1\n", "0\n", &["f"]);
    takes(&machine, "a");
    ends(&machine, "a", 8);
    machine.after(8, |machine| machine.take("/sys/kernel/livepatch/old"));
    let answer = host(&machine, &["load", text(&file)]);
    assert_eq!((answer.exit, answer.codes), (0, vec![]), "{}", answer.out);
    for said in
        ["after 5 s it waits for 1 task", "sleeper (process 5) is in f", "a is loaded", "it replaced old"]
    {
        assert!(answer.out.contains(said), "{}", answer.out);
    }
    assert_eq!(*machine.removed.borrow(), ["old"]);
    assert_eq!(marks(&machine), Vec::<String>::new());
    let status = host(&machine, &["status", "--json"]);
    let json = status.json();
    assert_eq!(status.exit, 0);
    let livepatch = &json["livepatches"][0];
    assert_eq!(
        (&json["schema"], &livepatch["name"], &livepatch["state"]),
        (&1.into(), &"a".into(), &"enabled".into())
    );
    assert_eq!(livepatch["functions"][0]["function"], "f,1");
    let status = host(&machine, &["status"]);
    assert!(status.out.contains("a: enabled for"), "{}", status.out);
}

#[test]
fn what_is_known_of_a_loaded_livepatch_is_that_of_its_build() {
    let machine = Machine::new();
    let file = A.build(&machine);
    assert_eq!(host(&machine, &["install", text(&file)]).exit, 0);
    machine.livepatch("a", "1\n", "0\n", &["f"]);
    let described = || host(&machine, &["status", "--json"]).json()["livepatches"][0]["description"].clone();
    assert_eq!(described(), Value::Null, "it was loaded by others, and has no build ID");
    shows_build_id(&machine, "a", &file);
    assert_eq!(described(), "a mends it");
    let again = host(&machine, &["load", "a", "--json"]);
    assert_eq!((again.exit, &again.json()["outcome"]), (0, &"already-loaded".into()));
    let listed = host(&machine, &["list"]);
    assert!(
        listed.out.contains("enabled") && listed.out.contains("CVE-2026-0001 CVE-2026-0002"),
        "{}",
        listed.out
    );
}

#[test]
fn a_livepatch_that_does_not_fit_is_not_loaded() {
    type Row = (Module, i32, u8, &'static str);
    let rows: [Row; 4] = [
        (Module { release: "6.12.2+test", ..A }, 0, 7, "klpx::other-release"),
        (Module { build_id: "ff", ..A }, 0, 7, "klpx::other-build-id"),
        (A, libc::EKEYREJECTED, 7, "klpx::load-refused"),
        (A, libc::EPERM, 8, "klpx::cannot-load"),
    ];
    for (module, number, exit, code) in rows {
        let machine = Machine::new();
        let file = module.build(&machine);
        machine.on_load(number, |_| {});
        for command in ["load", "check"] {
            let answer = host(&machine, &[command, text(&file)]);
            match (command, number) {
                ("check", 1..) => assert_eq!(answer.exit, 0),
                _ => assert_eq!((answer.exit, answer.codes), (exit, vec![code]), "{command}"),
            }
        }
        assert_eq!(marks(&machine), Vec::<String>::new());
    }
}

#[test]
fn a_transition_that_does_not_end_is_taken_back_or_forced_or_stuck() {
    let give_way = |machine: &Machine| {
        if machine.text("/sys/kernel/livepatch/a/enabled").starts_with('0') {
            machine.take("/sys/kernel/livepatch/a");
        }
    };
    let by_force = |machine: &Machine| {
        if machine.text("/sys/kernel/livepatch/a/force") == "1" {
            machine.put("/sys/kernel/livepatch/a/transition", "0\n");
        }
    };
    type Row<'a> = (&'a [&'a str], fn(&Machine), u8, &'a str, &'a [&'a str]);
    let rows: [Row<'_>; 3] = [
        (&["--timeout", "10"], give_way, 10, "reverted", &["a"]),
        (&["--timeout", "10"], |_| {}, 11, "stuck", &[]),
        (&["--timeout", "10", "--force"], by_force, 0, "forced", &[]),
    ];
    for (options, event, exit, outcome, removed) in rows {
        let machine = Machine::new();
        let file = A.build(&machine);
        takes(&machine, "a");
        machine.after(12, event);
        let answer = host(&machine, &[&["load", text(&file), "--json"], options].concat());
        assert_eq!((answer.exit, &answer.json()["outcome"]), (exit, &outcome.into()), "{answer:?}");
        assert_eq!(*machine.removed.borrow(), removed);
        assert_eq!(marks(&machine).is_empty(), exit != 11, "a transition that goes on may crash yet");
        if exit == 10 {
            assert_eq!(answer.codes, ["klpx::transition-reverted"]);
            assert_eq!(answer.detail[0], "sleeper (process 5) is in f");
        }
    }
}

#[test]
fn a_livepatch_is_unloaded_or_stays_enabled() {
    let gone = |machine: &Machine| machine.take("/sys/kernel/livepatch/a");
    let back = |machine: &Machine| {
        if machine.text("/sys/kernel/livepatch/a/enabled").starts_with('1') {
            machine.put("/sys/kernel/livepatch/a/transition", "0\n");
        }
    };
    for (second, event, exit, outcome, removed) in
        [(3, gone as fn(&Machine), 0, "unloaded", &["a"][..]), (12, back, 10, "reverted", &[])]
    {
        let machine = Machine::new();
        // A kernel sets `transition` in the write to `enabled`; this machine has it set from the start.
        machine.livepatch("a", "1\n", "1\n", &["f"]);
        machine.after(second, event);
        let answer = host(&machine, &["unload", "a", "--timeout", "10", "--json"]);
        assert_eq!((answer.exit, &answer.json()["outcome"]), (exit, &outcome.into()));
        assert_eq!(*machine.removed.borrow(), removed);
    }
    let machine = Machine::new();
    assert_eq!(host(&machine, &["unload", "a"]).codes, ["klpx::not-loaded"]);
    machine.put("/sys/module/ext4/taint", "\n");
    assert_eq!(host(&machine, &["unload", "ext4"]).codes, ["klpx::not-loaded"], "another module");
    machine.put("/sys/module/a/taint", "OK\n");
    assert_eq!(host(&machine, &["status"]).exit, 14);
    assert_eq!(host(&machine, &["unload", "a"]).exit, 0);
    assert_eq!(host(&machine, &["unload", "../a"]).codes, ["klpx::bad-name"]);
}

#[test]
fn what_is_installed_is_loaded_at_boot_unless_it_crashed_or_is_off() {
    let machine = Machine::new();
    assert_eq!(host(&machine, &["load", "--installed"]).exit, 0, "nothing is installed");
    let a = A.build(&machine);
    let newer = Module { name: "b", version: "2", ..A }.build(&machine);
    let other = Module { name: "c", version: "3", build_id: "ff", ..A }.build(&machine);
    for file in [&a, &newer, &other] {
        assert_eq!(host(&machine, &["install", text(file)]).exit, 0);
    }
    let boot = |machine: &Machine| host(machine, &["load", "--installed", "--json"]);

    machine.put("/proc/cmdline", "quiet klpx.livepatch=off\n");
    assert_eq!(boot(&machine).json()["off"], true);
    machine.put("/proc/cmdline", "quiet klpx.livepatch=offline\n");

    machine.put("/var/lib/klpx", "no folder");
    assert_eq!(boot(&machine).exit, 8, "a crash could not be marked");
    std::fs::remove_file(machine.at("/var/lib/klpx")).unwrap();

    // The machine goes down while b is loaded.
    machine.on_load(libc::ENOMEM, |machine| {
        let mark = machine.text(&format!("{MARKS}/b"));
        machine.put("/mark", &mark);
    });
    assert_eq!(boot(&machine).exit, 8);
    machine.put(&format!("{MARKS}/b"), &machine.text("/mark"));
    machine.put("/proc/sys/kernel/random/boot_id", "boot-2\n");
    let answer = boot(&machine);
    assert_eq!((answer.exit, answer.codes), (7, vec!["klpx::crash-mark"]));
    let status = host(&machine, &["status", "--json"]);
    assert_eq!((status.exit, &status.json()["crash_marks"][0]["name"]), (15, &"b".into()));
    assert_eq!(host(&machine, &["load", "b"]).codes, ["klpx::crash-mark"]);
    assert_eq!(host(&machine, &["check", "b"]).codes, ["klpx::crash-mark"]);

    machine.on_load(0, |machine| machine.livepatch("b", "1\n", "0\n", &["f"]));
    assert_eq!(host(&machine, &["load", "--retry", "b"]).exit, 0);
    assert_eq!(marks(&machine), Vec::<String>::new());
    assert_eq!(host(&machine, &["status"]).exit, 0);
}

#[test]
fn a_crash_can_go_unmarked_by_hand() {
    let machine = Machine::new();
    let file = A.build(&machine);
    machine.put("/var/lib/klpx", "no folder");
    machine.on_load(0, |machine| machine.livepatch("a", "1\n", "0\n", &["f"]));
    let answer = host(&machine, &["load", text(&file)]);
    assert!(answer.exit == 0 && answer.out.contains("note: a crash would not be seen"), "{answer:?}");
}

#[test]
fn a_file_is_installed_for_a_kernel_that_is_there_and_removed_again() {
    let machine = Machine::new();
    let file = A.build(&machine);
    let other = Module { name: "b", release: "6.12.9+test", ..A }.build(&machine);
    assert_eq!(host(&machine, &["install", text(&other)]).codes, ["klpx::kernel-not-installed"]);
    assert_eq!(host(&machine, &["list"]).out, "no livepatch is installed\n");
    let place = "/usr/lib/modules/6.12.1+test/livepatch/a.ko";
    assert_eq!(host(&machine, &["install", text(&file), "--json"]).json()["file"], place);
    assert_eq!(host(&machine, &["list", "--json"]).json()["livepatches"][0]["state"], "not loaded");
    assert_eq!(host(&machine, &["check", "a", "--json"]).json()["good"], true);
    assert_eq!(host(&machine, &["check", text(&other), "--json"]).json()["good"], false);
    machine.livepatch("a", "1\n", "0\n", &["f"]);
    assert_eq!(host(&machine, &["uninstall", "a"]).exit, 0);
    assert_eq!(host(&machine, &["status"]).exit, 0, "it stays loaded");
    assert_eq!(host(&machine, &["uninstall", "a"]).codes, ["klpx::not-installed"]);
    assert!(!machine.at("/usr/lib/modules/6.12.1+test/livepatch").exists());
    host(&machine, &["install", text(&file)]);
    machine.after(1, |machine| machine.take("/sys/kernel/livepatch/a"));
    let answer = host(&machine, &["uninstall", "a", "--unload", "--json"]);
    assert_eq!((answer.exit, &answer.json()["unload"]["outcome"]), (0, &"unloaded".into()));
    assert_eq!(host(&machine, &["status"]).exit, 12);
}

#[test]
fn a_compressed_file_is_installed_plain() {
    let machine = Machine::new();
    let file = A.build(&machine);
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(&std::fs::read(&file).unwrap()).unwrap();
    machine.put_bytes("/tmp/packed.ko.gz", &writer.finish().unwrap());
    let answer = host(&machine, &["install", text(&machine.at("/tmp/packed.ko.gz"))]);
    assert_eq!(answer.exit, 0, "{answer:?}");
    let installed = std::fs::read(machine.at("/usr/lib/modules/6.12.1+test/livepatch/a.ko")).unwrap();
    assert!(installed.starts_with(b"\x7fELF"));
}

#[test]
fn a_status_has_a_code_for_each_state() {
    for (enabled, transition, exit) in
        [("1\n", "0\n", 0), ("1\n", "1\n", 13), ("0\n", "1\n", 13), ("0\n", "0\n", 14)]
    {
        let machine = Machine::new();
        machine.livepatch("a", enabled, transition, &["f"]);
        machine.livepatch("b", "1\n", "0\n", &["g"]);
        assert_eq!(host(&machine, &["status", "--json"]).exit, exit, "{enabled:?} {transition:?}");
    }
}
