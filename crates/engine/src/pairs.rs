//! The pairs of objects that are compared: their files, and the objects that are read from the files.

use std::path::{Path, PathBuf};

use klpx_diagnosis::Result;
use klpx_normalize::elf::ElfFile;
use klpx_normalize::object::Object;
use rayon::prelude::*;

/// The files of both builds of an object, or of one unit of it.
#[derive(Clone, Debug)]
pub(crate) struct PairFiles {
    /// The kernel object: `vmlinux`, or the module's name.
    pub(crate) object: String,
    /// The original compiled with exactly the kernel's flags, where the compared original is compiled with others.
    pub(crate) witness: Option<PathBuf>,
    pub(crate) original: PathBuf,
    pub(crate) patched: PathBuf,
    /// Further facts about a single unit.
    pub(crate) unit: Option<UnitOf>,
}

/// A unit that is compared with the shipped kernel object of which it is a part.
#[derive(Clone, Debug)]
pub(crate) struct UnitOf {
    /// The unit's object file, as a path in the build tree.
    pub(crate) path: String,
    /// The checksums of the unit's exports, as kbuild records them.
    pub(crate) exports: String,
    /// True if the patch adds the unit: the kernel does not have it.
    pub(crate) is_new: bool,
}

/// The files of a pair, open.
pub(crate) struct OpenPair {
    name: String,
    unit: Option<UnitOf>,
    witness: Option<ElfFile>,
    original: ElfFile,
    patched: ElfFile,
}

/// The objects of a pair, read.
pub(crate) struct PairObjects<'f> {
    /// `vmlinux`, or the module's name.
    pub(crate) name: &'f str,
    /// Further facts about a single unit.
    pub(crate) unit: Option<&'f UnitOf>,
    /// The original compiled with exactly the kernel's flags, where the compared original is compiled with others.
    pub(crate) witness: Option<Object<'f>>,
    pub(crate) original: Object<'f>,
    /// The file of `original`.
    pub(crate) original_path: &'f Path,
    pub(crate) patched: Object<'f>,
}

/// Opens the pairs.
pub(crate) fn open(pairs: &[PairFiles]) -> Result<Vec<OpenPair>> {
    let open = |pair: &PairFiles| -> Result<OpenPair> {
        Ok(OpenPair {
            name: pair.object.clone(),
            unit: pair.unit.clone(),
            witness: pair.witness.as_deref().map(ElfFile::open).transpose()?,
            original: ElfFile::open(&pair.original)?,
            patched: ElfFile::open(&pair.patched)?,
        })
    };
    pairs.iter().map(open).collect()
}

/// Reads all objects, in parallel. When they were compiled, their source lay in one of `folders`.
pub(crate) fn read<'f>(pairs: &'f [OpenPair], folders: &[PathBuf]) -> Result<Vec<PairObjects<'f>>> {
    let read = |file: &'f ElfFile| Object::read(file).map(|object| object.compiled_in(folders));
    pairs
        .par_iter()
        .map(|pair| {
            let (original, patched) = rayon::join(|| read(&pair.original), || read(&pair.patched));
            let witness = pair.witness.as_ref().map(read).transpose()?;
            let original_path = pair.original.path();
            Ok(PairObjects {
                name: &pair.name,
                unit: pair.unit.as_ref(),
                witness,
                original: original?,
                original_path,
                patched: patched?,
            })
        })
        .collect()
}
