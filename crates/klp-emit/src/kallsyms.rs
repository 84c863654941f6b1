//! The symbol table that the running kernel searches, read from kallsyms' tables in the image.
//!
//! Owns which names the kernel knows, and the order in which it finds equal ones. Because the image's own tables are
//! read, no rule is needed about what a kernel version leaves out. Such rules (scripts/mksysmap) serve only for an
//! image without the tables.
//!
//! Format: scripts/kallsyms.c and kernel/kallsyms.c. A name is a string of tokens, preceded by its length in one or two
//! bytes; its first character is nm's type letter. Offsets have three forms: relative to their own place (7.2),
//! relative to `kallsyms_relative_base`, and relative to the base with non-negative offsets for absolute per-cpu
//! symbols (x86_64 before 6.15). A form is accepted only if its addresses match the symbol table.
//!
//! The format, with a dump: `docs/formats/kallsyms.md`.

pub(crate) mod table;

use std::cmp::Ordering;

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Result, codes};
use klpx_normalize::elf::Definition;
use object::elf;

use crate::image::kernel_object::Image;
use table::Kallsyms;

/// The longest name including the type letter: KSYM_NAME_LEN (include/linux/kallsyms.h) counts a NUL.
const NAME: usize = 512;
/// The longest text of all names. A distribution's kernel has a thirtieth of this size.
const TEXT: usize = 256 << 20;

/// Reads the tables of a linked image.
pub(crate) fn read(image: &Image<'_>) -> Result<Kallsyms> {
    let mut table = match Tables::find(image) {
        Some(tables) => tables.decode(image).ok_or_else(|| {
            Diagnosis::new(
                &codes::KALLSYMS_FORM,
                "the kernel's own symbol table can't be read",
                "its kallsyms tables are of no form that klpx knows, or damaged",
                "check the integrity of this vmlinux; if it is whole, report the kernel version",
            )
            .place(DiagnosisPlace::file(image.path(), None))
        })?,
        None => by_rules(image),
    };
    table.index();
    Ok(table)
}

/// The symbols that scripts/mksysmap and scripts/kallsyms.c keep of a symbol table, for an image without kallsyms
/// tables.
fn by_rules(image: &Image<'_>) -> Kallsyms {
    let mut kept: Vec<(u64, &[u8])> = (image.elf.symbol_ids())
        .filter(|&id| image.elf.symbol_type(id) < elf::STT_SECTION.0)
        .filter(|&id| matches!(image.elf.definition(id), Definition::Section(_)))
        .map(|id| (image.elf.symbol_value(id), image.elf.symbol_name(id)))
        .filter(|(_, name)| !name.is_empty() && !LEFT_OUT.iter().any(|start| name.starts_with(start)))
        .collect();
    kept.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
    let mut table = Kallsyms::empty();
    for (address, name) in kept {
        table.push(address, name);
    }
    table
}

/// Prefixes of names that scripts/mksysmap (7.2) leaves out, limited to those in an x86_64 or arm64 vmlinux.
const LEFT_OUT: [&[u8]; 13] = [
    b"$",
    b".L",
    b"__efistub_",
    b"__pi_$",
    b"__pi_.L",
    b"__kvm_nvhe_$",
    b"__kvm_nvhe_.L",
    b"__kcfi_typeid_",
    b"__AArch64",
    b"__crc_",
    b"__kstrtab_",
    b"__kstrtabns_",
    b"__mod_device_table__",
];

/// The tables in the image; each slice extends to the end of its section.
struct Tables<'k> {
    count: usize,
    names: &'k [u8],
    tokens: &'k [u8],
    token_index: &'k [u8],
    offsets: &'k [u8],
    offsets_address: u64,
    base: u64,
    by_name: Option<&'k [u8]>,
}

/// How an offset becomes an address.
#[derive(Clone, Copy)]
enum OffsetForm {
    OwnPlace,
    Base,
    BaseOrPerCpu,
}

fn u16_at(bytes: &[u8], n: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(n * 2..n * 2 + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], n: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(n * 4..n * 4 + 4)?.try_into().ok()?))
}

