//! Reads the contents of a finished livepatch module, made by klpx or by any other tool.
//!
//! Owns reading only. The arrays are found by their relocations, so no structure size of a kernel version is needed:
//! `struct klp_patch`, `klp_object` and `klp_func` begin with the same members in every kernel since 5.1, and so do
//! klp-build's `klp_object_ext` and `klp_func_ext` (include/linux/livepatch.h, livepatch_external.h).
//!
//! The format, with a dump: `docs/formats/livepatch-module.md`.

use std::collections::BTreeSet;

use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Result, codes};
use klpx_normalize::elf::{Definition, Elf, ElfFile, Rela, SHF_RELA_LIVEPATCH, SectionId, SymbolId};
use object::elf;
use object::endian::LittleEndian as LE;

use crate::VMLINUX;

/// The members of `struct klp_callbacks`, in their order (include/linux/livepatch.h).
const CALLBACKS: [&str; 4] = ["pre_patch", "post_patch", "pre_unpatch", "post_unpatch"];

/// A function that the module replaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LivepatchFunction {
    /// The name of the function to be replaced.
    pub old_name: String,
    /// The position among the functions of that name, from 1; 0 for a unique name.
    pub sympos: u64,
    /// The symbol of the new function; empty if there is no symbol.
    pub new_symbol: String,
    /// The place of the new function.
    pub new_at: (SectionId, u64),
    /// The new function's size in bytes; 0 if unknown.
    pub new_size: u64,
}

/// A kernel object that the module patches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatchedObject {
    /// `vmlinux` or a module's name.
    pub name: String,
    /// The functions, in the order of the array.
    pub functions: Vec<LivepatchFunction>,
    /// Callbacks: the member of `struct klp_callbacks` and the function.
    pub callbacks: Vec<(&'static str, String)>,
}

/// A livepatch symbol.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LivepatchSymbol {
    /// The object that defines the symbol.
    pub object: String,
    /// The symbol's name in that object.
    pub name: String,
    /// The position among the symbols of that name; 0 for a unique name.
    pub sympos: u64,
}

/// A livepatch relocation section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelocationSection {
    /// The object that must be present before the kernel applies the section.
    pub object: String,
    /// The name of the section that is relocated.
    pub target: String,
    /// The number of relocations.
    pub count: usize,
}

/// The contents of a livepatch module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Module {
    /// modinfo, in file order.
    pub info: Vec<(String, String)>,
    /// Patched objects, in the order of the array.
    pub objects: Vec<PatchedObject>,
    /// True if the module replaces every other livepatch; `None` if the file does not tell.
    pub replace: Option<bool>,
    /// Livepatch symbols, sorted.
    pub symbols: Vec<LivepatchSymbol>,
    /// Livepatch relocation sections, in file order.
    pub relocations: Vec<RelocationSection>,
    /// Undefined symbols that the module loader resolves, sorted.
    pub imports: Vec<String>,
}

impl Module {
    /// Returns the first value of a modinfo key.
    pub fn info(&self, key: &str) -> Option<&str> {
        self.info.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }
}

/// Reads a module.
///
/// # Errors
/// If the file is not a relocatable ELF file.
pub fn inspect(file: &ElfFile) -> Result<Module> {
    let elf = file.parse()?;
    if elf.file_type() != elf::ET_REL.0 {
        return Err(Diagnosis::new(
            &codes::NOT_A_MODULE,
            "not a kernel module",
            "a module is a relocatable ELF file",
            "name an unpacked .ko file",
        )
        .place(DiagnosisPlace::file(file.path().display().to_string(), None))
        .into());
    }
    Ok(read(&elf))
}

/// Reads a module that is already open.
pub(crate) fn read(elf: &Elf<'_>) -> Module {
    let mut module = Module { info: modinfo(elf), ..Module::default() };
    for id in elf.symbol_ids() {
        let name = String::from_utf8_lossy(elf.symbol_name(id)).into_owned();
        match elf.definition(id) {
            Definition::Livepatch => module.symbols.extend(parse_symbol(&name)),
            Definition::Undefined if !name.is_empty() => module.imports.push(name),
            _ => {}
        }
    }
    module.symbols.sort();
    module.imports.sort();
    for id in elf.section_ids().filter(|&id| elf.section_flags(id) & SHF_RELA_LIVEPATCH != 0) {
        let name = String::from_utf8_lossy(elf.section_name(id)).into_owned();
        let target = SectionId(elf.section(id).sh_info.get(LE));
        module.relocations.push(RelocationSection {
            object: parse_section(&name).unwrap_or_default().to_owned(),
            target: if target.index() < elf.section_count() {
                String::from_utf8_lossy(elf.section_name(target)).into_owned()
            } else {
                String::new()
            },
            count: elf.rela_table(id).len(),
        });
    }
    let arrays = Arrays { elf };
    let (objects, replace) = arrays.objects();
    module.objects = objects;
    module.replace = replace;
    module
}

