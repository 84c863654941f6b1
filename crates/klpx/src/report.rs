//! The JSON report of a build (`--report`). Its schema version grows when a field changes its meaning or goes away.

use std::path::Path;

use klpx_diagnosis::{Class, Diagnosis, Failure, Result};
use serde::Serialize;

use crate::analysis::Finding;
use crate::holders::Unaffected;
use crate::module::Made;
use crate::stabilise::Stabilised;

/// Version of the report's schema.
pub(crate) const SCHEMA: u32 = 1;

/// What `--report` writes, on success and on failure.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// Schema version.
    pub(crate) schema: u32,
    /// klpx's own version.
    pub(crate) klpx: &'static str,
    /// The patches, as they were named.
    pub(crate) patches: Vec<String>,
    /// The kernel, once it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kernel: Option<Kernel>,
    /// Changed and new functions that the module holds.
    pub(crate) changes: Vec<Finding>,
    /// What differs but is not in the module, and why.
    pub(crate) left_out: Vec<Finding>,
    /// Functions that held inlined copies of what the patch edits, and whose code is the same in the patched build.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) unaffected: Vec<Unaffected>,
    /// Touched units whose promoted locals keep the original's names.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) frozen: usize,
    /// Functions that touched units would newly import, and do not.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) held_back: usize,
    /// What the stabilised rebuild did, by object; empty when there was nothing to do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) stabilised: Vec<Stabilised>,
    /// The objects that were compared, where they are kept (`--keep-work`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) objects: Vec<Objects>,
    /// Things to know that stop nothing.
    pub(crate) notes: Vec<String>,
    /// The module, once it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) module: Option<Module>,
    /// What stopped the build.
    pub(crate) errors: Vec<Diagnosis>,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// The kernel to be patched.
#[derive(Debug, Serialize)]
pub(crate) struct Kernel {
    pub(crate) release: String,
    pub(crate) arch: String,
    pub(crate) compiler: String,
    /// Key of the baseline in the cache.
    pub(crate) baseline: String,
}

/// The two builds of an object of the kernel.
#[derive(Debug, Serialize)]
pub(crate) struct Objects {
    pub(crate) object: String,
    pub(crate) original: String,
    pub(crate) patched: String,
}

impl Objects {
    pub(crate) fn of(pair: &klpx_build_driver::Pair) -> Objects {
        Objects {
            object: pair.name.clone(),
            original: pair.original.display().to_string(),
            patched: pair.patched.display().to_string(),
        }
    }
}

/// The finished module.
#[derive(Debug, Serialize)]
pub(crate) struct Module {
    pub(crate) path: String,
    pub(crate) name: String,
    /// Functions that it replaces.
    pub(crate) replaced: usize,
    /// Livepatch symbols, all bound to the kernel.
    pub(crate) symbols: usize,
    /// Relocations that were checked.
    pub(crate) relocations: usize,
}

impl Module {
    pub(crate) fn new(path: &Path, name: String, made: &Made) -> Module {
        Module {
            path: path.display().to_string(),
            name,
            replaced: made.verified.functions,
            symbols: made.verified.symbols,
            relocations: made.verified.relocations,
        }
    }
}

impl Report {
    /// Notes what stopped the build.
    pub(crate) fn fail(&mut self, failure: &Failure) {
        self.errors = failure.diagnoses().cloned().collect();
    }

    /// Writes it, replacing what was there.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        std::fs::write(path, to_text(self)?).map_err(|e| Diagnosis::io("write", path, &e).into())
    }
}

/// Pretty JSON with a newline at its end.
pub(crate) fn to_text(value: &impl Serialize) -> Result<String> {
    let mut text = serde_json::to_string_pretty(value).map_err(|e| {
        Diagnosis::new("klpx::internal", Class::Internal, "can't write JSON").why(e.to_string())
    })?;
    text.push('\n');
    Ok(text)
}
