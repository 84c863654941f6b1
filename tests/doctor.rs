//! The built `klpx doctor` on small roots: what it prints, its JSON, its exit codes.

use std::path::Path;
use std::process::{Command, Output};

use klpx_testkit::{command, run, said};
use serde_json::Value;

const RELEASE: &str = "6.12.115+deb12-cloud-amd64";
const BANNER: &str = "Linux version 6.12.115+deb12-cloud-amd64 (debian-kernel@lists.debian.org) (gcc-12 (Debian) 12.2.0, GNU ld 2.40) #1 SMP PREEMPT_DYNAMIC Debian 6.12.115-2~deb12u1 (2026-11-04)";

fn doctor(root: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_klpx"));
    command.arg("doctor").arg("--sysroot").arg(root).args(args).output().expect("klpx runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

fn write(root: &Path, name: &str, contents: &str) {
    let path = root.join(name);
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
    std::fs::write(path, contents).expect("a file");
}

/// A root with headers and source of a kernel that this machine's compiler made, without its image.
fn root(options: &str) -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a folder");
    let compiler = said(command("gcc").arg("--version")).lines().next().expect("a line").to_owned();
    let headers = format!("usr/src/linux-headers-{RELEASE}");
    let config = format!(
        "#\n# Linux/x86 6.12.115 Kernel Configuration\n#\nCONFIG_X86_64=y\nCONFIG_MODULES=y\nCONFIG_KALLSYMS=y\n\
         CONFIG_CC_IS_GCC=y\nCONFIG_CC_VERSION_TEXT=\"{compiler}\"\n{options}"
    );
    let files = [
        (".config", config.as_str()),
        ("include/config/auto.conf", ""),
        ("include/generated/autoconf.h", ""),
        ("include/generated/utsrelease.h", "#define UTS_RELEASE \"6.12.115+deb12-cloud-amd64\"\n"),
        ("Module.symvers", ""),
    ];
    for (name, contents) in files {
        write(root.path(), &format!("{headers}/{name}"), contents);
    }
    for name in ["Kconfig", "scripts/Kbuild.include", "init/main.c", "include/linux/kernel.h"] {
        write(root.path(), &format!("usr/src/linux-source-6.12/{name}"), "");
    }
    let makefile = "VERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 115\nEXTRAVERSION =\n";
    write(root.path(), "usr/src/linux-source-6.12/Makefile", makefile);
    root
}

/// Adds the image: an object with code, symbols and a banner.
fn with_image(root: &Path) {
    let image = root.join(format!("usr/lib/debug/boot/vmlinux-{RELEASE}"));
    write(
        root,
        "image.c",
        &format!("const char linux_banner[] = \"{BANNER}\\n\";\nint f(void) {{ return 1; }}\n"),
    );
    std::fs::create_dir_all(image.parent().expect("a parent")).expect("a folder");
    run(command("gcc").arg("-c").arg(root.join("image.c")).arg("-o").arg(image));
}

#[test]
fn a_whole_kernel_is_ready() {
    let root = root("CONFIG_LIVEPATCH=y\n");
    with_image(root.path());
    let output = doctor(root.path(), &[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    assert!(
        shown.starts_with(&format!("Linux {RELEASE} · Debian 6.12.115-2~deb12u1 · the only kernel below ")),
        "{shown}"
    );
    assert!(shown.contains(&format!("linux-image-{RELEASE}-dbg")), "{shown}");
    assert!(shown.contains("ready: klpx build PATCH"), "{shown}");
    let json = doctor(root.path(), &["--json", "--kernel", RELEASE]).stdout;
    let json: Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!((&json["schema"], &json["ready"]), (&Value::from(1), &Value::from(true)));
    assert_eq!(json["kernel"]["release"], RELEASE);
    assert_eq!(json["kernel"]["package"], "6.12.115-2~deb12u1");
    assert_eq!(json["found"][0]["piece"], "config");
    assert_eq!(json["errors"], Value::from(Vec::<Value>::new()));
    assert!(json["compiler"]["found"].as_str().expect("found").contains("gcc"));
}

#[test]
fn what_is_missing_is_named_with_a_line_to_paste() {
    let root = root("CONFIG_LIVEPATCH=y\n");
    let output = doctor(root.path(), &[]);
    assert_eq!(output.status.code(), Some(8), "{}", text(&output.stderr));
    let (shown, error) = (text(&output.stdout), text(&output.stderr));
    assert!(shown.contains("missing"), "{shown}");
    assert!(shown.contains("not ready"), "{shown}");
    assert!(
        error.contains("[klpx::kernel-incomplete]") && error.contains("apt install linux-image-"),
        "{error}"
    );
    let json = doctor(root.path(), &["--json"]);
    assert_eq!(json.status.code(), Some(8));
    let json: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    let image = json["missing"].as_array().expect("a list").iter().find(|m| m["piece"] == "vmlinux");
    assert_eq!(image.expect("vmlinux")["package"], format!("linux-image-{RELEASE}-dbg"));
    assert_eq!(json["errors"][0]["code"], "klpx::kernel-incomplete");
}

#[test]
fn klpx_log_shows_the_programs_that_run() {
    let root = root("CONFIG_LIVEPATCH=y\n");
    with_image(root.path());
    let log = |level: &str| {
        let mut klpx = Command::new(env!("CARGO_BIN_EXE_klpx"));
        klpx.args(["doctor", "--sysroot"])
            .arg(root.path())
            .env("KLPX_LOG", level)
            .output()
            .expect("klpx runs")
    };
    for (level, shows) in [("debug", true), ("info", false)] {
        let stderr = log(level).stderr;
        assert_eq!(text(&stderr).contains("runs call="), shows, "{level}: {}", text(&stderr));
    }
    let output = log("loud");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("KLPX_LOG names no level: loud"), "{}", text(&output.stderr));
}

#[test]
fn a_kernel_without_livepatching_is_refused() {
    let root = root("");
    with_image(root.path());
    let output = doctor(root.path(), &[]);
    assert_eq!(output.status.code(), Some(6), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("[klpx::no-livepatch]"));
    assert!(text(&output.stdout).contains("CONFIG_LIVEPATCH is not set"));
}

#[test]
fn a_root_without_kernels_asks_for_a_name() {
    let root = tempfile::tempdir().expect("a folder");
    let output = doctor(root.path(), &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("[klpx::which-kernel]"));
}
