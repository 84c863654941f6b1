//! Text for people: tables and diagnoses that are readable without colour, and names that do nothing to a terminal.
//!
//! Owns how text looks. Never decides what is said.

pub mod render;
pub mod terminal;
