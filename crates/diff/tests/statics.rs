//! Static variables of functions: GCC numbers all of them, Clang only those that share a name in one function.

mod support;

use klpx_diff::{Edits, ItemEvidence, LineState, Sources};
use klpx_testkit::project::{CLANG_22, CLANGS, GCC_12, Mode, Tools};
use support::{Builds, Pair, used, used_one};

fn build(tools: Tools, original: &str, patched: &str) -> Builds {
    Builds::new((tools, Mode::Plain, &[]), &[("unit.c", original)], &[("unit.c", patched)])
}

/// Each function has a static `n` of its own.
const COUNTERS: &str = "
int first(int x) { static int n; n += x; return n; }
int second(int x) { static int n; n ^= x; return n; }
int third(int x) { static int n; n -= x; return n; }
";

#[test]
fn a_function_added_before_them_renumbers_the_rest() {
    let patched = format!("int added(int x) {{ static int n; n |= x; return n; }}\n{COUNTERS}");
    let builds = build(GCC_12, COUNTERS, &patched);
    let pair = builds.pair();
    for user in ["first", "second", "third"] {
        assert_eq!(pair.same(user, user, "n"), Some(ItemEvidence::Reference), "{user}");
    }
    assert_eq!(pair.of(used_one(&pair.patched, "added", "n")), None);
    assert_eq!(pair.unsettled(), [""; 0]);
}

#[test]
fn the_order_of_the_functions_does_not_matter() {
    let mut lines: Vec<&str> = COUNTERS.trim().lines().collect();
    lines.reverse();
    for tools in [GCC_12, CLANG_22] {
        let builds = build(tools, COUNTERS, &lines.join("\n"));
        let pair = builds.pair();
        for user in ["first", "second", "third"] {
            let base = if tools == GCC_12 { "n".to_owned() } else { format!("{user}.n") };
            let evidence = if tools == GCC_12 { ItemEvidence::Reference } else { ItemEvidence::FileAndName };
            assert_eq!(pair.same(user, user, &base), Some(evidence), "{user}");
        }
        assert_eq!(pair.changes(), (vec![], vec![]));
    }
}

/// Two statics of one name, one size and one initial value in one function.
const TWINS: &str = "extern int out(int);
int twins(int x) {
    if (x > 100) { static int n; n += 3; out(n); }
    out(x);
    if (x < -100) { static int n; n ^= x; out(n * 2); }
    return EDIT;
}";

fn twin_bases(tools: Tools) -> &'static str {
    if tools == GCC_12 { "n" } else { "twins.n" }
}

#[test]
fn twins_of_one_function_are_told_by_their_declarations() {
    for tools in [GCC_12, CLANGS[0], CLANGS[1], CLANGS[2]] {
        let patched = TWINS.replace("EDIT", "out(x) + out(x + 7)");
        let (builds, kept) = Builds::numbered(tools, &TWINS.replace("EDIT", "x"), &patched);
        let pair = builds.pair_of(Sources::Edited(&kept));
        let base = twin_bases(tools);
        let (theirs, ours) = (used(&pair.original, "twins", base), used(&pair.patched, "twins", base));
        assert_eq!((theirs.len(), ours.len()), (2, 2));
        // GCC may emit the blocks in a different order than the source, but in the same order in both builds.
        for (x, y) in theirs.into_iter().zip(ours) {
            assert_eq!(pair.of(y), Some((x, ItemEvidence::Declaration)), "{tools:?}");
        }
        // The code around the statics proves nothing: the edit may have put another variable in the place of one.
        assert_eq!(builds.pair().unsettled().len(), 2, "{tools:?}");
    }
}

#[test]
fn a_twin_that_went_and_one_that_came_do_not_inherit() {
    // The first block goes, and a new block with a static of the same name comes behind. The former second static is
    // now the first.
    let patched = TWINS
        .replace("if (x > 100) { static int n; n += 3; out(n); }", "")
        .replace("return EDIT", "if (x == 5) { static int n; n = n * 5 + 1; out(n ^ 9); } return x");
    for tools in [GCC_12, CLANGS[0], CLANGS[1], CLANGS[2]] {
        let builds = build(tools, &TWINS.replace("EDIT", "x"), &patched);
        let pair = builds.pair();
        check_inheritance(&pair, twin_bases(tools));
    }
}

/// Only the second static of the original may live on; a static without a pair is unsettled.
fn check_inheritance(pair: &Pair<'_>, base: &str) {
    let (theirs, ours) = (used(&pair.original, "twins", base), used(&pair.patched, "twins", base));
    assert_eq!((theirs.len(), ours.len()), (2, 2));
    let kept: Vec<_> = ours.iter().filter_map(|&y| pair.of(y)).map(|of| of.0).collect();
    assert!(kept.is_empty() || kept == [theirs[1]], "{kept:?} of {theirs:?}");
    assert_eq!(pair.correlation.unsettled.len(), 2 - kept.len());
}

