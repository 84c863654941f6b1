//! Compares one item: its bytes, its references, and the contents of constants to which it refers.

use std::sync::OnceLock;

use hashbrown::{HashMap, HashSet};
use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Offset, codes};
use klpx_normalize::arch::NONE;
use klpx_normalize::elf::{Rela, SymbolId};
use klpx_normalize::object::{Item, ItemId, Object, SectionRange, Target, type_description, without_places};
use object::elf;
use object::endian::LittleEndian as LE;

use super::agreement::{Agreement, Mismatch};
use crate::arch;
use crate::bind::Binding;
use crate::branches::{self, InstructionPairs};
use crate::contents::{self, PlaceContents, PlacedRelocation};
use crate::field::FieldValue;
use crate::image::Image;

/// Data that names the build, or that is written after the link of vmlinux.
const BUILD_IDENTITY: [(&[u8], &str); 4] = [
    (b"linux_banner", "who built it, where and when (init/version-timestamp.c)"),
    (b"linux_proc_banner", "who built it, and where (init/version.c)"),
    (b"init_uts_ns", "the build's number and time (init/version-timestamp.c)"),
    (b"main_extable_sort_needed", "cleared when scripts/sorttable has sorted the table"),
];

/// The remedy for any difference.
pub const REMEDY: &str = "give klpx what this kernel was built with: the configuration as it was (not sent through another \
                      machine's olddefconfig), the same compiler, the same flags and make variables (--make), \
                      the very source";

/// A constant of the witness without an identity in the image, and the address where the image must have the contents.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct PlacedConstant {
    range: SectionRange,
    address: u64,
}

/// How a reference of the image compares with the witness's.
enum Reference {
    Agrees,
    Differs,
    /// The references agree if the contents do.
    Constant(PlacedConstant),
}

/// A function of the witness and the image's counterpart.
struct Bodies<'a> {
    witness_code: &'a [u8],
    image_code: &'a [u8],
    pairs: InstructionPairs,
}

/// Compares the items of one object with the kernel's.
pub struct Witness<'b, 'a> {
    pub(super) binding: &'b Binding<'a>,
    pub(super) witness: &'a Object<'a>,
    pub(super) image: &'a Image<'a>,
    /// The paired instructions of each item, once another place refers to the middle of the item.
    instructions: Vec<OnceLock<Option<InstructionPairs>>>,
}

impl<'b, 'a> Witness<'b, 'a> {
    /// A comparison based on a binding.
    pub fn new(binding: &'b Binding<'a>) -> Witness<'b, 'a> {
        let witness = binding.witness();
        let instructions = witness.item_ids().map(|_| OnceLock::new()).collect();
        Witness { binding, witness, image: binding.image(), instructions }
    }

    /// Returns true for code that a call can reach: a function with a size.
    pub fn is_function(&self, id: ItemId) -> bool {
        let item = self.witness.item(id);
        item.code && self.witness.elf.symbol_type(item.symbol) == elf::STT_FUNC.0
    }

    /// Compares one item.
    ///
    /// # Errors
    /// How the item differs.
    pub fn compare(&self, id: ItemId) -> Result<Agreement, Mismatch> {
        let Some(entry) = self.binding.item_address(id) else { return Err(self.unbound(id)) };
        let item = self.witness.item(id);
        match self.compare_bytes(item, entry) {
            Ok(()) => Ok(Agreement::Identical),
            Err(mismatch) if item.code => {
                let arch = self.witness.arch;
                if arch::branch_lengths_vary(arch) && self.compare_instructions(item, entry) {
                    Ok(Agreement::Branches)
                } else if arch::shortened_pair(arch).is_some() && self.compare_relaxed(id, item, entry) {
                    Ok(Agreement::Relaxed)
                } else {
                    Err(mismatch)
                }
            }
            Err(_) if BUILD_IDENTITY.iter().any(|(name, _)| *name == self.witness.item_name(id)) => {
                Ok(Agreement::BuildIdentity)
            }
            Err(mismatch) => Err(mismatch),
        }
    }

