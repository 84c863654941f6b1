//! Checks an original that was compiled with a section for each function and datum, where the kernel's own flags give
//! other code.
//!
//! Owns the ties between this stand-in and the witness, which was compiled with the kernel's own flags. Only the
//! witness can be compared with the kernel to be patched, and only the stand-in with the patched build. An item without
//! a tie, or bound to another symbol of the kernel than its witness, is a diagnosis. So is a function that calls
//! something which its witness does not call: the compiler then inlined or cloned differently, and the compared code is
//! not the code that runs.

use std::collections::BTreeSet;

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, codes};
use klpx_diff::Sources;
use klpx_normalize::object::{ItemId, Object, Target};
use object::elf;
use object::endian::LittleEndian as LE;

use crate::arch;
use crate::bind::Binding;
use crate::witness::Witness;

/// Checks items of the stand-in: their witnesses must equal the kernel's items, and each item must correspond to its
/// witness.
pub fn check(stand_in: &Binding<'_>, witness: &Binding<'_>, items: &[ItemId]) -> Vec<Diagnosis> {
    let ties = klpx_diff::correlate(witness.witness(), stand_in.witness(), Sources::Same);
    let stand_in_object = stand_in.witness();
    let tie = |item: ItemId| match ties.original_of.get(item.index()).copied().flatten() {
        Some((counterpart, _)) => Some(counterpart),
        None => same_name(stand_in_object, witness.witness(), item, &ties),
    };
    let mut faults = Vec::new();
    let mut witnesses = Vec::new();
    for &item in items {
        let Some(counterpart) = tie(item) else {
            faults.push(differs(
                stand_in_object,
                item,
                "the build with the kernel's own flags has no such symbol",
            ));
            continue;
        };
        witnesses.push(counterpart);
        let places = (stand_in.item_address(item), witness.item_address(counterpart));
        if let (Some(one), Some(other)) = places
            && one != other
        {
            let why =
                format!("it would be the kernel's symbol at {one:#x}, its witness is that at {other:#x}");
            faults.push(differs(stand_in_object, item, &why));
        }
        if stand_in_object.item(item).code
            && let Some(callee) = other_call(stand_in_object, witness.witness(), item, counterpart, &tie)
        {
            let why = format!("only one of its two builds calls {callee}");
            faults.push(differs(stand_in_object, item, &why));
        }
    }
    faults.extend(Witness::new(witness).check(&witnesses));
    faults
}

/// Ties an item that correlation leaves open. Correlation must assume two sources, but these are two builds of one
/// source: GCC numbers statics by the source alone, so the same number means the same static. Anchors hide the
/// references that would have decided.
fn same_name(
    stand_in_object: &Object<'_>,
    witness: &Object<'_>,
    item: ItemId,
    ties: &klpx_diff::Correlation,
) -> Option<ItemId> {
    let at = ties.unsettled.binary_search_by_key(&item, |unsettled| unsettled.patched).ok()?;
    let size = |object: &Object<'_>, item: ItemId| object.item(item).end - object.item(item).entry;
    let alike = |counterpart: &ItemId| {
        witness.item_name(*counterpart) == stand_in_object.item_name(item)
            && size(witness, *counterpart) == size(stand_in_object, item)
    };
    let mut found = ties.unsettled.get(at)?.candidates.iter().copied().filter(alike);
    found.next().filter(|_| found.next().is_none())
}

fn differs(object: &Object<'_>, item: ItemId, why: &str) -> Diagnosis {
    let what = "a symbol is not the same with a section of its own as in the kernel";
    Diagnosis::new(
        &codes::SECTION_BUILD_DIFFERS,
        what,
        why,
        "leave out the part of the patch that touches it",
    )
    .place(DiagnosisPlace::symbol(String::from_utf8_lossy(object.item_name(item))))
}

/// The name of a function that only one of two builds of a function calls.
fn other_call(
    stand_in_object: &Object<'_>,
    witness: &Object<'_>,
    item: ItemId,
    counterpart: ItemId,
    tie: &impl Fn(ItemId) -> Option<ItemId>,
) -> Option<String> {
    let mine = calls(stand_in_object, item);
    let others = calls(witness, counterpart);
    // The assembler resolves a call within one section without a relocation, unless the callee is global.
    let written_out = |callee: &Callee<'_>| {
        callee.item.is_some_and(|called| {
            let local =
                stand_in_object.elf.symbol_binding(stand_in_object.item(called).symbol) == elf::STB_LOCAL.0;
            let section = witness.item(counterpart).section;
            local && tie(called).is_some_and(|called| witness.item(called).section == section)
        })
    };
    let names = |callees: &BTreeSet<Callee<'_>>| -> BTreeSet<Vec<u8>> {
        callees.iter().map(|callee| callee.name.to_vec()).collect()
    };
    let only_mine = mine.iter().find(|callee| !names(&others).contains(callee.name) && !written_out(callee));
    let only_theirs = others.iter().find(|callee| !names(&mine).contains(callee.name));
    only_mine.or(only_theirs).map(|callee| String::from_utf8_lossy(callee.name).into_owned())
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Callee<'d> {
    name: &'d [u8],
    item: Option<ItemId>,
}

