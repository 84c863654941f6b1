//! Finds the final target of each relocation of the placed code and data.

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Result, codes};
use klpx_normalize::elf::SymbolId;
use klpx_normalize::object::{ItemId, Object, Role, SectionRange};
use object::elf;
use object::endian::LittleEndian as LE;

use super::{Emitter, OutputPlace, Outside, Placed};
use crate::arch::{self, VENEER, Veneer};
use crate::callers::is_branch;
use crate::closure::{Piece, Reference, ReferenceOrigin, Referent, place_of_piece};
use crate::plan::{Import, PENDING, VMLINUX, klp_symbol};
use crate::writer::{Relocation, Symbol, SymbolIndex, SymbolPlace};

impl Emitter<'_, '_, '_> {
    pub(super) fn find_late(&mut self, unit: usize, piece: Piece) {
        let builds = self.unit(unit);
        if builds.is_vmlinux() {
            return;
        }
        let SectionRange { section, start, end } = piece.range(builds.patched);
        if builds.patched.role(section) != Role::Code {
            return;
        }
        let origin = ReferenceOrigin::Piece(piece);
        for rela in builds.patched.relocations_in(section, start, end) {
            let referent = self.closure.referent(unit, Reference { origin, section, rela });
            let late = matches!(self.outside(unit, referent), Some(Ok((outside, _))) if outside.is_late());
            match piece {
                Piece::Item(item) if late => {
                    let anchor = piece.anchor(builds.patched);
                    self.late.insert((unit, item, rela.r_offset.get(LE).wrapping_sub(anchor) as i64));
                }
                Piece::Bytes { .. } if late => self.faults.push(late_alternative(DiagnosisPlace::default())),
                _ => {}
            }
        }
    }

    pub(super) fn relocate_piece(&mut self, unit: usize, piece: Piece) {
        let SectionRange { section, start, end } = piece.range(self.unit(unit).patched);
        let Some(placed) = self.placed.get(&(unit, piece)).copied() else { return };
        for rela in self.unit(unit).patched.relocations_in(section, start, end) {
            let offset = placed.start + (rela.r_offset.get(LE) - start);
            let reference = Reference { origin: ReferenceOrigin::Piece(piece), section, rela };
            self.relocate(unit, piece, reference, OutputPlace { section: placed.section, offset });
        }
        self.relocate_branches(unit, piece, placed);
        let name = self.out.sections[placed.section.0].name.clone();
        let table = self.out.sections[placed.section.0].rela_table([b".rela", &name[..]].concat(), 0);
        table.relocations.sort_by_key(|relocation| relocation.offset);
    }

    /// Gives branches to other functions of the same section the relocation that the assembler left out.
    fn relocate_branches(&mut self, unit: usize, piece: Piece, placed: Placed) {
        let SectionRange { section, start, .. } = piece.range(self.unit(unit).patched);
        for rela in &self.closure.direct_branches(unit, piece) {
            let offset = placed.start + (rela.r_offset.get(LE) - start);
            let field = offset as usize..offset as usize + 4;
            if self.unit(unit).patched.arch.wants_clear_fields()
                && let Some(bytes) = self.out.sections[placed.section.0].data.get_mut(field)
            {
                bytes.fill(0); // the loader takes no other
            }
            let reference = Reference { origin: ReferenceOrigin::Piece(piece), section, rela };
            self.relocate(unit, piece, reference, OutputPlace { section: placed.section, offset });
        }
    }

    /// Writes the relocation of a reference at a place of the module's object. `owner` is the piece that a diagnosis
    /// names.
    pub(super) fn relocate(
        &mut self,
        unit: usize,
        owner: Piece,
        reference: Reference<'_>,
        place: OutputPlace,
    ) {
        let object = self.unit(unit).patched;
        let of_owner = || place_of_piece(object, owner);
        let Reference { origin, section, rela } = reference;
        let kind = match object.relocation_kind(rela) {
            Some(kind) if kind.code == 0 => return,
            Some(kind) if kind.in_module => kind,
            _ => return self.faults.push(relocation_type(of_owner(), rela.r_type(LE, false).0)),
        };
        let bias = if object.role(section) == Role::Code { object.arch.pc_bias(kind) } else { 0 };
        let referent = self.closure.referent(unit, reference);
        let (symbol, addend) = match referent {
            Referent::Absolute(value) => (None, value - bias),
            Referent::Copied(other, piece, delta) => {
                let Some(placed) = self.placed.get(&(other, piece)).copied() else {
                    return self.faults.push(not_copied(of_owner()));
                };
                match placed.symbol {
                    Some(symbol) => (Some(symbol), delta - bias),
                    None => (self.section_symbol(placed.section), placed.anchor as i64 + delta - bias),
                }
            }
            Referent::Entry(table, entry, delta) => match self.entries.get(&(unit, table, entry)).copied() {
                Some(copy) => (self.section_symbol(copy.section), copy.offset as i64 + delta - bias),
                None => return self.faults.push(not_copied(of_owner())),
            },
            Referent::Original(_, delta) | Referent::Inner(_, delta) | Referent::External(_, delta) => {
                match self.outside(unit, referent) {
                    Some(Ok((outside, name))) => {
                        if matches!(origin, ReferenceOrigin::Piece(_)) && !is_branch(object, section, rela) {
                            self.check_address(&outside, &name, of_owner());
                        }
                        let symbol = self.external(&outside);
                        let far = || outside.is_late() || self.lacks_landing_pad(unit, referent);
                        match arch::veneer(object.arch).filter(|_| kind.branch && far()) {
                            Some(veneer) => (Some(self.veneer(veneer, symbol, delta, &name)), 0),
                            None => (Some(symbol), delta - bias),
                        }
                    }
                    Some(Err(fault)) => {
                        let fault = if fault.place.is_empty() { fault.place(of_owner()) } else { fault };
                        return self.faults.push(fault);
                    }
                    None => return,
                }
            }
        };
        let relocation = Relocation { offset: place.offset, kind: kind.code, symbol, addend };
        self.out.sections[place.section.0].relocate(relocation);
    }

    /// Checks an address that is taken: it may be called.
    fn check_address(&mut self, outside: &Outside, name: &str, place: DiagnosisPlace) {
        if let Outside::Livepatch { symbol_object, bound, .. } = outside
            && self.binder.refuses_indirect_calls(symbol_object, bound)
        {
            self.faults.push(
                Diagnosis::new(
                    &codes::NO_LANDING_PAD,
                    format!("the patch takes the address of {name}, which can't be called through a pointer"),
                    "in the kernel to be patched only direct calls lead to it, so it has no landing pad \
                     (IBT)",
                    "let the pointer lead to a new function that calls it",
                )
                .place(place),
            );
        }
    }

    /// Returns true for a function of the kernel without a landing pad, in a kernel with landing pads: only its unit's
    /// direct branches reach it.
    fn lacks_landing_pad(&self, unit: usize, referent: Referent) -> bool {
        let Referent::Original(item, _) = referent else { return false };
        let original = self.unit(unit).original;
        self.landing_pads[unit] && !begins_with_landing_pad(original, item)
    }

    /// A piece of code that leads to a symbol at any distance; one for each branch target.
    fn veneer(&mut self, veneer: &Veneer, symbol: SymbolIndex, delta: i64, name: &str) -> SymbolIndex {
        if let Some(&made) = self.veneers.get(&(symbol, delta)) {
            return made;
        }
        let section = self.text();
        let out = &mut self.out.sections[section.0];
        let start = out.pad(8, 0, 0);
        for word in veneer.code {
            out.data.extend_from_slice(&word.to_le_bytes());
        }
        for &(at, kind) in veneer.relocations {
            out.relocate(Relocation { offset: start + at, kind, symbol: Some(symbol), addend: delta });
        }
        let made = self.out.add_symbol(Symbol {
            name: format!("{VENEER}{name}").into_bytes(),
            binding: elf::STB_LOCAL.0,
            kind: elf::STT_FUNC.0,
            other: 0,
            place: SymbolPlace::In(section),
            value: start,
            size: 4 * veneer.code.len() as u64,
        });
        self.veneers.insert((symbol, delta), made);
        made
    }

    /// How something outside the module is found, and its name.
    pub(super) fn outside(
        &self,
        unit: usize,
        referent: Referent,
    ) -> Option<Result<(Outside, String), Diagnosis>> {
        let builds = self.unit(unit);
        let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        Some(match referent {
            Referent::Original(item, _) => {
                let symbol = builds.original.item(item).symbol;
                self.original_symbol(unit, symbol)
                    .map(|outside| (outside, text(builds.original.elf.symbol_name(symbol))))
            }
            Referent::Inner(symbol, _) => {
                let name = builds.patched.elf.symbol_name(symbol);
                let same = builds.original.elf.symbol_ids().find(|&s| {
                    builds.original.elf.symbol_name(s) == name
                        && builds.original.elf.symbol_binding(s) != elf::STB_LOCAL.0
                        && builds.original.elf.symbol_section(s).is_some()
                });
                let item = builds.patched.symbol_item(symbol);
                let at_entry = item.is_some_and(|item| {
                    builds.patched.item(item).entry == builds.patched.elf.symbol_value(symbol)
                });
                let entry = || item.filter(|_| at_entry).and_then(|item| builds.counterpart(item));
                match same.or_else(|| entry().map(|item| builds.original.item(item).symbol)) {
                    Some(symbol) => self.original_symbol(unit, symbol).map(|outside| (outside, text(name))),
                    None => Err(unresolved(&text(name), builds.object_name)),
                }
            }
            Referent::External(symbol, _) => {
                let name = text(builds.patched.elf.symbol_name(symbol));
                self.undefined_symbol(unit, &name).map(|outside| (outside, name))
            }
            _ => return None,
        })
    }

    /// A symbol that the unit's original object defines.
    pub(super) fn original_symbol(&self, unit: usize, symbol: SymbolId) -> Result<Outside, Diagnosis> {
        let builds = self.unit(unit);
        let name = String::from_utf8_lossy(builds.original.elf.symbol_name(symbol)).into_owned();
        let global = builds.original.elf.symbol_binding(symbol) != elf::STB_LOCAL.0;
        if builds.is_vmlinux()
            && global
            && let Some(export) = self.binder.export(&name).filter(|export| export.module.is_none())
            && !export.namespace.as_deref().is_some_and(|space| space.starts_with("module:"))
        {
            return Ok(Outside::Import { name, namespace: export.namespace });
        }
        let bound = self.binder.bind(builds.original, symbol)?;
        let object = builds.object_name.to_owned();
        Ok(Outside::Livepatch { section_object: object.clone(), symbol_object: object, bound })
    }

    /// A symbol that the unit does not define.
    pub(super) fn undefined_symbol(&self, unit: usize, name: &str) -> Result<Outside, Diagnosis> {
        let builds = self.unit(unit);
        let finished = |object: &str| {
            let bound = self.binder.bind_finished(object, name)?;
            let object = object.to_owned();
            Ok(Outside::Livepatch { section_object: object.clone(), symbol_object: object, bound })
        };
        if !builds.is_vmlinux() && self.binder.defines(builds.object_name, name) {
            return finished(builds.object_name); // another unit of the module does
        }
        let Some(export) = self.binder.export(name) else {
            return match builds.is_vmlinux() || name == "__this_module" {
                true => finished(builds.object_name),
                false => Err(unresolved(name, builds.object_name)),
            };
        };
        let for_modules = export.namespace.as_deref().is_some_and(|space| space.starts_with("module:"));
        match export.module {
            None if for_modules => finished(VMLINUX),
            Some(module) if for_modules || self.original_uses(unit, name) => {
                let bound = self.binder.bind_export(&module, name)?;
                Ok(Outside::Livepatch {
                    section_object: builds.object_name.to_owned(),
                    symbol_object: module,
                    bound,
                })
            }
            // An export of the kernel image, or the patched module's first use of another module's export, which
            // nothing else pins.
            None | Some(_) => Ok(Outside::Import { name: name.to_owned(), namespace: export.namespace }),
        }
    }

    /// Returns true if the original object already imports the name: the exporting module is then loaded whenever the
    /// object is.
    fn original_uses(&self, unit: usize, name: &str) -> bool {
        let original = &self.unit(unit).original.elf;
        original.symbol_ids().any(|s| {
            original.symbol(s).st_shndx.get(LE) == elf::SHN_UNDEF
                && original.symbol_name(s) == name.as_bytes()
        })
    }

    pub(super) fn external(&mut self, outside: &Outside) -> SymbolIndex {
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
            place: SymbolPlace::Undefined,
            value: 0,
            size: 0,
        });
        self.externals.insert(name, symbol);
        symbol
    }
}

