//! Frozen names: a unit that the patch touches keeps the hash of its original, so that its promoted locals keep their
//! names, and the backends of units that only import what is still the same do not run again. And imports: it asks for
//! none that its original did not ask for.
//!
//! The thin link takes the hash from the bitcode file and looks at nothing else to see what a unit is. So it is frozen
//! only when all that another unit can import from it is the same to the letter, and no result that was made under a
//! frozen hash ever gets into the workspace's own ThinLTO cache.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use klpx_diagnosis::{Diagnosis, Result};
use klpx_stabilise::ir::Module;
use klpx_stabilise::{bitcode, native, summary};

use super::Level;
use crate::parallel::each;
use crate::process::{Call, Runner};
use crate::workspace::Workspace;

/// A patch that touches more units than this is built as it is: its headers are what everything imports.
pub(crate) const MAX_UNITS: usize = 64;

/// What LLVM takes when the kernel does not say (`-import-instr-limit`).
const DEFAULT_LIMIT: usize = 100;

/// What was done to a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Near {
    /// Its functions that are not the same to the letter, when it has the hash of its original.
    pub(crate) frozen: Option<Vec<String>>,
    /// Functions that it would newly import.
    pub(crate) held_back: usize,
}

/// Tells whether a unit can be frozen.
pub(crate) struct Freezer<'a> {
    runner: &'a Runner,
    /// `opt` and `llvm-dis`.
    tools: [String; 2],
    /// Instructions of the largest function that a unit may import.
    limit: usize,
    /// The original object that the units are part of.
    object: PathBuf,
    /// The functions of that, once they are asked for.
    functions: OnceLock<HashSet<Vec<u8>>>,
}

impl<'a> Freezer<'a> {
    /// `object` is what the units are linked to, as a path in the build tree.
    pub(crate) fn new(workspace: &'a Workspace, object: &Path) -> Freezer<'a> {
        let makefile = std::fs::read_to_string(workspace.source_dir().join("Makefile")).unwrap_or_default();
        let limit = makefile.split_once("-import-instr-limit=").map(|(_, rest)| rest);
        let digits =
            |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
        Freezer {
            runner: &workspace.runner,
            tools: [workspace.kernel().toolchain().opt(), workspace.kernel().toolchain().tool("dis")],
            limit: limit.and_then(digits).unwrap_or(DEFAULT_LIMIT),
            object: workspace.baseline_dir().join(object),
            functions: OnceLock::new(),
        }
    }

    /// Brings the bitcode file `patched` nearer to `original`, in place, as far as the level says and as that is sound.
    /// `scratch` is a folder for texts.
    pub(crate) fn bring_near(
        &self,
        level: Level,
        original: &Path,
        patched: &Path,
        scratch: &Path,
    ) -> Result<Near> {
        let frozen = match level >= Level::Names {
            true => self.freeze(original, patched, scratch)?,
            false => None,
        };
        let held = if level >= Level::Imports {
            let is_new = |name: &[u8]| !self.functions().contains(name);
            summary::without_new_imports(&read(original)?, &read(patched)?, is_new)
        } else {
            None
        };
        let held_back = held.as_ref().map_or(0, |held| held.functions);
        if let Some(held) = held {
            write(patched, &held.file)?;
        }
        Ok(Near { frozen, held_back })
    }

    /// All functions of the original object. None when it can't be read: everything is new then, and imported as the
    /// linker likes.
    fn functions(&self) -> &HashSet<Vec<u8>> {
        self.functions.get_or_init(|| {
            std::fs::read(&self.object).map_or_else(|_| HashSet::new(), |bytes| native::functions(&bytes))
        })
    }

    /// Gives `patched` the hash of `original` when that is sound, and names the functions that are not the same in
    /// both. `None` when it did not.
    fn freeze(&self, original: &Path, patched: &Path, scratch: &Path) -> Result<Option<Vec<String>>> {
        let Some(hash) = bitcode::hash(&read(original)?) else { return Ok(None) };
        let Some(frozen) = bitcode::with_hash(&read(patched)?, hash) else { return Ok(None) };
        std::fs::create_dir_all(scratch).map_err(|error| Diagnosis::io("create", scratch, &error))?;
        let files = [(original, scratch.join("original.ll")), (patched, scratch.join("patched.ll"))];
        let texts = each(2, files.len(), |at| self.text(files[at].0, &files[at].1));
        let texts: Result<Option<Vec<String>>> = texts.into_iter().collect();
        let Some(texts) = texts? else { return Ok(None) };
        let [before, after] = texts.as_slice() else { return Ok(None) };
        let (before, after) = (Module::parse(before), Module::parse(after));
        let same = after.offers_the_same_as(&before, self.limit);
        tracing::debug!(?patched, same, "what can be imported");
        if !same {
            return Ok(None);
        }
        write(patched, &frozen)?;
        Ok(Some(after.differing(&before).into_iter().map(str::to_owned).collect()))
    }

    /// A bitcode file as text. `opt` leaves debug information out, which is most of it; where there is none, `llvm-dis`
    /// does. `None` when both fail.
    fn text(&self, file: &Path, to: &Path) -> Result<Option<String>> {
        let [opt, dis] = &self.tools;
        let calls = [Call::new(opt).args(["-S", "--strip-debug", "-passes="]), Call::new(dis)];
        for call in calls {
            let done = self.runner.run(&call.arg(file).arg("-o").arg(to));
            if done.is_ok_and(|done| done.success) {
                let text = std::fs::read_to_string(to).map_err(|error| Diagnosis::io("read", to, &error))?;
                return Ok(Some(text));
            }
        }
        crate::process::check_interrupt()?;
        Ok(None)
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| Diagnosis::io("read", path, &error).into())
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).map_err(|error| Diagnosis::io("write", path, &error).into())
}

/// True for a file of LLVM bitcode.
pub(crate) fn is_bitcode(path: &Path) -> bool {
    let mut start = [0; 4];
    let read =
        std::fs::File::open(path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut start));
    read.is_ok() && start == *b"BC\xc0\xde"
}
