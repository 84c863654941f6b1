//! The special-section entries of placed code and data: carried, rewritten, dropped or refused.
//!
//! `klpx_normalize::special` has the policies. The tables that objtool makes (x86_64; tools/objtool/check.c) come from
//! a run on one unit, which sees only the references of that unit:
//!
//! | table | entries of a copy |
//! |---|---|
//! | `.ibt_endbr_seal` | never carried: it lists landing pads that nothing in the unit needs, but that the rest of the kernel may need |
//! | `.call_sites` | carried, for call depth tracking. Entries of calls that are written late are dropped, because the loader reads the call when the livepatch is loaded |
//! | `.return_sites`, `.retpoline_sites` | carried: the loader patches the copy as it patched the original (apply_returns, apply_retpolines) |
//! | `.static_call_sites` | carried with their key. A key of vmlinux gets a livepatch relocation, which is applied before the kernel reads the table (static_call_add_module). Units of modules name the trampoline if the key is not exported, and the kernel finds the key from the trampoline. A key of a late module is refused |
//! | `__mcount_loc` | carried (compilers make it): a copy can be traced, and replaced by the next livepatch |
//! | `.orc_unwind_ip`, `.orc_unwind` | carried, see `place_unwind` |
//!
//! All of these tables except the first describe places in the function itself or in what replaces a part of it (an
//! alternative's code, which has no name), so a run on the whole link has the same entries.

use klpx_diagnosis::{Diagnosis, Note, codes};
use klpx_normalize::elf::SectionId;
use klpx_normalize::object::{Entry, ItemId, Object, TableId};
use klpx_normalize::special::Policy;
use object::elf;
use object::endian::LittleEndian as LE;

use super::references::late_alternative;
use super::{ALLOC, EXEC, Emitter, LINK_ORDER, OutputPlace, Outside, WRITE};
use crate::arch;
use crate::closure::{Piece, PieceEntry, Reference, ReferenceOrigin, place_of, place_of_piece};
use crate::plan::VMLINUX;
use crate::writer::{Relocation, Sec};

