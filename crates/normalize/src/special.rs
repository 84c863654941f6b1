//! The special sections of an object: tables whose entries describe places in functions.
//!
//! Entry sizes differ between kernel versions. A form is accepted only if the section's size and the offsets of its
//! relocations fit the form exactly. A section that fits no form is an error, never a guess.

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Result, codes};
use object::elf;
use object::endian::LittleEndian as LE;

pub use crate::arch::{Policy, TableKind};
use crate::elf::{Elf, SectionId};

impl TableKind {
    /// Returns the size of the entries of a section of this kind, in bytes. The section's size and all its relocations
    /// fit the form. Two entries of a short form may look like one of a long form, so the shortest form whose entries
    /// all begin with a place in code wins.
    pub fn entry_size(&self, elf: &Elf<'_>, section: SectionId) -> Option<u8> {
        let size = elf.section_size(section);
        let fitting = || self.forms.iter().filter(|form| fits(elf, section, size, form));
        let shortest = fitting().rev().find(|form| begins_with_code(elf, section, form));
        shortest.or(fitting().next()).map(|&(size, _)| size)
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
