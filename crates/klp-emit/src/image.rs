//! The kernel to be patched: its vmlinux, its modules, its exports, and the positions of its symbols.
//!
//! Owns the only computation of `sympos`. Never looks at klpx's own builds.

mod exports;
pub(crate) mod kernel_object;
mod landing_pads;
mod module_files;
mod position;
mod target;

pub use exports::{Export, Exports};
pub use kernel_object::{Image, Location, VMLINUX};
pub use module_files::module_name;
pub use position::SymbolPosition;
pub use target::TargetKernel;

#[cfg(test)]
mod tests;
