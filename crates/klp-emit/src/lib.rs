//! Makes a livepatch module from the changed functions of a build: closure, relocatable object, glue, livepatch
//! relocations and symbols.
//!
//! Never builds a kernel and never spawns a process: the build driver compiles the glue and links.

mod arch;
pub mod banner;
pub mod bind;
#[cfg(test)]
mod borders;
mod branches;
#[cfg(test)]
mod callbacks;
pub mod callers;
#[cfg(test)]
mod choice;
pub mod closure;
mod constants;
mod contents;
mod direct;
pub mod emit;
pub mod export_checks;
mod field;
pub mod finish;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod folding;
pub mod glue;
#[cfg(test)]
mod hazards;
pub mod image;
mod kallsyms;
pub mod kernel_binder;
#[cfg(test)]
mod late;
#[cfg(test)]
mod lifetimes;
#[cfg(test)]
mod loader;
mod locals;
mod names;
#[cfg(test)]
mod outside;
#[cfg(test)]
mod placement;
pub mod plan;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod several_units;
#[cfg(test)]
mod split;
pub mod stand_in;
#[cfg(test)]
mod state;
pub mod successor;
#[cfg(test)]
mod tables;
#[cfg(test)]
mod testing;
pub mod transition;
#[cfg(test)]
mod type_ids;
pub mod users;
#[cfg(test)]
mod verified;
pub mod witness;
pub mod writer;
