//! A ThinLTO kernel of a few files, its patch, and what klpx makes of both.

use std::collections::BTreeSet;
use std::path::PathBuf;
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
	@true > $(O)/modules.order; true > $(O)/Module.symvers; echo >> $(S)/../makes
"#;

/// The kernel's files and one patch.
#[derive(Default)]
pub(crate) struct Source {
    pub(crate) files: Vec<(String, String)>,
    /// File, old text, new text.
    pub(crate) edits: Vec<(String, String, String)>,
    /// The import limit of the link, in instructions.
    pub(crate) limit: u32,
}

impl Source {
    fn patch(&self) -> String {
        let of_edit = |(path, from, to): &(String, String, String)| {
            let old = &self.files.iter().find(|(name, _)| name == path).expect("the edited file").1;
            assert_eq!(old.matches(from.as_str()).count(), 1, "{from}");
            let body = diffy::create_patch(old, &old.replacen(from.as_str(), to, 1)).to_string();
            body.replace("--- original", &format!("--- a/{path}"))
                .replace("+++ modified", &format!("+++ b/{path}"))
        };
        self.edits.iter().map(of_edit).collect()
    }
}

/// A kernel in a folder of its own.
pub(crate) struct Toy {
    root: tempfile::TempDir,
    suffix: &'static str,
}

impl Toy {
    pub(crate) fn new(source: &Source, suffix: &'static str) -> Toy {
        let toy = Toy { root: tempfile::tempdir().expect("a folder"), suffix };
        let version = |tool: &str| {
            let said =
                Command::new(format!("{tool}{suffix}")).arg("--version").output().expect("LLVM's tools");
            String::from_utf8_lossy(&said.stdout).lines().next().expect("a line").to_owned()
        };
        let makefile = MAKEFILE.replace("LIMIT", &source.limit.to_string());
        for (path, text) in [
            ("Makefile", makefile.as_str()),
            ("include/linux/kernel.h", ""),
            ("Kconfig", ""),
            ("scripts/Kbuild.include", ""),
            ("init/main.c", ""),
        ] {
            toy.write(&format!("linux/{path}"), text);
        }
        for (path, text) in &source.files {
            toy.write(&format!("linux/{path}"), text);
        }
        let config = format!(
            "CONFIG_X86_64=y\nCONFIG_MODULES=y\nCONFIG_LIVEPATCH=y\nCONFIG_KALLSYMS=y\nCONFIG_CC_IS_CLANG=y\nCONFIG_LD_IS_LLD=y\n\
             CONFIG_LTO_CLANG_THIN=y\nCONFIG_CC_VERSION_TEXT=\"{}\"\n",
            version("clang")
        );
        toy.write("out/.config", &config);
        toy.write("out/vmlinux", "no kernel to be patched: the change set is all that is asked for");
        toy.write("fix.patch", &source.patch());
        toy
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("mkdir");
        std::fs::write(path, text).expect("a file");
    }

    /// The report of a build at a level. It must get as far as the kernel to be patched.
    pub(crate) fn report(&self, level: &str) -> Value {
        self.report_with(&["--stabilise", level])
    }

    /// The same with these options.
    fn report_with(&self, options: &[&str]) -> Value {
        let report = self.outcome_with(options);
        let text = &report["errors"];
        assert!(text[0]["code"] != "klpx::nothing-changed", "{text}");
        assert!(text[0]["code"] != "klpx::holder-left-out", "{text}");
        assert!(!report["changes"].as_array().expect("changes").is_empty(), "{text}");
        report
    }

    /// The same as if it were the first patch, with more jobs than there are steps.
    pub(crate) fn report_at_once(&self, level: &str) -> Value {
        std::fs::remove_dir_all(self.kernel().join("originals")).expect("what is known of the originals");
        self.report_with(&["--stabilise", level, "--jobs", "8"])
    }

    /// The same when klpx does not know that it links as kbuild does.
    pub(crate) fn report_by_kbuild(&self, level: &str) -> Value {
        let links = self.kernel().join("links.json");
        let text = std::fs::read_to_string(&links).expect("links");
        let unknown = text.replace("\"repeats\":true", "\"repeats\":false");
        assert_ne!(text, unknown, "klpx links vmlinux as kbuild does");
        std::fs::write(&links, unknown).expect("links");
        let makes = self.makes();
        let report = self.report(level);
        assert_eq!(self.makes(), makes + 1, "kbuild links");
        std::fs::write(&links, text).expect("links");
        report
    }

    /// How often all of the kernel was made.
    pub(crate) fn makes(&self) -> usize {
        std::fs::read_to_string(self.kernel().join("makes")).map_or(0, |text| text.lines().count())
    }

    /// klpx's folder of the kernel.
    fn kernel(&self) -> PathBuf {
        let kernels = std::fs::read_dir(self.path("cache/kernels")).expect("kernels");
        let mut folders = kernels.map(|entry| entry.expect("a kernel").path()).filter(|path| path.is_dir());
        folders.next().expect("the kernel")
    }

    /// The report of a build at a level, however far it got.
    pub(crate) fn outcome(&self, level: &str) -> Value {
        self.outcome_with(&["--stabilise", level])
    }

    fn outcome_with(&self, options: &[&str]) -> Value {
        let report = self.path("report.json");
        let done = Command::new(env!("CARGO_BIN_EXE_klpx"))
            .args(["build", "--keep-work"])
            .args(options)
            .arg("--report")
            .arg(&report)
            .arg(format!("--llvm={}", self.suffix))
            .args(["--source".as_ref(), self.path("linux").as_os_str()])
            .args(["--build-dir".as_ref(), self.path("out").as_os_str()])
            .args(["--cache-dir".as_ref(), self.path("cache").as_os_str()])
            .arg(self.path("fix.patch"))
            .output()
            .expect("klpx runs");
        let text = String::from_utf8_lossy(&done.stderr).into_owned();
        let written = std::fs::read(&report).expect(&text);
        serde_json::from_slice(&written).expect("JSON")
    }
}

/// The functions in a report's change set.
pub(crate) fn changed(report: &Value) -> BTreeSet<String> {
    functions(&report["changes"])
}

/// The functions in a list of a report; none when it is not there.
pub(crate) fn functions(list: &Value) -> BTreeSet<String> {
    let all = list.as_array().into_iter().flatten();
    all.map(|entry| entry["function"].as_str().expect("a name").to_owned()).collect()
}
