//! Makes a livepatch module from the changed functions of a build: closure, relocatable object, glue, livepatch
//! relocations and symbols.
//!
//! Never builds a kernel and never spawns a process: the build driver compiles the glue and links.

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
