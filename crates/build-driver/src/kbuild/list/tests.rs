//! An artificial tree that answers `units.mk` like the kernel's makefiles.

use klpx_testkit::command;

use super::*;

/// Variables that the kernel's Makefile exports.
const ENVIRONMENT: [(&str, &str); 5] = [
    ("objtree", "."),
    ("SRCARCH", "x86"),
    ("KBUILD_CFLAGS", "-O2"),
    ("CC_FLAGS_FTRACE", "-pg"),
    ("ARCH_LIB", "lib/"),
];

/// An excerpt of scripts/Makefile.build.
const MAKEFILE_BUILD: &str = "
src := $(if $(VPATH),$(VPATH)/)$(obj)
subdir-ccflags-y :=
include $(firstword $(wildcard $(src)/Kbuild) $(src)/Makefile)
obj-m := $(filter-out $(obj-y),$(obj-m))
subdir-ym := $(sort $(patsubst %/,%,$(filter %/,$(obj-y) $(obj-m))))
obj-m := $(patsubst %/,%/modules.order,$(filter %/,$(obj-y)) $(obj-m))
obj-y := $(patsubst %/,%/built-in.a,$(obj-y))
KBUILD_CFLAGS += $(subdir-ccflags-y)
suffix-search = $(strip $(foreach s,$3,$($(1:%$(strip $2)=%$s))))
multi-search = $(sort $(foreach m,$1,$(if $(call suffix-search,$m,$2,$3 -),$m)))
real-search = $(foreach m,$1,$(if $(call suffix-search,$m,$2,$3 -),$(call suffix-search,$m,$2,$3),$m))
multi-obj-m := $(call multi-search,$(obj-m),.o,-objs -y -m)
real-obj-y := $(call real-search,$(obj-y),.o,-objs -y)
real-obj-m := $(call real-search,$(obj-m),.o,-objs -y -m)
ifneq ($(obj),.)
obj-m := $(addprefix $(obj)/,$(obj-m))
lib-y := $(addprefix $(obj)/,$(lib-y))
multi-obj-m := $(addprefix $(obj)/,$(multi-obj-m))
real-obj-y := $(addprefix $(obj)/,$(real-obj-y))
real-obj-m := $(addprefix $(obj)/,$(real-obj-m))
subdir-ym := $(addprefix $(obj)/,$(subdir-ym))
endif
subdir-builtin := $(sort $(filter %/built-in.a,$(real-obj-y)))
subdir-modorder := $(sort $(filter %/modules.order,$(obj-m)))
part-of-module = $(filter $@,$(real-obj-m))
is-single-obj-m = $(and $(part-of-module),$(filter $@,$(obj-m)),y)
objtool := $(objtree)/tools/objtool/objtool
objtool-args = --orc --werror $(if $(delay-objtool),--link) $(if $(part-of-module),--module)
delay-objtool := $(DELAY)
c_flags = -include $(srctree)/k.h $(_c_flags) $(if $(filter a.o,$(notdir $@)),-include core/made.h)
a_flags = -include $(srctree)/k.h
_c_flags = -O2 $(if $(filter $(notdir $@),$(NOTRACE)),,$(CC_FLAGS_FTRACE))
$(obj)/%.o: objtool-enabled = $(if $(delay-objtool),$(is-single-obj-m),y)
$(obj)/%.o: $(obj)/%.c FORCE
\t$(call if_changed_rule,cc_o_c)
$(obj)/%.o: $(obj)/%.S FORCE
\t$(call if_changed_rule,as_o_S)
$(obj)/%.s: $(obj)/%.c FORCE
\t$(call if_changed_dep,cc_s_c)
.PHONY: FORCE prepare
";

