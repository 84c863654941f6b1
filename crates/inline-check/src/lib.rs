//! What a kernel's DWARF and tables say about functions: their source lines, who inlined them, whether ftrace can reach
//! them; and which attributes would keep them whole.
//!
//! Never decides what changed.

pub mod consistent;
pub mod dwarf;
pub mod lines;
pub mod reach;
pub mod sections;
pub mod survey;
