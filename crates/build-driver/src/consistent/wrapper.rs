//! The compiler wrappers, which compile each unit of a kernel with its list. One wrapper is for the user's build of
//! such a kernel, the other for klpx's workspace. Both give the same code.
//!
//! If a unit does not compile with its list, the kernel's wrapper compiles the unit without the list, and records the
//! failure in a file for the next `klpx inline-check`. It also makes each unit depend on its list in kbuild. The
//! workspace's wrapper keeps no state: its lists never change, and it always compiles a unit with its list. It leaves
//! out only entries that the patched source makes invalid: the function is gone (GCC), or the function is now
//! `always_inline` (Clang).

use std::path::Path;

use crate::toolchain::CompilerFamily;

/// The wrapper for the user's build of a kernel: the compiler `cc`, the folder of lists, the source tree.
pub(super) fn of_kernel(compiler: CompilerFamily, cc: &Path, dir: &Path, source: &Path) -> String {
    let compile = match compiler {
        CompilerFamily::Clang => CLANG.to_owned(),
        CompilerFamily::Gcc => [GCC_TEXT, GCC_STEPS, GCC].concat(),
    };
    let text = [HEAD, WORDS, KERNEL].concat().replace("@COMPILE@", &compile);
    filled(&text, &cc.display().to_string(), dir, source)
}

/// The wrapper of a workspace. `dir` is the folder of lists.
pub(crate) fn of_workspace(compiler: CompilerFamily, cc: &str, dir: &Path, source: &Path) -> String {
    let compile = match compiler {
        CompilerFamily::Clang => WORKSPACE_CLANG.to_owned(),
        CompilerFamily::Gcc => [GCC_TEXT, GCC_STEPS, WORKSPACE_GCC].concat(),
    };
    filled(&[WORKSPACE_HEAD, WORDS, WORKSPACE, &compile].concat(), cc, dir, source)
}

fn filled(text: &str, cc: &str, dir: &Path, source: &Path) -> String {
    text.replace("@CC@", cc)
        .replace("@DIR@", &dir.display().to_string())
        .replace("@SOURCE@", &source.display().to_string())
}

/// The first lines of every kernel's wrapper.
pub(super) const HEAD: &str = "#!/bin/sh
# Compiles the units of a kernel with the lists of klpx inline-check --consistent. Everything else goes to the compiler as it is.
";

/// Finds the unit that is compiled: a path in the source tree, or in the build tree for a generated source. Any other
/// call goes to the compiler unchanged: probes, assembly, links, `-E`, `-S`.
const WORDS: &str = r#"dir='@DIR@' source='@SOURCE@'
unit='' compiles='' depends='' output='' lto='' before=''
for word in "$@"; do
	[ "$before" != -o ] || output=$word
	before=$word
	case $word in
	-c) compiles=1 ;;
	-flto*) lto=1 ;;
	-fno-lto) lto='' ;;
	-E | -S) exec @CC@ "$@" ;;
	-Wp,-MMD,* | -Wp,-MD,*) depends=${word##*,} ;;
	-*) ;;
	*.c) unit=$word ;;
	esac
done
[ "$compiles" ] && [ "$unit" ] && [ "$output" ] || exec @CC@ "$@"