    fn unbound(&self, id: ItemId) -> Mismatch {
        let diagnosis = self.binding.item(id).err().unwrap_or_else(|| {
            Diagnosis::new(
                &codes::NOT_IN_KERNEL,
                "the kernel to be patched has no such symbol",
                format!("{} does not define it", self.image.object()),
                REMEDY,
            )
            .place(DiagnosisPlace::symbol(String::from_utf8_lossy(self.witness.item_name(id))))
        });
        Mismatch::Unbound(Box::new(diagnosis))
    }

    fn compare_bytes(&self, item: &Item, entry: u64) -> Result<(), Mismatch> {
        let witness_bytes = self.witness.elf.symbol_size(item.symbol);
        let image_bytes = self.image_size(item, entry);
        if let Some(kernel) = image_bytes.filter(|&size| witness_bytes != 0 && size != witness_bytes) {
            return Err(Mismatch::Size { kernel, witness: witness_bytes });
        }
        let first = entry.wrapping_sub(item.entry - item.start);
        let range = SectionRange { section: item.section, start: item.start, end: self.end(item) };
        if let Some(at) = contents::first_difference(self.witness, range, self.image, first) {
            return Err(Mismatch::Bytes { offset: at.wrapping_sub(item.entry) as i64 });
        }
        self.compare_references(range, first).map_err(|(at, kernel, witness_bytes)| Mismatch::Reference {
            offset: at.wrapping_sub(item.entry) as i64,
            kernel,
            witness: witness_bytes,
        })
    }

    /// The end of an item, without the padding before the next item. A relocatable link and the final link fill the
    /// gaps between files differently.
    fn end(&self, item: &Item) -> u64 {
        let after = item.entry + self.witness.elf.symbol_size(item.symbol);
        if !item.code || after == item.entry || after > item.end {
            return item.end;
        }
        let gap = self.witness.range(item.section, after, item.end);
        item.end - self.witness.arch.padding_at_end(gap)
    }

    /// The size of the image's counterpart, if the image's symbol gives it.
    fn image_size(&self, item: &Item, entry: u64) -> Option<u64> {
        let (symbol, _) = self.binding.counterpart(item.symbol)?;
        let size = self.image.elf.symbol_size(symbol);
        (size != 0 && self.image.address(symbol) == Some(entry)).then_some(size)
    }

    /// Compares all references in a range of a section, which begins at `first` in the image. On a difference, gives
    /// the offset in the section, the image's target and the witness's target.
    fn compare_references(&self, range: SectionRange, first: u64) -> Result<(), (u64, String, String)> {
        let SectionRange { section, start, end } = range;
        let mut pages = HashMap::new();
        for rela in self.witness.relocations_in(section, start, end) {
            let at = rela.r_offset.get(LE);
            let place = first.wrapping_add(at - start);
            let relocation = PlacedRelocation { section, rela, place };
            if !self.reference_agrees(relocation, &mut pages) {
                let found = contents::found(self.witness, relocation, self.image);
                return Err((
                    at,
                    self.describe_found(found),
                    self.describe_target(self.witness.resolve(section, rela)),
                ));
            }
        }
        Ok(())
    }

    /// Returns true if the image's reference at a relocation's place is the one in the relocation.
    fn reference_agrees(
        &self,
        relocation: PlacedRelocation<'_>,
        pages: &mut HashMap<(u32, i64), u64>,
    ) -> bool {
        match self.reference(relocation, pages) {
            Reference::Agrees => true,
            Reference::Differs => false,
            Reference::Constant(constant) => self.same_constant(constant),
        }
    }

