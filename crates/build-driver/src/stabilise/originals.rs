//! What the stabilised rebuild learns of a unit's original. It depends on the baseline only, so it is kept in the
//! workspace, and the next patch for the same unit need not ask the compiler again.

use std::collections::BTreeMap;
use std::path::PathBuf;

use klpx_diagnosis::{Diagnosis, Result};
use klpx_stabilise::ir::Identity;
use serde::{Deserialize, Serialize};

use crate::workspace::Workspace;

/// Functions by name.
pub(crate) type Functions = BTreeMap<String, Identity>;

/// A unit's original, in both steps of its compilation.
pub(crate) struct Original {
    /// Its functions before any pass.
    pub(crate) functions: Functions,
    /// The inliner's remarks of the compilation.
    pub(crate) compiled: String,
    /// Its native object, in the baseline's ThinLTO cache.
    pub(crate) native: PathBuf,
    /// The inliner's remarks of the backend.
    pub(crate) linked: String,
}

/// The file that it is kept in.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// Another version may see other things.
    klpx: String,
    /// Name of the native object in the ThinLTO cache.
    key: String,
    compiled: String,
    linked: String,
    /// Hashes of body and attributes, in hexadecimal digits.
    functions: BTreeMap<String, [String; 2]>,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What is kept of a unit; `None` when that is nothing, or its native object is gone.
pub(crate) fn read(workspace: &Workspace, unit: &str) -> Option<Original> {
    let text = std::fs::read(path(workspace, unit)).ok()?;
    let kept: Kept = serde_json::from_slice(&text).ok()?;
    let native = workspace.lto_cache().join(&kept.key);
    if kept.klpx != VERSION || !native.is_file() {
        return None;
    }
    let hash = |digits: &String| u128::from_str_radix(digits, 16).ok();
    let functions: Option<Functions> = kept
        .functions
        .into_iter()
        .map(|(name, [body, attributes])| {
            Some((name, Identity { body: hash(&body)?, attributes: hash(&attributes)? }))
        })
        .collect();
    Some(Original { functions: functions?, compiled: kept.compiled, native, linked: kept.linked })
}

/// Keeps what was found to be as in the baseline.
pub(crate) fn write(workspace: &Workspace, unit: &str, original: &Original) -> Result<()> {
    let path = path(workspace, unit);
    let fail = |error: std::io::Error| Diagnosis::io("write", &path, &error);
    let hex = |hash: u128| format!("{hash:032x}");
    let functions = original.functions.iter();
    let kept = Kept {
        klpx: VERSION.to_owned(),
        key: original.native.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        compiled: original.compiled.clone(),
        linked: original.linked.clone(),
        functions: functions
            .map(|(name, identity)| (name.clone(), [hex(identity.body), hex(identity.attributes)]))
            .collect(),
    };
    let text = serde_json::to_vec(&kept).map_err(|error| crate::workspace::internal(&error.to_string()))?;
    std::fs::create_dir_all(path.parent().unwrap_or(&path)).map_err(fail)?;
    // Half a file is no JSON, and counts as nothing.
    std::fs::write(&path, text).map_err(fail)?;
    Ok(())
}

fn path(workspace: &Workspace, unit: &str) -> PathBuf {
    workspace.originals_dir().join(unit).with_extension("json")
}
