//! Packages of finished livepatches for hosts: one package for each kernel release, as .deb and .rpm.
//!
//! Owns the contents of a package, its scripts and the formats. A package holds one cumulative livepatch. A newer
//! package replaces the older livepatch in the running kernel; no livepatch is unloaded in between. Never reads a
//! kernel, never signs.

mod changelog;
mod deb;
mod files;
mod livepatch;
mod package;
mod plan;
mod provenance;
mod rpm;
mod scripts;

pub use livepatch::PackagedLivepatch;
pub use package::{About, Format, Package};
