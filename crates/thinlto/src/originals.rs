//! What is learnt of a unit's original. It depends on the kernel only, so it is kept, and the next patch for the same
//! unit need not ask the compiler again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::llvm::ir::Identity;
use klpx_diagnosis::{Diagnosis, Result};
use serde::{Deserialize, Serialize};

use crate::files;

/// Functions by name.
pub(crate) type Functions = BTreeMap<String, Identity>;

/// A unit's original, in both steps of its compilation.
#[derive(Clone, Debug)]
pub(crate) struct Original {
    /// Its functions before any pass.
    pub(crate) functions: Functions,
    /// The inliner's remarks of the compilation.
    pub(crate) compiled: String,
    /// Its native object, as the backend gives it.
    pub(crate) native: PathBuf,
    /// The inliner's remarks of the backend.
    pub(crate) linked: String,
}

/// The file that it is kept in.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// Another version may see other things.
    klpx: String,
    compiled: String,
    linked: String,
    /// Hashes of body and attributes, in hexadecimal digits.
    functions: BTreeMap<String, [String; 2]>,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Where the originals of one object's units are kept.
#[derive(Clone, Debug)]
pub(crate) struct Originals {
    pub(crate) folder: PathBuf,
}

impl Originals {
    /// In the folder of an object's link.
    pub(crate) fn of(store: &Path) -> Originals {
        Originals { folder: store.join("units") }
    }

    /// The native object of a unit, where it is known.
    pub(crate) fn native(&self, unit: &str) -> Option<PathBuf> {
        Some(self.native_path(unit)).filter(|path| path.is_file())
    }

    fn native_path(&self, unit: &str) -> PathBuf {
        self.folder.join(unit)
    }

    /// Keeps a unit's native object.
    pub(crate) fn keep_native(&self, unit: &str, native: &Path) -> Result<PathBuf> {
        let path = self.native_path(unit);
        files::keep(&path, files::read(native)?)?;
        Ok(path)
    }

    /// What is kept of a unit; `None` when that is nothing.
    pub(crate) fn read(&self, unit: &str) -> Option<Original> {
        let text = std::fs::read(self.text_path(unit)).ok()?;
        let kept: Kept = serde_json::from_slice(&text).ok()?;
        let native = self.native(unit)?;
        let hash = |digits: &String| u128::from_str_radix(digits, 16).ok();
        let functions: Option<Functions> = kept
            .functions
            .iter()
            .map(|(name, [body, attributes])| {
                Some((name.clone(), Identity { body: hash(body)?, attributes: hash(attributes)? }))
            })
            .collect();
        let functions = functions.filter(|_| kept.klpx == VERSION)?;
        Some(Original { functions, compiled: kept.compiled, native, linked: kept.linked })
    }

    /// Keeps what was learnt. The native object must be kept already.
    pub(crate) fn keep(&self, unit: &str, original: &Original) -> Result<()> {
        let hex = |hash: u128| format!("{hash:032x}");
        let functions = original.functions.iter();
        let kept = Kept {
            klpx: VERSION.to_owned(),
            compiled: original.compiled.clone(),
            linked: original.linked.clone(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let originals = Originals::of(folder.path());
        assert!(originals.read("fs/a.o").is_none() && originals.native("fs/a.o").is_none());
        let made = folder.path().join("made.o");
        std::fs::write(&made, "code").expect("a file");
        let native = originals.keep_native("fs/a.o", &made).expect("kept");
        assert_eq!(originals.native("fs/a.o").as_ref(), Some(&native));
        assert!(originals.read("fs/a.o").is_none(), "nothing but its code is known");
        let identity = Identity { body: 1, attributes: u128::MAX };
        let functions = Functions::from([("f".to_owned(), identity)]);
        let original = Original { functions, compiled: "c".into(), native, linked: "l".into() };
        originals.keep("fs/a.o", &original).expect("kept");
        let read = originals.read("fs/a.o").expect("kept");
        assert_eq!(
            (read.functions, read.compiled, read.linked),
            (original.functions, "c".into(), "l".into())
        );
        let text = std::fs::read_to_string(originals.text_path("fs/a.o")).expect("kept");
        let older = text.replace(&format!("\"{VERSION}\""), "\"0.0.1\"");
        assert_ne!(older, text);
        std::fs::write(originals.text_path("fs/a.o"), older).expect("a file");
        assert!(originals.read("fs/a.o").is_none(), "of another version");
        std::fs::write(originals.text_path("fs/a.o"), "{").expect("half a file");
        assert!(originals.read("fs/a.o").is_none());
    }
}
