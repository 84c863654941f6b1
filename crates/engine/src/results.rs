//! What a build found and made, up to the stage that it reached.

use std::collections::BTreeMap;
use std::path::PathBuf;

use klpx_diagnosis::Note;
use klpx_thinlto::Level;
use klpx_verify::Verified;
use serde::Serialize;

use crate::bound::KernelReference;
use crate::code::Code;
use crate::finding::Finding;
use crate::holders::Unaffected;
use crate::inputs::Input;
use crate::layouts::Accepted;
use crate::transition::Waiting;

/// Everything that a report can tell about a build. Each stage adds to it; a failed build keeps what it found.
#[derive(Debug, Default, Serialize)]
pub struct Results {
    /// The kernel, once it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<KernelFacts>,
    /// The files from which the module was made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Input>,
    /// The units that were compared with the kernel object of which they are a part.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<UnitFacts>,
    /// Changed and new functions in the module.
    pub changes: Vec<Finding>,
    /// What differs but is not in the module, and why.
    pub left_out: Vec<Finding>,
    /// Functions that held inlined copies of what the patch edits, and whose code is the same in the patched build.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unaffected: Vec<Unaffected>,
    /// Symbols of the kernel to which the module is bound.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bound: Vec<KernelReference>,
    /// The texts of the patches, in their order, if requested.
    #[serde(skip)]
    pub patches: Vec<Vec<u8>>,
    /// The code of `changes` in both builds, if requested.
    #[serde(skip)]
    pub code: Vec<Code>,
    /// The number of frozen units: touched units in which everything that others can import is the same to the letter.
    #[serde(skip_serializing_if = "is_zero")]
    pub frozen: usize,
    /// The number of functions that touched units would newly import, but are kept from importing.
    #[serde(skip_serializing_if = "is_zero")]
    pub held_back: usize,
    /// What the stabilised rebuild did, by object; empty if there was nothing to do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stabilised: Vec<Stabilised>,
    /// Changed layouts and changed `__init` functions that the user accepts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub accepted_layouts: Vec<Accepted>,
    /// Replaced functions that keep the livepatch's transition waiting because tasks stay in them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub transition: Vec<Waiting>,
    /// The compared objects, if they are kept.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<ObjectFiles>,
    /// The objects that kbuild compiled for the module itself, if they are kept.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub glue: Vec<PathBuf>,
    /// The kernel files to which the module was bound and against which it was verified, if the objects are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_files: Option<TargetFiles>,
    /// Things to know that stop nothing.
    pub notes: Vec<Note>,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// The kernel to be patched.
#[derive(Debug, Serialize)]
pub struct KernelFacts {
    /// The kernel's release, as `uname -r` shows it.
    pub release: String,
    /// The kernel's architecture.
    pub arch: String,
    /// The kernel's compiler, such as `gcc 12.2.0`.
    pub compiler: String,
    /// Make variables that the kernel was built with and that klpx does not set itself, each as `NAME=VALUE`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub make: Vec<String>,
    /// The kernel's key in the cache.
    pub key: String,
}

/// Files of the kernel to be patched.
#[derive(Debug, Serialize)]
pub struct TargetFiles {
    /// The kernel's image with symbols.
    pub vmlinux: PathBuf,
    /// The kernel's Module.symvers.
    pub symvers: PathBuf,
    /// Folders with the kernel's modules.
    pub modules: Vec<PathBuf>,
    /// Folders with copies of the modules that were not stripped.
    pub debug_modules: Vec<PathBuf>,
}

/// One touched unit.
#[derive(Debug, Serialize)]
pub struct UnitFacts {
    /// The unit's object file, as a path in the build tree.
    pub unit: String,
    /// The kernel object of which the unit is a part: `vmlinux` or a module's name.
    pub object: String,
    /// How many of the unit's functions equal the shipped ones.
    pub equal: usize,
    /// How many of the unit's functions differ from the shipped ones for a known reason.
    pub explained: usize,
}

/// The two builds of a kernel object.
#[derive(Debug, Serialize)]
pub struct ObjectFiles {
    /// `vmlinux` or a module's name.
    pub object: String,
    /// The original build of the object, or of one unit of it.
    pub original: PathBuf,
    /// The patched build of the object, or of one unit of it.
    pub patched: PathBuf,
    /// Symbols of the patched build whose names alone do not tell what they are, by index. Each maps to the original's
    /// symbol, or to none if it is new. Verification takes these pairs as claims.
    pub claims: BTreeMap<u32, Option<u32>>,
    /// Weak symbols of the original, by index, in whose place the kernel uses another unit's symbol.
    pub gave_way: Vec<u32>,
}

/// What the stabilised rebuild did to one kernel object.
#[derive(Debug, Serialize)]
pub struct Stabilised {
    /// The object: of a ThinLTO link, or of a single unit without LTO.
    pub(crate) object: String,
    /// The level that was reached.
    pub(crate) level: Level,
    /// Functions of the touched units that differ in the plain build.
    pub(crate) plain: usize,
    /// Functions of the touched units that differ in the chosen build.
    pub(crate) taken: usize,
    /// Why no higher level was reached, if one was requested.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) why: String,
}

/// A finished module.
#[derive(Debug)]
pub struct FinishedModule {
    /// The module file's contents.
    pub bytes: Vec<u8>,
    /// What was checked.
    pub verified: Verified,
}