here=$(pwd -P)
case $unit in
*/*) folder=$(CDPATH='' cd -- "${unit%/*}" 2>/dev/null && pwd -P) || exec @CC@ "$@" ;;
*) folder=$here ;;
esac
path=$folder/${unit##*/}
# A generated file lies in the build tree, which may lie in the source tree, or be it.
if [ -e include/config/auto.conf ] && [ "$path" != "${path#"$here"/}" ]; then
	path=${path#"$here"/}
elif [ "$path" != "${path#"$source"/}" ]; then
	path=${path#"$source"/}
else
	exec @CC@ "$@"
fi
"#;

/// The rest of the kernel's wrapper.
const KERNEL: &str = r#"list=$dir/units/$path.inl failed=$dir/failed/$path
[ -e "$list" ] || { mkdir -p "${list%/*}" && : >>"$list"; } || exit

@COMPILE@
# Without its list rather than not at all: the next klpx says so.
if [ -s "$list" ] && said=$(with_list "$@" 2>&1); then
	[ -z "$said" ] || printf '%s\n' "$said" >&2
	[ ! -e "$failed" ] || rm -f "$failed"
else
	@CC@ "$@" || exit
	if [ -s "$list" ]; then
		mkdir -p "${failed%/*}" && printf '%s\n' "$said" >"$failed" || exit
	fi
fi
# kbuild compiles the unit again when its list has changed.
if [ "$depends" ] && [ -e "$depends" ]; then
	rule=$(cat "$depends") && printf '%s \\\n  %s\n' "$rule" "$list" >"$depends"
fi
"#;

const CLANG: &str = r#"left=$(mktemp --suffix=.list) || exit
trap 'rm -f "$left"' EXIT
trap 'exit 130' HUP INT TERM
forced=$dir/forced/$path

# LLVM adds noinline to an always_inline function without a word, and no link reads such bitcode. Whether this one can be read; else
# the functions go to those that get no attribute here.
reads() {
	[ "$lto" ] || return 0
	complaint=$(@CC@ -fno-crash-diagnostics -Wno-override-module -x ir "$output" \
		-Xclang -disable-llvm-passes -emit-llvm -c -o /dev/null 2>&1) && return
	names=$(printf '%s\n' "$complaint" | sed -n '/noinline and alwaysinline.* are incompatible/{n;s/.*@//p;}')
	[ "$names" ] && mkdir -p "${forced%/*}" && for name in $names; do
		printf -- '-mllvm -force-attribute=%s:%s\n' "$name" noinline "$name" alwaysinline
	done >>"$forced"
	return 1
}

once() {
	if [ -e "$forced" ]; then grep -vxFf "$forced" "$list" >"$left" || :; else cat "$list" >"$left"; fi
	@CC@ "$@" "@$left"
}

with_list() {
	once "$@" || return
	reads || { once "$@" && reads; } || { printf '%s\n' "$complaint"; return 1; }
}
"#;

const GCC_TEXT: &str = r#"text=$(mktemp --suffix=.i) || exit
trap 'rm -f "$text"' EXIT
trap 'exit 130' HUP INT TERM

"#;

/// GCC's two steps: preprocess and compile.
const GCC_STEPS: &str = r#"# All files in one, macros as they are, so that the list can stand at the end.
preprocess() {
	before=''
	for word; do
		shift
		[ "$word" = -c ] || [ "$word" = -o ] || [ "$before" = -o ] || set -- "$@" "$word"
		before=$word
	done
	@CC@ "$@" -E -fdirectives-only -o "$text"
}

compile() {
	for word; do
		shift
		case $word in
		-Wp,-MMD,* | -Wp,-MD,*) ;;
		"$unit") set -- "$@" "$text" ;;
		*) set -- "$@" "$word" ;;
		esac
	done
	@CC@ "$@" -fpreprocessed -fdirectives-only
}

"#;

const GCC: &str = r#"with_list() {
	preprocess "$@" && cat "$list" >>"$text" && compile "$@"
}
"#;

const WORKSPACE_HEAD: &str = "#!/bin/sh
# Written by klpx: compiles the units of a kernel with the lists that it was built with.
";

const WORKSPACE: &str = r#"list=$dir/units/$path.inl
[ -s "$list" ] || exec @CC@ "$@"

"#;

/// LLVM silently adds noinline to an `always_inline` function, and no link can read that bitcode. The kernel's own
/// lists have no such entry left, but a patch can make a function `always_inline`.
const WORKSPACE_CLANG: &str = r#"@CC@ "$@" "@$list" || exit
[ "$lto" ] || exit 0
complaint=$(@CC@ -fno-crash-diagnostics -Wno-override-module -x ir "$output" \
	-Xclang -disable-llvm-passes -emit-llvm -c -o /dev/null 2>&1) && exit
names=$(printf '%s\n' "$complaint" | sed -n '/noinline and alwaysinline.* are incompatible/{n;s/.*@//p;}')
[ "$names" ] || { printf '%s\n' "$complaint" >&2; exit 1; }
left=$(mktemp --suffix=.list) || exit
trap 'rm -f "$left"' EXIT
trap 'exit 130' HUP INT TERM
for name in $names; do printf -- '-mllvm -force-attribute=%s:noinline\n' "$name"; done >"$left.names"
grep -vxFf "$left.names" "$list" >"$left"
rm -f "$left.names"
@CC@ "$@" "@$left"
"#;

