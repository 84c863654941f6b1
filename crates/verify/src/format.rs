//! Checks that relocation sections have the form that the module loader and the livepatch core accept
//! (kernel/module/main.c, kernel/livepatch/core.c, arch/*/kernel/module.c).
//!
//! The format, with a dump: `docs/formats/livepatch-module.md`.

use std::collections::BTreeSet;

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, codes};
use klpx_normalize::arch::FieldKind;
use klpx_normalize::elf::{Definition, SHF_RELA_LIVEPATCH, SectionId};
use object::elf;
use object::endian::LittleEndian as LE;

use crate::{LoadCheck, VMLINUX, fault, inspect};

impl LoadCheck<'_, '_> {
    /// Checks the sections that the module has to bring, because the loader fills them: for example, with branches that
    /// reach far.
    pub(crate) fn check_needed_sections(&mut self) {
        for &name in self.arch.module_sections() {
            if self.elf.section_by_name(name.as_bytes()).is_none() {
                let why =
                    "the kernel refuses a module without it; its linker script, scripts/module.lds, makes it";
                self.faults.push(
                    fault(&codes::VERIFY_FORMAT, "a section that the loader needs is missing", why)
                        .place(DiagnosisPlace::symbol(name)),
                );
            }
        }
    }

    pub(crate) fn check_sections(&mut self) {
        let mut written: BTreeSet<(SectionId, u64)> = BTreeSet::new();
        for table in self.elf.section_ids().filter(|&id| self.elf.section_type(id) == elf::SHT_RELA.0) {
            if let Err(found) = self.check_table(table, &mut written) {
                let name = String::from_utf8_lossy(self.elf.section_name(table)).into_owned();
                self.faults.push(found.place(DiagnosisPlace::symbol(name)));
            }
        }
    }

    fn check_table(
        &mut self,
        table: SectionId,
        written: &mut BTreeSet<(SectionId, u64)>,
    ) -> Result<(), Diagnosis> {
        let bad = |what: &str, why: &str| Err(fault(&codes::VERIFY_RELOCATION, what, why));
        let header = self.elf.section(table);
        let target = SectionId(header.sh_info.get(LE));
        let livepatch = self.elf.section_flags(table) & SHF_RELA_LIVEPATCH != 0;
        if target.0 == 0 || target.index() >= self.elf.section_count() {
            return bad("relocations for a section that does not exist", "sh_info is wrong");
        }
        if Some(SectionId(header.sh_link.get(LE))) != self.elf.symbol_table() {
            return bad("relocations with another symbol table", "sh_link is wrong");
        }
        let name = String::from_utf8_lossy(self.elf.section_name(table)).into_owned();
        let object = match inspect::parse_section(&name) {
            Some(object) if livepatch => Some(object),
            None if !livepatch && !name.starts_with(".klp.") => None,
            _ => {
                return bad(
                    "a livepatch relocation section without the proper name or flag",
                    "the kernel refuses or ignores it",
                );
            }
        };
        if let Some(object) = object {
            let want =
                format!(".klp.rela.{object}.{}", String::from_utf8_lossy(self.elf.section_name(target)));
            if name != want {
                return bad("a livepatch relocation section for another section than its name says", &want);
            }
            if self.elf.section_flags(table) & elf::SHF_ALLOC.0 == 0 {
                return bad("a livepatch relocation section that is not loaded", "it lacks SHF_ALLOC");
            }
        }
        if self.elf.section_flags(target) & elf::SHF_ALLOC.0 == 0 {
            return Ok(());
        }
        self.check_relocations(table, target, object, written)
    }

    fn check_relocations(
        &mut self,
        table: SectionId,
        target: SectionId,
        object: Option<&str>,
        written: &mut BTreeSet<(SectionId, u64)>,
    ) -> Result<(), Diagnosis> {
        let arch = self.arch;
        let bytes = self.elf.section_bytes(target);
        let at_place = |what: &str, place: u64, why: String| {
            Err(fault(&codes::VERIFY_RELOCATION, format!("{what} at {place:#x}"), why))
        };
        for rela in self.elf.rela_table(table) {
            let place = rela.r_offset.get(LE);
            let code = rela.r_type(LE, false).0;
            let Some(kind) = arch.relocation(code).filter(|kind| kind.in_module) else {
                return at_place(
                    "a relocation of an unknown type",
                    place,
                    format!("the loader does not take type {code}"),
                );
            };
            let width = match kind.field {
                FieldKind::Bytes(width) => u64::from(width),
                FieldKind::Instruction => 4,
            };
            if place.checked_add(width).is_none_or(|end| end > self.elf.section_size(target)) {
                return at_place("a relocation outside of its section", place, String::new());
            }
            let field = bytes.get(place as usize..(place + width) as usize).unwrap_or(&[]);
            if arch.wants_clear_fields() && field.iter().any(|&byte| byte != 0) {
                return at_place(
                    "a relocation over bytes that are not zero",
                    place,
                    "the loader refuses it".into(),
                );
            }
            if width > 0 && !written.insert((target, place)) && matches!(kind.field, FieldKind::Bytes(_)) {
                return at_place(
                    "two relocations for one place",
                    place,
                    "the second finds bytes that are not zero".into(),
                );
            }
            let Some(symbol) = self.elf.rela_symbol(rela) else {
                return at_place("a relocation without a symbol", place, String::new());
            };
            let is_livepatch = self.elf.definition(symbol) == Definition::Livepatch;
            if is_livepatch != object.is_some() {
                let why = "livepatch symbols and livepatch relocation sections belong together";
                return at_place("a relocation in the wrong section", place, why.into());
            }
            if let Some(object) = object.filter(|&object| object != VMLINUX) {
                let name = String::from_utf8_lossy(self.elf.symbol_name(symbol)).into_owned();
                if name.starts_with(".klp.sym.vmlinux.") {
                    let why = format!("the kernel refuses it in a section for {object}");
                    return at_place("a symbol of vmlinux", place, why);
                }
            }
            self.verified.relocations += 1;
        }
        Ok(())
    }
}
