//! Packages of finished livepatches for hosts: one for each kernel release, as .deb and .rpm.
//!
//! Owns what a package holds, what its scripts do, and the formats. A package holds one cumulative livepatch: the newer
//! one takes the older one's place in the running kernel, and nothing is ever unloaded on the way. Never reads a kernel,
//! never signs.

mod changelog;
mod deb;
mod files;
mod livepatch;
mod plan;
mod provenance;
mod rpm;
mod scripts;

pub use livepatch::Livepatch;
pub use plan::{About, Format, Package};