/// A GCC entry is C, so an entry for a function that the patch removes does not compile. The compiler reports the lines
/// of these entries.
const WORKSPACE_GCC: &str = r##"preprocess "$@" || exit
plain=$text
text=$(mktemp --suffix=.i) || exit
trap 'rm -f "$plain" "$text"' EXIT
cat "$plain" "$list" >"$text" || exit
said=$(compile "$@" 2>&1) && { [ -z "$said" ] || printf '%s\n' "$said" >&2; exit 0; }
# The source's own errors, without those of entries.
@CC@ "$@" || exit
{ cat "$plain" && printf '\n# 1 "klpx-list"\n' && cat "$list"; } >"$text" || exit
gone=$(LC_ALL=C compile "$@" 2>&1 | sed -n 's/^klpx-list:\([0-9]*\):.* error: .*/\1/p' | sort -un)
[ "$gone" ] || { printf '%s\n' "$said" >&2; exit 1; }
left=$(sed "$(printf '%sd;' $gone)" "$list") || exit
{ cat "$plain" && printf '%s\n' "$left"; } >"$text" || exit
compile "$@"
"##;

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::{Command, Output};

    use klpx_testkit::{command, need, said};

    use super::*;
    use crate::consistent::{InlineAttribute, lists};
    use crate::language::Identifier;

    /// `kept` is inlined into `calls` and also stays out of line. So does `other`.
    const SOURCE: &str = "extern int outside(int);\n#define kept(x) kept(x)\n\
        static int kept(int x) { return outside(x) + 7; }\nint (*a)(int) = kept;\n\
        static int other(int x) { return outside(x) + 9; }\nint (*b)(int) = other;\n\
        int calls(int x) { return kept(x) + other(x); }\n";

    /// A compiler, and the flags and tools to examine its code.
    struct Tools {
        compiler: CompilerFamily,
        cc: &'static str,
        flags: &'static [&'static str],
    }

    const ALL: [Tools; 3] = [
        Tools { compiler: CompilerFamily::Gcc, cc: "gcc", flags: &["-O2", "-g"] },
        Tools { compiler: CompilerFamily::Clang, cc: "clang-22", flags: &["-O2", "-g"] },
        Tools { compiler: CompilerFamily::Clang, cc: "clang-22", flags: &["-O2", "-flto=thin"] },
    ];

    /// A source tree with one unit and its list, and both wrappers.
    struct Toy<'t> {
        dir: tempfile::TempDir,
        tools: &'t Tools,
    }

    impl Toy<'_> {
        fn new(tools: &Tools) -> Toy<'_> {
            need(tools.cc);
            let toy = Toy { dir: tempfile::tempdir().expect("a folder"), tools };
            let function = |name| (Identifier::new(name).expect("a name"), InlineAttribute::Never);
            let list = lists::text(tools.compiler, &["kept", "other"].map(function));
            for (path, text) in [("src/fs/one.c", SOURCE), ("lists/units/fs/one.c.inl", list.as_str())] {
                let path = toy.path(path);
                std::fs::create_dir_all(path.parent().expect("a folder")).expect("mkdir");
                std::fs::write(path, text).expect("write");
            }
            let (lists, source) = (toy.path("lists"), toy.path("src"));
            let kernels = of_kernel(tools.compiler, Path::new(tools.cc), &lists, &source);
            let ours = of_workspace(tools.compiler, tools.cc, &lists, &source);
            for (name, text) in [("kernels", kernels), ("ours", ours)] {
                crate::files::script(&toy.path("bin"), name, &text).expect("a script");
            }
            toy
        }

        fn path(&self, path: &str) -> PathBuf {
            self.dir.path().canonicalize().expect("a path").join(path)
        }

        fn source(&self, text: &str) {
            std::fs::write(self.path("src/fs/one.c"), text).expect("write");
        }

        fn run(&self, cc: &Path) -> Output {
            let _ = std::fs::remove_file(self.path("one.o"));
            let (unit, object) = (self.path("src/fs/one.c"), self.path("one.o"));
            let mut command = Command::new(cc);
            command
                .current_dir(self.dir.path())
                .args(self.tools.flags)
                .arg("-c")
                .arg("-o")
                .arg(object)
                .arg(unit);
            command.output().expect("it runs")
        }

        /// The functions that `calls` calls, and the object.
        fn compile(&self, wrapper: &str) -> (Vec<&'static str>, Vec<u8>) {
            let done = self.run(&self.path("bin").join(wrapper));
            assert!(done.status.success(), "{wrapper}: {}", String::from_utf8_lossy(&done.stderr));
            let object = std::fs::read(self.path("one.o")).expect("an object");
            let mut show = match self.tools.flags.contains(&"-flto=thin") {
                true => command(self.tools.cc),
                false => command("objdump"),
            };
            match self.tools.flags.contains(&"-flto=thin") {
                true => show.args(["-O2", "-S", "-x", "ir", "-o", "-"]),
                false => show.arg("-dr"),
            };
            let shown = said(show.arg(self.path("one.o")));
            let called = ["kept", "other", "outside"];
            let begins = ["<calls>:", "\ncalls:"].into_iter().find_map(|label| shown.split_once(label));
            let rest = begins.expect("calls").1;
            let ends = ["\n\n", "\n.Lfunc_end"].into_iter().filter_map(|end| rest.find(end)).min();
            let body = &rest[..ends.unwrap_or(rest.len())];
            let is_called = |name: &&str| {
                body.lines().any(|line| {
                    let branches =
                        line.contains("call") || line.contains("jmp") || line.contains("R_X86_64_P");
                    branches && line.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == *name)
                })
            };
            (called.into_iter().filter(is_called).collect(), object)
        }
    }

    #[test]
    fn a_wrapper_is_filled_in() {
        let (dir, source) = (Path::new("/ws/lists"), Path::new("/ws/src"));
        for compiler in [CompilerFamily::Gcc, CompilerFamily::Clang] {
            let ours = of_workspace(compiler, "cc-9", dir, source);
            let kernels = of_kernel(compiler, Path::new("/usr/bin/cc-9"), dir, source);
            for text in [&ours, &kernels] {
                for left in ["@CC@", "@DIR@", "@SOURCE@", "@COMPILE@"] {
                    assert!(!text.contains(left), "{text}");
                }
                assert!(text.contains("dir='/ws/lists' source='/ws/src'\n"), "{text}");
            }
            assert!(kernels.starts_with(HEAD) && !ours.starts_with(HEAD));
        }
    }

    #[test]
    fn the_workspaces_object_is_the_kernels() {
        for tools in &ALL {
            let toy = Toy::new(tools);
            let kernels = toy.compile("kernels");
            assert_eq!(kernels.0, ["kept", "other"], "{}", tools.cc);
            assert!(toy.compile("ours") == kernels, "{}", tools.cc);
            // Without lists, both functions are inlined.
            std::fs::write(lists::path(&toy.path("lists/units"), "fs/one.c"), "").expect("write");
            assert_eq!(toy.compile("ours").0, ["outside"]);
        }
    }

    #[test]
    fn an_entry_without_a_function_leaves_the_others() {
        for tools in &ALL {
            let toy = Toy::new(tools);
            toy.source(
                &SOURCE
                    .replace("int (*a)(int) = kept;\n", "")
                    .replace("kept(int x)", "renamed(int x)")
                    .replace("return kept(x)", "return renamed(x)"),
            );
            assert_eq!(toy.compile("ours").0, ["other", "outside"], "{} {:?}", tools.cc, tools.flags);
        }
    }

    #[test]
    fn a_function_that_is_inlined_always_now_leaves_the_others() {
        for tools in ALL.iter().filter(|tools| tools.flags.contains(&"-flto=thin")) {
            let toy = Toy::new(tools);
            toy.source(
                &SOURCE.replace("static int kept", "static inline __attribute__((always_inline)) int kept"),
            );
            assert_eq!(toy.compile("ours").0, ["other", "outside"]);
        }
    }

    #[test]
    fn an_error_of_the_source_is_told_in_the_compilers_words() {
        for tools in &ALL {
            let toy = Toy::new(tools);
            toy.source(&SOURCE.replace("kept(x) + other", "nothing + other"));
            let (ours, theirs) = (toy.run(&toy.path("bin/ours")), toy.run(Path::new(tools.cc)));
            assert!(!ours.status.success());
            assert_eq!(
                String::from_utf8_lossy(&ours.stderr),
                String::from_utf8_lossy(&theirs.stderr),
                "{}",
                tools.cc
            );
        }
    }
}
