//! Text for people: tables and diagnoses that are readable without colour, and names that can't control the terminal.
//!
//! Owns the look of text. Never decides its content.

pub mod render;
pub mod terminal;
