//! An original that was compiled with a section for each function and datum, where the kernel's own flags give other
//! code.
//!
//! Owns the ties between that stand-in and the witness, which the kernel's own flags gave: only the witness can be
//! compared with the kernel to be patched, only the stand-in with the patched build. An item that is tied to none, or
//! to another symbol of the kernel than its witness, is a diagnosis; so is a function that calls what its witness does
//! not: then the compiler inlined or cloned otherwise, and what is compared is not what runs.

use std::collections::BTreeSet;

use klpx_diagnosis::{Class, Diagnosis, Place};
use klpx_diff::Sources;
use klpx_normalize::object::{ItemId, Object, Target};
use object::elf;
use object::endian::LittleEndian as LE;

use crate::arch;
use crate::bind::Binding;
use crate::witness::Witness;

/// Checks items of the stand-in: their witnesses are as in the kernel, and they are what their witnesses are.
pub fn check(stand_in: &Binding<'_>, witness: &Binding<'_>, items: &[ItemId]) -> Vec<Diagnosis> {
    let ties = klpx_diff::correlate(witness.witness(), stand_in.witness(), Sources::Same);
    let ours = stand_in.witness();
    let tie = |item: ItemId| match ties.original_of.get(item.index()).copied().flatten() {
        Some((theirs, _)) => Some(theirs),
        None => same_name(ours, witness.witness(), item, &ties),
    };
    let mut faults = Vec::new();
    let mut witnesses = Vec::new();
    for &item in items {
        let Some(theirs) = tie(item) else {
            faults.push(differs(ours, item, "the build with the kernel's own flags has no such symbol"));
            continue;
        };
        witnesses.push(theirs);
        let places = (stand_in.item_address(item), witness.item_address(theirs));
        if let (Some(one), Some(other)) = places
            && one != other
        {
            let why =
                format!("it would be the kernel's symbol at {one:#x}, its witness is that at {other:#x}");
            faults.push(differs(ours, item, &why));
        }
        if ours.item(item).code
            && let Some(callee) = other_call(ours, witness.witness(), item, theirs, &tie)
        {
            let why = format!("only one of its two builds calls {callee}");
            faults.push(differs(ours, item, &why));
        }
    }
    faults.extend(Witness::new(witness).check(&witnesses));
    faults
}

/// What correlation leaves open between two sources is clear between two builds of one: GCC numbers statics by the
/// source alone, so that the same number is the same static. Anchors hide the references that would have told.
fn same_name(
    ours: &Object<'_>,
    witness: &Object<'_>,
    item: ItemId,
    ties: &klpx_diff::Correlation,
) -> Option<ItemId> {
    let at = ties.unsettled.binary_search_by_key(&item, |unsettled| unsettled.patched).ok()?;
    let size = |object: &Object<'_>, item: ItemId| object.item(item).end - object.item(item).entry;
    let alike = |theirs: &ItemId| {
        witness.item_name(*theirs) == ours.item_name(item) && size(witness, *theirs) == size(ours, item)
    };
    let mut found = ties.unsettled.get(at)?.candidates.iter().copied().filter(alike);
    found.next().filter(|_| found.next().is_none())
}

fn differs(object: &Object<'_>, item: ItemId, why: &str) -> Diagnosis {
    let what = "a symbol is not the same with a section of its own as in the kernel";
    Diagnosis::new("klpx::section-build-differs", Class::Verification, what)
        .place(Place::symbol(String::from_utf8_lossy(object.item_name(item))))
        .why(why)
        .remedy("leave out the part of the patch that touches it")
}

/// A function that only one of two builds of one function calls.
fn other_call(
    ours: &Object<'_>,
    witness: &Object<'_>,
    item: ItemId,
    theirs: ItemId,
    tie: &impl Fn(ItemId) -> Option<ItemId>,
) -> Option<String> {
    let mine = calls(ours, item);
    let others = calls(witness, theirs);
    // The assembler leaves no relocation for a call within one section, unless the function is global.
    let written_out = |callee: &Callee<'_>| {
        callee.item.is_some_and(|called| {
            let local = ours.elf.symbol_binding(ours.item(called).symbol) == elf::STB_LOCAL.0;
            let section = witness.item(theirs).section;
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

/// What a function's calls and jumps lead to, itself aside.
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
    use crate::fixture::Fixture;
    use crate::image::Image;
    use klpx_normalize::elf::ElfFile;

    const SOURCE: &str = "extern int other(int); static int total = 7;
        static int small(int x) { return other(x) + 1; }
        static __attribute__((noinline)) int near(int x) { asm(\"\"); return x + total++; }
        int user(int x) { return small(x) * 2; }
        int caller(int x) { return near(x) + near(3) + user(x); }";

    /// What is said of `function` when the stand-in is compiled with `flags`.
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
}
