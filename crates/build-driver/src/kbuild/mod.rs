//! kbuild: how its make is run, what it records, its units, how objtool sees them, who includes what, which text decides
//! about a unit, how long many units take.
//!
//! Owns no workspace: callers name the source and the build tree.

pub(crate) mod environment;
pub(crate) mod estimate;
pub mod includes;
pub mod list;
pub(crate) mod make;
pub mod objtool;
mod record;
pub(crate) mod recorded;
mod text;

pub use includes::IncludeGraph;
pub use list::{Generated, Home, Module, ModuleId, Rule, Source, Unit, UnitId, UnitList};
pub use objtool::ObjtoolRule;
pub(crate) use text::Text;
