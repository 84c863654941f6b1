//! The JSON report of a build (`--report`). The schema version grows when a field changes its meaning or goes away.

use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, Failure, Result, words};
use klpx_engine::{FinishedModule, Results};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::outcome::TrialOutcome;
use crate::signer::Signed;

/// Version of the report's schema.
pub(crate) const SCHEMA: u32 = 3;

/// The contents of a report, written on success and on failure.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// The schema version.
    pub(crate) schema: u32,
    /// klpx's own version.
    pub(crate) klpx: &'static str,
    /// The patches, as named on the command line.
    pub(crate) patches: Vec<String>,
    /// The results, up to the stage that the build reached.
    #[serde(flatten)]
    pub(crate) results: Results,
    /// The stages that ended, in their order.
    pub(crate) stages: Vec<StageReport>,
    /// The module, if it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) module: Option<ModuleReport>,
    /// The outcome of the trial in a guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) test: Option<TrialOutcome>,
    /// The diagnoses that stopped the build.
    pub(crate) errors: Vec<Diagnosis>,
}

/// The finished module.
#[derive(Debug, Serialize)]
pub(crate) struct ModuleReport {
    pub(crate) path: String,
    pub(crate) name: String,
    /// The number of functions that the module replaces.
    pub(crate) replaced: usize,
    /// The number of livepatch symbols, all bound to the kernel.
    pub(crate) symbols: usize,
    /// The number of relocations that were checked.
    pub(crate) relocations: usize,
    /// Size in bytes.
    pub(crate) bytes: usize,
    /// SHA-256 of the file, in hexadecimal.
    pub(crate) sha256: String,
    /// The signer of the module; null without a signature.
    pub(crate) signature: Value,
}

/// A stage that ended.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct StageReport {
    /// The stage's name.
    pub(crate) name: &'static str,
    /// The result, for people.
    pub(crate) result: String,
    /// The duration in seconds.
    pub(crate) seconds: f64,
}

impl ModuleReport {
    pub(crate) fn new(path: &Path, name: String, made: &FinishedModule) -> Result<ModuleReport> {
        Ok(ModuleReport {
            path: path.display().to_string(),
            name,
            replaced: made.verified.functions,
            symbols: made.verified.symbols,
            relocations: made.verified.relocations,
            bytes: made.bytes.len(),
            sha256: sha256(&made.bytes),
            signature: Signed::read(&made.bytes, None)?.json(),
        })
    }
}

impl Report {
    /// The report of a build that has not begun.
    pub(crate) fn new(patches: &[PathBuf]) -> Report {
        let patches = patches.iter().map(|path| path.display().to_string()).collect();
        Report { schema: SCHEMA, klpx: env!("CARGO_PKG_VERSION"), patches, ..Report::default() }
    }

    /// Records the diagnoses that stopped the build.
    pub(crate) fn fail(&mut self, failure: &Failure) {
        self.errors = failure.diagnoses().cloned().collect();
    }
}

/// The SHA-256 of bytes, in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    words::hexadecimal(&Sha256::digest(bytes))
}
