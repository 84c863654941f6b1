//! A finding: one changed or new function in the words of the report, with the cause of the change.

use klpx_build_driver::PlacedHunk;
use klpx_normalize::name::{is_apart, without_promotion};
use klpx_normalize::object::{ItemId, Object};
use serde::Serialize;

use crate::inlining::Inlines;

/// One changed or new function or data object.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// The kernel object that the function belongs to: `vmlinux` or a module's name.
    pub object: String,
    /// The function's name, without a `.llvm.<hash>`.
    pub function: String,
    /// What happened to the function.
    pub kind: ChangeKind,
    /// Why the function is in the change set, where that is known. Debug information tells most causes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// The function's inlined copies of functions that the patch edits, those in the original first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inlines: Vec<Inlines>,
    /// The hunks that edit the function or what it inlines. Empty where debug information does not tell, or where no
    /// hunk edits either.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hunks: Vec<PlacedHunk>,
    /// One line for people.
    pub why: String,
    /// The source file of the first difference, or of a new function's beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line in `file`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// All reasons, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
}

impl Finding {
    /// Returns true for a piece of a function that lies apart (`f.cold`): the piece comes with its function and is not
    /// counted as a function.
    pub(crate) fn is_apart(&self) -> bool {
        is_apart(self.function.as_bytes())
    }

    /// A function in the change set for [`Cause::Uses`].
    pub(crate) fn user(
        object_name: &str,
        patched: &Object<'_>,
        item: ItemId,
        (constant, callee): (Option<ItemId>, Option<&str>),
    ) -> Finding {
        let why = match (constant, callee) {
            (Some(constant), _) => format!("uses the changed constant {}", name(patched, constant)),
            (None, Some(callee)) => format!("calls {callee}, which ftrace can't reach"),
            // The function's unlikely part uses the changed function.
            (None, None) => "uses a changed function that can't be replaced by itself".to_owned(),
        };
        Finding {
            object: object_name.to_owned(),
            function: name(patched, item),
            kind: ChangeKind::Changed,
            cause: Some(Cause::Uses),
            inlines: Vec::new(),
            hunks: Vec::new(),
            why,
            file: None,
            line: None,
            reasons: Vec::new(),
        }
    }
}

/// What happened to an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// The item differs from the original's.
    Changed,
    /// The original does not have the item.
    New,
    /// Only the original has the item.
    Removed,
}

/// Why a function differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The patch edits the function's lines.
    Edited,
    /// The function holds an inlined copy of a function that the patch edits.
    Inlines,
    /// The function was inlined into a function that changed, and is now out of line.
    InlinedNoLonger,
    /// The function refers to a function that changed, and the compiler relied on something that no longer holds of it.
    ReliesOn,
    /// A function that changed refers to this one, so this one's arguments, or its calls from elsewhere, may differ.
    CalledBy,
    /// The function's own code is the same, but must use the new version of what the patch changes: of a constant, or of a
    /// function that ftrace can't reach.
    Uses,
    /// The compiler inlines other functions into this one than before, and no cause above applies.
    InlinesOtherwise,
    /// No cause above applies: a decision of the compiler, or a change of a macro, a type or a datum.
    Otherwise,
}

impl Cause {
    /// Returns true if no change of the patch is known to lead to the function.
    pub(crate) fn is_unexplained(self) -> bool {
        matches!(self, Cause::InlinesOtherwise | Cause::Otherwise)
    }
}

/// An item's name without the hash that ThinLTO puts on it: the hash differs from build to build.
pub fn name(object: &Object<'_>, item: ItemId) -> String {
    String::from_utf8_lossy(without_promotion(object.item_name(item))).into_owned()
}
