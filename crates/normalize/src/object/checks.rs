//! The faults of an object for which it is refused.

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Result, codes};
use object::endian::LittleEndian as LE;

use super::{Object, Role};
use crate::elf::Definition;

impl Object<'_> {
    /// Checks that every relocation of a loaded section has a symbol that exists, a place inside the section, and a target
    /// that is loaded too. The relocations of sections that are not loaded are neither checked nor sorted.
    pub(super) fn check_relocations(&self) -> Result<()> {
        for id in self.elf.section_ids() {
            if self.role(id) == Role::Unloaded {
                continue;
            }
            let size = self.elf.section_size(id);
            for rela in self.elf.relocations(id) {
                let offset = rela.r_offset.get(LE);
                let section = || String::from_utf8_lossy(self.elf.section_name(id));
                let fault = match self.elf.rela_symbol(rela).map(|symbol| self.elf.definition(symbol)) {
                    None => {
                        self.bad(format!("a relocation of {} names a symbol that does not exist", section()))
                    }
                    Some(_) if offset >= size => {
                        self.bad(format!("a relocation of {} lies outside its section", section()))
                    }
                    Some(Definition::Section(target)) if self.role(target) == Role::Unloaded => self
                        .reference_to_unloaded(
                            &section(),
                            &String::from_utf8_lossy(self.elf.section_name(target)),
                        ),
                    Some(_) => continue,
                };
                return Err(fault.into());
            }
        }
        Ok(())
    }

    /// Checks that functions and data lie in their section: the contents would be unknown outside. Labels may lie
    /// anywhere.
    pub(super) fn check_symbols(&self) -> Result<()> {
        for id in self.elf.symbol_ids() {
            let Definition::Section(section) = self.elf.definition(id) else { continue };
            let outside = self.elf.symbol_value(id) > self.elf.section_size(section);
            if outside && self.elf.symbol_size(id) > 0 && self.role(section) != Role::Unloaded {
                let name = String::from_utf8_lossy(self.elf.symbol_name(id)).into_owned();
                return Err(self.bad(format!("{name} lies outside its section")).into());
            }
        }
        Ok(())
    }

    fn bad(&self, what: String) -> Diagnosis {
        Diagnosis::new(
            &codes::BAD_ELF,
            what,
            "the object is damaged, or its tables contradict each other",
            "build the object again",
        )
        .place(DiagnosisPlace::file(self.name.clone(), None))
    }

    fn reference_to_unloaded(&self, section: &str, target: &str) -> Diagnosis {
        Diagnosis::new(
            &codes::UNKNOWN_SECTION,
            format!("{section} refers to {target}, a section that is not loaded"),
            "the kernel's memory does not hold the target of the reference",
            "look for a section attribute or inline assembly in the patch, and use a section that is loaded",
        )
        .place(DiagnosisPlace::file(self.name.clone(), None))
    }
}
