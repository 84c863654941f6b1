//! Tells whether functions equal those of another kernel, such as the distribution's next one, which contains the same
//! fix.
//!
//! Owns a comparison by name, of code outside the relocated fields of both sides. Does not know what references mean,
//! so equal code may still refer to something else.

use std::collections::BTreeMap;

use klpx_normalize::arch::Arch;
use klpx_normalize::elf::{Elf, SectionId};
use klpx_normalize::lifetime::Lifetime;
use object::elf;
use object::endian::LittleEndian as LE;

use crate::{arch, branches, field};

/// The other kernel's function of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SuccessorVerdict {
    /// The same code.
    Equal,
    /// The code differs. The sizes are those of the function that was asked for, and of the other kernel's function
    /// nearest in size.
    Differs {
        /// The size of the function that was asked for.
        unit_size: usize,
        /// The size of the other kernel's function.
        image_size: usize,
    },
    /// The other kernel has no function of this name.
    Absent,
}

/// A function's code with the fields that relocations write, each as place and length.
struct MaskedBody<'d> {
    code: &'d [u8],
    fields: Vec<(usize, usize)>,
    arch: Option<Arch>,
}

/// Compares all functions of an object or a module with those of the same name in an image: a linked vmlinux or a
/// shipped module. The result is in the order of names; if several functions share a name, each is compared separately.
pub fn compare(unit_elf: &Elf<'_>, image: &Elf<'_>) -> Vec<(String, SuccessorVerdict)> {
    let image_bodies = bodies(image, &|_| true);
    let mut found = Vec::new();
    for (name, list) in bodies(unit_elf, &|section| !is_gone(unit_elf.section_name(section))) {
        let others = image_bodies.get(name).map_or(&[][..], Vec::as_slice);
        for body in &list {
            let verdict = if others.iter().any(|other| equal(body, other)) {
                SuccessorVerdict::Equal
            } else {
                let nearest = others.iter().min_by_key(|other| other.code.len().abs_diff(body.code.len()));
                nearest.map_or(SuccessorVerdict::Absent, |other| SuccessorVerdict::Differs {
                    unit_size: body.code.len(),
                    image_size: other.code.len(),
                })
            };
            found.push((String::from_utf8_lossy(name).into_owned(), verdict));
        }
    }
    found
}

/// Returns true for code that has run or will never run: it need not be in an image.
fn is_gone(section: &[u8]) -> bool {
    Lifetime::of(section) != Lifetime::Kept
}

/// The functions of a file by name.
fn bodies<'d>(elf: &Elf<'d>, wanted: &dyn Fn(SectionId) -> bool) -> BTreeMap<&'d [u8], Vec<MaskedBody<'d>>> {
    let fields = fields(elf);
    let arch = Arch::of_machine(elf.machine()).ok();
    let mut found: BTreeMap<&[u8], Vec<MaskedBody<'_>>> = BTreeMap::new();
    for id in elf.symbol_ids().filter(|&id| elf.symbol_type(id) == elf::STT_FUNC.0) {
        let Some(section) = elf.symbol_section(id).filter(|&section| wanted(section)) else { continue };
        let base = if elf.file_type() == elf::ET_REL.0 { 0 } else { elf.section(section).sh_addr.get(LE) };
        let start = elf.symbol_value(id).wrapping_sub(base) as usize;
        let end = start.saturating_add(elf.symbol_size(id) as usize);
        let Some(code) = elf.section_bytes(section).get(start..end).filter(|code| !code.is_empty()) else {
            continue;
        };
        let all = fields.get(&section).map_or(&[][..], Vec::as_slice);
        let inside =
            &all[all.partition_point(|&(at, _)| at < start)..all.partition_point(|&(at, _)| at < end)];
        let fields = inside.iter().map(|&(at, length)| (at - start, length)).collect();
        found.entry(elf.symbol_name(id)).or_default().push(MaskedBody { code, fields, arch });
    }
    found
}

/// The relocated fields of each section of a relocatable file, by place, including livepatch relocations.
fn fields(elf: &Elf<'_>) -> BTreeMap<SectionId, Vec<(usize, usize)>> {
    let mut found: BTreeMap<SectionId, Vec<(usize, usize)>> = BTreeMap::new();
    let Ok(arch) = Arch::of_machine(elf.machine()) else { return found };
    if elf.file_type() != elf::ET_REL.0 {
        return found;
    }
    for table in elf.section_ids().filter(|&id| elf.section_type(id) == elf::SHT_RELA.0) {
        let list = found.entry(SectionId(elf.section(table).sh_info.get(LE))).or_default();
        for rela in elf.rela_table(table) {
            let length = arch.relocation(rela.r_type(LE, false).0).map_or(0, field::length);
            list.push((rela.r_offset.get(LE) as usize, length as usize));
        }
    }
    found.values_mut().for_each(|list| list.sort_unstable());
    found
}

