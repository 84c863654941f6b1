//! The correlation does not depend on the thread count or on the order in which the objects hold their items.

mod support;

use std::sync::OnceLock;

use klpx_testkit::project::{CLANG_22, File, GCC_12, Mode, Tools};
use support::{Builds, Pair};

fn file(n: usize, add: usize) -> String {
    format!(
        "static int state; static int table[{}];
        static __attribute__((noinline)) int helper(int x) {{ static int n; n += x; asm volatile(\"\"); return n + state + {add}; }}
        static __attribute__((noinline)) int twin(int x) {{ static int n; asm volatile(\"\"); return x + n++; }}
        int use_{n}(int x) {{ return helper(x) * 2 + twin(x) + table[x & 1]; }}
        void set_{n}(int x) {{ state = x; table[x & 1] = x; }}",
        2 + n % 3
    )
}

/// Returns the builds of each way to build, made once.
fn every() -> &'static [(String, Builds)] {
    static BUILDS: OnceLock<Vec<(String, Builds)>> = OnceLock::new();
    BUILDS.get_or_init(|| {
        HOW.map(|(tools, mode)| (format!("{} {mode:?}", tools.compiler), builds(tools, mode))).into()
    })
}

/// Several files with the same statics; in the patched build some files are edited, one is gone and one is new.
fn builds(tools: Tools, mode: Mode) -> Builds {
    let text = |n: usize, add: usize| (format!("d{n}/core.c"), file(n, add));
    let original: Vec<_> = (0..6).map(|n| text(n, n % 3)).collect();
    let mut patched: Vec<_> =
        (0..6).filter(|n| *n != 4).map(|n| text(n, if n == 2 { 9 } else { n % 3 })).collect();
    patched.insert(3, text(11, 1));
    fn borrow(files: &[(String, String)]) -> Vec<File<'_>> {
        files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect()
    }
    Builds::new((tools, mode, &[]), &borrow(&original), &borrow(&patched))
}

const HOW: [(Tools, Mode); 3] = [(GCC_12, Mode::Plain), (CLANG_22, Mode::Thin), (CLANG_22, Mode::Full)];

#[test]
fn the_thread_count_does_not_matter() {
    for (how, builds) in every() {
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| builds.pair().correlation)
        };
        let one = with(1);
        assert!(one.original_of.iter().flatten().count() > 30);
        for threads in [2, 5] {
            assert_eq!(one, with(threads), "{how}");
        }
    }
}

/// Returns for each static whether the pair is right, by the function that uses the static.
fn of_users(pair: &Pair<'_>) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    for n in (0..6).filter(|n| *n != 4) {
        for (user, base) in [("use", "helper"), ("use", "twin"), ("set", "state"), ("set", "table")] {
            let user = format!("{user}_{n}");
            found.push((format!("{user} {base}"), pair.same(&user, &user, base).is_some()));
        }
    }
    found
}

#[test]
fn every_static_is_found_among_its_likes() {
    for (how, builds) in every() {
        let pair = builds.pair();
        for (what, same) in of_users(&pair) {
            assert!(same, "{what} {how}");
        }
        for (user, base) in
            [("use_11", "helper"), ("use_11", "twin"), ("set_11", "state"), ("set_11", "table")]
        {
            let new = support::used_one(&pair.patched, user, base);
            assert_eq!(pair.of(new), None, "{user} {base} {how}");
        }
        // GCC's name of a function's static does not tell the function. After a link that compiles all files at once,
        // no name tells the file. Nothing is known of the source, so the static of the edited helper may be new.
        let open: &[&str] = match how.as_str() {
            "gcc-12 Plain" => &["n.0", "n.1", "n.1"],
            "clang-22 Full" => &["helper.n.11", "helper.n.17"],
            _ => &[],
        };
        assert_eq!(pair.unsettled(), open, "{how}");
    }
}

#[test]
fn an_object_is_the_same_as_itself() {
    for (how, builds) in every() {
        let itself =
            Builds { original: support::copy(&builds.original), patched: support::copy(&builds.original) };
        let pair = itself.pair();
        assert_eq!(pair.changes(), (vec![], vec![]), "{how}");
        assert_eq!(pair.unsettled(), [""; 0], "{how}");
    }
}
