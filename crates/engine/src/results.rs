//! What a build found and made, as far as it came.

use std::collections::BTreeMap;
use std::path::PathBuf;

use klpx_diagnosis::Note;
use klpx_verify::Verified;
use serde::Serialize;

use crate::analysis::Finding;
use crate::bound::BoundSymbol;
use crate::code::Code;
use crate::holders::Unaffected;
use crate::inputs::Input;
use crate::layouts::Accepted;
use crate::stabilise::Stabilised;
use crate::transition::Waiting;

/// Everything that a report can tell of a build. Filled stage by stage; what a failed build found stays in it.
#[derive(Debug, Default, Serialize)]
pub struct Results {
    /// The kernel, once it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<KernelFacts>,
    /// The files that the module was made from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Input>,
    /// Units that were compared with the kernel that they are part of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<UnitFacts>,
    /// Changed and new functions that the module holds.
    pub changes: Vec<Finding>,
    /// What differs but is not in the module, and why.
    pub left_out: Vec<Finding>,
    /// Functions that held inlined copies of what the patch edits, and whose code is the same in the patched build.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unaffected: Vec<Unaffected>,
    /// Symbols of the kernel that the module is bound to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bound: Vec<BoundSymbol>,
    /// The texts of the patches, in their order, where they are asked for.
    #[serde(skip)]
    pub patches: Vec<Vec<u8>>,
    /// The code of `changes` in both builds, where it is asked for.
    #[serde(skip)]
    pub code: Vec<Code>,
    /// Touched units of which nothing can be imported that is not the same to the letter.
    #[serde(skip_serializing_if = "is_zero")]
    pub frozen: usize,
    /// Functions that touched units would newly import, and do not.
    #[serde(skip_serializing_if = "is_zero")]
    pub held_back: usize,
    /// What the stabilised rebuild did, by object; empty when there was nothing to do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stabilised: Vec<Stabilised>,
    /// Changed layouts that the user accepts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub accepted_layouts: Vec<Accepted>,
    /// Replaced functions that keep the livepatch's transition waiting, because tasks stay in them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub transition: Vec<Waiting>,
    /// The objects that were compared, where they are kept.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<ObjectFiles>,
    /// The objects that kbuild compiled for the module itself, where the objects are kept.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub glue: Vec<PathBuf>,
    /// The files of the kernel that the module was bound to and verified against, where the objects are kept.
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
    /// What `uname -r` says in it.
    pub release: String,
    /// Its architecture.
    pub arch: String,
    /// Its compiler, such as `gcc 12.2.0`.
    pub compiler: String,
    /// Variables that its make was given beyond those that klpx knows, each as `NAME=VALUE`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub make: Vec<String>,
    /// Its key in the cache.
    pub key: String,
}

/// Files of the kernel to be patched.
#[derive(Debug, Serialize)]
pub struct TargetFiles {
    /// The image with symbols.
    pub vmlinux: PathBuf,
    /// Its Module.symvers.
    pub symvers: PathBuf,
    /// Folders with its modules.
    pub modules: Vec<PathBuf>,
    /// Folders with copies of them that were not stripped.
    pub debug_modules: Vec<PathBuf>,
}

/// One touched unit.
#[derive(Debug, Serialize)]
pub struct UnitFacts {
    /// Its object, as a path in the build tree.
    pub unit: String,
    /// The kernel object that it is part of: `vmlinux` or a module's name.
    pub object: String,
    /// Its functions that are the shipped ones.
    pub equal: usize,
    /// Its functions that are not, for a known reason.
    pub explained: usize,
}

/// The two builds of an object of the kernel.
#[derive(Debug, Serialize)]
pub struct ObjectFiles {
    /// `vmlinux` or a module's name.
    pub object: String,
    /// The original build of it, or of one unit of it.
    pub original: PathBuf,
    /// The patched one.
    pub patched: PathBuf,
    /// Symbols of the patched build whose names alone do not tell what they are, by index: the original's symbol for each,
    /// none for what is new. Verification takes them as claims.
    pub claims: BTreeMap<u32, Option<u32>>,
    /// Symbols of the original that are weak, by index, and in whose place the kernel has another unit's.
    pub gave_way: Vec<u32>,
}

/// A finished module.
#[derive(Debug)]
pub struct Made {
    /// The file's contents.
    pub bytes: Vec<u8>,
    /// What was checked.
    pub verified: Verified,
}
