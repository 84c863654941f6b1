//! Special sections of the finished module: every entry describes a place in a function of it.

use klpx_diagnosis::Place;
use klpx_normalize::arch::Arch;
use klpx_normalize::elf::SectionId;
use klpx_normalize::name::prefix_mark;
use klpx_normalize::special::TableKind;
use object::elf;
use object::endian::LittleEndian as LE;

use super::{Check, fault};

/// A function, or the padding before one.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Function {
    section: SectionId,
    start: u64,
    end: u64,
    prefix: bool,
}

/// A row of the unwind tables.
struct Row {
    section: SectionId,
    at: u64,
    /// Says that nothing is known from here on.
    terminator: bool,
}

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
            // A size that fits none is reported by the reader of objects.
            let Some(size) = kind.entry_size(self.elf, id).map(u64::from) else { continue };
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
                    functions.iter().any(|function| {
                        let start = function.start.saturating_add_signed(lead);
                        function.section == section && (start..=function.end).contains(&offset)
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

    /// Every function symbol, sorted by place.
    fn functions(&self) -> Vec<Function> {
        let mut found: Vec<_> = self
            .elf
            .symbol_ids()
            .filter(|&id| self.elf.symbol_type(id) == elf::STT_FUNC.0)
            .filter_map(|id| {
                let start = self.elf.symbol_value(id);
                Some(Function {
                    section: self.elf.symbol_section(id)?,
                    start,
                    end: start.saturating_add(self.elf.symbol_size(id)),
                    prefix: prefix_mark(self.elf.symbol_name(id)).is_some(),
                })
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

    /// Every function of a module with unwind data has a row in force where it begins, and its rows end with it. A row
    /// holds up to the next one of its section: objtool leaves out one that repeats it, also across functions and
    /// between the padding before an entry and the entry.
    fn check_unwind(&mut self, functions: &[Function]) {
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
        let rows = self.unwind_rows(ip, unwind);
        for function in functions.iter().filter(|function| function.end > function.start) {
            let (section, start, end) = (function.section, function.start, function.end);
            let from = rows.partition_point(|row| row.section < section);
            let here = &rows[from..rows.partition_point(|row| row.section <= section)];
            if here.is_empty() {
                continue;
            }
            let in_force = here[..here.partition_point(|row| row.at <= start)].last();
            let covered = in_force.is_some_and(|row| !row.terminator);
            let next = here.get(here.partition_point(|row| row.at < end));
            let ended = function.prefix || next.is_none_or(|row| row.at - end < 64);
            if !covered || !ended {
                let why = format!("the function at {start:#x} is not covered");
                self.table_fault(ip, "a function without unwind data", &why);
            }
        }
    }

    /// The rows by place, sorted as the loader does it: at one place the end of what lies before comes first
    /// (orc_sort_cmp in arch/x86/kernel/unwind_orc.c).
    fn unwind_rows(&self, ip: SectionId, unwind: SectionId) -> Vec<Row> {
        let row = |rela: &klpx_normalize::elf::Rela| {
            let (section, at) = self.place(rela).0?;
            let n = (rela.r_offset.get(LE) / 4 * 6) as usize;
            let bytes = self.elf.section_bytes(unwind).get(n..n + 6)?;
            Some(Row { section, at, terminator: bytes.iter().all(|&byte| byte == 0) })
        };
        let mut rows: Vec<Row> = self.elf.relocations(ip).iter().filter_map(row).collect();
        rows.sort_by_key(|row| (row.section, row.at, !row.terminator));
        rows
    }
}
