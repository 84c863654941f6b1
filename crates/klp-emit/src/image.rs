//! The kernel to be patched: its vmlinux, its modules, its exports, and the positions of its symbols.
//!
//! Owns the only computation of `sympos`. Never looks at klpx's own builds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use hashbrown::HashMap;
use klpx_diagnosis::{Diagnosis, DiagnosisPlace, Failure, Result, codes};
use klpx_normalize::arch::Arch;
use klpx_normalize::compressed::plain_name;
use klpx_normalize::elf::{Definition, Elf, ElfFile, Rela, SectionId, SymbolId};
use klpx_normalize::name;
use object::elf;
use object::endian::LittleEndian as LE;

use crate::kallsyms::Kallsyms;
use crate::locals::Locals;
use crate::names::NameIndex;

/// The section in which objtool lists unneeded landing pads.
const SEALS: &[u8] = b".ibt_endbr_seal";
/// The landing pad of x86_64.
const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

/// The name of the kernel proper in a livepatch.
pub const VMLINUX: &str = "vmlinux";

/// The files of the kernel to be patched.
pub struct TargetKernel {
    vmlinux: ElfFile,
    exports: Exports,
    directories: Vec<PathBuf>,
    modules: OnceLock<BTreeMap<String, ModuleFile>>,
    debug_directories: Vec<PathBuf>,
    debug_modules: OnceLock<BTreeMap<String, ModuleFile>>,
    /// Module files that take precedence over those in the directories.
    named: Vec<PathBuf>,
}

struct ModuleFile {
    path: PathBuf,
    file: OnceLock<ElfFile>,
}

impl ModuleFile {
    fn at(path: PathBuf) -> ModuleFile {
        ModuleFile { path, file: OnceLock::new() }
    }
}

impl TargetKernel {
    /// Opens vmlinux and Module.symvers. A module is searched in `directories` when it is requested.
    ///
    /// # Errors
    /// Fails if one of the two files can't be read.
    pub fn open(vmlinux: &Path, symvers: &Path, directories: &[PathBuf]) -> Result<TargetKernel> {
        let vmlinux = ElfFile::open(vmlinux)?;
        let text = klpx_input::text(symvers)?;
        let exports = Exports::parse(&text).map_err(|diagnosis| {
            diagnosis.place(DiagnosisPlace::file(symvers.display().to_string(), None))
        })?;
        Ok(TargetKernel {
            vmlinux,
            exports,
            directories: directories.to_vec(),
            modules: OnceLock::new(),
            debug_directories: Vec::new(),
            debug_modules: OnceLock::new(),
            named: Vec::new(),
        })
    }

    /// Adds directories with copies of the kernel's modules that were not stripped, such as those of a debug package.
    /// The copies tell only from which file a symbol comes.
    pub fn with_debug_modules(mut self, directories: &[PathBuf]) -> TargetKernel {
        self.debug_directories = directories.to_vec();
        self
    }

    /// Adds an external module: its file, and the text of the Module.symvers that lists its exports.
    ///
    /// # Errors
    /// `klpx::bad-symvers`.
    pub fn with_external(mut self, module: &Path, symvers: &str) -> Result<TargetKernel> {
        self.named.push(module.to_owned());
        self.exports.by_name.extend(Exports::parse(symvers)?.by_name);
        Ok(self)
    }

    /// The kernel's image as a file.
    pub(crate) fn vmlinux(&self) -> &ElfFile {
        &self.vmlinux
    }

    /// The exports of the kernel and its modules.
    pub fn exports(&self) -> &Exports {
        &self.exports
    }

