//! The kernel to be patched as the loader, the livepatch core and ftrace see it. The facts come from the symbol tables
//! of the kernel's files, not from the tables by which klpx bound the module.

use std::collections::BTreeMap;

use klpx_normalize::arch::Arch;
use klpx_normalize::elf::{Definition, Elf, SectionId, SymbolId};
use object::elf;
use object::endian::LittleEndian as LE;
use rayon::prelude::*;

use crate::VMLINUX;

/// The kernel that a module meets when it is loaded.
pub trait LoadTarget: Sync {
    /// Returns the addresses of a name in an object, in the order in which the kernel finds them; `None` if the object
    /// is unknown.
    fn addresses(&self, object: &str, name: &str) -> Option<Vec<u64>>;
    /// Returns the names of all symbols at an address of an object.
    fn names_at(&self, object: &str, address: u64) -> Vec<String>;
    /// Returns true if ftrace has a record for the function at an address.
    fn is_traced(&self, object: &str, address: u64) -> bool;
    /// Returns the source file of the local `name` at an address, if the object's symbol table tells.
    fn file_of(&self, object: &str, name: &str, address: u64) -> Option<String>;
    /// Returns true if `name` at an address is known to be a local of its file.
    fn is_local(&self, object: &str, name: &str, address: u64) -> bool;
    /// Returns the places of vmlinux that boot code patches with a runtime constant.
    fn runtime_sites(&self, name: &str) -> Vec<u64>;
    /// Returns the object that exports a name.
    fn exporter(&self, name: &str) -> Option<String>;
    /// Returns the namespace that a module must import for an export.
    fn namespace(&self, name: &str) -> Option<String>;
    /// Returns the version string that a module must carry, if the kernel's files tell it.
    fn vermagic(&self) -> Option<String>;
}

/// One file of the kernel.
pub struct KernelObject<'k> {
    /// `vmlinux`, or the module's name.
    pub name: &'k str,
    /// The file.
    pub elf: &'k Elf<'k>,
    /// Returns the source file of a local symbol from a copy of the object with FILE symbols, for an object without
    /// them.
    pub file_of: &'k (dyn Fn(SymbolId) -> Option<Vec<u8>> + Sync),
}

/// A [`LoadTarget`] over the kernel's own files.
pub struct KernelFilesTarget<'k> {
    objects: BTreeMap<&'k str, TargetObject<'k>>,
    exports: BTreeMap<String, (String, String)>,
}

