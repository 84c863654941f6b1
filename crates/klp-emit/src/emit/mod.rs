//! Writes the closure as a relocatable object: bytes, special-section entries, symbols and relocations.
//!
//! Owns placement and the final target of each reference (import, livepatch symbol, own copy). Never chooses what is
//! copied. References that the livepatch core resolves get undefined symbols with a `.klpx.` name, which `finish` turns
//! into livepatch relocations after the link.

mod entries;
mod frames;
mod objects;
mod references;

use std::collections::{BTreeMap, BTreeSet};

use klpx_diagnosis::{Diagnosis, Failure, Note, Result, codes};
use klpx_normalize::elf::SectionId;
use klpx_normalize::name::{prefix_mark, without_promotion};
use klpx_normalize::object::{ItemId, Role, SectionRange, TableId};
use object::elf;
use object::endian::LittleEndian as LE;

use crate::arch;
use crate::closure::{Closure, Piece};
use crate::plan::{Binder, Bound, ComparedUnit, Import, Plan, PlannedObject, VMLINUX};
use crate::writer::{OutputSection, Relocatable, Sec, Symbol, SymbolIndex, SymbolPlace};

const ALLOC: u64 = elf::SHF_ALLOC.0;
const WRITE: u64 = elf::SHF_WRITE.0;
const EXEC: u64 = elf::SHF_EXECINSTR.0;
const LINK_ORDER: u64 = elf::SHF_LINK_ORDER.0;

/// A closure written as an object, and the plan for making a module of it.
pub struct Emitted {
    /// The relocatable object.
    pub object: Vec<u8>,
    /// What the module patches and needs.
    pub plan: Plan,
}

/// Writes a closure.
///
/// # Errors
/// All references that can't be bound and all entries that can't be carried.
pub fn emit(closure: &Closure<'_, '_>, binder: &dyn Binder) -> Result<Emitted> {
    let Some(first) = closure.units.first() else {
        return Err(Diagnosis::new(
            &codes::INTERNAL,
            "a closure without units",
            "the selection refuses a patch that replaces nothing",
            klpx_diagnosis::REPORT,
        )
        .into());
    };
    let mut emitter = Emitter {
        closure,
        binder,
        out: Relocatable::new(first.patched.elf.machine()),
        sections: BTreeMap::new(),
        placed: BTreeMap::new(),
        entries: BTreeMap::new(),
        externals: BTreeMap::new(),
        veneers: BTreeMap::new(),
        landing_pads: closure.units.iter().map(|unit| references::has_landing_pads(unit.original)).collect(),
        common: None,
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

/// How a symbol outside the module is found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outside {
    /// By the module loader, as in any module.
    Import { name: String, namespace: Option<String> },
    /// By the livepatch core.
    Livepatch { section_object: String, symbol_object: String, bound: Bound },
}

impl Outside {
    /// Returns true if the reference is written only when the patched module arrives, after the special sections were
    /// read.
    fn is_late(&self) -> bool {
        matches!(self, Outside::Livepatch { section_object, .. } if section_object != VMLINUX)
    }
}

/// A place in the module's object.
#[derive(Clone, Copy)]
struct OutputPlace {
    section: Sec,
    offset: u64,
}

/// The place of a piece. The anchor is the piece's entry or first byte.
#[derive(Clone, Copy)]
struct Placed {
    section: Sec,
    start: u64,
    anchor: u64,
    symbol: Option<SymbolIndex>,
}

struct Emitter<'c, 'u, 'd> {
    closure: &'c Closure<'u, 'd>,
    binder: &'c dyn Binder,
    out: Relocatable,
    sections: BTreeMap<Vec<u8>, (Sec, SymbolIndex)>,
    placed: BTreeMap<(usize, Piece), Placed>,
    entries: BTreeMap<(usize, TableId, u32), OutputPlace>,
    externals: BTreeMap<String, SymbolIndex>,
    veneers: BTreeMap<(SymbolIndex, i64), SymbolIndex>,
    /// By unit: whether its functions begin with landing pads if indirect branches may reach them.
    landing_pads: Vec<bool>,
    /// The common information of the frames that were placed last: its place and its bytes.
    common: Option<(usize, Vec<u8>)>,
    imports: BTreeSet<Import>,
    livepatch_symbols: BTreeSet<String>,
    /// Places in copied code that a late livepatch relocation writes: unit, item, bytes from the item's entry.
    late: BTreeSet<(usize, ItemId, i64)>,
    warnings: Vec<Note>,
    faults: Vec<Diagnosis>,
}