    /// Reads the image of `vmlinux` or of a module, by the running kernel's name for it.
    ///
    /// # Errors
    /// `klpx::no-such-module`, or an error for a damaged file.
    pub fn image(&self, object: &str) -> Result<Image<'_>> {
        if object == VMLINUX {
            Image::read(&self.vmlinux, VMLINUX)
        } else {
            let image = Image::read(self.module(object)?, object)?;
            if image.files.is_empty()
                && let Some(copy) = self.debug_copy(object)
            {
                let copy = copy?;
                let locals = Locals::by_copy(&image.elf, |id| image.is_global(id), &copy.parse()?);
                let _ = image.locals.set(locals);
            }
            Ok(image)
        }
    }

    /// The unstripped copy of a module, if there is one.
    fn debug_copy(&self, name: &str) -> Option<Result<ElfFile>> {
        let modules = self.debug_modules.get_or_init(|| find_modules(&self.debug_directories));
        modules.get(name).map(|module| ElfFile::open(&module.path))
    }

    /// All modules, by name and file.
    pub fn modules(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.found_modules().iter().map(|(name, module)| (name.as_str(), module.path.as_path()))
    }

    fn found_modules(&self) -> &BTreeMap<String, ModuleFile> {
        self.modules.get_or_init(|| {
            let mut found = find_modules(&self.directories);
            let named = self.named.iter().map(|path| (module_name(path), ModuleFile::at(path.clone())));
            found.extend(named);
            found
        })
    }

    /// The file of a module.
    fn module(&self, name: &str) -> Result<&ElfFile> {
        let module = self.found_modules().get(name).ok_or_else(|| {
            Diagnosis::new(
                &codes::NO_SUCH_MODULE,
                format!("the module {name} is not there"),
                format!("neither {name}.ko nor its object is in {}", list(&self.directories)),
                "name the directory of the kernel's own modules",
            )
        })?;
        if let Some(file) = module.file.get() {
            return Ok(file);
        }
        let file = ElfFile::open(&module.path)?;
        Ok(module.file.get_or_init(|| file))
    }
}

fn list(directories: &[PathBuf]) -> String {
    directories.iter().map(|d| d.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// The kernel's name for a module file, compressed or not: the file's stem with `_` for `-` (scripts/Makefile.lib,
/// KBUILD_MODNAME).
pub fn module_name(path: &Path) -> String {
    let name = path.file_name().map(|n| n.to_string_lossy()).unwrap_or_default();
    let name = plain_name(&name);
    name.strip_suffix(".ko").or_else(|| name.strip_suffix(".o")).unwrap_or(name).replace('-', "_")
}

/// All `.ko` files below the directories, compressed or not, and all `.o` files with a `.mod` beside them (kbuild's
/// mark of a module), by name. The first directory wins, then `.ko` over `.o`, then the path that sorts first.
fn find_modules(directories: &[PathBuf]) -> BTreeMap<String, ModuleFile> {
    let mut found: BTreeMap<String, (usize, bool, PathBuf)> = BTreeMap::new();
    for (rank, directory) in directories.iter().enumerate() {
        for entry in walkdir::WalkDir::new(directory).follow_links(false).into_iter().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy();
            let object = match Path::new(plain_name(&name)).extension().and_then(|e| e.to_str()) {
                Some("ko") => false,
                Some("o") if path.with_extension("mod").exists() => true,
                _ => continue,
            };
            let candidate = (rank, object, path.to_owned());
            let slot = found.entry(module_name(path)).or_insert_with(|| candidate.clone());
            if candidate < *slot {
                *slot = candidate;
            }
        }
    }
    found.into_iter().map(|(name, (_, _, path))| (name, ModuleFile::at(path))).collect()
}

/// One line of Module.symvers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// The checksum of the type; 0 without CONFIG_MODVERSIONS.
    pub crc: u32,
    /// `vmlinux`, or the running kernel's name for the exporting module.
    pub object: String,
    /// The exporting module's path in the build tree, without `.ko`.
    pub path: String,
    /// True for `EXPORT_SYMBOL_GPL`.
    pub gpl: bool,
    /// The namespace, empty for none. `module:a,b` is open only to the modules `a` and `b`.
    pub namespace: String,
}

/// Module.symvers: what can be imported, and from where.
#[derive(Clone, Debug, Default)]
pub struct Exports {
    by_name: HashMap<String, Export>,
}

impl Exports {
    /// Reads the text of a Module.symvers (scripts/mod/modpost.c, read_dump): five fields separated by tabs, of which
    /// the namespace may be empty.
    ///
    /// # Errors
    /// `klpx::bad-symvers`.
    pub fn parse(text: &str) -> Result<Exports, Diagnosis> {
        let mut by_name = HashMap::with_capacity(text.len() / 50);
        for (n, line) in text.lines().enumerate() {
            let (name, export) = parse_export(line).ok_or_else(|| {
                Diagnosis::new(
                    &codes::BAD_SYMVERS,
                    format!("line {} is no export", n + 1),
                    "the file is no Module.symvers, or it was cut",
                    "give the Module.symvers of the kernel to be patched",
                )
            })?;
            by_name.insert(name, export);
        }
        Ok(Exports { by_name })
    }

