//! How an item of klpx's original build agrees with the kernel's, or differs from it.

use klpx_diagnosis::{Diagnosis, Offset};

/// How an item agrees with the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Agreement {
    /// Bytes and references are identical.
    Identical,
    /// Only lengths of branches and no-operations differ.
    Branches,
    /// Only address pairs that the linker shortened differ.
    Relaxed,
    /// The item is data that two builds of one kernel never share.
    BuildIdentity,
}

/// How an item differs. Offsets are from the item's entry in klpx's build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// The kernel has no such item, or no evidence tells which one it is.
    Unbound(Box<Diagnosis>),
    /// The sizes differ.
    Size {
        /// The size in the kernel.
        kernel: u64,
        /// The size in klpx's build.
        witness: u64,
    },
    /// Bytes outside references differ.
    Bytes {
        /// The offset of the first differing byte.
        offset: i64,
    },
    /// A reference leads to another target.
    Reference {
        /// The offset of the reference.
        offset: i64,
        /// The target in the kernel.
        kernel: String,
        /// The target in klpx's build.
        witness: String,
    },
}

impl Mismatch {
    pub(super) fn text(&self) -> String {
        match self {
            Mismatch::Unbound(diagnosis) => diagnosis.to_string(),
            Mismatch::Size { kernel, witness } => {
                format!(
                    "it has {kernel} bytes in the kernel and {witness} in klpx's build of the original source"
                )
            }
            Mismatch::Bytes { offset } => format!("its code or contents differ at {}", Offset(*offset)),
            Mismatch::Reference { offset, kernel, witness } => {
                format!(
                    "at {} it refers to {kernel} in the kernel, and to {witness} in klpx's build",
                    Offset(*offset)
                )
            }
        }
    }
}
