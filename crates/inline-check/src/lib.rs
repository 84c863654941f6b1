//! Reads from a kernel's DWARF and tables the facts about functions: their source lines, the functions that inlined
//! them, whether ftrace can reach them, and the attributes that would keep them whole.
//!
//! Never decides what changed.

pub mod consistent;
pub mod dwarf;
pub mod lines;
pub mod reach;
pub mod sections;
pub mod survey;
