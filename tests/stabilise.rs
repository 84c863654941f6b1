//! Change sets of small ThinLTO kernels: what the patch does not touch but must be replaced all the same is in them, and what
//! the compiler only decided otherwise is not. Each case is a file in `kernel-fixtures/lto`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// A Makefile with the targets and records of kbuild's that klpx uses. LTO by the LLVM tools of the suffix in `LLVM`.
const MAKEFILE: &str = r#"VERSION = 7
PATCHLEVEL = 2
SUBLEVEL = 0
EXTRAVERSION =
S := $(CURDIR)
CC := clang$(LLVM)
units := $(patsubst $(S)/%.c,%.o,$(sort $(wildcard $(S)/fs/*.c)))
flags := --target=x86_64-linux-gnu -O2 -g -flto=thin -ffreestanding -fno-pic -mcmodel=kernel -fno-asynchronous-unwind-tables
.PHONY: FORCE olddefconfig vmlinux_o modules
olddefconfig:
	@mkdir -p $(O)/include/config; echo '7.2.0$(LOCALVERSION)' > $(O)/include/config/kernel.release
record = echo 'savedcmd_$(1) := $(2)' > $(dir $(1)).$(notdir $(1)).cmd
compile = $(CC) $(flags) -I$(S)/include -Wp,-MMD,$(1:.o=.d) -c -o $(1) $(S)/$(1:.o=.c)
link = $(LD) -m elf_x86_64 -mllvm -import-instr-limit=LIMIT -r -o vmlinux.o --whole-archive vmlinux.a --no-whole-archive --start-group --end-group
$(O)/%.o: $(S)/%.c
	@mkdir -p $(@D)
	@cd $(O) && $(call compile,$*.o) && $(call record,$*.o,$(call compile,$*.o)) && cat $*.d >> $(dir $*).$(notdir $*).o.cmd
	@echo '  CC      $*.o'
$(O)/vmlinux.o: $(addprefix $(O)/,$(units)) FORCE
	@cd $(O) && rm -f vmlinux.a && llvm-ar$(LLVM) cDPrST vmlinux.a $(units) && $(link) && $(call record,vmlinux.o,$(link))
vmlinux_o: $(O)/vmlinux.o
fs/%.o: $(O)/fs/%.o
	@true
modules: vmlinux_o
	@true > $(O)/modules.order; true > $(O)/Module.symvers
"#;

/// One case, as its file says.
#[derive(Default)]
struct Case {
    name: String,
    files: Vec<(String, String)>,
    /// File, old text, new text.
    edits: Vec<(String, String, String)>,
    /// What must be in the change set: changed and new functions.
    changed: BTreeSet<String>,
    /// The same without stabilising, where it is another set.
    plain: Option<BTreeSet<String>>,
    limit: u32,
}

impl Case {
    /// Directives begin with `//#`: `file PATH` and its text; `edit PATH` and lines with `-` and `+`; `changed NAMES`; `plain NAMES`;
    /// `limit N` for the import limit, which is the kernel's 5 otherwise.
    fn read(path: &Path) -> Case {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let mut case = Case { name, limit: 5, ..Case::default() };
        let text = std::fs::read_to_string(path).expect("a case");
        let mut section = String::new();
        for line in text.lines() {
            let Some(directive) = line.strip_prefix("//#") else {
                case.line(&section, line);
                continue;
            };
            let (word, rest) = directive.split_once(' ').expect("a directive and its value");
            section = word.to_owned();
            match word {
                "file" => case.files.push((rest.to_owned(), String::new())),
                "edit" => case.edits.push((rest.to_owned(), String::new(), String::new())),
                "changed" => case.changed = names(rest),
                "plain" => case.plain = Some(names(rest)),
                "limit" => case.limit = rest.parse().expect("a number"),
                other => panic!("{}: unknown directive {other}", case.name),
            }
        }
        case
    }

    fn line(&mut self, section: &str, line: &str) {
        let add = |text: &mut String, line: &str| {
            text.push_str(line);
            text.push('\n');
        };
        match (section, line.split_at_checked(1)) {
            ("file", _) => add(&mut self.files.last_mut().expect("a file").1, line),
            ("edit", Some(("-", old))) => add(&mut self.edits.last_mut().expect("an edit").1, old),
            ("edit", Some(("+", new))) => add(&mut self.edits.last_mut().expect("an edit").2, new),
            _ => {}
        }
    }

    fn patch(&self) -> String {
        let of_edit = |(path, from, to): &(String, String, String)| {
            let old = &self.files.iter().find(|(name, _)| name == path).expect("the edited file").1;
            assert_eq!(old.matches(from.as_str()).count(), 1, "{}: {from}", self.name);
            let body = diffy::create_patch(old, &old.replacen(from.as_str(), to, 1)).to_string();
            body.replace("--- original", &format!("--- a/{path}"))
                .replace("+++ modified", &format!("+++ b/{path}"))
        };
        self.edits.iter().map(of_edit).collect()
    }
}

fn names(list: &str) -> BTreeSet<String> {
    list.split_whitespace().map(str::to_owned).collect()
}

/// A kernel of a case in a folder of its own.
struct Toy {
    root: tempfile::TempDir,
    suffix: &'static str,
}

impl Toy {
    fn new(case: &Case, suffix: &'static str) -> Toy {
        let toy = Toy { root: tempfile::tempdir().expect("a folder"), suffix };
        let version = |tool: &str| {
            let said =
                Command::new(format!("{tool}{suffix}")).arg("--version").output().expect("LLVM's tools");
            String::from_utf8_lossy(&said.stdout).lines().next().expect("a line").to_owned()
        };
        let makefile = MAKEFILE.replace("LIMIT", &case.limit.to_string());
        for (path, text) in [
            ("Makefile", makefile.as_str()),
            ("include/linux/kernel.h", ""),
            ("Kconfig", ""),
            ("scripts/Kbuild.include", ""),
            ("init/main.c", ""),
        ] {
            toy.write(&format!("linux/{path}"), text);
        }
        for (path, text) in &case.files {
            toy.write(&format!("linux/{path}"), text);
        }
        let config = format!(
            "CONFIG_X86_64=y\nCONFIG_MODULES=y\nCONFIG_LIVEPATCH=y\nCONFIG_KALLSYMS=y\nCONFIG_CC_IS_CLANG=y\nCONFIG_LD_IS_LLD=y\n\
             CONFIG_LTO_CLANG_THIN=y\nCONFIG_CC_VERSION_TEXT=\"{}\"\n",
            version("clang")
        );
        toy.write("out/.config", &config);
        toy.write("out/vmlinux", "no kernel to be patched: the change set is all that is asked for");
        toy.write("fix.patch", &case.patch());
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

    /// The report of a build at a level. It must get as far as the kernel to be patched.
    fn report(&self, level: &str) -> Value {
        let report = self.path("report.json");
        let done = Command::new(env!("CARGO_BIN_EXE_klpx"))
            .args(["build", "--stabilise", level, "--report"])
            .arg(&report)
            .arg(format!("--llvm={}", self.suffix))
            .args(["--source".as_ref(), self.path("linux").as_os_str()])
            .args(["--build-dir".as_ref(), self.path("out").as_os_str()])
            .args(["--cache-dir".as_ref(), self.path("cache").as_os_str()])
            .arg(self.path("fix.patch"))
            .output()
            .expect("klpx runs");
        let text = String::from_utf8_lossy(&done.stderr).into_owned();
        let written = std::fs::read(&report).unwrap_or_else(|_| panic!("no report: {text}"));
        let report: Value = serde_json::from_slice(&written).expect("JSON");
        assert!(report["errors"][0]["code"] != "klpx::nothing-changed", "{text}");
        assert!(!report["changes"].as_array().expect("changes").is_empty(), "{text}");
        report
    }

    fn changed(&self, level: &str) -> BTreeSet<String> {
        let report = self.report(level);
        let changes = report["changes"].as_array().expect("changes");
        changes.iter().map(|change| change["function"].as_str().expect("a name").to_owned()).collect()
    }
}

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kernel-fixtures/lto");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("cases").map(|entry| entry.expect("a case").path()).collect();
    paths.sort();
    paths.iter().map(|path| Case::read(path)).collect()
}

fn check(suffix: &'static str) {
    let mut wrong = Vec::new();
    for case in cases() {
        let toy = Toy::new(&case, suffix);
        let plain = toy.changed("off");
        if &plain != case.plain.as_ref().unwrap_or(&case.changed) {
            wrong.push(format!("{} without stabilising: {plain:?}", case.name));
        }
        let frozen = toy.changed("names");
        if frozen != plain {
            wrong.push(format!("{} with frozen names: {frozen:?}", case.name));
        }
        let stabilised = toy.changed("inlining");
        if stabilised != case.changed {
            wrong.push(format!("{}: {stabilised:?}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn change_sets_hold_what_must_be_replaced_and_no_flips() {
    check("-22");
}
