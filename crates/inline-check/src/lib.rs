//! Reads from a kernel's DWARF and tables the facts about functions: their source lines, the functions that inlined
//! them, whether ftrace can reach them, and the attributes that would keep them whole.
//!
//! Never decides what changed.
//!
//! # Reading order
//!
//! [`sections`] opens debug sections, compressed or relocated. [`survey::Survey`] is one pass over the DWARF: each function, its
//! out-of-line copies, and the calls that inlined it. [`lines`] maps addresses to source lines. [`reach`] tells whether ftrace
//! can divert a function. [`consistent`] makes the lists with which a kernel has no half-inlined function.

pub mod consistent;
pub mod dwarf;
pub mod lines;
pub mod reach;
pub mod sections;
pub mod survey;
