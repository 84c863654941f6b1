//! What the livepatch symbols of a finished module are in the kernel to be patched.

use klpx_verify::inspect::LivepatchSymbol;
use klpx_verify::{LoadTarget, VMLINUX};
use serde::Serialize;

/// A symbol of the kernel that a module is bound to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct BoundSymbol {
    /// The object that defines it: `vmlinux` or a module's name.
    pub object: String,
    /// Its name there.
    pub name: String,
    /// Which of that name, from 1; 0 for the only one.
    pub position: u64,
    /// The file that it is a local of, without its folder; absent for a global, and where the symbol table does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Its address in the image as it was linked, in hexadecimal; absent for a module's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// Looks the livepatch symbols of a module up as the kernel does.
pub(crate) fn symbols(symbols: &[LivepatchSymbol], target: &dyn LoadTarget) -> Vec<BoundSymbol> {
    let look_up = |symbol: &LivepatchSymbol| {
        let before = usize::try_from(symbol.sympos.saturating_sub(1)).unwrap_or(usize::MAX);
        let found = target.addresses(&symbol.object, &symbol.name);
        let address = found.and_then(|all| all.get(before).copied());
        BoundSymbol {
            object: symbol.object.clone(),
            name: symbol.name.clone(),
            position: symbol.sympos,
            unit: address.and_then(|address| target.file_of(&symbol.object, &symbol.name, address)),
            address: address.filter(|_| symbol.object == VMLINUX).map(|address| format!("{address:#x}")),
        }
    };
    symbols.iter().map(look_up).collect()
}
