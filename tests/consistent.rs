//! `klpx inline-check --consistent` on a kernel of a few files: builds with its lists until nothing is half-inlined.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use klpx_testkit::{command, need, said};
use serde_json::Value;

/// A Makefile that compiles as kbuild does: commands and the files that a unit depends on are known to make.
const MAKEFILE: &str = r#"VERSION = 7
PATCHLEVEL = 2
SUBLEVEL = 0
EXTRAVERSION =
S := $(dir $(abspath $(lastword $(MAKEFILE_LIST))))
CC := COMPILER
units := fs/one.o fs/two.o fs/made.o
all: $(O)/vmlinux $(O)/fs/mod.ko
olddefconfig:
	@mkdir -p $(O)/include/config $(O)/fs; touch $(O)/include/config/auto.conf
	@echo fs/mod.o >$(O)/modules.order
	@cmp -s $(S)fs/made.template $(O)/fs/made.c || cp $(S)fs/made.template $(O)/fs/made.c
compile = $(CC) FLAGS -I$(S)include -include $(S)include/first.h -Wp,-MMD,fs/$(1).d -c -o fs/$(1).o $(2)
# As scripts/basic/fixdep does: the object's own name, and all that it depends on.
define unit
	@echo '  CC      $(1)'
	@cd $(O) && $(call compile,$(1),$(2)) && sed 's|^[^:]*:|$(O)/fs/$(1).o:|; s| fs/| $(O)/fs/|' fs/$(1).d >fs/$(1).dep
endef
$(O)/fs/made.o: $(O)/fs/made.c
	$(call unit,made,fs/made.c)
$(O)/fs/%.o: $(S)fs/%.c
	$(call unit,$*,$(S)fs/$*.c)
$(O)/vmlinux: $(addprefix $(O)/,$(units))
	@cd $(O) && LINKER -r -o vmlinux $(units)
$(O)/fs/mod.ko: $(O)/fs/mod.o
	@LINKER -r -o $@ $<
