//! What kbuild knows, asked of kbuild: its units, how objtool sees them, who includes what, how a unit was compiled.
//!
//! Owns no workspace and starts no process: callers run make, and hand in what it made.

pub mod includes;
pub mod list;
pub mod objtool;
mod record;

pub use includes::IncludeGraph;
pub use list::{Generated, Home, Module, ModuleId, Rule, Source, Unit, UnitId, UnitList};
pub use objtool::ObjtoolRule;
