//! One kernel object: a linked vmlinux, or a module.

use std::sync::OnceLock;

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Result, codes};
use klpx_normalize::arch::Arch;
use klpx_normalize::elf::{Definition, Elf, ElfFile, Rela, SectionId, SymbolId};
use klpx_normalize::name;
use object::elf;
use object::endian::LittleEndian as LE;

use crate::kallsyms::table::Kallsyms;
use crate::locals::Locals;
use crate::names::NameIndex;

/// The name of the kernel proper in a livepatch.
pub const VMLINUX: &str = "vmlinux";

/// The target of a place in an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    /// An address of the image.
    At(u64),
    /// A symbol that the image does not define, and an offset in bytes.
    Undefined(SymbolId, i64),
}

/// One kernel object: a linked vmlinux, or a module.
///
/// Addresses are those of the linked image. A module's sections have no addresses yet: there, a section's address is
/// its number shifted left by 32.
pub struct Image<'k> {
    /// The file's tables.
    pub elf: Elf<'k>,
    /// The file's architecture.
    pub arch: Arch,
    pub(super) object: String,
    path: String,
    pub(super) linked: bool,
    bases: Vec<u64>,
    loaded: Vec<SectionId>,
    names: NameIndex,
    by_address: Vec<(u64, SymbolId)>,
    pub(super) files: Vec<SymbolId>,
    relative: Vec<(u64, u64)>,
    pub(super) kallsyms: OnceLock<Result<Kallsyms>>,
    pub(super) locals: OnceLock<Locals>,
}

