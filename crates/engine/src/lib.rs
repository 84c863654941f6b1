//! The stages of a livepatch build in their order, from patches to a verified module: one file per stage, typed
//! results, and events for progress displays. Never parses arguments, never prints.
//!
//! # The book
//!
//! These pages read as a book. [`build()`] runs the stages; each crate below it is a chapter, and its page begins with what
//! the chapter is about and ends with the order in which to read it.
//!
//! 1. **What was asked for.** A [`Request`] comes in, [`Results`] hold what a build found up to the stage that it reached, and
//!    a [`FinishedModule`] comes out. [`Events`] tell whoever waits about each [`Stage`].
//! 2. **The kernel and the patch** ([`klpx_build_driver`]). Where a kernel's files are, what identifies a kernel, how a
//!    patch is read and applied in a scratch copy, and how kbuild's recorded commands compile single units. A ThinLTO
//!    kernel has a chapter of its own ([`klpx_thinlto`]): which native code the patch reaches, and how the patched side
//!    is kept near to the original.
//! 3. **Objects** ([`klpx_normalize`]). An ELF file becomes items, their references, and the special-section entries that
//!    describe them. This chapter has every table of facts about architectures and kernel versions.
//! 4. **What differs** ([`klpx_diff`]). Items of both builds are paired and compared. The result is the change set.
//! 5. **What the compiler did** ([`klpx_inline_check`]) and **what lives in memory** ([`klpx_layout`]). Debug information
//!    explains the change set ([`finding::Cause`], [`holders`]) and vetoes: objects that live when the livepatch is loaded keep
//!    their layout ([`Accepted`]).
//! 6. **The module** ([`klpx_klp_emit`]). What has to be copied, what each reference is bound to in the kernel to be patched,
//!    and how the file is written.
//! 7. **The proof** ([`klpx_verify`]). The finished module is read again and checked by rules that share no decision with the
//!    chapters before.
//!
//! Every refusal on the way is a [`klpx_diagnosis::Diagnosis`]: its code, reason and remedy.

pub mod analysis;
mod bound;
mod build;
mod causes;
mod change_set;
pub mod code;
mod compiled;
mod edits;
mod elsewhere;
mod events;
mod external;
pub mod finding;
pub mod holders;
pub mod inlining;
mod inputs;
mod layouts;
mod locate;
mod module;
mod overlays;
mod pairs;
mod places;
mod request;
mod results;
mod running;
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
