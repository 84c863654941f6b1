//! A toy kernel whose Makefile has the targets that the driver calls. Its configuration says LTO, and its compiler is
//! the host's compiler.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use klpx_build_driver::{KernelOptions, PatchSet, PatchableKernel, Patched, Workspace};
use klpx_diagnosis::Result;
use klpx_testkit::{command, need, said};

/// A Makefile with the variables and targets that the driver uses, and with records like kbuild's. A source with the
/// word SLOW stays half-written for a while before it is compiled.
const MAKEFILE: &str = r#"VERSION = 7
PATCHLEVEL = 2
SUBLEVEL = 0
EXTRAVERSION =
S := $(CURDIR)
units := $(patsubst $(S)/%.c,$(O)/%.o,$(sort $(wildcard $(S)/fs/*.c)))
mods := $(patsubst $(S)/%.c,$(O)/%.o,$(sort $(wildcard $(S)/mod/*.c)))
.DELETE_ON_ERROR:
.PHONY: FORCE olddefconfig vmlinux_o modules
olddefconfig:
	@mkdir -p $(O)/include/config; echo '7.2.0$(LOCALVERSION)' > $(O)/include/config/kernel.release
	@cat $(S)/extra-config >> $(O)/.config
$(O)/%.o: $(S)/%.c
	@mkdir -p $(@D)
	@if grep -q SLOW $<; then echo half > $@; echo '  SLOW    $*.o'; sleep 30; fi
	@$(CC) -O1 $(KCFLAGS) $(if $(CLANG_AUTOFDO_PROFILE),-include $(CLANG_AUTOFDO_PROFILE)) -I$(S)/include -Wp,-MMD,$@.d -c -o $@ $<
	@sed 's|^[^:]*:|$@:|' $@.d >$(@D)/.$(@F).cmd
	@echo '  CC      $*.o'
-include $(wildcard $(O)/fs/.*.cmd $(O)/mod/.*.cmd)
$(O)/vmlinux.o: $(units) FORCE
	@echo '  LD      vmlinux.o'
	@ld -r -o $@ $(units)
vmlinux_o: $(O)/vmlinux.o
modules: $(mods) vmlinux_o
	@echo $(patsubst $(O)/%,%,$(mods)) | tr ' ' '\n' > $(O)/modules.order
	@echo exports > $(O)/Module.symvers
"#;

/// A toy kernel, its build tree and its cache.
pub(crate) struct Toy {
    pub(crate) root: tempfile::TempDir,
}

impl Toy {
    pub(crate) fn new() -> Toy {
        let root = tempfile::tempdir().expect("dir");
        let toy = Toy { root };
        for program in ["git", "ld", "make"] {
            need(program);
        }
        let gcc = said(command("gcc").arg("--version")).lines().next().expect("a line").to_owned();
        let files = [
            ("Makefile", MAKEFILE),
            ("Kconfig", ""),
            ("extra-config", ""),
            ("scripts/Kbuild.include", ""),
            ("init/main.c", ""),
            ("include/linux/kernel.h", "#define N 1\n"),
            ("fs/a.c", "int a(void)\n{\n\treturn 1;\n}\n"),
            ("fs/b.c", "#include <linux/kernel.h>\nint b(void)\n{\n\treturn N;\n}\n"),
            ("fs/c.c", "#include <linux/kernel.h>\nint c(void)\n{\n\treturn N + 1;\n}\n"),
            ("mod/my-mod.c", "int m(void)\n{\n\treturn 1;\n}\n"),
        ];
        for (path, text) in files {
            toy.write(path, text);
        }
        let config = format!(
            "CONFIG_X86_64=y\nCONFIG_MODULES=y\nCONFIG_LIVEPATCH=y\nCONFIG_KALLSYMS=y\nCONFIG_LTO_CLANG_FULL=y\nCONFIG_CC_IS_GCC=y\nCONFIG_CC_VERSION_TEXT=\"{gcc}\"\n"
        );
        std::fs::create_dir(toy.root.path().join("out")).expect("mkdir");
        std::fs::write(toy.root.path().join("out/.config"), config).expect("write");
        toy
    }

    pub(crate) fn source(&self) -> PathBuf {
        self.root.path().join("linux")
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.root.path().join("cache")
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.source().join(path);
        std::fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
        std::fs::write(path, text).expect("write");
    }

    pub(crate) fn options(&self) -> KernelOptions {
        KernelOptions {
            source: self.source(),
            build_dir: Some(self.root.path().join("out")),
            cache_dir: self.cache(),
            jobs: Some(2),
            cross_compile: Some(String::new()),
            ..KernelOptions::default()
        }
    }

    pub(crate) fn kernel(&self) -> PatchableKernel {
        PatchableKernel::open(&self.options()).expect("a kernel")
    }

    pub(crate) fn open(&self) -> Workspace {
        Workspace::open(&self.kernel(), &()).expect("a workspace")
    }

    /// All of the user's files: paths, contents, times.
    pub(crate) fn users_files(&self) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
        let mut files = BTreeMap::new();
        for dir in ["linux", "out"] {
            for entry in walk(&self.root.path().join(dir)) {
                let time = entry.metadata().and_then(|meta| meta.modified()).expect("time");
                files.insert(entry.clone(), (std::fs::read(&entry).expect("read"), time));
            }
        }
        files
    }
}

pub(crate) fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("read").flatten() {
        if entry.path().is_dir() { found.extend(walk(&entry.path())) } else { found.push(entry.path()) }
    }
    found
}

pub(crate) fn replace(path: &str, old: &str, new: &str) -> String {
    let body = diffy::create_patch(old, new).to_string();
    body.replace("--- original", &format!("--- a/{path}")).replace("+++ modified", &format!("+++ b/{path}"))
}

/// A patch that replaces a word in a file of the toy kernel.
pub(crate) fn edit(toy: &Toy, path: &str, from: &str, to: &str) -> String {
    let old = std::fs::read_to_string(toy.source().join(path)).expect("read");
    assert!(old.contains(from));
    replace(path, &old, &old.replace(from, to))
}

pub(crate) fn build(workspace: &Workspace, patch: &str) -> Result<Patched> {
    let baseline = workspace.baseline(&())?;
    let prepared = PatchSet::from_text("test.patch", patch.as_bytes())?.preflight(workspace.kernel(), 0)?;
    workspace.patched(&prepared, &baseline, &())
}

/// Checks that the private source equals the user's byte for byte, and that no journal is left.
pub(crate) fn assert_at_rest(toy: &Toy, workspace: &Path) {
    for path in walk(&toy.source()) {
        let private = workspace.join("src").join(path.strip_prefix(toy.source()).expect("inside"));
        assert_eq!(std::fs::read(&private).ok(), std::fs::read(&path).ok(), "{}", path.display());
    }
    assert_eq!(walk(&workspace.join("src")).len(), walk(&toy.source()).len());
    assert!(!workspace.join("patch.journal").exists());
}

pub(crate) fn code(failure: &klpx_diagnosis::Failure) -> &'static str {
    failure.diagnoses().next().expect("one").code
}
