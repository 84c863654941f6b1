//! What a kernel's DWARF and tables say about a function: its source lines, who inlined it, whether ftrace can reach it.
//!
//! Never decides what changed.

pub mod dwarf;
pub mod extent;
pub mod inlined;
pub mod lines;
pub mod reach;
