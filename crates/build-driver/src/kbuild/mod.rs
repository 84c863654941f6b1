//! What kbuild knows, asked of kbuild: its units, how objtool sees them, who includes what, which text decides about a unit, how
//! long many units take.
//!
//! Owns no workspace and starts no process: callers run make, and hand in what it made.

pub mod estimate;
pub mod includes;
pub mod list;
pub mod objtool;
mod record;
mod text;

pub use estimate::Estimate;
pub use includes::IncludeGraph;
pub use list::{Generated, Home, Module, ModuleId, Rule, Source, Unit, UnitId, UnitList};
pub use objtool::ObjtoolRule;
pub(crate) use text::Text;