-include $(wildcard $(O)/fs/*.dep)
"#;

const FILES: &[(&str, &str)] = &[
    ("Kconfig", ""),
    ("scripts/Kbuild.include", ""),
    ("init/main.c", ""),
    ("include/linux/kernel.h", ""),
    // As include/linux/compiler_types.h does.
    ("include/first.h", "#define FIRST 1\n#define inline inline __attribute__((__gnu_inline__))\n"),
    (
        "include/shared.h",
        "int outside(int x);\nint fs_global(int x);\n\
         static inline int in_header(int x) { int r = 0; for (int i = 0; i < x; i++) r += i * x; return r; }\n\
         static inline int tiny(int x) { return x * 3 + 1; }\n\
         static inline __attribute__((always_inline)) int forced(int x) { return x * 5 + 1; }\n",
    ),
    (
        "fs/one.c",
        "#include \"shared.h\"\n\
         #define fs_kept(x) fs_kept(x)\n\
         static int fs_kept(int x) { return outside(x) + 7; }\n\
         int (*kept)(int) = fs_kept;\nint (*kept_header)(int) = in_header;\nint (*kept_tiny)(int) = tiny;\n\
         int (*kept_forced)(int) = forced;\n\
         static int quiet(int x) { return x * 7 + 2; }\nint (*kept_quiet)(int) = quiet;\n\
         __attribute__((section(\".noinstr.text\"))) int guarded(int x) { return quiet(x) + outside(x); }\n\
         int fs_global(int x) { return outside(x * 2) + FIRST; }\n\
         int calls_one(int x) { return fs_kept(x) + fs_global(x) + in_header(x) + tiny(x) + forced(x); }\n",
    ),
    (
        "fs/two.c",
        "#include \"shared.h\"\n\
         int calls_two(int x) { return fs_global(x) + in_header(x + 1) + tiny(outside(x)) + forced(x); }\n\
         int absorbed(int x) { return outside(x) + 11; }\n\
         __attribute__((__flatten__)) int absorbs(int x) { return absorbed(x); }\n",
    ),
    (
        "fs/mod.c",
        "#include \"shared.h\"\n\
         static int in_module(int x) { return outside(x) + 9; }\nint (*kept_in_module)(int) = in_module;\n\
         int (*forced_in_module)(int) = forced;\nint calls_module(int x) { return in_module(x) + forced(x); }\n",
    ),
    (
        "fs/made.template",
        "extern int outside(int);\nstatic int made(int x) { return outside(x) - 1; }\nint (*kept_made)(int) = made;\n\
         int calls_made(int x) { return made(x); }\n",
    ),
];

/// The compilers that the toy is built with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tools {
    Clang(&'static str),
    Gcc,
}

impl Tools {
    fn compiler(self) -> String {
        match self {
            Tools::Clang(suffix) => format!("clang{suffix}"),
            Tools::Gcc => "gcc".to_owned(),
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

struct Toy {
    root: tempfile::TempDir,
    tools: Tools,
}

impl Toy {
    /// The source, and a plain build of it in `plain`.
    fn new(tools: Tools) -> Toy {
        let toy = Toy { root: tempfile::tempdir().expect("a folder"), tools };
        let (flags, linker) = match tools {
            Tools::Clang(suffix) => {
                ("-O2 -g -flto=thin --target=x86_64-linux-gnu", format!("ld.lld{suffix}"))
            }
            Tools::Gcc => ("-O2 -g -Wall -Wextra -Werror", "ld".to_owned()),
        };
        let makefile = MAKEFILE
            .replace("COMPILER", &tools.compiler())
            .replace("FLAGS", flags)
            .replace("LINKER", &linker);
        toy.write("linux/Makefile", &makefile);
        for (path, text) in FILES {
            toy.write(&format!("linux/{path}"), text);
        }
        need(&linker);
        let version = said(command(&tools.compiler()).arg("--version"));
        let kind = match tools {
            Tools::Clang(_) => "CONFIG_CC_IS_CLANG=y\nCONFIG_LD_IS_LLD=y",
            Tools::Gcc => "CONFIG_CC_IS_GCC=y",
        };
        let version = version.lines().next().expect("a line");
        toy.write(
            "plain/.config",
            &format!("CONFIG_X86_64=y\n{kind}\nCONFIG_CC_VERSION_TEXT=\"{version}\"\n"),
        );
        for target in ["olddefconfig", "all"] {
            said(
                command("make")
                    .arg("-C")
                    .arg(toy.path("linux"))
                    .args([format!("O={}", toy.path("plain").display()), target.to_owned()]),
            );
        }
        toy
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("mkdir");
        std::fs::write(path, text).expect("a file");
    }

    fn klpx(&self, build: &str, options: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_klpx"));
        command.args(["inline-check", "--consistent", "--json", "--build-dir"]).arg(self.path(build));
        command.arg("--source").arg(self.path("linux")).arg("--output").arg(self.path("lists"));
        if let Tools::Clang(suffix) = self.tools {
            command.arg(format!("--llvm={suffix}"));
        }
        command.args(options).output().expect("klpx runs")
    }

    fn check(&self, build: &str, options: &[&str]) -> Value {
        let done = self.klpx(build, options);
        assert!(done.status.success(), "{}", text(&done.stderr));
        serde_json::from_slice(&done.stdout).expect("JSON")
    }

    /// Does what klpx says is to be typed, up to the next look. The units that were compiled.
    fn build(&self, last: &Value) -> Vec<String> {
        let commands = last["commands"].as_array().expect("commands");
        let (_, build) = commands.split_last().expect("commands");
        let mut units = Vec::new();
        for line in build {
            let printed = said(command("sh").arg("-c").arg(line.as_str().expect("text")));
            units.extend(
                printed.lines().filter_map(|line| line.strip_prefix("  CC      ")).map(str::to_owned),
            );
        }
        units
    }

    /// Builds and looks until klpx says that it is done; what it said at each look.
    fn settle(&self, options: &[&str]) -> Vec<Value> {
        let mut reports = vec![self.check("plain", options)];
        while reports.last().is_some_and(|last| last["done"] != true) {
            assert!(reports.len() < 6, "it does not end: {reports:#?}");
            let units = self.build(&reports[reports.len() - 1]).len() as u64;
            let changed = if reports.len() == 1 {
                4
            } else {
                reports[reports.len() - 1]["changed_units"].as_u64().expect("n")
            };
            assert_eq!(units, changed, "units are compiled again when their list changed, and only then");
            reports.push(self.check("lists/build", options));
        }
        reports
    }

    fn list(&self, unit: &str) -> String {
        std::fs::read_to_string(self.path(&format!("lists/units/{unit}.inl"))).expect("a list")
    }
}

fn half_inlined(report: &Value) -> Vec<u64> {
    let builds = report["builds"].as_array().expect("builds");
    builds.iter().map(|build| build["half_inlined"].as_u64().expect("a number")).collect()
}

fn settles(tools: Tools) {
    let toy = Toy::new(tools);
    let report = toy.settle(&[]);
    let last = &report[report.len() - 1];
    let counts = half_inlined(last);
    // The header's tiny function was to be inlined everywhere, until the second build showed that its address is taken.
    assert!(counts[0] >= 6, "{last:#}");
    // Clang lets flatten win.
    let flat = tools != Tools::Gcc;
    assert_eq!((counts.len(), counts[counts.len() - 1]), (3, 3 + u64::from(flat)), "{last:#}");
    let explained = last["explained"].as_array().expect("a list").iter();
    let left: Vec<[&str; 3]> = explained
        .map(|left| ["function", "why", "module"].map(|what| left[what].as_str().unwrap_or_default()))
        .collect();
    let mut expected = vec![
        ["quiet", "inlined into .noinstr.text, which may call nothing that is traced", ""],
        ["forced", "always_inline in the source", ""],
        ["forced", "always_inline in the source", "fs/mod.ko"],
    ];
    if flat {
        expected.insert(1, ["absorbed", "inlined into absorbs, which says flatten", ""]);
    }
    assert_eq!(left, expected);
    assert_eq!((&last["modules"], &last["missing_modules"]), (&1.into(), &0.into()));
    assert!(toy.list("fs/mod.c").contains("in_module"), "a module's unit has a list");
    assert_eq!(last["unexplained"].as_array().map(Vec::len), Some(0));
    assert!(toy.list("fs/made.c").contains("made"), "a generated file has a list");
    // Another look changes nothing.
    let again = toy.check("lists/build", &[]);
    assert_eq!(again["changed_units"], 0);
    assert_eq!(&again["builds"], &last["builds"]);
    // What a person reads.
    let output = Command::new(env!("CARGO_BIN_EXE_klpx"))
        .args(["inline-check", "--consistent", "-b"])
        .arg(toy.path("lists/build"))
        .arg("--source")
        .arg(toy.path("linux"))
        .arg("--output")
        .arg(toy.path("lists"))
        .args(match tools {
            Tools::Clang(suffix) => Some(format!("--llvm={suffix}")),
            Tools::Gcc => None,
        })
        .output()
        .expect("klpx runs");
    let shown = text(&output.stdout);
    assert!(shown.contains("done: nothing is left to choose"), "{shown}");
    assert!(shown.contains("always_inline in the source"), "{shown}");
    assert!(shown.contains("with 1 module\n") && shown.contains("(in fs/mod.ko)"), "{shown}");
    // A module that was not built is said.
    std::fs::remove_file(toy.path("lists/build/fs/mod.ko")).expect("a module");
    assert_eq!(toy.check("lists/build", &[])["missing_modules"], 1);
}

#[test]
fn clang_22_with_thin_lto_comes_to_an_end_without_half_inlined_functions() {
    settles(Tools::Clang("-22"));
}

#[test]
fn clang_16_with_thin_lto_comes_to_an_end_without_half_inlined_functions() {
    settles(Tools::Clang("-16"));
}

#[test]
fn gcc_comes_to_an_end_without_half_inlined_functions() {
    settles(Tools::Gcc);
}

#[test]
fn only_the_functions_that_were_asked_for_have_lists() {
    let toy = Toy::new(Tools::Clang("-22"));
    toy.write("traced", "# mine\nfs_global\n");
    let traced = toy.path("traced");
    let report = toy.settle(&["--only", traced.to_str().expect("text"), "--only", "mad?"]);
    let last = &report[report.len() - 1];
    assert_eq!(last["never_inlined"], 2);
    assert_eq!(toy.list("fs/two.c"), "");
    assert_eq!(toy.list("fs/one.c"), "-mllvm -force-attribute=fs_global:noinline\n");
    assert_eq!(last["not_wanted"], 8, "{last:#}");
    assert_eq!(last["explained"].as_array().map(Vec::len), Some(0));
}

#[test]
fn a_budget_takes_what_saves_code_and_as_much_more_as_it_allows() {
    let toy = Toy::new(Tools::Clang("-22"));
    let none = toy.check("plain", &["--budget", "0"]);
    let over = none["over_budget"].as_u64().expect("a number");
    assert!(over > 0, "{none:#}");
    assert!(none["estimated_bytes"].as_i64().expect("a number") <= 0, "{none:#}");
    let more = toy.check("plain", &["--budget", "100000"]);
    assert_eq!(more["over_budget"], 0);
    let taken = |report: &Value| {
        report["never_inlined"].as_u64().expect("n") + report["inlined_everywhere"].as_u64().expect("n")
    };
    assert_eq!(taken(&more), taken(&none) + over);
}

#[test]
fn hot_functions_are_left_to_the_compiler_and_named() {
    let toy = Toy::new(Tools::Clang("-22"));
    let first = toy.check("plain", &[]);
    assert!(toy.list("fs/one.c").contains("fs_kept:") && toy.list("fs/one.c").contains("fs_global:"));
    assert_eq!(first["freed"], 0);
    // A choice that was made before goes; another build is to come.
    toy.write("profile", "# Overhead  Symbol\n  9.10%  loops  [kernel.kallsyms]  [k] fs_kept\n");
    let profile = toy.path("profile").display().to_string();
    let freed = toy.check("plain", &["--hot", &profile]);
    assert_eq!((&freed["freed"], &freed["done"]), (&1.into(), &false.into()));
    assert!(!toy.list("fs/one.c").contains("fs_kept:") && toy.list("fs/one.c").contains("fs_global:"));
    let report = toy.settle(&["--hot", &profile]);
    let last = &report[report.len() - 1];
    let explained = last["explained"].as_array().expect("a list").iter();
    let hot: Vec<&Value> =
        explained.filter(|left| left["why"].as_str().is_some_and(|why| why.contains("--hot"))).collect();
    assert_eq!(hot.len(), 1, "{last:#}");
    assert_eq!(hot[0]["function"], "fs_kept");
    assert!(!toy.list("fs/one.c").contains("fs_kept:"));
    toy.write("profile", "not a profile\n");
    let refused = toy.klpx("plain", &["--hot", &profile]);
    assert!(text(&refused.stderr).contains("[klpx::bad-profile]"));
}

fn wrapper(toy: &Toy, words: &[&str], folder: &Path) -> Output {
    Command::new(toy.path("lists/cc")).current_dir(folder).args(words).output().expect("the wrapper runs")
}

#[test]
fn what_is_no_unit_goes_to_the_compiler_as_it_is() {
    for tools in [Tools::Clang("-22"), Tools::Gcc] {
        let toy = Toy::new(tools);
        toy.check("plain", &[]);
        toy.write("host/hello.c", "int main(void) { return 0; }\n");
        toy.write("host/code.S", ".globl f\nf:\nret\n");
        let host = toy.path("host");
        let plain = |words: &[&str]| {
            command(&tools.compiler()).current_dir(&host).args(words).output().expect("the compiler runs")
        };
        for words in [
            &["--version"][..],
            &["-E", "hello.c"],
            &["-S", "-o", "-", "hello.c"],
            &["-c", "-x", "c", "/dev/null", "-o", "null.o"],
            &["-c", "code.S", "-o", "code.o"],
            &["-c", "hello.c", "-o", "hello.o"],
            &["hello.c", "-o", "hello"],
            &["-c", "missing.c"],
            &["-no-such-flag", "-c", "hello.c"],
        ] {
            let [ours, theirs] = [wrapper(&toy, words, &host), plain(words)];
            let seen = |output: &Output| (output.status.code(), text(&output.stdout), text(&output.stderr));
            assert_eq!(seen(&ours), seen(&theirs), "{words:?}");
        }
        assert!(!toy.path("lists/units/hello.c.inl").exists());
        // A unit whose list is empty is compiled as ever; one whose list is new gets an empty one, which it depends on.
        std::fs::write(toy.path("lists/units/fs/two.c.inl"), "").expect("a list");
        let linux = toy.path("linux");
        let words = ["-O2", "-Iinclude", "-Wp,-MMD,two.d", "-c", "fs/two.c", "-o", "two.o"];
        assert!(wrapper(&toy, &words, &linux).status.success());
        let first = std::fs::read(linux.join("two.o")).expect("an object");
        let rule = std::fs::read_to_string(linux.join("two.d")).expect("a rule");
        assert!(rule.trim_end().ends_with("lists/units/fs/two.c.inl"), "{rule}");
        said(command(&tools.compiler()).current_dir(&linux).args(words));
        assert_eq!(first, std::fs::read(linux.join("two.o")).expect("an object"));
        std::fs::write(linux.join("fs/new.c"), "int x;\n").expect("a unit");
        assert!(wrapper(&toy, &["-c", "fs/new.c", "-o", "new.o"], &linux).status.success());
        assert_eq!(toy.list("fs/new.c"), "");
    }
}

#[test]
fn the_same_unit_with_the_same_list_is_the_same_object() {
    for tools in [Tools::Clang("-22"), Tools::Gcc] {
        let toy = Toy::new(tools);
        toy.check("plain", &[]);
        let linux = toy.path("linux");
        let compile = || {
            let words = ["-O2", "-g", "-Iinclude", "-DFIRST=1", "-c", "fs/one.c", "-o", "one.o"];
            let done = wrapper(&toy, &words, &linux);
            assert!(done.status.success(), "{}", text(&done.stderr));
            std::fs::read(linux.join("one.o")).expect("an object")
        };
        assert!(!toy.list("fs/one.c").is_empty());
        assert_eq!(compile(), compile());
        assert!(!toy.path("lists/failed").exists());
    }
}

#[test]
fn a_unit_that_does_not_compile_with_its_list_is_compiled_without_and_named() {
    let toy = Toy::new(Tools::Gcc);
    let first = toy.check("plain", &[]);
    let list = toy.list("fs/one.c");
    toy.write("lists/units/fs/one.c.inl", &format!("{list}#error no list\n"));
    assert_eq!(toy.build(&first).len(), 4);
    let failed = std::fs::read_to_string(toy.path("lists/failed/fs/one.c")).expect("what the compiler said");
    assert!(failed.contains("no list"), "{failed}");
    let second = toy.check("lists/build", &[]);
    let why = |said: &Value, name: &str| {
        let explained = said["explained"].as_array().expect("a list").clone();
        explained.iter().find(|left| left["function"] == name).map(|left| left["why"].to_string())
    };
    let kept = why(&second, "fs_kept").expect("it is named");
    assert!(kept.contains("fs/one.c does not compile with its list"), "{kept}");
    // The list is whole again: the unit is compiled with it, and the trouble is over.
    toy.build(&second);
    assert!(!toy.path("lists/failed/fs/one.c").exists());
    assert_eq!(why(&toy.check("lists/build", &[]), "fs_kept"), None);
    // An error of the source is the source's.
    toy.write("linux/fs/one.c", "int broken(\n");
    let done = wrapper(&toy, &["-c", "fs/one.c", "-o", "one.o"], &toy.path("linux"));
    let theirs =
        command("gcc").current_dir(toy.path("linux")).args(["-c", "fs/one.c", "-o", "one.o"]).output();
    let theirs = theirs.expect("gcc runs");
    assert_eq!((done.status.code(), done.stderr), (theirs.status.code(), theirs.stderr));
}

#[test]
fn folders_and_lists_that_can_not_be_are_refused() {
    let toy = Toy::new(Tools::Gcc);
    let refused = |options: &[&str], code: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_klpx"));
        command.args(["inline-check", "--consistent", "--source"]).arg(toy.path("linux")).args(options);
        let done = command.current_dir(toy.root.path()).output().expect("klpx runs");
        let message = text(&done.stderr);
        assert!(!done.status.success() && message.contains(code), "{options:?}: {message}");
    };
    refused(&["-b", "plain", "--output", "plain/lists"], "klpx::usage");
    refused(&["-b", "plain", "--output", "my lists"], "klpx::usage");
    refused(&["-b", "nowhere", "--output", "lists"], "klpx::build-dir-missing");
    toy.check("plain", &[]);
    let functions = toy.path("lists/functions.tsv");
    let kept = std::fs::read_to_string(&functions).expect("a list");
    // A name would become an option of the compiler.
    let mut cells: Vec<&str> = kept.lines().nth(1).expect("a choice").split('\t').collect();
    cells[4] = "f -fplugin=x.so";
    std::fs::write(&functions, format!("{kept}{}\n", cells.join("\t"))).expect("a list");
    refused(&["-b", "plain", "--output", "lists"], "klpx::bad-list");
    std::fs::write(&functions, format!("{kept}what is this\n")).expect("a list");
    refused(&["-b", "plain", "--output", "lists"], "klpx::bad-list");
}
