//! Reads object files into the form that klpx compares: functions and data objects, their references, and the
//! special-section entries that describe them.
//!
//! Owns ELF reading, canonical names, and every fact about architectures and kernel versions. Never compares two
//! objects and never writes an object.
//!
//! # Reading order
//!
//! [`elf`] reads tables and checks them. [`object::Object`] makes [`object::Item`]s of the symbols, and
//! [`object::Object::resolve`] says what a relocation means ([`object::Target`]). [`special`] has the table of special
//! sections, [`arch`] the relocation types and code facts of each architecture, [`name`] what compilers do to names.
//! [`frames`], [`lifetime`] and [`escape`] add unwind entries, sections that are gone after boot, and branches without a
//! relocation. [`align`] pairs two lists in order, for both engines that match symbols of two builds.

pub mod align;
pub mod arch;
pub mod census;
pub mod compressed;
pub mod elf;
pub mod escape;
pub mod frames;
pub mod lifetime;
pub mod name;
pub mod notes;
pub mod object;
pub mod special;
