//! A kernel of a few files that Clang compiles, its patch, and what klpx makes of both.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use klpx_testkit::{command, need, run, said};
use serde_json::Value;

/// The kernel's Makefile, as far as klpx asks it. Made by the LLVM tools of the suffix in `LLVM`.
const MAKEFILE: &str = r#"VERSION = 7
PATCHLEVEL = 2
SUBLEVEL = 0
EXTRAVERSION =
ifneq ($(inside),1)
.PHONY: $(MAKECMDGOALS) again
$(MAKECMDGOALS): again ;
again:
	@mkdir -p $(O) && $(MAKE) --no-print-directory -C $(O) -f $(CURDIR)/Makefile inside=1 srctree=$(CURDIR) $(MAKECMDGOALS)
else
export srctree
export CC := clang$(LLVM)
export AR := llvm-ar$(LLVM)
export LD := ld.lld$(LLVM)
export KBUILD_LDFLAGS := -m elf_x86_64 -mllvm -import-instr-limit=LIMIT
export KBUILD_CFLAGS := --target=x86_64-linux-gnu -O2 -g LTO -ffreestanding -fno-pic -mcmodel=kernel \
	-fno-asynchronous-unwind-tables -I$(srctree)/include $(KCFLAGS)
build := -f $(srctree)/scripts/Makefile.build obj
.PHONY: olddefconfig prepare modules_prepare modules . vmlinux_o
olddefconfig prepare modules_prepare modules:
	@mkdir -p include/config; echo '7.2.0$(LOCALVERSION)' > include/config/kernel.release; touch Module.symvers modules.order
.:
	@$(MAKE) $(build)=. need-builtin=1 need-modorder=1
vmlinux_o:
	@$(MAKE) $(build)=fs need-builtin=1 fs/built-in.a
	@rm -f vmlinux.a && $(AR) cDPrST vmlinux.a fs/built-in.a
	@$(LD) $(KBUILD_LDFLAGS) -r -o vmlinux.o --whole-archive vmlinux.a --no-whole-archive --start-group --end-group
endif
"#;

/// What makes the objects of one folder.
const MAKEFILE_BUILD: &str = r#".PHONY: prepare
subdir-ym := $(if $(filter .,$(obj)),fs)
subdir-builtin := $(addsuffix /built-in.a,$(subdir-ym))
units := $(patsubst $(srctree)/%.c,%.o,$(sort $(wildcard $(srctree)/fs/*.c)))
real-obj-y := $(if $(filter fs,$(obj)),$(units)) $(subdir-builtin)
if_changed_rule = @$(rule_$1)
command = $(CC) $(KBUILD_CFLAGS) -Wp,-MMD,$(@D)/.$(@F).d -c -o $@ $<
rule_cc_o_c = mkdir -p $(@D) && $(command) && echo 'savedcmd_$@ := $(command)' > $(@D)/.$(@F).cmd && cat $(@D)/.$(@F).d >> $(@D)/.$(@F).cmd && echo '  CC      $@'
fs/%.o: $(srctree)/fs/%.c
	$(call if_changed_rule,cc_o_c)
fs/%.i: $(srctree)/fs/%.c
	@mkdir -p $(@D) && $(CC) $(KBUILD_CFLAGS) -E -o $@ $<
fs/built-in.a: $(units)
	@rm -f $@ && $(AR) cDPrST $@ $^
prepare: ;
"#;

/// The kernel's files and one patch.
#[derive(Default)]
pub(crate) struct Source {
    pub(crate) files: Vec<(String, String)>,
    /// File, old text, new text.
    pub(crate) edits: Vec<(String, String, String)>,
    /// The import limit of the link, in instructions.
    pub(crate) limit: usize,
    pub(crate) lto: Lto,
}

/// What the kernel is linked from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Lto {
    #[default]
    Thin,
    Full,
    /// Native code.
    None,
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
        let tools = ["ld.lld", "llvm-ar", "llvm-dis", "opt"].map(|tool| format!("{tool}{suffix}"));
        for program in tools.iter().map(String::as_str).chain(["git", "make"]) {
            need(program);
        }
        let toy = Toy { root: tempfile::tempdir().expect("a folder"), suffix };
        let version = |tool: &str| {
            said(command(&format!("{tool}{suffix}")).arg("--version"))
                .lines()
                .next()
                .expect("a line")
                .to_owned()
        };
        let (flag, option) = match source.lto {
            Lto::Thin => ("-flto=thin", "LTO_CLANG_THIN"),
            Lto::Full => ("-flto", "LTO_CLANG_FULL"),
            Lto::None => ("", "LTO_NONE"),
        };
        let makefile =
            MAKEFILE.replace("LIMIT", &source.limit.to_string()).replace("LTO -f", &format!("{flag} -f"));
        for (path, text) in [
            ("Makefile", makefile.as_str()),
            ("include/linux/kernel.h", ""),
            ("Kconfig", ""),
            ("scripts/Kbuild.include", ""),
            ("scripts/Makefile.build", MAKEFILE_BUILD),
            ("init/main.c", ""),
        ] {
            toy.write(&format!("linux/{path}"), text);
        }
        for (path, text) in &source.files {
            toy.write(&format!("linux/{path}"), text);
        }
        let config = format!(
            "CONFIG_X86_64=y\nCONFIG_MODULES=y\nCONFIG_LIVEPATCH=y\nCONFIG_KALLSYMS=y\nCONFIG_CC_IS_CLANG=y\nCONFIG_LD_IS_LLD=y\n\
             CONFIG_{option}=y\nCONFIG_CC_VERSION_TEXT=\"{}\"\n",
            version("clang")
        );
        toy.write("out/.config", &config);
        toy.write("out/include/config/kernel.release", "7.2.0\n");
        // A kernel to be patched with none of the functions: the change set is all that is asked for.
        toy.write("out/Module.symvers", "");
        toy.write(
            "vmlinux.c",
            &format!(
                "const char linux_banner[] = \"Linux version 7.2.0 (toy@toy) ({}) #1\\n\"; int none(void) {{ return 0; }}\n",
                version("clang")
            ),
        );
        let mut clang = command(&format!("clang{suffix}"));
        run(clang.args(["-c", "vmlinux.c", "-o", "vmlinux.o"]).current_dir(toy.root.path()));
        let mut ld = command(&format!("ld.lld{suffix}"));
        run(ld.args(["-e", "none", "vmlinux.o", "-o", "out/vmlinux"]).current_dir(toy.root.path()));
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
        std::fs::remove_dir_all(self.kernel().join("thinlto")).expect("what is known of the originals");
        self.report_with(&["--stabilise", level, "--jobs", "8"])
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
