//! Simulates the loading of the module: modinfo, imports, livepatch symbols, ftrace, tables of special sections.

use std::collections::BTreeSet;

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, codes};
use klpx_normalize::elf::{Definition, SectionId};
use klpx_normalize::special::{Policy, TableKind};
use object::elf;

use crate::entries;
use crate::file::{IndexedFile, kind};
use crate::unwind::{Unwind, is_end};
use crate::{LoadCheck, VMLINUX, fault, inspect};

/// The most bytes of padding between the end of a function and the end of its unwind data.
const PADDING: u64 = 64;

impl LoadCheck<'_, '_> {
    /// Runs all checks that do not need the units.
    pub(crate) fn load(&mut self) {
        self.check_modinfo();
        self.check_needed_sections();
        self.check_sections();
        self.check_symbols();
        self.check_functions();
        self.check_tables();
    }

    fn check_modinfo(&mut self) {
        let wrong = |key: &str, want: &str, have: Option<&str>| {
            let have = have.map_or("it has none".to_owned(), |have| format!("it says {have}"));
            fault(&codes::VERIFY_MODINFO, format!("the module's {key} is not {want}"), have)
        };
        for (key, want) in [("livepatch", "Y"), ("license", "GPL")] {
            let have = self.module.info(key);
            if have != Some(want) {
                self.faults.push(wrong(key, want, have));
            }
        }
        if let Some(want) = self.target.vermagic() {
            let have = self.module.info("vermagic");
            if have.map(str::trim) != Some(want.trim()) {
                self.faults.push(wrong("vermagic", want.trim(), have));
            }
        }
    }

    /// Checks that the loader or the livepatch core finds every symbol that the module does not define, by their rules.
    fn check_symbols(&mut self) {
        for id in self.elf.symbol_ids() {
            let name = String::from_utf8_lossy(self.elf.symbol_name(id)).into_owned();
            match self.elf.definition(id) {
                Definition::Livepatch => match inspect::parse_symbol(&name) {
                    Some(symbol) => {
                        let found = self.resolve(&symbol.object, &symbol.name, symbol.sympos);
                        self.verified.symbols += usize::from(found.is_some());
                    }
                    None => {
                        let what = "a livepatch symbol without the proper form";
                        let fault = fault(&codes::VERIFY_SYMBOL, what, "the kernel refuses it");
                        self.faults.push(fault.place(DiagnosisPlace::symbol(name)));
                    }
                },
                Definition::Undefined if name.is_empty() => {}
                Definition::Undefined => self.check_import(&name),
                _ => {}
            }
        }
    }

    fn check_import(&mut self, name: &str) {
        let Some(object) = self.target.exporter(name) else {
            let why = "the kernel to be patched does not export it";
            let fault = fault(&codes::VERIFY_IMPORT, "an import that can't be found", why);
            return self.faults.push(fault.place(DiagnosisPlace::symbol(name)));
        };
        let depends = self.module.info("depends").unwrap_or_default();
        if object != VMLINUX && !depends.split(',').any(|module| module.replace('-', "_") == object) {
            let why = format!("{object} exports it, and the module does not depend on that");
            let fault = fault(&codes::VERIFY_IMPORT, "an import that may not be there", why);
            self.faults.push(fault.place(DiagnosisPlace::symbol(name)));
        }
        if let Some(namespace) = self.target.namespace(name)
            && !self.module.info.iter().any(|(key, value)| key == "import_ns" && *value == namespace)
        {
            let why = format!("it is in the namespace {namespace}, which the module does not import");
            let fault = fault(&codes::VERIFY_IMPORT, "an import that the kernel refuses", why);
            self.faults.push(fault.place(DiagnosisPlace::symbol(name)));
        }
    }

    /// Resolves a symbol like klp_find_object_symbol.
    fn resolve(&mut self, object: &str, name: &str, sympos: u64) -> Option<u64> {
        let wrong = |why: String| {
            fault(&codes::VERIFY_SYMBOL, "a symbol that the kernel to be patched does not resolve", why)
                .place(DiagnosisPlace::symbol(name))
        };
        let Some(found) = self.target.addresses(object, name) else {
            self.faults.push(wrong(format!("klpx has no file of the object {object}")));
            return None;
        };
        let why = match (sympos, found.len()) {
            (_, 0) => format!("{object} has no such symbol"),
            (0, 1) => return Some(found[0]),
            (0, n) => format!("{object} has {n} of that name, and the module does not say which"),
            (position, n) if position as usize <= n => return Some(found[position as usize - 1]),
            (position, n) => format!("the module wants number {position} of that name, and {object} has {n}"),
        };
        self.faults.push(wrong(why));
        None
    }

    /// Checks the array entries: each names an existing function that ftrace can redirect to a function of the module,
    /// and no function appears twice.
    fn check_functions(&mut self) {
        let objects = self.module.objects.clone();
        if objects.is_empty() {
            let why = "its klp_patch arrays are empty or broken";
            self.faults.push(fault(&codes::VERIFY_ARRAYS, "the module patches nothing", why));
        }
        let mut replaced = Vec::new();
        for object in &objects {
            for function in &object.functions {
                self.verified.functions += 1;
                let place = DiagnosisPlace::symbol(function.old_name.clone());
                if function.new_symbol.is_empty() || function.new_size == 0 {
                    let why = "its replacement has no symbol with a size, and the kernel needs that size";
                    let fault = fault(&codes::VERIFY_ARRAYS, "a replaced function without a new one", why);
                    self.faults.push(fault.place(place.clone()));
                }
                let Some(address) = self.resolve(&object.name, &function.old_name, function.sympos) else {
                    continue;
                };
                if replaced.contains(&(&object.name, address)) {
                    let why = "the second entry would take the first one's place";
                    let fault = fault(&codes::VERIFY_ARRAYS, "a function that is replaced twice", why);
                    self.faults.push(fault.place(place.clone()));
                }
                replaced.push((&object.name, address));
                match self.target.is_traced(&object.name, address) {
                    true => self.verified.reachable += 1,
                    false => {
                        let why = "the kernel to be patched has no ftrace record in it";
                        let fault = fault(&codes::VERIFY_FTRACE, "ftrace can't redirect this function", why);
                        self.faults.push(fault.place(place));
                    }
                }
            }
        }
    }