/// Parses `.klp.sym.<object>.<name>,<position>` (kernel/livepatch/core.c, klp_resolve_symbols).
pub fn parse_symbol(name: &str) -> Option<LivepatchSymbol> {
    let (object, rest) = name.strip_prefix(".klp.sym.")?.split_once('.')?;
    let (name, position) = rest.rsplit_once(',')?;
    let fits = !object.is_empty()
        && object.len() <= 55
        && !name.is_empty()
        && name.len() <= 511
        && !name.contains(',');
    let sympos = position.parse().ok().filter(|_| fits)?;
    Some(LivepatchSymbol { object: object.to_owned(), name: name.to_owned(), sympos })
}

/// Returns the object of `.klp.rela.<object>.<section>`.
pub(crate) fn parse_section(name: &str) -> Option<&str> {
    let (object, _) = name.strip_prefix(".klp.rela.")?.split_once('.')?;
    (!object.is_empty() && object.len() <= 55).then_some(object)
}

fn modinfo(elf: &Elf<'_>) -> Vec<(String, String)> {
    let Some(section) = elf.section_by_name(b".modinfo") else { return Vec::new() };
    elf.section_bytes(section)
        .split(|&b| b == 0)
        .filter_map(|line| {
            String::from_utf8_lossy(line).split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()))
        })
        .collect()
}

/// A place in the file.
type FilePlace = (SectionId, u64);

/// The livepatch arrays of a module.
struct Arrays<'e, 'd> {
    elf: &'e Elf<'d>,
}

impl Arrays<'_, '_> {
    fn relocation(&self, (section, offset): FilePlace) -> Option<&Rela> {
        let all = self.elf.relocations(section);
        all.iter().find(|rela| rela.r_offset.get(LE) == offset)
    }

    /// Returns the target of the pointer at a place, and the pointer's symbol.
    fn pointer(&self, at: FilePlace) -> Option<(FilePlace, SymbolId)> {
        let rela = self.relocation(at)?;
        let symbol = self.elf.rela_symbol(rela)?;
        let section = self.elf.symbol_section(symbol)?;
        let offset = self.elf.symbol_value(symbol).wrapping_add_signed(rela.r_addend.get(LE));
        (offset <= self.elf.section_size(section)).then_some(((section, offset), symbol))
    }

    fn string(&self, (section, offset): FilePlace) -> Option<String> {
        let bytes = self.elf.section_bytes(section).get(offset as usize..)?;
        let end = bytes.iter().position(|&b| b == 0)?;
        Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }

    fn is_code(&self, (section, _): FilePlace) -> bool {
        self.elf.section_flags(section) & elf::SHF_EXECINSTR.0 != 0
    }

    fn word(&self, (section, offset): FilePlace) -> u64 {
        let bytes = self.elf.section_bytes(section).get(offset as usize..offset as usize + 8);
        bytes.and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
    }

    /// Returns the end of the array that holds a place: the end of its symbol, or else of its section.
    fn end(&self, (section, offset): FilePlace) -> u64 {
        let holder = self.elf.symbol_ids().find_map(|id| {
            let start = self.elf.symbol_value(id);
            let end = start.saturating_add(self.elf.symbol_size(id));
            (self.elf.symbol_section(id) == Some(section) && start <= offset && offset < end).then_some(end)
        });
        // A file may claim any size; only the bytes of the section exist.
        let size = self.elf.section_bytes(section).len() as u64;
        holder.map_or(size, |end| end.min(size))
    }

    /// Returns true if a `struct klp_func` begins at the place: a name and a function.
    fn is_function(&self, (section, offset): FilePlace) -> bool {
        let name = self.pointer((section, offset)).is_some_and(|(to, _)| !self.is_code(to));
        name && self.pointer((section, offset + 8)).is_some_and(|(to, _)| self.is_code(to))
    }

    fn objects(&self) -> (Vec<PatchedObject>, Option<bool>) {
        if let Some(section) = self.elf.section_by_name(b".init.klp_objects") {
            return (self.object_array((section, 0)), None); // klp-build; the code that converts it says `replace`
        }
        for id in self.elf.symbol_ids().filter(|&id| self.elf.symbol_name(id) == b"__this_module") {
            if let Some((objects, replace)) = self.patch_of(id) {
                return (objects, Some(replace));
            }
        }
        (Vec::new(), None)
    }