/// Files: path and text. The makefiles of the folders would do harm if make ran any recipe.
const FILES: [(&str, &str); 23] = [
    ("scripts/Makefile.build", MAKEFILE_BUILD),
    ("Kbuild", "obj-y := core/ drivers/ lib/\nobj-m :=\nlib-y :=\nprepare: bounds.s\n"),
    ("bounds.c", ""),
    (
        "core/Makefile",
        "obj-y := a.o both.o start.o made.o image.o\nlib-y :=\nboth-y := b1.o b2.o\nNOTRACE := b2.o\n$(obj)/a.o: $(obj)/tab.h\n$(obj)/tab.h: $(obj)/tab.txt tool FORCE\n\t$(call if_changed,tab)\n$(obj)/made.c: $(obj)/key\n\ttouch HARM\n$(obj)/image.o: $(obj)/vdso.o\n\t$(call if_changed,objcopy)\n$(obj)/vdso.o: $(obj)/stage/out\n$(obj)/stage/out:\n\t$(MAKE) $(build)=$(obj)/stage $@\n",
    ),
    ("core/tab.txt", ""),
    ("core/a.c", ""),
    ("core/b1.c", ""),
    ("core/b2.c", ""),
    ("core/start.S", ""),
    ("core/vdso.c", ""),
    (
        "core/stage/Makefile",
        "obj-y :=\nlib-y :=\n$(obj)/out: $(obj)/boot.o $(obj)/str.o\n\ttouch HARM\n$(obj)/str.o: $(srctree)/lib/str.c FORCE\n\t$(call if_changed_rule,cc_o_c)\n",
    ),
    ("core/stage/boot.c", ""),
    ("lib/Makefile", "obj-y :=\nlib-y := str.o\n"),
    ("lib/str.c", ""),
    (
        "drivers/Makefile",
        "subdir-ccflags-y := -Wextra \"-DX=a b\"\nobj-y := stub/\nobj-m := one.o two.o wrap.o far/\ntwo-objs := x.o shared.o x.o\nwrap-y := ../core/away.o shared.o\n",
    ),
    ("drivers/one.c", ""),
    ("drivers/x.c", ""),
    ("drivers/shared.c", ""),
    ("core/away.c", ""),
    ("drivers/far/Makefile", "obj-y := notbuilt.o\nobj-m := far.o\n"),
    ("drivers/far/far.c", ""),
    ("drivers/stub/Makefile", "obj-y :=\nlib-y := stub.o\n"),
    ("drivers/stub/stub.c", ""),
];

fn tree() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().expect("dir");
    let (src, build) = (dir.path().join("src"), dir.path().join("build"));
    std::fs::create_dir(&build).expect("build");
    for (path, text) in FILES {
        let path = src.join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
        std::fs::write(path, text).expect("file");
    }
    (dir, src, build)
}

fn ask(src: &Path, build: &Path, extra: &[&str]) -> Result<UnitList> {
    UnitList::ask(src, build, &mut |words| {
        let output = command("make")
            .current_dir(build)
            .env_remove("MAKEFLAGS")
            .envs(ENVIRONMENT)
            .env("srctree", src)
            .env("VPATH", src)
            .arg("-rR")
            .args(words)
            .args(extra)
            .output()
            .expect("make runs");
        let text = [output.stdout, output.stderr].concat();
        let lines = String::from_utf8_lossy(&text).lines().map(str::to_owned).collect();
        Ok(CallOutcome { success: output.status.success(), lines })
    })
}

/// One line for each unit: object, target, source, home, traced, objtool.
fn table(list: &UnitList) -> Vec<String> {
    list.units()
        .map(|(id, unit)| {
            let home = match &unit.home {
                Home::Vmlinux => "vmlinux".to_owned(),
                Home::Ingredient => "ingredient".to_owned(),
                Home::Modules(ids) => {
                    ids.iter().map(|id| list.module(*id).ko()).collect::<Vec<_>>().join("+")
                }
            };
            let source = match &unit.source {
                UnitSource::Tree(path) => path.clone(),
                UnitSource::Generated(path) => format!("({path})"),
                UnitSource::Unknown => "?".to_owned(),
            };
            let objtool = match list.objtool(id) {
                ObjtoolRule::None => "none".to_owned(),
                ObjtoolRule::AlreadyRun(options) => format!("run {}", options.join(" ")),
                ObjtoolRule::Run(options) => format!("later {}", options.join(" ")),
            };
            let traced = if unit.traced { "traced" } else { "untraced" };
            format!("{} {} {source} {:?} {home} {traced} {objtool}", unit.object, unit.target(), unit.rule)
        })
        .collect()
}

