//! The stages of a livepatch build in their order, from patches to a verified module: one file per stage, typed
//! results, and events for progress displays. Never parses arguments, never prints.

pub mod analysis;
mod bound;
mod build;
pub mod causes;
mod change_set;
pub mod code;
mod edits;
mod elsewhere;
mod events;
mod external;
pub mod holders;
pub mod inlining;
mod inputs;
mod layouts;
mod locate;
mod module;
mod places;
mod request;
mod results;
mod sign;
pub mod stabilise;
mod target;
mod thin;
mod trace_events;
mod transition;
mod units;
mod whole;

pub use bound::KernelReference;
pub use build::build;
pub use events::{Events, Stage};
pub use inputs::{Input, InputKind};
pub use klpx_build_driver::PlacedHunk;
pub use klpx_thinlto::Level;
pub use layouts::Accepted;
pub use module::kernel_name;
pub use request::{ExternalModule, ModuleInfo, Request};
pub use results::{FinishedModule, KernelFacts, ObjectFiles, Results, TargetFiles, UnitFacts};
pub use sign::{Pin, Signing};
pub use transition::{WaitKind, Waiting};