    /// The export with this name.
    pub fn get(&self, name: &str) -> Option<&Export> {
        self.by_name.get(name)
    }

    /// How many exports there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Returns true if nothing is exported.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

fn parse_export(line: &str) -> Option<(String, Export)> {
    let mut fields = line.split('\t');
    let crc = u32::from_str_radix(fields.next()?.strip_prefix("0x")?, 16).ok()?;
    let name = fields.next().filter(|name| !name.is_empty())?;
    let path = fields.next()?;
    let gpl = match fields.next()? {
        "EXPORT_SYMBOL" => false,
        "EXPORT_SYMBOL_GPL" => true,
        _ => return None,
    };
    let namespace = fields.next().unwrap_or("").to_owned();
    let object = module_name(Path::new(path));
    Some((name.to_owned(), Export { crc, object, path: path.to_owned(), gpl, namespace }))
}

/// The name and position by which a livepatch must refer to a symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SymbolPosition {
    /// The name with which the running kernel compares.
    pub name: String,
    /// 0 for a name that is unique in its object, otherwise the position from 1.
    pub sympos: u32,
}

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
    object: String,
    path: String,
    linked: bool,
    bases: Vec<u64>,
    loaded: Vec<SectionId>,
    names: NameIndex,
    by_address: Vec<(u64, SymbolId)>,
    files: Vec<SymbolId>,
    relative: Vec<(u64, u64)>,
    kallsyms: OnceLock<Result<Kallsyms>>,
    locals: OnceLock<Locals>,
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

    /// The name and position by which a livepatch must refer to a symbol.
    ///
    /// Positions count in the order of kallsyms for vmlinux, and in the order of the symbol table for a module
    /// (kernel/livepatch/core.c, klp_find_object_symbol).
    ///
    /// # Errors
    /// `klpx::not-in-kallsyms` if the running kernel has no such name; `klpx::moving-symbol` if a module's position
    /// changes after its init.
    pub fn position(&self, symbol: SymbolId) -> Result<SymbolPosition> {
        if self.linked { self.position_in_kallsyms(symbol) } else { self.position_in_module(symbol) }
    }

    /// The kernel's symbols in the form that it searches.
    pub(crate) fn kallsyms(&self) -> Result<&Kallsyms> {
        let table = self.kallsyms.get_or_init(|| Kallsyms::read(self));
        table.as_ref().map_err(Failure::clone)
    }

    fn position_in_kallsyms(&self, symbol: SymbolId) -> Result<SymbolPosition> {
        let kallsyms = self.kallsyms()?;
        let name = kallsyms.seen_name(self.elf.symbol_name(symbol));
        let address = self.address(symbol).filter(|&address| address != 0);
        let all: Vec<u64> = kallsyms.addresses(name).collect();
        let n = all.iter().position(|&a| Some(a) == address).ok_or_else(|| not_in_kallsyms(self, symbol))?;
        let sympos = if all.len() == 1 { 0 } else { n as u32 + 1 };
        Ok(SymbolPosition { name: String::from_utf8_lossy(name).into_owned(), sympos })
    }

    fn position_in_module(&self, symbol: SymbolId) -> Result<SymbolPosition> {
        let name = self.elf.symbol_name(symbol);
        // FILE symbols also count: the kernel compares only names.
        let files = self.files.iter().copied().filter(|&id| self.elf.symbol_name(id) == name);
        let mut all: Vec<SymbolId> = (self.named(name).chain(files))
            .filter(|&id| self.elf.definition(id) != Definition::Undefined)
            .collect();
        all.sort_unstable();
        let kept: Vec<SymbolId> = all.iter().copied().filter(|&id| self.stays_after_init(id)).collect();
        let place = |list: &[SymbolId]| list.iter().position(|&id| id == symbol).map(|n| n as u32 + 1);
        let name = self.name(symbol);
        match (place(&all), place(&kept)) {
            (Some(_), Some(_)) if all.len() == 1 => Ok(SymbolPosition { name, sympos: 0 }),
            (Some(before), Some(after)) if before == after => Ok(SymbolPosition { name, sympos: before }),
            (Some(before), Some(after)) => Err(moving(self, &name, before, after).into()),
            _ => Err(not_in_kallsyms(self, symbol).into()),
        }
    }

    /// The address of the symbol to which a livepatch refers by this name and position.
    pub(crate) fn placed(&self, name: &str, sympos: u32) -> Option<u64> {
        let n = sympos.saturating_sub(1) as usize;
        if self.linked {
            return self.kallsyms().ok()?.addresses(name.as_bytes()).nth(n);
        }
        let mut all: Vec<SymbolId> =
            self.named(name.as_bytes()).filter(|&id| self.address(id).is_some()).collect();
        all.sort_unstable();
        self.address(*all.get(n)?)
    }

    /// Returns true for a kernel that removes the landing pads of functions whose address is not taken
    /// (CONFIG_X86_KERNEL_IBT, apply_seal_endbr in arch/x86/kernel/alternative.c).
    pub(crate) fn seals_functions(&self) -> bool {
        self.linked && self.elf.section_by_name(SEALS).is_some()
    }

    /// Returns true for code whose landing pad is missing or is removed.
    pub(crate) fn is_sealed(&self, address: u64) -> bool {
        let Some(section) = self.section_of(address) else { return false };
        let code = self.elf.section_flags(section) & elf::SHF_EXECINSTR.0 != 0;
        let begins = self.bytes_from(address).is_some_and(|code| code.starts_with(&ENDBR64));
        code && (!begins || self.seals().any(|sealed| sealed == address))
    }

    /// The addresses of landing pads that are removed. The table holds distances from its own places.
    fn seals(&self) -> impl Iterator<Item = u64> + '_ {
        let section = self.elf.section_by_name(SEALS);
        let start = section.map_or(0, |section| self.section_address(section));
        let bytes =
            section.filter(|_| self.linked).map_or(&[][..], |section| self.elf.section_bytes(section));
        let distances =
            bytes.chunks_exact(4).map(|d| i64::from(i32::from_le_bytes([d[0], d[1], d[2], d[3]])));
        let linked = distances.enumerate().map(move |(n, d)| (start + 4 * n as u64).wrapping_add_signed(d));
        let table = section.filter(|_| !self.linked).map_or(&[][..], |section| self.elf.relocations(section));
        linked.chain(table.iter().filter_map(|rela| match self.target(rela) {
            Some(Location::At(address)) => Some(address),
            _ => None,
        }))
    }

    /// Whether a module keeps a symbol after its init (kernel/module/kallsyms.c, is_core_symbol).
    fn stays_after_init(&self, id: SymbolId) -> bool {
        let Definition::Section(section) = self.elf.definition(id) else { return false };
        let alloc = self.elf.section_flags(section) & elf::SHF_ALLOC.0 != 0;
        alloc && !self.elf.section_name(section).starts_with(b".init")
    }
}

fn not_in_kallsyms(image: &Image<'_>, symbol: SymbolId) -> Diagnosis {
    Diagnosis::new(
        &codes::NOT_IN_KALLSYMS,
        "the running kernel can't find this symbol",
        format!("the symbol table that {} keeps at run time does not hold it", image.object),
        "check that the kernel has CONFIG_KALLSYMS_ALL; change the patch so that it does not \
         need this symbol",
    )
    .place(DiagnosisPlace::symbol(image.name(symbol)))
}

fn moving(image: &Image<'_>, name: &str, before: u32, after: u32) -> Diagnosis {
    Diagnosis::new(
        &codes::MOVING_SYMBOL,
        "a symbol's position changes after init",
        format!(
            "while {} is loading it is number {before} of its name, after init has been freed it \
             is number {after}",
            image.object
        ),
        "the name is also used in an .init section; change the patch so that it does not \
         need this symbol",
    )
    .place(DiagnosisPlace::symbol(name))
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

#[cfg(test)]
mod tests;
