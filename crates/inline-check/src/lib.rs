//! What a kernel's DWARF and tables say about functions: their source lines, who inlined them, whether ftrace can reach them.
//!
//! Never decides what changed.

pub mod dwarf;
pub mod lines;
pub mod reach;
pub mod sections;
pub mod survey;