    /// Judges the image's reference at a relocation's place.
    fn reference(&self, relocation: PlacedRelocation<'_>, pages: &mut HashMap<(u32, i64), u64>) -> Reference {
        let judged = |agrees: bool| if agrees { Reference::Agrees } else { Reference::Differs };
        let rela = relocation.rela;
        if rela.r_type(LE, false).0 == NONE {
            return Reference::Agrees;
        }
        let Some(found) = contents::found(self.witness, relocation, self.image) else {
            return Reference::Differs;
        };
        let target = self.witness.resolve(relocation.section, rela);
        let value = match (found, target) {
            (PlaceContents::Import(imported, a), Target::External { symbol, offset: b }) => {
                let same_name = self.image.elf.symbol_name(imported) == self.witness.elf.symbol_name(symbol);
                return judged(a == b && same_name);
            }
            (PlaceContents::Import(..), _) => return Reference::Differs,
            (PlaceContents::Value(value), _) => value,
        };
        if let Some(expected) = self.expected(target) {
            let same = self.is_same_place(target, value).unwrap_or_else(|| value.is(expected));
            return judged(same || self.is_empty(target));
        }
        // A constant without an identity agrees if its contents agree.
        let key = (rela.r_sym(LE, false), rela.r_addend.get(LE));
        let address = match value {
            FieldValue::Address(a) => a,
            FieldValue::Page(page) => {
                pages.insert(key, page);
                return Reference::Agrees;
            }
            FieldValue::Bits { bits, .. } => match pages.get(&key) {
                Some(page) => page | bits,
                None => return Reference::Differs,
            },
        };
        self.constant(target, address).map_or(Reference::Differs, Reference::Constant)
    }

    /// The address that a target must have in the image, if it has an identity there.
    fn expected(&self, target: Target) -> Option<u64> {
        match target {
            Target::Item { item, offset } => {
                Some(self.binding.item_address(item)?.wrapping_add_signed(offset))
            }
            Target::External { symbol, offset } => Some(self.external(symbol)?.wrapping_add_signed(offset)),
            Target::Absolute(value) => Some(value as u64),
            Target::Literal { .. } | Target::Entry { .. } => None,
        }
    }

    /// Returns true if a reference into the middle of a function leads to the same instruction as its target. `None` if
    /// the instructions do not tell. The kernel's function may have other branch lengths and other padding: GCC 16
    /// (not 14) aligns small loops to a cache line, so the padding depends on where in its section the function lies.
    fn is_same_place(&self, target: Target, value: FieldValue) -> Option<bool> {
        let (Target::Item { item: id, offset }, FieldValue::Address(address)) = (target, value) else {
            return None;
        };
        let item = self.witness.item(id);
        if offset <= 0 || !item.code || !arch::branch_lengths_vary(self.witness.arch) {
            return None;
        }
        let entry = self.binding.item_address(id)?;
        let pairs = self.instructions[id.index()].get_or_init(|| Some(self.bodies(item, entry)?.pairs));
        pairs.as_ref()?.is_same_place(offset as u64, address.checked_sub(entry)?)
    }

    /// The address of a symbol of another unit or of the final link; 0 for a weak symbol that nothing defines.
    fn external(&self, symbol: SymbolId) -> Option<u64> {
        let name = self.witness.elf.symbol_name(symbol);
        let bound = self.binding.counterpart(symbol).map(|(found, _)| found);
        let defined = bound.or_else(|| self.image.global(name)).or_else(|| self.image.named(name).next());
        match defined.and_then(|id| self.image.address(id)) {
            Some(address) => Some(address),
            None if self.witness.elf.symbol_binding(symbol) == elf::STB_WEAK.0 => Some(0),
            None => None,
        }
    }

    /// A target that has no identity in the image, where the image refers to `address`.
    fn constant(&self, target: Target, address: u64) -> Option<PlacedConstant> {
        let (section, start, end, offset) = match target {
            Target::Literal { section, start, end, offset } => (section, start, end, offset),
            Target::Item { item, offset } if self.is_anonymous(item) => {
                let item = self.witness.item(item);
                (item.section, item.entry, item.end, offset)
            }
            Target::Entry { table, entry, offset } => {
                let (section, start, end) = self.witness.entry_range(table, entry);
                (section, start, end, offset)
            }
            _ => return None,
        };
        let range = SectionRange { section, start, end };
        Some(PlacedConstant { range, address: address.wrapping_sub(offset as u64) })
    }

