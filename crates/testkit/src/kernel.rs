//! A stand-in for the kernel that a livepatch is made for.

use std::collections::BTreeMap;

use klpx_diagnosis::{Diagnosis, Result, codes};
use klpx_klp_emit::plan::{Binder, Bound, ExportedSymbol};
use klpx_normalize::elf::SymbolId;
use klpx_normalize::object::{FileId, Object};
use klpx_verify::LoadTarget;

/// The address range of the symbols of one name in the tests' kernel.
const ROOM: u64 = 0x1000;

/// The address of the first symbol of a name in the tests' kernel.
fn place(name: &str) -> u64 {
    let number = name.bytes().fold(7, |sum: u64, byte| (sum * 31 + u64::from(byte)) % 0xffff);
    0xffff_ffff_8100_0000 + number * ROOM
}

/// The kernel of the tests: each name is found unchanged and once, unless `several` says otherwise.
#[derive(Clone, Default)]
pub struct Kernel {
    /// Exports of vmlinux.
    pub exports: Vec<&'static str>,
    /// Exports of modules, or exports with a namespace.
    pub exported: BTreeMap<&'static str, ExportedSymbol>,
    /// Names that the kernel does not have.
    pub missing: Vec<&'static str>,
    /// Names that can't be bound.
    pub unbound: Vec<&'static str>,
    /// The function that contains every runtime constant, and the place in the function.
    pub holder: Option<(&'static str, i64)>,
    /// Globals of the kernel's objects that no unit of a test defines.
    pub defined: Vec<&'static str>,
    /// True if ftrace reaches no function.
    pub untraced: bool,
    /// Functions that must not be called through a pointer.
    pub sealed: Vec<&'static str>,
    /// Names of several symbols, with the number of symbols.
    pub several: BTreeMap<&'static str, u32>,
    /// Files in which a name has another position: name and file, position.
    pub of_file: BTreeMap<(&'static str, &'static str), u32>,
    /// Names of places after the first symbol, by distance.
    pub behind: BTreeMap<u64, &'static str>,
}

impl Binder for Kernel {
    fn bind(&self, original: &Object<'_>, symbol: SymbolId) -> Result<Bound, Diagnosis> {
        let name = String::from_utf8_lossy(original.elf.symbol_name(symbol)).into_owned();
        if self.unbound.contains(&name.as_str()) {
            return Err(Diagnosis::new(
                &codes::NOT_IN_KERNEL,
                "a name that can't be bound",
                "the test says so",
                "none",
            ));
        }
        let file = String::from_utf8_lossy(original.file_name(FileId(0))).into_owned();
        let of_file = self.of_file.get(&(name.as_str(), file.as_str()));
        let sympos = of_file.or_else(|| self.several.get(name.as_str())).copied().unwrap_or(0);
        Ok(Bound { name, sympos })
    }
    fn bind_finished(&self, _: &str, name: &str) -> Result<Bound, Diagnosis> {
        Ok(Bound { name: name.into(), sympos: 0 })
    }
    fn defines(&self, _: &str, name: &str) -> bool {
        self.defined.contains(&name)
    }
    fn refuses_indirect_calls(&self, _: &str, function: &Bound) -> bool {
        self.sealed.contains(&function.name.as_str())
    }
    fn bind_export(&self, _: &str, name: &str) -> Result<Bound, Diagnosis> {
        Ok(Bound { name: name.into(), sympos: 0 })
    }
    fn runtime_constant(&self, _: &str) -> Option<(Bound, i64)> {
        self.holder.map(|(name, place)| (Bound { name: name.into(), sympos: 0 }, place))
    }
    fn export(&self, name: &str) -> Option<ExportedSymbol> {
        let plain = ExportedSymbol { module: None, gpl: false, namespace: None };
        self.exported.get(name).cloned().or_else(|| self.exports.contains(&name).then_some(plain))
    }
}

impl LoadTarget for Kernel {
    fn addresses(&self, _: &str, name: &str) -> Option<Vec<u64>> {
        let count =
            if self.missing.contains(&name) { 0 } else { self.several.get(name).copied().unwrap_or(1) };
        let count = self.of_file.keys().filter(|(of, _)| *of == name).count().max(count as usize);
        Some((0..count as u64).map(|n| place(name) + n * 16).collect())
    }
    fn names_at(&self, _: &str, address: u64) -> Vec<String> {
        self.behind.get(&(address % ROOM)).map(|name| (*name).to_owned()).into_iter().collect()
    }
    fn is_traced(&self, _: &str, _: u64) -> bool {
        !self.untraced
    }
    fn file_of(&self, _: &str, name: &str, address: u64) -> Option<String> {
        let position = (address % ROOM) as u32 / 16 + 1;
        let found = self.of_file.iter().find(|&(&(of, _), &at)| of == name && at == position);
        found.map(|(&(_, file), _)| file.to_owned())
    }
    fn is_local(&self, _: &str, _: &str, _: u64) -> bool {
        false
    }
    fn namespace(&self, _: &str) -> Option<String> {
        None
    }
    fn runtime_sites(&self, _: &str) -> Vec<u64> {
        Vec::new()
    }
    fn exporter(&self, name: &str) -> Option<String> {
        self.exports.contains(&name).then(|| "vmlinux".to_owned())
    }
    fn vermagic(&self) -> Option<String> {
        Some("test SMP ".into())
    }
}