/// `fn` is inlined into `outer` or not, as `KEEP` says.
const INLINED: &str = "extern int out(int);
static KEEP int fn(int x) { static int n; n += x; return out(n); }
int outer(int x) { return fn(x) + EDIT; }
int other(int x) { static int n; n ^= x; return n; }";

#[test]
fn a_static_follows_its_function_into_another() {
    let (kept, inlined) = ("__attribute__((noinline))", "inline __attribute__((always_inline))");
    for (from, to) in [(kept, inlined), (inlined, kept)] {
        let text =
            |keep: &str, edit: &str| INLINED.replace("KEEP", &format!("{keep}\n")).replace("EDIT", edit);
        let (builds, edits) = Builds::numbered(GCC_12, &text(from, "0"), &text(to, "x * 3"));
        let user = |keep: &str| if keep == kept { "fn" } else { "outer" };
        let pair = builds.pair_of(Sources::Edited(&edits));
        let evidence = pair.same(user(from), user(to), "n");
        assert_eq!(evidence, Some(ItemEvidence::Declaration), "{from} to {to}");
        assert_eq!(pair.unsettled(), [""; 0]);
        let pair = builds.pair();
        assert_eq!(pair.same(user(from), user(to), "n"), None);
        assert_eq!(pair.same("other", "other", "n"), Some(ItemEvidence::Reference));
        assert_eq!(pair.unsettled().len(), 1);
    }
}

/// The line that declares a static stays, but moves to a different function.
#[test]
fn a_static_does_not_follow_its_line_into_another_function() {
    let text = |first: &str, second: &str| {
        format!(
            "extern int out(int);\nint a(int x) {{\n{first}return out(x); }}\nint b(int x) {{\n{second}return x; }}\n"
        )
    };
    let n = "static int n; n += out(x);\n";
    for tools in [GCC_12, CLANG_22] {
        let (builds, kept) = Builds::numbered(tools, &text(n, ""), &text("", n));
        let pair = builds.pair_of(Sources::Edited(&kept));
        let base = if tools == GCC_12 { "n" } else { "b.n" };
        let n = used_one(&pair.patched, "b", base);
        assert_eq!((pair.of(n), pair.correlation.is_unsettled(n)), (None, true), "{tools:?}");
    }
}

/// The code is the same, but the inlined function is a different one, with a variable of that name.
#[test]
fn a_static_of_another_inlined_function_is_another_one() {
    let text = |name: &str| {
        format!(
            "static inline __attribute__((always_inline)) int {name}(int x) {{\nstatic int n; n += x; return n; }}
            int f(int x) {{\nreturn {name}(x); }}\n"
        )
    };
    for (name, same) in [("a", true), ("b", false)] {
        let (builds, kept) = Builds::numbered(GCC_12, &text("a"), &text(name));
        let pair = builds.pair_of(Sources::Edited(&kept));
        let n = used_one(&pair.patched, "f", "n");
        assert_eq!((pair.of(n).is_some(), pair.correlation.is_unsettled(n)), (same, !same), "{name}");
    }
}

/// Both sources have each line, and other lines that read the same.
struct Repeated;

impl Edits for Repeated {
    fn original(&self, _file: &str, _line: u32) -> LineState {
        LineState::KeptOneOfSeveral
    }

    fn patched(&self, _file: &str, _line: u32, _name: &str) -> LineState {
        LineState::KeptOneOfSeveral
    }
}

#[test]
fn a_line_that_stands_several_times_tells_the_only_static_of_its_function() {
    let one = TWINS.replace("if (x < -100) { static int n; n ^= x; out(n * 2); }", "");
    for (source, paired) in [(one.as_str(), 1), (TWINS, 0)] {
        let patched = source.replace("EDIT", "out(x) + out(x + 7)");
        let (builds, _) = Builds::numbered(GCC_12, &source.replace("EDIT", "x"), &patched);
        let pair = builds.pair_of(Sources::Edited(&Repeated));
        let ours = used(&pair.patched, "twins", "n");
        let evidence = ours.iter().filter_map(|&y| pair.of(y)).map(|of| of.1);
        assert_eq!(evidence.collect::<Vec<_>>(), vec![ItemEvidence::Declaration; paired]);
        assert_eq!(pair.unsettled().len(), ours.len() - paired);
    }
}