/// Returns true if the compiler gave functions landing pads. Assembly has landing pads in any kernel, but no trace
/// sites.
pub(super) fn has_landing_pads(object: &Object<'_>) -> bool {
    let (sites, _) = object.arch.trace_sites();
    arch::veneer(object.arch).is_some()
        && object.item_ids().any(|item| {
            let traced = object.entries(item).iter();
            let mut traced = traced.filter(|entry| object.tables[entry.table.index()].kind.name == sites);
            traced.next().is_some() && begins_with_landing_pad(object, item)
        })
}

fn begins_with_landing_pad(object: &Object<'_>, item: ItemId) -> bool {
    let item = object.item(item);
    arch::begins_with_landing_pad(object.arch, object.range(item.section, item.entry, item.end))
}

pub(super) fn late_alternative(place: DiagnosisPlace) -> Diagnosis {
    Diagnosis::new(
        &codes::LATE_ALTERNATIVE,
        "a module's symbol inside an alternative",
        "the kernel applies alternatives when the livepatch is loaded, and the address is known only later",
        "report this function: klpx can't patch it",
    )
    .place(place)
}
fn relocation_type(place: DiagnosisPlace, code: u32) -> Diagnosis {
    Diagnosis::new(
        &codes::RELOCATION_TYPE,
        format!("a relocation of type {code}"),
        "the kernel's module loader does not take it",
        "report this function and how the kernel was built",
    )
    .place(place)
}

fn not_copied(place: DiagnosisPlace) -> Diagnosis {
    Diagnosis::new(
        &codes::NOT_COPIED,
        "a reference to something that was not copied",
        "klpx must copy each item that copied code refers to, unless the kernel has the item",
        "report this function and the patch",
    )
    .place(place)
}

fn unresolved(name: &str, object: &str) -> Diagnosis {
    Diagnosis::new(
        &codes::UNRESOLVED_SYMBOL,
        format!("{object} refers to {name}, which nothing exports"),
        "the kernel to be patched has no export of that name, so no module can refer to it",
        "check that Module.symvers belongs to the kernel to be patched",
    )
}
