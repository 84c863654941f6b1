//! What kbuild knows, asked of kbuild: its units, how objtool sees them, who includes what, how a unit was compiled.
//!
//! Owns no workspace and starts no process: callers run make, and hand in what it made.

pub mod list;
pub mod objtool;
mod record;

pub use list::{Home, Module, ModuleId, Rule, Source, Unit, UnitId, UnitList};
pub use objtool::ObjtoolRule;