impl<'k> Image<'k> {
    /// Reads the image of a kernel object.
    ///
    /// # Errors
    /// Fails if the file is damaged, is for an unknown machine, or has no symbol table.
    pub fn read(file: &'k ElfFile, object: &str) -> Result<Image<'k>> {
        let elf = file.parse()?;
        let arch = Arch::of_machine(elf.machine())?;
        let linked = matches!(elf.file_type(), t if t == elf::ET_EXEC.0 || t == elf::ET_DYN.0);
        let path = file.path().display().to_string();
        if elf.symbol_count() < 2 || !linked && elf.file_type() != elf::ET_REL.0 {
            return Err(not_an_image(&path).into());
        }
        if object == VMLINUX && !linked {
            return Err(not_linked(&path).into());
        }
        let bases = (elf.section_ids())
            .map(|id| if linked { elf.section(id).sh_addr.get(LE) } else { u64::from(id.0) << 32 })
            .collect();
        let mut image = Image {
            arch,
            object: object.to_owned(),
            path,
            linked,
            bases,
            loaded: Vec::new(),
            names: NameIndex::with_capacity(elf.symbol_count()),
            by_address: Vec::with_capacity(elf.symbol_count()),
            files: Vec::new(),
            relative: Vec::new(),
            kallsyms: OnceLock::new(),
            locals: OnceLock::new(),
            elf,
        };
        image.index_sections();
        image.index_relative();
        image.index_symbols();
        Ok(image)
    }

    fn index_sections(&mut self) {
        let alloc = elf::SHF_ALLOC.0;
        self.loaded = (self.elf.section_ids())
            .filter(|&id| self.elf.section_flags(id) & alloc != 0 && self.elf.section_size(id) > 0)
            .collect();
        self.loaded.sort_by_key(|&id| (self.bases[id.index()], id));
    }

    /// Finds the pointers that a relocatable kernel fills in when it starts. The image holds zeroes there
    /// (arch/arm64/Makefile, --no-apply-dynamic-relocs).
    fn index_relative(&mut self) {
        let Some(kind) = self.arch.load_relative().filter(|_| self.linked) else { return };
        for &id in self.loaded.iter().filter(|&&id| self.elf.section_type(id) == elf::SHT_RELA.0) {
            let pointers = self.elf.rela_table(id).iter().filter(|r| r.r_type(LE, false).0 == kind);
            self.relative.extend(pointers.map(|r| (r.r_offset.get(LE), r.r_addend.get(LE) as u64)));
        }
        self.relative.sort_unstable();
    }

    /// The address that the starting kernel writes at a place, if any.
    pub(crate) fn pointer_at(&self, place: u64) -> Option<u64> {
        let n = self.relative.binary_search_by_key(&place, |&(at, _)| at).ok()?;
        Some(self.relative[n].1)
    }

    fn index_symbols(&mut self) {
        let mut names = NameIndex::with_capacity(self.elf.symbol_count());
        for id in self.elf.symbol_ids() {
            match self.elf.symbol_type(id) {
                t if t == elf::STT_FILE.0 => self.files.push(id),
                t if t == elf::STT_SECTION.0 => {}
                _ => {
                    names.insert(id.0, |n| self.elf.symbol_name(SymbolId(n)));
                    if let Some(address) = self.address(id) {
                        self.by_address.push((address, id));
                    }
                }
            }
        }
        self.by_address.sort_unstable();
        self.names = names;
    }

    /// `vmlinux`, or the module's name.
    pub fn object(&self) -> &str {
        &self.object
    }

    /// The path of the file.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns true for a vmlinux with final addresses, false for a module.
    pub fn is_linked(&self) -> bool {
        self.linked
    }

    /// The FILE symbols, in symbol table order.
    pub fn files(&self) -> &[SymbolId] {
        &self.files
    }

    /// The image's locals by file.
    pub(crate) fn locals(&self) -> &Locals {
        self.locals.get_or_init(|| Locals::read(&self.elf, |id| self.is_global(id)))
    }

    /// The file from which a local symbol comes, if the object or its unstripped copy tells.
    pub fn file_of(&self, id: SymbolId) -> Option<&[u8]> {
        self.locals().file_of(id)
    }

    /// Returns true if ThinLTO promoted locals of some file to globals.
    pub(crate) fn has_promoted(&self) -> bool {
        self.elf.any_name_contains(name::PROMOTED)
    }

    /// All symbols with this name, defined or not, in symbol table order.
    pub fn named(&self, name: &[u8]) -> impl Iterator<Item = SymbolId> + use<'_, 'k> {
        self.names.get(name, |n| self.elf.symbol_name(SymbolId(n))).map(SymbolId)
    }

    /// Returns true for a symbol that other objects of the link could see: a global, or a symbol that the final link
    /// made local because it was hidden (every C symbol of an LTO build).
    pub fn is_global(&self, id: SymbolId) -> bool {
        let hidden = matches!(self.elf.symbol(id).st_other.0 & 3, 1 | 2);
        self.elf.symbol_binding(id) != elf::STB_LOCAL.0 || hidden
    }

    /// The only global symbol with this name.
    pub fn global(&self, name: &[u8]) -> Option<SymbolId> {
        self.named(name).find(|&id| self.is_global(id))
    }

    /// A symbol's address, if it has one.
    pub fn address(&self, id: SymbolId) -> Option<u64> {
        match self.elf.definition(id) {
            Definition::Section(_) | Definition::Absolute if self.linked => Some(self.elf.symbol_value(id)),
            Definition::Section(section) => {
                Some(self.bases[section.index()].wrapping_add(self.elf.symbol_value(id)))
            }
            _ => None,
        }
    }

    /// The address at which a section begins.
    pub fn section_address(&self, id: SectionId) -> u64 {
        self.bases[id.index()]
    }

    /// All named symbols at an address.
    pub fn at(&self, address: u64) -> impl Iterator<Item = SymbolId> + '_ {
        let start = self.by_address.partition_point(|&(a, _)| a < address);
        self.by_address[start..].iter().take_while(move |&&(a, _)| a == address).map(|&(_, id)| id)
    }

    /// The address of the first symbol after this address.
    pub fn next_symbol(&self, address: u64) -> Option<u64> {
        let next = self.by_address.partition_point(|&(a, _)| a <= address);
        self.by_address.get(next).map(|&(a, _)| a)
    }

    /// The function that contains an address: its start, and one past its end.
    pub(crate) fn function_at(&self, address: u64) -> Option<(u64, u64)> {
        let after = self.by_address.partition_point(|&(a, _)| a <= address);
        let is_function = |&&(_, id): &&(u64, SymbolId)| {
            self.elf.symbol_type(id) == elf::STT_FUNC.0 && self.elf.symbol_size(id) > 0
        };
        let &(start, id) = self.by_address.get(..after)?.iter().rev().find(is_function)?;
        let end = start.saturating_add(self.elf.symbol_size(id));
        (address < end).then_some((start, end))
    }

    /// The end of the last function that begins before an address, if the function ends at or before the address.
    pub(crate) fn function_before(&self, address: u64) -> Option<u64> {
        let after = self.by_address.partition_point(|&(a, _)| a < address);
        let is_function = |&&(_, id): &&(u64, SymbolId)| {
            self.elf.symbol_type(id) == elf::STT_FUNC.0 && self.elf.symbol_size(id) > 0
        };
        let &(start, id) = self.by_address.get(..after)?.iter().rev().find(is_function)?;
        Some(start.saturating_add(self.elf.symbol_size(id))).filter(|end| *end <= address)
    }

