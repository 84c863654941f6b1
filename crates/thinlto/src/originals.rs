//! Keeps results about a unit's original. They depend only on the kernel, so the next patch for the same unit need not
//! run the compiler again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::llvm::ir::{Identity, IrModule};
use klpx_diagnosis::{Diagnosis, Result};
use serde::{Deserialize, Serialize};

use crate::files;
use crate::linker::Backend;

/// Functions by name.
pub(crate) type Functions = BTreeMap<String, Identity>;

/// The compilation of a unit's original.
#[derive(Clone, Debug)]
pub(crate) struct OriginalCompilation {
    /// The unit's functions before any pass.
    pub(crate) functions: Functions,
    /// The inliner's remarks.
    pub(crate) compiled: String,
}

/// The file in which an `OriginalCompilation` is kept.
#[derive(Serialize, Deserialize)]
struct KeptOriginal {
    /// The version of klpx: another version may see other things.
    klpx: String,
    compiled: String,
    /// The hashes of body and attributes, in hexadecimal digits.
    functions: BTreeMap<String, [String; 2]>,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The folder where the originals of one object's units are kept.
#[derive(Clone, Debug)]
pub(crate) struct OriginalsFolder {
    pub(crate) folder: PathBuf,
}

impl OriginalsFolder {
    /// The originals in the folder of an object's link.
    pub(crate) fn of(store: &Path) -> OriginalsFolder {
        OriginalsFolder { folder: store.join("units") }
    }

    /// The result of a unit's backend, if it is kept.
    pub(crate) fn backend(&self, unit: &str) -> Option<Backend> {
        let remarks = std::fs::read_to_string(self.remarks_path(unit)).ok()?;
        let object = self.native_path(unit);
        object.is_file().then_some(Backend { object, remarks })
    }

    /// Keeps the result of a unit's backend: the native object first, then the remarks.
    pub(crate) fn keep_backend(&self, unit: &str, backend: &Backend) -> Result<()> {
        files::keep(&self.native_path(unit), files::read(&backend.object)?)?;
        files::keep(&self.remarks_path(unit), &backend.remarks)
    }

    fn native_path(&self, unit: &str) -> PathBuf {
        self.folder.join(unit)
    }

    fn remarks_path(&self, unit: &str) -> PathBuf {
        self.native_path(unit).with_extension("remarks")
    }

    /// What is kept about a unit; `None` if nothing is.
    pub(crate) fn read(&self, unit: &str) -> Option<OriginalCompilation> {
        let text = std::fs::read(self.text_path(unit)).ok()?;
        let kept: KeptOriginal = serde_json::from_slice(&text).ok()?;
        let hash = |digits: &String| u128::from_str_radix(digits, 16).ok();
        let functions: Option<Functions> = kept
            .functions
            .iter()
            .map(|(name, [body, attributes])| {
                Some((name.clone(), Identity { body: hash(body)?, attributes: hash(attributes)? }))
            })
            .collect();
        let functions = functions.filter(|_| kept.klpx == VERSION)?;
        Some(OriginalCompilation { functions, compiled: kept.compiled })
    }

    /// Keeps the results of a unit's compilation.
    pub(crate) fn keep(&self, unit: &str, original: &OriginalCompilation) -> Result<()> {
        let hex = |hash: u128| format!("{hash:032x}");
        let functions = original.functions.iter();
        let kept = KeptOriginal {
            klpx: VERSION.to_owned(),
            compiled: original.compiled.clone(),
            functions: functions
                .map(|(name, identity)| (name.clone(), [hex(identity.body), hex(identity.attributes)]))
                .collect(),
        };
        let path = self.text_path(unit);
        let text = serde_json::to_vec(&kept).map_err(|error| Diagnosis::io("write", &path, &error.into()))?;
        files::keep(&path, text)
    }

    fn text_path(&self, unit: &str) -> PathBuf {
        self.native_path(unit).with_extension("json")
    }
}

/// The functions of a file with LLVM IR.
pub(crate) fn functions_of(file: &Path) -> Result<Functions> {
    let text = files::read(file)?;
    let text = String::from_utf8_lossy(&text);
    let module = IrModule::parse(&text);
    let names = module.names().map(str::to_owned);
    Ok(names.filter_map(|name| Some((name.clone(), module.identity(&name)?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let originals = OriginalsFolder::of(folder.path());
        assert!(originals.read("fs/a.o").is_none() && originals.backend("fs/a.o").is_none());
        let made = folder.path().join("made.o");
        std::fs::write(&made, "code").expect("a file");
        originals.keep_backend("fs/a.o", &Backend { object: made, remarks: "r".into() }).expect("kept");
        let backend = originals.backend("fs/a.o").expect("kept");
        assert_eq!(
            (files::read(&backend.object).expect("kept"), backend.remarks),
            (b"code".to_vec(), "r".into())
        );
        assert!(originals.read("fs/a.o").is_none(), "nothing of its compilation is known");
        let identity = Identity { body: 1, attributes: u128::MAX };
        let functions = Functions::from([("f".to_owned(), identity)]);
        let original = OriginalCompilation { functions, compiled: "c".into() };
        originals.keep("fs/a.o", &original).expect("kept");
        let read = originals.read("fs/a.o").expect("kept");
        assert_eq!((read.functions, read.compiled), (original.functions, "c".into()));
        let text = std::fs::read_to_string(originals.text_path("fs/a.o")).expect("kept");
        let older = text.replace(&format!("\"{VERSION}\""), "\"0.0.1\"");
        assert_ne!(older, text);
        std::fs::write(originals.text_path("fs/a.o"), older).expect("a file");
        assert!(originals.read("fs/a.o").is_none(), "of another version");
        std::fs::write(originals.text_path("fs/a.o"), "{").expect("half a file");
        assert!(originals.read("fs/a.o").is_none());
    }
}