    /// Returns true if the image's contents at a constant's address equal those of the constant, and so on for all
    /// constants to which they refer. A constant may refer to itself: `.data` without any name is one constant.
    fn same_constant(&self, constant: PlacedConstant) -> bool {
        let mut seen: HashSet<PlacedConstant> = HashSet::from_iter([constant]);
        let mut pending = vec![constant];
        while let Some(PlacedConstant { range, address }) = pending.pop() {
            if self.is_source_path(range, address) || self.is_same_type(range, address) {
                continue;
            }
            if contents::first_difference(self.witness, range, self.image, address).is_some() {
                return false;
            }
            let SectionRange { section, start, end } = range;
            let mut pages = HashMap::new();
            for rela in self.witness.relocations_in(section, start, end) {
                let place = address.wrapping_add(rela.r_offset.get(LE) - start);
                match self.reference(PlacedRelocation { section, rela, place }, &mut pages) {
                    Reference::Agrees => {}
                    Reference::Differs => return false,
                    Reference::Constant(next) => {
                        if seen.insert(next) {
                            pending.push(next);
                        }
                    }
                }
            }
        }
        true
    }

    /// Returns true if a string names a source file, and the image has the same file's name at `address`, in the folder
    /// where the kernel was built.
    fn is_source_path(&self, range: SectionRange, address: u64) -> bool {
        let SectionRange { section, start, end } = range;
        let witness_path = self.witness.range(section, start, end);
        let Some(rest) = self.witness.path_in_source(section, witness_path) else { return false };
        let bytes = self.image.bytes_from(address).unwrap_or_default();
        let image_path = &bytes[..bytes.iter().position(|&byte| byte == 0).map_or(0, |nul| nul + 1)];
        let folder = image_path.strip_suffix(rest).unwrap_or(b"none");
        folder.is_empty() || folder.starts_with(b"/") && folder.ends_with(b"/")
    }

    /// Returns true if a constant of the sanitizer describes a type, and the image describes the same type at `address`.
    /// For a type without a name, both also tell a place of the source, in the folder where it was compiled.
    fn is_same_type(&self, range: SectionRange, address: u64) -> bool {
        let SectionRange { section, start, end } = range;
        let described = |bytes| type_description(bytes).map(without_places);
        self.witness.is_type_description(section)
            && described(self.witness.range(section, start, end))
                == self.image.bytes_from(address).and_then(described)
    }

    /// Returns true for an object of zero size in `.bss`.
    fn is_empty(&self, target: Target) -> bool {
        let Target::Item { item, .. } = target else { return false };
        let item = self.witness.item(item);
        let elf = &self.witness.elf;
        elf.symbol_type(item.symbol) == elf::STT_OBJECT.0
            && elf.symbol_size(item.symbol) == 0
            && elf.section_type(item.section) == elf::SHT_NOBITS.0
    }

    /// Returns true if contents decide for an item that has no symbol in the image: a constant of the compiler, or any
    /// read-only object.
    fn is_anonymous(&self, id: ItemId) -> bool {
        let item = self.witness.item(id);
        let writable = self.witness.elf.section_flags(item.section) & elf::SHF_WRITE.0 != 0;
        !item.code && (!writable || self.witness.anonymous(id).is_some())
    }

