//! The kernel to be patched as the loader, the livepatch core and ftrace see it.

use std::collections::BTreeMap;

use klpx_normalize::elf::{Definition, SymbolId};
use object::endian::LittleEndian as LE;

use crate::image::{Image, Kernel, Location, VMLINUX};

/// What a module meets when it is loaded.
pub trait LoadTarget {
    /// The addresses of a name in an object, in the order in which the kernel finds them; `None` without the object.
    fn addresses(&self, object: &str, name: &str) -> Option<Vec<u64>>;
    /// The names of what begins at an address of an object.
    fn names_at(&self, object: &str, address: u64) -> Vec<String>;
    /// True when ftrace has a record in the function at an address.
    fn is_traced(&self, object: &str, address: u64) -> bool;
    /// The file that the local `name` at an address comes from, where the object's symbol table tells.
    fn file_of(&self, object: &str, name: &str, address: u64) -> Option<String>;
    /// The places of vmlinux that boot code patches with a runtime constant.
    fn runtime_sites(&self, name: &str) -> Vec<u64>;
    /// The object that exports a name.
    fn exporter(&self, name: &str) -> Option<String>;
    /// The version string that a module must carry, where the kernel's files tell it.
    fn vermagic(&self) -> Option<String>;
}

/// A [`LoadTarget`] over the kernel's own files.
pub struct KernelFiles<'a> {
    kernel: &'a Kernel,
    images: BTreeMap<&'a str, &'a Image<'a>>,
    traced: BTreeMap<&'a str, Vec<u64>>,
}

impl<'a> KernelFiles<'a> {
    /// Over the images of every object that is patched, vmlinux among them.
    pub fn new(kernel: &'a Kernel, images: &[&'a Image<'a>]) -> KernelFiles<'a> {
        let images: BTreeMap<_, _> = images.iter().map(|&image| (image.object(), image)).collect();
        let traced = images.iter().map(|(&name, image)| (name, traced(image))).collect();
        KernelFiles { kernel, images, traced }
    }
}

fn addresses(image: &Image<'_>, name: &str) -> Vec<u64> {
    if image.is_linked() {
        return image
            .kallsyms()
            .map_or_else(|_| Vec::new(), |table| table.addresses(name.as_bytes()).collect());
    }
    let mut found: Vec<SymbolId> = image.named(name.as_bytes()).collect();
    found.sort_unstable();
    found.retain(|&id| image.elf.definition(id) != Definition::Undefined);
    found.into_iter().filter_map(|id| image.address(id)).collect()
}

/// Every address that ftrace has a record for, sorted.
fn traced(image: &Image<'_>) -> Vec<u64> {
    let mut found = if image.is_linked() { linked_records(image) } else { module_records(image) };
    found.sort_unstable();
    found
}

/// The table between `__start_mcount_loc` and `__stop_mcount_loc`; its words are in place, or in relative relocations.
fn linked_records(image: &Image<'_>) -> Vec<u64> {
    let bound = |name: &[u8]| image.named(name).next().and_then(|id| image.address(id));
    let (Some(start), Some(stop)) = (bound(b"__start_mcount_loc"), bound(b"__stop_mcount_loc")) else {
        return Vec::new();
    };
    let bytes = image.bytes_from(start).unwrap_or_default();
    let bytes = &bytes[..bytes.len().min(stop.saturating_sub(start) as usize)];
    let mut found: Vec<u64> = bytes
        .chunks_exact(8)
        .map(|word| word.iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte)))
        .filter(|&word| word != 0)
        .collect();
    if let Some(section) = image.elf.section_by_name(b".rela.dyn") {
        let table = image.elf.rela_table(section).iter();
        found.extend(
            table
                .filter(|rela| (start..stop).contains(&rela.r_offset.get(LE)))
                .map(|rela| rela.r_addend.get(LE) as u64),
        );
    }
    found
}

fn module_records(image: &Image<'_>) -> Vec<u64> {
    let tables = image.elf.section_ids().filter(|&id| {
        matches!(image.elf.section_name(id), b"__mcount_loc" | b"__patchable_function_entries")
    });
    tables
        .flat_map(|id| image.elf.relocations(id))
        .filter_map(|rela| match image.target(rela) {
            Some(Location::At(address)) => Some(address),
            _ => None,
        })
        .collect()
}

impl LoadTarget for KernelFiles<'_> {
    fn addresses(&self, object: &str, name: &str) -> Option<Vec<u64>> {
        match self.images.get(object) {
            Some(image) => Some(addresses(image, name)),
            None => self.kernel.image(object).ok().map(|image| addresses(&image, name)),
        }
    }

    fn names_at(&self, object: &str, address: u64) -> Vec<String> {
        let image = self.images.get(object);
        image.into_iter().flat_map(|image| image.at(address).map(|id| image.name(id))).collect()
    }

    fn is_traced(&self, object: &str, address: u64) -> bool {
        let (Some(image), Some(traced)) = (self.images.get(object), self.traced.get(object)) else {
            return false;
        };
        let size = image.at(address).map(|id| image.elf.symbol_size(id)).max().unwrap_or(0);
        let (_, sites) = image.arch.trace_sites();
        let start = address.saturating_add_signed(sites.iter().copied().min().unwrap_or(0));
        let first = traced.partition_point(|&record| record < start);
        traced.get(first).is_some_and(|&record| record < address + size.max(1))
    }

    fn file_of(&self, object: &str, name: &str, address: u64) -> Option<String> {
        let image = self.images.get(object)?;
        // An object of no size has the address of what follows it.
        let mut named = image.at(address).filter(|&id| image.elf.symbol_name(id) == name.as_bytes());
        let file = named.find_map(|id| image.locals().file_of(id))?;
        Some(String::from_utf8_lossy(file).into_owned())
    }

    fn runtime_sites(&self, name: &str) -> Vec<u64> {
        self.images.get(VMLINUX).map_or_else(Vec::new, |image| image.runtime_sites(name))
    }

    fn exporter(&self, name: &str) -> Option<String> {
        self.kernel.exports().get(name).map(|export| export.object.clone())
    }

    fn vermagic(&self) -> Option<String> {
        let image = self.images.get(VMLINUX)?;
        let symbol = image.named(b"vermagic").next()?;
        let bytes = image.bytes_from(image.address(symbol)?)?;
        let end = bytes.iter().position(|&b| b == 0)?;
        Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }
}
