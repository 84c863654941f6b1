//! The built `klpx` where files, places and names are not what they should be: it says so at once, and does no harm.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use klpx_testkit::{command, need, run, said};

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("text").to_owned()
    }

    fn klpx(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("klpx runs")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_klpx"));
        command.args(args).current_dir(self.path()).env("KLPX_CACHE_DIR", self.path().join("cache"));
        command
    }

    /// The code of the one error.
    fn refused(&self, args: &[&str]) -> String {
        let output = self.klpx(args);
        let message = stderr(&output);
        let code = message.lines().find_map(|line| line.strip_prefix("error: ")?.rsplit_once(" ["));
        code.map_or(message.clone(), |(_, code)| code.trim_end_matches(']').to_owned())
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const PATCH: &str = "--- a/fs/a.c\n+++ b/fs/a.c\n@@ -1 +1 @@\n-a\n+b\n";

/// A source and a configuration as far as klpx looks before it compiles.
fn kernel(place: &Place) -> Vec<String> {
    place.write("src/Makefile", "VERSION = 7\nPATCHLEVEL = 2\nSUBLEVEL = 13\n");
    for name in ["Kconfig", "scripts/Kbuild.include", "init/main.c", "include/linux/kernel.h"] {
        place.write(&format!("src/{name}"), "");
    }
    place.write("src/fs/a.c", "a\n");
    ["--source", "src", "--kernel", "7.2.13"].map(str::to_owned).to_vec()
}

/// A kernel in `out`, as far as klpx looks before it compiles; what is to be built from it can't be.
fn built_kernel(place: &Place) {
    for program in ["git", "ld", "make"] {
        need(program);
    }
    kernel(place);
    let gcc = said(command("gcc").arg("--version")).lines().next().expect("a line").to_owned();
    let config =
        ["X86_64", "MODULES", "LIVEPATCH", "KALLSYMS", "CC_IS_GCC"].map(|name| format!("CONFIG_{name}=y\n"));
    place.write("out/.config", format!("{}CONFIG_CC_VERSION_TEXT=\"{gcc}\"\n", config.concat()));
    place.write("out/include/config/kernel.release", "7.2.13\n");
    place.write("out/Module.symvers", "0x12345678\tprintk\tvmlinux\tEXPORT_SYMBOL\t\n");
    image(place, "out/vmlinux", &format!("Linux version 7.2.13 (a@b) ({gcc}) #1"));
    place.write("fix.patch", PATCH);
}

/// An object with a banner.
fn image(place: &Place, name: &str, banner: &str) {
    let text = format!("const char linux_banner[] = \"{banner}\\n\";\nint f(void) {{ return 1; }}\n");
    let source = place.write("image.c", text);
    run(command("gcc").arg("-c").arg(source).arg("-o").arg(place.path().join(name)));
}

const BUILD: [&str; 6] = ["build", "fix.patch", "--source", "src", "--build-dir", "out"];

#[test]
fn files_of_no_or_of_another_kernel_are_refused_before_anything_is_compiled() {
    let place = Place::new();
    built_kernel(&place);
    // The check has something to find: without a fault the build begins.
    let message = stderr(&place.klpx(&BUILD));
    assert!(message.contains("1 file, 1 hunk") && place.path().join("cache/kernels").exists(), "{message}");
    std::fs::remove_dir_all(place.path().join("cache")).expect("removed");
    place.write("garbage", "garbage");
    image(&place, "foreign", "Linux version 6.1.0 (a@b) (gcc 12) #1");
    image(&place, "other-compiler", "Linux version 7.2.13 (a@b) (gcc version 1.2.3) #1");
    let vmlinux = |name| [&BUILD[..], &["--vmlinux", name]].concat();
    for (args, symvers, code) in [
        (vmlinux("garbage"), None, "klpx::bad-vmlinux"),
        (vmlinux("foreign"), None, "klpx::release-mismatch"),
        (vmlinux("other-compiler"), None, "klpx::compiler-mismatch"),
        (BUILD.to_vec(), Some("garbage"), "klpx::bad-symvers"),
        (BUILD.to_vec(), Some("\u{7f}ELF\u{0}\u{0}"), "klpx::bad-symvers"),
    ] {
        if let Some(text) = symvers {
            place.write("out/Module.symvers", text);
        }
        assert_eq!(place.refused(&args), code, "{args:?}");
        assert!(!place.path().join("cache/kernels").exists(), "{code}: something was made");
    }
}

#[test]
fn what_git_warns_of_is_no_part_of_a_patch() {
    let place = Place::new();
    built_kernel(&place);
    place.write("xdg/git/config", "[no section\n");
    let path = std::env::var("PATH").expect("a path");
    // A git that says something before it does what it is asked.
    let said_by = |says: &str| {
        let git = place.write("bin/git", format!("#!/bin/sh\n{says}\nPATH=${{PATH#*:}} exec git \"$@\"\n"));
        std::fs::set_permissions(git, std::fs::Permissions::from_mode(0o755)).expect("chmod");
        let mut klpx = place.command(&BUILD);
        klpx.env("PATH", format!("{}:{path}", place.path().join("bin").display()));
        klpx.env("HOME", place.path()).env("XDG_CONFIG_HOME", place.path().join("xdg"));
        stderr(&klpx.output().expect("klpx runs"))
    };
    for warning in
        ["warning: unable to access '/home/somebody/.config/git/config'", "1\t1\tfs/b.c", "Hunk #1 succeeded"]
    {
        let message = said_by(&format!("printf '{warning}\\n' >&2"));
        assert!(
            message.contains("1 file, 1 hunk") && !message.contains("not-a-patch"),
            "{warning}: {message}"
        );
    }
    // What it prints as data counts.
    let message = said_by("printf '1\\t1\\tfs/b.c\\0'");
    assert!(message.contains("[klpx::not-a-patch]"), "{message}");
}

#[test]
fn what_can_not_be_written_or_would_be_lost_is_refused_at_once() {
    let place = Place::new();
    let patch = place.write("fix.patch", PATCH);
    std::fs::create_dir_all(place.path().join("out/livepatch-fix.ko")).expect("a folder");
    for (args, code) in [
        (["--report", patch.as_str()], "klpx::output-is-input"),
        (["--output", patch.as_str()], "klpx::output-is-input"),
        (["--report", "out"], "klpx::output-is-folder"),
        (["--output", "out"], "klpx::output-is-folder"),
        (["--report", "none/report.json"], "klpx::no-such-folder"),
        (["--output", "none/fix.ko"], "klpx::no-such-folder"),
        (["--report", "/proc/report.json"], "klpx::io"),
    ] {
        assert_eq!(place.refused(&["build", &patch, args[0], args[1]]), code, "{args:?}");
    }
    assert_eq!(std::fs::read_to_string(&patch).expect("read"), PATCH);
}

#[test]
fn a_text_without_an_end_is_refused() {
    let place = Place::new();
    let patch = place.write("fix.patch", PATCH);
    let mut args = vec!["build".to_owned(), patch, "--config".to_owned(), "/dev/zero".to_owned()];
    args.extend(kernel(&place));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let start = Instant::now();
    assert_eq!(place.refused(&["build", "/dev/zero"]), "klpx::too-long");
    let message = place.refused(&args);
    assert!(message == "klpx::too-long" || message == "klpx::kernel-incomplete", "{message}");
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_patch_that_nobody_writes_can_be_given_up() {
    let place = Place::new();
    let fifo = place.path().join("fifo");
    run(command("mkfifo").arg(&fifo));
    let mut child = place.command(&["build", "fifo"]).stderr(Stdio::null()).spawn().expect("klpx runs");
    std::thread::sleep(Duration::from_millis(500));
    assert!(child.try_wait().expect("asked").is_none(), "it waits");
    let pid = child.id().to_string();
    run(command("kill").arg(&pid));
    let ended = (0..100).find_map(|_| {
        std::thread::sleep(Duration::from_millis(50));
        child.try_wait().expect("asked")
    });
    let _ = child.kill();
    assert_eq!(ended.and_then(|status| status.code()), Some(130));
}

#[test]
fn prune_removes_only_what_klpx_made() {
    let place = Place::new();
    let precious = place.write("usr/kernels/5.14.el9/Makefile", "all:\n");
    let output = place.klpx(&["cache", "prune", "--days", "0", "--cache-dir", "usr"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(Path::new(&precious).is_file());
    assert_eq!(place.refused(&["cache", "prune", "--key", "ab"]), "klpx::no-such-kernel");
}

#[test]
fn a_cache_that_others_may_write_to_is_refused() {
    let place = Place::new();
    place.write("cache/kernels/aaaaaaaaaaaa/src/Makefile", "all:\n");
    let mode = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(place.path().join("cache"), mode).expect("chmod");
    assert_eq!(place.refused(&["cache", "prune"]), "klpx::untrusted-folder");
    assert_eq!(place.refused(&["cache", "list"]), "klpx::untrusted-folder");
}

#[test]
fn names_do_nothing_to_the_terminal() {
    let place = Place::new();
    let source = place.write("a.s", ".text\n.globl \"\u{1b}]0;x\u{7}f\"\n\"\u{1b}]0;x\u{7}f\": ret\n");
    run(command("as").args([&source, "-o"]).arg(place.path().join("a.o")));
    let output = place.klpx(&["normalize", "a.o"]);
    let printed = [output.stdout, output.stderr].concat();
    assert!(!printed.contains(&0x1b), "{}", String::from_utf8_lossy(&printed));
    let output = place.klpx(&["diff", "\u{1b}[2J.o", "a.o"]);
    assert!(
        !output.stderr.contains(&0x1b) && stderr(&output).contains("\\u{1b}[2J.o"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_full_output_is_an_error() {
    let place = Place::new();
    let full = std::fs::File::options().write(true).open("/dev/full").expect("a device");
    let output = place.command(&["completions", "bash"]).stdout(full).output().expect("klpx runs");
    assert_eq!(output.status.code(), Some(8), "{}", stderr(&output));
    assert!(stderr(&output).contains("klpx::disk-full"), "{}", stderr(&output));
}

/// The report can't be written, and the patch is refused: both are told, and the patch decides the exit code.
#[test]
fn a_report_that_cannot_be_written_does_not_hide_the_failure() {
    let place = Place::new();
    let patch = place.write("x.patch", "\n");
    let output = place.klpx(&["build", &patch, "--report", "/dev/full"]);
    let said = stderr(&output);
    assert!(said.contains("[klpx::patch-empty]") && said.contains("[klpx::disk-full]"), "{said}");
    assert_eq!(output.status.code(), Some(3), "{said}");
}

#[test]
fn patches_are_refused_by_what_they_do() {
    let place = Place::new();
    let long = "x".repeat(300);
    for (text, class) in [
        (
            "diff --git a/fs/a.c b/fs/b.c\nsimilarity index 100%\nrename from fs/a.c\nrename to fs/b.c\n"
                .to_owned(),
            6,
        ),
        (format!("--- a/fs/{long}.c\n+++ b/fs/{long}.c\n@@ -1 +1 @@\n-a\n+b\n"), 3),
    ] {
        let patch = place.write("x.patch", text);
        assert_eq!(place.klpx(&["build", &patch]).status.code(), Some(class));
    }
    let patch = place.write("x.patch", b"--- /dev/null\n+++ b/fs/\xff.c\n@@ -0,0 +1 @@\n+int x;\n");
    assert_eq!(place.refused(&["build", &patch]), "klpx::patch-path");
}
