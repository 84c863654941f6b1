//! The closure as a relocatable object: bytes, special-section entries, symbols and relocations.
//!
//! Owns placement and where each reference finally leads (import, livepatch symbol, own copy). Never chooses what is
//! copied. References that the livepatch core resolves get undefined symbols with a `.klpx.` name, which `finish`
//! turns into livepatch relocations after the link.

use std::collections::{BTreeMap, BTreeSet};

use klpx_diagnosis::{Class, Diagnosis, Failure, Place as Where, Result};
use klpx_normalize::elf::{Rela, SectionId, SymbolId};
use klpx_normalize::name::without_promotion;
use klpx_normalize::object::{Entry, ItemId, Role};
use klpx_normalize::special::Policy;
use object::elf;
use object::endian::LittleEndian as LE;

use crate::arch;
use crate::closure::{Closure, From, Piece, Referent, place_of};
use crate::plan::{
    ALIAS, Binder, Bound, Import, PENDING, Plan, PlannedCallback, PlannedFunction, PlannedObject, Unit,
    VMLINUX, klp_symbol,
};
use crate::writer::{Place, Relocatable, Relocation, Sec, Section, Sym, Symbol};

const ALLOC: u64 = elf::SHF_ALLOC.0;
const WRITE: u64 = elf::SHF_WRITE.0;
const EXEC: u64 = elf::SHF_EXECINSTR.0;

/// A closure written as an object, and what must be known to make a module of it.
pub struct Emitted {
    /// The relocatable object.
    pub object: Vec<u8>,
    /// What it patches and needs.
    pub plan: Plan,
}

/// Writes a closure.
///
/// # Errors
/// Every reference that can't be bound and every entry that can't be carried, all at once.
pub fn emit(closure: &Closure<'_, '_>, binder: &dyn Binder) -> Result<Emitted> {
    let machine = closure.units.first().map_or(elf::EM_X86_64.0, |unit| unit.patched.elf.machine());
    let mut emitter = Emitter {
        closure,
        binder,
        out: Relocatable::new(machine),
        sections: BTreeMap::new(),
        placed: BTreeMap::new(),
        entries: BTreeMap::new(),
        externals: BTreeMap::new(),
        imports: BTreeSet::new(),
        livepatch_symbols: BTreeSet::new(),
        late: BTreeSet::new(),
        warnings: closure.warnings.clone(),
        faults: Vec::new(),
    };
    let objects = emitter.run();
    Failure::all(std::mem::take(&mut emitter.faults))?;
    emitter.warnings.sort();
    emitter.warnings.dedup();
    let plan = Plan {
        objects,
        imports: emitter.imports.into_iter().collect(),
        livepatch_symbols: emitter.livepatch_symbols.into_iter().collect(),
        warnings: emitter.warnings,
    };
    Ok(Emitted { object: emitter.out.write(), plan })
}

/// Where a symbol outside of the module is found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outside {
    /// By the module loader, as for any module.
    Import { name: String, namespace: Option<String> },
    /// By the livepatch core.
    Livepatch { section_object: String, symbol_object: String, bound: Bound },
}

impl Outside {
    /// True when the reference is written only once the patched module is there, after the special sections were read.
    fn is_late(&self) -> bool {
        matches!(self, Outside::Livepatch { section_object, .. } if section_object != VMLINUX)
    }
}

/// Where a piece lies: the anchor is its entry or first byte.
#[derive(Clone, Copy)]
struct Placed {
    section: Sec,
    start: u64,
    anchor: u64,
    symbol: Option<Sym>,
}

struct Emitter<'c, 'u, 'd> {
    closure: &'c Closure<'u, 'd>,
    binder: &'c dyn Binder,
    out: Relocatable,
    sections: BTreeMap<Vec<u8>, (Sec, Sym)>,
    placed: BTreeMap<(usize, Piece), Placed>,
    entries: BTreeMap<(usize, u8, u32), (Sec, u64)>,
    externals: BTreeMap<String, Sym>,
    imports: BTreeSet<Import>,
    livepatch_symbols: BTreeSet<String>,
    /// Places in copied code that a late livepatch relocation writes: unit, item, bytes from its entry.
    late: BTreeSet<(usize, ItemId, i64)>,
    warnings: Vec<Diagnosis>,
    faults: Vec<Diagnosis>,
}