    /// Checks that special sections hold whole rows that each describe a place of a function, and that there is no
    /// section that a module may not have.
    fn check_tables(&mut self) {
        let file = IndexedFile::read(self.elf, self.arch);
        let rows = entries::rows(&file);
        for section in self.elf.section_ids() {
            let Some(kind) = TableKind::of(self.arch, self.elf.section_name(section)) else { continue };
            if matches!(kind.policy, Policy::RuntimeConstant | Policy::Refuse(_)) {
                let why = "only boot code patches these, and modules may not have them";
                self.table_fault(section, "runtime constants in a module", why);
                continue;
            }
            let Some(size) = kind.entry_size(self.elf, section) else {
                let why = "its size and relocations fit no form of this table";
                self.table_fault(section, "a special section of an unknown form", why);
                continue;
            };
            let here = rows.iter().filter(|row| row.section == section);
            let count = here.clone().count() as u64;
            if count * u64::from(size) != self.elf.section_size(section) {
                self.table_fault(section, "entries without relocations", "the kernel would act on them");
            }
            for row in here {
                let (target_section, at) = row.place;
                let (_, sites) = self.arch.trace_sites();
                let lead = sites.iter().copied().min().unwrap_or(0).unsigned_abs();
                // Unwind data ends right behind its function.
                let inside = file.is_code(target_section)
                    && (self.elf.section_name(target_section).starts_with(b".altinstr")
                        || self
                            .functions(&file, target_section)
                            .any(|(start, end)| (start.saturating_sub(lead)..=end).contains(&at)));
                if !inside {
                    let why = format!("at {:#x}", row.start);
                    self.table_fault(section, "an entry that describes no function", &why);
                }
            }
        }
        self.check_unwind(&file);
    }

    fn functions<'f>(
        &self,
        file: &'f IndexedFile<'_, '_>,
        section: SectionId,
    ) -> impl Iterator<Item = (u64, u64)> + 'f {
        let functions = file.defined().filter(|&id| file.elf.symbol_type(id) == elf::STT_FUNC.0);
        let here = functions.map(|id| file.body(id)).filter(move |body| body.section == section);
        here.map(|body| (body.start(), body.end))
    }

    fn table_fault(&mut self, id: SectionId, what: &str, why: &str) {
        let name = String::from_utf8_lossy(self.elf.section_name(id)).into_owned();
        self.faults
            .push(fault(&codes::VERIFY_SPECIAL_SECTION, what, why).place(DiagnosisPlace::symbol(name)));
    }

    /// Checks that every function of a module with unwind data has a row in force at its start, and that its rows end
    /// with it.
    fn check_unwind(&mut self, file: &IndexedFile<'_, '_>) {
        let tables = (self.elf.section_by_name(b".orc_unwind_ip"), self.elf.section_by_name(b".orc_unwind"));
        let (Some(places), Some(rows)) = tables else { return };
        if self.elf.section_size(places) / 4 != self.elf.section_size(rows) / 6 {
            let why = "the kernel would read the wrong rows";
            return self.table_fault(places, "unwind tables of different length", why);
        }
        let distance = self.arch.place_relative();
        if file.relocations(places).iter().any(|rela| kind(rela) != distance) {
            self.table_fault(
                places,
                "unwind data of places that are no distances",
                "the kernel reads distances",
            );
        }
        let unwind = Unwind::read(file);
        let begins: BTreeSet<(SectionId, u64)> =
            file.defined().map(|id| file.body(id)).map(|body| (body.section, body.start())).collect();
        let mut faults: Vec<Diagnosis> = Vec::new();
        let functions = file.defined().filter(|&id| file.elf.symbol_type(id) == elf::STT_FUNC.0);
        for body in functions.map(|id| file.body(id)).filter(|body| body.end > body.entry) {
            let rows = unwind.rows(body.section);
            if rows.is_empty() {
                continue;
            }
            let in_force = rows[..rows.partition_point(|(at, _)| *at <= body.start())].last();
            let covered = in_force.is_some_and(|(_, row)| !is_end(row));
            // Behind the function, its unwind data ends or the next function's begins.
            let ended = rows.get(rows.partition_point(|(at, _)| *at < body.end)).is_some_and(|(at, row)| {
                at - body.end < PADDING && (is_end(row) || begins.contains(&(body.section, *at)))
            });
            if !covered || !ended {
                let why = format!("the function at {:#x} is not covered", body.entry);
                let what = "a function without unwind data";
                faults.push(
                    fault(&codes::VERIFY_SPECIAL_SECTION, what, why)
                        .place(DiagnosisPlace::symbol(".orc_unwind_ip")),
                );
            }
        }
        self.faults.extend(faults);
    }
}