/// The targets of a function's calls and jumps, except the function itself.
fn calls<'d>(object: &Object<'d>, function: ItemId) -> BTreeSet<Callee<'d>> {
    let section = object.item(function).section;
    let code = object.elf.section_bytes(section);
    let branches = object.item_relocations(function).iter().filter(|rela| {
        let place = rela.r_offset.get(LE) as usize;
        object.relocation_kind(rela).is_some_and(|kind| arch::is_branch(object.arch, kind, code, place))
    });
    branches
        .filter_map(|rela| match object.resolve(section, rela) {
            Target::Item { item, .. } if item == function => None,
            Target::Item { item, .. } => Some(Callee { name: object.item_name(item), item: Some(item) }),
            Target::External { symbol, .. } => {
                Some(Callee { name: object.elf.symbol_name(symbol), item: None })
            }
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Image;
    use klpx_normalize::elf::ElfFile;
    use klpx_testkit::fixture::Fixture;

    const SOURCE: &str = "extern int other(int); static int total = 7;
        static int small(int x) { return other(x) + 1; }
        static __attribute__((noinline)) int near(int x) { asm(\"\"); return x + total++; }
        int user(int x) { return small(x) * 2; }
        int caller(int x) { return near(x) + near(3) + user(x); }";

    /// The faults of `function` when the stand-in is compiled with `flags`.
    fn faults(flags: &[&str], function: &str) -> Vec<String> {
        let f = Fixture::new();
        f.compile("one", SOURCE, "stand-in.o", flags);
        f.compile("one", SOURCE, "witness.o", &[]);
        f.compile("two", "int other(int x) { return x * 3; }", "two.o", &[]);
        f.link(&["witness.o", "two.o"], "vmlinux");
        let files = ["stand-in.o", "witness.o", "vmlinux"].map(|name| f.open(name));
        let object = |file| Object::read(file).expect("a sound object");
        let (ours, witness): (Object<'_>, Object<'_>) = (object(&files[0]), object(&files[1]));
        let image_file: &ElfFile = &files[2];
        let image = Image::read(image_file, "vmlinux").expect("a sound image");
        let item = ours.item_ids().find(|&id| ours.item_name(id) == function.as_bytes()).expect("a function");
        let bindings = (Binding::new(&ours, &image), Binding::new(&witness, &image));
        let said = check(&bindings.0, &bindings.1, &[item]);
        said.iter().map(|diagnosis| format!("{} {diagnosis}", diagnosis.code)).collect()
    }

    const SECTIONS: [&str; 2] = ["-ffunction-sections", "-fdata-sections"];

    #[test]
    fn sections_alone_make_no_difference() {
        for function in ["user", "caller", "near", "total"] {
            assert_eq!(faults(&SECTIONS, function), [""; 0], "{function}");
        }
    }

    #[test]
    fn what_is_compiled_otherwise_is_refused() {
        for (flag, function, why) in
            [("-fno-inline", "user", "calls other"), ("-Dnear=far", "far", "no such symbol")]
        {
            let said = faults(&[SECTIONS[0], SECTIONS[1], flag], function);
            let wanted =
                |text: &String| text.starts_with("klpx::section-build-differs") && text.contains(why);
            assert!(said.len() == 1 && said.iter().all(wanted), "{said:?}");
        }
    }

    /// The faults of a stand-in's `asked`. The kernel is made of these files, and the witness of the first `witnesses`
    /// of them. All files are assembly.
    fn said(stand_in: &str, kernel: &[&str], witnesses: usize, asked: &str) -> Vec<String> {
        let f = Fixture::new();
        let file = |text: &str| format!(".file \"a.c\"\n.text\n{}\n", text.replace("; ", "\n"));
        f.assemble("stand-in", &file(stand_in));
        let objects: Vec<String> = (0..kernel.len()).map(|n| format!("kernel{n}")).collect();
        objects.iter().zip(kernel).for_each(|(name, text)| f.assemble(name, &file(text)));
        let objects: Vec<String> = objects.iter().map(|name| format!("{name}.o")).collect();
        let objects: Vec<&str> = objects.iter().map(String::as_str).collect();
        f.combine(&objects[..witnesses], "witness.o");
        f.link(&objects, "vmlinux");
        let files = ["stand-in.o", "witness.o", "vmlinux"].map(|name| f.open(name));
        let object = |file| Object::read(file).expect("a sound object");
        let (ours, witness): (Object<'_>, Object<'_>) = (object(&files[0]), object(&files[1]));
        let image = Image::read(&files[2], "vmlinux").expect("a sound image");
        let item = ours.item_ids().find(|&id| ours.item_name(id) == asked.as_bytes()).expect("an item");
        let bindings = (Binding::new(&ours, &image), Binding::new(&witness, &image));
        let said = check(&bindings.0, &bindings.1, &[item]);
        said.iter().map(|diagnosis| format!("{} {diagnosis}", diagnosis.code)).collect()
    }

    /// A local variable of this size.
    fn variable(name: &str, size: u32) -> String {
        format!(
            ".section .data.{name},\"aw\"; .local {name}; .type {name},@object; {name}: .skip {size}; .size {name},{size}; "
        )
    }

    /// A function with this code, in this section.
    fn function(scope: &str, name: &str, section: &str, code: &str) -> String {
        format!(
            ".section {section},\"ax\"; .{scope} {name}; .type {name},@function; {name}: {code}; ret; .size {name},.-{name}; "
        )
    }

    #[test]
    fn a_variable_is_tied_by_its_name_and_size_or_not_at_all() {
        let two = |first: u32, second: u32| variable("x.1", first) + &variable("x.2", second);
        let none = "no such symbol";
        for (ours, theirs, wanted) in [
            (two(4, 4), vec![two(4, 4)], None),
            (two(4, 4), vec![two(8, 4) + &variable("x.3", 4)], Some(none)),
            (two(4, 4), vec![variable("x.5", 4) + &variable("x.6", 4)], Some(none)),
            (two(4, 4), vec![two(4, 4), two(4, 4)], Some(none)),
        ] {
            let texts: Vec<&str> = theirs.iter().map(String::as_str).collect();
            let found = said(&ours, &texts, texts.len(), "x.1");
            match wanted {
                None => assert_eq!(found, [""; 0], "{ours} {theirs:?}"),
                Some(why) => {
                    assert!(found.len() == 1 && found[0].contains(why), "{ours} {theirs:?}: {found:?}")
                }
            }
        }
    }

    #[test]
    fn another_symbol_of_the_kernel_is_found() {
        let twin = |more: &str| variable("twin", 4) + &variable(more, 4);
        let found = said(&twin("q"), &[&twin("p"), &twin("q")], 1, "twin");
        assert!(found.len() == 1 && found[0].contains("it would be the kernel's symbol at"), "{found:?}");
        assert_eq!(said(&twin("p"), &[&twin("p"), &twin("q")], 1, "twin"), [""; 0]);
    }

    #[test]
    fn calls_are_those_of_the_witness_but_for_those_that_the_assembler_wrote_out() {
        let near = |section: &str| function("local", "near", section, "nop");
        let user = |section: &str, code: &str| function("globl", "f", section, code);
        let away =
            function("globl", "away", ".text.away", "nop") + &function("globl", "far", ".text.far", "nop");
        for (ours, theirs, wanted) in [
            (user(".text.f", "call away"), user(".text", "call away"), None),
            (user(".text.f", "call away"), user(".text", "nop"), Some("calls away")),
            (user(".text.f", "nop"), user(".text", "call away"), Some("calls away")),
            (user(".text.f", "call away"), user(".text", "call far"), Some("calls away")),
            (
                near(".text.near") + &user(".text.f", "call near"),
                near(".text") + &user(".text", "call near"),
                None,
            ),
            (
                near(".text.near") + &user(".text.f", "call near"),
                near(".text.near") + &user(".text", "nop"),
                Some("calls near"),
            ),
        ] {
            let found = said(&ours, &[&theirs, &away], 1, "f");
            match wanted {
                None => assert_eq!(found, [""; 0], "{ours} {theirs}"),
                Some(why) => {
                    assert!(found.len() == 1 && found[0].contains(why), "{ours} {theirs}: {found:?}")
                }
            }
        }
    }

    #[test]
    fn a_witness_that_differs_from_the_kernel_is_said() {
        let number = |number: u32| function("globl", "f", ".text", &format!("mov ${number},%eax"));
        let f = Fixture::new();
        f.assemble("one", &number(1).replace("; ", "\n"));
        f.assemble("two", &number(2).replace("; ", "\n"));
        f.link(&["two.o"], "vmlinux");
        let files = ["one.o", "vmlinux"].map(|name| f.open(name));
        let object = Object::read(&files[0]).expect("a sound object");
        let image = Image::read(&files[1], "vmlinux").expect("a sound image");
        let binding = Binding::new(&object, &image);
        let item = object.item_ids().next().expect("a function");
        let codes: Vec<_> = check(&binding, &binding, &[item]).iter().map(|found| found.code).collect();
        assert_eq!(codes, ["klpx::kernel-differs"]);
    }
}