struct TargetObject<'k> {
    file: KernelObject<'k>,
    arch: Option<Arch>,
    linked: bool,
    /// Every named symbol by name, in the order in which the kernel finds them.
    by_name: Vec<(&'k [u8], u64, SymbolId)>,
    by_address: Vec<(u64, SymbolId)>,
    /// The symbol at which locals of a file begin, ascending, and the file's name; empty for no file.
    files: Vec<(SymbolId, &'k [u8])>,
    traced: Vec<u64>,
}

impl<'k> KernelFilesTarget<'k> {
    /// Uses every object of the kernel that a module names, and the texts of the kernel's Module.symvers.
    pub fn new(objects: Vec<KernelObject<'k>>, symvers: &[&str]) -> KernelFilesTarget<'k> {
        let exports = symvers.iter().flat_map(|text| text.lines()).filter_map(export).collect();
        let objects = objects.into_iter().map(|file| (file.name, TargetObject::read(file))).collect();
        KernelFilesTarget { objects, exports }
    }
}

/// Reads a line of Module.symvers: checksum, name, object, kind, namespace (scripts/mod/modpost.c, read_dump).
fn export(line: &str) -> Option<(String, (String, String))> {
    let mut fields = line.split('\t').skip(1);
    let (name, path) = (fields.next()?, fields.next()?);
    let namespace = fields.nth(1).unwrap_or_default();
    let object = path.rsplit('/').next().unwrap_or(path).replace('-', "_");
    let object = object.strip_suffix(".ko").unwrap_or(&object);
    Some((name.to_owned(), (object.to_owned(), namespace.to_owned())))
}

impl<'k> TargetObject<'k> {
    fn read(file: KernelObject<'k>) -> TargetObject<'k> {
        let elf = file.elf;
        let linked = elf.file_type() != elf::ET_REL.0;
        let mut object = TargetObject {
            arch: Arch::of_machine(elf.machine()).ok(),
            linked,
            by_name: Vec::new(),
            by_address: Vec::new(),
            files: Vec::new(),
            traced: Vec::new(),
            file,
        };
        for id in elf.symbol_ids() {
            let (kind, name) = (elf.symbol_type(id), elf.symbol_name(id));
            if kind == elf::STT_FILE.0 {
                object.files.push((id, name));
            }
            let counts = kind != elf::STT_SECTION.0 && (kind != elf::STT_FILE.0 || !linked);
            if !counts || elf.definition(id) == Definition::Undefined || name.is_empty() {
                continue;
            }
            // kallsyms is sorted by address; a module's names are found in the order of its symbol table.
            object.by_name.push((name, if linked { elf.symbol_value(id) } else { 0 }, id));
            if let Some(address) = object.address(id) {
                object.by_address.push((address, id));
            }
        }
        object.by_name.par_sort_unstable();
        object.by_address.par_sort_unstable();
        object.traced = object.records();
        object.traced.sort_unstable();
        object
    }

    /// Returns a symbol's address in a linked image. In a module, whose sections have no addresses yet, returns its
    /// section and place as one number.
    fn address(&self, id: SymbolId) -> Option<u64> {
        let elf = self.file.elf;
        match elf.definition(id) {
            Definition::Section(_) | Definition::Absolute if self.linked => Some(elf.symbol_value(id)),
            Definition::Section(section) => {
                Some((u64::from(section.0) << 32).wrapping_add(elf.symbol_value(id)))
            }
            _ => None,
        }
    }

    /// Returns the symbols of a name, in the order in which the kernel finds them.
    fn named<'n>(&'n self, name: &'n str) -> impl Iterator<Item = SymbolId> + 'n {
        let from = self.by_name.partition_point(|(other, ..)| *other < name.as_bytes());
        let all = self.by_name[from..].iter().take_while(move |(other, ..)| *other == name.as_bytes());
        all.map(|(.., id)| *id)
    }

    /// Returns true for a symbol that was a local of its file. The last link also makes hidden globals local, and puts
    /// them behind all FILE symbols.
    fn is_local(&self, id: SymbolId) -> bool {
        let elf = self.file.elf;
        let hidden = matches!(elf.symbol(id).st_other.0 & 3, 1 | 2);
        elf.symbol_binding(id) == elf::STB_LOCAL.0 && !hidden
    }

    /// Returns the source file of a local, by the FILE symbol before it.
    fn file(&self, id: SymbolId) -> Option<&'k [u8]> {
        let before = self.files.partition_point(|(file, _)| *file < id);
        let (_, name) = self.files.get(before.checked_sub(1)?)?;
        (self.is_local(id) && !name.is_empty()).then_some(*name)
    }

    fn at(&self, address: u64) -> impl Iterator<Item = SymbolId> + '_ {
        let from = self.by_address.partition_point(|&(at, _)| at < address);
        self.by_address[from..].iter().take_while(move |&&(at, _)| at == address).map(|&(_, id)| id)
    }

    fn bytes_from(&self, address: u64) -> Option<&'k [u8]> {
        let elf = self.file.elf;
        let holds = |&id: &SectionId| {
            let start = elf.section(id).sh_addr.get(LE);
            elf.section_flags(id) & elf::SHF_ALLOC.0 != 0
                && (start..start.saturating_add(elf.section_size(id))).contains(&address)
        };
        let section = elf.section_ids().find(holds).filter(|_| self.linked)?;
        elf.section_bytes(section).get((address - elf.section(section).sh_addr.get(LE)) as usize..)
    }

    /// Returns the address of the first symbol and the bytes between the two symbols.
    fn between(&self, start: &str, stop: &str) -> Option<(u64, &'k [u8])> {
        let bound = |name: &str| self.named(name).next().and_then(|id| self.address(id));
        let (start, stop) = (bound(start)?, bound(stop)?);
        Some((start, self.bytes_from(start)?.get(..stop.checked_sub(start)? as usize)?))
    }

    /// Returns every address for which ftrace has a record.
    fn records(&self) -> Vec<u64> {
        let elf = self.file.elf;
        if !self.linked {
            let table = self.arch.map(|arch| arch.trace_sites().0).unwrap_or_default();
            let tables = elf.section_ids().filter(|&id| elf.section_name(id) == table.as_bytes());
            let place = |rela: &klpx_normalize::elf::Rela| {
                let symbol = elf.rela_symbol(rela)?;
                Some(self.address(symbol)?.wrapping_add_signed(rela.r_addend.get(LE)))
            };
            return tables.flat_map(|id| elf.relocations(id)).filter_map(place).collect();
        }
        let Some((start, bytes)) = self.between("__start_mcount_loc", "__stop_mcount_loc") else {
            return Vec::new();
        };
        let word = |word: &[u8]| word.iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
        let mut found: Vec<u64> = bytes.chunks_exact(8).map(word).filter(|&word| word != 0).collect();
        // An image that can be moved has the addresses in its relocations.
        let range = start..start + bytes.len() as u64;
        let moving = elf.section_by_name(b".rela.dyn").map_or(&[][..], |section| elf.rela_table(section));
        let moving = moving.iter().filter(|rela| range.contains(&rela.r_offset.get(LE)));
        found.extend(moving.map(|rela| rela.r_addend.get(LE) as u64));
        found
    }
}