impl<'k> Tables<'k> {
    fn find(image: &Image<'k>) -> Option<Tables<'k>> {
        let address = |name: &[u8]| image.named(name).next().and_then(|id| image.address(id));
        let bytes = |name: &[u8]| image.bytes_from(address(name)?);
        let base = bytes(b"kallsyms_relative_base")
            .and_then(|b| Some(u64::from_le_bytes(b.get(..8)?.try_into().ok()?)))
            .filter(|&base| base != 0)
            .or_else(|| address(b"_text"))?;
        Some(Tables {
            count: u32_at(bytes(b"kallsyms_num_syms")?, 0)? as usize,
            names: bytes(b"kallsyms_names")?,
            tokens: bytes(b"kallsyms_token_table")?,
            token_index: bytes(b"kallsyms_token_index")?,
            offsets: bytes(b"kallsyms_offsets")?,
            offsets_address: address(b"kallsyms_offsets")?,
            base,
            by_name: bytes(b"kallsyms_seqs_of_names"),
        })
    }

    fn decode(&self, image: &Image<'_>) -> Option<Kallsyms> {
        let tokens = self.token_slices()?;
        let mut table = Kallsyms::empty();
        let mut rest = self.names;
        let mut name = Vec::new();
        for _ in 0..self.count {
            name.clear();
            rest = expand(rest, &tokens, &mut name)?;
            if table.text.len() + name.len() > TEXT {
                return None;
            }
            table.push(0, name.get(1..)?);
        }
        let form = [OffsetForm::OwnPlace, OffsetForm::Base, OffsetForm::BaseOrPerCpu]
            .into_iter()
            .find(|&form| self.fits(form, image, &table))?;
        for n in 0..self.count {
            table.entries[n].address = self.address(form, n)?;
        }
        table.strips_promoted = self.sorted_by_stripped_name(&table);
        Some(table)
    }

    fn token_slices(&self) -> Option<Vec<&'k [u8]>> {
        (0..256)
            .map(|n| {
                let rest = self.tokens.get(usize::from(u16_at(self.token_index, n)?)..)?;
                Some(&rest[..rest.iter().position(|&b| b == 0)?])
            })
            .collect()
    }

    fn address(&self, form: OffsetForm, n: usize) -> Option<u64> {
        let offset = u32_at(self.offsets, n)?;
        let signed = i64::from(offset as i32);
        Some(match form {
            OffsetForm::OwnPlace => (self.offsets_address + n as u64 * 4).wrapping_add_signed(signed),
            OffsetForm::Base => self.base.wrapping_add(u64::from(offset)),
            OffsetForm::BaseOrPerCpu if signed >= 0 => signed as u64,
            OffsetForm::BaseOrPerCpu => self.base.wrapping_sub(1).wrapping_sub(signed as u64),
        })
    }

    /// Returns true if a sample of names, spread over the table, has the addresses that the symbol table gives.
    fn fits(&self, form: OffsetForm, image: &Image<'_>, table: &Kallsyms) -> bool {
        let step = (self.count / 257).max(1);
        let mut tried = 0;
        for n in (0..self.count).step_by(step) {
            let Some(address) = self.address(form, n) else { return false };
            let mut known = image.named(table.raw_name(n)).peekable();
            if known.peek().is_none() {
                continue;
            }
            tried += 1;
            if !known.any(|id| image.address(id) == Some(address)) {
                return false;
            }
        }
        tried > 0
    }

    /// Returns true if this kernel compares names without `.llvm.<hash>`: its table by name is then sorted that way. If
    /// both orders fit the table, either order gives the same result, or the kernel keeps the names (6.1, 6.11 on).
    fn sorted_by_stripped_name(&self, table: &Kallsyms) -> bool {
        let Some(by_name) = self.by_name else { return false };
        let mut previous: Option<usize> = None;
        for chunk in by_name.chunks_exact(3).take(self.count) {
            let n = usize::from(chunk[0]) << 16 | usize::from(chunk[1]) << 8 | usize::from(chunk[2]);
            if n >= self.count {
                return false;
            }
            if let Some(before) = previous {
                let order = table.raw_name(before).cmp(table.raw_name(n)).then(before.cmp(&n));
                if order != Ordering::Less {
                    return true;
                }
            }
            previous = Some(n);
        }
        false
    }
}

