//! Makes a livepatch module from the changed functions of a build: closure, relocatable object, glue, livepatch
//! relocations and symbols.
//!
//! Never builds a kernel and never spawns a process: the build driver compiles the glue and links.
//!
//! # Reading order
//!
//! [`closure::select`] chooses what goes into the module, from [`plan::ComparedUnit`]s. [`image::Image`] reads the kernel to be
//! patched. [`bind::Binding`] matches the symbols of klpx's original to it, and [`witness::Witness`] compares the code of both.
//! [`kernel_binder::KernelBinder`] answers the questions of the emitter. [`emit::emit`] copies the closure into an object and
//! makes the [`plan::Plan`]. [`glue::source`] is the C part with `struct klp_patch`. After the link, [`finish::finish`] gives
//! livepatch symbols and relocation sections their final form. [`transition`] foretells what the transition waits for.

mod arch;
pub mod banner;
pub mod bind;
mod branches;
pub mod callers;
pub mod closure;
mod constants;
mod contents;
pub mod emit;
pub mod export_checks;
mod field;
pub mod finish;
pub mod glue;
pub mod image;
mod kallsyms;
pub mod kernel_binder;
mod locals;
mod names;
pub mod plan;
pub mod stand_in;
pub mod successor;
pub mod transition;
pub mod users;
pub mod witness;
pub mod writer;
