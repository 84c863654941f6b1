//! Functions that clang lays out in several sections by a profile: hot code, code that the profile never saw, clusters
//! of blocks.

use std::collections::BTreeSet;

use klpx_klp_emit::bind::Binding;
use klpx_klp_emit::image::Image;
use klpx_klp_emit::witness::Witness;
use klpx_normalize::elf::ElfFile;
use klpx_normalize::name::whole;
use klpx_normalize::object::Object;
use klpx_testkit::builds::Builds;
use klpx_testkit::fixture::{Fixture, X86_64_CLANG};
use klpx_testkit::kernel::Kernel;

/// The flags that AutoFDO (scripts/Makefile.autofdo) and Propeller (scripts/Makefile.propeller) give the compiler, and
/// the name of the piece of `busy`.
const LAYOUTS: [(&str, &[&str], &str); 2] = [
    (
        "busy:100000:1000
 0: 1000
 1: 10000
 2: 0
 3: 0
 4: 10000 quick:10000
 5: 1000
",
        &[
            "-fdebug-info-for-profiling",
            "-mllvm",
            "-enable-fs-discriminator=true",
            "-mllvm",
            "-improved-fs-discriminator=true",
            "-fsplit-machine-functions",
            "-fprofile-sample-use=",
        ],
        "busy.cold",
    ),
    ("v1\nf busy\nc 0 1\nc 2 3\n", &["-fbasic-block-sections=list="], "busy.__part.1"),
];

/// The profile counts lines 1 to 5 of `busy`.
fn text(seldom: u32, often: u32) -> String {
    format!(
        "extern int quick(int), slow(int); extern int value;
__attribute__((noinline)) int busy(int n) {{ int sum = 0;
for (int i = 0; i < n; i++) {{ if (i & 64) {{
sum += slow(i) * {seldom} + slow(i + 1) * 5 + slow(i + 2) * 7;
sum ^= slow(sum + value); }} else
sum += quick(i) * {often}; }}
return sum; }}
int calm(int n) {{ return busy(n) + slow(n); }}"
    )
}

/// The compiler's flags for a layout. The profile is in `folder`.
fn flags(folder: &tempfile::TempDir, (profile, flags, _): (&str, &[&'static str], &str)) -> Vec<String> {
    let path = folder.path().join("profile.txt");
    std::fs::write(&path, profile).expect("a profile");
    let with_path = |flag: &&str| match flag.ends_with('=') {
        true => format!("{flag}{}", path.display()),
        false => (*flag).to_owned(),
    };
    let traced = X86_64_CLANG.traced.iter().chain(&["-g", "-ffunction-sections"]);
    traced.chain(flags).map(with_path).collect()
}

fn kernel() -> Kernel {
    Kernel { exports: vec!["__fentry__"], defined: vec!["quick", "slow", "value"], ..Kernel::default() }
}

fn names(object: &Object<'_>) -> BTreeSet<String> {
    object.item_ids().map(|item| String::from_utf8_lossy(object.item_name(item)).into_owned()).collect()
}

#[test]
fn a_function_and_its_piece_are_replaced_together_whichever_of_them_changed() {
    for layout in LAYOUTS {
        let folder = tempfile::tempdir().expect("a folder");
        let flags = flags(&folder, layout);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let piece = layout.2;
        for patched in [text(1033, 2011), text(1003, 2055), text(1033, 2055)] {
            let builds = Builds::of(&X86_64_CLANG, &flags, &text(1003, 2011), &patched);
            let changed = builds.changed();
            assert!(
                !changed.is_empty() && changed.iter().all(|name| whole(name.as_bytes()) == b"busy"),
                "{changed:?}"
            );
            let emitted = builds.emit("vmlinux", &kernel()).expect("a livepatch");
            let replaced: Vec<&str> =
                emitted.plan.objects[0].functions.iter().map(|one| one.old.name.as_str()).collect();
            assert_eq!(replaced, ["busy"]);
            let module = ElfFile::from_bytes("livepatch.ko", builds.module_of(&emitted));
            let found = names(&Object::read(&module).expect("an object"));
            assert!(found.contains(piece) && !found.contains("calm"), "{found:?}");
            builds.verify("vmlinux", &kernel(), &module).expect("a sound module");
        }
    }
}

#[test]
fn each_piece_can_be_the_one_that_changed() {
    let folder = tempfile::tempdir().expect("a folder");
    let flags = flags(&folder, LAYOUTS[0]);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let changed = |patched: &str| Builds::of(&X86_64_CLANG, &flags, &text(1003, 2011), patched).changed();
    assert_eq!(changed(&text(1033, 2011)), ["busy.cold"]);
    assert_eq!(changed(&text(1003, 2055)), ["busy"]);
}

#[test]
fn a_piece_is_compared_with_the_shipped_kernel_s() {
    for layout in LAYOUTS {
        let folder = tempfile::tempdir().expect("a folder");
        let flags = flags(&folder, layout);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let fixture = Fixture::of(&X86_64_CLANG);
        let other = "int value; int quick(int x) { return x; } int slow(int x) { return x * 3; } void __fentry__(void) {}";
        fixture.compile("other", other, "other.o", &["-ffunction-sections"]);
        fixture.compile("unit", &text(1003, 2011), "unit.o", &flags);
        fixture.link(&["unit.o", "other.o"], "same");
        fixture.compile("unit", &text(1033, 2011), "changed.o", &flags);
        fixture.link(&["changed.o", "other.o"], "another");
        let differing = |image: &str| -> (usize, Vec<String>) {
            let (unit, image) = (fixture.open("unit.o"), fixture.open(image));
            let object = Object::read(&unit).expect("an object");
            let image = Image::read(&image, "vmlinux").expect("an image");
            let binding = Binding::new(&object, &image);
            let found = Witness::new(&binding).check_unit("unit.o");
            (found.agreed(), found.unexplained.iter().map(ToString::to_string).collect())
        };
        assert_eq!(differing("same"), (names_of_code(&fixture), vec![]));
        let (_, faults) = differing("another");
        assert!(!faults.is_empty(), "{}", layout.2);
    }
}

/// The number of functions and pieces of functions in the unit.
fn names_of_code(fixture: &Fixture) -> usize {
    let unit = fixture.open("unit.o");
    let object = Object::read(&unit).expect("an object");
    object.item_ids().filter(|&item| object.item(item).code).count()
}