/// Appends one compressed name to `out` and returns what follows it.
fn expand<'k>(data: &'k [u8], tokens: &[&[u8]], out: &mut Vec<u8>) -> Option<&'k [u8]> {
    let (&first, mut rest) = data.split_first()?;
    let mut length = usize::from(first);
    if first & 0x80 != 0 {
        let (&second, after) = rest.split_first()?;
        length = usize::from(first & 0x7f) | usize::from(second) << 7;
        rest = after;
    }
    for &token in rest.get(..length)? {
        out.extend_from_slice(tokens.get(usize::from(token))?);
        if out.len() > NAME {
            return None;
        }
    }
    rest.get(length..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::VMLINUX;
    use klpx_testkit::fixture::Fixture;

    #[test]
    fn a_name_is_no_longer_than_the_kernels_can_be() {
        let token = [b'x'; 100];
        let tokens = vec![&token[..]; 256];
        let expanded = |count: u8| {
            let data: Vec<u8> =
                std::iter::once(count).chain(std::iter::repeat_n(7, usize::from(count))).collect();
            let mut name = Vec::new();
            expand(&data, &tokens, &mut name).map(|_| name.len())
        };
        assert_eq!((expanded(5), expanded(6), expanded(127)), (Some(500), None, None));
    }

    /// Four functions in address order.
    const FUNCTIONS: [&str; 4] = ["f.llvm.9", "f", "g", "f"];

    /// An image of these functions with kallsyms tables: one token per character, with `by_name` as the order by name.
    /// The second `f` is from another file, directly after the others.
    fn source(offset: &str, by_name: [u8; 4], count: u32) -> String {
        let mut text = String::from(".text\n.globl _text\n_text: .skip 16\n");
        let (mut names, mut offsets) = (String::new(), String::new());
        for (n, name) in FUNCTIONS.iter().enumerate() {
            let label = if n == 3 { "_text + 64".to_owned() } else { format!("\"{name}\"") };
            if n < 3 {
                text += &format!(".type {label}, @function\n{label}: .skip 16\n");
            }
            let bytes: Vec<String> = format!("t{name}").bytes().map(|b| b.to_string()).collect();
            names += &format!(".byte {}, {}\n", bytes.len(), bytes.join(", "));
            offsets += &format!(".long {}\n", offset.replace('@', &label));
        }
        let tokens: String = (0..256).map(|b| format!(".byte {}, 0\n", b.max(1))).collect();
        let index: String = (0..256).map(|n| format!(".short {}\n", n * 2)).collect();
        let order: String = by_name.iter().map(|n| format!(".byte 0, 0, {n}\n")).collect();
        let tables = [
            ("num_syms", format!(".long {count}\n")),
            ("names", names),
            ("token_table", tokens),
            ("token_index", index),
            ("offsets", offsets),
            ("relative_base", ".quad _text\n".to_owned()),
            ("seqs_of_names", order),
        ];
        text += ".section .rodata, \"a\"\n";
        for (name, body) in tables {
            text += &format!(".balign 8\n.globl kallsyms_{name}\nkallsyms_{name}:\n{body}");
        }
        text
    }

    /// Names and positions of the first three functions, or the code of the failure.
    fn positions(
        offset: &str,
        by_name: [u8; 4],
        count: u32,
    ) -> Vec<std::result::Result<(String, u32), &'static str>> {
        let f = Fixture::new();
        f.assemble("one", &source(offset, by_name, count));
        f.assemble("two", ".type f, @function\nf: .skip 16\n");
        f.link(&["one.o", "two.o"], "vmlinux");
        let file = f.open("vmlinux");
        let image = Image::read(&file, VMLINUX).expect("a sound image");
        let named = |name: &str| {
            let id = image.named(name.as_bytes()).next().expect("a function");
            let position = image.position(id).map_err(|e| e.diagnoses().next().map_or("", |d| d.code))?;
            Ok((position.name, position.sympos))
        };
        ["f.llvm.9", "f", "g"].map(named).into_iter().collect()
    }

    const RAW: [u8; 4] = [1, 3, 0, 2];
    const STRIPPED: [u8; 4] = [0, 1, 3, 2];

    #[test]
    fn every_form_of_offsets_is_read() {
        for form in ["@ - .", "@ - _text", "-1 - (@ - _text)"] {
            let got = positions(form, RAW, 4);
            let want = [Ok(("f.llvm.9".into(), 0)), Ok(("f".into(), 1)), Ok(("g".into(), 0))];
            assert_eq!(got, want, "{form}");
        }
    }

    #[test]
    fn a_kernel_that_strips_promoted_names_is_known_by_its_table() {
        let got = positions("@ - .", STRIPPED, 4);
        assert_eq!(got, [Ok(("f".into(), 1)), Ok(("f".into(), 2)), Ok(("g".into(), 0))]);
    }

    #[test]
    fn damaged_tables_are_an_error() {
        for (offset, count) in [("@ - .", 400_000), ("@ - . + 1", 4), ("0", 4)] {
            assert!(
                positions(offset, RAW, count).iter().all(|r| *r == Err("klpx::kallsyms-form")),
                "{offset} {count}"
            );
        }
    }
}
