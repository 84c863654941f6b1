//! Special sections of the finished module: every entry describes a place in a function of it.

use klpx_diagnosis::Place;
use klpx_normalize::arch::Arch;
use klpx_normalize::elf::SectionId;
use klpx_normalize::special::TableKind;
use object::elf;
use object::endian::LittleEndian as LE;

use super::{Check, fault};

impl Check<'_, '_> {
    pub(super) fn check_tables(&mut self) {
        let Ok(arch) = Arch::of_machine(self.elf.machine()) else { return };
        let functions = self.functions();
        for id in self.elf.section_ids() {
            let name = self.elf.section_name(id);
            let Some(kind) = TableKind::of(arch, name) else { continue };
            if matches!(kind.policy, klpx_normalize::special::Policy::RuntimeConstant) {
                let why = "only boot code patches these, and modules may not have them";
                self.table_fault(id, "runtime constants in a module", why);
            }
            let first = u64::from(kind.forms[0].1[0]);
            let size = kind
                .forms
                .iter()
                .map(|form| u64::from(form.0))
                .find(|&size| self.elf.section_size(id).is_multiple_of(size));
            let Some(size) = size else { continue }; // reported by the reader of objects
            // A trace site may stand before its function.
            let (sites, offsets) = arch.trace_sites();
            let lead = offsets.iter().copied().min().filter(|_| kind.name == sites).unwrap_or(0).min(0);
            let mut places = 0;
            for rela in self.elf.relocations(id) {
                if rela.r_offset.get(LE) % size != first {
                    continue;
                }
                places += 1;
                let (at, code) = self.place(rela);
                // A terminator of unwind data stands right behind its function; aux code has no symbol.
                let inside = at.is_some_and(|(section, offset)| {
                    functions.iter().any(|&(of, start, end)| {
                        of == section && (start.saturating_add_signed(lead)..=end).contains(&offset)
                    }) || self.elf.section_name(section).starts_with(b".altinstr")
                });
                if !code || !inside {
                    self.table_fault(
                        id,
                        "an entry that describes no function",
                        &format!("at {:#x}", rela.r_offset.get(LE)),
                    );
                }
            }
            if places == 0 && self.elf.section_size(id) > 0 {
                self.table_fault(id, "entries without relocations", "");
            }
        }
        self.check_unwind(&functions);
    }

    fn table_fault(&mut self, id: SectionId, what: &str, why: &str) {
        let name = String::from_utf8_lossy(self.elf.section_name(id)).into_owned();
        self.faults.push(fault("klpx::verify-special-section", what, why).place(Place::symbol(name)));
    }

    /// Section and range of every function symbol, sorted.
    fn functions(&self) -> Vec<(SectionId, u64, u64)> {
        let mut found: Vec<_> = self
            .elf
            .symbol_ids()
            .filter(|&id| self.elf.symbol_type(id) == elf::STT_FUNC.0)
            .filter_map(|id| {
                let start = self.elf.symbol_value(id);
                Some((self.elf.symbol_section(id)?, start, start.saturating_add(self.elf.symbol_size(id))))
            })
            .collect();
        found.sort_unstable();
        found
    }

    /// Where a relocation of a table leads, and whether that is code.
    fn place(&self, rela: &klpx_normalize::elf::Rela) -> (Option<(SectionId, u64)>, bool) {
        let Some(symbol) = self.elf.rela_symbol(rela) else { return (None, false) };
        let Some(section) = self.elf.symbol_section(symbol) else { return (None, false) };
        let offset = self.elf.symbol_value(symbol).wrapping_add_signed(rela.r_addend.get(LE));
        let code = self.elf.section_flags(section) & elf::SHF_EXECINSTR.0 != 0;
        (Some((section, offset)), code)
    }

    /// Every function of a module with unwind data is covered from its entry to its end.
    fn check_unwind(&mut self, functions: &[(SectionId, u64, u64)]) {
        let (Some(ip), Some(unwind)) =
            (self.elf.section_by_name(b".orc_unwind_ip"), self.elf.section_by_name(b".orc_unwind"))
        else {
            return;
        };
        if self.elf.section_size(ip) / 4 != self.elf.section_size(unwind) / 6 {
            return self.table_fault(
                ip,
                "unwind tables of different length",
                "the kernel would read the wrong rows",
            );
        }
        let mut rows: Vec<(SectionId, u64)> =
            self.elf.relocations(ip).iter().filter_map(|rela| self.place(rela).0).collect();
        rows.sort_unstable();
        for &(section, start, end) in functions.iter().filter(|&&(_, start, end)| end > start) {
            if !rows.iter().any(|&(of, _)| of == section) {
                continue;
            }
            let covered = rows.binary_search(&(section, start)).is_ok()
                || rows[..rows.partition_point(|&row| row <= (section, start))].last().is_some_and(|row| {
                    row.0 == section
                        && !functions.iter().any(|&(of, _, e)| of == section && row.1 < e && e <= start)
                });
            let ended = rows.iter().any(|&(of, at)| of == section && at >= end && at - end < 64)
                || !rows.iter().any(|&(of, at)| of == section && at >= end);
            if !covered || !ended {
                let why = format!("the function at {start:#x} is not covered");
                self.table_fault(ip, "a function without unwind data", &why);
            }
        }
    }
}
