//! Special sections: tables whose entries describe places in functions. The facts are in one table for each
//! architecture.
//!
//! Entry sizes differ between kernel versions. A form is accepted only if the section's size and the offsets of its
//! relocations fit the form exactly. A section that fits no form is an error, never a guess.

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Result, codes};
use object::elf;
use object::endian::LittleEndian as LE;

use crate::arch::Arch;
use crate::elf::{Elf, SectionId};

/// What a livepatch does with the special-section entries of a function that it contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Copied into the module's section of the same name, which the module loader or a notifier reads.
    Carry,
    /// Not copied: the function works without the entry. The text says what is lost.
    Drop(&'static str),
    /// Placeholders that only boot code patches: the module's code must be rewritten to read the variable.
    RuntimeConstant,
    /// Code with these entries can't be copied. The text says why.
    Refuse(&'static str),
}

/// A kind of special section.
#[derive(Debug)]
pub struct TableKind {
    /// Section name, or its start if the text ends with `*`.
    pub name: &'static str,
    /// Entry forms: size in bytes, and the offsets in an entry where a relocation may stand. The first offset always
    /// has a relocation, which names the place in the function.
    pub forms: &'static [(u8, &'static [u8])],
    /// What a livepatch does with the entries.
    pub policy: Policy,
    /// A section with as many entries, without relocations, and the size of its entries: `.orc_unwind`.
    pub companion: Option<(&'static str, u8)>,
    /// True if the entries count in a comparison of two functions.
    pub compared: bool,
}

const fn table(
    name: &'static str,
    forms: &'static [(u8, &'static [u8])],
    policy: Policy,
    compared: bool,
) -> TableKind {
    TableKind { name, forms, policy, companion: None, compared }
}

use Policy::{Carry, Drop, Refuse, RuntimeConstant};

/// Tables of every architecture: asm/jump_label.h, include/linux/kprobes.h, include/asm-generic/error-injection.h,
/// asm/runtime-const.h, include/linux/printk.h.
static COMMON: [TableKind; 6] = [
    table("__jump_table", &[(16, &[0, 4, 8])], Carry, true),
    table("_kprobe_blacklist", &[(8, &[0])], Carry, false),
    table("_error_injection_whitelist", &[(16, &[0]), (12, &[0])], Drop("no error injection"), false),
    table("runtime_ptr_*", &[(4, &[0])], RuntimeConstant, true),
    table(
        "runtime_shift_*",
        &[(4, &[0])],
        Refuse("a runtime constant shift is patched by boot code only, and a module can't have one"),
        true,
    ),
    table(".printk_index", &[(8, &[0])], Drop("messages are not in the printk index"), false),
];

/// arch/x86: asm/alternative.h, asm/bug.h, asm/orc_types.h; tools/objtool/check.c writes the `*_sites` tables.
static X86_64: [TableKind; 16] = [
    table(".altinstructions", &[(14, &[0, 4]), (12, &[0, 4])], Carry, true),
    table("__bug_table", &[(16, &[0, 4, 8]), (12, &[0, 4]), (8, &[0])], Carry, true),
    table("__ex_table", &[(12, &[0, 4, 8])], Carry, true),
    table(".static_call_sites", &[(8, &[0, 4])], Carry, true),
    table(".retpoline_sites", &[(4, &[0])], Carry, true),
    table(".return_sites", &[(4, &[0])], Carry, true),
    table(".call_sites", &[(4, &[0])], Carry, true),
    table(".cfi_sites", &[(4, &[0])], Carry, false),
    table(".ibt_endbr_seal", &[(4, &[0])], Drop("the function keeps its ENDBR"), false),
    table(".smp_locks", &[(4, &[0])], Drop("LOCK prefixes stay on a machine with one CPU"), true),
    table(".parainstructions", &[(16, &[0])], Carry, true),
    table(".kcfi_traps", &[(4, &[0])], Carry, true),
    TableKind {
        name: ".orc_unwind_ip",
        forms: &[(4, &[0])],
        policy: Carry,
        companion: Some((".orc_unwind", 6)),
        compared: true,
    },
    table("__mcount_loc", &[(8, &[0])], Carry, true),
    table("__patchable_function_entries", &[(8, &[0])], Drop("call padding is not rewritten"), false),
    table(".tramp_sites", &[(4, &[0])], Drop("trampolines stay direct"), false),
];

/// arch/arm64: asm/alternative-macros.h, asm/asm-bug.h, asm/asm-extable.h.
static ARM64: [TableKind; 4] = [
    table(".altinstructions", &[(12, &[0, 4])], Carry, true),
    table("__bug_table", &[(12, &[0, 4]), (8, &[0])], Carry, true),
    table("__ex_table", &[(12, &[0, 4])], Carry, true),
    table("__patchable_function_entries", &[(8, &[0])], Carry, true),
];

