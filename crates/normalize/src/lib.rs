//! Reads object files into the form that klpx compares: functions and data objects, their references, and the
//! special-section entries that describe them.
//!
//! Owns ELF reading, canonical names, and every fact about architectures and kernel versions. Never compares two
//! objects and never writes an object.

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
