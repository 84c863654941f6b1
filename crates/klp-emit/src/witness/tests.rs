//! Comparison of small objects with images that are made when a test runs.

use super::*;
use crate::fixture::Fixture;
use klpx_normalize::elf::ElfFile;

const ONE: &str = "extern int other(int); extern const char *pick(int);
    static __attribute__((noinline)) int twin(int x) { asm(\"\"); return x + 0x111; }
    int tail(int x) { return twin(x * 3); }
    int total = 7; static const char *words[] = { \"alpha\", \"beta\" };
    const char *pick(int n) { return words[n & 1]; }
    const char *name(void) { return \"a name of its own\"; }
    int one(int x) { total += twin(x); return x ? other(x) : 0; }
    int choose(int x) { switch (x) { case 0: return total; case 1: return other(1); case 2: return twin(4);
        case 3: return other(9); case 4: return one(5); case 5: return one(77); case 6: return twin(-1); } return x; }";
const TWO: &str = "static __attribute__((noinline)) int twin(int x) { asm(\"\"); return x + 0x222; }
    int other(int x) { return twin(x) * 3; }";

fn build(flags: &[&str]) -> Fixture {
    let f = Fixture::new();
    f.compile("one", ONE, "one.o", flags);
    f.compile("two", TWO, "two.o", flags);
    f.compile("one", ONE, "kernel1.o", &[]);
    f.compile("two", TWO, "kernel2.o", &[]);
    f.combine(&["one.o", "two.o"], "witness.o");
    f.link(&["kernel1.o", "kernel2.o"], "vmlinux");
    f
}

/// Every named item with what the comparison says.
fn results(f: &Fixture, image: &ElfFile) -> Vec<(String, Result<Agreement, Mismatch>)> {
    let witness = f.open("witness.o");
    let object = Object::read(&witness).expect("a sound object");
    let image = Image::read(image, "vmlinux").expect("a sound image");
    let binding = Binding::new(&object, &image);
    let check = Witness::new(&binding);
    let name = |id| String::from_utf8_lossy(object.item_name(id)).into_owned();
    object.item_ids().map(|id| (name(id), check.compare(id))).collect()
}

/// The file offset of an image's function.
fn offset_of(f: &Fixture, function: &str) -> usize {
    let file = f.open("vmlinux");
    let image = Image::read(&file, "vmlinux").expect("a sound image");
    let id = image.named(function.as_bytes()).next().expect("a function");
    let address = image.address(id).expect("an address");
    let bytes = image.bytes_from(address).expect("code");
    bytes.as_ptr() as usize - image.elf.data().as_ptr() as usize
}

#[test]
fn the_same_build_agrees_in_everything() {
    let f = build(&[]);
    for (name, result) in results(&f, &f.open("vmlinux")) {
        assert_eq!(result, Ok(Agreement::Identical), "{name}");
    }
}

#[test]
fn sections_of_their_own_change_no_more_than_branch_lengths() {
    let f = build(&["-ffunction-sections", "-fdata-sections"]);
    let all = results(&f, &f.open("vmlinux"));
    for (name, result) in &all {
        assert!(result.is_ok(), "{name}: {result:?}");
    }
    assert!(all.iter().any(|(_, r)| *r == Ok(Agreement::Branches)), "{all:?}");
}

#[test]
fn one_changed_byte_of_code_is_found_in_its_function() {
    for flags in [&[][..], &["-ffunction-sections", "-fdata-sections"]] {
        let f = build(flags);
        let at = offset_of(&f, "twin");
        // lea 0x111(%rdi), %eax: the last bytes are the number
        let image = f.changed("vmlinux", |bytes| {
            let place = bytes[at..].windows(2).position(|w| w == [0x11, 0x01]).expect("the number");
            bytes[at + place] ^= 1;
        });
        let differing: Vec<String> =
            results(&f, &image).into_iter().filter(|(_, r)| r.is_err()).map(|(name, _)| name).collect();
        assert_eq!(differing, ["twin"], "{flags:?}");
    }
}

#[test]
fn a_call_that_leads_elsewhere_is_found() {
    let f = build(&["-ffunction-sections"]);
    let (from, to) = (offset_of(&f, "other"), offset_of(&f, "twin"));
    let image = f.changed("vmlinux", |bytes| {
        let call = from + bytes[from..].iter().position(|&b| b == 0xe8).expect("a call");
        let displacement = (to as i64 - (call as i64 + 5)) as i32;
        bytes[call + 1..call + 5].copy_from_slice(&displacement.to_le_bytes());
    });
    let differing: Vec<_> = results(&f, &image).into_iter().filter(|(_, r)| r.is_err()).collect();
    assert!(
        matches!(&differing[..], [(name, Err(Mismatch::Reference { .. }))] if name == "other"),
        "{differing:?}"
    );
}

#[test]
fn a_changed_string_is_found_in_those_who_refer_to_it() {
    let f = build(&[]);
    let change = |from: &'static [u8]| {
        f.changed("vmlinux", |bytes| {
            let at = bytes.windows(from.len()).position(|w| w == from).expect("the string");
            bytes[at] ^= 0x20;
        })
    };
    let differing = |image: &ElfFile| -> Vec<String> {
        results(&f, image).into_iter().filter(|(_, r)| r.is_err()).map(|(name, _)| name).collect()
    };
    assert_eq!(differing(&change(b"a name of its own")), ["name"]);
    assert_eq!(differing(&change(b"beta\0")), ["words"]);
}

#[test]
fn a_diagnosis_names_the_function_and_another_build_is_called_so() {
    let f = build(&[]);
    let at = offset_of(&f, "other");
    let codes = |image: &ElfFile| -> Vec<(&'static str, Option<String>)> {
        let witness = f.open("witness.o");
        let object = Object::read(&witness).expect("a sound object");
        let image = Image::read(image, "vmlinux").expect("a sound image");
        let binding = Binding::new(&object, &image);
        let all: Vec<ItemId> = object.item_ids().collect();
        Witness::new(&binding).check(&all).into_iter().map(|d| (d.code, d.place.symbol)).collect()
    };
    let image = f.changed("vmlinux", |bytes| bytes[at] ^= 0xff);
    assert_eq!(codes(&image), [("klpx::kernel-differs", Some("other".to_owned()))]);
    f.compile(
        "one",
        &ONE.replace("0x111", "0x333").replace("total += ", "total -= ").replace("77", "78"),
        "k1.o",
        &[],
    );
    f.compile("two", &TWO.replace("* 3", "* 5"), "k2.o", &[]);
    f.link(&["k1.o", "k2.o"], "foreign");
    let found = codes(&f.open("foreign"));
    assert_eq!(found[0].0, "klpx::another-build", "{found:?}");
}

#[test]
fn what_names_the_build_may_differ_and_nothing_else() {
    let f = Fixture::new();
    let source = |who: &str| {
        format!(
            "char linux_proc_banner[] = \"by {who}\"; char motto[] = \"by {who}\"; int f(void) {{ return motto[0]; }}"
        )
    };
    f.compile("one", &source("klpx"), "one.o", &[]);
    f.compile("one", &source("someone else"), "kernel.o", &[]);
    f.combine(&["one.o"], "witness.o");
    f.link(&["kernel.o"], "vmlinux");
    let image = f.open("vmlinux");
    let results = results(&f, &image);
    let of = |name: &str| results.iter().find(|(n, _)| n == name).map(|(_, r)| r.clone());
    assert_eq!(of("linux_proc_banner"), Some(Ok(Agreement::BuildIdentity)));
    assert_eq!(of("motto"), Some(Err(Mismatch::Size { kernel: 16, ours: 8 })));
    assert_eq!(of("f"), Some(Ok(Agreement::Identical)));
}
