//! Frozen names: a unit that the patch touches keeps the hash of its original, so that its promoted locals keep their names, and the
//! backends of units that only import what is still the same do not run again.
//!
//! The thin link takes the hash from the bitcode file and looks at nothing else to see what a unit is. So it is
//! frozen only when all that another unit can import from it is the same to the letter, and no result that was made under
//! a frozen hash ever gets into the workspace's own ThinLTO cache.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use klpx_diagnosis::{Diagnosis, Result};
use klpx_stabilise::ir::Module;
use klpx_stabilise::{bitcode, native};

use crate::process::{Call, Runner};
use crate::remade::FrozenUnit;
use crate::workspace::Workspace;

/// A patch that touches more units than this is built as it is: its headers are what everything imports.
const MAX_UNITS: usize = 64;

/// What LLVM takes when the kernel does not say (`-import-instr-limit`).
const DEFAULT_LIMIT: usize = 100;

/// Units that are frozen.
pub(crate) struct Frozen {
    pub(crate) units: Vec<FrozenUnit>,
    /// The ThinLTO cache that links must use then.
    pub(crate) cache: PathBuf,
}

/// Tells whether a unit can be frozen.
pub(crate) struct Freezer<'a> {
    runner: &'a Runner,
    /// `llvm-dis`.
    dis: String,
    /// Instructions of the largest function that a unit may import.
    limit: usize,
}

impl<'a> Freezer<'a> {
    pub(crate) fn new(workspace: &'a Workspace) -> Freezer<'a> {
        let makefile = std::fs::read_to_string(workspace.source_dir().join("Makefile")).unwrap_or_default();
        let limit = makefile.split_once("-import-instr-limit=").map(|(_, rest)| rest);
        let digits =
            |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
        Freezer {
            runner: &workspace.runner,
            dis: workspace.kernel().toolchain().tool("dis"),
            limit: limit.and_then(digits).unwrap_or(DEFAULT_LIMIT),
        }
    }

    /// Gives the bitcode file `patched` the hash of `original` when that is sound, and names the functions that are not the same in
    /// both. `None` when it did not. `scratch` is a folder for texts.
    pub(crate) fn freeze(
        &self,
        original: &Path,
        patched: &Path,
        scratch: &Path,
    ) -> Result<Option<Vec<String>>> {
        let frozen = frozen(original, patched)?;
        let Some(frozen) = frozen else { return Ok(None) };
        let text = |file: &Path, name: &str| -> Result<Option<String>> {
            let to = scratch.join(name);
            let done = self.runner.run(&Call::new(&self.dis).arg(file).arg("-o").arg(&to))?;
            let text = done.success.then(|| std::fs::read_to_string(&to)).transpose();
            Ok(text.map_err(|error| Diagnosis::io("read", &to, &error))?)
        };
        let (before, after) =
            super::both(|| text(original, "original.imports"), || text(patched, "patched.imports"));
        let (Some(before), Some(after)) = (before?, after?) else { return Ok(None) };
        let (before, after) = (Module::parse(&before), Module::parse(&after));
        let same = after.offers_the_same_as(&before, self.limit);
        tracing::debug!(?patched, same, "what can be imported");
        if !same {
            return Ok(None);
        }
        std::fs::write(patched, frozen).map_err(|error| Diagnosis::io("write", patched, &error))?;
        Ok(Some(after.differing(&before).into_iter().map(str::to_owned).collect()))
    }
}

/// The bytes of `patched` with the hash of `original`; `None` when one of them is no ThinLTO bitcode.
fn frozen(original: &Path, patched: &Path) -> Result<Option<Vec<u8>>> {
    let read = |path: &Path| std::fs::read(path).map_err(|error| Diagnosis::io("read", path, &error));
    let Some(hash) = bitcode::hash(&read(original)?) else { return Ok(None) };
    Ok(bitcode::with_hash(&read(patched)?, hash))
}

/// True for a file of LLVM bitcode.
pub(crate) fn is_bitcode(path: &Path) -> bool {
    let mut start = [0; 4];
    let read =
        std::fs::File::open(path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut start));
    read.is_ok() && start == *b"BC\xc0\xde"
}

/// True when a unit has the hash of its original.
pub(crate) fn is_frozen(original: &Path, unit: &Path) -> bool {
    let hash = |path: &Path| bitcode::hash(&std::fs::read(path).ok()?);
    hash(original).is_some_and(|found| hash(unit) == Some(found))
}

/// Gives a unit the hash of its original, where it is known that this is sound.
pub(crate) fn apply(original: &Path, unit: &Path) -> Result<bool> {
    let Some(bytes) = frozen(original, unit)? else { return Ok(false) };
    std::fs::write(unit, bytes).map_err(|error| Diagnosis::io("write", unit, &error))?;
    Ok(true)
}

impl Workspace {
    /// Freezes those of the units (object paths in the build tree, just compiled from the patched source, their originals below `saved`)
    /// that can be. `None` when there are none.
    pub(crate) fn freeze(&self, units: &[PathBuf], saved: &Path, work: &Path) -> Result<Option<Frozen>> {
        if units.len() > MAX_UNITS {
            return Ok(None);
        }
        let scratch = work.join("freeze");
        std::fs::create_dir_all(&scratch).map_err(|error| Diagnosis::io("create", &scratch, &error))?;
        let freezer = Freezer::new(self);
        let mut frozen = Vec::new();
        for unit in units {
            let (original, patched) = (saved.join(unit), self.build_dir().join(unit));
            if patched.is_file()
                && let Some(differing) = freezer.freeze(&original, &patched, &scratch)?
            {
                frozen.push(FrozenUnit { object: unit.clone(), differing });
            }
        }
        let stems: Vec<&OsStr> = frozen.iter().filter_map(|unit| unit.object.file_stem()).collect();
        if stems.is_empty() {
            return Ok(None);
        }
        let cache = work.join("lto-cache");
        share(&self.lto_cache(), &cache, &stems)?;
        Ok(Some(Frozen { units: frozen, cache }))
    }
}

/// A ThinLTO cache with the entries of another one, by hard links, but for those that may be of a unit of one of these
/// names: they are of another source.
pub(crate) fn share<S: AsRef<OsStr>>(from: &Path, to: &Path, without: &[S]) -> Result<()> {
    std::fs::create_dir_all(to).map_err(|error| Diagnosis::io("create", to, &error))?;
    let fail = |error: std::io::Error| Diagnosis::io("link", from, &error);
    for entry in std::fs::read_dir(from).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        if !entry.file_name().to_string_lossy().starts_with("llvmcache-") {
            continue;
        }
        let of_another = without.is_empty() || {
            let bytes = std::fs::read(entry.path()).map_err(fail)?;
            let source = native::source_file(&bytes);
            let stem = source.and_then(|name| Path::new(name).file_stem().map(OsStr::to_owned));
            stem.is_some_and(|stem| without.iter().all(|name| name.as_ref() != stem))
        };
        if of_another {
            std::fs::hard_link(entry.path(), to.join(entry.file_name())).map_err(fail)?;
        }
    }
    Ok(())
}