#[test]
fn kbuild_tells_every_unit_and_makes_nothing() {
    let (_dir, src, build) = tree();
    let list = ask(&src, &build, &["DELAY=y", "-j2"]).expect("a list");
    let expected = [
        "bounds.s bounds.s bounds.c Offsets ingredient untraced none",
        "core/a.o core/a.o core/a.c C vmlinux traced later --orc --link",
        "core/away.o drivers/../core/away.o core/away.c C drivers/wrap.ko traced later --orc --link --module",
        "core/b1.o core/b1.o core/b1.c C vmlinux traced later --orc --link",
        "core/b2.o core/b2.o core/b2.c C vmlinux untraced later --orc --link",
        "core/image.o core/image.o (core/vdso.o) Other(\"objcopy\") vmlinux untraced none",
        "core/made.o core/made.o (core/made.c) C vmlinux traced later --orc --link",
        "core/stage/boot.o core/stage/boot.o core/stage/boot.c C ingredient traced none",
        "core/stage/str.o core/stage/str.o lib/str.c C ingredient traced none",
        "core/start.o core/start.o core/start.S Assembly vmlinux traced later --orc --link",
        "core/vdso.o core/vdso.o core/vdso.c C ingredient traced none",
        "drivers/far/far.o drivers/far/far.o drivers/far/far.c C drivers/far/far.ko traced run --orc --link --module",
        "drivers/one.o drivers/one.o drivers/one.c C drivers/one.ko traced run --orc --link --module",
        "drivers/shared.o drivers/shared.o drivers/shared.c C drivers/two.ko+drivers/wrap.ko traced later --orc --link --module",
        "drivers/x.o drivers/x.o drivers/x.c C drivers/two.ko traced later --orc --link --module",
        "lib/str.o lib/str.o lib/str.c C vmlinux traced later --orc --link",
    ];
    assert_eq!(table(&list), expected);
    assert_eq!(list.objtool_program(), Some("tools/objtool/objtool"));
    let left: Vec<_> = walkdir::WalkDir::new(build)
        .into_iter()
        .filter_map(|e| e.ok())
        .filter(|e| e.file_type().is_file())
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn without_delay_kbuild_has_run_objtool_on_every_unit() {
    let (_dir, src, build) = tree();
    let list = ask(&src, &build, &[]).expect("a list");
    for (object, options) in
        [("core/a.o", "--orc"), ("drivers/x.o", "--orc --module"), ("drivers/one.o", "--orc --module")]
    {
        let id = list.by_object(object).expect(object);
        let expected = ObjtoolRule::AlreadyRun(options.split(' ').map(str::to_owned).collect());
        assert_eq!(list.objtool(id), &expected, "{object}");
    }
}

#[test]
fn units_are_found_by_source_and_modules_know_their_units() {
    let (_dir, src, build) = tree();
    let list = ask(&src, &build, &[]).expect("a list");
    let objects = |source: &str| -> Vec<&str> {
        list.by_source(source).iter().map(|id| list.unit(*id).object.as_str()).collect()
    };
    assert_eq!(objects("core/away.c"), ["core/away.o"]);
    assert_eq!(objects("lib/str.c"), ["core/stage/str.o", "lib/str.o"]);
    assert!(objects("drivers/far/notbuilt.c").is_empty() && objects("").is_empty());
    let module = |object: &str| {
        let module = list.module(list.module_by_object(object).expect(object));
        let units: Vec<&str> = module.units.iter().map(|id| list.unit(*id).object.as_str()).collect();
        (units, module.is_its_unit)
    };
    assert_eq!(module("drivers/two.o"), (vec!["drivers/x.o", "drivers/shared.o"], false));
    assert_eq!(module("drivers/one.o"), (vec!["drivers/one.o"], true));
    assert_eq!(list.module_by_object("drivers/x.o"), None);
}

#[test]
fn what_is_generated_and_what_command_lines_include_is_told() {
    let (_dir, src, build) = tree();
    let list = ask(&src, &build, &[]).expect("a list");
    let tree = |path: &str| UnitSource::Tree(path.to_owned());
    let made = |path: &str| UnitSource::Generated(path.to_owned());
    let table = Generated {
        path: "core/tab.h".to_owned(),
        folder: "core".to_owned(),
        from: vec![tree("core/tab.txt"), made("tool")],
    };
    assert_eq!(list.generated(), [table]);
    let forced = |object: &str| list.forced(list.by_object(object).expect(object)).to_vec();
    assert_eq!(forced("core/a.o"), [tree("k.h"), made("core/made.h")]);
    assert_eq!(forced("core/b1.o"), [tree("k.h")]);
    assert_eq!(forced("bounds.s"), [tree("k.h")]);
    assert_eq!(forced("core/start.o"), [tree("k.h")]);
    assert_eq!(list.arch(), "x86");
    let flags = [("KBUILD_CFLAGS".to_owned(), "-O2 -Wextra \"-DX=a b\"".to_owned())];
    let inherited: Vec<_> = list.inherited().collect();
    assert_eq!(inherited, [("drivers/far", &flags[..]), ("drivers/stub", &flags[..])]);
}

#[test]
fn a_list_is_the_same_after_it_was_stored() {
    let (_dir, src, build) = tree();
    let list = ask(&src, &build, &["DELAY=y"]).expect("a list");
    let stored = serde_json::to_string(&list).expect("stored");
    assert_eq!(serde_json::from_str::<UnitList>(&stored).expect("read"), list);
}

#[test]
fn a_folder_without_a_record_is_an_error() {
    let record = |folder: &str, folders: &[&str]| FolderRecord {
        folder: folder.to_owned(),
        folders: folders.iter().map(|f| (*f).to_owned()).collect(),
        ..FolderRecord::default()
    };
    let build = |records: &[FolderRecord]| {
        Builder::new("/src".into(), "/build".into(), records).build(records).map(|_| ())
    };
    assert_eq!(build(&[record(".", &["fs"]), record("fs", &[])]), Ok(()));
    assert!(build(&[record(".", &["fs", "mm"]), record("fs", &[])]).expect_err("mm").contains("folder mm"));
    assert!(build(&[record("fs", &[])]).expect_err("root").contains("root"));
}

#[test]
fn sources_are_told_apart_by_the_tree_they_lie_in() {
    let tree = |path: &str| UnitSource::Tree(path.to_owned());
    let made = |path: &str| UnitSource::Generated(path.to_owned());
    let cases = [
        ("/k/src", "/k/build", "/k/src/fs/a.c", tree("fs/a.c")),
        ("/k/src", "/k/build", "/k/src/arch/x86/kvm/../../../virt/kvm/a.c", tree("virt/kvm/a.c")),
        ("/k/src", "/k/build", "fs/a.c", made("fs/a.c")),
        ("/k/src", "/k/src/build", "../fs/a.c", tree("fs/a.c")),
        ("/k/src", "/k/src/build", "fs/a.c", made("fs/a.c")),
        ("/k/src", "/k/build", "/elsewhere/a.c", UnitSource::Unknown),
        ("/k/src", "/k/build", "", UnitSource::Unknown),
    ];
    for (src, build, path, expected) in cases {
        assert_eq!(Builder::new(src.into(), build.into(), &[]).source(path), expected, "{path} of {build}");
    }
}

#[test]
fn a_second_copy_of_a_source_is_told() {
    let (_dir, src, build) = tree();
    let list = ask(&src, &build, &[]).expect("a list");
    let is_copy = |object: &str| list.is_second_copy(list.by_object(object).expect(object));
    assert!(is_copy("core/stage/str.o"), "lib/str.o is the kernel's");
    for object in ["lib/str.o", "core/stage/boot.o", "bounds.s", "core/image.o"] {
        assert!(!is_copy(object), "{object}");
    }
}

#[test]
fn folders_that_are_searched_are_told() {
    let (_dir, src, build) = tree();
    let makefile = std::fs::read_to_string(src.join("scripts/Makefile.build")).expect("read");
    let flags = "-O2 -I$(srctree)/include -I ./include -iquote $(srctree)/lib -isystem /usr/include";
    std::fs::write(
        src.join("scripts/Makefile.build"),
        makefile
            .replace("_c_flags = -O2", &format!("_c_flags = {flags}"))
            .replace("a_flags = ", "a_flags = -I$(srctree)/arch/x86/include "),
    )
    .expect("write");
    let list = ask(&src, &build, &[]).expect("a list");
    let tree = |path: &str| UnitSource::Tree(path.to_owned());
    let expected =
        [tree("arch/x86/include"), tree("include"), tree("lib"), UnitSource::Generated("include".to_owned())];
    assert_eq!(list.searched(), expected);
    // An assembly unit that does not name its folders.
    std::fs::write(
        src.join("scripts/Makefile.build"),
        makefile.replace("_c_flags = -O2", &format!("_c_flags = {flags}")),
    )
    .expect("write");
    assert_eq!(ask(&src, &build, &[]).expect("a list").searched(), []);
}