    /// An address as symbol and offset, for people.
    pub fn describe(&self, address: u64) -> String {
        let n = self.by_address.partition_point(|&(a, _)| a <= address);
        let known = self.by_address[..n].iter().rev().find(|&&(_, id)| {
            self.elf.symbol_type(id) != elf::STT_NOTYPE.0 || !self.elf.symbol_name(id).starts_with(b".L")
        });
        match known {
            Some(&(at, id)) if address == at => self.name(id),
            Some(&(at, id)) if address - at < 1 << 20 => format!("{}+{:#x}", self.name(id), address - at),
            _ => format!("{address:#x}"),
        }
    }

    /// A symbol's name as text.
    pub fn name(&self, id: SymbolId) -> String {
        String::from_utf8_lossy(self.elf.symbol_name(id)).into_owned()
    }

    /// The loaded section that contains an address.
    pub fn section_of(&self, address: u64) -> Option<SectionId> {
        let after = self.loaded.partition_point(|&id| self.bases[id.index()] <= address);
        let id = *self.loaded.get(after.checked_sub(1)?)?;
        (address - self.bases[id.index()] < self.elf.section_size(id)).then_some(id)
    }

    /// The places that boot code patches with the runtime constant `name` (include/asm-generic/vmlinux.lds.h,
    /// RUNTIME_CONST): the table of a linked image between `__start_runtime_ptr_<name>` and `__stop_...`.
    pub fn runtime_sites(&self, name: &str) -> Vec<u64> {
        let bound = |edge: &str| {
            let symbol = self.named(format!("__{edge}_runtime_ptr_{name}").as_bytes()).next()?;
            self.address(symbol)
        };
        let (Some(start), Some(stop)) = (bound("start"), bound("stop")) else { return Vec::new() };
        let bytes = self.bytes_from(start).unwrap_or(&[]);
        let bytes = bytes.get(..stop.saturating_sub(start) as usize).unwrap_or(&[]);
        let entry = |(n, e): (usize, &[u8])| {
            let distance = i64::from(i32::from_le_bytes([e[0], e[1], e[2], e[3]]));
            (start + 4 * n as u64).wrapping_add_signed(distance)
        };
        bytes.chunks_exact(4).enumerate().map(entry).collect()
    }

    /// The bytes from an address to the end of its section; empty in `.bss`.
    pub fn bytes_from(&self, address: u64) -> Option<&'k [u8]> {
        let section = self.section_of(address)?;
        let offset = (address - self.bases[section.index()]) as usize;
        Some(self.elf.section_bytes(section).get(offset..).unwrap_or(&[]))
    }

    /// The relocations of a module in a range of one section, if the file has them in order.
    pub fn relocations(&self, start: u64, length: u64) -> &[Rela] {
        if self.linked {
            return &[];
        }
        let Some(section) = self.section_of(start) else { return &[] };
        let from = start - self.bases[section.index()];
        let all = self.elf.relocations(section);
        let first = all.partition_point(|rela| rela.r_offset.get(LE) < from);
        let last = all.partition_point(|rela| rela.r_offset.get(LE) < from.saturating_add(length));
        all.get(first..last).unwrap_or(&[])
    }

    /// The target of a module's relocation, including the addend.
    pub fn target(&self, rela: &Rela) -> Option<Location> {
        let symbol = self.elf.rela_symbol(rela)?;
        let addend = rela.r_addend.get(LE);
        match self.elf.definition(symbol) {
            Definition::Section(_) => Some(Location::At(self.address(symbol)?.wrapping_add_signed(addend))),
            _ => Some(Location::Undefined(symbol, addend)),
        }
    }
}

fn not_an_image(path: &str) -> Diagnosis {
    Diagnosis::new(
        &codes::NO_SYMBOLS,
        "not a kernel image with symbols",
        "it has no symbol table, or is neither linked nor relocatable",
        "give the vmlinux of the kernel's build or of its debug package, not the compressed boot image",
    )
    .place(DiagnosisPlace::file(path, None))
}

fn not_linked(path: &str) -> Diagnosis {
    Diagnosis::new(
        &codes::NOT_LINKED,
        "not a linked vmlinux",
        "only a linked image has the addresses that decide which of several equal names a symbol is",
        "give vmlinux, not vmlinux.o",
    )
    .place(DiagnosisPlace::file(path, None))
}