#[test]
fn a_declaration_without_a_line_tells_nothing() {
    let text = |line: u32, edit: &str| {
        format!(
            "extern int out(int);\nint f(int x) {{\n#line {line}\nstatic int n; n += out(x{edit}); return n; }}\n"
        )
    };
    for (line, same) in [(7, true), (0, false)] {
        let build = |edit: &str| text(line, edit);
        let builds = Builds::new(
            (GCC_12, Mode::Plain, &["-g"]),
            &[("unit.c", &build(""))],
            &[("unit.c", &build(" + 1"))],
        );
        let pair = builds.pair_of(Sources::Same);
        let n = used_one(&pair.patched, "f", "n");
        assert_eq!((pair.of(n).is_some(), pair.correlation.is_unsettled(n)), (same, !same), "line {line}");
    }
}

/// The declaration itself is edited: the name may now belong to a different variable.
#[test]
fn a_static_that_is_declared_anew_is_told_by_code_that_stays() {
    let text = |start: &str, edit: &str| {
        format!("extern int out(int);\nint a(int x) {{\n{start}\nn += out(x{edit}); return n; }}\n")
    };
    for tools in [GCC_12, CLANG_22] {
        let base = if tools == GCC_12 { "n" } else { "a.n" };
        let before = text("static int n;", "");
        for (edit, same) in [("", true), (" + 1", false)] {
            let (builds, kept) = Builds::numbered(tools, &before, &text("static int m, n;", edit));
            let pair = builds.pair_of(Sources::Edited(&kept));
            let n = used_one(&pair.patched, "a", base);
            assert_eq!((pair.of(n).is_some(), pair.correlation.is_unsettled(n)), (same, !same), "{tools:?}");
        }
    }
}

#[test]
fn a_static_of_a_function_that_went_is_not_inherited_by_one_that_never_called_it() {
    let original = "extern int out(int);
        int gone(int x) { static int n; n += x; return out(n); }
        int stays(int x) { return out(x); }";
    let patched = "extern int out(int);
        int stays(int x) { static int n; n += x; return out(x + n); }";
    let builds = build(GCC_12, original, patched);
    let pair = builds.pair();
    let n = used_one(&pair.patched, "stays", "n");
    assert_eq!(pair.of(n), None);
    assert!(pair.correlation.is_unsettled(n), "the file had such a static, and has one");
    // Clang's name tells the function of the static, not where the static went.
    let builds = build(CLANG_22, original, patched);
    let pair = builds.pair();
    let n = used_one(&pair.patched, "stays", "stays.n");
    assert_eq!((pair.of(n), pair.correlation.is_unsettled(n)), (None, true));
}

#[test]
fn a_static_of_the_file_is_not_one_of_a_function() {
    let text = |edit: &str| {
        format!(
            "int f(int x) {{ static int n;
            n += x; {edit} return n; }}
            static int n;
            int g(int x) {{ n ^= x; return n; }}"
        )
    };
    let (builds, kept) = Builds::numbered(GCC_12, &text(""), &text("n *= 2;"));
    let pair = builds.pair_of(Sources::Edited(&kept));
    assert_eq!(pair.same("g", "g", "n"), Some(ItemEvidence::FileAndName));
    assert_eq!(pair.same("f", "f", "n"), Some(ItemEvidence::Declaration));
}

/// Two versions of `f`, each for one constant. GCC numbers them in the order in which it made them.
const VERSIONS: &str = "int out(int);
__attribute__((noinline)) static int f(int a, int k) { int s = 0; for (int i = 0; i < k; i++) s += out(a + i) * k; return s; }
";

#[test]
fn versions_of_a_function_are_told_by_their_callers() {
    let callers = [
        "int seven(int x) { return f(x, 7) + f(x + 1, 7); }",
        "int nine(int x) { return f(x, 9) ^ f(x + 1, 9); }",
    ];
    let text = |order: [usize; 2]| format!("{VERSIONS}{}\n{}", callers[order[0]], callers[order[1]]);
    let builds = Builds::new(
        (GCC_12, Mode::Plain, &["-O3", "-fno-inline", "-fipa-cp-clone"]),
        &[("unit.c", &text([0, 1]))],
        &[("unit.c", &text([1, 0]))],
    );
    let pair = builds.pair();
    let (theirs, ours) = (used_one(&pair.original, "seven", "f"), used_one(&pair.patched, "seven", "f"));
    assert_ne!(pair.original.item_name(theirs), pair.patched.item_name(ours), "the numbers changed places");
    for user in ["seven", "nine"] {
        assert_eq!(pair.same(user, user, "f"), Some(ItemEvidence::Reference), "{user}");
    }
    assert_eq!(pair.changes(), (vec![], vec![]));
}