impl TableKind {
    fn matches(&self, name: &[u8]) -> bool {
        match self.name.strip_suffix('*') {
            Some(start) => name.starts_with(start.as_bytes()),
            None => name == self.name.as_bytes(),
        }
    }

    /// Returns every kind that an architecture has.
    pub fn all(arch: Arch) -> impl Iterator<Item = &'static TableKind> {
        let tables: &'static [TableKind] = match arch {
            Arch::X86_64 => &X86_64,
            Arch::Arm64 => &ARM64,
        };
        tables.iter().chain(&COMMON)
    }

    /// Returns the kind of the section with this name, if it is a special section.
    pub fn of(arch: Arch, name: &[u8]) -> Option<&'static TableKind> {
        TableKind::all(arch).find(|table| table.matches(name))
    }

    /// Returns the size of the entries of a section of this kind, in bytes. The section's size and all its relocations
    /// fit the form. Two entries of a short form may look like one of a long form, so the shortest form whose entries
    /// all begin with a place in code wins.
    pub fn entry_size(&self, elf: &Elf<'_>, section: SectionId) -> Option<u8> {
        let size = elf.section_size(section);
        let fitting = || self.forms.iter().filter(|form| fits(elf, section, size, form));
        let shortest = fitting().rev().find(|form| begins_with_code(elf, section, form));
        shortest.or(fitting().next()).map(|&(size, _)| size)
    }

    /// Returns true if a section of this name is the companion of a table.
    pub fn is_companion(arch: Arch, name: &[u8]) -> bool {
        arch == Arch::X86_64 && name == b".orc_unwind"
    }
}

/// A special section of one object.
#[derive(Clone, Copy, Debug)]
pub struct SpecialTable {
    /// The kind of the section.
    pub kind: &'static TableKind,
    /// The section.
    pub section: SectionId,
    /// The companion section, where the kind has one.
    pub companion: Option<SectionId>,
    /// Size of an entry in bytes.
    pub entry_size: u32,
}

impl SpecialTable {
    /// Finds the entry form that fits a section.
    pub(crate) fn read(elf: &Elf<'_>, section: SectionId, kind: &'static TableKind) -> Result<SpecialTable> {
        let size = elf.section_size(section);
        let name = || String::from_utf8_lossy(elf.section_name(section)).into_owned();
        let Some(entry_size) = kind.entry_size(elf, section) else {
            return Err(Diagnosis::new(
                &codes::SPECIAL_SECTION_FORM,
                "an unknown entry form",
                format!("its {size} bytes and relocations fit no form of this table that klpx knows"),
                "this kernel is newer than klpx, or the object is damaged: report the kernel version",
            )
            .place(DiagnosisPlace::symbol(name()))
            .into());
        };
        let entry_size = u32::from(entry_size);
        let companion = match kind.companion {
            None => None,
            Some((other, stride)) => {
                let other = elf.section_by_name(other.as_bytes());
                let agree = other.is_some_and(|id| {
                    elf.section_size(id) * u64::from(entry_size) == size * u64::from(stride)
                });
                if !agree {
                    return Err(Diagnosis::new(
                        &codes::SPECIAL_SECTION_FORM,
                        "two tables disagree",
                        "it and its companion section have different numbers of entries",
                        "this kernel is newer than klpx, or the object is damaged: report the kernel version",
                    )
                    .place(DiagnosisPlace::symbol(name()))
                    .into());
                }
                other
            }
        };
        Ok(SpecialTable { kind, section, companion, entry_size })
    }

    /// Returns how many entries a section of `size` bytes has.
    pub fn count(&self, size: u64) -> u32 {
        (size / u64::from(self.entry_size)) as u32
    }
}

/// Returns true if the first relocation of every entry names a place in code.
fn begins_with_code(elf: &Elf<'_>, section: SectionId, &(entry, offsets): &(u8, &[u8])) -> bool {
    let is_first = |at: u64| at % u64::from(entry) == u64::from(offsets[0]);
    elf.relocations(section).iter().filter(|rela| is_first(rela.r_offset.get(LE))).all(|rela| {
        let named = elf.rela_symbol(rela).and_then(|symbol| elf.symbol_section(symbol));
        named.is_some_and(|named| elf.section_flags(named) & elf::SHF_EXECINSTR.0 != 0)
    })
}

/// Returns true if every entry has a relocation at the form's first offset, and none at an offset that the form does
/// not name.
fn fits(elf: &Elf<'_>, section: SectionId, size: u64, &(entry, offsets): &(u8, &[u8])) -> bool {
    let entry = u64::from(entry);
    if !size.is_multiple_of(entry) {
        return false;
    }
    let mut places = 0;
    for rela in elf.relocations(section) {
        let at = rela.r_offset.get(LE) % entry;
        if !offsets.iter().any(|&o| u64::from(o) == at) {
            return false;
        }
        places += u64::from(at == u64::from(offsets[0]));
    }
    places == size / entry
}