impl<'u, 'd> Emitter<'_, 'u, 'd> {
    pub(super) fn place_entries(&mut self, unit: usize) {
        let object = self.unit(unit).patched;
        let closure = self.closure;
        let pieces = &closure.pieces[unit];
        let mut carried: Vec<PieceEntry> =
            pieces.iter().flat_map(|&piece| closure.carried(unit, piece)).collect();
        carried.sort_by_key(|entry| (entry.table, entry.index));
        for entry in carried {
            if object.tables[entry.table.index()].companion.is_none() && self.keeps(unit, entry) {
                self.place_entry(unit, entry);
            }
        }
        for &piece in pieces {
            self.refuse_entries(unit, piece);
            if let Piece::Item(item) = piece {
                self.place_unwind(unit, item);
                self.check_alternatives(unit, item);
            }
        }
    }

    fn table_section(&mut self, unit: usize, from: SectionId, least: u64) -> Sec {
        let elf_file = &self.unit(unit).patched.elf;
        let flags = elf_file.section_flags(from) & (ALLOC | WRITE | EXEC | LINK_ORDER);
        let align = elf_file.section(from).sh_addralign.get(LE).max(least);
        let section = self.section(elf_file.section_name(from), elf::SHT_PROGBITS.0, flags, align);
        if flags & LINK_ORDER != 0 {
            // The unit has one such section for each function; the module has one for its section of all functions.
            // Linkers refuse to mix ordered and unordered sections, and the glue brings ordered ones.
            self.out.sections[section.0].link = Some(self.text());
        }
        section
    }

    fn place_entry(&mut self, unit: usize, entry: PieceEntry) {
        let object = self.unit(unit).patched;
        let (from, start, end) = object.entry_range(entry.table, entry.index);
        let least = if (end - start) % 8 == 0 {
            8
        } else if (end - start) % 4 == 0 {
            4
        } else {
            1
        };
        let section = self.table_section(unit, from, least);
        let bytes = object.range(from, start, end);
        let out = &mut self.out.sections[section.0];
        let at = out.size();
        out.data.extend_from_slice(bytes);
        self.entries.insert((unit, entry.table, entry.index), OutputPlace { section, offset: at });
        for rela in object.relocations_in(from, start, end) {
            let offset = at + (rela.r_offset.get(LE) - start);
            let reference = Reference { origin: ReferenceOrigin::Table(entry.piece), section: from, rela };
            self.relocate(unit, entry.piece, reference, OutputPlace { section, offset });
        }
    }

    /// Returns whether an entry is kept. Entries that would make the loader use a symbol that is not there yet are
    /// dropped or refused.
    fn keeps(&mut self, unit: usize, entry: PieceEntry) -> bool {
        if self.unit(unit).is_vmlinux() {
            return true;
        }
        let object = self.unit(unit).patched;
        let (what, key_at, code, remedy) = match object.tables[entry.table.index()].kind.name {
            "__jump_table" => (
                "static key",
                8,
                &codes::MODULE_STATIC_KEY,
                "use static_key_enabled() instead of static_branch_likely() or _unlikely() in this function",
            ),
            ".static_call_sites" => (
                "static call",
                4,
                &codes::MODULE_STATIC_CALL,
                "use KLP_STATIC_CALL() of linux/livepatch_helpers.h, or call through a pointer",
            ),
            ".call_sites" => {
                let late = |item| self.late.contains(&(unit, item, entry.place + 1));
                return !matches!(entry.piece, Piece::Item(item) if late(item));
            }
            _ => return true,
        };
        let (from, start, _) = object.entry_range(entry.table, entry.index);
        let Some(rela) = object.relocations_in(from, start + key_at, start + key_at + 1).first() else {
            return true;
        };
        let referent = self
            .closure
            .referent(unit, Reference { origin: ReferenceOrigin::Table(entry.piece), section: from, rela });
        let Some(Ok((outside, name))) = self.outside(unit, referent) else { return true };
        if !outside.is_late() {
            return true;
        }
        let owner = place_of_piece(object, entry.piece).inside(entry.place);
        if name.starts_with("__tracepoint_") {
            let why =
                "the replaced function can't follow a tracepoint of a module: its key is found too late";
            let what = format!("{name} stays off");
            self.warnings.push(Note::at(&codes::TRACEPOINT_DROPPED, &what, &owner, why));
        } else if !name.starts_with("__SCK__tp_func_") {
            self.faults.push(
                Diagnosis::new(
                    code,
                    format!("a {what} of module {}: {name}", self.unit(unit).object_name),
                    format!(
                        "the kernel reads the {what}s of the livepatch when that is loaded, before the \
                         address of {name} is known"
                    ),
                    remedy,
                )
                .place(owner),
            );
        }
        false
    }

    fn refuse_entries(&mut self, unit: usize, piece: Piece) {
        let object = self.unit(unit).patched;
        for entry in piece.entries(object) {
            match (object.tables[entry.table.index()].kind.policy, piece) {
                (Policy::Refuse(why), _) => self.faults.push(
                    Diagnosis::new(
                        &codes::SPECIAL_SECTION,
                        "this function can't be copied",
                        why,
                        "change another function, or leave this part of the patch out",
                    )
                    .place(place_of_piece(object, piece)),
                ),
                (Policy::RuntimeConstant, Piece::Item(item)) => self.runtime_constant(unit, item, entry),
                (Policy::RuntimeConstant, Piece::Bytes { .. }) => {
                    self.faults.push(lost_constant("a runtime constant in an alternative"));
                }
                (Policy::Carry | Policy::Drop(_), _) => {}
            }
        }
    }

    /// Boot code patches `runtime_const_ptr(x)` into the code. A copy reads the variable instead.
    fn runtime_constant(&mut self, unit: usize, item: ItemId, entry: PieceEntry) {
        let builds = self.unit(unit);
        let object = builds.patched;
        let table = object.tables[entry.table.index()].section;
        let name = object.elf.section_name(table).strip_prefix(b"runtime_ptr_").unwrap_or_default();
        let own = *object.item(item);
        let place = entry.place + (own.entry - own.start) as i64;
        let load = usize::try_from(place)
            .ok()
            .and_then(|place| arch::runtime_load(object.arch, object.item_bytes(item), place));
        let name = String::from_utf8_lossy(name).into_owned();
        let variable = self.runtime_value(unit, &name);
        let placed = self.placed.get(&(unit, Piece::Item(item))).copied();
        let (Some(load), Some((outside, delta)), Some(placed)) = (load, variable, placed) else {
            let fault = lost_constant(&format!("the runtime constant {name}"));
            return self.faults.push(fault.place(place_of(object, item)));
        };
        let at = placed.start as usize + load.at;
        if let Some(field) = self.out.sections[placed.section.0].data.get_mut(at..at + load.bytes.len()) {
            field.copy_from_slice(&load.bytes);
        }
        let symbol = Some(self.external(&outside));
        for (offset, kind, addend) in load.relocations {
            let offset = placed.start + offset as u64;
            let relocation = Relocation { offset, kind, symbol, addend: addend + delta };
            self.out.sections[placed.section.0].relocate(relocation);
        }
    }

    /// Where a runtime constant's value can be read: its variable or, if the compiler optimised the variable away, a
    /// place in the kernel's code that boot code patched.
    fn runtime_value(&self, unit: usize, name: &str) -> Option<(Outside, i64)> {
        let original = &self.unit(unit).original.elf;
        let mut holders = original.symbol_ids().filter(|&id| original.symbol_name(id) == name.as_bytes());
        match (holders.next(), holders.next()) {
            (Some(variable), None) => self.original_symbol(unit, variable).ok().map(|outside| (outside, 0)),
            (Some(_), Some(_)) => None,
            _ if self.binder.defines(VMLINUX, name) => {
                self.undefined_symbol(unit, name).ok().map(|outside| (outside, 0))
            }
            _ if !arch::code_holds_constants(self.unit(unit).patched.arch) => None,
            _ => {
                let (bound, offset) = self.binder.runtime_constant(name)?;
                let object = VMLINUX.to_owned();
                Some((
                    Outside::Livepatch { section_object: object.clone(), symbol_object: object, bound },
                    offset,
                ))
            }
        }
    }

    /// Places the function's unwind entries, from its first byte to a terminator after its last. The kernel sorts them.
    fn place_unwind(&mut self, unit: usize, item: ItemId) {
        let object = self.unit(unit).patched;
        let Some((n, table)) = object.tables.iter().enumerate().find(|(_, table)| table.companion.is_some())
        else {
            return;
        };
        let own = *object.item(item);
        if !own.code {
            return;
        }
        let before = (own.entry - own.start) as i64;
        let length = (own.end - own.entry) as i64;
        let entries: Vec<Entry> =
            object.entries(item).iter().copied().filter(|entry| entry.table.index() == n).collect();
        // A row at the end of a section's last function is the terminator that objtool writes there.
        let own_rows = entries.iter().filter(|entry| entry.place < length);
        let mut rows: Vec<(i64, &[u8])> =
            own_rows.map(|e| (e.place, object.entry_companion(e.table, e.index))).collect();
        if rows.first().is_none_or(|&(place, _)| place > -before)
            && let Some(row) = in_force(object, TableId(n as u32), item)
        {
            rows.insert(0, (-before, row)); // objtool leaves out an entry that repeats the one before it in the section
        }
        if rows.is_empty() {
            return;
        }
        let size = table.kind.companion.map_or(0, |(_, size)| usize::from(size));
        let terminator = vec![0u8; size]; // ORC_TYPE_UNDEFINED; before 6.4, sp_reg ORC_REG_UNDEFINED
        rows.push((length, &terminator));
        let Some(companion) = table.companion else { return };
        let ip = self.table_section(unit, table.section, 4);
        let unwind = self.table_section(unit, companion, 2);
        let Some(placed) = self.placed.get(&(unit, Piece::Item(item))).copied() else { return };
        let symbol = self.section_symbol(placed.section);
        for (place, row) in rows {
            let out = &mut self.out.sections[ip.0];
            let offset = out.size();
            out.data.extend_from_slice(&[0; 4]);
            let addend = placed.anchor as i64 + place;
            out.relocate(Relocation { offset, kind: object.arch.place_relative(), symbol, addend });
            self.out.sections[unwind.0].data.extend_from_slice(row);
        }
    }

    /// Refuses a late relocation in code to which alternatives are applied when the livepatch is loaded.
    fn check_alternatives(&mut self, unit: usize, item: ItemId) {
        let object = self.unit(unit).patched;
        for entry in object.entries(item) {
            let table = &object.tables[entry.table.index()];
            if table.kind.name != ".altinstructions" {
                continue;
            }
            let (section, start, end) = object.entry_range(entry.table, entry.index);
            let length = object.range(section, start, end).iter().rev().nth(1).map_or(0, |&n| i64::from(n));
            let range = (unit, item, entry.place)..(unit, item, entry.place + length);
            if self.late.range(range).next().is_some() {
                self.faults.push(late_alternative(place_of(object, item)));
            }
        }
    }
}

/// The refusal for a runtime constant that a copy can't read.
fn lost_constant(what: &str) -> Diagnosis {
    Diagnosis::new(
        &codes::RUNTIME_CONSTANT,
        what,
        "it was patched into the code while the kernel booted, and klpx finds no place to read it from",
        "report this function and the kernel's version",
    )
}

/// The unwind row that applies where a function begins, if the row belongs to a function before it in the section.
fn in_force<'d>(object: &Object<'d>, table: TableId, item: ItemId) -> Option<&'d [u8]> {
    let start = object.item(item).start;
    let before = object.items_of(object.item(item).section).take_while(|&other| other < item);
    let rows =
        before.flat_map(|other| object.entries(other).iter().filter(move |entry| entry.table == table));
    let here = rows.filter(|entry| object.item(entry.owner).entry.wrapping_add_signed(entry.place) <= start);
    let last = here
        .max_by_key(|entry| (object.item(entry.owner).entry.wrapping_add_signed(entry.place), entry.index))?;
    Some(object.entry_companion(last.table, last.index))
}
