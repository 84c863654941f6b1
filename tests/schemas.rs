//! What klpx prints and writes for programs fits the schemas that it publishes. `cargo xtask test` holds each report of a
//! build against its schema too.

use std::path::Path;
use std::process::{Command, Output};

use klpx_testkit::{command, run};
use serde_json::{Value, json};

/// Those of klpx-host's commands are held against output by the tests of crates/host.
const NAMES: [&str; 16] = [
    "report",
    "progress",
    "doctor",
    "diff",
    "inspect",
    "test",
    "package",
    "normalize",
    "inline-check",
    "load",
    "unload",
    "status",
    "check",
    "list",
    "install",
    "uninstall",
];

fn klpx(folder: &Path, args: &[&str]) -> Output {
    let mut klpx = Command::new(env!("CARGO_BIN_EXE_klpx"));
    klpx.args(args)
        .current_dir(folder)
        .env("KLPX_CACHE_DIR", folder.join("cache"))
        .output()
        .expect("klpx runs")
}

fn schema(name: &str) -> jsonschema::Validator {
    let output = klpx(Path::new("."), &["schema", name]);
    let schema: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(jsonschema::meta::is_valid(&schema), "{name}");
    jsonschema::validator_for(&schema).expect("a schema")
}

#[track_caller]
fn fits(name: &str, value: &Value) {
    let schema = schema(name);
    let errors: Vec<String> =
        schema.iter_errors(value).map(|error| format!("{} at {}", error, error.instance_path())).collect();
    assert!(errors.is_empty(), "{name}: {errors:#?}\n{value:#}");
}

const SOURCE: &str = "\
extern int outside(int);
static int count;
static __attribute__((noinline)) int twice(int n)
{
	return outside(n) * 2;
}
static inline int both(int n)
{
	return outside(n) + 3;
}
int (*taken(void))(int)
{
	return both;
}
int adds(int n)
{
	count += both(n);
	return twice(n) + 1;
}
";

/// A folder with two builds of a file.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, source) in
        [("a", SOURCE.to_owned()), ("b", SOURCE.replace("+ 1", "+ 2").replace("* 2", "* 5"))]
    {
        let unit = format!("{name}.c");
        std::fs::write(folder.path().join(&unit), source).expect("the source");
        let flags = ["-g", "-O2", "-c", "-ffunction-sections", "-fdata-sections", "-fno-pic"];
        run(command("gcc").current_dir(folder.path()).args(flags).args([&unit, "-o", &format!("{name}.o")]));
    }
    folder
}

#[test]
fn every_schema_is_listed_and_has_its_version() {
    let list = klpx(Path::new("."), &["schema"]).stdout;
    let list = String::from_utf8(list).expect("text");
    for name in NAMES {
        assert!(
            list.lines().any(|line| line.trim_start().starts_with(&format!("{name} "))),
            "{name}\n{list}"
        );
        let _ = schema(name);
    }
    assert_eq!(list.lines().count(), NAMES.len() + 1, "{list}");
}

#[test]
fn what_is_no_output_of_klpx_does_not_fit() {
    for name in NAMES {
        for value in [json!({}), json!({"schema": 0}), json!([]), json!({"event": "other"})] {
            assert!(!schema(name).is_valid(&value), "{name}: {value}");
        }
    }
}

#[test]
fn what_is_printed_of_objects_fits() {
    let folder = folder();
    for (name, args) in [
        ("diff", &["diff", "a.o", "b.o", "--json"][..]),
        ("normalize", &["normalize", "a.o", "--json"]),
        ("inspect", &["inspect", "a.o", "--json"]),
        ("inline-check", &["inline-check", "a.o", "--json"]),
        ("inline-check", &["inline-check", "a.o", "--function", "both", "--json"]),
        ("inline-check", &["inline-check", "--compare", "a.o", "b.o", "--json"]),
        ("doctor", &["doctor", "--kernel", "6.99.0-none", "--sysroot", ".", "--json"]),
    ] {
        let output = klpx(folder.path(), args);
        let value = serde_json::from_slice(&output.stdout);
        let value = value.unwrap_or_else(|error| panic!("{args:?}: {error}: {output:?}"));
        fits(name, &value);
    }
}

#[test]
fn the_report_and_the_events_of_a_build_that_fails_fit() {
    let folder = folder();
    let patch = "--- a/a.c\n+++ b/a.c\n@@ -1 +1 @@\n-int a;\n+int b;\n";
    std::fs::write(folder.path().join("fix.patch"), patch).expect("a patch");
    let kernel = ["--kernel", "6.99.0-none", "--sysroot", "."];
    let args =
        [&["build", "fix.patch", "--report", "report.json", "--progress", "json"][..], &kernel].concat();
    let output = klpx(folder.path(), &args);
    assert!(!output.status.success());
    let report = std::fs::read(folder.path().join("report.json")).expect("the report");
    let report: Value = serde_json::from_slice(&report).expect("JSON");
    assert!(!report["errors"].as_array().expect("errors").is_empty(), "{report:#}");
    fits("report", &report);
    let events: Vec<Value> = String::from_utf8(output.stderr)
        .expect("text")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    assert_eq!(events[0], json!({"event": "begin", "stage": "preflight"}));
    assert!(events.iter().any(|event| event["event"] == "error"), "{events:#?}");
    for event in &events {
        fits("progress", event);
    }
}
