//! Names that contain counters and lines (include/linux/init.h, include/linux/compiler.h).

mod support;

use klpx_testkit::project::{CLANGS, GCC_12, Mode};
use support::Builds;

/// Macros that expand like `module_init` and `MODULE_INFO` with LTO: the names of symbols and sections contain a
/// counter and the line.
const MACROS: &str = r#"
#define PASTE_(a, b) a##b
#define PASTE(a, b) PASTE_(a, b)
#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)
#define INITCALL_(fn, id) \
    static int (*PASTE(PASTE(__initcall__, id), 6))(void) \
        __attribute__((used, section(".initcall6.init.." TEXT(id)))) = fn
#define INITCALL(fn) \
    INITCALL_(fn, PASTE(PASTE(PASTE(PASTE(PASTE(kmod_unit__, __COUNTER__), _), __LINE__), _), fn))
#define INFO(text) \
    static const char PASTE(__UNIQUE_ID_modinfo_, __COUNTER__)[] __attribute__((used, section(".modinfo"))) = text
"#;

fn unit(before: &str) -> String {
    format!(
        "{MACROS}{before}
        static int one(void) {{ return 1; }}
        INITCALL(one);
        static int two(void) {{ return 2; }}
        INITCALL(two);
        INFO(\"license=GPL\");
        INFO(\"author=nobody\");
        int used(int x) {{ return x; }}"
    )
}

#[test]
fn a_line_and_a_counter_in_a_name_are_no_difference() {
    let (original, patched) = (unit(""), unit("\n\nINFO(\"new=1\");\n\n"));
    let with = unit("\n\n\n");
    let mut how = vec![(GCC_12, Mode::Plain)];
    how.extend(
        CLANGS.iter().flat_map(|&tools| [Mode::Plain, Mode::Thin, Mode::Full].map(|mode| (tools, mode))),
    );
    for (tools, mode) in how {
        let build = |patched: &str| {
            Builds::new((tools, mode, &[]), &[("unit.c", original.as_str())], &[("unit.c", patched)])
        };
        for patched in [&with, &patched] {
            let builds = build(patched);
            let pair = builds.pair();
            assert_eq!(pair.changes(), (vec![], vec![]), "{tools:?} {mode:?}");
            assert_eq!(pair.unsettled(), [""; 0], "{tools:?} {mode:?}");
        }
    }
}

#[test]
fn an_initcall_of_another_function_is_a_difference() {
    let (original, patched) =
        (unit(""), unit("").replace("INITCALL(two);", "INITCALL(used_too);").replace("two", "used_too"));
    for tools in CLANGS {
        let builds = Builds::new(
            (tools, Mode::Thin, &[]),
            &[("unit.c", original.as_str())],
            &[("unit.c", patched.as_str())],
        );
        let (changed, removed) = builds.pair().changes();
        assert_eq!((changed.len(), removed.len()), (2, 2), "{changed:?} {removed:?}");
    }
}
