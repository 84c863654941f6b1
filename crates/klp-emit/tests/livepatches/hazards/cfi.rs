//! kCFI: the hash of a function's type, in the word before the entry or before the space that ftrace uses there.

use klpx_normalize::object::Object;
use klpx_testkit::builds::Builds;
use klpx_testkit::fixture::ARM64_CLANG;

use super::Livepatch;

const SOURCE: &str = r#"
extern int other(int);
#define SHARED __attribute__((section(".sched.text"), noinline))
SHARED int first(int x) { return other(x) + 1; }
SHARED int second(unsigned *x) { return other(*x) + 2; }
SHARED int third(int x) { return other(x) + 3; }
int alone(int x) { return other(x) + 4; }
"#;

/// Flags of a kernel with CFI, and with CFI and call operations (a combination that the kernel's own configuration
/// rules out), with the place of the hash.
const KINDS: [(&[&str], i64); 2] = [
    (&["-fsanitize=kcfi", "-fpatchable-function-entry=2", "-mbranch-protection=bti"], -4),
    (&["-fsanitize=kcfi", "-fpatchable-function-entry=4,2", "-falign-functions=8"], -12),
];

fn two_builds(flags: &[&str], from: &str, to: &str) -> Builds {
    Builds::of(&ARM64_CLANG, flags, SOURCE, &SOURCE.replace(from, to))
}

/// The word at `place` from the entry of a function of the patched build.
fn word(builds: &Builds, name: &str, place: i64) -> u32 {
    builds.with("vmlinux", |units| {
        let object: &Object<'_> = units[0].patched;
        let item = object.item_ids().find(|&id| object.item_name(id) == name.as_bytes()).expect("a function");
        let item = object.item(item);
        let at = item.entry.wrapping_add_signed(place);
        assert!(item.start <= at, "{name}: the hash is part of the function");
        super::words(object.range(item.section, at, at + 4))[0]
    })
}

#[test]
fn the_hash_comes_along_with_its_function() {
    for (flags, place) in KINDS {
        for (from, to, name) in
            [("+ 1", "+ 10", "first"), ("+ 2", "+ 20", "second"), ("+ 4", "+ 40", "alone")]
        {
            let builds = two_builds(flags, from, to);
            assert_eq!(builds.changed(), [name], "{flags:?}");
            let copied = Livepatch::of(&builds).words(name, place, place + 4);
            assert_eq!(copied, [word(&builds, name, place)], "{flags:?} {name}");
            assert_ne!(copied, [0], "{flags:?} {name}");
        }
    }
}

#[test]
fn a_hash_that_changed_is_a_change_of_its_function_alone() {
    for (flags, place) in KINDS {
        let builds = two_builds(flags, "second(unsigned *x)", "second(const unsigned *x)");
        assert_eq!(builds.changed(), ["second"], "{flags:?}");
        assert_eq!(
            Livepatch::of(&builds).words("second", place, place + 4),
            [word(&builds, "second", place)],
            "{flags:?}"
        );
        let before = two_builds(flags, "", "");
        assert_ne!(word(&before, "second", place), word(&builds, "second", place), "{flags:?}");
    }
}
