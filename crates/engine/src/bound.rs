//! Looks up what the livepatch symbols of a finished module denote in the kernel to be patched.

use klpx_verify::inspect::LivepatchSymbol;
use klpx_verify::{LoadTarget, VMLINUX};
use serde::Serialize;

/// A symbol of the kernel to which a module is bound.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct KernelReference {
    /// The kernel object that defines the symbol: `vmlinux` or a module's name.
    pub object: String,
    /// The symbol's name in that object.
    pub name: String,
    /// The symbol's position among those of its name, from 1; 0 for a unique name.
    pub position: u64,
    /// For a local symbol, the source file without its folder. Absent for a global symbol, and where the symbol table
    /// does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// The symbol's address in the image as linked, in hexadecimal. Absent for a symbol of a module.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// Looks up a module's livepatch symbols as the kernel does.
pub(crate) fn symbols(symbols: &[LivepatchSymbol], target: &dyn LoadTarget) -> Vec<KernelReference> {
    let look_up = |symbol: &LivepatchSymbol| {
        let before = usize::try_from(symbol.sympos.saturating_sub(1)).unwrap_or(usize::MAX);
        let found = target.addresses(&symbol.object, &symbol.name);
        let address = found.and_then(|all| all.get(before).copied());
        KernelReference {
            object: symbol.object.clone(),
            name: symbol.name.clone(),
            position: symbol.sympos,
            unit: address.and_then(|address| target.file_of(&symbol.object, &symbol.name, address)),
            address: address.filter(|_| symbol.object == VMLINUX).map(|address| format!("{address:#x}")),
        }
    };
    symbols.iter().map(look_up).collect()
}
