//! Keeps names and imports: a touched unit keeps the hash of its original, so that its promoted locals keep their
//! names, and it requests no imports that its original did not request.
//!
//! The thin link takes the hash from the bitcode file and looks at nothing else to identify a unit. With the original's
//! hash, the thin link does not see that there is another body to import. So units that import from a touched unit are
//! compiled again, unless everything that they can import is the same to the letter. The touched unit is then called
//! frozen.

use std::collections::HashSet;
use std::path::Path;

use crate::llvm::ir::IrModule;
use crate::llvm::{bitcode, summary};
use klpx_build_driver::process::{Call, check_interrupt};
use klpx_diagnosis::Result;

use crate::Level;
use crate::context::Context;
use crate::files;
use klpx_build_driver::each;

/// The steps that brought a unit nearer to its original.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Near {
    /// True if everything that others can import from the unit is the same to the letter.
    pub(crate) frozen: bool,
    /// The number of functions that the unit would newly import.
    pub(crate) held_back: usize,
}

impl Near {
    /// Returns true if others could import less of what the original offers than from `other`.
    pub(crate) fn offers_less_than(&self, other: &Near) -> bool {
        other.frozen && !self.frozen
    }
}

/// Brings units nearer to their originals.
pub(crate) struct Freezer<'a> {
    context: &'a Context<'a>,
    level: Level,
    /// Functions that only the patched or added units define.
    new: HashSet<Vec<u8>>,
}

impl<'a> Freezer<'a> {
    /// A freezer for pairs of original and patched files, in a link to which the patch adds the units `added`.
    pub(crate) fn new<'f>(
        context: &'a Context<'a>,
        level: Level,
        pairs: impl Iterator<Item = (&'f Path, &'f Path)>,
        added: impl Iterator<Item = &'f Path>,
    ) -> Result<Freezer<'a>> {
        let mut new = HashSet::new();
        if level >= Level::Imports {
            for (original, patched) in pairs {
                let (original, patched) = (files::read(original)?, files::read(patched)?);
                // For a file that is not understood, nothing is held back.
                let original_functions = summary::functions(&original).unwrap_or_default();
                let patched_functions = summary::functions(&patched).unwrap_or_default();
                new.extend(patched_functions.difference(&original_functions).map(|name| name.to_vec()));
            }
            for file in added {
                let file = files::read(file)?;
                new.extend(summary::functions(&file).unwrap_or_default().iter().map(|name| name.to_vec()));
            }
        }
        Ok(Freezer { context, level, new })
    }

    /// Brings the bitcode file `patched` nearer to `original`, in place, as far as the level allows. `scratch` is a
    /// folder for texts.
    pub(crate) fn bring_near(&self, original: &Path, patched: &Path, scratch: &Path) -> Result<Near> {
        keep_hash(original, patched)?;
        let frozen = self.level >= Level::Names && self.offers_the_same(original, patched, scratch)?;
        let held = if self.level >= Level::Imports {
            let is_new = |name: &[u8]| self.new.contains(name);
            summary::without_new_imports(&files::read(original)?, &files::read(patched)?, is_new)
        } else {
            None
        };
        let held_back = held.as_ref().map_or(0, |held| held.functions);
        if let Some(held) = held {
            files::write(patched, &held.file)?;
        }
        Ok(Near { frozen, held_back })
    }

    /// Returns true if everything that another unit can import is the same to the letter in two bitcode files.
    fn offers_the_same(&self, original: &Path, patched: &Path, scratch: &Path) -> Result<bool> {
        files::create_dir(scratch)?;
        let texts = [(original, scratch.join("original.ll")), (patched, scratch.join("patched.ll"))];
        let texts = each(2, texts.len(), |at| self.text(texts[at].0, &texts[at].1));
        let texts: Result<Option<Vec<String>>> = texts.into_iter().collect();
        let Some(texts) = texts? else { return Ok(false) };
        let [before, after] = texts.as_slice() else { return Ok(false) };
        let (before, after) = (IrModule::parse(before), IrModule::parse(after));
        let same = after.offers_the_same_as(&before, self.context.import_limit);
        tracing::debug!(?patched, same, "what can be imported");
        Ok(same)
    }

    /// A bitcode file as text, from `opt`, which leaves out the debug information that makes up most of the text. If
    /// `opt` fails, `llvm-dis` is used. `None` if both fail.
    fn text(&self, file: &Path, to: &Path) -> Result<Option<String>> {
        let [opt, dis] = &self.context.readers;
        let calls = [Call::new(opt).args(["-S", "--strip-debug", "-passes="]), Call::new(dis)];
        for call in calls {
            let done = self.context.runner.run(&call.arg(file).arg("-o").arg(to));
            if done.is_ok_and(|done| done.success) {
                return Ok(Some(String::from_utf8_lossy(&files::read(to)?).into_owned()));
            }
        }
        check_interrupt()?;
        Ok(None)
    }
}

/// Gives `patched` the hash of `original`. If a file is not understood, `patched` keeps its own hash, and units that
/// import from it see the change.
fn keep_hash(original: &Path, patched: &Path) -> Result<()> {
    let Some(hash) = bitcode::hash(&files::read(original)?) else { return Ok(()) };
    match bitcode::with_hash(&files::read(patched)?, hash) {
        Some(kept) => files::write(patched, &kept),
        None => Ok(()),
    }
}
