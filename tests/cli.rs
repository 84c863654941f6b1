//! The built `klpx` on small files: output, JSON, exit codes, and that no input makes it panic.

use std::path::PathBuf;
use std::process::{Command, Output};

use klpx_testkit::{command, run};
use serde_json::Value;

fn klpx(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_klpx")).args(args).output().expect("klpx runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

const SOURCE: &str = "\
extern int outside(int);
static int count;
int adds(int n)
{
	count += n;
	return outside(n) + 1;
}
int plain(int n)
{
	return outside(n * 2);
}
";

/// Two builds of a file; the second one has `+ 2`.
struct Pair {
    dir: tempfile::TempDir,
}

impl Pair {
    fn build() -> Pair {
        Pair::build_with("gcc")
    }

    fn build_with(compiler: &str) -> Pair {
        let pair = Pair { dir: tempfile::tempdir().expect("a folder") };
        pair.compile(compiler, "orig", SOURCE);
        pair.compile(compiler, "patched", &SOURCE.replace("+ 1", "+ 2"));
        pair
    }

    fn compile(&self, compiler: &str, name: &str, source: &str) {
        let folder = self.dir.path().join(name);
        std::fs::create_dir(&folder).expect("a folder");
        std::fs::write(folder.join("unit.c"), source).expect("the source");
        let flags = ["-g", "-O2", "-c", "-ffunction-sections", "-fdata-sections", "-fno-pic", "unit.c", "-o"];
        run(command(compiler).current_dir(folder).args(flags).arg(self.object(name)));
    }

    fn object(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.o"))
    }

    fn diff(&self, more: &[&str]) -> Output {
        let (original, patched) = (self.object("orig"), self.object("patched"));
        let mut args = vec!["diff", original.to_str().expect("text"), patched.to_str().expect("text")];
        args.extend(more);
        klpx(&args)
    }
}

#[test]
fn diff_names_the_function_and_its_line() {
    let output = Pair::build().diff(&[]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.starts_with("2 functions: 1 changed, 0 new\n"), "{text}");
    assert!(text.contains("changed function  adds  code differs from /"), "{text}");
    assert!(text.contains("/patched/unit.c:6 on\n"), "{text}");
    assert!(!text.contains("plain"), "{text}");
    assert!(!text.contains('\x1b'), "no escape codes in a pipe");
}

#[test]
fn diff_prints_versioned_json() {
    let output = Pair::build().diff(&["--json"]);
    let json: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    assert_eq!(json["schema"], 1);
    let functions = json["functions"].as_array().expect("a list");
    assert_eq!(functions.len(), 1);
    assert_eq!(functions[0]["function"], "adds");
    assert_eq!(functions[0]["kind"], "changed");
    assert_eq!(functions[0]["line"], 6);
    assert_eq!(json["data"].as_array().map(Vec::len), Some(0));
}

#[test]
fn diff_says_by_which_evidence_items_were_matched() {
    let pair = Pair::build();
    let text = stdout(&pair.diff(&["--verbose"]));
    assert!(text.contains("\n  matched by     items\n  name           2\n  file-and-name  1\n"), "{text}");
    let json: Value = serde_json::from_str(&stdout(&pair.diff(&["--json"]))).expect("JSON");
    assert_eq!(json["unsettled"].as_array().map(Vec::len), Some(0));
    assert_eq!(json["matched"].as_array().map(Vec::len), Some(0), "names were enough");
}

/// Statics that GCC numbers, and one of the file that has the same name.
const NUMBERED: &str = "\
static int count;
int one(int n) { static int count; return count += n; }
int two(int n) { static int count; return count -= n; }
int three(int n) { static int own; return own += n + count++; }
";

#[test]
fn normalize_counts_suffixes_and_lists_what_is_not_unique() {
    let pair = Pair { dir: tempfile::tempdir().expect("a folder") };
    pair.compile("gcc", "unit", NUMBERED);
    let object = pair.object("unit");
    let object = object.to_str().expect("text");
    let output = klpx(&["normalize", object]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.starts_with("  symbols        7\n  with a suffix  1 of 3 unique without it\n"), "{text}");
    assert!(text.contains("\n  number  .N    3        LLVM and GCC"), "{text}");
    assert!(text.contains("\n  count       count    unit.c\n"), "{text}");
    assert_eq!(text.matches("  count.").count(), 2, "{text}");
    let json: Value = serde_json::from_str(&stdout(&klpx(&["normalize", "--json", object]))).expect("JSON");
    assert_eq!(json["schema"], 1);
    assert_eq!((&json["suffixed"]["symbols"], &json["suffixed"]["unique"]), (&3.into(), &1.into()));
    assert_eq!(json["promoted"]["symbols"], 0);
    assert_eq!(json["ambiguous"][0]["name"], "count");
    assert_eq!(json["ambiguous"][0]["symbols"].as_array().map(Vec::len), Some(3));
    assert_eq!(json["ambiguous"][0]["symbols"][0]["file"], "unit.c");
}

#[test]
fn explain_shows_both_instructions() {
    let pair = Pair::build();
    let text = stdout(&pair.diff(&["--explain", "adds"]));
    assert!(text.starts_with("adds: changed\n"), "{text}");
    assert!(text.contains("\noriginal  /") && text.contains("/orig/unit.c:6\n"), "{text}");
    assert!(text.contains("\npatched  /") && text.contains("/patched/unit.c:6\n"), "{text}");
    assert!(text.contains("$1") || text.contains("$0x1"), "the old constant: {text}");
    assert!(text.contains("$2") || text.contains("$0x2"), "the new constant: {text}");
    assert_eq!(stdout(&pair.diff(&["--explain", "plain"])), "plain: no difference\n");
    let unknown = pair.diff(&["--explain", "nothing"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(stderr(&unknown).contains("klpx::no-such-function"));
}

#[test]
fn explain_shows_instructions_of_arm64() {
    let pair = Pair::build_with("aarch64-linux-gnu-gcc");
    let text = stdout(&pair.diff(&["--explain", "adds"]));
    assert!(text.starts_with("adds: changed\n"), "{text}");
    let (original, patched) = text.split_once("\npatched").expect("two listings");
    assert!(original.contains("  add w0, w0, #0x1\n"), "{text}");
    assert!(patched.contains("  add w0, w0, #0x2\n"), "{text}");
}

#[test]
fn an_object_equals_itself() {
    let pair = Pair::build();
    let object = pair.object("orig");
    let object = object.to_str().expect("text");
    assert_eq!(stdout(&klpx(&["diff", object, object])), "no difference in 2 functions\n");
}

#[test]
fn unusable_files_are_refused_without_a_panic() {
    let pair = Pair::build();
    let good = std::fs::read(pair.object("orig")).expect("the object");
    let object = pair.object("orig");
    let object = object.to_str().expect("text");
    let bad = pair.dir.path().join("bad.o");
    let bad_name = bad.to_str().expect("text");
    let mut word = good.clone();
    word[60] = 0xff; // e_shnum
    let cases =
        [good[..good.len() / 2].to_vec(), Vec::new(), b"#!/bin/sh\n".to_vec(), vec![0x7f; 4096], word];
    for case in cases {
        std::fs::write(&bad, case).expect("the file");
        for args in [vec!["diff", object, bad_name], vec!["inspect", bad_name]] {
            let output = klpx(&args);
            assert_eq!(output.status.code(), Some(9), "{args:?}: {}", stderr(&output));
            assert!(
                stderr(&output).contains("error: ") && stderr(&output).contains("[klpx::"),
                "{}",
                stderr(&output)
            );
        }
    }
    let missing = klpx(&["diff", object, "no-such-file.o"]);
    assert_eq!(missing.status.code(), Some(8));
    assert!(stderr(&missing).contains("no-such-file.o"));
}

#[test]
fn usage_errors_exit_with_2() {
    for args in [&["build"][..], &["frob"], &["diff", "one"], &["build", "--jobs", "0", "x.patch"]] {
        assert_eq!(klpx(args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn variables_of_make_are_checked_before_anything_is_read() {
    for (variable, status, code) in [
        ("ARCH=arm64", 2, "klpx::make-variable"),
        ("KCFLAGS=$(id)", 2, "klpx::make-variable"),
        ("CLANG_AUTOFDO_PROFILE=/nonexistent/kernel.afdo", 9, "klpx::make-file"),
    ] {
        let output = klpx(&["build", "--make", variable, "/nonexistent/fix.patch"]);
        assert_eq!(output.status.code(), Some(status), "{variable}");
        assert!(stderr(&output).contains(code), "{}", stderr(&output));
    }
}

/// A function that is inlined at two places and kept out of line for a third, and what is around it.
const INLINING: &str = "\
int outside(int);
static inline __attribute__((always_inline)) int forced(int n) { return outside(n) * 3; }
static int scale(int n)
{
	return forced(n + 1) + 5;
}
int (*kept)(int) = scale;
int first(int n) { return scale(n) - 1; }
int second(int n) { return first(n) ^ scale(n + 2); }
int alone(int n) { return outside(n) - 2; }
";

/// The object of [`INLINING`], or of a change of it.
fn inlining(source: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("unit.c"), source).expect("the source");
    run(command("gcc").current_dir(dir.path()).args(["-g", "-O2", "-fno-ipa-icf", "-c", "unit.c"]));
    let object = dir.path().join("unit.o").to_str().expect("text").to_owned();
    (dir, object)
}

#[test]
fn inline_check_counts_what_is_out_of_line_and_inlined() {
    let (_dir, object) = inlining(INLINING);
    let output = klpx(&["inline-check", &object]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.contains(" · gcc "), "{text}");
    assert!(text.contains("  functions           out of line  half-inlined"), "{text}");
    let row = |name: &str| {
        let line = text.lines().find(|line| line.trim_start().starts_with(name)).expect("a row");
        line.trim_start()[name.len()..].split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(row("static "), ["1", "1", "0", "3", "0"], "{text}");
    assert_eq!(row("global"), ["3", "1", "0", "1", "0"], "{text}");
    assert!(text.contains("only inlined: 1 function, 1 of them declared inline"), "{text}");
}

#[test]
fn inline_check_says_what_a_probe_misses_and_a_patch_needs() {
    let (_dir, object) = inlining(INLINING);
    let text = stdout(&klpx(&["inline-check", &object, "--function", "scale"]));
    assert!(text.contains("  scale  unit.c:3 · static · half-inlined"), "{text}");
    assert!(text.contains("unit.c:8"), "{text}");
    assert!(text.contains("first at unit.c:9"), "the way of a nested copy: {text}");
    assert!(
        text.contains(
            "a probe on scale misses the calls from first, second (2 call sites, 3 inlined copies)"
        ),
        "{text}"
    );
    assert!(text.contains("patching scale needs 3 functions replaced: first, scale, second"), "{text}");
    assert!(text.contains("ftrace does not reach scale"), "{text}");
    let text = stdout(&klpx(&["inline-check", &object, "--function", "alone"]));
    assert!(text.contains("a probe on alone sees every call"), "{text}");
    assert!(text.contains("patching alone replaces alone"), "{text}");
    let text = stdout(&klpx(&["inline-check", &object, "--function", "forced"]));
    assert!(text.contains("forced has no address of its own"), "{text}");
    let output = klpx(&["inline-check", &object, "--function", "missing"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("[klpx::no-such-function]"), "{}", stderr(&output));
}

#[test]
fn inline_check_lists_for_people_spreadsheets_and_machines() {
    let (dir, object) = inlining(INLINING);
    let list = stdout(&klpx(&["inline-check", &object, "--list"]));
    let first: Vec<&str> = list.lines().nth(1).expect("a row").split_whitespace().collect();
    assert_eq!(first, ["scale", "unit.c:3", "static", "2", "3", "0", "1", "no"], "{list}");
    let csv = stdout(&klpx(&["inline-check", &object, "--csv"]));
    assert_eq!(csv.lines().nth(1), Some("scale,unit.c,3,static,2,3,0,2,1,no"), "{csv}");
    let json: Value =
        serde_json::from_str(&stdout(&klpx(&["inline-check", &object, "--json"]))).expect("JSON");
    assert_eq!(json["schema"], 1);
    assert_eq!(json["summary"]["all"]["half_inlined"], 2);
    assert_eq!(json["half_inlined"][0]["function"], "scale");
    assert_eq!(json["half_inlined"][0]["inlined"].as_array().map(Vec::len), Some(3));
    let page = dir.path().join("page.html");
    let page_name = page.to_str().expect("text");
    assert!(klpx(&["inline-check", &object, "--html", page_name]).status.success());
    let html = std::fs::read_to_string(page).expect("the page");
    assert!(html.contains("\"scale\"") && !html.contains("\"DATA\""), "the data is in the page");
}

/// Linux 7.2 for x86_64 with kexec links relocate_kernel into `.data`, which is then executable as a whole.
#[test]
fn inline_check_does_not_count_data_beside_code_as_code() {
    let beside = "asm(\".pushsection .data.relocate_kernel,\\\"awx\\\"\\n.skip 4096\\n.popsection\");\n";
    let bytes = |source: &str| {
        let (_dir, object) = inlining(source);
        let json: Value =
            serde_json::from_str(&stdout(&klpx(&["inline-check", &object, "--json"]))).expect("JSON");
        json["file"]["code_bytes"].as_u64().expect("bytes of code")
    };
    assert_eq!(bytes(INLINING), bytes(&[INLINING, beside].concat()));
}

#[test]
fn inspect_makes_a_page_of_a_module() {
    let pair = Pair::build();
    let (module, page) = (pair.object("patched"), pair.dir.path().join("page.html"));
    let names = [&module, &page].map(|path| path.to_str().expect("text").to_owned());
    let output = klpx(&["inspect", &names[0], "--page", &names[1]]);
    assert!(output.status.success(), "{}", stderr(&output));
    let html = std::fs::read_to_string(&page).expect("the page");
    for text in
        ["<code>adds</code>", "→ outside", "the export <code>outside</code>", "What a module does not say"]
    {
        assert!(html.contains(text), "{text}: {html}");
    }
    assert!(!html.contains("<script"));
    let over = klpx(&["inspect", &names[0], "--page", &names[0]]);
    assert_eq!(over.status.code(), Some(2), "{}", stderr(&over));
}

#[test]
fn inline_check_compares_two_files() {
    let (_a, before) =
        inlining(&INLINING.replace("static int scale", "static __attribute__((noinline)) int scale"));
    let (_b, after) = inlining(INLINING);
    let text = stdout(&klpx(&["inline-check", "--compare", &before, &after]));
    assert!(text.contains("became half-inlined: 1 function"), "{text}");
    assert!(!text.contains("no longer half-inlined"), "{text}");
    let text = stdout(&klpx(&["inline-check", "--compare", &after, &before]));
    assert!(text.contains("no longer half-inlined: 1 function"), "{text}");
    let json = stdout(&klpx(&["inline-check", "--json", "--compare", &before, &after]));
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["changes"][0]["function"], "scale");
    assert_eq!(json["changes"][0]["before"], "out of line");
    assert_eq!(json["changes"][0]["after"], "half-inlined");
}

/// A signature goes behind the contents, with `struct module_signature` and the kernel's mark (scripts/sign-file.c).
#[test]
fn a_detached_signature_is_put_behind_a_module_once() {
    let pair = Pair::build();
    let module = pair.object("orig");
    let unsigned = std::fs::read(&module).expect("the object");
    let file = |name: &str, bytes: &[u8]| {
        let path = pair.dir.path().join(name);
        std::fs::write(&path, bytes).expect("a file");
        path
    };
    let sign = |signature: &std::path::Path| {
        let [module, signature] = [module.to_str(), signature.to_str()].map(|path| path.expect("text"));
        klpx(&["sign", module, "--signature", signature])
    };
    let text = sign(&file("text.sig", b"-----BEGIN PKCS7-----"));
    assert!(stderr(&text).contains("klpx::bad-signature"), "{}", stderr(&text));
    assert_eq!(std::fs::read(&module).expect("the object"), unsigned, "nothing is written");

    let openssl = |args: &[&str]| {
        run(command("openssl").args(args).current_dir(pair.dir.path()));
    };
    for (key, certificate) in [("key", "cert"), ("key-2", "cert-2")] {
        let new = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=klpx test"];
        openssl(&[&new[..], &["-keyout", key, "-out", certificate]].concat());
    }
    let how = ["cms", "-sign", "-binary", "-noattr", "-nocerts", "-outform", "DER", "-md", "sha512"];
    let of =
        ["-signer", "cert", "-inkey", "key", "-in", module.to_str().expect("text"), "-out", "message.sig"];
    openssl(&[&how[..], &of].concat());
    let signature = pair.dir.path().join("message.sig");
    let message = std::fs::read(&signature).expect("the signature");
    assert!(sign(&signature).status.success());
    let size = u32::try_from(message.len()).expect("a small one").to_be_bytes();
    let header = [&[0, 0, 2, 0, 0, 0, 0, 0][..], &size].concat();
    let expected = [&unsigned[..], &message, &header, b"~Module signature appended~\n"].concat();
    assert_eq!(std::fs::read(&module).expect("the object"), expected);

    let path = module.to_str().expect("text");
    let inspect = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_klpx"));
        let command = command.args(["inspect", path]).args(more).current_dir(pair.dir.path());
        command.output().expect("klpx runs")
    };
    let unchecked = inspect(&[]);
    assert!(unchecked.status.success());
    assert!(stdout(&unchecked).contains("signer     CN=klpx test"), "{}", stdout(&unchecked));
    assert!(stdout(&unchecked).contains("with sha512, not checked"), "{}", stdout(&unchecked));
    let right = inspect(&["--cert", "cert", "--json"]);
    assert!(
        right.status.success() && stdout(&right).contains("\"verdict\": \"right\""),
        "{}",
        stdout(&right)
    );
    let other = inspect(&["--cert", "cert-2"]);
    assert!(stderr(&other).contains("the signature is another's [klpx::signature]"), "{}", stderr(&other));
    let mut changed = expected.clone();
    changed[9] ^= 1;
    std::fs::write(&module, &changed).expect("the object");
    let wrong = inspect(&["--cert", "cert"]);
    assert_eq!(wrong.status.code(), Some(7), "{}", stderr(&wrong));
    assert!(stderr(&wrong).contains("the signature is wrong [klpx::signature]"), "{}", stderr(&wrong));
    std::fs::write(&module, &unsigned).expect("the object");
    let none = inspect(&["--cert", "cert"]);
    assert!(stderr(&none).contains("the module has no signature [klpx::signature]"), "{}", stderr(&none));
    std::fs::write(&module, &expected).expect("the object");
    let again = sign(&signature);
    assert!(stderr(&again).contains("klpx::signed-already"), "{}", stderr(&again));
}

#[test]
fn the_cache_is_listed_and_pruned() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().to_str().expect("text");
    let listed = klpx(&["cache", "list", "--cache-dir", path]);
    assert_eq!(stdout(&listed), format!("nothing in {path}\n"));
    let kernel = dir.path().join("kernels/0123456789ab");
    let prune = |options: &[&str], removed: &str| {
        std::fs::create_dir_all(&kernel).expect("a kernel's folder");
        let output = stdout(&klpx(&[&["cache", "prune", "--cache-dir", path], options].concat()));
        let free = output.strip_prefix(&format!("removed {removed}, 0.0 GB · ")).expect(&output);
        let free = free.strip_suffix(" GB are free\n").expect(&output);
        assert!(free.parse::<f64>().expect("a number") > 0.0);
    };
    prune(&["--days", "0"], "1 kernel");
    prune(&["--free", "0"], "0 kernels");
    assert!(kernel.is_dir());
    // No file system has that much.
    prune(&["--free", "4000000000"], "1 kernel");
    assert!(!kernel.exists());
}

#[test]
fn man_pages_and_completions_come_from_the_command_line() {
    let dir = tempfile::tempdir().expect("a folder");
    assert!(klpx(&["man", dir.path().to_str().expect("text")]).status.success());
    for page in [
        "klpx.1",
        "klpx-build.1",
        "klpx-diff.1",
        "klpx-inspect.1",
        "klpx-inline-check.1",
        "klpx-cache-list.1",
    ] {
        assert!(dir.path().join(page).is_file(), "{page}");
    }
    assert!(stdout(&klpx(&["man"])).contains(".TH klpx 1"));
    for shell in ["bash", "zsh", "fish"] {
        assert!(stdout(&klpx(&["completions", shell])).contains("keep-work"), "{shell}");
    }
}

#[test]
fn every_exit_code_is_in_the_help() {
    let help = stdout(&klpx(&["--help"]));
    for code in [0, 2, 3, 4, 5, 6, 7, 8, 9, 70, 130] {
        assert!(help.contains(&format!("\n{code:>5}  ")), "{code} in {help}");
    }
}

#[test]
fn what_is_no_livepatch_is_not_packaged() {
    let pair = Pair::build();
    let object = pair.object("orig");
    let package = |more: &[&str]| {
        let folder = pair.dir.path().to_str().expect("text");
        klpx(
            &[&["package", object.to_str().expect("text"), "--format", "deb", "--output", folder], more]
                .concat(),
        )
    };
    let maintainer = ["--maintainer", "Kernel Team <kernel@example.org>"];
    let output = package(&maintainer);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("why    it is no livepatch"), "{}", stderr(&output));
    let nobody = package(&["--maintainer", "nobody"]);
    assert_eq!(nobody.status.code(), Some(2));
    assert!(
        std::fs::read_dir(pair.dir.path())
            .expect("the folder")
            .flatten()
            .all(|entry| { entry.path().extension().is_none_or(|ending| ending != "deb") })
    );
}
