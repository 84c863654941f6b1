//! kbuild: its make runs, its records, its units, objtool's part, the graph of includes, the text that decides a unit's
//! code, and estimates of build times.
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
pub use list::{
    Generated, Home, KbuildModule, KbuildUnit, ModuleId, ObjectRule, UnitId, UnitList, UnitSource,
};
pub use objtool::ObjtoolRule;
pub(crate) use text::CodeText;