    /// Returns the objects and `replace` of the `struct klp_patch` whose `mod` is this module. The members are `mod`,
    /// `objs`, `states`, `replace`.
    fn patch_of(&self, this_module: SymbolId) -> Option<(Vec<PatchedObject>, bool)> {
        let home = (self.elf.symbol_section(this_module), self.elf.symbol_value(this_module));
        for section in self.elf.section_ids() {
            for rela in self.elf.relocations(section) {
                let at = (section, rela.r_offset.get(LE));
                let Some(((to, offset), _)) = self.pointer(at).filter(|_| !self.is_code(at)) else {
                    continue;
                };
                if (Some(to), offset) != home {
                    continue;
                }
                if let Some((objects, _)) = self.pointer((section, at.1 + 8)) {
                    let found = self.object_array(objects);
                    if !found.is_empty() {
                        return Some((found, self.word((section, at.1 + 24)) & 0xff != 0));
                    }
                }
            }
        }
        None
    }

    fn object_array(&self, (section, start): FilePlace) -> Vec<PatchedObject> {
        let end = self.end((section, start));
        let mut found: Vec<(FilePlace, FilePlace)> = Vec::new();
        let mut offset = start;
        while offset + 16 <= end {
            match self.pointer((section, offset + 8)) {
                Some((functions, _)) if self.is_function(functions) => {
                    found.push(((section, offset), functions));
                    offset += 48;
                }
                // An object with callbacks only has a name and an empty array.
                Some((functions, _)) if !self.is_code(functions) && self.has_callbacks((section, offset)) => {
                    found.push(((section, offset), functions));
                    offset += 48;
                }
                _ => offset += 8,
            }
        }
        let starts: BTreeSet<FilePlace> = found.iter().map(|&(_, functions)| functions).collect();
        found.iter().map(|&(at, functions)| self.object(at, functions, &starts)).collect()
    }

    fn has_callbacks(&self, (section, offset): FilePlace) -> bool {
        (0..4).any(|n| self.pointer((section, offset + 16 + 8 * n)).is_some_and(|(to, _)| self.is_code(to)))
    }

    fn object(
        &self,
        (section, offset): FilePlace,
        functions: FilePlace,
        starts: &BTreeSet<FilePlace>,
    ) -> PatchedObject {
        let name = self.pointer((section, offset)).and_then(|(to, _)| self.string(to));
        let mut end = self.end(functions);
        if let Some(next) =
            starts.range((functions.0, functions.1 + 1)..).next().filter(|next| next.0 == functions.0)
        {
            end = end.min(next.1);
        }
        let mut list = Vec::new();
        let mut at = functions.1;
        while at + 24 <= end {
            if self.is_function((functions.0, at)) {
                list.extend(self.function((functions.0, at)));
                at += 24;
            } else {
                at += 8;
            }
        }
        let callbacks = CALLBACKS
            .iter()
            .enumerate()
            .filter_map(|(n, &member)| {
                let (to, symbol) = self.pointer((section, offset + 16 + 8 * n as u64))?;
                self.is_code(to).then(|| (member, self.symbol_at(to, symbol).0))
            })
            .collect();
        PatchedObject { name: name.unwrap_or_else(|| VMLINUX.to_owned()), functions: list, callbacks }
    }

    fn function(&self, (section, offset): FilePlace) -> Option<LivepatchFunction> {
        let (name, _) = self.pointer((section, offset))?;
        let (new_at, symbol) = self.pointer((section, offset + 8))?;
        let (new_symbol, new_size) = self.symbol_at(new_at, symbol);
        let old_name = self.string(name)?;
        Some(LivepatchFunction {
            old_name,
            sympos: self.word((section, offset + 16)),
            new_symbol,
            new_at,
            new_size,
        })
    }

    /// Returns the name and size of the function at a place.
    fn symbol_at(&self, (section, offset): FilePlace, through: SymbolId) -> (String, u64) {
        let is_here = |&id: &SymbolId| {
            self.elf.symbol_section(id) == Some(section)
                && self.elf.symbol_value(id) == offset
                && self.elf.symbol_type(id) == elf::STT_FUNC.0
        };
        let found = Some(through).filter(is_here).or_else(|| self.elf.symbol_ids().find(is_here));
        found.map_or_else(Default::default, |id| {
            (String::from_utf8_lossy(self.elf.symbol_name(id)).into_owned(), self.elf.symbol_size(id))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbol_and_section_names_are_taken_apart_as_the_kernel_does() {
        let symbol = parse_symbol(".klp.sym.vmlinux.reboot_notifier_list.llvm.77,2").unwrap();
        assert_eq!(symbol.object, "vmlinux");
        assert_eq!((symbol.name.as_str(), symbol.sympos), ("reboot_notifier_list.llvm.77", 2));
        for bad in
            [".klp.sym.vmlinux.f", ".klp.sym..f,0", ".klp.sym.vmlinux.,0", ".klp.sym.vmlinux.f,x", "f,0"]
        {
            assert_eq!(parse_symbol(bad), None, "{bad}");
        }
        assert_eq!(parse_section(".klp.rela.raid1..text"), Some("raid1"));
        assert_eq!(parse_section(".klp.rela.raid1"), None);
    }
}