impl<'u, 'd> Emitter<'_, 'u, 'd> {
    fn unit(&self, unit: usize) -> ComparedUnit<'u, 'd> {
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
        // Without this section, linkers assume that an executable stack is wanted.
        self.out.add_section(OutputSection::new(b".note.GNU-stack", elf::SHT_PROGBITS.0, 0, 1));
        for unit in 0..closure.units.len() {
            self.place_entries(unit);
            self.place_frames(unit);
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
        let section = self.out.add_section(OutputSection::new(name, kind, flags, align));
        let symbol = self.out.add_symbol(Symbol {
            name: Vec::new(),
            binding: elf::STB_LOCAL.0,
            kind: elf::STT_SECTION.0,
            other: 0,
            place: SymbolPlace::In(section),
            value: 0,
            size: 0,
        });
        self.sections.insert(name.to_vec(), (section, symbol));
        section
    }

    /// The section of all functions.
    fn text(&mut self) -> Sec {
        self.section(b".text", elf::SHT_PROGBITS.0, ALLOC | EXEC, 16)
    }

    fn section_symbol(&self, section: Sec) -> Option<SymbolIndex> {
        self.sections.get(&self.out.sections[section.0].name).map(|&(_, symbol)| symbol)
    }

    /// The module's section for the contents of `from`. There are few sections, with names that every kernel's module
    /// loader knows.
    fn section_for(&mut self, unit: usize, from: SectionId) -> Sec {
        let elf_file = &self.unit(unit).patched.elf;
        let (name, flags) = (elf_file.section_name(from), elf_file.section_flags(from));
        let nobits = elf_file.section_type(from) == elf::SHT_NOBITS.0;
        let (progbits, bss) = (elf::SHT_PROGBITS.0, elf::SHT_NOBITS.0);
        if flags & EXEC != 0 {
            let own = matches!(name, b".altinstr_replacement" | b".altinstr_aux" | b".static_call.text");
            return if own { self.section(name, progbits, ALLOC | EXEC, 16) } else { self.text() };
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
        let SectionRange { section: from, start, end } = piece.range(object);
        let section = self.section_for(unit, from);
        let fill = if object.role(from) == Role::Code { arch::filler(object.arch) } else { 0 };
        let align = object.elf.section(from).sh_addralign.get(LE).max(1);
        // Nothing in a module tells in which folder it was made.
        let whole = object.range(from, start, end);
        let bytes = object.without_source_folder(from, whole);
        let end = end - (whole.len() - bytes.len()) as u64;
        let out = &mut self.out.sections[section.0];
        let at = out.pad(align, start, fill);
        if out.kind == elf::SHT_NOBITS.0 {
            out.nobits += end - start;
        } else {
            out.data.extend_from_slice(&bytes);
            out.data.resize((at + (end - start)) as usize, 0); // per-cpu data without bytes in the file
        }
        let anchor = at + (piece.anchor(object) - start);
        let symbol = match piece {
            Piece::Item(item) => self.item_symbol(unit, item, section, anchor),
            Piece::Bytes { .. } => None,
        };
        self.placed.insert((unit, piece), Placed { section, start: at, anchor, symbol });
    }

    /// A copied item's local symbol. It has the kernel's own name, so that stack traces read as before, but without the
    /// hash of a promotion, which only depends on where klpx built.
    fn item_symbol(&mut self, unit: usize, item: ItemId, section: Sec, anchor: u64) -> Option<SymbolIndex> {
        let builds = self.unit(unit);
        let symbol = builds.patched.item(item).symbol;
        let name = match builds.counterpart(item) {
            Some(original) => builds.original.item_name(original),
            None => builds.patched.item_name(item),
        };
        if name.starts_with(b".L") {
            return None; // linkers drop these
        }
        let name = without_promotion(name);
        let mut add = |name: Vec<u8>, symbol, value| {
            self.out.add_symbol(Symbol {
                name,
                binding: elf::STB_LOCAL.0,
                kind: builds.patched.elf.symbol_type(symbol),
                other: 0,
                place: SymbolPlace::In(section),
                value,
                size: builds.patched.elf.symbol_size(symbol),
            })
        };
        let shape = builds.patched.item(item);
        if let Some(prefix) = shape.prefix
            && let Some(mark) = prefix_mark(builds.patched.elf.symbol_name(prefix))
        {
            add(
                [mark, name].concat(),
                prefix,
                anchor - (shape.entry - builds.patched.elf.symbol_value(prefix)),
            );
        }
        Some(add(name.to_vec(), symbol, anchor))
    }
}
