//! The compiled objects of both sources, and what is known of the objects before they are read.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use klpx_build_driver::{ExternalPairs, Patched, Remade, UnitList, UnitPairs};

use crate::holders::LeftOut;
use crate::inlining::OriginalInlinings;
use crate::pairs::PairFiles;

/// The objects of the original and the patched source, and what is known of the objects before they are read.
pub(crate) struct CompiledPairs<'a> {
    pub(crate) pairs: Vec<PairFiles>,
    pub(crate) originals: OriginalInlinings<'a>,
    pub(crate) remade: Remade,
    /// Functions that inline what the patch edits, in objects that belong to no pair.
    pub(crate) left_out: Vec<LeftOut>,
    /// Names that denote something else in the patched objects of other units.
    pub(crate) moved: BTreeSet<Vec<u8>>,
    /// The source tree that was given to the compiler.
    pub(crate) tree: PathBuf,
    pub(crate) work: Work,
    /// The kernel's units, if further units can be compiled.
    pub(crate) list: Option<UnitList>,
}

/// Keeps the folder of the patched objects alive for as long as they are needed.
pub(crate) enum Work {
    Units(UnitPairs),
    External(ExternalPairs),
    Whole(Patched),
}

impl Work {
    pub(crate) fn dir(&self) -> &Path {
        match self {
            Work::Units(units) => units.work_dir(),
            Work::External(made) => made.work_dir(),
            Work::Whole(patched) => patched.work_dir(),
        }
    }
}