    /// Pairs the instructions of a function with those of the image's counterpart. `None` if they are not the same
    /// sequence.
    fn bodies(&self, item: &Item, entry: u64) -> Option<Bodies<'a>> {
        let size = self.image_size(item, entry)?;
        let witness_code = self.witness.range(item.section, item.entry, item.end);
        let image_code = self.image.bytes_from(entry)?.get(..size as usize)?;
        let relocations = self.witness.relocations_in(item.section, item.entry, item.end);
        let relocated = |from: u64, to: u64| {
            relocations.iter().any(|rela| (from..to).contains(&(rela.r_offset.get(LE) - item.entry)))
        };
        let pairs = branches::pair(witness_code, image_code, &relocated)?;
        Some(Bodies { witness_code, image_code, pairs })
    }

    fn compare_instructions(&self, item: &Item, entry: u64) -> bool {
        let Some(Bodies { witness_code, image_code, pairs }) = self.bodies(item, entry) else { return false };
        let relocations = self.witness.relocations_in(item.section, item.entry, item.end);
        let place = |rela: &Rela| rela.r_offset.get(LE) - item.entry;
        let agrees = |pair: &branches::InstructionPair, rela: &Rela| {
            let there = entry.wrapping_add(pair.image_start).wrapping_add(place(rela) - pair.witness_start);
            let relocation = PlacedRelocation { section: item.section, rela, place: there };
            self.reference_agrees(relocation, &mut HashMap::new())
        };
        pairs.iter().all(|pair| {
            let inside: Vec<&Rela> = relocations.iter().filter(|r| pair.holds(place(r))).collect();
            if pair.branch {
                return match inside[..] {
                    [] => pairs.same_internal_target(pair),
                    // In a module, a branch out of its section also has a relocation.
                    [rela]
                        if !self
                            .image
                            .relocations(entry + pair.image_start, pair.image_length())
                            .is_empty() =>
                    {
                        agrees(pair, rela)
                    }
                    [rela] => {
                        let target = self.witness.resolve(item.section, rela);
                        let address = entry.wrapping_add_signed(pair.image_target);
                        let same = self.is_same_place(target, FieldValue::Address(address));
                        same.unwrap_or_else(|| self.expected(target) == Some(address))
                    }
                    _ => false,
                };
            }
            pair.same_bytes(witness_code, image_code, |at| {
                inside
                    .iter()
                    .find(|r| place(r) == at)
                    .and_then(|r| Some(crate::field::length(self.witness.relocation_kind(r)?)))
            }) && inside.iter().all(|rela| agrees(pair, rela))
        })
    }

    /// Where the linker shortens pairs: like `compare_bytes`, but a relocated `adrp`+`add` pair may be `nop`+`adr` in the
    /// image.
    fn compare_relaxed(&self, id: ItemId, item: &Item, entry: u64) -> bool {
        let mut pages = HashMap::new();
        let Some(sites) = contents::sites(self.witness, id, self.image, entry) else { return false };
        sites.iter().all(|site| match site.shortened {
            None => self.reference_agrees(site.relocation, &mut pages),
            Some(address) => {
                let target = self.witness.resolve(item.section, site.relocation.rela);
                match self.expected(target) {
                    Some(expected) => address == expected,
                    None => {
                        let constant = self.constant(target, address);
                        constant.is_some_and(|constant| self.same_constant(constant))
                    }
                }
            }
        })
    }

    fn describe_found(&self, found: Option<PlaceContents>) -> String {
        match found {
            Some(PlaceContents::Value(FieldValue::Address(a))) => self.image.describe(a),
            Some(PlaceContents::Value(FieldValue::Page(page))) => format!("the page {page:#x}"),
            Some(PlaceContents::Value(FieldValue::Bits { bits, .. })) => {
                format!("a place ending in {bits:#x}")
            }
            Some(PlaceContents::Import(symbol, offset)) => Offset(offset).behind(self.image.name(symbol)),
            None => "nothing".to_owned(),
        }
    }

    fn describe_target(&self, target: Target) -> String {
        let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        match target {
            Target::Item { item, offset } => Offset(offset).behind(text(self.witness.item_name(item))),
            Target::External { symbol, offset } => {
                Offset(offset).behind(text(self.witness.elf.symbol_name(symbol)))
            }
            Target::Literal { section, start, offset, .. } => {
                let place = start.wrapping_add_signed(offset);
                format!("the constant at {}+{place:#x}", text(self.witness.elf.section_name(section)))
            }
            Target::Entry { table, entry, .. } => {
                let section = self.witness.tables[table.index()].section;
                format!("entry {entry} of {}", text(self.witness.elf.section_name(section)))
            }
            Target::Absolute(value) => format!("{value:#x}"),
        }
    }
}