fn equal(unit_body: &MaskedBody<'_>, image_body: &MaskedBody<'_>) -> bool {
    let alike = unit_body.code.len() == image_body.code.len()
        && masked(unit_body, image_body) == masked(image_body, unit_body);
    alike
        || unit_body.arch.is_some_and(arch::branch_lengths_vary)
            && unit_body.arch == image_body.arch
            && same_instructions(unit_body, image_body)
}

/// The code with the fields of both bodies set to zero.
fn masked(body: &MaskedBody<'_>, other: &MaskedBody<'_>) -> Vec<u8> {
    let mut code = body.code.to_vec();
    for &(at, length) in body.fields.iter().chain(&other.fields) {
        let end = (at + length).min(code.len());
        code.get_mut(at..end).unwrap_or_default().fill(0);
    }
    code
}

/// Compares instructions, ignoring the lengths of branches and no-operations, which the assembler chooses by the rest
/// of the section.
fn same_instructions(unit_body: &MaskedBody<'_>, image_body: &MaskedBody<'_>) -> bool {
    let relocated =
        |from: u64, to: u64| unit_body.fields.iter().any(|&(at, _)| (from..to).contains(&(at as u64)));
    let Some(pairs) = branches::pair(unit_body.code, image_body.code, &relocated) else { return false };
    pairs.iter().all(|pair| {
        if pair.branch {
            let leads_out = unit_body.fields.iter().any(|&(at, _)| pair.holds(at as u64));
            return leads_out || pairs.same_internal_target(pair);
        }
        pair.same_bytes(unit_body.code, image_body.code, |at| {
            let own = unit_body.fields.iter().find(|&&(field, _)| field as u64 == at);
            let there = at.wrapping_sub(pair.witness_start).wrapping_add(pair.image_start);
            let other = image_body.fields.iter().find(|&&(field, _)| field as u64 == there);
            own.or(other).map(|&(_, length)| length as u64)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use klpx_testkit::fixture::Fixture;

    const SOURCE: &str = "extern int other(int); static int total = 7;
        static __attribute__((noinline)) int near(int x) { asm(\"\"); return x + total++; }
        int calls(int x) { return near(x * 3) + near(2) + other(x); }
        int edited(int x) { return x * NUMBER; }
        int only(int x) { return x; }
        __attribute__((section(\".init.text\"))) int gone(int x) { return x * NUMBER; }";
    const OTHER: &str = "int padding(int x) { return x; } int other(int x) { return x * 9; }";

    /// The verdicts on the unit, against an image of a source with another number.
    fn said(number: u32, make_image: impl FnOnce(&Fixture)) -> Vec<(String, SuccessorVerdict)> {
        let f = Fixture::new();
        f.compile("one", SOURCE, "unit.o", &["-DNUMBER=3", "-ffunction-sections", "-fdata-sections"]);
        let source = SOURCE.replace("int only(int x) { return x; }", "");
        f.compile("one", &source, "one.o", &[&format!("-DNUMBER={number}")]);
        f.compile("two", OTHER, "two.o", &[]);
        make_image(&f);
        let (unit, image) = (f.open("unit.o"), f.open("image"));
        compare(&unit.parse().expect("an object"), &image.parse().expect("an image"))
    }

    #[test]
    fn functions_are_compared_by_name_outside_fields() {
        let images: [fn(&Fixture); 2] =
            [|f| f.link(&["two.o", "one.o"], "image"), |f| f.combine(&["two.o", "one.o"], "image")];
        for image in images {
            let expected = |edited| {
                let all = [
                    ("calls", SuccessorVerdict::Equal),
                    ("edited", edited),
                    ("near", SuccessorVerdict::Equal),
                    ("only", SuccessorVerdict::Absent),
                ];
                all.map(|(name, verdict)| (name.to_owned(), verdict)).to_vec()
            };
            assert_eq!(said(3, image), expected(SuccessorVerdict::Equal));
            let other = said(1000, image);
            assert!(matches!(other[1].1, SuccessorVerdict::Differs { .. }), "{other:?}");
            assert_eq!(other, expected(other[1].1));
        }
    }

    #[test]
    fn other_numbers_and_other_ways_are_other_code() {
        assert!(
            matches!(
                said(5, |f| f.link(&["two.o", "one.o"], "image"))[1].1,
                SuccessorVerdict::Differs { .. }
            ),
            "of one length"
        );
        let f = Fixture::new();
        let text = |jump: &str| {
            format!(".globl f\n.type f,@function\nf: {jump}\n1: inc %eax\n2: ret\n.size f,.-f\n")
        };
        for (unit, image, wanted) in
            [("{disp32} jmp 2f", "jmp 2f", true), ("{disp32} jmp 2f", "jmp 1f", false)]
        {
            f.assemble("unit", &text(unit));
            f.assemble("image", &text(image));
            let (unit, image) = (f.open("unit.o"), f.open("image.o"));
            let found = compare(&unit.parse().expect("an object"), &image.parse().expect("an object"));
            assert_eq!(found[0].1 == SuccessorVerdict::Equal, wanted);
        }
    }
}
