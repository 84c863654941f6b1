//! Livepatches from two builds of small C files: compiled, compared, emitted, linked, finished and verified.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a helper that can't go on fails its test")]

mod borders;
mod callbacks;
mod choice;
mod constants;
mod emit;
mod folding;
mod hazards;
mod late;
mod lifetimes;
mod loader;
mod outside;
mod placement;
mod refusals;
mod several_units;
mod split;
mod state;
mod tables;
mod type_ids;
mod verified;
