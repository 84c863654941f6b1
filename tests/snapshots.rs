//! What the built `klpx` prints for people and for programs, held against the files in `tests/snapshots`.
//! `KLPX_WRITE_SNAPSHOTS=1 cargo test -p klpx --test snapshots` writes them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use klpx_testkit::builds::Builds;
use klpx_testkit::kernel::Kernel;
use klpx_testkit::snapshot::Snapshots;
use klpx_testkit::{command, run};
use serde_json::Value;

/// A folder in which klpx runs.
struct Place {
    folder: tempfile::TempDir,
    snapshots: Snapshots,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().expect("a folder");
        let mut snapshots =
            Snapshots::of(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/snapshots"));
        snapshots.replace(folder.path().to_str().expect("text"), "FOLDER");
        snapshots.replace(concat!("\"klpx\": \"", env!("CARGO_PKG_VERSION"), "\""), "\"klpx\": \"VERSION\"");
        Place { folder, snapshots }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, contents).expect("a file");
    }

    /// Compiles a file of the folder.
    fn compile(&self, source: &str, object: &str) {
        // Debug information names the folder as it is here: `.`.
        let here = format!("-fdebug-prefix-map={}=.", self.folder.path().display());
        let flags = ["-g", "-O2", "-c", "-ffunction-sections", "-fdata-sections", "-fno-pic", &here];
        run(command("gcc").current_dir(self.folder.path()).args(flags).args([source, "-o", object]));
    }

    fn klpx(&self, args: &[&str]) -> Output {
        let mut klpx = Command::new(env!("CARGO_BIN_EXE_klpx"));
        let cache = self.path("cache");
        klpx.current_dir(self.folder.path())
            .env("KLPX_CACHE_DIR", cache)
            .args(args)
            .output()
            .expect("klpx runs")
    }

    /// Compares the exit code and all that a command prints.
    #[track_caller]
    fn check(&self, name: &str, args: &[&str]) {
        let output = self.klpx(args);
        let [stdout, stderr] =
            [output.stdout, output.stderr].map(|text| String::from_utf8(text).expect("text"));
        let status = output.status.code().expect("an exit code");
        let shown = format!("$ klpx {}\n{stdout}{stderr}exit code {status}\n", args.join(" "));
        self.snapshots.check(name, &shown);
    }

    /// Compares what a command prints for programs.
    #[track_caller]
    fn check_json(&self, name: &str, args: &[&str]) {
        let output = self.klpx(args).stdout;
        self.snapshots.check(name, &String::from_utf8(output).expect("text"));
    }
}

const SOURCE: &str = "\
extern int outside(int);
static int count;
int limit = 3;
int adds(int n)
{
	count += n;
	return outside(n) + 1;
}
int plain(int n)
{
	return outside(n * 2);
}
int gone(int n)
{
	return outside(n + limit);
}
";

/// A changed function, changed data, a new function and a removed one.
fn builds() -> Place {
    let place = Place::new();
    let (kept, _) = SOURCE.split_once("int gone").expect("a function");
    let patched = kept.replace("+ 1", "+ 2").replace("limit = 3", "limit = 4");
    for (name, source) in [
        ("original", SOURCE.to_owned()),
        ("patched", patched + "int fresh(int n)\n{\n\treturn outside(n - limit);\n}\n"),
    ] {
        // Both builds have the same file name.
        place.write("unit.c", source);
        place.compile("unit.c", &format!("{name}.o"));
    }
    place
}

#[test]
fn a_change_set() {
    let place = builds();
    let objects = ["diff", "original.o", "patched.o"];
    place.check("diff.txt", &objects);
    place.check("diff-verbose.txt", &[&objects[..], &["--verbose"]].concat());
    place.check_json("diff.json", &[&objects[..], &["--json"]].concat());
    place.check("diff-same.txt", &["diff", "original.o", "original.o"]);
}

#[test]
fn a_livepatch() {
    let text = |number: u32| {
        format!(
            "extern int outside(int); static int count;
             int adds(int n) {{ count += n; return outside(n) + {number}; }}"
        )
    };
    let place = Place::new();
    let kernel = Kernel { exports: vec!["__fentry__"], defined: vec!["outside"], ..Kernel::default() };
    place.write("livepatch.ko", Builds::new(&text(1), &text(2)).module("vmlinux", &kernel));
    place.check("inspect.txt", &["inspect", "livepatch.ko"]);
    place.check_json("inspect.json", &["inspect", "livepatch.ko", "--json"]);
}

#[test]
fn refusals() {
    let place = builds();
    place.check("refusal-function.txt", &["diff", "original.o", "patched.o", "--explain", "add"]);
    place.check("refusal-variable.txt", &["build", "--make", "ARCH=arm64", "fix.patch"]);
    place.write("text.o", "no object\n");
    place.check("refusal-file.txt", &["inspect", "text.o"]);
    let kernel = ["--kernel", "6.99.0-none", "--sysroot", "."];
    place.write("fix.patch", "--- a/a.c\n+++ b/a.c\n@@ -1 +1 @@\n-int a;\n+int b;\n");
    place.klpx(&[&["build", "fix.patch", "--report", "report.json"][..], &kernel].concat());
    // The stages of a report have times.
    let report = std::fs::read(place.path("report.json")).expect("a report");
    let report: Value = serde_json::from_slice(&report).expect("JSON");
    place.snapshots.check("refusal-kernel.json", &format!("{:#}\n", report["errors"]));
}