impl LoadTarget for KernelFilesTarget<'_> {
    fn addresses(&self, object: &str, name: &str) -> Option<Vec<u64>> {
        let object = self.objects.get(object)?;
        Some(object.named(name).filter_map(|id| object.address(id)).collect())
    }

    fn names_at(&self, object: &str, address: u64) -> Vec<String> {
        let object = self.objects.get(object).into_iter();
        let name = |(object, id): (&TargetObject<'_>, SymbolId)| {
            String::from_utf8_lossy(object.file.elf.symbol_name(id)).into_owned()
        };
        object.flat_map(|object| object.at(address).map(move |id| name((object, id)))).collect()
    }

    fn is_traced(&self, object: &str, address: u64) -> bool {
        let Some(object) = self.objects.get(object) else { return false };
        let Some(arch) = object.arch else { return false };
        let (_, places) = arch.trace_sites();
        places.iter().any(|&at| object.traced.binary_search(&address.wrapping_add_signed(at)).is_ok())
    }

    fn file_of(&self, object: &str, name: &str, address: u64) -> Option<String> {
        let object = self.objects.get(object)?;
        let mut ids = object.at(address).filter(|&id| object.file.elf.symbol_name(id) == name.as_bytes());
        let file = ids.find_map(|id| match object.file(id) {
            Some(file) => Some(file.to_vec()),
            None => (object.file.file_of)(id),
        })?;
        Some(String::from_utf8_lossy(&file).into_owned())
    }

    fn is_local(&self, object: &str, name: &str, address: u64) -> bool {
        let Some(object) = self.objects.get(object) else { return false };
        let elf = object.file.elf;
        let mut ids = object.at(address).filter(|&id| elf.symbol_name(id) == name.as_bytes()).peekable();
        ids.peek().is_some() && ids.all(|id| object.is_local(id))
    }

    fn runtime_sites(&self, name: &str) -> Vec<u64> {
        let Some(object) = self.objects.get(VMLINUX) else { return Vec::new() };
        let bounds = ["start", "stop"].map(|edge| format!("__{edge}_runtime_ptr_{name}"));
        let Some((start, bytes)) = object.between(&bounds[0], &bounds[1]) else { return Vec::new() };
        let site = |(n, entry): (usize, &[u8])| {
            let distance = i32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]);
            (start + 4 * n as u64).wrapping_add_signed(distance.into())
        };
        bytes.chunks_exact(4).enumerate().map(site).collect()
    }

    fn exporter(&self, name: &str) -> Option<String> {
        self.exports.get(name).map(|(object, _)| object.clone())
    }

    fn namespace(&self, name: &str) -> Option<String> {
        self.exports
            .get(name)
            .map(|(_, namespace)| namespace.clone())
            .filter(|namespace| !namespace.is_empty())
    }

    fn vermagic(&self) -> Option<String> {
        let object = self.objects.get(VMLINUX)?;
        let bytes = object.bytes_from(object.address(object.named("vermagic").next()?)?)?;
        let end = bytes.iter().position(|&byte| byte == 0)?;
        Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }
}