impl<'u, 'd> Emitter<'_, 'u, 'd> {
    fn unit(&self, unit: usize) -> Unit<'u, 'd> {
        self.closure.units[unit]
    }

    fn run(&mut self) -> Vec<PlannedObject> {
        let closure = self.closure;
        let all: Vec<(usize, Piece)> = (0..closure.units.len())
            .flat_map(|n| closure.pieces[n].iter().map(move |&piece| (n, piece)))
            .collect();
        for &(unit, piece) in &all {
            self.place(unit, piece);
        }
        for &(unit, piece) in &all {
            self.find_late(unit, piece);
        }
        // Linkers take a missing one as a wish for an executable stack.
        self.out.add_section(Section::new(b".note.GNU-stack", elf::SHT_PROGBITS.0, 0, 1));
        for unit in 0..closure.units.len() {
            self.place_entries(unit);
        }
        for &(unit, piece) in &all {
            self.relocate_piece(unit, piece);
        }
        self.plan_objects()
    }

    // Placement.

    fn section(&mut self, name: &[u8], kind: u32, flags: u64, align: u64) -> Sec {
        if let Some(&(section, _)) = self.sections.get(name) {
            return section;
        }
        let section = self.out.add_section(Section::new(name, kind, flags, align));
        let symbol = self.out.add_symbol(Symbol {
            name: Vec::new(),
            binding: elf::STB_LOCAL.0,
            kind: elf::STT_SECTION.0,
            other: 0,
            place: Place::In(section),
            value: 0,
            size: 0,
        });
        self.sections.insert(name.to_vec(), (section, symbol));
        section
    }

    fn section_symbol(&self, section: Sec) -> Option<Sym> {
        self.sections.get(&self.out.sections[section.0].name).map(|&(_, symbol)| symbol)
    }

    /// The module's section for what lies in `from`. Few sections, by the names that every kernel's module loader knows.
    fn section_for(&mut self, unit: usize, from: SectionId) -> Sec {
        let elf_file = &self.unit(unit).patched.elf;
        let (name, flags) = (elf_file.section_name(from), elf_file.section_flags(from));
        let nobits = elf_file.section_type(from) == elf::SHT_NOBITS.0;
        let (progbits, bss) = (elf::SHT_PROGBITS.0, elf::SHT_NOBITS.0);
        if flags & EXEC != 0 {
            let own = matches!(name, b".altinstr_replacement" | b".altinstr_aux" | b".static_call.text");
            return self.section(if own { name } else { b".text" }, progbits, ALLOC | EXEC, 16);
        }
        if name.starts_with(b".data..percpu") {
            return self.section(b".data..percpu", progbits, ALLOC | WRITE, 8);
        }
        if name == b"__dyndbg" {
            return self.section(b"__dyndbg", progbits, ALLOC | WRITE, 8);
        }
        match (nobits, flags & WRITE != 0) {
            (true, _) => self.section(b".bss", bss, ALLOC | WRITE, 8),
            (false, true) => self.section(b".data", progbits, ALLOC | WRITE, 8),
            (false, false) => self.section(b".rodata", progbits, ALLOC, 8),
        }
    }

    fn place(&mut self, unit: usize, piece: Piece) {
        let object = self.unit(unit).patched;
        let (from, start, entry, end) = match piece {
            Piece::Item(item) => {
                let item = object.item(item);
                (item.section, item.start, item.entry, item.end)
            }
            Piece::Bytes { section, start, end } => (section, start, start, end),
        };
        let section = self.section_for(unit, from);
        let fill = if object.role(from) == Role::Code { arch::filler(object.arch) } else { 0 };
        let align = object.elf.section(from).sh_addralign.get(LE).max(1);
        let bytes = object.range(from, start, end);
        let out = &mut self.out.sections[section.0];
        let at = out.pad(align, start, fill);
        if out.kind == elf::SHT_NOBITS.0 {
            out.nobits += end - start;
        } else {
            out.data.extend_from_slice(bytes);
            out.data.resize((at + (end - start)) as usize, 0); // per-cpu data without bytes in the file
        }
        let anchor = at + (entry - start);
        let symbol = match piece {
            Piece::Item(item) => self.item_symbol(unit, item, section, anchor),
            Piece::Bytes { .. } => None,
        };
        self.placed.insert((unit, piece), Placed { section, start: at, anchor, symbol });
    }

    /// A copied item's local symbol: the kernel's own name, so that stack traces read as they did, but for the hash of a
    /// promotion, which tells only where klpx built.
    fn item_symbol(&mut self, unit: usize, item: ItemId, section: Sec, anchor: u64) -> Option<Sym> {
        let of = self.unit(unit);
        let symbol = of.patched.item(item).symbol;
        let name = match of.counterpart(item) {
            Some(original) => of.original.item_name(original),
            None => of.patched.item_name(item),
        };
        if name.starts_with(b".L") {
            return None; // linkers drop these
        }
        Some(self.out.add_symbol(Symbol {
            name: without_promotion(name).to_vec(),
            binding: elf::STB_LOCAL.0,
            kind: of.patched.elf.symbol_type(symbol),
            other: 0,
            place: Place::In(section),
            value: anchor,
            size: of.patched.elf.symbol_size(symbol),
        }))
    }

    // Special sections.

    fn place_entries(&mut self, unit: usize) {
        let object = self.unit(unit).patched;
        let closure = self.closure;
        let items: Vec<ItemId> = closure.pieces[unit]
            .iter()
            .filter_map(|piece| match piece {
                Piece::Item(item) => Some(*item),
                Piece::Bytes { .. } => None,
            })
            .collect();
        let mut carried: Vec<Entry> = items.iter().flat_map(|&item| closure.carried(unit, item)).collect();
        carried.sort_by_key(|entry| (entry.table, entry.index));
        for entry in carried {
            if object.tables[usize::from(entry.table)].companion.is_none() && self.keeps(unit, entry) {
                self.place_entry(unit, entry);
            }
        }
        for item in items {
            self.refuse_entries(unit, item);
            self.place_unwind(unit, item);
            self.check_alternatives(unit, item);
        }
    }

    fn table_section(&mut self, unit: usize, from: SectionId, least: u64) -> Sec {
        let elf_file = &self.unit(unit).patched.elf;
        let flags = elf_file.section_flags(from) & (ALLOC | WRITE | EXEC);
        let align = elf_file.section(from).sh_addralign.get(LE).max(least);
        self.section(elf_file.section_name(from), elf::SHT_PROGBITS.0, flags, align)
    }

    fn place_entry(&mut self, unit: usize, entry: Entry) {
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
        self.entries.insert((unit, entry.table, entry.index), (section, at));
        for rela in object.relocations_in(from, start, end) {
            let to = at + (rela.r_offset.get(LE) - start);
            self.relocate(unit, From::Table, entry.owner, from, rela, (section, to));
        }
    }

    /// Entries that would make the loader act on a symbol that is not there yet are dropped or refused.
    fn keeps(&mut self, unit: usize, entry: Entry) -> bool {
        if self.unit(unit).is_vmlinux() {
            return true;
        }
        let object = self.unit(unit).patched;
        let (what, key_at, code, remedy) = match object.tables[usize::from(entry.table)].kind.name {
            "__jump_table" => (
                "static key",
                8,
                "klpx::module-static-key",
                "use static_key_enabled() instead of static_branch_likely() or _unlikely() in this function",
            ),
            ".static_call_sites" => (
                "static call",
                4,
                "klpx::module-static-call",
                "use KLP_STATIC_CALL() of linux/livepatch_helpers.h, or call through a pointer",
            ),
            ".call_sites" => return !self.late.contains(&(unit, entry.owner, entry.place + 1)),
            _ => return true,
        };
        let (from, start, _) = object.entry_range(entry.table, entry.index);
        let Some(rela) = object.relocations_in(from, start + key_at, start + key_at + 1).first() else {
            return true;
        };
        let referent = self.closure.referent(unit, From::Table, from, rela);
        let Some(Ok((outside, name))) = self.outside(unit, referent) else { return true };
        if !outside.is_late() {
            return true;
        }
        let owner = place_of(object, entry.owner);
        if name.starts_with("__tracepoint_") {
            self.warnings.push(
                Diagnosis::new(
                    "klpx::tracepoint-dropped",
                    Class::NotLivepatchable,
                    format!("{name} stays off"),
                )
                .place(owner)
                .why(
                    "the replaced function can't follow a tracepoint of a module: its key is found too late",
                ),
            );
        } else if !name.starts_with("__SCK__tp_func_") {
            self.faults.push(
                Diagnosis::new(code, Class::NotLivepatchable, format!("a {what} of module {}: {name}", self.unit(unit).object_name))
                    .place(owner)
                    .why(format!(
                        "the kernel reads the {what}s of the livepatch when that is loaded, before the address of {name} is known"
                    ))
                    .remedy(remedy),
            );
        }
        false
    }

    fn refuse_entries(&mut self, unit: usize, item: ItemId) {
        let object = self.unit(unit).patched;
        for entry in object.entries(item) {
            match object.tables[usize::from(entry.table)].kind.policy {
                Policy::Refuse(why) => self.faults.push(
                    Diagnosis::new(
                        "klpx::special-section",
                        Class::NotLivepatchable,
                        "this function can't be copied",
                    )
                    .place(place_of(object, item))
                    .why(why)
                    .remedy("change another function, or leave this part of the patch out"),
                ),
                Policy::RuntimeConstant => self.runtime_constant(unit, item, *entry),
                Policy::Carry | Policy::Drop(_) => {}
            }
        }
    }

    /// `runtime_const_ptr(x)` is patched into the code while the kernel boots. A copy reads the variable.
    fn runtime_constant(&mut self, unit: usize, item: ItemId, entry: Entry) {
        let of = self.unit(unit);
        let object = of.patched;
        let table = object.tables[usize::from(entry.table)].section;
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
            let why = "it was patched into the code while the kernel booted, and klpx finds no place to read it from";
            let what = format!("the runtime constant {name}");
            self.faults.push(
                Diagnosis::new("klpx::runtime-constant", Class::NotLivepatchable, what)
                    .place(place_of(object, item))
                    .why(why)
                    .remedy("report this function and the kernel's version"),
            );
            return;
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

    /// Where a runtime constant's value can be read: its variable, or, where the compiler did without one, a place in
    /// the kernel's code that boot code patched.
    fn runtime_value(&self, unit: usize, name: &str) -> Option<(Outside, i64)> {
        let original = &self.unit(unit).original.elf;
        let mut holders = original.symbol_ids().filter(|&id| original.symbol_name(id) == name.as_bytes());
        match (holders.next(), holders.next()) {
            (Some(variable), None) => self.original_symbol(unit, variable).ok().map(|outside| (outside, 0)),
            (Some(_), Some(_)) => None,
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

    /// The function's unwind entries, from its first byte to a terminator after its last. The kernel sorts them.
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
        let entries: Vec<Entry> = object
            .entries(item)
            .iter()
            .copied()
            .filter(|entry| usize::from(entry.table) == n && (-before..length).contains(&entry.place))
            .collect();
        let Some(first) = entries.first().copied() else { return };
        let mut rows: Vec<(i64, &[u8])> =
            entries.iter().map(|e| (e.place, object.entry_companion(e.table, e.index))).collect();
        if first.place > 0
            && let Some(index) = first.index.checked_sub(1)
        {
            // objtool leaves out an entry that repeats the one before it in the section.
            rows.insert(0, (0, object.entry_companion(first.table, index)));
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

    /// A late relocation must not write where alternatives were applied when the livepatch was loaded.
    fn check_alternatives(&mut self, unit: usize, item: ItemId) {
        let object = self.unit(unit).patched;
        for entry in object.entries(item) {
            let table = &object.tables[usize::from(entry.table)];
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

    // References.

    fn find_late(&mut self, unit: usize, piece: Piece) {
        let of = self.unit(unit);
        if of.is_vmlinux() {
            return;
        }
        let (section, start, end, entry) = self.source_range(unit, piece);
        if of.patched.role(section) != Role::Code {
            return;
        }
        for rela in of.patched.relocations_in(section, start, end) {
            let referent = self.closure.referent(unit, From::Piece(piece), section, rela);
            let late = matches!(self.outside(unit, referent), Some(Ok((outside, _))) if outside.is_late());
            match piece {
                Piece::Item(item) if late => {
                    self.late.insert((unit, item, rela.r_offset.get(LE) as i64 - entry as i64));
                }
                Piece::Bytes { .. } if late => self.faults.push(late_alternative(Where::default())),
                _ => {}
            }
        }
    }

    fn source_range(&self, unit: usize, piece: Piece) -> (SectionId, u64, u64, u64) {
        match piece {
            Piece::Item(item) => {
                let item = self.unit(unit).patched.item(item);
                (item.section, item.start, item.end, item.entry)
            }
            Piece::Bytes { section, start, end } => (section, start, end, start),
        }
    }

    fn relocate_piece(&mut self, unit: usize, piece: Piece) {
        let (section, start, end, _) = self.source_range(unit, piece);
        let Some(placed) = self.placed.get(&(unit, piece)).copied() else { return };
        let owner = match piece {
            Piece::Item(item) => item,
            Piece::Bytes { .. } => ItemId(0),
        };
        for rela in self.unit(unit).patched.relocations_in(section, start, end) {
            let to = placed.start + (rela.r_offset.get(LE) - start);
            self.relocate(unit, From::Piece(piece), owner, section, rela, (placed.section, to));
        }
        self.relocate_branches(unit, piece, placed);
        let name = self.out.sections[placed.section.0].name.clone();
        let table = self.out.sections[placed.section.0].rela_table([b".rela", &name[..]].concat(), 0);
        table.relocations.sort_by_key(|relocation| relocation.offset);
    }

    /// Branches to other functions of the same section get the relocation that the assembler left out.
    fn relocate_branches(&mut self, unit: usize, piece: Piece, placed: Placed) {
        let Piece::Item(item) = piece else { return };
        let (section, start, _, _) = self.source_range(unit, piece);
        for rela in self.closure.direct_branches(unit, item) {
            let to = placed.start + (rela.r_offset.get(LE) - start);
            let field = to as usize..to as usize + 4;
            if self.unit(unit).patched.arch.wants_clear_fields()
                && let Some(bytes) = self.out.sections[placed.section.0].data.get_mut(field)
            {
                bytes.fill(0); // the loader takes no other
            }
            self.relocate(unit, From::Piece(piece), item, section, &rela, (placed.section, to));
        }
    }

    fn relocate(
        &mut self,
        unit: usize,
        from: From,
        owner: ItemId,
        section: SectionId,
        rela: &Rela,
        (out, offset): (Sec, u64),
    ) {
        let object = self.unit(unit).patched;
        let kind = match object.relocation_kind(rela) {
            Some(kind) if kind.code == 0 => return,
            Some(kind) if kind.in_module => kind,
            _ => return self.faults.push(relocation_type(place_of(object, owner), rela.r_type(LE, false).0)),
        };
        let bias = if object.role(section) == Role::Code { object.arch.pc_bias(kind) } else { 0 };
        let referent = self.closure.referent(unit, from, section, rela);
        let (symbol, addend) = match referent {
            Referent::Absolute(value) => (None, value - bias),
            Referent::Copied(other, piece, delta) => {
                let Some(placed) = self.placed.get(&(other, piece)).copied() else {
                    return self.faults.push(not_copied(place_of(object, owner)));
                };
                match placed.symbol {
                    Some(symbol) => (Some(symbol), delta - bias),
                    None => (self.section_symbol(placed.section), placed.anchor as i64 + delta - bias),
                }
            }
            Referent::Entry(table, entry, delta) => match self.entries.get(&(unit, table, entry)).copied() {
                Some((section, at)) => (self.section_symbol(section), at as i64 + delta - bias),
                None => return self.faults.push(not_copied(place_of(object, owner))),
            },
            Referent::Original(_, delta) | Referent::Inner(_, delta) | Referent::External(_, delta) => {
                match self.outside(unit, referent) {
                    Some(Ok((outside, _))) => (Some(self.external(&outside)), delta - bias),
                    Some(Err(fault)) => {
                        let fault =
                            if fault.place.is_empty() { fault.place(place_of(object, owner)) } else { fault };
                        return self.faults.push(fault);
                    }
                    None => return,
                }
            }
        };
        self.out.sections[out.0].relocate(Relocation { offset, kind: kind.code, symbol, addend });
    }

    /// Where something outside of the module is found, and its name.
    fn outside(&self, unit: usize, referent: Referent) -> Option<Result<(Outside, String), Diagnosis>> {
        let of = self.unit(unit);
        let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        Some(match referent {
            Referent::Original(item, _) => {
                let symbol = of.original.item(item).symbol;
                self.original_symbol(unit, symbol)
                    .map(|outside| (outside, text(of.original.elf.symbol_name(symbol))))
            }
            Referent::Inner(symbol, _) => {
                let name = of.patched.elf.symbol_name(symbol);
                let same = of.original.elf.symbol_ids().find(|&s| {
                    of.original.elf.symbol_name(s) == name
                        && of.original.elf.symbol_binding(s) != elf::STB_LOCAL.0
                        && of.original.elf.symbol_section(s).is_some()
                });
                let item = of.patched.symbol_item(symbol);
                let at_entry = item
                    .is_some_and(|item| of.patched.item(item).entry == of.patched.elf.symbol_value(symbol));
                let entry = || item.filter(|_| at_entry).and_then(|item| of.counterpart(item));
                match same.or_else(|| entry().map(|item| of.original.item(item).symbol)) {
                    Some(symbol) => self.original_symbol(unit, symbol).map(|outside| (outside, text(name))),
                    None => Err(unresolved(&text(name), of.object_name)),
                }
            }
            Referent::External(symbol, _) => {
                let name = text(of.patched.elf.symbol_name(symbol));
                self.undefined_symbol(unit, &name).map(|outside| (outside, name))
            }
            _ => return None,
        })
    }

    /// A symbol that the unit's original object defines.
    fn original_symbol(&self, unit: usize, symbol: SymbolId) -> Result<Outside, Diagnosis> {
        let of = self.unit(unit);
        let name = String::from_utf8_lossy(of.original.elf.symbol_name(symbol)).into_owned();
        let global = of.original.elf.symbol_binding(symbol) != elf::STB_LOCAL.0;
        if of.is_vmlinux()
            && global
            && let Some(export) = self.binder.export(&name).filter(|export| export.module.is_none())
            && !export.namespace.as_deref().is_some_and(|space| space.starts_with("module:"))
        {
            return Ok(Outside::Import { name, namespace: export.namespace });
        }
        let bound = self.binder.bind(of.object_name, of.original, symbol)?;
        let object = of.object_name.to_owned();
        Ok(Outside::Livepatch { section_object: object.clone(), symbol_object: object, bound })
    }

    /// A symbol that no object of the unit defines.
    fn undefined_symbol(&self, unit: usize, name: &str) -> Result<Outside, Diagnosis> {
        let of = self.unit(unit);
        let finished = |object: &str| {
            let bound = self.binder.bind_finished(object, name)?;
            let object = object.to_owned();
            Ok(Outside::Livepatch { section_object: object.clone(), symbol_object: object, bound })
        };
        let Some(export) = self.binder.export(name) else {
            return match of.is_vmlinux() || name == "__this_module" {
                true => finished(of.object_name),
                false => Err(unresolved(name, of.object_name)),
            };
        };
        let for_modules = export.namespace.as_deref().is_some_and(|space| space.starts_with("module:"));
        match export.module {
            None if for_modules => finished(VMLINUX),
            Some(module) if for_modules || self.original_uses(unit, name) => {
                let bound = self.binder.bind_export(&module, name)?;
                Ok(Outside::Livepatch {
                    section_object: of.object_name.to_owned(),
                    symbol_object: module,
                    bound,
                })
            }
            // Of the kernel image; or the first use by this module of another's export, which nothing else pins.
            None | Some(_) => Ok(Outside::Import { name: name.to_owned(), namespace: export.namespace }),
        }
    }

    /// True when the original object imports that name already: then the exporting module is there when it is.
    fn original_uses(&self, unit: usize, name: &str) -> bool {
        let original = &self.unit(unit).original.elf;
        original.symbol_ids().any(|s| {
            original.symbol(s).st_shndx.get(LE) == elf::SHN_UNDEF
                && original.symbol_name(s) == name.as_bytes()
        })
    }

    fn external(&mut self, outside: &Outside) -> Sym {
        let name = match outside {
            Outside::Import { name, namespace } => {
                self.imports.insert(Import { name: name.clone(), namespace: namespace.clone() });
                name.clone()
            }
            Outside::Livepatch { section_object, symbol_object, bound } => {
                let last = klp_symbol(symbol_object, bound);
                self.livepatch_symbols.insert(last.clone());
                format!("{PENDING}{section_object}!{last}")
            }
        };
        if let Some(&symbol) = self.externals.get(&name) {
            return symbol;
        }
        let symbol = self.out.add_symbol(Symbol {
            name: name.clone().into_bytes(),
            binding: elf::STB_GLOBAL.0,
            kind: elf::STT_NOTYPE.0,
            other: 0,
            place: Place::Undefined,
            value: 0,
            size: 0,
        });
        self.externals.insert(name, symbol);
        symbol
    }

    // The plan.

    fn plan_objects(&mut self) -> Vec<PlannedObject> {
        let mut order: Vec<usize> = (0..self.closure.units.len()).collect();
        order.sort_by_key(|&n| (!self.unit(n).is_vmlinux(), self.unit(n).object_name));
        let mut objects = Vec::new();
        let mut aliases = 0;
        for unit in order {
            let functions = self.plan_functions(unit, &mut aliases);
            let callbacks = self.plan_callbacks(unit, &mut aliases);
            let of = self.unit(unit);
            if functions.is_empty() && callbacks.is_empty() {
                continue;
            }
            if of.object_name.len() > 55 || of.object_name.contains('.') {
                self.faults.push(
                    Diagnosis::new(
                        "klpx::object-name",
                        Class::NotLivepatchable,
                        "a module name that livepatch can't take",
                    )
                    .place(Where::symbol(of.object_name))
                    .why("names are limited to 55 characters without a dot"),
                );
            }
            let mut added: Vec<String> = self.closure.pieces[unit]
                .iter()
                .filter_map(|piece| match piece {
                    Piece::Item(item) if of.counterpart(*item).is_none() => Some(*item),
                    _ => None,
                })
                .map(|item| String::from_utf8_lossy(of.patched.item_name(item)).into_owned())
                .filter(|name| klpx_normalize::name::anonymous(name.as_bytes()).is_none())
                .collect();
            added.sort();
            objects.push(PlannedObject { name: of.object_name.to_owned(), functions, callbacks, added });
        }
        objects
    }

    fn plan_functions(&mut self, unit: usize, aliases: &mut usize) -> Vec<PlannedFunction> {
        let of = self.unit(unit);
        let mut found = Vec::new();
        for piece in &self.closure.pieces[unit] {
            let Piece::Item(item) = *piece else { continue };
            let Some(original) = of.counterpart(item).filter(|_| self.closure.is_replacement(unit, item))
            else {
                continue;
            };
            match self.binder.bind(of.object_name, of.original, of.original.item(original).symbol) {
                Ok(old) => found.push((old, item)),
                Err(fault) => self.faults.push(fault),
            }
        }
        found.sort();
        found
            .into_iter()
            .map(|(old, item)| PlannedFunction { old, alias: self.alias(unit, item, aliases), item })
            .collect()
    }

    fn plan_callbacks(&mut self, unit: usize, aliases: &mut usize) -> Vec<PlannedCallback> {
        let found = self.closure.callbacks[unit].clone();
        let repeated: Vec<_> = found.windows(2).filter(|pair| pair[0].kind == pair[1].kind).collect();
        for pair in repeated {
            self.faults.push(
                Diagnosis::new("klpx::callback-twice", Class::NotLivepatchable, "two callbacks of one kind")
                    .place(place_of(self.unit(unit).patched, pair[1].item))
                    .why(format!("an object has one {} callback", pair[1].kind.member()))
                    .remedy("do both in one function"),
            );
        }
        found
            .into_iter()
            .map(|callback| PlannedCallback {
                kind: callback.kind,
                alias: self.alias(unit, callback.item, aliases),
            })
            .collect()
    }

    fn alias(&mut self, unit: usize, item: ItemId, aliases: &mut usize) -> String {
        let name = format!("{ALIAS}{aliases}");
        *aliases += 1;
        if let Some(placed) = self.placed.get(&(unit, Piece::Item(item))) {
            self.out.symbols.push(Symbol {
                name: name.clone().into_bytes(),
                binding: elf::STB_GLOBAL.0,
                kind: elf::STT_FUNC.0,
                other: 0,
                place: Place::In(placed.section),
                value: placed.anchor,
                size: 0,
            });
        }
        name
    }
}

fn late_alternative(place: Where) -> Diagnosis {
    Diagnosis::new(
        "klpx::late-alternative",
        Class::NotLivepatchable,
        "a module's symbol inside an alternative",
    )
    .place(place)
    .why("the kernel applies alternatives when the livepatch is loaded, and the address is known only later")
    .remedy("report this function: klpx can't patch it")
}

fn relocation_type(place: Where, code: u32) -> Diagnosis {
    Diagnosis::new("klpx::relocation-type", Class::NotLivepatchable, format!("a relocation of type {code}"))
        .place(place)
        .why("the kernel's module loader does not take it")
        .remedy("report this function and how the kernel was built")
}

fn not_copied(place: Where) -> Diagnosis {
    Diagnosis::new("klpx::not-copied", Class::Internal, "a reference to something that was not copied")
        .place(place)
        .remedy("report this function and the patch")
}

fn unresolved(name: &str, object: &str) -> Diagnosis {
    Diagnosis::new(
        "klpx::unresolved-symbol",
        Class::NotLivepatchable,
        format!("{object} refers to {name}, which nothing exports"),
    )
    .why("the kernel to be patched has no export of that name, so no module can refer to it")
    .remedy("check that Module.symvers belongs to the kernel to be patched")
}

#[cfg(test)]
mod tests {
    use crate::testing::{Builds, Kernel};

    /// What the change from one text to the other is refused for.
    fn codes(original: &str, patched: &str) -> Vec<&'static str> {
        Builds::new(original, patched).codes("vmlinux", &Kernel::default())
    }

    #[test]
    fn what_a_livepatch_cant_do_is_refused_with_its_code() {
        let cases = [
            (
                "int limit = 3; int f(void) { return limit; }",
                "int limit = 4; int f(void) { return limit; }",
                "klpx::changed-data",
            ),
            (
                "__attribute__((section(\".init.text\"))) int setup(int x) { return x; }",
                "__attribute__((section(\".init.text\"))) int setup(int x) { return x + 1; }",
                "klpx::init-function",
            ),
            (
                "__attribute__((no_instrument_function)) int f(int x) { return x; }",
                "__attribute__((no_instrument_function)) int f(int x) { return x + 1; }",
                "klpx::not-traceable",
            ),
            (
                "int once __attribute__((section(\".init.data\"))); int f(void) { return 1; }",
                "int once __attribute__((section(\".init.data\"))); int f(void) { return once; }",
                "klpx::init-reference",
            ),
        ];
        for (original, patched, code) in cases {
            assert_eq!(codes(original, patched), [code], "{patched}");
        }
    }

    #[test]
    fn several_refusals_come_at_once() {
        let found = codes(
            "int a = 1, b = 1; int f(void) { return a + b; }",
            "int a = 2, b = 2; int f(void) { return a + b; }",
        );
        assert_eq!(found, ["klpx::changed-data", "klpx::changed-data"]);
    }

    #[test]
    fn a_name_that_nothing_exports_is_refused_in_a_module_only() {
        let builds = Builds::new(
            "extern int away(int); int f(int x) { return away(x); }",
            "extern int away(int); int f(int x) { return away(x) + 1; }",
        );
        let kernel = Kernel { exports: vec!["__fentry__"], ..Kernel::default() };
        assert_eq!(builds.codes("raid1", &kernel), ["klpx::unresolved-symbol"]);
        assert!(builds.codes("vmlinux", &Kernel::default()).is_empty());
    }

    #[test]
    fn a_cold_part_comes_with_its_function_and_is_not_replaced_by_itself() {
        let text = |number: u32| {
            format!(
                "extern int slow(int) __attribute__((cold)); extern int v; \
                 int f(int x) {{ if (x == 7) {{ v = slow(x) + {number}; v += slow(v); }} return x + v; }}"
            )
        };
        let builds = Builds::new(&text(1), &text(2));
        let emitted = builds.emit("vmlinux", &Kernel::default()).expect("a livepatch");
        let names: Vec<&str> =
            emitted.plan.objects[0].functions.iter().map(|f| f.old.name.as_str()).collect();
        assert_eq!(names, ["f"]);
    }
}
