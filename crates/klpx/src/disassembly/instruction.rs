//! An instruction as text.

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DisassembledInstruction {
    /// Where the instruction begins, in bytes from the start of the code.
    pub(crate) offset: usize,
    /// The instruction's length in bytes.
    pub(crate) length: usize,
    /// The assembler text.
    pub(crate) text: String,
    /// Everything but the distance of a branch: equal for the same instruction at another place.
    pub(crate) fixed: String,
    /// The branch, if the instruction is one that names its target by a distance.
    pub(crate) branch: Option<Branch>,
}

/// A branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Branch {
    /// The text of the branch without its target.
    pub(crate) text: String,
    /// The branch's target, in bytes from the start of the code.
    pub(crate) target: i64,
}
